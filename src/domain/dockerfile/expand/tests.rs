//! Expansion, case by case; what BuildKit's own tests expect where there is a doubt.

use proptest::prelude::*;

use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "FOO" => "xxx",
        "EMPTY" => "",
        "PATH" => "/bin:/usr/bin",
        "TWO" => "a  b",
        "FILE" => "a/b/c.tar.gz",
        "KOREAN" => "한국어",
        "LINES" => "a\nb",
        "BIG" => return Some("x".repeat(40 << 10)),
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(word: &str) -> String {
    match expand(&Word::new(word), '\\', &lookup) {
        Ok(expanded) => expanded.text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn variables_quotes_and_escapes_become_text() {
    for (word, expected) in [
        ("plain", "plain"),
        ("$FOO", "xxx"),
        ("${FOO}", "xxx"),
        ("a$FOO-b", "axxx-b"),
        ("$NONE", ""),
        ("he$1x", "hex"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$$", ""),
        ("$@x", "x"),
        ("he\\$FOO", "he$FOO"),
        ("'$FOO'", "$FOO"),
        ("\"$FOO 'y'\"", "xxx 'y'"),
        ("'a\\'b", "a\\b"),
        ("\"a\\\"b\"", "a\"b"),
        ("\"a\\nb\"", "a\\nb"),
        ("\"a\\\\b\"", "a\\b"),
        ("a\\nb", "anb"),
        ("a\\", "a"),
        ("\"a\\", "error: the double quote is not closed"),
        ("$KOREAN한", ""),
        ("${KOREAN}한", "한국어한"),
        ("'", "error: the single quote is not closed"),
        ("${FOO", "error: `${` has no matching `}`"),
        ("${", "error: `${` has no matching `}`"),
        ("${}", "error: `${` is not followed by a variable's name"),
        ("${:-a}", "error: `${` is not followed by a variable's name"),
        ("${{FOO}}", "error: `${` is not followed by a variable's name"),
        ("${FOO:#x}", "error: `${FOO:#…}` is not supported; there are :- - :+ + :? ? # ## % %% / and //"),
        ("${FILE#'a'/\"b\"}", "/c.tar.gz"),
        ("a < << b", "a < << b"),
        ("${FOO=a}", "error: `${FOO=…}` is not supported; there are :- - :+ + :? ? # ## % %% / and //"),
        ("${FOO:=a}", "error: `${FOO:=…}` is not supported; there are :- - :+ + :? ? # ## % %% / and //"),
    ] {
        assert_eq!(text(word), expected, "{word}");
    }
}

#[test]
fn every_form_of_braces_is_known() {
    for (word, expected) in [
        ("${FOO:-a} ${EMPTY:-a} ${NONE:-a}", "xxx a a"),
        ("${FOO-a} ${EMPTY-a} ${NONE-a}", "xxx  a"),
        ("${FOO:+a} ${EMPTY:+a} ${NONE:+a}", "a  "),
        ("${FOO+a} ${EMPTY+a} ${NONE+a}", "a a "),
        ("${FOO:?m} ${FOO?m} ${EMPTY?m}", "xxx xxx "),
        ("${EMPTY:?is $FOO}", "error: variable EMPTY: is xxx"),
        ("${EMPTY:?}", "error: variable EMPTY: is not allowed to be empty"),
        ("${NONE?}", "error: variable NONE: is not allowed to be unset"),
        ("${NONE:-${EMPTY:-${FOO}}}", "xxx"),
        ("${NONE:-\"a}b\"}", "a}b"),
        ("${NONE:-a\\}b}", "a}b"),
        ("${NONE:-'$FOO'}", "$FOO"),
        ("${FILE#*/}", "b/c.tar.gz"),
        ("${FILE##*/}", "c.tar.gz"),
        ("${FILE%.*}", "a/b/c.tar"),
        ("${FILE%%.*}", "a/b/c"),
        ("${FILE#nothing}", "a/b/c.tar.gz"),
        ("${FILE#?/?}", "/c.tar.gz"),
        ("${FILE/b/X}", "a/X/c.tar.gz"),
        ("${FILE/\\//-}", "a-b/c.tar.gz"),
        ("${FILE//\\//-}", "a-b-c.tar.gz"),
        ("${FILE//[/x}", "a/b/c.tar.gz"),
        ("${FILE/*c/X}", "X.tar.gz"),
        ("${FOO//x/$FILE}", "a/b/c.tar.gza/b/c.tar.gza/b/c.tar.gz"),
        ("${FOO/$EMPTY/ww}", "wwxxx"),
        ("${FOO///}", "xxx"),
        ("${NONE//a/b}", ""),
        ("${FOO//x}", "error: `${` has no matching `/`"),
        ("${FOO#\\a}", "error: `\\a` is not an escape in a pattern; there are \\* \\? \\\\ \\/ and \\}"),
        ("${LINES#*b}", "a\nb"),
    ] {
        assert_eq!(text(word), expected, "{word}");
    }
}

#[test]
fn patterns_take_the_shortest_or_the_longest_match() {
    for (value, word, expected) in [
        ("()[]{}^$.*?|\\x", "${V#()[]{\\}^$.\\*\\?|\\\\}", "x"),
        ("xx**", "${V%%\\**}", "xx"),
        ("xxyy", "${V#*x*y}", "y"),
        ("xxyy", "${V##*x}", "yy"),
        ("xxyy", "${V#*}", "xxyy"),
        ("xxyy", "${V##*}", ""),
        ("???y", "${V#?\\?}", "?y"),
        ("a***yy*", "${V%%\\**\\*}", "a"),
        ("/foo*/*/*.txt", "${V/\\*\\//.} ${V//\\*\\//.}", "/foo.*/*.txt /foo..*.txt"),
        ("aaa", "${V//*/b}", "b"),
        ("", "${V//*/b}", "b"),
        ("ab", "${V//$N/-}", "-a-b-"),
    ] {
        let lookup = |name: &str| (name == "V").then(|| value.to_owned()).or((name == "N").then(String::new));
        assert_eq!(expand(&Word::new(word), '\\', &lookup).unwrap().text, expected, "{value} {word}");
    }
}

#[test]
fn words_split_at_blanks_outside_quotes_also_within_values() {
    for (word, expected) in [
        ("a b", &["a", "b"][..]),
        ("$TWO", &["a", "b"]),
        ("x$TWO\"$TWO\"", &["xa", "ba  b"]),
        ("'a b'c d", &["a bc", "d"]),
        ("a\\ b", &["a b"]),
        ("  ", &[]),
        ("\"\"", &[]),
        ("$NONE", &[]),
        ("${NONE:-80 443}/tcp", &["80", "443/tcp"]),
    ] {
        assert_eq!(expand(&Word::new(word), '\\', &lookup).unwrap().words, expected, "{word}");
    }
}

#[test]
fn the_escape_character_is_the_files_own() {
    let expanded = expand(&Word::new("c:\\dir`$FOO`` \"`\"\""), '`', &lookup).unwrap();
    assert_eq!(expanded.text, "c:\\dir$FOO` \"");
}

#[test]
fn here_documents_keep_quotes_and_lose_backslashes() {
    assert_eq!(content("a '$FOO' \"$NONE\"\n\\$FOO \\x\n", &lookup).unwrap(), "a 'xxx' \"\"\n$FOO x\n");
}

#[test]
fn variables_that_were_asked_for_are_told() {
    let expanded = expand(&Word::new("$FOO ${NONE:-$PATH} '$QUOTED' ${EMPTY+$OTHER}"), '\\', &lookup).unwrap();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expanded.used), ["EMPTY", "FOO", "PATH"]);
    assert_eq!(names(&expanded.undefined), ["NONE", "OTHER"]);
}

#[test]
fn results_and_nesting_are_bounded() {
    assert_eq!(text("$BIG").len(), 40 << 10);
    for word in [
        "$BIG$BIG".to_owned(),
        "${FOO//x/$BIG}".to_owned(),
        format!("{}a{}", "${X:-".repeat(40), "}".repeat(40)),
        format!("{}a{}", "${X:-".repeat(100_000), "}".repeat(100_000)),
        "${NONE+$BIG}".repeat(1000),
        "${BIG//*a/b}".to_owned(),
    ] {
        assert!(text(&word).starts_with("error: "), "{}", word.chars().take(40).collect::<String>());
    }
    let long = "a".repeat(200 << 10);
    assert_eq!(text(&long), long);
}

proptest! {
    #[test]
    fn nothing_panics(word in "[$ab{}:+?#%/*'\"\\\\` \\-]{0,60}", backtick: bool) {
        let escape = if backtick { '`' } else { '\\' };
        let _any = expand(&Word::new(&*word), escape, &|name| (name == "a").then(|| "b$a'".to_owned()));
        let _any = content(&word, &lookup);
        let _any = raw_words(&word);
        let _any = delimiter(&word, true);
    }

    #[test]
    fn words_without_special_characters_stay(word in "[a-z0-9/._:=@+,-]{0,60}") {
        prop_assert_eq!(text(&word), word);
    }

    #[test]
    fn quoted_text_is_literal(word in "[^']{0,60}") {
        prop_assert_eq!(text(&format!("'{word}'")), word);
    }
}
