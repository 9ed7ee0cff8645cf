//! Rules about variables in stages.

use std::collections::BTreeSet;

use super::{
    super::{ast::Instruction, expand::expand, parse::closest, problem::Problem},
    Facts, Found, PLATFORM_ARGUMENTS,
};

/// Variables that are nearly spelt as one that is defined. Others may come from the base image, so they are left alone.
pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    let mut inherited: Vec<BTreeSet<&str>> = Vec::new();
    for (index, stage) in facts.stages() {
        let parent = facts.parents.get(index).copied().flatten().and_then(|parent| inherited.get(parent)).cloned();
        let mut defined = parent.unwrap_or_default();
        for instruction in &stage.instructions {
            for word in instruction.value.words() {
                let expanded = expand(word.value, facts.dockerfile.escape, &|_| None).unwrap_or_default();
                for name in expanded.undefined {
                    let known = defined.contains(&*name) || PLATFORM_ARGUMENTS.contains(&&*name);
                    let near = closest(&name, defined.iter().copied()).filter(|_| !known && name.len() > 3);
                    if let Some(near) = near {
                        let message = format!("nothing above defines {name}");
                        let problem = Problem::new(word.at, word.value.raw(), message).suggesting(Some(near));
                        found.push("undefined-variable", problem);
                    }
                }
            }
            match &instruction.value {
                Instruction::Arg(arguments) => defined.extend(arguments.iter().map(|a| a.value.name.raw())),
                Instruction::Env(pairs) => defined.extend(pairs.iter().map(|pair| pair.name.value.raw())),
                _ => {}
            }
        }
        inherited.push(defined);
    }
}
