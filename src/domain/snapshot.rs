//! Snapshots: what the first steps of a stage left in its container, kept so that the next build starts behind them.
//! Where a stage can be cut, what a snapshot is found by, and whether it is worth its price.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::v1alpha1::SnapshotPolicy;

use super::{
    plan::{Account, Plan, StagePlan},
    recipe::{CopyItem, Key, Recipe, Step},
    value::{Digest, Reference},
};

/// Annotations of a snapshot's manifest.
const SOURCE: &str = "dev.minimalimage.snapshot-source";
/// In place of a digest: every snapshot, and nothing else, has that annotation.
const NO_SOURCE: &str = "none";
const MADE: &str = "org.opencontainers.image.created";
/// So many cuts of one stage are enough; each is a layer, and the image that a Pod starts from has a bounded number of them.
const MOST_CUTS: usize = 3;
/// What a snapshot takes at least, whatever is in it: two looks at the file system, a few requests.
const LEAST_COST: Duration = Duration::from_secs(2);
/// How fast files become a compressed layer in a registry, in bytes a second; measured with two processors.
const PACKED_A_SECOND: u64 = 40 << 20;

/// Whether and how long snapshots are kept, as `spec.dockerfile.snapshots` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// When they are made.
    pub policy: SnapshotPolicy,
    /// How old they get.
    pub max_age: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { policy: SnapshotPolicy::Auto, max_age: Duration::from_hours(7 * 24) }
    }
}

/// What the steps before a cut took from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// The cut: the first step behind them.
    pub step: usize,
    /// Content digest of what they copied.
    pub source: Digest,
}

/// What the steps before `cut` took from the source, if they took anything.
#[must_use]
pub fn source_before(prefixes: &[Prefix], cut: usize) -> Option<Digest> {
    prefixes.iter().find(|prefix| prefix.step == cut).map(|prefix| prefix.source)
}

/// A snapshot as its image in the cache repository says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// What its steps took from the source, if anything.
    pub source: Option<Digest>,
    /// When it was made.
    pub made: Timestamp,
}

impl Snapshot {
    /// Reads the manifest of a snapshot's image; none when it is something else.
    #[must_use]
    pub fn parse(manifest: &[u8]) -> Option<Self> {
        let parsed: serde_json::Value = serde_json::from_slice(manifest).ok()?;
        let annotation = |name: &str| parsed.get("annotations")?.get(name)?.as_str();
        let source = annotation(SOURCE)?;
        let source = (source != NO_SOURCE).then(|| source.parse()).transpose().ok()?;
        Some(Self { image: Digest::of(manifest), source, made: annotation(MADE)?.parse().ok()? })
    }

    /// The annotations of the manifest of one that was made at `made`.
    #[must_use]
    pub fn annotations(source: Option<Digest>, made: Timestamp) -> BTreeMap<String, String> {
        let source = source.map_or_else(|| NO_SOURCE.to_owned(), |digest| digest.to_string());
        BTreeMap::from([(SOURCE.to_owned(), source), (MADE.to_owned(), made.to_string())])
    }

    /// Whether it may still be used at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp, max_age: Duration) -> bool {
        Duration::try_from(now.duration_since(self.made)).is_ok_and(|age| age < max_age)
    }
}

/// The blobs that an image's manifest names.
#[must_use]
pub fn blobs(manifest: &[u8]) -> Vec<Digest> {
    let parsed: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let layers = parsed.get("layers").and_then(serde_json::Value::as_array).into_iter().flatten();
    let named = parsed.get("config").into_iter().chain(layers);
    named.filter_map(|descriptor| descriptor.get("digest")?.as_str()?.parse().ok()).collect()
}

/// What a build container is started from in place of its builder image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The snapshot's image, in the cache repository.
    pub image: Digest,
    /// The first step that is to run.
    pub step: usize,
    /// What the steps before it took from the source.
    pub source: Option<Digest>,
}

