//! Rules about what RUN executes: package managers and the order of copies and installs.

use super::{
    super::{
        ast::{CopyFiles, CopySource, Instruction, RunInstruction, Stage, Word},
        problem::{Located, Position},
    },
    Facts, Found, command_text,
};

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    for (index, stage) in facts.stages() {
        install_order(stage, found);
        for instruction in &stage.instructions {
            if let Instruction::Run(run) = &instruction.value {
                apt(run, facts.last.contains(&index), instruction.at, found);
            }
        }
    }
}

/// Commands that fetch dependencies, and the files that say which.
const INSTALLS: [(&str, &str); 21] = [
    ("npm ci", "package.json and package-lock.json"),
    ("npm install", "package.json and package-lock.json"),
    ("npm i", "package.json and package-lock.json"),
    ("pnpm install", "package.json and pnpm-lock.yaml"),
    ("pnpm i", "package.json and pnpm-lock.yaml"),
    ("yarn install", "package.json and yarn.lock"),
    ("bun install", "package.json and bun.lock"),
    ("pip install -r", "requirements.txt"),
    ("pip3 install -r", "requirements.txt"),
    ("pip install --no-cache-dir -r", "requirements.txt"),
    ("pip3 install --no-cache-dir -r", "requirements.txt"),
    ("poetry install", "pyproject.toml and poetry.lock"),
    ("uv sync", "pyproject.toml and uv.lock"),
    ("go mod download", "go.mod and go.sum"),
    ("mvn dependency:go-offline", "pom.xml"),
    ("mvn -B dependency:go-offline", "pom.xml"),
    ("gradle dependencies", "build.gradle and settings.gradle"),
    ("cargo fetch", "Cargo.toml and Cargo.lock"),
    ("bundle install", "Gemfile and Gemfile.lock"),
    ("composer install", "composer.json and composer.lock"),
    ("dotnet restore", "the project files"),
];

/// Copying everything before dependencies are installed makes each change of a source install them again.
fn install_order(stage: &Stage, found: &mut Found) {
    let mut copied = false;
    for instruction in &stage.instructions {
        match &instruction.value {
            Instruction::Copy(copy) if copy.from.is_none() => copied |= takes_everything(&copy.files),
            Instruction::Add(add) => copied |= takes_everything(&add.files),
            Instruction::Run(run) => {
                let text = text(run);
                let Some((command, manifests)) = INSTALLS.iter().find(|(command, _)| has_command(&text, command))
                else {
                    continue;
                };
                if copied {
                    let message = format!(
                        "every changed source file makes `{command}` run again; COPY {manifests} first, install, then \
                         COPY the rest"
                    );
                    found.add("copy-before-install", run.command.at, command, message);
                }
                // What follows a first install may well repeat it on purpose.
                return;
            }
            _ => {}
        }
    }
}

fn takes_everything(files: &CopyFiles) -> bool {
    let all = |source: &Located<CopySource>| match &source.value {
        CopySource::Path(path) => matches!(path.raw(), "." | "./" | "/" | "*" | "./*"),
        CopySource::Heredoc(_) => false,
    };
    files.sources.iter().any(all)
}

fn text(run: &RunInstruction) -> String {
    command_text(&run.command.value, run.heredocs.iter().map(|heredoc| heredoc.value.text()))
}

/// Whether `command` stands in `text` as words of their own.
fn has_command(text: &str, command: &str) -> bool {
    let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.'));
    text.match_indices(command).any(|(start, _)| {
        let before = text.get(..start).and_then(|text| text.chars().next_back());
        let behind = text.get(start + command.len()..).and_then(|text| text.chars().next());
        outside(before) && outside(behind)
    })
}

fn apt(run: &RunInstruction, in_final_image: bool, at: Position, found: &mut Found) {
    let text = text(run);
    let of = |verb: &str| {
        ["apt-get", "apt"].iter().any(|program| {
            let mut words = text.split([' ', '\n', ';', '&', '|', '(']);
            let mut after = false;
            words.any(|word| {
                // Options may stand between: apt-get -qq -y install.
                let hit = after && word == verb;
                after = word == *program || (after && (word.starts_with('-') || word.is_empty()));
                hit
            })
        })
    };
    let (updates, installs) = (of("update"), of("install") || of("upgrade") || of("dist-upgrade"));
    if updates && !installs {
        let message =
            "its result is cached and goes stale; join it with the install: apt-get update && apt-get install";
        found.add("apt-update-alone", at, "apt-get update", message);
    }
    let cleans = text.contains("/var/lib/apt/lists")
        || run.mounts.iter().any(|mount| {
            mount.value.fields.iter().any(|field| {
                let value = field.value.value.as_ref().map(Word::raw).unwrap_or_default();
                value.starts_with("/var/lib/apt") || value == "/var"
            })
        });
    if updates && installs && in_final_image && !cleans {
        let message = "the package lists stay in the image; end with && rm -rf /var/lib/apt/lists/*";
        found.add("apt-lists-left", at, "apt-get update", message);
    }
}
