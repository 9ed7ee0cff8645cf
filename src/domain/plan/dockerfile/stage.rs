//! What the instructions of a stage do, one after the other: to the container that it runs in, and to the image that it
//! would become.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    dockerfile::{
        Instruction, Located, Position, Problem, Word,
        ast::{CommandLine, Program, RunInstruction, RunNetwork, RunSecurity},
        parse,
    },
    image::{ImageConfig, RuntimeConfig},
    plan::SOURCE_DATE_EPOCH,
    recipe::{CopyItem, RunMount, Step, TextFile},
    value::{ImagePath, PathError, Reference},
};

use super::{
    OpenDockerfile,
    graph::{self, From, Origin},
    scope::Scope,
};

/// Bytes that all words of a Dockerfile may have when they are expanded, the variables of every RUN counted anew, and what a
/// stage begins with for each that begins with it.
const MOST_BYTES: usize = 8 << 20;
/// What a file to copy counts for: plans are compared file by file.
pub(super) const COPY_BYTES: usize = 1 << 10;
/// Ports, volumes or variables of one image.
const MOST_NAMES: usize = 2000;

/// A stage with all its instructions gone through.
#[derive(Debug, Clone)]
pub(super) struct Built {
    /// What its container is started from; none for scratch.
    pub image: Option<Reference>,
    /// What happens in it.
    pub actions: Vec<Located<Action>>,
    /// What it would be as an image, on top of `image`.
    pub config: ImageConfig,
    pub scope: Scope,
    /// Where the next instruction is.
    pub directory: ImagePath,
    /// Whom the next RUN runs as; empty for root.
    user: String,
    pub shell: Vec<String>,
    /// The spec's secrets that it uses, by their place in its list.
    pub secrets: BTreeSet<usize>,
    /// Its RUNs that do without a secret which nobody has given.
    pub without_secret: Vec<Problem>,
    /// Names of the caches that it mounts.
    pub caches: Vec<String>,
    /// Directories that are known to be there.
    pub known: BTreeSet<ImagePath>,
    /// What it takes of [`MOST_BYTES`].
    bytes: usize,
}

/// One thing that happens in a stage's container.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Run {
        step: Step,
        text: String,
    },
    MakeDirectory {
        path: ImagePath,
        user: Option<String>,
    },
    /// Files, and whom they belong to where that is a name of the container.
    Write(Vec<TextFile>, Option<String>),
    Copy {
        origin: Origin,
        items: Vec<CopyItem>,
        owner: Option<String>,
        /// Whether it is there for the next RUN alone.
        transient: bool,
    },
}

/// What going through one stage needs.
pub(super) struct Work<'a> {
    pub open: &'a OpenDockerfile<'a>,
    pub index: usize,
    pub built: Built,
    /// Whether this very stage has a CMD.
    pub has_cmd: bool,
    /// Bytes that expanded words, and variables of RUNs, may still take.
    left: usize,
    pub problems: &'a mut Vec<Problem>,
}

