//! What an image's base says that it is: its distribution (os-release(5)), and how many packages it was made of, as far as each has
//! a file of its own, as in distroless images.

use super::index::{Facts, FileIndex, Kind, Node, Origin};
use crate::domain::{text::printable, tree::TreePath};

const RELEASES: [&[u8]; 2] = [b"usr/lib/os-release", b"etc/os-release"];
const PACKAGES: &[u8] = b"var/lib/dpkg/status.d";

/// What a base is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distribution {
    /// Its name with its version, for people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: Option<String>,
    /// How many packages it has; none where that is not told.
    pub packages: Option<u64>,
}

impl Distribution {
    /// Of the base in `files`.
    #[must_use]
    pub fn of(files: &FileIndex) -> Self {
        let text = |path: &&[u8]| {
            let node = files.get(&TreePath::new(*path).ok()?).filter(|node| node.origin == Origin::Base)?;
            if let Kind::File(Facts::Text(text)) = &node.kind { pretty_name(text) } else { None }
        };
        let is_record =
            |path: &TreePath, node: &Node| node.origin == Origin::Base && !path.as_bytes().ends_with(b".md5sums");
        let records = TreePath::new(PACKAGES)
            .map_or(0, |directory| files.below(&directory).filter(|(path, node)| is_record(path, node)).count());
        let packages = u64::try_from(records).ok().filter(|count| *count > 0);
        Self { name: RELEASES.iter().find_map(text), packages }
    }
}

fn pretty_name(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = value.trim().trim_matches(|quote| quote == '"' || quote == '\'');
    (!name.is_empty()).then(|| printable(name.as_bytes()))
}
