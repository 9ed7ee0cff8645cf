//! A Debian archive on the disk: packages made by hand, an index, and a Release file signed with a key of its own.

#![allow(
    clippy::unwrap_used,
    clippy::format_push_string,
    dead_code,
    reason = "what fails here fails the test that uses it, and no test uses all of it"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use minimalimage::domain::value::Digest;
use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
        SignedSecretKey,
    },
    types::Password,
};
use rand::thread_rng;

/// A package: its control fields, scripts, and what its data archive holds.
#[derive(Clone, Default)]
pub(crate) struct Deb {
    control: String,
    scripts: Vec<(String, String)>,
    data: Vec<(tar::EntryType, String, Vec<u8>, u32)>,
    sums: String,
}

impl Deb {
    pub(crate) fn new(name: &str, version: &str, fields: &str) -> Self {
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.com>\n{fields}Description: a test\n"
        );
        Self { control, ..Self::default() }
    }

    pub(crate) fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push((name.to_owned(), text.to_owned()));
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, content.as_bytes(), 0o644)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target.as_bytes(), 0o777)
    }

    pub(crate) fn entry(mut self, kind: tar::EntryType, path: &str, content: &[u8], mode: u32) -> Self {
        if kind == tar::EntryType::Regular {
            self.sums.push_str(&format!("00000000000000000000000000000000  {}\n", path.trim_start_matches("./")));
        }
        self.data.push((kind, path.to_owned(), content.to_vec(), mode));
        self
    }

    fn field(&self, name: &str) -> &str {
        let line = self.control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap()
    }

    pub(crate) fn path(&self) -> String {
        format!("pool/{}_{}_amd64.deb", self.field("Package"), self.field("Version").replace(':', "%3a"))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut control = vec![
            (tar::EntryType::Regular, "./control".to_owned(), self.control.clone().into_bytes(), 0o644),
            (tar::EntryType::Regular, "./md5sums".to_owned(), self.sums.clone().into_bytes(), 0o644),
        ];
        let script = |(name, text): &(String, String)| {
            (tar::EntryType::Regular, format!("./{name}"), text.clone().into_bytes(), 0o755)
        };
        control.extend(self.scripts.iter().map(script));
        archive(&[
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", gzip(&tar(&control))),
            ("data.tar.gz", gzip(&tar(&self.data))),
        ])
    }
}

/// An `ar` archive of these members.
pub(crate) fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        bytes.extend_from_slice(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).as_bytes(),
        );
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive whose names are not looked at; links have their target as content.
fn tar(entries: &[(tar::EntryType, String, Vec<u8>, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, content, mode) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        let regular = *kind == tar::EntryType::Regular;
        header.set_size(if regular { content.len() as u64 } else { 0 });
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
        }
        header.set_cksum();
        builder.append(&header, if regular { &content[..] } else { &[] }).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An archive below a directory, `<root>/debian`.
pub(crate) struct Archive {
    pub(crate) root: PathBuf,
    key: SignedSecretKey,
}

/// What a suite's Release file says.
#[derive(Clone, Copy)]
pub(crate) struct Times<'a> {
    pub(crate) date: &'a str,
    pub(crate) valid_until: Option<&'a str>,
}

pub(crate) const NOW: Times<'static> = Times { date: "Sun, 01 Nov 2026 10:00:00 UTC", valid_until: None };

impl Archive {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.join("debian"), key: key() }
    }

    /// Its public key, armored.
    pub(crate) fn keyring(&self) -> String {
        SignedPublicKey::from(self.key.clone()).to_armored_string(ArmorOptions::default()).unwrap()
    }

    /// Writes packages and a suite that has exactly them.
    pub(crate) fn publish(&self, suite: &str, times: Times<'_>, debs: &[Deb]) {
        let files: Vec<(String, String, Vec<u8>)> =
            debs.iter().map(|deb| (deb.control.clone(), deb.path(), deb.bytes())).collect();
        self.publish_files(suite, times, &files);
    }

    /// The same from control files, paths below the root, and bytes.
    pub(crate) fn publish_files(&self, suite: &str, times: Times<'_>, files: &[(String, String, Vec<u8>)]) {
        let mut index = String::new();
        for (control, path, bytes) in files {
            let place = self.root.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, bytes).unwrap();
            let digest = Digest::of(bytes).hex();
            index.push_str(&format!(
                "{}\nFilename: {path}\nSize: {}\nSHA256: {digest}\n\n",
                control.trim_end(),
                bytes.len()
            ));
        }
        let directory = self.root.join("dists").join(suite);
        let packages = directory.join("main/binary-amd64");
        fs::create_dir_all(packages.join("by-hash/SHA256")).unwrap();
        let packed = gzip(index.as_bytes());
        fs::write(packages.join("Packages.gz"), &packed).unwrap();
        fs::write(packages.join("by-hash/SHA256").join(Digest::of(&packed).hex()), &packed).unwrap();
        let until = times.valid_until.map(|until| format!("Valid-Until: {until}\n")).unwrap_or_default();
        let release = format!(
            "Origin: Test\nSuite: {suite}\nCodename: {suite}\nVersion: 1\nDate: {}\n{until}Acquire-By-Hash: yes\nSHA256:\n {} {} main/binary-amd64/Packages.gz\n",
            times.date,
            Digest::of(&packed).hex(),
            packed.len(),
        );
        fs::write(directory.join("InRelease"), self.signed(&release)).unwrap();
    }

    pub(crate) fn signed(&self, text: &str) -> String {
        let message =
            CleartextSignedMessage::sign(thread_rng(), text, &self.key.primary_key, &Password::empty()).unwrap();
        message.to_armored_string(ArmorOptions::default()).unwrap()
    }

    pub(crate) fn in_release(&self, suite: &str) -> PathBuf {
        self.root.join("dists").join(suite).join("InRelease")
    }
}

fn key() -> SignedSecretKey {
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .primary_user_id("Test Archive <archive@example.com>".into());
    parameters.build().unwrap().generate(thread_rng()).unwrap()
}

/// What a packed layer holds: mode, owner, and content or target, by path.
pub(crate) fn listing(layer: &[u8]) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = format!("/{}", entry.path().unwrap().display()).trim_end_matches('/').to_owned();
        let header = entry.header().clone();
        let mut content = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (path, (header.mode().unwrap(), header.uid().unwrap(), content))
    });
    entries.collect()
}
