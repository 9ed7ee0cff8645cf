//! COPY and ADD: flags, sources, here-documents, destination.

use std::collections::BTreeMap;

use super::{
    super::{
        ast::{AddInstruction, CopyFiles, CopyInstruction, CopySource, Heredoc, Instruction, Word},
        expand::expand,
        problem::{Located, Problem},
    },
    flags::{Flags, Kind, Unquoted},
    instruction::{Context, Statement, list},
    words,
};

const COPY_FLAGS: [(&str, Kind); 6] = [
    ("from", Kind::Value),
    ("chown", Kind::Value),
    ("chmod", Kind::Value),
    ("parents", Kind::Switch),
    ("link", Kind::Switch),
    ("exclude", Kind::Values),
];

const ADD_FLAGS: [(&str, Kind); 7] = [
    ("chown", Kind::Value),
    ("chmod", Kind::Value),
    ("link", Kind::Switch),
    ("exclude", Kind::Values),
    ("checksum", Kind::Value),
    ("keep-git-dir", Kind::Switch),
    ("unpack", Kind::Switch),
];

pub(super) fn copy(
    context: &mut Context,
    statement: &Statement<'_>,
    heredocs: &[Located<Heredoc>],
) -> Result<Instruction, Problem> {
    let flags = context.flags(statement, &COPY_FLAGS, "COPY");
    let from = flags.value("from").map(|value| literal(value, context.escape)).transpose()?;
    let files = files(statement, &flags, heredocs, "COPY")?;
    Ok(Instruction::Copy(CopyInstruction { from, files }))
}

pub(super) fn add(
    context: &mut Context,
    statement: &Statement<'_>,
    heredocs: &[Located<Heredoc>],
) -> Result<Instruction, Problem> {
    let flags = context.flags(statement, &ADD_FLAGS, "ADD");
    Ok(Instruction::Add(AddInstruction {
        checksum: flags.word("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        files: files(statement, &flags, heredocs, "ADD")?,
    }))
}

/// `--from` is needed before variables have values: it says which stages a stage depends on.
fn literal(value: &Unquoted, escape: char) -> Result<Located<String>, Problem> {
    let expanded = expand(&Word::new(&*value.text), escape, &|_| None);
    if expanded.is_ok_and(|expanded| expanded.text == value.text) {
        return Ok(value.located());
    }
    let message = "variables are not filled in here; give the image a stage: FROM … AS NAME, then --from=NAME";
    Err(value.problem(message))
}

fn files(
    statement: &Statement<'_>,
    flags: &Flags,
    heredocs: &[Located<Heredoc>],
    name: &str,
) -> Result<CopyFiles, Problem> {
    let mut words = list(statement.arguments)?;
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
        let offending = if statement.arguments.is_empty() { statement.keyword } else { statement.arguments };
        offending.problem(format!("{name} needs at least a source and a destination"))
    })?;
    if words::heredoc(destination.value.raw()).is_some() {
        let message = format!("{name}'s destination, its last word, cannot be a here-document");
        return Err(Problem::new(destination.at, destination.value.raw(), message));
    }
    let contents: BTreeMap<&str, &Heredoc> =
        heredocs.iter().map(|heredoc| (&*heredoc.value.name, &heredoc.value)).collect();
    let source = |word: Located<Word>| {
        word.map(|word| match words::heredoc(word.raw()).and_then(|announced| contents.get(&*announced.name)) {
            Some(heredoc) => CopySource::Heredoc(Heredoc::clone(heredoc)),
            None => CopySource::Path(word),
        })
    };
    Ok(CopyFiles {
        owner: flags.word("chown"),
        mode: flags.word("chmod"),
        parents: flags.switch("parents").unwrap_or(false),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.values("exclude").map(Unquoted::located).collect(),
        sources: words.into_iter().map(source).collect(),
        destination,
    })
}
