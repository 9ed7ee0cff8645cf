//! What an ELF file says of itself that decides whether it can start: what the kernel and the loader read, from the program
//! headers alone, since neither of them looks at sections (System V ABI, chapters 4 and 5; the LSB's symbol versioning).

use std::ops::Range;

use object::{
    Endianness, ReadRef as _, elf,
    read::elf::{Dyn as _, FileHeader, ProgramHeader as _},
};
use serde::{Deserialize, Serialize};

use super::window::Windows;

/// As many program headers are looked at; the kernel takes no more than a page of them.
const MOST_SEGMENTS: usize = 1024;
/// Entries of a dynamic section, library names, versions: far above what real files have.
const MOST_ENTRIES: usize = 4096;
/// Bytes of all names of one file.
const MOST_TEXT: usize = 256 << 10;
/// The longest name of a file (Linux PATH_MAX) and the longest search path.
const LONGEST_NAME: u64 = 16 << 10;
/// Of the notes, only the short ones at the beginning are of interest.
const LONGEST_NOTES: u64 = 4 << 10;

/// An ELF file as the kernel and the loader see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// 64 or 32 bits.
    pub bits: u8,
    /// Whether the most significant byte comes first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub big_endian: bool,
    /// `e_type`.
    pub kind: ElfKind,
    /// Whether it has an entry point, which libraries have not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_entry: bool,
    /// The loader that the kernel starts in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// The name by which others need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soname: Option<String>,
    /// Names of libraries in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// Search path for it and for what it loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpath: Option<String>,
    /// Search path for it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runpath: Option<String>,
    /// Versions that libraries must offer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions_needed: Vec<VersionsNeeded>,
    /// Versions that it offers; none where it has no versions at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions_offered: Vec<String>,
    /// Whether its symbols have versions, those that it needs or those that it offers (`DT_VERSYM`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_versions: bool,
    /// `DF_1_NODEFLIB`: the system's directories are not searched for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_system_directories: bool,
    /// Whether Go's linker made it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_go: bool,
    /// Of glibc's loader: the directories that were compiled into it, in its order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_directories: Vec<String>,
}

impl Elf {
    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        // A text takes some bytes besides its own.
        let texts = |list: &[String]| list.iter().map(|text| 30 + text.len()).sum::<usize>();
        let single = [&self.interpreter, &self.soname, &self.rpath, &self.runpath];
        let needed = self.versions_needed.iter();
        let needed: usize =
            needed.map(|needed| 80 + needed.library.len() + texts(&needed.names) + texts(&needed.weak)).sum();
        400 + single.into_iter().flatten().map(String::len).sum::<usize>()
            + needed
            + texts(&self.needed)
            + texts(&self.versions_offered)
            + texts(&self.system_directories)
    }
}

/// The kinds of ELF files that are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElfKind {
    /// A program at a fixed address.
    Program,
    /// A library, or a program that can be anywhere.
    Shared,
    /// An object file, a core dump.
    #[default]
    Other,
}

/// What is needed of one library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsNeeded {
    /// The library's name.
    pub library: String,
    /// Versions that must be there.
    pub names: Vec<String>,
    /// Versions that may be missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weak: Vec<String>,
}

/// The marks at the beginning of an ELF file.
pub(super) const MAGIC: [u8; 4] = elf::ELFMAG;

/// Where the dynamic section is, by the beginning of the file.
pub(super) fn dynamic_range(file: &Windows) -> Option<Range<u64>> {
    fn range<H: FileHeader<Endian = Endianness>>(file: &Windows) -> Option<Range<u64>> {
        let (endian, segments) = segments::<H>(file)?;
        let dynamic = segments.iter().find(|segment| segment.p_type(endian) == elf::PT_DYNAMIC)?;
        let (offset, size) = dynamic.file_range(endian);
        Some(offset..offset.checked_add(size)?)
    }
    if is_64(file)? {
        range::<elf::FileHeader64<Endianness>>(file)
    } else {
        range::<elf::FileHeader32<Endianness>>(file)
    }
}

/// Reads an ELF file; none when it is broken, or when what is wanted was not kept.
pub(super) fn read(file: &Windows) -> Option<Elf> {
    if is_64(file)? {
        parse::<elf::FileHeader64<Endianness>>(file)
    } else {
        parse::<elf::FileHeader32<Endianness>>(file)
    }
}

