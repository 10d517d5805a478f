//! Values of a request that become names, tags or paths at a provider, checked before anything is made of them.

/// Longest DNS label (RFC 1123) and longest tag value, characters.
pub const MAX_NAME: usize = 63;

/// Whether a text is a DNS label: a host name, a namespace, one element of a path.
pub fn is_dns_label(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_NAME).contains(&value.len())
        && value.bytes().all(|byte| inner(byte) || byte == b'-')
        && !value.starts_with('-')
        && !value.ends_with('-')
}

/// Whether a text is a uid as the API server makes them: 36 hexadecimal digits and dashes.
pub fn is_uid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte) || byte == b'-')
}

/// Whether a text can be the value of a tag or label: letters, digits, and dashes, dots, underscores within.
pub fn is_tag_value(value: &str) -> bool {
    (1..=MAX_NAME).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && value.starts_with(|first: char| first.is_ascii_alphanumeric())
        && value.ends_with(|last: char| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_a_name_a_tag_or_a_pattern_is_none() {
        assert!(is_dns_label("blue-heron") && is_dns_label(&"h".repeat(MAX_NAME)));
        for label in ["", "-heron", "heron-", "Heron", "a.b", "../etc", "a/b", &"h".repeat(MAX_NAME + 1)] {
            assert!(!is_dns_label(label), "{label}");
        }
        assert!(is_uid("0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d10"));
        for uid in ["", "*", "0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d1*", "0B1F6A7E-3c55-4d7e-9a39-6f1f4a8c2d10"] {
            assert!(!is_uid(uid), "{uid}");
        }
        assert!(is_tag_value("a") && is_tag_value("v1.2_x"));
        for tag in ["", "a,b=c", "-a", "a.", "a b", &"t".repeat(MAX_NAME + 1)] {
            assert!(!is_tag_value(tag), "{tag}");
        }
    }
}
