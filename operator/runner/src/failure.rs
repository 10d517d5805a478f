//! Every way to fail, and what it means for the step (protocols §4).

use std::error::Error;

use provisioning_api::steps::FailureClass;
use provisioning_extensions::BundleError;
use provisioning_sdk::executor::claim_failure;
use provisioning_sdk::result::StepResult;

use crate::server::ServerError;
use crate::ssh::SshError;

/// Reason of a run that met another machine than the one it was meant for.
pub const HOST_KEY_MISMATCH: &str = "HostKeyMismatch";
const NOT_READY: &str = "ServerNotReady";
/// Wait before it is seen whether a Secret has come, seconds: long enough for a Job each time, and nobody has to ask for it.
const SECRET_WAIT: i64 = 120;
const NO_SPACE: &str = "No space left on device";

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// On the way to the server, or there.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The mounted bundle is none.
    #[error("failed to read the mounted bundle")]
    Bundle(#[from] BundleError),
    /// The mounted bundle is another one.
    #[error("the mounted bundle has digest {found}, the request says {expected}")]
    DigestMismatch {
        /// Digest that was computed.
        found: String,
        /// Digest in the request.
        expected: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// A later run or leader was on the server.
    #[error("{0}")]
    Superseded(String),
    /// The server has not finished booting.
    #[error("{server} has not finished booting: systemd says {state:?}")]
    NotBooted {
        /// Name of the Server.
        server: String,
        /// What systemd says.
        state: String,
    },
    /// The deadline is near and the script has not ended.
    #[error("{script} has not ended within {seconds} s on {server}; its effect is unknown{}", .last.as_deref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    Deadline {
        /// Path of the script.
        script: String,
        /// The step's timeout.
        seconds: i64,
        /// Name of the Server.
        server: String,
        /// The script's last progress.
        last: Option<String>,
    },
    /// A Secret that the spec refers to is not there.
    #[error("spec.secretParameters.{parameter}: there is no Secret '{secret}' with key '{key}' in this namespace")]
    MissingSecret {
        /// Which parameter.
        parameter: String,
        /// Name of the Secret.
        secret: String,
        /// Key in it.
        key: String,
    },
    /// A value that no script can be told.
    #[error("spec.secretParameters.{parameter}: the value in Secret '{secret}' is no UTF-8 text of at most 16 KiB")]
    BadSecret {
        /// Which parameter.
        parameter: String,
        /// Name of the Secret.
        secret: String,
    },
    /// The script's unit ended without an exit code, again and again.
    #[error("the script's unit ended {0} times without an exit code (a reboot, or killed)")]
    Interrupted(u32),
    /// The script failed.
    #[error("exit code {code}: {words}")]
    Script {
        /// Exit code.
        code: i32,
        /// Its last words on stderr, in one line.
        words: String,
    },
    /// What the script reported breaks a limit.
    #[error("{0}")]
    BadOutput(String),
}

impl Failure {
    /// Whether the session broke in the middle of something: a new one goes on where it was.
    pub fn is_lost_connection(&self) -> bool {
        matches!(self, Failure::Server(ServerError::Ssh(SshError::Lost { .. })))
    }

    /// Whether the server could not do something of ours that it may be able to do in a moment (it is rebooting, say).
    pub fn is_server_not_ready(&self) -> bool {
        self.to_result().reason == NOT_READY
    }

