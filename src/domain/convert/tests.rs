//! What Dockerfiles become.

use std::collections::BTreeMap;

use super::*;
use crate::{
    api::v1alpha1::{GitSource, MinimalImageSpec},
    domain::{dockerfile::parse, image::RuntimeConfig, plan::Draft, resource_file},
};

/// The resource that a Dockerfile becomes, or its problems as `LINE message`.
fn converted(text: &str, user: &str) -> Result<String, Vec<String>> {
    let git =
        GitSource { url: "https://git.example.com/a.git".into(), reference: None, secret_ref: None, submodules: false };
    let source = Source { git: Some(git), ..Source::default() };
    let spec: MinimalImageSpec = serde_json::from_value(json!({
        "source": plain(&source), "dockerfile": {"allowLargeBase": true}, "destination": {"repository": "r.example.com/app"}
    }))
    .unwrap();
    let Draft::Dockerfile(draft) = Draft::new(&spec).unwrap() else { panic!("no Dockerfile") };
    let files = BTreeMap::from([("Dockerfile".to_owned(), Some(text.to_owned()))]);
    let open = draft.open(&files).unwrap();
    let config = RuntimeConfig { user: user.into(), env: vec![("PATH".into(), "/bin".into())], ..Default::default() };
    let configs = open.images().iter().map(|image| (image.clone(), config.clone())).collect();
    let plan = open.plan(&configs).unwrap();
    let dockerfile = parse(text).unwrap();
    let users = open.images().iter().map(|image| (image.clone(), user.to_owned())).collect();
    let (file, target, name, source) = ("Dockerfile", None, "app", Some(source));
    let conversion = Conversion { plan: &plan, dockerfile: &dockerfile, file, target, users: &users, name, source };
    conversion
        .yaml()
        .map_err(|problems| problems.iter().map(|problem| format!("{} {}", problem.at.line, problem.message)).collect())
}

