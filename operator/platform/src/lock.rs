//! One command at a time starts or stops an instance.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::files::{FileError, at, create_directory};

/// The lock can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command holds it.
    #[error(
        "failed to get {0}: another `provisioning platform` command has worked on this for {1} s; wait for it to end"
    )]
    Busy(String, u64),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
}

/// Held until dropped; the kernel frees it if the process is killed.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Takes a lock, waiting up to `limit` for whoever holds it.
pub(crate) fn lock(path: &Path, limit: Duration) -> Result<Lock, LockError> {
    if let Some(parent) = path.parent() {
        create_directory(parent)?;
    }
    // The descriptor is closed at exec, so the supervisor does not inherit the lock.
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(at("open", path))?;
    let deadline = Instant::now() + limit;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Lock(held)),
            Err((returned, _)) if Instant::now() < deadline => file = returned,
            Err(_) => return Err(LockError::Busy(path.display().to_string(), limit.as_secs())),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
