//! Archive formats as far as they are decided from bytes alone: the kind by its first bytes, and tar's extended headers.

use std::io::{self, Read};

use tar::{Entry, EntryType};

use super::source::{RelativePath, UnsafePath};

/// The kinds of archives that sources may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// Plain tar.
    Tar,
    /// Gzip, with tar inside.
    TarGzip,
    /// Xz, with tar inside.
    TarXz,
    /// Zstandard, with tar inside.
    TarZstd,
    /// Zip.
    Zip,
}

/// How many bytes [`archive_kind`] needs.
pub const MAGIC_LENGTH: usize = 512;
/// The longest extended header that is read; longer ones hold nothing that a source needs.
pub const MAX_EXTENSION: u64 = 64 << 10;

/// The kind of an archive by its first [`MAGIC_LENGTH`] bytes; else what it seems to be.
pub fn archive_kind(head: &[u8]) -> Result<ArchiveKind, &'static str> {
    match head {
        [0x1f, 0x8b, ..] => Ok(ArchiveKind::TarGzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(ArchiveKind::TarZstd),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(ArchiveKind::Zip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(ArchiveKind::TarXz),
        [b'B', b'Z', b'h', ..] => Err("a bzip2 file"),
        [b'<', ..] => Err("a web page"),
        // All tar dialects since POSIX 1988 say so; an archive of nothing is two empty blocks.
        _ if head.get(257..262) == Some(b"ustar") => Ok(ArchiveKind::Tar),
        _ if head.len() == MAGIC_LENGTH && head.iter().all(|byte| *byte == 0) => Ok(ArchiveKind::Tar),
        _ => Err("of an unknown kind"),
    }
}

/// Whether a block is an entry's header: its sum is right, which old dialects without a mark have too.
#[must_use]
pub fn is_tar_header(block: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(field) = block.get(SUM).filter(|_| block.len() == MAGIC_LENGTH) else { return false };
    let digits: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    let Ok(stated) = u32::from_str_radix(&String::from_utf8_lossy(&digits), 8) else { return false };
    // pax(1): the field itself counts as blanks.
    let byte = |(index, byte): (usize, &u8)| u32::from(if SUM.contains(&index) { b' ' } else { *byte });
    block.iter().enumerate().map(byte).sum::<u32>() == stated
}

/// What extended headers say about the entry that follows them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Instead of the header's own path.
    pub path: Option<Vec<u8>>,
    /// Instead of the header's own link target.
    pub link: Option<Vec<u8>>,
    /// Instead of the header's own size.
    pub size: Option<u64>,
    /// Instead of the header's own user; none inside where it is no number that Linux has.
    pub uid: Option<Option<u32>>,
    /// Instead of the header's own group.
    pub gid: Option<Option<u32>>,
    /// The file is stored without its holes, which is not supported.
    pub sparse: bool,
}

/// What became of an entry that may say more of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is an entry of its own.
    Not,
    /// It was taken.
    Whole,
    /// It is longer than [`MAX_EXTENSION`], and was not read.
    TooLong,
    /// Its records are broken.
    Malformed,
}

impl Extension {
    /// Takes an entry of a tar archive that says more of the next one.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<Taken> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(Taken::Whole);
        }
        if !(kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink()) {
            return Ok(Taken::Not);
        }
        if entry.size() > MAX_EXTENSION {
            return Ok(Taken::TooLong);
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        match kind {
            EntryType::GNULongName => self.take_gnu_path(&data),
            EntryType::GNULongLink => self.take_gnu_link(&data),
            _ if self.take_pax(&data).is_none() => return Ok(Taken::Malformed),
            _ => {}
        }
        Ok(Taken::Whole)
    }

    /// Takes a PAX header's records (pax(1), "pax Extended Header"). None when they are malformed.
    #[must_use]
    pub fn take_pax(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], record[equals + 1..].to_vec());
            match key {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"uid" => self.uid = Some(std::str::from_utf8(&value).ok()?.parse().ok()),
                b"gid" => self.gid = Some(std::str::from_utf8(&value).ok()?.parse().ok()),
                b"size" => self.size = Some(std::str::from_utf8(&value).ok()?.parse().ok()?),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            records = &records[length..];
        }
        Some(())
    }

    /// Takes the name in a GNU `L` entry.
    pub fn take_gnu_path(&mut self, data: &[u8]) {
        self.path = Some(until_nul(data));
    }

    /// Takes the target in a GNU `K` entry.
    pub fn take_gnu_link(&mut self, data: &[u8]) {
        self.link = Some(until_nul(data));
    }
}

