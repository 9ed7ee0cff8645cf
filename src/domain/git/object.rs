//! Reading commits and trees. Names in trees are checked by whoever writes files, not here.

use super::ObjectId;

/// What a tree entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Tree,
    /// A file.
    Blob {
        /// Whether the owner may execute it; the only permission that Git keeps.
        executable: bool,
    },
    /// A symbolic link; the blob is its target.
    Link,
    /// A submodule; the object is a commit of another repository.
    Submodule,
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// What it is.
    pub kind: EntryKind,
    /// Its name as found: may be hostile.
    pub name: &'a [u8],
    /// The object.
    pub id: ObjectId,
}

/// The tree of a commit; none when `data` is not a commit.
pub fn commit_tree(data: &[u8]) -> Option<ObjectId> {
    let line = data.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_prefix(b"tree ")?).ok()?.parse().ok()
}

/// When a commit was made, in seconds since 1970, as its committer's clock had it; none when `data` does not say.
pub fn commit_time(data: &[u8]) -> Option<i64> {
    // Headers end at the first empty line; what follows is the message.
    let mut headers = data.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let committer = headers.find_map(|line| line.strip_prefix(b"committer "))?;
    // `Name <address> seconds zone`, where a name may hold anything.
    let seconds = committer.rsplit(|byte| *byte == b' ').nth(1)?;
    std::str::from_utf8(seconds).ok()?.parse().ok()
}

/// The entries of a tree in its order; none when `data` is not a tree.
pub fn tree_entries(mut data: &[u8]) -> Option<Vec<TreeEntry<'_>>> {
    let mut entries = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&data[..space]).ok()?, 8).ok()?;
        let rest = &data[space + 1..];
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (id, after) = rest[end + 1..].split_first_chunk::<20>()?;
        let kind = match mode & 0o170_000 {
            0o040_000 => EntryKind::Tree,
            0o100_000 => EntryKind::Blob { executable: mode & 0o100 != 0 },
            0o120_000 => EntryKind::Link,
            0o160_000 => EntryKind::Submodule,
            _ => return None,
        };
        entries.push(TreeEntry { kind, name: &rest[..end], id: ObjectId::from_bytes(*id) });
        data = after;
    }
    Some(entries)
}

/// Whether a file's content is a Git LFS pointer (its specification, "The Pointer").
pub fn is_lfs_pointer(content: &[u8]) -> bool {
    content.len() < 1024 && content.starts_with(b"version https://git-lfs.github.com/spec/v1\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read_entry_by_entry() {
        let mut data = Vec::new();
        for (mode, name) in
            [("40000", "d"), ("100644", "f"), ("100664", "g"), ("100755", "x"), ("120000", "l"), ("160000", "s")]
        {
            data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            data.extend_from_slice(&[7; 20]);
        }
        let kinds: Vec<EntryKind> = tree_entries(&data).unwrap().into_iter().map(|entry| entry.kind).collect();
        let file = |executable| EntryKind::Blob { executable };
        assert_eq!(
            kinds,
            [EntryKind::Tree, file(false), file(false), file(true), EntryKind::Link, EntryKind::Submodule]
        );
        assert_eq!(tree_entries(&data[..data.len() - 1]), None);
        assert_eq!(tree_entries(b"10000 p\0aaaaaaaaaaaaaaaaaaaa"), None);
    }

    #[test]
    fn a_commit_has_its_committers_time() {
        let commit =
            |committer: &str| format!("tree t\nauthor A <a@b> 5 +0000\n{committer}\n\ncommitter m <m@m> 7 +0000");
        for (committer, expected) in [
            ("committer C 1 2 <c@d> 1700000000 +0130", Some(1_700_000_000)),
            ("committer C <c@d> -1 +0000", Some(-1)),
            ("committer C <c@d> 99999999999999999999 +0000", None),
            ("committer", None),
            ("gpgsig x", None),
        ] {
            assert_eq!(commit_time(commit(committer).as_bytes()), expected, "{committer}");
        }
    }

    #[test]
    fn only_commits_have_a_tree() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit_tree(format!("tree {id}\nauthor").as_bytes()).unwrap().to_string(), id);
        assert_eq!(commit_tree(format!("object {id}\ntype commit").as_bytes()), None);
    }
}
