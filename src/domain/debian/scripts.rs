//! Maintainer scripts: none is ever run. What each known one does that a runtime needs is listed here by the script's digest.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::domain::value::Digest;

/// The scripts that somebody has looked at: digest, package, script, and what is done in its place.
const KNOWN: &str = include_str!("scripts.txt");

/// Which scripts of a package matter for a first installation.
pub const RELEVANT: [&str; 2] = ["preinst", "postinst"];

/// What is done in place of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `/etc/ssl/certs/ca-certificates.crt` is made of the certificates in `/usr/share/ca-certificates`.
    Certificates,
    /// `/etc/ssl/certs/java/cacerts` is made of the same.
    Keystore,
    /// A symbolic link: where it is and where it leads.
    Link(String, String),
    /// A copy of a file: where it is made and of what.
    Copy(String, String),
    /// A directory: where, permission bits, user and group.
    Directory(String, u32, u32, u32),
    /// A user of the system with a group of the same name and number: its name, number, home directory.
    User(String, u32, String),
    /// Whom something that a package has belongs to: where, permission bits, user and group.
    Own(String, u32, u32, u32),
}

/// What stands for a script with this digest, for a base of `architecture`; none when it is not known.
#[must_use]
pub fn replacement(script: Digest, architecture: &str) -> Option<Vec<Action>> {
    static TABLE: LazyLock<BTreeMap<Digest, &'static str>> =
        LazyLock::new(|| lines().map(|line| (line.0, line.2)).collect());
    let multiarch = match architecture {
        "arm64" => "aarch64-linux-gnu",
        _ => "x86_64-linux-gnu",
    };
    let text = TABLE.get(&script)?.replace("${arch}", architecture).replace("${multiarch}", multiarch);
    text.split(';').filter(|text| text.trim() != "nothing").map(|text| action(text.trim())).collect()
}

/// The table's lines: digest, `package.script`, actions.
pub fn lines() -> impl Iterator<Item = (Digest, &'static str, &'static str)> {
    let lines = KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| {
        let (digest, rest) = line.split_once(' ')?;
        let (name, actions) = rest.split_once(' ')?;
        Some((format!("sha256:{digest}").parse().ok()?, name, actions))
    })
}

fn action(text: &str) -> Option<Action> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let attributes = |mode: &str, owner: &str| {
        let (uid, gid) = owner.split_once(':')?;
        Some((u32::from_str_radix(mode, 8).ok()?, uid.parse().ok()?, gid.parse().ok()?))
    };
    match *words.as_slice() {
        ["certificates"] => Some(Action::Certificates),
        ["keystore"] => Some(Action::Keystore),
        ["link", path, target] => Some(Action::Link(path.to_owned(), target.to_owned())),
        ["copy", path, from] => Some(Action::Copy(path.to_owned(), from.to_owned())),
        ["user", name, uid, home] => Some(Action::User(name.to_owned(), uid.parse().ok()?, home.to_owned())),
        ["directory", path, mode, owner] => {
            let (mode, uid, gid) = attributes(mode, owner)?;
            Some(Action::Directory(path.to_owned(), mode, uid, gid))
        }
        ["own", path, mode, owner] => {
            let (mode, uid, gid) = attributes(mode, owner)?;
            Some(Action::Own(path.to_owned(), mode, uid, gid))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_can_be_read() {
        let written = KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(lines().count(), written);
        for (digest, name, actions) in lines() {
            assert!(replacement(digest, "amd64").is_some(), "{name}: {actions}");
        }
        assert_eq!(replacement(Digest::of(b"#!/bin/sh\nrm -rf /\n"), "amd64"), None);
    }
}
