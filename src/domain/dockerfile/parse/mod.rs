//! From text to [`Dockerfile`], with all that is wrong in it.

mod copy;
mod flags;
mod healthcheck;
mod instruction;
mod lines;
mod run;
mod suggest;
#[cfg(test)]
mod tests;
mod words;

use super::{
    ast::{Argument, Dockerfile, Instruction, Stage},
    problem::{Located, Position, Problem},
};
use instruction::{Context, Parsed, Statement};
use lines::{Line, Reader};
pub use suggest::closest;

/// Bytes that a Dockerfile may have.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes that a line may have: BuildKit's limit.
pub const MAX_LINE_BYTES: usize = (64 << 10) - 1;
/// Instructions that a Dockerfile may have.
pub const MAX_INSTRUCTIONS: usize = 10_000;
/// Problems after which the rest of the file is not looked at.
const MAX_PROBLEMS: usize = 100;

/// Reads a Dockerfile.
///
/// # Errors
/// All that BuildKit would refuse, in the order of the file, not the first alone.
pub fn parse(text: impl AsRef<[u8]>) -> Result<Dockerfile, Vec<Problem>> {
    let text = readable(text.as_ref()).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(text);
    let mut context = Context::new('\\');
    let directives = reader.directives(&mut context.problems);
    context.escape = directives.escape.unwrap_or('\\');
    let mut parser = Parser { reader, context, arguments: Vec::new(), stages: Vec::new(), count: 0, orphaned: false };
    parser.read();
    let Parser { context, arguments, stages, .. } = parser;
    let Context { escape, mut problems, warnings } = context;
    if problems.is_empty() && stages.is_empty() {
        let message = "the Dockerfile has no FROM: a build starts with FROM IMAGE or FROM scratch";
        problems.push(Problem::new(Position { line: 1, column: 1 }, "", message));
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.at);
        return Err(problems);
    }
    Ok(Dockerfile { escape, syntax: directives.syntax, check: directives.check, arguments, stages, warnings })
}

/// The text if it is UTF-8 and within the limits.
fn readable(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the Dockerfile is larger than {} KiB", MAX_BYTES >> 10);
        return Err(Problem::new(Position { line: 1, column: 1 }, "", message));
    }
    let line_after = |before: &[u8]| {
        let lines = before.split(|byte| *byte == b'\n').count();
        u32::try_from(lines).unwrap_or(u32::MAX)
    };
    let text = str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let column = String::from_utf8_lossy(line).chars().count();
        let column = u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1);
        Problem::new(Position { line: line_after(before), column }, "", "the Dockerfile is not UTF-8 here")
    })?;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.len() > MAX_LINE_BYTES {
            let at = Position { line: line_after(bytes.get(..offset).unwrap_or_default()), column: 1 };
            return Err(Problem::new(at, line, format!("the line is longer than {MAX_LINE_BYTES} bytes")));
        }
        offset += line.len();
    }
    Ok(text)
}

struct Parser<'a> {
    reader: Reader<'a>,
    context: Context,
    arguments: Vec<Located<Argument>>,
    stages: Vec<Stage>,
    count: usize,
    /// Whether an instruction before the first FROM was already complained of, or a FROM could not be read.
    orphaned: bool,
}

impl Parser<'_> {
    fn read(&mut self) {
        while let Some(line) = self.reader.line(&mut self.context.warnings) {
            self.count += 1;
            if self.count > MAX_INSTRUCTIONS {
                let message = format!("the Dockerfile has more than {MAX_INSTRUCTIONS} instructions");
                self.context.problems.push(line.part().problem(message));
            }
            if self.count > MAX_INSTRUCTIONS || self.context.problems.len() >= MAX_PROBLEMS {
                return;
            }
            self.instruction(&line);
        }
    }

    fn instruction(&mut self, line: &Line) {
        let statement = Statement::split(line.part(), self.context.escape);
        let name = statement.name();
        let mut heredocs = Vec::new();
        if statement.takes_heredocs(self.context.escape) {
            for announced in words::announced(line.part().text()) {
                let delimiter = announced.name.clone();
                match self.reader.heredoc(announced) {
                    Some(heredoc) => heredocs.push(Located::new(heredoc, line.part().at())),
                    None => {
                        let message = format!("the here-document has no end: no line is `{delimiter}`");
                        let at = line.part().text().find("<<").unwrap_or_default();
                        self.context.problems.push(line.part().from(at).problem(message));
                        return;
                    }
                }
            }
        }
        match self.context.parse(&statement, heredocs) {
            Some(Parsed::Stage(stage)) => self.stages.push(stage),
            Some(Parsed::Instruction(instruction)) => self.place(&statement, instruction),
            None => self.orphaned |= name == Some("FROM"),
        }
    }

    /// Puts an instruction into its stage.
    fn place(&mut self, statement: &Statement<'_>, instruction: Instruction) {
        let at = statement.keyword.at();
        match (self.stages.last_mut(), instruction) {
            (Some(stage), instruction) => stage.instructions.push(Located::new(instruction, at)),
            (None, Instruction::Arg(arguments)) => self.arguments.extend(arguments),
            (None, instruction) => {
                if !self.orphaned {
                    let message = format!("{} stands before the first FROM; only ARG may", instruction.name());
                    self.context.problems.push(statement.keyword.problem(message));
                }
                self.orphaned = true;
            }
        }
    }
}

/// Whether a whole text is one `<<NAME`.
pub(super) fn announces_heredoc(text: &str) -> bool {
    words::heredoc(text).is_some()
}
