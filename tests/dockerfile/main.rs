//! A corpus of Dockerfiles as people write them: all are read, what is read is held in corpus.txt, and another parser
//! reads the same instructions. And the command line of `minimalimage lint`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod command;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use minimalimage::domain::dockerfile::{Dockerfile, Instruction, lint, parse};

/// Set, it makes the test write corpus.txt anew.
const BLESS: &str = "MINIMALIMAGE_BLESS";

/// What parse-dockerfile 0.1.9 cannot read, or reads otherwise than BuildKit.
const NOT_FOR_THE_ORACLE: [(&str, &str); 3] = [
    ("odd-continuations", "an escape character behind another one continues the line"),
    ("odd-heredocs", "here-documents that do not begin the command, and several at once"),
    ("odd-json-fallback", "ENTRYPOINT []"),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfile")
}

fn corpus() -> BTreeMap<String, String> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    let corpus: BTreeMap<_, _> = fs::read_dir(folder().join("corpus")).unwrap().map(read).collect();
    assert!(corpus.len() >= 40, "{}", corpus.len());
    corpus
}

fn read(name: &str, text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|problems| panic!("{name}\n{problems:#?}"))
}

#[test]
fn the_corpus_is_read_as_before() {
    let mut facts = String::new();
    for (name, text) in corpus() {
        let dockerfile = read(&name, &text);
        writeln!(facts, "== {name}\n{}", describe(&dockerfile)).unwrap();
    }
    let path = folder().join("corpus.txt");
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, &facts).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == facts,
        "what is read has changed; look at it with {BLESS}=1 cargo test --test dockerfile and git diff"
    );
}

/// Everything that was read, an instruction a line, positions left out but for the instructions' own.
fn describe(dockerfile: &Dockerfile) -> String {
    let mut text = String::new();
    for argument in &dockerfile.arguments {
        writeln!(text, "{} {}", argument.at, compact(&argument.value)).unwrap();
    }
    for stage in &dockerfile.stages {
        let name = stage.name.as_ref().map_or("-", |name| &name.value);
        let platform = stage.platform.as_ref().map_or("-", |platform| platform.value.raw());
        writeln!(text, "{} FROM {} {name} {platform}", stage.at, stage.from.value.raw()).unwrap();
        for instruction in &stage.instructions {
            writeln!(text, "{} {}", instruction.at, compact(&instruction.value)).unwrap();
        }
    }
    for warning in lint::lint(dockerfile) {
        writeln!(text, "{} {}: {}", warning.problem.at, warning.rule, warning.problem.sentence()).unwrap();
    }
    text
}

/// The debug form without the noise of positions and wrappers.
fn compact(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    while let Some(start) = text.find(", at: Position { ") {
        let end = text[start..].find('}').unwrap() + start + 1;
        text.replace_range(start..end, "");
    }
    text.replace("Located { value: ", "{").replace("Word(\"", "(\"")
}

#[test]
fn another_parser_reads_the_same_instructions() {
    let differs = |(name, text): &(String, String)| oracle(text).as_ref() != Ok(&names(&read(name, text)));
    let different: Vec<String> = corpus().into_iter().filter(differs).map(|(name, _)| name).collect();
    assert_eq!(different, NOT_FOR_THE_ORACLE.map(|(name, _)| name));
}

/// What the other parser reads.
fn oracle(text: &str) -> Result<Vec<String>, String> {
    let dockerfile = parse_dockerfile::parse(text).map_err(|error| error.to_string())?;
    let name = |instruction: &parse_dockerfile::Instruction<'_>| {
        format!("{instruction:?}").split('(').next().unwrap_or_default().to_uppercase()
    };
    Ok(dockerfile.instructions.iter().map(name).collect())
}

fn names(dockerfile: &Dockerfile) -> Vec<String> {
    let mut names = Vec::new();
    let mut last = None;
    for argument in &dockerfile.arguments {
        // Several in a line are one instruction.
        if last.replace(argument.at.line) != Some(argument.at.line) {
            names.push("ARG".to_owned());
        }
    }
    for stage in &dockerfile.stages {
        names.push("FROM".to_owned());
        names.extend(stage.instructions.iter().map(|instruction| Instruction::name(&instruction.value).to_owned()));
    }
    names
}
