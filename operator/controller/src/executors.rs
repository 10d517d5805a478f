//! What passes read of an executor's Job and Pod, and no more of them: the caches hold thousands. `Job` and `Pod` stand for the
//! kinds of that name. They can be read and not written: none can be sent, so no field that is not here can be lost.
//! What is asked for has the published types, in `engine/jobs.rs`.

use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{ContainerState, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use provisioning_api::names::{ANNOTATION_STEP_ID, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_UID, LABEL_RUN};
use serde::{Deserialize, Deserializer};

/// A Job: whose it is, and whether it is closed.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::batch::v1::Job")]
pub struct Job {
    /// Whose it is, by the labels that say so, and which step's, by one annotation.
    #[serde(default, deserialize_with = "of_job")]
    pub metadata: ObjectMeta,
    /// How it stands.
    pub status: Option<JobStatus>,
}

/// How a Job stands.
#[derive(Clone, Debug, Deserialize)]
pub struct JobStatus {
    /// Whether somebody has written how it ended.
    #[serde(default, rename = "conditions", deserialize_with = "any")]
    pub closed: bool,
}

/// The Pod of a Job: how long it may take, and how it stands.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct Pod {
    /// It has the name and the labels of its Job; its uid is the holder of the run's claim.
    #[serde(default, deserialize_with = "of_pod")]
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: Option<PodSpec>,
    /// How it stands.
    pub status: Option<PodStatus>,
}

/// What was asked of a Pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Seconds from its start after which the kubelet ends it.
    pub active_deadline_seconds: Option<i64>,
}

/// How a Pod stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// When the kubelet took it.
    pub start_time: Option<Time>,
    /// Why it is as it is, in one word, where the kubelet or the node's controller said so.
    pub reason: Option<String>,
    /// The same in more words.
    pub message: Option<String>,
    /// That it has no node, and why; the only one of its conditions that is kept.
    #[serde(default, rename = "conditions", deserialize_with = "unscheduled")]
    pub unscheduled: Option<PodCondition>,
    /// How its containers stand; absent before the kubelet has written.
    pub container_statuses: Option<Vec<ContainerStatus>>,
}

/// How a container stands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// What it does, or how it ended.
    pub state: Option<ContainerState>,
}

fn of_job<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = ObjectMeta::deserialize(deserializer)?;
    let mut labels = metadata.labels.unwrap_or_default();
    labels.retain(|key, _| [LABEL_OWNER_UID, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_RUN].contains(&key.as_str()));
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| key == ANNOTATION_STEP_ID);
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    })
}

fn of_pod<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(ObjectMeta { annotations: None, ..of_job(deserializer)? })
}

fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<Vec<JobCondition>>::deserialize(deserializer)?.is_some_and(|conditions| !conditions.is_empty()))
}

