//! Ready bases by name: which packages a program of each kind needs, so that nobody must know lists of them.

use crate::domain::image::{ImageConfig, USUAL_PATH};

/// The suite that is taken where none is asked for and several have the runtime.
pub const DEFAULT_SUITE: &str = "trixie";

/// What a kind of program runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// What people call it: `java 17`.
    pub name: String,
    /// Packages.
    pub install: Vec<String>,
    /// Packages that it needs by their word and not in fact: printers, smart cards, what only scripts use.
    pub without: Vec<String>,
    /// The program that runs what is copied on top.
    pub entrypoint: Option<Vec<String>>,
    /// Variables, beside those of every base.
    pub env: Vec<(String, String)>,
}

/// The kinds of runtimes with their versions, as a spec names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Programs that bring all they need: certificates, time zones, users.
    Static,
    /// Programs in C: `Static` with libc and OpenSSL.
    Base,
    /// Programs in C++, Rust and Fortran: `Base` with the libraries of GCC.
    Cc,
    /// Java without a desktop.
    Java(&'a str),
    /// Python with its standard library.
    Python(&'a str),
    /// Node.js.
    Node(&'a str),
}

const STATIC: &[&str] = &["base-files", "ca-certificates", "media-types", "netbase", "tzdata"];
/// The variable by which programs find the authorities that they trust, and its value.
pub const BUNDLE: (&str, &str) = ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
/// Which versions of what each suite has, newest suite last.
const SUITES: &[(&str, &[&str], &[&str], &[&str])] =
    &[("bookworm", &["17"], &["3.11"], &["18"]), ("trixie", &["21", "25"], &["3.13"], &["20"])];

/// Packages for a runtime on `suite`, or on the suite that has it.
///
/// # Errors
/// When no suite, or not that one, has the runtime: what there is.
pub fn runtime(kind: &Kind<'_>, suite: Option<&str>, architecture: &str) -> Result<(Runtime, String), String> {
    let suite = match suite {
        Some(suite) => known(suite)?,
        None => first_with(kind)?,
    };
    if !has(kind, suite) {
        return Err(format!("{suite} has no {}; there is {}", name(kind), all(kind)));
    }
    let mut install: Vec<String> = STATIC.iter().map(|name| (*name).to_owned()).collect();
    let mut add = |names: &[&str]| install.extend(names.iter().map(|name| (*name).to_owned()));
    let ssl = if suite == "bookworm" { "libssl3" } else { "libssl3t64" };
    let (mut without, mut env, mut entrypoint) = (Vec::new(), Vec::new(), None);
    match kind {
        Kind::Static => {}
        Kind::Base => add(&["libc6", ssl]),
        Kind::Cc => add(&["libc6", ssl, "libgcc-s1", "libgomp1", "libstdc++6"]),
        Kind::Java(version) => {
            add(&[
                "ca-certificates-java",
                "libfontconfig1",
                "fonts-dejavu-core",
                "libharfbuzz0b",
                &format!("openjdk-{version}-jre-headless"),
            ]);
            without = ["java-common", "libasound2", "libcups2", "libnss3", "libpcsclite1"].map(str::to_owned).to_vec();
            let home = format!("/usr/lib/jvm/java-{version}-openjdk-{architecture}");
            entrypoint = Some(vec![format!("{home}/bin/java"), "-jar".to_owned()]);
            env.push(("JAVA_HOME".to_owned(), home));
        }
        Kind::Python(version) => {
            add(&["python3", &format!("python{version}")]);
            entrypoint = Some(vec![format!("/usr/bin/python{version}")]);
        }
        Kind::Node(_) => {
            add(&["nodejs"]);
            entrypoint = Some(vec!["/usr/bin/node".to_owned()]);
        }
    }
    Ok((Runtime { name: name(kind), install, without, entrypoint, env }, suite.to_owned()))
}

/// What the config of every base of packages says: where programs and certificates are, and which characters texts have.
#[must_use]
pub fn config(runtime: Option<&Runtime>) -> ImageConfig {
    let own = [("PATH", USUAL_PATH), BUNDLE, ("LANG", "C.UTF-8")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let more = runtime.iter().flat_map(|runtime| runtime.env.clone());
    ImageConfig {
        env: own.into_iter().chain(more).collect(),
        working_dir: Some("/".to_owned()),
        entrypoint: runtime.and_then(|runtime| runtime.entrypoint.clone()),
        ..ImageConfig::default()
    }
}

fn known(suite: &str) -> Result<&'static str, String> {
    let names: Vec<&str> = SUITES.iter().map(|(name, ..)| *name).collect();
    names.iter().find(|name| **name == suite).copied().ok_or_else(|| {
        format!(
            "there are no runtimes for the suite `{suite}`, expected {}; give packages.install instead",
            names.join(" or ")
        )
    })
}

fn first_with(kind: &Kind<'_>) -> Result<&'static str, String> {
    if has(kind, DEFAULT_SUITE) {
        return Ok(DEFAULT_SUITE);
    }
    let found = SUITES.iter().rev().map(|(name, ..)| *name).find(|suite| has(kind, suite));
    found.ok_or_else(|| format!("there is no {}; there is {}", name(kind), all(kind)))
}

fn has(kind: &Kind<'_>, suite: &str) -> bool {
    SUITES.iter().find(|(name, ..)| *name == suite).is_some_and(|(_, java, python, node)| match kind {
        Kind::Java(version) => java.contains(version),
        Kind::Python(version) => python.contains(version),
        Kind::Node(version) => node.contains(version),
        Kind::Static | Kind::Base | Kind::Cc => true,
    })
}

fn all(kind: &Kind<'_>) -> String {
    let one = |(suite, java, python, node): &(&str, &[&str], &[&str], &[&str])| {
        let (what, versions) = match kind {
            Kind::Java(_) => ("java", *java),
            Kind::Python(_) => ("python", *python),
            _ => ("node", *node),
        };
        format!("{what} {} in {suite}", versions.join(" and "))
    };
    SUITES.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn name(kind: &Kind<'_>) -> String {
    match kind {
        Kind::Static => "static".to_owned(),
        Kind::Base => "base".to_owned(),
        Kind::Cc => "cc".to_owned(),
        Kind::Java(version) => format!("java {version}"),
        Kind::Python(version) => format!("python {version}"),
        Kind::Node(version) => format!("node {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_on_the_suite_that_has_it() {
        let (java, suite) = runtime(&Kind::Java("17"), None, "amd64").unwrap();
        assert_eq!((java.name.as_str(), suite.as_str()), ("java 17", "bookworm"));
        assert!(java.install.contains(&"openjdk-17-jre-headless".to_owned()));
        assert_eq!(config(Some(&java)).entrypoint.unwrap()[0], "/usr/lib/jvm/java-17-openjdk-amd64/bin/java");
        assert_eq!(runtime(&Kind::Cc, None, "amd64").unwrap().1, DEFAULT_SUITE);
        assert_eq!(runtime(&Kind::Cc, Some("bookworm"), "amd64").unwrap().1, "bookworm");
    }

    #[test]
    fn what_no_suite_has_is_told_with_what_there_is() {
        let refused = |kind: Kind<'_>, suite| runtime(&kind, suite, "amd64").unwrap_err();
        assert_eq!(
            refused(Kind::Java("8"), None),
            "there is no java 8; there is java 17 in bookworm, java 21 and 25 in trixie"
        );
        assert_eq!(
            refused(Kind::Python("3.11"), Some("trixie")),
            "trixie has no python 3.11; there is python 3.11 in bookworm, python 3.13 in trixie"
        );
        assert!(refused(Kind::Static, Some("sid")).contains("expected bookworm or trixie"));
    }
}
