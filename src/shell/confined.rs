//! A process with less than we have: as another user, without a network; then the command in its place.

use std::{collections::BTreeMap, ffi::OsString, io, os::unix::process::CommandExt as _, process::Command};

use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
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

/// What a process has less of.
#[derive(Debug, Clone, Default)]
pub struct Less {
    /// Whom it runs as, if not as we do: user, group and further groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// Whether every socket but those within the machine's file system is forbidden. io_uring is too, since it opens sockets
    /// without the system call.
    pub offline: bool,
}

/// Becomes `command`. Comes back only with an error. There must be no other thread, whose user would stay.
#[must_use]
pub fn exec(command: &[OsString], less: &Less) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "there is no command");
    };
    match confine(less) {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

fn confine(less: &Less) -> io::Result<()> {
    if let Some((user, group, groups)) = &less.user {
        let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups)?;
        let (user, group) = (Uid::from_raw(*user), Gid::from_raw(*group));
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    if less.offline {
        apply_filter(&filter()?).map_err(io::Error::other)?;
    }
    Ok(())
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
