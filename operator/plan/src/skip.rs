// Steps that are passed over (protocols §1, §5): because their own condition says so, decided once when all that they
// depend on has ended, and anew when their input or their ground changes; or because a person has waived them.

use std::collections::BTreeSet;

use provisioning_api::names::{ANNOTATION_SKIP_STEPS, MAX_STEP_MESSAGE};
use provisioning_api::steps::{FailureClass, StepPhase, StepStatus, step_reasons};

use crate::decision::{Pass, reset};
use crate::graph::Step;
use crate::settle::{cut, prefix};

/// Whether a step that is passed over now, or was, is to be decided again. What was built on it learns of it only if it
/// runs in the end: then it was built on too little.
pub(crate) fn is_anew(entry: &StepStatus) -> bool {
    let marks = [step_reasons::DECIDED_ANEW, step_reasons::OMITTED_ANEW, step_reasons::WAIVED];
    entry.phase == StepPhase::Skipped || marks.contains(&entry.reason.as_str()) || condition_failed(entry)
}

fn condition_failed(entry: &StepStatus) -> bool {
    entry.phase == StepPhase::Failed && entry.reason == step_reasons::WHEN_FAILED
}

/// A dependency that was passed over runs after all: what succeeded without it is planned again.
pub(crate) fn hear(pass: &mut Pass<'_>, position: usize, step: &Step, told: &mut BTreeSet<String>) {
    let Some(cause) = step.depends_on.iter().find(|dependency| told.contains(dependency.step.as_str())) else { return };
    let entry = &mut pass.entries[position];
    let over = !matches!(entry.phase, StepPhase::Pending | StepPhase::Omitted | StepPhase::Skipped);
    if over && !entry.is_open() && entry.run > 0 {
        pass.notes.push(format!("plan {} again: '{}' runs after all", entry.id, cause.step));
        told.insert(entry.id.clone());
        reset(entry);
    }
}

/// What was decided by a condition is open again while something that it depends on has not ended, or when that has come
/// to another end.
pub(crate) fn reconsider(pass: &mut Pass<'_>, position: usize, step: &Step) {
    let entry = &pass.entries[position];
    let skipped = entry.phase == StepPhase::Skipped && entry.reason == step_reasons::WHEN_FALSE;
    if (skipped || condition_failed(entry)) && !is_settled(pass, step) {
        let entry = &mut pass.entries[position];
        pass.notes.push(format!("decide {} anew: what it depends on runs again", entry.id));
        reset(entry);
    }
}

/// Passes over what a person has waived, once all that it depends on has ended. The waiver is recorded in the step and
/// outlives the wish: only another input ends it. True: the step is waived, now or as soon as it can be.
pub(crate) fn waive(pass: &mut Pass<'_>, position: usize, step: &Step) -> bool {
    let ended = step.depends_on.iter().all(|other| pass.phase(other.step.as_str()).is_none_or(StepPhase::is_terminal));
    let entry = &mut pass.entries[position];
    let recorded = entry.reason == step_reasons::WAIVED;
    if !recorded && !pass.policy.waived.contains(&entry.id) {
        return false;
    }
    match entry.phase {
        StepPhase::Skipped if recorded => {
            if !ended {
                entry.phase = StepPhase::Pending;
            }
            true
        }
        StepPhase::Pending | StepPhase::Failed | StepPhase::Omitted if ended => {
            if !recorded {
                pass.notes.push(format!("skip {}: waived by annotation", entry.id));
                record_waiver(entry);
            }
            entry.phase = StepPhase::Skipped;
            true
        }
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undoing
        | StepPhase::Undone
        | StepPhase::UndoFailed => recorded,
    }
}

fn record_waiver(entry: &mut StepStatus) {
    let class = entry.class.map_or_else(String::new, |class| format!(" ({class:?})"));
    let words = if entry.message.is_empty() { String::new() } else { format!(": {}", entry.message) };
    let text = format!("waived by annotation {ANNOTATION_SKIP_STEPS}; it was {:?}{class}{words}", entry.phase);
    reset(entry);
    step_reasons::WAIVED.clone_into(&mut entry.reason);
    entry.message = prefix(&text, MAX_STEP_MESSAGE);
}

/// Decides whether a step that could start is wanted.
pub(crate) fn decide(pass: &mut Pass<'_>, position: usize, step: &Step, told: &mut BTreeSet<String>) {
    let entry = &pass.entries[position];
    let tried = entry.attempt > 0 || entry.losses > 0;
    if entry.phase != StepPhase::Pending || tried || !pass.dependencies_have_ended(step) {
        return;
    }
    let known = step.depends_on.iter().filter_map(|dependency| {
        let other = pass.entries.iter().find(|other| other.id == dependency.step.as_str())?;
        Some((other.id.as_str(), other.phase, &other.outputs))
    });
    let wanted = step.when.as_ref().map_or(Ok(true), |when| when.holds(known));
    let entry = &mut pass.entries[position];
    match wanted {
        Ok(true) => {
            if is_anew(entry) {
                entry.reason.clear();
                told.insert(entry.id.clone());
            }
        }
        Ok(false) => {
            pass.notes.push(format!("skip {}: its condition is false", entry.id));
            reset(entry);
            entry.phase = StepPhase::Skipped;
            step_reasons::WHEN_FALSE.clone_into(&mut entry.reason);
            "its condition (when) is false".clone_into(&mut entry.message);
        }
        Err(words) => {
            pass.notes.push(format!("{} fails: its condition cannot be decided: {words}", entry.id));
            reset(entry);
            entry.phase = StepPhase::Failed;
            entry.class = Some(FailureClass::Invalid);
            step_reasons::WHEN_FAILED.clone_into(&mut entry.reason);
            entry.message = cut(&format!("its condition (when) cannot be decided: {words}"));
        }
    }
}

/// Whether all that a step depends on has ended, and as it had when the pass began.
fn is_settled(pass: &Pass<'_>, step: &Step) -> bool {
    let settled = |id: &str| {
        let phase = pass.phase(id);
        phase.is_none_or(StepPhase::is_terminal) && pass.before.get(id).copied() == phase
    };
    step.depends_on.iter().all(|dependency| settled(dependency.step.as_str()))
}
