//! What a Java archive says of the program in it: the main class and the version of its format.

use std::io::Read;

use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::window::{Cursor, Windows};

/// The marks at the beginning of a zip archive.
pub(super) const MAGIC: [u8; 4] = *b"PK\x03\x04";
/// The marks at the beginning of a class.
pub(super) const CLASS_MAGIC: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
/// A manifest names classes and jars; more than this is none.
const LONGEST_MANIFEST: u64 = 256 << 10;

/// A Java archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Jar {
    /// `Main-Class` of the manifest.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub main_class: Option<String>,
    /// The major version of the main class's format; none where it is not in this archive.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    pub version: Option<u16>,
    /// Whether more archives belong to it.
    #[serde(rename = "c", skip_serializing_if = "std::ops::Not::not")]
    pub has_class_path: bool,
}

/// Reads an archive; none when it is broken, or when what is wanted was not kept.
pub(super) fn read(file: &Windows) -> Option<Jar> {
    let mut archive = ZipArchive::new(Cursor::new(file)).ok()?;
    let manifest = match archive.index_for_name("META-INF/MANIFEST.MF") {
        None => return Some(Jar::default()),
        Some(index) => {
            let mut text = Vec::new();
            archive.by_index(index).ok()?.take(LONGEST_MANIFEST).read_to_end(&mut text).ok()?;
            unfolded(&String::from_utf8_lossy(&text))
        }
    };
    // Only the first section is about the archive; the names of attributes have no case (JAR File Specification).
    let main = manifest.lines().take_while(|line| !line.is_empty());
    let attribute = |wanted: &str| {
        let mut lines = main.clone().filter_map(|line| line.split_once(": "));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    let main_class = attribute("Main-Class").filter(|name| !name.is_empty() && name.len() < 1000);
    let mut jar = Jar { has_class_path: attribute("Class-Path").is_some(), main_class, version: None };
    if let Some(class) = &jar.main_class {
        let name = format!("{}.class", class.replace('.', "/"));
        if let Some(index) = archive.index_for_name(&name) {
            let mut head = [0; 8];
            archive.by_index(index).ok()?.read_exact(&mut head).ok()?;
            jar.version = class_version(&head);
        }
    }
    Some(jar)
}

/// The major version in a class's first eight bytes (Java Virtual Machine Specification, 4.1).
pub(super) fn class_version(head: &[u8]) -> Option<u16> {
    match head {
        [a, b, c, d, _, _, high, low, ..] if [*a, *b, *c, *d] == CLASS_MAGIC => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// A manifest without its line breaks within values: a line that begins with a blank goes on.
fn unfolded(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.replace("\n ", "")
}
