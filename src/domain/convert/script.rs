//! The RUNs of a stage as one script. Each RUN of a Dockerfile is a shell of its own: what it sets does not last.

use std::collections::BTreeMap;

use crate::domain::{plan::SOURCE_DATE_EPOCH, value::ImagePath};

type Variables = BTreeMap<String, String>;

/// What of a stage goes into its script.
pub(super) enum Line {
    /// RUN.
    Run { command: Vec<String>, env: Variables, directory: ImagePath },
    /// WORKDIR.
    MakeDirectory(ImagePath),
}

/// A stage's `run` or `command`, and what goes with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub run: Option<String>,
    pub command: Option<Vec<String>>,
    pub env: Variables,
    pub directory: Option<ImagePath>,
}

impl Script {
    /// `places` are the lines of the RUNs in `file`, where they are known.
    pub(super) fn new(lines: &[Line], file: &str, places: &[u32]) -> Self {
        let mut runs = lines.iter().filter_map(|line| match line {
            Line::Run { command, env, directory } => Some((command, env, directory)),
            Line::MakeDirectory(_) => None,
        });
        let directory = runs.clone().next_back().map(|(.., directory)| directory.clone());
        let env = common(runs.clone().map(|(_, env, _)| env));
        let missing = |line: &&Line| matches!(line, Line::MakeDirectory(path) if Some(path) != directory.as_ref());
        let single = runs.next().filter(|_| runs.next().is_none() && !lines.iter().any(|line| missing(&line)));
        if let Some((command, ..)) = single {
            return match shell_line(command).filter(|line| is_simple(line)) {
                Some(line) => Self { run: Some(line.to_owned()), env, directory, ..Self::default() },
                None => Self { command: Some(command.clone()), env, directory, ..Self::default() },
            };
        }
        let count = lines.iter().filter(|line| matches!(line, Line::Run { .. })).count();
        let mut places = places.iter().filter(|_| places.len() == count);
        let mut text = String::new();
        for line in lines {
            match line {
                Line::MakeDirectory(path) if Some(path) == directory.as_ref() => {}
                Line::MakeDirectory(path) => text.extend([format!("mkdir -p {}\n", quoted(path.as_str()))]),
                Line::Run { command, env: own, directory: place } => {
                    if let Some(line) = places.next() {
                        text.extend([format!("# {file}:{line}\n")]);
                    }
                    let place = Some(place).filter(|place| Some(*place) != directory.as_ref());
                    let own = own.iter().filter(|(name, _)| is_own(name) && !env.contains_key(*name));
                    text.push_str(&subshell(command, own, place));
                }
            }
        }
        Self { run: (!text.is_empty()).then_some(text), env, directory, ..Self::default() }
    }
}

/// One RUN. The stage's shell ends at the first failing line, which RUN's own shell does not.
fn subshell<'a>(
    command: &[String],
    variables: impl Iterator<Item = (&'a String, &'a String)>,
    directory: Option<&ImagePath>,
) -> String {
    let mut text = "(\n".to_owned();
    if let Some(directory) = directory {
        text.extend([format!("mkdir -p {0} && cd {0}\n", quoted(directory.as_str()))]);
    }
    for (name, value) in variables {
        text.extend([format!("export {name}={}\n", quoted(value))]);
    }
    match shell_line(command) {
        Some(line) if is_simple(line) => text.push_str(line),
        Some(lines) => text.extend([format!("set +e\n{lines}")]),
        None => text.push_str(&command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
    }
    let end = if text.ends_with('\n') { ")\n" } else { "\n)\n" };
    text + end
}

/// What all RUNs have alike.
fn common<'a>(mut all: impl Iterator<Item = &'a Variables>) -> Variables {
    let Some(first) = all.next() else { return Variables::new() };
    let mut common = first.clone();
    common.retain(|name, _| is_own(name));
    all.for_each(|other| common.retain(|name, value| other.get(name) == Some(value)));
    common
}

/// Stages have this one anyhow.
fn is_own(name: &str) -> bool {
    name != SOURCE_DATE_EPOCH.0
}

/// The text of a shell form.
fn shell_line(command: &[String]) -> Option<&str> {
    match command {
        [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => Some(line),
        _ => None,
    }
}

/// Whether it is all the same to the line if its shell ends at the first command that fails.
fn is_simple(line: &str) -> bool {
    !line.contains(['\n', ';']) && !line.replace("&&", "").contains('&')
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@%+,".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
