//! Rules about images that a Dockerfile starts from: tags, arguments, shells.

use super::{
    super::{
        ast::{CommandLine, Healthcheck, Instruction, Stage, Word},
        expand::{Expanded, expand},
        parse::closest,
        problem::{Located, Position, Problem},
    },
    Facts, Found, PLATFORM_ARGUMENTS, sources,
    stages::typo,
};

/// The rule about shell forms that nothing can read.
pub const WITHOUT_SHELL: &str = "shell-form-without-shell";

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    for (index, stage) in facts.stages() {
        undefined(facts, stage, found);
        if facts.parents.get(index) == Some(&None)
            && let Some(Some(base)) = facts.bases.get(index)
            && base.undefined.is_empty()
            && typo(facts, index, &base.text).is_none()
        {
            pinned(&base.text, stage.from.at, found);
        }
        for from in stage.instructions.iter().flat_map(|instruction| sources(&instruction.value)) {
            if from.index.is_none() && facts.stage(&from).is_none() && typo(facts, index, from.from).is_none() {
                pinned(from.from, from.at, found);
            }
        }
        if facts.image(index).is_some_and(has_no_shell) {
            shell_forms(facts, index, stage, found);
        }
    }
}

/// FROM sees the global ARGs alone.
fn undefined(facts: &Facts<'_>, stage: &Stage, found: &mut Found) {
    let declared: Vec<&str> = facts.dockerfile.arguments.iter().map(|argument| argument.value.name.raw()).collect();
    let words = [Some(&stage.from), stage.platform.as_ref()];
    for word in words.into_iter().flatten() {
        for name in names(word, facts.dockerfile.escape) {
            if declared.contains(&&*name) || PLATFORM_ARGUMENTS.contains(&&*name) {
                continue;
            }
            let near = closest(&name, declared.iter().copied().chain(PLATFORM_ARGUMENTS));
            let message = format!("no ARG before the first FROM declares {name}; write ARG {name} there");
            let problem = Problem::new(word.at, word.value.raw(), message).suggesting(near);
            found.push("undefined-argument", problem);
        }
    }
}

/// The variables in a word, defaults aside: `${A:-b}` is fine without an A.
fn names(word: &Located<Word>, escape: char) -> Vec<String> {
    let expanded = expand(&word.value, escape, &|_| None);
    let Ok(Expanded { undefined, .. }) = expanded else { return Vec::new() };
    let raw = word.value.raw();
    let has_default =
        |name: &str| ["-", ":-", "+", ":+"].iter().any(|operator| raw.contains(&format!("${{{name}{operator}")));
    undefined.into_iter().filter(|name| !has_default(name)).collect()
}

fn pinned(image: &str, at: Position, found: &mut Found) {
    if image == "scratch" || image.contains('@') || image.is_empty() {
        return;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let message = match name.split_once(':') {
        None => format!("{image} has no tag, so it is whatever is latest; add a version or a digest"),
        Some((_, "latest")) => format!("{image} is another image tomorrow; use a version or a digest"),
        Some(_) => return,
    };
    found.add("unpinned-image", at, image, message);
}

/// Images that are known to hold no shell.
fn has_no_shell(image: &str) -> bool {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, ""));
    let bare = name.contains("distroless") || name.ends_with("chainguard/static");
    image == "scratch" || (bare && !tag.contains("debug") && !tag.contains("-dev"))
}

fn shell_forms(facts: &Facts<'_>, index: usize, stage: &Stage, found: &mut Found) {
    for instruction in &stage.instructions {
        let command = match &instruction.value {
            // A shell that was copied in or is named is the author's own business.
            Instruction::Shell(_) => return,
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => &command.value,
            Instruction::Run(run) => &run.command.value,
            Instruction::Healthcheck(Located { value: Healthcheck::Check(check), .. }) => &check.command,
            _ => continue,
        };
        let CommandLine::Shell(text) = command else { continue };
        let (name, image) = (instruction.value.name(), facts.image(index).unwrap_or_default());
        let message = if name == "RUN" {
            format!("{image} has no shell to run this; do it in a stage that has one and COPY --from that")
        } else {
            format!("{image} has no shell to run this; write {name} as JSON: [\"program\", \"argument\"]")
        };
        found.add(WITHOUT_SHELL, instruction.at, text, message);
    }
}
