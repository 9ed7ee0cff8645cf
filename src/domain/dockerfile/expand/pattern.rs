//! Patterns of `${name#…}`, `${name%…}` and `${name/…/…}`: `*` and `?`, which do not cross lines; no brackets.

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Character(char),
    /// `?`
    Any,
    /// `*`
    Many,
}

/// A parsed pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

/// A backslash before what it does not escape; holds that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PatternError(pub String);

/// The work that was allowed is used up.
struct TooMuchWork;

/// Which of several matches that begin at the same place is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Shortest,
    Longest,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Many,
                '?' => Piece::Any,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Piece::Character(escaped),
                    other => return Err(PatternError(other.map(String::from).unwrap_or_default())),
                },
                other => Piece::Character(other),
            });
        }
        Ok(Self(pieces))
    }

    /// `value` without what the pattern matches at its beginning. None when `work` is used up.
    pub fn without_prefix(&self, value: &str, end: End, work: &mut usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let cut = ends(self.0.iter(), &chars, 0, end, work).ok()?.unwrap_or_default();
        Some(chars.get(cut..)?.iter().collect())
    }

    /// `value` without what the pattern matches at its end. None when `work` is used up.
    pub fn without_suffix(&self, value: &str, end: End, work: &mut usize) -> Option<String> {
        let chars: Vec<char> = value.chars().rev().collect();
        let cut = ends(self.0.iter().rev(), &chars, 0, end, work).ok()?.unwrap_or_default();
        Some(chars.get(cut..)?.iter().rev().collect())
    }

    /// `value` with its first or all matches replaced, each the longest at its place. None when `work` is used up or
    /// the result has more than `room` bytes.
    pub fn replaced(&self, value: &str, replacement: &str, all: bool, room: usize, work: &mut usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut position = 0;
        let mut last = None;
        while position <= chars.len() {
            let found = if all || last.is_none() {
                ends(self.0.iter(), &chars, position, End::Longest, work).ok()?
            } else {
                None
            };
            // As in Go's regular expressions, an empty match right behind another one does not count.
            let found = found.filter(|end| *end > position || last != Some(position));
            if let Some(end) = found {
                *work = work.checked_sub(replacement.len())?;
                result.push_str(replacement);
                last = Some(end);
                if end > position {
                    position = end;
                    continue;
                }
            }
            result.extend(chars.get(position));
            position += 1;
            if result.len() > room {
                return None;
            }
        }
        (result.len() <= room).then_some(result)
    }
}

/// Where the match that begins at `start` ends, if there is one. Walks the pattern once with the set of all places
/// that it can have reached, so that many `*` do not multiply. An error when `work` is used up.
fn ends<'a>(
    pieces: impl Iterator<Item = &'a Piece>,
    text: &[char],
    start: usize,
    end: End,
    work: &mut usize,
) -> Result<Option<usize>, TooMuchWork> {
    let mut reached = vec![start];
    for piece in pieces {
        reached = match piece {
            Piece::Many => spread(&reached, text),
            Piece::Any => step(&reached, text, |c| c != '\n'),
            Piece::Character(wanted) => step(&reached, text, |c| c == *wanted),
        };
        *work = work.checked_sub(reached.len() + 1).ok_or(TooMuchWork)?;
        if reached.is_empty() {
            return Ok(None);
        }
    }
    Ok(match end {
        End::Shortest => reached.first().copied(),
        End::Longest => reached.last().copied(),
    })
}

fn step(reached: &[usize], text: &[char], fits: impl Fn(char) -> bool) -> Vec<usize> {
    reached.iter().filter(|place| text.get(**place).is_some_and(|c| fits(*c))).map(|place| place + 1).collect()
}

/// Every place between those reached and the end of their line.
fn spread(reached: &[usize], text: &[char]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut next = 0;
    for &place in reached {
        if place < next {
            continue;
        }
        places.push(place);
        next = place + 1;
        while text.get(next - 1).is_some_and(|c| *c != '\n') {
            places.push(next);
            next += 1;
        }
    }
    places
}
