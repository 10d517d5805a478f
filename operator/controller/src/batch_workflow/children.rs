// (pure) How a workflow's children stand, from the caches.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_APPLIED, LABEL_OWNER_UID};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, StepPhase};
use provisioning_api::{BatchWorkflow, Server, Taskserv};

use crate::engine::kind::{Child, by_name, in_namespace, is_up_to_date, stuck};
use crate::watches::Stores;

/// How a child stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready for its generation.
    Ready,
    /// On its way; its words.
    Moving(String),
    /// Its steps are done, and a probe of it fails; its words.
    Unhealthy(String),
    /// Nothing more happens by itself; its words.
    Stalled(String),
}

/// What a workflow sees of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// It carries this workflow's uid.
    pub ours: bool,
    /// It is on its way out.
    pub deleting: bool,
    /// The run that applied it last.
    pub applied_run: Option<i64>,
    /// How it stands.
    pub standing: Standing,
    /// Class of its first failed step.
    pub class: Option<FailureClass>,
    /// What it offers to other steps.
    pub outputs: BTreeMap<String, String>,
}

pub(crate) fn view(stores: &Stores, workflow: &BatchWorkflow, child: &Child) -> Option<ChildView> {
    let namespace = workflow.namespace().unwrap_or_default();
    match child.kind {
        "Server" => by_name(&stores.servers, &namespace, &child.name).map(|server: Server| {
            let address = server.status.as_ref().and_then(|status| status.addresses.first());
            let outputs = address.map(|address| ("address".to_owned(), address.address.clone()));
            seen(workflow, &server, outputs.into_iter().collect())
        }),
        _ => by_name(&stores.taskservs, &namespace, &child.name).map(|taskserv: Taskserv| {
            let rows = taskserv.status.as_ref().map(|status| status.servers.as_slice()).unwrap_or_default();
            let named = rows.iter().flat_map(|row| {
                row.outputs.iter().map(|(name, value)| (format!("{}.{name}", row.name), value.clone()))
            });
            let outputs = named.take(32).collect();
            seen(workflow, &taskserv, outputs)
        }),
    }
}

fn seen<K: Resource<DynamicType = ()> + RunsSteps>(
    workflow: &BatchWorkflow,
    child: &K,
    outputs: BTreeMap<String, String>,
) -> ChildView {
    let steps = child.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let failed = steps.iter().find(|step| matches!(step.phase, StepPhase::Failed | StepPhase::UndoFailed));
    ChildView {
        ours: child.labels().get(LABEL_OWNER_UID) == workflow.uid().as_ref(),
        deleting: child.meta().deletion_timestamp.is_some(),
        applied_run: child.annotations().get(ANNOTATION_APPLIED).and_then(|run| run.parse().ok()),
        standing: standing(child),
        class: failed.and_then(|step| step.class),
        outputs,
    }
}

fn standing<K: Resource<DynamicType = ()> + RunsSteps>(child: &K) -> Standing {
    let Some(status) = child.run_status() else { return Standing::Moving(child.ready_message().to_owned()) };
    if !is_up_to_date(child, status) {
        return Standing::Moving("it has not seen its newest spec yet".to_owned());
    }
    if let Some(condition) = stuck(child) {
        return Standing::Stalled(condition.message.clone());
    }
    if child.is_ready() && child.meta().deletion_timestamp.is_none() {
        return Standing::Ready;
    }
    let words = child.ready_message().to_owned();
    if status.conditions.iter().any(|condition| condition.reason == reasons::UNHEALTHY) {
        return Standing::Unhealthy(words);
    }
    Standing::Moving(words)
}

/// Children that carry this workflow's uid although it no longer stands for them: their step was forgotten, or it goes
/// itself and leaves them.
pub(crate) fn left_behind(stores: &Stores, workflow: &BatchWorkflow, all: bool) -> Vec<(&'static str, String)> {
    let namespace = workflow.namespace().unwrap_or_default();
    let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let stands_for = |kind: &str, name: &str| steps.iter().any(|step| step.why == format!("{kind} {name}"));
    let mut found = Vec::new();
    for guarded in in_namespace(&stores.servers, &namespace) {
        found.extend(
            guarded.0.as_ref().ok().filter(|child| is_ours(workflow, *child)).map(|child| ("Server", child.name_any())),
        );
    }
    for guarded in in_namespace(&stores.taskservs, &namespace) {
        found.extend(
            guarded
                .0
                .as_ref()
                .ok()
                .filter(|child| is_ours(workflow, *child))
                .map(|child| ("Taskserv", child.name_any())),
        );
    }
    found.retain(|(kind, name)| all || !stands_for(kind, name));
    found
}

fn is_ours(workflow: &BatchWorkflow, child: &impl ResourceExt) -> bool {
    child.labels().get(LABEL_OWNER_UID) == workflow.uid().as_ref() && child.meta().deletion_timestamp.is_none()
}

/// The child that a step's `why` names (`Kind name`), for steps that are no longer in the spec.
pub(crate) fn from_why(why: &str) -> Option<Child> {
    let (kind, name) = why.split_once(' ')?;
    let kind = match kind {
        "Server" => "Server",
        "Taskserv" => "Taskserv",
        _ => return None,
    };
    Some(Child { kind, name: name.to_owned(), spec: serde_json::Value::Null, reconcile: None })
}
