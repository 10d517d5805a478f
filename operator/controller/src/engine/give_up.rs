//! Giving up a run (protocols §2): afterwards nobody can act for it any more.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use provisioning_api::names::{LABEL_MANAGED_BY, LABEL_OWNER_UID, MANAGER};
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_plan::observed::{Outcome, RunView};

use super::act::run_name;
use super::kind::Kind;
use super::observe::{executor_outcome, executor_view, overdue_at};
use super::runs::{Knowledge, RunKey};
use crate::context::Context;
use crate::error::Error;
use crate::executors::{Job, Pod};

/// A holder that was lost may still be inside a call: claim freshness and call limit together (protocols §2).
const HOLDER_LOSS: Duration = Duration::from_secs(90);
/// Holder of a Lease that the operator made to close a run.
const CLOSED_BY_OPERATOR: &str = "operator";

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The run is over; its outcome is known.
    Over,
    /// Somebody may still act; look again later.
    NotYet,
}

/// Tries to give up the open run of a step.
///
/// # Errors
/// Where the API server does not answer.
pub async fn give_up<K: Kind>(ctx: &Context, object: &K, step: &StepStatus) -> Result<GivenUp, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = run_name(object, step);
    let key: RunKey = (object.uid().unwrap_or_default(), step.id.clone(), step.run);
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let job = jobs.get_opt(&name).await.map_err(|source| Error::request("read", format!("Job {name}"), source))?;
    let pod = pods.get_opt(&name).await.map_err(|source| Error::request("read", format!("Pod {name}"), source))?;
    let ended = pod.as_ref().and_then(executor_outcome);
    if let Some(pod) = &pod
        && ended.is_none()
        && executor_view(pod) == RunView::Alive
        && ctx.now() < overdue_at(step, pod)
    {
        return Ok(GivenUp::NotYet);
    }
    if let Some(outcome) = ended.as_ref().filter(|outcome| outcome.class != Some(FailureClass::Refused)) {
        ctx.runs.set(key, Knowledge::Over(outcome.clone()));
        return Ok(GivenUp::Over);
    }
    let harmless = match close(ctx, object, &name).await? {
        Closed::ByUs => true,
        // The holder itself has ended, refused: it held the claim and was told no.
        Closed::HeldBy(holder)
            if ended.is_some() && pod.as_ref().and_then(ResourceExt::uid) == Some(holder.clone()) =>
        {
            ended.as_ref().is_some_and(|outcome| outcome.harmless)
        }
        Closed::HeldBy(holder) => {
            if ctx.runs.lost_for(&key) < HOLDER_LOSS {
                tracing::info!(run = name, holder, "waits for the loss of the holder to be certain");
                return Ok(GivenUp::NotYet);
            }
            false
        }
    };
    if job.is_some() {
        discard(&jobs, &name).await?;
    }
    let lost = || Outcome::failed(FailureClass::Infrastructure, "ExecutorLost", lost_text(pod.as_ref(), harmless));
    // It may never have started for want of something that was made once and is gone: it is made sure of again.
    ctx.forget_made(&namespace);
    let mut outcome = ended.unwrap_or_else(lost);
    outcome.harmless = harmless;
    ctx.metrics.jobs_given_up.inc();
    ctx.runs.set(key, Knowledge::Over(outcome));
    Ok(GivenUp::Over)
}

/// What is known of its end: the Pod's own words, why its container waits, why it has no node.
fn lost_text(pod: Option<&Pod>, harmless: bool) -> String {
    let words = pod.and_then(|pod| pod.status.as_ref()).map(|status| {
        let mut states = status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
        let waiting = states.find_map(|state| state.waiting.as_ref());
        let pairs = [
            (status.reason.as_deref(), status.message.as_deref()),
            waiting.map_or((None, None), |waiting| (waiting.reason.as_deref(), waiting.message.as_deref())),
            status
                .unscheduled
                .as_ref()
                .map_or((None, None), |found| (found.reason.as_deref(), found.message.as_deref())),
        ];
        pairs.into_iter().flat_map(|(reason, message)| [reason, message]).flatten().collect::<Vec<_>>().join(": ")
    });
    let effect = if harmless { "before it acted" } else { "and may have acted" };
    match words.filter(|words| !words.is_empty()) {
        Some(words) => format!("the executor was lost {effect}: {words}"),
        None => format!("the executor was lost {effect}"),
    }
}

enum Closed {
    ByUs,
    HeldBy(String),
}

/// Takes the run's Lease, so that no executor ever can.
async fn close<K: Kind>(ctx: &Context, object: &K, name: &str) -> Result<Closed, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &namespace);
    let labels = [(LABEL_MANAGED_BY, MANAGER.to_owned()), (LABEL_OWNER_UID, object.uid().unwrap_or_default())];
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(CLOSED_BY_OPERATOR.to_owned()),
            acquire_time: Some(MicroTime(ctx.now())),
            ..LeaseSpec::default()
        }),
    };
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => Ok(Closed::ByUs),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let held =
                leases.get_opt(name).await.map_err(|source| Error::request("read", format!("Lease {name}"), source))?;
            let holder = held.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default();
            Ok(if holder == CLOSED_BY_OPERATOR { Closed::ByUs } else { Closed::HeldBy(holder) })
        }
        Err(source) => Err(Error::request("create", format!("Lease {name}"), source)),
    }
}

/// Removes a Job that will never have a Pod of use.
async fn discard(jobs: &Api<Job>, name: &str) -> Result<(), Error> {
    match jobs.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::request("delete", format!("Job {name}"), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: serde_json::Value) -> String {
        let pod = serde_json::from_value(serde_json::json!({"status": status})).unwrap();
        lost_text(Some(&pod), true)
    }

    #[test]
    fn an_executor_that_never_started_says_why() {
        let waiting = serde_json::json!({"containerStatuses": [{"name": "executor", "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]});
        assert_eq!(text(waiting), "the executor was lost before it acted: ImagePullBackOff: no such image");
        let unscheduled = serde_json::json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
        assert_eq!(text(unscheduled), "the executor was lost before it acted: Unschedulable: 0/1 nodes are available");
        let evicted = serde_json::json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        assert_eq!(text(evicted), "the executor was lost before it acted: Evicted: low on memory");
        assert_eq!(lost_text(None, false), "the executor was lost and may have acted");
    }
}
