//! What a plan says: for people tables, for programs JSON.

use serde::Serialize;

use crate::{
    cmd::build::columns,
    domain::{
        plan::{LayerPlan, Plan},
        value::{Digest, Reference},
    },
};

/// What `would_run` means for one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Its artifact is known.
    Cached,
    /// It would run.
    Run,
    /// It would run if what it copies from a stage that would run is not what it was.
    MayRun,
    /// The image does not need it.
    Skipped,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageLine {
    /// Its name.
    pub name: String,
    /// What would happen.
    pub state: State,
    /// Its builder image, as it was named.
    pub builder: Option<String>,
    /// Digest of that image's manifest for the platform.
    pub builder_digest: Option<Digest>,
    /// So many of its steps a snapshot has done already.
    pub steps_in_snapshot: usize,
    /// Why.
    pub reasons: Vec<String>,
}

/// A layer of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerLine {
    /// A stage's name, `source` or `files`.
    pub from: String,
    /// Digest of the layer; none as long as its stage would run.
    pub digest: Option<Digest>,
}

/// A whole plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The stages in the order that they would run in.
    pub stages: Vec<StageLine>,
    /// What the image starts from.
    pub base: String,
    /// Digest of that image's manifest for the platform.
    pub base_digest: Option<Digest>,
    /// The image's own layers.
    pub layers: Vec<LayerLine>,
    /// Where the image would go.
    pub destination: Vec<String>,
    /// Digest of the image; none as long as a stage would run.
    pub image: Option<Digest>,
    /// What would become of the image.
    pub image_reason: String,
    /// Whether the image would be another one than the last.
    pub image_changes: bool,
}

impl StageLine {
    /// A stage that the image does not need.
    #[must_use]
    pub fn skipped(name: &str) -> Self {
        let reasons = vec!["nothing that the image needs copies from it".to_owned()];
        Self {
            name: name.to_owned(),
            state: State::Skipped,
            builder: None,
            builder_digest: None,
            steps_in_snapshot: 0,
            reasons,
        }
    }
}

impl Report {
    /// Whether a build would do anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.image_changes || self.stages.iter().any(|stage| matches!(stage.state, State::Run | State::MayRun))
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut rows = vec![["STAGE", "PLAN", "BUILDER", "WHY"].map(str::to_owned)];
        rows.extend(self.stages.iter().map(StageLine::row));
        let mut facts = vec![["base".to_owned(), pinned(&self.base, self.base_digest)]];
        facts.extend(self.layers.iter().map(|layer| {
            let digest = layer.digest.map_or_else(|| "not known yet".to_owned(), |digest| digest.to_string());
            ["layer".to_owned(), format!("{} {digest}", layer.from)]
        }));
        facts.extend(self.destination.iter().map(|name| ["destination".to_owned(), name.clone()]));
        let image = self.image.map(|digest| format!("{digest}, ")).unwrap_or_default();
        facts.push(["image".to_owned(), format!("{image}{}", self.image_reason)]);
        let runs = self.stages.iter().filter(|stage| stage.state == State::Run).count();
        let maybe = self.stages.iter().filter(|stage| stage.state == State::MayRun).count();
        let total = match (runs, maybe) {
            (0, 0) => "nothing would run".to_owned(),
            (runs, 0) => format!("{runs} of {} stages would run", self.stages.len()),
            (runs, maybe) => format!("{runs} of {} stages would run, {maybe} more may", self.stages.len()),
        };
        format!("{}\n{}\n{total}\n", columns(&rows), columns(&facts))
    }
}

impl StageLine {
    fn row(&self) -> [String; 4] {
        let state = match self.state {
            State::Cached => "cached",
            State::Run => "would run",
            State::MayRun => "may run",
            State::Skipped => "skipped",
        };
        let builder = self.builder.as_ref().map_or_else(|| "-".to_owned(), |name| pinned(name, self.builder_digest));
        let why = if self.reasons.is_empty() { "-".to_owned() } else { self.reasons.join("; ") };
        let state = match self.steps_in_snapshot {
            0 => state.to_owned(),
            1 => format!("{state}, its first step is in a snapshot"),
            steps => format!("{state}, its first {steps} steps are in a snapshot"),
        };
        [self.name.clone(), state, builder, why]
    }
}

/// The layers that `plan` puts on its base; `digest` knows those of stages whose artifacts are there.
#[must_use]
pub fn layers(plan: &Plan, digest: impl Fn(&str, usize) -> Option<Digest>) -> Vec<LayerLine> {
    let line = |layer: &LayerPlan| match layer {
        LayerPlan::Artifact(from) => LayerLine { from: from.origin(), digest: digest(&from.stage, from.output) },
        LayerPlan::Files(_) => LayerLine { from: "files".into(), digest: None },
        LayerPlan::Include(_) => LayerLine { from: "include".into(), digest: None },
    };
    plan.layers.iter().map(line).collect()
}

/// An image with the first digits of what it points to.
fn pinned(name: &str, digest: Option<Digest>) -> String {
    let given = name.parse::<Reference>().is_ok_and(|reference| reference.digest().is_some());
    match digest.filter(|_| !given) {
        Some(digest) => format!("{name}@sha256:{}", digest.short(12)),
        None => name.to_owned(),
    }
}
