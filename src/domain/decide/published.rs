//! What status says of an image that was pushed and of what it starts from.

use crate::{
    api::v1alpha1::{BaseStatus, DebugStatus, FileStatus, ImageStatus, LayerStatus, PlatformStatus, Progress},
    domain::{
        artifact::OutputReport,
        debian::base::{PackageSet, PackagesBase},
        image::SourcedLayer,
        plan::{BASE_STAGE, LayerPlan, Plan},
        value::{Digest, Reference, human_size},
    },
};

use super::{
    Published,
    packages::{debug_package, listed, releases},
    pinned_digest,
    stages::Stages,
};

pub(super) fn image_status(
    plan: &Plan,
    stages: &Stages,
    below: u64,
    published: &Published,
    tags: &[Reference],
) -> ImageStatus {
    let reports = reports(plan, stages, published);
    let (base, own) = (&published.base_layers, &published.layers);
    let size = below + own.iter().map(|layer| layer.layer.size).sum::<u64>();
    let compressed = base.iter().map(|layer| layer.size).sum::<u64>()
        + own.iter().map(|layer| layer.layer.compressed_size).sum::<u64>();
    let mut largest: Vec<_> = reports.iter().flat_map(|report| &report.largest_files).collect();
    largest.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    let base_status = base.iter().map(|layer| LayerStatus {
        digest: layer.digest.to_string(),
        size: None,
        compressed_size: signed(layer.size),
        from: "base".into(),
    });
    let own_status = own.iter().map(|layer| LayerStatus {
        digest: layer.layer.digest.to_string(),
        size: Some(signed(layer.layer.size)),
        compressed_size: signed(layer.layer.compressed_size),
        from: layer.from.clone(),
    });
    ImageStatus {
        reference: plan.outline.repository.pinned(published.digest).to_string(),
        digest: published.digest.to_string(),
        display_digest: display_digest(published.digest),
        tags: tags.iter().filter_map(Reference::tag).map(str::to_owned).collect(),
        size: signed(size),
        display_size: human_size(size),
        compressed_size: signed(compressed),
        file_count: signed(reports.iter().map(|report| report.file_count).sum()),
        largest_files: largest
            .iter()
            .take(5)
            .map(|file| FileStatus { path: file.path.clone(), size: signed(file.size) })
            .collect(),
        layers: base_status.chain(own_status).collect(),
        platforms: vec![PlatformStatus {
            platform: plan.outline.platform.to_string(),
            digest: published.digest.to_string(),
        }],
        certificates: None,
        debug: None,
        warnings: published.warnings.clone(),
    }
}

/// What the image's own layers hold.
fn reports<'a>(plan: &Plan, stages: &'a Stages, published: &'a Published) -> Vec<&'a OutputReport> {
    let report = |layer: &LayerPlan| match layer {
        LayerPlan::Files(_) => published.files.as_ref(),
        LayerPlan::Include(_) => None,
        LayerPlan::Artifact(from) if from.stage == BASE_STAGE => None,
        LayerPlan::Artifact(from) => stages.artifacts.get(&from.stage)?.outputs.get(from.output),
    };
    plan.layers.iter().filter_map(report).collect()
}

/// The base's status without its share of the image.
pub(super) fn base_status(
    plan: &Plan,
    progress: &Progress,
    published: &Published,
    set: Option<&PackageSet>,
) -> BaseStatus {
    let layer = published.layers.first().filter(|_| plan.composed());
    let made = plan.packages.as_ref().zip(set).zip(layer);
    let made = made.map(|((base, set), layer)| (base, packages_status(base, set, layer)));
    let status = match (&plan.base, made) {
        (Some(base), made) => {
            // What the base itself is made of is not known by that.
            let packages = made.map(|(_, status)| status.packages).unwrap_or_default();
            BaseStatus { packages, ..image_base_status(base, progress, published) }
        }
        (None, Some((base, status))) if base.is_whole() => status,
        (None, made) => BaseStatus {
            kind: "Scratch".into(),
            display_name: "scratch".into(),
            digest: None,
            ..made.map(|(_, status)| status).unwrap_or_default()
        },
    };
    BaseStatus { releases: set.map(releases).unwrap_or_default(), ..status }
}

/// The debug image that was pushed beside the image.
pub(super) fn debug_status(plan: &Plan, published: &Published, set: Option<&PackageSet>) -> Option<DebugStatus> {
    let reference = plan.outline.repository.pinned(published.debug?).to_string();
    Some(DebugStatus { reference, package: debug_package(plan.packages.as_ref()?, set?)? })
}

fn packages_status(base: &PackagesBase, set: &PackageSet, layer: &SourcedLayer) -> BaseStatus {
    let newest = set.releases.iter().map(|release| release.date).max();
    BaseStatus {
        kind: "Packages".into(),
        display_name: base.name.clone(),
        digest: Some(set.digest().to_string()),
        size: signed(layer.layer.size),
        compressed_size: signed(layer.layer.compressed_size),
        creation_time: newest.map(|date| date.to_string()),
        distribution: Some(set.distribution.clone()),
        package_count: Some(signed(set.names(base).len() as u64)),
        packages: listed(base, set),
        ..BaseStatus::default()
    }
}

fn image_base_status(base: &Reference, progress: &Progress, published: &Published) -> BaseStatus {
    let digest = pinned_digest(progress, base);
    let name = base.to_string();
    let size = progress.images.iter().find(|image| image.reference == name).map_or(0, |image| image.size);
    BaseStatus {
        kind: "Image".into(),
        display_name: base.to_string(),
        reference: digest.map(|digest| base.repository().pinned(digest).to_string()),
        digest: digest.map(|digest| digest.to_string()),
        size,
        compressed_size: signed(published.base_layers.iter().map(|layer| layer.size).sum()),
        creation_time: published.base_created.clone(),
        distribution: published.distribution.name.clone(),
        package_count: published.distribution.packages.map(signed),
        ..BaseStatus::default()
    }
}

fn display_digest(digest: Digest) -> String {
    format!("sha256:{}", digest.short(12))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
