//! Runs the processes of a build container one after the other, passes their output on, and leaves none behind.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait},
};

use crate::domain::{passwd::User, tail::LastBytes};

/// Codes of a shell for a command that cannot be run, and that is not there.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;
/// 128 + SIGTERM.
pub const TERMINATED: i32 = 143;

/// What a step runs.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// Variables on top of the container's own.
    pub env: &'a BTreeMap<String, String>,
    /// Where it starts; made when missing.
    pub directory: &'a Path,
    /// Whom it runs as; none is who we are.
    pub user: Option<&'a User>,
    /// Whether it can open no connection.
    pub offline: bool,
}

/// Stops the steps from another thread.
#[derive(Debug, Default)]
pub struct Interrupt {
    /// Set from before a step is started until it has ended.
    active: AtomicBool,
    /// The running step's process group, once it is known.
    group: AtomicI32,
    stopped: AtomicBool,
}

impl Interrupt {
    /// Passes SIGTERM on to the running step, after which no other starts. Gives whether there is a step to wait for.
    pub fn terminate(&self) -> bool {
        self.stopped.store(true, Ordering::SeqCst);
        self.pass_on();
        self.active.load(Ordering::SeqCst)
    }

    fn pass_on(&self) {
        if let Some(group) = Pid::from_raw(self.group.load(Ordering::SeqCst)) {
            // Fails only when the step has just ended.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// The running side of a build container. This process must have no other children.
pub struct Steps {
    environment: BTreeMap<OsString, OsString>,
    stdout: PipeWriter,
    stderr: PipeWriter,
    last: Arc<Mutex<LastBytes>>,
    copiers: Vec<JoinHandle<()>>,
    interrupt: Arc<Interrupt>,
}

impl Steps {
    /// Makes this process the one that orphans come to, and sets the umask that files are made with.
    pub fn start(environment: BTreeMap<OsString, OsString>, interrupt: Arc<Interrupt>) -> io::Result<Self> {
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
        rustix::process::set_child_subreaper(Some(getpid()))?;
        let last = Arc::new(Mutex::new(LastBytes::default()));
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let copiers = vec![
            copy(from_stdout, io::stdout(), Arc::clone(&last))?,
            copy(from_stderr, io::stderr(), Arc::clone(&last))?,
        ];
        Ok(Self { environment, stdout, stderr, last, copiers, interrupt })
    }

    /// Runs one command to its end and gives its exit code, 128 + signal number when it was killed.
    pub fn run(&mut self, process: Process<'_>) -> io::Result<i32> {
        self.interrupt.active.store(true, Ordering::SeqCst);
        // Whoever stops us either sees that a step is active, or is seen here.
        let code =
            if self.interrupt.stopped.load(Ordering::SeqCst) { Ok(TERMINATED) } else { self.run_active(process) };
        self.interrupt.active.store(false, Ordering::SeqCst);
        // A step may take the signal for a reason to end well, but its work is not done.
        code.map(|code| if code == 0 && self.interrupt.stopped.load(Ordering::SeqCst) { TERMINATED } else { code })
    }

    fn run_active(&mut self, process: Process<'_>) -> io::Result<i32> {
        let Process { command, env, directory, user, offline } = process;
        let Some((program, arguments)) = command.split_first() else { return Ok(0) };
        if let Err(error) = fs::create_dir_all(directory) {
            return self.refuse(CANNOT_RUN, &format!("failed to create {}: {error}", directory.display()));
        }
        let mut builder = if offline || user.is_some() {
            // We must lose nothing ourselves: a process between us and the command does, and becomes the command.
            let mut builder = Command::new(std::env::current_exe()?);
            builder.arg("confined").args(offline.then_some("--offline"));
            builder.args(user.map(|user| format!("--user={}", identity(user)))).args(["--", program]);
            builder
        } else {
            Command::new(program)
        };
        builder.args(arguments).env_clear().envs(&self.environment);
        if let Some(user) = user {
            builder.env("HOME", &user.home);
        }
        builder.envs(env).current_dir(directory).process_group(0);
        builder.stdin(Stdio::null()).stdout(self.stdout.try_clone()?).stderr(self.stderr.try_clone()?);
        let child = match builder.spawn() {
            Ok(child) => child,
            Err(error) => {
                let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
                return self.refuse(code, &format!("failed to run {program}: {error}"));
            }
        };
        let id = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.interrupt.group.store(id, Ordering::SeqCst);
        if self.interrupt.stopped.load(Ordering::SeqCst) {
            // The signal may have come before the group was known.
            self.interrupt.pass_on();
        }
        let status = wait_for(id);
        self.interrupt.group.store(0, Ordering::SeqCst);
        // As a container's processes end with its first one: what is left would reach into the next step.
        kill_everything()?;
        status.map(exit_code)
    }

    /// Kills whatever still runs and gives the end of the log.
    pub fn finish(self) -> io::Result<LastBytes> {
        kill_everything()?;
        drop((self.stdout, self.stderr));
        for copier in self.copiers {
            copier.join().map_err(|_| io::Error::other("a thread that copies output ended early"))?;
        }
        Ok(std::mem::take(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Says on the steps' own standard error why a command does not run.
    fn refuse(&mut self, code: i32, text: &str) -> io::Result<i32> {
        writeln!(self.stderr, "minimalimage: {text}")?;
        Ok(code)
    }
}

/// User, group and all groups; the group is one of them, as container runtimes have it.
fn identity(user: &User) -> String {
    let groups = std::iter::once(user.gid).chain(user.groups.iter().copied());
    let numbers = [user.uid, user.gid].into_iter().chain(groups);
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

fn copy(
    mut from: PipeReader,
    mut to: impl Write + Send + 'static,
    last: Arc<Mutex<LastBytes>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("output".into()).spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let bytes = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            // A log that nobody takes any more must not stop the build.
            let _ = to.write_all(bytes).and_then(|()| to.flush());
            last.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    })
}

/// Waits for one child and reaps all others that end meanwhile: as PID 1 we are the parent of every orphan.
fn wait_for(child: i32) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child => return Ok(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(CANNOT_RUN)
}

/// Kills every process of the container but this one, however it was detached, and reaps them.
fn kill_everything() -> io::Result<()> {
    loop {
        if getpid().is_init() {
            // kill(-1): everything but PID 1 itself. ESRCH means that there is nothing.
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
        } else {
            for process in descendants() {
                let _ = kill_process(process, Signal::KILL);
            }
        }
        match wait(WaitOptions::empty()) {
            Err(Errno::CHILD) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// All processes below this one, by `/proc/*/stat`.
fn descendants() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: HashMap<i32, i32> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything, so the fields are counted from its end (proc(5)).
            let parent = stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let own = getpid().as_raw_nonzero().get();
    let below = |id: &i32| {
        let above = std::iter::successors(Some(*id), |id| parents.get(id).copied()).skip(1);
        above.take(parents.len()).any(|id| id == own)
    };
    parents.keys().filter(|id| below(id)).filter_map(|id| Pid::from_raw(*id)).collect()
}
