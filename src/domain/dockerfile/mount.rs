//! `RUN --mount`: the flag as written, and what it means once its values are expanded.

use super::{
    ast::Word,
    parse::closest,
    problem::{Located, Problem},
};

/// A `--mount` as written: BuildKit expands the values first and decides then what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// `key=value` or a bare key, in order; keys are in lower case and known.
    pub fields: Vec<Located<MountField>>,
}

/// One part of a mount flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountField {
    /// In lower case.
    pub key: String,
    /// Behind the `=`.
    pub value: Option<Word>,
}

/// What a RUN gets mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image; writes are discarded.
    Bind {
        /// A stage's name (no index, unlike COPY's) or an image; none is the build context.
        from: Option<String>,
        /// Where in it; none is its root.
        source: Option<String>,
        /// Where it is seen; a relative path, also the empty one, starts at the working directory.
        target: String,
        /// `rw`.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which cache; BuildKit's default is the target.
        id: Option<String>,
        /// Where it is seen; relative as for a bind.
        target: String,
        /// What a new cache starts from: a stage's name or an image.
        from: Option<String>,
        /// Where in it.
        source: Option<String>,
        /// Whether several builds use it at once.
        sharing: Sharing,
        /// Whether writes are refused.
        read_only: bool,
        /// Mode, user and group of a new directory.
        attributes: MountAttributes,
    },
    /// Memory.
    Tmpfs {
        /// Where it is seen; relative as for a bind.
        target: String,
        /// Bytes that it may hold.
        size: Option<u64>,
    },
    /// A secret as a file, a variable or both.
    Secret {
        /// Which secret: `id`, `source` or the target's last part.
        id: String,
        /// The file; by default `/run/secrets/ID` unless `env` is given.
        target: Option<String>,
        /// The variable; empty (`env=`) as written.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode, user and group of the file.
        attributes: MountAttributes,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Which agent; by default `default`.
        id: Option<String>,
        /// Where the socket is.
        target: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode, user and group of the socket.
        attributes: MountAttributes,
    },
}

/// Whether several builds use a cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each one has its own.
    Private,
    /// One after the other.
    Locked,
}

/// Mode, user and group of something mounted; none is BuildKit's default for the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User ID.
    pub uid: Option<u32>,
    /// Group ID.
    pub gid: Option<u32>,
}

/// The kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

/// Every key that a mount flag can have, as BuildKit names them.
pub(super) const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "id",
    "sharing",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// A field with its value expanded.
type Field<'a> = (&'a Located<MountField>, Option<String>);

impl MountFlag {
    /// What the flag means, its values expanded by `expand`.
    ///
    /// # Errors
    /// When a value cannot be expanded or does not fit its key, or a key the kind of mount.
    pub fn resolve(&self, mut expand: impl FnMut(&Located<Word>) -> Result<String, Problem>) -> Result<Mount, Problem> {
        let mut fields = Vec::new();
        for field in &self.fields {
            let value = field.value.value.as_ref().map(|word| expand(&Located::new(word.clone(), field.at)));
            fields.push((field, value.transpose()?));
        }
        let resolved = Resolved { fields };
        let kind = resolved.named("type", &KINDS)?.unwrap_or(MountKind::Bind);
        resolved.check_keys(kind)?;
        resolved.mount(kind)
    }
}

struct Resolved<'a> {
    fields: Vec<Field<'a>>,
}

fn problem(field: &Located<MountField>, message: impl Into<String>) -> Problem {
    let value = field.value.value.as_ref().map(|word| format!("={}", word.raw())).unwrap_or_default();
    Problem::new(field.at, &format!("{}{value}", field.value.key), message)
}

/// The name that BuildKit's synonyms stand for.
fn canonical(key: &str) -> &str {
    match key {
        "src" => "source",
        "dst" | "destination" => "target",
        "ro" => "readonly",
        "rw" => "readwrite",
        other => other,
    }
}

