//! What `convert` writes is built to the same image as the Dockerfile that it was made from.

use std::{fs, process::Command};

use crate::support::{Machine, users};

/// Dockerfiles whose `BUILDER` is a shell and `BASE` an image, after the examples and what people write.
const SAME: [&str; 5] = [
    "FROM BUILDER AS build\nWORKDIR /src\nENV MODE=0\nCOPY go.mod *.go ./\nRUN cat go.mod main.go >/app && echo $MODE >>/app\n\
     FROM scratch\nCOPY --from=build /app /app\nUSER 65532:65532\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n",
    "ARG GREETING=hello\nFROM BUILDER AS server\nWORKDIR /src\nCOPY server/ ./\nRUN cat main >/server\n\
     FROM BUILDER AS client\nARG GREETING\nWORKDIR /src\nCOPY server/main .\nRUN echo \"$GREETING\" >client; cat main >>client\n\
     FROM BUILDER AS data\nSHELL [\"/bin/sh\", \"-euc\"]\nWORKDIR /out\nRUN <<EOT\necho 'line 1' >lines.txt\nln -s lines.txt current\nEOT\n\
     FROM scratch\nCOPY --from=server /server /bin/server\nCOPY --from=client --chmod=0755 /src/client /bin/client\n\
     COPY --from=data /out/ /data/\nCOPY <<CONF /etc/app.conf\ndata=/data/current\nCONF\n\
     ENTRYPOINT [\"/bin/server\"]\nCMD [\"/data/current\"]\n",
    "FROM BUILDER AS build\nWORKDIR /src\nCOPY go.mod ./\nRUN cat go.mod >/deps\nENV LATE='it is'\nCOPY . .\n\
     RUN false; cat /deps main.go >/app; echo \"$LATE\" >>/app\nRUN [\"cp\", \"/app\", \"/app two\"]\n\
     FROM BASE\nLABEL a=b\nVOLUME /data\nSTOPSIGNAL SIGINT\nWORKDIR /data\nCOPY --from=build --chown=7:8 [\"/app two\", \"/usr/bin/app\"]\nCMD run\n",
    "FROM BUILDER AS tools\nRUN echo tool >/tool\nFROM tools AS build\nCOPY main.go /main\nRUN cat /tool /main >/app\n\
     FROM BUILDER AS unused\nRUN false\nFROM scratch\nCOPY --from=build /app /\nCOPY --from=BASE /etc/passwd /etc/\n",
    "FROM scratch\nCOPY server /server/\nCOPY go.mod /\n",
];

/// What `convert` prints.
fn convert(machine: &Machine, arguments: &[&str]) -> Result<String, String> {
    let output = machine.run(&[&["convert"], arguments].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn the_digest_stays_the_same() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    let host = &machine.registry.host;
    for (name, text) in [("go.mod", "module"), ("main.go", "main"), ("server/main", "server")] {
        machine.file(name, text);
    }
    for text in SAME {
        let text = text.replace("BUILDER", &format!("{host}/builder:1")).replace("BASE", &format!("{host}/builder:1"));
        machine.file("Dockerfile", &text);
        let repository = format!("{host}/app");
        let expected = machine.build(&["--dockerfile", "Dockerfile", "--tag", &repository, "--preflight", "off"]);
        let url = "https://git.example.com/app.git";
        let yaml = convert(&machine, &["--repository", &repository, "--source-url", url]).unwrap();
        machine.file("converted.yaml", &yaml);
        let found = machine.build(&["--file", "converted.yaml", "--preflight", "off"]);
        assert_eq!((&found["digest"], &found["tags"]), (&expected["digest"], &expected["tags"]), "{text}\n{yaml}");
        fs::remove_file(machine.path("work/converted.yaml")).unwrap();
    }
}

#[tokio::test]
async fn what_it_cannot_know_it_asks_for_and_the_rest_is_found() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    let builder = format!("{}/builder:1", machine.registry.host);
    let text = format!("FROM {builder} AS b\nCOPY x /x\nRUN true\nFROM scratch\nCOPY --from=b /x /x\n");
    machine.file("My_App/Dockerfile", &text);
    machine.file("My_App/x", "x");
    let file = "My_App/Dockerfile";
    assert!(convert(&machine, &[file]).unwrap_err().contains("--repository"));
    let repository = ["--repository", "registry.example.com/app:2"];
    let error = convert(&machine, &[&[file][..], &repository].concat()).unwrap_err();
    assert!(error.contains("--source-url"), "{error}");
    let git = |arguments: &[&str]| {
        let done = Command::new("git").arg("-C").arg(machine.path("work")).args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "--quiet", "--initial-branch", "trunk"]);
    git(&["remote", "add", "origin", "git@git.example.com:team/app.git"]);
    let text = convert(&machine, &[&[file][..], &repository].concat()).unwrap();
    for line in
        ["  name: my-app", "url: https://git.example.com/team/app.git", "branch: trunk", "directory: My_App", "\"2\""]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    machine.file(file, &format!("FROM {builder} AS b\nUSER 5\nRUN true\nFROM scratch\nCOPY --from=b /x /x\n"));
    let error = convert(&machine, &[&[file][..], &repository].concat()).unwrap_err();
    assert!(error.contains("My_App/Dockerfile:2:1") && error.contains("spec.dockerfile"), "{error}");
}
