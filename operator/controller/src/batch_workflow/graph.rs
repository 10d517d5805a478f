// (pure) The graph of a workflow: what the user wrote.

use std::collections::BTreeSet;

use kube::ResourceExt;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::DeletionPolicy;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_plan::condition::{ObjectCondition, When};
use provisioning_plan::conditions::Standing;
use provisioning_plan::graph::{Dependency, Gate, Graph, GraphError, Step};
use provisioning_plan::ids::{InputHash, StepId};

use super::{Facts, run};
use crate::children::view::{ChildView, input_hash, no_retry};
use crate::engine::kind::Child;

/// Draws it.
pub(crate) fn draw(workflow: &BatchWorkflow, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
    let mut steps = Vec::new();
    for (position, step) in workflow.spec.steps.iter().enumerate() {
        let whole = planned(workflow, (facts, settled), position, step)?;
        match &step.run {
            Some(run) => steps.extend(run::draw(workflow, &facts.ground, (position, step, run), whole)?),
            None => steps.push(whole),
        }
    }
    applied_once(workflow)?;
    Graph::new(steps).map_err(|error| {
        let reason = match &error {
            GraphError::Cycle { .. } => reasons::CYCLE,
            GraphError::UnknownStep { .. } => reasons::UNKNOWN_REFERENCE,
            GraphError::Duplicate(_) | GraphError::TooLarge { .. } => reasons::INVALID,
        };
        Standing::stalled(reason, format!("spec.steps: {error}"))
    })
}

fn invalid(position: usize, field: &str, words: impl std::fmt::Display) -> Standing {
    Standing::stalled(reasons::INVALID, format!("spec.steps[{position}].{field}: {words}"))
}

/// What is known when a graph is drawn: how the children stand, and the steps as they are recorded.
type Known<'a> = (&'a Facts, &'a [StepStatus]);

fn planned(workflow: &BatchWorkflow, known: Known<'_>, position: usize, step: &WorkflowStep) -> Result<Step, Standing> {
    let names: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
    let when = step.when.as_ref().map(|text| When::new(text, &names)).transpose();
    let when = when.map_err(|error| invalid(position, "when", error))?;
    let doing = doing(workflow, known, position, step)?;
    let dependency = |other: &provisioning_api::batch_workflow::WorkflowDependency| Dependency {
        step: StepId::new(&other.step),
        type_: other.type_,
    };
    Ok(Step {
        id: StepId::new(&step.name),
        action: doing.action,
        why: doing.why,
        input_hash: Some(doing.input_hash),
        depends_on: step.depends_on.iter().map(dependency).collect(),
        undo: doing.undo,
        retry: step.retry.clone().unwrap_or_else(no_retry),
        gate: Gate::Open,
        when,
    })
}

/// Two steps that apply one object would overwrite each other for ever.
fn applied_once(workflow: &BatchWorkflow) -> Result<(), Standing> {
    let steps = &workflow.spec.steps;
    for (position, step) in steps.iter().enumerate() {
        let Some((kind, name)) = step.applied() else { continue };
        if let Some(other) = steps[..position].iter().find(|other| other.applied() == Some((kind, name))) {
            let words =
                format!("{kind} '{name}' is applied by step '{}' already: one step for each object", other.name);
            return Err(invalid(position, "apply", words));
        }
    }
    Ok(())
}

/// The part of a step that its action decides.
struct Doing {
    action: StepAction,
    why: String,
    input_hash: InputHash,
    undo: UndoAction,
}

