//! What a build says at its end: for people a table, for programs JSON.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{output::Finished, stage::Done, world::World};
use crate::{
    cli::BuildArgs,
    domain::{
        artifact::{FileSize, OutputReport},
        plan::Plan,
        value::{Digest, human_size},
    },
    shell::store::Resolved,
};

/// How many of an image's files are named.
const LARGEST: usize = 5;

/// All that there is to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The image by its digest.
    pub reference: String,
    /// Its digest.
    pub digest: Digest,
    /// Its names.
    pub tags: Vec<String>,
    /// The debug image by its digest; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<String>,
    /// The debug image's names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub debug_tags: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// Bytes of its layers as a registry holds them.
    pub compressed_size: u64,
    /// Bytes of the largest builder image, unpacked; none without a builder.
    pub builder_size: Option<u64>,
    /// What it starts from.
    pub base: String,
    /// Its layers.
    pub layers: Vec<LayerLine>,
    /// Its stages.
    pub stages: Vec<StageLine>,
    /// The largest files of its own layers.
    pub largest_files: Vec<FileSize>,
}

/// A layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerLine {
    from: String,
    digest: Digest,
    size: Option<u64>,
    compressed_size: u64,
}

/// A stage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageLine {
    name: String,
    cached: bool,
    seconds: f64,
    artifact_size: u64,
}

impl Summary {
    /// Counts together what was built.
    #[must_use]
    pub fn new(
        (world, plan): (&World, &Plan),
        finished: &Finished,
        reports: &[OutputReport],
        images: &BTreeMap<String, Resolved>,
        done: &[Done],
    ) -> Self {
        let base = plan.base.as_ref().map(ToString::to_string);
        let base_size = base.as_ref().and_then(|base| images.get(base)).map_or(0, |image| image.size);
        let below = finished.image.base_layers.iter().map(|layer| LayerLine {
            from: "base".into(),
            digest: layer.digest,
            size: None,
            compressed_size: layer.size,
        });
        let own = finished.layers.iter().map(|layer| LayerLine {
            from: layer.from.clone(),
            digest: layer.layer.digest,
            size: Some(layer.layer.size),
            compressed_size: layer.layer.compressed_size,
        });
        let layers: Vec<LayerLine> = below.chain(own).collect();
        let mut largest: Vec<FileSize> = reports.iter().flat_map(|report| report.largest_files.clone()).collect();
        largest.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
        largest.truncate(LARGEST);
        let builders = plan.stages.iter().filter_map(|stage| images.get(&stage.image.as_ref()?.to_string()));
        Self {
            reference: world.outline.repository.pinned(finished.image.digest).to_string(),
            digest: finished.image.digest,
            tags: finished.tags.iter().map(ToString::to_string).collect(),
            debug: finished.debug.as_ref().map(|(image, _)| world.outline.repository.pinned(image.digest).to_string()),
            debug_tags: finished.debug_tags().iter().map(ToString::to_string).collect(),
            size: base_size + layers.iter().filter_map(|layer| layer.size).sum::<u64>(),
            compressed_size: layers.iter().map(|layer| layer.compressed_size).sum(),
            builder_size: builders.map(|image| image.size).max(),
            base: plan.base_name(),
            layers,
            stages: done.iter().map(StageLine::new).collect(),
            largest_files: largest,
        }
    }

    /// Prints it in the form that was asked for, and writes it to the file that was.
    pub fn print(&self, args: &BuildArgs) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self).context("failed to write JSON")?;
        if let Some(path) = &args.metadata_file {
            fs::write(path, format!("{json}\n")).with_context(|| format!("failed to write {}", path.display()))?;
        }
        let text = match (args.quiet, args.json) {
            (true, _) => self.digest.to_string(),
            (false, true) => json,
            (false, false) => format!("{}\n{}", self.table().trim_end(), self.names(args.push)),
        };
        writeln!(io::stdout().lock(), "{}", text.trim_end()).context("failed to print the result")
    }

    /// What the image is called, and where.
    fn names(&self, pushed: bool) -> String {
        let tags: Vec<&str> = self.tags.iter().chain(&self.debug_tags).map(String::as_str).collect();
        let tags = if tags.is_empty() { "no tag".to_owned() } else { tags.join(", ") };
        if pushed { format!("pushed: {tags}\n") } else { format!("tags: {tags}\n") }
    }

    fn table(&self) -> String {
        let mut rows = vec![row(["STAGE", "TIME", "ARTIFACT"])];
        rows.extend(self.stages.iter().map(|stage| {
            let time = if stage.cached { "cached".to_owned() } else { format!("{:.1}s", stage.seconds) };
            [stage.name.clone(), time, human_size(stage.artifact_size)]
        }));
        let mut text = columns(&rows);
        let mut rows = vec![row(["LAYER", "SIZE", "COMPRESSED"])];
        rows.extend(self.layers.iter().map(|layer| {
            let size = layer.size.map_or_else(|| "-".to_owned(), human_size);
            let from = if layer.from == "base" { format!("base {}", self.base) } else { layer.from.clone() };
            [from, size, human_size(layer.compressed_size)]
        }));
        text = format!("{text}\n{}", columns(&rows));
        let mut rows = vec![row(["LARGEST FILE", "SIZE", ""])];
        rows.extend(self.largest_files.iter().map(|file| [file.path.clone(), human_size(file.size), String::new()]));
        text = format!("{text}\n{}", columns(&rows));
        let builder = self.builder_size.map(|size| format!(", builder {}", human_size(size))).unwrap_or_default();
        let size = (human_size(self.size), human_size(self.compressed_size));
        format!("{text}\n{}\n{} ({} compressed), base {}{builder}\n", self.reference, size.0, size.1, self.base)
    }
}

impl StageLine {
    fn new(done: &Done) -> Self {
        Self {
            name: done.stage.clone(),
            cached: done.cached,
            seconds: done.time.as_secs_f64(),
            artifact_size: done.artifact.layers.iter().map(|layer| layer.size).sum(),
        }
    }
}

fn row<const N: usize>(cells: [&str; N]) -> [String; N] {
    cells.map(str::to_owned)
}

/// Columns as `docker images` sets them: three spaces apart.
#[must_use]
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}
