//! What determines a stage's artifact, apart from the source: the recipe. Its hash with the source's identity is the stage's key.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    debian::base::Composition,
    mode::Mode,
    remote::Remote,
    text::one_line,
    value::{Digest, ImagePath, Platform},
};

/// Part of every key: raised when the same recipe would give other bytes (layer format, copy rules).
pub const FORMAT: u32 = 1;

/// Every input of a stage but its source. No names, times or secret values, so that equal work has an equal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// [`FORMAT`] at the time of planning.
    pub format: u32,
    /// What the stage builds for.
    pub platform: Platform,
    /// Manifest digest of the builder image; none for the stage `source` and those of ADD, which have no build container.
    pub image: Option<Digest>,
    /// The user that the steps run as; none leaves it to the builder image or the platform.
    pub user: Option<u32>,
    /// Names of the variables whose values come from Secrets or ConfigMaps; the values are not part of the key.
    pub env_from: Vec<String>,
    /// Where caches are mounted. Their contents are not part of the key, but what they hide of the image is.
    pub mounts: Vec<String>,
    /// What its agent fetches in place of the source, and gives its outputs from; only of stages without a build container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// The packages that its agent puts together to a base, which is its only output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Composition>,
    /// What of the source is not seen: patterns of a `.dockerignore`, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Diff IDs of the artifact layers that [`Step::CopyArtifact`] names by index.
    pub inputs: Vec<Digest>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What leaves the stage: one layer each.
    pub outputs: Vec<Output>,
}

/// One thing that happens in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Step {
    /// Files of the source are written below `/` of the build container.
    CopySource {
        /// What is taken and where it goes; sources are relative to the source directory.
        items: Vec<CopyItem>,
        /// Whom all of it belongs to, by names of the container, as for `Run`; none leaves it to the items.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Whether it is there for the next `Run` alone: RUN --mount=type=bind.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        transient: bool,
        /// The destinations of a Dockerfile's COPY; none for other copies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        names: Option<Names>,
    },
    /// An artifact layer of another stage is unpacked at `/` of the build container.
    CopyArtifact {
        /// Index into [`Recipe::inputs`].
        input: usize,
        /// As for `CopySource`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// As for `CopySource`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        transient: bool,
        /// As for `CopySource`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        names: Option<Names>,
    },
    /// A process runs to its end; any exit code but 0 fails the stage.
    Run {
        /// Program and arguments; a shell line is already `/bin/sh -e -c LINE`.
        command: Vec<String>,
        /// Literal variables on top of the image's own.
        env: BTreeMap<String, String>,
        /// Created when missing.
        working_dir: ImagePath,
        /// A user of the container other than its own, as USER in a Dockerfile writes it: `name[:group]`, either as a number too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// What it has beside the container's files, for as long as it runs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mounts: Vec<RunMount>,
        /// Whether it can open no connection.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        offline: bool,
    },
    /// A directory is made with mode 0755, and those above it; one that exists stays as it is.
    MakeDirectory {
        /// The directory.
        path: ImagePath,
        /// Whom it belongs to, as for `Run`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Files whose text is given are written.
    WriteFiles {
        /// The files.
        files: Vec<TextFile>,
        /// As for `CopySource`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
}

impl Step {
    /// Whether it takes something from the source.
    #[must_use]
    pub fn copies_source(&self) -> bool {
        matches!(self, Self::CopySource { .. })
    }

    /// The first line of what a process runs, for messages; none for other steps.
    #[must_use]
    pub fn command_line(&self) -> Option<String> {
        let Self::Run { command, .. } = self else { return None };
        let shell =
            command.first().is_some_and(|program| program.ends_with("sh")) && command.iter().any(|arg| arg == "-c");
        let text = if shell { command.last()?.clone() } else { command.join(" ") };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = one_line(lines.next()?.as_bytes(), 80);
        Some(if lines.next().is_some() { format!("{line} …") } else { line })
    }
}

/// Whether a stage takes anything from the source: by a step, or all of it where it has no container and nothing of its own to
/// fetch.
pub(super) fn reads_source(in_container: bool, fetches: bool, steps: &[Step]) -> bool {
    !in_container && !fetches || steps.iter().any(Step::copies_source)
}

/// Where a Dockerfile's COPY writes, and under which name each file arrives where its destination turns out to be a
/// directory; empty for destinations that are directories by their writing.
pub type Names = BTreeMap<ImagePath, String>;

/// Something that a process has only while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum RunMount {
    /// A directory that is empty; one that the container has there comes back behind it.
    Directory {
        /// Where.
        path: ImagePath,
        /// Permission bits; none for those of the directory that the container has there, or 0755.
        mode: Option<u32>,
        /// Whom it belongs to.
        owner: Owner,
    },
    /// A directory that comes back with what the last build left in it.
    Cache {
        /// Where.
        path: ImagePath,
        /// Which of the stage's caches. Its name and content are no part of the key: they may not change the result.
        index: usize,
        /// Whether a volume is there, which nothing else can take the place of.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        volume: bool,
        /// Permission bits, where it is new.
        mode: u32,
        /// Whom it belongs to, where it is new.
        owner: Owner,
    },
    /// A program whose text is given.
    Script {
        /// Where.
        path: ImagePath,
        /// Its text.
        content: String,
    },
    /// A secret, as a file, a variable or both.
    Secret {
        /// The container's variable that has it; no process sees that one.
        variable: String,
        /// The file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<SecretFile>,
        /// The process' variable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        env: Option<String>,
    },
}

