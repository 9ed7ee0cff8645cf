//! `agent install`: what the build container finds in the shared directory when it starts.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::domain::passwd::{group, passwd};

/// Name of the executable in the shared directory.
pub const BINARY: &str = "minimalimage";

/// Copies this program into `directory` and writes `passwd` and `group` there, for `user` or else the user that we are:
/// platforms that choose the user choose the same one for all containers of a Pod.
pub fn run(directory: &Path, user: Option<u32>) -> anyhow::Result<()> {
    let uid = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let gid = if user.is_some() { uid } else { rustix::process::getegid().as_raw() };
    write(directory, "passwd", passwd(uid, gid).as_bytes())?;
    write(directory, "group", group(gid).as_bytes())?;
    // Not current_exe(): its path may be gone or mean something else here.
    place(directory, BINARY, 0o755, |path| fs::copy("/proc/self/exe", path).map(|_| ()))
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    place(directory, name, 0o644, |path| fs::write(path, bytes))
}

/// Renamed into place, so that nobody ever sees half a file, and the hook can run twice.
fn place(directory: &Path, name: &str, mode: u32, fill: impl Fn(&PathBuf) -> io::Result<()>) -> anyhow::Result<()> {
    let path = directory.join(name);
    let temporary = directory.join(format!(".{name}.new"));
    fill(&temporary)
        .and_then(|()| fs::set_permissions(&temporary, PermissionsExt::from_mode(mode)))
        .and_then(|()| fs::rename(&temporary, &path))
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_build_container_finds_program_and_users_also_the_second_time() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path(), Some(65532)).unwrap();
        run(directory.path(), Some(65532)).unwrap();
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["group", "minimalimage", "passwd"]);
        let program = fs::metadata(directory.path().join(BINARY)).unwrap();
        assert_eq!((program.len(), program.mode() & 0o777), (fs::metadata("/proc/self/exe").unwrap().len(), 0o755));
        assert!(fs::read_to_string(directory.path().join("passwd")).unwrap().contains(":65532:65532:"));
    }
}
