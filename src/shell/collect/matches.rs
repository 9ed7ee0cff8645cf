//! What the source of a copy stands for: the paths that are there, or what is there in its place.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

use super::{CollectError, Collector, names, read};
use crate::{
    domain::source::close_names,
    shell::rooted::{Last, resolve},
};

/// How many names a [`CollectError::Missing`] offers.
const NEARBY: usize = 8;

impl Collector<'_> {
    /// Existing paths that a source names, sorted, still with the links in them.
    pub(super) fn matches(&self, source: &str) -> Result<Vec<PathBuf>, CollectError> {
        let parts: Vec<&str> = source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            let problem = "it contains `..`".into();
            return Err(CollectError::Source { source_path: source.into(), problem });
        }
        let literal = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '\\'])).count();
        let (literal, pattern) = parts.split_at(literal);
        let start: PathBuf = literal.iter().collect();
        let mut found = Vec::new();
        if pattern.is_empty() {
            if self.exists(&start)? {
                found.push(start.clone());
            }
        } else {
            let matcher = matcher(source, &pattern.join("/"))?;
            let depth = if pattern.iter().any(|part| part.contains("**")) { usize::MAX } else { pattern.len() };
            self.glob(&start, Path::new(""), &matcher, depth, &mut found)?;
            found.sort();
        }
        let there = !found.is_empty();
        let mut seen = Vec::new();
        for path in found {
            if self.is_seen(&path)? {
                seen.push(path);
            }
        }
        match (seen.is_empty(), there) {
            (false, _) => Ok(seen),
            (true, true) => Err(CollectError::Ignored { source_path: source.into() }),
            (true, false) => Err(CollectError::Missing { source_path: source.into(), nearby: self.nearby(&start) }),
        }
    }

    /// Whether the ignore file leaves anything to be seen of what is at `named`: of a directory it may be something further down.
    fn is_seen(&self, named: &Path) -> Result<bool, CollectError> {
        let text = named.to_string_lossy();
        // The whole context is there even when it is empty.
        if text.is_empty() || !self.ignore.ignores(&text) {
            return Ok(true);
        }
        let full = resolve(self.root, named, Last::Follow).map_err(|source| read(named, source))?;
        if self.ignore.ignores_all_of(&text) || !full.is_dir() || self.root.join(named).is_symlink() {
            return Ok(false);
        }
        for name in names(&full)? {
            if self.is_seen(&named.join(OsStr::from_bytes(&name)))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn glob(
        &self,
        start: &Path,
        below: &Path,
        matcher: &GlobMatcher,
        depth: usize,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), CollectError> {
        let named = start.join(below);
        let directory = resolve(self.root, &named, Last::Follow).map_err(|source| read(&named, source))?;
        if depth == 0 || !directory.is_dir() || self.is_left_out(&directory) {
            return Ok(());
        }
        for name in names(&directory)? {
            let name = OsStr::from_bytes(&name);
            let inner = below.join(name);
            if matcher.is_match(&inner) && self.exists(&start.join(&inner))? {
                // What is below a match is copied with it.
                found.push(start.join(&inner));
                continue;
            }
            // `**` does not walk through links, which may lead in circles.
            let link = directory.join(name).is_symlink();
            if !(link && depth == usize::MAX) {
                self.glob(start, &inner, matcher, if depth == usize::MAX { depth } else { depth - 1 }, found)?;
            }
        }
        Ok(())
    }

    fn exists(&self, named: &Path) -> Result<bool, CollectError> {
        if named.iter().any(|part| self.is_git(part.as_bytes())) {
            return Ok(false);
        }
        let found = resolve(self.root, named, Last::Follow).map_err(|source| read(named, source))?;
        Ok(fs::symlink_metadata(found).is_ok())
    }

    /// What can be seen in the nearest directory that exists, the names most like the missing one first.
    fn nearby(&self, path: &Path) -> Vec<String> {
        let existing = path.ancestors().find_map(|above| {
            let found = resolve(self.root, above, Last::Follow).ok()?;
            Some((above, names(&found).ok()?))
        });
        let Some((above, names)) = existing else { return Vec::new() };
        let is_seen = |name: &String| self.is_seen(&above.join(name)).unwrap_or(false);
        let names = names.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned());
        let mut names: Vec<String> = names.filter(is_seen).collect();
        let missing = path.strip_prefix(above).ok().and_then(|below| below.iter().next()).unwrap_or_default();
        let close = close_names(&missing.to_string_lossy(), names.iter().map(String::as_str));
        names.sort_by_key(|name| !close.contains(name));
        if let Some(more) = names.len().checked_sub(NEARBY).filter(|more| *more > 0) {
            names.truncate(NEARBY);
            names.push(format!("and {more} more"));
        }
        names
    }
}

fn matcher(source: &str, pattern: &str) -> Result<GlobMatcher, CollectError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| CollectError::Source { source_path: source.into(), problem: error.kind().to_string() })
}
