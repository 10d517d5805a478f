//! What a kind brings to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::reflector::Store;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_RECONCILE, MAX_STEPS};
use provisioning_api::shared::{OnFailure, RunsSteps};
use provisioning_api::steps::{RunStatus, StepStatus};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Gate, Graph};
use provisioning_plan::observed::RunView;
use provisioning_sdk::request::{ProviderRequest, RunnerRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::Error;
use crate::guarded::Guarded;
use crate::watches::Stores;

/// What one run of a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// A provider's executor in a Job.
    Provider {
        /// What it is asked.
        request: ProviderRequest,
        /// Deadline, seconds.
        timeout_seconds: i64,
    },
    /// The runner in a Job.
    Runner {
        /// What it is asked.
        request: RunnerRequest,
        /// ConfigMap with the bundle, where a script runs.
        bundle: Option<String>,
        /// Deadline, seconds.
        timeout_seconds: i64,
    },
    /// One API write that makes or changes a child object.
    Apply(Box<Child>),
    /// One API write that deletes a child object.
    Delete(Box<Child>),
    /// One API write that deletes an object that a step names, unless another one made it.
    DeleteNamed(Box<Child>),
    /// Nothing is written: what it waits for is seen.
    Watch,
}

/// A child object: one of our kinds, made by a workflow or cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// Spec as JSON; empty where it is deleted.
    pub spec: serde_json::Value,
    /// Value of the reconcile annotation to set, where a retry asks the child to try again.
    pub reconcile: Option<String>,
}

/// A pass's view of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceView {
    /// Epoch that this leader raised.
    pub epoch: i64,
    /// `spec.suspend`.
    pub suspended: bool,
    /// It is on its way out: nothing new begins.
    pub deleting: bool,
    /// `spec.parallelism`.
    pub parallelism: usize,
    /// Public SSH key, once it is made.
    pub ssh_public_key: Option<String>,
}

/// What is known at the time of a view.
#[derive(Debug)]
pub struct Glance<'a> {
    /// Caches.
    pub stores: &'a Stores,
    /// Now.
    pub now: Timestamp,
}

