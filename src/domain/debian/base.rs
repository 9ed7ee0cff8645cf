//! A base of packages: what is asked for, and what that is once it is resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::v1alpha1::ScriptPolicy,
    domain::{debug, image::ImageConfig, value::Digest},
};

use super::{contents::RULES, release::Release, resolve::Chosen, version::Version};

/// How many changed packages a message names.
const NAMED: usize = 5;

/// What a base shall be, all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct PackagesBase {
    /// What people call it: `java 17 on debian bookworm`.
    pub name: String,
    /// Where packages come from; of equal versions the first one's is taken.
    pub archives: Vec<Archive>,
    /// `amd64`, as Debian calls it.
    pub architecture: String,
    /// Whether the archives are as they were at some time, and so neither expire nor move.
    pub frozen: bool,
    /// Armored public keys; none for Debian's own.
    pub keyring: Option<String>,
    /// Packages, each as `name` or `name=version`.
    pub install: Vec<String>,
    /// Packages that are taken to be there, and are not.
    pub without: BTreeSet<String>,
    /// What of them gets into the base.
    pub selection: Selection,
    /// Whether [`debug::PACKAGE`] is among the packages for the debug image, and nothing of it for the image.
    pub debug: bool,
    /// What its config says, below what the spec says.
    pub config: ImageConfig,
}

impl PackagesBase {
    /// Whether it is a base of its own, and not put onto something else.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.selection.onto.is_none()
    }

    /// Whether anything of it is in the image itself, and not in the debug image alone.
    #[must_use]
    pub fn has_layer(&self) -> bool {
        self.is_whole() || self.install.iter().any(|name| !self.is_for_debug(name))
    }

    /// The field of the spec that asks for it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match (self.is_whole(), self.has_layer()) {
            (true, _) => "spec.image.base",
            (false, true) => "spec.image.include",
            (false, false) => "spec.image.debug",
        }
    }

    fn is_for_debug(&self, package: &str) -> bool {
        self.debug && package == debug::PACKAGE
    }

    /// What is put together of `set`: the base, and the layer of the debug image. Each with where its packages are; none where there
    /// is no such layer.
    #[must_use]
    pub fn compositions(&self, set: &PackageSet) -> [Option<(Composition, Vec<String>)>; 2] {
        let part = |for_debug: bool, selection: Selection| {
            let all = set.packages.iter().zip(&set.urls);
            let of_it = all.filter(|(package, _)| self.is_for_debug(&package.name) == for_debug);
            let (packages, urls) = of_it.map(|(package, url)| (package.clone(), url.clone())).unzip();
            (Composition::new(packages, selection), urls)
        };
        let program = vec![format!("/{}", debug::PROGRAM.0)];
        let tools = Selection {
            keep: program,
            drop: vec!["/**".to_owned()],
            scripts: self.selection.scripts,
            onto: Some(Onto::Debug),
        };
        [self.has_layer().then(|| part(false, self.selection.clone())), self.debug.then(|| part(true, tools))]
    }
}

/// One suite of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Archive {
    /// Its root, which has `dists` and `pool`, without a slash at its end.
    pub root: String,
    /// The suite: `bookworm`, `bookworm-security`.
    pub suite: String,
    /// Its components: `main`.
    pub components: Vec<String>,
}

/// What of the packages' files gets into a base, beyond the rules that hold for all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Patterns of files that are kept though a rule or `drop` leaves them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Patterns of files that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// What becomes of maintainer scripts that are not known.
    #[serde(skip_serializing_if = "is_refuse")]
    pub scripts: ScriptPolicy,
    /// What the packages' files are put onto; none for a base of their own, with users and the usual directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onto: Option<Onto>,
}

/// What files of packages are put onto that make no base by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Onto {
    /// Nothing.
    Scratch,
    /// An image, which has directories of its own.
    Image,
    /// A finished image, whose debug image it makes.
    Debug,
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_refuse(policy: &ScriptPolicy) -> bool {
    *policy == ScriptPolicy::Refuse
}

/// A package of a base: exactly one file, wherever it is had from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// `amd64`, `all`.
    pub architecture: String,
    /// What its file hashes to.
    pub digest: Digest,
    /// The file's bytes.
    pub size: u64,
}

/// `name=version`.
impl fmt::Display for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, self.version)
    }
}

