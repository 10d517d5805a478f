//! Deletion and removed steps: what may have had an effect is undone, in reverse (protocols §5).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::steps::{Direction, FailureClass, StepEffect, StepPhase, StepStatus, UndoAction};

use crate::decision::{Pass, RemovedSteps, Verdict, failure_text, open, open_text, undo_retry};
use crate::graph::Gate;
use crate::retry::{AfterFailure, after_failure};
use crate::settle::cut;

/// The object is being deleted: nothing forward, everything that may have had an effect backward.
pub(crate) fn everything(pass: &mut Pass<'_>) {
    for entry in &mut pass.entries {
        if matches!(entry.phase, StepPhase::Pending | StepPhase::Omitted) {
            entry.phase = StepPhase::Cancelled;
            entry.retry_at = None;
        }
    }
    let all: BTreeSet<String> = pass.entries.iter().map(|entry| entry.id.clone()).collect();
    ask_again(pass, &all);
    undo(pass, &all);
}

/// Steps that are no longer in the graph are undone or forgotten, as the policy says; then they leave the list.
pub(crate) fn removed(pass: &mut Pass<'_>) {
    let ids = pass.entries.iter().filter(|entry| pass.graph.get(&entry.id).is_none());
    let removed: BTreeSet<String> = ids.map(|entry| entry.id.clone()).collect();
    ask_again(pass, &removed);
    if pass.policy.removed == RemovedSteps::Undo && pass.policy.suspended.is_none() {
        undo(pass, &removed);
    }
    let forget = pass.policy.removed == RemovedSteps::Forget;
    let (notes, run_floor) = (&mut pass.notes, &mut pass.run_floor);
    pass.entries.retain(|entry| {
        let done = removed.contains(&entry.id) && !entry.is_open() && (forget || !is_owed(entry));
        if done {
            *run_floor = entry.run.max(*run_floor);
            notes.push(format!("forget {}: no longer in the plan", entry.id));
        }
        !done
    });
}

/// Whether an undo is still owed for this entry.
pub fn is_owed(entry: &StepStatus) -> bool {
    let undoable = match entry.undo {
        UndoAction::DeleteServer | UndoAction::Uninstall | UndoAction::DeleteObject => true,
        UndoAction::None | UndoAction::Orphan | UndoAction::Irreversible => false,
    };
    undoable && (entry.effect == StepEffect::Possible || entry.phase == StepPhase::Undoing)
}

/// The reconcile annotation gives failed undos their attempts back; they are due at once, whether there is a place now
/// or later.
fn ask_again(pass: &mut Pass<'_>, ids: &BTreeSet<String>) {
    if !pass.policy.retry_requested {
        return;
    }
    let failed = |entry: &&mut StepStatus| match entry.phase {
        StepPhase::Undoing => !entry.is_open(),
        StepPhase::UndoFailed => true,
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undone => false,
    };
    for entry in pass.entries.iter_mut().filter(|entry| ids.contains(&entry.id)).filter(failed) {
        pass.notes.push(format!("undo {} again: asked for by annotation", entry.id));
        entry.phase = StepPhase::Undoing;
        entry.attempt = 0;
        entry.losses = 0;
        entry.retry_at = None;
        entry.class = None;
    }
}

