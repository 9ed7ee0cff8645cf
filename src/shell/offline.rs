//! A process without a network: a seccomp filter that lets it open no connection, then the command in its place.

use std::{collections::BTreeMap, ffi::OsString, io, os::unix::process::CommandExt as _, process::Command};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Numbers of system calls and constants: the same in every Linux of the architecture.
#[cfg(target_arch = "x86_64")]
mod abi {
    pub const SOCKET: i64 = 41;
    pub const IO_URING_SETUP: i64 = 425;
}
#[cfg(target_arch = "aarch64")]
mod abi {
    pub const SOCKET: i64 = 198;
    pub const IO_URING_SETUP: i64 = 425;
}
const AF_UNIX: u64 = 1;
const EACCES: u32 = 13;

/// Becomes `command`, for which every socket but those within the machine's file system is forbidden. io_uring is too,
/// since it opens sockets without the system call. Comes back only with an error.
#[must_use]
pub fn exec(command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "there is no command");
    };
    match filter().and_then(|filter| apply_filter(&filter).map_err(io::Error::other)) {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

fn filter() -> io::Result<BpfProgram> {
    let other_than_unix = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, AF_UNIX);
    let rule = SeccompRule::new(vec![other_than_unix.map_err(io::Error::other)?]).map_err(io::Error::other)?;
    let rules = BTreeMap::from([(abi::SOCKET, vec![rule]), (abi::IO_URING_SETUP, Vec::new())]);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    // Calls in another architecture's numbering (32 bit) end the process.
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EACCES), arch);
    filter.map_err(io::Error::other)?.try_into().map_err(io::Error::other)
}
