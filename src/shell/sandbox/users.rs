//! The users of a user namespace: root is the user of this machine, the others are the subordinate IDs that belong to them.

use std::{fs, path::Path};

use tokio::process::Command;

use super::SandboxError;

/// IDs of one range: the first, and how many.
type Range = (u32, u32);

/// Sets up the user namespace of the process `id`: with all subordinate IDs where newuidmap and newgidmap (shadow-utils)
/// are there, else with this user alone. Gives whether there are others.
pub(super) async fn map(id: u32) -> Result<bool, SandboxError> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    let name = name.and_then(|line| line.split(':').next()).unwrap_or_default();
    let ranges = |file: &str| ranges(&fs::read_to_string(file).unwrap_or_default(), name, uid);
    let (users, groups) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    if !users.is_empty() && !groups.is_empty() {
        let found = run("newuidmap", id, uid, &users).await? && run("newgidmap", id, gid, &groups).await?;
        if found {
            return Ok(true);
        }
    }
    let write = |file: &str, text: String| {
        let path = Path::new("/proc").join(id.to_string()).join(file);
        fs::write(&path, text).map_err(|error| SandboxError::file(&path, error))
    };
    // Without it the group map of an ordinary user is refused (user_namespaces(7)).
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))?;
    Ok(false)
}

/// What newuidmap and newgidmap are called with.
fn arguments(id: u32, own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec![id.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut next = 1_u32;
    for (first, count) in ranges {
        arguments.extend([next, *first, *count].map(|number| number.to_string()));
        next = next.saturating_add(*count);
    }
    arguments
}

/// Runs one of the two programs; `false` when it is not installed.
async fn run(program: &str, id: u32, own: u32, ranges: &[Range]) -> Result<bool, SandboxError> {
    match Command::new(program).args(arguments(id, own, ranges)).output().await {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(SandboxError::Users(format!("{program}: {}", said.lines().next().unwrap_or_default())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SandboxError::Start { program: program.into(), source }),
    }
}

/// The ranges of a subuid(5) file that belong to a user.
fn ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let own = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().filter(|owner| !owner.is_empty())?;
        (owner == name || *owner == uid.to_string()).then_some(())?;
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# comment\nann:100000:65536\n1000:200000:10\nbob:300000:65536\nbroken\n:1:2\n";
        assert_eq!(ranges(text, "ann", 1000), [(100_000, 65536), (200_000, 10)]);
        assert_eq!(ranges(text, "", 7), []);
    }

    #[test]
    fn root_is_the_user_and_the_others_follow() {
        let found = arguments(42, 1000, &[(100_000, 65536), (200_000, 10)]).join(" ");
        assert_eq!(found, "42 0 1000 1 1 100000 65536 65537 200000 10");
    }
}
