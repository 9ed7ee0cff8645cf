//! What would fit instead: short advice for each problem, and the little that is known by heart of Debian's packages.

use super::problem::{Libc, Problem, Unused};

/// What to do about a problem, as the end of a sentence.
pub(super) fn advice(problem: &Problem) -> String {
    let text = match problem {
        Problem::Absent | Problem::Dangling { .. } | Problem::NoWay => "copy it there, or correct the name",
        Problem::NotOnPath { .. } => "name it by its full path, or copy it to one of them",
        Problem::NotAFile => "name the program itself",
        Problem::NotExecutable(_) => "give it mode 0755 where it is copied",
        Problem::NotReadable(_) => "give it mode 0644 or 0755 where it is copied",
        Problem::Closed { .. } => "give the directory mode 0755, or copy the file elsewhere",
        Problem::UserUnknown(_) => "name the user by number, or use a base that has it",
        Problem::Empty | Problem::NotAJar => "look at the stage that should have written it",
        Problem::NotAProgram => "begin it with a line such as #!/bin/sh, or name its interpreter in the entrypoint",
        Problem::NotExecutableKind => "copy the linked program",
        Problem::Architecture { wanted, .. } => return format!("build it for {wanted}"),
        Problem::Bits32 { .. } => "build it for 64 bits",
        Problem::LoaderClosed { .. } => "give it and the directories above it mode 0755",
        Problem::LoaderMissing { libc, present: Some(present), .. } if libc == present => {
            "link it with the loader that the base has, or copy a link to that one there"
        }
        Problem::LoaderMissing { libc, is_go, .. } => return for_loader(*libc, *is_go).to_owned(),
        Problem::LibraryMissing { library, elsewhere } => return for_library(library, elsewhere.as_ref()),
        Problem::NotALibrary { .. } => "copy the library itself, not a text of the linker in its place",
        Problem::VersionMissing { version, .. } => return for_version(version),
        Problem::InterpreterMissing { interpreter, why } => match **why {
            Problem::Absent | Problem::NotOnPath { .. } | Problem::Dangling { .. } => {
                return for_interpreter(interpreter);
            }
            ref why => return advice(why),
        },
        Problem::CarriageReturn => "save it with Unix line ends (dos2unix, or `* text eol=lf` in .gitattributes)",
        Problem::LineTooLong => "shorten it, or go by /usr/bin/env",
        Problem::TooManyInterpreters => "name a program as the interpreter",
        Problem::ShellMissing => "write it as a list, [\"/program\", \"argument\"], or use a base with a shell",
        Problem::JavaTooOld { needed, found } => {
            return format!("use a base with Java {needed}, or compile with --release {found}");
        }
        Problem::NoMainClass => "set Main-Class when the jar is made, or start it by -cp and the class's name",
        Problem::ClassMissing { .. } => "put the class into the jar, or name the jars that have it in Class-Path",
        Problem::PythonModule { found, .. } => {
            return format!("install it in a builder with Python {found}, or use a base with the other Python");
        }
    };
    text.to_owned()
}

fn for_loader(libc: Libc, is_go: bool) -> &'static str {
    match (libc, is_go) {
        (_, true) => "build with CGO_ENABLED=0, or use a base with a C library, such as the cc base",
        (Libc::Glibc, _) => "link it statically, or use a base with glibc, such as the cc base",
        (Libc::Musl, _) => "build it in a Debian builder, or link it statically",
    }
}

fn for_library(library: &str, elsewhere: Option<&(String, Unused)>) -> String {
    match elsewhere.map(|(_, why)| why) {
        Some(Unused::NotInCache) => {
            "run ldconfig in the stage and copy /etc/ld.so.cache, set LD_LIBRARY_PATH, or copy it to a directory \
                                     of the system"
                .into()
        }
        Some(Unused::NotSearched) => {
            "set LD_LIBRARY_PATH, link with -Wl,-rpath,'$ORIGIN', or copy it to a directory of the system".into()
        }
        Some(Unused::Foreign) => "copy the library for the image's processors".into(),
        Some(Unused::NotReadable) => "give it mode 0644 where it is copied".into(),
        None => match package(library) {
            Some(package) => format!("add the Debian package {package}, or copy the library from the stage"),
            None => "copy it from the stage, or use a base that has it".into(),
        },
    }
}

