//! What is doubtful in a Dockerfile and in what is given to it, and built all the same.

use std::collections::BTreeMap;

use crate::domain::dockerfile::{ast::Instruction, lint, parse::closest};

use super::{OpenDockerfile, scope::PREDEFINED, stage::Built};

/// One sentence for each, with its place.
pub(super) fn doubts(open: &OpenDockerfile<'_>, built: &BTreeMap<usize, Built>) -> Vec<String> {
    let mut doubts = without_shell(open);
    doubts.extend(unused_arguments(open));
    let secrets = built.values().flat_map(|built| &built.without_secret);
    doubts.extend(secrets.map(|problem| problem.clone().in_file(&open.name)));
    doubts.extend(unused_secrets(open, built));
    doubts
}

/// Commands of the image that nothing in it can read.
fn without_shell(open: &OpenDockerfile<'_>) -> Vec<String> {
    let Some(stage) = open.dockerfile.stages.get(open.graph.target) else { return Vec::new() };
    let lines: Vec<_> = stage.instructions.iter().map(|instruction| instruction.at).collect();
    let warnings = lint::lint(&open.dockerfile).into_iter();
    let meant = warnings.filter(|warning| warning.rule == lint::WITHOUT_SHELL && lines.contains(&warning.problem.at));
    meant.map(|warning| warning.problem.in_file(&open.name)).collect()
}

/// Build arguments that no ARG takes.
fn unused_arguments(open: &OpenDockerfile<'_>) -> Vec<String> {
    let of_stages = open.dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let of_stages = of_stages.filter_map(|instruction| match &instruction.value {
        Instruction::Arg(arguments) => Some(arguments),
        _ => None,
    });
    let declared = open.dockerfile.arguments.iter().chain(of_stages.flatten());
    let declared: Vec<&str> = declared.map(|argument| argument.value.name.raw()).collect();
    let given = open.plan.spec.args.iter().map(|argument| argument.name.as_str());
    let unused = given.filter(|name| !declared.contains(name) && !PREDEFINED.contains(name));
    let sentence =
        |name: &str| format!("{}: no ARG takes the build argument {name}{}", open.name, meant(name, &declared));
    unused.map(sentence).collect()
}

/// Build secrets that no RUN mounts.
fn unused_secrets(open: &OpenDockerfile<'_>, built: &BTreeMap<usize, Built>) -> Vec<String> {
    let is_used = |index: usize| built.values().any(|built| built.secrets.contains(&index));
    let ids = open.plan.spec.secrets.iter().map(|secret| secret.id.as_str()).enumerate();
    let unused = ids.filter(|(index, _)| !is_used(*index));
    unused.map(|(_, id)| format!("{}: no RUN that is needed mounts the secret {id}", open.name)).collect()
}

fn meant(name: &str, candidates: &[&str]) -> String {
    closest(name, candidates.iter().copied()).map(|near| format!(", did you mean {near}?")).unwrap_or_default()
}
