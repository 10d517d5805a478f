//! (pure) Lines of an executor's log: JSON for machines, text for people.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use crate::output::{Colour, Style};
use crate::safe::{one_line, visible};
use crate::times::clock;

/// A line as people read it: time, level if it matters, message, and the fields. What is no JSON stays as it is. Further
/// lines of a message are indented, so that none looks like one of the log's own.
pub(crate) fn readable(line: &str, style: Style) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else { return visible(line) };
    let mut take = |name: &str| fields.remove(name).map(plain);
    let time = take("timestamp").map(|time| time.parse::<Timestamp>().map_or_else(|_| one_line(&time), clock));
    let (level, message) = (one_line(&take("level").unwrap_or_default()), take("message"));
    let mut text = time.map_or_else(String::new, |time| format!("{} ", style.paint(Colour::Dim, &time)));
    match level.as_str() {
        "" | "INFO" | "DEBUG" | "TRACE" => {}
        "WARN" => drop(write!(text, "{} ", style.paint(Colour::Yellow, &level))),
        _ => drop(write!(text, "{} ", style.paint(Colour::Red, &level))),
    }
    text.push_str(&visible(&message.unwrap_or_default()).replace('\n', "\n  "));
    // Spans say where it happened: inside an executor that is always the same place.
    for (name, value) in fields.into_iter().filter(|(name, _)| name != "span" && name != "spans" && name != "target") {
        let (name, value) = (one_line(&name), one_line(&plain(value)));
        let value = if value.contains(' ') || value.is_empty() { format!("{value:?}") } else { value };
        let _ = write!(text, " {}", style.paint(Colour::Dim, &format!("{name}={value}")));
    }
    text
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_text_and_text_stays() {
        let read = |line: &str| readable(line, Style::PLAIN);
        assert_eq!(read("plain words"), "plain words");
        let line = r#"{"timestamp":"x","level":"ERROR","message":"failed","reason":"NoZone","error":"no such zone"}"#;
        assert_eq!(read(line), "x ERROR failed error=\"no such zone\" reason=NoZone");
        assert_eq!(read(r#"{"level":"INFO","message":"installing","span":{"name":"run"}}"#), "installing");
        let timed = read(r#"{"timestamp":"2026-05-04T10:00:00.123456Z","level":"INFO","message":"m"}"#);
        assert!(timed.ends_with(":00 m") && timed.len() == 10, "{timed}");
        let evil = r#"{"message":"a\nb\u001b[2J","\u001b":"c\u0007","level":"\u009b"}"#;
        assert_eq!(read(evil), "\\u{9b} a\n  b^[[2J ^[=c^G");
        assert_eq!(read("plain\u{1b}[31m"), "plain^[[31m");
        // A field called message, as tracing writes it beside the event's own: the last one counts.
        assert_eq!(read(r#"{"message":"failed","message":"why"}"#), "why");
    }
}
