//! The registry client against a registry in memory that can misbehave.

// Helpers outside of test functions, which clippy's exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/registry.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::Method;
use bytes::Bytes;
use minimalimage::{
    api::conditions::Reason,
    domain::{
        credentials::{Credential, Keychain},
        media_type,
        task::{Network, RegistrySettings},
        value::{Descriptor, Digest, Platform, Secret},
    },
    shell::registry::{Client, Registry, RegistryError, RetryPolicy, Transfer},
};
use support::{Auth, IDENTITY_TOKEN, TestRegistry, TokenServer, basic, loopback};

const MIB: usize = 1 << 20;

/// Short delays, so that nothing is waited for.
fn quick() -> RetryPolicy {
    RetryPolicy {
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(5),
        ..RetryPolicy::default()
    }
}

fn registry(network: &Network) -> Registry {
    Registry::new(network).unwrap().tuned(quick(), std::env::temp_dir())
}

fn anonymous() -> Client {
    registry(&loopback()).with(Keychain::default())
}

fn password(host: &str) -> Keychain {
    Keychain::single(host, Credential::Basic { username: "user".into(), password: Secret::new("pass") })
}

fn as_user(server: &TestRegistry) -> Client {
    registry(&loopback()).with(password(&server.host()))
}

async fn with_tokens() -> (Arc<TestRegistry>, Arc<TokenServer>) {
    let tokens = TokenServer::start("user", "pass").await;
    (TestRegistry::start(Auth::Bearer(Arc::clone(&tokens))).await, tokens)
}

/// Bytes that differ everywhere, so that pieces in a wrong place are found.
fn layer(size: usize) -> Bytes {
    let words = (0..size.div_ceil(8) as u64).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(size).collect()
}

fn descriptor(bytes: &Bytes) -> Descriptor {
    Descriptor { media_type: "application/octet-stream".into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn manifest(config: &Bytes, layers: &[&Bytes]) -> Bytes {
    let layers: Vec<Descriptor> = layers.iter().map(|layer| descriptor(layer)).collect();
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": descriptor(config), "layers": layers
    });
    json.to_string().into()
}

fn config(architecture: &str) -> Bytes {
    format!(r#"{{"os":"linux","architecture":"{architecture}"}}"#).into()
}

fn index(entries: &[(&str, Digest, Option<&str>)]) -> Bytes {
    let entry = |(media_type, digest, platform): &(&str, Digest, Option<&str>)| {
        let mut entry = serde_json::json!({"mediaType": media_type, "digest": digest, "size": 1});
        if let Some(platform) = platform {
            let platform: Platform = platform.parse().unwrap();
            entry["platform"] = serde_json::json!({
                "os": platform.os, "architecture": platform.architecture, "variant": platform.variant
            });
        }
        entry
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries}).to_string().into()
}

/// An image for `architecture` in `app`, tagged with it.
fn put_image(server: &TestRegistry, architecture: &str) -> Digest {
    let config = config(architecture);
    let manifest = manifest(&config, &[&layer(10), &layer(20)]);
    server.put_blob("app", config);
    server.put_manifest("app", architecture, media_type::MANIFEST, manifest)
}

async fn upload(client: &Client, server: &TestRegistry, bytes: &Bytes) -> Result<(), RegistryError> {
    let mut upload = client.upload(&server.repository("app"))?;
    for piece in bytes.chunks(1_000_003) {
        upload.write(piece).await?;
    }
    let pushed = upload.finish(Digest::of(bytes)).await?;
    assert_eq!((pushed.digest, pushed.size), (Digest::of(bytes), bytes.len() as u64));
    Ok(())
}

