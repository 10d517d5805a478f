//! Stage 1 (client): everything that a pass looks at.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use provisioning_api::names::{ANNOTATION_RECONCILE, LABEL_OWNER_KIND, LABEL_OWNER_UID, WORKSPACE_NAME};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, StepPhase, StepStatus};
use provisioning_plan::ids::job_name;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use provisioning_sdk::result::StepResult;

use super::epoch;
use super::kind::{Glance, Kind, WorkspaceView, by_name};
use super::runs::{Knowledge, RunKey, on_its_way};
use crate::context::Context;
use crate::error::Error;
use crate::watches::Stores;

/// Name of the executor's container.
pub const EXECUTOR: &str = "executor";

/// Room for a kubelet to end a Pod at its deadline.
const OVERDUE_GRACE: SignedDuration = SignedDuration::from_mins(1);

/// What one pass has seen.
#[derive(Debug)]
pub struct Seen<K: Kind> {
    /// The object.
    pub object: K,
    /// Its workspace, if there is one.
    pub workspace: Option<WorkspaceView>,
    /// What the kind looks at.
    pub facts: K::Facts,
    /// How its open runs stand.
    pub observed: Observed,
    /// Why nothing forward is started, if so.
    pub suspended: Option<String>,
    /// Whether the reconcile annotation has changed.
    pub retry_requested: bool,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// Reads.
///
/// # Errors
/// Where the workspace's epoch cannot be raised, or the kind cannot make what it needs.
pub async fn observe<K: Kind>(ctx: &Context, object: K) -> Result<Seen<K>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let workspace = workspace(ctx, &namespace).await?;
    let facts = object.observe(ctx, workspace.as_ref()).await?;
    let now = ctx.now();
    let (observed, wake_at) = views(ctx, &object, now);
    let asked = reconcile_request(&object);
    let handled = object.run_status().and_then(|status| status.last_handled_reconcile_at.clone());
    Ok(Seen {
        suspended: suspended(&ctx.stores, &object, workspace.as_ref()),
        retry_requested: asked.is_some() && asked != handled,
        object,
        workspace,
        facts,
        observed,
        wake_at,
        now,
    })
}

/// Value of the reconcile annotation, cut to what status keeps of it.
pub fn reconcile_request(object: &impl ResourceExt) -> Option<String> {
    object.annotations().get(ANNOTATION_RECONCILE).map(|value| value.chars().take(64).collect())
}

async fn workspace(ctx: &Context, namespace: &str) -> Result<Option<WorkspaceView>, Error> {
    let Some(workspace) = by_name(&ctx.stores.workspaces, namespace, WORKSPACE_NAME) else { return Ok(None) };
    let epoch = epoch::raised(ctx, namespace, &workspace).await?;
    Ok(Some(WorkspaceView {
        epoch,
        suspended: workspace.spec.suspend,
        deleting: workspace.metadata.deletion_timestamp.is_some(),
        parallelism: usize::try_from(workspace.spec.parallelism).unwrap_or(1),
        ssh_public_key: workspace.status.and_then(|status| status.ssh_public_key),
    }))
}

/// Why the object does not go forward, if something keeps it.
pub(crate) fn suspended<K: Kind>(stores: &Stores, object: &K, workspace: Option<&WorkspaceView>) -> Option<String> {
    if object.is_suspended() {
        return Some(format!("{} '{}' is suspended: set spec.suspend to false to go on", K::KIND, object.name_any()));
    }
    if workspace.is_some_and(|workspace| workspace.deleting) {
        return Some("the Workspace is being deleted".to_owned());
    }
    if workspace.is_some_and(|workspace| workspace.suspended) {
        return Some("the Workspace is suspended: set its spec.suspend to false to go on".to_owned());
    }
    owner_holds_back(stores, object)
}

/// A child starts nothing forward while its owner is absent, is being deleted, or has its step not open (protocols §2).
fn owner_holds_back<K: Kind>(stores: &Stores, object: &K) -> Option<String> {
    let uid = object.labels().get(LABEL_OWNER_UID)?;
    let kind = object.labels().get(LABEL_OWNER_KIND).map_or("owner", String::as_str);
    let owner = stores.workflow_by_uid(uid);
    let Some(owner) = owner else { return Some(format!("the {kind} that made it (uid {uid}) is gone")) };
    let name = owner.name_any();
    if owner.metadata.deletion_timestamp.is_some() {
        return Some(format!("{kind} '{name}', which made it, is being deleted"));
    }
    let own = object.name_any();
    let step = owner.spec.steps.iter().find(|step| step.applied() == Some((K::KIND, own.as_str())))?;
    let phase = owner.run_status()?.steps.iter().find(|entry| entry.id == step.name)?.phase;
    match phase {
        StepPhase::Pending | StepPhase::Omitted | StepPhase::Undone => {
            Some(format!("step '{}' of {kind} '{name}', which made it, is {phase:?}", step.name))
        }
        StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Undoing
        | StepPhase::UndoFailed => None,
    }
}

