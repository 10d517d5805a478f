//! The table of what users are told about bad input, from the real objects: `target/bad-input.txt`.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};

/// One case: what was wrong, which object says so, and how.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was wrong.
    pub case: String,
    /// Kind and name of the object that tells.
    pub object: String,
    /// Reason and, where a step failed, class.
    pub reason: String,
    /// Path of the field or id of the step that is meant.
    pub field: String,
    /// The words.
    pub message: String,
}

impl Row {
    /// Adds it to the table.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self) -> Result<()> {
        let Row { case, object, reason, field, message } = self;
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let file = crate::repository().join("target/bad-input.txt");
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        // One write, so that lines of tests that run side by side stay whole.
        let line = format!("{case} | {object} | {reason} | {field} | {words}\n");
        opened.and_then(|mut file| file.write_all(line.as_bytes())).with_context(|| format!("{}", file.display()))
    }
}
