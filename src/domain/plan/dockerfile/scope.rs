//! Variables: what ARG and ENV have set so far, and words expanded with them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    dockerfile::{
        Dockerfile, Located, Problem, Word,
        ast::Argument,
        expand::{Expanded, content, expand},
    },
    image::USUAL_PATH,
    value::Platform,
};

use super::DockerfilePlan;

/// Build arguments that need no ARG, as in Docker.
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What holds outside of stages.
#[derive(Debug)]
pub(super) struct Globals {
    pub escape: char,
    /// What the spec gives.
    given: BTreeMap<String, String>,
    /// ARGs before the first FROM, and the platform's.
    values: BTreeMap<String, String>,
}

impl Globals {
    pub(super) fn new(dockerfile: &Dockerfile, plan: &DockerfilePlan, problems: &mut Vec<Problem>) -> Self {
        let given = plan.spec.args.iter().map(|argument| (argument.name.clone(), argument.value.clone())).collect();
        let mut globals = Self { escape: dockerfile.escape, given, values: platform_values(&plan.outline.platform) };
        for argument in &dockerfile.arguments {
            if let Some((name, Some(value))) =
                globals.argument(argument, &|name| globals.values.get(name).cloned(), problems)
            {
                globals.values.insert(name, value);
            }
        }
        globals
    }

    /// A word of a FROM line.
    pub(super) fn word(&self, word: &Located<Word>, problems: &mut Vec<Problem>) -> Option<String> {
        self.expanded(word, &|name| self.values.get(name).cloned(), problems).map(|expanded| expanded.text)
    }

    /// Name and value of an ARG: what is given, else its default.
    fn argument(
        &self,
        argument: &Located<Argument>,
        lookup: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<(String, Option<String>)> {
        let located = |word: &Word| Located::new(word.clone(), argument.at);
        let name = self.expanded(&located(&argument.value.name), lookup, problems)?.text;
        if let Some(given) = self.given.get(&name) {
            return Some((name, Some(given.clone())));
        }
        let default = match &argument.value.default {
            Some(word) => Some(self.expanded(&located(word), lookup, problems)?.text),
            None => None,
        };
        Some((name, default))
    }

    fn expanded(
        &self,
        word: &Located<Word>,
        lookup: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<Expanded> {
        let expanded = expand(&word.value, self.escape, lookup);
        expanded.map_err(|error| problems.push(Problem::new(word.at, word.value.raw(), error.to_string()))).ok()
    }

    /// The arguments that RUN sees without an ARG.
    fn predefined(&self) -> impl Iterator<Item = (&String, &String)> {
        self.given.iter().filter(|(name, _)| PREDEFINED.contains(&name.as_str()))
    }
}

fn platform_values(platform: &Platform) -> BTreeMap<String, String> {
    let variant = platform.variant.clone().unwrap_or_default();
    let parts = [
        ("PLATFORM", platform.to_string()),
        ("OS", platform.os.clone()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", variant),
    ];
    // Stages run on the platform that the image is for.
    let both =
        parts.iter().flat_map(|(part, value)| ["TARGET", "BUILD"].map(|side| (format!("{side}{part}"), value.clone())));
    both.collect()
}

/// What holds at one place of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// What ENV and the base image have set, in order.
    pub env: Vec<(String, String)>,
    /// What ENV of this Dockerfile has set, in order.
    pub own: Vec<(String, String)>,
    /// What ARG has declared and that has a value.
    arguments: BTreeMap<String, String>,
    /// Those of them that come behind an ENV of the same name: in this stage they hide it.
    later: BTreeSet<String>,
}

impl Scope {
    /// The scope at the start of a stage that is built from an image with these variables.
    pub(super) fn of_image(env: &[(String, String)]) -> Self {
        let mut scope = Self { env: env.to_vec(), ..Self::default() };
        if !scope.env.iter().any(|(name, _)| name == "PATH") {
            // BuildKit sets it in every image.
            scope.set("PATH", USUAL_PATH);
        }
        scope
    }

    /// The scope of a stage that is built from this one.
    pub(super) fn inherited(&self) -> Self {
        Self { later: BTreeSet::new(), ..self.clone() }
    }

    /// ENV: from here on, and in the image.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.later.remove(name);
        for list in [&mut self.env, &mut self.own] {
            match list.iter_mut().find(|(other, _)| other == name) {
                Some((_, old)) => value.clone_into(old),
                None => list.push((name.to_owned(), value.to_owned())),
            }
        }
    }

    /// ARG within a stage.
    pub(super) fn declare(&mut self, globals: &Globals, argument: &Located<Argument>, problems: &mut Vec<Problem>) {
        let Some((name, value)) = globals.argument(argument, &|name| self.get(name), problems) else { return };
        if let Some(value) = value.or_else(|| globals.values.get(&name).cloned()) {
            if self.env.iter().any(|(other, _)| *other == name) {
                self.later.insert(name.clone());
            }
            self.arguments.insert(name, value);
        }
    }

    /// Of an ARG and an ENV of the same name the later one holds.
    fn get(&self, name: &str) -> Option<String> {
        let set = self.env.iter().find(|(other, _)| other == name && !self.later.contains(name));
        set.map(|(_, value)| value.clone()).or_else(|| self.arguments.get(name).cloned())
    }

    /// A word as one text.
    pub(super) fn word(&self, globals: &Globals, word: &Located<Word>, problems: &mut Vec<Problem>) -> Option<String> {
        globals.expanded(word, &|name| self.get(name), problems).map(|expanded| expanded.text)
    }

    /// The same, its problem as a value.
    pub(super) fn try_word(&self, globals: &Globals, word: &Located<Word>) -> Result<String, Problem> {
        let mut problems = Vec::new();
        let expanded = self.word(globals, word, &mut problems);
        expanded.ok_or_else(|| {
            problems.pop().unwrap_or_else(|| Problem::new(word.at, word.value.raw(), "cannot be expanded"))
        })
    }

    /// A word that may become several.
    pub(super) fn words(&self, globals: &Globals, word: &Located<Word>, problems: &mut Vec<Problem>) -> Vec<String> {
        globals.expanded(word, &|name| self.get(name), problems).map(|expanded| expanded.words).unwrap_or_default()
    }

    /// The text of a here-document that is no command.
    pub(super) fn content(&self, text: &Located<&str>, problems: &mut Vec<Problem>) -> Option<String> {
        let expanded = content(text.value, &|name| self.get(name));
        expanded.map_err(|error| problems.push(Problem::new(text.at, text.value, error.to_string()))).ok()
    }

    /// What a RUN gets on top of its image's own variables.
    pub(super) fn of_run(&self, globals: &Globals) -> BTreeMap<String, String> {
        let pairs = globals.predefined().chain(&self.arguments).map(|(name, value)| (name.clone(), value.clone()));
        let hidden = |name: &String| self.env.iter().any(|(other, _)| other == name) && !self.later.contains(name);
        let mut variables: BTreeMap<_, _> = pairs.filter(|(name, _)| !hidden(name)).collect();
        // Where the image itself says where home is, no entry of /etc/passwd does.
        variables.extend(self.env.iter().filter(|(name, _)| name == "HOME").cloned());
        variables.extend(self.own.iter().filter(|(name, _)| !self.later.contains(name)).cloned());
        variables
    }
}
