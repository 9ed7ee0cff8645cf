//! Reads a suite's Release and Packages files: signed, in time, each by its digest.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use lzma_rust2::XzReader;

use crate::{
    domain::{
        debian::{
            base::{Archive, PackageSet, PackagesBase},
            packages::Packages,
            release::{IndexFile, Release},
            resolve::{self, Wanted},
            signature::Keyring,
        },
        value::{Digest, DigestHasher},
    },
    shell::{net::Http, source::SourceError},
};

use super::{BaseError, fetch};

/// A Release file of all of Debian has 150 KiB.
const RELEASE_LIMIT: u64 = 8 << 20;
/// Packages of all of Debian's main has 57 MB, 10 packed.
const INDEX_LIMIT: u64 = 512 << 20;
/// A paragraph of it.
const PARAGRAPH_LIMIT: usize = 1 << 20;
/// What unpacking an index may take, in KiB: Debian's wants 9 MiB, the largest preset of its tool 65.
const XZ_MEMORY: u32 = 70 << 10;
/// Index files that are kept for the next resolution.
const KEPT_INDEXES: usize = 12;

/// What a resolution works with.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// How servers are reached.
    pub http: &'a Http,
    /// Where index files are kept by their digests; it may be emptied at any time.
    pub indexes: &'a Path,
    /// The time, by which Release files expire.
    pub now: Timestamp,
}

/// Resolves `base` by what its archives have now.
///
/// # Errors
/// When an archive cannot be read or believed, or does not have what is asked for.
pub async fn resolve(base: &PackagesBase, environment: Environment<'_>) -> Result<PackageSet, BaseError> {
    let keyring = match &base.keyring {
        Some(armored) => Keyring::parse(armored),
        None => Keyring::debian(),
    };
    let keyring = keyring.map_err(BaseError::Keyring)?;
    let reader = Reader { environment, frozen: base.frozen, architecture: &base.architecture, keyring: &keyring };
    let releases = base.archives.iter().map(|archive| reader.release(archive));
    let releases = futures::future::try_join_all(releases).await?;
    let indexes = base.archives.iter().zip(&releases).map(|(archive, release)| reader.indexes(archive, release));
    let indexes: Vec<Vec<Index>> = futures::future::try_join_all(indexes).await?;
    let base = base.clone();
    super::blocking(move || {
        let mut packages = Packages::default();
        for (place, index) in
            indexes.iter().enumerate().flat_map(|(place, list)| list.iter().map(move |index| (place, index)))
        {
            index.read(&mut |paragraph| packages.add(place, paragraph).map_err(BaseError::from))?;
        }
        let chosen = resolve::resolve(&packages, Wanted { install: &base.install, without: &base.without })?;
        Ok(PackageSet::new(&chosen, &base.archives, &releases))
    })
    .await
}

/// Reads archives in one manner.
struct Reader<'a> {
    environment: Environment<'a>,
    frozen: bool,
    architecture: &'a str,
    keyring: &'a Keyring,
}

/// A Packages file on the disk that is what its archive says.
struct Index {
    what: String,
    path: PathBuf,
    compression: Compression,
}

#[derive(Debug, Clone, Copy)]
enum Compression {
    Xz,
    Gzip,
    None,
}

const COMPRESSIONS: [(&str, Compression); 3] =
    [(".xz", Compression::Xz), (".gz", Compression::Gzip), ("", Compression::None)];

