//! The end of a log for people: printable, bounded, without secrets.

/// Lines and bytes of a [`tail`].
const LINES: usize = 20;
const BYTES: usize = 1536;
/// Shorter values are no secrets, and masking them would make the text unreadable.
const SHORTEST_SECRET: usize = 4;

/// Keeps the last bytes of a stream that may be endless.
#[derive(Debug, Default)]
pub struct LastBytes {
    bytes: Vec<u8>,
    cut: bool,
}

impl LastBytes {
    const KEPT: usize = 16 * 1024;

    /// Takes more of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * Self::KEPT {
            self.bytes.drain(..self.bytes.len() - Self::KEPT);
            self.cut = true;
        }
    }

    /// The last lines; values of `secrets` are masked.
    #[must_use]
    pub fn tail(&self, secrets: &[String]) -> String {
        let mut bytes = &self.bytes[..];
        if self.cut {
            // The cut may have gone through a secret's line, whose rest nobody would recognise.
            let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            bytes = bytes.get(line..).unwrap_or_default();
        }
        tail(&masked(&String::from_utf8_lossy(bytes), secrets))
    }
}

/// `text` with every line of every secret replaced by `***`, the longest first so that none uncovers another's rest.
#[must_use]
pub fn masked(text: &str, secrets: &[String]) -> String {
    let lines = secrets.iter().flat_map(|secret| secret.lines().map(str::trim));
    let mut values: Vec<&str> = lines.filter(|value| value.len() >= SHORTEST_SECRET).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.dedup();
    values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, "***"))
}

fn tail(text: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut room = BYTES;
    for line in text.lines().rev().map(plain).filter(|line| !line.is_empty()).take(LINES) {
        if line.len() + 1 > room {
            if kept.is_empty() {
                let start = (line.len() - (room - 1)..line.len()).find(|at| line.is_char_boundary(*at));
                kept.extend(start.and_then(|start| line.get(start..)).map(str::to_owned));
            }
            break;
        }
        room -= line.len() + 1;
        kept.push(line);
    }
    kept.reverse();
    kept.join("\n")
}

/// A line without terminal sequences; of what was overwritten by carriage returns the last remains.
fn plain(line: &str) -> String {
    let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC [ … letter (ECMA-48, control sequences); other sequences lose only their first character.
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| matches!(c, '@'..='~'));
            }
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, secrets: &[&str]) -> String {
        let mut last = LastBytes::default();
        text.as_bytes().chunks(7).for_each(|chunk| last.push(chunk));
        last.tail(&secrets.iter().map(|&secret| secret.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_twenty_lines_remain() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let tail = of(&text, &[]);
        assert_eq!((tail.lines().count(), tail.lines().last()), (20, Some("line 99")));
    }

    #[test]
    fn long_lines_are_cut_to_the_room_there_is() {
        let tail = of(&format!("{}ü{}", "a".repeat(3000), "b".repeat(1500)), &[]);
        assert!(tail.len() <= BYTES && tail.ends_with('b'), "{}", tail.len());
    }

    #[test]
    fn secrets_are_masked_also_over_several_lines_and_chunks() {
        let secret = "s3cret-value";
        assert_eq!(of("token=s3cret-value!", &[secret]), "token=***!");
        assert_eq!(of("a\nkey-line-1\nkey-line-2\nb", &["key-line-1\nkey-line-2\n"]), "a\n***\n***\nb");
        assert_eq!(of("prefix and prefix-long", &["prefix", "prefix-long"]), "*** and ***");
        assert_eq!(of("a 1 b", &["1", ""]), "a 1 b");
    }

    #[test]
    fn a_secret_cut_by_the_bound_does_not_show_its_rest() {
        let secret = "x".repeat(20_000) + "END";
        let mut last = LastBytes::default();
        last.push(b"start\n");
        last.push(secret.as_bytes());
        last.push(&b"\x1b[0m".repeat(3500));
        last.push(b"\nlast\n");
        assert_eq!(last.tail(&[secret]), "last");
    }

    #[test]
    fn terminal_sequences_and_progress_bars_are_dropped() {
        assert_eq!(of("\u{1b}[31mred\u{1b}[0m\n10%\r50%\r100%\r\n\u{0}\u{7}x\n", &[]), "red\n100%\nx");
    }
}
