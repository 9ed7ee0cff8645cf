//! One instruction: its name, flags and arguments, and what they mean.

use super::{
    super::{
        ast::{Argument, CommandLine, Heredoc, Instruction, OnBuild, Pair, Stage, Word},
        problem::{Located, Problem, Warning},
    },
    copy,
    flags::{self, Flags, Kind, Unquoted},
    healthcheck,
    lines::Part,
    run,
    suggest::closest,
    words::{self, Json},
};

/// Every instruction.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction taken apart, not yet understood.
pub(super) struct Statement<'a> {
    /// Its name as written.
    pub keyword: Part<'a>,
    pub flags: Vec<Unquoted>,
    /// What follows the flags, without blanks around it.
    pub arguments: Part<'a>,
}

impl<'a> Statement<'a> {
    pub fn split(part: Part<'a>, escape: char) -> Self {
        let end = part.text().find(|c: char| c.is_ascii_whitespace() || c == '\u{b}').unwrap_or(part.text().len());
        let (flags, arguments) = flags::split(part.from(end), escape);
        Self { keyword: part.sub(0, end), flags, arguments }
    }

    /// The instruction's name, if there is one of that name.
    pub fn name(&self) -> Option<&'static str> {
        NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(self.keyword.text()))
    }

    /// Whether `<<NAME` announces a here-document in this instruction, or in the one that ONBUILD holds. A misspelt
    /// instruction counts as what it was meant to be, lest each line of the document be complained of.
    pub fn takes_heredocs(&self, escape: char) -> bool {
        match self.name().or_else(|| closest(self.keyword.text(), NAMES)) {
            Some("ONBUILD") => {
                let inner = Self::split(self.arguments, escape);
                inner.name() != Some("ONBUILD") && inner.takes_heredocs(escape)
            }
            Some("RUN" | "COPY" | "ADD") => !matches!(words::json(self.arguments), Json::Strings(_)),
            _ => false,
        }
    }
}

/// What an instruction is.
pub(super) enum Parsed {
    Stage(Stage),
    Instruction(Instruction),
}

/// What all instructions of a file share.
pub(super) struct Context {
    pub escape: char,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Warning>,
}