fn views<K: Kind>(ctx: &Context, object: &K, now: Timestamp) -> (Observed, Option<Timestamp>) {
    let mut observed = Observed::new();
    let mut wake_at: Option<Timestamp> = None;
    let uid = object.uid().unwrap_or_default();
    let namespace = object.namespace().unwrap_or_default();
    let steps = object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    for step in steps.iter().filter(|step| step.is_open()) {
        let key: RunKey = (uid.clone(), step.id.clone(), step.run);
        let glance = Glance { stores: &ctx.stores, now };
        let (view, wake) = match (ctx.runs.get(&key), object.view(&glance, step)) {
            (Some(Knowledge::Over(outcome)), _) => (RunView::Ended(outcome), None),
            // Just written: the cache has not seen it yet, and writing again would change nothing.
            (Some(Knowledge::Created(at)), Some((RunView::Missing { .. }, wake))) => match on_its_way(at, now) {
                Some(until) => (RunView::Alive, Some(until)),
                None => (RunView::Missing { ours: true }, wake),
            },
            (_, Some(view)) => view,
            (known, None) => pod_view(ctx, &namespace, step, key, known, now),
        };
        wake_at = [wake_at, wake].into_iter().flatten().min();
        observed.insert(step.id.clone(), view);
    }
    (observed, wake_at)
}

fn pod_view(
    ctx: &Context,
    namespace: &str,
    step: &StepStatus,
    key: RunKey,
    known: Option<Knowledge>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    let name = job_name(&key.0, &step.id, step.run);
    if let Some(pod) = ctx.stores.pods.get(&ObjectRef::new(&name).within(namespace)) {
        if !matches!(known, Some(Knowledge::Lost(_))) {
            ctx.runs.set(key, Knowledge::Seen);
        }
        return match executor_view(&pod) {
            RunView::Alive if now >= overdue_at(step, &pod) => (RunView::Silent, None),
            RunView::Alive => (RunView::Alive, Some(overdue_at(step, &pod))),
            view => (view, None),
        };
    }
    match known {
        None => (RunView::Missing { ours: false }, None),
        Some(Knowledge::Intended) => (RunView::Missing { ours: true }, None),
        Some(Knowledge::Created(at)) => match on_its_way(at, now) {
            Some(until) => (RunView::Alive, Some(until)),
            None => (RunView::Silent, None),
        },
        Some(Knowledge::Seen | Knowledge::Lost(_)) => (RunView::Silent, None),
        Some(Knowledge::Over(outcome)) => (RunView::Ended(outcome), None),
    }
}

/// When an executor that still seems alive cannot be any more: its Pod's own deadline, counted from the intent, is over
/// with room to spare. It was never scheduled, or its node is gone (protocols §4).
pub fn overdue_at(step: &StepStatus, pod: &Pod) -> Timestamp {
    let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let started = step.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    started.saturating_add(SignedDuration::from_secs(deadline) + OVERDUE_GRACE).unwrap_or(Timestamp::MAX)
}

/// What the executor left, once its container has terminated.
pub fn executor_outcome(pod: &Pod) -> Option<Outcome> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let container = containers.iter().find(|container| container.name == EXECUTOR)?;
    Some(outcome(container.state.as_ref()?.terminated.as_ref()?))
}

/// How the executor in a Pod stands.
pub fn executor_view(pod: &Pod) -> RunView {
    match executor_outcome(pod) {
        // Refused: this Pod may not act, but another one may hold the run (protocols §2).
        Some(outcome) if outcome.class == Some(FailureClass::Refused) => return RunView::Silent,
        Some(outcome) => return RunView::Ended(outcome),
        None => {}
    }
    let status = pod.status.as_ref();
    match status.and_then(|status| status.phase.as_deref()) {
        // Failed without a terminated container (evicted, never started) ends no run by itself.
        Some("Failed" | "Succeeded") => RunView::Silent,
        Some(_) | None => RunView::Alive,
    }
}

/// What a terminated container left.
fn outcome(terminated: &ContainerStateTerminated) -> Outcome {
    let message = terminated.message.as_deref().unwrap_or_default();
    if let Ok(result) = serde_json::from_str::<StepResult>(message) {
        return Outcome {
            harmless: result.harmless,
            class: result.class,
            reason: result.reason,
            message: result.message,
            external_id: result.external_id,
            outputs: result.outputs,
            retry_after_seconds: result.retry_after_seconds,
        };
    }
    let reason = terminated.reason.as_deref().unwrap_or("Unknown");
    Outcome::failed(
        FailureClass::Infrastructure,
        "NoResult",
        format!("the executor ended with exit code {} ({reason}) and left no result", terminated.exit_code),
    )
}
