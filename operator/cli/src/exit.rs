//! Exit codes: the same for all commands.

use std::process::ExitCode;

/// Something failed; standard error says what, and the way out.
pub(crate) const FAILED: ExitCode = ExitCode::FAILURE;

/// The question was answered, and the answer is no: not running, not healthy, not ready.
pub(crate) fn negative() -> ExitCode {
    ExitCode::from(3)
}

/// Shown below every `--help`.
pub(crate) const HELP: &str =
    "Exit codes: 0 done (or already so), 1 failed, 2 wrong usage, 3 asked and the answer is no";
