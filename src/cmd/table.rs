//! Lists of images as `docker images` shows them: which of them, in which order, how old.

use std::cmp::Reverse;

use crate::cli::{OrderArgs, Sort};

/// What lists are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// When it was built, in seconds since 1970; none when it was not.
    pub created: Option<i64>,
    /// Bytes unpacked.
    pub size: u64,
    /// Its name, in its parts.
    pub name: Vec<String>,
}

/// Those that were asked for, in the order that was.
pub fn ordered<T>(items: Vec<T>, args: &OrderArgs, place: impl Fn(&T) -> Place) -> Vec<T> {
    let mut items: Vec<(Place, T)> = items.into_iter().map(|item| (place(&item), item)).collect();
    items.sort_by_cached_key(|(place, _)| (Reverse(place.created), place.name.clone()));
    match (args.newest, args.oldest) {
        (Some(count), _) => items.truncate(count),
        (None, Some(count)) => drop(items.drain(..items.len().saturating_sub(count))),
        (None, None) => {}
    }
    match args.sort {
        Sort::Created => {}
        Sort::Size => items.sort_by_cached_key(|(place, _)| (Reverse(place.size), place.name.clone())),
        Sort::Name => items.sort_by_cached_key(|(place, _)| place.name.clone()),
    }
    items.into_iter().map(|(_, item)| item).collect()
}

/// How long ago, in one unit.
#[must_use]
pub fn age(seconds: i64) -> String {
    let units = [(86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| "just now".to_owned(), |(length, name)| format!("{} {name} ago", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_oldest_are_chosen_before_they_are_sorted() {
        let names = |newest, oldest, sort| {
            let items = vec![("b", Some(2), 10), ("a", Some(1), 30), ("d", None, 0), ("c", Some(3), 20)];
            let args = OrderArgs { newest, oldest, sort };
            let place =
                |item: &(&str, Option<i64>, u64)| Place { created: item.1, size: item.2, name: vec![item.0.into()] };
            ordered(items, &args, place).into_iter().map(|item| item.0).collect::<String>()
        };
        assert_eq!(names(None, None, Sort::Created), "cbad");
        assert_eq!(names(None, None, Sort::Size), "acbd");
        assert_eq!(names(None, None, Sort::Name), "abcd");
        assert_eq!(names(Some(2), None, Sort::Size), "cb");
        assert_eq!(names(None, Some(2), Sort::Created), "ad");
    }

    #[test]
    fn ages_are_in_one_unit() {
        for (seconds, text) in [(0, "just now"), (59, "59 seconds ago"), (7300, "2 hours ago"), (200_000, "2 days ago")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
