//! What `image.include` and `image.certificates` add that needs no package: a user to run as, a place to write to, authorities to
//! trust, with what the base has of them.

use std::collections::BTreeMap;

use super::{
    debian::certificates::keystore_of,
    files_layer::{PackedLayer, pack_tree},
    preflight::{BUNDLES, Facts, FileIndex, Kind},
    recipe::{Owner, Parents},
    tree::{Attributes, Content, FileTree, PARENT, TreePath},
};

/// The user, as distroless images call it.
const NAME: &str = "nonroot";
const ID: u32 = 65532;
const HOME: &str = "/home/nonroot";
/// Whom an image runs as that includes the user.
pub const NONROOT_USER: &str = "65532:65532";
/// Where Debian's Java looks for authorities.
const KEYSTORE: &[u8] = b"etc/ssl/certs/java/cacerts";
/// Both files where the base has none.
const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\n";

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Included {
    /// `nonroot` in `/etc/passwd` and `/etc/group`, with a home.
    pub user: bool,
    /// `/tmp`.
    pub tmp: bool,
    /// Certificates of further authorities.
    pub certificates: bool,
}

impl Included {
    /// The directories that are put there with modes or owners of their own.
    pub fn directories(self) -> impl Iterator<Item = &'static str> {
        let home = self.user.then_some(HOME);
        home.into_iter().chain(self.tmp.then_some("/tmp"))
    }
}

/// Why it cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// The base has something that no line can be added to.
    #[error("the base's {0} is no text file that a user can be added to: leave NonRootUser out and set image.user")]
    Accounts(TreePath),
    /// The base's list of authorities cannot be read.
    #[error(
        "the base's {0} is no text that certificates can be added to: leave image.certificates out, or take another base"
    )]
    Bundle(TreePath),
    /// The base's Java trusts what no bundle tells.
    #[error(
        "the base has {0} and no bundle of the same certificates: leave image.certificates out, or take another base"
    )]
    Keystore(TreePath),
    /// The user's name is another's.
    #[error("the base's {0} has a `nonroot` that is not 65532: leave NonRootUser out and set image.user")]
    Taken(TreePath),
    /// What the base has is not known to the end.
    #[error(
        "the base has more files than are looked at: leave image.include and image.certificates out, or take another base"
    )]
    Cut,
    /// Packing failed.
    #[error("failed to pack: {0}")]
    Pack(#[from] std::io::Error),
}

impl IncludeError {
    /// The field of the spec that asks for it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Bundle(_) | Self::Keystore(_) => "image.certificates",
            Self::Accounts(_) | Self::Taken(_) | Self::Cut | Self::Pack(_) => "image.include",
        }
    }
}

/// The layer on top of `below`; none when that has all of it. `certificates` are a PEM text. Without a base the layer has the
/// directories above its files too.
///
/// # Errors
/// When the base's accounts or bundles cannot be added to.
pub fn layer(
    wanted: Included,
    certificates: Option<&str>,
    below: &FileIndex,
    has_base: bool,
) -> Result<Option<PackedLayer>, IncludeError> {
    if below.is_cut() {
        return Err(IncludeError::Cut);
    }
    let accounts = if wanted.user {
        let user = format!("{NAME}:x:{ID}:{ID}:{NAME}:{HOME}:/usr/sbin/nologin\n");
        let group = format!("{NAME}:x:{ID}:\n");
        [with_line(below, b"etc/passwd", PASSWD, &user)?, with_line(below, b"etc/group", GROUP, &group)?]
    } else {
        [None, None]
    };
    let parents = if has_base { Parents::None } else { Parents::All };
    let mut tree = FileTree::new(parents);
    let trusted = certificates.filter(|_| wanted.certificates).map(|own| trusted(below, own)).transpose()?;
    let accounts = accounts.into_iter().flatten().map(|(path, text)| (path, text.into_bytes()));
    let files: Vec<(TreePath, Vec<u8>)> = accounts.chain(trusted.into_iter().flatten()).collect();
    let directories = [
        (wanted.user, &b"home/nonroot"[..], Attributes { mode: 0o700, owner: Owner { uid: ID, gid: ID } }),
        (wanted.tmp, b"tmp", Attributes { mode: 0o1777, owner: Owner::default() }),
    ];
    let directories = directories.into_iter().filter(|(wanted, ..)| *wanted);
    let directories = directories.filter_map(|(_, path, attributes)| Some((TreePath::new(path).ok()?, attributes)));
    let missing: Vec<_> = directories.filter(|(path, attributes)| !is_there(below, path, *attributes)).collect();
    // Our own paths: none of them is below a file.
    let mut put = |path: TreePath, attributes: Attributes, content| {
        for above in path.ancestors().filter(|above| has_base && below.get(above).is_none()) {
            let _ = tree.insert(above, PARENT, Content::Directory);
        }
        let _ = tree.insert(path, attributes, content);
    };
    for (path, bytes) in &files {
        let content = Content::File { size: bytes.len() as u64, inode: None, source: bytes.as_slice() };
        put(path.clone(), Attributes { mode: 0o644, owner: Owner::default() }, content);
    }
    for (path, attributes) in missing {
        put(path, attributes, Content::Directory);
    }
    if tree.is_empty() { Ok(None) } else { Ok(Some(pack_tree(&tree, 1)?)) }
}

