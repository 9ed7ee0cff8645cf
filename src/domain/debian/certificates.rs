//! Bundles of CA certificates, as OpenSSL and Java read them, from PEM texts.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::domain::value::Digest;

/// What keytool and Java take for granted; it keeps no secret, the store has public certificates only.
const PASSWORD: &str = "changeit";

/// A file with certificates: its name, which entries of a Java keystore are named after, and its PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// `ISRG_Root_X1.crt`.
    pub name: String,
    /// One certificate or several.
    pub text: String,
}

/// The certificates one behind the other, each as it is, as update-ca-certificates(8) makes it.
#[must_use]
pub fn bundle(files: &[CertificateFile]) -> Vec<u8> {
    let mut bundle = Vec::new();
    for file in files {
        bundle.extend_from_slice(file.text.trim_end().as_bytes());
        bundle.push(b'\n');
    }
    bundle
}

/// The certificates as a Java keystore of type JKS, which all versions of Java read without naming a type.
///
/// The format is that of sun.security.provider.JavaKeyStore: magic, version 2, entries of type 2 (trusted certificates), and
/// SHA-1 over the password, a text and all before it. Times are 0.
#[must_use]
pub fn keystore(files: &[CertificateFile]) -> Vec<u8> {
    let entries: Vec<(String, Vec<u8>)> = files.iter().flat_map(entries).collect();
    let mut store = Vec::new();
    store.extend_from_slice(&0xfeed_feed_u32.to_be_bytes());
    store.extend_from_slice(&2_u32.to_be_bytes());
    store.extend_from_slice(&length(entries.len()));
    for (alias, certificate) in &entries {
        store.extend_from_slice(&2_u32.to_be_bytes());
        text(&mut store, alias);
        store.extend_from_slice(&0_u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend_from_slice(&length(certificate.len()));
        store.extend_from_slice(certificate);
    }
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    PASSWORD.encode_utf16().for_each(|unit| hash.update(&unit.to_be_bytes()));
    hash.update(b"Mighty Aphrodite");
    hash.update(&store);
    store.extend_from_slice(hash.finish().as_ref());
    store
}

/// The certificates of a file, each with the name that ca-certificates-java gives it.
fn entries(file: &CertificateFile) -> Vec<(String, Vec<u8>)> {
    let stem = file.name.rsplit_once('.').map_or(file.name.as_str(), |(stem, _)| stem);
    let alias = |index: usize| {
        let number = if index == 0 { String::new() } else { format!(".{index}") };
        format!("debian:{}{number}.pem", stem.to_lowercase())
    };
    let found = certificates(&file.text).into_iter().enumerate();
    found.map(|(index, certificate)| (alias(index), certificate)).collect()
}

/// The DER form of each certificate in a PEM text (RFC 7468).
#[must_use]
pub fn certificates(text: &str) -> Vec<Vec<u8>> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = |block: &str| {
        let (body, _) = block.split_once("-----END CERTIFICATE-----")?;
        let body: String = body.chars().filter(|letter| !letter.is_whitespace()).collect();
        STANDARD.decode(body).ok()
    };
    blocks.filter_map(body).collect()
}

/// The certificates of a text that a person gave, one behind the other and nothing else of it, keys in particular; none when one
/// is broken or there is none.
#[must_use]
pub fn normalized(text: &str) -> Option<String> {
    let found = certificates(text);
    let begun = text.matches("-----BEGIN CERTIFICATE-----").count();
    (begun > 0 && found.len() == begun && found.iter().all(|der| is_sequence(der))).then(|| pem(&found))
}

/// Whether `der` is one SEQUENCE, as a certificate is (X.690, 8.1).
fn is_sequence(der: &[u8]) -> bool {
    let Some((0x30, rest)) = der.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let Some((first, rest)) = rest.split_first() else { return false };
    let (length, content) = match usize::from(*first) {
        short if short < 0x80 => (short, rest),
        long => {
            let Some((bytes, content)) = rest.split_at_checked(long - 0x80).filter(|(bytes, _)| bytes.len() <= 4)
            else {
                return false;
            };
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), content)
        }
    };
    length > 0 && length == content.len()
}

/// Certificates as a PEM text.
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = STANDARD.encode(der);
        let lines = body.as_bytes().chunks(64);
        lines.for_each(|line| text.extend(line.iter().copied().map(char::from).chain(['\n'])));
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The Java keystore of all certificates in a PEM text, each named after its digest.
#[must_use]
pub fn keystore_of(text: &str) -> Vec<u8> {
    let file = |der: Vec<u8>| CertificateFile {
        name: format!("{}.crt", Digest::of(&der).short(16)),
        text: pem(std::slice::from_ref(&der)),
    };
    keystore(&certificates(text).into_iter().map(file).collect::<Vec<_>>())
}

/// Java's modified UTF-8 with its length; the names here are ASCII or replaced.
fn text(store: &mut Vec<u8>, text: &str) {
    let plain: Vec<u8> =
        text.chars().map(|letter| u8::try_from(letter).ok().filter(u8::is_ascii).unwrap_or(b'_')).take(255).collect();
    store.extend_from_slice(&u16::try_from(plain.len()).unwrap_or_default().to_be_bytes());
    store.extend_from_slice(&plain);
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_person_gives_only_certificates_are_taken() {
        let block = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        let certificate = block("CERTIFICATE", "MAMCAQE=");
        let given = format!("a name\n{}{}", block("PRIVATE KEY", "MAMCAQE="), certificate.replace('\n', "\r\n"));
        assert_eq!(normalized(&given), Some(certificate.clone()));
        let long = STANDARD.encode([&[0x30, 0x81, 0x80][..], &[1; 0x80]].concat());
        assert!(normalized(&block("CERTIFICATE", &long)).unwrap().lines().all(|line| line.len() <= 64));
        for wrong in ["", "MAMCAQ==", "MQMCAQE=", "MAMCAQEB", "!", "MA==", "MIQ="] {
            assert_eq!(normalized(&(certificate.clone() + &block("CERTIFICATE", wrong))), None, "{wrong}");
        }
        assert_eq!(normalized("none"), None);
        assert_eq!(keystore_of(&certificate), keystore_of(&given));
    }

    #[test]
    fn every_certificate_of_a_file_is_taken() {
        let pem = |body: &str| format!("# name\n-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let files = [
            CertificateFile { name: "A.crt".into(), text: pem("QUFB") + &pem("QkJC") },
            CertificateFile { name: "b".into(), text: pem("Q0ND").trim_end().to_owned() },
        ];
        assert_eq!(certificates(&files[0].text), [b"AAA".to_vec(), b"BBB".to_vec()]);
        assert_eq!(String::from_utf8(bundle(&files)).unwrap().matches("END CERTIFICATE-----\n").count(), 3);
        let store = keystore(&files);
        assert_eq!(store.get(..12), Some(&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 3][..]));
        for alias in ["debian:a.pem", "debian:a.1.pem", "debian:b.pem"] {
            assert!(store.windows(alias.len()).any(|window| window == alias.as_bytes()), "{alias}");
        }
        assert_eq!(certificates("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"), Vec::<Vec<u8>>::new());
    }
}
