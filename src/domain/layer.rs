//! Writes the entries of a layer as a tar archive whose bytes depend on the entries only, and reports what it wrote.
//!
//! ustar, with PAX records only where ustar cannot say it (POSIX.1-2024, pax, "ustar Interchange Format"); times are 0, names
//! of users are empty.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    io::{self, Write},
};

use super::{
    artifact::{FileSize, OutputReport},
    tree::{Entry, Kind},
    value::{Digest, DigestHasher},
};

const BLOCK: usize = 512;
/// How many files a report names.
const LARGEST: usize = 5;
/// The largest number in an octal field of 12 bytes, and of 8 bytes, with their NUL.
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_ID: u32 = 0o7_777_777;

/// Writes one layer into `sink`. Entries must come in the order of their paths, each file's bytes right after its entry.
pub struct LayerWriter<W: Write> {
    sink: W,
    hasher: DigestHasher,
    /// Bytes of the current file that are still to come, and the padding after them.
    open: u64,
    padding: usize,
    counted: Counted,
}

/// What was seen of a layer's files.
#[derive(Debug, Default)]
pub struct Counted {
    size: u64,
    file_count: u64,
    largest: BTreeSet<(u64, Reverse<String>)>,
}

impl Counted {
    /// Takes one more regular file, whose path is absolute.
    pub fn file(&mut self, path: String, size: u64) {
        self.file_count += 1;
        self.size = self.size.saturating_add(size);
        self.largest.insert((size, Reverse(path)));
        if self.largest.len() > LARGEST {
            self.largest.pop_first();
        }
    }

    /// Takes one more name of a file.
    pub fn hard_link(&mut self) {
        self.file_count += 1;
    }

    /// The report of a layer that unpacks to `diff_id`.
    #[must_use]
    pub fn report(self, diff_id: Digest) -> OutputReport {
        let largest = self.largest.into_iter().rev();
        OutputReport {
            diff_id,
            size: self.size,
            file_count: self.file_count,
            largest_files: largest.map(|(size, Reverse(path))| FileSize { path, size }).collect(),
        }
    }
}

impl<W: Write> LayerWriter<W> {
    /// Writes nothing yet.
    pub fn new(sink: W) -> Self {
        Self { sink, hasher: DigestHasher::default(), open: 0, padding: 0, counted: Counted::default() }
    }

    /// Writes an entry's header. The bytes of a regular file follow by [`LayerWriter::content`].
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.close()?;
        match entry.kind {
            Kind::File(size) => {
                self.open = size;
                self.padding = usize::try_from(size % BLOCK as u64).map_or(0, |used| (BLOCK - used) % BLOCK);
                self.counted.file(entry.path.to_string(), size);
            }
            Kind::HardLink(_) => self.counted.hard_link(),
            Kind::Directory | Kind::Symlink(_) => {}
        }
        self.put(&header(entry))
    }

    /// Writes bytes of the current file; more than its entry announced are an error.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open = self.open.checked_sub(bytes.len() as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "failed to write a file that is longer than its entry says")
        })?;
        self.put(bytes)
    }

    /// Ends the archive; gives the report and the sink.
    pub fn finish(mut self) -> io::Result<(OutputReport, W)> {
        self.close()?;
        self.put(&[0; 2 * BLOCK])?;
        let report = self.counted.report(self.hasher.finish());
        Ok((report, self.sink))
    }

    fn close(&mut self) -> io::Result<()> {
        if self.open > 0 {
            let text = "failed to write a file that is shorter than its entry says";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put([0; BLOCK].get(..padding).unwrap_or_default())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.sink.write_all(bytes)
    }
}

