//! A program and all libraries that come with it, as its loader puts them together before the program begins. What it opens
//! later by itself (dlopen) is not seen, and not asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{text::printable, tree::TreePath};

use super::{
    elf::{Elf, VersionsNeeded, is_glibc_loader},
    index::{Facts, FileIndex, Kind},
    machine,
    problem::{Libc, Problem},
    resolve::{EXECUTE, is_allowed},
    search::{Object, Search, Surroundings},
    suggest::parts,
};

/// More libraries than any program loads.
const MOST_OBJECTS: usize = 2000;
/// Enough to see what is wrong.
const MOST_PROBLEMS: usize = 20;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// Each with the file that is at fault.
    pub problems: Vec<(String, Problem)>,
    /// All files of it.
    pub files: BTreeSet<TreePath>,
}

/// Loads the program at `path`.
pub(super) fn of_program(path: &TreePath, elf: &Elf, around: Surroundings<'_>) -> Closure {
    let mut closure = Closure { files: [path.clone()].into(), ..Closure::default() };
    let Some(interpreter) = &elf.interpreter else {
        // Static, or position-independent and static, which relocates itself.
        if !elf.has_entry {
            closure.problems.push((path.to_string(), Problem::NotExecutableKind));
        }
        return closure;
    };
    let libc = libc_of(interpreter);
    let missing = || Problem::LoaderMissing {
        loader: printable(interpreter.as_bytes()),
        libc,
        present: present(around.files, libc),
        is_go: elf.is_go,
    };
    let absolute = if interpreter.starts_with('/') {
        interpreter.clone()
    } else {
        format!("{}/{interpreter}", around.working_dir)
    };
    let find = |user| {
        let found = around.files.resolve(absolute.as_bytes(), user, around.looks).ok()?;
        let (path, node) = found.path.zip(found.node)?;
        user.is_none_or(|user| is_allowed(node, user, EXECUTE)).then_some((path, node))
    };
    let Some((loader_path, node)) = find(around.starter) else {
        let loader = printable(interpreter.as_bytes());
        let problem = if find(None).is_some() { Problem::LoaderClosed { loader } } else { missing() };
        closure.problems.push((path.to_string(), problem));
        return closure;
    };
    let loader = match &node.kind {
        Kind::File(Facts::Elf(loader)) if machine::is_same(loader, elf) => Some(&**loader),
        Kind::File(Facts::Unseen) => None,
        _ => {
            closure.problems.push((path.to_string(), missing()));
            return closure;
        }
    };
    closure.files.insert(loader_path.clone());
    // One loader may stand in for the other under its name (Alpine's libc6-compat and gcompat).
    let libc = match loader.map(|loader| loader.soname.as_deref().unwrap_or_default()) {
        None => libc,
        Some(_) if libc == Libc::Musl => libc,
        Some(_) if libc_of(&loader_path.to_string()) == Libc::Musl => Libc::Musl,
        Some(soname) if is_glibc_loader(soname) => Libc::Glibc,
        // Its ways are not known.
        Some(_) => return closure,
    };
    let mut load = Load::new(path, elf, libc, around);
    load.with_loader(&absolute, loader_path, loader);
    load.run(&mut closure);
    closure
}

/// Loads the library at `path`, as a program would that has loaded nothing else and has no paths of its own.
pub(super) fn of_library(path: &TreePath, elf: &Elf, around: Surroundings<'_>) -> Closure {
    let mut closure = Closure { files: [path.clone()].into(), ..Closure::default() };
    let is_musl = elf.needed.iter().any(|name| name.starts_with("libc.musl-") || name == "libc.so");
    let libc = if is_musl { Libc::Musl } else { Libc::Glibc };
    let mut load = Load::new(path, elf, libc, around);
    if let Some(usual) = machine::glibc_loader(elf).filter(|_| libc == Libc::Glibc)
        && let Ok(found) = around.files.resolve(usual.as_bytes(), None, around.looks)
        && let (Some(path), Some(node)) = (found.path, found.node)
        && let Kind::File(Facts::Elf(loader)) = &node.kind
    {
        load.with_loader(usual, path, Some(loader));
    }
    load.run(&mut closure);
    closure
}

/// The library that a loader belongs to.
fn libc_of(interpreter: &str) -> Libc {
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    if name.starts_with("ld-musl-") { Libc::Musl } else { Libc::Glibc }
}

/// The C library of an image, by its loader; of several the `wanted` one.
fn present(files: &FileIndex, wanted: Libc) -> Option<Libc> {
    let mut found = None;
    for directory in ["lib", "lib64", "usr/lib", "usr/lib64"] {
        let Ok(directory) = TreePath::new(directory) else { continue };
        for (path, _) in files.below(&directory) {
            let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let libc = match name {
                name if name.starts_with(b"ld-musl-") => Libc::Musl,
                name if name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so") => Libc::Glibc,
                _ => continue,
            };
            found = Some(libc);
            if libc == wanted {
                return found;
            }
        }
    }
    found
}

