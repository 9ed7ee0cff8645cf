//! What an output may hold: every entry that a build container sends is checked here before it is packed.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
};

use super::{
    mode::Mode,
    recipe::{CopyItem, Docker, Output, Parents},
    tree::{Entry, Kind, PARENT, TreePath, carries_directory, carries_parent},
};

/// How much may still come: shared by all outputs of a stage for bytes, anew for each for entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes of file contents and headers.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// Why an entry is refused; made for the message that people see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Not under any destination of the output, or with another owner or mode than its item gives.
    #[error("{0} was sent but is not declared like this")]
    Undeclared(TreePath),
    /// Out of order or sent twice.
    #[error("{0} was sent out of order")]
    Order(TreePath),
    /// Below a file or a link.
    #[error("{0} was sent although what is above it is not a directory")]
    Through(TreePath),
    /// A hard link to something that was not sent before as a regular file.
    #[error("{0} is a hard link to something that is no earlier file of the same output")]
    Link(TreePath),
    /// Setuid or setgid that no item declares.
    #[error("{0} is setuid or setgid; declare a mode for it if that is meant")]
    Privilege(TreePath),
    /// More entries than allowed.
    #[error("the output has more than {0} entries")]
    TooMany(u64),
    /// More bytes than allowed.
    #[error("the artifacts of the stage hold more than the allowed number of bytes")]
    TooLarge,
}

/// Checks the entries of one output in the order in which they come.
pub struct Intake<'a> {
    output: &'a Output,
    /// What each of its items can make of modes, files' and directories', where it changes them.
    modes: Vec<Option<[BTreeSet<u32>; 2]>>,
    allowance: Allowance,
    used: u64,
    entries: u64,
    last: Option<(TreePath, bool)>,
    /// Keyed hashes of the regular files so far: a tenth of the memory of their names, and not to be steered from outside.
    files: HashSet<u64>,
    hasher: RandomState,
}