impl Resolved<'_> {
    /// The last field of that name: later ones win.
    fn field(&self, key: &str) -> Option<&Field<'_>> {
        self.fields.iter().rev().find(|(field, _)| canonical(&field.value.key) == key)
    }

    /// A text that is not empty.
    fn text(&self, key: &str) -> Option<String> {
        self.field(key)?.1.clone().filter(|value| !value.is_empty())
    }

    /// One of a few words, in any case.
    fn named<T: Copy>(&self, key: &str, known: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some((field, value)) = self.field(key) else { return Ok(None) };
        let value = value.as_deref().unwrap_or_default();
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
        found.map(|(_, known)| Some(*known)).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let message = format!("a mount's {key} is one of {}, found `{value}`", names.join(", "));
            problem(field, message).suggesting(closest(value, names))
        })
    }

    /// A bare key is true; `key=value` as Go's ParseBool reads it.
    fn switch(&self, key: &str) -> Result<Option<bool>, Problem> {
        let Some((field, value)) = self.field(key) else { return Ok(None) };
        match value.as_deref() {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(problem(field, format!("{key} takes true or false, found `{other}`"))),
        }
    }

    fn number(&self, key: &str, radix: u32) -> Result<Option<u32>, Problem> {
        let Some((field, value)) = self.field(key) else { return Ok(None) };
        let value = value.as_deref().unwrap_or_default();
        let digits = !value.is_empty() && value.chars().all(|c| c.is_digit(radix));
        let number = u32::from_str_radix(value, radix).ok().filter(|_| digits);
        let kind = if radix == 8 { "an octal number" } else { "a number" };
        number.map(Some).ok_or_else(|| problem(field, format!("{key} takes {kind}, found `{value}`")))
    }

    /// Refuses keys that the kind of mount does not have.
    fn check_keys(&self, kind: MountKind) -> Result<(), Problem> {
        use MountKind::{Cache, Secret, Ssh, Tmpfs};
        for (field, _) in &self.fields {
            let fits = match canonical(&field.value.key) {
                "required" => matches!(kind, Secret | Ssh),
                "mode" | "uid" | "gid" => matches!(kind, Secret | Ssh | Cache),
                "size" => kind == Tmpfs,
                "sharing" => kind == Cache,
                "from" => kind != Secret,
                "source" => kind != Ssh,
                _ => true,
            };
            if !fits {
                let kind = KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
                return Err(problem(field, format!("a {kind} mount has no `{}`", field.value.key)));
            }
        }
        Ok(())
    }

    fn mount(&self, kind: MountKind) -> Result<Mount, Problem> {
        let target = self.text("target");
        let attributes = MountAttributes {
            mode: self.number("mode", 8)?,
            uid: self.number("uid", 10)?,
            gid: self.number("gid", 10)?,
        };
        let required = self.switch("required")?.unwrap_or(false);
        Ok(match kind {
            MountKind::Bind => Mount::Bind {
                from: self.text("from"),
                source: self.text("source"),
                target: target.unwrap_or_default(),
                writable: self.writable()?.unwrap_or(false),
            },
            MountKind::Cache => Mount::Cache {
                id: self.text("id"),
                target: target.unwrap_or_default(),
                from: self.text("from"),
                source: self.text("source"),
                sharing: self.named("sharing", &SHARINGS)?.unwrap_or_default(),
                read_only: !self.writable()?.unwrap_or(true),
                attributes,
            },
            MountKind::Tmpfs => Mount::Tmpfs { target: target.unwrap_or_default(), size: self.size()? },
            MountKind::Secret => self.secret(target, required, attributes)?,
            MountKind::Ssh => Mount::Ssh { id: self.text("id"), target, required, attributes },
        })
    }

    /// What the last of `readonly`, `readwrite` and their short forms says.
    fn writable(&self) -> Result<Option<bool>, Problem> {
        let last = self.fields.iter().rev().map(|(field, _)| canonical(&field.value.key));
        match last.into_iter().find(|key| matches!(*key, "readonly" | "readwrite")) {
            Some("readonly") => Ok(self.switch("readonly")?.map(|read_only| !read_only)),
            _ => self.switch("readwrite"),
        }
    }

    fn secret(&self, target: Option<String>, required: bool, attributes: MountAttributes) -> Result<Mount, Problem> {
        let first = || self.fields.first().map(|(field, _)| *field);
        let refuse = |message: &str| first().map(|field| problem(field, message));
        let (id, source) = (self.text("id"), self.text("source"));
        if let (true, Some(problem)) =
            (id.is_some() && source.is_some(), refuse("a secret has an id or a source, not both"))
        {
            return Err(problem);
        }
        let last_part = target.as_deref().and_then(|target| target.trim_end_matches('/').rsplit('/').next());
        let id = source.or(id).or_else(|| last_part.map(str::to_owned)).unwrap_or_default();
        if let (true, Some(problem)) = (id.is_empty(), refuse("a secret mount needs an id or a target")) {
            return Err(problem);
        }
        let env = self.field("env").map(|(_, value)| value.clone().unwrap_or_default());
        let default = || format!("/run/secrets/{}", id.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
        let target = target.or_else(|| env.is_none().then(default));
        Ok(Mount::Secret { id, target, env, required, attributes })
    }

    /// `512m`, `1.5GiB` and so on; units are powers of 1024 (go-units' RAMInBytes).
    fn size(&self) -> Result<Option<u64>, Problem> {
        let Some((field, value)) = self.field("size") else { return Ok(None) };
        let value = value.as_deref().unwrap_or_default();
        let message = || problem(field, format!("size takes bytes as in 64m or 1g, found `{value}`"));
        bytes(value).ok_or_else(message).map(Some)
    }
}

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let shift: u32 = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    // Nine digits behind the point are exact enough for any size that fits a machine.
    let fraction: String = fraction.chars().take(9).collect();
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(fraction.parse::<u64>().ok()?).checked_mul(1 << shift)? / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}