/// The header blocks of an entry: PAX records first where they are needed.
fn header(entry: &Entry) -> Vec<u8> {
    let (kind, size, link): (u8, u64, &[u8]) = match &entry.kind {
        Kind::Directory => (b'5', 0, b""),
        Kind::File(size) => (b'0', *size, b""),
        Kind::Symlink(target) => (b'2', 0, target),
        Kind::HardLink(target) => (b'1', 0, target.as_bytes()),
    };
    let mut name = entry.path.as_bytes().to_vec();
    if kind == b'5' {
        name.push(b'/');
    }
    let mut records = Vec::new();
    if !(name.is_ascii() && link.is_ascii())
        && (std::str::from_utf8(&name).is_err() || std::str::from_utf8(link).is_err())
    {
        // PAX texts are UTF-8 unless this record says otherwise.
        record(&mut records, "hdrcharset", b"BINARY");
    }
    let (prefix, short) = split(&name).unwrap_or_else(|| {
        record(&mut records, "path", &name);
        (b"", name.get(..name.len().min(100)).unwrap_or_default())
    });
    if link.len() > 100 || !link.is_ascii() {
        record(&mut records, "linkpath", link);
    }
    let owner = entry.owner;
    for (key, value, limit) in [("uid", owner.uid, MAX_ID), ("gid", owner.gid, MAX_ID)] {
        if value > limit {
            record(&mut records, key, value.to_string().as_bytes());
        }
    }
    if size > MAX_SIZE {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    let mut blocks = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let length = records.len();
        let fields = Fields { name: b"PaxHeaders.0/entry", prefix: b"", link: b"", kind: b'x', mode: 0o644 };
        blocks.extend(fields.block(0, 0, length as u64));
        blocks.append(&mut records);
        blocks.resize(BLOCK + length.next_multiple_of(BLOCK), 0);
    }
    let link = link.get(..link.len().min(100)).unwrap_or_default();
    let fields = Fields { name: short, prefix, link, kind, mode: entry.mode };
    let within = |id: u32| if id > MAX_ID { 0 } else { id };
    blocks.extend(fields.block(within(owner.uid), within(owner.gid), if size > MAX_SIZE { 0 } else { size }));
    blocks
}

/// The parts of a name for the fields `prefix` and `name`; none when ustar cannot hold it.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let slashes = name.iter().enumerate().filter(|(index, byte)| **byte == b'/' && *index <= 155);
    let mut slashes = slashes.filter(|(index, _)| index + 1 < name.len() && name.len() - index - 1 <= 100);
    let (at, _) = slashes.next_back()?;
    Some((name.get(..at)?, name.get(at + 1..)?))
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

struct Fields<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    link: &'a [u8],
    kind: u8,
    mode: u32,
}

