// (pure) How open steps stand that delete an object or wait for one.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::{AwaitedKind, WaitAction};
use provisioning_api::steps::FailureClass;
use provisioning_plan::condition::ObjectCondition;
use provisioning_plan::observed::{Outcome, RunView};

use super::children::{ChildView, Standing};
use super::{CHILD_FAILED, DEADLINE_EXCEEDED};
use crate::engine::kind::{Child, Kind, by_name};
use crate::watches::Stores;

/// A view with its time: a run whose deadline has passed is over, with the reason why it was not done.
pub(crate) fn until(
    deadline: Option<Timestamp>,
    now: Timestamp,
    why: impl FnOnce() -> String,
) -> (RunView, Option<Timestamp>) {
    if deadline.is_some_and(|deadline| deadline <= now) {
        return (RunView::Ended(Outcome::failed(FailureClass::Timeout, DEADLINE_EXCEEDED, why())), None);
    }
    (RunView::Alive, deadline)
}

/// How a deletion stands.
pub(crate) fn delete_view(
    child: &Child,
    seen: Option<ChildView>,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    // To be deleted, or perhaps gone already: only the API server knows, and is asked.
    let Some(view) = seen.filter(|view| view.deleting) else { return (RunView::Missing { ours: true }, deadline) };
    let (kind, name) = (child.kind, &child.name);
    match view.standing {
        Standing::Stalled(text) => {
            let class = view.class.unwrap_or(FailureClass::Invalid);
            let outcome = Outcome::failed(class, CHILD_FAILED, format!("deletion of {kind} '{name}': {text}"));
            (RunView::Ended(outcome), None)
        }
        Standing::Ready => until(deadline, now, || format!("{kind} '{name}' is not gone in time")),
        Standing::Moving(text) | Standing::Unhealthy(text) => {
            until(deadline, now, || format!("{kind} '{name}' is not gone in time: {text}"))
        }
    }
}

/// How a wait stands.
pub(crate) fn wait_view(
    object: Option<&serde_json::Value>,
    wait: &WaitAction,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    let (kind, name) = (wait.kind.as_str(), &wait.name);
    let holds = match object {
        None => Err(format!("there is no {kind} '{name}'")),
        Some(object) => ObjectCondition::new(&wait.condition)
            .map_err(|error| error.to_string())
            .and_then(|condition| condition.holds(object)),
    };
    match holds {
        Ok(true) => (RunView::Ended(Outcome::succeeded()), None),
        Ok(false) => until(deadline, now, || format!("{kind} '{name}' has not come to what is waited for in time")),
        Err(words) => until(deadline, now, || format!("{kind} '{name}' has not come to what is waited for: {words}")),
    }
}

/// The object that is waited for, as the API server would show it.
pub(crate) fn awaited(stores: &Stores, workflow: &BatchWorkflow, wait: &WaitAction) -> Option<serde_json::Value> {
    let namespace = workflow.namespace().unwrap_or_default();
    match wait.kind {
        AwaitedKind::Workspace => {
            let workspace = by_name(&stores.workspaces, &namespace, &wait.name)?;
            serde_json::to_value(workspace).ok()
        }
        AwaitedKind::ProviderConfig => shown(&stores.provider_configs, &namespace, &wait.name),
        AwaitedKind::Server => shown(&stores.servers, &namespace, &wait.name),
        AwaitedKind::Taskserv => shown(&stores.taskservs, &namespace, &wait.name),
        AwaitedKind::BatchWorkflow => shown(&stores.workflows, &namespace, &wait.name),
    }
}

fn shown<K: Kind>(store: &Store<DeserializeGuard<K>>, namespace: &str, name: &str) -> Option<serde_json::Value> {
    serde_json::to_value(by_name(store, namespace, name)?).ok()
}