impl RunMount {
    /// Where something is made for it.
    #[must_use]
    pub fn path(&self) -> Option<&ImagePath> {
        match self {
            Self::Directory { path, .. } | Self::Cache { path, .. } | Self::Script { path, .. } => Some(path),
            Self::Secret { file, .. } => file.as_ref().map(|file| &file.path),
        }
    }
}

/// The file of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFile {
    /// Where.
    pub path: ImagePath,
    /// Permission bits.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: Owner,
}

/// The files of one layer: what is copied and who made the directories above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Later items win where destinations overlap, as later COPY instructions do.
    pub items: Vec<CopyItem>,
    /// Which directories above the destinations the layer itself holds.
    pub parents: Parents,
    /// In place of items: all that the steps have changed in the container, deletions too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
    /// Directories that a layer below is known to hold, with owners that an entry here would take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lower: Vec<ImagePath>,
}

impl Output {
    /// Copies out of the container.
    #[must_use]
    pub fn copies(items: Vec<CopyItem>, parents: Parents) -> Self {
        Self { items, parents, changes: false, lower: Vec::new() }
    }

    /// All that the steps have changed, or the agent has put together.
    #[must_use]
    pub fn changes() -> Self {
        Self { items: Vec::new(), parents: Parents::None, changes: true, lower: Vec::new() }
    }
}

/// Which parent directories an output's layer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Parents {
    /// All of them: nothing is below this layer (scratch), and some runtimes create missing parents unreadable.
    All,
    /// Only those that no usual base has: a directory entry over a base's symbolic link (`/lib`) would replace it,
    /// over an existing directory it would reset owner and mode.
    Unusual,
    /// None: the layer is unpacked by our own wrapper into a running stage.
    None,
}

/// One copy, with Docker's COPY rules: a directory's contents are copied, not the directory itself;
/// a destination that ends with `/` is a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyItem {
    /// A path or a glob (`*`, `?`, `[…]`, not across `/`; `**` across) under the root that is copied from.
    pub source: String,
    /// Where it goes.
    pub destination: Destination,
    /// Permission bits for all files and directories copied; none keeps those of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Numeric owner and group of everything copied; none keeps those of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Patterns, relative to what is copied, of files that are left out: COPY --exclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether matches keep their path below the destination, without so many leading components: COPY --parents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<usize>,
    /// Which instruction of a Dockerfile it is, if it is one: Docker's rules hold to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
}

