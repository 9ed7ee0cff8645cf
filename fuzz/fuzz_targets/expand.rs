//! Any text as a word, a here-document and an ignore file.

#![no_main]
#![allow(dead_code, unused_imports)] // of the module only a part is used here

#[path = "../../src/domain/dockerfile/mod.rs"]
mod dockerfile;

use dockerfile::{
    Word,
    expand::{MAX_EXPANDED, content, expand},
    ignore::Ignore,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lookup = |name: &str| match name.len() {
        1 => Some("a b'\"\\${x}*".to_owned()),
        2 => Some("y".repeat(1000)),
        _ => None,
    };
    for escape in ['\\', '`'] {
        if let Ok(expanded) = expand(&Word::new(text), escape, &lookup) {
            assert!(expanded.text.len() <= text.len() + MAX_EXPANDED);
        }
    }
    let _any = content(text, &lookup);
    let (patterns, path) = text.split_once('\0').unwrap_or((text, "a/b.c"));
    if let Ok(ignore) = Ignore::parse(patterns) {
        let _any = ignore.ignores(path);
    }
});
