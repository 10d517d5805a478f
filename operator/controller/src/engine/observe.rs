//! Stage 1 (client): everything that a pass looks at.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use provisioning_api::Workspace;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_RECONCILE, LABEL_OWNER_KIND, LABEL_OWNER_UID, WORKSPACE_NAME};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, StepEffect, StepPhase, StepStatus};
use provisioning_plan::conditions::Standing;
use provisioning_plan::ids::job_name;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use provisioning_sdk::result::StepResult;

use super::epoch;
use super::kind::{Glance, Kind, WorkspaceView};
use super::runs::{Knowledge, RunKey, on_its_way};
use crate::context::Context;
use crate::error::Error;
use crate::executors::Pod;
use crate::guarded::Guarded;
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
    /// Its workspace, or why it has none.
    pub workspace: Result<WorkspaceView, NoWorkspace>,
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

/// What a pass sees in a workspace where nothing is in its way.
#[cfg(test)]
pub(crate) fn seen<K: Kind>(object: K, facts: K::Facts, observed: Observed) -> Seen<K> {
    let workspace = WorkspaceView {
        epoch: 1,
        suspended: false,
        deleting: false,
        parallelism: 8,
        ssh_public_key: Some(String::new()),
    };
    Seen {
        object,
        workspace: Ok(workspace),
        facts,
        observed,
        suspended: None,
        retry_requested: false,
        wake_at: None,
        now: "2026-01-01T00:00:00Z".parse().unwrap_or_default(),
    }
}

