//! From the image's entrypoint to the program that the kernel starts in the end: PATH, links, permissions, `#!` lines, and
//! programs that only start others (execve(2); Linux, fs/binfmt_script.c).

use crate::{
    api::v1alpha1::Preflight,
    domain::{
        image::USUAL_PATH,
        passwd::{User, look_up},
        text::printable,
        tree::TreePath,
    },
};

use super::{
    MOST_LOOKS, Report, closure,
    elf::{Elf, ElfKind},
    index::{Facts, Kind, Node},
    java, machine,
    problem::{Attributes, Problem, Severity},
    python,
    resolve::{EXECUTE, Looks, Lost, READ, is_allowed},
    search::Surroundings,
};

/// As many interpreters of interpreters the kernel follows (Linux, fs/exec.c).
const MOST_INTERPRETERS: usize = 5;
/// Whose rights are those of a user with CAP_DAC_OVERRIDE: what nobody may execute it does not execute either.
static ROOT: User = User { uid: 0, gid: 0, groups: Vec::new(), home: String::new() };
/// As many programs that start others are followed.
const MOST_STARTS: usize = 20;

/// Whoever runs the program, and where.
pub(super) struct Runner {
    /// None where it cannot be known: permissions are not asked for then.
    pub user: Option<User>,
    pub path: String,
    pub working_dir: String,
}

/// A file that can be started.
pub(super) struct Place<'a> {
    pub path: TreePath,
    pub node: &'a Node,
}

/// Writes down what keeps the entrypoint from starting.
pub(super) fn check(report: &mut Report<'_>) {
    let start = report.question.start;
    let argv: Vec<String> = start.entrypoint.iter().chain(&start.cmd).cloned().collect();
    if argv.is_empty() {
        // A base for others, or files to be mounted: there is nothing to start.
        return;
    }
    let user = match user(report) {
        Ok(user) => user,
        Err(what) => return report.add(Severity::Refusal, "/etc/passwd", Problem::UserUnknown(what)),
    };
    let working_dir = Some(start.config.working_dir.clone()).filter(|directory| directory.starts_with('/'));
    let runner = Runner {
        user,
        path: start.variable("PATH").unwrap_or(USUAL_PATH).to_owned(),
        working_dir: working_dir.unwrap_or_else(|| "/".into()),
    };
    let walk = |report: &mut Report<'_>, is_capable| {
        Walk { report, runner: &runner, script: None, is_capable }.run(argv.clone());
    };
    walk(report, false);
    // In Strict a doubt is enough.
    let is_strict = report.question.mode == Preflight::Strict;
    if !is_strict && report.findings.is_refused() && runner.user.as_ref().is_some_and(|user| user.uid != 0) {
        let looks = Looks::new(MOST_LOOKS);
        let mut capable = Report::new(report.question, &looks);
        walk(&mut capable, true);
        report.unless_capable(capable);
    }
}

/// The config's user; none where it hangs on a file that was not looked at.
fn user(report: &Report<'_>) -> Result<Option<User>, String> {
    let text =
        |path: &[u8]| match report.question.files.resolve(path, None, report.looks).ok().and_then(|found| found.node) {
            Some(Node { kind: Kind::File(Facts::Text(text)), .. }) => Some(text.as_str()),
            Some(Node { kind: Kind::File(Facts::Unseen), .. }) => None,
            _ => Some(""),
        };
    let Some((passwd, group)) = text(b"/etc/passwd").zip(text(b"/etc/group")) else { return Ok(None) };
    look_up(&report.question.start.config.user, passwd, group).map(Some)
}

struct Walk<'a, 'r> {
    report: &'r mut Report<'a>,
    runner: &'r Runner,
    /// The script whose interpreter is looked for.
    script: Option<String>,
    /// Whether the program is started with CAP_DAC_OVERRIDE, which container runtimes may leave to ordinary users until it runs
    /// (capabilities(7): execve takes it from them).
    is_capable: bool,
}

