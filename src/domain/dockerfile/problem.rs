//! Where something stands in a file, and what is wrong there.

use std::fmt;

use serde::Serialize;

/// A place in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A value and where it begins in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// What stands there.
    pub value: T,
    /// Where its first character is.
    pub at: Position,
}

impl<T> Located<T> {
    /// `value`, which begins at `at`.
    pub fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }

    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), at: self.at }
    }
}

/// Something wrong or doubtful at a place of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{at}: {}", Sentence(self))]
pub struct Problem {
    /// Where the offending text begins.
    pub at: Position,
    /// The offending text as it stands in the file; may be shortened.
    pub text: String,
    /// What is wrong with it and what was expected, without the place.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// Longer offending texts are cut here: a message is for people.
const SHOWN: usize = 80;

impl Problem {
    /// A problem with `text` at `at`.
    pub fn new(at: Position, text: &str, message: impl Into<String>) -> Self {
        Self { at, text: text.chars().take(SHOWN).collect(), message: message.into(), suggestion: None }
    }

    /// The same problem with what was probably meant, if anything.
    #[must_use]
    pub fn suggesting(self, suggestion: Option<impl Into<String>>) -> Self {
        Self { suggestion: suggestion.map(Into::into), ..self }
    }

    /// Message and suggestion without the place.
    pub fn sentence(&self) -> String {
        Sentence(self).to_string()
    }

    /// The problem as compilers print it: `FILE:LINE:COLUMN: message`.
    pub fn in_file(&self, file: &str) -> String {
        format!("{file}:{self}")
    }
}

/// Something that is accepted but doubtful, and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable name, in lower case with dashes.
    pub rule: &'static str,
    /// Where, what, and what to do.
    pub problem: Problem,
}

struct Sentence<'a>(&'a Problem);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)?;
        match &self.0.suggestion {
            Some(suggestion) => write!(formatter, ", did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}
