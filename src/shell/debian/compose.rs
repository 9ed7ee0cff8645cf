//! Composes a base: fetches packages, some ahead of the one that is unpacked, and writes their files as one layer.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture};

use crate::{
    domain::{
        debian::{
            base::{Composition, Package},
            compose::{Composer, Place},
            release::IndexFile,
        },
        intake::Allowance,
        task::Limits,
        tree::{Attributes, FileTree},
    },
    shell::{
        archive::{Member, MemberKind},
        net::Http,
        pack::{PackError, Packed, pack_tree},
    },
};

use super::{BaseError, deb, fetch};

/// Packages that are fetched ahead.
const AHEAD: usize = 6;
/// A certificate file has a few KiB.
const CERTIFICATE_LIMIT: u64 = 1 << 20;

/// What a base is composed with.
#[derive(Clone, Copy)]
pub struct Compose<'a> {
    /// How servers are reached.
    pub http: &'a Http,
    /// Room for the packages and what is in them.
    pub work_dir: &'a Path,
    /// Bounds on what they unpack to.
    pub limits: &'a Limits,
}

/// The files of a base, with their bytes on the disk.
#[derive(Debug)]
pub struct Base {
    tree: FileTree<Bytes>,
    spool: Arc<File>,
    allowance: Allowance,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
enum Bytes {
    /// In the spool: where they begin and how many there are.
    Spooled(u64, u64),
    /// They were made here.
    Made(Arc<[u8]>),
}

/// Fetches the packages of `composition`, which are at `urls`, and puts them together.
///
/// # Errors
/// When a package cannot be had, is not what it should be, or does not go with the others.
pub async fn compose(composition: &Composition, urls: &[String], with: Compose<'_>) -> Result<Base, BaseError> {
    let architecture =
        composition.packages.iter().map(|package| package.architecture.as_str()).find(|name| *name != "all");
    let mut composer = Composer::new(&composition.selection, architecture.unwrap_or("all"))?;
    let mut spool =
        Spool { file: tempfile::tempfile_in(with.work_dir)?, used: 0, limits: with.limits.clone(), entries: 0 };
    let downloads = composition.packages.iter().zip(urls);
    let downloads = downloads.map(|(package, url)| download(package, url, with).boxed());
    let downloads: Vec<BoxFuture<'_, _>> = downloads.collect();
    let mut downloads = futures::stream::iter(downloads).buffered(AHEAD);
    while let Some((package, file)) = downloads.try_next().await? {
        (composer, spool) = super::blocking(move || {
            unpack(&package, file, &mut composer, &mut spool)?;
            Ok((composer, spool))
        })
        .await?;
    }
    let tree = composer.finish(|bytes| Bytes::Made(bytes.into()))?;
    let allowance = Allowance { bytes: with.limits.artifact_bytes, entries: with.limits.artifact_entries };
    Ok(Base { tree, spool: Arc::new(spool.file), allowance })
}

impl Base {
    /// Writes the base as a compressed layer to `sink`, as often as it must be.
    ///
    /// # Errors
    /// When the disk or `sink` fails, or there is more than a layer may have.
    pub fn pack(&self, threads: usize, sink: impl Write) -> Result<Packed, PackError> {
        pack_tree(&self.tree, self.allowance, threads, sink, |bytes, write| match bytes {
            Bytes::Made(bytes) => write(bytes),
            Bytes::Spooled(start, size) => {
                let mut buffer = vec![0; 64 << 10];
                let (mut at, end) = (*start, start + size);
                while at < end {
                    let most = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
                    let piece = buffer.get_mut(..most).unwrap_or_default();
                    self.spool.read_exact_at(piece, at)?;
                    write(piece)?;
                    at += most as u64;
                }
                Ok(())
            }
        })
    }
}

/// The contents of all files, one behind the other: no name of a package ever meets the disk.
struct Spool {
    file: File,
    used: u64,
    limits: Limits,
    entries: u64,
}

impl Spool {
    fn take(&mut self, content: &mut dyn Read) -> io::Result<(u64, Bytes)> {
        self.file.seek(SeekFrom::Start(self.used))?;
        let left = self.limits.source_bytes.saturating_sub(self.used);
        let size = io::copy(&mut content.take(left.saturating_add(1)), &mut self.file)?;
        if size > left {
            let text = format!("the packages unpack to more than {} bytes", self.limits.source_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let start = self.used;
        self.used += size;
        Ok((size, Bytes::Spooled(start, size)))
    }

    fn count(&mut self) -> Result<(), String> {
        self.entries += 1;
        let most = self.limits.source_entries;
        if self.entries > most { Err(format!("the packages have more than {most} files")) } else { Ok(()) }
    }
}

async fn download(package: &Package, url: &str, with: Compose<'_>) -> Result<(Package, File), BaseError> {
    let mut file = tempfile::tempfile_in(with.work_dir)?;
    let expected = IndexFile { digest: package.digest, size: package.size };
    fetch::file(with.http, url, expected, &mut file).await?;
    Ok((package.clone(), file))
}

fn unpack(
    package: &Package,
    mut file: File,
    composer: &mut Composer<Bytes>,
    spool: &mut Spool,
) -> Result<(), BaseError> {
    let broken = |problem: String| BaseError::Package {
        package: format!("{} {}", package.name, package.version),
        problem: problem.chars().take(300).collect(),
    };
    let control = deb::control(&mut file).map_err(broken)?;
    composer.package(&package.name, &package.version, control);
    let mut failure = None;
    let limits = spool.limits.clone();
    let result = deb::data(&mut file, &limits, |member, content| {
        spool.count()?;
        put(member, content, composer, spool).map_err(|error| {
            let text = error.to_string();
            failure = Some(error);
            text
        })
    });
    match (result, failure) {
        (Err(_), Some(PutError::Compose(error))) => Err(error.into()),
        (Err(problem), _) => Err(broken(problem)),
        (Ok(()), _) => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    Compose(#[from] crate::domain::debian::compose::ComposeError),
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("{0} is a device or something else that no package needs")]
    Device(String),
}

fn put(
    member: Member,
    content: &mut dyn Read,
    composer: &mut Composer<Bytes>,
    spool: &mut Spool,
) -> Result<(), PutError> {
    let directory = member.kind == MemberKind::Directory;
    let path = match composer.place(&member.path, directory)? {
        Place::Nowhere => return Ok(()),
        Place::At(path) => path,
        Place::Certificate(name) => {
            let mut text = String::new();
            if member.kind == MemberKind::File {
                content.take(CERTIFICATE_LIMIT).read_to_string(&mut text)?;
                composer.certificate(name, text);
            }
            return Ok(());
        }
    };
    let attributes = Attributes { mode: member.mode, owner: member.owner.unwrap_or_default() };
    match member.kind {
        MemberKind::Directory => composer.directory(path, attributes)?,
        MemberKind::File => composer.file(path, attributes, spool.take(content)?)?,
        MemberKind::Symlink(target) => composer.symlink(path, attributes.owner, target)?,
        MemberKind::HardLink(target) => composer.hard_link(path, &target)?,
        MemberKind::Other => return Err(PutError::Device(path.to_string())),
    }
    Ok(())
}