impl<'a, 'r> Walk<'a, 'r> {
    /// Follows what `argv` starts until it is a program that does its own work.
    fn run(&mut self, mut argv: Vec<String>) {
        let (mut by_kernel, mut interpreters) = (false, 0);
        for _ in 0..MOST_STARTS {
            let Some(name) = argv.first().cloned() else { return };
            let found = if by_kernel || name.contains('/') {
                self.runner.at(self.report, &name, self.starter())
            } else {
                self.runner.on_path(self.report, &name, self.starter())
            };
            let place = match found {
                Ok(place) => place,
                Err(None) => return,
                Err(Some(problem)) => return self.refuse_start(&argv, problem),
            };
            self.report.seen.insert(place.path.clone());
            let next = match &place.node.kind {
                Kind::File(Facts::Elf(elf)) => self.program(&place, elf, &argv),
                Kind::File(Facts::Script(line)) => {
                    by_kernel = true;
                    interpreters += 1;
                    if interpreters > MOST_INTERPRETERS {
                        let shown = place.path.to_string();
                        return self.report.add(Severity::Refusal, &shown, Problem::TooManyInterpreters);
                    }
                    let next = self.interpreter(&place, line, &argv);
                    argv = match next {
                        Some(next) => next,
                        None => return,
                    };
                    continue;
                }
                Kind::File(Facts::Unseen) => None,
                Kind::File(Facts::Empty) => return self.refuse_start(&argv, Problem::Empty),
                _ => return self.refuse_start(&argv, Problem::NotAProgram),
            };
            (by_kernel, self.is_capable) = (false, false);
            match next {
                Some(next) => argv = next,
                None => return,
            }
        }
    }

