//! The packages that an archive has, as its Packages files tell, as far as a resolution needs them.

use std::collections::BTreeMap;

use crate::domain::value::Digest;

use super::{relation, stanza::Stanza, version::Version};

/// More packages than any archive has.
const MOST_PACKAGES: usize = 300_000;

/// Packages of one architecture, and of all, from several Packages files.
#[derive(Debug, Default)]
pub struct Packages {
    /// By name, each with its versions in the order in which they came.
    by_name: BTreeMap<Box<str>, Vec<Record>>,
    count: usize,
}

/// One version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its version.
    pub version: Version,
    /// `amd64`, `all`.
    pub architecture: Box<str>,
    /// Pre-Depends and Depends.
    pub depends: Box<str>,
    /// Provides.
    pub provides: Box<str>,
    /// Conflicts and Breaks.
    pub conflicts: Box<str>,
    /// Priority as a number; required is 0.
    pub priority: u8,
    /// Which archive has it, by its place among those that were read.
    pub archive: usize,
    /// Its file, below the archive's root.
    pub path: Box<str>,
    /// The file's bytes.
    pub size: u64,
    /// What the file hashes to.
    pub digest: Digest,
}

/// Why a Packages file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its index has more than {MOST_PACKAGES} packages")]
pub struct TooMany;

impl Packages {
    /// Takes a paragraph of a Packages file, if it tells of a package that can be had.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, archive: usize, paragraph: &str) -> Result<(), TooMany> {
        let stanza = Stanza::parse(paragraph);
        let Some((name, record)) = record(&stanza, archive) else { return Ok(()) };
        self.count += 1;
        if self.count > MOST_PACKAGES {
            return Err(TooMany);
        }
        let records = self.by_name.entry(name.into()).or_default();
        // The same version in several archives is the same package; the first that names it has it.
        if !records.iter().any(|other| other.digest == record.digest) {
            records.push(record);
        }
        Ok(())
    }

    /// The versions of a package; none where there is no such package.
    #[must_use]
    pub fn versions(&self, name: &str) -> &[Record] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest version of a package.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&Record> {
        // The first of equals: the archive that was named first.
        self.versions(name)
            .iter()
            .reduce(|best, next| if next.version.compare(&best.version).is_gt() { next } else { best })
    }

    /// Which newest packages provide a virtual package, each with the version that it provides.
    #[must_use]
    pub fn providers(&self) -> BTreeMap<&str, Vec<Provider<'_>>> {
        let mut providers: BTreeMap<&str, Vec<Provider<'_>>> = BTreeMap::new();
        for name in self.by_name.keys() {
            let Some(record) = self.newest(name) else { continue };
            for provided in relation::each(&record.provides) {
                let version = provided.version.as_ref().and_then(relation::Bound::exact).cloned();
                providers.entry(provided.name).or_default().push(Provider { name, record, version });
            }
        }
        providers
    }

    /// The name of a package as it is kept here.
    #[must_use]
    pub fn own_name(&self, name: &str) -> Option<&str> {
        self.by_name.get_key_value(name).map(|(name, _)| name.as_ref())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(AsRef::as_ref)
    }
}

/// A package that provides another one.
#[derive(Debug, Clone)]
pub struct Provider<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its newest version.
    pub record: &'a Record,
    /// The version that it provides; relations with a version take no provider without one.
    pub version: Option<Version>,
}

fn record<'a>(stanza: &Stanza<'a>, archive: usize) -> Option<(&'a str, Record)> {
    let field = |name: &str| stanza.get(name).unwrap_or_default();
    let joined = |first: &str, second: &str| -> Box<str> {
        let parts: Vec<&str> = [field(first), field(second)].into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(", ").into()
    };
    let path = stanza.get("Filename").filter(|path| is_below(path))?;
    let name = stanza.get("Package").filter(|name| is_name(name))?;
    let record = Record {
        version: stanza.get("Version")?.parse().ok()?,
        architecture: stanza.get("Architecture")?.into(),
        depends: joined("Pre-Depends", "Depends"),
        provides: field("Provides").into(),
        conflicts: joined("Conflicts", "Breaks"),
        priority: match field("Priority") {
            "required" => 0,
            "important" => 1,
            "standard" => 2,
            "optional" => 3,
            _ => 4,
        },
        archive,
        path: path.into(),
        size: stanza.get("Size")?.parse().ok()?,
        digest: format!("sha256:{}", stanza.get("SHA256")?).parse().ok()?,
    };
    Some((name, record))
}

/// Whether a text can be a package's name (Debian policy 5.6.1).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    (2..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A package that is asked for as `name` or `name=version`.
#[must_use]
pub fn requested(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)))
}

/// Whether a text asks for a package.
///
/// # Errors
/// What is expected.
pub fn check_request(text: &str) -> Result<(), String> {
    let (name, version) = requested(text);
    let is_version = |text: &str| text.parse::<Version>().is_ok();
    if is_name(name) && version.is_none_or(is_version) {
        return Ok(());
    }
    Err(format!("`{text}` names no package, expected a name, or name=version for exactly that one"))
}

/// Whether a path stays below the archive's root, and needs no escape in an address.
fn is_below(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._~/:%".contains(&byte);
    path.len() <= 512
        && path.bytes().all(allowed)
        && path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".")
}
