//! Where loaders look for a library: directories in order, and what they make of what they find there (ld.so(8); musl,
//! ldso/dynlink.c).

use crate::domain::{passwd::User, text::printable, tree::TreePath};

use super::{
    elf::Elf,
    index::{Facts, FileIndex, Kind, Node},
    loader_files::{configured, musl_path},
    machine,
    problem::{Libc, Problem, Unused},
    resolve::{Looks, READ, is_allowed},
};

/// What `$LIB` stands for, in Debian, in Red Hat and others; what `$PLATFORM` does. Which one it is was compiled in.
const LIB: [&str; 3] = ["lib/x86_64-linux-gnu", "lib64", "lib"];
const PLATFORM: [&str; 3] = ["x86_64", "haswell", "aarch64"];
/// Where glibc before 2.37 has variants for certain processors; newer ones have `glibc-hwcaps`.
const VARIANTS: [&str; 6] = ["tls", "haswell", "x86_64", "tls/x86_64", "haswell/x86_64", "avx512_1"];
/// What musl's own library replaces, whatever follows the dot.
const MUSL_PARTS: [&str; 7] = ["libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."];
/// What a loader searches whose own directories are not known.
const USUAL: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// What a loader knows besides the files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The image.
    pub files: &'a FileIndex,
    /// Who runs the program; nobody where permissions are not asked for.
    pub user: Option<&'a User>,
    /// With whose rights the kernel opens the program's loader.
    pub starter: Option<&'a User>,
    /// `LD_LIBRARY_PATH`.
    pub library_path: Option<&'a str>,
    /// Where relative paths begin.
    pub working_dir: &'a str,
    /// Whether the program has more rights than its user, which makes loaders careful.
    pub is_secure: bool,
    /// How much is still looked for.
    pub looks: &'a Looks,
}

/// A program or library in memory.
#[derive(Debug, Clone)]
pub(super) struct Object<'a> {
    /// The path by which it was opened.
    pub opened: String,
    /// What it says; none where it was not looked at.
    pub elf: Option<&'a Elf>,
    /// Which object asked for it first.
    pub parent: Option<usize>,
}

/// A library that was found.
#[derive(Debug, Clone)]
pub(super) struct Hit<'a> {
    pub opened: String,
    pub path: TreePath,
    pub elf: Option<&'a Elf>,
}

/// A loader with the libraries that it has loaded so far.
pub(super) struct Search<'a> {
    pub around: Surroundings<'a>,
    pub libc: Libc,
    /// The loader itself, where it is known.
    pub loader: Option<&'a Elf>,
    /// The last part of the path by which the loader is named.
    pub loader_name: Option<String>,
    /// Where the loader really is.
    pub loader_directory: Option<String>,
    /// The program first.
    pub objects: Vec<Object<'a>>,
    /// What all libraries must be for.
    pub machine: &'a Elf,
}

