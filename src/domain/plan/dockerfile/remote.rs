//! Addresses in ADD: which are files and which repositories, and whether they can only ever be one thing.

use percent_encoding::percent_decode_str;

use crate::domain::{
    convert::https_address,
    git::Commit,
    remote::Remote,
    source::{RelativePath, SourceUrl, UrlError},
};

/// What BuildKit calls a file whose address has no path.
const UNNAMED: &str = "__unnamed__";

/// The flags of ADD that are about addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Adding {
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// Whether a source of ADD is no path of the context (BuildKit's dispatchCopy).
pub(super) fn is_remote(text: &str) -> bool {
    match text.split_once("://") {
        Some((scheme, _)) => {
            matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https" | "git" | "ssh")
        }
        None => is_scp(text),
    }
}

/// `user@host:path`, as git-clone(1) has it for ssh.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    plain(user, "_-") && plain(host, ".-")
}

/// What `text` is, if that can only be one thing; else what to do.
pub(super) fn remote(text: &str, adding: &Adding) -> Result<Remote, String> {
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let scheme = address.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        let instead = https_address(address).unwrap_or_else(|| "https://HOST/PATH.git".to_owned());
        return Err(format!("repositories are fetched by https, without a login: write {instead}#COMMIT"));
    }
    let url = SourceUrl::parse(address).map_err(|error| match error {
        UrlError::Userinfo(_) => {
            "ADD sends no user name or password: download it in a RUN with --mount=type=secret".to_owned()
        }
        other => other.to_string(),
    })?;
    // BuildKit's ParseGitRef: the end of its path tells a repository from a file.
    if url.as_url().path().strip_suffix(".git").is_some() {
        repository(&url, fragment, adding)
    } else {
        file(&url, adding)
    }
}

fn file(url: &SourceUrl, adding: &Adding) -> Result<Remote, String> {
    let Some(checksum) = &adding.checksum else {
        return Err("nothing says which file this is, and the same Dockerfile has to give the same image: add \
                    --checksum=sha256:DIGEST, by itself if there are several sources"
            .to_owned());
    };
    let digest = checksum.parse().map_err(|error| format!("--checksum: {error}"))?;
    let path = percent_decode_str(url.as_url().path()).decode_utf8();
    let path = path.map_err(|_| "the name of the file is not UTF-8: download it in a RUN".to_owned())?;
    let name = path.split('/').rfind(|part| !matches!(*part, "" | ".")).unwrap_or(UNNAMED);
    RelativePath::default().join(name.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Remote::File { url: url.as_url().to_string(), digest, name: name.to_owned() })
}

/// What an address says of a repository beside where it is.
#[derive(Default)]
struct Wanted {
    /// A branch or tag.
    reference: Option<String>,
    commits: Vec<String>,
    directory: String,
    without_submodules: bool,
    keep_git_dir: bool,
}

fn repository(url: &SourceUrl, fragment: &str, adding: &Adding) -> Result<Remote, String> {
    let fragment = percent_decode_str(fragment).decode_utf8_lossy();
    let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
    let mut wanted = Wanted { directory: directory.to_owned(), ..Wanted::default() };
    if is_commit(reference) {
        wanted.commits.push(reference.to_owned());
    } else if !reference.is_empty() {
        wanted.reference = Some(reference.to_owned());
    }
    wanted.commits.extend(adding.checksum.clone());
    wanted.query(url)?;
    if adding.keep_git_dir.unwrap_or(wanted.keep_git_dir) {
        return Err("a .git directory is another one with every fetch: leave keep-git-dir out".to_owned());
    }
    let commit = wanted.commit()?;
    let directory = RelativePath::parse(wanted.directory.trim_start_matches('/').as_bytes());
    let directory = directory.map_err(|error| error.to_string())?.to_string();
    let mut plain = url.as_url().clone();
    plain.set_query(None);
    Ok(Remote::Git { url: plain.to_string(), commit, submodules: !wanted.without_submodules, directory })
}

fn is_commit(text: &str) -> bool {
    text.to_ascii_lowercase().parse::<Commit>().is_ok()
}

impl Wanted {
    /// Takes what the query says (BuildKit's GitRef.loadQuery).
    fn query(&mut self, url: &SourceUrl) -> Result<(), String> {
        for (key, value) in url.as_url().query_pairs() {
            let on = || match &*value {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(format!("{key}={value}: expected true or false")),
            };
            match &*key {
                "ref" if is_commit(&value) => self.commits.push(value.into_owned()),
                "ref" | "tag" | "branch" => self.reference = Some(value.into_owned()),
                "commit" | "checksum" => self.commits.push(value.into_owned()),
                "subdir" => self.directory = value.into_owned(),
                "submodules" => self.without_submodules = !on()?,
                "keep-git-dir" => self.keep_git_dir = on()?,
                _ => return Err(format!("`{key}` is no option of a repository's address")),
            }
        }
        Ok(())
    }

