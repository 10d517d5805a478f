//! (pure) How the children of an object stand, from the caches, and what that means for the steps that made them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::{ANNOTATION_APPLIED, LABEL_OWNER_UID};
use provisioning_api::shared::{RetryPolicy, RunsSteps};
use provisioning_api::steps::{Direction, FailureClass, StepPhase, StepStatus};
use provisioning_api::{Cluster, Server, Taskserv};
use provisioning_plan::conditions::Standing as OwnStanding;
use provisioning_plan::ids::InputHash;
use provisioning_plan::observed::{Outcome, RunView};
use serde::Serialize;

use super::{Held, applied_by, asks_again};
use crate::engine::kind::{Child, Kind, Task, held_up_by, in_namespace, is_up_to_date, stuck};
use crate::guarded::Guarded;
use crate::watches::Stores;

/// Reason of a step whose child failed.
pub const CHILD_FAILED: &str = "ChildFailed";
/// Reason of a step that took longer than it may.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// How many runs back it is looked after which one a step was to be done again; after that many tries it is planned anew.
const MOST_RUNS: usize = 64;

/// How a child stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready for its generation.
    Ready,
    /// On its way; its words.
    Moving(String),
    /// Its steps are done, and a probe of it or of a part of it fails; its words.
    Unhealthy(String),
    /// Nothing more happens by itself; its words.
    Stalled(String),
}

/// What an owner sees of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// It carries this owner's uid.
    pub ours: bool,
    /// It is on its way out.
    pub deleting: bool,
    /// The step and run that applied it last.
    pub applied_by: Option<String>,
    /// How it stands.
    pub standing: Standing,
    /// Class of its first failed step.
    pub class: Option<FailureClass>,
    /// What it offers to other steps.
    pub outputs: BTreeMap<String, String>,
}

/// Looks at a child; `None` where there is no object of that name.
pub fn view<K: Kind>(stores: &Stores, owner: &K, child: &Child) -> Option<ChildView> {
    match child.kind {
        "Server" => look(&stores.servers, owner, &child.name, |server: &Server| {
            let address = server.status.as_ref().and_then(|status| status.addresses.first());
            address.map(|address| ("address".to_owned(), address.address.clone())).into_iter().collect()
        }),
        "Cluster" => look(&stores.clusters, owner, &child.name, outputs_of),
        _ => look(&stores.taskservs, owner, &child.name, |taskserv: &Taskserv| {
            let rows = taskserv.status.as_ref().map(|status| status.servers.as_slice()).unwrap_or_default();
            let named = rows.iter().flat_map(|row| {
                row.outputs.iter().map(|(name, value)| (format!("{}.{name}", row.name), value.clone()))
            });
            named.take(32).collect()
        }),
    }
}

/// Looks at an object of one kind. One that cannot be read is there all the same, and its labels say whose it is.
fn look<O: Kind, K: Kind>(
    store: &Store<Guarded<K>>,
    owner: &O,
    name: &str,
    outputs: impl Fn(&K) -> BTreeMap<String, String>,
) -> Option<ChildView> {
    let namespace = owner.namespace().unwrap_or_default();
    let guarded = store.get(&ObjectRef::<Guarded<K>>::new(name).within(&namespace))?;
    Some(match &guarded.0 {
        Ok(child) => seen(owner, child, outputs(child)),
        Err(invalid) => unreadable(owner, &*guarded, &invalid.error),
    })
}

/// What an owner sees of a child that cannot be read. Nothing more happens to that by itself.
fn unreadable<O: Kind>(owner: &O, child: &impl ResourceExt, error: &str) -> ChildView {
    let words: String = error.chars().take(128).collect();
    ChildView {
        ours: carries_uid_of(owner, child),
        deleting: child.meta().deletion_timestamp.is_some(),
        applied_by: child.annotations().get(ANNOTATION_APPLIED).cloned(),
        standing: Standing::Stalled(format!("this operator cannot read it: {words}; correct it first")),
        class: None,
        outputs: BTreeMap::new(),
    }
}

/// What a Cluster offers to other steps of a workflow: its outputs, and of each endpoint the first address.
fn outputs_of(cluster: &Cluster) -> BTreeMap<String, String> {
    let Some(status) = &cluster.status else { return BTreeMap::new() };
    let first = |endpoint: &provisioning_api::cluster::PublishedEndpoint| {
        Some((format!("endpoint.{}", endpoint.name), endpoint.addresses.first()?.clone()))
    };
    status.outputs.clone().into_iter().chain(status.endpoints.iter().filter_map(first)).collect()
}

