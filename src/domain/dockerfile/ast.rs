//! What a Dockerfile says: stages and typed instructions. Words are still as written; their variables are expanded
//! later, with the scope that holds at that point.

use std::time::Duration;

use super::{
    mount::MountFlag,
    parse::announces_heredoc,
    problem::{Located, Position, Warning},
};

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The character that escapes others and continues lines: `\` or a backtick.
    pub escape: char,
    /// The `syntax` directive: which frontend the file was written for.
    pub syntax: Option<Located<String>>,
    /// The `check` directive: settings of BuildKit's own linter.
    pub check: Option<Located<String>>,
    /// ARGs before the first FROM: the only variables that FROM lines see, beside the platform's.
    pub arguments: Vec<Located<Argument>>,
    /// In the order of the file; never empty.
    pub stages: Vec<Stage>,
    /// What the parser accepted as BuildKit does although it is doubtful or deprecated.
    pub warnings: Vec<Warning>,
}

/// One FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `AS name`, in lower case: stage names do not depend on case.
    pub name: Option<Located<String>>,
    /// An image, an earlier stage's name or `scratch`. Expanded with the global arguments alone. BuildKit compares names
    /// here as they are, so that `FROM Build` is an image; names of images have no capitals, so it is never a valid one.
    pub from: Located<Word>,
    /// `--platform`. Expanded as `from` is.
    pub platform: Option<Located<Word>>,
    /// Where FROM stands.
    pub at: Position,
    /// In the order of the file.
    pub instructions: Vec<Located<Instruction>>,
}

/// A text with its quotes, escapes and `$` still in it; [`super::expand`] resolves them. For a flag's value the parser
/// has already removed one level of quotes and for an exec form the JSON, as BuildKit does before it expands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(String);

impl Word {
    /// The word as written.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The text before expansion.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

/// One instruction. Positions of the parts are those of the offending word or flag, wherever the line was broken.
///
/// Which parts are expanded, and how (BuildKit's `SupportsSingleWordExpansion` and `dispatch*` functions): every
/// [`Word`] gives one string ([`super::expand`]'s `word`), but those of EXPOSE are split into several (`words`).
/// Command lines of RUN, CMD, ENTRYPOINT, HEALTHCHECK and SHELL are never expanded: the container's shell does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Declares build arguments; names and defaults are expanded.
    Arg(Vec<Located<Argument>>),
    /// Sets variables of the following instructions and of the image. Names and values are expanded, all of one
    /// instruction with the scope before it: `ENV a=1 b=$a` does not see its own `a`.
    Env(Vec<Pair>),
    /// Sets labels of the image; expanded as ENV.
    Label(Vec<Pair>),
    /// Runs a command; only the values in mounts are expanded.
    Run(RunInstruction),
    /// Copies files; owner, mode, sources and destination are expanded, here-documents by
    /// [`super::expand::content`].
    Copy(CopyInstruction),
    /// Copies files, archives, URLs and Git repositories; expanded as COPY.
    Add(AddInstruction),
    /// The following instructions' directory, relative to the one before; expanded.
    Workdir(Located<Word>),
    /// The following instructions' user and the image's; expanded.
    User(Located<Word>),
    /// The image's default arguments or command.
    Cmd(Located<CommandLine>),
    /// The image's program.
    Entrypoint(Located<CommandLine>),
    /// The shell of the following shell forms; never empty.
    Shell(Located<Vec<String>>),
    /// Ports that the image listens on; each word is expanded and split: it may become several ports.
    Expose(Vec<Located<Word>>),
    /// Directories that are volumes; expanded.
    Volume(Vec<Located<Word>>),
    /// The signal that ends the container; expanded.
    StopSignal(Located<Word>),
    /// How the container's health is found out.
    Healthcheck(Located<Healthcheck>),
    /// Run when another image is built FROM this one.
    OnBuild(OnBuild),
    /// The author: deprecated, not expanded.
    Maintainer(Located<String>),
}

impl Instruction {
    /// The instruction's name as Dockerfiles usually write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run(_) => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Shell(_) => "SHELL",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::OnBuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }

    /// Every word that is expanded, with its place; values of mounts and ONBUILD's inner instruction excepted.
    pub fn words(&self) -> Vec<Located<&Word>> {
        match self {
            Self::Arg(arguments) => arguments.iter().flat_map(argument_words).collect(),
            Self::Env(pairs) | Self::Label(pairs) => {
                pairs.iter().flat_map(|pair| [located(&pair.name), located(&pair.value)]).collect()
            }
            Self::Copy(copy) => copy.files.words(),
            Self::Add(add) => add.checksum.iter().map(located).chain(add.files.words()).collect(),
            Self::Workdir(word) | Self::User(word) | Self::StopSignal(word) => vec![located(word)],
            Self::Expose(words) | Self::Volume(words) => words.iter().map(located).collect(),
            _ => Vec::new(),
        }
    }
}

fn argument_words(argument: &Located<Argument>) -> impl Iterator<Item = Located<&Word>> {
    let Argument { name, default } = &argument.value;
    [name].into_iter().chain(default).map(|word| Located::new(word, argument.at))
}

fn located(word: &Located<Word>) -> Located<&Word> {
    Located::new(&word.value, word.at)
}

/// `NAME` or `NAME=default` of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Before the `=`.
    pub name: Word,
    /// Behind it; none leaves the variable undefined unless the caller or the global scope has a value.
    pub default: Option<Word>,
}

/// `name=value` of an ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the `=` or, in the old form, the first blank.
    pub name: Located<Word>,
    /// Behind it; in the old form (`ENV name rest of line`) it has blanks.
    pub value: Located<Word>,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Behind SHELL, as one argument.
    Shell(String),
    /// As it is; may be empty (`CMD []`).
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstruction {
    /// `--mount`s, in order.
    pub mounts: Vec<Located<MountFlag>>,
    /// `--network`; none is the default network.
    pub network: Option<Located<RunNetwork>>,
    /// `--security`; none is the sandbox.
    pub security: Option<Located<RunSecurity>>,
    /// `--device`s as written.
    pub devices: Vec<Located<String>>,
    /// What runs; with here-documents in it the `<<NAME` words are still in the text.
    pub command: Located<CommandLine>,
    /// The texts of the command's here-documents, in order. Always empty for an exec form.
    pub heredocs: Vec<Located<Heredoc>>,
}

/// What a RUN starts, its here-documents considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Behind SHELL, as one argument.
    Shell(String),
    /// As it is.
    Exec(Vec<String>),
    /// A file of its own, executed: a single here-document that begins with `#!`.
    Script {
        /// The here-document's name; BuildKit puts the file into `/dev/pipes`, mode 0755, for the time of the RUN.
        name: String,
        /// What the file holds.
        content: String,
    },
}

