//! What the preflight says, and what happens: programs of real compilers on root file systems of real libraries, each judged
//! from the archives of its layers and then run by runc. docs/preflight.md has the table.

mod case;
mod cases;
mod images;
mod programs;

use std::{collections::BTreeMap, fmt::Write as _, fs};

use minimalimage::{
    api::v1alpha1::Preflight,
    domain::{
        preflight::{FileIndex, Findings, Origin, Question, check, index_layer},
        value::Platform,
    },
};

use case::Case;
use images::{Bases, Ran, Root};
use programs::Programs;

/// Where the table begins in the document.
const MARK: &str = "<!-- The table below is written by tests/local/preflight.rs; with MINIMALIMAGE_BLESS=1 in its environment. -->\n\n";
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/preflight.md");

fn verdict(case: &Case, base: &FileIndex, root: &Root) -> Findings {
    let artifact = index_layer(&root.artifact_archive()[..]).unwrap();
    let files = base.clone().with(artifact, Origin::Artifact);
    let start = case.start();
    let platform = Platform::linux("amd64");
    let question =
        Question { files: &files, start: &start, platform: &platform, base: case.base.name(), mode: case.mode };
    check(&question)
}

#[test]
fn verdicts_are_what_happens() {
    let programs = Programs::build();
    let bases = Bases::new(&programs);
    let mut indexes = BTreeMap::new();
    let mut table = String::from("| case | base | verdict | runs |\n|---|---|---|---|\n");
    let mut wrong = Vec::new();
    let cases = cases::all();
    for case in &cases {
        let root = Root::new(case, &bases, &programs);
        let base = indexes.entry(case.base).or_insert_with(|| {
            FileIndex::default().with(index_layer(&bases.archive(case.base)[..]).unwrap(), Origin::Base)
        });
        let findings = verdict(case, base, &root);
        let ran: Vec<(bool, Ran)> = case.ways().iter().map(|way| (*way, root.run(case, *way))).collect();
        let said = findings.list.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if !case.is_said(&findings) || ran.iter().any(|(way, ran)| ran.started != case.starts(*way)) {
            wrong.push(format!("{}: expected {:?}\n  said: {said}\n  ran: {ran:?}", case.name, case.expected));
        }
        let verdict = match (findings.is_refused(), said.is_empty()) {
            (true, _) => format!("refused: {said}"),
            (false, true) => "fits".to_owned(),
            (false, false) => format!("warning: {said}"),
        };
        let mode = if case.mode == Preflight::Strict { " (Strict)" } else { "" };
        let runs = match (case.starts(true), case.starts(false)) {
            (true, true) => "yes",
            (true, false) => "with CAP_DAC_OVERRIDE",
            (false, _) => "no",
        };
        writeln!(table, "| {}{mode} | {} | {} | {runs} |", case.name, case.base.name(), verdict.replace('|', "\\|"))
            .unwrap();
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    let document = fs::read_to_string(DOCUMENT).unwrap_or_default();
    let (text, written) = document.split_once(MARK).unwrap_or((&document, ""));
    if std::env::var_os("MINIMALIMAGE_BLESS").is_some() {
        fs::write(DOCUMENT, format!("{text}{MARK}{table}")).unwrap();
    } else {
        assert_eq!(written, table, "docs/preflight.md is out of date: run this test with MINIMALIMAGE_BLESS=1");
    }
}
