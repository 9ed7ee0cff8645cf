//! `.gitmodules`: which repository fills which directory. Reads only what gitmodules(5) says about path, url and update.

use std::collections::BTreeMap;

use crate::domain::source::{RelativePath, SourceUrl, UrlError};

/// One submodule as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// As written: absolute, or relative (`../other.git`) to the repository it is declared in.
    pub url: String,
    /// Whether it says `update = none`: Git leaves such directories empty.
    pub skipped: bool,
}

/// Submodules by path. Sections without path or url, and lines that mean nothing here, are passed over as Git does.
pub fn parse_modules(content: &[u8]) -> BTreeMap<RelativePath, Submodule> {
    let text = String::from_utf8_lossy(content);
    let mut sections: Vec<BTreeMap<String, String>> = Vec::new();
    let mut inside = false;
    for line in text.replace("\r\n", "\n").replace("\\\n", "").lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.to_ascii_lowercase().starts_with("[submodule");
            if inside {
                sections.push(BTreeMap::new());
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';'])) else {
            continue;
        };
        if let Some(section) = sections.last_mut() {
            section.insert(key.trim().to_ascii_lowercase(), config_value(value.trim()));
        }
    }
    let declared = |section: &BTreeMap<String, String>| {
        let path = RelativePath::parse(section.get("path")?.as_bytes()).ok()?;
        let skipped = section.get("update").is_some_and(|update| update == "none");
        Some((path, Submodule { url: section.get("url")?.clone(), skipped }))
    };
    sections.iter().filter_map(declared).collect()
}

/// A value of Git's configuration syntax: quotes and escapes resolved, a comment dropped (git-config(1), "Syntax").
fn config_value(text: &str) -> String {
    let mut value = String::new();
    // How much of the value ends in something other than unquoted white space.
    let mut kept = 0;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            }),
            other => value.push(other),
        }
        if quoted || !c.is_whitespace() {
            kept = value.len();
        }
    }
    value.truncate(kept);
    value
}

/// The address of a submodule declared with `url` in the repository at `parent`, as git-submodule(1) resolves it.
pub fn submodule_url(parent: &SourceUrl, url: &str) -> Result<SourceUrl, UrlError> {
    if !(url.starts_with("./") || url.starts_with("../")) {
        return SourceUrl::parse(url);
    }
    let mut base = parent.as_url().clone();
    base.set_query(None);
    let path = base.path().trim_matches('/').to_owned();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in url.split('/') {
        match part {
            "" | "." => {}
            // Above the server's root there is no repository.
            ".." => drop(parts.pop().ok_or_else(|| UrlError::Malformed(url.to_owned()))?),
            name => parts.push(name),
        }
    }
    base.set_path(&parts.join("/"));
    SourceUrl::parse(base.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_with_quotes_comments_and_odd_cases() {
        let text = "[core]\n path = no\n url = no\n# c\n[submodule \"a\"]\n\tpath = lib/a ; x\n\turl = \"../a#b.git\"\n\
                    [Submodule \"b\"]\n  PATH = b\n  url = https://h/b # c\n  update = none\n[submodule \"c\"]\n path = ../c\n url = x\n";
        let modules = parse_modules(text.as_bytes());
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap();
        assert_eq!(
            modules,
            BTreeMap::from([
                (path("lib/a"), Submodule { url: "../a#b.git".into(), skipped: false }),
                (path("b"), Submodule { url: "https://h/b".into(), skipped: true }),
            ])
        );
    }

    #[test]
    fn relative_urls_start_at_the_parent_repository() {
        let parent = SourceUrl::parse("https://h:8443/group/app.git/").unwrap();
        for (url, expected) in [
            ("../lib.git", "https://h:8443/group/lib.git"),
            ("../../x/y", "https://h:8443/x/y"),
            ("./sub", "https://h:8443/group/app.git/sub"),
            ("https://o/z", "https://o/z"),
        ] {
            assert_eq!(submodule_url(&parent, url).unwrap().to_string(), expected);
        }
        for url in ["../../../x", "git@h:a/b", "ssh://h/x", "file:///x"] {
            assert!(submodule_url(&parent, url).is_err(), "{url}");
        }
    }
}