impl RunInstruction {
    /// What is started: a here-document that is the whole command is a script by itself, any other is left to the shell,
    /// which gets it behind the command as in the file (BuildKit's dispatchRun).
    pub fn program(&self) -> Program {
        match (&self.command.value, &*self.heredocs) {
            (CommandLine::Exec(words), _) => Program::Exec(words.clone()),
            (CommandLine::Shell(text), [heredoc]) if announces_heredoc(text) => {
                let content = heredoc.value.text();
                if content.starts_with("#!") {
                    return Program::Script { name: heredoc.value.name.clone(), content };
                }
                Program::Shell(content)
            }
            (CommandLine::Shell(text), heredocs) => {
                let mut text = text.clone();
                for Located { value: heredoc, .. } in heredocs {
                    text.extend(["\n", &heredoc.content, &heredoc.name]);
                }
                Program::Shell(text)
            }
        }
    }
}

/// Which network a RUN has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The builder's usual one.
    Default,
    /// None but loopback.
    None,
    /// The host's own.
    Host,
}

/// How a RUN is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSecurity {
    /// As every container.
    Sandbox,
    /// Not at all.
    Insecure,
}

/// COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyInstruction {
    /// `--from`: a stage's name or index, or an image; none is the build context. BuildKit refuses variables in it,
    /// and so does the parser.
    pub from: Option<Located<String>>,
    /// What COPY and ADD share.
    pub files: CopyFiles,
}

/// ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddInstruction {
    /// `--checksum` of a remote source.
    pub checksum: Option<Located<Word>>,
    /// `--keep-git-dir`; none is not said.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; none unpacks local archives and leaves remote ones.
    pub unpack: Option<bool>,
    /// What COPY and ADD share.
    pub files: CopyFiles,
}

/// What COPY and ADD have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFiles {
    /// `--chown`: `user[:group]`, names or numbers.
    pub owner: Option<Located<Word>>,
    /// `--chmod`: octal or symbolic.
    pub mode: Option<Located<Word>>,
    /// `--parents`: keep the sources' directories.
    pub parents: bool,
    /// `--link`: a layer of its own that does not look at what is below it.
    pub link: bool,
    /// `--exclude` patterns; BuildKit fills in no variables there.
    pub exclude: Vec<Located<String>>,
    /// At least one.
    pub sources: Vec<Located<CopySource>>,
    /// Never a here-document.
    pub destination: Located<Word>,
}

impl CopyFiles {
    fn words(&self) -> Vec<Located<&Word>> {
        let flags = self.owner.iter().chain(&self.mode).map(located);
        let sources = self.sources.iter().filter_map(|source| match &source.value {
            CopySource::Path(word) => Some(Located::new(word, source.at)),
            CopySource::Heredoc(_) => None,
        });
        flags.chain(sources).chain([located(&self.destination)]).collect()
    }
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern or, for ADD, an address.
    Path(Word),
    /// A file with this content, called as the here-document is.
    Heredoc(Heredoc),
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The lines between, each with its line end, as in the file.
    pub content: String,
    /// Whether variables in it are expanded: the delimiter was not quoted. In a RUN the shell does that.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines are removed; see [`Heredoc::text`].
    pub strip_tabs: bool,
}

impl Heredoc {
    /// The content with leading tabs removed if `<<-` asks for it.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// The base image's check is dropped.
    None,
    /// A check by a command.
    Check(Check),
}

/// A health check's options and command. Times are zero or at least a millisecond; zero and none mean the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--start-period`.
    pub start_period: Option<Duration>,
    /// `--start-interval`.
    pub start_interval: Option<Duration>,
    /// `--retries`.
    pub retries: Option<u32>,
    /// What is executed; never empty.
    pub command: CommandLine,
}

/// ONBUILD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The inner instruction as an image's config holds it, here-documents included.
    pub text: String,
    /// The same, parsed: never FROM, MAINTAINER or ONBUILD.
    pub instruction: Box<Located<Instruction>>,
}
