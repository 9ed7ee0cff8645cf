//! What --chmod asks for: permission bits, or changes of those that a file has (chmod(1)).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Permission bits with setuid, setgid and sticky, given or to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Mode {
    /// These.
    Bits(u32),
    /// Those of the file, changed.
    Changes(Changes),
}

/// `u=rwX,go=rX` and the like, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Changes {
    text: String,
    changes: Vec<Change>,
}

/// Text that is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected permission bits, for example --chmod=0755 or --chmod=u=rwX,go=rX")]
pub struct ModeError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    /// The bits that may change.
    who: u32,
    operation: Operation,
    /// Bits for everybody.
    bits: u32,
    /// `X`: x where it is a directory or somebody may execute it.
    search: bool,
    /// `g` of `u=g`: the shift of the class whose bits are taken.
    like: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

/// Shifts and bits of user, group and others. Sticky is nobody's: it changes where `t` is written.
const CLASSES: [(char, u32, u32); 3] = [('u', 6, 0o4700), ('g', 3, 0o2070), ('o', 0, 0o0007)];
const ALL: u32 = 0o6777;
const STICKY: u32 = 0o1000;

impl Mode {
    /// The mode of a file or directory that has `own`.
    #[must_use]
    pub fn of(&self, own: u32, directory: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Changes(changes) => {
                changes.changes.iter().fold(own, |mode, change| change.apply(mode, own, directory))
            }
        }
    }

    /// Every mode that it can give to some file, or to some directory.
    #[must_use]
    pub fn possible(&self, directory: bool) -> BTreeSet<u32> {
        (0..=0o7777).map(|own| self.of(own, directory)).collect()
    }

    /// The bits, where they do not depend on the file.
    #[must_use]
    pub fn bits(&self) -> Option<u32> {
        match self {
            Self::Bits(bits) => Some(*bits),
            Self::Changes(_) => None,
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            return bits.map(Self::Bits).ok_or(ModeError);
        }
        Changes::try_from(text.to_owned()).map(Self::Changes)
    }
}

impl TryFrom<String> for Changes {
    type Error = ModeError;

    fn try_from(text: String) -> Result<Self, ModeError> {
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let end = clause.find(['+', '-', '=']).ok_or(ModeError)?;
            let (classes, mut rest) = clause.split_at(end);
            let who = who(classes)?;
            while let Some(first) = rest.chars().next() {
                let operation = match first {
                    '+' => Operation::Add,
                    '-' => Operation::Remove,
                    '=' => Operation::Set,
                    _ => return Err(ModeError),
                };
                let after = rest.get(1..).unwrap_or_default();
                let end = after.find(['+', '-', '=']).unwrap_or(after.len());
                let (permissions, next) = after.split_at(end);
                changes.push(change(who, operation, permissions)?);
                rest = next;
            }
        }
        Ok(Self { text, changes })
    }
}

impl From<Changes> for String {
    fn from(changes: Changes) -> Self {
        changes.text
    }
}

fn who(classes: &str) -> Result<u32, ModeError> {
    // Nobody named is everybody: no umask has a say in a build.
    if classes.is_empty() {
        return Ok(ALL);
    }
    let mask = |class: char| match class {
        'a' => Ok(ALL),
        _ => CLASSES.iter().find(|(name, ..)| *name == class).map(|(.., mask)| *mask).ok_or(ModeError),
    };
    classes.chars().try_fold(0, |all, class| Ok(all | mask(class)?))
}

fn change(who: u32, operation: Operation, permissions: &str) -> Result<Change, ModeError> {
    let mut change = Change { who, operation, bits: 0, search: false, like: None };
    let class = |letter: char| CLASSES.iter().find(|(name, ..)| *name == letter).map(|(_, shift, _)| *shift);
    if let Some(like) = permissions.chars().map(class).collect::<Option<Vec<_>>>() {
        // Of several the last one counts, as in BuildKit.
        return Ok(Change { like: like.last().copied(), ..change });
    }
    for letter in permissions.chars() {
        match letter {
            'r' => change.bits |= 0o444,
            'w' => change.bits |= 0o222,
            'x' => change.bits |= 0o111,
            's' => change.bits |= 0o6000,
            't' => {
                change.bits |= STICKY;
                change.who |= STICKY;
            }
            'X' => change.search = true,
            _ => return Err(ModeError),
        }
    }
    Ok(change)
}

impl Change {
    /// Changes `mode`; `own` is what the file had before any change, which is what `X` looks at (chmod(1)).
    fn apply(self, mode: u32, own: u32, directory: bool) -> u32 {
        let mut bits = self.bits | self.like.map_or(0, |shift| (mode >> shift & 0o7) * 0o111);
        if self.search && (directory || own & 0o111 != 0) {
            bits |= 0o111;
        }
        let bits = bits & self.who;
        match self.operation {
            Operation::Add => mode | bits,
            Operation::Remove => mode & !bits,
            Operation::Set => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_what_chmod_makes_of_them() {
        for (text, own, directory, expected) in [
            ("0640", 0o755, false, 0o640),
            ("4755", 0o644, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w,u+w", 0o777, false, 0o755),
            ("go=", 0o777, false, 0o700),
            ("go=u-w", 0o750, false, 0o755),
            ("g=u,o-rwx", 0o640, false, 0o660),
            ("u+s,+t", 0o755, true, 0o5755),
            ("ug+s", 0o755, false, 0o6755),
            ("=rw,+X", 0o755, false, 0o777),
            ("u=rwX,go=rX", 0o1777, true, 0o1755),
            ("u+t", 0o755, true, 0o1755),
            ("u=go", 0o641, false, 0o141),
        ] {
            let mode: Mode = text.parse().unwrap();
            assert_eq!(mode.of(own, directory), expected, "{text} of {own:o}");
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(serde_json::from_str::<Mode>(&json).unwrap(), mode);
        }
        for bad in ["", "x", "9", "77777", "8", "u", "q+x", "u+y", "u=rw,", "u=gw", "+x+é", "0x1"] {
            assert_eq!(bad.parse::<Mode>(), Err(ModeError), "{bad}");
        }
    }
}
