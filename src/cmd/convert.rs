//! `convert`: a Dockerfile as a MinimalImage with `stages:`, on standard output.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow};

use crate::{
    api::v1alpha1::{GitReference, GitSource, Source},
    cli::{BuildArgs, ConvertArgs, InputArgs},
    cmd::build::{self, Planned, World, planned},
    domain::{
        convert::{Conversion, https_address},
        dockerfile::{Dockerfile, Problem, parse},
        image::RuntimeConfig,
        plan::{Draft, StagePlan},
        resource_file,
        value::Reference,
    },
};

/// Names of objects in a cluster that labels can hold too.
const LONGEST_NAME: usize = 63;

/// Prints the resource.
///
/// # Errors
/// When the Dockerfile has something that stages have not, or something is not known and not given.
pub async fn run(args: ConvertArgs) -> anyhow::Result<()> {
    let file = args.dockerfile.display().to_string();
    let context = context(&args)?;
    let repository =
        args.repository.clone().context("the image needs a place: --repository registry.example.com/NAME")?;
    let input = InputArgs {
        context: Some(context.clone()),
        dockerfile: Some(args.dockerfile.clone()),
        target: args.target.clone(),
        build_arg: args.build_arg.clone(),
        tag: vec![repository],
        store: args.store.clone(),
        registries_file: args.registries_file.clone(),
        ..InputArgs::default()
    };
    let (world, draft) = build::world(BuildArgs { input, quiet: true, ..BuildArgs::default() }, false)?;
    let planned = planned(&world, draft).await?;
    let text = std::fs::read(&args.dockerfile).with_context(|| format!("failed to read {file}"))?;
    let dockerfile = parse(&text).map_err(|problems| refused(&file, &problems))?;
    let text = resource(&args, (&world, &planned), &dockerfile, (&file, &context))?;
    check(&text)?;
    write!(io::stdout().lock(), "{text}").context("failed to print the resource")
}

fn resource(
    args: &ConvertArgs,
    (world, planned): (&World, &Planned),
    dockerfile: &Dockerfile,
    (file, context): (&str, &Path),
) -> anyhow::Result<String> {
    let needed = planned.plan.stages.iter().any(StagePlan::uses_source);
    let conversion = Conversion {
        plan: &planned.plan,
        dockerfile,
        file,
        target: args.target.as_deref(),
        users: &users(world, planned)?,
        name: &name(args.name.as_deref(), context)?,
        source: if needed { Some(source(args, context)?) } else { None },
    };
    conversion.yaml().map_err(|problems| refused(file, &problems))
}

fn context(args: &ConvertArgs) -> anyhow::Result<PathBuf> {
    let own = || args.dockerfile.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = args.context.as_deref().unwrap_or_else(own);
    context.canonicalize().with_context(|| format!("failed to find {}", context.display()))
}

/// What is printed is what `build` and a cluster take.
fn check(text: &str) -> anyhow::Result<()> {
    let resource = resource_file::parse(text).context("what was written cannot be read: please report this")?;
    Draft::new(&resource.spec).map(drop).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow!("unable to convert it: {}", lines.join("; "))
    })
}

fn refused(file: &str, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(|problem| format!("  {}", problem.in_file(file))).collect();
    anyhow!(
        "unable to write this with stages:\n{}\nspec.dockerfile builds it as it is: dockerfile: {{path: {file}}}",
        lines.join("\n")
    )
}

/// Whom the builder images run as.
fn users(world: &World, planned: &Planned) -> anyhow::Result<BTreeMap<Reference, String>> {
    let user = |reference: &Reference| {
        let image = planned.images.get(&reference.to_string()).context("an image was not resolved")?;
        anyhow::Ok((reference.clone(), RuntimeConfig::parse(&world.blob(image.config)?).user))
    };
    planned.plan.stages.iter().filter_map(|stage| stage.image.as_ref()).map(user).collect()
}

fn name(given: Option<&str>, context: &Path) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let name = context.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let name: String = name.trim_matches('-').chars().take(LONGEST_NAME).collect();
    let name = name.trim_end_matches('-').to_owned();
    anyhow::ensure!(!name.is_empty(), "the resource needs a name: --name");
    Ok(name)
}

/// The Git repository that the context is in.
fn source(args: &ConvertArgs, context: &Path) -> anyhow::Result<Source> {
    let remote = args.source_url.clone().or_else(|| git(context, &["config", "--get", "remote.origin.url"]));
    let remote = remote.context(
        "its COPYs need a source, and the context is in no Git checkout with a remote `origin`: --source-url URL",
    )?;
    let url = https_address(&remote);
    let url = url.with_context(|| format!("{remote} cannot be fetched by http: --source-url https://HOST/PATH"))?;
    let branch = git(context, &["symbolic-ref", "--short", "HEAD"]).filter(|_| args.source_url.is_none());
    let reference = branch.map(|branch| GitReference { branch: Some(branch), ..GitReference::default() });
    let here = || git(context, &["rev-parse", "--show-prefix"]).map(|place| place.trim_end_matches('/').to_owned());
    let directory = args.source_directory.clone().or_else(here).filter(|place| !place.is_empty());
    let git = GitSource { url, reference, secret_ref: None, submodules: false };
    Ok(Source { git: Some(git), directory, ..Source::default() })
}

/// What git says of a directory; none where there is no git, no checkout or no answer.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
