//! What is kept of a file that streams by: its beginning, its end, and one range between them. Knows no file format.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use object::ReadRef;

/// Of the beginning: headers, and of nearly all programs the tables of names and versions too.
const HEAD: usize = 16 << 20;
/// Of the end: where patchelf(1) puts tables that it has changed, and where a zip archive has its directory.
const TAIL: usize = 4 << 20;
/// Of the range in between.
const RANGE: u64 = 64 << 10;

/// Parts of a file; all of it when it has up to 20 MiB. At most 24 MiB of memory, however large the file is.
#[derive(Debug, Default)]
pub(super) struct Windows {
    size: u64,
    head: Vec<u8>,
    range: Option<(u64, Vec<u8>)>,
    wanted: Range<u64>,
    tail: Vec<u8>,
}

impl Windows {
    /// Takes the next bytes. When the beginning is complete, `want` says by it which range further on is to be kept.
    pub fn push(&mut self, mut bytes: &[u8], want: impl FnOnce(&Self) -> Option<Range<u64>>) {
        if self.head.len() < HEAD {
            let count = bytes.len().min(HEAD - self.head.len());
            let (head, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            self.head.extend_from_slice(head);
            self.size += head.len() as u64;
            bytes = rest;
            if self.head.len() == HEAD {
                let wanted = want(self).unwrap_or_default();
                self.wanted = wanted.start..wanted.end.min(wanted.start.saturating_add(RANGE));
            }
        }
        if bytes.is_empty() {
            return;
        }
        self.keep_range(bytes);
        self.size += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        // Not at every push: moving the rest forward costs as much as the rest is long.
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    fn keep_range(&mut self, bytes: &[u8]) {
        let end = self.size + bytes.len() as u64;
        let (from, to) = (self.wanted.start.max(self.size), self.wanted.end.min(end));
        if from >= to {
            return;
        }
        let part = |offset: u64| usize::try_from(offset - self.size).ok();
        let Some(part) = part(from).zip(part(to)).and_then(|(from, to)| bytes.get(from..to)) else { return };
        self.range.get_or_insert_with(|| (from, Vec::new())).1.extend_from_slice(part);
    }

    /// The bytes at `offset`, if they were kept.
    pub fn get(&self, offset: u64, size: u64) -> Option<&[u8]> {
        let tail_at = self.size - self.tail.len() as u64;
        let range = self.range.as_ref().map_or((0, &[][..]), |(at, bytes)| (*at, &bytes[..]));
        [(0, &self.head[..]), range, (tail_at, &self.tail[..])].into_iter().find_map(|(at, bytes)| {
            let from = usize::try_from(offset.checked_sub(at)?).ok()?;
            bytes.get(from..from.checked_add(usize::try_from(size).ok()?)?)
        })
    }

    /// The kept bytes from `offset` on, as far as they lie together.
    pub fn from(&self, offset: u64) -> &[u8] {
        let tail_at = self.size - self.tail.len() as u64;
        let range = self.range.as_ref().map_or((0, &[][..]), |(at, bytes)| (*at, &bytes[..]));
        let parts = [(0, &self.head[..]), range, (tail_at, &self.tail[..])];
        let mut found = parts.into_iter().filter_map(|(at, bytes)| {
            let from = usize::try_from(offset.checked_sub(at)?).ok()?;
            bytes.get(from..).filter(|bytes| !bytes.is_empty())
        });
        found.next().unwrap_or_default()
    }
}

impl<'a> ReadRef<'a> for &'a Windows {
    fn len(self) -> Result<u64, ()> {
        Ok(self.size)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.get(offset, size).ok_or(())
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let length = usize::try_from(range.end.checked_sub(range.start).ok_or(())?).map_err(drop)?;
        let bytes = self.from(range.start);
        let bytes = bytes.get(..length).unwrap_or(bytes);
        let end = bytes.iter().position(|byte| *byte == delimiter).ok_or(())?;
        bytes.get(..end).ok_or(())
    }
}

/// Reads [`Windows`] as a file; a read of what was not kept fails.
pub(super) struct Cursor<'a> {
    windows: &'a Windows,
    at: u64,
}

impl<'a> Cursor<'a> {
    /// Begins at the beginning.
    pub fn new(windows: &'a Windows) -> Self {
        Self { windows, at: 0 }
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.windows.from(self.at);
        if bytes.is_empty() && self.at < self.windows.size && !buffer.is_empty() {
            return Err(io::Error::other("this part of the file was not kept"));
        }
        let count = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.windows.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect()
    }

    #[test]
    fn beginning_end_and_one_range_are_kept_of_a_large_file() {
        let all = bytes(40 << 20);
        let middle = 20_000_000_u64;
        let mut windows = Windows::default();
        for chunk in all.chunks(777_777) {
            windows.push(chunk, |_| Some(middle..middle + 5000));
        }
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let end = all.len() as u64;
        for offset in [0, 1, 16 << 20, middle, middle + 4990, end - 10, end - (4 << 20)] {
            let expected = &all[at(offset)..at(offset) + 10];
            let found = windows.get(offset, 10);
            assert_eq!(found.is_some(), offset != 16 << 20, "{offset}");
            assert!(found.is_none_or(|found| found == expected), "{offset}");
        }
        assert_eq!(windows.get(middle - 1, 2), None);
        assert_eq!(windows.get(u64::MAX, u64::MAX), None);
        assert!(windows.head.len() + windows.tail.len() <= 24 << 20);
    }

    #[test]
    fn a_small_file_is_kept_whole() {
        let all = bytes(18 << 20);
        let mut windows = Windows::default();
        all.chunks(65_536).for_each(|chunk| windows.push(chunk, |_| None));
        let mut read = Vec::new();
        Cursor::new(&windows).read_to_end(&mut read).unwrap();
        assert!(read == all);
    }
}
