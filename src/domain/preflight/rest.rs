//! What of the artifacts does not belong to the entrypoint: programs that it may start, libraries that something may load.

use crate::{api::v1alpha1::Preflight, domain::tree::TreePath};

use super::{
    Report, closure,
    elf::{Elf, ElfKind},
    index::{Facts, Kind, Origin},
    machine,
    problem::{Problem, Severity},
    search::Surroundings,
};

/// Writes down what keeps them from running: as warnings, or in Strict as refusals.
pub(super) fn check(report: &mut Report<'_>) {
    let question = report.question;
    let severity = if question.mode == Preflight::Strict { Severity::Refusal } else { Severity::Warning };
    let around = Surroundings {
        files: question.files,
        user: None,
        starter: None,
        library_path: question.start.variable("LD_LIBRARY_PATH"),
        working_dir: Some(question.start.config.working_dir.as_str()).filter(|path| !path.is_empty()).unwrap_or("/"),
        is_secure: false,
        looks: report.looks,
    };
    for (path, node) in question.files.iter().filter(|(_, node)| node.origin == Origin::Artifact) {
        if report.is_full() || around.looks.is_spent() {
            return;
        }
        let Kind::File(facts) = &node.kind else { continue };
        if report.seen.contains(path) {
            continue;
        }
        match facts {
            Facts::Elf(elf) if elf.kind != ElfKind::Other => {
                if let Some(problem) = machine::misfit(elf, question.platform) {
                    let is_certain = !matches!(problem, Problem::Bits32 { .. });
                    report.add(if is_certain { severity } else { Severity::Warning }, &path.to_string(), problem);
                    continue;
                }
                for (file, problem) in problems(path, elf, around) {
                    // Whoever loads a library may have loaded before it what it needs, as Java does.
                    let is_there = elf.interpreter.is_none()
                        && matches!(&problem, Problem::LibraryMissing { elsewhere: Some(_), .. });
                    match severity {
                        Severity::Warning if is_there => {}
                        _ => report.add(if is_there { Severity::Warning } else { severity }, &file, problem),
                    }
                }
            }
            _ => {}
        }
    }
}

/// A library without a loader of its own is no program that should have one.
fn problems(path: &TreePath, elf: &Elf, around: Surroundings<'_>) -> Vec<(String, Problem)> {
    let is_program = elf.interpreter.is_some() || elf.kind == ElfKind::Program;
    let load = if is_program { closure::of_program } else { closure::of_library };
    load(path, elf, around).problems
}
