//! Copies grouped into layers: one per place that files come from, as far as their order does not matter.

use std::collections::BTreeSet;

use crate::{
    api::v1alpha1::{Copy, PodSecurity},
    domain::{
        mode::Mode,
        recipe::{CopyItem, Destination},
        value::ImagePath,
    },
};

use super::{Problems, SOURCE_STAGE, WRITABLE, mode, owner};

/// Copies from one place that become one layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group<F = String> {
    /// What they come from.
    pub from: F,
    /// The copies, in the spec's order.
    pub items: Vec<CopyItem>,
}

/// Groups parsed copies by where they come from. A copy joins the group of its origin unless a group after that one
/// writes to an overlapping destination: then the order matters and a new group begins.
pub(super) fn group<F: PartialEq>(copies: Vec<(F, CopyItem)>) -> Vec<Group<F>> {
    let mut groups: Vec<Group<F>> = Vec::new();
    for (from, item) in copies {
        let own = groups.iter().rposition(|group| group.from == from);
        let free = own.filter(|own| !groups.iter().skip(own + 1).any(|later| overlaps(later, &item)));
        match free.and_then(|own| groups.get_mut(own)) {
            Some(group) => group.items.push(item),
            None => groups.push(Group { from, items: vec![item] }),
        }
    }
    groups
}

/// The directories that the layers of an image, lowest first, are known to have made.
#[derive(Debug, Default)]
pub(super) struct Made(BTreeSet<ImagePath>);

impl Made {
    /// A directory and those above it.
    pub(super) fn add(&mut self, directory: Option<ImagePath>) {
        self.0.extend(std::iter::successors(directory, ImagePath::parent));
    }

    /// Those that a layer of `items` needs and a lower one has: what that has given an owner must not become root's again. What
    /// the items make is known from here on.
    pub(super) fn below(&mut self, items: &[CopyItem]) -> Vec<ImagePath> {
        let mut needed = Self::default();
        for item in items {
            let path = &item.destination.path;
            needed.add(if item.destination.directory { Some(path.clone()) } else { path.parent() });
        }
        let lower = needed.0.intersection(&self.0).filter(|path| **path != ImagePath::root()).cloned().collect();
        // A copy below a destination tells that this is a directory.
        for item in items {
            self.add(Some(item.destination.path.clone()));
        }
        lower
    }
}

fn overlaps<F>(group: &Group<F>, item: &CopyItem) -> bool {
    let path = &item.destination.path;
    group.items.iter().any(|other| other.destination.path.is_within(path) || path.is_within(&other.destination.path))
}

/// Parses the copies of `field`; wrong ones become problems.
pub(super) fn parse(copies: &[Copy], field: &str, problems: &mut Problems) -> Vec<(String, CopyItem)> {
    let parsed = copies.iter().enumerate().filter_map(|(index, copy)| {
        let field = format!("{field}[{index}]");
        let source = source_path(copy, &field, problems)?;
        let path = problems.take(format!("{field}.destination"), copy.destination.parse::<ImagePath>())?;
        let item = CopyItem {
            source,
            destination: Destination { path, directory: copy.destination.ends_with('/') },
            mode: mode(problems, format!("{field}.mode"), copy.mode.as_deref()).map(Mode::Bits),
            owner: Some(owner(problems, format!("{field}.owner"), copy.owner.as_deref())),
            exclude: Vec::new(),
            parents: None,
            docker: None,
        };
        Some((copy.from.clone(), item))
    });
    parsed.collect()
}

fn source_path(copy: &Copy, field: &str, problems: &mut Problems) -> Option<String> {
    let field = format!("{field}.source");
    let below_root = if copy.from == SOURCE_STAGE {
        if copy.source.starts_with('/') {
            problems.add(field, format!("`{}` is absolute, paths in the source are relative", copy.source));
            return None;
        }
        format!("/{}", copy.source)
    } else {
        copy.source.clone()
    };
    let path = problems.take(field, below_root.parse::<ImagePath>())?;
    Some(if copy.from == SOURCE_STAGE { path.relative().to_owned() } else { path.to_string() })
}

/// Under Restricted only some directories can be written to: better refused now than failing in the Pod.
pub(super) fn check_writable(security: PodSecurity, field: String, path: &ImagePath, problems: &mut Problems) {
    if security == PodSecurity::Restricted && !is_writable(path) {
        problems.add(
            field,
            format!(
                "{path} cannot be written under podSecurity Restricted: use a path below {}, or podSecurity: Baseline",
                WRITABLE.join(", ")
            ),
        );
    }
}

/// Whether a restricted stage can write to `path`.
pub(super) fn is_writable(path: &ImagePath) -> bool {
    WRITABLE.iter().filter_map(|text| text.parse().ok()).any(|root: ImagePath| path.is_within(&root))
}