fn for_interpreter(interpreter: &str) -> String {
    let name = interpreter.rsplit('/').next().unwrap_or(interpreter);
    match name {
        "sh" | "bash" | "dash" | "ash" => "use a base with a shell, or start a program instead of a script".into(),
        name if name.starts_with("python") => "use a base with Python, or name the Python that it has".into(),
        name => format!("use a base with {name}, or name an interpreter that it has"),
    }
}

/// Of each kind of version, the newest that a suite of Debian offers, oldest suite first.
const SUITES: [(&str, &str, &str); 9] = [
    ("GLIBC", "2.31", "bullseye"),
    ("GLIBC", "2.36", "bookworm"),
    ("GLIBC", "2.41", "trixie"),
    ("GLIBCXX", "3.4.28", "bullseye"),
    ("GLIBCXX", "3.4.30", "bookworm"),
    ("GLIBCXX", "3.4.33", "trixie"),
    ("CXXABI", "1.3.12", "bullseye"),
    ("CXXABI", "1.3.13", "bookworm"),
    ("CXXABI", "1.3.15", "trixie"),
];

fn for_version(version: &str) -> String {
    let suite = parts(version).and_then(|(kind, wanted)| {
        let mut of_kind = SUITES.iter().filter(|(name, ..)| *name == kind);
        of_kind.find(|(_, newest, _)| numbers(newest).is_some_and(|newest| newest >= wanted)).map(|(.., suite)| suite)
    });
    match suite {
        Some(suite) => format!("use a base of suite {suite} or newer, or build in an older builder"),
        None => "build in a builder that is no newer than the base, or use a newer base".into(),
    }
}

/// `GLIBC_2.38` as its kind and its numbers.
pub(super) fn parts(version: &str) -> Option<(&str, Vec<u32>)> {
    let (kind, rest) = version.rsplit_once('_')?;
    Some((kind, numbers(rest)?))
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// Libraries that are often missing, and the package of Debian bookworm that has them (trixie added t64 to the names of some).
const PACKAGES: [(&str, &str); 36] = [
    ("libatomic.so.1", "libatomic1"),
    ("libbrotlidec.so.1", "libbrotli1"),
    ("libbz2.so.1.0", "libbz2-1.0"),
    ("libc.so.6", "libc6"),
    ("libcap.so.2", "libcap2"),
    ("libcrypt.so.1", "libcrypt1"),
    ("libcrypto.so.3", "libssl3t64 (libssl3 in Debian 12)"),
    ("libcurl.so.4", "libcurl4t64 (libcurl4 in Debian 12)"),
    ("libexpat.so.1", "libexpat1"),
    ("libffi.so.8", "libffi8"),
    ("libfontconfig.so.1", "libfontconfig1"),
    ("libfreetype.so.6", "libfreetype6"),
    ("libgcc_s.so.1", "libgcc-s1"),
    ("libglib-2.0.so.0", "libglib2.0-0t64 (libglib2.0-0 in Debian 12)"),
    ("libgmp.so.10", "libgmp10"),
    ("libgomp.so.1", "libgomp1"),
    ("libjemalloc.so.2", "libjemalloc2"),
    ("libjpeg.so.62", "libjpeg62-turbo"),
    ("liblz4.so.1", "liblz4-1"),
    ("liblzma.so.5", "liblzma5"),
    ("libm.so.6", "libc6"),
    ("libncursesw.so.6", "libncursesw6"),
    ("libpcre2-8.so.0", "libpcre2-8-0"),
    ("libpng16.so.16", "libpng16-16"),
    ("libpq.so.5", "libpq5"),
    ("libreadline.so.8", "libreadline8t64 (libreadline8 in Debian 12)"),
    ("libsqlite3.so.0", "libsqlite3-0"),
    ("libssl.so.3", "libssl3t64 (libssl3 in Debian 12)"),
    ("libstdc++.so.6", "libstdc++6"),
    ("libsystemd.so.0", "libsystemd0"),
    ("libtinfo.so.6", "libtinfo6"),
    ("libuuid.so.1", "libuuid1"),
    ("libuv.so.1", "libuv1t64 (libuv1 in Debian 12)"),
    ("libxml2.so.2", "libxml2"),
    ("libz.so.1", "zlib1g"),
    ("libzstd.so.1", "libzstd1"),
];

fn package(library: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == library).map(|(_, package)| *package)
}
