//! Texts with signatures below them (RFC 9580, 7), and nothing before, between or behind that could be taken for signed.

use super::{Malformed, armor};

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// A text and the packets of its signatures, not yet verified.
#[derive(Debug)]
pub(super) struct Message {
    /// Exactly what is signed, but with `\n` for the ends of lines.
    pub(super) text: String,
    pub(super) signatures: Vec<u8>,
}

impl Message {
    /// Takes apart what has to be one message from the first line to the last; its signatures have at most `limit` bytes.
    pub(super) fn parse(message: &str, limit: usize) -> Result<Self, Malformed> {
        let mut lines = message.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        if lines.next().is_none_or(|line| trimmed(line) != BEGIN) {
            return Err(Malformed::NotSigned);
        }
        headers(&mut lines)?;
        let text = text(&mut lines, message.len())?;
        let signatures = armor::decode(&mut lines, "SIGNATURE", limit)?;
        if lines.any(|line| !trimmed(line).is_empty()) {
            return Err(Malformed::Outside);
        }
        Ok(Self { text, signatures })
    }
}

/// Only `Hash: SHA256, SHA512` may be there; what it says is not believed, signatures name their hash themselves.
fn headers<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<(), Malformed> {
    for line in lines {
        if line.is_empty() {
            return Ok(());
        }
        let named = |names: &str| names.bytes().all(|byte| byte.is_ascii_alphanumeric() || b", -/".contains(&byte));
        if !line.strip_prefix("Hash: ").is_some_and(named) {
            break;
        }
    }
    Err(Malformed::Header)
}

/// The lines up to the signatures, without escapes and white space at their ends. The last line's end is not part of the text.
fn text<'a>(lines: &mut impl Iterator<Item = &'a str>, capacity: usize) -> Result<String, Malformed> {
    let mut text = String::with_capacity(capacity);
    let mut first = true;
    for line in lines {
        if trimmed(line) == SIGNATURE {
            return Ok(text);
        }
        let line = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            // Also the beginning of a second message.
            None if line.starts_with('-') => return Err(Malformed::Dash),
            None => line,
        };
        // To some readers that ends a line, to others not.
        if line.contains('\r') {
            return Err(Malformed::CarriageReturn);
        }
        if !first {
            text.push('\n');
        }
        text.push_str(trimmed(line));
        first = false;
    }
    Err(Malformed::NoSignature)
}

fn trimmed(line: &str) -> &str {
    line.trim_end_matches([' ', '\t'])
}
