//! What can keep a program from starting, in plain words: what is wrong, with which base, and what would fit.

use std::fmt;

use super::suggest;

/// What was found, and what it means for the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the image is refused.
    pub severity: Severity,
    /// The file that is at fault, as the image names it; for an entrypoint without a slash, that name.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
    /// What the image is built upon, as its user calls it; `scratch` for nothing.
    pub base: String,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The image may not do all that it should.
    Warning,
    /// The image cannot start.
    Refusal,
}

/// A user as messages name them: what the config says, and the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// `uid:gid`.
    pub owner: String,
    /// `uid` of whoever wants something.
    pub user: String,
}

/// The C libraries that loaders belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU.
    Glibc,
    /// Alpine's.
    Musl,
}

/// What keeps a file from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not there.
    Absent,
    /// It is a link to what is not there.
    Dangling {
        /// Where the link leads.
        target: String,
    },
    /// Something on its way is no directory.
    NoWay,
    /// No directory of PATH has it.
    NotOnPath {
        /// The value of PATH.
        path: String,
    },
    /// It is a directory or a device.
    NotAFile,
    /// The user may not execute it.
    NotExecutable(Attributes),
    /// The user may not read it, which interpreters and loaders have to.
    NotReadable(Attributes),
    /// The user may not enter a directory above it.
    Closed {
        /// The directory.
        directory: String,
        /// Its attributes.
        attributes: Attributes,
    },
    /// The config's user cannot be found; says which name is not where.
    UserUnknown(String),
    /// It has no content.
    Empty,
    /// It is neither ELF nor a script.
    NotAProgram,
    /// It is an object file, or a library without an entry point.
    NotExecutableKind,
    /// It is for other processors.
    Architecture {
        /// For which, as GOARCH names them.
        found: String,
        /// The image's.
        wanted: String,
    },
    /// It is for the 32-bit mode of the image's processors, which kernels need not have.
    Bits32 {
        /// The image's architecture.
        wanted: String,
    },
    /// The loader that it names is not there.
    LoaderMissing {
        /// The loader's path.
        loader: String,
        /// The C library that it belongs to.
        libc: Libc,
        /// The C library that there is instead.
        present: Option<Libc>,
        /// Whether it is a Go program.
        is_go: bool,
    },
    /// The user may not execute the loader, or not enter a directory above it.
    LoaderClosed {
        /// The loader's path.
        loader: String,
    },
    /// A library is not where its loader looks.
    LibraryMissing {
        /// The library's name.
        library: String,
        /// A file of that name that the loader does not find or cannot take, and why.
        elsewhere: Option<(String, Unused)>,
    },
    /// What the loader finds under a library's name is no library, and it looks no further.
    NotALibrary {
        /// The library's name.
        library: String,
        /// What was found.
        path: String,
    },
    /// The library that is found does not offer a version.
    VersionMissing {
        /// The version.
        version: String,
        /// The library's path.
        library: String,
        /// The newest version of that kind that it offers.
        newest: Option<String>,
    },
    /// The interpreter of a script is not there.
    InterpreterMissing {
        /// Its path or name.
        interpreter: String,
        /// Why it cannot be used.
        why: Box<Problem>,
    },
    /// A script's first line ends as lines end on Windows.
    CarriageReturn,
    /// A script's first line is longer than the kernel reads.
    LineTooLong,
    /// Interpreters of interpreters, more than the kernel follows.
    TooManyInterpreters,
    /// Commands in shell form, without a shell.
    ShellMissing,
    /// Classes of a newer Java.
    JavaTooOld {
        /// The Java that they need.
        needed: u16,
        /// The Java that there is.
        found: u16,
    },
    /// A jar that names no main class.
    NoMainClass,
    /// A main class that is not in its jar.
    ClassMissing {
        /// The class.
        class: String,
    },
    /// A file that should be a jar and is none.
    NotAJar,
    /// A compiled module for another Python.
    PythonModule {
        /// What it was built for, as its name says.
        built_for: String,
        /// The Python that there is.
        found: String,
    },
}

/// Why a loader does not use a library that is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// It lies where the loader does not look.
    NotSearched,
    /// It lies where `ldconfig` would have found it.
    NotInCache,
    /// It is for other processors.
    Foreign,
    /// The user may not read it.
    NotReadable,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base.as_str() {
            "" | "scratch" => self.write(formatter, "an image from scratch"),
            base => self.write(formatter, &format!("the base {base}")),
        }
    }
}

impl Finding {
    fn write(&self, formatter: &mut fmt::Formatter<'_>, base: &str) -> fmt::Result {
        let file = &self.file;
        match &self.problem {
            Problem::UserUnknown(what) => write!(formatter, "{what}")?,
            Problem::NotOnPath { path } => write!(formatter, "`{file}` is in no directory of PATH ({path})")?,
            Problem::ShellMissing => {
                write!(formatter, "the entrypoint is in shell form, but {base} has no {file}")?;
            }
            problem => {
                write!(formatter, "{file} ")?;
                problem.write(formatter, base)?;
            }
        }
        write!(formatter, ": {}", suggest::advice(&self.problem))
    }
}