    /// The one commit that is named. A branch or tag beside it is not looked at: it may move.
    fn commit(&self) -> Result<String, String> {
        let mut commits: Vec<String> = self.commits.iter().map(|commit| commit.to_ascii_lowercase()).collect();
        commits.dedup();
        match &commits[..] {
            [commit] if is_commit(commit) => Ok(commit.clone()),
            [] => {
                let moves = match &self.reference {
                    Some(reference) => format!("`{reference}` can move"),
                    None => "the default branch moves".to_owned(),
                };
                Err(format!(
                    "{moves}, and the same Dockerfile has to give the same image: name the commit, all 40 digits, \
                     behind `#` (git ls-remote shows it)"
                ))
            }
            [other] => Err(format!("`{other}` is no commit, expected all of its 40 hex digits")),
            _ => Err(format!("it names several commits: {}", commits.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::value::Digest;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn of(text: &str, checksum: Option<&str>) -> Result<Remote, String> {
        remote(text, &Adding { checksum: checksum.map(str::to_owned), ..Adding::default() })
    }

    #[test]
    fn files_are_named_by_the_end_of_their_address() {
        let digest = Digest::of(b"");
        for (url, expected) in [
            ("https://h/a/b.txt?x=1#y", "b.txt"),
            ("https://h/a%20b", "a b"),
            ("https://h/a/", "a"),
            ("https://h", UNNAMED),
            ("HTTP://h/a%2Fb", "b"),
        ] {
            let Ok(Remote::File { name, digest: found, .. }) = of(url, Some(&digest.to_string())) else {
                panic!("{url}")
            };
            assert_eq!((name.as_str(), found), (expected, digest), "{url}");
        }
    }

    #[test]
    fn repositories_are_those_whose_commit_is_named() {
        let git = |directory: &str, submodules: bool| Remote::Git {
            url: "https://h/r.git".into(),
            commit: COMMIT.into(),
            submodules,
            directory: directory.into(),
        };
        for (text, checksum, expected) in [
            (format!("https://h/r.git#{COMMIT}"), None, git("", true)),
            (format!("https://h/r.git#{}:docs/a/", COMMIT.to_uppercase()), None, git("docs/a", true)),
            ("https://h/r.git#v1:docs".into(), Some(COMMIT), git("docs", true)),
            (format!("https://h/r.git?tag=v1&commit={COMMIT}&subdir=x&submodules=false"), None, git("x", false)),
            (format!("https://h/r.git?ref={COMMIT}"), Some(COMMIT), git("", true)),
        ] {
            assert_eq!(of(&text, checksum), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_may_become_another_thing_is_refused_with_advice() {
        for (text, checksum, words) in [
            ("https://h/a", None, "add --checksum=sha256:"),
            ("https://h/a", Some("sha512:00"), "--checksum: `sha512:00`"),
            ("https://me:pass@h/a", None, "--mount=type=secret"),
            (
                "https://h/..%2f..",
                Some("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
                "`..`",
            ),
            ("https://h/r.git", None, "the default branch moves"),
            ("https://h/r.git#v1", None, "`v1` can move"),
            ("https://h/r.git?branch=main", None, "`main` can move"),
            ("https://h/r.git#v1", Some("0123"), "all of its 40"),
            ("https://h/r.git?commit=2123456789abcdef0123456789abcdef01234567", Some(COMMIT), "several commits"),
            ("https://h/r.git?depth=1", Some(COMMIT), "`depth` is no option"),
            ("https://h/r.git?keep-git-dir", Some(COMMIT), "another one with every fetch"),
            ("https://h/r.git#x:../y", Some(COMMIT), "upwards"),
            ("git@h:a/r.git#v1", None, "write https://h/a/r.git#COMMIT"),
            ("ssh://git@h/a/r.git", None, "write https://h/a/r.git#COMMIT"),
        ] {
            let error = of(text, checksum).unwrap_err();
            assert!(error.contains(words) && !error.contains("pass@"), "{text}: {error}");
        }
        assert!(["dir/a@b:c", "a:b", "./x", "github.com/a/b", "ftp://h/a"].iter().all(|text| !is_remote(text)));
    }
}