fn doing(workflow: &BatchWorkflow, known: Known<'_>, position: usize, step: &WorkflowStep) -> Result<Doing, Standing> {
    if let Some(child) = child(step) {
        let undo = match workflow.spec.deletion_policy {
            DeletionPolicy::Delete => UndoAction::DeleteObject,
            DeletionPolicy::Orphan => UndoAction::Orphan,
        };
        let (is_there, entry) = (is_there(workflow, known, step, &child), entry(known.1, step));
        // A step without a condition hashes as it always did, so that an upgrade runs nothing again.
        let input_hash = match &step.when {
            None => input_hash(&(child.kind, &child.name, &child.spec), entry, is_there),
            Some(when) => input_hash(&(child.kind, &child.name, &child.spec, when), entry, is_there),
        };
        return Ok(Doing {
            action: StepAction::Apply,
            why: format!("{} {}", child.kind, child.name),
            input_hash,
            undo,
        });
    }
    if let Some(delete) = &step.delete {
        let (kind, name) = (delete.kind.as_str(), &delete.name);
        comes_after_its_apply(workflow, position, step, (kind, name))?;
        return Ok(Doing {
            action: StepAction::Delete,
            why: format!("delete {kind} {name}; what is gone does not come back"),
            input_hash: InputHash::of(&("delete", kind, name, &step.when)),
            undo: UndoAction::Irreversible,
        });
    }
    if let Some(run) = &step.run {
        return Ok(Doing {
            action: StepAction::Wait,
            why: format!("{} {} on {}", run.extension.name, run.script, run.servers.join(", ")),
            // The parts are what has an input.
            input_hash: InputHash::of(&()),
            undo: UndoAction::None,
        });
    }
    if let Some(wait) = &step.wait {
        let (kind, name) = (wait.kind.as_str(), &wait.name);
        ObjectCondition::new(&wait.condition).map_err(|error| invalid(position, "wait.for", error))?;
        if kind == "BatchWorkflow" && *name == workflow.name_any() {
            return Err(invalid(position, "wait", "a workflow cannot wait for itself"));
        }
        return Ok(Doing {
            action: StepAction::Wait,
            why: format!("{kind} {name}: {}", wait.condition),
            input_hash: InputHash::of(&("wait", kind, name, &wait.condition, &step.when)),
            undo: UndoAction::None,
        });
    }
    // The schema refuses this.
    Err(invalid(position, "apply", "give exactly one of apply, delete, run and wait"))
}

fn entry<'a>(settled: &'a [StepStatus], step: &WorkflowStep) -> Option<&'a StepStatus> {
    settled.iter().find(|entry| entry.id == step.name)
}

/// Whether what a step applied is there, or is not missed.
fn is_there(workflow: &BatchWorkflow, (facts, settled): Known<'_>, step: &WorkflowStep, child: &Child) -> bool {
    let is_absent = |view: &Option<ChildView>| view.as_ref().is_none_or(|view| !view.ours);
    let missed = facts.children.iter().any(|(name, _, view)| *name == step.name && is_absent(view));
    !missed || takes_down(workflow, settled, child)
}

/// Whether a step of the workflow deletes what it applies, has done so, or is about to: then it is not missed.
pub(crate) fn takes_down(workflow: &BatchWorkflow, settled: &[StepStatus], child: &Child) -> bool {
    let is_skipped = |step| entry(settled, step).is_some_and(|entry| entry.phase == StepPhase::Skipped);
    let mut steps = workflow.spec.steps.iter().filter(|step| step.delete.is_some() && !is_skipped(step));
    steps.any(|step| step.regards() == Some((child.kind, child.name.as_str())))
}

/// What a workflow applies and deletes itself it deletes afterwards: else the two would race.
fn comes_after_its_apply(
    workflow: &BatchWorkflow,
    position: usize,
    step: &WorkflowStep,
    object: (&str, &str),
) -> Result<(), Standing> {
    let steps = &workflow.spec.steps;
    let Some(apply) = steps.iter().find(|other| other.applied() == Some(object)) else { return Ok(()) };
    let mut before: BTreeSet<&str> = BTreeSet::new();
    let mut todo: Vec<&WorkflowStep> = vec![step];
    while let Some(next) = todo.pop() {
        for dependency in &next.depends_on {
            if before.insert(&dependency.step) {
                todo.extend(steps.iter().find(|other| other.name == dependency.step));
            }
        }
    }
    if before.contains(apply.name.as_str()) {
        return Ok(());
    }
    let (kind, name) = object;
    let words = format!("{kind} '{name}' is applied by step '{}': this step must depend on that one", apply.name);
    Err(invalid(position, "delete", words))
}

/// The object that a step applies.
pub(crate) fn child(step: &WorkflowStep) -> Option<Child> {
    let (kind, name) = step.applied()?;
    let apply = step.apply.as_ref()?;
    let spec = match (&apply.server, &apply.taskserv, &apply.cluster) {
        (Some(server), ..) => serde_json::to_value(&server.spec),
        (None, Some(taskserv), _) => serde_json::to_value(&taskserv.spec),
        (None, None, Some(cluster)) => serde_json::to_value(&cluster.spec),
        // The schema refuses this.
        (None, None, None) => return None,
    };
    Some(Child { kind, name: name.to_owned(), spec: spec.unwrap_or_default(), reconcile: None })
}

/// The object that a step deletes.
pub(crate) fn deleted(step: &WorkflowStep) -> Option<Child> {
    let delete = step.delete.as_ref()?;
    let (kind, name) = (delete.kind.as_str(), delete.name.clone());
    Some(Child { kind, name, spec: serde_json::Value::Null, reconcile: None })
}
