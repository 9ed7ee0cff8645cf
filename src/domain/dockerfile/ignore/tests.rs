//! Ignore files, case by case; the expectations are those of patternmatcher's tests.

use proptest::prelude::*;

use super::*;

fn ignores(patterns: &str, path: &str) -> bool {
    Ignore::parse(patterns).unwrap().ignores(path)
}

#[test]
fn single_patterns_match_as_in_docker() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/dir/file", true),
        ("**file", "dir/xfile", true),
        ("**/file", "dir/xfile", false),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abc/def", false),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a*", "ab/c", true),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[\\]a]", "]", true),
        ("[x\\-]", "-", true),
        // Written as people do.
        ("/docs/", "docs/a", true),
        ("./docs//x/../y", "docs/y", true),
        ("  docs  ", "docs", true),
        ("node_modules", "web/node_modules", false),
        ("# docs", "docs", false),
        (".", "file", false),
        ("../x", "x", false),
        ("/", "file", false),
        ("docs\r", "docs", true),
        ("docs /", "docs", true),
    ] {
        assert_eq!(ignores(pattern, path), expected, "{pattern:?} {path}");
    }
}

#[test]
fn later_patterns_win_and_exceptions_reach_below_ignored_directories() {
    for (patterns, path, expected) in [
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs\n!docs/README.md", "docs/other", true),
        ("!docs/README.md\ndocs", "docs/README.md", true),
        ("*\n!src", "src/main.rs", false),
        ("*\n!src", "target/debug", true),
        ("**\n!util/docker/web", "util/docker/web/foo", false),
        ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", true),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
        ("\u{feff}docs", "docs", true),
        ("! docs \ndocs/a\n!/docs/a/b", "docs/a/b/c", false),
        ("", "any", false),
    ] {
        assert_eq!(ignores(patterns, path), expected, "{patterns:?} {path}");
    }
}

#[test]
fn directories_are_skipped_only_when_no_exception_can_reach_into_them() {
    assert!(Ignore::parse("target").unwrap().ignores_all_of("target"));
    assert!(!Ignore::parse("target\n!target/x").unwrap().ignores_all_of("target"));
    assert!(!Ignore::parse("target").unwrap().ignores_all_of("src"));
}

#[test]
fn malformed_patterns_are_named_with_their_line() {
    for (text, line) in
        [("a\n[", 2), ("[]a]", 1), ("[-x]", 1), ("[x-]", 1), ("[a-b-c]", 1), ("a\n\n!", 3), ("\\", 1), ("[z-a]", 1)]
    {
        let problems = Ignore::parse(text).unwrap_err();
        assert_eq!(problems.iter().map(|problem| problem.at.line).collect::<Vec<_>>(), [line], "{text}");
    }
    assert!(Ignore::parse(&"a".repeat(5000)).is_err());
    assert!(Ignore::parse(&"a\n".repeat(MAX_PATTERNS + 1)).is_err());
    assert!(Ignore::parse(&"\n".repeat(MAX_BYTES + 1)).is_err());
}

#[test]
fn the_dockerfiles_own_ignore_file_comes_first() {
    assert_eq!(candidates("build/Dockerfile.web"), ["build/Dockerfile.web.dockerignore", ".dockerignore"]);
}

proptest! {
    #[test]
    fn nothing_panics(text in "[ab*?!/.#\\[\\]\\\\^\\n -]{0,80}", path in "[ab/.]{0,20}") {
        if let Ok(ignore) = Ignore::parse(&text) {
            ignore.ignores(&path);
        }
    }

    #[test]
    fn literal_patterns_match_themselves_and_what_is_below(path in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
        prop_assert!(ignores(&path, &path));
        let below = format!("{path}/x");
        prop_assert!(ignores(&path, &below));
        let beside = format!("{path}x");
        prop_assert!(!ignores(&path, &beside));
    }
}
