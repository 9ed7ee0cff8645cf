//! RUN: mounts, network, security, devices, command line and here-documents.

use super::{
    super::{
        ast::{CommandLine, Heredoc, Instruction, RunInstruction, RunNetwork, RunSecurity, Word},
        expand::expand,
        mount::{KEYS, MountField, MountFlag},
        problem::{Located, Problem},
    },
    flags::{Kind, Unquoted},
    instruction::{Context, Statement},
    suggest::closest,
};

const FLAGS: [(&str, Kind); 4] =
    [("mount", Kind::Values), ("network", Kind::Value), ("security", Kind::Value), ("device", Kind::Values)];

pub(super) fn parse(
    context: &mut Context,
    statement: &Statement<'_>,
    heredocs: Vec<Located<Heredoc>>,
) -> Result<Instruction, Problem> {
    let flags = context.flags(statement, &FLAGS, "RUN");
    let mut mounts = Vec::new();
    for value in flags.values("mount") {
        match mount(value, context.escape) {
            Ok(mount) => mounts.push(Located::new(mount, value.place(0))),
            Err(problem) => context.problems.push(problem),
        }
    }
    let networks = [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];
    let securities = [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];
    let network = flags.value("network").map(|value| one_of(value, "--network", &networks)).transpose()?;
    let security = flags.value("security").map(|value| one_of(value, "--security", &securities)).transpose()?;
    let devices = flags.values("device").map(Unquoted::located).collect();
    let command = context.command(statement.arguments)?;
    match &command.value {
        CommandLine::Shell(text) if text.is_empty() => Err(statement.keyword.problem("RUN needs a command")),
        CommandLine::Exec(words) if words.is_empty() => Err(statement.arguments.problem("RUN needs a command")),
        _ => Ok(Instruction::Run(RunInstruction { mounts, network, security, devices, command, heredocs })),
    }
}

fn one_of<T: Copy>(value: &Unquoted, flag: &str, known: &[(&str, T)]) -> Result<Located<T>, Problem> {
    let found = known.iter().find(|(name, _)| *name == value.text);
    found.map(|(_, known)| Located::new(*known, value.place(0))).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!("{flag} is one of {}, found `{}`", names.join(", "), value.text);
        value.problem(message).suggesting(closest(&value.text, names))
    })
}

/// Fields between commas. Their keys are checked here, their values too unless variables are to be filled in first.
fn mount(value: &Unquoted, escape: char) -> Result<MountFlag, Problem> {
    let mut fields = Vec::new();
    for field in separated(value)? {
        let (name, text) = match field.text.split_once('=') {
            Some((name, _)) => (name, Some(field.from(name.len() + 1).text)),
            None => (&*field.text, None),
        };
        let key = name.to_ascii_lowercase();
        if !KEYS.contains(&&*key) {
            let message = format!("a mount has no key `{name}`");
            return Err(field.problem(message).suggesting(closest(&key, KEYS)));
        }
        if text.is_none() && !matches!(&*key, "readonly" | "ro" | "readwrite" | "rw" | "required") {
            return Err(field.problem(format!("a mount's {key} needs a value: {key}=VALUE")));
        }
        if key == "from" && text.as_ref().is_some_and(|text| text.trim_end_matches('$').contains('$')) {
            let message = "variables are not filled in here; give the image a stage: FROM … AS NAME, then from=NAME";
            return Err(field.problem(message));
        }
        fields.push(Located::new(MountField { key, value: text.map(Word::new) }, field.place(0)));
    }
    let flag = MountFlag { fields };
    let variable =
        |field: &Located<MountField>| field.value.value.as_ref().is_some_and(|word| word.raw().contains('$'));
    if !flag.fields.iter().any(variable) {
        flag.resolve(|word| {
            let expanded = expand(&word.value, escape, &|_| None);
            expanded.map(|expanded| expanded.text).map_err(|e| Problem::new(word.at, word.value.raw(), e.to_string()))
        })?;
    }
    Ok(flag)
}

/// The fields of a line of comma separated values: those with commas stand in double quotes, which are doubled within.
fn separated(value: &Unquoted) -> Result<Vec<Unquoted>, Problem> {
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let rest = value.text.get(start..).unwrap_or_default();
        let (field, end) = if rest.starts_with('"') {
            quoted_field(value, start)?
        } else {
            let end = start + rest.find(',').unwrap_or(rest.len());
            (value.slice(start, end), end)
        };
        if field.text.contains('"') && !rest.starts_with('"') {
            return Err(field.problem("a quote stands within a mount's field; quote the whole field"));
        }
        fields.push(field);
        if end >= value.text.len() {
            return Ok(fields);
        }
        start = end + 1;
    }
}

/// The field in quotes that begins at `start`, and where the comma behind it is.
fn quoted_field(value: &Unquoted, start: usize) -> Result<(Unquoted, usize), Problem> {
    let mut field = value.slice(start + 1, start + 1);
    let mut open = start + 1;
    loop {
        let Some(length) = value.text.get(open..).and_then(|text| text.find('"')) else {
            return Err(field.problem("the quote in this mount is not closed"));
        };
        let close = open + length;
        field.append(&value.slice(open, close));
        match value.text.get(close + 1..).and_then(|text| text.chars().next()) {
            Some('"') => field.append(&value.slice(close, close + 1)),
            None | Some(',') => return Ok((field, close + 1)),
            Some(_) => return Err(field.problem("something follows the closing quote of this mount's field")),
        }
        open = close + 2;
    }
}