/// A kind that runs steps.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + RunsSteps
    + Clone
    + Debug
    + PartialEq
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Kind name.
    const KIND: &'static str;
    /// What it looks at beyond its own steps.
    type Facts: Debug + Send + Sync;

    /// Its cache.
    fn store(stores: &Stores) -> &Store<Guarded<Self>>;

    /// Reads related objects from the caches, and makes what it needs beside Jobs.
    fn observe(
        &self,
        ctx: &Context,
        workspace: Option<&WorkspaceView>,
    ) -> impl Future<Output = Result<Self::Facts, Error>> + Send;

    /// (pure) Validates the spec and draws the graph from what is known.
    ///
    /// # Errors
    /// How the object stands if no graph can be drawn.
    fn graph(&self, facts: &Self::Facts, settled: &[StepStatus]) -> Result<Graph, Standing>;

    /// (pure) Adds to its steps what others did and it has to undo.
    fn take_on(&self, _: &Self::Facts, _steps: &mut Vec<StepStatus>) {}

    /// (pure) What an open run of this step does.
    ///
    /// # Errors
    /// Why it cannot be said (a reference has vanished since).
    fn task(&self, facts: &Self::Facts, step: &StepStatus) -> Result<Task, String>;

    /// (pure) How an open run stands that has no Job; `None` for steps that have one. With it, when to look again.
    fn view(&self, _: &Glance<'_>, _: &StepStatus) -> Option<(RunView, Option<Timestamp>)> {
        None
    }

    /// (pure) Fills the fields of status that follow from facts and steps.
    fn publish(&mut self, facts: &Self::Facts);

    /// (pure) How the object stands where the kind knows better than its steps, which say `by_steps`.
    fn standing(&self, _: &Self::Facts, _by_steps: &Standing) -> Option<Standing> {
        None
    }

    /// (pure) How the object stands, on its way out or not, where all that it does is to wait for others that are stuck
    /// themselves: what it made, or where something of its own is to be removed. A deletion that is held up may be abandoned.
    fn held_up(&self, _: &Self::Facts) -> Option<Standing> {
        None
    }

    /// (pure) What follows when a step has failed for good.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Continue
    }

    /// (pure) Most open steps of one object.
    fn parallelism(&self) -> usize {
        usize::MAX
    }

    /// (pure) Most steps that one object can hold.
    fn max_steps() -> usize {
        MAX_STEPS
    }

    /// (pure) Whether steps of it are run by executors in Jobs, which take places of the workspace.
    fn has_executors(&self) -> bool {
        true
    }

    /// (pure) What happens to steps that are no longer wanted.
    fn removed(&self) -> RemovedSteps;

    /// (pure) What holds back the undo of steps that are no longer in the graph, by step.
    fn gates(&self, _: &Self::Facts) -> BTreeMap<String, Gate> {
        BTreeMap::new()
    }

    /// (pure) Failed steps whose cause is gone by now (L2).
    fn mended(&self, _: &Self::Facts) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// (pure) Steps without effect whose result gets old, and when.
    fn observed_again(&self, _: &Self::Facts, _now: Timestamp) -> BTreeMap<String, Timestamp> {
        BTreeMap::new()
    }

    /// (pure) Steps that a person has said are not needed.
    fn waived(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// (pure) What still refers to it, so that its finalizer cannot go yet.
    fn held_by(&self, _: &Self::Facts) -> Option<String> {
        None
    }

    /// Lets go of objects that it made and no longer stands for. `all`: it is going itself.
    fn release(&self, _: &Context, _all: bool) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// What follows the end of steps in other objects; called after the end is durable.
    fn after_end(
        &self,
        _: &Context,
        _: &Self::Facts,
        _: &[StepStatus],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Why nothing more happens to an object by itself, as it says of its newest spec. Not so where only the Workspace is
/// missing, or was when it was looked at: that is told by each object itself.
pub fn stuck<K: Resource<DynamicType = ()> + RunsSteps>(object: &K) -> Option<&Condition> {
    let is_new = is_up_to_date(object, object.run_status()?);
    object.stalled().filter(|condition| is_new && condition.reason != reasons::NO_WORKSPACE)
}

/// (pure) How an object stands that can only wait for one that is [`stuck`].
pub fn held_up_by(kind: &str, name: &str, words: &str) -> Standing {
    Standing::stalled(reasons::DEPENDENCY_STALLED, format!("{kind} '{name}' is Stalled: {words}"))
}

/// Whether a status is about the newest spec and the newest wish for a look.
pub fn is_up_to_date<K: Resource<DynamicType = ()>>(object: &K, status: &RunStatus) -> bool {
    let asked = object.meta().annotations.as_ref().and_then(|all| all.get(ANNOTATION_RECONCILE));
    let asked = asked.map(|value| value.chars().take(64).collect::<String>());
    let heard = asked.is_none() || asked == status.last_handled_reconcile_at;
    heard && status.observed_generation == object.meta().generation.unwrap_or(0)
}

/// All objects of a cache that lie in a namespace, readable or not, in the order of their names.
pub fn all_in_namespace<K>(store: &Store<Guarded<K>>, namespace: &str) -> Vec<Arc<Guarded<K>>>
where
    K: Kind,
{
    let mut found = store.state_filter(|guarded| guarded.meta().namespace.as_deref() == Some(namespace));
    found.sort_by(|left, right| left.meta().name.cmp(&right.meta().name));
    found
}

/// The readable objects of a cache that lie in a namespace, in the order of their names.
pub fn in_namespace<K>(store: &Store<Guarded<K>>, namespace: &str) -> Vec<Arc<Guarded<K>>>
where
    K: Kind,
{
    let mut found = all_in_namespace(store, namespace);
    found.retain(|guarded| guarded.0.is_ok());
    found
}

/// A readable object of a cache by name.
pub fn by_name<K>(store: &Store<Guarded<K>>, namespace: &str, name: &str) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let reference = kube::runtime::reflector::ObjectRef::<Guarded<K>>::new(name).within(namespace);
    store.get(&reference).and_then(|guarded| guarded.0.as_ref().ok().cloned())
}
