//! Processors: what images call them and what ELF files do.

use object::elf;

use crate::domain::value::Platform;

use super::{elf::Elf, problem::Problem};

/// GOARCH, `e_machine`, bits, whether big endian, the path of glibc's loader, and the architecture whose 32-bit mode it is.
type Machine = (&'static str, elf::Machine, u8, bool, &'static str, Option<&'static str>);

const MACHINES: [Machine; 11] = [
    ("amd64", elf::EM_X86_64, 64, false, "/lib64/ld-linux-x86-64.so.2", None),
    ("arm64", elf::EM_AARCH64, 64, false, "/lib/ld-linux-aarch64.so.1", None),
    ("386", elf::EM_386, 32, false, "/lib/ld-linux.so.2", Some("amd64")),
    ("arm", elf::EM_ARM, 32, false, "/lib/ld-linux-armhf.so.3", Some("arm64")),
    ("ppc64le", elf::EM_PPC64, 64, false, "/lib64/ld64.so.2", None),
    ("s390x", elf::EM_S390, 64, true, "/lib/ld64.so.1", None),
    ("riscv64", elf::EM_RISCV, 64, false, "/lib/ld-linux-riscv64-lp64d.so.1", None),
    ("loong64", elf::EM_LOONGARCH, 64, false, "/lib64/ld-linux-loongarch-lp64d.so.1", None),
    ("mips64le", elf::EM_MIPS, 64, false, "/lib64/ld.so.1", None),
    ("ppc64", elf::EM_PPC64, 64, true, "/lib64/ld64.so.1", None),
    // With 32-bit addresses, for kernels that are built for it; the loader's name is its own.
    ("amd64 (x32)", elf::EM_X86_64, 32, false, "/libx32/ld-linux-x32.so.2", Some("amd64")),
];

/// Which problem a file has on `platform`; none where it fits, or where the platform is not known here.
pub(super) fn misfit(file: &Elf, platform: &Platform) -> Option<Problem> {
    let wanted = &platform.architecture;
    let own = MACHINES.iter().find(|(name, ..)| name == wanted)?;
    if is_for(file, own) {
        return None;
    }
    match MACHINES.iter().find(|machine| is_for(file, machine)) {
        Some((.., Some(mode_of))) if mode_of == wanted => Some(Problem::Bits32 { wanted: wanted.clone() }),
        Some((name, ..)) => Some(Problem::Architecture { found: (*name).to_owned(), wanted: wanted.clone() }),
        None => {
            let found = format!("the ELF machine {}", file.machine);
            Some(Problem::Architecture { found, wanted: wanted.clone() })
        }
    }
}

fn is_for(file: &Elf, (_, machine, bits, big_endian, ..): &Machine) -> bool {
    file.machine == machine.0 && file.bits == *bits && file.big_endian == *big_endian
}

/// Where glibc's loader for such a file is.
pub(super) fn glibc_loader(file: &Elf) -> Option<&'static str> {
    MACHINES.iter().find(|machine| is_for(file, machine)).map(|(.., path, _)| *path)
}

/// Whether one process can hold both.
pub(super) fn is_same(one: &Elf, other: &Elf) -> bool {
    (one.machine, one.bits, one.big_endian) == (other.machine, other.bits, other.big_endian)
}
