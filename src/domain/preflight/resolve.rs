//! Paths of an image as the kernel walks them: links, permissions of the directories on the way, and where it ends.

use std::{cell::Cell, collections::VecDeque};

use crate::domain::{passwd::User, tree::TreePath};

use super::index::{FileIndex, Kind, Node, absolute};

/// As many links are followed on one way (Linux, MAXSYMLINKS).
const MOST_LINKS: usize = 40;
/// Linux, PATH_MAX.
const LONGEST_PATH: usize = 4096;
/// Directories that a runtime mounts over whatever the image has there.
const MOUNTED: [&[u8]; 3] = [b"proc", b"dev", b"sys"];

/// The bits of a mode for reading, and for executing or entering.
pub(super) const READ: u32 = 4;
pub(super) const EXECUTE: u32 = 1;

/// How much is still looked for. Links, search paths and the libraries of many files multiply: without an end of their own, a
/// few hostile files would keep a check busy for hours.
#[derive(Debug)]
pub(super) struct Looks(Cell<u32>);

impl Looks {
    /// About so many names are looked up, fewer where they are long.
    pub fn new(count: u32) -> Self {
        Self(Cell::new(count))
    }

    /// Takes the cost of handling so many bytes.
    pub fn spend(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_sub(1 + u32::try_from(bytes / 64).unwrap_or(u32::MAX)));
    }

    /// Whether nothing is looked for any more, so that what is not found may be there.
    pub fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

/// Where a way ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The path without links; none for the root.
    pub path: Option<TreePath>,
    /// What is there; none for the root, and where nothing is known of it.
    pub node: Option<&'a Node>,
}

/// Why a way does not end at a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// There is no such name.
    Missing,
    /// A link leads to something that is not there.
    Dangling(Vec<u8>),
    /// Something on the way is no directory, or the links go round in circles.
    Impossible,
    /// A directory that the user may not enter.
    Closed(TreePath),
    /// It lies where a runtime mounts something, or it was not looked for to the end: nothing is known of it.
    Outside,
}

impl FileIndex {
    /// Follows the absolute `path`, for `user` or as if there were no permissions.
    pub(super) fn resolve(&self, path: &[u8], user: Option<&User>, looks: &Looks) -> Result<Found<'_>, Lost> {
        if path.len() > LONGEST_PATH {
            return Err(Lost::Impossible);
        }
        let mut left: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let (mut at, mut links): (Option<TreePath>, usize) = (None, 0);
        let mut target: Option<Vec<u8>> = None;
        while let Some(name) = left.pop_front() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    at = at.and_then(|at| at.parent());
                    continue;
                }
                _ if at.is_none() && MOUNTED.contains(&&name[..]) => return Err(Lost::Outside),
                _ => {}
            }
            if let (Some(directory), Some(user)) = (&at, user)
                && let Some(node) = self.get(directory)
                && !is_allowed(node, user, EXECUTE)
            {
                return Err(Lost::Closed(directory.clone()));
            }
            let next = match &at {
                Some(at) => at.join(&name),
                None => TreePath::new(name),
            };
            looks.spend(next.as_ref().map_or(0, |next| next.as_bytes().len()));
            if looks.is_spent() {
                return Err(Lost::Outside);
            }
            let missing = || target.clone().map_or(Lost::Missing, Lost::Dangling);
            let next = next.map_err(|_| missing())?;
            let node = self.get(&next).ok_or_else(missing)?;
            match &node.kind {
                Kind::Symlink(to) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Lost::Impossible);
                    }
                    // Of a link on the way it is what comes after it that is missing.
                    target = left.is_empty().then(|| to.clone());
                    for part in absolute(&next, to).rsplit(|byte| *byte == b'/') {
                        left.push_front(part.to_vec());
                    }
                    at = None;
                }
                Kind::Directory => at = Some(next),
                _ if left.is_empty() => {
                    return Ok(Found { path: Some(next), node: Some(node) });
                }
                _ => return Err(Lost::Impossible),
            }
        }
        let node = at.as_ref().and_then(|at| self.get(at));
        Ok(Found { path: at, node })
    }
}

/// Whether `user` may do with the node what `bit` stands for. Root may do all, but a file without any x is executed by nobody.
pub(super) fn is_allowed(node: &Node, user: &User, bit: u32) -> bool {
    if user.uid == 0 {
        return bit != EXECUTE || node.kind == Kind::Directory || node.mode & 0o111 != 0;
    }
    let shift = if node.owner.uid == user.uid {
        6
    } else if node.owner.gid == user.gid || user.groups.contains(&node.owner.gid) {
        3
    } else {
        0
    };
    node.mode >> shift & bit != 0
}