/// `STEP DIGEST`, as the annotation of a Job has it.
impl fmt::Display for Start {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.step, self.image)
    }
}

/// Snapshots that an agent has made, to be put together as images and recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The stage, for messages.
    pub stage: String,
    /// Its builder image by the digest of its manifest.
    pub builder: Reference,
    /// The image in the cache repository that its container was started from, where that was a snapshot.
    pub below: Option<Digest>,
    /// The artifact that has the layers.
    pub artifact: Digest,
    /// When its agent had ended.
    pub made: Option<Timestamp>,
    /// The snapshots, each one layer on top of the one before.
    pub layers: Vec<KeptLayer>,
}

/// One snapshot of a [`Keep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLayer {
    /// How many steps it holds the work of.
    pub steps: usize,
    /// What its steps took from the source, if anything.
    pub source: Option<Digest>,
    /// What it is to be found by.
    pub keys: Vec<Key>,
}

/// What an agent is to know of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotTask {
    /// Where the stage can be cut.
    pub cuts: Vec<usize>,
    /// The first step to run: the image that the build container starts from has those before it. 0 is the builder image.
    pub start: usize,
    /// What those steps took from the source, if anything; where that has changed nothing is to be run.
    pub source: Option<Digest>,
    /// Whether a snapshot is made at every cut, worth it or not.
    pub always: bool,
}

impl SnapshotTask {
    /// The cuts that the steps to be run come to.
    pub fn ahead(&self) -> impl Iterator<Item = usize> + '_ {
        self.cuts.iter().copied().filter(|cut| *cut > self.start)
    }
}

impl Plan {
    /// What an agent of `stage` is to know of snapshots when its container starts from the builder image.
    #[must_use]
    pub fn snapshots(&self, stage: &StagePlan) -> SnapshotTask {
        let always = self.outline.snapshots.policy == SnapshotPolicy::Always;
        SnapshotTask { cuts: self.cuts(stage), always, ..SnapshotTask::default() }
    }

    /// Where `stage` can be cut, in order: before a copy that something has run ahead of. Behind a copy that changes with nearly
    /// every revision there is no cut: its snapshots would be made and never used.
    ///
    /// Only what lies in the container's own file system can be kept: a volume at [`super::plan::WORKSPACE`] cannot. A stage that
    /// gives all its changes must begin with its builder image.
    #[must_use]
    fn cuts(&self, stage: &StagePlan) -> Vec<usize> {
        let whole = stage.outputs.iter().any(|output| output.changes);
        if whole || stage.account != Account::Root || self.outline.snapshots.policy == SnapshotPolicy::Never {
            return Vec::new();
        }
        let moves = |input: usize| stage.inputs.get(input).is_none_or(|from| self.uses_source(&from.stage));
        let mut cuts = Vec::new();
        let mut ran = false;
        for (index, step) in stage.steps.iter().enumerate() {
            let moving = match step {
                Step::CopySource { items, .. } => items.iter().any(is_whole),
                Step::CopyArtifact { input, .. } => moves(*input),
                Step::Run { .. } => {
                    ran = true;
                    continue;
                }
                Step::MakeDirectory { .. } | Step::WriteFiles { .. } => continue,
            };
            if std::mem::take(&mut ran) {
                cuts.push(index);
            }
            if moving {
                break;
            }
        }
        // The first is the steadiest, the last ones spare most.
        if cuts.len() > MOST_CUTS {
            cuts.drain(1..=cuts.len() - MOST_CUTS);
        }
        cuts
    }

    /// Whether anything that the stage is made from comes from the source.
    fn uses_source(&self, name: &str) -> bool {
        let Some(stage) = self.stages.iter().find(|stage| stage.name == name) else { return true };
        // A stage copies from earlier ones only, so this ends.
        stage.uses_source() || stage.inputs.iter().any(|input| self.uses_source(&input.stage))
    }
}

