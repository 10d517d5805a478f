//! A provider's process: started with exactly what an operator's Pod gives it, ended by its own will or by ours, and
//! judged by what it left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provisioning_api::names::{
    MAX_EXTERNAL_ID, MAX_OUTPUT, MAX_OUTPUT_COUNT, MAX_REASON, MAX_RESULT, MAX_STEP_MESSAGE,
};
use provisioning_sdk::request::{ENV_JOB_NAME, ENV_POD_UID, ENV_REQUEST, ENV_TERMINATION_LOG};
use provisioning_sdk::result::StepResult;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// What a process may take beyond its deadline until it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// What the kubelet leaves a Pod between SIGTERM and SIGKILL (`terminationGracePeriodSeconds` of an executor).
const TERMINATION: Duration = Duration::from_secs(2);
/// Largest output that is read, bytes: a process that writes more is judged by its beginning.
const MAX_OUTPUT_READ: usize = 1 << 20;

/// The program under test.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Path of the binary.
    pub program: PathBuf,
    /// Arguments; the operator gives none.
    pub arguments: Vec<String>,
}

/// How a process is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ends by itself.
    ByItself,
    /// SIGKILL when the planned call has arrived.
    Kill,
    /// SIGTERM when the planned call has arrived, SIGKILL two seconds later.
    Terminate,
}

/// What is put into the environment.
pub(crate) struct Start<'a> {
    pub(crate) provider: &'a Provider,
    /// Working directory; the termination message is written there too.
    pub(crate) folder: &'a Path,
    /// The request; `None`: the variable is not set.
    pub(crate) request: Option<OsString>,
    pub(crate) job: &'a str,
    /// The Pod's uid; `None`: the variable is not set.
    pub(crate) pod: Option<&'a str>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) deadline: Duration,
    pub(crate) end: End,
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Run {
    /// The termination message, decoded.
    pub(crate) result: Option<StepResult>,
    /// The termination message.
    pub(crate) text: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// It ended by itself, within its deadline.
    pub(crate) by_itself: bool,
}

/// Starts the provider and waits for its end.
pub(crate) async fn start(start: Start<'_>, reached: &Notify) -> Result<Run, String> {
    let path = |name: &str| start.folder.join(name);
    let create =
        |name: &str| std::fs::File::create(path(name)).map_err(|error| format!("failed to create {name}: {error}"));
    // The kubelet makes the file; a provider only opens it.
    drop(create("termination-log")?);
    let mut command = Command::new(&start.provider.program);
    command.args(&start.provider.arguments).current_dir(start.folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(create("stdout")?).stderr(create("stderr")?);
    command.env(ENV_JOB_NAME, start.job).env(ENV_TERMINATION_LOG, path("termination-log"));
    if let Some(request) = &start.request {
        command.env(ENV_REQUEST, request);
    }
    if let Some(pod) = start.pod {
        command.env(ENV_POD_UID, pod);
    }
    command.envs(start.environment.iter().map(|(name, value)| (name, value)));
    let mut child =
        command.spawn().map_err(|error| format!("failed to start {}: {error}", start.provider.program.display()))?;
    let (status, by_itself) =
        end(&mut child, &start, reached).await.map_err(|error| format!("failed to wait: {error}"))?;
    let text = read(&path("termination-log"));
    Ok(Run {
        result: serde_json::from_str(&text).ok(),
        text,
        status,
        stdout: read(&path("stdout")),
        stderr: read(&path("stderr")),
        by_itself,
    })
}

async fn end(child: &mut Child, start: &Start<'_>, reached: &Notify) -> std::io::Result<(ExitStatus, bool)> {
    let limit = start.deadline + GRACE;
    let began = Instant::now();
    if start.end != End::ByItself {
        tokio::select! {
            status = child.wait() => return Ok((status?, true)),
            () = reached.notified() => {}
            () = tokio::time::sleep(limit) => {}
        }
        if start.end == End::Terminate && began.elapsed() < limit {
            if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                kill(Pid::from_raw(id), Signal::SIGTERM)?;
            }
            if let Ok(status) = tokio::time::timeout(TERMINATION, child.wait()).await {
                return Ok((status?, false));
            }
        }
    } else if let Ok(status) = tokio::time::timeout(limit, child.wait()).await {
        return Ok((status?, true));
    }
    child.kill().await?;
    Ok((child.wait().await?, false))
}

