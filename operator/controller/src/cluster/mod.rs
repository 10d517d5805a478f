//! Cluster: servers → groups → services, each server and service a child object that is applied.

mod graph;
mod parts;
mod publish;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use provisioning_api::shared::{DeletionPolicy, RunsSteps};
use provisioning_api::steps::{Direction, StepAction, StepStatus};
use provisioning_api::{Cluster, Server, Taskserv};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Gate, Graph};
use provisioning_plan::ids::StepId;
use provisioning_plan::observed::{Outcome, RunView};

use crate::children::release_left;
use crate::children::view::{self as children, ChildView};
use crate::context::Context;
use crate::engine::kind::{Child, Glance, Kind, Task, WorkspaceView, by_name, in_namespace};
use crate::error::Error;
use crate::guarded::Guarded;
use crate::watches::Stores;

/// How long a Server or Taskserv may take to become Ready, seconds. It retries by itself meanwhile.
const APPLY_TIMEOUT: i64 = 3600;

/// What a Cluster looks at.
#[derive(Debug, Default)]
pub struct Facts {
    /// Servers of its groups and those that its steps made, by name.
    pub servers: BTreeMap<String, Server>,
    /// Taskservs that it made, by name.
    pub taskservs: BTreeMap<String, Taskserv>,
    /// Names of all Servers, for "did you mean".
    pub known_servers: Vec<String>,
    /// How what its steps apply stands, by step; what does not exist is not there.
    pub children: BTreeMap<String, ChildView>,
    /// Undos that wait for a child that is stuck, with what is said of it.
    pub stuck: BTreeMap<String, Standing>,
}

impl Facts {
    fn server(&self, name: &str) -> Option<&Server> {
        self.servers.get(name)
    }
}

impl Kind for Cluster {
    const KIND: &'static str = "Cluster";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<Guarded<Self>> {
        &stores.clusters
    }

    fn observe(&self, ctx: &Context, _: Option<&WorkspaceView>) -> impl Future<Output = Result<Facts, Error>> + Send {
        let namespace = self.namespace().unwrap_or_default();
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let made = steps.iter().filter_map(|step| step.why.strip_prefix("Server ")).map(str::to_owned);
        let groups = self.spec.server_groups.iter();
        let names: BTreeSet<String> = groups.flat_map(|group| parts::servers(self, group)).chain(made).collect();
        let find = |name: String| Some((name.clone(), by_name(&ctx.stores.servers, &namespace, &name)?));
        let taskservs = in_namespace(&ctx.stores.taskservs, &namespace);
        let ours = taskservs.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let ours = ours.filter(|taskserv| children::carries_uid_of(self, *taskserv));
        let view = |(id, child): (StepId, Child)| Some((id.to_string(), children::view(&ctx.stores, self, &child)?));
        let facts = Facts {
            servers: names.into_iter().filter_map(find).collect(),
            taskservs: ours.map(|taskserv| (taskserv.name_any(), taskserv.clone())).collect(),
            known_servers: in_namespace(&ctx.stores.servers, &namespace).iter().map(|other| other.name_any()).collect(),
            children: parts::children(self).into_iter().filter_map(view).collect(),
            stuck: children::stuck_undos(self, |child| children::view(&ctx.stores, self, child)),
        };
        std::future::ready(Ok(facts))
    }

    fn graph(&self, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
        graph::draw(self, facts, settled)
    }

    fn task(&self, _: &Facts, step: &StepStatus) -> Result<Task, String> {
        if step.action == StepAction::Wait {
            return Ok(Task::Watch);
        }
        if step.open_direction() == Some(Direction::Undo) {
            let child = children::from_why(&step.why).ok_or("the step names no object")?;
            return Ok(Task::Delete(Box::new(child)));
        }
        let child = wanted(self, step).ok_or("the step is no longer wanted")?;
        Ok(children::to_apply(self, step, child))
    }

    fn view(&self, glance: &Glance<'_>, step: &StepStatus) -> Option<(RunView, Option<Timestamp>)> {
        if step.open_direction() == Some(Direction::Forward) && self.metadata.deletion_timestamp.is_some() {
            return Some((RunView::Ended(children::cancelled("the cluster is being deleted")), None));
        }
        let child = children::from_why(&step.why).filter(|_| step.action == StepAction::Apply);
        // What a group waits for is there before its step begins.
        let Some(child) = child else { return Some((RunView::Ended(Outcome::succeeded()), None)) };
        let seen = children::view(glance.stores, self, &child);
        if step.open_direction() == Some(Direction::Undo) {
            return Some((children::undo(seen.as_ref()), None));
        }
        let started = step.started_at.as_ref().map(|time| time.0);
        let deadline = started.and_then(|at| at.checked_add(SignedDuration::from_secs(APPLY_TIMEOUT)).ok());
        let (mut view, wake) = children::forward(step, &child, seen, deadline, glance.now);
        if let RunView::Ended(outcome) = &mut view {
            // Those that are wanted are published by name; all of many servers would not fit.
            outcome.outputs.clear();
        }
        Some((view, wake))
    }

    fn publish(&mut self, facts: &Facts) {
        publish::fill(self, facts);
    }

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        standing::standing(self, facts, by_steps)
    }

    fn held_up(&self, facts: &Facts) -> Option<Standing> {
        children::held_up(self, &facts.stuck)
    }

    fn mended(&self, facts: &Facts) -> BTreeSet<String> {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let mended = steps.iter().filter(|step| children::is_mended(step, facts.children.get(&step.id)));
        mended.map(|step| step.id.clone()).collect()
    }

    fn gates(&self, facts: &Facts) -> BTreeMap<String, Gate> {
        graph::gates(self, facts)
    }

    fn has_executors(&self) -> bool {
        false
    }

    fn release(&self, ctx: &Context, all: bool) -> impl Future<Output = Result<(), Error>> + Send {
        release_left(ctx, self, all)
    }

    fn removed(&self) -> RemovedSteps {
        match self.spec.deletion_policy {
            DeletionPolicy::Delete => RemovedSteps::Undo,
            DeletionPolicy::Orphan => RemovedSteps::Forget,
        }
    }
}

/// What a step applies, while it is wanted.
fn wanted(cluster: &Cluster, step: &StepStatus) -> Option<Child> {
    parts::children(cluster).into_iter().find(|(id, _)| id.as_str() == step.id).map(|(_, child)| child)
}
