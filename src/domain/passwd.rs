//! The generated `/etc/passwd` and `/etc/group` of a build Pod, and reading a home out of such a file.

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
}
