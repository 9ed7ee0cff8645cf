//! Which stages the target needs, by FROM and by COPY --from, and the images that they name.

use std::collections::BTreeMap;

use crate::domain::{
    dockerfile::{Dockerfile, Instruction, Located, Position, Problem, Word, mount::MountFlag, parse::closest},
    remote::Remote,
    value::Reference,
};

use super::scope::Globals;

/// More stages than anybody writes; each may become a Pod.
pub(super) const MOST_STAGES: usize = 128;

/// What a stage begins from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum From {
    Scratch,
    Image(Reference),
    /// An earlier stage.
    Stage(usize),
}

/// Where a copy takes its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Context,
    Stage(usize),
    Image(Reference),
    Remote(Remote),
}

/// The stages that are needed for the target.
#[derive(Debug)]
pub(super) struct Graph {
    /// The stage that becomes the image.
    pub target: usize,
    /// What each stage begins from; none for stages that nothing needs.
    pub from: Vec<Option<From>>,
    /// Every image of the needed stages, with the word that names it first.
    pub images: BTreeMap<Reference, Located<String>>,
}

impl Graph {
    pub(super) fn new(
        dockerfile: &Dockerfile,
        globals: &Globals,
        target: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let count = dockerfile.stages.len();
        if let Some(stage) = dockerfile.stages.get(MOST_STAGES) {
            problems.push(Problem::new(stage.at, "FROM", format!("more than {MOST_STAGES} stages are not possible")));
            return None;
        }
        let target = match target {
            None => count.checked_sub(1)?,
            Some(name) => find(dockerfile, name, count).or_else(|| {
                let first = dockerfile.stages.first()?;
                let names: Vec<_> = names(dockerfile).collect();
                let message =
                    format!("spec.dockerfile.target: no stage is named `{name}`, there are: {}", names.join(", "));
                problems.push(Problem::new(first.at, "FROM", message));
                None
            })?,
        };
        let mut graph = Self { target, from: vec![None; count], images: BTreeMap::new() };
        let mut todo = vec![target];
        while let Some(index) = todo.pop() {
            let (Some(stage), Some(place)) = (dockerfile.stages.get(index), graph.from.get_mut(index)) else {
                continue;
            };
            if place.is_some() {
                continue;
            }
            let from = from(dockerfile, globals, index, problems);
            match &from {
                Some(From::Stage(earlier)) => todo.push(*earlier),
                Some(From::Image(reference)) => {
                    let word = Located::new(stage.from.value.raw().to_owned(), stage.from.at);
                    graph.images.entry(reference.clone()).or_insert(word);
                }
                _ => {}
            }
            // A FROM that makes no sense is a problem by now; its stage is looked at all the same.
            *place = Some(from.unwrap_or(From::Scratch));
            for word in stage.instructions.iter().flat_map(|instruction| origins_of(&instruction.value)) {
                match origin(dockerfile, &word, index, problems) {
                    Some(Origin::Stage(earlier)) => todo.push(earlier),
                    Some(Origin::Image(reference)) => drop(graph.images.entry(reference).or_insert(word)),
                    _ => {}
                }
            }
        }
        Some(graph)
    }
}

/// The values of an instruction's `--from` and of `from` in its mounts.
pub(super) fn origins_of(instruction: &Instruction) -> Vec<Located<String>> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(mount_from).collect(),
        _ => Vec::new(),
    }
}

/// What a mount takes its files from; none for the context.
pub(super) fn mount_from(mount: &Located<MountFlag>) -> Option<Located<String>> {
    let from = mount.value.fields.iter().rev().find(|field| field.value.key == "from")?;
    Some(Located::new(from.value.value.as_ref()?.raw().to_owned(), from.at))
}

fn from(dockerfile: &Dockerfile, globals: &Globals, index: usize, problems: &mut Vec<Problem>) -> Option<From> {
    let stage = dockerfile.stages.get(index)?;
    let text = globals.word(&stage.from, problems)?;
    if let Some(platform) = &stage.platform {
        let wanted = globals.word(platform, problems)?;
        let own = globals_platform(globals, problems)?;
        if wanted != own && !wanted.is_empty() {
            let message =
                format!("stages run on {own}, the platform of the image: leave --platform out, or use $BUILDPLATFORM");
            problems.push(Problem::new(platform.at, platform.value.raw(), message));
        }
    }
    if text == "scratch" {
        return Some(From::Scratch);
    }
    if let Some(earlier) = by_name(dockerfile, &text, index) {
        return Some(From::Stage(earlier));
    }
    if text.is_empty() {
        let message = "FROM is empty after its variables were replaced: give the ARG a default, or a value in spec.dockerfile.args";
        problems.push(Problem::new(stage.from.at, stage.from.value.raw(), message));
        return None;
    }
    reference(&text, (stage.from.at, stage.from.value.raw()), problems).map(From::Image)
}

fn globals_platform(globals: &Globals, problems: &mut Vec<Problem>) -> Option<String> {
    let word = Located::new(Word::new("${TARGETPLATFORM}"), Position { line: 1, column: 1 });
    globals.word(&word, problems)
}

/// What a `--from` of stage `index` means: an earlier stage by name or number, else an image.
pub(super) fn origin(
    dockerfile: &Dockerfile,
    word: &Located<String>,
    index: usize,
    problems: &mut Vec<Problem>,
) -> Option<Origin> {
    let text = word.value.as_str();
    if let Some(earlier) = find(dockerfile, text, index) {
        return Some(Origin::Stage(earlier));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) || find(dockerfile, text, dockerfile.stages.len()).is_some() {
        let count = dockerfile.stages.len();
        let beyond = text.parse::<usize>().is_ok_and(|number| number >= count);
        let message = if beyond {
            format!("there is no stage {text}: stages count from 0 to {}", count.saturating_sub(1))
        } else {
            "a stage can only copy from stages before it".to_owned()
        };
        problems.push(Problem::new(word.at, text, message));
        return None;
    }
    // A bare word could be an image of that name; close to a stage's name it is more likely a typing error.
    let meant = closest(text, names(dockerfile)).map(str::to_owned);
    if let Some(meant) = meant {
        problems.push(Problem::new(word.at, text, "no stage has this name").suggesting(Some(meant)));
        return None;
    }
    reference(text, (word.at, text), problems).map(Origin::Image)
}

fn reference(text: &str, (at, written): (Position, &str), problems: &mut Vec<Problem>) -> Option<Reference> {
    let parsed = text.parse::<Reference>();
    parsed.map_err(|error| problems.push(Problem::new(at, written, error.to_string()))).ok()
}

/// The stage before `end` that is called `name`, or has this number.
fn find(dockerfile: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    by_name(dockerfile, name, end).or_else(|| name.parse().ok().filter(|index| *index < end))
}

/// Names do not depend on case; of several stages with one name the last one counts.
fn by_name(dockerfile: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    let name = name.to_lowercase();
    let is_it = |index: &usize| {
        let stage = dockerfile.stages.get(*index);
        stage.and_then(|stage| stage.name.as_ref()).is_some_and(|own| own.value == name)
    };
    (0..end).rev().find(is_it)
}

fn names(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref()).map(|name| name.value.as_str())
}