impl<'a> Intake<'a> {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(output: &'a Output, allowance: Allowance) -> Self {
        let possible = |item: &CopyItem| {
            let changes = item.mode.as_ref().filter(|mode| mode.bits().is_none())?;
            Some([false, true].map(|directory| changes.possible(directory)))
        };
        Self {
            output,
            modes: output.items.iter().map(possible).collect(),
            allowance,
            used: 0,
            entries: 0,
            last: None,
            files: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes the next entry. Its content is counted by what it announces.
    pub fn check(&mut self, entry: &Entry) -> Result<(), IntakeError> {
        let path = &entry.path;
        self.entries += 1;
        if self.entries > self.allowance.entries {
            return Err(IntakeError::TooMany(self.allowance.entries));
        }
        let size = if let Kind::File(size) = entry.kind { size } else { 0 };
        self.used = self.used.saturating_add(size).saturating_add(512);
        if self.used > self.allowance.bytes {
            return Err(IntakeError::TooLarge);
        }
        if let Some((last, was_directory)) = &self.last {
            if path <= last {
                return Err(IntakeError::Order(path.clone()));
            }
            // Everything below an entry follows it at once, so the last one is the only one that can be in the way.
            if !was_directory && path.is_below(last.as_bytes()) {
                return Err(IntakeError::Through(path.clone()));
            }
        }
        match &entry.kind {
            Kind::File(_) => {
                self.files.insert(self.hasher.hash_one(path));
            }
            Kind::HardLink(target) if !self.files.contains(&self.hasher.hash_one(target)) => {
                return Err(IntakeError::Link(path.clone()));
            }
            _ => {}
        }
        self.declared(entry)?;
        self.last = Some((path.clone(), entry.kind == Kind::Directory));
        Ok(())
    }

    /// Whether an item of the output, or a directory on the way to one, explains the entry.
    fn declared(&self, entry: &Entry) -> Result<(), IntakeError> {
        let directory = entry.kind == Kind::Directory;
        let output = self.output;
        let plain = if directory { 0o1777 } else { 0o777 };
        let mut covered = false;
        for (item, modes) in output.items.iter().zip(&self.modes) {
            let explains = match relation(item, &entry.path) {
                Relation::Below => !directory || carries_directory(output.parents, &entry.path),
                Relation::Above => directory && is_parent(output.parents, entry, item),
                Relation::Apart => continue,
            };
            let parent = directory && is_parent(output.parents, entry, item);
            covered |= explains;
            let mode_fits = match (&entry.kind, &item.mode) {
                (Kind::Symlink(_), _) => entry.mode == 0o777,
                // What is in an archive has the modes that it says; only an agent adds, from what it fetched.
                _ if item.docker == Some(Docker::Add) => true,
                (_, Some(Mode::Bits(mode))) => {
                    entry.mode == *mode || directory && item.docker.is_some() && entry.mode == mode & 0o777
                }
                // The directory that is copied to may be one that was made for it.
                (_, Some(Mode::Changes(_))) => {
                    let possible = modes.as_ref().is_some_and(|[files, directories]| {
                        (if directory { directories } else { files }).contains(&entry.mode)
                    });
                    possible || directory && entry.mode == PARENT.mode
                }
                // A copy that keeps owners takes files as they are, and so does a Dockerfile's.
                (_, None) => item.docker.is_some() || item.owner.is_none() || entry.mode & !plain == 0,
            };
            if explains && (parent || (mode_fits && item.owner.is_none_or(|owner| entry.owner == owner))) {
                return Ok(());
            }
        }
        if covered && entry.mode & 0o6000 != 0 {
            return Err(IntakeError::Privilege(entry.path.clone()));
        }
        Err(IntakeError::Undeclared(entry.path.clone()))
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }
}

fn is_parent(parents: Parents, entry: &Entry, item: &CopyItem) -> bool {
    let owner = item.owner.filter(|_| item.docker.is_some()).unwrap_or(PARENT.owner);
    carries_parent(parents, &entry.path)
        && entry.mode == PARENT.mode
        && (entry.owner == owner || entry.owner == PARENT.owner)
}

enum Relation {
    /// The destination itself or something under it.
    Below,
    /// A directory on the way to the destination.
    Above,
    Apart,
}

fn relation(item: &CopyItem, path: &TreePath) -> Relation {
    let destination = item.destination.path.relative().as_bytes();
    let bytes = path.as_bytes();
    if bytes == destination || path.is_below(destination) {
        Relation::Below
    } else if destination.strip_prefix(bytes).is_some_and(|rest| rest.starts_with(b"/")) {
        Relation::Above
    } else {
        Relation::Apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recipe::{Destination, Owner};

    const USER: Owner = Owner { uid: 7, gid: 8 };

    fn item(destination: &str, mode: Option<u32>) -> CopyItem {
        let path = destination.parse().unwrap();
        let destination = Destination { path, directory: destination.ends_with('/') };
        CopyItem {
            source: "/x".into(),
            destination,
            mode: mode.map(Mode::Bits),
            owner: Some(USER),
            exclude: Vec::new(),
            parents: None,
            docker: None,
        }
    }

    fn output(parents: Parents) -> Output {
        Output::copies(vec![item("/app", None), item("/usr/bin/tool", Some(0o4755)), item("/data/", None)], parents)
    }

    fn entry(path: &str, kind: Kind) -> Entry {
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { 0o755 };
        Entry { path: TreePath::new(path).unwrap(), kind, mode, owner: USER }
    }

    fn parent(path: &str) -> Entry {
        Entry { owner: Owner::default(), ..entry(path, Kind::Directory) }
    }

    fn file(path: &str) -> Entry {
        entry(path, Kind::File(100))
    }

    fn symlink(path: &str) -> Entry {
        entry(path, Kind::Symlink(b"/etc".to_vec()))
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, Kind::HardLink(TreePath::new(target).unwrap()))
    }

    fn check_with(parents: Parents, allowance: Allowance, entries: &[Entry]) -> Result<(), IntakeError> {
        let output = output(parents);
        let mut intake = Intake::new(&output, allowance);
        entries.iter().try_for_each(|entry| intake.check(entry))
    }

    fn check(entries: &[Entry]) -> Result<(), IntakeError> {
        check_with(Parents::All, Allowance { bytes: 1 << 20, entries: 100 }, entries)
    }

    fn at(path: &str) -> TreePath {
        TreePath::new(path).unwrap()
    }

    #[test]
    fn an_honest_output_passes() {
        let tool = Entry { mode: 0o4755, ..file("usr/bin/tool") };
        let app = [entry("app", Kind::Directory), file("app/a"), link("app/b", "app/a"), symlink("app/c")];
        let rest = [parent("data"), file("data/x"), parent("usr"), parent("usr/bin"), tool];
        assert_eq!(check(&[&app[..], &rest[..]].concat()), Ok(()));
    }

    #[test]
    fn undeclared_paths_are_refused() {
        for path in ["etc/passwd", "apps", "usr/bin/other", "dat"] {
            assert_eq!(check(&[file(path)]), Err(IntakeError::Undeclared(at(path))));
        }
        assert_eq!(check(&[file("usr/bin")]), Err(IntakeError::Undeclared(at("usr/bin"))), "a file as parent");
    }

    #[test]
    fn parents_are_only_those_that_the_output_carries() {
        let all = Allowance { bytes: 1 << 20, entries: 100 };
        let usr = [parent("usr")];
        assert_eq!(check_with(Parents::All, all, &usr), Ok(()));
        for parents in [Parents::Unusual, Parents::None] {
            assert!(check_with(parents, all, &usr).is_err());
        }
        let open = Entry { mode: 0o777, ..parent("usr") };
        assert!(check_with(Parents::All, all, &[open]).is_err());
        let owned = Entry { owner: USER, ..parent("usr") };
        assert!(check_with(Parents::All, all, &[owned]).is_err());
    }

    #[test]
    fn other_owners_and_modes_than_declared_are_refused() {
        let foreign = Entry { owner: Owner::default(), ..file("app/a") };
        assert_eq!(check(&[foreign]), Err(IntakeError::Undeclared(at("app/a"))));
        let weaker = Entry { mode: 0o777, ..file("usr/bin/tool") };
        assert_eq!(check(&[weaker]), Err(IntakeError::Undeclared(at("usr/bin/tool"))));
    }

    #[test]
    fn setuid_and_setgid_need_a_declared_mode() {
        for mode in [0o4755, 0o2755, 0o6755] {
            let entry = Entry { mode, ..file("app/a") };
            assert_eq!(check(&[entry]), Err(IntakeError::Privilege(at("app/a"))));
        }
        let directory = Entry { mode: 0o2755, ..entry("app", Kind::Directory) };
        assert_eq!(check(&[directory]), Err(IntakeError::Privilege(at("app"))));
    }

    #[test]
    fn unsorted_and_repeated_entries_are_refused() {
        assert_eq!(check(&[file("app/b"), file("app/a")]), Err(IntakeError::Order(at("app/a"))));
        assert_eq!(check(&[file("app/b"), file("app/b")]), Err(IntakeError::Order(at("app/b"))));
    }

    #[test]
    fn nothing_passes_through_a_link_or_a_file() {
        assert_eq!(check(&[symlink("app/l"), file("app/l/x")]), Err(IntakeError::Through(at("app/l/x"))));
        assert_eq!(check(&[file("app/f"), file("app/f/x")]), Err(IntakeError::Through(at("app/f/x"))));
        assert_eq!(
            check(&[symlink("app/l"), file("app/l-"), file("app/l/x")]),
            Err(IntakeError::Order(at("app/l/x"))),
            "what lies between cannot hide it"
        );
    }

    #[test]
    fn hard_links_lead_to_earlier_files_only() {
        for entries in [
            vec![link("app/b", "etc/shadow")],
            vec![link("app/b", "app/c"), file("app/c")],
            vec![symlink("app/a"), link("app/b", "app/a")],
            vec![file("app/a"), link("app/b", "app/a"), link("app/c", "app/b")],
        ] {
            assert!(matches!(check(&entries), Err(IntakeError::Link(_))), "{entries:?}");
        }
    }

    #[test]
    fn counts_and_bytes_are_bounded_by_what_is_announced() {
        let few = Allowance { bytes: 1 << 20, entries: 1 };
        let small = Allowance { bytes: 700, entries: 10 };
        let entries = [file("app/a"), file("app/b")];
        assert_eq!(check_with(Parents::All, few, &entries), Err(IntakeError::TooMany(1)));
        assert_eq!(check_with(Parents::All, small, &entries), Err(IntakeError::TooLarge));
        let endless = entry("app/a", Kind::File(u64::MAX));
        assert_eq!(check(&[endless]), Err(IntakeError::TooLarge));
    }

    #[test]
    fn archives_have_their_own_modes_and_still_one_owner() {
        let added = CopyItem { docker: Some(Docker::Add), ..item("/app", Some(0o600)) };
        let output = Output::copies(vec![added], Parents::All);
        let check = |entry: &Entry| Intake::new(&output, Allowance { bytes: 1 << 20, entries: 100 }).check(entry);
        let setuid = Entry { mode: 0o4755, ..file("app/f") };
        assert_eq!(check(&setuid), Ok(()));
        let other = Entry { owner: Owner { uid: 1, gid: 1 }, ..setuid };
        assert!(matches!(check(&other), Err(IntakeError::Privilege(_))));
    }

    #[test]
    fn modes_are_among_those_that_a_change_can_give() {
        let mode = Some("a=rx".parse().unwrap());
        let output =
            Output::copies(vec![CopyItem { mode, docker: Some(Docker::Copy), ..item("/app/", None) }], Parents::None);
        let check = |kind: Kind, mode: u32| {
            let mut intake = Intake::new(&output, Allowance { bytes: 1 << 20, entries: 100 });
            intake.check(&Entry { mode, ..entry("app/x", kind) })
        };
        assert_eq!(check(Kind::File(1), 0o555), Ok(()));
        assert_eq!(check(Kind::Directory, 0o1555), Ok(()));
        assert_eq!(check(Kind::Directory, 0o755), Ok(()));
        assert_eq!(check(Kind::File(1), 0o4555), Err(IntakeError::Privilege(at("app/x"))));
        assert_eq!(check(Kind::File(1), 0o755), Err(IntakeError::Undeclared(at("app/x"))));
    }
}
