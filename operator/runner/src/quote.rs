//! Quoting for a POSIX shell.

/// One shell word that stands for exactly this text.
///
/// Everything between single quotes is literal in `sh`; a single quote itself is written outside of them.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command line of these words.
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn through_sh(words: &[String]) -> Vec<u8> {
        let line = format!("printf '%s\\0' {}", command(words.iter().map(String::as_str)));
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_hands_on_what_was_meant(words in prop::collection::vec("[^\0]{0,24}", 1..4)) {
            let expected: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
            prop_assert_eq!(through_sh(&words), expected);
        }
    }

    #[test]
    fn what_shells_love_stays_text() {
        let words = ["$(touch /tmp/x)", "`id`", "a'b\"c", "; rm -rf /", "", "\\", "\n", "~", "*", "!!", "-n"]
            .map(str::to_owned);
        let expected: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
        assert_eq!(through_sh(&words), expected);
    }
}
