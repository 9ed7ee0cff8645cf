//! How arguments are split: at blanks, at blanks outside quotes, or as JSON; and which words are here-documents.

use super::{
    super::{
        ast::{Heredoc, Word},
        expand::{delimiter, raw_words},
        problem::Located,
    },
    lines::Part,
};

/// Words between blanks; quotes do not matter.
pub(super) fn blank_separated(part: Part<'_>) -> Vec<Part<'_>> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r');
    let mut words = Vec::new();
    let mut start = 0;
    for piece in part.text().split(blank) {
        let end = start + piece.len();
        if !piece.is_empty() {
            words.push(part.sub(start, end));
        }
        start = end + 1;
    }
    words
}

/// Words between blanks outside quotes; quotes and escapes stay in them. An escape character at the very end is
/// dropped.
pub(super) fn quoted(part: Part<'_>, escape: char) -> Vec<Part<'_>> {
    let text = part.text();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = text.len();
    let mut chars = text.char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        if start.is_none() {
            if c.is_whitespace() {
                continue;
            }
            start = Some(offset);
        }
        match quote {
            // Nothing is escaped between single quotes.
            _ if c == escape && quote != Some('\'') => {
                end = if chars.next().is_some() { end } else { offset };
            }
            None if c.is_whitespace() => {
                words.extend(start.take().map(|start| part.sub(start, offset)));
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
    }
    words.extend(start.filter(|start| *start < end).map(|start| part.sub(start, end)));
    words
}

/// What brackets around arguments mean.
pub(super) enum Json {
    /// A JSON array of strings.
    Strings(Vec<String>),
    /// A JSON array that holds something else: an error.
    Other,
    /// No JSON: the text is read in the shell form.
    None,
}

/// Reads arguments as a JSON array, as far as they are one.
pub(super) fn json(part: Part<'_>) -> Json {
    let text = part.text();
    if !text.starts_with('[') {
        return Json::None;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Json::None };
    let strings: Option<Vec<String>> = values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect();
    strings.map_or(Json::Other, Json::Strings)
}

/// The text as a word that is expanded later.
pub(super) fn word(part: Part<'_>) -> Located<Word> {
    part.located().map(Word::new)
}

/// The here-documents that a line announces, without their content, in order. As in BuildKit a word is one that begins
/// with `<<`, after digits perhaps, and has no other `<`; blanks may stand behind `<<`.
pub(super) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    // A line whose quotes do not match is the shell's to complain about; it announces nothing.
    raw_words(line).unwrap_or_default().iter().filter_map(|word| heredoc(word)).collect()
}

/// The here-document that a single word announces.
pub(super) fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let ([name], [raw]) = (&*delimiter(rest, false).ok()?, &*delimiter(rest, true).ok()?) else { return None };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Heredoc { name: name.clone(), content: String::new(), expand: quotes(name) == quotes(raw), strip_tabs })
}
