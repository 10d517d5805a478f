//! "Did you mean": the nearest known name.

/// The known name that is most like `name`, if any is alike enough (Jaro-Winkler ≥ 0.75). Ties go to the first in order.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let score = strsim::jaro_winkler(name, candidate);
        let better = match best {
            None => true,
            Some((top, held)) => score > top || ((score - top).abs() < f64::EPSILON && candidate < held),
        };
        if better {
            best = Some((score, candidate));
        }
    }
    best.filter(|(score, _)| *score >= 0.75).map(|(_, candidate)| candidate)
}

/// ` (did you mean 'x'?)`, or nothing.
pub fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |found| format!(" (did you mean '{found}'?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_name() {
        assert_eq!(nearest("herron", ["curlew", "heron"]), Some("heron"));
        assert_eq!(hint("reddis", ["redis", "postgres"]), " (did you mean 'redis'?)");
    }

    #[test]
    fn a_strange_name_finds_nothing() {
        assert_eq!(nearest("zzz", ["curlew", "heron"]), None);
        assert_eq!(nearest("heron", []), None);
    }
}
