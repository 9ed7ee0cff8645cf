//! Variables, quotes and escapes in words, as BuildKit's shell lexer resolves them.

mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::ast::Word;
use lexer::{Escapes, Lexer, Quotes, run};
use pattern::PatternError;

/// Bytes that a word may have after expansion.
pub const MAX_EXPANDED: usize = 64 << 10;
/// Levels of `${…${…}…}`.
const MAX_DEPTH: usize = 32;

/// A word without variables, quotes and escapes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The word as one text: what most instructions take.
    pub text: String,
    /// The same split at blanks that are neither quoted nor escaped, those of variables' values included: what EXPOSE
    /// takes. (BuildKit 0.34 loses what stands before a `${name-…}` in the same word, a slip that is not repeated here.)
    pub words: Vec<String>,
    /// Variables that were looked up and had a value.
    pub used: BTreeSet<String>,
    /// Variables that were looked up and had none. That is no error unless `${…?…}` asks for one.
    pub undefined: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote is not closed.
    #[error("the {0} quote is not closed")]
    OpenQuote(&'static str),
    /// `${` without its `}`, or a replacement without its second `/`.
    #[error("`${{` has no matching `{0}`")]
    OpenBrace(char),
    /// `${}`, `${:…}` or `${{`.
    #[error("`${{` is not followed by a variable's name")]
    NoName,
    /// An operator that does not exist.
    #[error("`${{{0}{1}…}}` is not supported; there are :- - :+ + :? ? # ## % %% / and //")]
    Operator(String, String),
    /// `${name?message}` of a variable that has no value.
    #[error("variable {0}: {1}")]
    Required(String, String),
    /// A backslash in a pattern before something that needs none.
    #[error("`\\{0}` is not an escape in a pattern; there are \\* \\? \\\\ \\/ and \\}}")]
    Escape(String),
    /// The result or the work for it is too large.
    #[error("the word expands to more than {} KiB or takes too long to expand", MAX_EXPANDED >> 10)]
    TooLarge,
    /// Too many levels.
    #[error("variables are nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// Expands `word`; `escape` is [`super::Dockerfile::escape`], `lookup` gives a variable's value if it is defined.
///
/// # Errors
/// When quotes or braces are not closed, a `${…}` is none of the known forms, or the result is too large.
pub fn expand(word: &Word, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    run(word.raw(), &Lexer { escape, quotes: Quotes::Removed, escapes: Escapes::Resolved, keep_unset: false, lookup })
}

/// Expands variables in the content of a here-document of COPY or ADD: quotes mean nothing there, and the escape is
/// always a backslash.
///
/// # Errors
/// As [`expand`].
pub fn content(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let lexer = Lexer { escape: '\\', quotes: Quotes::Literal, escapes: Escapes::Resolved, keep_unset: false, lookup };
    // Here-documents are as large as the file that they stand in, not as a word.
    run(text, &lexer).map(|expanded| expanded.text)
}

/// The words of a command line with quotes, escapes and variables kept: where BuildKit looks for `<<NAME`.
pub(super) fn raw_words(line: &str) -> Result<Vec<String>, ExpandError> {
    let lexer =
        Lexer { escape: '\\', quotes: Quotes::Kept, escapes: Escapes::Kept, keep_unset: true, lookup: &|_| None };
    run(line, &lexer).map(|expanded| expanded.words)
}

/// The words of a here-document's delimiter, quotes removed or kept.
pub(super) fn delimiter(text: &str, keep_quotes: bool) -> Result<Vec<String>, ExpandError> {
    let quotes = if keep_quotes { Quotes::Kept } else { Quotes::Removed };
    let lexer = Lexer { escape: '\\', quotes, escapes: Escapes::Resolved, keep_unset: true, lookup: &|_| None };
    run(text, &lexer).map(|expanded| expanded.words)
}

impl From<PatternError> for ExpandError {
    fn from(PatternError(escaped): PatternError) -> Self {
        Self::Escape(escaped)
    }
}
