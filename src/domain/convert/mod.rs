//! A Dockerfile's plan written as `stages:`, for people who go on with that. What `stages:` cannot say is refused with its
//! place; what it says in another way is marked with a comment.
//!
//! - here: the resource as a whole.
//! - `stage`: one stage; `script`: its RUNs.
//! - `image`: the last stage.
//! - `yaml`: the text; `remote`: where the source is.

mod image;
mod remote;
mod script;
mod stage;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

pub use remote::https_address;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    dockerfile::{Dockerfile, Instruction, Position, Problem, ast::CopySource},
    mode::Mode,
    plan::{LayerPlan, OutputReference, Plan},
    recipe::{CopyItem, Docker, Output, Step},
    value::Reference,
};
use crate::api::v1alpha1::{Copy, Source};

/// What is converted.
#[derive(Debug)]
pub struct Conversion<'a> {
    /// The Dockerfile's plan.
    pub plan: &'a Plan,
    /// The Dockerfile itself, for places.
    pub dockerfile: &'a Dockerfile,
    /// What it is called in comments.
    pub file: &'a str,
    /// The stage that becomes the image, by name or number; none is the last.
    pub target: Option<&'a str>,
    /// Whom the builder images run as by their own configs.
    pub users: &'a BTreeMap<Reference, String>,
    /// The resource's name.
    pub name: &'a str,
    /// Its source; none where nothing is copied from one.
    pub source: Option<Source>,
}

impl Conversion<'_> {
    /// The resource as YAML.
    ///
    /// # Errors
    /// What `stages:` cannot say; all problems at once.
    pub fn yaml(&self) -> Result<String, Vec<Problem>> {
        let mut problems = Vec::new();
        let stages = self.plan.stages.iter().filter(|stage| stage.image.is_some());
        let stages: Vec<Value> = stages.map(|stage| stage::convert(self, stage, &mut problems)).collect();
        let image = image::convert(self, &mut problems);
        if self.plan.stages.iter().any(|stage| stage.remote.is_some()) {
            let message = "stages have no ADD of an address: download it in a RUN and check its digest there";
            problems.extend(self.additions().map(|at| Problem::new(at, "ADD", message)));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut spec = Map::new();
        if let Some(source) = &self.source {
            spec.insert("source".into(), plain(source));
        }
        if !stages.is_empty() {
            spec.insert(yaml::COMMENT.into(), json!(self.marks()));
            // As Docker has it; a container that starts as root is what `baseline` allows.
            spec.insert("podSecurity".into(), json!("Baseline"));
            spec.insert("stages".into(), Value::Array(stages));
        }
        spec.insert("image".into(), image);
        spec.insert("destination".into(), self.destination());
        let resource = json!({
            (yaml::COMMENT): self.head(),
            "apiVersion": "minimalimage.dev/v1alpha1",
            "kind": "MinimalImage",
            "metadata": {"name": self.name},
            "spec": spec,
        });
        Ok(yaml::text(&resource))
    }

    /// Where addresses are added.
    fn additions(&self) -> impl Iterator<Item = Position> {
        let instructions = self.dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
        instructions.filter_map(|instruction| {
            let Instruction::Add(add) = &instruction.value else { return None };
            let address = |source: &CopySource| match source {
                // A variable may stand for one.
                CopySource::Path(word) => word.raw().contains("://") || word.raw().contains('$'),
                CopySource::Heredoc(_) => false,
            };
            add.files.sources.iter().any(|source| address(&source.value)).then_some(instruction.at)
        })
    }

    /// What is to be known of the whole resource.
    fn head(&self) -> Vec<String> {
        let made =
            format!("Made from {} by minimalimage convert. Values of build arguments are written out.", self.file);
        let copied = self.plan.stages.iter().flat_map(|stage| {
            let steps = stage.steps.iter().filter_map(|step| match step {
                Step::CopySource { items, .. } => Some(items),
                _ => None,
            });
            steps.chain(stage.outputs.iter().map(|output| &output.items)).flatten()
        });
        let adds = copied.filter(|item| item.docker == Some(Docker::Add)).map(|item| item.source.as_str());
        let adds: BTreeSet<&str> = adds.collect();
        let names: Vec<&str> = adds.into_iter().collect();
        let note = format!(
            "ADD unpacks what is an archive, a copy does not. Here these are taken for plain files: {}",
            names.join(", ")
        );
        std::iter::once(made).chain((!names.is_empty()).then_some(note)).collect()
    }

    fn destination(&self) -> Value {
        let outline = &self.plan.outline;
        let mut destination = json!({"repository": outline.repository.to_string()});
        if let Some(fields) = destination.as_object_mut().filter(|_| outline.tags != ["latest"]) {
            fields.insert("tags".into(), json!(outline.tags));
        }
        destination
    }

    /// What holds no longer.
    fn marks(&self) -> Vec<String> {
        let ignored = self.plan.stages.iter().map(|stage| &stage.ignore).find(|ignore| !ignore.is_empty());
        let Some(ignored) = ignored else { return Vec::new() };
        vec![format!("The ignore file is not read for stages; it hides: {}", ignored.join(" "))]
    }

    /// The number of the Dockerfile's stage that became the stage `name`.
    fn stage_number(&self, name: &str) -> Option<usize> {
        let is_it = |(index, stage): (usize, &super::dockerfile::ast::Stage)| match &stage.name {
            // As the plan names it: what a Job's name cannot have is a dash.
            Some(own) => {
                own.value.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-").eq_ignore_ascii_case(name)
            }
            None => format!("stage-{index}") == name,
        };
        self.dockerfile.stages.iter().enumerate().position(is_it)
    }

    fn target_number(&self) -> usize {
        let last = self.dockerfile.stages.len().saturating_sub(1);
        let Some(target) = self.target else { return last };
        self.stage_number(target).or_else(|| target.parse().ok()).unwrap_or(last)
    }

    /// Where the instruction called `name` is, in this stage or else anywhere; the stage's FROM where it is in none.
    fn place(&self, stage: Option<usize>, name: &str) -> Position {
        let stages = &self.dockerfile.stages;
        let own = stage.and_then(|stage| stages.get(stage));
        let places = own.into_iter().chain(stages).flat_map(|stage| &stage.instructions);
        let mut places =
            places.filter(|instruction| instruction.value.name() == name).map(|instruction| instruction.at);
        places.next().or(own.map(|stage| stage.at)).unwrap_or(Position { line: 1, column: 1 })
    }

    /// Where the instruction is that a copy came from.
    fn place_of(&self, stage: Option<usize>, item: &CopyItem) -> Position {
        self.place(stage, if item.docker == Some(Docker::Add) { "ADD" } else { "COPY" })
    }

    /// `FILE:LINE` of a stage's FROM.
    fn comment(&self, stage: Option<usize>) -> Vec<String> {
        let stage = stage.and_then(|stage| self.dockerfile.stages.get(stage));
        stage.map(|stage| format!("from {}:{}", self.file, stage.at.line)).into_iter().collect()
    }

    /// The lines of a stage's RUNs, those of the stage that it is built from first.
    fn runs(&self, stage: Option<usize>) -> Vec<u32> {
        let Some((index, stage)) = stage.and_then(|index| Some((index, self.dockerfile.stages.get(index)?))) else {
            return Vec::new();
        };
        let parent = self.stage_number(stage.from.value.raw()).filter(|parent| *parent < index);
        let own = stage.instructions.iter().filter(|instruction| matches!(instruction.value, Instruction::Run(_)));
        let own = own.map(|instruction| instruction.at.line);
        parent.map(|parent| self.runs(Some(parent))).unwrap_or_default().into_iter().chain(own).collect()
    }

    fn output(&self, from: &OutputReference) -> Option<&Output> {
        self.plan.stages.iter().find(|stage| stage.name == from.stage)?.outputs.get(from.output)
    }

    fn items(&self, from: &OutputReference) -> &[CopyItem] {
        self.output(from).map_or(&[], |output| &output.items)
    }

    fn layer_items(&self) -> Vec<(&str, &CopyItem)> {
        let layers = self.plan.layers.iter().filter_map(|layer| match layer {
            LayerPlan::Artifact(from) => Some(from),
            LayerPlan::Files(_) | LayerPlan::Include(_) => None,
        });
        layers.flat_map(|from| self.items(from).iter().map(|item| (from.stage.as_str(), item))).collect()
    }
}

