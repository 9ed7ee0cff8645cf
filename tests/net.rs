//! Trust: which servers the one http client believes, over real TLS on loopback.

// Helpers outside of test functions, which clippy's exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/registry.rs"]
mod support;

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
};

use minimalimage::{
    api::conditions::Reason,
    domain::{
        credentials::Keychain,
        task::{Network, RegistrySettings},
    },
    shell::registry::{Registry, RegistryError},
};

/// A TLS server on loopback with a certificate of its own that knows nothing; its host and the certificate.
fn tls_server() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust the certificate ends here.
            if let Ok(1..) = stream.read(&mut [0; 4096]) {
                let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    (host, made.cert.pem())
}

async fn ask(network: &Network, host: &str) -> Result<bool, RegistryError> {
    let registry = Registry::new(network)
        .unwrap()
        .tuned(minimalimage::shell::registry::RetryPolicy { retries: 0, ..Default::default() }, std::env::temp_dir());
    let found = registry.with(Keychain::default()).manifest(&format!("{host}/app:1").parse().unwrap()).await?;
    Ok(found.is_some())
}

/// Settings under which `host` is https although it is this machine.
fn with_own_ca(host: &str, pem: &str) -> Network {
    let settings = RegistrySettings { ca_certificates: Some(pem.into()), ..RegistrySettings::default() };
    Network { registries: [(host.to_owned(), settings)].into(), ..support::loopback() }
}

fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

#[tokio::test]
async fn a_certificate_given_for_a_host_is_trusted_there_and_nowhere_else() {
    let [(host, pem), (_, other_pem)] = [tls_server(), tls_server()];
    assert!(!ask(&with_own_ca(&host, &pem), &host).await.unwrap());
    let error = ask(&with_own_ca(&host, &other_pem), &host).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    assert!(root_cause(&error).contains("certificate"), "{}", root_cause(&error));
}

#[tokio::test]
async fn a_certificate_given_for_all_servers_is_trusted_everywhere() {
    let [(host, pem), (_, other_pem)] = [tls_server(), tls_server()];
    // The host's own certificate is of no use here; it only makes the host https.
    let network = Network { ca_certificates: Some(pem), ..with_own_ca(&host, &other_pem) };
    assert!(!ask(&network, &host).await.unwrap());
}

#[tokio::test]
async fn a_registry_without_tls_is_recognized_and_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let error = ask(&with_own_ca(&host, &tls_server().1), &host).await.unwrap_err();
    assert!(error.to_string().contains("plainHttp: true") && !error.is_retryable(), "{error:?}");
}