/// Whether the base has the directory as it should be, or something in its place, such as a link.
fn is_there(below: &FileIndex, path: &TreePath, attributes: Attributes) -> bool {
    below.get(path).is_some_and(|node| {
        node.kind != Kind::Directory || node.mode == attributes.mode && node.owner == attributes.owner
    })
}

/// The bundles and the keystore of the base with `own` certificates beside those that it has; a bundle where it has none.
fn trusted(below: &FileIndex, own: &str) -> Result<Vec<(TreePath, Vec<u8>)>, IncludeError> {
    let mut bundles = BTreeMap::new();
    for path in BUNDLES {
        // What a link leads to is what is read.
        let Some((path, node)) = TreePath::new(path).ok().and_then(|path| below.find(&path)) else { continue };
        let text = match &node.kind {
            Kind::File(Facts::Text(text)) => text.trim_end(),
            Kind::File(Facts::Empty) => "",
            _ => return Err(IncludeError::Bundle(path)),
        };
        let end = if text.is_empty() { "" } else { "\n" };
        bundles.insert(path, format!("{text}{end}{own}"));
    }
    let keystore = TreePath::new(KEYSTORE).ok().and_then(|path| below.find(&path)).map(|(path, _)| path);
    let keystore = match (keystore, bundles.values().next()) {
        (Some(path), None) => return Err(IncludeError::Keystore(path)),
        (Some(path), Some(bundle)) => Some((path, keystore_of(bundle))),
        (None, _) => None,
    };
    if bundles.is_empty()
        && let Some(Ok(path)) = BUNDLES.first().map(|path| TreePath::new(*path))
    {
        bundles.insert(path, own.to_owned());
    }
    let bundles = bundles.into_iter().map(|(path, text)| (path, text.into_bytes()));
    Ok(bundles.chain(keystore).collect())
}