impl Context {
    pub fn new(escape: char) -> Self {
        Self { escape, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Understands an instruction. None when there is a problem, which is noted.
    pub fn parse(&mut self, statement: &Statement<'_>, heredocs: Vec<Located<Heredoc>>) -> Option<Parsed> {
        let Some(name) = statement.name() else {
            let keyword = statement.keyword;
            let message = format!("unknown instruction `{}`", shown(keyword.text()));
            self.problems.push(keyword.problem(message).suggesting(closest(keyword.text(), NAMES)));
            return None;
        };
        let before = self.problems.len();
        let parsed = self.typed(name, statement, heredocs);
        match parsed {
            Ok(parsed) if self.problems.len() == before => Some(parsed),
            Ok(_) => None,
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn typed(
        &mut self,
        name: &'static str,
        statement: &Statement<'_>,
        heredocs: Vec<Located<Heredoc>>,
    ) -> Result<Parsed, Problem> {
        let arguments = statement.arguments;
        match name {
            "FROM" => return self.from(statement).map(Parsed::Stage),
            "RUN" => return run::parse(self, statement, heredocs).map(Parsed::Instruction),
            "COPY" => return copy::copy(self, statement, &heredocs).map(Parsed::Instruction),
            "ADD" => return copy::add(self, statement, &heredocs).map(Parsed::Instruction),
            "HEALTHCHECK" => return healthcheck::parse(self, statement).map(Parsed::Instruction),
            "ONBUILD" => return self.on_build(statement, heredocs).map(Parsed::Instruction),
            _ => {}
        }
        self.flags(statement, &[], name);
        // None of these has flags; beside a wrong one it need not be said that the rest is missing.
        if let Some(problem) = self.problems.pop_if(|_| !statement.flags.is_empty()) {
            return Err(problem);
        }
        if arguments.is_empty() {
            return Err(statement.keyword.problem(format!("{name} needs {}", needed(name))));
        }
        Ok(Parsed::Instruction(match name {
            "ARG" => Instruction::Arg(self.arguments(arguments)?),
            "ENV" => Instruction::Env(self.pairs(arguments, name)?),
            "LABEL" => Instruction::Label(self.pairs(arguments, name)?),
            "CMD" => Instruction::Cmd(self.command(arguments)?),
            "ENTRYPOINT" => Instruction::Entrypoint(self.command(arguments)?),
            "SHELL" => Instruction::Shell(shell(arguments)?),
            "EXPOSE" => Instruction::Expose(words::blank_separated(arguments).into_iter().map(words::word).collect()),
            "VOLUME" => Instruction::Volume(volumes(arguments)?),
            "USER" => Instruction::User(words::word(arguments)),
            "WORKDIR" => Instruction::Workdir(words::word(arguments)),
            "STOPSIGNAL" => Instruction::StopSignal(words::word(arguments)),
            _ => {
                let message = "MAINTAINER is deprecated; use LABEL org.opencontainers.image.authors=…";
                self.warn("maintainer-deprecated", statement.keyword.problem(message));
                Instruction::Maintainer(arguments.located().map(str::to_owned))
            }
        }))
    }

    pub fn flags(&mut self, statement: &Statement<'_>, known: &[(&'static str, Kind)], name: &str) -> Flags {
        Flags::check(&statement.flags, known, name, &mut self.problems)
    }

    fn warn(&mut self, rule: &'static str, problem: Problem) {
        self.warnings.push(Warning { rule, problem });
    }

    fn from(&mut self, statement: &Statement<'_>) -> Result<Stage, Problem> {
        let flags = self.flags(statement, &[("platform", Kind::Value)], "FROM");
        let words = words::blank_separated(statement.arguments);
        let (image, name) = match &*words {
            [image] => (*image, None),
            [image, keyword, name] if keyword.text().eq_ignore_ascii_case("as") => (*image, Some(*name)),
            [] => return Err(statement.keyword.problem("FROM needs an image, a stage's name or scratch")),
            [_, rest @ ..] => {
                let odd = rest.first().copied().unwrap_or(statement.arguments);
                return Err(
                    odd.problem(format!("expected AS NAME or nothing after FROM IMAGE, found `{}`", odd.text()))
                );
            }
        };
        Ok(Stage {
            name: name.map(stage_name).transpose()?,
            from: words::word(image),
            platform: flags.word("platform"),
            at: statement.keyword.at(),
            instructions: Vec::new(),
        })
    }

    fn arguments(&mut self, part: Part<'_>) -> Result<Vec<Located<Argument>>, Problem> {
        let argument = |part: Part<'_>| {
            let (name, default) = match part.text().split_once('=') {
                Some((name, default)) => (name, Some(Word::new(default))),
                None => (part.text(), None),
            };
            if name.is_empty() {
                return Err(part.problem("an ARG's name is missing before the `=`"));
            }
            Ok(Located::new(Argument { name: Word::new(name), default }, part.at()))
        };
        words::quoted(part, self.escape).into_iter().map(argument).collect()
    }

    /// `name=value …`, or the old form `name the rest of the line`.
    fn pairs(&mut self, part: Part<'_>, instruction: &str) -> Result<Vec<Pair>, Problem> {
        let words = words::quoted(part, self.escape);
        if words.first().is_some_and(|first| !first.text().contains('=')) {
            let old = words::blank_separated(part);
            let (Some(name), Some(value)) = (old.first(), old.get(1)) else {
                return Err(part.problem(format!("{instruction} needs a value: {instruction} {}=VALUE", part.text())));
            };
            let message = format!("{instruction} without `=` is deprecated; write {instruction} {}=…", name.text());
            self.warn("legacy-key-value", name.problem(message));
            let start = value.text().as_ptr().addr().saturating_sub(part.text().as_ptr().addr());
            return Ok(vec![Pair { name: words::word(*name), value: words::word(part.from(start)) }]);
        }
        let pair = |word: Part<'_>| match word.text().find('=') {
            Some(0) => Err(word.problem(format!("the name before the `=` is missing in {instruction}"))),
            Some(end) => Ok(Pair { name: words::word(word.sub(0, end)), value: words::word(word.from(end + 1)) }),
            None => {
                let message =
                    format!("{instruction} takes NAME=VALUE, found `{}`; quote values with blanks", word.text());
                Err(word.problem(message))
            }
        };
        words.into_iter().map(pair).collect()
    }