#[test]
fn a_dockerfile_becomes_what_a_person_would_write() {
    let text = "FROM golang:1.26 AS build\nWORKDIR /src\nENV CGO_ENABLED=0\nCOPY go.mod *.go ./\n\
                RUN go build -o /app .\nFROM scratch\nCOPY --from=build /app /app\nUSER 65532\nEXPOSE 80 53/udp\n\
                COPY <<EOF /etc/conf\na\nb\nEOF\nENTRYPOINT [\"/app\"]\n";
    let expected = r#"# Made from Dockerfile by minimalimage convert. Values of build arguments are written out.
apiVersion: minimalimage.dev/v1alpha1
kind: MinimalImage
metadata:
  name: app
spec:
  source:
    git:
      url: https://git.example.com/a.git
  podSecurity: Baseline
  stages:
  # from Dockerfile:1
  - name: build
    image: docker.io/library/golang:1.26
    env:
    - {name: CGO_ENABLED, value: "0"}
    copy:
    - {from: source, source: go.mod, destination: /src/}
    - {from: source, source: "*.go", destination: /src/}
    run: "go build -o /app ."
    workingDir: /src
  image:
    # from Dockerfile:6
    copy:
    - {from: build, source: /app, destination: /app}
    files:
    - path: /etc/conf
      content: |
        a
        b
    command: [/app]
    env:
    - {name: PATH, value: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    workingDir: /
    user: "65532"
    ports:
    - {containerPort: 80}
    - {containerPort: 53, protocol: UDP}
  destination:
    repository: r.example.com/app
"#;
    assert_eq!(converted(text, "").unwrap(), expected);
}

#[test]
fn runs_become_one_script_of_shells_of_their_own() {
    let text = "FROM debian AS build\nRUN apt-get update && apt-get install -y gcc\nWORKDIR /a\nENV A=1\nRUN false; echo \"it's $A\"\n\
                SHELL [\"/bin/bash\", \"-c\"]\nWORKDIR /b\nRUN echo b\nCOPY late /b/\n\
                FROM scratch\nCOPY --from=build /b /b\n";
    let text = converted(text, "").unwrap();
    let stage = resource_file::parse(&text).unwrap().spec.stages.remove(0);
    let expected = "# Dockerfile:2\n(\nmkdir -p / && cd /\napt-get update && apt-get install -y gcc\n)\nmkdir -p /a\n\
                    # Dockerfile:5\n(\nmkdir -p /a && cd /a\nexport A=1\nset +e\nfalse; echo \"it's $A\"\n)\n\
                    # Dockerfile:8\n(\nexport A=1\n/bin/bash -c 'echo b'\n)\n";
    assert_eq!(stage.run.unwrap(), expected);
    assert_eq!((stage.working_dir.as_deref(), stage.env.len(), stage.copy_source), (Some("/b"), 0, true));
    assert!(text.contains("# All copies come before the script here"), "{text}");
}

#[test]
fn what_stages_cannot_say_is_refused_with_its_line() {
    let build = "FROM debian AS build\n";
    let image = "FROM scratch\nCOPY --from=build /a /a\n";
    for (text, line, words) in [
        (format!("{build}USER app\nRUN true\n{image}"), 2, "own user, root"),
        (format!("{build}RUN --mount=type=cache,target=/c true\n{image}"), 2, "no RUN --mount"),
        (format!("{build}RUN --mount=type=bind,target=/c true\n{image}"), 2, "--mount=type=bind"),
        (format!("{build}RUN --network=none true\n{image}"), 2, "--network=none"),
        (format!("{build}COPY <<EOF /x\na\nEOF\n{image}"), 2, "here-documents"),
        (format!("{build}COPY --chown=app a /x\n{image}"), 2, "numeric"),
        (format!("{build}ADD a.tar.gz /x/\n{image}"), 2, "unpack nothing"),
        (format!("{build}ADD a.TGZ /x/\n{image}"), 2, "unpack nothing"),
        (
            format!("{build}ADD f /f\nADD https://h/a.git#0123456789abcdef0123456789abcdef01234567 /x\n{image}"),
            3,
            "no ADD",
        ),
        (format!("{build}COPY --exclude=*.md . /x/\n{image}"), 2, "--exclude"),
        (format!("{build}RUN true\n{image}COPY --parents a/b /x/\n"), 4, "--parents"),
        (format!("{build}RUN true\n{image}HEALTHCHECK CMD true\n"), 5, "health check"),
        ("FROM debian\nRUN true\n".to_owned(), 2, "an image of stages has no RUN"),
        (format!("{build}RUN true\n{image}SHELL [\"/bin/x\"]\n"), 5, "shell"),
        (format!("{build}RUN true\n{image}MAINTAINER me\n"), 5, "LABEL"),
        (format!("{build}RUN true\nFROM scratch\nCOPY <<EOF /x\na\nEOF\nCOPY --from=build /a /a\n"), 4, "behind"),
    ] {
        let problems = converted(&text, "").unwrap_err();
        let found = problems.iter().any(|problem| problem.starts_with(&format!("{line} ")) && problem.contains(words));
        assert!(found, "{text}: {problems:?}");
    }
    let note = "Here these are taken for plain files: f, g";
    let added = format!("{build}ADD f /f\nRUN true\n{image}ADD g /g\n");
    assert!(converted(&added, "").unwrap().contains(note));
    // A builder image's own user is no USER.
    let text = format!("{build}RUN true\n{image}");
    assert!(converted(&text, "app").is_ok());
    assert!(
        converted(&format!("{build}USER root\nRUN true\n{image}"), "app").unwrap_err()[0].contains("own user, app")
    );
}

#[test]
fn yaml_says_the_same_as_the_values_in_it() {
    let texts = [
        "",
        "a",
        "yes",
        "null",
        "1",
        "1.5",
        "0x1",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#a",
        " a",
        "a ",
        "a\nb",
        "a\nb\n",
        "\na\n",
        "a\n\n",
        " a\nb",
        "a\n  b\n\nc",
        "a\tb",
        "\u{1}",
        "\u{85}",
        "a\u{2028}\nb",
        "'",
        "\"",
        "\\",
        "{a}",
        "[a]",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "~",
        "a:",
        "a/b:1",
        "//",
        "a\r\nb",
        "2020-01-01",
        "=",
        "<<",
        "é",
        "a, b",
        "|",
        ">",
    ];
    for text in texts {
        let value = json!({"text": text, "list": [text, {"a": text}], "map": {"inner": {text: text}}});
        let yaml = super::yaml::text(&value);
        let back: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{text:?}: {error}\n{yaml}"));
        assert_eq!(back, value, "{yaml}");
    }
}
