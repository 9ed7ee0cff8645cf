//! The environment of a step: what the container has, without what would make two runs differ.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// The host name that every step sees in its environment; the real one is the Pod's and differs in each run.
pub const HOST_NAME: &str = "build";
/// How variables of a build container begin that hold the secrets of single steps: no step sees them.
pub const SECRET_VARIABLE: &str = "MINIMALIMAGE_SECRET_";
/// Variables by which common tools find CA certificates; all of them replace the tool's own, except Node's, which adds.
pub const CA_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NODE_EXTRA_CA_CERTS",
];
/// Where distributions keep all CA certificates in one file: Debian and Alpine, Fedora, SUSE, BSD style.
pub const CA_BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];

/// The environment that all steps start from. `ca_file` is set where the container does not name one itself.
#[must_use]
pub fn environment(
    container: impl IntoIterator<Item = (OsString, OsString)>,
    home: &OsStr,
    ca_file: Option<&OsStr>,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<OsString, OsString> =
        ca_file.into_iter().flat_map(|file| CA_VARIABLES.map(|name| (OsString::from(name), file.to_owned()))).collect();
    let hidden = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"KUBERNETES_") || name.starts_with(SECRET_VARIABLE.as_bytes())
    };
    let kept = container.into_iter().filter(|(name, _)| !hidden(name));
    variables.extend(kept);
    variables.insert("HOSTNAME".into(), HOST_NAME.into());
    variables.insert("HOME".into(), home.into());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_runs_is_gone() {
        let container = |host: &str| {
            [
                ("HOSTNAME", host),
                ("KUBERNETES_SERVICE_HOST", host),
                ("PATH", "/bin"),
                ("HOME", "/"),
                ("PIP_CERT", "/own"),
                ("MINIMALIMAGE_SECRET_0", "secret"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
        };
        let first = environment(container("pod-1"), OsStr::new("/tmp/home"), Some(OsStr::new("/ca.pem")));
        assert_eq!(first, environment(container("pod-2"), OsStr::new("/tmp/home"), Some(OsStr::new("/ca.pem"))));
        let get = |name: &str| first.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!((get("PATH"), get("HOME"), get("HOSTNAME")), (Some("/bin"), Some("/tmp/home"), Some("build")));
        assert_eq!((get("SSL_CERT_FILE"), get("PIP_CERT")), (Some("/ca.pem"), Some("/own")));
        assert_eq!((get("KUBERNETES_SERVICE_HOST"), get("MINIMALIMAGE_SECRET_0")), (None, None));
    }
}