/// Whether a copy takes all that lies at the top of the source.
fn is_whole(item: &CopyItem) -> bool {
    matches!(item.source.trim_matches(['.', '/']), "" | "*" | "**")
}

impl Recipe {
    /// What a snapshot of the steps before `cut` is found by. `source` is what they took from the source; with none, the newest
    /// one of the same steps is found, whatever they took.
    #[must_use]
    pub fn snapshot_key(&self, cut: usize, source: Option<Digest>) -> Key {
        let prefix = self.before(cut);
        prefix.key("snapshot", &source.map(|digest| digest.to_string()).unwrap_or_default())
    }

    /// What snapshots of a stage are to be found by: each by its own files and, where it has any, as the newest of its steps.
    #[must_use]
    pub fn kept(&self, steps: &[usize], prefixes: &[Prefix]) -> Vec<KeptLayer> {
        let layer = |step: &usize| {
            let source = source_before(prefixes, *step);
            let newest = source.map(|_| self.snapshot_key(*step, None));
            let keys = std::iter::once(self.snapshot_key(*step, source)).chain(newest).collect();
            KeptLayer { steps: *step, source, keys }
        };
        steps.iter().map(layer).collect()
    }

    /// Whether the steps before `cut` take anything from the source.
    #[must_use]
    pub fn takes_source_before(&self, cut: usize) -> bool {
        self.steps.iter().take(cut).any(Step::copies_source)
    }

    /// The recipe as far as `cut`, without what only later steps see.
    fn before(&self, cut: usize) -> Self {
        let mut inputs = Vec::new();
        let mut steps: Vec<Step> = self.steps.iter().take(cut).cloned().collect();
        for step in &mut steps {
            if let Step::CopyArtifact { input, .. } = step {
                inputs.extend(self.inputs.get(*input));
                *input = inputs.len() - 1;
            }
        }
        let ignore = if self.takes_source_before(cut) { self.ignore.clone() } else { Vec::new() };
        Self { inputs, steps, ignore, outputs: Vec::new(), ..self.clone() }
    }
}