fn until_nul(data: &[u8]) -> Vec<u8> {
    data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Which entries of an archive become the source, and where: leading components dropped, then only one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    strip: u32,
    directory: RelativePath,
    found: bool,
    others: std::collections::BTreeSet<String>,
}

/// As many names as can usefully be suggested are kept.
const MAX_OTHERS: usize = 2000;

impl Selection {
    /// Drops `strip` components and keeps what is in `directory`.
    pub fn new(strip: u32, directory: RelativePath) -> Self {
        let found = directory.is_root();
        Self { strip, directory, found, others: std::collections::BTreeSet::new() }
    }

    /// Where the entry at `path` goes; none when it is not part of the source.
    pub fn place(&mut self, path: &[u8]) -> Result<Option<RelativePath>, UnsafePath> {
        // Checked whole, even where the unsafe part would be dropped: such an archive is not to be trusted.
        let Some(path) = RelativePath::parse(path)?.strip(self.strip) else { return Ok(None) };
        let place = path.below(&self.directory);
        match &place {
            Some(_) => self.found = true,
            None if self.others.len() < MAX_OTHERS => {
                if let Some((parent, _)) = path.split_last().filter(|(parent, _)| !parent.is_root()) {
                    self.others.insert(parent.to_string());
                }
            }
            None => {}
        }
        Ok(place)
    }

    /// The names of other directories when the one asked for was not there.
    pub fn missing(&self) -> Option<impl Iterator<Item = &str>> {
        (!self.found).then(|| self.others.iter().map(String::as_str))
    }

    /// The directory asked for.
    pub fn directory(&self) -> &RelativePath {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content() {
        let mut tar = vec![0; 512];
        assert_eq!(archive_kind(&tar), Ok(ArchiveKind::Tar));
        tar[0] = b'a';
        assert_eq!(archive_kind(&tar), Err("of an unknown kind"));
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(archive_kind(&tar), Ok(ArchiveKind::Tar));
        assert_eq!(archive_kind(&[0x1f, 0x8b, 8]), Ok(ArchiveKind::TarGzip));
        assert_eq!(archive_kind(b"PK\x03\x04"), Ok(ArchiveKind::Zip));
        assert_eq!(archive_kind(b"<html>"), Err("a web page"));
        assert!(archive_kind(b"").is_err());
    }

    #[test]
    fn headers_are_told_by_their_sum() {
        let mut block = [0; MAGIC_LENGTH];
        block[0] = b'a';
        // Seven blanks and the name's one byte.
        block[148..156].copy_from_slice(b"000541\0 ");
        assert!(is_tar_header(&block));
        block[1] = b'a';
        assert!(!is_tar_header(&block) && !is_tar_header(&[0; MAGIC_LENGTH]) && !is_tar_header(b"BZh"));
    }

    #[test]
    fn pax_records_replace_header_fields() {
        let mut extension = Extension::default();
        extension.take_pax(b"11 path=a=\n10 size=7\n14 linkpath=l\n9 uid=12\n").unwrap();
        let expected = Extension {
            path: Some(b"a=".to_vec()),
            link: Some(b"l".to_vec()),
            size: Some(7),
            uid: Some(Some(12)),
            ..Extension::default()
        };
        assert_eq!(extension, expected);
        for bad in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"0 a\n", b"4 a\n", b"2 a=b\n"] {
            assert_eq!(Extension::default().take_pax(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn selection_narrows_after_stripping_and_knows_what_else_was_there() {
        let mut selection = Selection::new(1, RelativePath::parse(b"app").unwrap());
        assert_eq!(selection.place(b"repo-1/docs/a"), Ok(None));
        assert_eq!(selection.place(b"repo-1/"), Ok(None));
        assert_eq!(selection.missing().unwrap().collect::<Vec<_>>(), ["docs"]);
        assert_eq!(selection.place(b"repo-1/app/x"), Ok(Some(RelativePath::parse(b"x").unwrap())));
        assert!(selection.missing().is_none());
        assert!(selection.place(b"../x").is_err());
    }
}
