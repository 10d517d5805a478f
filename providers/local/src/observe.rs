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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::errors::to_result;
    use crate::template;
    use crate::testing::{FakeSite, Fault, machine};

    async fn run(site: &FakeSite, fault: Option<Fault>) -> Result<StepResult, ObserveError> {
        let process = site.start(fault).await;
        observe(&process, &machine("blue-heron", 0), &mut Patience::new(120)).await
    }

    fn with_pod(status: Value) -> FakeSite {
        let site = FakeSite::new();
        site.with(|world| world.site.server_status = Some(status));
        let pod = template::server(&machine("blue-heron", 0), "blue-heron", "ssh-ed25519 KEY", "/disks").unwrap();
        site.add_pod(serde_json::to_value(&pod).unwrap(), json!({"phase": "Pending"}));
        site
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_machine_is_reported_with_address_and_key() {
        let site = with_pod(json!({"phase": "Running", "podIP": "10.9.8.7",
            "conditions": [{"type": "Ready", "status": "True"}]}));
        let outputs = run(&site, None).await.unwrap().outputs;
        let expected = [("address", "10.9.8.7"), ("hostKey", "ssh-ed25519 KEY"), ("state", "Running")];
        assert_eq!(outputs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_absent_for_seconds_or_evicted_is_gone() {
        let began = Instant::now();
        let result = run(&FakeSite::new(), None).await.unwrap();
        assert_eq!(result.outputs["state"], "Gone");
        assert!(began.elapsed() >= GONE_AFTER);
        let evicted = with_pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        let result = run(&evicted, None).await.unwrap();
        assert_eq!(result.outputs["state"], "Gone");
        assert!(result.message.contains("Evicted: low on memory"), "{}", result.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_is_no_absence() {
        let error = run(&FakeSite::new(), Some(Fault::Answer(1, 500))).await.unwrap_err();
        assert_eq!(error.class(), FailureClass::Transient);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_cannot_start_is_told_in_the_kubelet_s_words_before_the_deadline() {
        let site = with_pod(json!({"phase": "Pending", "initContainerStatuses": [{"name": "fill", "image": "i",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull",
            "message": "image localhost/x is not present"}}}]}));
        let began = Instant::now();
        let result = to_result(&run(&site, None).await.unwrap_err());
        assert_eq!((result.class, result.reason.as_str()), (Some(FailureClass::Transient), "ServerNotStarting"));
        assert!(result.message.contains("ErrImagePull: image localhost/x is not present"), "{}", result.message);
        assert!(began.elapsed() < Duration::from_secs(40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_machine_gets_all_the_time_there_is() {
        let site = with_pod(json!({"phase": "Running", "podIP": "10.9.8.7"}));
        let began = Instant::now();
        let error = run(&site, None).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (FailureClass::Transient, "ServerNotReady"));
        assert!(began.elapsed() >= Duration::from_secs(100));
    }
}