/// Reads.
///
/// # Errors
/// Where the workspace's epoch cannot be raised, or the kind cannot make what it needs.
pub async fn observe<K: Kind>(ctx: &Context, object: K) -> Result<Seen<K>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let now = ctx.now();
    let workspace = workspace(ctx, &namespace, epoch::remembered(&object, now)).await?;
    let facts = object.observe(ctx, workspace.as_ref().ok()).await?;
    let (observed, wake_at) = views(ctx, &object, now);
    let asked = reconcile_request(&object);
    let handled = object.run_status().and_then(|status| status.last_handled_reconcile_at.clone());
    Ok(Seen {
        suspended: suspended(&ctx.stores, &object, workspace.as_ref().ok()),
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

async fn workspace(
    ctx: &Context,
    namespace: &str,
    remembered: i64,
) -> Result<Result<WorkspaceView, NoWorkspace>, Error> {
    let reference = ObjectRef::<Guarded<Workspace>>::new(WORKSPACE_NAME).within(namespace);
    let workspace = match ctx.stores.workspaces.get(&reference).as_deref() {
        Some(Guarded(Ok(workspace))) => workspace.clone(),
        Some(Guarded(Err(_))) => return Ok(Err(NoWorkspace::Unreadable)),
        None => return Ok(Err(NoWorkspace::Absent)),
    };
    let epoch = epoch::raised(ctx, namespace, &workspace, remembered).await?;
    if let Some(later) = workspace.status.as_ref().map(|status| status.epoch).filter(|other| *other > epoch) {
        ctx.superseded.notify_one();
        return Err(Error::Superseded { namespace: namespace.to_owned(), epoch: later });
    }
    Ok(Ok(WorkspaceView {
        epoch,
        suspended: workspace.spec.suspend,
        deleting: workspace.metadata.deletion_timestamp.is_some(),
        parallelism: usize::try_from(workspace.spec.parallelism).unwrap_or(1),
        ssh_public_key: workspace.status.and_then(|status| status.ssh_public_key),
    }))
}

/// Why an object has no workspace to act in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWorkspace {
    /// There is none.
    Absent,
    /// There is one that this operator cannot read.
    Unreadable,
}

impl NoWorkspace {
    /// How the object stands. Each object tells it by itself.
    pub(crate) fn standing(self) -> Standing {
        let text = match self {
            Self::Unreadable => format!("Workspace '{WORKSPACE_NAME}' cannot be read: correct it first"),
            Self::Absent => format!("there is no Workspace in this namespace: create one named '{WORKSPACE_NAME}'"),
        };
        Standing::stalled(reasons::NO_WORKSPACE, text)
    }
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
    let (own, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let (name, deleting, entry) = if let Some(owner) = stores.workflow_by_uid(&namespace, uid) {
        let step = owner.spec.steps.iter().find(|step| step.applied() == Some((K::KIND, own.as_str())));
        let entry = step.and_then(|step| entry(&owner, |entry| entry.id == step.name));
        (owner.name_any(), owner.metadata.deletion_timestamp.is_some(), entry)
    } else if let Some(owner) = stores.cluster_by_uid(&namespace, uid) {
        let stands_for = format!("{} {own}", K::KIND);
        // An update that is to come keeps nobody from mending what is there.
        let held = |entry: &StepStatus| entry.phase == StepPhase::Undone || entry.effect == StepEffect::None;
        let entry = entry(&owner, |entry| entry.why == stands_for).filter(held);
        (owner.name_any(), owner.metadata.deletion_timestamp.is_some(), entry)
    } else {
        return Some(format!("the {kind} that made it (uid {uid}) is gone"));
    };
    if deleting {
        return Some(format!("{kind} '{name}', which made it, is being deleted"));
    }
    let StepStatus { id, phase, .. } = entry?;
    match phase {
        StepPhase::Pending | StepPhase::Omitted | StepPhase::Undone => {
            Some(format!("step '{id}' of {kind} '{name}', which made it, is {phase:?}"))
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

fn entry(owner: &impl RunsSteps, is_it: impl Fn(&StepStatus) -> bool) -> Option<StepStatus> {
    owner.run_status()?.steps.iter().find(|entry| is_it(entry)).cloned()
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

/// When an executor that still seems alive cannot be any more: its Pod's own deadline is over with room to spare. It is
/// counted from the Pod's start, as the kubelet does; one that has not started, from the intent. It was never scheduled,
/// or its node is gone (protocols §4).
pub fn overdue_at(step: &StepStatus, pod: &Pod) -> Timestamp {
    let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let intended = step.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let started = started.map_or(intended, |started| started.max(intended));
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

#[cfg(test)]
mod tests {
    use provisioning_api::{Cluster, Server};
    use serde_json::{Value, json};

    use super::*;
    use crate::watches::caches_of;

    fn object(kind: &str, metadata: &Value, spec: &Value, status: &Value) -> Value {
        let mut metadata = metadata.clone();
        metadata["namespace"] = json!("fen");
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec,
            "status": status})
    }

    /// Why the Server of a cluster does not go forward while its step is like this.
    fn held(step: &Value, cluster: &Value) -> Option<String> {
        let labels = json!({"provisioning.dev/owner-uid": "uid-marsh", "provisioning.dev/owner-kind": "Cluster"});
        let spec = json!({"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}});
        let server = object("Server", &json!({"name": "marsh-web-0", "labels": labels}), &spec, &json!({}));
        let mut planned = json!({"id": "server/marsh-web-0", "action": "Apply", "why": "Server marsh-web-0",
            "undo": "DeleteObject", "inputHash": "v1:0"});
        planned.as_object_mut().unwrap().extend(step.as_object().unwrap().clone());
        let groups = json!({"serverGroups": [{"name": "web", "count": 1, "template": spec}]});
        let cluster = object("Cluster", cluster, &groups, &json!({"steps": [planned]}));
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        owner_holds_back(&caches_of(&[cluster]), &serde_json::from_value::<Server>(server).unwrap())
    }

    #[test]
    fn what_a_cluster_has_made_mends_itself_while_an_update_is_to_come() {
        let marsh = json!({"name": "marsh", "uid": "uid-marsh"});
        for phase in ["Running", "Succeeded", "Pending", "Omitted", "Failed"] {
            assert_eq!(held(&json!({"phase": phase, "effect": "Possible"}), &marsh), None, "{phase}");
        }
        let words = "step 'server/marsh-web-0' of Cluster 'marsh', which made it, is Omitted";
        assert_eq!(held(&json!({"phase": "Omitted"}), &marsh), Some(words.to_owned()));
        let words = "step 'server/marsh-web-0' of Cluster 'marsh', which made it, is Undone";
        assert_eq!(held(&json!({"phase": "Undone"}), &marsh), Some(words.to_owned()));
    }

    #[test]
    fn what_a_cluster_has_made_stops_when_that_goes() {
        let deleted = "2026-01-01T00:00:00Z";
        let marsh = json!({"name": "marsh", "uid": "uid-marsh", "deletionTimestamp": deleted});
        let words = "Cluster 'marsh', which made it, is being deleted";
        assert_eq!(held(&json!({"phase": "Succeeded"}), &marsh), Some(words.to_owned()));
        let other = json!({"name": "marsh", "uid": "uid-other"});
        let words = "the Cluster that made it (uid uid-marsh) is gone";
        assert_eq!(held(&json!({"phase": "Succeeded"}), &other), Some(words.to_owned()));
    }
}
