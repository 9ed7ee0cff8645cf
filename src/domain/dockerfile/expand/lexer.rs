//! The reader of words: character by character, with a bound on what variables add.

use std::{collections::BTreeSet, iter::Peekable, str::Chars};

use super::{
    ExpandError, Expanded, MAX_DEPTH, MAX_EXPANDED,
    pattern::{End, Pattern},
};

/// Bytes and comparisons that one word's expansion may take, nested and discarded parts included.
const MAX_WORK: usize = 1 << 24;

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They quote and disappear.
    Removed,
    /// They quote and stay.
    Kept,
    /// They are ordinary characters.
    Literal,
}

/// What becomes of escape characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// They make the next character ordinary and disappear.
    Resolved,
    /// The same, but they stay.
    Kept,
    /// They stay for the pattern that the text is; those that quotes made ordinary are doubled.
    Pattern,
}

/// How to read words.
pub(super) struct Lexer<'a> {
    pub escape: char,
    pub quotes: Quotes,
    pub escapes: Escapes,
    /// A variable without a value stays as it is written.
    pub keep_unset: bool,
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads a whole text.
pub(super) fn run(text: &str, lexer: &Lexer<'_>) -> Result<Expanded, ExpandError> {
    // Text that stays as it is costs nothing extra; only what variables add is bounded.
    let mut state = State {
        lexer,
        chars: text.chars().peekable(),
        room: text.len().saturating_add(MAX_EXPANDED),
        work: text.len().saturating_add(MAX_WORK),
        depth: 0,
        used: BTreeSet::new(),
        undefined: BTreeSet::new(),
    };
    let (text, words) = state.until(None, lexer.escapes)?;
    Ok(Expanded { text, words, used: state.used, undefined: state.undefined })
}

struct State<'a> {
    lexer: &'a Lexer<'a>,
    chars: Peekable<Chars<'a>>,
    room: usize,
    work: usize,
    depth: usize,
    used: BTreeSet<String>,
    undefined: BTreeSet<String>,
}

/// Words as they grow: a blank ends one unless it is quoted or escaped.
#[derive(Default)]
struct Words {
    word: String,
    done: Vec<String>,
}

impl Words {
    fn split(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.end();
            } else {
                self.word.push(c);
            }
        }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }
}

