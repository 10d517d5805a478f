//! Words that the messages of several modules share.

use std::fmt::Display;

/// Similarity (Jaro-Winkler, 0 to 1) from which on a name is worth suggesting.
const SIMILAR: f64 = 0.7;
/// Most names or versions that a message lists.
const MAX_LISTED: usize = 10;

/// The known name that is most like the given one, if any is like it.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(candidate, name), candidate))
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The first of these, with commas.
pub(crate) fn list<T: Display>(things: impl IntoIterator<Item = T>) -> String {
    let mut things = things.into_iter();
    let mut text = things.by_ref().take(MAX_LISTED).map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ");
    if things.next().is_some() {
        text.push_str(" and more");
    }
    text
}

/// What there is instead of an extension that nobody knows.
pub(crate) fn instead(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None if known.is_empty() => "; none is installed".to_owned(),
        None => format!("; there are {}", list(known)),
    }
}
