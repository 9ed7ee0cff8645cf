//! Flags before an instruction's arguments: `--name` and `--name=value`.

use super::{
    super::{
        ast::Word,
        problem::{Located, Position, Problem},
    },
    MAX_PROBLEMS,
    lines::Part,
    suggest::closest,
};

/// A text that is not a slice of the file any more, because quotes were removed, but still knows its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unquoted {
    pub text: String,
    /// One per byte of the text, and one for the end.
    places: Vec<Position>,
}

impl Unquoted {
    pub fn place(&self, offset: usize) -> Position {
        self.places.get(offset).or(self.places.last()).copied().unwrap_or(Position { line: 1, column: 1 })
    }

    /// The bytes from `start` to `end`.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        Self {
            text: self.text.get(start..end).unwrap_or_default().to_owned(),
            places: self.places.get(start..=end).unwrap_or_default().to_vec(),
        }
    }

    /// The text from `start` on.
    pub fn from(&self, start: usize) -> Self {
        self.slice(start, self.text.len())
    }

    pub fn append(&mut self, more: &Self) {
        self.text.push_str(&more.text);
        self.places.pop();
        self.places.extend(&more.places);
    }

    pub fn located(&self) -> Located<String> {
        Located::new(self.text.clone(), self.place(0))
    }

    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.place(0), &self.text, message)
    }
}

/// Splits flags off: words at the beginning with two dashes, quotes and escapes removed. A lone `--` ends them. The rest
/// is returned without blanks around it.
pub(super) fn split(part: Part<'_>, escape: char) -> (Vec<Unquoted>, Part<'_>) {
    let mut flags = Vec::new();
    let mut rest = part.trim();
    while rest.text().starts_with("--") {
        let (flag, end) = first_word(rest, escape);
        rest = rest.from(end).trim();
        if flag.text == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// The first word, unquoted, and where it ends.
fn first_word(part: Part<'_>, escape: char) -> (Unquoted, usize) {
    let mut word = Unquoted { text: String::new(), places: Vec::new() };
    let mut quote = None;
    let mut end = part.text().len();
    let mut chars = part.text().char_indices();
    while let Some((mut offset, mut c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                end = offset;
                break;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                continue;
            }
            Some(open) if c == open => {
                quote = None;
                continue;
            }
            _ => {}
        }
        if c == escape {
            let Some(escaped) = chars.next() else { break };
            (offset, c) = escaped;
        }
        word.text.push(c);
        word.places.extend(std::iter::repeat_n(part.place(offset), c.len_utf8()));
    }
    word.places.push(part.place(end));
    (word, end)
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, `=true` or `=false`.
    Switch,
    /// A value, once.
    Value,
    /// A value, any number of times.
    Values,
}

/// The flags of one instruction, checked against those that it knows.
pub(super) struct Flags(Vec<(&'static str, Option<Unquoted>)>);

impl Flags {
    /// Reports unknown, repeated and incomplete flags and keeps the others.
    pub fn check(words: &[Unquoted], known: &[(&'static str, Kind)], name: &str, problems: &mut Vec<Problem>) -> Self {
        let mut flags = Self(Vec::new());
        for word in words {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            match flags.checked(word, known, name) {
                Ok(flag) => flags.0.push(flag),
                Err(problem) => problems.push(problem),
            }
        }
        flags
    }

    fn checked(
        &self,
        word: &Unquoted,
        known: &[(&'static str, Kind)],
        instruction: &str,
    ) -> Result<(&'static str, Option<Unquoted>), Problem> {
        let flag = word.text.strip_prefix("--").unwrap_or(&word.text);
        let (given, value) = match flag.split_once('=') {
            Some((name, _)) => (name, Some(word.from(word.text.len() - flag.len() + name.len() + 1))),
            None => (flag, None),
        };
        let Some((name, kind)) = known.iter().copied().find(|(name, _)| *name == given) else {
            let suggestion = closest(given, known.iter().map(|(name, _)| *name)).map(|name| format!("--{name}"));
            let message = if known.is_empty() {
                format!("{instruction} takes no flags, found `--{given}`")
            } else {
                format!("{instruction} has no flag `--{given}`")
            };
            return Err(word.problem(message).suggesting(suggestion));
        };
        if kind != Kind::Values && self.0.iter().any(|(earlier, _)| *earlier == name) {
            return Err(word.problem(format!("--{name} is given twice")));
        }
        let text = value.as_ref().map(|value| value.text.to_ascii_lowercase());
        match (kind, text.as_deref()) {
            (Kind::Switch, None | Some("true" | "false")) | (Kind::Value | Kind::Values, Some(_)) => Ok((name, value)),
            (Kind::Switch, Some(_)) => Err(word.problem(format!("--{name} takes true or false"))),
            (_, None) => Err(word.problem(format!("--{name} needs a value: --{name}=VALUE"))),
        }
    }

    /// Whether a switch is on; none when it is not given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(given, _)| *given == name)?;
        Some(value.as_ref().is_none_or(|value| value.text.eq_ignore_ascii_case("true")))
    }

    /// A flag's values in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Unquoted> {
        self.0.iter().filter(move |(given, _)| *given == name).filter_map(|(_, value)| value.as_ref())
    }

    /// A flag's value; an empty one is as good as none.
    pub fn value(&self, name: &str) -> Option<&Unquoted> {
        self.0.iter().find(|(given, _)| *given == name)?.1.as_ref().filter(|value| !value.text.is_empty())
    }

    /// A flag's value as a word that is expanded later.
    pub fn word(&self, name: &str) -> Option<Located<Word>> {
        self.value(name).map(|value| value.located().map(Word::new))
    }
}
