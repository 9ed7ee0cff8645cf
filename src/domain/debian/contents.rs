//! What of the packages' files gets into a base: rules that hold for every base, and the patterns of a spec.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::base::Selection;

/// Packages that every base is taken to have, and has not: shells, package managers, and what only maintainer scripts and
/// administrators need. One that is asked for by name is there all the same.
pub const WITHOUT: &[&str] = &[
    "adduser",
    "apt",
    "base-passwd",
    "bash",
    "bsdutils",
    "busybox",
    "coreutils",
    "cron",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "e2fsprogs",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "install-info",
    "iproute2",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam-runtime",
    "login",
    "login.defs",
    "logrotate",
    "logsave",
    "lsb-base",
    "mawk",
    "mount",
    "ncurses-base",
    "ncurses-bin",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "procps",
    "sed",
    "sensible-utils",
    "systemd",
    "systemd-sysv",
    "sysvinit-utils",
    "tar",
    "ucf",
    "usr-is-merged",
    "usrmerge",
    "util-linux",
    "util-linux-extra",
];

/// Goes up with every change of the rules, or of what is made in place of scripts, that changes a base's bytes.
pub const RULES: u32 = 2;

/// The package that says which distribution a base is of.
pub const BASE_FILES: &str = "base-files";

/// How scanners know the distribution. All that is put onto scratch of [`BASE_FILES`].
pub const IDENTITY: [&str; 3] = ["etc/debian_version", "etc/os-release", "usr/lib/os-release"];

/// What no base has of its packages. Licences (`/usr/share/doc/*/copyright`) stay.
pub const LEFT_OUT: &[&str] = &[
    "etc/cron.*/**",
    "etc/init.d/**",
    "etc/init/**",
    "etc/logrotate.d/**",
    "etc/rc*.d/**",
    "usr/lib/init/**",
    "usr/lib/locale/**",
    "usr/lib/systemd/**",
    "usr/lib/sysusers.d/**",
    "usr/lib/tmpfiles.d/**",
    "usr/lib/udev/**",
    "usr/share/applications/**",
    "usr/share/apport/**",
    "usr/share/bash-completion/**",
    "usr/share/bug/**",
    "usr/share/debconf/**",
    "usr/share/dict/**",
    "usr/share/doc-base/**",
    "usr/share/doc/**",
    "usr/share/fish/**",
    "usr/share/gdb/**",
    "usr/share/groff/**",
    "usr/share/help/**",
    "usr/share/i18n/**",
    "usr/share/icons/**",
    "usr/share/info/**",
    "usr/share/lintian/**",
    "usr/share/locale/**",
    "usr/share/man/**",
    "usr/share/menu/**",
    "usr/share/metainfo/**",
    "usr/share/pixmaps/**",
    "usr/share/polkit-1/**",
    "usr/share/sgml/**",
    "usr/share/vim/**",
    "usr/share/zsh/**",
    "var/cache/**",
    "var/lib/dpkg/**",
    // The programs of libc-bin, which is there for its locale.
    "usr/bin/getconf",
    "usr/bin/getent",
    "usr/bin/iconv",
    "usr/bin/ld.so",
    "usr/bin/ldd",
    "usr/bin/locale",
    "usr/bin/localedef",
    "usr/bin/pldd",
    "usr/bin/tzselect",
    "usr/bin/zdump",
    "usr/sbin/iconvconfig",
    "usr/sbin/ldconfig",
    "usr/sbin/zic",
    // Links are made of these.
    "var/lock/**",
    "var/run/**",
];

/// What stays all the same.
pub const KEPT: &[&str] = &["usr/share/doc/*/copyright", "usr/lib/locale/C.utf8/**"];

