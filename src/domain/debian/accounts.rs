//! Users and groups of a base: those that every Debian system has, one to run programs as, and those of packages.

use std::fmt::Write as _;

/// Users of Debian's base-passwd: name, user, group, home directory.
const USERS: &[(&str, u32, u32, &str)] = &[
    ("root", 0, 0, "/root"),
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, 65534, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("_apt", 42, 65534, "/nonexistent"),
    ("nobody", 65534, 65534, "/nonexistent"),
    ("nonroot", 65532, 65532, "/home/nonroot"),
];

/// Its groups.
const GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
    ("nonroot", 65532),
];

/// A user that a package brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name, and that of its group.
    pub name: String,
    /// Its number, and that of its group.
    pub id: u32,
    /// Its home directory.
    pub home: String,
}

/// `/etc/passwd`. Nobody can log in.
#[must_use]
pub fn passwd(users: &[User]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, uid: u32, gid: u32, home: &str| {
        let _ = writeln!(text, "{name}:x:{uid}:{gid}:{name}:{home}:/usr/sbin/nologin");
    };
    for (name, uid, gid, home) in USERS {
        line(name, *uid, *gid, home);
    }
    for user in users {
        line(&user.name, user.id, user.id, &user.home);
    }
    text
}

/// `/etc/group`.
#[must_use]
pub fn group(users: &[User]) -> String {
    let mut text = String::new();
    let own = users.iter().map(|user| (user.name.as_str(), user.id));
    for (name, id) in GROUPS.iter().copied().chain(own) {
        let _ = writeln!(text, "{name}:x:{id}:");
    }
    text
}
