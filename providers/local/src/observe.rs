//! Observe: wait until the machine runs and answers, or is seen to be gone. Changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;
use tokio::time::Instant;

use crate::errors::Failure;
use crate::names::Machine;
use crate::pods::{Complaint, complaint, has_ended, host_key, is_terminating, ready_address};
use crate::site::{Patience, Site, SiteError};

/// How long the machine must be absent until it is believed gone.
const GONE_AFTER: Duration = Duration::from_secs(3);
/// How long a complaint that somebody must act on is watched before the run ends with its words. The step's retry
/// looks again; the words are in status meanwhile.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Why the machine could not be observed running, nor gone.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A call failed.
    #[error(transparent)]
    CallSite(#[from] SiteError),
    /// Scheduler or kubelet say what is wrong.
    #[error("pod {pod} does not start: {reason}: {message}")]
    StartPod {
        /// Name of the pod.
        pod: String,
        /// Their reason.
        reason: String,
        /// Their words.
        message: String,
    },
    /// Nothing is wrong, it is only slow.
    #[error("pod {pod} is not ready yet: {phase}")]
    AwaitReady {
        /// Name of the pod.
        pod: String,
        /// Where it stands.
        phase: String,
    },
}

impl Failure for ObserveError {
    fn class(&self) -> FailureClass {
        match self {
            ObserveError::CallSite(error) => error.class(),
            ObserveError::StartPod { .. } | ObserveError::AwaitReady { .. } => FailureClass::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            ObserveError::CallSite(error) => error.reason(),
            ObserveError::StartPod { .. } => "ServerNotStarting",
            ObserveError::AwaitReady { .. } => "ServerNotReady",
        }
    }

    fn retry_after_seconds(&self) -> Option<i64> {
        match self {
            ObserveError::CallSite(error) => error.retry_after_seconds(),
            _ => None,
        }
    }
}

/// Waits until the pod of this machine is ready (`state=Running`, `address`, `hostKey`) or gone (`state=Gone`).
///
/// # Errors
/// [`ObserveError`] with the words of scheduler or kubelet where it starts neither now nor soon.
pub async fn observe(site: &Site, machine: &Machine, patience: &mut Patience) -> Result<StepResult, ObserveError> {
    let selector = machine.server_selector();
    let mut absent_since = None;
    let mut stuck_since = None;
    loop {
        let pods = site.list_pods(&selector).await?;
        let now = Instant::now();
        // An ended pod never runs again: the machine is as gone as an absent one.
        let Some(pod) = pods.iter().find(|pod| !has_ended(pod)) else {
            if now.duration_since(*absent_since.get_or_insert(now)) >= GONE_AFTER {
                return Ok(gone(&pods));
            }
            // Out of time with one look only is no absence; the next run looks again.
            if !patience.pause().await {
                return Err(not_ready(machine.pod_name(), "absent"));
            }
            continue;
        };
        absent_since = None;
        if let Some(address) = ready_address(pod) {
            return Ok(running(machine, pod, address));
        }
        let trouble = complaint(pod);
        if trouble.as_ref().is_some_and(|trouble| trouble.stuck) {
            if now.duration_since(*stuck_since.get_or_insert(now)) >= STUCK_AFTER {
                return Err(given_up(pod, trouble));
            }
        } else {
            stuck_since = None;
        }
        if !patience.pause().await {
            return Err(given_up(pod, trouble));
        }
    }
}

fn running(machine: &Machine, pod: &Pod, address: &str) -> StepResult {
    let mut outputs =
        BTreeMap::from([("state".to_owned(), "Running".to_owned()), ("address".to_owned(), address.to_owned())]);
    if let Some(key) = host_key(pod) {
        outputs.insert("hostKey".to_owned(), key.to_owned());
    }
    StepResult::succeeded(outputs).with_external_id(machine.external_id())
}

fn gone(ended: &[Pod]) -> StepResult {
    let mut result = StepResult::succeeded(BTreeMap::from([("state".to_owned(), "Gone".to_owned())]));
    if let Some(Complaint { reason, message, .. }) = ended.first().and_then(complaint) {
        result.message = provisioning_sdk::result::tail(
            &format!("the machine ended: {reason}: {message}"),
            provisioning_api::names::MAX_STEP_MESSAGE,
        );
    }
    result
}

fn given_up(pod: &Pod, trouble: Option<Complaint>) -> ObserveError {
    match trouble {
        Some(Complaint { reason, message, .. }) => ObserveError::StartPod { pod: pod.name_any(), reason, message },
        None if is_terminating(pod) => not_ready(pod.name_any(), "terminating"),
        None => not_ready(pod.name_any(), crate::pods::phase(pod)),
    }
}

fn not_ready(pod: String, phase: &str) -> ObserveError {
    ObserveError::AwaitReady { pod, phase: if phase.is_empty() { "no word from a node yet" } else { phase }.to_owned() }
}
