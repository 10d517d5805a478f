//! The end of things: Jobs that ended say so and go after ten minutes; a deleted object lets go of its finalizer.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_ABANDON, FINALIZER, LABEL_OWNER_UID, LABEL_RUN, MANAGER};
use provisioning_api::steps::StepStatus;
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::decision::{Decision, Verdict};
use provisioning_plan::undo::is_owed;

use super::act::run_name;
use super::kind::Kind;
use super::logs;
use super::notices::Notice;
use super::observe::{EXECUTOR, NoWorkspace, Seen, executor_outcome};
use super::persist::{Stored, describe, patch_finalizers};
use super::report::event;
use crate::answers;
use crate::context::Context;
use crate::error::Error;
use crate::executors::{Job, Pod};

/// How long an ended Job stays, for people who want to look at it.
const KEEP_JOB: SignedDuration = SignedDuration::from_mins(10);

/// Writes the status of Jobs whose Pod has ended: nobody else does, we manage them. The log of one that failed is kept
/// first, so that a Job that is closed has nothing more to tell.
///
/// # Errors
/// Where the API server refuses.
pub async fn close_jobs<K: Kind>(ctx: &Context, object: &K) -> Result<(), Error> {
    for job in own_jobs(ctx, object) {
        let Some(end) = end_of(ctx, &job).filter(|_| !is_closed(&job)) else { continue };
        match if end.succeeded { Ok(()) } else { logs::keep(ctx, object, &job).await } {
            // No log is worth a deletion that cannot go on.
            Err(error) if object.meta().deletion_timestamp.is_some() => {
                tracing::warn!(job = job.name_any(), error = error.chain(), "the log of a failed run is not kept");
            }
            kept => kept?,
        }
        let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
        let patch = serde_json::json!({"status": job_status(&job, &end)});
        let name = job.name_any();
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match jobs.patch_status(&name, &parameters, &Patch::Merge(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => return Err(Error::request("patch", format!("status of Job {name}"), source)),
        }
    }
    Ok(())
}

/// Removes Jobs that ended long enough ago; returns when the next one is due, milliseconds from now.
///
/// # Errors
/// Where the API server refuses.
pub async fn clean_jobs<K: Kind>(ctx: &Context, object: &K) -> Result<Option<i64>, Error> {
    let now = ctx.now();
    let mut next: Option<i64> = None;
    for job in own_jobs(ctx, object) {
        let Some(end) = over(ctx, object, &job) else { continue };
        let due = end.at.saturating_add(KEEP_JOB).unwrap_or(Timestamp::MAX);
        if due > now {
            let wait = due.duration_since(now).as_millis().try_into().unwrap_or(i64::MAX);
            next = Some(next.map_or(wait, |earlier: i64| earlier.min(wait)));
            continue;
        }
        let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
        let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
        delete(&leases, &job.name_any()).await?;
        delete(&jobs, &job.name_any()).await?;
    }
    Ok(next)
}

/// Lets a deleted object go once nothing is left to undo and nothing refers to it. True: it is finished with.
///
/// # Errors
/// Where the API server refuses.
pub async fn finish<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) -> Result<bool, Error> {
    let object = &stored.object;
    if object.meta().deletion_timestamp.is_none() {
        return Ok(false);
    }
    let abandoned =
        is_left_to_people(seen.workspace.as_ref().err(), &stored.standing, &stored.decision) && is_abandoned(object);
    let done = stored.decision.verdict == Verdict::Deleted && object.held_by(&seen.facts).is_none();
    if !done && !abandoned {
        return Ok(false);
    }
    if !done {
        let held = object.held_by(&seen.facts);
        event(ctx, object, &Notice::new(true, reasons::DELETION_BLOCKED, abandoned_text(&stored.decision, held))).await;
    }
    object.release(ctx, true).await?;
    sweep(ctx, object).await?;
    let rest: Vec<String> = object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match patch_finalizers(ctx, object, &rest).await {
        Ok(_) => {}
        Err(Error::Request { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404) =>
            {}
        Err(error) => return Err(error),
    }
    ctx.written.forget(object);
    Ok(true)
}

/// (pure) Whether a person gives up what remains of a deletion.
pub(crate) fn is_abandoned(object: &impl ResourceExt) -> bool {
    object.annotations().get(ANNOTATION_ABANDON).is_some_and(|value| value == "true")
}

/// (pure) Whether only a person helps with a deletion. What goes on by itself is not abandoned, not even between two tries.
/// Without a workspace nothing goes on; one that cannot be read is corrected first, as an object itself is. An open run may
/// still act: it has to end, or be given up, before.
fn is_left_to_people(no_workspace: Option<&NoWorkspace>, standing: &Standing, decision: &Decision) -> bool {
    let is_stuck = match no_workspace {
        Some(NoWorkspace::Absent) => true,
        Some(NoWorkspace::Unreadable) => false,
        None => standing.state == State::Stalled || decision.needs_a_person,
    };
    is_stuck && !decision.steps.iter().any(StepStatus::is_executed)
}

/// (pure) What is told of a deletion that was given up: what is not undone, and what else held it.
fn abandoned_text(decision: &Decision, held: Option<String>) -> String {
    let left: Vec<String> = decision.steps.iter().filter(|step| is_owed(step)).map(left_behind).collect();
    let left = (!left.is_empty()).then(|| format!("left behind: {}", left.join(", ")));
    let held = held.map(|words| format!("what held it: {words}"));
    let parts = std::iter::once("deletion was abandoned by annotation".to_owned()).chain(left).chain(held);
    parts.collect::<Vec<_>>().join("; ")
}

fn left_behind(step: &StepStatus) -> String {
    match &step.external_id {
        Some(id) => format!("{} ({id})", step.id),
        None => step.id.clone(),
    }
}

/// Removes by label what belongs to the object alone: Jobs (their Pods follow), claims and kept logs.
async fn sweep<K: Kind>(ctx: &Context, object: &K) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let labels = format!("{LABEL_OWNER_UID}={}", object.uid().unwrap_or_default());
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    for job in own_jobs(ctx, object) {
        delete(&jobs, &job.name_any()).await?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = answers::list(&maps, &labels).await;
    let found = found.map_err(|source| Error::request("list", format!("logs of {}", describe(object)), source))?;
    for map in found {
        delete(&maps, &map.name).await?;
    }
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = answers::list(&leases, &labels).await;
    let found = found.map_err(|source| Error::request("list", format!("claims of {}", describe(object)), source))?;
    for lease in found {
        delete(&leases, &lease.name).await?;
    }
    Ok(())
}

/// Deletes by name; what is gone is no error.
///
/// # Errors
/// Where the API server refuses.
pub async fn delete<K: Resource + Clone>(api: &Api<K>, name: &str) -> Result<(), Error> {
    let deleted = answers::delete(api, name, &DeleteParams::background()).await;
    deleted.map(drop).map_err(|source| Error::request("delete", name, source))
}

fn own_jobs<K: Kind>(ctx: &Context, object: &K) -> Vec<std::sync::Arc<Job>> {
    let uid = object.uid().unwrap_or_default();
    let mut jobs = ctx.stores.jobs.state_filter(|job| {
        job.metadata.deletion_timestamp.is_none() && job.labels().get(LABEL_OWNER_UID) == Some(&uid)
    });
    // The log of a step's last run is the one that stays.
    let run = |job: &Job| job.labels().get(LABEL_RUN).and_then(|run| run.parse::<i64>().ok());
    jobs.sort_by_key(|job| (run(job), job.name_any()));
    jobs
}

struct End {
    at: Timestamp,
    started: Option<Time>,
    succeeded: bool,
}

fn is_closed(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| status.closed)
}

