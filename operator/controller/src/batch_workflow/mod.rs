//! BatchWorkflow: a step per object that is applied, deleted or waited for; each ends when that object is Ready, gone,
//! or as the condition says. A step that runs a script is one for each server.

mod actions;
mod graph;
mod run;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
mod waivers;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::{DeletionPolicy, OnFailure, RunsSteps};
use provisioning_api::steps::{Direction, StepAction, StepEffect, StepPhase, StepStatus};
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Gate, Graph};
use provisioning_plan::observed::{Outcome, RunView};

use graph::{child, deleted, takes_down};

use crate::children::release_left;
use crate::children::view::{self as children, ChildView, Standing as ChildStanding, cancelled};
use crate::context::Context;
use crate::engine::kind::{Child, Glance, Kind, Task, WorkspaceView, held_up_by};
use crate::error::Error;
use crate::guarded::Guarded;
use crate::taskserv::{look_for_lost, within_sight};
use crate::watches::Stores;

use run::Ground;

pub(crate) use run::server_of;

/// What a BatchWorkflow looks at: how its children stand, by step.
#[derive(Debug, Default)]
pub struct Facts {
    /// Step, kind and name of the child, and how it stands; `None` where it does not exist.
    pub children: Vec<(String, Child, Option<ChildView>)>,
    /// Steps that delete an object which is not there.
    pub deleted: BTreeSet<String>,
    /// What steps that run scripts look at.
    pub ground: Ground,
    /// Undos that wait for a child that is stuck, with what is said of it.
    pub stuck: BTreeMap<String, Standing>,
}