/// Starts every undo among `ids` whose dependents are done with.
fn undo(pass: &mut Pass<'_>, ids: &BTreeSet<String>) {
    let built_on = built_on(&pass.entries);
    while let Some((position, what)) = gone(pass, ids, &built_on) {
        pass.notes.push(format!("{} is undone: {what}", pass.entries[position].id));
        nothing_left(&mut pass.entries[position], &what);
    }
    for position in due_now(pass, ids, &built_on) {
        if let Gate::Waiting(what) = pass.gate(&pass.entries[position].id) {
            pass.waiting.insert(pass.entries[position].id.clone(), what);
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

/// An entry that waits for nothing but its own undo, and whose server is gone: then there is nothing left to undo.
fn gone(pass: &Pass<'_>, ids: &BTreeSet<String>, built_on: &[Vec<usize>]) -> Option<(usize, String)> {
    let due = due_now(pass, ids, built_on);
    due.into_iter().find_map(|position| match pass.gate(&pass.entries[position].id) {
        Gate::Gone(what) => Some((position, what)),
        Gate::Open | Gate::Waiting(_) => None,
    })
}

/// Entries among `ids` that wait for nothing but their own undo, by position, the last one first.
fn due_now(pass: &Pass<'_>, ids: &BTreeSet<String>, built_on: &[Vec<usize>]) -> Vec<usize> {
    let held = held_back(&pass.entries, built_on);
    let due = |position: &usize| {
        let entry = &pass.entries[*position];
        ids.contains(&entry.id) && !entry.is_open() && is_owed(entry) && !held[*position]
    };
    (0..pass.entries.len()).rev().filter(due).collect()
}

/// Which entries must wait, by position: something built on them, directly or not, is open or waits for its own undo.
fn held_back(entries: &[StepStatus], built_on: &[Vec<usize>]) -> Vec<bool> {
    // Under what is open nothing is undone, in a circle or not: it ends by itself.
    let all = recorded(entries);
    let open = (0..entries.len()).filter(|position| entries[*position].is_open()).collect();
    let owed = (0..entries.len()).filter(|position| is_owed(&entries[*position])).collect();
    beneath(open, &all).into_iter().zip(beneath(owed, built_on)).map(|(open, owed)| open || owed).collect()
}

/// What the given entries are built on, directly or not, by position.
fn beneath(mut todo: Vec<usize>, edges: &[Vec<usize>]) -> Vec<bool> {
    let mut marked = vec![false; edges.len()];
    while let Some(position) = todo.pop() {
        for &other in &edges[position] {
            if !std::mem::replace(&mut marked[other], true) {
                todo.push(other);
            }
        }
    }
    marked
}

/// The recorded dependencies that order the undo, by position, free of circles.
///
/// Where the two stand in the list says nothing: what leaves the plan goes to its end, also from under an open run. But
/// edges of several graphs may form a circle. There the runs tell what was done: an edge to what was begun later is not
/// followed, so that nothing waits for itself.
fn built_on(entries: &[StepStatus]) -> Vec<Vec<usize>> {
    let mut edges = recorded(entries);
    let goes_down = edges.iter().enumerate().any(|(position, others)| others.iter().any(|other| *other >= position));
    if !goes_down {
        return edges;
    }
    let reached: Vec<Vec<bool>> = (0..edges.len()).map(|position| beneath(vec![position], &edges)).collect();
    let begun = |position: usize| (entries[position].started_at.as_ref().map(|time| time.0), position);
    for (position, others) in edges.iter_mut().enumerate() {
        others.retain(|other| !reached[*other][position] || begun(*other) < begun(position));
    }
    edges
}

/// All recorded dependencies that are in the list, by position.
fn recorded(entries: &[StepStatus]) -> Vec<Vec<usize>> {
    let ids = entries.iter().enumerate().map(|(position, entry)| (entry.id.as_str(), position));
    let positions: BTreeMap<&str, usize> = ids.collect();
    let known = |entry: &StepStatus| {
        entry.depends_on.iter().filter_map(|dependency| positions.get(dependency.step.as_str()).copied()).collect()
    };
    entries.iter().map(known).collect()
}

/// Entries whose undo comes by itself: owed, not open, not given up, not under one that is.
pub fn due(entries: &[StepStatus]) -> Vec<&StepStatus> {
    let given_up = |entry: &StepStatus| entry.phase == StepPhase::UndoFailed && is_owed(entry);
    let given_up = (0..entries.len()).filter(|position| given_up(&entries[*position])).collect();
    let stuck = beneath(given_up, &built_on(entries));
    let moves = |entry: &StepStatus| is_owed(entry) && !entry.is_open() && entry.phase != StepPhase::UndoFailed;
    entries.iter().zip(stuck).filter(|(entry, stuck)| moves(entry) && !stuck).map(|(entry, _)| entry).collect()
}

/// Whether a failed undo may be repeated now; one that may not any more becomes `UndoFailed`.
fn may_start(pass: &mut Pass<'_>, position: usize) -> bool {
    let entry = &mut pass.entries[position];
    match entry.phase {
        StepPhase::Undoing => {
            let Some(class) = entry.class else { return pass.has_slot(position) };
            match after_failure(entry, class, &undo_retry()) {
                AfterFailure::GiveUp => {
                    entry.phase = StepPhase::UndoFailed;
                    entry.retry_at = None;
                    false
                }
                AfterFailure::RetryAt(at) => {
                    entry.retry_at = Some(Time(at));
                    !pass.is_later(position) && pass.has_slot(position)
                }
            }
        }
        StepPhase::UndoFailed => false,
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undone => pass.has_slot(position),
    }
}

fn nothing_left(entry: &mut StepStatus, what: &str) {
    entry.phase = StepPhase::Undone;
    entry.effect = StepEffect::None;
    entry.retry_at = None;
    "Gone".clone_into(&mut entry.reason);
    entry.message = cut(what);
}

/// Whether an undo lacks credentials, rights or a Secret, for which it is tried for ever.
pub fn is_refused(entry: &StepStatus) -> bool {
    entry.phase == StepPhase::Undoing && entry.class == Some(FailureClass::Unauthorized)
}

/// Whether a deletion has come to where only a person helps, with its own steps. What waits for something else does not
/// count for that: whether it comes is not known here.
pub(crate) fn needs_a_person(entries: &[StepStatus]) -> bool {
    let is_stuck = |entry: &StepStatus| {
        is_owed(entry) && !entry.is_open() && (is_refused(entry) || entry.phase == StepPhase::UndoFailed)
    };
    let stuck: Vec<usize> = (0..entries.len()).filter(|position| is_stuck(&entries[*position])).collect();
    let is_any = !stuck.is_empty();
    let under = beneath(stuck, &built_on(entries));
    let moves = |entry: &StepStatus| is_owed(entry) && !is_stuck(entry);
    let others = entries.iter().zip(under).any(|(entry, under)| entry.is_open() || (moves(entry) && !under));
    is_any && !others
}

/// How a deletion stands.
pub(crate) fn verdict(entries: &[StepStatus], waiting: &BTreeMap<String, String>) -> Verdict {
    let stuck = entries.iter().find(|entry| entry.phase == StepPhase::UndoFailed && is_owed(entry));
    let also = stuck.map_or_else(String::new, |entry| format!("; {}", failure_text(entry)));
    if let Some(runs) = open_text(entries, "waits for") {
        return Verdict::Deleting(format!("{runs}{also}"));
    }
    let due = due(entries);
    if let Some(entry) = due.iter().find(|entry| entry.phase == StepPhase::Undoing && entry.class.is_some()) {
        return Verdict::Deleting(format!("tries again: {}{also}", failure_text(entry)));
    }
    if let Some(what) = waiting.values().next() {
        return Verdict::Deleting(format!("waits: {what}{also}"));
    }
    // The last one goes first.
    if let Some(entry) = due.last() {
        return Verdict::Deleting(format!("undo of '{}' is next{also}", entry.id));
    }
    match stuck {
        None => Verdict::Deleted,
        Some(entry) => {
            let left: Vec<&str> =
                entries.iter().filter(|entry| is_owed(entry)).map(|entry| entry.id.as_str()).collect();
            Verdict::DeletionBlocked(format!("{}; what remains: {}", failure_text(entry), left.join(", ")))
        }
    }
}