    /// Whose rights the kernel starts programs with; none where permissions are not asked for.
    fn starter(&self) -> Option<&'r User> {
        if self.is_capable { Some(&ROOT) } else { self.runner.user.as_ref() }
    }

    /// What a program needs; what it starts in its turn, if that is all that it does.
    fn program(&mut self, place: &Place<'a>, elf: &Elf, argv: &[String]) -> Option<Vec<String>> {
        let shown = place.path.to_string();
        match machine::misfit(elf, self.report.question.platform) {
            Some(problem @ Problem::Bits32 { .. }) => self.report.add(Severity::Warning, &shown, problem),
            Some(problem) => {
                self.report.add(Severity::Refusal, &shown, problem);
                return None;
            }
            None => {}
        }
        if elf.kind == ElfKind::Other {
            self.report.add(Severity::Refusal, &shown, Problem::NotExecutableKind);
            return None;
        }
        let around = self.runner.surroundings(self.report);
        let around = Surroundings { starter: self.starter(), ..around };
        let found = closure::of_program(&place.path, elf, around);
        let is_fine = found.problems.is_empty();
        for (file, problem) in found.problems {
            self.report.add(Severity::Refusal, &file, problem);
        }
        self.report.seen.extend(found.files);
        if is_fine && self.gains_rights(place.node) {
            // Whether it does so is the Pod's choice (allowPrivilegeEscalation), so it is not certain.
            let careful = closure::of_program(&place.path, elf, Surroundings { is_secure: true, ..around });
            for (file, problem) in careful.problems {
                self.report.add(Severity::Warning, &file, problem);
            }
        }
        if !is_fine {
            return None;
        }
        let name = last(&place.path.to_string()).to_owned();
        java::check(self.report, self.runner, &place.path, argv);
        python::check(self.report, self.runner, &place.path, argv);
        started(argv.first().map_or(&name, |first| last(first)), argv)
    }

    /// Whether setuid or setgid bits change whose rights it has.
    fn gains_rights(&self, node: &Node) -> bool {
        self.runner.user.as_ref().is_some_and(|user| {
            (node.mode & 0o4000 != 0 && node.owner.uid != user.uid)
                || (node.mode & 0o2010 == 0o2010 && node.owner.gid != user.gid)
        })
    }

    /// What the kernel makes of a script: its interpreter, one argument, the script, and what was given to it.
    fn interpreter(&mut self, place: &Place<'a>, line: &str, argv: &[String]) -> Option<Vec<String>> {
        let shown = place.path.to_string();
        if let Some(problem) = self.runner.unreadable(place.node) {
            self.report.add(Severity::Refusal, &shown, problem);
            return None;
        }
        let words = line.trim_matches([' ', '\t', '\n']);
        let (interpreter, argument) = words.split_once([' ', '\t']).unwrap_or((words, ""));
        let argument = argument.trim_start_matches([' ', '\t']);
        if line.ends_with('\n') && argument.is_empty() {
            // Only an argument may be cut off.
            self.report.add(Severity::Refusal, &shown, Problem::LineTooLong);
            return None;
        }
        if interpreter.is_empty() {
            self.report.add(Severity::Refusal, &shown, Problem::NotAProgram);
            return None;
        }
        let is_env = last(interpreter) == "env";
        if interpreter.ends_with('\r') || (is_env && argument.ends_with('\r')) {
            self.report.add(Severity::Refusal, &shown, Problem::CarriageReturn);
            return None;
        }
        if argument.ends_with('\r') {
            self.report.add(Severity::Warning, &shown, Problem::CarriageReturn);
        }
        self.script = Some(shown.clone());
        let argument = (!argument.is_empty()).then(|| argument.to_owned());
        let rest = std::iter::once(shown).chain(argv.iter().skip(1).cloned());
        Some(std::iter::once(interpreter.to_owned()).chain(argument).chain(rest).collect())
    }

    fn refuse_start(&mut self, argv: &[String], problem: Problem) {
        let name = argv.first().map_or("", String::as_str);
        match &self.script {
            Some(script) => {
                let interpreter = printable(name.as_bytes());
                let why = Box::new(problem);
                let script = script.clone();
                self.report.add(Severity::Refusal, &script, Problem::InterpreterMissing { interpreter, why });
            }
            None => {
                let is_shell_form = problem == Problem::Absent
                    && argv.get(1).is_some_and(|word| word == "-c")
                    && matches!(last(name), "sh" | "bash" | "ash" | "dash");
                let problem = if is_shell_form { Problem::ShellMissing } else { problem };
                let is_looked_up = matches!(problem, Problem::NotOnPath { .. }) || name.starts_with('/');
                let file = if is_looked_up { name.to_owned() } else { self.runner.absolute(name) };
                self.report.add(Severity::Refusal, &file, problem);
            }
        }
    }
}

impl Runner {
    /// What the loader of a program knows.
    pub fn surroundings<'b>(&'b self, report: &Report<'b>) -> Surroundings<'b> {
        Surroundings {
            files: report.question.files,
            user: self.user.as_ref(),
            starter: self.user.as_ref(),
            library_path: report.question.start.variable("LD_LIBRARY_PATH"),
            working_dir: &self.working_dir,
            is_secure: false,
            looks: report.looks,
        }
    }

