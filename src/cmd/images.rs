//! `images`: what was built on this machine, as `docker images` lists it.

use std::io::{self, Write as _};

use anyhow::Context as _;
use jiff::Timestamp;

use super::build::columns;
use crate::{
    cli::{ImagesArgs, Sort},
    domain::value::human_size,
    shell::store::{BuiltImage, Store},
};

/// Prints the list.
///
/// # Errors
/// When there is no store.
pub fn run(args: ImagesArgs) -> anyhow::Result<()> {
    let images = selected(Store::open(args.store.clone())?.images(), &args);
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
    write!(io::stdout().lock(), "{}", columns(&rows)).context("failed to print the list")
}

fn selected(mut images: Vec<BuiltImage>, args: &ImagesArgs) -> Vec<BuiltImage> {
    let name = |image: &BuiltImage| (image.repository.clone(), image.tag.clone());
    images.sort_by_key(|image| (std::cmp::Reverse(image.created), name(image)));
    match (args.newest, args.oldest) {
        (Some(count), _) => images.truncate(count),
        (None, Some(count)) => drop(images.drain(..images.len().saturating_sub(count))),
        (None, None) => {}
    }
    match args.sort {
        Sort::Created => {}
        Sort::Size => images.sort_by_key(|image| (std::cmp::Reverse(image.size), name(image))),
        Sort::Name => images.sort_by_key(name),
    }
    images
}

/// How long ago, in one unit.
fn age(seconds: i64) -> String {
    let units = [(86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| "just now".to_owned(), |(length, name)| format!("{} {name} ago", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::value::Digest;

    fn image(name: &str, created: i64, size: u64) -> BuiltImage {
        BuiltImage {
            repository: name.into(),
            tag: "latest".into(),
            digest: Digest::of(name.as_bytes()),
            created,
            size,
            compressed_size: size,
            base: "scratch".into(),
        }
    }

    #[test]
    fn the_newest_and_oldest_are_chosen_before_they_are_sorted() {
        let images = || vec![image("b", 2, 10), image("a", 1, 30), image("c", 3, 20)];
        let names = |newest, oldest, sort| {
            let args = ImagesArgs { newest, oldest, sort, store: None };
            selected(images(), &args).into_iter().map(|image| image.repository).collect::<String>()
        };
        assert_eq!(names(None, None, Sort::Created), "cba");
        assert_eq!(names(None, None, Sort::Size), "acb");
        assert_eq!(names(None, None, Sort::Name), "abc");
        assert_eq!(names(Some(2), None, Sort::Size), "cb");
        assert_eq!(names(None, Some(2), Sort::Created), "ba");
    }

    #[test]
    fn ages_are_in_one_unit() {
        for (seconds, text) in [(0, "just now"), (59, "59 seconds ago"), (7300, "2 hours ago"), (200_000, "2 days ago")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
