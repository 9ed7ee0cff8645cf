//! The sandbox of a stage without a cluster, as an OCI runtime's config.json: what a build Pod's container is given.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    environment::HOST_NAME,
    image::USUAL_PATH,
    passwd::User,
    plan::{Account, HOME, WORKSPACE},
    task::SHARED_DIR,
};

/// Where a container's last words go.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// What containers that run as root are left with under the `baseline` standard: the defaults of containerd.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Paths of the kernel's that tell of the machine or act on it, hidden as containerd hides them.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// System calls that containers have no use for without privilege and that have been ways out of them; containerd's
/// default profile refuses them too. Names that a kernel or runtime does not know are passed over by it.
const REFUSED: [&str; 48] = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "vhangup",
];
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a new namespace is a way to privilege.
const NAMESPACE_FLAGS: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
/// AF_VSOCK reaches the hypervisor.
const VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// A directory or file that is put into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the machine.
    pub source: PathBuf,
    /// In the sandbox.
    pub destination: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// What tells one sandbox from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The root file system.
    pub root: PathBuf,
    /// Whom the steps run as.
    pub user: User,
    /// Whether the Pod would pass the `restricted` standard: no capabilities, and none to be gained.
    pub restricted: bool,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Beside those of every container.
    pub binds: Vec<Bind>,
    /// Whether root is the user of this machine, in a user namespace that the sandbox is started in.
    pub rootless: bool,
    /// Whether that namespace has users beside root.
    pub many_users: bool,
}

impl Sandbox {
    /// The config.json (OCI runtime-spec, config.md).
    #[must_use]
    pub fn config(&self) -> Value {
        let capabilities: &[&str] = if self.restricted { &[] } else { &CAPABILITIES };
        // A user other than root has them in its bounding set only, as in a Pod.
        let held: &[&str] = if self.user.uid == 0 { capabilities } else { &[] };
        // Among the groups is the first one too, as in a Pod: whoever has lost it by setgid has it still.
        let mut groups = vec![self.user.gid];
        groups.extend(self.user.groups.iter().filter(|group| **group != self.user.gid));
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {
                    "uid": self.user.uid,
                    "gid": self.user.gid,
                    "additionalGids": groups,
                },
                "args": [format!("{SHARED_DIR}/minimalimage"), "wrapper"],
                "env": self.env,
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "effective": held, "permitted": held},
                "noNewPrivileges": self.restricted,
            },
            "root": {"path": self.root, "readonly": false},
            "hostname": HOST_NAME,
            "mounts": self.mounts(),
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                "seccomp": seccomp(),
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let terminals = if self.many_users { "gid=5" } else { "ptmxmode=0666" };
        let safe = ["nosuid", "noexec", "nodev"];
        let mut mounts = vec![
            mount("proc", "/proc", &safe),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", terminals]),
            mount("mqueue", "/dev/mqueue", &safe),
            mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ];
        // sysfs belongs to the network namespace, which is the machine's: a user namespace may not mount its own.
        mounts.push(if self.rootless {
            json!({"destination": "/sys", "type": "none", "source": "/sys",
                   "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        } else {
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])
        });
        mounts.extend(self.binds.iter().map(|bind| {
            let access = if bind.read_only { "ro" } else { "rw" };
            json!({"destination": bind.destination, "type": "bind", "source": bind.source,
                   "options": ["rbind", "rprivate", "nosuid", "nodev", access]})
        }));
        mounts
    }
}

/// The variables that the container of a Pod has, in the order in which later ones win: a path for programs, the image's
/// own, those of the Pod.
#[must_use]
pub fn environment(image: &[String], restricted: bool, pod: Vec<(String, String)>) -> Vec<String> {
    let path = format!("PATH={USUAL_PATH}");
    let home = restricted.then(|| ("HOME".to_owned(), HOME.to_owned()));
    let pod = home.into_iter().chain(pod).map(|(name, value)| format!("{name}={value}"));
    let mut variables: Vec<String> = Vec::new();
    for variable in std::iter::once(path).chain(image.iter().cloned()).chain(pod) {
        let name = variable.split_once('=').map_or(variable.len(), |(name, _)| name.len() + 1);
        let known = variables.iter().position(|other| other.get(..name) == variable.get(..name));
        match known.and_then(|known| variables.get_mut(known)) {
            Some(known) => *known = variable,
            None => variables.push(variable),
        }
    }
    variables
}

/// The scratch volumes of the build container: name and place.
#[must_use]
pub fn volumes(account: Account) -> Vec<(&'static str, &'static str)> {
    let workspace = ("workspace", WORKSPACE);
    match account {
        Account::Restricted => vec![workspace, ("tmp", "/tmp"), ("home", HOME)],
        Account::Image => vec![workspace],
        Account::Root => Vec::new(),
    }
}

fn mount(kind: &str, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

fn seccomp() -> Value {
    let refuse = |names: &[&str], args: Value| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": args});
    let mut rules = vec![refuse(&REFUSED, json!([]))];
    rules.extend(NAMESPACE_FLAGS.map(|flag| {
        refuse(&["clone"], json!([{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]))
    }));
    rules.push(refuse(&["socket"], json!([{"index": 0, "value": VSOCK, "op": "SCMP_CMP_EQ"}])));
    // Its flags are behind a pointer, where no filter can look; C libraries then use clone.
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    // Without the other forms of a machine's programs those would be killed; with them the same rules hold.
    let architectures: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &[]
    };
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(restricted: bool, uid: u32) -> Sandbox {
        Sandbox {
            root: "/root-file-system".into(),
            user: User { uid, groups: vec![65532], ..User::default() },
            restricted,
            env: vec!["A=b".into()],
            binds: vec![Bind { source: "/s".into(), destination: "/d".into(), read_only: true }],
            rootless: false,
            many_users: true,
        }
    }

    #[test]
    fn a_restricted_sandbox_has_no_capability_and_gains_none() {
        let config = sandbox(true, 65532).config();
        let process = config.get("process").unwrap();
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["capabilities"], json!({"bounding": [], "effective": [], "permitted": []}));
        assert_eq!(process["user"], json!({"uid": 65532, "gid": 0, "additionalGids": [0, 65532]}));
    }

    #[test]
    fn under_baseline_only_root_holds_the_usual_capabilities() {
        let of = |uid| sandbox(false, uid).config()["process"]["capabilities"].clone();
        assert_eq!(of(0)["effective"].as_array().unwrap().len(), CAPABILITIES.len());
        assert_eq!(of(1000)["effective"], json!([]));
        assert_eq!(of(1000)["bounding"].as_array().unwrap().len(), CAPABILITIES.len());
    }

    #[test]
    fn everything_but_the_network_is_the_sandboxes_own() {
        let config = sandbox(true, 65532).config();
        let kinds: Vec<_> = config["linux"]["namespaces"].as_array().unwrap().iter().map(|n| &n["type"]).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount"]);
        let bind = config["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!(bind["options"], json!(["rbind", "rprivate", "nosuid", "nodev", "ro"]));
    }

    #[test]
    fn the_pods_variables_win_over_the_images() {
        let image = ["PATH=/go/bin".to_owned(), "HOME=/root".to_owned(), "A=1".to_owned(), "AB=2".to_owned()];
        let found = environment(&image, true, vec![("A".into(), "3".into())]);
        assert_eq!(found, ["PATH=/go/bin", "HOME=/home/build", "A=3", "AB=2"]);
        assert!(environment(&[], false, Vec::new())[0].starts_with("PATH=/usr/local/sbin:"));
    }
}
