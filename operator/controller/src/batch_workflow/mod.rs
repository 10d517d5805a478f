//! BatchWorkflow: a step per object that is applied; each ends when its object is Ready.

mod children;
#[cfg(test)]
mod tests;
mod waivers;

use std::collections::BTreeSet;
use std::future::Future;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::{DeletionPolicy, OnFailure, RunsSteps};
use provisioning_api::steps::{Direction, FailureClass, StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_plan::condition::When;
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Dependency, Gate, Graph, GraphError, Step};
use provisioning_plan::ids::{InputHash, StepId};
use provisioning_plan::observed::{Outcome, RunView};

use children::{ChildView, Standing as ChildStanding};

use crate::children::release;
use crate::context::Context;
use crate::engine::kind::{Child, Glance, Kind, Task, WorkspaceView};
use crate::error::Error;
use crate::watches::Stores;

/// Reason of a step whose child failed.
const CHILD_FAILED: &str = "ChildFailed";

/// What a BatchWorkflow looks at: how its children stand, by step.
#[derive(Debug)]
pub struct Facts {
    /// Step, kind and name of the child, and how it stands; `None` where it does not exist.
    pub children: Vec<(String, Child, Option<ChildView>)>,
}

impl Kind for BatchWorkflow {
    const KIND: &'static str = "BatchWorkflow";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<DeserializeGuard<Self>> {
        &stores.workflows
    }

    fn observe(&self, ctx: &Context, _: Option<&WorkspaceView>) -> impl Future<Output = Result<Facts, Error>> + Send {
        let seen = |step: &WorkflowStep| {
            let child = child(step);
            let view = children::view(&ctx.stores, self, &child);
            (step.name.clone(), child, view)
        };
        let facts = Facts { children: self.spec.steps.iter().map(seen).collect() };
        std::future::ready(Ok(facts))
    }

    fn graph(&self, _: &Facts, _: &[StepStatus]) -> Result<Graph, Standing> {
        let steps: Result<Vec<Step>, Standing> =
            self.spec.steps.iter().enumerate().map(|(position, step)| planned(self, position, step)).collect();
        Graph::new(steps?).map_err(|error| {
            let reason = match &error {
                GraphError::Cycle { .. } => reasons::CYCLE,
                GraphError::UnknownStep { .. } => reasons::UNKNOWN_REFERENCE,
                GraphError::Duplicate(_) | GraphError::TooLarge { .. } => reasons::INVALID,
            };
            Standing::stalled(reason, format!("spec.steps: {error}"))
        })
    }

    fn task(&self, _: &Facts, step: &StepStatus) -> Result<Task, String> {
        if step.open_direction() == Some(Direction::Undo) {
            let mut child = self.child_of(step).ok_or("the step names no object")?;
            child.spec = serde_json::Value::Null;
            return Ok(Task::Delete(Box::new(child)));
        }
        let planned = self.spec.steps.iter().find(|planned| planned.name == step.id);
        let mut child = child(planned.ok_or("the step is no longer wanted")?);
        // A repeated try asks the child to try again, too.
        child.reconcile =
            (step.attempt > 0 || step.losses > 0 || step.run > 1).then(|| format!("{}/{}", self.name_any(), step.run));
        Ok(Task::Apply(Box::new(child)))
    }

    fn view(&self, glance: &Glance<'_>, step: &StepStatus) -> Option<(RunView, Option<Timestamp>)> {
        let Some(child) = self.child_of(step) else {
            return Some((RunView::Ended(Outcome::succeeded()), None));
        };
        let seen = children::view(glance.stores, self, &child);
        if self.metadata.deletion_timestamp.is_some() && step.open_direction() == Some(Direction::Forward) {
            // There is no executor to wait for: the one write is done or not, and the undo looks for itself.
            return Some((RunView::Ended(cancelled()), None));
        }
        if step.open_direction() == Some(Direction::Undo) {
            return Some((undo_view(seen.as_ref()), None));
        }
        Some(self.forward_view(glance.now, step, &child, seen))
    }

    fn publish(&mut self, _: &Facts) {}

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        let known = self.by_children(facts, by_steps).or_else(|| waivers::mention(self, by_steps));
        waivers::complain(self, known, by_steps)
    }

    /// A child that failed became Ready after all.
    fn mended(&self, facts: &Facts) -> BTreeSet<String> {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let failed = |name: &str| steps.iter().any(|step| step.id == name && step.reason == CHILD_FAILED);
        let ready = |view: &Option<ChildView>| view.as_ref().is_some_and(|view| view.standing == ChildStanding::Ready);
        let back = facts.children.iter().filter(|(name, _, view)| failed(name) && ready(view));
        back.map(|(name, ..)| name.clone()).collect()
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

    fn has_executors() -> bool {
        false
    }

    async fn release(&self, ctx: &Context, all: bool) -> Result<(), Error> {
        for (kind, name) in children::left_behind(&ctx.stores, self, all) {
            release(ctx, self, kind, &name).await?;
        }
        Ok(())
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
    fn by_children(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing>;
    fn child_of(&self, step: &StepStatus) -> Option<Child>;
    fn forward_view(
        &self,
        now: Timestamp,
        step: &StepStatus,
        child: &Child,
        seen: Option<ChildView>,
    ) -> (RunView, Option<Timestamp>);
}

impl Children for BatchWorkflow {
    /// Done is not the same as still so: a child that is no longer Ready shows here too.
    fn by_children(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        if by_steps.state == State::Stalled {
            return None;
        }
        let steps = &self.run_status()?.steps;
        let phase = |name: &str| steps.iter().find(|step| step.id == name).map(|step| step.phase);
        let over = |name: &str| matches!(phase(name), Some(StepPhase::Succeeded | StepPhase::Skipped));
        if !facts.children.iter().all(|(name, ..)| over(name)) {
            return None;
        }
        // What was passed over made nothing that would have to be there.
        let made = facts.children.iter().filter(|(name, ..)| phase(name) == Some(StepPhase::Succeeded));
        made.into_iter().find_map(|(_, child, view)| match view {
            None => {
                let text = format!(
                    "{} '{}' was deleted by somebody; annotate this workflow with provisioning.dev/reconcile-requested-at \
                     after a change of its step to have it made again",
                    child.kind, child.name
                );
                Some(Standing::reconciling(reasons::WAITING, text))
            }
            Some(view) => match &view.standing {
                ChildStanding::Ready => None,
                ChildStanding::Moving(text) | ChildStanding::Stalled(text) => {
                    let text = format!("{} '{}' is not Ready: {text}", child.kind, child.name);
                    Some(Standing::reconciling(reasons::WAITING, text))
                }
            },
        })
    }

    /// The child of a step, also of one that is no longer in the spec: its `why` names it.
    fn child_of(&self, step: &StepStatus) -> Option<Child> {
        if let Some(planned) = self.spec.steps.iter().find(|planned| planned.name == step.id) {
            return Some(child(planned));
        }
        children::from_why(&step.why)
    }

    fn forward_view(
        &self,
        now: Timestamp,
        step: &StepStatus,
        child: &Child,
        seen: Option<ChildView>,
    ) -> (RunView, Option<Timestamp>) {
        let applied = seen.filter(|view| view.ours && view.applied_run == Some(step.run));
        // Not there, or not as this run wants it: the write is (re)done; it is the same for every process.
        let Some(view) = applied else { return (RunView::Missing { ours: true }, None) };
        let deadline = self.deadline(step);
        match view.standing {
            ChildStanding::Ready => {
                let outcome = Outcome {
                    outputs: view.outputs,
                    external_id: Some(format!("{}/{}", child.kind, child.name)),
                    ..Outcome::succeeded()
                };
                (RunView::Ended(outcome), None)
            }
            ChildStanding::Stalled(text) => {
                let class = view.class.unwrap_or(FailureClass::Invalid);
                let text = format!("{} '{}': {text}", child.kind, child.name);
                (RunView::Ended(Outcome::failed(class, CHILD_FAILED, text)), None)
            }
            ChildStanding::Moving(text) if deadline.is_some_and(|deadline| deadline <= now) => {
                let text = format!("{} '{}' did not become Ready in time: {text}", child.kind, child.name);
                (RunView::Ended(Outcome::failed(FailureClass::Timeout, "DeadlineExceeded", text)), None)
            }
            ChildStanding::Moving(_) => (RunView::Alive, deadline),
        }
    }
}

trait Deadline {
    fn deadline(&self, step: &StepStatus) -> Option<Timestamp>;
}

impl Deadline for BatchWorkflow {
    fn deadline(&self, step: &StepStatus) -> Option<Timestamp> {
        let planned = self.spec.steps.iter().find(|planned| planned.name == step.id)?;
        let started = step.started_at.as_ref()?.0;
        started.checked_add(SignedDuration::from_secs(i64::from(planned.timeout_seconds))).ok()
    }
}

fn cancelled() -> Outcome {
    let mut outcome = Outcome::failed(FailureClass::Refused, "Cancelled", "the workflow is being deleted");
    outcome.harmless = false;
    outcome
}

fn undo_view(seen: Option<&ChildView>) -> RunView {
    match seen {
        Some(view) if view.ours && view.deleting => RunView::Alive,
        // To be deleted, or perhaps gone already: only the API server knows, and is asked.
        Some(_) | None => RunView::Missing { ours: true },
    }
}

fn planned(workflow: &BatchWorkflow, position: usize, step: &WorkflowStep) -> Result<Step, Standing> {
    let child = child(step);
    let names: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
    let when = step.when.as_ref().map(|text| When::new(text, &names)).transpose();
    let when =
        when.map_err(|error| Standing::stalled(reasons::INVALID, format!("spec.steps[{position}].when: {error}")))?;
    let undo = match workflow.spec.deletion_policy {
        DeletionPolicy::Delete => UndoAction::DeleteObject,
        DeletionPolicy::Orphan => UndoAction::Orphan,
    };
    // A step without a condition hashes as it always did, so that an upgrade runs nothing again.
    let input_hash = match &step.when {
        None => InputHash::of(&(child.kind, &child.name, &child.spec)),
        Some(when) => InputHash::of(&(child.kind, &child.name, &child.spec, when)),
    };
    Ok(Step {
        id: StepId::new(&step.name),
        action: StepAction::Apply,
        why: format!("{} {}", child.kind, child.name),
        input_hash: Some(input_hash),
        depends_on: step
            .depends_on
            .iter()
            .map(|dependency| Dependency { step: StepId::new(&dependency.step), type_: dependency.type_ })
            .collect(),
        undo,
        retry: step.retry.clone().unwrap_or_else(no_retry),
        gate: Gate::Open,
        when,
    })
}

/// A child retries by itself; asking it again is for those who say so.
fn no_retry() -> provisioning_api::shared::RetryPolicy {
    provisioning_api::shared::RetryPolicy {
        on: vec![FailureClass::Throttled],
        ..provisioning_api::shared::RetryPolicy::default()
    }
}

/// The object that a step applies.
fn child(step: &WorkflowStep) -> Child {
    let spec = |value: Result<serde_json::Value, serde_json::Error>| value.unwrap_or_default();
    match (&step.apply.server, &step.apply.taskserv) {
        (Some(server), _) => Child {
            kind: "Server",
            name: server.name.clone(),
            spec: spec(serde_json::to_value(&server.spec)),
            reconcile: None,
        },
        (None, Some(taskserv)) => Child {
            kind: "Taskserv",
            name: taskserv.name.clone(),
            spec: spec(serde_json::to_value(&taskserv.spec)),
            reconcile: None,
        },
        // The schema refuses this; the API server then says so again when it is applied.
        (None, None) => {
            Child { kind: "Server", name: step.name.clone(), spec: serde_json::Value::Null, reconcile: None }
        }
    }
}