async fn read_all(client: &Client, server: &TestRegistry, bytes: &Bytes) -> Result<Vec<u8>, RegistryError> {
    let mut blob = client.blob(&server.repository("app"), Digest::of(bytes), bytes.len() as u64).await?;
    let mut read = Vec::new();
    while let Some(piece) = blob.next().await? {
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

mod reading {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_a_value_and_not_an_error() {
        let server = TestRegistry::open().await;
        let client = anonymous();
        assert_eq!(client.manifest(&server.reference("app:1")).await.unwrap(), None);
        assert_eq!(client.head(&server.reference("app:1")).await.unwrap(), None);
        assert!(!client.has_blob(&server.repository("app"), Digest::of(b"x")).await.unwrap());
        assert!(client.resolve(&server.reference("app:1"), &Platform::linux("amd64")).await.unwrap().is_none());
        let error = client.blob_bytes(&server.repository("app"), Digest::of(b"x"), 1).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ImageNotFound);
        assert!(
            error.to_string().contains("app@sha256:") && error.to_string().contains("BLOB_UNKNOWN in words"),
            "{error}"
        );
        assert!(!error.to_string().contains("hidden"), "{error}");
    }

    #[tokio::test]
    async fn digests_are_computed_and_pins_are_checked() {
        let server = TestRegistry::open().await;
        let digest = put_image(&server, "amd64");
        let client = anonymous();
        let found = client.manifest(&server.reference("app:amd64")).await.unwrap().unwrap();
        assert_eq!((found.digest, found.media_type.as_str()), (digest, media_type::MANIFEST));
        assert_eq!(client.head(&server.reference("app:amd64")).await.unwrap(), Some(found.descriptor()));
        server.faults().no_digest_header = true;
        assert_eq!(client.head(&server.reference("app:amd64")).await.unwrap(), Some(found.descriptor()));
        // A registry in between that serves other bytes under the digest.
        let pinned = Digest::of(b"something else");
        let other = axum::Router::new().fallback(move || async { "{}" });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, other).await.unwrap() });
        let reference = format!("{host}/app@{pinned}").parse().unwrap();
        assert_eq!(client.manifest(&reference).await.unwrap_err().reason(), Reason::RegistryInvalid);
    }

    #[tokio::test]
    async fn huge_manifests_are_refused() {
        let server = TestRegistry::open().await;
        server.put_manifest("app", "big", media_type::MANIFEST, vec![b' '; 4 * MIB + 1]);
        let error = anonymous().manifest(&server.reference("app:big")).await.unwrap_err();
        assert!(error.to_string().contains("larger than 4 MiB"), "{error}");
    }

    #[tokio::test]
    async fn old_manifests_are_refused_by_name() {
        let server = TestRegistry::open().await;
        server.put_manifest(
            "app",
            "old",
            "application/vnd.docker.distribution.manifest.v1+json",
            r#"{"schemaVersion":1}"#,
        );
        let error = anonymous().manifest(&server.reference("app:old")).await.unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
    }

    #[tokio::test]
    async fn blobs_with_other_bytes_are_refused_before_their_last_piece() {
        let server = TestRegistry::open().await;
        let bytes = layer(3 * MIB);
        server.put_blob("app", bytes.clone());
        server.faults().wrong_bytes = true;
        let mut blob =
            anonymous().blob(&server.repository("app"), Digest::of(&bytes), bytes.len() as u64).await.unwrap();
        let mut received = 0;
        let error = loop {
            match blob.next().await {
                Ok(piece) => received += piece.expect("not the end").len(),
                Err(error) => break error,
            }
        };
        assert!(received < bytes.len());
        assert_eq!(error.reason(), Reason::RegistryInvalid);
    }

    #[tokio::test]
    async fn blobs_of_another_size_are_refused() {
        let server = TestRegistry::open().await;
        let bytes = layer(1000);
        let digest = server.put_blob("app", bytes.clone());
        let repository = server.repository("app");
        let client = anonymous();
        for size in [999, 1001] {
            assert_eq!(client.blob(&repository, digest, size).await.err().unwrap().reason(), Reason::RegistryInvalid);
        }
        assert_eq!(client.blob_bytes(&repository, digest, 999).await.unwrap_err().reason(), Reason::RegistryInvalid);
        assert_eq!(client.blob_bytes(&repository, digest, 1000).await.unwrap(), bytes);
        server.faults().short_blobs = true;
        assert_eq!(read_all(&client, &server, &bytes).await.unwrap_err().reason(), Reason::RegistryInvalid);
        assert_eq!(client.blob_bytes(&repository, digest, 1000).await.unwrap_err().reason(), Reason::RegistryInvalid);
    }

    #[tokio::test]
    async fn broken_reads_go_on_where_they_broke() {
        for no_ranges in [false, true] {
            let server = TestRegistry::open().await;
            let bytes = layer(2 * MIB);
            server.put_blob("app", bytes.clone());
            *server.faults() = support::Faults { cut_blob_after: Some(MIB + 7), no_ranges, ..Default::default() };
            assert_eq!(read_all(&anonymous(), &server, &bytes).await.unwrap(), bytes);
            let ranges: Vec<_> =
                server.log().into_iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
            assert_eq!(ranges.len(), 1, "one request for the rest");
        }
    }

    #[tokio::test]
    async fn redirected_blobs_are_followed_without_credentials() {
        let (server, _) = with_tokens().await;
        let storage = TestRegistry::open().await;
        let bytes = layer(1000);
        storage.put_blob("app", bytes.clone());
        server.faults().redirect_blobs = Some(format!("http://{}", storage.host()));
        assert_eq!(read_all(&as_user(&server), &server, &bytes).await.unwrap(), bytes);
        let seen = storage.log();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].authorization, None);
        assert!(seen[0].target.ends_with("?signature=1"));
    }

    #[tokio::test]
    async fn redirects_end_and_do_not_reach_refused_addresses() {
        let server = TestRegistry::open().await;
        server.faults().redirect_blobs = Some(format!("http://{}", server.host()));
        let bytes = layer(10);
        let error = read_all(&anonymous(), &server, &bytes).await.unwrap_err();
        assert!(error.to_string().contains("more than five times"), "{error}");
        server.faults().redirect_blobs = Some("http://169.254.169.254".into());
        let error = read_all(&anonymous(), &server, &bytes).await.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("--allow-address-range"));
    }

    #[tokio::test]
    async fn loopback_registries_are_refused_by_default() {
        let server = TestRegistry::open().await;
        let client = registry(&Network::default()).with(Keychain::default());
        let error = client.manifest(&server.reference("app:1")).await.unwrap_err();
        assert!(matches!(error, RegistryError::AddressRefused { .. }), "{error}");
        assert!(server.log().is_empty());
    }

    #[tokio::test]
    async fn mirrors_are_asked_first_and_passed_over() {
        let server = TestRegistry::open().await;
        let digest = put_image(&server, "amd64");
        let [full, empty, broken] =
            [TestRegistry::open().await, TestRegistry::open().await, TestRegistry::open().await];
        full.put_manifest("hub/app", "amd64", media_type::MANIFEST, server.manifest("app", "amd64").unwrap());
        full.put_blob("hub/app", config("amd64"));
        broken.faults().answers = vec![(Method::GET, 500, 99, None), (Method::HEAD, 500, 99, None)];
        let mut network = loopback();
        let mirrors = vec![empty.host(), broken.host(), format!("{}/hub", full.host())];
        network.registries.insert(server.host(), RegistrySettings { mirrors, ..RegistrySettings::default() });
        let client = registry(&network).with(password(&server.host()));
        let reference = server.reference("app:amd64");
        let image = client.resolve(&reference, &Platform::linux("amd64")).await.unwrap().unwrap();
        assert_eq!(image.reference_digest, digest);
        assert!(server.log().is_empty(), "the registry itself is not needed");
        assert_eq!(broken.count(&Method::GET, "manifests"), 1, "a mirror is asked once");
        assert!(full.log().iter().all(|seen| seen.authorization.is_none() && seen.target.contains("ns=")));
        // A write goes to the registry itself.
        client.push_bytes(&server.repository("app"), layer(5)).await.unwrap();
        assert_eq!(full.writes() + empty.writes() + broken.writes(), 0);
    }

    #[tokio::test]
    async fn a_lying_mirror_is_passed_over_for_pinned_manifests() {
        let server = TestRegistry::open().await;
        let digest = put_image(&server, "amd64");
        let other = axum::Router::new().fallback(|| async { r#"{"schemaVersion":2}"# });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirrors = vec![listener.local_addr().unwrap().to_string()];
        tokio::spawn(async move { axum::serve(listener, other).await.unwrap() });
        let mut network = loopback();
        network.registries.insert(server.host(), RegistrySettings { mirrors, ..RegistrySettings::default() });
        let pinned = server.repository("app").pinned(digest);
        let found = registry(&network).with(Keychain::default()).manifest(&pinned).await.unwrap().unwrap();
        assert_eq!(found.digest, digest);
    }
}

mod retrying {
    use super::*;

    #[tokio::test]
    async fn server_errors_are_tried_again_until_they_end() {
        let server = TestRegistry::open().await;
        put_image(&server, "amd64");
        server.faults().answers = vec![(Method::GET, 503, 2, None)];
        assert!(anonymous().manifest(&server.reference("app:amd64")).await.unwrap().is_some());
        assert_eq!(server.count(&Method::GET, "manifests"), 3);
    }

    #[tokio::test]
    async fn retries_are_bounded_and_the_error_says_when() {
        let server = TestRegistry::open().await;
        server.faults().answers = vec![(Method::GET, 500, 99, None)];
        let error = anonymous().manifest(&server.reference("app:1")).await.unwrap_err();
        assert_eq!((error.reason(), error.is_retryable()), (Reason::RegistryUnavailable, true));
        assert_eq!(server.count(&Method::GET, "manifests"), 6);
        server.faults().answers = vec![(Method::GET, 429, 99, Some(3600))];
        server.forget_log();
        let error = anonymous().manifest(&server.reference("app:1")).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
        assert_eq!(server.count(&Method::GET, "manifests"), 1, "an hour is not waited for");
    }

    #[tokio::test]
    async fn retry_after_is_waited_for() {
        let server = TestRegistry::open().await;
        put_image(&server, "amd64");
        server.faults().answers = vec![(Method::GET, 429, 1, Some(1))];
        let start = Instant::now();
        assert!(anonymous().manifest(&server.reference("app:amd64")).await.unwrap().is_some());
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn refused_requests_are_not_tried_again() {
        let server = TestRegistry::open().await;
        for (status, reason) in
            [(400, Reason::RegistryInvalid), (403, Reason::RegistryAccessDenied), (451, Reason::RegistryInvalid)]
        {
            server.faults().answers = vec![(Method::GET, status, 1, None)];
            let error = anonymous().manifest(&server.reference("app:1")).await.unwrap_err();
            assert_eq!((error.reason(), error.is_retryable()), (reason, false), "{status}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unavailable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reference = format!("{}/app:1", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = anonymous().manifest(&reference).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryUnavailable);
        assert!(error.to_string().contains("/app:1"), "{error}");
    }
}

mod authorization {
    use super::*;

    #[tokio::test]
    async fn basic_is_sent_after_it_was_asked_for() {
        let server = TestRegistry::start(Auth::Basic { user: "user".into(), password: "pass".into() }).await;
        put_image(&server, "amd64");
        let client = as_user(&server);
        for _ in 0..2 {
            assert!(client.manifest(&server.reference("app:amd64")).await.unwrap().is_some());
        }
        let sent: Vec<_> = server.log().into_iter().map(|seen| seen.authorization).collect();
        let header = Some(basic("user", "pass"));
        assert_eq!(sent, [None, header.clone(), header]);
    }

    #[tokio::test]
    async fn missing_and_wrong_credentials_are_told_apart() {
        let server = TestRegistry::start(Auth::Basic { user: "user".into(), password: "other".into() }).await;
        let error = anonymous().manifest(&server.reference("app:1")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryAccessDenied);
        assert!(error.to_string().contains("refuses anonymous access"), "{error}");
        let error = as_user(&server).manifest(&server.reference("app:1")).await.unwrap_err();
        assert!(error.to_string().contains("refuses the credentials"), "{error}");
        assert_eq!(server.log().len(), 3, "a refused password is not sent twice");
    }

    #[tokio::test]
    async fn the_token_server_named_by_the_registry_gets_the_password_and_the_registry_the_token() {
        let (server, tokens) = with_tokens().await;
        put_image(&server, "amd64");
        let client = as_user(&server);
        for _ in 0..2 {
            assert!(client.manifest(&server.reference("app:amd64")).await.unwrap().is_some());
        }
        let seen = tokens.seen();
        assert_eq!(seen.len(), 1, "the second request uses the same token");
        assert_eq!(seen[0].authorization, Some(basic("user", "pass")));
        assert!(seen[0].target.contains("kept=1,2") || seen[0].target.contains("kept=1%2C2"), "{}", seen[0].target);
        assert!(seen[0].target.contains("service=test+service"), "{}", seen[0].target);
        assert!(seen[0].target.contains("scope=repository%3Aapp%3Apull"), "{}", seen[0].target);
        let sent: Vec<_> = server.log().into_iter().map(|seen| seen.authorization).collect();
        let token = Some("Bearer token-1".to_owned());
        assert_eq!(sent, [None, token.clone(), token]);
    }

    #[tokio::test]
    async fn anonymous_tokens_read_what_is_public() {
        let (server, tokens) = with_tokens().await;
        server.put_manifest("public", "1", media_type::MANIFEST, "{}");
        let client = anonymous();
        assert!(client.manifest(&server.reference("public:1")).await.unwrap().is_some());
        assert_eq!(tokens.seen()[0].authorization, None);
        let error = client.manifest(&server.reference("private:1")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryAccessDenied);
    }

    #[tokio::test]
    async fn identity_tokens_are_exchanged_by_post() {
        let (server, tokens) = with_tokens().await;
        put_image(&server, "amd64");
        let credential = Credential::IdentityToken(Secret::new(IDENTITY_TOKEN));
        let client = registry(&loopback()).with(Keychain::single(&server.host(), credential));
        assert!(client.manifest(&server.reference("app:amd64")).await.unwrap().is_some());
        let seen = tokens.seen();
        assert_eq!((seen.len(), &seen[0].method, &seen[0].authorization), (1, &Method::POST, &None));
        assert!(seen[0].target.contains("grant_type=refresh_token"), "{}", seen[0].target);
    }

    #[tokio::test]
    async fn tokens_are_shared_by_equal_credentials_only() {
        let (server, tokens) = with_tokens().await;
        put_image(&server, "amd64");
        let registry = registry(&loopback());
        let reference = server.reference("app:amd64");
        for _ in 0..2 {
            assert!(registry.with(password(&server.host())).head(&reference).await.unwrap().is_some());
        }
        assert_eq!(tokens.seen().len(), 1);
        let other = Credential::Basic { username: "user".into(), password: Secret::new("wrong") };
        let other = registry.with(Keychain::single(&server.host(), other));
        assert_eq!(other.head(&reference).await.unwrap_err().reason(), Reason::RegistryAccessDenied);
        assert_eq!(
            registry.with(Keychain::default()).head(&reference).await.unwrap_err().reason(),
            Reason::RegistryAccessDenied
        );
    }

    #[tokio::test]
    async fn many_requests_at_once_fetch_one_token() {
        let (server, tokens) = with_tokens().await;
        put_image(&server, "amd64");
        let client = as_user(&server);
        let reference = server.reference("app:amd64");
        let all = futures::future::join_all((0..20).map(|_| client.manifest(&reference))).await;
        assert!(all.into_iter().all(|found| found.unwrap().is_some()));
        assert_eq!(tokens.seen().len(), 1);
    }

    #[tokio::test]
    async fn requests_one_after_another_share_a_connection() {
        let (server, _) = with_tokens().await;
        let bytes = layer(MIB);
        server.put_blob("app", bytes.clone());
        let client = as_user(&server);
        assert_eq!(client.manifest(&server.reference("app:missing")).await.unwrap(), None);
        assert_eq!(read_all(&client, &server, &bytes).await.unwrap(), bytes);
        upload(&client, &server, &layer(10 * MIB)).await.unwrap();
        client.push_manifest(&server.reference("app:1"), media_type::MANIFEST, manifest(&bytes, &[])).await.unwrap();
        assert_eq!(server.connections(), 1);
    }

    #[tokio::test]
    async fn credentials_of_one_host_do_not_go_to_another() {
        let [one, other] = [TestRegistry::start(Auth::default()).await, with_tokens().await.0];
        let error = as_user(&one).manifest(&other.reference("app:1")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryAccessDenied);
        assert!(
            other.log().iter().all(|seen| seen.authorization.as_deref().is_none_or(|sent| sent.starts_with("Bearer")))
        );
    }

    #[tokio::test]
    async fn an_ended_token_is_renewed_in_the_middle_of_an_upload() {
        let (server, tokens) = with_tokens().await;
        server.faults().revoke_before_patch = Some(2);
        let bytes = layer(20 * MIB);
        upload(&as_user(&server), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
        assert_eq!(tokens.seen().len(), 2);
        assert_eq!(server.count(&Method::PATCH, "uploads"), 3, "two chunks and the one that was refused");
    }
}

mod resolving {
    use super::*;

    fn amd64() -> Platform {
        Platform::linux("amd64")
    }

    #[tokio::test]
    async fn a_single_manifest_must_fit_the_platform() {
        let server = TestRegistry::open().await;
        let digest = put_image(&server, "amd64");
        let client = anonymous();
        let image = client.resolve(&server.reference("app:amd64"), &amd64()).await.unwrap().unwrap();
        assert_eq!((image.reference_digest, image.manifest.digest), (digest, digest));
        assert_eq!((image.config, image.compressed_size, image.layers.len()), (config("amd64"), 30, 2));
        let error = client.resolve(&server.reference("app:amd64"), &Platform::linux("arm64")).await.unwrap_err();
        assert!(error.to_string().contains("image for linux/amd64, not for linux/arm64"), "{error}");
    }

    #[tokio::test]
    async fn the_best_variant_is_chosen_and_documents_are_not() {
        let server = TestRegistry::open().await;
        let [arm, amd64_image] = ["arm", "amd64"].map(|architecture| put_image(&server, architecture));
        let other = Digest::of(b"never fetched");
        let entries = [
            (media_type::MANIFEST, other, Some("linux/arm/v5")),
            (media_type::MANIFEST, other, Some("windows/amd64")),
            (media_type::MANIFEST, other, Some("unknown/unknown")),
            (media_type::DOCKER_MANIFEST, arm, Some("linux/arm/v6")),
            (media_type::MANIFEST, amd64_image, Some("linux/amd64")),
        ];
        let top = server.put_manifest("app", "all", media_type::INDEX, index(&entries));
        let client = anonymous();
        let reference = server.reference("app:all");
        let image = client.resolve(&reference, &"linux/arm/v7".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((image.reference_digest, image.manifest.digest), (top, arm));
        let error = client.resolve(&reference, &Platform::linux("s390x")).await.unwrap_err();
        let expected =
            "no image for linux/s390x in it, only for: linux/amd64, linux/arm/v5, linux/arm/v6, windows/amd64";
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[tokio::test]
    async fn three_nested_indexes_are_followed_and_four_are_not() {
        let server = TestRegistry::open().await;
        let mut inner = (media_type::MANIFEST, put_image(&server, "amd64"), Some("linux/amd64"));
        let image = inner.1;
        for level in 1..=4 {
            let digest = server.put_manifest("app", &level.to_string(), media_type::INDEX, index(&[inner]));
            inner = (media_type::INDEX, digest, None);
        }
        let client = anonymous();
        let found = client.resolve(&server.reference("app:3"), &amd64()).await.unwrap().unwrap();
        assert_eq!(found.manifest.digest, image);
        let error = client.resolve(&server.reference("app:4"), &amd64()).await.unwrap_err();
        assert!(error.to_string().contains("nested"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_image_is_refused() {
        let server = TestRegistry::open().await;
        server.put_manifest("app", "text", "text/plain", r#"{"mediaType":"text/plain"}"#);
        server.put_manifest("app", "list", "application/json", "[]");
        server.put_manifest("app", "empty", media_type::MANIFEST, "{}");
        for tag in ["text", "list", "empty"] {
            let error = anonymous().resolve(&server.reference(&format!("app:{tag}")), &amd64()).await.unwrap_err();
            assert_eq!(error.reason(), Reason::RegistryInvalid, "{tag}");
        }
    }
}

mod uploading {
    use super::*;

    #[tokio::test]
    async fn small_blobs_are_one_put_and_present_ones_nothing() {
        let server = TestRegistry::open().await;
        let bytes = layer(MIB);
        let client = anonymous();
        upload(&client, &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes.clone()));
        assert_eq!((server.writes(), server.count(&Method::PATCH, "")), (2, 0));
        server.forget_log();
        upload(&client, &server, &bytes).await.unwrap();
        assert_eq!(server.writes(), 0);
    }

    #[tokio::test]
    async fn layers_go_in_chunks_under_any_kind_of_location() {
        for absolute_location in [false, true] {
            let server = TestRegistry::open().await;
            server.faults().absolute_location = absolute_location;
            let bytes = layer(20 * MIB + 3);
            upload(&anonymous(), &server, &bytes).await.unwrap();
            assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
            let lengths: Vec<_> = server.log().iter().map(|seen| (seen.method.clone(), seen.length)).collect();
            let [post, patch, put] = [Method::POST, Method::PATCH, Method::PUT];
            let chunk = (patch, 8 * MIB);
            assert_eq!(lengths, [(post, 0), chunk.clone(), chunk, (put, 4 * MIB + 3)]);
            assert_eq!(server.open_uploads(), 0);
        }
    }

    #[tokio::test]
    async fn a_layer_of_whole_chunks_ends_with_an_empty_put() {
        let server = TestRegistry::open().await;
        let bytes = layer(16 * MIB);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
    }

    #[tokio::test]
    async fn a_broken_chunk_goes_on_where_it_broke() {
        let server = TestRegistry::open().await;
        server.faults().cut_patch_after = Some(3 * MIB + 1);
        let bytes = layer(20 * MIB);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
        let patched: usize =
            server.log().iter().filter(|seen| seen.method == Method::PATCH).map(|seen| seen.length).sum();
        assert_eq!(patched, 16 * MIB, "nothing was sent twice");
        assert_eq!(server.open_uploads(), 0);
    }

    #[tokio::test]
    async fn the_registry_says_how_much_of_a_chunk_it_has() {
        let faults = || support::Faults::default();
        for faults in [
            support::Faults { keep_of_patch: Some(MIB), ..faults() },
            support::Faults { lose_patch_answer: true, ..faults() },
            support::Faults { answers: vec![(Method::PATCH, 416, 1, None)], ..faults() },
        ] {
            let server = TestRegistry::open().await;
            *server.faults() = faults;
            let bytes = layer(20 * MIB);
            upload(&anonymous(), &server, &bytes).await.unwrap();
            assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
            let empty = server
                .log()
                .into_iter()
                .any(|seen| seen.method == Method::PATCH && seen.headers["content-length"] == "0");
            assert!(!empty, "what is there already is not sent again");
        }
    }

    #[tokio::test]
    async fn a_broken_last_chunk_goes_on_where_it_broke() {
        let server = TestRegistry::open().await;
        server.faults().cut_put_after = Some(MIB);
        let bytes = layer(10 * MIB);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
    }

    #[tokio::test]
    async fn a_lost_answer_to_the_last_put_is_no_failure() {
        for size in [MIB, 10 * MIB] {
            let server = TestRegistry::open().await;
            server.faults().lose_put_answer = true;
            let bytes = layer(size);
            upload(&anonymous(), &server, &bytes).await.unwrap();
            assert_eq!(server.count(&Method::PUT, "uploads"), 1);
        }
    }

    #[tokio::test]
    async fn overloaded_registries_get_the_chunk_again() {
        let server = TestRegistry::open().await;
        server.faults().answers = vec![(Method::PATCH, 503, 2, None), (Method::PUT, 429, 1, Some(0))];
        let bytes = layer(20 * MIB);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
    }

    #[tokio::test]
    async fn a_session_forgotten_early_is_opened_again_and_later_it_is_lost() {
        let server = TestRegistry::open().await;
        let bytes = layer(20 * MIB);
        server.faults().forget_before_patch = Some(1);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        let server = TestRegistry::open().await;
        server.faults().forget_before_patch = Some(2);
        let error = upload(&anonymous(), &server, &bytes).await.unwrap_err();
        assert!(matches!(error, RegistryError::UploadLost { .. }), "{error:?}");
        assert!(error.is_retryable());
    }

    #[tokio::test]
    async fn chunks_are_as_large_as_the_registry_wants() {
        let server = TestRegistry::open().await;
        server.faults().minimum_chunk = Some(12 * MIB);
        for size in [10 * MIB, 30 * MIB] {
            let bytes = layer(size);
            upload(&anonymous(), &server, &bytes).await.unwrap();
            assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
        }
    }

    #[tokio::test]
    async fn registries_without_chunks_get_one_put_from_the_disk() {
        for (no_patch, minimum_chunk) in [(true, None), (false, Some(1000 * MIB))] {
            let server = TestRegistry::open().await;
            *server.faults() = support::Faults { no_patch, minimum_chunk, ..Default::default() };
            let spool = tempfile::tempdir().unwrap();
            let client =
                Registry::new(&loopback()).unwrap().tuned(quick(), spool.path().into()).with(Keychain::default());
            let bytes = layer(20 * MIB + 3);
            upload(&client, &server, &bytes).await.unwrap();
            assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes.clone()));
            let put = server.log().into_iter().find(|seen| seen.method == Method::PUT).unwrap();
            assert_eq!(put.length, bytes.len());
            assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn the_spooled_put_is_sent_again_when_it_breaks() {
        let server = TestRegistry::open().await;
        *server.faults() = support::Faults { no_patch: true, cut_put_after: Some(9 * MIB), ..Default::default() };
        let bytes = layer(20 * MIB);
        upload(&anonymous(), &server, &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
    }

    #[tokio::test]
    async fn another_digest_is_refused() {
        for size in [MIB, 10 * MIB] {
            let server = TestRegistry::open().await;
            let mut upload = anonymous().upload(&server.repository("app")).unwrap();
            upload.write(&layer(size)).await.unwrap();
            let error = upload.finish(Digest::of(b"other")).await.unwrap_err();
            assert_eq!(error.reason(), Reason::RegistryInvalid);
            assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
        }
    }

    #[tokio::test]
    async fn cancelled_and_dropped_uploads_leave_no_session() {
        let server = TestRegistry::open().await;
        for cancel in [true, false] {
            let mut upload = anonymous().upload(&server.repository("app")).unwrap();
            upload.write(&layer(17 * MIB)).await.unwrap();
            assert_eq!(server.open_uploads(), 1);
            if cancel {
                upload.cancel().await;
            } else {
                drop(upload);
            }
            let gone = async {
                while server.open_uploads() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
        }
    }
}

mod copying {
    use super::*;

    async fn transfer(
        from: (&Client, &TestRegistry, &str),
        to: (&Client, &TestRegistry),
        bytes: &Bytes,
    ) -> Result<Transfer, RegistryError> {
        let (source, source_server, path) = from;
        let (from, to_repository) = (source_server.repository(path), to.1.repository("app"));
        to.0.mount_or_copy(source, &from, &to_repository, &descriptor(bytes)).await
    }

    #[tokio::test]
    async fn blobs_are_left_mounted_or_copied_in_this_order() {
        let (server, tokens) = with_tokens().await;
        let client = as_user(&server);
        let bytes = layer(3 * MIB);
        server.put_blob("base", bytes.clone());
        assert_eq!(transfer((&client, &server, "base"), (&client, &server), &bytes).await.unwrap(), Transfer::Mounted);
        assert_eq!(transfer((&client, &server, "base"), (&client, &server), &bytes).await.unwrap(), Transfer::Present);
        let scopes = tokens.seen().last().unwrap().target.clone();
        assert!(scopes.contains("scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull"), "{scopes}");
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
    }

    #[tokio::test]
    async fn a_refused_mount_is_copied_into_the_session_that_it_opened() {
        let server = TestRegistry::open().await;
        server.faults().no_mount = true;
        let bytes = layer(3 * MIB);
        server.put_blob("base", bytes.clone());
        let client = anonymous();
        let copied = transfer((&client, &server, "base"), (&client, &server), &bytes).await.unwrap();
        assert_eq!(copied, Transfer::Copied { bytes: bytes.len() as u64 });
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
        assert_eq!((server.count(&Method::POST, ""), server.open_uploads()), (1, 0));
    }

    #[tokio::test]
    async fn other_registries_are_copied_from_with_their_own_credentials() {
        let source = TestRegistry::start(Auth::Basic { user: "user".into(), password: "pass".into() }).await;
        let server = TestRegistry::open().await;
        let bytes = layer(3 * MIB);
        source.put_blob("base", bytes.clone());
        let copied = transfer((&as_user(&source), &source, "base"), (&anonymous(), &server), &bytes).await.unwrap();
        assert_eq!(copied, Transfer::Copied { bytes: bytes.len() as u64 });
        assert_eq!(server.count(&Method::POST, "mount"), 0);
        assert!(server.log().iter().all(|seen| seen.authorization.is_none()));
    }

    #[tokio::test]
    async fn broken_copies_are_done_again_from_either_end() {
        let [source, server] = [TestRegistry::open().await, TestRegistry::open().await];
        source.faults().cut_blob_after = Some(MIB);
        server.faults().cut_put_after = Some(2 * MIB);
        let bytes = layer(5 * MIB);
        source.put_blob("base", bytes.clone());
        let client = anonymous();
        transfer((&client, &source, "base"), (&client, &server), &bytes).await.unwrap();
        assert_eq!(server.blob("app", Digest::of(&bytes)), Some(bytes));
        assert_eq!(server.open_uploads(), 0);
    }

    #[tokio::test]
    async fn a_source_that_fails_is_named() {
        let [source, server] = [TestRegistry::open().await, TestRegistry::open().await];
        let bytes = layer(5 * MIB);
        let client = anonymous();
        let error = transfer((&client, &source, "base"), (&client, &server), &bytes).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }) && error.to_string().contains("/base@"), "{error}");
        source.put_blob("base", bytes.clone());
        source.faults().wrong_bytes = true;
        let error = transfer((&client, &source, "base"), (&client, &server), &bytes).await.unwrap_err();
        assert!(error.reason() == Reason::RegistryInvalid && error.to_string().contains("/base@"), "{error}");
        assert_eq!(server.blob("app", Digest::of(&bytes)), None);
    }
}

mod manifests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_that_is_there_is_not_written_again() {
        let server = TestRegistry::open().await;
        let client = anonymous();
        let bytes = manifest(&config("amd64"), &[]);
        let reference = server.reference("app:1");
        assert!(client.push_manifest(&reference, media_type::MANIFEST, bytes.clone()).await.unwrap().written);
        assert_eq!(server.manifest("app", "1"), Some(bytes.clone()));
        server.forget_log();
        assert!(!client.push_manifest(&reference, media_type::MANIFEST, bytes.clone()).await.unwrap().written);
        let pinned = server.repository("app").pinned(Digest::of(&bytes));
        assert!(!client.push_manifest(&pinned, media_type::MANIFEST, bytes.clone()).await.unwrap().written);
        assert_eq!(server.writes(), 0);
        let other = manifest(&config("arm64"), &[]);
        assert!(client.push_manifest(&reference, media_type::MANIFEST, other.clone()).await.unwrap().written);
        assert_eq!(
            client.push_manifest(&pinned, media_type::MANIFEST, other).await.unwrap_err().reason(),
            Reason::RegistryInvalid
        );
    }
}
