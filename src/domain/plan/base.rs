//! `spec.image.base`: what the image starts from, all defaults filled in.

use jiff::civil::Date;

use crate::{
    api::v1alpha1::{ImageSpec, Include, PackagesBase as PackagesSpec, Pocket, RuntimeBase},
    domain::{
        debian::{
            base::{Archive, Onto, PackagesBase, Selection},
            compose::without,
            contents::{BASE_FILES, Rules},
            packages::{check_request, requested},
            runtimes::{self, DEFAULT_SUITE, Kind},
            signature::Keyring,
        },
        debug,
        image::ImageConfig,
        include::{Included, NONROOT_USER},
        source::SourceUrl,
        value::{Platform, Reference},
    },
};

use super::Problems;

const FIELD: &str = "image.base.packages";
const MIRROR: &str = "http://deb.debian.org/debian";
const SNAPSHOTS: &str = "https://snapshot.debian.org/archive/debian";

/// What an image starts from; neither is scratch.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub image: Option<Reference>,
    /// Packages that are the base, or that are put onto it.
    pub packages: Option<PackagesBase>,
    /// What is put onto it without packages.
    pub included: Option<Included>,
    /// What its config says, below what the spec says.
    pub config: ImageConfig,
}

impl Start {
    /// Whether anything is below the layers that hold what is copied.
    pub(super) fn has_base(&self) -> bool {
        self.image.is_some() || self.packages.as_ref().is_some_and(PackagesBase::is_whole)
    }

    /// `image` on top of it. Its own user is named by number: the kubelet does not look names up for `runAsNonRoot`.
    pub(super) fn below(&self, image: ImageConfig) -> ImageConfig {
        let image = image.above(&self.config);
        let is_known = self.packages.as_ref().is_some_and(PackagesBase::is_whole)
            || self.included.is_some_and(|included| included.user);
        let is_ours = is_known && matches!(image.user.as_deref(), Some("nonroot" | "nonroot:nonroot"));
        ImageConfig { user: if is_ours { Some(NONROOT_USER.to_owned()) } else { image.user }, ..image }
    }
}

pub(super) fn plan(
    ImageSpec { base: spec, include, certificates, debug, .. }: &ImageSpec,
    platform: Option<&Platform>,
    problems: &mut Problems,
) -> Start {
    let image = spec.image.as_ref().map(|base| base.reference.parse::<Reference>());
    let image = image.and_then(|image| problems.take("image.base.image.reference", image));
    let wanted = include.iter().filter_map(|include| match include {
        Include::CACertificates => Some("ca-certificates"),
        Include::TimeZones => Some("tzdata"),
        Include::NonRootUser | Include::Tmp => None,
    });
    let wanted: Vec<String> = wanted.map(str::to_owned).collect();
    let packages = match (&spec.runtime, &spec.packages) {
        (None, None) if wanted.is_empty() && !debug => None,
        (None, None) => platform.and_then(|platform| included(wanted, image.as_ref(), (platform, *debug), problems)),
        (runtime, given) => {
            let mut given = given.clone().unwrap_or_default();
            given.install.extend(wanted);
            if runtime.is_none() && given.install.is_empty() {
                problems.add(format!("{FIELD}.install"), "give at least one package, or a runtime beside it");
            }
            platform.and_then(|platform| packages(runtime.as_ref(), &given, (platform, *debug), problems))
        }
    };
    let kinds = [spec.scratch.is_some(), spec.image.is_some(), spec.packages.is_some() || spec.runtime.is_some()];
    if kinds.into_iter().filter(|given| *given).count() > 1 {
        problems.add("image.base", "give one of scratch, image, and packages or runtime");
    }
    let (user, tmp) = (include.contains(&Include::NonRootUser), include.contains(&Include::Tmp));
    let whole = packages.as_ref().is_some_and(PackagesBase::is_whole);
    let certificates = !certificates.is_empty();
    // Bases of packages have users and /tmp.
    let included = Included { user: user && !whole, tmp: tmp && !whole, certificates };
    let included = Some(included).filter(|included| included.user || included.tmp || included.certificates);
    let mut config = packages.as_ref().map(|packages| packages.config.clone()).unwrap_or_default();
    if certificates && image.is_none() && !config.env.contains(&bundle_variable()) {
        config.env.push(bundle_variable());
    }
    config.user = user.then(|| NONROOT_USER.to_owned());
    Start { image, packages, included, config }
}

