//! Tests of the preflight by small inputs made here; programs of real compilers are in tests/local/preflight.rs.

mod elves;
mod layers;
mod sentences;
mod starts;

use super::{FileIndex, Findings, Origin, Question, Start, check};
use crate::{api::v1alpha1::Preflight, domain::value::Platform};

/// Holds `files` against an entrypoint, for amd64.
fn judge(files: &FileIndex, entrypoint: &[&str], change: impl FnOnce(&mut Start)) -> Findings {
    let mut start =
        Start { entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(), ..Start::default() };
    change(&mut start);
    let platform = Platform::linux("amd64");
    check(&Question { files, start: &start, platform: &platform, base: "debian:12", mode: Preflight::Enforce })
}

fn said(findings: &Findings) -> Vec<String> {
    findings.list.iter().map(ToString::to_string).collect()
}

fn files(layers: impl IntoIterator<Item = super::LayerIndex>) -> FileIndex {
    layers.into_iter().fold(FileIndex::default(), |files, layer| files.with(layer, Origin::Artifact))
}
