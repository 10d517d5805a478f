//! Writing files so that a reader, or a crash, never meets half of one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of the instance could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}", path.display())]
pub struct FileError {
    /// What was tried: "read", "write", "create" …
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: std::io::Error,
}

/// Adds the path and the verb to an I/O error.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

/// Creates a directory and its parents.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(at("create", path))
}

/// Replaces `path` by `contents` in one step, with the given mode (0o600 for anything secret).
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    // A file left by a crash could carry another mode, and `mode` counts only at creation.
    let _ = fs::remove_file(&temporary);
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let mut file = open.map_err(at("create", &temporary))?;
    file.write_all(contents).map_err(at("write", &temporary))?;
    fs::rename(&temporary, path).map_err(at("replace", path))
}

/// Reads a file; `None` when there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Removes a file or a whole directory; it need not be there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}
