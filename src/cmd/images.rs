//! `images`: what was built on this machine, as `docker images` lists it.

use std::io::{self, Write as _};

use anyhow::Context as _;
use jiff::Timestamp;

use super::{
    build::columns,
    table::{Place, age, ordered},
};
use crate::{
    cli::{ImagesArgs, ImagesCommand},
    domain::value::{Reference, human_size},
    shell::store::{BuiltImage, Store},
};

/// Fewer digits of a digest are more likely a name.
const DIGITS: usize = 6;

/// Prints the list, or takes images off it.
///
/// # Errors
/// When there is no store, or no such image.
pub fn run(args: ImagesArgs) -> anyhow::Result<()> {
    if let Some(ImagesCommand::Rm { images, store }) = args.command {
        return remove(&Store::open(store)?, &images);
    }
    let place = |image: &BuiltImage| Place {
        created: Some(image.created),
        size: image.size,
        name: vec![image.repository.clone(), image.tag.clone()],
    };
    let images = ordered(Store::open(args.store)?.images(), &args.order, place);
    let text = if args.json { serde_json::to_string_pretty(&images)? } else { table(&images) };
    writeln!(io::stdout().lock(), "{}", text.trim_end()).context("failed to print the list")
}

/// All of them or none: a name that leads nowhere is found before anything is removed.
fn remove(store: &Store, names: &[String]) -> anyhow::Result<()> {
    let known = store.images();
    let mut found = Vec::new();
    for name in names {
        let reference = name.parse::<Reference>().ok();
        let (repository, tag) = match &reference {
            Some(reference) => (reference.repository().to_string(), reference.tag().unwrap_or("latest")),
            None => (String::new(), ""),
        };
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_meant = |image: &&BuiltImage| {
            let named = image.repository == repository && image.tag == tag;
            named || digits.len() >= DIGITS && image.digest.hex().starts_with(digits)
        };
        let before = found.len();
        found.extend(known.iter().filter(is_meant));
        anyhow::ensure!(found.len() > before, "no image is called {name}: `minimalimage images` lists them");
    }
    for image in found {
        store.remove_image(image)?;
        writeln!(io::stdout().lock(), "removed {}:{}", image.repository, image.tag).context("failed to print")?;
    }
    Ok(())
}

fn table(images: &[BuiltImage]) -> String {
    let now = Timestamp::now().as_second();
    let mut rows = vec![["REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "COMPRESSED", "BASE"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image.repository.clone(),
            image.tag.clone(),
            image.digest.short(12),
            age(now.saturating_sub(image.created)),
            human_size(image.size),
            human_size(image.compressed_size),
            image.base.clone(),
        ]
    }));
    columns(&rows)
}