impl Reader<'_> {
    async fn release(&self, archive: &Archive) -> Result<Release, BaseError> {
        let Archive { root, suite, .. } = archive;
        let what = format!("{root}/dists/{suite}/InRelease");
        let message = fetch::text(self.environment.http, &what, RELEASE_LIMIT).await.map_err(|error| match error {
            BaseError::Fetch { source: SourceError::Status { status: 404, .. }, .. } => {
                BaseError::NoSuite { suite: suite.clone(), root: root.clone() }
            }
            other => other,
        })?;
        // Of a frozen archive the keys have often expired: they counted when it was signed.
        let at = (!self.frozen).then_some(self.environment.now);
        let text = self.keyring.verified(&message, at);
        let text = text.map_err(|source| BaseError::Signature { suite: suite.clone(), root: root.clone(), source })?;
        let release = Release::parse(&text);
        let release =
            release.map_err(|source| BaseError::Release { suite: suite.clone(), root: root.clone(), source })?;
        self.check(archive, &release)?;
        Ok(release)
    }

    fn check(&self, archive: &Archive, release: &Release) -> Result<(), BaseError> {
        let (suite, root) = (archive.suite.clone(), archive.root.clone());
        if !release.is_for(&suite) {
            let found = format!("{} ({})", release.codename, release.suite);
            return Err(BaseError::OtherSuite { suite, root, found });
        }
        let until = release.valid_until.filter(|until| !self.frozen && *until < self.environment.now);
        until.map_or(Ok(()), |until| Err(BaseError::Expired { suite, root, until }))
    }

    async fn indexes(&self, archive: &Archive, release: &Release) -> Result<Vec<Index>, BaseError> {
        let indexes = archive.components.iter().map(|component| self.index(archive, release, component));
        futures::future::try_join_all(indexes).await
    }

    async fn index(&self, archive: &Archive, release: &Release, component: &str) -> Result<Index, BaseError> {
        let Archive { root, suite, .. } = archive;
        let directory = format!("{component}/binary-{}", self.architecture);
        let found = COMPRESSIONS.iter().find_map(|(ending, compression)| {
            let path = format!("{directory}/Packages{ending}");
            Some((release.file(&path)?, path, *compression))
        });
        let Some((file, path, compression)) = found else {
            let (suite, root) = (suite.clone(), root.clone());
            let (component, architecture) = (component.to_owned(), self.architecture.to_owned());
            return Err(BaseError::NoIndex { suite, root, component, architecture });
        };
        let what = format!("{root}/dists/{suite}/{path}");
        let kept = self.environment.indexes.join(format!("packages-{}", file.digest.hex()));
        if !(kept.exists() && hashes_to(&kept, file.digest)?) {
            let by_hash = format!("{root}/dists/{suite}/{directory}/by-hash/SHA256/{}", file.digest.hex());
            let result = self.download(if release.by_hash { &by_hash } else { &what }, file, &kept).await;
            match result {
                // A mirror may copy files and not their names by hash.
                Err(BaseError::Fetch { source: SourceError::Status { status: 404, .. }, .. }) if release.by_hash => {
                    self.download(&what, file, &kept).await?;
                }
                result => result?,
            }
            forget_old(self.environment.indexes);
        }
        Ok(Index { what, path: kept, compression })
    }

    /// Brings a file of the archive to `into`, if it is what the archive says.
    async fn download(&self, what: &str, expected: IndexFile, into: &Path) -> Result<(), BaseError> {
        fs::create_dir_all(self.environment.indexes)?;
        let mut file = tempfile::NamedTempFile::new_in(self.environment.indexes)?;
        let expected = IndexFile { size: expected.size.min(INDEX_LIMIT), ..expected };
        fetch::file(self.environment.http, what, expected, &mut file).await?;
        file.persist(into).map_err(|error| BaseError::File(error.error))?;
        Ok(())
    }
}

impl Index {
    /// Hands over each paragraph.
    fn read(&self, take: &mut dyn FnMut(&str) -> Result<(), BaseError>) -> Result<(), BaseError> {
        let broken = |source| BaseError::Index { what: self.what.clone(), source };
        let file = BufReader::with_capacity(256 << 10, File::open(&self.path)?);
        let reader: Box<dyn Read> = match self.compression {
            Compression::Xz => Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY)),
            Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
            Compression::None => Box::new(file),
        };
        let mut reader = BufReader::with_capacity(256 << 10, reader.take(INDEX_LIMIT));
        let mut paragraph = Vec::new();
        loop {
            let start = paragraph.len();
            let count = (&mut reader).take(PARAGRAPH_LIMIT as u64).read_until(b'\n', &mut paragraph).map_err(broken)?;
            let line = paragraph.get(start..).unwrap_or_default();
            if count == 0 || line == b"\n" {
                take(&String::from_utf8_lossy(&paragraph))?;
                paragraph.clear();
            }
            if count == 0 {
                return Ok(());
            }
            if paragraph.len() > PARAGRAPH_LIMIT {
                return Err(broken(io::Error::new(io::ErrorKind::InvalidData, "a paragraph is over 1 MiB")));
            }
        }
    }
}

fn hashes_to(path: &Path, digest: Digest) -> io::Result<bool> {
    let mut hasher = DigestHasher::default();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finish() == digest)
}

/// Keeps the newest index files only. What cannot be removed stays.
fn forget_old(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    let old = found.len().saturating_sub(KEPT_INDEXES);
    for (_, path) in found.into_iter().take(old) {
        let _ = fs::remove_file(path);
    }
}
