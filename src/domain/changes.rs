//! What decided a stage's artifact, kept until the next build, and in words what of it is another now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    recipe::{Recipe, Step},
    value::Digest,
};

/// So many files or steps are named, the others counted.
const NAMED: usize = 5;
/// More files than this are not kept apart.
pub const MOST_FILES: usize = 20_000;

/// All inputs of one stage in one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageInputs {
    /// All but the source.
    pub recipe: Recipe,
    /// The source's revision; none for a directory.
    pub revision: Option<String>,
    /// Digest of what the steps see of the source; none where it was not looked at.
    pub source: Option<Digest>,
    /// Those files by their names in the source; none where they were not looked at, or are over [`MOST_FILES`].
    pub files: Option<BTreeMap<String, Digest>>,
}

/// What of `now` is not as in `last`, a sentence each; `stages` are the names of those that it copies from, in the
/// recipe's order.
#[must_use]
pub fn changes(last: &StageInputs, now: &StageInputs, stages: &[String]) -> Vec<String> {
    let (old, new) = (&last.recipe, &now.recipe);
    let mut found = Vec::new();
    if old.image != new.image {
        found.push("builder image moved".to_owned());
    }
    found.extend(source(last, now));
    found.extend(inputs(&old.inputs, &new.inputs, stages));
    found.extend(steps(&old.steps, &new.steps));
    let others = [
        (old.platform != new.platform, "platform changed"),
        (old.user != new.user, "user of the build container changed"),
        (old.env_from != new.env_from, "variables from Secrets or ConfigMaps changed"),
        (old.mounts != new.mounts, "caches changed"),
        (old.ignore != new.ignore, "ignore file changed"),
        (old.remote != new.remote, "what it fetches changed"),
        (old.outputs != new.outputs, "what is copied out of it changed"),
        (old.format != new.format, "this version of minimalimage makes other artifacts"),
    ];
    found.extend(others.into_iter().filter(|(changed, _)| *changed).map(|(_, words)| words.to_owned()));
    found
}

fn source(last: &StageInputs, now: &StageInputs) -> Option<String> {
    if !now.recipe.uses_source() || !last.recipe.uses_source() {
        return None;
    }
    if let (Some(old), Some(new)) = (&last.files, &now.files)
        && old != new
    {
        let removed = old.keys().filter(|path| !new.contains_key(*path)).map(|path| format!("{path} (removed)"));
        let added = new.keys().filter(|path| !old.contains_key(*path)).map(|path| format!("{path} (new)"));
        let changed = new.iter().filter(|(path, digest)| old.get(*path).is_some_and(|old| old != *digest));
        let names: Vec<_> = changed.map(|(path, _)| path.clone()).chain(added).chain(removed).collect();
        return Some(format!("source changed: {}", listed(&names)));
    }
    if last.source.is_some() && now.source.is_some() {
        return (last.source != now.source).then(|| "source changed".to_owned());
    }
    match (&last.revision, &now.revision) {
        (Some(old), Some(new)) if old != new => Some(format!("source is at {}, was at {}", short(new), short(old))),
        (None, Some(new)) => Some(format!("source is at {}, was a directory", short(new))),
        (Some(_), None) => Some("source is a directory, was a revision".to_owned()),
        _ => None,
    }
}

fn inputs(old: &[Digest], new: &[Digest], stages: &[String]) -> Vec<String> {
    if old.len() != new.len() {
        return vec!["what it copies from other stages changed".to_owned()];
    }
    let changed = old.iter().zip(new).zip(stages).filter(|((old, new), _)| old != new);
    let mut names: Vec<&String> = changed.map(|(_, stage)| stage).collect();
    names.dedup();
    names.into_iter().map(|stage| format!("input from stage {stage} changed")).collect()
}

fn steps(old: &[Step], new: &[Step]) -> Option<String> {
    let name = |(index, step): (usize, &Step)| match step.command_line() {
        Some(line) => format!("step {} (`{line}`)", index + 1),
        None => format!("step {}", index + 1),
    };
    let differs = |(index, step): &(usize, &Step)| old.get(*index).is_none_or(|old| old != *step);
    let mut names: Vec<_> = new.iter().enumerate().filter(differs).map(name).collect();
    match old.len().saturating_sub(new.len()) {
        0 => {}
        1 => names.push("one step less".to_owned()),
        fewer => names.push(format!("{fewer} steps less")),
    }
    (!names.is_empty()).then(|| format!("steps changed: {}", listed(&names)))
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        recipe::{FORMAT, Output, Parents},
        value::Platform,
    };

    fn run(line: &str) -> Step {
        Step::Run {
            command: ["/bin/sh", "-e", "-c", line].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            working_dir: "/workspace".parse().unwrap(),
            user: None,
            mounts: Vec::new(),
            offline: false,
        }
    }

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, Digest> {
        list.iter().map(|(path, text)| ((*path).to_owned(), Digest::of(text.as_bytes()))).collect()
    }

    fn stage() -> StageInputs {
        let copy = Step::CopySource { items: Vec::new(), owner: None, transient: false, names: None };
        let recipe = Recipe {
            remote: None,
            packages: None,
            format: FORMAT,
            platform: Platform::linux("amd64"),
            image: Some(Digest::of(b"builder")),
            user: None,
            env_from: Vec::new(),
            mounts: Vec::new(),
            ignore: Vec::new(),
            inputs: vec![Digest::of(b"deps")],
            steps: vec![copy, run("make")],
            outputs: vec![Output::copies(Vec::new(), Parents::All)],
        };
        let files = Some(files(&[("go.mod", "1"), ("main.go", "1")]));
        StageInputs { recipe, revision: Some("abc".into()), source: Some(Digest::of(b"1")), files }
    }

    #[test]
    fn every_input_that_changed_is_told_and_no_other() {
        let cases: [(fn(&mut StageInputs), &[&str]); 14] = [
            (|_| {}, &[]),
            (|s| s.revision = Some("another commit with the same files".into()), &[]),
            (|s| s.recipe.image = Some(Digest::of(b"2")), &["builder image moved"]),
            (
                |s| s.files = Some(files(&[("main.go", "2"), ("new.go", "1")])),
                &["source changed: main.go, new.go (new), go.mod (removed)"],
            ),
            (|s| (s.files, s.source) = (None, Some(Digest::of(b"2"))), &["source changed"]),
            (
                |s| (s.files, s.source, s.revision) = (None, None, Some("0123456789abcdef".into())),
                &["source is at 0123456789ab, was at abc"],
            ),
            (|s| s.recipe.inputs = vec![Digest::of(b"2")], &["input from stage deps changed"]),
            (|s| s.recipe.inputs.clear(), &["what it copies from other stages changed"]),
            (|s| s.recipe.steps[1] = run("make all"), &["steps changed: step 2 (`make all`)"]),
            (|s| drop(s.recipe.steps.pop()), &["steps changed: one step less"]),
            (|s| s.recipe.user = Some(0), &["user of the build container changed"]),
            (|s| s.recipe.env_from = vec!["T".into()], &["variables from Secrets or ConfigMaps changed"]),
            (|s| s.recipe.outputs.clear(), &["what is copied out of it changed"]),
            (
                |s| s.files = Some((0..9).map(|n| (n.to_string(), Digest::of(b""))).collect()),
                &["source changed: 0 (new), 1 (new), 2 (new), 3 (new), 4 (new) and 6 more"],
            ),
        ];
        for (change, expected) in cases {
            let mut now = stage();
            change(&mut now);
            assert_eq!(changes(&stage(), &now, &["deps".to_owned()]), expected);
        }
    }
}