/// Packages that are put onto scratch or an image.
fn included(
    install: Vec<String>,
    image: Option<&Reference>,
    (platform, debug): (&Platform, bool),
    problems: &mut Problems,
) -> Option<PackagesBase> {
    let certificates = install.iter().any(|name| name == "ca-certificates");
    // An image says itself which distribution it is.
    let without = (image.is_some() || install.is_empty()).then(|| BASE_FILES.to_owned());
    let spec = PackagesSpec { install, exclude: without.into_iter().collect(), ..PackagesSpec::default() };
    let base = packages(None, &spec, (platform, debug), problems)?;
    let env = certificates.then(bundle_variable).into_iter().collect();
    Some(PackagesBase {
        name: image.map_or_else(|| "scratch".to_owned(), ToString::to_string),
        selection: Selection {
            onto: Some(if image.is_some() { Onto::Image } else { Onto::Scratch }),
            ..base.selection
        },
        config: ImageConfig { env, ..ImageConfig::default() },
        ..base
    })
}

fn packages(
    runtime: Option<&RuntimeBase>,
    spec: &PackagesSpec,
    (platform, debug): (&Platform, bool),
    problems: &mut Problems,
) -> Option<PackagesBase> {
    let architecture = architecture(platform, problems)?;
    let of_runtime = runtime.and_then(|runtime| runtime.suite.as_deref());
    if of_runtime.is_some() && spec.suite.is_some() {
        problems.add(format!("{FIELD}.suite"), "give the suite in one place: packages.suite or runtime.suite");
    }
    let given = of_runtime.or(spec.suite.as_deref());
    let (runtime, suite) = match runtime {
        Some(spec) => {
            let found = with_kind(spec, |kind| runtimes::runtime(kind, given, &architecture));
            let found = found.ok_or("give exactly one of static, base, cc, java, python and node".to_owned());
            let (runtime, suite) = problems.take("image.base.runtime", found.and_then(|found| found))?;
            (Some(runtime), suite)
        }
        None => (None, given.unwrap_or(DEFAULT_SUITE).to_owned()),
    };
    for (index, text) in spec.install.iter().enumerate() {
        problems.take(format!("{FIELD}.install[{index}]"), check_request(text));
    }
    let names = runtime.iter().flat_map(|runtime| runtime.install.clone());
    let mut install: Vec<String> = names.chain(spec.install.iter().cloned()).collect();
    if !spec.exclude.iter().any(|name| name == BASE_FILES) {
        install.push(BASE_FILES.to_owned());
    }
    if debug {
        let rival =
            debug::RIVALS.iter().find(|rival| install.iter().chain(&spec.exclude).any(|name| is_of(name, rival)));
        if let Some(rival) = rival {
            problems.add("image.debug", format!("{rival} is in {FIELD} too: leave it to one of them"));
        }
        install.push(debug::PACKAGE.to_owned());
    }
    install.sort();
    install.dedup();
    let exclude: Vec<String> =
        runtime.iter().flat_map(|runtime| runtime.without.clone()).chain(spec.exclude.iter().cloned()).collect();
    for name in spec.exclude.iter().filter(|name| spec.install.iter().any(|other| is_of(other, name))) {
        problems.add(format!("{FIELD}.exclude"), format!("{name} is in install too: take it out of one of them"));
    }
    let install: Vec<String> =
        install.into_iter().filter(|text| !spec.exclude.iter().any(|name| is_of(text, name))).collect();
    let selection = Selection { keep: spec.keep.clone(), drop: spec.drop.clone(), scripts: spec.scripts, onto: None };
    problems.take(FIELD, Rules::check(&selection));
    if let Some(keyring) = &spec.keyring {
        problems.take(format!("{FIELD}.keyring"), Keyring::parse(keyring));
    }
    let name = match &runtime {
        Some(runtime) => format!("{} ({suite})", runtime.name),
        None => format!("packages ({suite})"),
    };
    Some(PackagesBase {
        name,
        archives: archives(spec, &suite, problems)?,
        architecture,
        frozen: spec.snapshot.is_some(),
        keyring: spec.keyring.clone(),
        without: without(&exclude, &install),
        install,
        selection,
        debug,
        config: runtimes::config(runtime.as_ref()),
    })
}

