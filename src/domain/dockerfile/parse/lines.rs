//! Physical lines to logical ones: directives, comments, continuations, and where each byte came from.

use std::{iter::Peekable, str::SplitInclusive};

use super::super::{
    ast::Heredoc,
    problem::{Located, Position, Problem, Warning},
};

/// One instruction without its line breaks, and where each of its bytes stands in the file.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    /// One per byte, and one for the end.
    places: Vec<Position>,
}

/// A part of a logical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    line: &'a Line,
    start: usize,
    end: usize,
}

impl Line {
    fn new() -> Self {
        Self { text: String::new(), places: Vec::new() }
    }

    fn push(&mut self, text: &str, mut at: Position) {
        self.places.pop();
        for c in text.chars() {
            self.places.extend(std::iter::repeat_n(at, c.len_utf8()));
            at.column = at.column.saturating_add(1);
        }
        self.places.push(at);
        self.text.push_str(text);
    }

    /// The whole line without blanks around it.
    pub fn part(&self) -> Part<'_> {
        Part { line: self, start: 0, end: self.text.len() }.trim()
    }
}

impl<'a> Part<'a> {
    pub fn text(self) -> &'a str {
        self.line.text.get(self.start..self.end).unwrap_or_default()
    }

    /// Where the part begins.
    pub fn at(self) -> Position {
        self.place(0)
    }

    /// Where the byte at `offset` of the part stands.
    pub fn place(self, offset: usize) -> Position {
        let place = self.line.places.get(self.start.saturating_add(offset)).or(self.line.places.last());
        place.copied().unwrap_or(Position { line: 1, column: 1 })
    }

    /// The bytes from `start` to `end` of the part.
    pub fn sub(self, start: usize, end: usize) -> Self {
        let end = self.start.saturating_add(end).min(self.end);
        Self { line: self.line, start: self.start.saturating_add(start).min(end), end }
    }

    /// The part from `start` on.
    pub fn from(self, start: usize) -> Self {
        self.sub(start, self.text().len())
    }

    pub fn trim(self) -> Self {
        let text = self.text();
        let start = text.len() - text.trim_start().len();
        self.sub(start, text.trim_end().len().max(start))
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part's text with its place.
    pub fn located(self) -> Located<&'a str> {
        Located::new(self.text(), self.at())
    }

    /// A problem with this text.
    pub fn problem(self, message: impl Into<String>) -> Problem {
        Problem::new(self.at(), self.text(), message)
    }
}

/// What the directives at the top of a file say.
#[derive(Debug, Default)]
pub(super) struct Directives {
    pub syntax: Option<Located<String>>,
    pub escape: Option<char>,
    pub check: Option<Located<String>>,
}

/// Reads a file line by line.
pub(super) struct Reader<'a> {
    lines: Peekable<SplitInclusive<'a, char>>,
    number: u32,
    escape: char,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { lines: text.split_inclusive('\n').peekable(), number: 0, escape: '\\' }
    }

    fn next(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number = self.number.saturating_add(1);
        Some(line)
    }

    /// Reads the directives: comments `# name=value` at the very top, up to the first line that is none of the known
    /// ones. What stands further down is an ordinary comment.
    pub fn directives(&mut self, problems: &mut Vec<Problem>) -> Directives {
        let mut directives = Directives::default();
        while let Some((name, value)) = self.lines.peek().and_then(|line| directive(line)) {
            let Some(line) = self.next() else { break };
            let column = |part: &str| {
                let offset = part.as_ptr().addr().saturating_sub(line.as_ptr().addr());
                line.get(..offset).map_or(0, |before| before.chars().count())
            };
            let at = |part: &str| Position {
                line: self.number,
                column: u32::try_from(column(part)).unwrap_or(u32::MAX).saturating_add(1),
            };
            let value_at = Located::new(value.to_owned(), at(value));
            let repeated = match name.to_ascii_lowercase().as_str() {
                "syntax" => directives.syntax.replace(value_at).is_some(),
                "check" => directives.check.replace(value_at).is_some(),
                _ => {
                    let escape = Some(value).filter(|value| ["\\", "`"].contains(value)).and_then(|v| v.chars().next());
                    if escape.is_none() {
                        let message = "the escape directive takes a backslash or a backtick";
                        problems.push(Problem::new(at(value), value, message));
                    }
                    directives.escape.replace(escape.unwrap_or('\\')).is_some()
                }
            };
            if repeated {
                let message = format!("the {} directive is given twice", name.to_ascii_lowercase());
                problems.push(Problem::new(at(name), name, message));
            }
        }
        self.escape = directives.escape.unwrap_or('\\');
        directives
    }

    /// The next instruction with its continuation lines. Comments are dropped, within continuations too; so are blank
    /// lines there, with a warning.
    pub fn line(&mut self, warnings: &mut Vec<Warning>) -> Option<Line> {
        let mut joined = Line::new();
        let mut continues = loop {
            let text = newline_trimmed(self.next()?);
            let trimmed = text.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let blanks = text.chars().take_while(|c| c.is_whitespace()).count();
            let column = u32::try_from(blanks).unwrap_or(u32::MAX).saturating_add(1);
            break self.push(&mut joined, trimmed, column);
        };
        let mut warned = false;
        while continues {
            let Some(text) = self.next().map(newline_trimmed) else { break };
            let trimmed = text.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                if !warned {
                    let message = "blank line in a continued instruction; remove it: BuildKit plans to refuse it";
                    let problem = Problem::new(Position { line: self.number, column: 1 }, "", message);
                    warnings.push(Warning { rule: "blank-continuation", problem });
                }
                warned = true;
                continue;
            }
            continues = self.push(&mut joined, text, 1);
        }
        Some(joined)
    }

    /// Appends a physical line; tells whether the next one belongs to it.
    fn push(&self, joined: &mut Line, text: &str, column: u32) -> bool {
        // An escape character at the end continues the line, unless another one stands before it.
        let end = text.trim_end_matches([' ', '\t']);
        let continued = end.strip_suffix(self.escape).filter(|before| !before.ends_with(self.escape));
        joined.push(continued.unwrap_or(text), Position { line: self.number, column });
        continued.is_some()
    }

    /// Reads a here-document up to its delimiter. None when the file ends before.
    pub fn heredoc(&mut self, heredoc: Heredoc) -> Option<Heredoc> {
        let mut content = String::new();
        loop {
            let line = self.next()?;
            let bare = newline_trimmed(line);
            let bare = if heredoc.strip_tabs { bare.trim_start_matches('\t') } else { bare };
            if bare == heredoc.name {
                return Some(Heredoc { content, ..heredoc });
            }
            content.push_str(line);
        }
    }
}

fn newline_trimmed(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Name and value of a known directive.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let known = ["syntax", "escape", "check"].iter().any(|known| known.eq_ignore_ascii_case(name));
    (known && !value.is_empty()).then_some((name, value))
}
