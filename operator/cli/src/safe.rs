//! (pure) Texts of others, as a terminal may have them.
//!
//! Messages of objects, logs of scripts and words of servers can hold control characters: a terminal takes those as
//! commands, and writes a window's title, hides a line or feigns one. They are shown instead, as `cat -v` does. JSON, YAML
//! and `--raw` are for programs and stay as they are.

/// A text with its line ends and tabs, and no other control character.
pub(crate) fn visible(text: &str) -> String {
    safe(text, |c| matches!(c, '\n' | '\t').then_some(c))
}

/// A text in one line: line ends and tabs are blanks.
pub(crate) fn one_line(text: &str) -> String {
    safe(text, |c| matches!(c, '\n' | '\r' | '\t').then_some(' '))
}

/// One pass and one piece of memory: every text of every listed object goes through here. `instead` goes first.
fn safe(text: &str, instead: impl Fn(char) -> Option<char>) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match (instead(c), c) {
            (Some(other), _) => safe.push(other),
            (None, '\u{7f}') => safe.push_str("^?"),
            // ^A is the first one, and A the first letter.
            (None, '\0'..='\u{1f}') => safe.extend(['^', char::from_u32(u32::from(c) + 0x40).unwrap_or('?')]),
            (None, _) if is_command(c) => safe.extend(c.escape_unicode()),
            (None, _) => safe.push(c),
        }
    }
    safe
}

/// Control characters beyond ASCII, and those that turn the direction of writing or end a line.
fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let evil = "\u{1b}]0;title\u{7}\u{9b}2J \u{7f}\u{202e}h\u{e9}ron\r\n\tb";
        assert_eq!(visible(evil), "^[]0;title^G\\u{9b}2J ^?\\u{202e}h\u{e9}ron^M\n\tb");
        assert_eq!(one_line(evil), "^[]0;title^G\\u{9b}2J ^?\\u{202e}h\u{e9}ron   b");
        for code in 0..=0x10_ffff {
            let Some(c) = char::from_u32(code) else { continue };
            let text = one_line(&c.to_string());
            assert!(!text.is_empty() && !text.chars().any(char::is_control), "{code:x}");
        }
    }
}