/// Decides for each path.
#[derive(Debug, Clone)]
pub struct Rules {
    left_out: GlobSet,
    kept: GlobSet,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern: {problem}; expected for example /usr/share/fonts/**")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Rules {
    /// The rules with the patterns of `selection`.
    ///
    /// # Errors
    /// When one of them is not absolute or no pattern.
    pub fn new(selection: &Selection) -> Result<Self, PatternError> {
        let rules = |patterns: &[&str]| patterns.iter().map(|pattern| format!("/{pattern}")).collect::<Vec<_>>();
        let left_out = [rules(LEFT_OUT), selection.drop.clone()].concat();
        let kept = [rules(KEPT), selection.keep.clone()].concat();
        Ok(Self { left_out: set(&left_out)?, kept: set(&kept)? })
    }

    /// Whether the patterns of `selection` can be used: what a spec is asked in every pass, without the rules.
    ///
    /// # Errors
    /// As for [`Rules::new`].
    pub fn check(selection: &Selection) -> Result<(), PatternError> {
        set(&selection.drop)?;
        set(&selection.keep).map(drop)
    }

    /// Whether the file, link or directory at `path`, which does not begin with `/`, gets into the base.
    #[must_use]
    pub fn keeps(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        !self.left_out.is_match(&*path) || self.kept.is_match(&*path)
    }
}

fn set(patterns: &[String]) -> Result<GlobSet, PatternError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let wrong = |problem: String| PatternError { pattern: pattern.clone(), problem };
        let relative = pattern.strip_prefix('/').ok_or_else(|| wrong("it does not begin with /".to_owned()))?;
        let relative = merged(relative.as_bytes())
            .map_or_else(|| relative.to_owned(), |path| String::from_utf8_lossy(&path).into_owned());
        for form in [Some(relative.as_str()), relative.strip_suffix("/**")].into_iter().flatten() {
            let glob = GlobBuilder::new(form).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| wrong(error.kind().to_string()))?);
        }
    }
    set.build().map_err(|error| PatternError { pattern: patterns.concat(), problem: error.to_string() })
}

/// Whether a package has its documentation at `path`, which does not begin with `/`: for a link, its licence is where that leads.
#[must_use]
pub fn is_documentation(path: &[u8]) -> bool {
    path.strip_prefix(b"usr/share/doc/").is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// Where something of `/bin`, `/sbin` or `/lib` really is: below `/usr`, to which those are links (the merged-usr layout that all
/// of Debian has had since bookworm).
#[must_use]
pub fn merged(path: &[u8]) -> Option<Vec<u8>> {
    let first = path.split(|byte| *byte == b'/').next()?;
    LINKS.iter().any(|link| link.as_bytes() == first).then(|| [b"usr/", path].concat())
}

/// The links of the merged-usr layout.
pub const LINKS: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_goes_and_licences_stay() {
        let selection = Selection {
            keep: vec!["/usr/share/man/man1/a.1".into()],
            drop: vec!["/lib/x/**".into()],
            ..Selection::default()
        };
        let rules = Rules::new(&selection).unwrap();
        for (path, kept) in [
            ("usr/bin/a", true),
            ("usr/share/doc/a/README", false),
            ("usr/share/doc/a/copyright", true),
            ("usr/share/doc/a", false),
            ("usr/share/man", false),
            ("usr/share/man/man1/a.1", true),
            ("usr/share/man/man1/b.1", false),
            ("usr/lib/x/y/z", false),
            ("usr/lib/x", false),
            ("usr/lib/xy", true),
            ("usr/lib/locale/C.utf8/LC_CTYPE", true),
            ("usr/lib/locale/de/LC_CTYPE", false),
            ("etc/init.d/redis", false),
        ] {
            assert_eq!(rules.keeps(path.as_bytes()), kept, "{path}");
        }
        let error =
            Rules::new(&Selection { drop: vec!["usr/**".into()], ..Selection::default() }).unwrap_err().to_string();
        assert!(error.contains("`usr/**` is no pattern: it does not begin with /"), "{error}");
        assert!(Rules::new(&Selection { keep: vec!["/a[".into()], ..Selection::default() }).is_err());
    }

    #[test]
    fn the_documentation_names_every_rule() {
        let documentation = include_str!("../../../docs/bases.md");
        let words: Vec<&str> = documentation.split([' ', '\n', '`', '.', ',', '(', ')']).collect();
        for name in WITHOUT {
            assert!(words.contains(name) || documentation.contains(&format!(" {name} ")), "{name}");
        }
        for pattern in LEFT_OUT.iter().chain(KEPT) {
            assert!(documentation.contains(&format!("`{pattern}`")), "{pattern}");
        }
    }

    #[test]
    fn paths_of_the_old_layout_are_below_usr() {
        assert_eq!(merged(b"lib/x/y"), Some(b"usr/lib/x/y".to_vec()));
        assert_eq!(merged(b"bin"), Some(b"usr/bin".to_vec()));
        assert_eq!(merged(b"library"), None);
        assert_eq!(merged(b"usr/lib"), None);
    }
}
