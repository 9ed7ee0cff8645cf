//! JSON values as YAML that people like to read: comments, block texts, short lists and objects on one line.

use serde_json::{Map, Value};

/// The key whose value, a list of lines, is written as comments in front of its object.
pub(super) const COMMENT: &str = "#";
/// Where a line is better broken.
const WIDTH: usize = 110;

/// The document.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    if let Value::Object(fields) = value {
        comments(&mut out, fields, 0);
        object(&mut out, fields, 0, false);
    }
    out
}

/// Writes the fields; the first one behind what stands in its line already, for `in_line`.
fn object(out: &mut String, fields: &Map<String, Value>, indent: usize, mut in_line: bool) {
    for (key, value) in fields.iter().filter(|(key, _)| *key != COMMENT) {
        let pad = if in_line { 0 } else { indent };
        in_line = false;
        out.extend([format!("{:pad$}{}:", "", scalar(key))]);
        field(out, value, indent);
    }
}

fn field(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if fields.keys().any(|key| key != COMMENT) => {
            out.push('\n');
            comments(out, fields, indent + 2);
            object(out, fields, indent + 2, false);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            out.push('\n');
            for item in items {
                self::item(out, item, indent);
            }
        }
        Value::String(text) if is_block(text) => {
            let keep = if text.ends_with('\n') { "|" } else { "|-" };
            out.extend([format!(" {keep}\n")]);
            for line in text.lines() {
                let pad = if line.is_empty() { 0 } else { indent + 2 };
                out.extend([format!("{:pad$}{line}\n", "")]);
            }
        }
        other => out.extend([format!(" {}\n", flow(other))]),
    }
}

fn item(out: &mut String, value: &Value, indent: usize) {
    if let Value::Object(fields) = value {
        comments(out, fields, indent);
        let short = flow(value);
        let flat = fields.values().all(|value| !value.is_object() && !value.is_array());
        let text = fields.values().filter_map(Value::as_str).any(is_block);
        if !flat || text || short.len() > WIDTH || fields.contains_key(COMMENT) {
            out.extend([format!("{:indent$}- ", "")]);
            return object(out, fields, indent + 2, true);
        }
    }
    out.extend([format!("{:indent$}- {}\n", "", flow(value))]);
}

fn comments(out: &mut String, fields: &Map<String, Value>, indent: usize) {
    let lines = fields.get(COMMENT).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for line in lines {
        // A line end would end the comment with it.
        let line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        out.extend([format!("{:indent$}# {line}\n", "")]);
    }
}

/// On one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(key, _)| *key != COMMENT);
            let fields: Vec<_> = fields.map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text as it is where no reader of YAML could take it for anything else, else in JSON's quotes, which are YAML's too.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./@+".contains(letter));
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !reserved.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    // As a reference with a port or tag, and nothing that could be a key.
    let reference = text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./@:".contains(letter))
        && !text.ends_with(':');
    if reference && text.contains('/') { text.to_owned() } else { Value::from(text).to_string() }
}

/// Whether a block says exactly this text: lines without odd characters, none of which the indentation depends on.
fn is_block(text: &str) -> bool {
    let odd = |letter: char| {
        letter.is_control() && letter != '\n' && letter != '\t'
            || matches!(letter, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
    };
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.ends_with("\n\n")
        && !text.contains(odd)
}
