//! Tests of sources as values.

use super::*;

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text.as_bytes()).unwrap()
}

fn secret(keys: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    keys.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

#[test]
fn paths_are_normalised_and_stay_below_the_root() {
    assert_eq!(path("./a//b/./c/").as_bytes(), b"a/b/c");
    assert!(path(".").is_root());
    for text in ["/a", "../a", "a/../b", "a/..", "a\0"] {
        assert!(RelativePath::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(RelativePath::parse(&[b'a'; 256]).is_err());
    assert!(RelativePath::parse("a/".repeat(2049).as_bytes()).is_err());
    assert!(RelativePath::default().join(b"a/b").is_err());
}

#[test]
fn paths_split_strip_and_narrow_by_component() {
    assert_eq!(path("a/b/c").below(&path("a/b")), Some(path("c")));
    assert_eq!(path("a/b").below(&path("a/b")), Some(path("")));
    assert_eq!(path("a/bc").below(&path("a/b")), None);
    assert_eq!(path("a/b/c").strip(1), Some(path("b/c")));
    assert_eq!(path("a/b").strip(2), None);
    assert_eq!(path("a/b").split_last(), Some((path("a"), &b"b"[..])));
    assert_eq!(path("").split_last(), None);
}

#[test]
fn urls_with_credentials_or_other_schemes_are_refused_without_showing_them() {
    for (text, part) in [
        ("https://me:hunter2@host/a", "use a Secret"),
        ("ssh://git@host/a", "`ssh`"),
        ("git@host:a/b", "`ssh`"),
        ("file:///etc", "`file`"),
        ("no", "https://host/path"),
    ] {
        let message = SourceUrl::parse(text).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains("hunter2"), "{message}");
    }
    assert_eq!(SourceUrl::parse("https://h/a?signature=s#f").unwrap().to_string(), "https://h/a");
}

#[test]
fn credentials_go_only_to_their_server() {
    let basic = SourceCredential::from_secret(&secret(&[("username", "u"), ("password", "p\n")])).unwrap();
    let bound = ServerCredential::new("https://git.example.com", basic).unwrap();
    let header = |url: &str| bound.authorization_for(&SourceUrl::parse(url).unwrap(), Purpose::Git);
    assert_eq!(header("https://git.example.com:443/a").unwrap().expose(), "Basic dTpw");
    for url in ["http://git.example.com/a", "https://git.example.com:8443/a", "https://example.com/a"] {
        assert_eq!(header(url), None, "{url}");
    }
    assert!(!format!("{bound:?}").contains("dTpw"));
}

#[test]
fn tokens_take_the_form_that_the_server_wants() {
    let header = |keys: &[(&str, &str)], purpose| {
        SourceCredential::from_secret(&secret(keys)).unwrap().authorization(purpose).expose().to_owned()
    };
    assert_eq!(header(&[("token", "t")], Purpose::Git), "Basic Z2l0OnQ=");
    assert_eq!(header(&[("token", "t")], Purpose::Download), "Bearer t");
    assert_eq!(header(&[("bearerToken", "t")], Purpose::Git), "Bearer t");
    assert_eq!(header(&[("username", "me"), ("token", "t")], Purpose::Download), "Basic bWU6dA==");
    assert_eq!(header(&[("password", "t")], Purpose::Git), "Basic Z2l0OnQ=");
}

#[test]
fn useless_secrets_are_refused_by_key() {
    for (keys, error) in [
        (&[][..], CredentialError::NoKeys),
        (&[("identity", "k")], CredentialError::Ssh),
        (&[("token", "")], CredentialError::Value("token")),
        (&[("username", "a:b"), ("password", "p")], CredentialError::Value("username")),
        (&[("password", "a\nb")], CredentialError::Value("password")),
    ] {
        assert_eq!(SourceCredential::from_secret(&secret(keys)), Err(error));
    }
}

#[test]
fn config_map_digests_keep_keys_and_values_apart() {
    let digest = config_map_digest(&secret(&[("a", "bc"), ("d", "")]));
    assert_eq!(digest, config_map_digest(&secret(&[("d", ""), ("a", "bc")])));
    assert_ne!(digest, config_map_digest(&secret(&[("ab", "c"), ("d", "")])));
    assert_eq!(config_map_digest(&BTreeMap::new()), Digest::of(b"minimalimage configmap 1\n"));
}

#[test]
fn close_names_are_suggested() {
    let names = ["cmd", "docs", "server", "web"];
    assert_eq!(close_names("sever", names.into_iter()), ["server"]);
    assert_eq!(close_names("zzzzzz", names.into_iter()), ["cmd", "docs", "server", "web"]);
}

#[test]
fn repositories_are_found_again_behind_redirects() {
    let url = SourceUrl::parse("https://h/a/b.git/?x=1").unwrap();
    let refs = url.further("info/refs", Some("service=x"));
    assert_eq!(refs.as_url().as_str(), "https://h/a/b.git/info/refs?service=x");
    assert_eq!(refs.nearer("info/refs").unwrap().as_url().as_str(), "https://h/a/b.git");
    assert_eq!(url.nearer("info/refs"), None);
    assert_eq!(url.redirect("/c").unwrap().to_string(), "https://h/c");
    assert!(url.is_downgrade(&SourceUrl::parse("http://h/a").unwrap()));
}
