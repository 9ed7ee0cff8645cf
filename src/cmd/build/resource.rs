//! The spec of a build: of a MinimalImage in a file, or of a Dockerfile and what is said of it on the command line.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::{
    api::v1alpha1::{DockerfileSpec, InlineSource, MinimalImageSpec, Source},
    cli::{InputArgs, SecretFrom},
    domain::{debian::certificates::normalized, environment::SECRET_VARIABLE, resource_file, value::Reference},
};

/// The files that are built when none is named.
const FILE: &str = "minimalimage.yaml";
const DOCKERFILE: &str = "Dockerfile";
/// Bytes that a variable may have with its name (execve(2): 128 KiB).
const MOST_SECRET: usize = 131_000;

/// Fields of a spec, and the flags that say the same of a Dockerfile.
pub const FLAGS: [(&str, &str); 5] = [
    ("spec.dockerfile.args", "--build-arg"),
    ("spec.dockerfile.secrets", "--secret"),
    ("spec.dockerfile.target", "--target"),
    ("spec.dockerfile.path", "--dockerfile"),
    ("allowLargeBase", "--allow-large-base"),
];

/// Where the spec comes from, for messages, and the spec.
///
/// # Errors
/// When there is no such file, or it cannot be used.
pub fn spec(args: &mut InputArgs) -> anyhow::Result<(PathBuf, MinimalImageSpec)> {
    if args.dockerfile.is_none() && args.file.is_none() {
        find(args);
    }
    if let Some(path) = args.dockerfile.clone() {
        return Ok((path.clone(), of_dockerfile(args, &path)?));
    }
    if args.file.is_none() && !Path::new(FILE).exists() {
        let places = args.context.as_ref().map(|context| format!("in {} ", context.display())).unwrap_or_default();
        bail!("there is neither a {FILE} {places}nor a {DOCKERFILE}: name one with --file or --dockerfile");
    }
    let file = args.file.clone().unwrap_or_else(|| FILE.into());
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    if file.file_name().is_some_and(|name| name.to_string_lossy().contains(DOCKERFILE)) {
        bail!("{0} looks like a Dockerfile: use --dockerfile {0}", file.display());
    }
    let resource = resource_file::parse(&text).with_context(|| format!("unable to use {}", file.display()))?;
    Ok((file, resource.spec))
}

/// A MinimalImage in the context or here, else a Dockerfile in the context.
fn find(args: &mut InputArgs) {
    let in_context = |name: &str| args.context.as_ref().map(|context| context.join(name)).filter(|path| path.exists());
    let here = Path::new(FILE).exists().then(|| FILE.into());
    match in_context(FILE).or(here) {
        Some(file) => args.file = Some(file),
        None => args.dockerfile = in_context(DOCKERFILE),
    }
}

fn of_dockerfile(args: &InputArgs, path: &Path) -> anyhow::Result<MinimalImageSpec> {
    let Some(context) = &args.context else { bail!("--dockerfile needs CONTEXT, the directory that it copies from") };
    let tags: Vec<Reference> = args.tag.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
    let repository = match tags.first() {
        Some(first) => first.repository().to_string(),
        None => {
            let name = context.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_lowercase()));
            format!("localhost/{}", name.context("give the image a name by --tag")?)
        }
    };
    if let Some(other) = tags.iter().find(|tag| tag.repository().to_string() != repository) {
        bail!("--tag {other}: all tags of a build are in one repository, and the first is in {repository}");
    }
    let names = tags.iter().map(|tag| tag.tag().unwrap_or("latest"));
    let names: Vec<&str> = if tags.is_empty() { vec!["latest"] } else { names.collect() };
    let arguments = args.build_arg.iter().map(|(name, value)| json!({"name": name, "value": value}));
    // What a Secret would have is given by --secret; which Secret that were does not matter.
    let nowhere = json!({"secretKeyRef": {"name": "-", "key": "-"}});
    let secrets = args.secret.iter().map(|secret| json!({"id": secret.id, "valueFrom": nowhere}));
    Ok(serde_json::from_value(json!({
        "dockerfile": {
            "path": path, "target": args.target, "allowLargeBase": args.allow_large_base,
            "args": arguments.collect::<Vec<_>>(), "secrets": secrets.collect::<Vec<_>>()
        },
        "destination": {"repository": repository, "tags": names}
    }))?)
}

/// A directory takes the place of any source. Gives the tags that are left out: nobody can say of a directory which
/// commit it is, files may have been changed since.
pub fn with_context(spec: &mut MinimalImageSpec) -> Vec<String> {
    let inline = InlineSource { files: Vec::new() };
    spec.source = Some(Source { inline: Some(inline), ..Source::default() });
    let of_a_commit = |tag: &mut String| tag.contains("$(commit)") || tag.contains("$(commitShort)");
    spec.destination.tags.extract_if(.., of_a_commit).collect()
}

/// The certificates that the spec names, a PEM text; none where it names none.
///
/// # Errors
/// When they are not given, or are none.
pub fn certificates(args: &InputArgs, spec: &MinimalImageSpec) -> anyhow::Result<Option<String>> {
    let (wanted, given) = (spec.image.certificates.len(), args.certificates.len());
    anyhow::ensure!(
        wanted == given,
        "spec.image.certificates names {wanted} texts in ConfigMaps and Secrets, which only a cluster has: give \
         --certificates FILE for each, not {given}"
    );
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        normalized(&text).with_context(|| format!("{} has no PEM certificates, or broken ones", path.display()))
    };
    let texts = args.certificates.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((given > 0).then(|| texts.concat()))
}

/// The values of the spec's build secrets, by the variable that a stage has them in.
///
/// # Errors
/// When one is not given, or cannot be read.
pub fn secrets(args: &InputArgs, dockerfile: Option<&DockerfileSpec>) -> anyhow::Result<BTreeMap<String, String>> {
    let wanted = dockerfile.iter().flat_map(|dockerfile| &dockerfile.secrets).enumerate();
    let value = |(index, secret): (usize, &crate::api::v1alpha1::BuildSecret)| {
        let id = &secret.id;
        let given = args.secret.iter().find(|given| given.id == *id).with_context(|| {
            format!(
                "the secret {id} is in a Secret, which only a cluster has: give --secret id={id},src=FILE or env=NAME"
            )
        })?;
        let value = match &given.from {
            SecretFrom::File(path) => {
                fs::read_to_string(path).with_context(|| format!("failed to read {} as text", path.display()))?
            }
            SecretFrom::Variable(name) => std::env::var(name).with_context(|| format!("--secret {id}: {name}"))?,
        };
        // They go the way that Secrets take in a Pod.
        anyhow::ensure!(
            value.len() <= MOST_SECRET && !value.contains('\0'),
            "--secret {id}: secrets travel as variables: text without NUL, of {MOST_SECRET} bytes at most"
        );
        anyhow::Ok((format!("{SECRET_VARIABLE}{index}"), value))
    };
    wanted.map(value).collect()
}
