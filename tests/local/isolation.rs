//! What stages cannot do, and what is left of builds that were killed.

use std::{fs, process::Stdio};

use crate::support::{Layer, Machine, endless, eventually, runs, users};

/// Something on this machine that a stage must not see.
fn secret(machine: &Machine) -> String {
    let path = machine.path("host-secret");
    fs::write(&path, "secret").unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_stage_sees_nothing_of_the_machine() {
    for user in users() {
        let machine = Machine::new(user).await;
        let path = secret(&machine);
        let mut bystander = std::process::Command::new("sleep").arg("98765").stdout(Stdio::null()).spawn().unwrap();
        let script = format!(
            "cat {path} || true\ncat /proc/*/cmdline | tr '\\0' ' ' | grep -c 9876[5] || true\n\
             ls /proc/1/root{path} || true\nls -A /tmp /run | sort | tr '\\n' ' '\necho\n\
             find / -xdev -type s 2>/dev/null | grep -v ^/run/minimalimage/ || true"
        );
        let lines = machine.lines(&script, "");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
        assert_eq!(
            lines,
            [
                format!("cat: can't open '{path}': No such file or directory"),
                "0".into(),
                // The wrapper lets nobody look into it.
                format!("ls: /proc/1/root{path}: Permission denied"),
                " /run: /tmp: minimalimage ".into(),
            ]
        );
    }
}

#[tokio::test]
async fn a_stage_has_no_privilege_and_gains_none() {
    for user in users() {
        let machine = Machine::new(user).await;
        let lines = machine.lines(
            "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '\n\
             mount -t tmpfs tmpfs /tmp || true\n\
             echo 1 >/proc/sys/kernel/hostname || true\n\
             echo 1 >/run/minimalimage/minimalimage || true\n\
             echo 1 >/etc/passwd || true\n\
             kill -9 1",
            "",
        );
        let text = lines.join("\n");
        for line in ["CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"] {
            assert!(lines.contains(&line.to_owned()), "{text}");
        }
        assert!(text.contains("mount: permission denied") || text.contains("Operation not permitted"), "{text}");
        assert_eq!(
            text.matches("Read-only file system").count() + text.matches("Permission denied").count(),
            3,
            "{text}"
        );
    }
}

/// Root of a container is the worst that a stage can be.
#[tokio::test]
async fn root_of_a_stage_is_not_root_of_the_machine() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_builder("root").await;
        let path = secret(&machine);
        let lines = machine.lines(
            &format!(
                "mount -t tmpfs tmpfs /mnt 2>&1 | grep -c -E 'denied|permitted'\n\
                 (echo 1 >/proc/sys/kernel/hostname) 2>&1 | grep -c -E 'Read-only|denied'\n\
                 (echo 1 >/proc/1/exe) 2>&1 | grep -c -E 'Read-only|denied|busy'\n\
                 ls {path} 2>&1 | grep -c 'No such'"
            ),
            "  podSecurity: Baseline",
        );
        assert_eq!(lines, ["1", "1", "1", "1"]);
        assert_eq!(fs::read_to_string(path).unwrap(), "secret");
    }
}

#[tokio::test]
async fn a_hostile_image_writes_nowhere_but_into_its_root() {
    for user in users() {
        let machine = Machine::new(user).await;
        let victim = machine.path("home/victim");
        fs::write(&victim, "safe").unwrap();
        std::os::unix::fs::chown(&victim, Some(user.uid), Some(user.gid)).unwrap();
        let outside = machine.path("home").display().to_string();
        let target = outside.trim_start_matches('/');
        let attacks: [(&str, fn(&mut Layer, &str)); 4] = [
            ("dots", |layer, outside| layer.file(&format!("../../../../../../../../{outside}/victim"), b"x", 0o644, 0)),
            ("link", |layer, outside| {
                layer.symlink("away", &format!("/{outside}"));
                layer.file("away/victim", b"x", 0o644, 0);
            }),
            ("relative", |layer, outside| {
                layer.symlink("away", &format!("../../../../../../../../{outside}"));
                layer.file("away/victim", b"x", 0o644, 0);
            }),
            ("whiteout", |layer, outside| {
                layer.symlink("away", &format!("/{outside}"));
                layer.file("away/.wh.victim", b"", 0o644, 0);
            }),
        ];
        for (name, attack) in attacks {
            let mut layer = Layer::default();
            attack(&mut layer, target);
            machine.push_image(&format!("hostile-{name}"), &[layer.finish()], serde_json::json!({})).await;
            machine.resource(&format!(
                "  stages: [{{name: build, image: \"{{registry}}/hostile-{name}:1\", run: \"true\"}}]\n  \
                 image: {{copy: [{{from: build, source: /away, destination: /a}}]}}\n  \
                 destination: {{repository: \"{{registry}}/app\"}}\n"
            ));
            // There is no shell in it; that it ends badly is not the point.
            machine.refusal(&[]);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "safe", "{name}");
        }
    }
}

#[tokio::test]
async fn a_killed_build_leaves_no_process_and_no_mount() {
    for user in users() {
        let machine = Machine::new(user).await;
        let mark = format!("killed-{}-{}", user.uid, std::process::id());
        let mut child = endless(&machine, &mark);
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("all processes end", || !runs(&mark));
        let store = machine.store().display().to_string();
        assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&store));
        assert!(fs::read_dir(machine.store().join("runs")).unwrap().count() > 0, "nobody was there to clean up");
        machine.stage("echo content >out");
        machine.build(&[]);
        assert_eq!(fs::read_dir(machine.store().join("runs")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn an_interrupted_build_ends_in_order() {
    for user in users() {
        let machine = Machine::new(user).await;
        let mark = format!("interrupted-{}-{}", user.uid, std::process::id());
        let mut child = endless(&machine, &mark);
        let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(!runs(&mark));
        assert_eq!(fs::read_dir(machine.store().join("runs")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(machine.store().join("partial")).unwrap().count(), 0);
    }
}