/// Where programs find the authorities that they trust.
fn bundle_variable() -> (String, String) {
    let (name, path) = runtimes::BUNDLE;
    (name.to_owned(), path.to_owned())
}

/// Whether `text`, `name` or `name=version`, is of the package `name`.
fn is_of(text: &str, name: &str) -> bool {
    requested(text).0 == name
}

/// Debian's name of an architecture.
fn architecture(platform: &Platform, problems: &mut Problems) -> Option<String> {
    match platform.architecture.as_str() {
        known @ ("amd64" | "arm64") => Some(known.to_owned()),
        other => {
            let message = format!("bases of packages are for linux/amd64 and linux/arm64, not for linux/{other}");
            problems.add("platforms[0]", message);
            None
        }
    }
}

fn with_kind<T>(spec: &RuntimeBase, make: impl Fn(&Kind<'_>) -> T) -> Option<T> {
    let (java, node) = (spec.java.map(|version| version.to_string()), spec.node.map(|version| version.to_string()));
    let kinds = [
        spec.r#static.as_ref().map(|_| Kind::Static),
        spec.base.as_ref().map(|_| Kind::Base),
        spec.cc.as_ref().map(|_| Kind::Cc),
        java.as_deref().map(Kind::Java),
        spec.python.as_deref().map(Kind::Python),
        node.as_deref().map(Kind::Node),
    ];
    let mut given = kinds.into_iter().flatten();
    let first = given.next()?;
    given.next().is_none().then(|| make(&first))
}

fn archives(spec: &PackagesSpec, suite: &str, problems: &mut Problems) -> Option<Vec<Archive>> {
    let time = match &spec.snapshot {
        Some(text) => Some(problems.take(format!("{FIELD}.snapshot"), snapshot(text))?),
        None => None,
    };
    let default = if time.is_some() { SNAPSHOTS } else { MIRROR };
    let mirror = root(spec.mirror.as_deref().unwrap_or(default), "mirror", problems)?;
    let security = match &spec.security_mirror {
        Some(mirror) => root(mirror, "securityMirror", problems)?,
        None => format!("{mirror}-security"),
    };
    let archive = |root: &str, suite: String| Archive {
        root: time.as_ref().map_or_else(|| root.to_owned(), |time| format!("{root}/{time}")),
        suite,
        components: spec.components.clone(),
    };
    let mut archives = vec![archive(&mirror, suite.to_owned())];
    for pocket in &spec.pockets {
        archives.push(match pocket {
            Pocket::Updates => archive(&mirror, format!("{suite}-updates")),
            Pocket::Security => archive(&security, format!("{suite}-security")),
        });
    }
    Some(archives)
}

fn root(text: &str, field: &str, problems: &mut Problems) -> Option<String> {
    problems.take(format!("{FIELD}.{field}"), SourceUrl::parse(text))?;
    Some(text.trim_end_matches('/').to_owned())
}

/// The time as archives of snapshots name it: `20261101T000000Z`.
fn snapshot(text: &str) -> Result<String, String> {
    let expected = || format!("`{text}` is no day and no time, expected for example 2026-11-01 or 20261101T120000Z");
    if text.len() == 16 {
        let day = text.get(..8).ok_or_else(expected)?;
        Date::strptime("%Y%m%d", day).map_err(|_| expected())?;
        return Ok(text.to_owned());
    }
    let day: Date = text.parse().map_err(|_| expected())?;
    Ok(day.strftime("%Y%m%dT000000Z").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::{Base, EnvVarSource};

    fn planned(base: serde_json::Value) -> Result<PackagesBase, String> {
        start(base, &[]).map(|start| start.packages.unwrap())
    }

    fn start(base: serde_json::Value, include: &[Include]) -> Result<Start, String> {
        started(base, include, false)
    }

    fn started(base: serde_json::Value, include: &[Include], debug: bool) -> Result<Start, String> {
        let base: Base = serde_json::from_value(base).unwrap();
        let mut problems = Problems::default();
        let image = ImageSpec { base, include: include.to_vec(), debug, ..ImageSpec::default() };
        let start = plan(&image, Some(&Platform::linux("amd64")), &mut problems);
        problems.0.first().map_or(Ok(start), |problem| Err(problem.to_string()))
    }

    #[test]
    fn what_is_included_is_put_onto_what_has_it_not() {
        let all = [Include::TimeZones, Include::CACertificates, Include::NonRootUser, Include::Tmp];
        let scratch = start(json!({}), &all).unwrap();
        let packages = scratch.packages.clone().unwrap();
        assert!(!scratch.has_base());
        assert_eq!(
            (packages.install, packages.name),
            (vec!["base-files".into(), "ca-certificates".into(), "tzdata".into()], "scratch".into())
        );
        assert_eq!(packages.selection.onto, Some(Onto::Scratch));
        assert_eq!(scratch.included, Some(Included { user: true, tmp: true, certificates: false }));
        assert_eq!(scratch.config.user.as_deref(), Some("65532:65532"));
        assert_eq!(scratch.config.env, [("SSL_CERT_FILE".into(), "/etc/ssl/certs/ca-certificates.crt".into())]);

        let image = start(json!({"image": {"reference": "debian:12"}}), &all[..1]).unwrap();
        let packages = image.packages.clone().unwrap();
        assert!(image.has_base() && image.included.is_none() && image.config == ImageConfig::default());
        assert_eq!((packages.install, packages.selection.onto), (vec!["tzdata".into()], Some(Onto::Image)));

        let base: Base = serde_json::from_value(json!({})).unwrap();
        let certificates = vec![EnvVarSource { secret_key_ref: None, config_map_key_ref: None }];
        let image = ImageSpec { base, include: vec![Include::TimeZones], certificates, ..ImageSpec::default() };
        let zones = plan(&image, Some(&Platform::linux("amd64")), &mut Problems::default());
        assert_eq!(zones.config.env, scratch.config.env, "with certificates of one's own alone, too");

        let own = start(json!({"runtime": {"cc": {}}}), &all).unwrap();
        for (user, written) in [("nonroot", "65532:65532"), ("redis", "redis"), ("1", "1")] {
            let image = ImageConfig { user: Some(user.into()), ..ImageConfig::default() };
            assert_eq!(own.below(image.clone()).user.as_deref(), Some(written));
            assert_eq!(Start::default().below(image).user.as_deref(), Some(user), "a base that may not have it");
        }
        assert_eq!(own.included, None);
        assert_eq!(own.packages.unwrap().selection.onto, None);
        assert_eq!(own.config.user.as_deref(), Some("65532:65532"));

        let users = start(json!({}), &all[2..3]).unwrap();
        assert!(users.packages.is_none());
        assert_eq!(users.included, Some(Included { user: true, tmp: false, certificates: false }));
        let base = json!({"packages": {"install": ["libc6"], "exclude": ["tzdata"]}});
        let refused = start(base, &all[..1]).unwrap_err();
        assert!(refused.contains("spec.image.base.packages.exclude: tzdata is in install too"), "{refused}");
    }

    #[test]
    fn a_debug_image_needs_a_package_more_and_no_layer_of_the_image() {
        for (base, include, layer, base_name) in [
            (json!({}), &[][..], false, "scratch"),
            (json!({"image": {"reference": "debian:12"}}), &[], false, "docker.io/library/debian:12"),
            (json!({}), &[Include::TimeZones], true, "scratch"),
            (json!({"runtime": {"cc": {}}}), &[], true, "cc (trixie)"),
        ] {
            let start = started(base, include, true).unwrap();
            let packages = start.packages.unwrap();
            assert!(packages.install.contains(&"busybox-static".to_owned()) && packages.debug);
            assert_eq!((packages.has_layer(), packages.name.as_str()), (layer, base_name));
        }
        let own = json!({"packages": {"install": ["busybox-static", "a1"]}});
        let refused = started(own, &[], true).unwrap_err();
        assert!(refused.starts_with("spec.image.debug: busybox-static is in image.base.packages too"), "{refused}");
        let empty = started(json!({"packages": {}}), &[], true).unwrap_err();
        assert!(empty.starts_with("spec.image.base.packages.install: give at least one package"), "{empty}");
    }

    #[test]
    fn a_runtime_alone_is_enough() {
        let base = planned(json!({"runtime": {"java": 17}})).unwrap();
        assert_eq!(base.name, "java 17 (bookworm)");
        let archives: Vec<String> =
            base.archives.iter().map(|archive| format!("{} {}", archive.root, archive.suite)).collect();
        assert_eq!(
            archives,
            [
                "http://deb.debian.org/debian bookworm",
                "http://deb.debian.org/debian bookworm-updates",
                "http://deb.debian.org/debian-security bookworm-security"
            ]
        );
        assert!(base.install.contains(&"base-files".to_owned()) && base.without.contains("perl-base"));
    }

    #[test]
    fn packages_are_added_to_a_runtime_and_taken_from_a_frozen_mirror() {
        let base = planned(json!({
            "runtime": {"cc": {}},
            "packages": {"install": ["bash", "libpq5=1"], "exclude": ["base-files"], "pockets": [], "snapshot": "2026-11-01",
                "mirror": "http://mirror.example.com/debian/", "suite": "bookworm"}
        }));
        let base = base.unwrap();
        assert_eq!(base.archives.len(), 1);
        assert_eq!(base.archives[0].root, "http://mirror.example.com/debian/20261101T000000Z");
        assert!(base.frozen && base.install.contains(&"libpq5=1".to_owned()));
        assert!(!base.install.contains(&"base-files".to_owned()) && base.without.contains("base-files"));
        assert!(!base.without.contains("bash"), "what is asked for by name is there");
    }

    #[test]
    fn what_cannot_be_is_named_with_its_field() {
        let cases = [
            (json!({"runtime": {"java": 8}}), "spec.image.base.runtime: there is no java 8"),
            (json!({"runtime": {"java": 17, "cc": {}}}), "spec.image.base.runtime: give exactly one"),
            (json!({"runtime": {}}), "spec.image.base.runtime: give exactly one"),
            (json!({"packages": {}}), "spec.image.base.packages.install: give at least one package"),
            (
                json!({"packages": {"install": ["a1"], "exclude": ["a1"]}}),
                "spec.image.base.packages.exclude: a1 is in install too",
            ),
            (
                json!({"packages": {"install": ["a1"], "snapshot": "2026-13-01"}}),
                "spec.image.base.packages.snapshot: `2026-13-01` is no day",
            ),
            (json!({"packages": {"install": ["a1"], "mirror": "ftp://a"}}), "spec.image.base.packages.mirror: "),
            (
                json!({"packages": {"install": ["a1"], "keyring": "x"}}),
                "spec.image.base.packages.keyring: the keyring holds no usable",
            ),
            (json!({"packages": {"install": ["a1"], "drop": ["/["]}}), "spec.image.base.packages: `/[` is no pattern"),
            (json!({"packages": {"install": ["a1"]}, "scratch": {}}), "spec.image.base: give one of"),
        ];
        for (base, expected) in cases {
            let problem = planned(base.clone()).unwrap_err();
            assert!(problem.starts_with(expected), "{base}: {problem}");
        }
    }
}
