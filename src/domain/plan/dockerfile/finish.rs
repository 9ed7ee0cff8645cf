//! The last stage becomes base, layers and config; the stages that it needs become those of the plan.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    api::v1alpha1::{EnvVar, PodSecurity, Stage},
    domain::{
        dockerfile::{Located, Position, Problem},
        image::ImageConfig,
        plan::{
            Account, DEFAULT_TIMEOUT, LayerPlan, OutputReference, Plan, StagePlan, WRITABLE,
            copies::{self, Group, Made},
            empty_stage, source_stage,
        },
        recipe::{CopyItem, Docker, Output, Parents, RunMount, Step, TextFile},
        value::{ImagePath, Reference},
    },
};

use super::{
    DockerfileError, OpenDockerfile,
    doubts::doubts,
    graph::{MOST_STAGES, Origin},
    mount,
    names::{names, names_of, owner_of},
    stage::{Action, Built},
};

/// The plan while stages still get outputs.
struct Finish<'a> {
    open: &'a OpenDockerfile<'a>,
    built: &'a BTreeMap<usize, Built>,
    names: BTreeMap<Origin, String>,
    outputs: BTreeMap<Origin, Vec<Output>>,
    /// Who copies something out of what, by its source.
    sources: BTreeMap<Origin, BTreeMap<String, String>>,
    made: Made,
    problems: Vec<Problem>,
}

/// The plan, unless there are `problems` already or some turn up here.
pub(super) fn plan(
    open: &OpenDockerfile<'_>,
    built: &BTreeMap<usize, Built>,
    problems: Vec<Problem>,
) -> Result<Plan, DockerfileError> {
    let names = names(open, built);
    // The source has a name too. Status has a row for each.
    let count = names.len().saturating_sub(1);
    if count > MOST_STAGES {
        let message = format!(
            "{count} stages, images that are copied from and addresses in ADD are too many: {MOST_STAGES} are possible"
        );
        let at = Position { line: 1, column: 1 };
        return Err(open.invalid(problems.into_iter().chain([Problem::new(at, "", message)]).collect()));
    }
    let (outputs, sources) = (BTreeMap::new(), BTreeMap::new());
    let mut finish = Finish { open, built, names, outputs, sources, made: Made::default(), problems };
    let Some(target) = built.get(&open.graph.target) else { return Err(open.invalid(finish.problems)) };
    let runs = not_minimal(target);
    let large = !runs.is_empty() && open.plan.spec.allow_large_base;
    let layers = if large { finish.large(&runs) } else { finish.layers(target) };
    let mut order = finish.order(target);
    if large {
        order.push(Origin::Stage(open.graph.target));
    }
    let mut stages: Vec<_> = order.into_iter().filter_map(|origin| finish.stage(&origin)).collect();
    for (origin, stage) in &mut stages {
        stage.outputs = finish.outputs.remove(origin).unwrap_or_default();
        stage.places.sources = finish.sources.remove(origin).unwrap_or_default();
    }
    let runs = if large { Vec::new() } else { runs };
    if !finish.problems.is_empty() {
        return Err(open.invalid(finish.problems.into_iter().chain(runs).collect()));
    }
    if !runs.is_empty() {
        return Err(DockerfileError::NotMinimal { name: open.name.clone(), problems: runs });
    }
    let image = ImageConfig {
        env: target.scope.own.clone(),
        labels: target.config.labels.clone().into_iter().chain(open.plan.image.labels.clone()).collect(),
        annotations: open.plan.image.annotations.clone(),
        ..target.config.clone()
    };
    Ok(Plan {
        outline: open.plan.outline.clone(),
        skipped: skipped(open, &finish.names),
        base: target.image.clone(),
        packages: open.plan.packages.clone(),
        stages: stages.into_iter().map(|(_, stage)| stage).collect(),
        layers,
        image,
        warnings: doubts(open, built),
    })
}

