//! The registry client against a real registry: Debian's `docker-registry` (the CNCF distribution), on loopback.

// Helpers outside of test functions, which clippy's exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/distribution.rs"]
mod distribution;
#[path = "support/registry.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use distribution::Distribution;
use minimalimage::{
    api::conditions::Reason,
    domain::{
        credentials::{Credential, Keychain},
        media_type,
        value::{Descriptor, Digest, Platform, Repository, Secret},
    },
    shell::registry::{Client, Pushed, Registry, RegistryError, RetryPolicy, Transfer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MIB: usize = 1 << 20;
fn client(host: &str, with_password: bool) -> Client {
    let retry = RetryPolicy { first_delay: Duration::from_millis(20), ..RetryPolicy::default() };
    let registry = Registry::new(&support::loopback()).unwrap().tuned(retry, std::env::temp_dir());
    if with_password {
        let credential = Credential::Basic { username: "user".into(), password: Secret::new("pass") };
        registry.with(Keychain::single(host, credential))
    } else {
        registry.with(Keychain::default())
    }
}

fn layer(size: usize) -> Bytes {
    let words = (0..size.div_ceil(8) as u64).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(size).collect()
}

fn descriptor(bytes: &Bytes) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

async fn try_upload(client: &Client, repository: &Repository, bytes: &Bytes) -> Result<Pushed, RegistryError> {
    let mut upload = client.upload(repository)?;
    for piece in bytes.chunks(1_000_003) {
        upload.write(piece).await?;
    }
    upload.finish(Digest::of(bytes)).await
}

async fn upload(client: &Client, repository: &Repository, bytes: &Bytes) {
    try_upload(client, repository, bytes).await.unwrap();
}

/// Everything that the program does with a registry, in the order of a build.
async fn round_trip(with_password: bool) {
    let server = Distribution::start(with_password);
    let client = client(&server.host, with_password);
    let [base, app] = ["base", "team/app"].map(|path| server.repository(path));
    let (large, small) = (layer(20 * MIB + 3), layer(1000));
    upload(&client, &base, &large).await;
    upload(&client, &base, &small).await;

    assert_eq!(client.mount_or_copy(&client, &base, &app, &descriptor(&large)).await.unwrap(), Transfer::Mounted);
    assert_eq!(client.mount_or_copy(&client, &base, &app, &descriptor(&large)).await.unwrap(), Transfer::Present);
    assert!(!client.has_blob(&app, Digest::of(&small)).await.unwrap());

    let config = Bytes::from_static(br#"{"os":"linux","architecture":"amd64"}"#);
    assert!(client.push_bytes(&app, config.clone()).await.unwrap().written);
    assert!(!client.push_bytes(&app, config.clone()).await.unwrap().written);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": Descriptor { media_type: "application/vnd.oci.image.config.v1+json".into(), ..descriptor(&config) },
        "layers": [descriptor(&large)]
    });
    let manifest = Bytes::from(manifest.to_string());
    let tagged = app.tagged("1.0").unwrap();
    assert_eq!(client.head(&tagged).await.unwrap(), None);
    assert!(client.push_manifest(&tagged, media_type::MANIFEST, manifest.clone()).await.unwrap().written);
    assert!(!client.push_manifest(&tagged, media_type::MANIFEST, manifest.clone()).await.unwrap().written);

    let image = client.resolve(&tagged, &Platform::linux("amd64")).await.unwrap().unwrap();
    assert_eq!((image.reference_digest, image.config), (Digest::of(&manifest), config));
    assert_eq!(image.compressed_size, large.len() as u64);
    let mut blob = client.blob(&app, Digest::of(&large), large.len() as u64).await.unwrap();
    let mut read = Vec::new();
    while let Some(piece) = blob.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert_eq!(read, large);
}

#[tokio::test]
async fn an_open_registry_takes_and_gives_an_image() {
    Box::pin(round_trip(false)).await;
}

#[tokio::test]
async fn a_registry_with_a_password_takes_and_gives_an_image() {
    Box::pin(round_trip(true)).await;
}

#[tokio::test]
async fn a_registry_with_a_password_refuses_others() {
    let server = Distribution::start(true);
    let repository = server.repository("app");
    let wrong = Credential::Basic { username: "user".into(), password: Secret::new("wrong") };
    let wrong = Registry::new(&support::loopback()).unwrap().with(Keychain::single(&server.host, wrong));
    for client in [client(&server.host, false), wrong] {
        let error = client.push_bytes(&repository, layer(10)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RegistryAccessDenied, "{error}");
    }
}

#[tokio::test]
async fn blobs_are_copied_between_registries() {
    let [source, server] = [Distribution::start(true), Distribution::start(false)];
    let reader = client(&source.host, true);
    let bytes = layer(20 * MIB);
    let (from, to) = (source.repository("base"), server.repository("app"));
    upload(&reader, &from, &bytes).await;
    let writer = client(&server.host, false);
    let copied = writer.mount_or_copy(&reader, &from, &to, &descriptor(&bytes)).await.unwrap();
    assert_eq!(copied, Transfer::Copied { bytes: bytes.len() as u64 });
    assert_eq!(writer.blob_bytes(&to, Digest::of(&bytes), bytes.len() as u64).await.unwrap(), bytes);
}

/// Passes connections on to `host`, and cuts the one that has brought `limit` bytes, once.
async fn breaking_proxy(host: String, limit: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let left = Arc::new(std::sync::Mutex::new(Some(limit)));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (host, left) = (host.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let mut far = TcpStream::connect(host).await.unwrap();
                let (mut near_read, mut near_write) = near.split();
                let (mut far_read, mut far_write) = far.split();
                let up = async {
                    let mut piece = vec![0; 64 << 10];
                    while let Ok(length @ 1..) = near_read.read(&mut piece).await {
                        far_write.write_all(&piece[..length]).await?;
                        let mut left = left.lock().unwrap();
                        if let Some(rest) = *left {
                            *left = rest.checked_sub(length).filter(|rest| *rest > 0);
                            if left.is_none() {
                                break;
                            }
                        }
                    }
                    Err::<(), _>(std::io::Error::other("cut"))
                };
                let down = async { tokio::io::copy(&mut far_read, &mut near_write).await };
                tokio::select! { _ = up => {}, _ = down => {} }
            });
        }
    });
    address
}

/// This registry signs the offset into an upload's location, so that after half a chunk no location is valid any more, not
/// even to ask how much there is (2.8.2 logs "upload resumed at wrong offest"). Only a first chunk can be sent again.
#[tokio::test]
async fn a_broken_upload_goes_on_or_says_that_it_is_lost() {
    let server = Distribution::start(false);
    let bytes = layer(30 * MIB);
    for (number, (limit, is_lost)) in [(3 * MIB, false), (11 * MIB, true), (27 * MIB, true)].into_iter().enumerate() {
        let proxy = breaking_proxy(server.host.clone(), limit).await;
        let repository: Repository = format!("{proxy}/app{number}").parse().unwrap();
        let client = client(&proxy, false);
        let first = try_upload(&client, &repository, &bytes).await;
        assert_eq!(matches!(first, Err(RegistryError::UploadLost { .. })), is_lost, "{first:?}");
        if is_lost {
            upload(&client, &repository, &bytes).await;
        }
        let direct = server.repository(&format!("app{number}"));
        assert!(client.has_blob(&direct, Digest::of(&bytes)).await.unwrap());
    }
}
