// Deletion and removed steps: what may have had an effect is undone, in reverse (protocols §5).

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::steps::{Direction, StepEffect, StepPhase, StepStatus, UndoAction};

use crate::decision::{Pass, RemovedSteps, Verdict, failure_text, open, undo_retry};
use crate::graph::Gate;
use crate::retry::{AfterFailure, after_failure};

/// The object is being deleted: nothing forward, everything that may have had an effect backward.
pub(crate) fn everything(pass: &mut Pass<'_>) {
    for entry in &mut pass.entries {
        if matches!(entry.phase, StepPhase::Pending | StepPhase::Omitted) {
            entry.phase = StepPhase::Cancelled;
            entry.retry_at = None;
        }
    }
    let all: BTreeSet<String> = pass.entries.iter().map(|entry| entry.id.clone()).collect();
    undo(pass, &all);
}

/// Steps that are no longer in the graph are undone or forgotten, as the policy says; then they leave the list.
pub(crate) fn removed(pass: &mut Pass<'_>) {
    let ids = pass.entries.iter().filter(|entry| pass.graph.get(&entry.id).is_none());
    let removed: BTreeSet<String> = ids.map(|entry| entry.id.clone()).collect();
    if pass.policy.removed == RemovedSteps::Undo && pass.policy.suspended.is_none() {
        undo(pass, &removed);
    }
    let forget = pass.policy.removed == RemovedSteps::Forget;
    let notes = &mut pass.notes;
    pass.entries.retain(|entry| {
        let done = removed.contains(&entry.id) && !entry.is_open() && (forget || !is_owed(entry));
        if done {
            notes.push(format!("forget {}: no longer in the plan", entry.id));
        }
        !done
    });
}

/// Whether an undo is still owed for this entry.
fn is_owed(entry: &StepStatus) -> bool {
    let undoable = match entry.undo {
        UndoAction::DeleteServer | UndoAction::Uninstall | UndoAction::DeleteObject => true,
        UndoAction::None | UndoAction::Orphan => false,
    };
    undoable && (entry.effect == StepEffect::Possible || entry.phase == StepPhase::Undoing)
}

/// Starts every undo among `ids` whose dependents are done with.
fn undo(pass: &mut Pass<'_>, ids: &BTreeSet<String>) {
    for position in (0..pass.entries.len()).rev() {
        let entry = &pass.entries[position];
        if !ids.contains(&entry.id) || entry.is_open() || !is_owed(entry) || holds_back(pass, &entry.id) {
            continue;
        }
        if let Some(Gate::Gone(what)) = pass.graph.get(&entry.id).map(|step| &step.gate) {
            let (id, what) = (entry.id.clone(), what.clone());
            pass.notes.push(format!("{id} is undone: {what}"));
            nothing_left(&mut pass.entries[position], what);
            continue;
        }
        if !may_start(pass, position) {
            continue;
        }
        let entry = &mut pass.entries[position];
        let id = entry.id.clone();
        if entry.phase != StepPhase::Undoing {
            entry.attempt = 0;
            entry.losses = 0;
        }
        open(entry, Direction::Undo, pass.policy.epoch, pass.now);
        pass.notes.push(format!("undo {id} run {}", pass.entries[position].run));
        pass.start.push(id);
    }
}

/// Whether something that depends on this step is still open or waits for its own undo.
fn holds_back(pass: &Pass<'_>, id: &str) -> bool {
    pass.entries.iter().any(|other| {
        let depends = other.depends_on.iter().any(|dependency| dependency.step == id);
        depends && other.id != id && (other.is_open() || is_owed(other))
    })
}

/// Whether a failed undo may be repeated now; one that may not any more becomes `UndoFailed`.
fn may_start(pass: &mut Pass<'_>, position: usize) -> bool {
    let entry = &mut pass.entries[position];
    match entry.phase {
        StepPhase::Undoing => {
            let Some(class) = entry.class else { return pass.has_slot() };
            if pass.policy.retry_requested {
                entry.attempt = 0;
                entry.losses = 0;
                entry.retry_at = None;
                return pass.has_slot();
            }
            match after_failure(entry, class, &undo_retry()) {
                AfterFailure::GiveUp => {
                    entry.phase = StepPhase::UndoFailed;
                    entry.retry_at = None;
                    false
                }
                AfterFailure::RetryAt(at) => {
                    entry.retry_at = Some(Time(at));
                    !pass.is_later(position) && pass.has_slot()
                }
            }
        }
        StepPhase::UndoFailed => {
            let again = pass.policy.retry_requested;
            if again {
                entry.retry_at = None;
            }
            again && pass.has_slot()
        }
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undone => pass.has_slot(),
    }
}

fn nothing_left(entry: &mut StepStatus, what: String) {
    entry.phase = StepPhase::Undone;
    entry.effect = StepEffect::None;
    entry.retry_at = None;
    "Gone".clone_into(&mut entry.reason);
    entry.message = what;
}

/// How a deletion stands.
pub(crate) fn verdict(entries: &[StepStatus]) -> Verdict {
    let open: Vec<&str> = entries.iter().filter(|entry| entry.is_open()).map(|entry| entry.id.as_str()).collect();
    if !open.is_empty() {
        return Verdict::Deleting(format!("waits for {}", open.join(", ")));
    }
    let owed: Vec<&StepStatus> = entries.iter().filter(|entry| is_owed(entry)).collect();
    let moving = owed.iter().find(|entry| entry.phase != StepPhase::UndoFailed);
    let stuck = owed.iter().find(|entry| entry.phase == StepPhase::UndoFailed);
    match (stuck, moving) {
        (Some(entry), _) => Verdict::DeletionBlocked(failure_text(entry)),
        (None, Some(entry)) if entry.class.is_some() && entry.phase == StepPhase::Undoing => {
            Verdict::Deleting(format!("tries again: {}", failure_text(entry)))
        }
        (None, Some(entry)) => Verdict::Deleting(format!("undo of '{}' is next", entry.id)),
        (None, None) => Verdict::Deleted,
    }
}
