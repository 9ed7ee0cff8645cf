//! Paragraphs of `Field: value` lines, as Debian's control files have them (deb822(5)).

/// The fields of one paragraph, in order. Names are compared without regard to case.
#[derive(Debug, Clone, Default)]
pub struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// Reads a paragraph; lines that are neither a field nor the continuation of one are passed over.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut fields: Vec<(&'a str, &'a str)> = Vec::new();
        let mut start = None::<(&'a str, usize)>;
        let mut at = 0;
        let mut close = |start: Option<(&'a str, usize)>, end: usize| {
            if let Some((name, from)) = start {
                fields.push((name, text.get(from..end).unwrap_or_default().trim()));
            }
        };
        for line in text.split_inclusive('\n') {
            if !line.starts_with([' ', '\t']) {
                close(start.take(), at);
                start = line.split_once(':').map(|(name, _)| (name, at + name.len() + 1));
            }
            at += line.len();
        }
        close(start, at);
        Self { fields }
    }

    /// The value of a field, its lines as they are.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_several_lines() {
        let stanza = Stanza::parse("Package: a\nDepends: b,\n c\nEmpty:\nSHA256:\n 00 1 x\n 11 2 y\n");
        assert_eq!(stanza.get("package"), Some("a"));
        assert_eq!(stanza.get("Depends"), Some("b,\n c"));
        assert_eq!(stanza.get("Empty"), Some(""));
        assert_eq!(stanza.get("SHA256"), Some("00 1 x\n 11 2 y"));
        assert_eq!(stanza.get("None"), None);
    }
}