/// The instructions that copy. Of a directory both take the contents alone, all modes are kept, what is made on the way to the
/// destination has the copy's owner, and files that are copied one by one are no hard links of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Docker {
    /// COPY, or ADD of what is no archive.
    Copy,
    /// ADD, which would unpack an archive.
    Add,
}

/// A file whose text is given in the spec or the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TextFile {
    /// Where it is.
    pub path: ImagePath,
    /// Its bytes.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub owner: Owner,
}

/// A copy's target: a path, and whether it is by its writing (trailing `/`) a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// The path without the trailing `/`.
    pub path: ImagePath,
    /// Whether matches are put into it under their own names.
    pub directory: bool,
}

/// Numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// Identifies a stage's artifact by all its inputs. Same key, same artifact, nothing run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Digest);

impl Recipe {
    /// The key when the source is known only by its revision (a commit, an archive's digest), what of it is seen
    /// included: a hit spares the Pod.
    #[must_use]
    pub fn quick_key(&self, identity: Option<&str>) -> Key {
        self.key("revision", identity.unwrap_or_default())
    }

    /// The key over the files that the steps really see: a hit spares the steps.
    #[must_use]
    pub fn exact_key(&self, source: Option<Digest>) -> Key {
        self.key("content", &source.map(|digest| digest.to_string()).unwrap_or_default())
    }

    /// Whether any step or output reads the source; if not, its identity is not part of the key.
    #[must_use]
    pub fn uses_source(&self) -> bool {
        reads_source(self.image.is_some(), self.remote.is_some() || self.packages.is_some(), &self.steps)
    }

    /// A key of some kind; what the source is counts where a step reads it.
    pub(super) fn key(&self, kind: &str, identity: &str) -> Key {
        // Struct fields and BTreeMap entries have a fixed order, so the JSON is canonical.
        let recipe = serde_json::to_vec(self).unwrap_or_default();
        let identity = if self.uses_source() { identity } else { "" };
        Key(Digest::of(&[&recipe[..], b"\n", kind.as_bytes(), b"\n", identity.as_bytes()].concat()))
    }
}

impl Key {
    /// The key of something that is known by names alone, in this order.
    pub(super) fn named(kind: &str, names: &[&str]) -> Self {
        // As JSON, so that no name can be taken for two.
        let text = serde_json::to_vec(&(kind, names)).unwrap_or_default();
        Self(Digest::of(&text))
    }

