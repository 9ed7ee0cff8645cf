//! Each rule by files that it finds something in, and by their mended twins.

use super::{super::parse, *};

/// Rule and line of everything found.
fn found(text: &str) -> Vec<(&'static str, u32)> {
    let dockerfile = parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
    lint(&dockerfile).iter().map(|warning| (warning.rule, warning.problem.at.line)).collect()
}

#[test]
fn every_rule_finds_what_it_is_for_and_nothing_else() {
    for (text, expected) in [
        // The parser's own.
        (
            "FROM a:1\nENV a b\nMAINTAINER x\nRUN a \\\n\n b\nCMD ['x']",
            &[
                ("legacy-key-value", 2),
                ("maintainer-deprecated", 3),
                ("blank-continuation", 5),
                ("exec-form-is-no-json", 7),
            ][..],
        ),
        // Names of stages.
        ("FROM a:1 AS x\nFROM x AS X\nFROM x", &[("duplicate-stage-name", 2)]),
        ("FROM a:1 AS context\nFROM context", &[("stage-name-is-reserved", 1)]),
        ("FROM a:1 AS build\nFROM b:1\nCOPY --from=biuld /a /a\nCOPY --from=build /b /b", &[("stage-name-typo", 3)]),
        ("FROM a:1 AS build\nFROM buildd\nCOPY --from=build /b /b", &[("stage-name-typo", 2)]),
        (
            "FROM a:1\nCOPY --from=later /a /a\nFROM b:1 AS later\nCOPY --from=0 /b /b\nCOPY --from=7 /c /c",
            &[("later-stage", 2), ("later-stage", 5)],
        ),
        ("FROM a:1 AS x\nFROM b:1 AS y\nRUN --mount=from=x,target=/x z\nFROM y", &[]),
        ("FROM a:1 AS x\nFROM b:1", &[("unused-stage", 1)]),
        (
            "FROM a:1\nCMD a\nCMD b\nENTRYPOINT c\nFROM 0\nCOPY --from=0 /a /a\nCMD d",
            &[("repeated-instruction", 2), ("unpinned-image", 5)],
        ),
        // Images.
        ("FROM a", &[("unpinned-image", 1)]),
        ("FROM r:5000/a", &[("unpinned-image", 1)]),
        (
            "FROM a:latest\nCOPY --from=b:latest /a /a\nRUN --mount=type=bind,from=c,target=/c x",
            &[("unpinned-image", 1), ("unpinned-image", 2), ("unpinned-image", 3)],
        ),
        ("FROM a@sha256:0\nCOPY --from=b:1 /a /a", &[]),
        ("ARG V=1\nARG W=latest\nFROM a:$V AS x\nFROM a:${W} AS y\nCOPY --from=x /a /a", &[("unpinned-image", 4)]),
        ("ARG V\nFROM a:$V", &[]),
        ("ARG VERSION=1\nFROM --platform=$BUILDPLATFORM a:${VERSON}-$TARGETARCH", &[("undefined-argument", 2)]),
        ("FROM a:${V:-1}", &[]),
        ("FROM scratch\nENTRYPOINT /app", &[("shell-form-without-shell", 2)]),
        (
            "FROM gcr.io/distroless/static:nonroot AS a\nFROM a\nHEALTHCHECK CMD x\nCMD y\nRUN z",
            &[("shell-form-without-shell", 3), ("shell-form-without-shell", 4), ("shell-form-without-shell", 5)],
        ),
        ("FROM gcr.io/distroless/static:debug\nCMD x", &[]),
        ("FROM scratch\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nCMD x", &[]),
        ("FROM scratch\nENTRYPOINT [\"/app\"]", &[]),
        // Files.
        ("FROM a:1 AS x\nFROM b:1\nCOPY --from=x / /", &[("whole-root-copy", 3)]),
        ("FROM a:1 AS x\nFROM b:1\nCOPY --from=x --exclude=tmp / /\nCOPY / /", &[]),
        (
            "FROM a:1\nADD https://h/a.tar /a\nADD --checksum=sha256:0 https://h/b /b\nADD a.tar /a",
            &[("add-without-checksum", 2)],
        ),
        (
            "FROM a:1\nADD https://h/a.git#main /a\nADD https://h/a.git#0123456789012345678901234567890123456789 /b\n\
             ADD git@h:a.git /c",
            &[("add-without-checksum", 2), ("add-without-checksum", 4)],
        ),
        (
            "ARG NPM_TOKEN\nFROM a:1\nARG db_password=x\nENV API_KEY=y PUBLIC_KEY=z PASSWORD_FILE=/p TOKENS=1\nENV MONKEY=1",
            &[("secret-in-arg", 1), ("secret-in-arg", 3), ("secret-in-env", 4)],
        ),
        // Commands.
        ("FROM a:1\nCOPY . .\nRUN npm  ci && npm run build", &[("copy-before-install", 3)]),
        ("FROM a:1\nCOPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\nRUN npm ci", &[]),
        (
            "FROM a:1\nADD ./ /app\nRUN <<E\ncd /app\npip install -r requirements.txt\nE\n",
            &[("copy-before-install", 3)],
        ),
        ("FROM a:1\nCOPY --from=b:1 . .\nRUN npm ci", &[]),
        ("FROM a:1\nCOPY . .\nRUN snpm ci-x", &[]),
        ("FROM a:1\nRUN apt-get update\nRUN apt-get -qq install -y x", &[("apt-update-alone", 2)]),
        ("FROM a:1\nRUN apt-get update && apt-get install -y x", &[("apt-lists-left", 2)]),
        ("FROM a:1 AS x\nRUN apt-get update && apt-get install -y x\nFROM b:1\nCOPY --from=x /x /x", &[]),
        ("FROM a:1 AS x\nRUN apt-get update && apt-get install -y x\nFROM x", &[("apt-lists-left", 2)]),
        ("FROM a:1\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*", &[]),
        ("FROM a:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get install -y x", &[]),
        // Variables.
        ("FROM a:1\nARG VERSION\nENV A=$VERSOIN B=$HOME\nWORKDIR $VERSION", &[("undefined-variable", 3)]),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn all_rules_are_listed() {
    let names: Vec<_> = RULES.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted());
    let sources = [
        include_str!("commands.rs"),
        include_str!("files.rs"),
        include_str!("images.rs"),
        include_str!("stages.rs"),
        include_str!("variables.rs"),
        include_str!("../parse/instruction.rs"),
        include_str!("../parse/lines.rs"),
    ]
    .concat();
    let documented = include_str!("../../../../docs/lint.md");
    for name in names {
        assert!(sources.contains(&format!("\"{name}\"")), "{name}");
        assert!(documented.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

#[test]
fn messages_say_what_to_do() {
    let dockerfile = parse("FROM a:1 AS build\nFROM scratch\nCOPY --from=biuld /a /a\nCMD x").unwrap();
    let text: Vec<_> = lint(&dockerfile).iter().map(|warning| warning.problem.to_string()).collect();
    assert_eq!(
        text,
        [
            "1:1: the last stage does not use stage build; remove it unless it is built as a target",
            "3:13: no stage is called biuld, so this is an image, did you mean build?",
            "4:1: scratch has no shell to run this; write CMD as JSON: [\"program\", \"argument\"]",
        ]
    );
}
