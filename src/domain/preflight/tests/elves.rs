//! ELF files made by hand: what is read, and that nothing broken or hostile does harm.

use super::super::{
    elf::{self, Elf, ElfKind, VersionsNeeded},
    window::Windows,
};

/// A library or program of 64 bits in one segment, which lies in memory as it does in the file.
#[derive(Default)]
pub struct Maker {
    pub interpreter: Option<&'static str>,
    pub needed: Vec<&'static str>,
    pub soname: Option<&'static str>,
    pub runpath: Option<&'static str>,
    pub versions_needed: Vec<(&'static str, Vec<(&'static str, u16)>)>,
    pub versions_offered: Vec<&'static str>,
    /// Bytes between the headers and the tables.
    pub gap: usize,
}

const HEADERS: usize = 64 + 3 * 56;

impl Maker {
    pub fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut text = |name: &str| {
            let at = strings.len() as u64;
            strings.extend(name.as_bytes());
            strings.push(0);
            at
        };
        let mut dynamic: Vec<(u64, u64)> = self.needed.iter().map(|name| (1, text(name))).collect();
        dynamic.extend(self.soname.map(|name| (14, text(name))));
        dynamic.extend(self.runpath.map(|path| (29, text(path))));
        let mut needs = Vec::new();
        for (index, (library, names)) in self.versions_needed.iter().enumerate() {
            let next = if index + 1 < self.versions_needed.len() { 16 + 16 * names.len() } else { 0 };
            word16(&mut needs, &[1, names.len()]);
            word32(&mut needs, &[text(library), 16, next as u64]);
            for (at, (name, flags)) in names.iter().enumerate() {
                word32(&mut needs, &[7]);
                word16(&mut needs, &[usize::from(*flags), 2]);
                word32(&mut needs, &[text(name), if at + 1 < names.len() { 16 } else { 0 }]);
            }
        }
        let mut offers = Vec::new();
        for (index, name) in self.versions_offered.iter().enumerate() {
            word16(&mut offers, &[1, 0, index + 1, 1]);
            word32(&mut offers, &[7, 20, if index + 1 < self.versions_offered.len() { 28 } else { 0 }]);
            word32(&mut offers, &[text(name), 0]);
        }
        let interpreter = self.interpreter.map(|name| format!("{name}\0")).unwrap_or_default();
        let at = |sizes: &[usize]| (HEADERS + self.gap + sizes.iter().sum::<usize>()) as u64;
        let sizes = [interpreter.len(), strings.len(), needs.len(), offers.len()];
        dynamic.push((5, at(&sizes[..1])));
        if !needs.is_empty() {
            dynamic.extend([(0x6fff_fffe, at(&sizes[..2])), (0x6fff_fff0, 0)]);
        }
        if !offers.is_empty() {
            dynamic.extend([(0x6fff_fffc, at(&sizes[..3])), (0x6fff_fff0, 0)]);
        }
        dynamic.push((0, 0));
        let dynamic_at = at(&sizes);
        let end = dynamic_at + 16 * dynamic.len() as u64;

        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        word16(&mut file, &[3, 62]);
        word32(&mut file, &[1]);
        word64(&mut file, &[u64::from(self.interpreter.is_some()), 64, 0]);
        word32(&mut file, &[0]);
        word16(&mut file, &[64, 56, 3, 64, 0, 0]);
        let kind = if self.interpreter.is_some() { 3 } else { 0 };
        for (kind, at, size) in [(1, 0, end), (2, dynamic_at, end - dynamic_at), (kind, at(&[]), sizes[0] as u64)] {
            word32(&mut file, &[kind, 4]);
            word64(&mut file, &[at, at, at, size, size, 8]);
        }
        file.resize(HEADERS + self.gap, 0);
        file.extend([interpreter.as_bytes(), &strings, &needs, &offers].concat());
        for (tag, value) in dynamic {
            word64(&mut file, &[tag, value]);
        }
        file
    }
}

fn word16(to: &mut Vec<u8>, words: &[usize]) {
    to.extend(words.iter().flat_map(|word| u16::try_from(*word).unwrap().to_le_bytes()));
}

fn word32(to: &mut Vec<u8>, words: &[u64]) {
    to.extend(words.iter().flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes()));
}

fn word64(to: &mut Vec<u8>, words: &[u64]) {
    to.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn read(bytes: &[u8]) -> Option<Elf> {
    let mut windows = Windows::default();
    bytes.chunks(1 << 20).for_each(|chunk| windows.push(chunk, elf::dynamic_range));
    elf::read(&windows)
}

fn maker(gap: usize) -> Maker {
    Maker {
        interpreter: Some("/lib/loader"),
        needed: vec!["liba.so.1", "libb.so"],
        soname: Some("libself.so"),
        runpath: Some("$ORIGIN"),
        versions_needed: vec![("liba.so.1", vec![("A_1", 0), ("A_2", 2)]), ("libb.so", vec![("B", 0)])],
        versions_offered: vec!["libself.so", "S_1"],
        gap,
    }
}

#[test]
fn all_that_a_file_says_is_read_wherever_its_tables_are() {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let expected = Elf {
        machine: 62,
        bits: 64,
        kind: ElfKind::Shared,
        has_entry: true,
        interpreter: Some("/lib/loader".into()),
        soname: Some("libself.so".into()),
        needed: texts(&["liba.so.1", "libb.so"]),
        runpath: Some("$ORIGIN".into()),
        versions_needed: vec![
            VersionsNeeded { library: "liba.so.1".into(), names: texts(&["A_1"]), weak: texts(&["A_2"]) },
            VersionsNeeded { library: "libb.so".into(), names: texts(&["B"]), weak: Vec::new() },
        ],
        versions_offered: texts(&["libself.so", "S_1"]),
        has_versions: true,
        ..Elf::default()
    };
    // The second one's tables are what is kept of its end, and lie at an odd place.
    for gap in [0, (40 << 20) + 1] {
        assert_eq!(read(&maker(gap).bytes()), Some(expected.clone()));
    }
    // Here they are in what is dropped between beginning and end, of which only the dynamic section is kept.
    let mut lost = maker((17 << 20) + 1).bytes();
    lost.resize(lost.len() + (12 << 20), 0);
    assert_eq!(read(&lost), None);
}

#[test]
fn broken_files_are_not_looked_at() {
    let whole = maker(0).bytes();
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), None, "{length}");
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            // Whatever it is, it comes to an end.
            let _ = read(&broken);
        }
    }
}

#[test]
fn counts_and_names_without_end_are_not_followed() {
    let names: Vec<_> = (0..5000).map(|_| ("V", 0)).collect();
    assert_eq!(read(&Maker { versions_needed: vec![("l", names)], ..Maker::default() }.bytes()), None);
    let long: &'static str = Box::leak("l".repeat(100_000).into_boxed_str());
    assert_eq!(read(&Maker { needed: vec![long], ..Maker::default() }.bytes()), None);
    let many: &'static str = Box::leak("l".repeat(10_000).into_boxed_str());
    assert_eq!(read(&Maker { needed: vec![many; 100], ..Maker::default() }.bytes()), None);
}
