//! Running the system's own programs (`ip`, `iptables`, `ctr` …) and saying clearly what failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A program of the system could not be run, or said no.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started at all.
    #[error("failed to run `{command}`")]
    Spawn {
        /// The command line as a person would type it.
        command: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The program ended with something else than 0.
    #[error("`{command}` failed ({status}): {stderr}")]
    Status {
        /// The command line as a person would type it.
        command: String,
        /// Exit code or signal.
        status: String,
        /// What it wrote to its standard error, trimmed.
        stderr: String,
    },
}

/// Runs `program` with `arguments` and returns what it wrote to standard output.
pub(crate) fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<String, CommandError> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(&mut command)
}

/// The same for a command that was put together by the caller (environment, directory).
pub(crate) fn run_command(command: &mut Command) -> Result<String, CommandError> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| CommandError::Spawn { command: shown.clone(), source })?;
    check(shown, output)
}

fn check(command: String, output: Output) -> Result<String, CommandError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(CommandError::Status { command, status: output.status.to_string(), stderr })
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Where `program` is: on PATH, or in the sbin directories that an unprivileged user's PATH lacks.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

/// Whether `file` is a regular file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