fn read(path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_OUTPUT_READ);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What every process has to keep, whatever it was asked: (id of the check, what was seen).
pub(crate) fn inspect(run: &Run, end: End, secrets: &[String]) -> Vec<(&'static str, String)> {
    let mut seen = Vec::new();
    if run.by_itself || end == End::ByItself {
        seen.extend(judge_result(run).err().map(|text| ("result", text)));
    }
    seen.extend(judge_progress(run).err().map(|text| ("progress", text)));
    for secret in secrets {
        let places = [("standard output", &run.stdout), ("standard error", &run.stderr), ("the result", &run.text)];
        for (place, text) in places {
            if text.contains(secret.as_str()) {
                // The secret itself stays out of the report.
                seen.push(("secrets", format!("{place} holds a secret of {} characters", secret.len())));
            }
        }
    }
    seen
}

fn judge_result(run: &Run) -> Result<(), String> {
    if run.stderr.contains("panicked at") {
        return Err(format!("the process panicked: {}", first_line(&run.stderr)));
    }
    if !run.by_itself {
        return Err(format!("the process still ran {} s after its deadline", GRACE.as_secs()));
    }
    if run.text.len() > MAX_RESULT {
        return Err(format!("the result has {} bytes; at most {MAX_RESULT} are kept", run.text.len()));
    }
    let value: Value = serde_json::from_str(&run.text)
        .map_err(|error| format!("the result is not one JSON object: {error}: {:?}", first_line(&run.text)))?;
    let result: StepResult =
        serde_json::from_value(value).map_err(|error| format!("the result cannot be read: {error}"))?;
    let code = run.status.code();
    let expected = i32::from(result.class.is_some());
    if code != Some(expected) {
        return Err(format!("exit code {code:?} with class {:?}; expected {expected}", result.class));
    }
    let camel = result.reason.starts_with(|first: char| first.is_ascii_uppercase())
        && result.reason.chars().all(|letter| letter.is_ascii_alphanumeric());
    if !camel || result.reason.len() > MAX_REASON {
        return Err(format!("reason {:?} is no constant in CamelCase of at most {MAX_REASON} letters", result.reason));
    }
    if result.message.len() > MAX_STEP_MESSAGE {
        return Err(format!("the message has {} bytes; at most {MAX_STEP_MESSAGE}", result.message.len()));
    }
    if result.class.is_some() && result.message.is_empty() {
        return Err(format!("a failure ({}) without words", result.reason));
    }
    if result.external_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_EXTERNAL_ID) {
        return Err(format!("externalID has 0 or more than {MAX_EXTERNAL_ID} bytes"));
    }
    // A list or a catalog is read by the operator itself and may fill the result; what goes into status may not.
    let long = |value: &&String| value.len() > MAX_OUTPUT && !value.starts_with('[');
    if result.outputs.len() > MAX_OUTPUT_COUNT || result.outputs.values().any(|value| long(&value)) {
        return Err(format!("more than {MAX_OUTPUT_COUNT} outputs, or one of more than {MAX_OUTPUT} bytes"));
    }
    Ok(())
}

fn judge_progress(run: &Run) -> Result<(), String> {
    // The last line of a process that was killed may be half a line.
    let whole = run.stdout.rfind('\n').map_or("", |end| &run.stdout[..end]);
    for line in whole.lines() {
        if !serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object()) {
            return Err(format!("a line of standard output is no JSON object: {:?}", cut(line)));
        }
    }
    Ok(())
}

fn first_line(text: &str) -> String {
    cut(text.lines().next().unwrap_or_default())
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Whether the process was ended by a signal.
pub(crate) fn signalled(status: ExitStatus) -> bool {
    status.code().is_none()
}
