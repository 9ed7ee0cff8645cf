//! The one binary: parses the command line, dispatches, and turns errors into exit codes.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use minimalimage::{
    api::crd,
    cli::{AgentCommand, Cli, Command, LogFormat, SandboxProcess},
    cmd::{
        agent::{self, AgentSettings, Remote},
        build, convert, images, install, lint, list, operator, package, plan, store,
        wrapper::{self, WrapperSettings},
    },
    domain::task::{AGENT_WORK_DIR, AgentMessage, SHARED_DIR, StageTask, TASK_VARIABLE},
    shell::{chain, confined, sandbox, telemetry},
};
use tokio::runtime::{Builder, Runtime};

const TERMINATION_LOG: &str = "/dev/termination-log";
const SOCKET: &str = "agent.sock";

fn main() -> ExitCode {
    // Two providers could be compiled in one day; whoever asks for the default gets this one.
    let _first = rustls::crypto::ring::default_provider().install_default();
    match dispatch(command_line()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("minimalimage: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// As a plugin the program is called as people call it.
fn command_line() -> Command {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let cli = match called.file_stem().and_then(|name| name.to_str()) {
        Some("kubectl-minimalimage") => Cli::command().bin_name("kubectl minimalimage"),
        _ => Cli::command(),
    };
    Cli::from_arg_matches(&cli.get_matches()).unwrap_or_else(|error| error.exit()).command
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Build(args) => {
            let runtime = single_threaded()?;
            let result = runtime.block_on(build::run(*args));
            runtime.shutdown_background();
            result
        }
        Command::Plan(args) => {
            let runtime = single_threaded()?;
            let result = runtime.block_on(plan::run(*args));
            runtime.shutdown_background();
            result
        }
        Command::Convert(args) => {
            let runtime = single_threaded()?;
            let result = runtime.block_on(convert::run(*args)).map(|()| 0);
            runtime.shutdown_background();
            result
        }
        Command::Images(args) => images::run(args).map(|()| 0),
        Command::List(args) => single_threaded()?.block_on(list::run(args)).map(|()| 0),
        Command::Store(command) => single_threaded()?.block_on(store::run(command)).map(|()| 0),
        // Both before there is any thread, which the kernel would not let into other namespaces.
        Command::Sandbox { process: None } => Ok(sandbox::enter()?),
        Command::Sandbox { process: Some(SandboxProcess::Init) } => Ok(sandbox::init()?),
        Command::Operator(args) => {
            telemetry::start(&args.log, args.log_format == LogFormat::Json).context("--log is not a filter")?;
            Builder::new_multi_thread().enable_all().build()?.block_on(operator::run(*args)).map(|()| 0)
        }
        Command::Agent(AgentCommand::Install) => install::run(SHARED_DIR.as_ref(), None).map(|()| 0),
        Command::Agent(AgentCommand::Run) => {
            telemetry::start("info", false)?;
            run_agent()
        }
        Command::Wrapper => {
            let settings = WrapperSettings {
                socket: format!("{SHARED_DIR}/{SOCKET}").into(),
                root: "/".into(),
                termination_log: TERMINATION_LOG.into(),
            };
            Ok(finish(single_threaded()?, wrapper::run(settings)))
        }
        Command::Confined { user, offline, command } => {
            let user = match &user[..] {
                [user, group, groups @ ..] => Some((*user, *group, groups.to_vec())),
                _ => None,
            };
            let error = confined::exec(&command, &confined::Less { user, offline });
            let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
            eprintln!("minimalimage: failed to run {program}: {error}");
            Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
        Command::Crd => {
            print!("{}", crd::yaml()?);
            Ok(0)
        }
        Command::Lint(args) => lint::run(&args),
        Command::Package(args) => single_threaded()?.block_on(package::run(args)).map(|()| 0),
    }
}

fn run_agent() -> anyhow::Result<u8> {
    let task = std::env::var(TASK_VARIABLE).with_context(|| format!("{TASK_VARIABLE} is not set"))?;
    let task: StageTask = serde_json::from_str(&task).with_context(|| format!("{TASK_VARIABLE} is not a task"))?;
    let settings = AgentSettings {
        socket: format!("{SHARED_DIR}/{SOCKET}").into(),
        work_dir: AGENT_WORK_DIR.into(),
        termination_log: TERMINATION_LOG.into(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    match Remote::new(&task) {
        Ok(remote) => Ok(finish(single_threaded()?, agent::run(task, settings, remote))),
        Err(failure) => {
            let message = AgentMessage { failure: Some(failure), ..AgentMessage::default() };
            std::fs::write(TERMINATION_LOG, message.text()).context("failed to write the termination message")?;
            Ok(1)
        }
    }
}

fn single_threaded() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Runs `work` to its exit code and does not wait for threads that may still block.
fn finish(runtime: Runtime, work: impl Future<Output = u8>) -> u8 {
    let code = runtime.block_on(work);
    runtime.shutdown_background();
    code
}
