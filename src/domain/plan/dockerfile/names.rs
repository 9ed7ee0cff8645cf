//! What things of a Dockerfile are called in the plan: stages and images, and where copies arrive.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    plan::{DEBUG_STAGE, SOURCE_STAGE},
    recipe::{CopyItem, Names, Owner},
};

use super::{
    OpenDockerfile,
    graph::Origin,
    stage::{Action, Built},
};

/// A stage's name in the plan has at most this many characters, as in `spec.stages`.
const NAME_LENGTH: usize = 40;

/// A name for everything that files can be copied from, each once.
pub(super) fn names(open: &OpenDockerfile<'_>, built: &BTreeMap<usize, Built>) -> BTreeMap<Origin, String> {
    let mut names = BTreeMap::from([(Origin::Context, SOURCE_STAGE.to_owned())]);
    let mut taken = BTreeSet::from([SOURCE_STAGE, DEBUG_STAGE].map(str::to_owned));
    let mut take = |origin: Origin, wanted: String, number: usize| {
        let wanted: String = wanted.trim_matches('-').chars().take(NAME_LENGTH - 4).collect();
        let wanted = wanted.trim_end_matches('-').to_owned();
        let numbered = (number..).map(|number| format!("{wanted}-{number}").trim_start_matches('-').to_owned());
        let mut free = (!wanted.is_empty()).then(|| wanted.clone()).into_iter().chain(numbered);
        // There is always a number that nobody has.
        let Some(name) = free.find(|name| !taken.contains(name)) else { return };
        taken.insert(name.clone());
        names.insert(origin, name);
    };
    // Stages that are not needed are shown too, and have what the others leave.
    let (needed, others): (Vec<usize>, Vec<usize>) =
        (0..open.dockerfile.stages.len()).partition(|index| built.contains_key(index));
    for index in needed.into_iter().chain(others) {
        let name = open.dockerfile.stages.get(index).and_then(|stage| stage.name.as_ref());
        let name = name.map_or_else(|| format!("stage-{index}"), |name| plain(&name.value));
        take(Origin::Stage(index), name, index);
    }
    for (index, image) in open.graph.images.keys().enumerate() {
        take(Origin::Image(image.clone()), format!("image-{index}"), index);
    }
    let actions = built.values().flat_map(|built| &built.actions);
    let remotes = actions.filter_map(|action| match &action.value {
        Action::Copy { origin: origin @ Origin::Remote(_), .. } => Some(origin.clone()),
        _ => None,
    });
    let mut numbers = BTreeMap::new();
    for origin in remotes {
        let next = numbers.len() + 1;
        numbers.entry(origin).or_insert(next);
    }
    for (origin, number) in numbers {
        take(origin, format!("add-{number}"), number);
    }
    names
}

/// Docker's stage names may have `.` and `_`, which a label's value and a Job's name here do not.
fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }).collect()
}

/// Whom what is made on the way to the destinations belongs to, if not to root.
pub(super) fn owner_of(items: &[CopyItem]) -> Option<String> {
    let Owner { uid, gid } = items.first()?.owner.filter(|owner| *owner != Owner::default())?;
    Some(format!("{uid}:{gid}"))
}

/// Where a COPY writes; none for files that a mount brings.
pub(super) fn names_of(items: &[CopyItem]) -> Option<Names> {
    let name = |item: &CopyItem| {
        let written = item.destination.directory || item.parents.is_some();
        let last = item.source.rsplit('/').next().filter(|_| !written).and_then(literal);
        (item.destination.path.clone(), last.unwrap_or_default())
    };
    items.iter().all(|item| item.docker.is_some()).then(|| items.iter().map(name).collect())
}

/// The one name that a pattern stands for, if it is only one.
fn literal(pattern: &str) -> Option<String> {
    let mut name = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?),
            '*' | '?' | '[' => return None,
            _ => name.push(letter),
        }
    }
    Some(name)
}
