//! Paths within a bundle, and the ConfigMap keys that stand for them.

use std::fmt;
use std::str::FromStr;

/// Longest path, bytes. A ConfigMap key takes 253, and each `/` becomes two bytes there.
const MAX_PATH: usize = 200;
/// Most segments of a path.
const MAX_SEGMENTS: usize = 8;
/// What stands for `/` in a ConfigMap key. No segment holds it, nor begins or ends with a dot, so it is unambiguous.
const SEPARATOR: &str = "..";

/// Why a text is no path of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than 200 bytes or more than 8 segments.
    #[error("path {0:?} is too long: at most {MAX_PATH} bytes and {MAX_SEGMENTS} segments")]
    TooLong(String),
    /// A segment is empty, holds `..` or another character, or begins or ends with a dot.
    #[error(
        "path {path:?}: segment {segment:?} may hold letters, digits, '-', '_' and single dots inside, and may not be empty"
    )]
    BadSegment {
        /// The whole path or key.
        path: String,
        /// The part that is wrong.
        segment: String,
    },
}

/// A relative path of a bundle's file, `/` between its segments.
///
/// A segment is made of letters, digits, `-`, `_` and dots, neither begins nor ends with a dot, and has no two dots in
/// a row. So there is no `..`, no absolute path, no hidden file, and the text needs no quoting in a shell.
/// A ConfigMap key may not hold `/`: [`BundlePath::to_key`] writes `..` for it (`scripts..install.nu`), which no
/// segment can hold, so that [`BundlePath::from_key`] is its exact inverse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundlePath(String);

impl BundlePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of this path in a ConfigMap.
    pub fn to_key(&self) -> String {
        self.0.replace('/', SEPARATOR)
    }

    /// The path that a ConfigMap key stands for.
    ///
    /// # Errors
    /// [`PathError`] where no path has this key.
    pub fn from_key(key: &str) -> Result<Self, PathError> {
        Self::from_segments(key, key.split(SEPARATOR))
    }

    fn from_segments<'a>(whole: &str, segments: impl Iterator<Item = &'a str>) -> Result<Self, PathError> {
        let segments: Vec<&str> = segments.collect();
        let path = segments.join("/");
        if path.len() > MAX_PATH || segments.len() > MAX_SEGMENTS {
            return Err(PathError::TooLong(whole.to_owned()));
        }
        match segments.iter().find(|segment| !is_segment(segment)) {
            Some(bad) => Err(PathError::BadSegment { path: whole.to_owned(), segment: (*bad).to_owned() }),
            None => Ok(BundlePath(path)),
        }
    }
}

impl FromStr for BundlePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_segments(text, text.split('/'))
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('.')
        && !segment.ends_with('.')
        && !segment.contains("..")
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[A-Za-z0-9_-]{1,6}(\\.[A-Za-z0-9_-]{1,6}){0,2}").unwrap()
    }

    proptest! {
        #[test]
        fn a_path_survives_its_key(segments in prop::collection::vec(segment(), 1..=6)) {
            let path: BundlePath = segments.join("/").parse().unwrap();
            let key = path.to_key();
            prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            prop_assert!(key.len() <= 253 && !key.starts_with('.'));
            prop_assert_eq!(BundlePath::from_key(&key).unwrap(), path);
        }

        #[test]
        fn a_key_that_is_read_is_the_key_of_what_was_read(key in "[a-b._/-]{0,12}") {
            if let Ok(path) = BundlePath::from_key(&key) {
                prop_assert_eq!(path.to_key(), key);
            }
        }

        #[test]
        fn a_path_that_is_read_is_written_alike(text in "[a-b._/ -]{0,12}") {
            if let Ok(path) = text.parse::<BundlePath>() {
                prop_assert_eq!(path.as_str(), text);
                prop_assert_eq!(BundlePath::from_key(&path.to_key()).unwrap(), path);
            }
        }
    }

    #[test]
    fn what_leads_outside_or_needs_quoting_is_no_path() {
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.git", "a..b", "a.", "a b", "ä", "a$b"]
        {
            assert!(bad.parse::<BundlePath>().is_err(), "{bad:?} was accepted");
        }
        assert!("a/".repeat(8).parse::<BundlePath>().is_err());
        assert!("x".repeat(201).parse::<BundlePath>().is_err());
    }
}
