//! What a registry asks for in `WWW-Authenticate`: reads the header (RFC 9110, section 11.6.1), decides nothing.

use std::collections::BTreeMap;

/// One challenge: a scheme in lower case and its parameters, their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub scheme: String,
    pub parameters: BTreeMap<String, String>,
}

/// All challenges of all header lines, in order. What cannot be read is left out.
pub(super) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        let mut rest = line;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, after) = split_token(rest);
            if word.is_empty() {
                break;
            }
            let after = after.trim_start_matches([' ', '\t']);
            match (after.strip_prefix('='), challenges.last_mut()) {
                (Some(value), Some(Challenge { parameters, .. })) => {
                    let (value, after) = split_value(value.trim_start_matches([' ', '\t']));
                    parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                    rest = after;
                }
                (Some(_), None) => break,
                (None, _) => {
                    challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                    rest = after;
                }
            }
        }
    }
    challenges
}

/// The token at the beginning of `text` (RFC 9110, section 5.6.2), and what follows.
fn split_token(text: &str) -> (&str, &str) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/:".contains(&byte);
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A token or quoted string without its quotes and escapes, and what follows.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = split_token(text);
        return (token.to_owned(), rest.trim_start_matches('='));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: scheme.into(), parameters }
    }

    #[test]
    fn commas_and_escapes_in_quotes_are_text() {
        let line = r#"Bearer realm="https://a.io/token?x=1,2",service="a \"b\"",scope="repository:x:pull,push""#;
        let expected = challenge(
            "bearer",
            &[("realm", "https://a.io/token?x=1,2"), ("scope", "repository:x:pull,push"), ("service", "a \"b\"")],
        );
        assert_eq!(parse([line]), [expected]);
    }

    #[test]
    fn several_challenges_are_told_apart_on_one_line_and_on_two() {
        let basic = challenge("basic", &[("realm", "x")]);
        let bearer = challenge("bearer", &[("realm", "https://a.io"), ("service", "s")]);
        let both = [basic, bearer];
        assert_eq!(parse([r#"Basic realm="x", Bearer realm = "https://a.io" , SERVICE=s"#]), both);
        assert_eq!(parse([r#"basic realm="x""#, r#"BEARER realm="https://a.io",service=s"#]), both);
    }

    #[test]
    fn odd_lines_do_no_harm() {
        assert_eq!(parse(["Negotiate"]), [challenge("negotiate", &[])]);
        assert_eq!(parse(["Negotiate abc=="]), [challenge("negotiate", &[("abc", "")])]);
        for line in ["", ",,,", "=x", "\"", "realm=\"x\""] {
            assert_eq!(parse([line]), [], "{line}");
        }
        assert_eq!(parse(["Bearer realm=\"unclosed"]), [challenge("bearer", &[("realm", "unclosed")])]);
    }
}
