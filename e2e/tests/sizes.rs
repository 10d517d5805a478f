//! The largest status of a kind is stored by the real API server (protocols §1), and what a newer operator wrote is left
//! alone by this one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{
    MAX_CONDITION_MESSAGE, MAX_EXTERNAL_ID, MAX_OUTPUT, MAX_OUTPUT_COUNT, MAX_OUTPUTS, MAX_REASON, MAX_STATUS,
    MAX_STEP_MESSAGE, MAX_STEPS, MAX_WHY,
};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{MAX_NUMBER, RunStatus, STATUS_SCHEMA, StepStatus};
use provisioning_api::{BatchWorkflow, Cluster, Taskserv};
use provisioning_e2e::{Case, DEADLINE, Kind, STATUS_BY_HAND, case};
use serde_json::json;

/// Text of so many characters, each written as two bytes.
fn quotes(length: usize) -> String {
    "\"".repeat(length)
}

/// One step with every field at its bound.
fn full(number: usize, edges: usize, outputs: &BTreeMap<String, String>) -> Result<StepStatus> {
    let id = |number: usize| format!("{}{number:03}", "h".repeat(60));
    let depends: Vec<_> =
        (1..=edges.min(number)).map(|back| json!({"step": id(number - back), "type": "Hard"})).collect();
    let at = "2026-01-01T00:00:00Z";
    Ok(serde_json::from_value(json!({
        "id": id(number), "action": "Observe", "why": quotes(MAX_WHY), "dependsOn": depends, "undo": "DeleteServer",
        "phase": "UndoFailed", "run": MAX_NUMBER, "attempt": i32::MAX, "losses": i32::MAX,
        "inputHash": format!("v1:{}", "f".repeat(64)), "epoch": MAX_NUMBER, "startedAt": at, "finishedAt": at,
        "retryAt": at, "externalID": quotes(MAX_EXTERNAL_ID), "outputs": outputs, "effect": "Possible",
        "class": "Infrastructure", "reason": "R".repeat(MAX_REASON), "message": quotes(MAX_STEP_MESSAGE),
    }))?)
}

/// A status with full steps, as many as an object may have or as fit below the limit of a status.
fn largest(edges: usize) -> Result<RunStatus> {
    let each = MAX_OUTPUT.min(MAX_OUTPUTS / MAX_OUTPUT_COUNT / 2 - 4);
    let outputs: BTreeMap<_, _> = (0..MAX_OUTPUT_COUNT).map(|number| (format!("o{number}"), quotes(each))).collect();
    let message = quotes(MAX_CONDITION_MESSAGE);
    let condition = json!({"type": "Ready", "status": "False", "reason": reasons::UNKNOWN_REFERENCE, "message": message,
        "observedGeneration": i64::MAX, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut status: RunStatus = serde_json::from_value(json!({
        "observedGeneration": i64::MAX, "conditions": [condition], "schema": STATUS_SCHEMA + 1,
        "lastHandledReconcileAt": quotes(256), "runFloor": MAX_NUMBER,
        "plan": {"hash": "f".repeat(80), "generation": i64::MAX, "summary": quotes(256)},
    }))?;
    let mut size = serde_json::to_vec(&status)?.len();
    for number in 0..MAX_STEPS {
        let step = full(number, edges, if number == 0 { &outputs } else { const { &BTreeMap::new() } })?;
        size += serde_json::to_vec(&step)?.len() + 1;
        if size > MAX_STATUS {
            break;
        }
        status.steps.push(step);
    }
    Ok(status)
}

/// Writes the largest status, reads it back, and makes sure that this operator, which it is too new for, leaves it.
async fn stored<K: Kind + RunsSteps>(case: &Case, name: &str, edges: usize) -> Result<()> {
    let status = largest(edges)?;
    let size = serde_json::to_vec(&status)?.len();
    ensure!(size > MAX_STATUS - 4096, "{size} bytes are not the largest that is allowed");
    let write = || async {
        let mut object = case.get::<K>(name).await?;
        object.run_status_mut().clone_from(&status);
        Ok(match case.api::<K>().replace_status(name, &PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            // The operator wrote its condition in between.
            Err(kube::Error::Api(status)) if status.code == 409 => Err(status.message),
            Err(error) => return Err(error.into()),
        })
    };
    case.until("the status written", DEADLINE, write).await?;
    let events: Api<Event> = Api::namespaced(case.cluster.client.clone(), &case.namespace);
    case.until("told that the status is too new", DEADLINE, || async {
        let found = events.list(&ListParams::default()).await?.items;
        let told = |event: &Event| {
            event.reason.as_deref() == Some(reasons::STATUS_TOO_NEW)
                && event.involved_object.name.as_deref() == Some(name)
        };
        Ok(if found.iter().any(told) { Ok(()) } else { Err("no such Event".to_owned()) })
    })
    .await?;
    case.stays("the status of a newer operator", Duration::from_secs(3), || async {
        Ok(case.get::<K>(name).await?.resource_version())
    })
    .await?;
    let kept = case.get::<K>(name).await?;
    ensure!(kept.run_status().context("no status")? == &status, "the API server stored something else");
    case.rule(&format!(
        "a {} with a status of {size} bytes and {} steps is stored whole",
        K::kind(&()),
        status.steps.len()
    ));
    // This operator finishes nothing that it does not understand.
    let mut own = kept;
    own.run_status_mut().clone_from(&RunStatus::default());
    case.api::<K>().replace_status(name, &PostParams::default(), &own).await?;
    case.delete::<K>(name).await?;
    case.gone::<K>(name, DEADLINE).await
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_largest_status_is_stored_and_left_to_the_operator_that_wrote_it() {
    case("the_largest_status_is_stored_and_left_to_the_operator_that_wrote_it", |case: Case| async move {
        let marks = json!({STATUS_BY_HAND: "true"});
        let mut cache = case.redis_on("cache", &["heron"]);
        cache["metadata"]["annotations"] = marks.clone();
        case.apply(&cache).await?;
        stored::<Taskserv>(&case, "cache", 2).await?;
        case.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Cluster",
            "metadata": {"name": "colony", "annotations": marks},
            "spec": {"serverGroups": [{"name": "nests", "servers": ["heron"]}]}}))
            .await?;
        stored::<Cluster>(&case, "colony", 4).await?;
        let step =
            json!({"name": "heron", "apply": {"server": {"name": "heron", "spec": case.server("heron")["spec"]}}});
        case.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow",
            "metadata": {"name": "flight", "annotations": marks}, "spec": {"steps": [step]}}))
            .await?;
        stored::<BatchWorkflow>(&case, "flight", 16).await
    });
}