/// All needed stages, by their number.
pub(super) fn build(
    open: &OpenDockerfile<'_>,
    configs: &BTreeMap<Reference, RuntimeConfig>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<usize, Built> {
    let mut done: BTreeMap<usize, Built> = BTreeMap::new();
    let mut left = MOST_BYTES;
    for (index, stage) in open.dockerfile.stages.iter().enumerate() {
        let Some(Some(from)) = open.graph.from.get(index) else { continue };
        let nothing = RuntimeConfig::default();
        let (built, triggers) = match from {
            From::Scratch => (Built::on(None, &nothing), &[][..]),
            From::Image(reference) => {
                let config = configs.get(reference).unwrap_or(&nothing);
                (Built::on(Some(reference.clone()), config), &config.on_build[..])
            }
            From::Stage(earlier) => match done.get(earlier) {
                Some(parent) => {
                    let scope = parent.scope.inherited();
                    (Built { scope, without_secret: Vec::new(), ..parent.clone() }, &[][..])
                }
                None => continue,
            },
        };
        // Triggers of an earlier stage run as those of an image would.
        let inherited = built.config.on_build.clone().unwrap_or_default();
        let (inherited_bytes, before) = (built.bytes, left);
        let mut work = Work { open, index, built, has_cmd: false, left, problems: &mut *problems };
        work.spend(stage.at, inherited_bytes);
        work.built.config.on_build = Some(Vec::new());
        for trigger in triggers.iter().chain(&inherited) {
            work.trigger(trigger, stage.at);
        }
        for instruction in &stage.instructions {
            work.instruction(instruction);
        }
        left = work.left;
        work.built.bytes = before - left;
        done.insert(index, work.built);
    }
    done
}

impl Built {
    fn on(image: Option<Reference>, config: &RuntimeConfig) -> Self {
        let scratch = image.is_none();
        let directory: ImagePath = config.working_dir.parse().unwrap_or_else(|_| ImagePath::root());
        let mut built = Self {
            image,
            actions: Vec::new(),
            // BuildKit gives images from scratch a working directory.
            config: ImageConfig { working_dir: scratch.then(|| "/".to_owned()), ..ImageConfig::default() },
            scope: Scope::of_image(&config.env),
            known: BTreeSet::new(),
            directory: directory.clone(),
            user: config.user.clone(),
            secrets: BTreeSet::new(),
            without_secret: Vec::new(),
            caches: Vec::new(),
            bytes: 0,
            shell: config.shell.clone().unwrap_or_else(|| ["/bin/sh", "-c"].map(str::to_owned).to_vec()),
        };
        built.know(Some(directory));
        built
    }

    /// A directory is known to be there, and so are those above it.
    pub(super) fn know(&mut self, mut directory: Option<ImagePath>) {
        while let Some(path) = directory {
            directory = path.parent();
            self.known.insert(path);
        }
    }

    /// The user of a step; none for root, whom containers start as.
    fn step_user(&self) -> Option<String> {
        let root = matches!(self.user.as_str(), "" | "0" | "root" | "0:0" | "root:root");
        (!root).then(|| self.user.clone())
    }

    pub(super) fn command(&self, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(command) => command.clone(),
            CommandLine::Shell(text) => self.shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }

    pub(super) fn action(&mut self, at: Position, action: Action) {
        self.actions.push(Located::new(action, at));
    }
}

impl Work<'_> {
    pub(super) fn problem(&mut self, at: Position, text: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(at, text, message));
    }

    pub(super) fn word(&mut self, word: &Located<Word>) -> Option<String> {
        if self.left == 0 {
            return None;
        }
        let text = self.built.scope.word(&self.open.globals, word, self.problems)?;
        self.spend(word.at, text.len() + 1).then_some(text)
    }

    /// Whether so many bytes more are within bounds; said once when they are not.
    pub(super) fn spend(&mut self, at: Position, bytes: usize) -> bool {
        let within = bytes < self.left;
        if !within && self.left > 0 {
            let message = format!(
                "with its variables replaced, and each stage written out that others start from, the Dockerfile is over {} MiB",
                MOST_BYTES >> 20
            );
            self.problem(at, "", message);
        }
        self.left = self.left.saturating_sub(bytes);
        within
    }

    /// Whether a list of the image has room for one more.
    pub(super) fn has_room(&mut self, at: Position, count: usize) -> bool {
        if count == MOST_NAMES {
            self.problem(at, "", format!("more than {MOST_NAMES} ports, volumes or variables are not possible"));
        }
        count < MOST_NAMES
    }

    /// An ONBUILD of what the stage is built from.
    fn trigger(&mut self, text: &str, at: Position) {
        let Ok(parsed) = parse(format!("FROM scratch\n{text}\n")) else {
            return self.problem(
                at,
                "FROM",
                format!("the base image has an ONBUILD trigger that is not legal: {text}"),
            );
        };
        for instruction in parsed.stages.iter().flat_map(|stage| &stage.instructions) {
            if !graph::origins_of(&instruction.value).is_empty() {
                let message =
                    format!("the base image has an ONBUILD trigger with --from, which is not supported: {text}");
                return self.problem(at, "FROM", message);
            }
            // What is wrong in it is shown where the image is named: the trigger itself is in no file.
            self.instruction(&Located::new(instruction.value.clone(), at));
        }
    }

    fn instruction(&mut self, instruction: &Located<Instruction>) {
        let at = instruction.at;
        match &instruction.value {
            Instruction::Arg(arguments) => {
                for argument in arguments {
                    self.built.scope.declare(&self.open.globals, argument, self.problems);
                }
            }
            Instruction::Env(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|pair| (self.word(&pair.name), self.word(&pair.value))).collect();
                for (name, value) in pairs.into_iter().filter_map(|(name, value)| name.zip(value)) {
                    if self.has_room(at, self.built.scope.env.len()) {
                        self.built.scope.set(&name, &value);
                    }
                }
            }
            Instruction::Label(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|pair| (self.word(&pair.name), self.word(&pair.value))).collect();
                self.built.config.labels.extend(pairs.into_iter().filter_map(|(name, value)| name.zip(value)));
            }
            Instruction::Run(run) => self.run(at, run),
            Instruction::Copy(copy) => self.copy(at, copy),
            Instruction::Add(add) => self.add(at, add),
            Instruction::Workdir(word) => self.workdir(at, word),
            Instruction::User(word) => {
                let user = self.word(word).unwrap_or_default();
                self.built.config.user = Some(user.clone());
                self.built.user = user;
            }
            Instruction::OnBuild(trigger) => {
                self.built.config.on_build.get_or_insert_default().push(trigger.text.clone());
            }
            _ => self.image_only(&instruction.value),
        }
    }

    fn workdir(&mut self, at: Position, word: &Located<Word>) {
        let Some(text) = self.word(word) else { return };
        let Some(path) = self.path(word, &text) else { return };
        self.built.config.working_dir = Some(path.to_string());
        self.built.know(Some(path.clone()));
        self.built.directory = path.clone();
        let user = self.built.step_user();
        self.built.action(at, Action::MakeDirectory { path, user });
    }

    /// A path of the container, relative ones from where the stage is.
    pub(super) fn path(&mut self, word: &Located<Word>, text: &str) -> Option<ImagePath> {
        let path = self.absolute(text);
        path.map_err(|error| self.problem(word.at, word.value.raw(), error.to_string())).ok()
    }

    pub(super) fn absolute(&self, text: &str) -> Result<ImagePath, PathError> {
        let path = if text.starts_with('/') { text.to_owned() } else { format!("{}/{text}", self.built.directory) };
        rooted(&path).parse()
    }

    fn run(&mut self, at: Position, run: &RunInstruction) {
        if let Some(network) = run.network.as_ref().filter(|network| network.value == RunNetwork::Host) {
            self.problem(
                network.at,
                "--network",
                "the node's network is not given to builds: leave --network=host out",
            );
        }
        if let Some(security) = run.security.as_ref().filter(|security| security.value == RunSecurity::Insecure) {
            self.problem(security.at, "--security", "builds get no privilege: leave --security=insecure out");
        }
        if let Some(device) = run.devices.first() {
            self.problem(device.at, "--device", "builds get no devices: leave --device out");
        }
        let mounts: Vec<_> = run.mounts.iter().filter_map(|mount| self.mount(at, mount)).collect();
        let offline = run.network.as_ref().is_some_and(|network| network.value == RunNetwork::None);
        let user = self.built.step_user();
        let env = self.variables();
        if !self.spend(at, env.iter().map(|(name, value)| name.len() + value.len()).sum()) {
            return;
        }
        let (command, script) = self.run_command(run);
        let mounts = mounts.into_iter().chain(script).collect();
        let text = command.last().cloned().unwrap_or_default();
        let step = Step::Run { command, env, working_dir: self.built.directory.clone(), user, mounts, offline };
        self.built.action(at, Action::Run { step, text });
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([(SOURCE_DATE_EPOCH.0.to_owned(), SOURCE_DATE_EPOCH.1.to_owned())]);
        env.extend(self.built.scope.of_run(&self.open.globals));
        env
    }

    /// The command, with the mount of a here-document that is a program.
    fn run_command(&self, run: &RunInstruction) -> (Vec<String>, Option<RunMount>) {
        match run.program() {
            Program::Shell(text) => (self.built.command(&CommandLine::Shell(text)), None),
            Program::Exec(words) => (words, None),
            Program::Script { name, content } => {
                let path = format!("/tmp/.heredoc-{name}");
                let mount = path.parse().ok().map(|path| RunMount::Script { path, content });
                (vec![path], mount)
            }
        }
    }
}

/// An absolute path whose `..` stop at the root, as in a file system.
pub(super) fn rooted(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}
