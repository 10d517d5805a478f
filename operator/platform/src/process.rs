//! Processes by identity: a pid alone says nothing, for the kernel gives it to somebody else later.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A process that can be told apart from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its pid, as seen from here.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_ticks: u64,
    /// The boot it belongs to: ticks begin anew with each.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// Who has this pid now; `None` if nobody, or only a zombie that waits for its parent.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot_id = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        (!stat.gone).then_some(Self { pid, start_ticks: stat.start_ticks, boot_id })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal if, and only if, the pid still belongs to this process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end between the check and this call; there is nothing left to signal then.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Asks the process to end, waits for `grace`, then kills it. True when it is gone.
    pub fn terminate(&self, grace: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        if self.wait_until_gone(grace) {
            return true;
        }
        self.signal(Signal::SIGKILL);
        self.wait_until_gone(Duration::from_secs(5))
    }

    /// Polls, for a process that is not our child can't be waited for. True when it is gone.
    pub fn wait_until_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Writes a pid file: pid, start and boot, one a line, so that `head -1` is what other tools expect.
pub(crate) fn write_pid_file(path: &Path, identity: &ProcessIdentity) -> Result<(), FileError> {
    let ProcessIdentity { pid, start_ticks, boot_id } = identity;
    files::write(path, format!("{pid}\n{start_ticks}\n{boot_id}\n").as_bytes(), 0o644)
}

/// The process a pid file names, if it still runs. A stale or broken file counts as no process.
pub(crate) fn read_pid_file(path: &Path) -> Option<ProcessIdentity> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.parse().ok()?;
    let start_ticks = lines.next()?.parse().ok()?;
    let boot_id = lines.next()?.to_owned();
    let identity = ProcessIdentity { pid, start_ticks, boot_id };
    identity.is_alive().then_some(identity)
}

/// A running process and what it was started as.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) identity: ProcessIdentity,
    pub(crate) executable: PathBuf,
    pub(crate) command_line: Vec<String>,
}

/// All processes of the machine whose executable can be read (kernel threads have none).
pub(crate) fn list() -> Vec<Listed> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some(Listed { identity: ProcessIdentity::of(pid)?, executable, command_line: words.collect() })
    })
    .collect()
}

struct Stat {
    gone: bool,
    start_ticks: u64,
}

/// Reads /proc/PID/stat. The command's name is in parentheses and may itself hold spaces and parentheses, so the fields are
/// counted from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let gone = matches!(*fields.first()?, "Z" | "X" | "x");
    // Field 22 of the whole line; the state, field 3, is the first here.
    Some(Stat { gone, start_ticks: fields.get(19)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "712 (odd) name (x) S 1 712 712 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 111 22 33";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = parse_stat(LINE).unwrap();
        assert_eq!(stat.start_ticks, 98765);
        assert!(!stat.gone);
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        assert!(parse_stat(&LINE.replace(") S ", ") Z ")).unwrap().gone);
    }

    #[test]
    fn a_recycled_pid_is_not_the_recorded_process() {
        let own = ProcessIdentity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        let earlier = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own.clone() };
        assert!(!earlier.is_alive());
        let other_boot = ProcessIdentity { boot_id: "another".to_owned(), ..own };
        assert!(!other_boot.is_alive());
    }

    #[test]
    fn a_pid_file_of_a_dead_process_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pid");
        let own = ProcessIdentity::of(std::process::id() as i32).unwrap();
        write_pid_file(&file, &own).unwrap();
        assert_eq!(read_pid_file(&file), Some(own.clone()));
        write_pid_file(&file, &ProcessIdentity { start_ticks: 1, ..own }).unwrap();
        assert_eq!(read_pid_file(&file), None);
        fs::write(&file, "not a pid").unwrap();
        assert_eq!(read_pid_file(&file), None);
    }
}