impl State<'_> {
    /// Everything up to `stop`, which is consumed, or the end.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<(String, Vec<String>), ExpandError> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&c) = self.chars.peek() {
            if Some(c) == stop {
                self.chars.next();
                words.end();
                return Ok((text, words.done));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    self.push(&mut text, &value)?;
                    words.split(&value);
                }
                '\'' | '"' if self.lexer.quotes != Quotes::Literal => {
                    let value = if c == '"' { self.double_quoted(escapes)? } else { self.single_quoted(escapes)? };
                    self.push(&mut text, &value)?;
                    words.word.push_str(&value);
                }
                '<' => {
                    let value = self.possible_heredoc();
                    text.push_str(&value);
                    words.word.push_str(&value);
                }
                _ => self.plain(escapes, &mut text, &mut words),
            }
        }
        match stop {
            Some('/') => Err(ExpandError::OpenBrace('/')),
            Some(_) => Err(ExpandError::OpenBrace('}')),
            None => {
                words.end();
                Ok((text, words.done))
            }
        }
    }

    fn plain(&mut self, escapes: Escapes, text: &mut String, words: &mut Words) {
        let Some(c) = self.chars.next() else { return };
        if c != self.lexer.escape {
            text.push(c);
            return words.split(c.encode_utf8(&mut [0; 4]));
        }
        let escaped = self.chars.next();
        let kept = (escapes != Escapes::Resolved).then_some(c);
        for c in kept.into_iter().chain(escaped) {
            text.push(c);
            words.word.push(c);
        }
    }

    /// Appends what a variable or quote gave, within bounds.
    fn push(&mut self, text: &mut String, value: &str) -> Result<(), ExpandError> {
        self.work = self.work.checked_sub(value.len()).ok_or(ExpandError::TooLarge)?;
        if text.len().saturating_add(value.len()) > self.room {
            return Err(ExpandError::TooLarge);
        }
        text.push_str(value);
        Ok(())
    }

    /// Nothing is special between single quotes, not even the escape character.
    fn single_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let mut text = self.quote();
        for c in self.chars.by_ref() {
            if c == '\'' {
                text.extend((self.lexer.quotes == Quotes::Kept).then_some(c));
                return Ok(text);
            }
            if escapes == Escapes::Pattern && c == self.lexer.escape {
                text.push(c);
            }
            text.push(c);
        }
        Err(ExpandError::OpenQuote("single"))
    }

    /// Between double quotes variables are expanded, and the escape character escapes `"`, `$` and itself alone.
    fn double_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let mut text = self.quote();
        while let Some(&c) = self.chars.peek() {
            if c == '$' {
                let value = self.dollar()?;
                self.push(&mut text, &value)?;
                continue;
            }
            self.chars.next();
            if c == '"' {
                text.extend((self.lexer.quotes == Quotes::Kept).then_some(c));
                return Ok(text);
            }
            if c != self.lexer.escape {
                text.push(c);
                continue;
            }
            let raw = escapes != Escapes::Resolved;
            let special = |&next: &char| next == '"' || next == '$' || next == c;
            match self.chars.next_if(special) {
                Some(escaped) => text.extend(raw.then_some(c).into_iter().chain([escaped])),
                None if self.chars.peek().is_none() => {}
                None => {
                    let doubled = raw && (self.lexer.quotes != Quotes::Kept || escapes == Escapes::Pattern);
                    text.extend(doubled.then_some(c).into_iter().chain([c]));
                }
            }
        }
        Err(ExpandError::OpenQuote("double"))
    }

    /// `<`, or `<<` with the blanks behind it: a here-document's name may stand apart, and belongs to the same word.
    fn possible_heredoc(&mut self) -> String {
        let mut text: String = self.chars.next().into_iter().collect();
        if let Some(second) = self.chars.next_if_eq(&'<') {
            text.push(second);
            while let Some(blank) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                text.push(blank);
            }
        }
        text
    }

    /// The opening quote, consumed.
    fn quote(&mut self) -> String {
        let quote = self.chars.next();
        quote.filter(|_| self.lexer.quotes == Quotes::Kept).into_iter().collect()
    }

    /// `$name` or `${…}`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let value = self.braces()?;
        self.depth -= 1;
        Ok(value)
    }

    /// What follows `${`.
    fn braces(&mut self) -> Result<String, ExpandError> {
        match self.chars.peek() {
            None => return Err(ExpandError::OpenBrace('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::NoName),
            Some(_) => {}
        }
        let name = self.name();
        let operator = self.chars.next().ok_or(ExpandError::OpenBrace('}'))?;
        match operator {
            '}' => Ok(match self.value(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            '/' => self.replaced(&name),
            ':' => {
                let second = self.chars.next().ok_or(ExpandError::OpenBrace('}'))?;
                self.operated(&name, second, true)
            }
            other => self.operated(&name, other, false),
        }
    }

    /// `${name-word}` and its like; with a `:` an empty variable counts as unset.
    fn operated(&mut self, name: &str, operator: char, colon: bool) -> Result<String, ExpandError> {
        let written = || format!("{}{operator}", if colon { ":" } else { "" });
        let pattern = matches!(operator, '#' | '%');
        if !matches!(operator, '-' | '+' | '?' | '#' | '%') || (pattern && colon) {
            return Err(ExpandError::Operator(name.to_owned(), written()));
        }
        let (word, _) = self.until(Some('}'), if pattern { Escapes::Pattern } else { Escapes::Resolved })?;
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{}{word}}}", written()));
        }
        let present = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match operator {
            '-' => Ok(if present { value.unwrap_or_default() } else { word }),
            '+' => Ok(if present { word } else { String::new() }),
            '?' if present => Ok(value.unwrap_or_default()),
            '?' => {
                let default = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandError::Required(name.to_owned(), message))
            }
            _ => self.trimmed(&value.unwrap_or_default(), &word, operator),
        }
    }

    /// `${name#pattern}`, `##`, `%` and `%%`.
    fn trimmed(&mut self, value: &str, word: &str, operator: char) -> Result<String, ExpandError> {
        let (end, pattern) = match word.strip_prefix(operator) {
            Some(pattern) => (End::Longest, pattern),
            None => (End::Shortest, word),
        };
        let pattern = Pattern::parse(pattern)?;
        let trimmed = if operator == '#' {
            pattern.without_prefix(value, end, &mut self.work)
        } else {
            pattern.without_suffix(value, end, &mut self.work)
        };
        trimmed.ok_or(ExpandError::TooLarge)
    }

    /// `${name/pattern/replacement}`, with two slashes for every match.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let (pattern, _) = self.until(Some('/'), Escapes::Pattern)?;
        let (replacement, _) = self.until(Some('}'), Escapes::Kept)?;
        let Some(value) = self.value(name) else {
            let slashes = if all { "//" } else { "/" };
            let kept = self.lexer.keep_unset.then(|| format!("${{{name}{slashes}{pattern}/{replacement}}}"));
            return Ok(kept.unwrap_or_default());
        };
        let pattern = Pattern::parse(&pattern)?;
        let replaced = pattern.replaced(&value, &replacement, all, self.room, &mut self.work);
        replaced.ok_or(ExpandError::TooLarge)
    }

    /// A variable's name: letters, digits and `_`, or one of the shell's own (`$1`, `$@`).
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(&first) = self.chars.peek() else { return name };
        if !first.is_numeric() && "@*#?-$!".contains(first) {
            name.extend(self.chars.next());
            return name;
        }
        let digits = first.is_numeric();
        let belongs = |c: &char| c.is_numeric() || (!digits && (c.is_alphabetic() || *c == '_'));
        while let Some(c) = self.chars.next_if(belongs) {
            name.push(c);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lexer.lookup)(name);
        let names = if value.is_some() { &mut self.used } else { &mut self.undefined };
        names.insert(name.to_owned());
        value
    }
}
