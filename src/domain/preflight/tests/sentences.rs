//! What findings say, word for word.

use super::super::problem::{Attributes, Finding, Libc, Problem, Severity, Unused};

#[test]
fn findings_name_the_file_what_is_missing_and_what_would_fit() {
    let attributes = || Attributes { mode: 0o640, owner: "0:5".into(), user: "65532".into() };
    let library = |name: &str, elsewhere| Problem::LibraryMissing { library: name.into(), elsewhere };
    let version = |version: &str| Problem::VersionMissing {
        version: version.into(),
        library: "/lib/x.so".into(),
        newest: Some("X_1".into()),
    };
    let interpreter = |name: &str, why| Problem::InterpreterMissing { interpreter: name.into(), why: Box::new(why) };
    for (problem, expected) in [
        (Problem::Absent, "/f is not in the image: copy it there, or correct the name"),
        (
            library("libpq.so.5", None),
            "/f needs libpq.so.5, which the base debian:12 does not have: add the Debian package libpq5, or copy the library from the stage",
        ),
        (
            library("libx.so", Some(("/opt/libx.so".into(), Unused::NotReadable))),
            "/f needs libx.so, and /opt/libx.so may not be read by the image's user: give it mode 0644 where it is copied",
        ),
        (
            version("GLIBC_2.39"),
            "/f needs GLIBC_2.39, which /lib/x.so of the base debian:12 does not offer (it ends with X_1): use a base of suite trixie or newer, or build in an older builder",
        ),
        (
            version("GLIBCXX_3.4.29"),
            "/f needs GLIBCXX_3.4.29, which /lib/x.so of the base debian:12 does not offer (it ends with X_1): use a base of suite bookworm or newer, or build in an older builder",
        ),
        (
            version("GLIBC_9.9"),
            "/f needs GLIBC_9.9, which /lib/x.so of the base debian:12 does not offer (it ends with X_1): build in a builder that is no newer than the base, or use a newer base",
        ),
        (
            Problem::LoaderMissing { loader: "/lib/ld".into(), libc: Libc::Glibc, present: None, is_go: true },
            "/f needs the loader /lib/ld, which the base debian:12 does not have: build with CGO_ENABLED=0, or use a base with a C library, such as the cc base",
        ),
        (
            Problem::LoaderMissing {
                loader: "/lib/ld".into(),
                libc: Libc::Musl,
                present: Some(Libc::Glibc),
                is_go: false,
            },
            "/f is linked against musl (/lib/ld), but the base debian:12 has glibc: build it in a Debian builder, or link it statically",
        ),
        (
            Problem::LoaderClosed { loader: "/opt/ld".into() },
            "/f needs the loader /opt/ld, which the image's user may not execute: give it and the directories above it mode 0755",
        ),
        (
            Problem::Architecture { found: "arm64".into(), wanted: "amd64".into() },
            "/f is for arm64, the image for amd64: build it for amd64",
        ),
        (
            Problem::NotExecutable(attributes()),
            "/f may not be executed by user 65532 (mode 0640, owner 0:5): give it mode 0755 where it is copied",
        ),
        (
            interpreter("python3", Problem::NotOnPath { path: "/bin".into() }),
            "/f is a script for `python3`, which is in no directory of PATH (/bin): use a base with Python, or name the Python that it has",
        ),
        (
            interpreter("/bin/x", Problem::Closed { directory: "/bin".into(), attributes: attributes() }),
            "/f is a script for /bin/x, which cannot be reached, as the directory /bin may not be entered by user 65532 (mode 0640, owner 0:5): give the directory mode 0755, or copy the file elsewhere",
        ),
        (
            Problem::JavaTooOld { needed: 21, found: 17 },
            "/f was compiled for Java 21, but the base debian:12 has Java 17: use a base with Java 21, or compile with --release 17",
        ),
        (
            Problem::UserUnknown("the user `x` is not in the image's /etc/passwd".into()),
            "the user `x` is not in the image's /etc/passwd: name the user by number, or use a base that has it",
        ),
    ] {
        let finding = Finding { severity: Severity::Refusal, file: "/f".into(), problem, base: "debian:12".into() };
        assert_eq!(finding.to_string(), expected);
    }
}
