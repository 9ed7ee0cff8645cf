//! Text from outside, made fit for messages. Logs of steps are shown as they are by [`tail`](super::tail).

use crate::api::conditions::truncated;

/// A name or a path as one short line.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    one_line(bytes, 200)
}

/// One line of at most `limit` bytes: control characters are escaped, so that nothing can steer a terminal.
#[must_use]
pub fn one_line(bytes: &[u8], limit: usize) -> String {
    // One more than fits, so that a cut is seen.
    let head = bytes.get(..limit.saturating_add(1)).unwrap_or(bytes);
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { vec![c] };
    let text: String = String::from_utf8_lossy(head).chars().flat_map(escape).collect();
    truncated(&text, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_one_bounded_line() {
        for (bytes, expected) in [
            (&b"plain"[..], "plain"),
            (b"a\nb\x1b[0m", "a\\nb\\u{1b}[0m"),
            ("üüüüüüü".as_bytes(), "üüüüü…"),
            (b"\xff", "\u{fffd}"),
            (b"thirteen chars", "thirteen c…"),
        ] {
            assert_eq!(one_line(bytes, 13), expected);
        }
    }
}
