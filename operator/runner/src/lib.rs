//! The program inside a taskserv's Job: reaches a server over SSH and runs a bundle's Nushell script there, so that
//! each script runs once however often connections, pods or the server itself are lost (protocols §2, §3).
//!
//! What is on a server, below `/var/lib/provisioning/`:
//! - `lib/DIGEST.sh`: the server's side of the runner (`helper.sh`)
//! - `bundles/DIGEST/…`: extension bundles, compared file by file before each use
//! - `OWNER-UID/STEP.json`: the marker of a step, written before a script starts and after it ended
//! - `OWNER-UID/STEP.lock`: held by the script's unit while it runs
//! - `OWNER-UID/STEP.run-N/`: `stdout` and `exit` of the last execution
//! - `runs.ndjson`: a line for each start and end of a script, written by the unit itself
//!
//! A script's request, which may hold secrets, and its stderr are in `/run/provisioning/`: the one so that it is never on a
//! disk, the other so that it can be read when the disk is full. `nu` is `/opt/provisioning/bin/nu`.
#![deny(missing_docs)]

pub mod events;
pub mod failure;
pub mod fence;
pub mod layout;
pub mod protocol;
pub mod quote;
pub mod reach;
pub mod script;
pub mod secrets;
pub mod server;
pub mod ssh;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioning_api::steps::FailureClass;
use provisioning_sdk::executor::Context;
use provisioning_sdk::request::{BUNDLE_FOLDER, Envelope, RunnerRequest, SECRETS_FOLDER, SSH_FOLDER};
use provisioning_sdk::result::StepResult;
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, HOST_KEY_MISMATCH};
use crate::fence::Fence;
use crate::layout::Layout;

/// Environment variable with the path of the `nu` that is brought to servers. Default: where the image has it.
pub const ENV_NU: &str = "PROVISIONING_NU";
const NU: &str = "/usr/local/bin/nu";

/// How long a server may take to answer at first.
const FIRST_CONTACT: Duration = Duration::from_secs(60);
/// Wait before a new session, and how often a server may be found not ready.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const NOT_READY_TRIES: u32 = 10;

/// Outputs of a step.
pub type Outputs = BTreeMap<String, String>;

/// Where things are. Tests use others than the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The workspace's private key.
    pub key: PathBuf,
    /// The mounted bundle.
    pub bundle: PathBuf,
    /// Where the secret parameters are mounted.
    pub secrets: PathBuf,
    /// The `nu` of this image.
    pub nu: PathBuf,
    /// Folders on the server.
    pub layout: Layout,
}

impl Settings {
    /// What the Pod template gives.
    pub fn from_environment() -> Self {
        Settings {
            key: Path::new(SSH_FOLDER).join("id_ed25519"),
            bundle: PathBuf::from(BUNDLE_FOLDER),
            secrets: PathBuf::from(SECRETS_FOLDER),
            nu: env::var_os(ENV_NU).map_or_else(|| PathBuf::from(NU), PathBuf::from),
            layout: Layout::default(),
        }
    }
}

/// Fulfils one request under the held claim.
pub async fn execute(mut context: Context, envelope: Envelope<RunnerRequest>) -> StepResult {
    run(&Settings::from_environment(), &mut context.claim, &envelope).await
}

/// Fulfils one request.
pub async fn run(settings: &Settings, fence: &mut impl Fence, envelope: &Envelope<RunnerRequest>) -> StepResult {
    // A little before the executor's own deadline, which would say less.
    let seconds = u64::try_from(envelope.timeout_seconds).unwrap_or(1);
    let deadline = Instant::now() + Duration::from_secs(seconds) - Duration::from_secs((seconds / 10).clamp(1, 5));
    let outcome = match &envelope.payload {
        RunnerRequest::Reach { target } => reach::run(settings, fence, target, deadline).await,
        RunnerRequest::Script(what) => script::run(settings, fence, envelope, what, deadline).await,
    };
    match outcome {
        Ok(outputs) => StepResult::succeeded(outputs),
        Err(failure) => {
            let mut result = failure.to_result();
            let is_script = matches!(envelope.payload, RunnerRequest::Script(_));
            // Addresses move when machines restart, and another machine may have this one now. The server's own steps
            // look at the address first, so there a wrong key is final; a script is tried again after such a look.
            if is_script && result.reason == HOST_KEY_MISMATCH {
                result.class = Some(FailureClass::Transient);
            }
            result
        }
    }
}

/// Repeats a whole attempt, which opens a session of its own, as long as its failure may pass.
///
/// The attempt gets the time until which it may try to connect.
async fn with_sessions<T>(
    deadline: Instant,
    mut attempt: impl AsyncFnMut(Instant) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut until = deadline.min(Instant::now() + FIRST_CONTACT);
    let mut not_ready = 0;
    loop {
        let failure = match attempt(until).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        not_ready += u32::from(failure.is_server_not_ready());
        let hopeless = !failure.is_lost_connection() && !failure.is_server_not_ready();
        if hopeless || not_ready >= NOT_READY_TRIES || Instant::now() + RETRY_PAUSE >= deadline {
            return Err(failure);
        }
        tracing::warn!(error = %failure, "trying again with a new session");
        sleep(RETRY_PAUSE).await;
        until = deadline;
    }
}