    /// The result of the run.
    pub fn to_result(&self) -> StepResult {
        use FailureClass::{Infrastructure, Invalid, Refused, ScriptFailed, Timeout, Transient, Unauthorized};
        let (class, reason) = match self {
            Failure::Server(error) => match error {
                ServerError::Claim(error) => return claim_failure(error),
                ServerError::Ssh(error) => match error {
                    SshError::ReadKey { .. } => (Invalid, "BadKey"),
                    SshError::ParseHostKey(_) => (Invalid, "BadRequest"),
                    SshError::HostKeyMismatch { .. } => (Invalid, HOST_KEY_MISMATCH),
                    SshError::Unauthorized { .. } => (Unauthorized, "AuthenticationRefused"),
                    SshError::Unreachable { .. } => (Transient, "Unreachable"),
                    SshError::Lost { .. } => (Transient, "ConnectionLost"),
                },
                // A full disk needs a person; all else that our few commands meet passes with a reboot or a retry.
                ServerError::Command { stderr, .. } if stderr.contains(NO_SPACE) => (ScriptFailed, "DiskFull"),
                ServerError::Command { .. } | ServerError::Conflict | ServerError::ParseAnswer { .. } => {
                    (Transient, NOT_READY)
                }
                ServerError::ParseMarker { .. } => (Invalid, "BadMarker"),
                ServerError::ReadNu { .. } => (Infrastructure, "NoNu"),
            },
            Failure::Bundle(_) => (Invalid, "BadBundle"),
            Failure::DigestMismatch { .. } => (Invalid, "DigestMismatch"),
            Failure::BadRequest(_) => (Invalid, "BadRequest"),
            // It may be created after the object that refers to it, however late.
            Failure::MissingSecret { .. } => (Unauthorized, "MissingSecret"),
            Failure::BadSecret { .. } => (Invalid, "BadSecret"),
            Failure::Superseded(_) => (Refused, "Superseded"),
            Failure::NotBooted { .. } => (Transient, "NotBooted"),
            Failure::Deadline { .. } => (Timeout, "DeadlineExceeded"),
            Failure::Interrupted(_) => (ScriptFailed, "Interrupted"),
            Failure::Script { words, .. } if words.contains(NO_SPACE) => (ScriptFailed, "NoSpace"),
            Failure::Script { .. } => (ScriptFailed, "ScriptFailed"),
            Failure::BadOutput(_) => (Invalid, "BadOutput"),
        };
        let retry_after_seconds = matches!(self, Failure::MissingSecret { .. }).then_some(SECRET_WAIT);
        StepResult { retry_after_seconds, ..StepResult::failed(class, reason, &self.words()) }
    }

    /// The error and its causes in one line.
    fn words(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}

/// The last words of a script's stderr in one line of at most `max` bytes: whole lines where the last one fits, and
/// without the frames that `nu` draws.
pub fn last_words(stderr: &str, max: usize) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(|line| line.trim().trim_start_matches("Error: nu::shell::error").trim_start_matches("x ").trim())
        .filter(|line| !line.is_empty() && !is_frame(line))
        .collect();
    let words = join_last(&lines, max);
    if stderr.contains(NO_SPACE) && !words.contains(NO_SPACE) {
        return format!("{NO_SPACE}; {}", join_last(&lines, max.saturating_sub(NO_SPACE.len() + 2)));
    }
    words
}

fn join_last(lines: &[&str], max: usize) -> String {
    let Some((last, earlier)) = lines.split_last() else {
        return String::new();
    };
    let mut words = provisioning_sdk::result::tail(last, max);
    for line in earlier.iter().rev() {
        if line.len() + 2 + words.len() > max {
            break;
        }
        words = format!("{line}; {words}");
    }
    words
}

/// A line of source code, or a mark below one, that `nu` shows with an error.
fn is_frame(line: &str) -> bool {
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    line.starts_with(",-[")
        || line.starts_with("`--")
        || line.starts_with(':')
        || (numbered.len() < line.len() && numbered.starts_with('|'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_cause() {
        let apt = "Reading package lists...\nE: Unable to locate package nosuch\n";
        assert_eq!(last_words(apt, 200), "Reading package lists...; E: Unable to locate package nosuch");
        assert_eq!(last_words(apt, 40), "E: Unable to locate package nosuch");
        assert_eq!(last_words(apt, 20), "…te package nosuch");
        let nu = concat!(
            "Error: nu::shell::error\n\n  x port 0 is not between 1 and 65535\n",
            "   ,-[/x/install.nu:1:36]\n 1 | def main [request: path] {\n   :      ^^^|^^\n   :         `-- here\n   `----\n"
        );
        assert_eq!(last_words(nu, 200), "port 0 is not between 1 and 65535");
    }

    #[test]
    fn a_full_disk_is_said_even_where_it_is_not_last() {
        let stderr = format!("dpkg: write: {NO_SPACE}\n{}", "E: Sub-process returned an error\n".repeat(20));
        let words = last_words(&stderr, 200);
        assert!(words.starts_with(NO_SPACE) && words.len() <= 200, "{words}");
        let failure = Failure::Script { code: 1, words };
        let result = failure.to_result();
        assert_eq!((result.class, result.reason.as_str()), (Some(FailureClass::ScriptFailed), "NoSpace"));
        assert!(result.message.starts_with("exit code 1: No space left on device"), "{}", result.message);
    }

    #[test]
    fn our_own_files_on_a_full_disk_need_a_person() {
        let error = ServerError::Command { action: "write x".into(), code: 1, stderr: format!("cat: {NO_SPACE}") };
        let result = Failure::from(error).to_result();
        assert_eq!((result.class, result.reason.as_str()), (Some(FailureClass::ScriptFailed), "DiskFull"));
        assert!(result.message.contains(NO_SPACE));
    }
}