    /// The tag under which the cache repository holds this key's record.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("key-{}", self.0.hex())
    }

    /// This key for one request that no older artifact may answer: a new name for the same work, the same for every
    /// pass of that build, so that a restarted operator still finds what the build has made.
    #[must_use]
    pub fn requested(&self, request: Option<&str>) -> Self {
        request.map_or(*self, |request| Self(Digest::of(format!("{}\nno-cache\n{request}", self.0).as_bytes())))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            format: FORMAT,
            platform: Platform::linux("amd64"),
            image: Some(Digest::of(b"builder")),
            user: Some(65532),
            env_from: vec!["TOKEN".into()],
            mounts: vec!["/cache".into()],
            remote: None,
            packages: None,
            ignore: vec!["*.md".into()],
            inputs: vec![Digest::of(b"input")],
            steps: vec![
                Step::CopySource { items: vec![item(".", "/workspace/")], owner: None, transient: false, names: None },
                Step::CopyArtifact { input: 0, owner: None, transient: false, names: None },
                Step::Run {
                    command: vec!["make".into()],
                    env: BTreeMap::from([("A".into(), "1".into())]),
                    working_dir: "/workspace".parse().unwrap(),
                    user: None,
                    mounts: Vec::new(),
                    offline: false,
                },
            ],
            outputs: vec![Output::copies(vec![item("/workspace/app", "/app")], Parents::All)],
        }
    }

    fn item(source: &str, destination: &str) -> CopyItem {
        CopyItem {
            source: source.into(),
            destination: Destination { path: destination.parse().unwrap(), directory: destination.ends_with('/') },
            mode: None,
            owner: Some(Owner::default()),
            exclude: Vec::new(),
            parents: None,
            docker: None,
        }
    }

    #[test]
    fn every_input_changes_the_key() {
        let changes: [(&str, fn(&mut Recipe)); 19] = [
            ("format", |r| r.format += 1),
            ("platform", |r| r.platform = Platform::linux("arm64")),
            ("image", |r| r.image = Some(Digest::of(b"other"))),
            ("user", |r| r.user = None),
            ("env_from", |r| r.env_from.clear()),
            ("mounts", |r| r.mounts.clear()),
            ("ignore", |r| r.ignore.clear()),
            ("remote", |r| {
                let (url, digest) = ("https://example.com/a".into(), Digest::of(b"a"));
                r.remote = Some(Remote::File { url, digest, name: "a".into() });
            }),
            ("step user", |r| {
                if let Some(Step::Run { user, .. }) = r.steps.last_mut() {
                    *user = Some("app".into());
                }
            }),
            ("copy owner", |r| {
                if let Some(Step::CopySource { owner, .. }) = r.steps.first_mut() {
                    *owner = Some("app".into());
                }
            }),
            ("output parents of sources", |r| r.outputs[0].items[0].parents = Some(0)),
            ("output exclude", |r| r.outputs[0].items[0].exclude.push("*.md".into())),
            ("inputs", |r| r.inputs = vec![Digest::of(b"other")]),
            ("steps", |r| {
                r.steps.pop();
            }),
            ("env", |r| {
                if let Some(Step::Run { env, .. }) = r.steps.last_mut() {
                    env.insert("A".into(), "2".into());
                }
            }),
            ("output mode", |r| r.outputs[0].items[0].mode = Some(Mode::Bits(0o755))),
            ("output owner", |r| r.outputs[0].items[0].owner = None),
            ("output changes", |r| r.outputs[0].changes = true),
            ("output parents", |r| r.outputs[0].parents = Parents::Unusual),
        ];
        let base = recipe();
        for (name, change) in changes {
            let mut changed = base.clone();
            change(&mut changed);
            assert_ne!(changed.quick_key(Some("c")), base.quick_key(Some("c")), "{name}");
        }
        assert_ne!(base.quick_key(Some("a")), base.quick_key(Some("b")));
        assert_ne!(base.exact_key(Some(Digest::of(b"a"))), base.exact_key(Some(Digest::of(b"b"))));
    }

    #[test]
    fn a_command_is_named_by_its_first_line() {
        let line = |command: &[&str]| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            match recipe().steps.pop() {
                Some(Step::Run { env, working_dir, .. }) => {
                    Step::Run { command, env, working_dir, user: None, mounts: Vec::new(), offline: false }
                }
                step => panic!("{step:?}"),
            }
            .command_line()
        };
        assert_eq!(line(&["/bin/sh", "-c", "\n  make all\nmake install"]).as_deref(), Some("make all …"));
        assert_eq!(line(&["go", "build", "."]).as_deref(), Some("go build ."));
        assert_eq!(Step::CopyArtifact { input: 0, owner: None, transient: false, names: None }.command_line(), None);
    }

    #[test]
    fn quick_and_exact_keys_never_meet() {
        let digest = Digest::of(b"tree");
        assert_ne!(recipe().quick_key(Some(&digest.to_string())), recipe().exact_key(Some(digest)));
    }

    #[test]
    fn a_stage_without_source_has_the_same_key_at_every_revision() {
        let mut recipe = recipe();
        recipe.steps.remove(0);
        assert_eq!(recipe.quick_key(Some("a")), recipe.quick_key(Some("b")));
    }
}
