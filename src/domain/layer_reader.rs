//! Reads the tar archives that [`super::layer`] writes, from peers that need not be honest: anything else is refused.

use std::io::{self, Read};

use super::{
    recipe::Owner,
    text::printable,
    tree::{Entry, Kind, TreePath, TreePathError},
};

const BLOCK: usize = 512;
/// A path and a link target of 4096 bytes each, with some room.
const MAX_RECORDS: u64 = 16 * 1024;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream itself failed.
    #[error("failed to read an archive")]
    Read(#[from] io::Error),
    /// The stream is over before the archive is.
    #[error("an archive that ends too early")]
    Truncated,
    /// Bytes after the end of the archive.
    #[error("an archive with something behind its end")]
    Trailing,
    /// A header that our writer does not write.
    #[error("an archive with a broken header ({0})")]
    Header(&'static str),
    /// An entry with a name that is not allowed.
    #[error("an archive with {problem}: `{name}`")]
    Name {
        /// What is wrong.
        problem: TreePathError,
        /// The name, cut and readable.
        name: String,
    },
    /// A device, FIFO or another kind that a layer does not hold.
    #[error("an archive with an entry of a kind that is not allowed (type `{kind}`): `{name}`")]
    Kind {
        /// The type flag.
        kind: char,
        /// The name, cut and readable.
        name: String,
    },
}

/// Yields entries and lets the content of each be read.
pub struct LayerReader<R: Read> {
    stream: R,
    left: u64,
    padding: u64,
}

#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl<R: Read> LayerReader<R> {
    /// Reads nothing yet.
    pub fn new(stream: R) -> Self {
        Self { stream, left: 0, padding: 0 }
    }

    /// The stream behind the archive.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry; what is left of the current one is skipped. None at the end, after which the stream is at its end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        self.skip()?;
        let Some(mut block) = self.block()? else {
            return self.end().map(|()| None);
        };
        let mut records = Records::default();
        if block[156] == b'x' {
            records = self.records(number(&block[124..136])?)?;
            block = self.block()?.ok_or(LayerError::Header("records without an entry"))?;
        }
        let entry = entry(&block, records)?;
        if let Kind::File(size) = entry.kind {
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
        }
        Ok(Some(entry))
    }

    /// Reads bytes of the current regular file; 0 at its end, never more than its entry announced.
    pub fn content(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.stream.read(buffer)?;
        if count == 0 {
            return Err(LayerError::Truncated);
        }
        self.left -= count as u64;
        Ok(count)
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        let rest = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
        if skipped < rest { Err(LayerError::Truncated) } else { Ok(()) }
    }

    /// The next header; none for the first of the two empty blocks that end an archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        if &block[257..265] != b"ustar\x0000" {
            return Err(LayerError::Header("not ustar"));
        }
        let around = block[..148].iter().chain(&block[156..]).map(|byte| u64::from(*byte)).sum::<u64>();
        if number(&block[148..156])? != around + 8 * u64::from(b' ') {
            return Err(LayerError::Header("wrong checksum"));
        }
        Ok(Some(block))
    }

    fn end(&mut self) -> Result<(), LayerError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        let mut byte = [0];
        if block != [0; BLOCK] || self.stream.read(&mut byte)? != 0 {
            return Err(LayerError::Trailing);
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), LayerError> {
        self.stream.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LayerError::Truncated,
            _ => LayerError::Read(error),
        })
    }

    fn records(&mut self, size: u64) -> Result<Records, LayerError> {
        if size > MAX_RECORDS {
            return Err(LayerError::Header("extended header too long"));
        }
        let size = usize::try_from(size).unwrap_or_default();
        let mut bytes = vec![0; size.next_multiple_of(BLOCK)];
        self.fill(&mut bytes)?;
        bytes.truncate(size);
        let mut records = Records::default();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest).ok_or(LayerError::Header("broken extended header"))?;
            records.set(key, value).ok_or(LayerError::Header("unknown or repeated extended header"))?;
            rest = after;
        }
        Ok(records)
    }
}

impl Records {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
            if slot.is_some() {
                return None;
            }
            *slot = Some(value?);
            Some(())
        }
        let text = || std::str::from_utf8(value).ok();
        match key {
            b"path" => once(&mut self.path, Some(value.to_vec())),
            b"linkpath" => once(&mut self.link, Some(value.to_vec())),
            b"size" => once(&mut self.size, text()?.parse().ok()),
            b"uid" => once(&mut self.uid, text()?.parse().ok()),
            b"gid" => once(&mut self.gid, text()?.parse().ok()),
            b"hdrcharset" => (value == b"BINARY").then_some(()),
            _ => None,
        }
    }
}

/// `LENGTH KEY=VALUE\n` and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, bytes.get(length..)?))
}

fn entry(block: &[u8; BLOCK], records: Records) -> Result<Entry, LayerError> {
    let flag = block[156];
    let mut name = records.path.unwrap_or_else(|| {
        let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    });
    if flag == b'5' && name.ends_with(b"/") {
        name.pop();
    }
    let link = records.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
    let size = records.size.map_or_else(|| number(&block[124..136]), Ok)?;
    if flag != b'0' && size != 0 {
        return Err(LayerError::Header("a size where there is no content"));
    }
    let kind = match flag {
        b'0' => Kind::File(size),
        b'1' => Kind::HardLink(path(link)?),
        b'2' if link.is_empty() || link.len() > 4096 || link.contains(&0) => {
            return Err(LayerError::Header("an impossible link target"));
        }
        b'2' => Kind::Symlink(link),
        b'5' => Kind::Directory,
        other => {
            return Err(LayerError::Kind {
                kind: char::from(other).escape_default().next().unwrap_or('?'),
                name: printable(&name),
            });
        }
    };
    let narrow = |field: &[u8]| number(field).and_then(|n| u32::try_from(n).map_err(|_| LayerError::Header("number")));
    let owner = Owner {
        uid: records.uid.map_or_else(|| narrow(&block[108..116]), Ok)?,
        gid: records.gid.map_or_else(|| narrow(&block[116..124]), Ok)?,
    };
    Ok(Entry { path: path(name)?, kind, mode: narrow(&block[100..108])?, owner })
}

