// (pure) The graph of a workflow: what the user wrote.

use std::collections::BTreeSet;

use kube::ResourceExt;
use provisioning_api::BatchWorkflow;
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::DeletionPolicy;
use provisioning_api::steps::{StepAction, UndoAction};
use provisioning_plan::condition::{ObjectCondition, When};
use provisioning_plan::conditions::Standing;
use provisioning_plan::graph::{Dependency, Gate, Graph, GraphError, Step};
use provisioning_plan::ids::{InputHash, StepId};

use super::run::{self, Ground};
use crate::children::view::no_retry;
use crate::engine::kind::Child;

/// Draws it.
pub(crate) fn draw(workflow: &BatchWorkflow, ground: &Ground) -> Result<Graph, Standing> {
    let mut steps = Vec::new();
    for (position, step) in workflow.spec.steps.iter().enumerate() {
        let whole = planned(workflow, position, step)?;
        match &step.run {
            Some(run) => steps.extend(run::draw(workflow, ground, (position, step, run), whole)?),
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

fn planned(workflow: &BatchWorkflow, position: usize, step: &WorkflowStep) -> Result<Step, Standing> {
    let names: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
    let when = step.when.as_ref().map(|text| When::new(text, &names)).transpose();
    let when = when.map_err(|error| invalid(position, "when", error))?;
    let doing = doing(workflow, position, step)?;
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

fn doing(workflow: &BatchWorkflow, position: usize, step: &WorkflowStep) -> Result<Doing, Standing> {
    if let Some(child) = child(step) {
        let undo = match workflow.spec.deletion_policy {
            DeletionPolicy::Delete => UndoAction::DeleteObject,
            DeletionPolicy::Orphan => UndoAction::Orphan,
        };
        // A step without a condition hashes as it always did, so that an upgrade runs nothing again.
        let input_hash = match &step.when {
            None => InputHash::of(&(child.kind, &child.name, &child.spec)),
            Some(when) => InputHash::of(&(child.kind, &child.name, &child.spec, when)),
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