/// The end of a Job whose run is over for its object too, whatever the clock of its node says. One that lost its Pod is
/// counted from its creation.
fn over<K: Kind>(ctx: &Context, object: &K, job: &Job) -> Option<End> {
    let name = job.name_any();
    let steps = object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    if steps.iter().any(|step| step.is_open() && run_name(object, step) == name) {
        return None;
    }
    end_of(ctx, job).or_else(|| {
        let at = job.metadata.creation_timestamp.as_ref()?.0;
        Some(End { at, started: None, succeeded: false })
    })
}

/// When and how the Pod of a Job ended, as far as the cache knows.
fn end_of(ctx: &Context, job: &Job) -> Option<End> {
    let reference = kube::runtime::reflector::ObjectRef::<Pod>::new(&job.name_any()).within(&job.namespace()?);
    let pod = ctx.stores.pods.get(&reference)?;
    let outcome = executor_outcome(&pod)?;
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref()?.iter().find(|container| container.name == EXECUTOR)?;
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    let at = terminated.finished_at.as_ref().map_or_else(|| ctx.now(), |time| time.0);
    Some(End { at, started: status.start_time.clone(), succeeded: outcome.class.is_none() })
}

fn job_status(job: &Job, end: &End) -> JobStatus {
    let (before, after, reason, text) = if end.succeeded {
        ("SuccessCriteriaMet", "Complete", "CompletionsReached", "the step succeeded")
    } else {
        ("FailureTarget", "Failed", "BackoffLimitExceeded", "the step failed; its object says why")
    };
    let condition = |type_: &str| JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(text.to_owned()),
        last_probe_time: Some(Time(end.at)),
        last_transition_time: Some(Time(end.at)),
    };
    let started = end.started.clone().or_else(|| job.metadata.creation_timestamp.clone());
    JobStatus {
        conditions: Some(vec![condition(before), condition(after)]),
        start_time: started,
        completion_time: end.succeeded.then_some(Time(end.at)),
        succeeded: end.succeeded.then_some(1),
        failed: (!end.succeeded).then_some(1),
        ready: Some(0),
        terminating: Some(0),
        uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
        ..JobStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use provisioning_plan::decision::hold;
    use provisioning_plan::observed::Observed;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_abandoned_says_what_is_left_and_what_held_it() {
        let step = |id: &str, phase: &str| json!({"id": id, "action": "Install", "undo": "Uninstall", "inputHash": "v1:0", "phase": phase, "run": 1});
        let steps = json!([step("install/heron", "Undoing"), step("install/plover", "Undone")]);
        let steps: Vec<StepStatus> = serde_json::from_value(steps).unwrap();
        const WORDS: &str = "Server 'knot' cannot be read: correct it first";
        for (steps, expected) in [(steps.as_slice(), "; left behind: install/heron"), (&[], "")] {
            let text = abandoned_text(&hold(steps, &Observed::new(), 1, 0), Some(WORDS.to_owned()));
            assert_eq!(text, format!("deletion was abandoned by annotation{expected}; what held it: {WORDS}"));
        }
    }

    #[test]
    fn only_what_nothing_goes_on_in_is_left_to_people() {
        let open: StepStatus = serde_json::from_value(json!({"id": "install/heron", "action": "Install",
            "undo": "Uninstall", "inputHash": "v1:0", "phase": "Undoing", "run": 2,
            "startedAt": "2026-01-01T00:00:00Z"}))
        .unwrap();
        assert!(open.is_open());
        let by_itself = Standing::reconciling(reasons::DELETING, "");
        let stalled = Standing::stalled(reasons::DEPENDENCY_STALLED, "");
        let (absent, unreadable) = (Some(&NoWorkspace::Absent), Some(&NoWorkspace::Unreadable));
        for (no_workspace, standing, needs_a_person, steps, expected) in [
            (None, &by_itself, false, vec![], false),
            (None, &by_itself, true, vec![], true),
            (None, &stalled, false, vec![], true),
            (absent, &stalled, false, vec![], true),
            (unreadable, &stalled, true, vec![], false),
            (None, &stalled, true, vec![open.clone()], false),
            (absent, &stalled, false, vec![open], false),
        ] {
            let decision = Decision { needs_a_person, ..hold(&steps, &Observed::new(), 1, 0) };
            let left = is_left_to_people(no_workspace, standing, &decision);
            assert_eq!(left, expected, "{no_workspace:?} {standing:?} {needs_a_person} {}", steps.len());
        }
    }
}
