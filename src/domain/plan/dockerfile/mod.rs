//! A Dockerfile as a plan: read it, say which images it names, and turn its stages into those that `spec.stages` would give.

mod config;
mod copy;
mod doubts;
mod finish;
mod graph;
mod mount;
mod names;
mod remote;
mod scope;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Value, json};

use crate::{
    api::v1alpha1::{DockerfileSpec, MinimalImageSpec},
    domain::{
        debian::base::PackagesBase,
        dockerfile::{
            Dockerfile, Instruction, Position, Problem,
            ignore::{self, Ignore},
            parse,
        },
        image::{ImageConfig, RuntimeConfig},
        recipe::TextFile,
        value::Reference,
    },
};

use super::{Draft, Outline, Plan};
use graph::Graph;
use scope::Globals;

/// The Dockerfile's path where the spec names none.
const DEFAULT_PATH: &str = "Dockerfile";

/// A spec whose stages are in a Dockerfile, which is not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct DockerfilePlan {
    /// What the spec says by itself.
    pub outline: Outline,
    /// How the Dockerfile is to be built.
    pub spec: DockerfileSpec,
    /// What the spec adds to the image that the Dockerfile describes.
    pub image: ImageConfig,
    /// Files that the spec adds.
    pub files: Vec<TextFile>,
    /// What its debug image is made of; none without one.
    pub packages: Option<PackagesBase>,
}

/// A Dockerfile that was read: its target and the stages that it needs are known, its base images' configs are not.
#[derive(Debug)]
pub struct OpenDockerfile<'a> {
    plan: &'a DockerfilePlan,
    /// For messages.
    name: String,
    dockerfile: Dockerfile,
    globals: Globals,
    graph: Graph,
    ignore: Vec<String>,
    /// What is wrong with how its stages hang together.
    problems: Vec<Problem>,
}

/// Why a Dockerfile gives no plan. Each problem says line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// The source has no such file.
    #[error("the source has no {path}: give its path below the source's directory as spec.dockerfile.path")]
    Missing {
        /// The path that was looked for.
        path: String,
    },
    /// Something in it is wrong or not supported.
    #[error("{}", Listed(name, problems))]
    Invalid {
        /// The file.
        name: String,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// The last stage would put more into the image than what is copied into it.
    #[error("{}", Listed(name, problems))]
    NotMinimal {
        /// The file.
        name: String,
        /// Where, and how to do it otherwise.
        problems: Vec<Problem>,
    },
}

struct Listed<'a>(&'a str, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{}", problem.in_file(self.0))?;
        }
        Ok(())
    }
}

impl DockerfilePlan {
    /// The files of the source that must be read, below its directory; those that are not there do no harm, but for the
    /// Dockerfile itself.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        if self.outline.source.is_none() {
            return Vec::new();
        }
        match &self.spec.inline {
            // Of an inline Dockerfile only the context's own ignore file can be meant.
            Some(_) => ignore::candidates(DEFAULT_PATH).into_iter().skip(1).collect(),
            None => std::iter::once(self.path().to_owned()).chain(ignore::candidates(self.path())).collect(),
        }
    }

    fn path(&self) -> &str {
        self.spec.path.as_deref().map_or(DEFAULT_PATH, |path| path.trim_start_matches("./"))
    }

    /// Reads the Dockerfile out of `files`, the texts of [`Self::paths`].
    ///
    /// # Errors
    /// When it is not there or not legal; all problems at once.
    pub fn open(&self, files: &BTreeMap<String, Option<String>>) -> Result<OpenDockerfile<'_>, DockerfileError> {
        let text_of = |path: &str| files.get(path).and_then(Option::as_deref);
        let (name, text) = match &self.spec.inline {
            Some(text) => ("spec.dockerfile.inline".to_owned(), text.as_str()),
            None => {
                let path = self.path();
                let directory = self.outline.source.as_ref().map(|source| source.directory.as_str());
                let below = directory.filter(|directory| !directory.is_empty());
                let whole = || below.map_or_else(|| path.to_owned(), |directory| format!("{directory}/{path}"));
                let missing = || DockerfileError::Missing { path: whole() };
                (path.to_owned(), text_of(path).ok_or_else(missing)?)
            }
        };
        let invalid = |problems| DockerfileError::Invalid { name: name.clone(), problems };
        let dockerfile = parse(text).map_err(invalid)?;
        let mut problems = Vec::new();
        let globals = Globals::new(&dockerfile, self, &mut problems);
        let graph = Graph::new(&dockerfile, &globals, self.spec.target.as_deref(), &mut problems);
        let ignore = self.ignore(&text_of)?;
        let Some(graph) = graph else { return Err(invalid(problems)) };
        let open = OpenDockerfile { plan: self, name, dockerfile, globals, graph, ignore, problems };
        if open.problems.is_empty() {
            return Ok(open);
        }
        // It cannot be built: whatever else can be said without its images is said at once.
        Err(open.plan(&BTreeMap::new()).err().unwrap_or_else(|| open.invalid(open.problems.clone())))
    }
}