impl Kind for BatchWorkflow {
    const KIND: &'static str = "BatchWorkflow";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<Guarded<Self>> {
        &stores.workflows
    }

    fn observe(&self, ctx: &Context, _: Option<&WorkspaceView>) -> impl Future<Output = Result<Facts, Error>> + Send {
        let look = |child: &Child| children::view(&ctx.stores, self, child);
        let steps = self.spec.steps.iter();
        let seen = |step: &WorkflowStep| child(step).map(|child| (step.name.clone(), look(&child), child));
        let children = steps.clone().filter_map(seen).map(|(name, view, child)| (name, child, view)).collect();
        let gone = |step: &&WorkflowStep| deleted(step).is_some_and(|child| look(&child).is_none());
        let deleted = steps.filter(gone).map(|step| step.name.clone()).collect();
        let stuck = children::stuck_undos(self, look);
        std::future::ready(Ok(Facts { children, deleted, ground: Ground::of(self, ctx), stuck }))
    }

    fn graph(&self, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
        graph::draw(self, facts, settled)
    }

    fn task(&self, facts: &Facts, step: &StepStatus) -> Result<Task, String> {
        if step.open_direction() == Some(Direction::Undo) {
            let mut child = self.child_of(step).ok_or("the step names no object")?;
            child.spec = serde_json::Value::Null;
            return Ok(Task::Delete(Box::new(child)));
        }
        let planned = self.wanted(step).ok_or("the step is no longer wanted")?;
        match (&planned.run, run::parts(&step.id)) {
            (Some(run), (_, Some(server))) => return run::task(&facts.ground, planned, run, server),
            (Some(_), (_, None)) => return Ok(Task::Watch),
            (None, _) if planned.wait.is_some() => return Ok(Task::Watch),
            (None, _) => {}
        }
        if let Some(child) = deleted(planned) {
            return Ok(Task::DeleteNamed(Box::new(child)));
        }
        let child = child(planned).ok_or("the step names no object")?;
        Ok(children::to_apply(self, step, child))
    }

    fn view(&self, glance: &Glance<'_>, step: &StepStatus) -> Option<(RunView, Option<Timestamp>)> {
        match step.action {
            StepAction::Run => return None,
            StepAction::Delete | StepAction::Wait => return Some(self.view_of_other(glance, step)),
            StepAction::Apply
            | StepAction::Describe
            | StepAction::Create
            | StepAction::Observe
            | StepAction::Reach
            | StepAction::Install
            | StepAction::Check => {}
        }
        let Some(child) = self.child_of(step) else {
            return Some((RunView::Ended(Outcome::succeeded()), None));
        };
        let seen = children::view(glance.stores, self, &child);
        if self.metadata.deletion_timestamp.is_some() && step.open_direction() == Some(Direction::Forward) {
            return Some((RunView::Ended(cancelled("the workflow is being deleted")), None));
        }
        if step.open_direction() == Some(Direction::Undo) {
            return Some((children::undo(seen.as_ref()), None));
        }
        Some(children::forward(step, &child, seen, self.deadline(step), glance.now))
    }

    fn publish(&mut self, _: &Facts) {}

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        if by_steps.reason == reasons::WAITING
            && let Some(standing) = run::held_up(self, &facts.ground)
        {
            return Some(standing);
        }
        let known = self.by_children(facts, by_steps).or_else(|| waivers::mention(self, by_steps));
        waivers::complain(self, known, by_steps)
    }

    fn held_up(&self, facts: &Facts) -> Option<Standing> {
        children::held_up(self, &facts.stuck)
    }

    /// Steps that apply, steps that could not delete what is gone by now, and scripts whose server can be reached again.
    fn mended(&self, facts: &Facts) -> BTreeSet<String> {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let is_gone = |step: &StepStatus| {
            let could_not = children::failed_by_child(step) || step.reason == reasons::NAME_CONFLICT;
            could_not && facts.deleted.contains(&step.id)
        };
        let mended = steps.iter().filter(|step| {
            let applied = facts.children.iter().find(|(name, ..)| *name == step.id);
            applied.is_some_and(|(_, _, view)| children::is_mended(step, view.as_ref())) || is_gone(step)
        });
        let mut mended: BTreeSet<String> = mended.map(|step| step.id.clone()).collect();
        mended.extend(within_sight(steps, |step| facts.ground.server(server_of(step)?)));
        mended
    }

    async fn after_end(&self, ctx: &Context, facts: &Facts, ended: &[StepStatus]) -> Result<(), Error> {
        look_for_lost(ctx, &self.name_any(), ended, |step| facts.ground.server(server_of(step)?)).await
    }

    /// What another step applies now is not deleted with the step that applied it before; until that one has applied it,
    /// the older step stands for it.
    fn gates(&self, _: &Facts) -> BTreeMap<String, Gate> {
        if self.metadata.deletion_timestamp.is_some() {
            return BTreeMap::new();
        }
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let removed = steps.iter().filter(|step| self.wanted(step).is_none());
        let taken_on = removed.filter_map(|step| {
            let child = children::from_why(&step.why)?;
            let now =
                self.spec.steps.iter().find(|other| other.applied() == Some((child.kind, child.name.as_str())))?;
            let words = format!("step '{}' applies {} '{}' now", now.name, child.kind, child.name);
            let applied = steps.iter().any(|step| step.id == now.name && step.effect == StepEffect::Possible);
            Some((step.id.clone(), if applied { Gate::Gone(words) } else { Gate::Waiting(words) }))
        });
        taken_on.collect()
    }

    fn waived(&self) -> BTreeSet<String> {
        waivers::Wish::of(self).steps
    }

    fn on_failure(&self) -> OnFailure {
        self.spec.on_failure
    }

    fn parallelism(&self) -> usize {
        usize::try_from(self.spec.parallelism).unwrap_or(1)
    }

    fn has_executors(&self) -> bool {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        self.spec.steps.iter().any(|step| step.run.is_some()) || steps.iter().any(|step| step.action == StepAction::Run)
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

/// What a workflow asks of itself.
trait Children {
    fn wanted(&self, step: &StepStatus) -> Option<&WorkflowStep>;
    fn view_of_other(&self, glance: &Glance<'_>, step: &StepStatus) -> (RunView, Option<Timestamp>);
    fn by_children(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing>;
    fn child_of(&self, step: &StepStatus) -> Option<Child>;
}

impl Children for BatchWorkflow {
    fn wanted(&self, step: &StepStatus) -> Option<&WorkflowStep> {
        self.spec.steps.iter().find(|planned| planned.name == run::parts(&step.id).0)
    }

    /// How a step stands that looks at an object which it did not make.
    fn view_of_other(&self, glance: &Glance<'_>, step: &StepStatus) -> (RunView, Option<Timestamp>) {
        if self.metadata.deletion_timestamp.is_some() {
            return (RunView::Ended(cancelled("the workflow is being deleted")), None);
        }
        let deadline = self.deadline(step);
        let planned = self.wanted(step);
        if let Some(run) = planned.filter(|planned| planned.run.is_some()) {
            return (RunView::Ended(run::together(self, run)), None);
        }
        if let Some(wait) = planned.and_then(|planned| planned.wait.as_ref()) {
            let object = actions::awaited(glance.stores, self, wait);
            return actions::wait_view(object.as_ref(), wait, deadline, glance.now);
        }
        if let Some(child) = planned.and_then(deleted) {
            let seen = children::view(glance.stores, self, &child);
            return actions::delete_view(&child, seen, deadline, glance.now);
        }
        (RunView::Ended(cancelled("the step is no longer wanted")), None)
    }

    /// Done is not the same as still so: a child that is no longer Ready shows here too.
    fn by_children(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        if by_steps.state == State::Stalled {
            return None;
        }
        let steps = &self.run_status()?.steps;
        let phase = |name: &str| steps.iter().find(|step| step.id == name).map(|step| step.phase);
        let over = |name: &str| matches!(phase(name), Some(StepPhase::Succeeded | StepPhase::Skipped));
        if !self.spec.steps.iter().all(|step| over(&step.name)) {
            return None;
        }
        // What was passed over made nothing that would have to be there, and what was deleted is meant to be gone.
        let done = |name: &str| phase(name) == Some(StepPhase::Succeeded);
        let taken = |child: &Child| takes_down(self, steps, child);
        let made = facts.children.iter().filter(|(name, child, _)| done(name) && !taken(child));
        made.into_iter().find_map(|(_, child, view)| match view {
            None => Some(Standing::reconciling(reasons::WAITING, format!("{} '{}' is gone", child.kind, child.name))),
            Some(view) => match &view.standing {
                ChildStanding::Ready => None,
                ChildStanding::Moving(text) => {
                    let text = format!("{} '{}' is not Ready: {text}", child.kind, child.name);
                    Some(Standing::reconciling(reasons::WAITING, text))
                }
                ChildStanding::Unhealthy(text) => {
                    let text = format!("{} '{}' is not Ready: {text}", child.kind, child.name);
                    Some(Standing::reconciling(reasons::UNHEALTHY, text))
                }
                ChildStanding::Stalled(text) => Some(held_up_by(child.kind, &child.name, text)),
            },
        })
    }

    /// The child of a step, also of one that is no longer in the spec: its `why` names it.
    fn child_of(&self, step: &StepStatus) -> Option<Child> {
        if let Some(planned) = self.wanted(step) {
            return child(planned);
        }
        children::from_why(&step.why)
    }
}

trait Deadline {
    fn deadline(&self, step: &StepStatus) -> Option<Timestamp>;
}

impl Deadline for BatchWorkflow {
    fn deadline(&self, step: &StepStatus) -> Option<Timestamp> {
        let planned = self.wanted(step)?;
        let started = step.started_at.as_ref()?.0;
        started.checked_add(SignedDuration::from_secs(i64::from(planned.timeout_seconds))).ok()
    }
}
