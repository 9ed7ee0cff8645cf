//! `lint`: what is wrong or doubtful in Dockerfiles, one line each.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    cli::{LintArgs, LintFormat},
    domain::{
        dockerfile::{Problem, lint, parse, parse::MAX_BYTES},
        plan::refusals,
    },
};

/// What syntax errors are called where a rule's name stands.
const SYNTAX: &str = "syntax";
/// What `build` does not take.
const REFUSED: &str = "refused";
/// What it takes with `allowLargeBase` alone.
const NOT_MINIMAL: &str = "not-minimal";

/// One finding, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    line: u32,
    column: u32,
    severity: Severity,
    rule: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// Prints all findings; the exit code is 1 if there is an error, or with `--strict` anything at all.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &LintArgs) -> anyhow::Result<u8> {
    let mut findings = Vec::new();
    for file in &args.files {
        findings.extend(look_at(file)?);
    }
    match args.format {
        LintFormat::Text => findings.iter().for_each(|finding| println!("{}", finding.line())),
        LintFormat::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
    }
    let fails = |finding: &Finding| args.strict || finding.severity == Severity::Error;
    Ok(u8::from(findings.iter().any(fails)))
}

fn look_at(file: &Path) -> anyhow::Result<Vec<Finding>> {
    let name = file.display().to_string();
    let text = read(file).with_context(|| format!("failed to read {name}"))?;
    let finding = |severity, rule, problem: Problem| Finding {
        file: name.clone(),
        line: problem.at.line,
        column: problem.at.column,
        severity,
        rule,
        message: problem.message,
        suggestion: problem.suggestion,
        text: problem.text,
    };
    Ok(match parse(&text) {
        Err(problems) => problems.into_iter().map(|problem| finding(Severity::Error, SYNTAX, problem)).collect(),
        Ok(dockerfile) => {
            let warnings = lint::lint(&dockerfile).into_iter();
            let mut findings: Vec<_> =
                warnings.map(|warning| finding(Severity::Warning, warning.rule, warning.problem)).collect();
            let text = String::from_utf8_lossy(&text);
            let refused = refusals(&text, true);
            let not_minimal = refusals(&text, false).into_iter().filter(|problem| !refused.contains(problem));
            findings.extend(not_minimal.map(|problem| finding(Severity::Warning, NOT_MINIMAL, problem)));
            // An error takes the place of a warning about the same words.
            let at = |finding: &Finding| (finding.line, finding.column);
            let refused: Vec<_> =
                refused.into_iter().map(|problem| finding(Severity::Error, REFUSED, problem)).collect();
            findings.retain(|warning| !refused.iter().any(|error| at(error) == at(warning)));
            findings.extend(refused);
            findings.sort_by_key(|finding| (finding.line, finding.column));
            findings
        }
    })
}

/// The file's bytes, or standard input's for `-`: one more than allowed at most, so that the parser refuses too many.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut text)?;
    } else {
        File::open(file)?.take(limit).read_to_end(&mut text)?;
    }
    Ok(text)
}

impl Finding {
    fn line(&self) -> String {
        let Self { file, line, column, rule, message, .. } = self;
        let meant = self.suggestion.as_ref().map(|suggestion| format!(", did you mean {suggestion}?"));
        format!("{file}:{line}:{column}: {rule}: {message}{}", meant.unwrap_or_default())
    }
}
