//! Any bytes as a Dockerfile: read, looked at by every rule, every word expanded.

#![no_main]
#![allow(dead_code, unused_imports)] // of the module only a part is used here

// The module alone, not the crate: instrumenting the clients for Kubernetes and registries would take ten minutes.
#[path = "../../src/domain/dockerfile/mod.rs"]
mod dockerfile;

use dockerfile::{Instruction, expand::expand, lint::lint, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = u32::try_from(bytes.split(|byte| *byte == b'\n').count()).unwrap();
    match parse(bytes) {
        Ok(file) => {
            assert!(!file.stages.is_empty());
            for warning in lint(&file) {
                assert!(warning.problem.at.line <= lines);
            }
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                for word in instruction.value.words() {
                    let _any = expand(word.value, file.escape, &|name| (name.len() > 1).then(|| name.to_owned()));
                }
                if let Instruction::Run(run) = &instruction.value {
                    for mount in &run.mounts {
                        let _any = mount.value.resolve(|word| Ok(word.value.raw().to_owned()));
                    }
                }
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(problem.at.line >= 1 && problem.at.line <= lines && problem.at.column >= 1);
            }
        }
    }
});