struct Load<'a> {
    search: Search<'a>,
    /// The objects by every name that they are known under.
    names: BTreeMap<String, usize>,
    /// The objects by where they really are.
    places: BTreeMap<TreePath, usize>,
}

impl<'a> Load<'a> {
    fn new(path: &TreePath, elf: &'a Elf, libc: Libc, around: Surroundings<'a>) -> Self {
        let program = Object { opened: path.to_string(), elf: Some(elf), parent: None };
        let search = Search {
            around,
            libc,
            loader: None,
            loader_name: None,
            loader_directory: None,
            objects: vec![program],
            machine: elf,
        };
        let mut load = Self { search, names: BTreeMap::new(), places: [(path.clone(), 0)].into() };
        load.name(0, elf.soname.as_deref());
        load
    }

    /// The loader is there before everything else, and libraries need it by its name.
    fn with_loader(&mut self, opened: &str, path: TreePath, elf: Option<&'a Elf>) {
        self.search.loader = elf;
        self.search.loader_directory = path.parent().map(|directory| directory.to_string());
        let name = opened.rsplit('/').next().unwrap_or_default().to_owned();
        self.search.loader_name = Some(name.clone());
        let object = self.add(Object { opened: opened.to_owned(), elf, parent: None }, path);
        self.name(object, Some(&name));
        self.name(object, Some(opened));
    }

    fn add(&mut self, object: Object<'a>, path: TreePath) -> usize {
        let index = self.search.objects.len();
        let soname = object.elf.and_then(|elf| elf.soname.clone());
        self.search.objects.push(object);
        self.places.insert(path, index);
        // musl knows libraries only by the names that they were found under.
        self.name(index, soname.as_deref().filter(|_| self.search.libc == Libc::Glibc));
        index
    }

    fn name(&mut self, object: usize, name: Option<&str>) {
        if let Some(name) = name {
            self.names.entry(name.to_owned()).or_insert(object);
        }
    }

    /// Breadth first, as loaders do: it decides who asked for a library first.
    fn run(mut self, closure: &mut Closure) {
        let mut missing: BTreeSet<String> = BTreeSet::new();
        let mut at = 0;
        while let Some(object) = self.search.objects.get(at).cloned() {
            let needed = object.elf.map(|elf| elf.needed.as_slice()).unwrap_or_default();
            let steps = if needed.is_empty() { Vec::new() } else { self.search.steps(at) };
            for name in needed {
                if self.names.contains_key(name) || self.search.is_built_in(name) || missing.contains(name) {
                    continue;
                }
                match self.search.find(name, at, &steps) {
                    Ok(hit) => {
                        let known = self.places.get(&hit.path).copied();
                        closure.files.insert(hit.path.clone());
                        let object = Object { opened: hit.opened, elf: hit.elf, parent: Some(at) };
                        let index = known.unwrap_or_else(|| self.add(object, hit.path));
                        self.name(index, Some(name));
                    }
                    Err(problem) => {
                        missing.insert(name.clone());
                        closure.problems.push((object.opened.clone(), problem));
                    }
                }
                if self.search.around.looks.is_spent() {
                    closure.problems.clear();
                    return;
                }
                if self.search.objects.len() > MOST_OBJECTS || closure.problems.len() >= MOST_PROBLEMS {
                    return;
                }
            }
            at += 1;
        }
        // musl has no versions.
        if self.search.libc == Libc::Glibc {
            self.versions(closure);
        }
    }

    fn versions(&self, closure: &mut Closure) {
        for object in &self.search.objects {
            for needed in object.elf.map(|elf| elf.versions_needed.as_slice()).unwrap_or_default() {
                let provider = self.names.get(&needed.library).and_then(|index| self.search.objects.get(*index));
                let offers = |elf: &&Elf| !(elf.has_versions && elf.versions_offered.is_empty());
                // A library that offers no versions is taken as it is; one that knows of none ends the loader
                // (glibc, elf/dl-lookup.c, check_match).
                if let Some((provider, elf)) =
                    provider.and_then(|provider| Some((provider, provider.elf.filter(offers)?)))
                    && let Some(problem) = missing_version(needed, &elf.versions_offered, &provider.opened)
                    && closure.problems.len() < MOST_PROBLEMS
                {
                    closure.problems.push((object.opened.clone(), problem));
                }
            }
        }
    }
}

/// The newest of the versions that are not offered.
fn missing_version(needed: &VersionsNeeded, offered: &[String], library: &str) -> Option<Problem> {
    let offered: BTreeSet<&str> = offered.iter().map(String::as_str).collect();
    let version = newest(needed.names.iter().map(String::as_str).filter(|name| !offered.contains(name)))?;
    let kind = parts(version).map(|(kind, _)| kind);
    let of_kind = offered.iter().copied().filter(|name| kind.is_some() && parts(name).map(|(kind, _)| kind) == kind);
    let newest = newest(of_kind).map(|name| printable(name.as_bytes()));
    Some(Problem::VersionMissing { version: printable(version.as_bytes()), library: library.to_owned(), newest })
}

fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions.max_by_key(|name| parts(name).map(|(_, numbers)| numbers))
}
