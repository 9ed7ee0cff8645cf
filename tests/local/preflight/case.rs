//! What a case is: an image's base, its files, how it starts, and what is expected.

use minimalimage::{
    api::v1alpha1::Preflight,
    domain::{
        image::RuntimeConfig,
        preflight::{Findings, Severity, Start},
    },
};

/// What an image is built upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    Scratch,
    Glibc,
    Cc,
    Shell,
    Musl,
    Java,
    Python,
    Bullseye,
    Trixie,
}

impl Base {
    pub const ALL: [Self; 9] = [
        Self::Scratch,
        Self::Glibc,
        Self::Cc,
        Self::Shell,
        Self::Musl,
        Self::Java,
        Self::Python,
        Self::Bullseye,
        Self::Trixie,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Glibc => "glibc",
            Self::Cc => "cc",
            Self::Shell => "shell",
            Self::Musl => "musl",
            Self::Java => "java",
            Self::Python => "python",
            Self::Bullseye => "bullseye",
            Self::Trixie => "trixie",
        }
    }
}

#[derive(Debug, Clone)]
pub enum Content {
    Program(&'static str),
    Text(String),
    Link(&'static str),
    Directory,
}

#[derive(Debug, Clone)]
pub struct File {
    pub content: Content,
    pub mode: u32,
    pub owner: (u32, u32),
}

/// What the preflight has to say; whether the image starts follows from it.
#[derive(Debug, Clone)]
pub enum Expected {
    Starts,
    Warning(&'static str),
    Refusal(&'static str),
    /// A warning, for a Pod that leaves CAP_DAC_OVERRIDE to its user starts it.
    Capable(&'static str),
}

#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    pub base: Base,
    pub files: Vec<(&'static str, File)>,
    pub entrypoint: &'static [&'static str],
    pub env: Vec<(&'static str, &'static str)>,
    pub working_dir: &'static str,
    pub user: &'static str,
    pub mode: Preflight,
    /// Whether the stage ran ldconfig.
    pub ldconfig: bool,
    pub expected: Expected,
}

impl Case {
    /// Whether this is what the preflight says.
    pub fn is_said(&self, findings: &Findings) -> bool {
        let says = |severity, words: &str| findings.sentences(severity).any(|said| said.contains(words));
        match &self.expected {
            Expected::Starts => findings.list.is_empty(),
            Expected::Warning(words) | Expected::Capable(words) => {
                !findings.is_refused() && says(Severity::Warning, words)
            }
            Expected::Refusal(words) => says(Severity::Refusal, words),
        }
    }

    /// Whether the image starts where its user has CAP_DAC_OVERRIDE, as containerd leaves it to everybody, or has it not, as in
    /// Pods that pass `restricted`.
    pub fn starts(&self, is_capable: bool) -> bool {
        match self.expected {
            Expected::Starts | Expected::Warning(_) => true,
            Expected::Refusal(_) => false,
            Expected::Capable(_) => is_capable,
        }
    }

    /// How the image is run: ordinary users with CAP_DAC_OVERRIDE and without, root with it.
    pub fn ways(&self) -> &'static [bool] {
        if self.user.is_empty() { &[true] } else { &[true, false] }
    }

    pub fn start(&self) -> Start {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let env = self.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = RuntimeConfig {
            env,
            working_dir: self.working_dir.into(),
            user: self.user.into(),
            ..RuntimeConfig::default()
        };
        Start { entrypoint: texts(self.entrypoint), cmd: Vec::new(), config }
    }

    pub fn put(mut self, path: &'static str, content: Content, mode: u32) -> Self {
        self.files.push((path.trim_start_matches('/'), File { content, mode, owner: (0, 0) }));
        self
    }

    pub fn program(self, path: &'static str, name: &'static str) -> Self {
        self.put(path, Content::Program(name), 0o755)
    }

    pub fn text(self, path: &'static str, text: &str) -> Self {
        self.put(path, Content::Text(text.into()), 0o755)
    }

    pub fn link(self, path: &'static str, target: &'static str) -> Self {
        self.put(path, Content::Link(target), 0o777)
    }

    /// Attributes of the file or directory that came last.
    pub fn with(mut self, mode: u32, owner: (u32, u32)) -> Self {
        let file = &mut self.files.last_mut().unwrap().1;
        (file.mode, file.owner) = (mode, owner);
        self
    }

    pub fn run(self, entrypoint: &'static [&'static str]) -> Self {
        Self { entrypoint, ..self }
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    pub fn dir(self, working_dir: &'static str) -> Self {
        Self { working_dir, ..self }
    }

    pub fn user(self, user: &'static str) -> Self {
        Self { user, ..self }
    }

    pub fn refused(self, words: &'static str) -> Self {
        Self { expected: Expected::Refusal(words), ..self }
    }

    pub fn capable(self, words: &'static str) -> Self {
        Self { expected: Expected::Capable(words), ..self }
    }

    pub fn warned(self, words: &'static str) -> Self {
        Self { expected: Expected::Warning(words), ..self }
    }
}

pub fn case(name: &'static str, base: Base) -> Case {
    Case {
        name,
        base,
        files: Vec::new(),
        entrypoint: &["/app"],
        env: Vec::new(),
        working_dir: "",
        user: "",
        mode: Preflight::Enforce,
        ldconfig: false,
        expected: Expected::Starts,
    }
}

/// One program, started by its path.
pub fn app(name: &'static str, base: Base, program: &'static str) -> Case {
    case(name, base).program("/app", program)
}

/// One script.
pub fn script(name: &'static str, base: Base, text: &str) -> Case {
    case(name, base).text("/app", text)
}
