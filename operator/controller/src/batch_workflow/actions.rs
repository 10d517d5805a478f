// (pure) How open steps stand that delete an object or wait for one.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::{AwaitedKind, WaitAction};
use provisioning_plan::condition::ObjectCondition;
use provisioning_plan::observed::{Outcome, RunView};

use crate::children::view::{ChildView, going, until};
use crate::engine::kind::{Child, Kind, by_name};
use crate::guarded::Guarded;
use crate::watches::Stores;

/// How a deletion stands.
pub(crate) fn delete_view(
    child: &Child,
    seen: Option<ChildView>,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    // To be deleted, or perhaps gone already: only the API server knows, and is asked.
    let Some(view) = seen.filter(|view| view.deleting) else { return (RunView::Missing { ours: true }, deadline) };
    going(child, &view, deadline, now)
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
        AwaitedKind::Cluster => shown(&stores.clusters, &namespace, &wait.name),
        AwaitedKind::BatchWorkflow => shown(&stores.workflows, &namespace, &wait.name),
    }
}

fn shown<K: Kind>(store: &Store<Guarded<K>>, namespace: &str, name: &str) -> Option<serde_json::Value> {
    serde_json::to_value(by_name(store, namespace, name)?).ok()
}
