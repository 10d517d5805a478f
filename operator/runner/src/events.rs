//! What a script writes to stdout: one JSON object per line.
//!
//! `{"event":"progress","message":"…"}` is passed on, `{"event":"output","name":"…","value":…}` becomes an output of
//! the step. Anything else is text for the log.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Most outputs of one script.
pub const MAX_OUTPUTS: usize = 16;
/// Largest value of an output, bytes.
pub const MAX_OUTPUT: usize = 1024;
/// Longest line that is read, bytes.
const MAX_LINE: usize = 16 * 1024;
/// Most bytes of stdout that are read.
pub const MAX_STDOUT: u64 = 4 * 1024 * 1024;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The script's own words on where it is.
    Progress(String),
    /// Other text.
    Text(String),
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Progress { message: String },
    Output { name: String, value: Value },
}

/// Reads a script's stdout as it grows.
#[derive(Debug, Default)]
pub struct Collector {
    offset: u64,
    partial: Vec<u8>,
    outputs: BTreeMap<String, String>,
    problem: Option<String>,
    last_progress: Option<String>,
}

impl Collector {
    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The script's last words on where it is.
    pub fn last_progress(&self) -> Option<&str> {
        self.last_progress.as_deref()
    }

    /// Takes the next bytes; returns the whole lines among them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        self.offset = self.offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.offset > MAX_STDOUT {
            self.problem.get_or_insert_with(|| format!("the script wrote more than {MAX_STDOUT} bytes to stdout"));
            return Vec::new();
        }
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.partial.len());
            let whole = piece.ends_with(b"\n");
            self.partial.extend(piece.iter().take(room));
            if whole {
                lines.extend(self.end_line());
            }
        }
        lines
    }

    /// The end of stdout: the outputs, or what is wrong with them, and the last line if it had no end.
    ///
    /// # Errors
    /// Text for people where the outputs break a limit.
    pub fn finish(mut self) -> (Option<Line>, Result<BTreeMap<String, String>, String>) {
        let last = self.end_line();
        (last, self.problem.map_or(Ok(self.outputs), Err))
    }

    fn end_line(&mut self) -> Option<Line> {
        let bytes = std::mem::take(&mut self.partial);
        // The end of what is cut is unknown: it may be half of a secret.
        if bytes.len() >= MAX_LINE {
            if bytes.starts_with(b"{\"event\":\"output\"") {
                self.problem.get_or_insert_with(|| format!("the line of an output has {MAX_LINE} bytes or more"));
            }
            return Some(Line::Text(format!("(a line of {MAX_LINE} bytes or more is left out here)")));
        }
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() {
            return None;
        }
        match serde_json::from_str(&text) {
            Ok(Event::Progress { message }) => {
                self.last_progress = Some(message.clone());
                Some(Line::Progress(message))
            }
            Ok(Event::Output { name, value }) => {
                if let Err(problem) = self.output(name, value) {
                    self.problem.get_or_insert(problem);
                }
                None
            }
            Err(_) => Some(Line::Text(text)),
        }
    }

    fn output(&mut self, name: String, value: Value) -> Result<(), String> {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        add(&mut self.outputs, name, text)
    }
}

/// Outputs that a server remembers for a script, which are within the same bounds if it did not make them up.
///
/// # Errors
/// Text for people where they are not.
pub fn bounded(remembered: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut outputs = BTreeMap::new();
    remembered.into_iter().try_for_each(|(name, text)| add(&mut outputs, name, text))?;
    Ok(outputs)
}

fn add(outputs: &mut BTreeMap<String, String>, name: String, text: String) -> Result<(), String> {
    let is_name = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_name {
        return Err(format!("output name {name:?} is not made of 1 to 63 letters and digits"));
    }
    if text.len() > MAX_OUTPUT {
        return Err(format!("output {name} has {} bytes; at most {MAX_OUTPUT} are allowed", text.len()));
    }
    outputs.insert(name, text);
    if outputs.len() > MAX_OUTPUTS {
        return Err(format!("the script has more than {MAX_OUTPUTS} outputs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STDOUT: &str = concat!(
        "{\"event\":\"progress\",\"message\":\"installing\"}\n",
        "plain words\n",
        "{\"event\":\"output\",\"name\":\"port\",\"value\":6379}\n",
        "{\"event\":\"unknown\"}\n",
        "{\"event\":\"output\",\"name\":\"version\",\"value\":\"7.0\"}"
    );

    fn collect(chunks: &[&[u8]]) -> (Vec<Line>, Result<BTreeMap<String, String>, String>) {
        let mut collector = Collector::default();
        let mut lines: Vec<Line> = chunks.iter().flat_map(|chunk| collector.feed(chunk)).collect();
        let (last, outputs) = collector.finish();
        lines.extend(last);
        (lines, outputs)
    }

    proptest! {
        #[test]
        fn how_it_arrives_does_not_matter(cut in 0..STDOUT.len(), second in 0..STDOUT.len()) {
            let (low, high) = (cut.min(second), cut.max(second));
            let bytes = STDOUT.as_bytes();
            let (lines, outputs) = collect(&[&bytes[..low], &bytes[low..high], &bytes[high..]]);
            prop_assert_eq!(lines, vec![
                Line::Progress("installing".into()),
                Line::Text("plain words".into()),
                Line::Text("{\"event\":\"unknown\"}".into()),
            ]);
            let expected = [("port", "6379"), ("version", "7.0")].map(|(k, v)| (k.to_owned(), v.to_owned()));
            prop_assert_eq!(outputs, Ok(expected.into()));
        }
    }

    #[test]
    fn limits_are_errors_not_cuts() {
        let output =
            |name: &str, value: &str| format!("{{\"event\":\"output\",\"name\":\"{name}\",\"value\":\"{value}\"}}\n");
        let many: String = (0..17).map(|n| output(&format!("n{n}"), "x")).collect();
        assert!(collect(&[many.as_bytes()]).1.unwrap_err().contains("more than 16"));
        assert!(collect(&[output("a", &"x".repeat(1025)).as_bytes()]).1.unwrap_err().contains("1025 bytes"));
        assert!(collect(&[output("a b", "x").as_bytes()]).1.unwrap_err().contains("output name"));
        assert!(collect(&[&vec![b'x'; 5 << 20]]).1.unwrap_err().contains("to stdout"));
        assert!(collect(&[output("a", &"x".repeat(1024)).as_bytes()]).1.is_ok());
        let (lines, outputs) = collect(&["x".repeat(MAX_LINE).as_bytes(), b"secret\nnext\n"]);
        assert!(
            matches!(lines.as_slice(), [Line::Text(left_out), Line::Text(next)]
            if left_out.contains("left out") && !left_out.contains("secret") && next == "next"),
            "{lines:?}"
        );
        assert_eq!(outputs, Ok(BTreeMap::new()));
    }

    #[test]
    fn what_a_server_remembers_has_the_same_bounds() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(bounded(one("port", "6379")), Ok(one("port", "6379")));
        assert!(bounded(one("a b", "x")).unwrap_err().contains("output name"));
        assert!(bounded(one("a", &"x".repeat(1025))).unwrap_err().contains("1025 bytes"));
        let many = (0..17).map(|number| (format!("n{number}"), String::new())).collect();
        assert!(bounded(many).unwrap_err().contains("more than 16"));
    }
}
