//! Resolutions of archives that are a few lines long.

use super::*;

/// Packages from lines `name version | depends | provides | conflicts`.
fn archive(lines: &[&str]) -> Packages {
    let mut packages = Packages::default();
    for line in lines {
        let mut parts = line.split('#').map(str::trim);
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let fields: Vec<String> = ["Depends", "Provides", "Conflicts"]
            .iter()
            .zip(parts)
            .filter(|(_, value)| !value.is_empty())
            .map(|(field, value)| format!("{field}: {value}\n"))
            .collect();
        let digest = crate::domain::value::Digest::of(line.as_bytes()).hex();
        let text = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{}Filename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n",
            fields.concat()
        );
        packages.add(0, &text).unwrap();
    }
    packages
}

fn resolved(lines: &[&str], install: &[&str], without: &[&str]) -> Result<Vec<String>, String> {
    let packages = archive(lines);
    let install: Vec<String> = install.iter().map(|name| (*name).to_owned()).collect();
    let without = without.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted { install: &install, without: &without };
    let chosen = resolve(&packages, wanted).map_err(|error| error.to_string())?;
    Ok(chosen.iter().map(shown).collect())
}

#[test]
fn what_is_needed_is_found_through_chains_alternatives_and_provisions() {
    let cases: [(&[&str], &[&str], &[&str], &[&str]); 13] = [
        (&["aa 1 # bb", "bb 1 # cc (>= 2)", "cc 1", "cc 2"], &["aa"], &[], &["aa 1", "bb 1", "cc 2"]),
        // The first alternative that can be.
        (&["aa 1 # no | bb | cc", "bb 1", "cc 1"], &["aa"], &[], &["aa 1", "bb 1"]),
        (&["aa 1 # bb | cc", "bb 1 # no", "cc 1"], &["aa"], &[], &["aa 1", "cc 1"]),
        // One that was chosen before is enough.
        (&["aa 1 # bb | cc", "bb 1", "cc 1"], &["aa", "cc"], &[], &["aa 1", "cc 1"]),
        // Virtual packages, with and without versions.
        (&["aa 1 # mail", "bb 1 ## mail", "cc 1 ## mail"], &["aa"], &[], &["aa 1", "bb 1"]),
        (
            &["aa 1 # ssl (>= 3)", "bb 1 ## ssl (= 2)", "cc 1 ## ssl", "dd 1 ## ssl (= 3.1)"],
            &["aa"],
            &[],
            &["aa 1", "dd 1"],
        ),
        // A circle.
        (&["aa 1 # bb", "bb 1 # aa"], &["aa"], &[], &["aa 1", "bb 1"]),
        // What is taken to be there brings nothing, by its name and by what it provides.
        (&["aa 1 # debconf (>= 9) | debconf-2.0", "debconf 1 # perl"], &["aa"], &["debconf"], &["aa 1"]),
        (&["aa 1 # debconf-2.0", "debconf 1 # perl # debconf-2.0"], &["aa"], &["debconf"], &["aa 1"]),
        // Choices are taken back where they do not go with the rest.
        (&["aa 1 # bb | cc, dd", "bb 1 ### dd", "cc 1", "dd 1"], &["aa", "dd"], &[], &["aa 1", "cc 1", "dd 1"]),
        (&["aa 1", "aa 2"], &["aa=1"], &[], &["aa 1"]),
        // The locale comes with libc, unless it shall not.
        (&["aa 1 # libc6", "libc6 1", "libc-bin 1"], &["aa"], &[], &["aa 1", "libc-bin 1", "libc6 1"]),
        (&["aa 1 # libc6", "libc6 1", "libc-bin 1"], &["aa"], &["libc-bin"], &["aa 1", "libc6 1"]),
    ];
    for (lines, install, without, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(resolved(lines, install, without), Ok(expected), "{lines:?} {install:?}");
    }
}

#[test]
fn what_cannot_be_is_told_with_its_reason() {
    let cases: [(&[&str], &[&str], &str); 7] = [
        (&["libssl3 1"], &["libssl"], "there is no package libssl; there is libssl3"),
        (
            &["aa 1 ## mail"],
            &["mail"],
            "there is no package mail: it is a virtual package, ask for one that provides it: aa",
        ),
        (&["aa 1", "aa 2"], &["aa=3"], "there is no version 3 of aa; there is 1, 2"),
        (&["aa 1 # bb", "bb 1 # cc (>= 2)", "cc 1"], &["aa"], "bb 1 needs cc (>= 2), and there is cc 1"),
        (&["aa 1 # bb | cc"], &["aa"], "aa 1 needs bb | cc, which is not there"),
        (
            &["aa 1 ### bb (<< 2)", "bb 1"],
            &["aa", "bb"],
            "aa 1 conflicts with bb 1: take only one of them, or exclude what needs the other",
        ),
        (
            &["aa 1 # bb", "bb 1 ### aa"],
            &["aa"],
            "aa 1 needs bb, but bb 1 conflicts with aa 1: take only one of them, or exclude what needs the other",
        ),
    ];
    for (lines, install, expected) in cases {
        assert_eq!(resolved(lines, install, &[]), Err(expected.to_owned()), "{lines:?}");
    }
}

#[test]
fn an_archive_that_is_made_to_take_for_ever_is_given_up() {
    // Each level has two ways, and all of them end in nothing.
    let lines: Vec<String> = (0..40)
        .flat_map(|level| ["a", "b"].map(|kind| format!("x{level}{kind} 1 # x{0}a | x{0}b", level + 1)))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let message = resolved(&lines, &["x0a"], &[]).unwrap_err();
    assert!(message.contains("too many choices"), "{message}");
}
