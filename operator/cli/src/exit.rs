//! Exit codes: the same for all commands.

use std::process::ExitCode;

/// Something failed; standard error says what, and the way out.
pub(crate) const FAILED: ExitCode = ExitCode::FAILURE;

/// The question was answered, and the answer is no: not running, not healthy, not ready.
pub(crate) fn negative() -> ExitCode {
    Exit::No.into()
}

/// What a script can tell apart. 2 is also what wrong usage ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    No = 3,
    Timeout = 4,
    Refused = 5,
    Unreachable = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Shown below `--help` of the program and of its groups.
pub(crate) const HELP: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found or the answer is no, 4 timeout, 5 refused, 6 no cluster";

/// What `provisioning exit-codes` prints.
pub(crate) const PAGE: &str = "\
CODE  MEANING
0     Done, or already so.
1     Failed: an object is Stalled while somebody waits for it, a log can't be read, the output can't be written, an
      unexpected error.
      Of diff: something differs; what is 1 elsewhere is 2 there.
2     Wrong usage: an unknown flag, kind or step; a file or folder that is not valid (nothing was applied then).
3     Not found, or asked and the answer is no: no such object, workspace or extension, platform not running.
4     The time of --timeout passed.
5     The API server refused at least one object (create: it is there already), or a version of an extension is
      there with another content; standard error has every field and why.
6     No reachable cluster; standard error lists what was tried.
130   Interrupted.

Of several objects the first that is not 0 counts; all of them are tried.
";