/// The accounts file at `path` with the user's line; none when it knows the user or its number.
fn with_line(
    below: &FileIndex,
    path: &[u8],
    default: &str,
    line: &str,
) -> Result<Option<(TreePath, String)>, IncludeError> {
    let Ok(path) = TreePath::new(path) else { return Ok(None) };
    let text = match below.get(&path).map(|node| &node.kind) {
        None => default,
        Some(Kind::File(Facts::Text(text))) => text,
        Some(Kind::File(Facts::Empty)) => "",
        Some(_) => return Err(IncludeError::Accounts(path)),
    };
    let number = ID.to_string();
    if text.lines().any(|line| line.split(':').nth(2) == Some(number.as_str())) {
        return Ok(None);
    }
    if text.lines().any(|line| line.split(':').next() == Some(NAME)) {
        return Err(IncludeError::Taken(path));
    }
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Ok(Some((path, format!("{text}{end}{line}"))))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;
    use crate::domain::{
        files_layer::pack_files,
        preflight::{Origin, index_layer},
        recipe::TextFile,
    };

    const ALL: Included = Included { user: true, tmp: true, certificates: false };
    const CERTIFICATES: Included = Included { user: false, tmp: false, certificates: true };
    const OWN: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";

    fn base(files: &[(&str, &str)]) -> FileIndex {
        let file = |(path, content): &(&str, &str)| TextFile {
            path: path.parse().unwrap(),
            content: (*content).into(),
            mode: 0o644,
            owner: Owner::default(),
        };
        let packed = pack_files(&files.iter().map(file).collect::<Vec<_>>(), false).unwrap();
        let index = index_layer(MultiGzDecoder::new(&packed.bytes[..])).unwrap();
        FileIndex::default().with(index, Origin::Base)
    }

    /// What a layer holds, each `path mode uid`, and the text of files.
    fn held(layer: &PackedLayer) -> Vec<String> {
        let mut archive = tar::Archive::new(MultiGzDecoder::new(&layer.bytes[..]));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            format!("{path} {:o} {} {text}", header.mode().unwrap(), header.uid().unwrap())
        });
        entries.collect()
    }

    #[test]
    fn an_image_from_scratch_gets_all_of_it() {
        let layer = layer(ALL, None, &FileIndex::default(), false).unwrap().unwrap();
        assert_eq!(
            held(&layer),
            [
                "etc/ 755 0 ",
                "etc/group 644 0 root:x:0:\nnonroot:x:65532:\n",
                "etc/passwd 644 0 root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin\n",
                "home/ 755 0 ",
                "home/nonroot/ 700 65532 ",
                "tmp/ 1777 0 ",
            ]
        );
    }

    #[test]
    fn what_a_base_has_stays_and_is_added_to() {
        let below = base(&[("/etc/passwd", "app:x:7:7::/:/app"), ("/home/app/.profile", "x"), ("/tmp/x", "")]);
        let packed = layer(ALL, None, &below, true).unwrap().unwrap();
        let user = "nonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin\n";
        assert_eq!(
            held(&packed),
            [
                "etc/group 644 0 root:x:0:\nnonroot:x:65532:\n".to_owned(),
                format!("etc/passwd 644 0 app:x:7:7::/:/app\n{user}"),
                "home/nonroot/ 700 65532 ".to_owned(),
                // The base's is closed.
                "tmp/ 1777 0 ".to_owned(),
            ]
        );
        let taken = layer(ALL, None, &base(&[("/etc/passwd", "nonroot:x:7:7::/:/x\n")]), true).unwrap_err();
        assert!(taken.to_string().contains("a `nonroot` that is not 65532"), "{taken}");
    }

    #[test]
    fn nothing_is_added_where_the_base_has_it_all() {
        let whole = layer(ALL, None, &FileIndex::default(), false).unwrap().unwrap();
        let index = index_layer(MultiGzDecoder::new(&whole.bytes[..])).unwrap();
        let below = FileIndex::default().with(index, Origin::Base);
        assert_eq!(layer(ALL, None, &below, true).unwrap(), None);
        assert_eq!(layer(CERTIFICATES, None, &FileIndex::default(), false).unwrap(), None);
    }

    #[test]
    fn authorities_are_added_to_those_of_the_base_and_to_its_keystore() {
        let theirs = OWN.replace("MAMCAQE=", "MAMCAQI=");
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        let below = base(&[(bundle, &theirs), ("/etc/ssl/certs/java/cacerts", "store")]);
        let layer_of = |below| layer(CERTIFICATES, Some(OWN), below, true).unwrap().unwrap();
        let packed = layer_of(&below);
        let index = index_layer(MultiGzDecoder::new(&packed.bytes[..])).unwrap();
        let found = FileIndex::default().with(index, Origin::Base);
        let node = found.get(&TreePath::new(&b"etc/ssl/certs/ca-certificates.crt"[..]).unwrap()).unwrap();
        assert_eq!(node.kind, Kind::File(Facts::Text(theirs.clone() + OWN)));
        let mut store = Vec::new();
        let mut archive = tar::Archive::new(MultiGzDecoder::new(&packed.bytes[..]));
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        entries.find(|entry| entry.path_bytes().ends_with(b"cacerts")).unwrap().read_to_end(&mut store).unwrap();
        assert_eq!(store, keystore_of(&(theirs + OWN)));
        // Directories that the base lacks are made: some runtimes would make them unreadable.
        let made = ["etc/ 755 0 ", "etc/ssl/ 755 0 ", "etc/ssl/certs/ 755 0 "].map(str::to_owned).to_vec();
        let file = format!("etc/ssl/certs/ca-certificates.crt 644 0 {OWN}");
        assert_eq!(held(&layer_of(&FileIndex::default())), [made, vec![file]].concat());
        let store = base(&[("/etc/ssl/certs/java/cacerts", "store")]);
        let alone = layer(CERTIFICATES, Some(OWN), &store, true).unwrap_err();
        assert_eq!(alone.field(), "image.certificates");
        let error = layer(CERTIFICATES, Some(OWN), &base(&[(&format!("{bundle}/x"), "")]), true).unwrap_err();
        assert!(error.to_string().contains("ca-certificates.crt is no text"), "{error}");
    }

    #[test]
    fn accounts_that_are_no_text_are_refused() {
        let error = layer(ALL, None, &base(&[("/etc/passwd/x", "")]), true).unwrap_err().to_string();
        assert!(error.starts_with("the base's /etc/passwd is no text file"), "{error}");
    }
}
