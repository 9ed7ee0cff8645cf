//! Programs for Java: whether the class that is started is there, and not for a newer Java than the base's.

use crate::domain::tree::TreePath;

use super::{
    Report,
    index::{Facts, Kind, Node},
    problem::{Problem, Severity},
    program::{Runner, last},
};

/// The version of class files of Java 0, as it were: Java 17 has 61 (Java Virtual Machine Specification, table 4.1-A).
const FIRST: u16 = 44;
/// Options that are followed by a value of their own.
const WITH_VALUE: [&str; 8] = [
    "--add-modules",
    "--module-path",
    "-p",
    "--upgrade-module-path",
    "--add-opens",
    "--add-exports",
    "--add-reads",
    "--source",
];

/// Writes down what keeps `java` from starting its class.
pub(super) fn check(report: &mut Report<'_>, runner: &Runner, program: &TreePath, argv: &[String]) {
    if last(&program.to_string()) != "java" {
        return;
    }
    let Some(started) = started(argv) else { return };
    let found = version(report, program);
    match started {
        Started::Jar(path) => jar(report, runner, &path, found),
        Started::Class(class_path, class) => {
            let version = class_path.split(':').find_map(|part| class_in(report, runner, part, &class));
            if let Some((file, version)) = version {
                too_old(report, &file, version, found);
            }
        }
    }
}

enum Started {
    Jar(String),
    Class(String, String),
}

/// What the command line starts; none where it cannot be told from it.
fn started(argv: &[String]) -> Option<Started> {
    let mut class_path = None;
    let mut words = argv.iter().skip(1).map(String::as_str);
    loop {
        match words.next()? {
            "-jar" => return Some(Started::Jar(words.next()?.to_owned())),
            "-cp" | "-classpath" | "--class-path" => class_path = Some(words.next()?.to_owned()),
            "-m" | "--module" => return None,
            option if WITH_VALUE.contains(&option) => drop(words.next()?),
            // More words in a file.
            file if file.starts_with('@') => return None,
            option if option.starts_with('-') => {}
            // A source file, which is compiled at once.
            source if source.strip_suffix(".java").is_some() => return None,
            class => return Some(Started::Class(class_path?, class.to_owned())),
        }
    }
}

/// Which Java it is, by the file `release` that lies beside its `bin`.
fn version(report: &Report<'_>, program: &TreePath) -> Option<u16> {
    let home = program.parent()?.parent()?;
    let node = report.question.files.get(&home.join(b"release").ok()?)?;
    let Kind::File(Facts::Text(text)) = &node.kind else { return None };
    let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    let mut parts = line.trim_matches('"').split(['.', '-', '+', '_']);
    let first = parts.next()?;
    // Until 8 they began with 1.
    if first == "1" { parts.next()?.parse().ok() } else { first.parse().ok() }
}

fn jar(report: &mut Report<'_>, runner: &Runner, path: &str, found: Option<u16>) {
    let place = match runner.open(report, path) {
        Ok(place) => place,
        Err(None) => return,
        Err(Some(problem)) => return report.add(Severity::Refusal, &runner.absolute(path), problem),
    };
    let shown = place.path.to_string();
    if let Some(problem) = runner.unreadable(place.node) {
        return report.add(Severity::Refusal, &shown, problem);
    }
    match &place.node.kind {
        Kind::File(Facts::Jar(jar)) => match (&jar.main_class, jar.version) {
            (None, _) => report.add(Severity::Refusal, &shown, Problem::NoMainClass),
            (Some(_), Some(version)) => too_old(report, &shown, version, found),
            (Some(_), None) if jar.has_class_path => {}
            (Some(class), None) => {
                report.add(Severity::Refusal, &shown, Problem::ClassMissing { class: class.clone() });
            }
        },
        // A jar may have another ending, or a script in front of it.
        Kind::File(Facts::Unseen | Facts::Script(_)) => {}
        Kind::File(Facts::Data) if shown.strip_suffix(".jar").is_none() => {}
        _ => report.add(Severity::Refusal, &shown, Problem::NotAJar),
    }
}

/// The file that has the class, and the version of it.
fn class_in(report: &Report<'_>, runner: &Runner, part: &str, class: &str) -> Option<(String, u16)> {
    let open = |path: &str| runner.open(report, path).ok().map(|place| (place.path.to_string(), place.node));
    let inside = format!("{part}/{}.class", class.replace('.', "/"));
    match open(&inside) {
        Some((file, Node { kind: Kind::File(Facts::Class(version)), .. })) => Some((file, *version)),
        Some(_) => None,
        None => match open(part)? {
            (file, Node { kind: Kind::File(Facts::Jar(jar)), .. }) if jar.main_class.as_deref() == Some(class) => {
                Some((file, jar.version?))
            }
            _ => None,
        },
    }
}

fn too_old(report: &mut Report<'_>, file: &str, version: u16, found: Option<u16>) {
    let needed = version.saturating_sub(FIRST);
    if let Some(found) = found.filter(|found| needed > *found) {
        report.add(Severity::Refusal, file, Problem::JavaTooOld { needed, found });
    }
}