    /// A path as the program sees it.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        format!("{}/{}", self.working_dir.trim_end_matches('/'), path.trim_start_matches("./"))
    }

    /// The program at a path, started by `starter`.
    ///
    /// # Errors
    /// What keeps it from being started; none where that is not known.
    fn at<'a>(&self, report: &Report<'a>, path: &str, starter: Option<&User>) -> Result<Place<'a>, Option<Problem>> {
        let place = self.open_as(report, path, starter)?;
        if starter.is_some_and(|user| !is_allowed(place.node, user, EXECUTE)) {
            return Err(self.attributes(place.node).map(Problem::NotExecutable));
        }
        Ok(place)
    }

    /// What is told of a file that the image's user may not read.
    pub fn unreadable(&self, node: &Node) -> Option<Problem> {
        let is_closed = self.user.as_ref().is_some_and(|user| !is_allowed(node, user, READ));
        is_closed.then(|| self.attributes(node).map(Problem::NotReadable)).flatten()
    }

    /// A node beside the image's user; none where that is not known.
    fn attributes(&self, node: &Node) -> Option<Attributes> {
        let owner = format!("{}:{}", node.owner.uid, node.owner.gid);
        let user = self.user.as_ref()?.uid.to_string();
        Some(Attributes { mode: node.mode, owner, user })
    }

    /// The file at a path.
    ///
    /// # Errors
    /// What keeps it from being found; none where that is not known.
    pub fn open<'a>(&self, report: &Report<'a>, path: &str) -> Result<Place<'a>, Option<Problem>> {
        self.open_as(report, path, self.user.as_ref())
    }

    fn open_as<'a>(&self, report: &Report<'a>, path: &str, user: Option<&User>) -> Result<Place<'a>, Option<Problem>> {
        let files = report.question.files;
        let found = files.resolve(self.absolute(path).as_bytes(), user, report.looks).map_err(|lost| match lost {
            Lost::Missing => Some(Problem::Absent),
            Lost::Dangling(target) => Some(Problem::Dangling { target: printable(&target) }),
            Lost::Impossible => Some(Problem::NoWay),
            Lost::Closed(directory) => {
                let attributes = files.get(&directory).and_then(|node| self.attributes(node));
                attributes.map(|attributes| Problem::Closed { directory: directory.to_string(), attributes })
            }
            Lost::Outside => None,
        })?;
        match (found.path, found.node) {
            (Some(path), Some(node)) if matches!(node.kind, Kind::File(_) | Kind::HardLink(_)) => {
                Ok(Place { path, node })
            }
            _ => Err(Some(Problem::NotAFile)),
        }
    }

    /// The first program of that name in the directories of PATH.
    fn on_path<'a>(
        &self,
        report: &Report<'a>,
        name: &str,
        starter: Option<&User>,
    ) -> Result<Place<'a>, Option<Problem>> {
        let mut nearly = None;
        for directory in self.path.split(':').filter(|directory| !directory.is_empty()).take(256) {
            match self.at(report, &format!("{directory}/{name}"), starter) {
                Ok(place) => return Ok(place),
                Err(Some(Problem::Absent | Problem::NoWay)) => {}
                Err(None) => return Err(None),
                // There is something, but not for this user: it is told when there is nothing better.
                Err(Some(problem)) => {
                    nearly.get_or_insert(problem);
                }
            }
        }
        Err(Some(nearly.unwrap_or_else(|| Problem::NotOnPath { path: printable(self.path.as_bytes()) })))
    }
}

/// The last part of a path.
pub(super) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What programs start that do nothing else: `env`, and the small init programs. None where it is not certain.
fn started(program: &str, argv: &[String]) -> Option<Vec<String>> {
    let (words, with_value): (Vec<String>, &[&str]) = match program {
        "env" => (env_words(argv), &["-u", "--unset", "-C", "--chdir"]),
        "tini" | "tini-static" | "docker-init" => (argv.get(1..)?.to_vec(), &["-p", "-e"]),
        "dumb-init" => (argv.get(1..)?.to_vec(), &["-r", "--rewrite"]),
        _ => return None,
    };
    let mut words = words.into_iter();
    loop {
        let word = words.next()?;
        match word.as_str() {
            "--" => return Some(words.collect()),
            option if with_value.contains(&option) => drop(words.next()?),
            option if option.starts_with('-') => {}
            // The name may be looked for on a PATH that is set here.
            setting if program == "env" && setting.starts_with("PATH=") => return None,
            setting if program == "env" && setting.contains('=') => {}
            _ => return Some(std::iter::once(word).chain(words).collect()),
        }
    }
}

/// The words that `env` gets: in a script's first line they are one argument, which `-S` takes apart.
fn env_words(argv: &[String]) -> Vec<String> {
    let mut words: Vec<String> = argv.iter().skip(1).cloned().collect();
    if let Some(first) = words.first()
        && let Some(rest) = first.strip_prefix("-S").or_else(|| first.strip_prefix("--split-string="))
    {
        let split: Vec<String> = rest.split_ascii_whitespace().map(str::to_owned).collect();
        words.splice(..1, split);
    }
    words
}
