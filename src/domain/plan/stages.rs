//! `spec.stages` and `image.copy` as a graph: who takes what from whom, in which order stages can run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    api::v1alpha1::{File, MinimalImageSpec, PodSecurity, Stage},
    domain::{
        recipe::{CopyItem, Destination, Output, Owner, Parents, RunMount, Step, TextFile},
        task::Places,
        value::{ImagePath, Reference},
    },
};

use super::{
    Account, BASE_STAGE, DEBUG_STAGE, LayerPlan, OutputReference, Problems, SOURCE_STAGE, StagePlan, WORKSPACE,
    base::Start,
    copies::{self, Group, Made},
    duration, mode, owner,
};

pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);
/// Every stage sees this time instead of none, so that tools which honour it give the same bytes twice.
pub const SOURCE_DATE_EPOCH: (&str, &str) = ("SOURCE_DATE_EPOCH", "0");

/// The needed stages in order, the others' names, and the image's layers.
pub(super) struct Graph {
    pub stages: Vec<StagePlan>,
    pub skipped: Vec<String>,
    pub layers: Vec<LayerPlan>,
}

/// A stage while outputs are still being added to it.
struct Draft<'a> {
    stage: &'a Stage,
    image: Reference,
    working_dir: ImagePath,
    groups: Vec<Group>,
    timeout: Duration,
}

pub(super) fn plan(
    spec: &MinimalImageSpec,
    security: PodSecurity,
    base: &Start,
    problems: &mut Problems,
) -> Option<Graph> {
    check_origins(spec, problems);
    let drafts: Vec<_> = spec
        .stages
        .iter()
        .enumerate()
        .filter_map(|(index, stage)| draft(spec, security, (index, stage), problems))
        .collect();
    let image_groups = copies::group(copies::parse(&spec.image.copy, "image.copy", problems));
    let files = planned_files(&spec.image.files, problems);
    if drafts.len() != spec.stages.len() || !problems.0.is_empty() {
        return None;
    }
    let by_name: BTreeMap<&str, &Draft> = drafts.iter().map(|draft| (draft.stage.name.as_str(), draft)).collect();
    let order = order(&by_name, &image_groups, problems)?;
    let skipped = drafts.iter().map(|d| d.stage.name.clone()).filter(|name| !order.contains(name)).collect();

    let mut outputs: BTreeMap<&str, Vec<Output>> = BTreeMap::new();
    let mut made = Made::default();
    for path in base.included.iter().flat_map(|included| included.directories()) {
        made.add(path.parse().ok());
    }
    let mut add = |group: &'_ Group, parents: Parents| {
        let name = by_name.get_key_value(group.from.as_str()).map_or(SOURCE_STAGE, |(name, _)| *name);
        let list = outputs.entry(name).or_default();
        let lower = if parents == Parents::All { made.below(&group.items) } else { Vec::new() };
        list.push(Output { lower, ..Output::copies(group.items.clone(), parents) });
        OutputReference { stage: group.from.clone(), output: list.len() - 1 }
    };
    let account = if security == PodSecurity::Restricted { Account::Restricted } else { Account::Image };
    let parents = if base.has_base() { Parents::Unusual } else { Parents::All };
    let packages = base.packages.as_ref().filter(|base| base.has_layer());
    let packages = packages.map(|_| LayerPlan::Artifact(OutputReference { stage: BASE_STAGE.to_owned(), output: 0 }));
    let below = packages.into_iter().chain(base.included.map(LayerPlan::Include));
    let own = image_groups.iter().map(|group| LayerPlan::Artifact(add(group, parents)));
    let mut layers: Vec<_> = below.chain(own).collect();
    if !files.is_empty() {
        layers.push(LayerPlan::Files(files));
    }
    let mut stages: Vec<StagePlan> = order
        .iter()
        .filter_map(|name| by_name.get(name.as_str()))
        .map(|draft| finish(draft, account, |group| add(group, Parents::None)))
        .collect();
    if order.iter().any(|name| name == SOURCE_STAGE) {
        stages.insert(0, source_stage(account, Vec::new()));
    }
    for stage in &mut stages {
        stage.outputs = outputs.remove(stage.name.as_str()).unwrap_or_default();
    }
    Some(Graph { stages, skipped, layers })
}

