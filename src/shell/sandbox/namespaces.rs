//! The processes between a build and its stages. The first one leaves the machine's mounts, processes and, for ordinary
//! users, user IDs; the second is the first process of the new world, and its end is the end of everything in it: when
//! the build dies, however that happens, the first sees its line end, ends, and the kernel does the rest.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::Mode,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount},
    process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal},
    thread::UnshareFlags,
};

use super::{Request, SandboxError, inner};

/// A request names at most some hundred layers.
const LONGEST_REQUEST: usize = 4 << 20;
/// What the two ends say when they are ready for the next step.
const READY: &[u8] = b".";

/// The first process: `sandbox`. Its standard input is the line to the build, which must stay open.
///
/// # Errors
/// When the machine does not allow what is needed, or the build is gone.
pub fn enter() -> Result<u8, SandboxError> {
    let mut line = line()?;
    let request = receive(&mut line)?;
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        flags |= UnshareFlags::NEWUSER;
    }
    unshare(flags)?;
    if !is_root {
        // Only from outside can the new user namespace get its users.
        exchange(&mut line)?;
    }
    let (mut ours, theirs) = UnixStream::pair().map_err(SandboxError::Line)?;
    let child = Command::new("/proc/self/exe")
        .args(["sandbox", "init"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(|source| SandboxError::Start { program: "/proc/self/exe".into(), source })?;
    // Now it dies with us.
    ours.read_exact(&mut [0]).map_err(SandboxError::Line)?;
    send(&mut ours, &request)?;
    watch(child, &line)
}

/// The second process: `sandbox init`.
///
/// # Errors
/// When what it is asked for fails.
pub fn init() -> Result<u8, SandboxError> {
    let mut line = line()?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| SandboxError::Namespaces(error.into()))?;
    line.write_all(READY).map_err(SandboxError::Line)?;
    let request = receive(&mut line)?;
    let request: Request = serde_json::from_slice(&request).map_err(|_| SandboxError::Request)?;
    // Not the user's: files in the sandbox have the modes that the steps give them.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    own_world().map_err(SandboxError::Namespaces)?;
    inner::serve(request)
}

/// Sends a request down a line.
pub(super) fn send(line: &mut UnixStream, request: &[u8]) -> Result<(), SandboxError> {
    let length = u32::try_from(request.len()).map_err(|_| SandboxError::Request)?;
    line.write_all(&length.to_be_bytes()).and_then(|()| line.write_all(request)).map_err(SandboxError::Line)
}

fn receive(line: &mut UnixStream) -> Result<Vec<u8>, SandboxError> {
    let mut length = [0; 4];
    line.read_exact(&mut length).map_err(SandboxError::Line)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| SandboxError::Request)?;
    if length > LONGEST_REQUEST {
        return Err(SandboxError::Request);
    }
    let mut request = vec![0; length];
    line.read_exact(&mut request).map_err(SandboxError::Line)?;
    Ok(request)
}

/// Says that we are ready and waits for the other end.
fn exchange(line: &mut UnixStream) -> Result<(), SandboxError> {
    line.write_all(READY).and_then(|()| line.read_exact(&mut [0])).map_err(SandboxError::Line)
}

fn line() -> Result<UnixStream, SandboxError> {
    io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(SandboxError::Line)
}

/// Waits for the child's end or the build's, whichever comes first.
fn watch(mut child: Child, line: &UnixStream) -> Result<u8, SandboxError> {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(SandboxError::Request)?;
    let process = pidfd_open(id, PidfdFlags::empty()).map_err(|error| SandboxError::Namespaces(error.into()))?;
    loop {
        let mut events = [PollFd::new(line, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SandboxError::Namespaces(error.into())),
        }
        let [hangup, ended] = events.map(|event| !event.revents().is_empty());
        if ended {
            return child.wait().map(code).map_err(SandboxError::Line);
        }
        if hangup {
            // Nothing is ever sent any more, so this is the end of the build.
            let _ = child.kill();
            return child.wait().map(|_| 1).map_err(SandboxError::Line);
        }
    }
}

/// An exit code as a shell has it.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

fn unshare(flags: UnshareFlags) -> Result<(), SandboxError> {
    #[expect(
        deprecated,
        reason = "deprecated because of UnshareFlags::FILES, which is not used; the other form is unsafe"
    )]
    let result = rustix::thread::unshare(flags);
    result.map_err(|error| SandboxError::Namespaces(error.into()))
}

/// Our own mounts, a `/proc` that shows our own processes, and no control groups that a runtime could leave behind.
fn own_world() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    mount("proc", "/proc", "proc", safe, None::<&std::ffi::CStr>)?;
    // mountinfo (proc(5)): the fifth field is where.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| point.starts_with("/sys/fs/cgroup")) {
        // Where this is refused, the user could not make any either.
        let _ = mount_remount(point, MountFlags::BIND | MountFlags::RDONLY | safe | MountFlags::RELATIME, c"");
    }
    Ok(())
}