/// The RUNs of the stage that becomes the image: what they leave behind would all be in it.
fn not_minimal(target: &Built) -> Vec<Problem> {
    let runs = target.actions.iter().filter_map(|action| match &action.value {
        Action::Run { text, .. } => Some((action.at, text)),
        _ => None,
    });
    let advice = "RUN in the stage that becomes the image would put everything it leaves behind into it: name this stage \
        (`FROM … AS build`), begin another behind it with `FROM scratch` (or a distroless image), take what the image needs \
        with `COPY --from=build`, and put ENTRYPOINT there; or set allowLargeBase";
    let problems = runs.enumerate().map(|(index, (at, text))| {
        let line = text.lines().next().unwrap_or_default();
        Problem::new(at, line, if index == 0 { advice } else { "another RUN in this stage" })
    });
    problems.take(5).collect()
}

fn skipped(open: &OpenDockerfile<'_>, names: &BTreeMap<Origin, String>) -> Vec<String> {
    let unneeded = open.graph.from.iter().enumerate().filter(|(_, from)| from.is_none());
    unneeded.filter_map(|(index, _)| names.get(&Origin::Stage(index)).cloned()).collect()
}

impl Finish<'_> {
    /// The layers of the image above its base.
    fn layers(&mut self, target: &Built) -> Vec<LayerPlan> {
        // An archive may bring a whole root file system, whose links are kept as those of a base are.
        let mut parents = if target.image.is_some() { Parents::Unusual } else { Parents::All };
        let mut layers = Vec::new();
        let mut copies: Vec<(Origin, CopyItem)> = Vec::new();
        for action in &target.actions {
            match &action.value {
                Action::Copy { origin, items, owner, transient: _ } => {
                    self.check_named(action, owner.as_deref());
                    self.copied(origin, items, action.at);
                    copies.extend(items.iter().map(|item| (origin.clone(), item.clone())));
                }
                Action::Write(files, owner) => {
                    self.check_named(action, owner.as_deref());
                    self.flush(&mut copies, &mut parents, &mut layers);
                    for file in files {
                        self.made.add(file.path.parent());
                    }
                    add_files(&mut layers, files);
                }
                // Container runtimes make the working directory where it is missing; there are no RUNs, nor copies for one.
                Action::MakeDirectory { .. } | Action::Run { .. } => {}
            }
        }
        self.flush(&mut copies, &mut parents, &mut layers);
        add_files(&mut layers, &self.open.plan.files);
        layers
    }

    /// The layers where the last stage itself is run: everything that it changes in its image.
    fn large(&mut self, runs: &[Problem]) -> Vec<LayerPlan> {
        if let (PodSecurity::Restricted, Some(first)) = (self.open.plan.outline.pod_security, runs.first()) {
            let message = "allowLargeBase needs podSecurity Baseline: what a restricted stage writes is in volumes, not in its image";
            self.problems.push(Problem::new(first.at, &first.text, message));
        }
        let changes = self.output(&Origin::Stage(self.open.graph.target), Output::changes());
        let mut layers = vec![LayerPlan::Artifact(changes)];
        add_files(&mut layers, &self.open.plan.files);
        layers
    }

    /// Copies without anything between them become one layer per origin, as those of `spec.image.copy` do.
    fn flush(&mut self, copies: &mut Vec<(Origin, CopyItem)>, parents: &mut Parents, layers: &mut Vec<LayerPlan>) {
        for Group { from, items } in copies::group(std::mem::take(copies)) {
            let unpacks = items.iter().any(|item| item.docker == Some(Docker::Add));
            let parents = if unpacks { std::mem::replace(parents, Parents::Unusual) } else { *parents };
            let lower = if parents == Parents::All { self.made.below(&items) } else { Vec::new() };
            layers.push(LayerPlan::Artifact(self.output(&from, Output { lower, ..Output::copies(items, parents) })));
        }
    }

    /// Notes where something is copied out of `origin`.
    fn copied(&mut self, origin: &Origin, items: &[CopyItem], at: Position) {
        let place = self.open.place(at);
        let sources = self.sources.entry(origin.clone()).or_default();
        for item in items {
            sources.entry(item.source.clone()).or_insert_with(|| place.clone());
        }
    }

    fn check_named(&mut self, action: &Located<Action>, owner: Option<&str>) {
        let Some(owner) = owner else { return };
        let message = format!(
            "--chown={owner} in the stage that becomes the image needs numbers, for example --chown=65532:65532: its \
             /etc/passwd is not read"
        );
        self.problems.push(Problem::new(action.at, owner, message));
    }

    fn output(&mut self, origin: &Origin, output: Output) -> OutputReference {
        let list = self.outputs.entry(origin.clone()).or_default();
        list.push(output);
        OutputReference { stage: self.names.get(origin).cloned().unwrap_or_default(), output: list.len() - 1 }
    }

    /// Everything that has to be run for the target, each after what it copies from.
    fn order(&self, target: &Built) -> Vec<Origin> {
        let mut order = Vec::new();
        for origin in self.outputs.keys().filter(|origin| **origin == Origin::Context) {
            order.push(origin.clone());
        }
        self.visit(target, &mut order);
        order
    }

    fn visit(&self, built: &Built, order: &mut Vec<Origin>) {
        for origin in origins(built) {
            // The context is an input that the agent fetches itself; stages only lead to earlier ones.
            if *origin == Origin::Context || order.contains(origin) {
                continue;
            }
            if let Origin::Stage(index) = origin
                && let Some(earlier) = self.built.get(index)
            {
                self.visit(earlier, order);
            }
            if !order.contains(origin) {
                order.push(origin.clone());
            }
        }
    }

    fn stage(&mut self, origin: &Origin) -> Option<(Origin, StagePlan)> {
        let name = self.names.get(origin)?.clone();
        let account = match self.open.plan.outline.pod_security {
            PodSecurity::Restricted => Account::Restricted,
            PodSecurity::Baseline => Account::Root,
        };
        let stage = match origin {
            Origin::Context => self.scheduled(source_stage(account, self.open.ignore.clone())),
            Origin::Remote(remote) => {
                self.scheduled(StagePlan { remote: Some(remote.clone()), ..empty_stage(name, account) })
            }
            Origin::Image(reference) => self.container(name, reference, account),
            Origin::Stage(index) => {
                let built = self.built;
                let built = built.get(index)?;
                let Some(reference) = &built.image else {
                    let stage = self.open.dockerfile.stages.get(*index)?;
                    let message = "a stage from scratch has no container that others could copy from: copy from the stages it copies from";
                    // A FROM that makes no sense is told already.
                    if stage.from.value.raw() == "scratch" || self.problems.is_empty() {
                        self.problems.push(Problem::new(stage.from.at, stage.from.value.raw(), message));
                    }
                    return None;
                };
                let mut plan = self.container(name, reference, account);
                let secrets = built.secrets.iter().filter_map(|index| secret_variable(self.open, *index));
                plan.settings.iter_mut().for_each(|settings| settings.env.extend(secrets.clone()));
                plan.caches.clone_from(&built.caches);
                for action in &built.actions {
                    self.check_restricted(account, action);
                    if let Action::Copy { origin, items, .. } = &action.value {
                        self.copied(origin, items, action.at);
                    }
                    let step = self.step(&action.value, &mut plan.inputs);
                    plan.steps.push(step);
                    plan.places.steps.push(self.open.place(action.at));
                }
                if plan.uses_source() {
                    plan.ignore.clone_from(&self.open.ignore);
                }
                plan
            }
        };
        Some((origin.clone(), stage))
    }

    /// What a restricted user cannot do is better refused now than failing in the Pod.
    fn check_restricted(&mut self, account: Account, action: &Located<Action>) {
        if account != Account::Restricted {
            return;
        }
        let (paths, user): (Vec<&ImagePath>, bool) = match &action.value {
            Action::Run { step: Step::Run { user, mounts, .. }, .. } => {
                (mounts.iter().filter_map(RunMount::path).collect(), user.is_some())
            }
            Action::Run { .. } => (Vec::new(), false),
            Action::MakeDirectory { path, user } => (vec![path], user.is_some()),
            Action::Write(files, owner) => (files.iter().map(|file| &file.path).collect(), owner.is_some()),
            Action::Copy { items, owner, .. } => {
                let other = owner.is_some() || owner_of(items).is_some();
                (items.iter().map(|item| &item.destination.path).collect(), other)
            }
        };
        if let Some(path) = paths.into_iter().find(|path| !copies::is_writable(path)) {
            let message = format!(
                "{path} cannot be written under podSecurity Restricted: use a path below {}, or set podSecurity Baseline",
                WRITABLE.join(", ")
            );
            self.problems.push(Problem::new(action.at, path.as_str(), message));
        }
        if user {
            let message =
                "another user than the build's own needs podSecurity Baseline: set it, or leave USER and --chown out";
            self.problems.push(Problem::new(action.at, "USER", message));
        }
    }

    fn step(&mut self, action: &Action, inputs: &mut Vec<OutputReference>) -> Step {
        match action {
            Action::Run { step, .. } => step.clone(),
            Action::MakeDirectory { path, user } => Step::MakeDirectory { path: path.clone(), user: user.clone() },
            Action::Write(files, owner) => Step::WriteFiles { files: files.clone(), owner: owner.clone() },
            Action::Copy { origin: Origin::Context, items, owner, transient } => {
                let owner = owner.clone().or_else(|| owner_of(items));
                Step::CopySource { items: items.clone(), owner, transient: *transient, names: names_of(items) }
            }
            Action::Copy { origin, items, owner, transient } => {
                inputs.push(self.output(origin, Output::copies(items.clone(), Parents::None)));
                let owner = owner.clone().or_else(|| owner_of(items));
                Step::CopyArtifact { input: inputs.len() - 1, owner, transient: *transient, names: names_of(items) }
            }
        }
    }

    /// A stage of the plan in the container of `image`, with nothing done in it yet.
    fn container(&self, name: String, image: &Reference, account: Account) -> StagePlan {
        self.scheduled(StagePlan { image: Some(image.clone()), ..empty_stage(name, account) })
    }

    /// With what the spec says of all Pods.
    fn scheduled(&self, plan: StagePlan) -> StagePlan {
        let pod = &self.open.plan.spec.pod;
        let settings = Stage {
            name: plan.name.clone(),
            image: plan.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            resources: pod.resources.clone(),
            node_selector: pod.node_selector.clone(),
            tolerations: pod.tolerations.clone(),
            affinity: pod.affinity.clone(),
            runtime_class_name: pod.runtime_class_name.clone(),
            timeout: pod.timeout.clone(),
            proxy: pod.proxy,
            ca_certificates: pod.ca_certificates,
            ..Stage::default()
        };
        // The spec was checked when the outline was made.
        let timeout = pod.timeout.as_deref().and_then(|text| text.parse::<kube::core::Duration>().ok());
        StagePlan { settings: Some(settings), timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from), ..plan }
    }
}

/// The variable by which a secret comes into the Pods that use it.
fn secret_variable(open: &OpenDockerfile<'_>, index: usize) -> Option<EnvVar> {
    let value_from = open.plan.spec.secrets.get(index)?.value_from.clone();
    Some(EnvVar { name: mount::variable(index), value: None, value_from: Some(value_from) })
}

fn origins(built: &Built) -> impl Iterator<Item = &Origin> {
    built.actions.iter().filter_map(|action| match &action.value {
        Action::Copy { origin, .. } => Some(origin),
        _ => None,
    })
}

/// Files at the end of the layers join a layer of files that is there.
fn add_files(layers: &mut Vec<LayerPlan>, files: &[TextFile]) {
    match layers.last_mut() {
        _ if files.is_empty() => {}
        Some(LayerPlan::Files(last)) => {
            last.retain(|old| !files.iter().any(|file| file.path == old.path));
            last.extend(files.iter().cloned());
        }
        _ => layers.push(LayerPlan::Files(files.to_vec())),
    }
}
