//! Rules about what gets into an image: copies, downloads, secrets.

use super::{
    super::{
        ast::{AddInstruction, CopyInstruction, CopySource, Instruction, Word},
        problem::Located,
    },
    Facts, Found,
};

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    for argument in &facts.dockerfile.arguments {
        secret("secret-in-arg", &Located::new(argument.value.name.clone(), argument.at), found);
    }
    let instructions = facts.stages().flat_map(|(_, stage)| &stage.instructions);
    for instruction in instructions {
        match &instruction.value {
            Instruction::Arg(arguments) => {
                for argument in arguments {
                    secret("secret-in-arg", &Located::new(argument.value.name.clone(), argument.at), found);
                }
            }
            Instruction::Env(pairs) => pairs.iter().for_each(|pair| secret("secret-in-env", &pair.name, found)),
            Instruction::Copy(copy) => whole_root(copy, found),
            Instruction::Add(add) => checksum(add, found),
            _ => {}
        }
    }
}

/// Words in variables' names whose values are usually secret.
const SECRET: [&str; 10] =
    ["APIKEY", "CREDENTIAL", "CREDENTIALS", "KEY", "PASSWD", "PASSWORD", "PASSPHRASE", "PWORD", "SECRET", "TOKEN"];
/// Words that say that it is none: a public key, a path, a number.
const HARMLESS: [&str; 9] = ["PUBLIC", "FILE", "PATH", "DIR", "URL", "ID", "NAME", "LENGTH", "SIZE"];

fn secret(rule: &'static str, name: &Located<Word>, found: &mut Found) {
    let upper = name.value.raw().to_uppercase();
    let has = |words: &[&str]| upper.split('_').any(|word| words.contains(&word));
    if !has(&SECRET) || has(&HARMLESS) {
        return;
    }
    let shown = name.value.raw();
    let lower = shown.to_lowercase();
    let message = if rule == "secret-in-env" {
        format!("{shown} would be readable in the image; use RUN --mount=type=secret,id={lower}, or set it at run time")
    } else {
        format!("{shown} would be readable in the image's history; use RUN --mount=type=secret,id={lower}")
    };
    found.add(rule, name.at, shown, message);
}

fn whole_root(copy: &CopyInstruction, found: &mut Found) {
    let Some(from) = &copy.from else { return };
    for source in &copy.files.sources {
        let CopySource::Path(path) = &source.value else { continue };
        if matches!(path.raw(), "/" | "/." | "/*" | "./" | "/./") && copy.files.exclude.is_empty() {
            let message = format!("this copies all of {}, tools included; name the files that are needed", from.value);
            found.add("whole-root-copy", source.at, path.raw(), message);
        }
    }
}

fn checksum(add: &AddInstruction, found: &mut Found) {
    if add.checksum.is_some() {
        return;
    }
    for source in &add.files.sources {
        let CopySource::Path(path) = &source.value else { continue };
        let raw = path.raw();
        let git = raw.starts_with("git@")
            || raw.starts_with("git://")
            || raw.split('#').next().is_some_and(|url| url.rsplit('.').next() == Some("git"));
        let remote = raw.starts_with("http://") || raw.starts_with("https://");
        let commit = raw.rsplit('#').next().is_some_and(|part| {
            let reference = part.split(':').next().unwrap_or_default();
            reference.len() >= 40 && reference.chars().all(|c| c.is_ascii_hexdigit())
        });
        if git && !commit {
            let message = "a branch or tag can move; name the commit behind `#` or add --checksum=COMMIT";
            found.add("add-without-checksum", source.at, raw, message);
        } else if remote && !git {
            let message = "nothing says which file this is; add --checksum=sha256:…";
            found.add("add-without-checksum", source.at, raw, message);
        }
    }
}
