//! The logs of an instance's services.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{FileError, at};
use crate::instance::Instance;

/// How much of a log's end is looked at for its last lines.
const TAIL_BYTES: u64 = 4 << 20;
/// The same where a person is shown a few lines beside something else.
const EXCERPT_BYTES: u64 = 64 << 10;
/// How often a followed log is looked at.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// A log can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// No service of this name has written anything.
    #[error("failed to find a log of {name:?}; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard output can't be written, for another reason than that nobody reads it.
    #[error("failed to write")]
    Output(#[source] std::io::Error),
}

/// The names of the logs that an instance has, sorted.
pub fn log_names(instance: &Instance) -> Vec<String> {
    let entries = std::fs::read_dir(instance.logs()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The log file of a service, of `supervisor`, or of `audit`.
pub fn log_file(instance: &Instance, name: &str) -> Result<PathBuf, LogsError> {
    let known = log_names(instance);
    if known.iter().any(|other| other == name) {
        Ok(instance.logs().join(format!("{name}.log")))
    } else {
        Err(LogsError::Unknown { name: name.to_owned(), known })
    }
}

/// Writes the last `lines` lines of a file (of at most its last 4 MiB), and then, if `follow`, what is added, without end.
///
/// A reader that goes away (`| head`) ends it without an error. A log that was put aside is followed in its new file.
pub fn show(path: &Path, lines: usize, follow: bool, output: &mut dyn Write) -> Result<(), LogsError> {
    let mut file = File::open(path).map_err(at("read", path))?;
    let mut place = skip_to_tail(&mut file, TAIL_BYTES).map_err(at("read", path))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(at("read", path))?;
    place += text.len() as u64;
    if !write(last_lines(&text, lines), output)? {
        return Ok(());
    }
    loop {
        if !follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_PAUSE);
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() < place) {
            file = File::open(path).map_err(at("read", path))?;
            place = 0;
        }
        text.clear();
        file.read_to_end(&mut text).map_err(at("read", path))?;
        place += text.len() as u64;
        if !write(&text, output)? {
            return Ok(());
        }
    }
}

/// Skips all but the end, of so many bytes; returns how much that is.
fn skip_to_tail(file: &mut File, bytes: u64) -> std::io::Result<u64> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))
}

/// The last `lines` lines of a file (of at most its last 64 KiB), for an error; nothing where it can't be read.
pub(crate) fn excerpt(path: &Path, lines: usize) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        skip_to_tail(&mut file, EXCERPT_BYTES)?;
        file.take(EXCERPT_BYTES).read_to_end(&mut text)
    });
    let text = read.map(|_| String::from_utf8_lossy(last_lines(&text, lines)).into_owned()).unwrap_or_default();
    text.trim_end().to_owned()
}

/// False when nobody reads any more.
fn write(text: &[u8], output: &mut dyn Write) -> Result<bool, LogsError> {
    match output.write_all(text).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(LogsError::Output(error)),
    }
}

fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(position, _)| position + 1);
    match lines {
        0 => &[],
        _ => &text[breaks.take(lines).nth(lines - 1).unwrap_or(0)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_lines() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }

    #[test]
    fn of_a_long_log_its_end_is_read_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(excerpt(&log, 2), "");
        std::fs::write(&log, b"a\nb\xff\nc\n").unwrap();
        assert_eq!(excerpt(&log, 2), "b\u{fffd}\nc");
        std::fs::write(&log, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(excerpt(&log, 2).len() as u64, EXCERPT_BYTES);
    }
}