/// Every `from` must lead somewhere, and names be unique.
fn check_origins(spec: &MinimalImageSpec, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (index, stage) in spec.stages.iter().enumerate() {
        if [SOURCE_STAGE, BASE_STAGE, DEBUG_STAGE].contains(&stage.name.as_str()) || !names.insert(stage.name.as_str())
        {
            problems.add(format!("stages[{index}].name"), format!("`{}` is taken, choose another name", stage.name));
        }
    }
    let stage_copies = spec.stages.iter().map(|stage| (format!("stages[{}].copy", stage.name), &stage.copy));
    for (field, copies) in stage_copies.chain([("image.copy".to_owned(), &spec.image.copy)]) {
        for (index, copy) in copies.iter().enumerate() {
            let field = format!("{field}[{index}].from");
            if copy.from == SOURCE_STAGE {
                if spec.source.is_none() {
                    problems.add(field, "there is no spec.source to copy from");
                }
            } else if !names.contains(copy.from.as_str()) {
                let known: Vec<_> = names.iter().copied().chain([SOURCE_STAGE]).collect();
                problems.add(field, format!("no stage is named `{}`, there are: {}", copy.from, known.join(", ")));
            }
        }
    }
}

fn draft<'a>(
    spec: &MinimalImageSpec,
    security: PodSecurity,
    (index, stage): (usize, &'a Stage),
    problems: &mut Problems,
) -> Option<Draft<'a>> {
    let field = format!("stages[{}]", stage.name);
    if index >= 32 {
        problems.add("stages", "more than 32 stages are not possible");
    }
    let image = problems.take(format!("{field}.image"), stage.image.parse());
    let working_dir = stage.working_dir.as_deref().unwrap_or(WORKSPACE);
    let working_dir = problems.take(format!("{field}.workingDir"), working_dir.parse::<ImagePath>())?;
    copies::check_writable(security, format!("{field}.workingDir"), &working_dir, problems);
    let mut copies = copies::parse(&stage.copy, &format!("{field}.copy"), problems);
    for (index, (_, item)) in copies.iter().enumerate() {
        let field = format!("{field}.copy[{index}].destination");
        copies::check_writable(security, field, &item.destination.path, problems);
    }
    let named_source = copies.iter().any(|(from, _)| from == SOURCE_STAGE);
    if stage.copy_source && !named_source && spec.source.is_some() {
        copies.insert(0, (SOURCE_STAGE.to_owned(), whole_source(&working_dir)));
    }
    let timeout = stage.timeout.as_deref().map(|text| duration(problems, &format!("{field}.timeout"), text));
    for (index, cache) in stage.caches.iter().enumerate() {
        problems.take(format!("{field}.caches[{index}].path"), cache.path.parse::<ImagePath>());
        if cache.persistent_volume_claim.is_some() == cache.registry.is_some() {
            problems.add(format!("{field}.caches[{index}]"), "give exactly one of persistentVolumeClaim and registry");
        }
    }
    if stage.run.is_some() && stage.command.is_some() {
        problems.add(&field, "give either run or command, not both");
    }
    let groups = copies::group(copies);
    Some(Draft { stage, image: image?, working_dir, groups, timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))? })
}

fn whole_source(working_dir: &ImagePath) -> CopyItem {
    CopyItem {
        source: String::new(),
        destination: Destination { path: working_dir.clone(), directory: true },
        mode: None,
        owner: Some(Owner::default()),
        exclude: Vec::new(),
        parents: None,
        docker: None,
    }
}

/// Names of the stages that the image needs, each after those it copies from.
fn order(drafts: &BTreeMap<&str, &Draft>, image: &[Group], problems: &mut Problems) -> Option<Vec<String>> {
    fn visit(
        name: &str,
        drafts: &BTreeMap<&str, &Draft>,
        path: &mut Vec<String>,
        done: &mut Vec<String>,
    ) -> Result<(), String> {
        if done.iter().any(|other| other == name) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|other| other == name) {
            return Err(format!("{} → {name}", path.iter().skip(start).cloned().collect::<Vec<_>>().join(" → ")));
        }
        path.push(name.to_owned());
        let groups = drafts.get(name).map_or(&[][..], |draft| &draft.groups);
        // The source is an input that the agent fetches itself, not a stage that others wait for.
        for group in groups.iter().filter(|group| group.from != SOURCE_STAGE) {
            visit(&group.from, drafts, path, done)?;
        }
        path.pop();
        done.push(name.to_owned());
        Ok(())
    }
    let mut done = Vec::new();
    for group in image {
        if let Err(cycle) = visit(&group.from, drafts, &mut Vec::new(), &mut done) {
            problems.add("stages", format!("stages copy from each other in a circle: {cycle}"));
            return None;
        }
    }
    Some(done)
}

