// (pure) The annotation by which a person passes steps over, and what people are told of it.

use std::collections::BTreeSet;

use kube::ResourceExt;
use provisioning_api::BatchWorkflow;
use provisioning_api::names::ANNOTATION_SKIP_STEPS;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepPhase, step_reasons};
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::nearest::hint;

use super::run;

/// How much of the annotation is read, characters: all names that a workflow can have.
const MOST: usize = 64 * 64;

/// What the annotation says.
pub(crate) struct Wish {
    /// Steps of this workflow, with their parts.
    pub(crate) steps: BTreeSet<String>,
    /// Names that are none of its steps.
    unknown: BTreeSet<String>,
    /// There is more than is read.
    too_long: bool,
}

impl Wish {
    pub(crate) fn of(workflow: &BatchWorkflow) -> Self {
        let value = workflow.annotations().get(ANNOTATION_SKIP_STEPS).map(String::as_str).unwrap_or_default();
        let too_long = value.chars().nth(MOST).is_some();
        let read: String = value.chars().take(MOST).collect();
        let names = read.split(',').map(str::trim).filter(|name| !name.is_empty());
        let is_step = |name: &String| workflow.spec.steps.iter().any(|step| step.name == *name);
        let (mut steps, unknown): (BTreeSet<String>, _) = names.map(str::to_owned).partition(is_step);
        // A step that runs a script is waived with its parts.
        let waived = workflow.spec.steps.iter().filter(|step| steps.contains(&step.name));
        let parts: Vec<String> = waived.flat_map(run::ids).collect();
        steps.extend(parts);
        Wish { steps, unknown, too_long }
    }
}

/// All steps are over: which of them a person has passed over belongs into the words.
pub(crate) fn mention(workflow: &BatchWorkflow, by_steps: &Standing) -> Option<Standing> {
    let steps = &workflow.run_status()?.steps;
    let skipped = |reason: &str| -> Vec<&str> {
        let skipped = steps.iter().filter(|step| step.phase == StepPhase::Skipped && step.reason == reason);
        let whole = skipped.filter(|step| run::parts(&step.id).1.is_none());
        whole.map(|step| step.id.as_str()).collect()
    };
    let (waived, unwanted) = (skipped(step_reasons::WAIVED), skipped(step_reasons::WHEN_FALSE));
    if by_steps.state != State::Ready || (waived.is_empty() && unwanted.is_empty()) {
        return None;
    }
    let mut message = "all other steps succeeded".to_owned();
    for (what, names) in [("waived", waived), ("skipped by condition", unwanted)] {
        if !names.is_empty() {
            message.push_str(&format!("; {what}: {}", names.join(", ")));
        }
    }
    Some(Standing { message, ..by_steps.clone() })
}

/// Adds what is wrong with the annotation; it stops nothing.
pub(crate) fn complain(workflow: &BatchWorkflow, known: Option<Standing>, by_steps: &Standing) -> Option<Standing> {
    let wish = Wish::of(workflow);
    let mut words = Vec::new();
    for name in wish.unknown.iter().take(8) {
        let near = hint(name, workflow.spec.steps.iter().map(|step| step.name.as_str()));
        words.push(format!("'{}' is no step of this workflow{near}", name.chars().take(63).collect::<String>()));
    }
    if wish.unknown.len() > 8 {
        words.push(format!("{} more names are no steps either", wish.unknown.len() - 8));
    }
    if wish.too_long {
        words.push(format!("only the first {MOST} characters are read"));
    }
    if words.is_empty() {
        return known;
    }
    let mut standing = known.unwrap_or_else(|| by_steps.clone());
    standing.message = format!("{}; annotation {ANNOTATION_SKIP_STEPS}: {}", standing.message, words.join(", "));
    Some(standing)
}
