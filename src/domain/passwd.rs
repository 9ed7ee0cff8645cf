//! The generated `/etc/passwd` and `/etc/group` of a build Pod, and reading a home out of such a file.

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

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// The account that `user` of an image config (`user[:group]`, names or numbers; empty is root) means with these files;
/// none when they have no such name (OCI image-spec, config.md "User").
#[must_use]
pub fn account(user: &str, passwd: &str, group: &str) -> Option<Account> {
    let (name, wanted_group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.first().is_some_and(|found| found == name) || entry.get(2).is_some_and(|found| found == name)
    });
    let number = |index: usize| entry.as_ref().and_then(|entry| entry.get(index)?.parse().ok());
    let uid = number(2).or_else(|| name.parse().ok())?;
    let login = entry.as_ref().and_then(|entry| entry.first()).map(String::as_str);
    let mut groups = Vec::new();
    let mut gid = number(3).unwrap_or(0);
    for line in group.lines().map(fields) {
        let (Some(name), Some(id)) = (line.first(), line.get(2).and_then(|id| id.parse().ok())) else { continue };
        if wanted_group == Some(name) {
            gid = id;
        }
        let members = line.get(3).map(String::as_str).unwrap_or_default();
        if wanted_group.is_none() && login.is_some_and(|login| members.split(',').any(|member| member == login)) {
            groups.push(id);
        }
    }
    match wanted_group.map(str::parse) {
        Some(Ok(number)) => gid = number,
        Some(Err(_)) if !group.lines().any(|line| line.split(':').next() == wanted_group) => return None,
        _ => {}
    }
    Some(Account { uid, gid, groups })
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
    fn groups_name_the_group_of_the_user() {
        assert_eq!(group(65532), "root:x:0:\nbuild:x:65532:\nnogroup:x:65534:\n");
        assert_eq!(group(0), "root:x:0:\nnogroup:x:65534:\n");
    }

    #[test]
    fn users_of_image_configs_are_looked_up_as_runtimes_do() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbuilder:x:1000:100::/home/builder:/bin/sh\n";
        let group = "root:x:0:\nusers:x:100:\ndocker:x:999:other,builder\nstaff:x:50:\n";
        let of = |uid, gid, groups: &[u32]| Some(Account { uid, gid, groups: groups.to_vec() });
        for (user, expected) in [
            ("", of(0, 0, &[])),
            ("builder", of(1000, 100, &[999])),
            ("1000", of(1000, 100, &[999])),
            ("4242", of(4242, 0, &[])),
            ("builder:staff", of(1000, 50, &[])),
            ("7:8", of(7, 8, &[])),
            ("nobody", None),
            ("builder:nogroup", None),
        ] {
            assert_eq!(account(user, passwd, group), expected, "{user}");
        }
    }
}