/// What an owner sees of a child that it has found.
pub fn seen<O, K>(owner: &O, child: &K, outputs: BTreeMap<String, String>) -> ChildView
where
    O: Kind,
    K: Resource<DynamicType = ()> + RunsSteps,
{
    let steps = child.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let failed = steps.iter().find(|step| matches!(step.phase, StepPhase::Failed | StepPhase::UndoFailed));
    ChildView {
        ours: carries_uid_of(owner, child),
        deleting: child.meta().deletion_timestamp.is_some(),
        applied_by: child.annotations().get(ANNOTATION_APPLIED).cloned(),
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

/// The reason of a child's condition `Ready` where that is False: its owner is not Ready for the same reason. Waiting for
/// a child that is on its way is the owner's own reason.
pub fn reason_of(child: &impl RunsSteps) -> &'static str {
    let ready = child.condition(types::READY).filter(|ready| ready.status == "False");
    let known = ready.and_then(|ready| reasons::ALL.iter().find(|(reason, _)| *reason == ready.reason));
    known.map_or(reasons::WAITING, |(reason, _)| reason)
}

/// What the result of a step depends on that makes a child. What was done and is not there any more (a person deleted it)
/// is to be done again: then the hash tells the runs from then on from those before. `entry`: the step as it is recorded.
pub fn input_hash(inputs: &impl Serialize, entry: Option<&StepStatus>, is_there: bool) -> InputHash {
    let plain = InputHash::of(inputs);
    let again = |run: i64| InputHash::of(&("again", run, inputs));
    match entry {
        Some(entry) if entry.phase == StepPhase::Succeeded && !is_there => again(entry.run),
        Some(entry) if entry.input_hash != plain.as_str() => {
            let runs = (0..=entry.run).rev().take(MOST_RUNS);
            runs.map(again).find(|hash| hash.as_str() == entry.input_hash).unwrap_or(plain)
        }
        Some(_) | None => plain,
    }
}

/// How an open step stands that applies a child.
pub fn forward(
    step: &StepStatus,
    child: &Child,
    seen: Option<ChildView>,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    if let Some(view) = seen.as_ref().filter(|view| view.ours && view.deleting) {
        // Made anew once it is gone. Until then its own words are told, and the wait has an end.
        return going(child, view, deadline, now);
    }
    let applied = seen.filter(|view| view.ours && view.applied_by.as_ref() == Some(&applied_by(step)));
    // Not there, or not as this run wants it: the write is (re)done; it is the same for every process.
    let Some(view) = applied else { return (RunView::Missing { ours: true }, None) };
    match view.standing {
        Standing::Ready => {
            let outcome = Outcome {
                outputs: view.outputs,
                external_id: Some(format!("{}/{}", child.kind, child.name)),
                ..Outcome::succeeded()
            };
            (RunView::Ended(outcome), None)
        }
        Standing::Stalled(text) => {
            let class = view.class.unwrap_or(FailureClass::Invalid);
            let text = format!("{} '{}': {text}", child.kind, child.name);
            (RunView::Ended(Outcome::failed(class, CHILD_FAILED, text)), None)
        }
        Standing::Moving(text) | Standing::Unhealthy(text) => {
            until(deadline, now, || format!("{} '{}' did not become Ready in time: {text}", child.kind, child.name))
        }
    }
}

/// How an object stands that is on its way out.
pub fn going(
    child: &Child,
    view: &ChildView,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> (RunView, Option<Timestamp>) {
    let (kind, name) = (child.kind, &child.name);
    match &view.standing {
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

/// How an open step stands that deletes the child that it made.
pub fn undo(seen: Option<&ChildView>) -> RunView {
    match seen {
        Some(view) if view.ours && view.deleting => RunView::Alive,
        // To be deleted, or perhaps gone already: only the API server knows, and is asked.
        Some(_) | None => RunView::Missing { ours: true },
    }
}

/// Open undos whose child is stuck on its way out, each with what its owner says of it. `look`: [`view`].
pub fn stuck_undos<K: Kind>(owner: &K, look: impl Fn(&Child) -> Option<ChildView>) -> BTreeMap<String, OwnStanding> {
    let steps = owner.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let undone = steps.iter().filter(|step| step.open_direction() == Some(Direction::Undo));
    let told = undone.filter_map(|step| {
        let child = from_why(&step.why)?;
        match look(&child).filter(|view| view.ours && view.deleting)?.standing {
            Standing::Stalled(words) => Some((step.id.clone(), held_up_by(child.kind, &child.name, &words))),
            Standing::Ready | Standing::Moving(_) | Standing::Unhealthy(_) => None,
        }
    });
    told.collect()
}

/// How an owner stands of whose steps nothing is going on but undos that are stuck: they would be waited for for ever
/// (L1, L3). Once one of their children moves again, so does the owner.
pub fn held_up(owner: &impl RunsSteps, stuck: &BTreeMap<String, OwnStanding>) -> Option<OwnStanding> {
    let steps = owner.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let mut moving = steps.iter().filter(|step| step.is_open() || step.retry_at.is_some());
    let first = stuck.get(&moving.next()?.id)?;
    moving.all(|step| stuck.contains_key(&step.id)).then(|| first.clone())
}

/// A view with its time: a run whose deadline has passed is over, with the reason why it was not done.
pub fn until(
    deadline: Option<Timestamp>,
    now: Timestamp,
    why: impl FnOnce() -> String,
) -> (RunView, Option<Timestamp>) {
    if deadline.is_some_and(|deadline| deadline <= now) {
        return (RunView::Ended(Outcome::failed(FailureClass::Timeout, DEADLINE_EXCEEDED, why())), None);
    }
    (RunView::Alive, deadline)
}

/// The end of a run that is no longer wanted: there is no executor to wait for, and the undo looks for itself.
pub fn cancelled(why: &str) -> Outcome {
    let mut outcome = Outcome::failed(FailureClass::Refused, "Cancelled", why);
    outcome.harmless = false;
    outcome
}

/// What a step does that applies a child. A repeated try asks the child to try again, too.
pub fn to_apply<K: Kind>(owner: &K, step: &StepStatus, child: Child) -> Task {
    Task::Apply(Box::new(Child { reconcile: asks_again(owner, step), ..child }))
}

/// Whether a step failed because of its child, or came too late for it.
pub fn failed_by_child(step: &StepStatus) -> bool {
    [CHILD_FAILED, DEADLINE_EXCEEDED].contains(&step.reason.as_str())
}

/// Whether what a step that applies a child failed of is gone: the child became Ready after all, or its name, which
/// somebody else held, is free.
pub fn is_mended(step: &StepStatus, child: Option<&ChildView>) -> bool {
    let is_ready = child.is_some_and(|view| view.standing == Standing::Ready);
    let is_free = child.is_none_or(|view| view.ours);
    (failed_by_child(step) && is_ready) || (step.reason == reasons::NAME_CONFLICT && is_free)
}

/// A child retries by itself; asking it again is for those who say so.
pub fn no_retry() -> RetryPolicy {
    RetryPolicy { classes: vec![FailureClass::Throttled], ..RetryPolicy::default() }
}

/// Children that carry this owner's uid although it no longer stands for them: their step was forgotten.
pub fn left_behind<K: Kind>(stores: &Stores, owner: &K) -> Vec<Held> {
    let mut found = held(&stores.servers, owner);
    found.extend(held(&stores.taskservs, owner));
    found.extend(held(&stores.clusters, owner));
    let steps = owner.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let stands_for = |kind: &str, name: &str| steps.iter().any(|step| step.why == format!("{kind} {name}"));
    found.retain(|child| !stands_for(child.kind, &child.name));
    found
}

fn held<O: Kind, K: Kind>(store: &Store<Guarded<K>>, owner: &O) -> Vec<Held> {
    let objects = in_namespace(store, &owner.namespace().unwrap_or_default());
    let ours = objects
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|child| carries_uid_of(owner, *child) && child.meta().deletion_timestamp.is_none());
    ours.map(|child| Held { kind: K::KIND, name: child.name_any(), version: child.resource_version() }).collect()
}

/// Whether an object was made by this owner.
pub fn carries_uid_of<O: Kind>(owner: &O, child: &impl ResourceExt) -> bool {
    child.labels().get(LABEL_OWNER_UID) == owner.uid().as_ref()
}

/// The child that a step's `why` names (`Kind name`), for steps that are no longer in the spec.
pub fn from_why(why: &str) -> Option<Child> {
    let (kind, name) = why.split_once(' ')?;
    let kind = match kind {
        "Server" => "Server",
        "Taskserv" => "Taskserv",
        "Cluster" => "Cluster",
        _ => return None,
    };
    Some(Child { kind, name: name.to_owned(), spec: serde_json::Value::Null, reconcile: None })
}

#[cfg(test)]
mod tests;
