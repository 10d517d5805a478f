//! The life of an executor: read the request, claim, act within the deadline, leave a result.

use std::env;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use kube::{Client, Config};
use provisioning_api::steps::FailureClass;
use serde::de::DeserializeOwned;

use crate::claim::{Claim, ClaimError, Identity};
use crate::request::{ENV_JOB_NAME, ENV_POD_UID, ENV_REQUEST, ENV_TERMINATION_LOG, Envelope, deadline};
use crate::result::StepResult;
use crate::words::words;

/// Where the kubelet reads the termination message.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What an executor gets to work with.
pub struct Context {
    /// Client with the executor's own ServiceAccount.
    pub client: Client,
    /// The held claim; confirm it before every mutating call.
    pub claim: Claim,
}

/// Runs one executor from start to exit. Exit code 0: succeeded; 1: the result says what failed.
///
/// `execute` is dropped at the deadline (class Timeout: its effect is then unknown).
pub async fn run<P, F, Fut>(execute: F) -> ExitCode
where
    P: DeserializeOwned,
    F: FnOnce(Context, Envelope<P>) -> Fut,
    Fut: Future<Output = StepResult>,
{
    tracing_subscriber::fmt().json().flatten_event(true).with_target(false).init();
    let result = attempt(execute).await;
    match &result.class {
        None => tracing::info!(reason = result.reason, "succeeded"),
        Some(class) => tracing::error!(?class, reason = result.reason, "{}", result.message),
    }
    let file = env::var_os(ENV_TERMINATION_LOG).map_or_else(|| PathBuf::from(TERMINATION_LOG), PathBuf::from);
    if let Err(error) = std::fs::write(file, result.to_termination_message()) {
        tracing::error!(%error, "failed to write the termination message");
        return ExitCode::from(2);
    }
    if result.class.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn attempt<P, F, Fut>(execute: F) -> StepResult
where
    P: DeserializeOwned,
    F: FnOnce(Context, Envelope<P>) -> Fut,
    Fut: Future<Output = StepResult>,
{
    let (envelope, identity) = match read_environment::<P>() {
        Ok(read) => read,
        Err(message) => return StepResult::failed(FailureClass::Invalid, "BadRequest", &message),
    };
    let deadline = deadline(envelope.timeout_seconds);
    let work = async {
        // The one crypto provider; an error here means that it is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = match client().await {
            Ok(client) => client,
            Err(why) => {
                return StepResult::failed(FailureClass::Infrastructure, "NoClient", &format!("no API server: {why}"));
            }
        };
        match Claim::acquire(client.clone(), &envelope, &identity).await {
            Ok(claim) => execute(Context { client, claim }, envelope).await,
            Err(error) => StepResult { harmless: true, ..claim_failure(&error) },
        }
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => StepResult::failed(
            FailureClass::Timeout,
            "DeadlineExceeded",
            &format!("not done within {} s; the effect is unknown", deadline.as_secs()),
        ),
    }
}

/// The client of this Pod's account.
async fn client() -> Result<Client, String> {
    let mut config = Config::infer().await.map_err(|error| error.to_string())?;
    // The client would repeat what is answered with 429, 503 or 504 for minutes, and so keep from the operator that it
    // is asked to slow down, and send a change long after the claim was looked at.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| error.to_string())
}

/// Result of a run that may not act, or could not ask.
pub fn claim_failure(error: &ClaimError) -> StepResult {
    match error {
        ClaimError::Refused(why) => StepResult::failed(FailureClass::Refused, "ClaimRefused", why),
        ClaimError::Request { .. } => StepResult::failed(FailureClass::Transient, "ClaimUnanswered", &words(error)),
    }
}

fn read_environment<P: DeserializeOwned>() -> Result<(Envelope<P>, Identity), String> {
    let read = |name: &str| env::var(name).map_err(|_| format!("environment variable {name} is not set"));
    let envelope =
        serde_json::from_str(&read(ENV_REQUEST)?).map_err(|error| format!("{ENV_REQUEST} cannot be read: {error}"))?;
    let identity = Identity { job_name: read(ENV_JOB_NAME)?, pod_uid: read(ENV_POD_UID)? };
    Ok((envelope, identity))
}
