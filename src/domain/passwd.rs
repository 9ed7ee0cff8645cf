//! The generated `/etc/passwd` and `/etc/group` of a build Pod, and reading a home out of such a file.

use super::recipe::Owner;
use serde::{Deserialize, Serialize};

/// The home of a user that has none: always writable, since `/tmp` is.
pub const FALLBACK_HOME: &str = "/tmp/home";

/// The home of the generated user: a scratch volume of the Pod.
const HOME: &str = super::plan::HOME;

/// A passwd file in which `uid` has an entry (Java's `user.home` and ssh read it, not `HOME`).
#[must_use]
pub fn passwd(uid: u32, gid: u32) -> String {
    let own = match uid {
        0 => String::new(),
        uid => format!("build:x:{uid}:{gid}:build:{HOME}:/bin/sh\n"),
    };
    let nobody = if uid == 65534 { "" } else { "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n" };
    format!("root:x:0:0:root:/root:/bin/sh\n{own}{nobody}")
}

/// The group file that belongs to [`passwd`].
#[must_use]
pub fn group(gid: u32) -> String {
    let own = match gid {
        0 | 65534 => String::new(),
        gid => format!("build:x:{gid}:\n"),
    };
    format!("root:x:0:\n{own}nogroup:x:65534:\n")
}

/// The home of `uid` in the text of a passwd file.
#[must_use]
pub fn home(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2)).flatten().filter(|home| home.starts_with('/'))
    })
}

/// A user of a container, looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home directory; `/` for a user without an entry.
    pub home: String,
}

impl User {
    /// Whom this user's files belong to.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }
}

/// Looks `user` up as container runtimes do (OCI image-spec, config.md "User"): `name[:group]`, either as a number too;
/// empty is root. A number needs no entry; without a group it is the entry's, else 0, and the groups that have the user
/// as a member come with it.
///
/// # Errors
/// When a name has no entry; says which.
pub fn look_up(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, wanted_group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let id: Option<u32> = name.parse().ok();
    let is_it = |fields: &Vec<&str>| match id {
        Some(id) => fields.get(2).is_some_and(|field| field.parse() == Ok(id)),
        None => fields.first() == Some(&name),
    };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(is_it);
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index).copied());
    let uid = id.or_else(|| field(2)?.parse().ok());
    let uid = uid.ok_or_else(|| format!("the user `{name}` is not in the image's /etc/passwd"))?;
    let gid = match wanted_group {
        None => field(3).and_then(|field| field.parse().ok()).unwrap_or_default(),
        Some(name) => name
            .parse()
            .ok()
            .or_else(|| group_id(group, name))
            .ok_or_else(|| format!("the group `{name}` is not in the image's /etc/group"))?,
    };
    let home = field(5).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    let groups = if wanted_group.is_none() { memberships(group, field(0)) } else { Vec::new() };
    Ok(User { uid, gid, groups, home })
}

/// The groups that list `login` as a member.
fn memberships(group: &str, login: Option<&str>) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let (id, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| Some(member) == login).then_some(id)
    };
    group.lines().filter_map(of_line).collect()
}

fn group_id(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_one_entry_and_a_home() {
        for (uid, expected) in [(65532, HOME), (0, "/root"), (1_000_680_000, HOME), (65534, HOME)] {
            let text = passwd(uid, 0);
            assert_eq!(home(&text, uid), Some(expected));
            let entries = text.lines().filter(|line| line.split(':').nth(2) == Some(&uid.to_string()));
            assert_eq!(entries.count(), 1, "{uid}");
        }
    }

    #[test]
    fn homes_are_read_from_foreign_files() {
        let text = "root:x:0:0::/root:/bin/sh\nbroken\ngradle:x:1000:1000::/home/gradle:/bin/bash\nempty:x:5:5:::\n";
        assert_eq!(home(text, 1000), Some("/home/gradle"));
        assert_eq!((home(text, 5), home(text, 6)), (None, None));
    }

    #[test]
    fn users_are_looked_up_as_runtimes_do() {
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken:x\n";
        let group = "root:x:0:\nstaff:x:50:\n";
        let found = |user: &str| look_up(user, passwd, group).map(|user| (user.uid, user.gid, user.home));
        for (user, uid, gid, home) in [
            ("app", 1000, 1001, "/home/app"),
            ("1000", 1000, 1001, "/home/app"),
            ("app:staff", 1000, 50, "/home/app"),
            ("7", 7, 0, "/"),
            ("7:8", 7, 8, "/"),
            ("root", 0, 0, "/root"),
        ] {
            assert_eq!(found(user), Ok((uid, gid, home.to_owned())), "{user}");
        }
        assert_eq!(found(""), Ok((0, 0, "/root".to_owned())));
        let members = "root:x:0:\nusers:x:1001:\ndocker:x:999:other,app\nstaff:x:50:\n";
        let groups = |user: &str| look_up(user, passwd, members).map(|user| user.groups);
        assert_eq!((groups("app"), groups("1000"), groups("7")), (Ok(vec![999]), Ok(vec![999]), Ok(Vec::new())));
        assert_eq!(groups("app:staff"), Ok(Vec::new()));
        assert!(found("nobody").unwrap_err().contains("/etc/passwd"));
        assert!(found("app:none").unwrap_err().contains("/etc/group"));
        assert!(found("broken").is_err());
    }

    #[test]
    fn groups_name_the_group_of_the_user() {
        assert_eq!(group(65532), "root:x:0:\nbuild:x:65532:\nnogroup:x:65534:\n");
        assert_eq!(group(0), "root:x:0:\nnogroup:x:65534:\n");
    }
}
