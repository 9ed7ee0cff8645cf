//! Whether an image's program can start, told before anything is pushed: from what the files of the base and of the artifacts
//! say of themselves, without running anything. docs/preflight.md shows by cases what is refused.
//!
//! - [`Gatherer`] and [`index_layer`] make a [`LayerIndex`] while a layer streams by, which is kept as bytes: an artifact's beside
//!   its layer, a base's wherever that was read. [`FileIndex::with`] puts layers on top of each other.
//! - [`check`] holds the image's config against them.
//!
//! Only what is certain is refused: a program that loads plugins by itself, a file too large to be looked at, a path that a
//! runtime mounts over, all pass.

mod closure;
mod distribution;
mod elf;
mod gather;
mod index;
mod jar;
mod java;
mod layers;
mod loader_files;
mod machine;
mod problem;
mod program;
mod python;
mod resolve;
mod rest;
mod search;
mod suggest;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{image::RuntimeConfig, text::printable, tree::TreePath, value::Platform};
use crate::api::v1alpha1::Preflight;
use resolve::Looks;

pub use distribution::Distribution;
pub use elf::{Elf, ElfKind, VersionsNeeded};
pub use gather::{BUNDLES, Gatherer};
pub use index::{Facts, FileIndex, Kind, LayerIndex, Node, Origin};
pub use jar::Jar;
pub use layers::index_layer;
pub use loader_files::CacheEntry;
pub use problem::{Attributes, Finding, Libc, Problem, Severity, Unused};

/// As many findings are told; who has more has one cause.
const MOST_FINDINGS: usize = 50;
/// As many names one check looks up; a program with a hundred libraries takes some ten thousand.
const MOST_LOOKS: u32 = 10_000_000;

/// How an image starts, as its config says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Variables, users, directories.
    pub config: RuntimeConfig,
}

impl Start {
    /// Reads the config of a finished image; what is missing or of another type is taken as not set.
    #[must_use]
    pub fn parse(config: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(config).unwrap_or_default();
        let texts = |name: &str| -> Vec<String> {
            let list = json.get("config").and_then(|config| config.get(name)).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
        };
        Self { entrypoint: texts("Entrypoint"), cmd: texts("Cmd"), config: RuntimeConfig::parse(config) }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.config.variable(name)
    }
}

/// All that a check depends on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The whole image: its base, and the artifacts on top.
    pub files: &'a FileIndex,
    /// How it starts.
    pub start: &'a Start,
    /// What it is for.
    pub platform: &'a Platform,
    /// What it is built upon, as its user calls it; `scratch` for nothing.
    pub base: &'a str,
    /// What is checked.
    pub mode: Preflight,
}

/// What was found, refusals first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// At most 50, each a sentence by `Display`.
    pub list: Vec<Finding>,
}

impl Findings {
    /// Whether the image cannot start.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Refusal)
    }

    /// The sentences of one severity.
    pub fn sentences(&self, severity: Severity) -> impl Iterator<Item = String> {
        self.list.iter().filter(move |finding| finding.severity == severity).map(ToString::to_string)
    }
}

/// So many sentences are told at once: one cause often has many.
const TOLD: usize = 5;

/// What is said of an image that is refused in `mode`; none when it is not.
#[must_use]
pub fn refusal(findings: &Findings, mode: Preflight) -> Option<String> {
    let sentences: Vec<String> = findings.sentences(Severity::Refusal).collect();
    let what =
        if mode == Preflight::Strict { "preflight Strict refuses the image" } else { "the image could not start" };
    Some(format!("{what}: {}", some_of(&sentences)?))
}

/// The first of `sentences` as one; none where there is none.
#[must_use]
pub fn some_of(sentences: &[String]) -> Option<String> {
    let text = sentences.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    match sentences.len() {
        0 => None,
        count if count > TOLD => Some(format!("{text}; and {} more", count - TOLD)),
        _ => Some(text),
    }
}

/// What is said of an image whose files cannot be looked at.
#[must_use]
pub fn unjudged(problem: &str) -> String {
    format!("whether the image can start is not known, its files cannot be looked at: {problem}")
}

/// Holds an image's files against how it starts. The same question has the same answer.
#[must_use]
pub fn check(question: &Question<'_>) -> Findings {
    // Of programs of other systems nothing is known here.
    if question.mode == Preflight::Off || question.platform.os != "linux" {
        return Findings::default();
    }
    let looks = Looks::new(MOST_LOOKS);
    let mut report = Report::new(*question, &looks);
    program::check(&mut report);
    rest::check(&mut report);
    let Findings { mut list } = report.findings;
    // Stable: what was found first is told first.
    list.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    list.dedup();
    Findings { list }
}

/// What the parts of a check write down.
struct Report<'a> {
    question: Question<'a>,
    looks: &'a Looks,
    findings: Findings,
    /// Files that were looked at with a program that loads them.
    seen: BTreeSet<TreePath>,
}

impl<'a> Report<'a> {
    fn new(question: Question<'a>, looks: &'a Looks) -> Self {
        Self { question, looks, findings: Findings::default(), seen: BTreeSet::new() }
    }

    /// Refuses only what does not start with CAP_DAC_OVERRIDE either, of which `capable` tells. Whether a user has it is the
    /// Pod's choice, which an image does not know.
    fn unless_capable(&mut self, capable: Report<'_>) {
        if capable.findings.is_refused() {
            (self.findings, self.seen) = (capable.findings, capable.seen);
            return;
        }
        self.findings.list.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
        for finding in capable.findings.list {
            if !self.findings.list.contains(&finding) {
                self.findings.list.push(finding);
            }
        }
        self.seen.extend(capable.seen);
    }

    fn add(&mut self, severity: Severity, file: &str, problem: Problem) {
        if self.is_full() {
            return;
        }
        // Of an index that is cut it is not known what is missing.
        let is_certain = self.question.mode != Preflight::Warn && !self.question.files.is_cut();
        let severity = if is_certain { severity } else { Severity::Warning };
        let base = printable(self.question.base.as_bytes());
        self.findings.list.push(Finding { severity, file: printable(file.as_bytes()), problem, base });
    }

    fn is_full(&self) -> bool {
        self.findings.list.len() >= MOST_FINDINGS
    }
}
