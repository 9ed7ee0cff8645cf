//! The language, construct by construct, and every problem with its place.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::{
        ast::*,
        mount::{Mount, MountAttributes, Sharing},
    },
    *,
};

fn parsed(text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

/// The instructions of a single stage.
fn instructions(text: &str) -> Vec<Instruction> {
    let dockerfile = parsed(&format!("FROM a\n{text}"));
    dockerfile.stages.into_iter().flat_map(|stage| stage.instructions).map(|located| located.value).collect()
}

fn instruction(text: &str) -> Instruction {
    let mut instructions = instructions(text);
    assert_eq!(instructions.len(), 1, "{text}");
    instructions.remove(0)
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

fn at(line: u32, column: u32) -> Position {
    Position { line, column }
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.into())
}

fn exec(words: &[&str]) -> CommandLine {
    CommandLine::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

fn run(text: &str) -> RunInstruction {
    match instruction(text) {
        Instruction::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(text: &str) -> CopyInstruction {
    match instruction(text) {
        Instruction::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn paths(files: &CopyFiles) -> Vec<&str> {
    let path = |source: &'_ Located<CopySource>| match &source.value {
        CopySource::Path(word) => word.raw().to_owned(),
        CopySource::Heredoc(heredoc) => format!("<<{}", heredoc.name),
    };
    let mut paths: Vec<String> = files.sources.iter().map(path).collect();
    paths.push(files.destination.value.raw().to_owned());
    paths.into_iter().map(|path| &*path.leak()).collect()
}

#[test]
fn stages_have_names_bases_and_platforms() {
    let dockerfile = parsed(
        "ARG V=1\nARG W\nFROM --platform=$BUILDPLATFORM golang:$V AS Build\nARG V\nfrom build as Final\nFROM scratch\n",
    );
    let argument =
        |argument: &Located<Argument>| (argument.value.name.raw().to_owned(), argument.value.default.clone());
    let arguments: Vec<_> = dockerfile.arguments.iter().map(argument).collect();
    assert_eq!(arguments, [("V".into(), Some(Word::new("1"))), ("W".into(), None)]);
    let stage = |stage: &Stage| {
        let name = stage.name.as_ref().map(|name| (name.value.clone(), name.at));
        (stage.from.value.raw().to_owned(), name, stage.platform.as_ref().map(|p| p.value.raw().to_owned()), stage.at)
    };
    assert_eq!(
        dockerfile.stages.iter().map(stage).collect::<Vec<_>>(),
        [
            ("golang:$V".into(), Some(("build".into(), at(3, 45))), Some("$BUILDPLATFORM".into()), at(3, 1)),
            ("build".into(), Some(("final".into(), at(5, 15))), None, at(5, 1)),
            ("scratch".into(), None, None, at(6, 1)),
        ]
    );
}

#[test]
fn directives_stand_at_the_top_alone() {
    let text =
        "\u{feff}# Syntax = docker/dockerfile:1 \r\n#ESCAPE=`\r\n# check=skip=all\r\nFROM a\r\nRUN b `\r\n c\\\r\n";
    let dockerfile = parsed(text);
    assert_eq!(dockerfile.syntax, Some(Located::new("docker/dockerfile:1".into(), at(1, 12))));
    assert_eq!(dockerfile.check.unwrap().value, "skip=all");
    assert_eq!(dockerfile.escape, '`');
    let Some(Instruction::Run(run)) = dockerfile.stages[0].instructions.first().map(|located| &located.value) else {
        panic!()
    };
    assert_eq!(run.command.value, shell("b  c\\"));

    for late in [
        "# a comment\n# escape=`\nFROM a",
        "\n# escape=`\nFROM a",
        "FROM a\n# escape=`",
        "# other=x\n# escape=`\nFROM a",
    ] {
        assert_eq!(parsed(late).escape, '\\', "{late}");
    }
}

#[test]
fn lines_are_joined_without_comments_and_blank_lines() {
    let dockerfile = parsed("FROM a\nRUN a && \\\n  # comment\n\n#x\n\tb \\  \n && c \\\\\nRUN d \\");
    let commands: Vec<_> = dockerfile.stages[0]
        .instructions
        .iter()
        .map(|instruction| match &instruction.value {
            Instruction::Run(run) => run.command.value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(commands, [shell("a && \tb  && c \\\\"), shell("d")]);
    let rules: Vec<_> = dockerfile.warnings.iter().map(|warning| (warning.rule, warning.problem.at)).collect();
    assert_eq!(rules, [("blank-continuation", at(4, 1))]);
}

#[test]
fn words_keep_their_places_across_lines_and_wide_characters() {
    let copy = copy("  COPY --chown=한:국 \\\n # c\n  é b \\\n    /to");
    assert_eq!(copy.files.owner.unwrap().at, at(2, 16));
    let places: Vec<_> = copy.files.sources.iter().map(|source| source.at).collect();
    assert_eq!(places, [at(4, 3), at(4, 5)]);
    assert_eq!(copy.files.destination.at, at(5, 5));
}

#[test]
fn command_lines_are_json_or_for_the_shell() {
    for (text, expected) in [
        ("CMD [\"a\", \"b c\"]", exec(&["a", "b c"])),
        ("CMD  [ \"a\" ,\"\\u00e9\\n\" ] ", exec(&["a", "é\n"])),
        ("CMD []", exec(&[])),
        ("CMD a  \"b\"  $C", shell("a  \"b\"  $C")),
        ("CMD ['a']", shell("['a']")),
        ("CMD [ -f x ] && y", shell("[ -f x ] && y")),
        ("cmd -- -x", shell("-x")),
    ] {
        assert_eq!(instruction(text), Instruction::Cmd(Located::new(expected, instruction_place(text))), "{text}");
    }
    assert_eq!(parsed("FROM a\nCMD ['a']").warnings[0].rule, "exec-form-is-no-json");
    assert!(parsed("FROM a\nCMD [ -f x ]").warnings.is_empty());
}

/// Where the arguments begin: behind the name, blanks and `--`.
fn instruction_place(text: &str) -> Position {
    let rest = text[3..].trim_start().trim_start_matches("--").trim_start();
    at(2, u32::try_from(text.len() - rest.len()).unwrap() + 1)
}

#[test]
fn variables_and_labels_have_two_forms() {
    let pairs = |text: &str| match instruction(text) {
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs
            .into_iter()
            .map(|pair| format!("{}|{}", pair.name.value.raw(), pair.value.value.raw()))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    for (text, expected) in [
        ("ENV a=b", &["a|b"][..]),
        ("ENV a=b c=\"d e\" f='g \" h' i=", &["a|b", "c|\"d e\"", "f|'g \" h'", "i|"]),
        ("ENV a=b\\ c d=e=f", &["a|b\\ c", "d|e=f"]),
        ("ENV a b  c=d", &["a|b  c=d"]),
        ("ENV a\tb", &["a|b"]),
        ("LABEL \"a b\"=c d.e=\"x\\\n  y\"", &["\"a b\"|c", "d.e|\"x  y\""]),
        ("LABEL a=\"it's\"", &["a|\"it's\""]),
        ("ENV a=b \\", &["a|b"]),
    ] {
        assert_eq!(pairs(text), expected, "{text}");
    }
    assert_eq!(parsed("FROM a\nENV a b").warnings[0].rule, "legacy-key-value");
    let Instruction::Arg(arguments) = instruction("ARG a b=c d=\"e f\"") else { panic!() };
    let raw: Vec<_> = arguments.iter().map(|a| (a.value.name.raw(), a.value.default.as_ref().map(Word::raw))).collect();
    assert_eq!(raw, [("a", None), ("b", Some("c")), ("d", Some("\"e f\""))]);
}

#[test]
fn simple_instructions_hold_their_words() {
    let word = |text: &str, column| Located::new(Word::new(text), at(2, column));
    for (text, expected) in [
        ("WORKDIR /a b", Instruction::Workdir(word("/a b", 9))),
        ("USER $U:$G", Instruction::User(word("$U:$G", 6))),
        ("STOPSIGNAL SIGINT", Instruction::StopSignal(word("SIGINT", 12))),
        ("EXPOSE 80 $P/udp", Instruction::Expose(vec![word("80", 8), word("$P/udp", 11)])),
        ("VOLUME /a  /b", Instruction::Volume(vec![word("/a", 8), word("/b", 12)])),
        ("VOLUME [\"/a b\"]", Instruction::Volume(vec![word("/a b", 8)])),
        ("SHELL [\"/bin/bash\"]", Instruction::Shell(Located::new(vec!["/bin/bash".into()], at(2, 7)))),
        ("MAINTAINER a <b@c>", Instruction::Maintainer(Located::new("a <b@c>".into(), at(2, 12)))),
    ] {
        assert_eq!(instruction(text), expected, "{text}");
    }
}

#[test]
fn run_has_mounts_network_security_and_devices() {
    let run = run("RUN --mount=type=cache,target=/c --network=none --security=insecure --device=gpu=all make");
    assert_eq!(run.network.map(|network| network.value), Some(RunNetwork::None));
    assert_eq!(run.security.map(|security| security.value), Some(RunSecurity::Insecure));
    assert_eq!(run.devices[0].value, "gpu=all");
    assert_eq!(run.command.value, shell("make"));
    assert_eq!(run.mounts[0].at, at(2, 13));
    assert_eq!(run.mounts[0].value.fields[1].at, at(2, 24));
}

fn mount(flag: &str) -> Mount {
    let run = run(&format!("RUN --mount={flag} x"));
    run.mounts[0].value.resolve(|word| Ok(word.value.raw().replace("$V", "filled"))).unwrap()
}

#[test]
fn mounts_are_resolved_by_kind() {
    let none = MountAttributes::default();
    let text = |text: &str| Some(text.to_owned());
    for (flag, expected) in [
        ("target=/t", Mount::Bind { from: None, source: None, target: "/t".into(), writable: false }),
        (
            "type=BIND,src=a,dst=t,from=build,rw",
            Mount::Bind { from: text("build"), source: text("a"), target: "t".into(), writable: true },
        ),
        (
            "destination=/t,rw,readonly=true",
            Mount::Bind { from: None, source: None, target: "/t".into(), writable: false },
        ),
        (
            "type=cache,target=/c,id=$V,sharing=locked,uid=1,gid=2,mode=0700,ro",
            Mount::Cache {
                id: text("filled"),
                target: "/c".into(),
                from: None,
                source: None,
                sharing: Sharing::Locked,
                read_only: true,
                attributes: MountAttributes { mode: Some(0o700), uid: Some(1), gid: Some(2) },
            },
        ),
        ("type=tmpfs,target=/t,size=1.5GiB", Mount::Tmpfs { target: "/t".into(), size: Some(3 << 29) }),
        (
            "type=secret,id=key",
            Mount::Secret {
                id: "key".into(),
                target: text("/run/secrets/key"),
                env: None,
                required: false,
                attributes: none,
            },
        ),
        (
            "type=secret,target=/a/key,required=true",
            Mount::Secret { id: "key".into(), target: text("/a/key"), env: None, required: true, attributes: none },
        ),
        (
            "type=secret,id=key,env=KEY",
            Mount::Secret { id: "key".into(), target: None, env: text("KEY"), required: false, attributes: none },
        ),
        ("type=ssh,required", Mount::Ssh { id: None, target: None, required: true, attributes: none }),
        (
            "'type=bind,\"target=/a,\"\"b\"\"\"'",
            Mount::Bind { from: None, source: None, target: "/a,\"b\"".into(), writable: false },
        ),
    ] {
        assert_eq!(mount(flag), expected, "{flag}");
    }
}

#[test]
fn copies_have_flags_sources_and_a_destination() {
    let copy = copy("COPY --from=Build --chmod=0755 --parents --link=false --exclude=*.md --exclude=\"a b\" a b /to/");
    assert_eq!(copy.from.unwrap().value, "Build");
    assert_eq!(copy.files.mode.as_ref().unwrap().value.raw(), "0755");
    assert!(copy.files.parents && !copy.files.link);
    let exclude: Vec<_> = copy.files.exclude.iter().map(|word| &*word.value).collect();
    assert_eq!(exclude, ["*.md", "a b"]);
    assert_eq!(paths(&copy.files), ["a", "b", "/to/"]);

    let Instruction::Add(add) =
        instruction("ADD --checksum=sha256:x --keep-git-dir --unpack=false [\"a b\", \"c\", \"/to\"]")
    else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack, add.checksum.is_some()), (Some(true), Some(false), true));
    assert_eq!(paths(&add.files), ["a b", "c", "/to"]);
}

#[test]
fn here_documents_stand_anywhere_and_several_at_once() {
    for (text, command, names, contents) in [
        ("RUN <<E\na\nb\nE\n", "<<E", &["E"][..], &["a\nb\n"][..]),
        (
            "RUN cat <<E > /a && cat <<-'F G'\n\ta\nE\n\tb\n\tF G\n",
            "cat <<E > /a && cat <<-'F G'",
            &["E", "F G"],
            &["\ta\n", "\tb\n"],
        ),
        ("RUN cat << E <<\tF\nE\nF\n", "cat << E <<\tF", &["E", "F"], &["", ""]),
        ("RUN 3<<E cat <&3\nE\n", "3<<E cat <&3", &["E"], &[""]),
        ("RUN cat <<E |\\\n sort\nx\r\nE\r\n", "cat <<E | sort", &["E"], &["x\r\n"]),
        ("RUN <<E\n# no comment\nE\n", "<<E", &["E"], &["# no comment\n"]),
        ("RUN echo <<<x '<<E' $((1<<2)) \"a <<F\"", "echo <<<x '<<E' $((1<<2)) \"a <<F\"", &[], &[]),
        ("RUN echo it's <<E", "echo it's <<E", &[], &[]),
        ("RUN [\"echo\", \"<<E\"]\nUSER a", "", &[], &[]),
    ] {
        let first = instructions(text).remove(0);
        let Instruction::Run(run) = first else { panic!() };
        if !command.is_empty() {
            assert_eq!(run.command.value, shell(command), "{text}");
        }
        assert_eq!(run.heredocs.iter().map(|h| &*h.value.name).collect::<Vec<_>>(), names, "{text}");
        assert_eq!(run.heredocs.iter().map(|h| &*h.value.content).collect::<Vec<_>>(), contents, "{text}");
    }
    let run = run("RUN <<E <<\"F\" <<-G\nE\nF\n\tx\n\tG\n");
    let flags: Vec<_> = run.heredocs.iter().map(|h| (h.value.expand, h.value.strip_tabs)).collect();
    assert_eq!(flags, [(true, false), (false, false), (true, true)]);
    assert_eq!(run.heredocs[2].value.text(), "x\n");
}

#[test]
fn a_here_document_is_a_script_or_input() {
    let script = |name: &str, content: &str| Program::Script { name: name.into(), content: content.into() };
    for (text, expected) in [
        ("RUN a", Program::Shell("a".into())),
        ("RUN [\"a\"]", Program::Exec(vec!["a".into()])),
        ("RUN <<E\na\n\tb\nE", Program::Shell("a\n\tb\n".into())),
        ("RUN << E\na\nE", Program::Shell("a\n".into())),
        ("RUN <<-'E'\n\ta\n\tE", Program::Shell("a\n".into())),
        ("RUN <<-E\n\t#!/bin/x\n\ty\nE", script("E", "#!/bin/x\ny\n")),
        ("RUN cat <<-E <<'F'\n\ta\nE\nb\nF", Program::Shell("cat <<-E <<'F'\n\ta\nE\nb\nF".into())),
        ("RUN <<E cat\na\nE", Program::Shell("<<E cat\na\nE".into())),
    ] {
        assert_eq!(run(text).program(), expected, "{text}");
    }
}

#[test]
fn copied_here_documents_are_sources() {
    let copy = copy("COPY --chmod=600 <<a.txt src <<-'b' /to/\n1\na.txt\n\t2\n\tb\n");
    assert_eq!(paths(&copy.files), ["<<a.txt", "src", "<<b", "/to/"]);
    let CopySource::Heredoc(heredoc) = &copy.files.sources[2].value else { panic!() };
    assert_eq!((&*heredoc.text(), heredoc.expand), ("2\n", false));
}

#[test]
fn health_checks_have_options_and_a_command() {
    let check = |text: &str| match instruction(text) {
        Instruction::Healthcheck(check) => check.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(check("HEALTHCHECK none"), Healthcheck::None);
    let text =
        "HEALTHCHECK --interval=1m30s --timeout=0.5s --start-period=0 --start-interval=1h --retries=3 CMD [\"a\"]";
    assert_eq!(
        check(text),
        Healthcheck::Check(Check {
            interval: Some(Duration::from_secs(90)),
            timeout: Some(Duration::from_millis(500)),
            start_period: Some(Duration::ZERO),
            start_interval: Some(Duration::from_hours(1)),
            retries: Some(3),
            command: exec(&["a"]),
        })
    );
    let Healthcheck::Check(Check { command, interval: None, retries: None, .. }) =
        check("HEALTHCHECK cmd curl  x || exit 1")
    else {
        panic!()
    };
    assert_eq!(command, shell("curl  x || exit 1"));
}

#[test]
fn on_build_holds_an_instruction() {
    let Instruction::OnBuild(on_build) = instruction("ONBUILD  copy . \\\n /src") else { panic!() };
    assert_eq!(on_build.text, "copy .  /src");
    assert!(matches!(on_build.instruction.value, Instruction::Copy(_)));
    assert_eq!(on_build.instruction.at, at(2, 10));
    let Instruction::OnBuild(on_build) = instruction("ONBUILD RUN <<E\na\nE\n") else { panic!() };
    assert_eq!(on_build.text, "RUN <<E\na\nE");
    let Instruction::Run(run) = on_build.instruction.value else { panic!() };
    assert_eq!(run.heredocs[0].value.content, "a\n");
}

#[test]
fn each_problem_is_told_with_its_place_and_what_was_meant() {
    for (text, expected) in [
        ("COPPY a b", "2:1: unknown instruction `COPPY`, did you mean COPY?"),
        ("RNU <<E\nx\nE", "2:1: unknown instruction `RNU`, did you mean RUN?"),
        ("BANANA", "2:1: unknown instruction `BANANA`"),
        ("COPY --form=x a b", "2:6: COPY has no flag `--form`, did you mean --from?"),
        ("COPY --from a b", "2:6: --from needs a value: --from=VALUE"),
        ("COPY --link --link a b", "2:13: --link is given twice"),
        ("COPY --link=maybe a b", "2:6: --link takes true or false"),
        (
            "COPY --from=$X a b",
            "2:13: variables are not filled in here; give the image a stage: FROM … AS NAME, then --from=NAME",
        ),
        ("COPY a", "2:6: COPY needs at least a source and a destination"),
        ("ADD", "2:1: ADD needs at least a source and a destination"),
        ("COPY a <<E\nE", "2:8: COPY's destination, its last word, cannot be a here-document"),
        ("COPY [\"a\", 1]", "2:6: a list in brackets holds strings only"),
        ("COPY \\\n a \\\n --x=y", ""),
        (
            "RUN --mount=type=bnd,target=/x y",
            "2:13: a mount's type is one of bind, cache, tmpfs, secret, ssh, found `bnd`, did you mean bind?",
        ),
        ("RUN --mount=type=cache,\\\ntagret=/x y", "3:1: a mount has no key `tagret`, did you mean target?"),
        ("RUN --mount=type=bind,target y", "2:23: a mount's target needs a value: target=VALUE"),
        (
            "RUN --mount=from=$X,target=/ y",
            "2:13: variables are not filled in here; give the image a stage: FROM … AS NAME, then from=NAME",
        ),
        ("RUN --mount=type=bind,uid=1 y", "2:23: a bind mount has no `uid`"),
        ("RUN --mount=type=ssh,src=a y", "2:22: a ssh mount has no `src`"),
        ("RUN --mount=type=cache,uid=x y", "2:24: uid takes a number, found `x`"),
        ("RUN --mount=type=cache,mode=9 y", "2:24: mode takes an octal number, found `9`"),
        ("RUN --mount=type=tmpfs,size=big y", "2:24: size takes bytes as in 64m or 1g, found `big`"),
        ("RUN --mount=type=secret y", "2:13: a secret mount needs an id or a target"),
        ("RUN --mount=type=secret,id=a,src=b y", "2:13: a secret has an id or a source, not both"),
        ("RUN --network=nine y", "2:15: --network is one of default, none, host, found `nine`, did you mean none?"),
        ("RUN", "2:1: RUN needs a command"),
        ("RUN []", "2:5: RUN needs a command"),
        ("RUN [\"a\", 1]", "2:5: an exec form holds strings only"),
        ("RUN a <<E\nb", "2:7: the here-document has no end: no line is `E`"),
        ("CMD", "2:1: CMD needs a command; CMD [] takes back the base image's"),
        ("CMD --x", "2:5: CMD takes no flags, found `--x`"),
        ("SHELL bash", "2:7: SHELL takes a JSON array of strings: SHELL [\"/bin/bash\", \"-c\"]"),
        ("ENV a", "2:5: ENV needs a value: ENV a=VALUE"),
        ("ENV a=b c", "2:9: ENV takes NAME=VALUE, found `c`; quote values with blanks"),
        ("ENV =b", "2:5: the name before the `=` is missing in ENV"),
        ("LABEL ", "2:1: LABEL needs NAME=VALUE"),
        ("ARG =b", "2:5: an ARG's name is missing before the `=`"),
        ("VOLUME [\"\"]", "2:8: VOLUME takes paths; this one is empty"),
        ("EXPOSE ", "2:1: EXPOSE needs a port"),
        ("HEALTHCHECK", "2:1: HEALTHCHECK needs NONE or CMD and a command"),
        ("HEALTHCHECK CDM x", "2:13: HEALTHCHECK takes NONE or CMD, found `CDM`, did you mean CMD?"),
        ("HEALTHCHECK CMD", "2:13: HEALTHCHECK CMD needs a command"),
        ("HEALTHCHECK NONE x", "2:18: HEALTHCHECK NONE takes nothing more"),
        ("HEALTHCHECK --interval=5 CMD x", "2:24: --interval takes a time as in 30s or 1m30s, found `5`"),
        ("HEALTHCHECK --interval=5us CMD x", "2:24: --interval is at least 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "2:23: --retries takes a number, found `-1`"),
        ("ONBUILD", "2:1: ONBUILD needs an instruction"),
        ("ONBUILD FROM x", "2:9: ONBUILD cannot hold FROM"),
        ("ONBUILD ONBUILD RUN x", "2:9: ONBUILD cannot hold ONBUILD"),
        ("ONBUILD RNU x", "2:9: unknown instruction `RNU`, did you mean RUN?"),
        ("FROM a b", "2:8: expected AS NAME or nothing after FROM IMAGE, found `b`"),
        ("FROM", "2:1: FROM needs an image, a stage's name or scratch"),
        ("FROM a AS 1b", "2:11: `1b` is no name for a stage: a letter, then letters, digits, - _ and ."),
        ("FROM --plaform=x a", "2:6: FROM has no flag `--plaform`, did you mean --platform?"),
    ] {
        match (parse(format!("FROM a\n{text}")), expected) {
            (Ok(_), expected) => assert_eq!(expected, "", "{text}"),
            (Err(problems), expected) => {
                assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{text}");
            }
        }
    }
}

#[test]
fn several_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "FROM a\nCOPPY x y\nRUN --mount=tpe=x --network=x y\nENV a\nFORM b\n";
    assert_eq!(
        problems(text),
        [
            "2:1: unknown instruction `COPPY`, did you mean COPY?",
            "3:13: a mount has no key `tpe`, did you mean type?",
            "3:29: --network is one of default, none, host, found `x`",
            "4:5: ENV needs a value: ENV a=VALUE",
            "5:1: unknown instruction `FORM`, did you mean FROM?",
        ]
    );
    assert_eq!(
        parse(text).unwrap_err()[0].in_file("Dockerfile"),
        "Dockerfile:2:1: unknown instruction `COPPY`, did you mean COPY?"
    );
}

#[test]
fn a_file_needs_a_from_before_all_but_arg() {
    let none = ["1:1: the Dockerfile has no FROM: a build starts with FROM IMAGE or FROM scratch"];
    for text in ["", "\n# x\n", "ARG a", "\u{feff}"] {
        assert_eq!(problems(text), none, "{text}");
    }
    assert_eq!(problems("RUN a\nRUN b\nFROM c"), ["1:1: RUN stands before the first FROM; only ARG may"]);
    assert_eq!(problems("FROM\nRUN b"), ["1:1: FROM needs an image, a stage's name or scratch"]);
}

#[test]
fn directives_are_checked() {
    assert_eq!(problems("# escape=x\nFROM a"), ["1:10: the escape directive takes a backslash or a backtick"]);
    assert_eq!(problems("# syntax=a\n# SYNTAX=b\nFROM a"), ["2:3: the syntax directive is given twice"]);
}

#[test]
fn size_is_bounded_in_every_direction() {
    let line = format!("FROM a\n# ok\nRUN {}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(problems(&line), [format!("3:1: the line is longer than {MAX_LINE_BYTES} bytes")]);
    assert_eq!(problems(&"\n".repeat(MAX_BYTES + 1)), ["1:1: the Dockerfile is larger than 1024 KiB"]);
    let many = format!("FROM a\n{}", "USER a\n".repeat(MAX_INSTRUCTIONS));
    assert_eq!(problems(&many), ["10001:1: the Dockerfile has more than 10000 instructions"]);
    assert_eq!(problems(&format!("FROM a\n{}", "X\n".repeat(5000))).len(), 100);
    let flags = format!("FROM a\nCOPY {}a b", "--x \\\n".repeat(100_000));
    assert_eq!(problems(&flags).len(), 100);
    let bytes: &[u8] = b"FROM a\n# \xc3\xa9\xff";
    assert_eq!(parse(bytes).unwrap_err()[0].to_string(), "2:4: the Dockerfile is not UTF-8 here");
}

/// The largest files of several shapes that go through every loop; quadratic work would take minutes.
#[test]
fn the_largest_files_are_read_in_one_go() {
    let lines = |first: &str, line: &str| {
        let mut text = format!("FROM a\n{first}\\\n");
        while text.len() + line.len() + 8 < MAX_BYTES {
            text.push_str(line);
        }
        text
    };
    for (first, line) in [
        ("COPY ", "é é é \\\n"),
        ("ENV ", "a=b \\\n"),
        ("RUN --mount=type=bind", ",target=/x,target=/y\\\n"),
        ("RUN ", "'\"<<a \\\n"),
        ("RUN ", "<<a \\\n"),
        ("LABEL ", "a='b \\\n"),
        ("EXPOSE ", "${a:-${b:-1}} \\\n"),
        ("COPY --exclude=x ", "--exclude=a \\\n"),
    ] {
        let _any = parse(lines(first, line));
    }
    let heredocs = format!("FROM a\nRUN {}\n{}", "<<a ".repeat(10_000), "a\n".repeat(10_000));
    let Instruction::Run(run) = &parsed(&heredocs).stages[0].instructions[0].value else { panic!() };
    assert_eq!(run.heredocs.len(), 10_000);
}

proptest! {
    #[test]
    fn nothing_panics_and_places_are_within_the_file(text in "((FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|#escape=`|é|--mount=|--from=|<<-?E|\\[|\\]|[ a=\"'\\\\`,$\\r\\n])){0,60}") {
        let lines = u32::try_from(text.split('\n').count()).unwrap();
        match parse(&text) {
            Ok(dockerfile) => prop_assert!(!dockerfile.stages.is_empty()),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(problem.at.line >= 1 && problem.at.line <= lines && problem.at.column >= 1);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _any = parse(&bytes);
    }

    #[test]
    fn what_is_written_is_what_is_read(
        words in proptest::collection::vec("[a-zA-Z0-9/._$*-]{0,8}[a-z]", 2..6),
        broken in proptest::collection::vec(any::<bool>(), 6),
    ) {
        let mut text = "FROM a\nCOPY".to_owned();
        for (word, broken) in words.iter().zip(broken) {
            text.push_str(if broken { " \\\n\t" } else { "  " });
            text.push_str(word);
        }
        if !words[0].starts_with("--") {
            let dockerfile = parsed(&text);
            let Instruction::Copy(copy) = &dockerfile.stages[0].instructions[0].value else { panic!() };
            prop_assert_eq!(paths(&copy.files), words);
        }
    }
}
