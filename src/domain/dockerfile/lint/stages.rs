//! Rules about stages: names, references between them, those that nothing uses.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{ast::Instruction, parse::closest, problem::Problem},
    Facts, Found, sources,
};

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    names(facts, found);
    references(facts, found);
    unused(facts, found);
    repeated(facts, found);
}

fn names(facts: &Facts<'_>, found: &mut Found) {
    let mut seen = BTreeMap::new();
    for (_, stage) in facts.stages() {
        let Some(name) = &stage.name else { continue };
        if let Some(first) = seen.insert(&name.value, name.at.line) {
            let message =
                format!("the stage in line {first} is called {} too; give each stage its own name", name.value);
            found.add("duplicate-stage-name", name.at, &name.value, message);
        }
        if ["scratch", "context"].contains(&&*name.value) {
            let message = format!("`{}` means something else in FROM and --from; choose another name", name.value);
            found.add("stage-name-is-reserved", name.at, &name.value, message);
        }
    }
}

fn references(facts: &Facts<'_>, found: &mut Found) {
    for (index, stage) in facts.stages() {
        if facts.parents.get(index) == Some(&None)
            && let Some(near) = typo(facts, index, stage.from.value.raw())
        {
            let message = format!("no stage above is called {}, so this is an image", stage.from.value.raw());
            let problem = Problem::new(stage.from.at, stage.from.value.raw(), message).suggesting(Some(near));
            found.push("stage-name-typo", problem);
        }
        for from in stage.instructions.iter().flat_map(|instruction| sources(&instruction.value)) {
            let message = match (facts.stage(&from), from.index) {
                (Some(other), _) if other >= index => {
                    format!("stage {} does not come before this one; move it up", from.from)
                }
                (None, Some(number)) => {
                    format!("there is no stage {number}; stages count from 0 to {}", facts.dockerfile.stages.len() - 1)
                }
                (None, None) => {
                    if let Some(near) = typo(facts, index, from.from) {
                        let message = format!("no stage is called {}, so this is an image", from.from);
                        let problem = Problem::new(from.at, from.from, message).suggesting(Some(near));
                        found.push("stage-name-typo", problem);
                    }
                    continue;
                }
                _ => continue,
            };
            found.add("later-stage", from.at, from.from, message);
        }
    }
}

/// The stage before `index` whose name was probably meant by what is read as an image's.
pub(super) fn typo(facts: &Facts<'_>, index: usize, text: &str) -> Option<String> {
    let earlier = facts.dockerfile.stages.iter().take(index).filter_map(|stage| Some(&*stage.name.as_ref()?.value));
    let plain = !text.contains(['/', ':', '@', '.', '$']);
    plain.then(|| closest(text, earlier)).flatten().map(str::to_owned)
}

/// Stages that the last one does not need.
fn unused(facts: &Facts<'_>, found: &mut Found) {
    let mut used = BTreeSet::new();
    let mut queue: Vec<usize> = facts.dockerfile.stages.len().checked_sub(1).into_iter().collect();
    while let Some(index) = queue.pop() {
        if !used.insert(index) {
            continue;
        }
        queue.extend(facts.parents.get(index).copied().flatten());
        let instructions = facts.dockerfile.stages.get(index).map(|stage| &*stage.instructions).unwrap_or_default();
        let names = instructions.iter().flat_map(|instruction| sources(&instruction.value));
        queue.extend(names.filter_map(|from| facts.stage(&from)).filter(|other| *other < index));
    }
    for (index, stage) in facts.stages().filter(|(index, _)| !used.contains(index)) {
        let name = stage.name.as_ref().map_or_else(|| index.to_string(), |name| name.value.clone());
        let message = format!("the last stage does not use stage {name}; remove it unless it is built as a target");
        found.add("unused-stage", stage.at, "FROM", message);
    }
}

fn repeated(facts: &Facts<'_>, found: &mut Found) {
    for (_, stage) in facts.stages() {
        let mut seen = BTreeMap::new();
        for instruction in &stage.instructions {
            let name = match &instruction.value {
                Instruction::Cmd(_) | Instruction::Entrypoint(_) | Instruction::Healthcheck(_) => {
                    instruction.value.name()
                }
                _ => continue,
            };
            if let Some(first) = seen.insert(name, instruction.at) {
                let message = format!("the {name} in line {} takes its place; remove this one", instruction.at.line);
                found.add("repeated-instruction", first, name, message);
            }
        }
    }
}