fn is_64(file: &Windows) -> Option<bool> {
    let class = file.get(4, 1)?.first()?;
    Some(*class == elf::ELFCLASS64.0)
}

fn segments<H: FileHeader<Endian = Endianness>>(file: &Windows) -> Option<(Endianness, &[H::ProgramHeader])> {
    let header = H::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, file).ok()?;
    Some((endian, segments.get(..segments.len().min(MOST_SEGMENTS))?))
}

fn parse<H: FileHeader<Endian = Endianness>>(file: &Windows) -> Option<Elf> {
    let header = H::parse(file).ok()?;
    let (endian, segments) = segments::<H>(file)?;
    let mut found = Elf {
        machine: header.e_machine(endian).0,
        bits: if header.is_class_64() { 64 } else { 32 },
        big_endian: header.is_big_endian(),
        kind: match header.e_type(endian) {
            elf::ET_EXEC => ElfKind::Program,
            elf::ET_DYN => ElfKind::Shared,
            _ => ElfKind::Other,
        },
        has_entry: header.e_entry(endian).into() != 0,
        ..Elf::default()
    };
    let mut names = Names { left: MOST_TEXT };
    let mut dynamic = None;
    for segment in segments {
        let (offset, size) = segment.file_range(endian);
        match segment.p_type(endian) {
            elf::PT_INTERP => {
                let bytes = file.get(offset, size.min(LONGEST_NAME))?;
                found.interpreter = Some(names.take(bytes)?);
            }
            elf::PT_DYNAMIC => dynamic = Some(segment.data_as_array::<H::Dyn, _>(endian, file).ok()?),
            elf::PT_NOTE => found.is_go |= file.get(offset, size.min(LONGEST_NOTES)).is_some_and(has_go_note),
            _ => {}
        }
    }
    let mut tables = Tables::default();
    if let Some(dynamic) = dynamic {
        let ends = |entry: &&H::Dyn| entry.tag(endian) != elf::DT_NULL;
        for entry in dynamic.iter().take(MOST_ENTRIES).take_while(ends) {
            tables.take(entry.tag(endian), entry.val(endian), &mut found);
        }
        let loads: Vec<_> = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).collect();
        let place = |address: u64| {
            loads.iter().find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr(endian).into())?;
                (into < segment.p_filesz(endian).into()).then(|| into.checked_add(segment.p_offset(endian).into()))?
            })
        };
        Dynamic { file, endian, strings: tables.strings.and_then(place), names: &mut names }
            .fill(&tables, &mut found, place)?;
    }
    if found.soname.as_deref().is_some_and(is_glibc_loader) {
        found.system_directories = system_directories(file, &mut names);
    }
    Some(found)
}

/// Go's linker signs with a note of its own, which a system linker puts among others.
fn has_go_note(notes: &[u8]) -> bool {
    // Each word lies at a multiple of four.
    notes.as_chunks::<4>().0.contains(b"Go\0\0")
}

/// Whether glibc calls its loader so.
pub(super) fn is_glibc_loader(soname: &str) -> bool {
    soname.starts_with("ld-linux") || soname.starts_with("ld64.so") || soname.starts_with("ld.so")
}

/// glibc's loader holds its directories as texts behind each other, each with a slash at its end (elf/dl-load.c, `system_dirs`).
fn system_directories(file: &Windows, names: &mut Names) -> Vec<String> {
    let is_directory = |text: &[u8]| text.starts_with(b"/") && text.ends_with(b"/") && (4..200).contains(&text.len());
    let mut run: Vec<&[u8]> = Vec::new();
    for text in file.from(0).split(|byte| *byte == 0) {
        if is_directory(text) {
            run.push(text);
        } else if run.iter().any(|text| text.starts_with(b"/usr/lib")) {
            break;
        } else {
            run.clear();
        }
    }
    run.retain(|text| text.starts_with(b"/lib") || text.starts_with(b"/usr/lib"));
    run.into_iter().take(16).filter_map(|text| names.take(text.strip_suffix(b"/")?)).collect()
}

/// Hands out names as long as there are not too many of them.
struct Names {
    left: usize,
}

