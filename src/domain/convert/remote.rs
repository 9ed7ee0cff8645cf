//! Addresses of Git remotes as sources can have them.

/// The http(s) address of the repository behind a remote; none for one that is no server. Credentials in it are left out.
#[must_use]
pub fn https_address(remote: &str) -> Option<String> {
    let (scheme, rest) = match remote.split_once("://") {
        Some(("ssh" | "git" | "git+ssh", rest)) => ("https", rest),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return None,
        // git-clone(1): HOST:PATH, unless a slash comes before the colon.
        None => {
            let (host, path) = remote.split_once(':').filter(|(host, _)| !host.contains('/') && host.len() > 1)?;
            let host = host.rsplit('@').next().unwrap_or(host);
            return Some(format!("https://{host}/{}", path.trim_start_matches('/')));
        }
    };
    let (host, path) = rest.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())?;
    let host = host.rsplit('@').next().unwrap_or(host);
    // A port of ssh's own is none of https'.
    let host = if remote.starts_with("http") { host } else { host.split(':').next().unwrap_or(host) };
    Some(format!("{scheme}://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_become_addresses_without_credentials() {
        for (remote, expected) in [
            ("https://git.example.com/a/b.git", Some("https://git.example.com/a/b.git")),
            ("https://me:token@git.example.com:8443/a.git", Some("https://git.example.com:8443/a.git")),
            ("http://git.example.com/a", Some("http://git.example.com/a")),
            ("git@git.example.com:a/b.git", Some("https://git.example.com/a/b.git")),
            ("ssh://git@git.example.com:22/a/b.git", Some("https://git.example.com/a/b.git")),
            ("/srv/git/a.git", None),
            ("../a:b", None),
            ("file:///srv/a.git", None),
            ("https://git.example.com", None),
        ] {
            assert_eq!(https_address(remote).as_deref(), expected, "{remote}");
        }
    }
}