/// How the names of files end that ADD is likely to unpack.
const ARCHIVES: [&str; 9] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2"];

fn is_named_archive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ARCHIVES.iter().any(|end| name.ends_with(end))
}

/// A copy as the spec writes it; none and a problem where it has something that the spec has not.
fn copy(from: &str, item: &CopyItem, at: Position, problems: &mut Vec<Problem>) -> Option<Copy> {
    let changes = item.mode.as_ref().is_some_and(|mode| mode.bits().is_none());
    let unsaid = [
        (item.parents.is_some(), "--parents"),
        (!item.exclude.is_empty(), "--exclude"),
        (changes, "--chmod that changes modes"),
    ];
    for (_, flag) in unsaid.iter().filter(|(there, _)| *there) {
        problems.push(Problem::new(at, flag, format!("copies of stages have no {flag}")));
    }
    if item.docker == Some(Docker::Add) && is_named_archive(&item.source) {
        problems.push(Problem::new(at, "ADD", "copies of stages unpack nothing: unpack it in a RUN"));
        return None;
    }
    let path = item.destination.path.as_str();
    let slash = if item.destination.directory && path != "/" { "/" } else { "" };
    let owner = item.owner.filter(|owner| (owner.uid, owner.gid) != (0, 0));
    Some(Copy {
        from: from.to_owned(),
        source: if item.source.is_empty() { ".".to_owned() } else { item.source.clone() },
        destination: format!("{path}{slash}"),
        mode: item.mode.as_ref().and_then(Mode::bits).map(|mode| format!("{mode:04o}")),
        owner: owner.map(|owner| format!("{}:{}", owner.uid, owner.gid)),
    })
    .filter(|_| unsaid.iter().all(|(there, _)| !there))
}

/// A part of the spec without what is the default anyhow.
fn plain(part: &impl Serialize) -> Value {
    fn is_default(key: &str, value: &Value) -> bool {
        match value {
            // Everything that can be switched is off by default, but for this.
            Value::Bool(on) => *on == (key == "copySource"),
            Value::Object(fields) => fields.is_empty(),
            Value::Null => true,
            _ => key == "protocol" && value == "TCP" || key == "stripComponents" && value == 0,
        }
    }
    fn prune(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key, prune(value)));
                Value::Object(fields.filter(|(key, value)| !is_default(key, value)).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
            other => other,
        }
    }
    prune(serde_json::to_value(part).unwrap_or_default())
}

#[cfg(test)]
mod tests;
