//! Reads a package's file (deb(5)): an ar archive of a control archive and a data archive, headers and sizes bounded.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
};

use crate::{
    domain::{
        archive::{MAGIC_LENGTH, archive_kind},
        debian::compose::Control,
        task::Limits,
    },
    shell::archive::{Member, MemberKind, Wrong, members, tar_of},
};

const GLOBAL: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;
/// Parts of a package: three, and a few that others may add.
const MOST_PARTS: usize = 16;
/// Of control files: texts, scripts, lists.
const CONTROL_LIMIT: u64 = 32 << 20;

/// One part of a package's file.
struct Part {
    name: String,
    start: u64,
    size: u64,
}

/// Reads the control files.
///
/// # Errors
/// With what is wrong with the file.
pub(super) fn control(file: &mut File) -> Result<Control, String> {
    let part = part(file, "control.tar")?;
    let limits = Limits { source_bytes: CONTROL_LIMIT, source_entries: 1000, ..Limits::default() };
    let mut texts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    each(file, &part, &limits, |member, content| {
        let name = String::from_utf8_lossy(&member.path).trim_start_matches("./").to_owned();
        if member.kind == MemberKind::File && texts.len() < 100 {
            let mut text = Vec::new();
            content.read_to_end(&mut text).map_err(|error| error.to_string())?;
            texts.insert(name, text);
        }
        Ok(())
    })?;
    let mut text = |name: &str| String::from_utf8_lossy(&texts.remove(name).unwrap_or_default()).into_owned();
    let (control, md5sums) = (text("control"), text("md5sums"));
    if control.is_empty() {
        return Err("it has no file `control`".to_owned());
    }
    Ok(Control { control, md5sums, scripts: texts })
}

/// Hands over each member of the data archive with its content.
///
/// # Errors
/// With what is wrong with the file, or what `take` finds wrong.
pub(super) fn data(
    file: &mut File,
    limits: &Limits,
    take: impl FnMut(Member, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let part = part(file, "data.tar")?;
    each(file, &part, limits, take)
}

fn each(
    file: &mut File,
    part: &Part,
    limits: &Limits,
    take: impl FnMut(Member, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(part.start)).map_err(text)?;
    let length = part.size.min(MAGIC_LENGTH as u64);
    Read::by_ref(file).take(length).read_to_end(&mut head).map_err(text)?;
    let kind = archive_kind(&head).map_err(|found| format!("{} is {found}", part.name))?;
    file.seek(SeekFrom::Start(part.start)).map_err(text)?;
    let own = file.try_clone().map_err(text)?.take(part.size);
    let reader = tar_of(kind, own, limits, too_large).map_err(text)?;
    let reader = reader.ok_or_else(|| format!("{} is a zip file", part.name))?;
    let wrong = |wrong: Wrong| match wrong {
        Wrong::Read(error) => format!("{}: {error}", part.name),
        Wrong::Malformed(problem) => format!("{}: {problem}", part.name),
    };
    members(reader, wrong, take)
}

fn too_large(limits: &Limits) -> io::Error {
    let text = format!("it unpacks to more than {} bytes", limits.source_bytes);
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

/// The part whose name begins with `name`.
fn part(file: &mut File, name: &str) -> Result<Part, String> {
    let text = |error: io::Error| format!("it is truncated or broken: {error}");
    let total = file.seek(SeekFrom::End(0)).map_err(text)?;
    let mut magic = [0; GLOBAL.len()];
    file.rewind().map_err(text)?;
    file.read_exact(&mut magic).map_err(text)?;
    if &magic != GLOBAL {
        return Err("it is no Debian package".to_owned());
    }
    let mut at = GLOBAL.len() as u64;
    for _ in 0..MOST_PARTS {
        let mut header = [0; HEADER];
        file.seek(SeekFrom::Start(at)).map_err(text)?;
        file.read_exact(&mut header).map_err(text)?;
        let field = |from: usize, to: usize| {
            String::from_utf8_lossy(header.get(from..to).unwrap_or_default()).trim().to_owned()
        };
        let found = field(0, 16).trim_end_matches('/').to_owned();
        let size = field(48, 58).parse::<u64>().map_err(|_| "a part of it has no size".to_owned())?;
        let start = at + HEADER as u64;
        if start.saturating_add(size) > total {
            return Err(format!("it is truncated: {found} should have {size} bytes"));
        }
        if found.starts_with(name) {
            return Ok(Part { name: found, start, size });
        }
        // Parts begin at even places.
        at = start + size + size % 2;
    }
    Err(format!("it has no {name}"))
}