fn finish(draft: &Draft, account: Account, mut add: impl FnMut(&Group) -> OutputReference) -> StagePlan {
    let mut inputs = Vec::new();
    let mut steps: Vec<Step> = draft
        .groups
        .iter()
        .map(|group| {
            if group.from == SOURCE_STAGE {
                return Step::CopySource { items: group.items.clone(), owner: None, transient: false, names: None };
            }
            inputs.push(add(group));
            Step::CopyArtifact { input: inputs.len() - 1, owner: None, transient: false, names: None }
        })
        .collect();
    let command = command(draft.stage);
    let caches: Vec<_> = draft.stage.registry_caches().collect();
    let mounts = caches.iter().enumerate().filter_map(|(index, cache)| {
        let path = cache.path.parse().ok()?;
        Some(RunMount::Cache { path, index, volume: true, mode: 0o755, owner: Owner::default() })
    });
    let mounts = mounts.collect();
    if !command.is_empty() {
        let mut env = BTreeMap::from([(SOURCE_DATE_EPOCH.0.to_owned(), SOURCE_DATE_EPOCH.1.to_owned())]);
        let literal = draft.stage.env.iter().filter(|variable| variable.value_from.is_none());
        env.extend(literal.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default())));
        steps.push(Step::Run {
            command,
            env,
            working_dir: draft.working_dir.clone(),
            user: None,
            mounts,
            offline: false,
        });
    }
    StagePlan {
        name: draft.stage.name.clone(),
        image: Some(draft.image.clone()),
        remote: None,
        packages: None,
        steps,
        inputs,
        outputs: Vec::new(),
        ignore: Vec::new(),
        account,
        settings: Some(draft.stage.clone()),
        timeout: draft.timeout,
        places: Places::default(),
        // Stages share none, as they share no directory of a claim.
        caches: caches.iter().map(|cache| format!("{}/{}", draft.stage.name, cache.name)).collect(),
    }
}

fn command(stage: &Stage) -> Vec<String> {
    let args = stage.args.iter().flatten().cloned();
    match (&stage.run, &stage.command) {
        (Some(line), _) => ["/bin/sh", "-e", "-c", line].map(str::to_owned).into_iter().chain(args).collect(),
        (None, Some(command)) => command.iter().cloned().chain(args).collect(),
        (None, None) => Vec::new(),
    }
}

/// The stage whose outputs the agent takes from the source by itself.
pub(super) fn source_stage(account: Account, ignore: Vec<String>) -> StagePlan {
    StagePlan { ignore, ..empty_stage(SOURCE_STAGE.to_owned(), account) }
}

/// A stage with nothing in it yet.
pub(super) fn empty_stage(name: String, account: Account) -> StagePlan {
    StagePlan {
        name,
        image: None,
        remote: None,
        packages: None,
        steps: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        ignore: Vec::new(),
        account,
        settings: None,
        timeout: DEFAULT_TIMEOUT,
        places: Places::default(),
        caches: Vec::new(),
    }
}

pub(super) fn planned_files(files: &[File], problems: &mut Problems) -> Vec<TextFile> {
    let mut planned: Vec<TextFile> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let field = format!("image.files[{index}]");
        let Some(path) = problems.take(format!("{field}.path"), file.path.parse::<ImagePath>()) else { continue };
        if planned.iter().any(|other| other.path == path) {
            problems.add(format!("{field}.path"), format!("{path} is given twice"));
        }
        planned.push(TextFile {
            path,
            content: file.content.clone(),
            mode: mode(problems, format!("{field}.mode"), file.mode.as_deref()).unwrap_or(0o644),
            owner: owner(problems, format!("{field}.owner"), file.owner.as_deref()),
        });
    }
    planned
}