impl Problem {
    /// What is wrong, as the rest of a sentence that begins with the file.
    fn write(&self, to: &mut fmt::Formatter<'_>, base: &str) -> fmt::Result {
        match self {
            Self::Absent => write!(to, "is not in the image"),
            Self::Dangling { target } => write!(to, "is a link to {target}, which is not in the image"),
            Self::NoWay => {
                write!(to, "cannot be reached: something on its way is no directory, or links lead in a circle")
            }
            Self::NotAFile => write!(to, "is a directory or a device, expected a program"),
            Self::NotExecutable(attributes) => write!(to, "may not be executed by {attributes}"),
            Self::NotReadable(attributes) => write!(to, "may not be read by {attributes}"),
            Self::Closed { directory, attributes } => {
                write!(to, "cannot be reached, as the directory {directory} may not be entered by {attributes}")
            }
            Self::Empty => write!(to, "is empty"),
            Self::NotAProgram => write!(to, "is neither a program nor a script that begins with #!"),
            Self::NotExecutableKind => write!(to, "is a library or an object file, expected a program"),
            Self::Architecture { found, wanted } => write!(to, "is for {found}, the image for {wanted}"),
            Self::Bits32 { wanted } => {
                write!(to, "is for 32 bits, which the kernels of {wanted} machines need not run")
            }
            Self::LoaderMissing { loader, libc, present, .. } => match present.filter(|present| present != libc) {
                Some(present) => write!(to, "is linked against {libc} ({loader}), but {base} has {present}"),
                None => write!(to, "needs the loader {loader}, which {base} does not have"),
            },
            Self::LoaderClosed { loader } => {
                write!(to, "needs the loader {loader}, which the image's user may not execute")
            }
            Self::LibraryMissing { library, elsewhere } => write_missing(to, library, elsewhere.as_ref(), base),
            Self::NotALibrary { library, path } => {
                write!(to, "needs {library}, and the {path} that the loader finds is no library")
            }
            Self::VersionMissing { version, library, newest } => {
                write!(to, "needs {version}, which {library} of {base} does not offer")?;
                newest.as_ref().map_or(Ok(()), |newest| write!(to, " (it ends with {newest})"))
            }
            Self::InterpreterMissing { interpreter, why } => why.write_of_interpreter(to, interpreter, base),
            Self::CarriageReturn => write!(to, "has a carriage return at the end of its first line"),
            Self::LineTooLong => write!(to, "has a first line of more than 255 bytes, which the kernel does not take"),
            Self::TooManyInterpreters => write!(to, "is a script of a script of a script, too deep for the kernel"),
            Self::JavaTooOld { needed, found } => {
                write!(to, "was compiled for Java {needed}, but {base} has Java {found}")
            }
            Self::NoMainClass => write!(to, "names no Main-Class in its manifest"),
            Self::ClassMissing { class } => write!(to, "does not hold its main class {class}"),
            Self::NotAJar => write!(to, "is not a jar"),
            Self::PythonModule { built_for, found } => {
                write!(to, "was compiled for {built_for}, but {base} has Python {found}")
            }
            // Said without the file in front of it.
            Self::UserUnknown(_) | Self::NotOnPath { .. } | Self::ShellMissing => Ok(()),
        }
    }
}

impl Problem {
    /// What is wrong with the interpreter of a script.
    fn write_of_interpreter(&self, to: &mut fmt::Formatter<'_>, interpreter: &str, base: &str) -> fmt::Result {
        match self {
            Self::Absent => write!(to, "is a script for {interpreter}, which {base} does not have"),
            Self::NotOnPath { path } => {
                write!(to, "is a script for `{interpreter}`, which is in no directory of PATH ({path})")
            }
            why => {
                write!(to, "is a script for {interpreter}, which ")?;
                why.write(to, base)
            }
        }
    }
}

fn write_missing(
    to: &mut fmt::Formatter<'_>,
    library: &str,
    elsewhere: Option<&(String, Unused)>,
    base: &str,
) -> fmt::Result {
    match elsewhere {
        None => write!(to, "needs {library}, which {base} does not have"),
        Some((path, Unused::NotSearched | Unused::NotInCache)) => {
            write!(to, "needs {library}, and {path} is not where the loader looks for it")
        }
        Some((path, Unused::Foreign)) => write!(to, "needs {library}, and {path} is for other processors"),
        Some((path, Unused::NotReadable)) => {
            write!(to, "needs {library}, and {path} may not be read by the image's user")
        }
    }
}

/// `user 65532 (mode 0644, owner 0:0)`.
impl fmt::Display for Attributes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "user {} (mode {:04o}, owner {})", self.user, self.mode, self.owner)
    }
}

impl fmt::Display for Libc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        })
    }
}