impl<'a> Search<'a> {
    /// Finds the library `name` for `object`, by its [`Search::steps`].
    ///
    /// # Errors
    /// What the object is told when it is not there.
    pub fn find(&self, name: &str, object: usize, steps: &[Step]) -> Result<Hit<'a>, Problem> {
        let mut unused = None;
        if name.contains('/') {
            let origin = self.origin(object);
            let mut paths = self.expand(name, &origin).into_iter();
            if let Some(hit) = paths.find_map(|path| self.open(&path, name, &mut unused).transpose()) {
                return hit;
            }
        } else {
            for step in steps {
                let paths: Vec<String> = match step {
                    Step::Directory(directory) => self.variants(directory, name),
                    Step::Cache => self.cached(name),
                };
                if let Some(hit) = paths.iter().find_map(|path| self.open(path, name, &mut unused).transpose()) {
                    return hit;
                }
            }
        }
        let elsewhere = unused.or_else(|| self.elsewhere(name));
        Err(Problem::LibraryMissing { library: printable(name.as_bytes()), elsewhere })
    }

    /// Whether the loader has the library in itself.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.libc == Libc::Musl && MUSL_PARTS.iter().any(|part| name.starts_with(part))
    }

    /// Where libraries are looked for that an object needs.
    pub fn steps(&self, object: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let environment = self.around.library_path.filter(|path| !path.is_empty() && !self.around.is_secure);
        let environment = environment.map(|path| self.directories(path, &self.origin(0))).unwrap_or_default();
        let get = |object: usize| self.objects.get(object).and_then(|object| object.elf);
        match self.libc {
            Libc::Glibc => {
                let own_runpath = get(object).and_then(|elf| elf.runpath.as_deref());
                if own_runpath.is_none() {
                    self.inherited(object, &mut steps);
                }
                steps.extend(environment.into_iter().map(Step::Directory));
                self.add(own_runpath, object, &mut steps);
                steps.push(Step::Cache);
                if !get(object).is_some_and(|elf| elf.no_system_directories) {
                    steps.extend(self.system_directories().into_iter().map(Step::Directory));
                }
            }
            Libc::Musl => {
                steps.extend(environment.into_iter().map(Step::Directory));
                let mut next = Some(object);
                while let Some(object) = next {
                    // Both kinds of path hold for what a library loads, too.
                    let path = get(object).and_then(|elf| elf.runpath.as_deref().or(elf.rpath.as_deref()));
                    self.add(path, object, &mut steps);
                    next = self.objects.get(object).and_then(|object| object.parent);
                }
                steps.extend(self.system_directories().into_iter().map(Step::Directory));
            }
        }
        steps
    }

    /// RPATH of the object, of whoever asked for it, and so on up to the program. One that has a RUNPATH has no RPATH.
    fn inherited(&self, object: usize, steps: &mut Vec<Step>) {
        let mut next = Some(object);
        let mut seen_program = false;
        while let Some(at) = next {
            let Some(object) = self.objects.get(at) else { return };
            let path = object.elf.filter(|elf| elf.runpath.is_none()).and_then(|elf| elf.rpath.as_deref());
            self.add(path, at, steps);
            seen_program |= at == 0;
            next = object.parent;
        }
        if !seen_program {
            let program = self.objects.first().and_then(|program| program.elf);
            let path = program.filter(|elf| elf.runpath.is_none()).and_then(|elf| elf.rpath.as_deref());
            self.add(path, 0, steps);
        }
    }

    fn add(&self, path: Option<&str>, object: usize, steps: &mut Vec<Step>) {
        if let Some(path) = path.filter(|path| !path.is_empty() && !self.around.looks.is_spent()) {
            self.around.looks.spend(path.len());
            steps.extend(self.directories(path, &self.origin(object)).into_iter().map(Step::Directory));
        }
    }

    /// The directories of a search path; an empty part is the working directory.
    fn directories(&self, path: &str, origin: &str) -> Vec<String> {
        if self.libc == Libc::Musl && path.replace("${ORIGIN}", "").replace("$ORIGIN", "").contains('$') {
            // A path with anything else in it is not used at all.
            return Vec::new();
        }
        let is_careful = |part: &&str| !(self.around.is_secure && part.contains("ORIGIN"));
        let parts = path.split([':', ';']).filter(is_careful);
        // As many directories as no sensible path has.
        parts.take(128).flat_map(|part| self.expand(if part.is_empty() { "." } else { part }, origin)).collect()
    }

    /// A path with its variables replaced; several where it is open by what.
    fn expand(&self, path: &str, origin: &str) -> Vec<String> {
        // More than once is odd already; it must not make a path that is longer than all others together.
        let path = path.replacen("${ORIGIN}", origin, 4).replacen("$ORIGIN", origin, 4);
        let mut all = vec![path];
        if self.libc == Libc::Glibc {
            for (name, values) in [("LIB", &LIB), ("PLATFORM", &PLATFORM)] {
                let (braced, plain) = (format!("${{{name}}}"), format!("${name}"));
                if all.iter().any(|path| path.contains(&braced) || path.contains(&plain)) {
                    let each = |path: String| values.map(|value| path.replace(&braced, value).replace(&plain, value));
                    all = all.into_iter().flat_map(each).collect();
                }
            }
        }
        all
    }

    /// The directory that `$ORIGIN` stands for.
    fn origin(&self, object: usize) -> String {
        let opened = self.objects.get(object).map_or("", |object| &object.opened);
        let directory = opened.rsplit_once('/').map_or("", |(directory, _)| directory);
        if directory.is_empty() { "/".into() } else { directory.to_owned() }
    }

    fn system_directories(&self) -> Vec<String> {
        match self.libc {
            Libc::Musl => match self.loader_name.as_deref().and_then(|name| self.musl_path(name)) {
                Some(text) => musl_path(text).map(str::to_owned).collect(),
                None => ["/lib", "/usr/local/lib", "/usr/lib"].map(str::to_owned).into(),
            },
            Libc::Glibc => {
                let own = self.loader.map(|loader| &loader.system_directories).filter(|own| !own.is_empty());
                // Where they cannot be told, its own is among them.
                let others = || self.loader_directory.iter().cloned().chain(USUAL.map(str::to_owned)).collect();
                own.cloned().unwrap_or_else(others)
            }
        }
    }

    /// `/etc/ld-musl-x86_64.path` for `ld-musl-x86_64.so.1`.
    fn musl_path(&self, loader: &str) -> Option<&'a str> {
        let name = loader.split(".so").next()?;
        match self.facts(&format!("etc/{name}.path"))? {
            Facts::Text(text) => Some(text),
            Facts::Empty => Some(""),
            _ => None,
        }
    }

    fn facts(&self, path: &str) -> Option<&'a Facts> {
        match &self.around.files.get(&TreePath::new(path).ok()?)?.kind {
            Kind::File(facts) => Some(facts),
            _ => None,
        }
    }

    fn texts_below(&self, directory: &str) -> Vec<(&'a TreePath, &'a str)> {
        let Ok(directory) = TreePath::new(directory) else { return Vec::new() };
        let files: &'a FileIndex = self.around.files;
        let text = |(path, node): (&'a TreePath, &'a Node)| match &node.kind {
            Kind::File(Facts::Text(text)) => Some((path, text.as_str())),
            _ => None,
        };
        files.below(&directory).filter_map(text).collect()
    }

    /// The directories that `ldconfig` would have gone through.
    fn configured(&self) -> Vec<&'a str> {
        let more = self.texts_below("etc/ld.so.conf.d").into_iter().map(|(_, text)| text);
        let first = match self.facts("etc/ld.so.conf") {
            Some(Facts::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        first.into_iter().chain(more).flat_map(configured).collect()
    }

    /// Where the cache has a library. Where there is a cache that cannot be read, what it should hold.
    fn cached(&self, name: &str) -> Vec<String> {
        match self.facts("etc/ld.so.cache") {
            Some(Facts::LoaderCache(entries)) => {
                self.around.looks.spend(entries.len());
                let of_name = |special: bool| {
                    let entries = entries.iter().filter(move |entry| entry.name == name && entry.is_special == special);
                    entries.map(|entry| entry.path.clone())
                };
                of_name(false).chain(of_name(true)).collect()
            }
            Some(_) => {
                let directories = self.configured().into_iter().map(str::to_owned).chain(self.system_directories());
                directories.map(|directory| format!("{directory}/{name}")).collect()
            }
            None => Vec::new(),
        }
    }

    /// The library itself, then its variants for certain processors, which may be there alone. None where there is no such
    /// directory.
    fn variants(&self, directory: &str, name: &str) -> Vec<String> {
        let files = self.around.files;
        let there = |path: &str| files.resolve(self.absolute(path).as_bytes(), None, self.around.looks).is_ok();
        if !there(directory) {
            return Vec::new();
        }
        let mut paths = vec![format!("{directory}/{name}")];
        if self.libc == Libc::Glibc {
            paths.extend(VARIANTS.map(|variant| format!("{directory}/{variant}/{name}")));
            let hwcaps = self.absolute(&format!("{directory}/glibc-hwcaps"));
            let found = files.resolve(hwcaps.as_bytes(), None, self.around.looks).ok();
            if let Some(path) = found.and_then(|found| found.path) {
                let below = files.below(&path).take(100).filter(|(_, node)| node.kind == Kind::Directory);
                paths.extend(below.take(16).map(|(path, _)| format!("{path}/{name}")));
            }
        }
        paths
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.around.working_dir) }
    }

    /// Opens a file as a library. None when the loader goes on looking; `unused` is why, if there was anything.
    fn open(&self, path: &str, name: &str, unused: &mut Option<(String, Unused)>) -> Result<Option<Hit<'a>>, Problem> {
        let path = self.absolute(path);
        let Ok(found) = self.around.files.resolve(path.as_bytes(), self.around.user, self.around.looks) else {
            return Ok(None);
        };
        let (Some(place), Some(node)) = (found.path, found.node) else { return Ok(None) };
        let not_a_library = || Problem::NotALibrary { library: printable(name.as_bytes()), path: place.to_string() };
        if self.around.user.is_some_and(|user| !is_allowed(node, user, READ)) {
            unused.get_or_insert((place.to_string(), Unused::NotReadable));
            return Ok(None);
        }
        let elf = match &node.kind {
            Kind::File(Facts::Elf(elf)) if machine::is_same(elf, self.machine) => Some(&**elf),
            Kind::File(Facts::Elf(_)) => {
                let foreign = (place.to_string(), Unused::Foreign);
                if self.libc == Libc::Musl {
                    // It takes what it finds first.
                    let library = printable(name.as_bytes());
                    return Err(Problem::LibraryMissing { library, elsewhere: Some(foreign) });
                }
                unused.get_or_insert(foreign);
                return Ok(None);
            }
            Kind::File(Facts::Unseen) => None,
            _ => return Err(not_a_library()),
        };
        Ok(Some(Hit { opened: path, path: place, elf }))
    }

    /// A file of that name that is not found, or under another name the library itself.
    fn elsewhere(&self, name: &str) -> Option<(String, Unused)> {
        let name = name.rsplit('/').next()?;
        let is_it = |path: &TreePath, node: &Node| match &node.kind {
            Kind::File(Facts::Elf(elf)) if elf.soname.as_deref() == Some(name) => true,
            Kind::File(_) => path.as_bytes().rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes()),
            _ => false,
        };
        let (path, node) = self.around.files.iter().find(|(path, node)| is_it(path, node))?;
        if matches!(&node.kind, Kind::File(Facts::Elf(elf)) if !machine::is_same(elf, self.machine)) {
            return Some((path.to_string(), Unused::Foreign));
        }
        let directory = path.parent().map_or_else(|| "/".to_owned(), |parent| parent.to_string());
        let in_cache = self.libc == Libc::Glibc && self.configured().contains(&directory.as_str());
        Some((path.to_string(), if in_cache { Unused::NotInCache } else { Unused::NotSearched }))
    }
}

/// One place to look at.
pub(super) enum Step {
    Directory(String),
    Cache,
}