fn unscheduled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PodCondition>, D::Error> {
    let conditions = Option::<Vec<PodCondition>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(conditions.into_iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False"))
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use provisioning_plan::observed::RunView;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::observe::{executor_outcome, executor_view, overdue_at};
    use crate::guarded::Guarded;

    /// As the watch reads it.
    fn pod(value: &Value) -> Pod {
        let read: Guarded<Pod> = serde_json::from_value(value.clone()).unwrap();
        read.0.unwrap_or_else(|error| panic!("{value}: {error:?}"))
    }

    #[test]
    fn of_a_pod_is_read_what_passes_ask_for() {
        let step = json!({"id": "create", "action": "Create", "undo": "None", "phase": "Running", "inputHash": "v1:0",
            "startedAt": "2026-01-01T00:00:00Z"});
        let step = serde_json::from_value(step).unwrap();
        let message = json!({"reason": "Succeeded", "outputs": {"address": "10.0.0.7"}}).to_string();
        for state in [json!({"running": {}}), json!({"terminated": {"exitCode": 0, "message": message}})] {
            let whole = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "prov-1", "labels": {LABEL_RUN: "1", "app": "x"}},
                "spec": {"activeDeadlineSeconds": 180, "containers": [{"name": "executor", "command": ["/provider-local"]}]},
                "status": {"phase": "Running", "startTime": "2026-01-01T00:01:00Z",
                    "conditions": [{"type": "Ready", "status": "False"},
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
                    "containerStatuses": [{"name": "executor", "image": "", "imageID": "", "ready": true,
                        "restartCount": 0, "state": state}]}});
            // The fixture has the published shape.
            serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(whole.clone()).unwrap();
            let pod = pod(&whole);
            assert_eq!(pod.name_any(), "prov-1");
            assert_eq!(pod.labels().iter().collect::<Vec<_>>(), [(&LABEL_RUN.to_owned(), &"1".to_owned())]);
            let ended = state.get("terminated").is_some();
            let outputs = executor_outcome(&pod).map(|outcome| outcome.outputs["address"].clone());
            assert_eq!(outputs.as_deref(), ended.then_some("10.0.0.7"));
            assert_eq!(executor_view(&pod) == RunView::Alive, !ended);
            // A minute until it started, three for the run, one to spare.
            assert_eq!(overdue_at(&step, &pod).to_string(), "2026-01-01T00:05:00Z");
            let unscheduled = pod.status.unwrap().unscheduled.unwrap();
            assert_eq!(unscheduled.reason.as_deref(), Some("Unschedulable"));
        }
    }

    #[test]
    fn what_is_not_there_yet_is_no_reason_not_to_read_the_rest() {
        let statuses = [
            json!(null),
            json!({}),
            json!({"conditions": null, "containerStatuses": null}),
            json!({"conditions": [], "containerStatuses": []}),
            json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}),
            json!({"containerStatuses": [{"name": "executor"}, {"name": "other", "state": null}, {}]}),
        ];
        for status in statuses {
            let pod = pod(&json!({"metadata": {"name": "prov-1"}, "spec": null, "status": status}));
            assert_eq!((executor_view(&pod), executor_outcome(&pod)), (RunView::Alive, None), "{status}");
            assert!(pod.status.is_none_or(|status| status.unscheduled.is_none()), "{status}");
        }
        let ended = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        for (status, closed) in [(json!(null), false), (json!({}), false), (ended, true)] {
            let whole = json!({"metadata": {"name": "prov-1"}, "spec": {"template": {}}, "status": status});
            let job: Guarded<Job> = serde_json::from_value(whole).unwrap();
            assert_eq!(job.0.unwrap().status.is_some_and(|status| status.closed), closed, "{status}");
        }
    }

    #[test]
    fn a_job_is_still_known_by_all_that_says_whose_it_is() {
        let labels =
            json!({LABEL_OWNER_UID: "u", LABEL_OWNER_KIND: "Server", LABEL_OWNER_NAME: "heron", LABEL_RUN: "2"});
        let mut whole = json!({"metadata": {"name": "prov-1", "namespace": "marsh", "uid": "j", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:01:00Z", "labels": labels,
            "annotations": {ANNOTATION_STEP_ID: "create"}}});
        let kept = serde_json::from_value::<Job>(whole.clone()).unwrap().metadata;
        assert_eq!(serde_json::to_value(&kept).unwrap(), whole["metadata"]);
        whole["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u"}]);
        whole["metadata"]["annotations"]["other"] = json!("x");
        assert_eq!(serde_json::from_value::<Job>(whole.clone()).unwrap().metadata, kept);
        let pod = serde_json::from_value::<Pod>(whole).unwrap().metadata;
        assert_eq!(pod, ObjectMeta { annotations: None, ..kept });
    }

    #[test]
    fn they_are_asked_for_by_the_name_of_what_they_stand_for() {
        let job = (Job::kind(&()), Job::api_version(&()), Job::plural(&()));
        assert_eq!(job, ("Job".into(), "batch/v1".into(), "jobs".into()));
        let pod = (Pod::kind(&()), Pod::api_version(&()), Pod::plural(&()));
        assert_eq!(pod, ("Pod".into(), "v1".into(), "pods".into()));
    }
}