impl DockerfilePlan {
    /// The lines of the ignore file that applies.
    fn ignore<'a>(&self, text_of: &dyn Fn(&str) -> Option<&'a str>) -> Result<Vec<String>, DockerfileError> {
        let mut candidates = self.paths().into_iter().skip(usize::from(self.spec.inline.is_none()));
        let found = candidates.find_map(|path| text_of(&path).map(|text| (path, text)));
        let Some((name, text)) = found else { return Ok(Vec::new()) };
        Ignore::parse(text).map_err(|problems| DockerfileError::Invalid { name, problems })?;
        let meant = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
        Ok(text.trim_start_matches('\u{feff}').lines().filter(meant).map(str::to_owned).collect())
    }
}

/// What a build refuses in a legal Dockerfile, with or without `allowLargeBase`: nothing is known of its images, and every secret
/// that it asks for is given.
#[must_use]
pub fn refusals(text: &str, allow_large_base: bool) -> Vec<Problem> {
    let spec = json!({
        "source": {"git": {"url": "https://example.com/source.git"}},
        "dockerfile": {"inline": text, "secrets": secrets(text), "allowLargeBase": allow_large_base},
        "destination": {"repository": "example.com/image"},
    });
    let spec: Result<MinimalImageSpec, _> = serde_json::from_value(spec);
    let Ok(Ok(Draft::Dockerfile(plan))) = spec.map(|spec| Draft::new(&spec)) else { return Vec::new() };
    match plan.open(&BTreeMap::new()).and_then(|open| open.plan(&BTreeMap::new())) {
        Err(DockerfileError::Invalid { problems, .. } | DockerfileError::NotMinimal { problems, .. }) => problems,
        Err(DockerfileError::Missing { .. }) | Ok(_) => Vec::new(),
    }
}

/// The secrets that a Dockerfile asks for, from nowhere in particular.
fn secrets(text: &str) -> Vec<Value> {
    let Ok(dockerfile) = parse(text) else { return Vec::new() };
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let mounts = instructions.filter_map(|instruction| match &instruction.value {
        Instruction::Run(run) => Some(&run.mounts),
        _ => None,
    });
    let fields = mounts.flatten().flat_map(|mount| &mount.value.fields).filter(|field| field.value.key == "id");
    let ids: BTreeSet<&str> = fields.filter_map(|field| Some(field.value.value.as_ref()?.raw())).collect();
    ids.iter().map(|id| json!({"id": id, "valueFrom": {"secretKeyRef": {"name": "secret", "key": id}}})).collect()
}

impl OpenDockerfile<'_> {
    /// The images that the needed stages are built from or copy from, each once.
    #[must_use]
    pub fn images(&self) -> Vec<Reference> {
        self.graph.images.keys().cloned().collect()
    }

    /// Where `image` is named first, to be put in front of what is wrong with it.
    #[must_use]
    pub fn place_of(&self, image: &Reference) -> String {
        let Some(word) = self.graph.images.get(image) else { return self.name.clone() };
        let Position { line, column } = word.at;
        let place = format!("{}:{line}:{column}", self.name);
        // A bare word is more likely meant to be a stage.
        let bare =
            !self.dockerfile.stages.iter().any(|stage| stage.from.at == word.at) && !word.value.contains(['/', ':']);
        if bare { format!("{place}: no stage is named `{}`, so it is an image", word.value) } else { place }
    }

    /// The plan, once the images' configs are known.
    ///
    /// # Errors
    /// When an instruction cannot be done, or the last stage is not minimal; all problems at once.
    pub fn plan(&self, configs: &BTreeMap<Reference, RuntimeConfig>) -> Result<Plan, DockerfileError> {
        let mut problems = self.problems.clone();
        let built = stage::build(self, configs, &mut problems);
        finish::plan(self, &built, problems)
    }

    /// All that is wrong, in the order of the file.
    fn invalid(&self, mut problems: Vec<Problem>) -> DockerfileError {
        problems.sort_by(|one, other| (one.at, &one.message).cmp(&(other.at, &other.message)));
        problems.dedup();
        DockerfileError::Invalid { name: self.name.clone(), problems }
    }

    /// A place for messages.
    fn place(&self, at: Position) -> String {
        format!("{}:{}", self.name, at.line)
    }
}

#[cfg(test)]
mod tests;