fn path(name: Vec<u8>) -> Result<TreePath, LayerError> {
    let shown = printable(&name);
    TreePath::new(name).map_err(|problem| LayerError::Name { problem, name: shown })
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn number(field: &[u8]) -> Result<u64, LayerError> {
    let digits = std::str::from_utf8(text(field)).map_err(|_| LayerError::Header("number"))?;
    u64::from_str_radix(digits, 8).map_err(|_| LayerError::Header("number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::layer::LayerWriter;

    fn of(name: &str, kind: Kind) -> Entry {
        Entry { path: TreePath::new(name).unwrap(), kind, mode: 0o644, owner: Owner::default() }
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut writer = LayerWriter::new(Vec::new());
        for entry in entries {
            writer.entry(entry).unwrap();
            if let Kind::File(size) = entry.kind {
                writer.content(&vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
            }
        }
        writer.finish().unwrap().1
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, LayerError> {
        let mut reader = LayerReader::new(bytes);
        std::iter::from_fn(|| reader.next_entry().transpose()).collect()
    }

    /// Sets bytes of the first header and mends its checksum.
    fn forged(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut forged = archive(&[of("name", Kind::File(3))]);
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        forged[148..156].fill(b' ');
        let sum: u32 = forged[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        forged[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        forged
    }

    fn forged_records(records: &[u8]) -> Vec<u8> {
        let long = "l".repeat(200);
        let mut bytes = archive(&[of(&long, Kind::File(0))]);
        bytes[BLOCK..2 * BLOCK].fill(0);
        bytes[BLOCK..BLOCK + records.len()].copy_from_slice(records);
        bytes[124..136].copy_from_slice(format!("{:011o}\0", records.len()).as_bytes());
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        let long = format!("{}/{}", "l".repeat(200), "n".repeat(200));
        let mut entries = vec![
            of("a", Kind::Directory),
            of("a/f", Kind::File(700)),
            of("a/h", Kind::HardLink(TreePath::new("a/f").unwrap())),
            of("a/s", Kind::Symlink(b"../../etc".to_vec())),
            of(&long, Kind::File(512)),
        ];
        entries[1].owner = Owner { uid: u32::MAX, gid: 9 };
        entries.push(Entry { path: TreePath::new(&b"\xff\xfe"[..]).unwrap(), ..of("x", Kind::File(0)) });
        assert_eq!(read(&archive(&entries)).unwrap(), entries);
    }

    #[test]
    fn content_ends_where_its_entry_said() {
        let bytes = archive(&[of("a", Kind::File(5)), of("b", Kind::File(1))]);
        let mut reader = LayerReader::new(&bytes[..]);
        reader.next_entry().unwrap();
        let mut buffer = [0; 2000];
        assert_eq!(reader.content(&mut buffer).unwrap(), 5);
        assert_eq!(reader.content(&mut buffer).unwrap(), 0);
        assert_eq!(reader.next_entry().unwrap().unwrap().path.to_string(), "/b");
    }

    #[test]
    fn names_that_escape_are_refused() {
        for name in [&b"../x\0"[..], b"/etc\0", b"a/..\0", b"\0\0\0\0\0"] {
            assert!(matches!(read(&forged(0, name)), Err(LayerError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn devices_and_unknown_kinds_are_refused() {
        for kind in *b"346gLK7S\0" {
            assert!(
                matches!(read(&forged(156, &[kind])), Err(LayerError::Kind { .. } | LayerError::Header(_))),
                "{kind}"
            );
        }
        let mut device = forged(124, b"00000000000");
        device[156] = b'3';
        device[148..156].fill(b' ');
        let sum: u32 = device[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        device[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(read(&device), Err(LayerError::Kind { kind: '3', .. })));
    }

    #[test]
    fn extended_headers_are_bounded_and_known() {
        assert!(matches!(read(&forged_records(b"10 path=a\n")), Ok(entries) if entries[0].path.to_string() == "/a"));
        for records in [
            &b"12 comment=\n"[..],
            b"10 path=a\n10 path=b\n",
            b"99 path=a\n",
            b"path=a\n",
            b"11 path=a\0b\n",
            b"12 path=../a\n",
        ] {
            assert!(read(&forged_records(records)).is_err(), "{}", String::from_utf8_lossy(records));
        }
        let mut bomb = forged(156, b"x");
        bomb[124..136].copy_from_slice(b"77777777777\0");
        bomb[148..156].fill(b' ');
        let sum: u32 = bomb[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        bomb[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(read(&bomb), Err(LayerError::Header("extended header too long"))));
    }

    #[test]
    fn cut_and_prolonged_archives_are_refused() {
        let bytes = archive(&[of("a", Kind::File(600))]);
        for length in [0, 100, 512, 1000, 1536, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..length]), Err(LayerError::Truncated)), "{length}");
        }
        assert!(matches!(read(&[&bytes[..], b"x"].concat()), Err(LayerError::Trailing)));
        let mut wrong = bytes.clone();
        wrong[0] = b'b';
        assert!(matches!(read(&wrong), Err(LayerError::Header("wrong checksum"))));
    }
}
