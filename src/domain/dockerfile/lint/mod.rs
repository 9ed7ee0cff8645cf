//! What makes images large, builds irreproducible or surprising: rules over a parsed Dockerfile.

mod commands;
mod files;
mod images;
mod stages;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ast::{CommandLine, Dockerfile, Instruction, Stage},
    expand::{Expanded, expand},
    problem::{Position, Problem, Warning},
};

pub use images::WITHOUT_SHELL;

/// The names of all rules, the parser's included, with what each one is about.
pub const RULES: [(&str, &str); 21] = [
    ("add-without-checksum", "ADD takes a file from the network and nothing says which"),
    ("apt-lists-left", "apt-get's package lists stay in the final image"),
    ("apt-update-alone", "apt-get update in a RUN of its own goes stale in the cache"),
    ("blank-continuation", "a blank line within a continued instruction"),
    ("copy-before-install", "dependencies are installed anew whenever any source file changes"),
    ("duplicate-stage-name", "two stages of one name"),
    ("exec-form-is-no-json", "brackets that look like an exec form but are read by the shell"),
    ("later-stage", "files are copied from a stage that comes later, or does not exist"),
    ("legacy-key-value", "ENV or LABEL without `=`"),
    ("maintainer-deprecated", "MAINTAINER"),
    ("repeated-instruction", "only the last CMD, ENTRYPOINT or HEALTHCHECK of a stage counts"),
    ("secret-in-arg", "an ARG's value is seen in the image's history"),
    ("secret-in-env", "an ENV's value is part of the image"),
    (WITHOUT_SHELL, "a shell form on a base that has no shell"),
    ("stage-name-is-reserved", "a stage is called as something else is"),
    ("stage-name-typo", "a name that is nearly a stage's is taken for an image"),
    ("undefined-argument", "FROM uses a variable that no ARG above declares"),
    ("undefined-variable", "a variable that nothing above defines, but something similar"),
    ("unpinned-image", "an image without a tag, or latest"),
    ("unused-stage", "no other stage uses this one"),
    ("whole-root-copy", "a stage's whole file system is copied"),
];

/// Everything that the rules find, in the order of the file; the parser's own warnings are among it.
pub fn lint(dockerfile: &Dockerfile) -> Vec<Warning> {
    let facts = Facts::new(dockerfile);
    let mut found = Found(dockerfile.warnings.clone());
    stages::check(&facts, &mut found);
    images::check(&facts, &mut found);
    files::check(&facts, &mut found);
    commands::check(&facts, &mut found);
    variables::check(&facts, &mut found);
    let mut warnings = found.0;
    warnings.sort_by_key(|warning| (warning.problem.at, warning.rule));
    warnings.dedup();
    warnings
}

struct Found(Vec<Warning>);

impl Found {
    fn add(&mut self, rule: &'static str, at: Position, text: &str, message: impl Into<String>) {
        self.push(rule, Problem::new(at, text, message));
    }

    fn push(&mut self, rule: &'static str, problem: Problem) {
        self.0.push(Warning { rule, problem });
    }
}

/// What several rules want to know.
struct Facts<'a> {
    dockerfile: &'a Dockerfile,
    /// By name; of equal names the last, as in BuildKit.
    names: BTreeMap<&'a str, usize>,
    /// Each stage's base: a text with the global ARGs' defaults filled in.
    bases: Vec<Option<Expanded>>,
    /// Each stage's parent, if its base is an earlier stage.
    parents: Vec<Option<usize>>,
    /// The stages whose instructions make up the final image: the last one and those that it is built on.
    last: BTreeSet<usize>,
}

/// Variables that BuildKit defines for FROM without an ARG.
const PLATFORM_ARGUMENTS: [&str; 8] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
];

impl<'a> Facts<'a> {
    fn new(dockerfile: &'a Dockerfile) -> Self {
        let defaults = defaults(dockerfile);
        let lookup = |name: &str| defaults.get(name).cloned();
        let mut names = BTreeMap::new();
        let mut bases = Vec::new();
        let mut parents = Vec::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let base = expand(&stage.from.value, dockerfile.escape, &lookup).ok();
            parents.push(base.as_ref().and_then(|base| names.get(&*base.text.to_lowercase()).copied()));
            bases.push(base);
            if let Some(name) = &stage.name {
                names.insert(&*name.value, index);
            }
        }
        let mut last = BTreeSet::new();
        let mut next = dockerfile.stages.len().checked_sub(1);
        while let Some(index) = next {
            last.insert(index);
            next = parents.get(index).copied().flatten();
        }
        Self { dockerfile, names, bases, parents, last }
    }

    fn stages(&self) -> impl Iterator<Item = (usize, &'a Stage)> {
        self.dockerfile.stages.iter().enumerate()
    }

    /// The stage that `--from` or `from=` names.
    fn stage(&self, source: &Source<'_>) -> Option<usize> {
        source.index.filter(|index| *index < self.dockerfile.stages.len()).or_else(|| self.named(source.from))
    }

    fn named(&self, from: &str) -> Option<usize> {
        self.names.get(&*from.to_lowercase()).copied()
    }

    /// The image that a stage is finally built on, unless its name depends on something that is not known here.
    fn image(&self, mut index: usize) -> Option<&str> {
        while let Some(parent) = self.parents.get(index).copied().flatten() {
            index = parent;
        }
        let base = self.bases.get(index)?.as_ref()?;
        base.undefined.is_empty().then_some(&*base.text)
    }
}

/// The global ARGs that have a default, and those without one as empty: a caller may give them.
fn defaults(dockerfile: &Dockerfile) -> BTreeMap<String, String> {
    let mut defaults = BTreeMap::new();
    for argument in &dockerfile.arguments {
        let Some(default) = &argument.value.default else { continue };
        let value = expand(default, dockerfile.escape, &|name| defaults.get(name).cloned());
        if let Ok(Expanded { text, undefined, .. }) = value
            && undefined.is_empty()
        {
            defaults.insert(argument.value.name.raw().to_owned(), text);
        }
    }
    defaults
}

/// A stage or image that an instruction takes files from.
struct Source<'a> {
    from: &'a str,
    at: Position,
    /// Which stage it is by number; only COPY counts stages.
    index: Option<usize>,
}

fn sources(instruction: &Instruction) -> Vec<Source<'_>> {
    match instruction {
        Instruction::Copy(copy) => {
            let from = copy.from.iter();
            from.map(|from| Source { from: &from.value, at: from.at, index: from.value.parse().ok() }).collect()
        }
        Instruction::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| &mount.value.fields)
            .filter(|field| field.value.key == "from")
            .filter_map(|field| Some(Source { from: field.value.value.as_ref()?.raw(), at: field.at, index: None }))
            .collect(),
        _ => Vec::new(),
    }
}

/// What a RUN executes, as one text with single blanks.
fn command_text(command: &CommandLine, heredocs: impl Iterator<Item = String>) -> String {
    let mut text = match command {
        CommandLine::Shell(text) => text.clone(),
        CommandLine::Exec(words) => words.join(" "),
    };
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc);
    }
    text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