/// Whether steps that took `time` are worth a snapshot of `bytes`: the next build has to gain more than this one loses.
#[must_use]
pub fn pays(time: Duration, bytes: u64) -> bool {
    time > LEAST_COST + Duration::from_secs(bytes / PACKED_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::v1alpha1::MinimalImageSpec,
        domain::{
            image::RuntimeConfig,
            plan::{Draft, Pins},
        },
    };

    /// The plan of a Dockerfile that a resource carries in itself.
    fn plan(dockerfile: &str) -> Plan {
        let spec: MinimalImageSpec = serde_json::from_value(serde_json::json!({
            "source": {"inline": {"files": [{"path": "main.c", "content": ""}]}},
            "dockerfile": {"inline": dockerfile},
            "destination": {"repository": "registry.example.com/app"},
        }))
        .unwrap();
        let Ok(Draft::Dockerfile(draft)) = Draft::new(&spec) else { panic!("no draft") };
        let texts = draft.paths().into_iter().map(|path| (path, None)).collect();
        let open = draft.open(&texts).unwrap();
        let images = open.images();
        open.plan(&images.iter().map(|image| ((*image).clone(), RuntimeConfig::default())).collect()).unwrap()
    }

    fn cuts(steps: &str) -> Vec<String> {
        let text = format!("FROM b AS build\n{steps}\nRUN end\nFROM scratch\nCOPY --from=build /a /a\n");
        let plan = plan(&text);
        let stage = plan.stages.last().unwrap();
        let named = |cut: usize| {
            let before = stage.steps.iter().take(cut).rev().find_map(Step::command_line);
            before.unwrap_or_else(|| "nothing".into())
        };
        plan.cuts(stage).into_iter().map(named).collect()
    }

    #[test]
    fn stages_are_cut_before_copies_up_to_the_first_that_always_changes() {
        for (steps, expected) in [
            ("RUN a\nCOPY . .", &["a"][..]),
            ("COPY . .\nRUN a\nCOPY x y", &[]),
            ("RUN a\nCOPY go.mod ./\nRUN b\nCOPY . .\nRUN c\nCOPY d e", &["a", "b"]),
            ("COPY go.mod go.sum ./\nRUN a\nCOPY . .", &["a"]),
            ("RUN a\nRUN b\nWORKDIR /w\nCOPY . .", &["b"]),
            ("RUN a\nCOPY c d\nCOPY e f\nRUN b\nCOPY . .", &["a", "b"]),
            ("RUN a\nRUN --mount=type=bind,target=/s b", &["a"]),
            ("RUN a\nCOPY 1 1\nRUN b\nCOPY 2 2\nRUN c\nCOPY 3 3\nRUN d\nCOPY . .", &["a", "c", "d"]),
            ("RUN a\nRUN b", &[]),
        ] {
            assert_eq!(cuts(steps), expected, "{steps}");
        }
    }

    #[test]
    fn what_another_stage_made_from_the_source_always_changes() {
        let built = |first: &str| {
            let text = format!(
                "FROM b AS a\n{first}\nRUN x\nFROM b AS build\nRUN y\nCOPY --from=a /f /f\nRUN z\nCOPY . .\nRUN end\n\
                 FROM scratch\nCOPY --from=build /a /a\n"
            );
            let plan = plan(&text);
            plan.cuts(plan.stages.last().unwrap()).len()
        };
        assert_eq!(built("COPY main.c ."), 1);
        assert_eq!(built("RUN w"), 2);
    }

    #[test]
    fn a_stage_with_a_volume_cannot_be_cut() {
        let mut plan = plan("FROM b AS build\nRUN a\nCOPY . .\nRUN c\nFROM scratch\nCOPY --from=build /a /a\n");
        plan.stages[0].account = Account::Restricted;
        assert_eq!(plan.cuts(&plan.stages[0]), Vec::<usize>::new());
    }

    #[test]
    fn a_key_covers_what_lies_before_the_cut_and_nothing_else() {
        let recipe = |steps: &str, last: &str| {
            let text = format!("FROM b AS build\n{steps}\nCOPY . .\n{last}\nFROM scratch\nCOPY --from=build /a /a\n");
            let plan = plan(&text);
            let image = plan.stages[0].image.clone().unwrap();
            let pins =
                Pins { revision: None, images: [(image, Digest::of(b"b"))].into(), packages: None, certificates: None };
            let cut = plan.cuts(&plan.stages[0])[0];
            (plan.recipe(&plan.stages[0], &pins, &std::collections::BTreeMap::new()).unwrap(), cut)
        };
        let key = |(recipe, cut): (Recipe, usize), source| recipe.snapshot_key(cut, source);
        let base = key(recipe("RUN a", "RUN b"), None);
        assert_eq!(base, key(recipe("RUN a", "RUN c\nRUN d"), None));
        assert_ne!(base, key(recipe("RUN aa", "RUN b"), None));
        assert_ne!(base, key(recipe("ENV A=1\nRUN a", "RUN b"), None));
        assert_ne!(base, key(recipe("USER 5\nRUN a", "RUN b"), None));
        let copied = || recipe("COPY go.mod .\nRUN a", "RUN b");
        let [one, other] = [b"1", b"2"].map(|text| key(copied(), Some(Digest::of(text))));
        assert_ne!(one, other);
        assert_ne!(one, key(copied(), None));
        let mut foreign = copied();
        foreign.0.image = Some(Digest::of(b"other"));
        assert_ne!(key(foreign, None), key(copied(), None));
    }

    #[test]
    fn quick_steps_and_large_results_are_not_kept() {
        let seconds = Duration::from_secs;
        assert!(!pays(seconds(1), 0));
        assert!(pays(seconds(30), 500 << 20));
        assert!(!pays(seconds(5), 500 << 20));
    }
}
