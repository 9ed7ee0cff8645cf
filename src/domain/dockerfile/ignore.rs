//! `.dockerignore`: which files of the context a build does not see (moby/patternmatcher and BuildKit's reader of it).

#[cfg(test)]
mod tests;

use super::problem::{Position, Problem};

/// Bytes that an ignore file may have.
pub const MAX_BYTES: usize = 1 << 20;
/// Patterns that an ignore file may have.
pub const MAX_PATTERNS: usize = 10_000;
/// Bytes that a pattern may have: no path is longer.
const MAX_PATTERN_BYTES: usize = 4096;

/// The names, relative to the context, under which an ignore file is looked for; the first that exists is the one.
/// `dockerfile` is the Dockerfile's path relative to the context.
pub fn candidates(dockerfile: &str) -> [String; 2] {
    [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
}

/// The patterns of an ignore file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// `!`: what matches is seen again.
    exception: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`: any character of a name.
    Any,
    /// `*`: any characters of a name.
    Many,
    /// `**` at the end, or at the beginning of an otherwise literal pattern: anything.
    Anything,
    /// `**`: any directories, also none.
    Directories,
    /// `[…]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// The lines whose pattern is malformed, and limits.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut ignore = Self::default();
        let mut problems = Vec::new();
        if text.len() > MAX_BYTES {
            let message = format!("the ignore file is larger than {} KiB", MAX_BYTES >> 10);
            return Err(vec![Problem::new(Position { line: 1, column: 1 }, "", message)]);
        }
        for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            match Pattern::parse(line.trim()) {
                Ok(pattern) => ignore.patterns.push(pattern),
                Err(message) => problems.push(Problem::new(Position { line: number, column: 1 }, line, message)),
            }
            if ignore.patterns.len() > MAX_PATTERNS || problems.len() > 100 {
                let message = format!("the ignore file has more than {MAX_PATTERNS} patterns");
                problems.push(Problem::new(Position { line: number, column: 1 }, line, message));
                break;
            }
        }
        if problems.is_empty() { Ok(ignore) } else { Err(problems) }
    }

    /// Whether the build does not see `path`, a file or directory of the context (relative, with `/`). What is below an
    /// ignored directory is ignored unless a later `!` pattern matches it or a directory above it. Patterns do not
    /// tell files from directories, so neither does this.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        let mut matched = vec![false; self.patterns.len()];
        let path: Vec<char> = path.chars().collect();
        let ends = path.iter().enumerate().filter(|(_, c)| **c == '/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let Some(above) = path.get(..end) else { continue };
            ignored = false;
            for (pattern, matched) in self.patterns.iter().zip(&mut matched) {
                // What matched a directory matches all below it; else only a pattern that would change something is
                // looked at (patternmatcher's MatchesUsingParentResults).
                if !*matched && pattern.exception == ignored {
                    *matched = pattern.matches(above);
                }
                if *matched {
                    ignored = !pattern.exception;
                }
            }
        }
        ignored
    }

    /// Whether nothing below the ignored `directory` can be seen either, so that it need not be walked.
    pub fn ignores_all_of(&self, directory: &str) -> bool {
        !self.patterns.iter().any(|pattern| pattern.exception) && self.ignores(directory)
    }
}

impl Pattern {
    fn parse(line: &str) -> Result<Self, String> {
        let (exception, text) = line.strip_prefix('!').map_or((false, line), |text| (true, text.trim()));
        if text.is_empty() {
            return Err("a pattern is missing behind the `!`".to_owned());
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!("the pattern is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let cleaned = clean(text);
        let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
        // Cleaning may have laid blanks bare: `docs /` is `docs`.
        let tokens = tokens(relative.trim())?;
        Ok(Self { exception, tokens })
    }

    /// Whether the whole path matches. Walks the pattern once with the set of all places that it can have reached.
    fn matches(&self, path: &[char]) -> bool {
        let mut reached = vec![false; path.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for token in &self.tokens {
            reached = token.step(&reached, path);
            if !reached.contains(&true) {
                return false;
            }
        }
        reached.last().copied().unwrap_or(false)
    }
}

impl Token {
    /// From the places reached before this token to those reached behind it.
    fn step(&self, reached: &[bool], path: &[char]) -> Vec<bool> {
        let mut next = Vec::with_capacity(reached.len());
        let mut open = false;
        match self {
            Self::Many | Self::Anything | Self::Directories => {
                for (place, here) in reached.iter().enumerate() {
                    let before = place.checked_sub(1).and_then(|before| path.get(before)).copied();
                    open = *here || (open && !(*self == Self::Many && before == Some('/')));
                    next.push(open && (*self != Self::Directories || *here || before == Some('/')));
                }
            }
            _ => {
                next.push(false);
                next.extend(reached.iter().zip(path).map(|(here, c)| *here && self.fits(*c)));
            }
        }
        next
    }

    fn fits(&self, c: char) -> bool {
        match self {
            Self::Character(wanted) => c == *wanted,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
            _ => c != '/',
        }
    }
}

/// Go's `filepath.Clean`: no empty, `.` or needless `..` parts, no slash at the end.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Anything } else { Token::Directories }
            }
            '*' => Token::Many,
            '?' => Token::Any,
            '[' => class(&mut chars)?,
            '\\' => Token::Character(chars.next().ok_or("a backslash at the end escapes nothing")?),
            other => Token::Character(other),
        });
    }
    let literal = |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Character(_)));
    // `**name` matches every path that ends so, `**/name` those whose last part is that: a quirk of patternmatcher.
    if !text.starts_with("**/")
        && !text.contains('\\')
        && let Some((first @ Token::Directories, rest)) = tokens.split_first_mut()
        && literal(rest)
    {
        *first = Token::Anything;
    }
    Ok(tokens)
}

/// The rest of a `[…]`, in the syntax that Go's `filepath.Match` and regular expressions share.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, String> {
    const OPEN: &str = "the `[` has no `]`";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let character = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
        Some('\\') => chars.next().ok_or(OPEN),
        // Go wants these escaped wherever they stand.
        Some('-' | ']') => Err("`-` and `]` in brackets need a backslash"),
        Some(c) => Ok(c),
        None => Err(OPEN),
    };
    loop {
        if chars.next_if_eq(&']').is_some() {
            if ranges.is_empty() {
                return Err("`[]` matches nothing".to_owned());
            }
            return Ok(Token::Class { negated, ranges });
        }
        let first = character(chars)?;
        let last = if chars.next_if_eq(&'-').is_some() { character(chars)? } else { first };
        if first > last {
            return Err(format!("the range {first}-{last} is upside down"));
        }
        ranges.push((first, last));
    }
}
