//! (pure) What Kubernetes takes as names and labels, checked before a name becomes a part of an address: `#` or `?` there
//! would turn the request about one object into one about all of its kind.

/// The longest name; that of a part of a label's key too.
const MAX_LABEL: usize = 63;
/// The longest prefix of a label's key.
const MAX_DOMAIN: usize = 253;

/// A word that Kubernetes takes as no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' can't be a name: lower-case letters, digits and inner '-', 1 to 63 characters")]
pub(crate) struct NameError(String);

/// Whether a text can name a namespace, or an object of one of our kinds: a label of DNS (RFC 1123), which is what the API
/// server asks of namespaces, and the rules in our definitions of all kinds.
pub(crate) fn check(name: &str) -> Result<(), NameError> {
    if is_label(name) { Ok(()) } else { Err(NameError(name.to_owned())) }
}

/// The name, for arguments of the command line.
pub(crate) fn argument(name: &str) -> Result<String, NameError> {
    check(name).map(|()| name.to_owned())
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// What is wrong with the key of a label or an annotation.
pub(crate) fn key_problem(key: &str) -> Option<&'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    // Annotations may have capital letters in their prefix, labels not; nobody needs them.
    if prefix.is_some_and(|prefix| prefix.len() > MAX_DOMAIN || !prefix.split('.').all(is_label)) {
        return Some("not a key: what comes before '/' is no domain such as example.org");
    }
    let is_right = !name.is_empty() && is_value(name);
    (!is_right).then_some("not a key: letters, digits and inner '-', '_', '.', 1 to 63 characters")
}

/// What is wrong with the value of a label.
pub(crate) fn value_problem(value: &str) -> Option<&'static str> {
    (!is_value(value))
        .then_some("not the value of a label: letters, digits and inner '-', '_', '.', at most 63 characters")
}

fn is_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Words that change what an address means, or that the API server takes as no name.
    pub(crate) const NONE: [&str; 14] =
        ["", "#", "?", "/", ".", "..", "%2e", "%23", "../x", "heron?x=", "a b", "Heron", "-heron", "heron\n"];

    #[test]
    fn a_name_is_a_label_of_dns() {
        for name in NONE.into_iter().chain(["heron-", "heron.a", "h\u{e9}ron", &"x".repeat(64)]) {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["heron", "0", "web-0", &"x".repeat(63)] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        for key in ["tier", "Tier_1.a", "example.org/tier", "0"] {
            assert_eq!(key_problem(key), None, "{key}");
        }
        for key in ["", "a b", "-a", "a-", "/a", "a/", "Example.org/a", "a/b/c", &"x".repeat(64)] {
            assert!(key_problem(key).is_some(), "{key}");
        }
        for value in ["", "web", "A.b_c-1"] {
            assert_eq!(value_problem(value), None, "{value}");
        }
        for value in ["a=c", "b c", "-a", "a.", "a/b", &"x".repeat(64)] {
            assert!(value_problem(value).is_some(), "{value}");
        }
    }
}