/// All that decides a base's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Composition {
    /// By which version of the rules, of which other bytes come.
    pub rules: u32,
    /// The packages, by name.
    pub packages: Vec<Package>,
    /// What of them is taken.
    pub selection: Selection,
}

impl Composition {
    /// By the rules of today.
    #[must_use]
    pub fn new(packages: Vec<Package>, selection: Selection) -> Self {
        Self { rules: RULES, packages, selection }
    }
}

/// A base that is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageSet {
    /// The distribution with its version: `Debian 13.8 (trixie)`.
    pub distribution: String,
    /// The packages, by name.
    pub packages: Vec<Package>,
    /// Where each of them is.
    pub urls: Vec<String>,
    /// The suites that were read.
    pub releases: Vec<SeenRelease>,
}

/// When a suite that was read was made: an older one is not believed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenRelease {
    /// The suite.
    pub suite: String,
    /// When it was made.
    pub date: Timestamp,
}

impl PackageSet {
    /// The resolved packages of `archives`.
    #[must_use]
    pub fn new(chosen: &[Chosen<'_>], archives: &[Archive], releases: &[Release]) -> Self {
        let package = |chosen: &Chosen<'_>| Package {
            name: chosen.name.to_owned(),
            version: chosen.record.version.clone(),
            architecture: chosen.record.architecture.to_string(),
            digest: chosen.record.digest,
            size: chosen.record.size,
        };
        let url = |chosen: &Chosen<'_>| {
            let root = archives.get(chosen.record.archive).map_or("", |archive| archive.root.as_str());
            format!("{root}/{}", chosen.record.path)
        };
        let seen =
            |(archive, release): (&Archive, &Release)| SeenRelease { suite: archive.suite.clone(), date: release.date };
        Self {
            distribution: releases.first().map(Release::distribution).unwrap_or_default(),
            packages: chosen.iter().map(package).collect(),
            urls: chosen.iter().map(url).collect(),
            releases: archives.iter().zip(releases).map(seen).collect(),
        }
    }

    /// A suite that is older than one that was `seen` before, and when that one was made.
    #[must_use]
    pub fn held_back(&self, seen: &BTreeMap<&str, Timestamp>) -> Option<(&SeenRelease, Timestamp)> {
        self.releases.iter().find_map(|release| {
            let seen = seen.get(release.suite.as_str()).filter(|seen| release.date < **seen)?;
            Some((release, *seen))
        })
    }

    /// What the packages hash to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Texts and numbers: cannot fail.
        Digest::of(&serde_json::to_vec(&self.packages).unwrap_or_default())
    }

    /// The packages of which `base` has files in the image itself, as status lists them: `name=version`.
    #[must_use]
    pub fn names(&self, base: &PackagesBase) -> Vec<String> {
        self.packages.iter().filter(|package| !base.is_for_debug(&package.name)).map(ToString::to_string).collect()
    }

    /// The package that `base` has for the debug image.
    #[must_use]
    pub fn debug(&self, base: &PackagesBase) -> Option<&Package> {
        self.packages.iter().find(|package| base.is_for_debug(&package.name))
    }
}

/// What has changed between two lists of `name=version`: `openssl 3.0.1 → 3.0.2, libfoo added`; empty when nothing has.
#[must_use]
pub fn changes(before: &[String], after: &[String]) -> String {
    let split = |text: &String| {
        let (name, version) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), version.to_owned())
    };
    let before: BTreeMap<String, String> = before.iter().map(split).collect();
    let after: BTreeMap<String, String> = after.iter().map(split).collect();
    let changed = after.iter().filter_map(|(name, new)| match before.get(name) {
        Some(old) if old == new => None,
        Some(old) => Some(format!("{name} {old} → {new}")),
        None => Some(format!("{name} {new} added")),
    });
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{name} removed"));
    let all: Vec<String> = changed.chain(gone).collect();
    let mut text = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        let _ = write!(text, " and {} more", all.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_packages_are_named() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let before = list(&["aa=1", "bb=1", "cc=1"]);
        assert_eq!(changes(&before, &before), "");
        assert_eq!(changes(&before, &list(&["aa=2", "bb=1", "dd=1"])), "aa 1 → 2, dd 1 added, cc removed");
        let many: Vec<String> = (0..9).map(|index| format!("p{index}=1")).collect();
        assert!(changes(&[], &many).ends_with("p4 1 added and 4 more"));
    }
}