impl Names {
    /// The text up to the first zero byte.
    fn take(&mut self, bytes: &[u8]) -> Option<String> {
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        self.left = self.left.checked_sub(bytes.len())?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Addresses in the dynamic section, and offsets of names.
#[derive(Default)]
struct Tables {
    strings: Option<u64>,
    needed: Vec<u64>,
    soname: Option<u64>,
    rpath: Option<u64>,
    runpath: Option<u64>,
    versions_needed: Option<u64>,
    versions_offered: Option<u64>,
}

impl Tables {
    fn take(&mut self, tag: elf::DynamicTag, value: u64, found: &mut Elf) {
        match tag {
            elf::DT_STRTAB => self.strings = Some(value),
            elf::DT_NEEDED => self.needed.push(value),
            elf::DT_SONAME => self.soname = Some(value),
            elf::DT_RPATH => self.rpath = Some(value),
            elf::DT_RUNPATH => self.runpath = Some(value),
            elf::DT_VERNEED => self.versions_needed = Some(value),
            elf::DT_VERSYM => found.has_versions = true,
            elf::DT_VERDEF => self.versions_offered = Some(value),
            elf::DT_FLAGS_1 => found.no_system_directories = value & elf::DF_1_NODEFLIB.0 != 0,
            _ => {}
        }
    }
}

/// Reads what the dynamic section points to.
struct Dynamic<'a> {
    file: &'a Windows,
    endian: Endianness,
    /// Offset of the string table.
    strings: Option<u64>,
    names: &'a mut Names,
}

impl Dynamic<'_> {
    fn fill(mut self, tables: &Tables, found: &mut Elf, place: impl Fn(u64) -> Option<u64>) -> Option<()> {
        found.needed = tables.needed.iter().map(|name| self.name(*name)).collect::<Option<_>>()?;
        for (offset, to) in
            [(tables.soname, &mut found.soname), (tables.rpath, &mut found.rpath), (tables.runpath, &mut found.runpath)]
        {
            if let Some(offset) = offset {
                *to = Some(self.name(offset)?);
            }
        }
        if let Some(address) = tables.versions_needed {
            found.versions_needed = self.versions_needed(place(address)?)?;
        }
        if let Some(address) = tables.versions_offered {
            found.versions_offered = self.versions_offered(place(address)?)?;
        }
        Some(())
    }

    fn name(&mut self, offset: u64) -> Option<String> {
        let at = self.strings?.checked_add(offset)?;
        let bytes = self.file.read_bytes_at_until(at..at.checked_add(LONGEST_NAME)?, 0).ok()?;
        self.names.take(bytes)
    }

    fn versions_needed(&mut self, mut at: u64) -> Option<Vec<VersionsNeeded>> {
        let (file, endian) = (self.file, self.endian);
        let mut all = Vec::new();
        let mut left = MOST_ENTRIES;
        loop {
            let entry = file.read_at::<elf::Verneed<Endianness>>(at).ok()?;
            let library = self.name(entry.vn_file.get(endian).into())?;
            let mut needed = VersionsNeeded { library, ..VersionsNeeded::default() };
            let mut name_at = at.checked_add(entry.vn_aux.get(endian).into())?;
            for _ in 0..entry.vn_cnt.get(endian) {
                left = left.checked_sub(1)?;
                let name = file.read_at::<elf::Vernaux<Endianness>>(name_at).ok()?;
                let is_weak = name.vna_flags.get(endian).0 & elf::VER_FLG_WEAK.0 != 0;
                let text = self.name(name.vna_name.get(endian).into())?;
                if is_weak {
                    needed.weak.push(text);
                } else {
                    needed.names.push(text);
                }
                name_at = name_at.checked_add(name.vna_next.get(endian).into())?;
            }
            all.push(needed);
            left = left.checked_sub(1)?;
            match entry.vn_next.get(endian) {
                0 => return Some(all),
                next => at = at.checked_add(next.into())?,
            }
        }
    }

    fn versions_offered(&mut self, mut at: u64) -> Option<Vec<String>> {
        let (file, endian) = (self.file, self.endian);
        let mut all = Vec::new();
        for _ in 0..MOST_ENTRIES {
            let entry = file.read_at::<elf::Verdef<Endianness>>(at).ok()?;
            // The first name is the version's own, the others are those it follows.
            let name_at = at.checked_add(entry.vd_aux.get(endian).into())?;
            let name = file.read_at::<elf::Verdaux<Endianness>>(name_at).ok()?;
            all.push(self.name(name.vda_name.get(endian).into())?);
            match entry.vd_next.get(endian) {
                0 => return Some(all),
                next => at = at.checked_add(next.into())?,
            }
        }
        None
    }
}
