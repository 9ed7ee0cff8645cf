//! Programs for Python: whether the script is there, and whether compiled modules are for the base's Python (PEP 3149, PEP 384).

use std::collections::BTreeMap;

use crate::{api::v1alpha1::Preflight, domain::tree::TreePath};

use super::{
    Report,
    index::{FileIndex, Kind, Origin},
    problem::{Problem, Severity},
    program::{Runner, last},
};

/// Writes down what keeps `python` from starting its script, and modules that it will not find.
pub(super) fn check(report: &mut Report<'_>, runner: &Runner, program: &TreePath, argv: &[String]) {
    let name = program.to_string();
    let Some(number) = last(&name).strip_prefix("python") else { return };
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return;
    }
    if let Some(script) = script(argv)
        && let Err(Some(problem)) = runner.open(report, script)
        // A directory or an archive with a __main__ in it is a program, too.
        && problem != Problem::NotAFile
    {
        report.add(Severity::Refusal, &runner.absolute(script), problem);
    }
    if let Some(version) = version(number, report.question.files, program) {
        modules(report, runner, version);
    }
}

/// The script that is run; none where there is none, as with `-m`.
fn script(argv: &[String]) -> Option<&str> {
    let mut words = argv.iter().skip(1).map(String::as_str);
    loop {
        match words.next()? {
            "-W" | "-X" | "--check-hash-based-pycs" => drop(words.next()?),
            "-" => return None,
            option if option.starts_with("--") => {}
            option if option.starts_with('-') => {
                // Letters may be put together; these two take all that follows.
                if option.contains(['m', 'c']) {
                    return None;
                }
            }
            script => return Some(script),
        }
    }
}

/// `3.11`, as 3 and 11: by the program's name, else by the one library beside it.
fn version(number: &str, files: &FileIndex, program: &TreePath) -> Option<(u32, u32)> {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    if let Some(version) = parse(number) {
        return Some(version);
    }
    let library = program.parent()?.parent()?.join(b"lib").ok()?;
    let mut found = files.below(&library).filter_map(|(path, node)| {
        let name = path.as_bytes().strip_prefix(library.as_bytes())?.strip_prefix(b"/python")?;
        let is_directory = node.kind == Kind::Directory;
        std::str::from_utf8(name).ok().filter(|_| is_directory).and_then(parse)
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The builds of one module.
#[derive(Default)]
struct Builds {
    fits: bool,
    other: Option<(String, String)>,
}

fn modules(report: &mut Report<'_>, runner: &Runner, (major, minor): (u32, u32)) {
    let mut builds: BTreeMap<String, Builds> = BTreeMap::new();
    let own = format!("{major}{minor}");
    let artifacts = report.question.files.iter().filter(|(_, node)| node.origin == Origin::Artifact);
    for (path, _) in artifacts {
        let path = path.to_string();
        let name = last(&path);
        let Some((stem, tag)) = name.split_once('.') else { continue };
        let Some(directory) = path.strip_suffix(name) else { continue };
        let entry = || format!("{directory}{stem}");
        if tag == "py" || tag == "so" || tag == "abi3.so" {
            builds.entry(entry()).or_default().fits = true;
        } else if let Some(build) = tag.strip_suffix(".so").and_then(|tag| tag.strip_prefix("cpython-")) {
            let number = build.split('-').next().unwrap_or_default();
            if number == own {
                builds.entry(entry()).or_default().fits = true;
            } else {
                let built_for = match number.split_at_checked(1) {
                    Some((major, minor)) if !minor.is_empty() => format!("Python {major}.{minor}"),
                    _ => format!("cpython-{number}"),
                };
                builds.entry(entry()).or_default().other.get_or_insert((path.clone(), built_for));
            }
        }
    }
    let searched: Vec<String> = report
        .question
        .start
        .variable("PYTHONPATH")
        .unwrap_or_default()
        .split(':')
        .map(|part| format!("{}/", runner.absolute(part).trim_end_matches('/')))
        .collect();
    let found = format!("{major}.{minor}");
    for (file, built_for) in builds.into_values().filter(|builds| !builds.fits).filter_map(|builds| builds.other) {
        let is_searched = searched.iter().any(|directory| directory.len() > 1 && file.starts_with(directory.as_str()));
        let is_refused = report.question.mode == Preflight::Strict && is_searched;
        let severity = if is_refused { Severity::Refusal } else { Severity::Warning };
        report.add(severity, &file, Problem::PythonModule { built_for, found: found.clone() });
    }
}