    /// The exec form if the arguments are a JSON array, the shell form otherwise.
    pub fn command(&mut self, part: Part<'_>) -> Result<Located<CommandLine>, Problem> {
        let command = match words::json(part) {
            Json::Strings(strings) => CommandLine::Exec(strings),
            Json::Other => return Err(part.problem("an exec form holds strings only")),
            Json::None => {
                let inner = part.text().strip_prefix('[').map(str::trim_start);
                if inner.is_some_and(|inner| inner.starts_with(['"', '\'']) && inner.ends_with(']')) {
                    let message = "this is no JSON (strings in double quotes, commas between), so the shell runs it";
                    self.warn("exec-form-is-no-json", part.problem(message));
                }
                CommandLine::Shell(part.text().to_owned())
            }
        };
        Ok(Located::new(command, part.at()))
    }

    fn on_build(&mut self, statement: &Statement<'_>, heredocs: Vec<Located<Heredoc>>) -> Result<Instruction, Problem> {
        self.flags(statement, &[], "ONBUILD");
        if statement.arguments.is_empty() {
            return Err(statement.keyword.problem("ONBUILD needs an instruction"));
        }
        let inner = Statement::split(statement.arguments, self.escape);
        if let Some(name @ ("ONBUILD" | "FROM" | "MAINTAINER")) = inner.name() {
            return Err(inner.keyword.problem(format!("ONBUILD cannot hold {name}")));
        }
        let mut text = statement.arguments.text().to_owned();
        for heredoc in &heredocs {
            text.push('\n');
            text.push_str(&heredoc.value.content);
            text.push_str(&heredoc.value.name);
        }
        // A stage cannot come out of it: FROM was refused above. A problem is noted already; the outcome is dropped.
        let instruction = match self.parse(&inner, heredocs) {
            Some(Parsed::Instruction(instruction)) => instruction,
            _ => Instruction::Expose(Vec::new()),
        };
        let instruction = Box::new(Located::new(instruction, inner.keyword.at()));
        Ok(Instruction::OnBuild(OnBuild { text, instruction }))
    }
}

fn needed(name: &str) -> &'static str {
    match name {
        "ARG" => "a name: ARG NAME or ARG NAME=DEFAULT",
        "ENV" | "LABEL" => "NAME=VALUE",
        "CMD" => "a command; CMD [] takes back the base image's",
        "ENTRYPOINT" => "a program; ENTRYPOINT [] takes back the base image's",
        "SHELL" => "a JSON array: SHELL [\"/bin/bash\", \"-c\"]",
        "EXPOSE" => "a port",
        "USER" => "a user",
        "STOPSIGNAL" => "a signal",
        "MAINTAINER" => "a name",
        _ => "a path",
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `^[a-z][a-z0-9-_.]*$` once in lower case, as in BuildKit.
fn stage_name(part: Part<'_>) -> Result<Located<String>, Problem> {
    let name = part.text().to_lowercase();
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest) {
        return Ok(Located::new(name, part.at()));
    }
    let message = format!("`{}` is no name for a stage: a letter, then letters, digits, - _ and .", shown(part.text()));
    Err(part.problem(message))
}

fn shell(part: Part<'_>) -> Result<Located<Vec<String>>, Problem> {
    match words::json(part) {
        Json::Strings(strings) if !strings.is_empty() => Ok(Located::new(strings, part.at())),
        _ => Err(part.problem("SHELL takes a JSON array of strings: SHELL [\"/bin/bash\", \"-c\"]")),
    }
}

/// A JSON array or words between blanks.
pub(super) fn list(part: Part<'_>) -> Result<Vec<Located<Word>>, Problem> {
    match words::json(part) {
        // Within JSON the strings have no places of their own.
        Json::Strings(strings) => Ok(strings.into_iter().map(|s| Located::new(Word::new(s), part.at())).collect()),
        Json::Other => Err(part.problem("a list in brackets holds strings only")),
        Json::None => Ok(words::blank_separated(part).into_iter().map(words::word).collect()),
    }
}

fn volumes(part: Part<'_>) -> Result<Vec<Located<Word>>, Problem> {
    let volumes: Vec<_> = list(part)?.into_iter().map(|word| word.map(|word| Word::new(word.raw().trim()))).collect();
    if volumes.is_empty() || volumes.iter().any(|word| word.value.raw().is_empty()) {
        return Err(part.problem("VOLUME takes paths; this one is empty"));
    }
    Ok(volumes)
}