impl Fields<'_> {
    fn block(&self, uid: u32, gid: u32, size: u64) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        let mut field = |bytes: &[u8], width: usize| {
            let end = block.len() + width;
            block.extend_from_slice(bytes);
            block.resize(end, 0);
        };
        field(self.name, 100);
        field(format!("{:07o}", self.mode).as_bytes(), 8);
        field(format!("{uid:07o}").as_bytes(), 8);
        field(format!("{gid:07o}").as_bytes(), 8);
        field(format!("{size:011o}").as_bytes(), 12);
        field(b"00000000000", 12);
        field(b"        ", 8);
        field(&[self.kind], 1);
        field(self.link, 100);
        field(b"ustar\x0000", 8);
        field(b"", 64);
        field(b"0000000", 8);
        field(b"0000000", 8);
        field(self.prefix, 155);
        field(b"", 12);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::domain::{recipe::Owner, tree::TreePath};

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry { path: TreePath::new(path).unwrap(), kind, mode: 0o644, owner: Owner::default() }
    }

    fn write(entries: &[(Entry, &[u8])]) -> (OutputReport, Vec<u8>) {
        let mut writer = LayerWriter::new(Vec::new());
        for (entry, bytes) in entries {
            writer.entry(entry).unwrap();
            writer.content(bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    /// What a foreign reader makes of it.
    fn read(bytes: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>, u64, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
            let header_uid = entry.header().uid().unwrap();
            let records = entry.pax_extensions().unwrap();
            let mut records = records.into_iter().flatten().map(Result::unwrap);
            let uid = records.find(|record| record.key() == Ok("uid"));
            let uid = uid.map_or(header_uid, |uid| uid.value().unwrap().parse().unwrap());
            (entry.path_bytes().into_owned(), link, uid, entry.header().mode().unwrap(), content)
        });
        entries.collect()
    }

    #[test]
    fn a_foreign_reader_sees_every_name_link_owner_and_content() {
        let names = [
            b"short".to_vec(),
            [&b"d/".repeat(60)[..], b"prefix-and-name"].concat(),
            [b"x".repeat(120), b"/y".to_vec()].concat(),
            [b"l".repeat(200), b"/".to_vec(), b"n".repeat(200)].concat(),
            "grüße".as_bytes().to_vec(),
            b"latin1-\xfc".to_vec(),
        ];
        let mut entries: Vec<(Entry, &[u8])> =
            names.iter().map(|name| (entry(name, Kind::File(3)), &b"abc"[..])).collect();
        entries[1].0.owner = Owner { uid: 4_000_000_000, gid: 7 };
        entries[2].0.mode = 0o4755;
        entries.push((entry(b"s", Kind::Symlink(b"t".repeat(150))), b""));
        entries.push((entry(b"h", Kind::HardLink(TreePath::new(names[3].clone()).unwrap())), b""));
        let (report, bytes) = write(&entries);
        let seen = read(&bytes);
        assert_eq!(seen.iter().map(|entry| &entry.0).take(6).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
        assert!(seen.iter().take(6).all(|entry| entry.4 == b"abc"));
        assert_eq!((seen[1].2, seen[2].3), (4_000_000_000, 0o4755));
        assert_eq!(seen[6].1.as_deref(), Some(&b"t".repeat(150)[..]));
        assert_eq!(seen[7].1.as_deref(), Some(&names[3][..]));
        assert_eq!((report.size, report.file_count, report.diff_id), (18, 7, Digest::of(&bytes)));
        assert_eq!(bytes.len() % BLOCK, 0);
    }

    #[test]
    fn plain_entries_need_no_pax_records() {
        let (_, bytes) = write(&[(entry(b"a", Kind::Directory), b""), (entry(b"a/f", Kind::File(1)), b"x")]);
        assert_eq!(bytes.len(), BLOCK * (1 + 2 + 2));
        assert_eq!(&bytes[..2], b"a/");
        assert_eq!(&bytes[136..148], b"00000000000\0", "time is the epoch");
    }

    #[test]
    fn pax_records_count_their_own_length() {
        for length in 1..300 {
            let mut records = Vec::new();
            record(&mut records, "path", &vec![b'a'; length]);
            let text = String::from_utf8(records.clone()).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), records.len());
        }
    }

    #[test]
    fn the_five_largest_files_are_named_ties_by_path() {
        let entries: Vec<(Entry, Vec<u8>)> = [("a", 1), ("b", 9), ("c", 9), ("d", 2), ("e", 3), ("f", 4)]
            .map(|(name, size)| (entry(name.as_bytes(), Kind::File(size)), vec![0; usize::try_from(size).unwrap()]))
            .into();
        let borrowed: Vec<_> = entries.iter().map(|(entry, bytes)| (entry.clone(), &bytes[..])).collect();
        let names: Vec<_> = write(&borrowed).0.largest_files.into_iter().map(|file| file.path).collect();
        assert_eq!(names, ["/b", "/c", "/f", "/e", "/d"]);
    }

    #[test]
    fn content_must_be_as_long_as_announced() {
        let mut writer = LayerWriter::new(Vec::new());
        writer.entry(&entry(b"a", Kind::File(2))).unwrap();
        assert!(writer.content(b"abc").is_err());
        let mut writer = LayerWriter::new(Vec::new());
        writer.entry(&entry(b"a", Kind::File(2))).unwrap();
        writer.content(b"a").unwrap();
        assert!(writer.finish().is_err());
    }
}
