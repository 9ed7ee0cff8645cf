//! What stages see: looked at for a plan, and remembered behind a build, so that the next plan can say what changed.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use anyhow::Context as _;

use super::{
    stage::Done,
    world::{World, blocking},
};
use crate::{
    cmd::agent::ignore_of,
    domain::{
        changes::{MOST_FILES, StageInputs},
        plan::Pins,
        recipe::{CopyItem, Destination, Docker, Output, Parents, Recipe, Step},
        tree::{FileTree, Kind},
        value::{Digest, DigestHasher},
    },
    shell::collect::{Scope, Stored, collect},
};

type Files = BTreeMap<String, Digest>;

impl World {
    /// Remembers what stages were made from. That it fails is no reason for a build to fail.
    pub async fn remember(&self, done: &[Done], pins: &Pins) {
        for done in done {
            if let Err(error) = self.remember_one(done, pins).await {
                self.progress.warn(&format!("what stage {} was made from is not remembered: {error:#}", done.stage));
            }
        }
    }

    async fn remember_one(&self, done: &Done, pins: &Pins) -> anyhow::Result<()> {
        let (name, last) = (self.stage_name(&done.stage), self.last_inputs(&done.stage));
        let uses_source = done.recipe.uses_source();
        let revision = pins.revision.clone().filter(|_| uses_source);
        let same = |last: &StageInputs| {
            let source = done.source.is_none() || last.source == done.source;
            last.recipe == done.recipe && last.revision == revision && source
        };
        if last.as_ref().is_some_and(same) {
            return Ok(());
        }
        let root = self.context.as_ref().or(self.fetched.get()).filter(|_| uses_source).cloned();
        let files = match root {
            Some(root) => listing(&done.recipe, &root).await?,
            None => None,
        };
        let inputs = StageInputs { recipe: done.recipe.clone(), revision, source: done.source, files };
        let store = self.store.clone();
        blocking(move || store.put_inputs(&name, &inputs)).await
    }

    /// What a stage was made from by the last build.
    #[must_use]
    pub fn last_inputs(&self, stage: &str) -> Option<StageInputs> {
        self.store.inputs(&self.stage_name(stage))
    }

    fn stage_name(&self, stage: &str) -> String {
        format!("{} {stage}", self.outline.repository)
    }
}

/// Every file that the recipe takes from the source at `root`; none if there are too many.
pub async fn listing(recipe: &Recipe, root: &Path) -> anyhow::Result<Option<Files>> {
    let (recipe, root) = (recipe.clone(), root.to_owned());
    blocking(move || list(&recipe, &root)).await
}

fn list(recipe: &Recipe, root: &Path) -> anyhow::Result<Option<Files>> {
    let ignore = ignore_of(recipe).map_err(|failure| anyhow::anyhow!(failure.message))?;
    let steps = recipe.steps.iter().filter_map(|step| match step {
        Step::CopySource { items, .. } => Some(items),
        _ => None,
    });
    // Only the source's own stage takes outputs from the source.
    let outputs = recipe.outputs.iter().filter(|_| recipe.image.is_none()).map(|output| &output.items);
    let mut files = Files::new();
    for items in steps.chain(outputs) {
        let output = Output::copies(items.iter().enumerate().map(listed).collect(), Parents::None);
        let tree = collect(root, &output, Scope::Source, &ignore, None)?;
        if tree.entries().count().saturating_add(files.len()) > MOST_FILES {
            return Ok(None);
        }
        add(&mut files, &tree, root)?;
    }
    Ok(Some(files))
}

/// An archive that ADD unpacks is one file of the source; what it is unpacked to may be in other copies' way.
fn listed((index, item): (usize, &CopyItem)) -> CopyItem {
    match (item.docker, format!("/{index}").parse()) {
        (Some(Docker::Add), Ok(path)) => {
            let destination = Destination { path, directory: true };
            CopyItem { destination, docker: Some(Docker::Copy), ..item.clone() }
        }
        _ => item.clone(),
    }
}

fn add(files: &mut Files, tree: &FileTree<Stored>, root: &Path) -> anyhow::Result<()> {
    for (entry, path) in tree.entries() {
        // A link has no path of the source; what it is called where it goes says enough.
        let (name, digest) = match (&entry.kind, path) {
            (Kind::Symlink(target), _) => (entry.path.to_string(), Digest::of(target)),
            (Kind::HardLink(first), _) => (entry.path.to_string(), Digest::of(first.as_bytes())),
            (Kind::File(_), Some(path)) => {
                let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
                (name, file_digest(path, entry.mode)?)
            }
            _ => continue,
        };
        files.insert(name, digest);
    }
    Ok(())
}

/// Of a file's content and mode.
fn file_digest(path: &Path, mode: u32) -> anyhow::Result<Digest> {
    let failed = || format!("failed to read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut hasher = DigestHasher::default();
    hasher.update(format!("{mode:o} ").as_bytes());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer).with_context(failed)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}
