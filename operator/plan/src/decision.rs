//! The only place where anything is chosen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::names::{MAX_STEPS, MAX_WHY};
use provisioning_api::shared::{OnFailure, RetryPolicy};
use provisioning_api::steps::{
    DependencyType, Direction, FailureClass, StepAction, StepDependency, StepEffect, StepPhase, StepStatus,
    step_reasons,
};

use crate::graph::{Gate, Graph, Step};
use crate::ids::InputHash;
use crate::observed::{Observed, RunView};
use crate::retry::{AfterFailure, after_failure};
use crate::settle::{cut, prefix};
use crate::{skip, undo};

/// What bounds a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether the object is wanted or on its way out.
    pub mode: Mode,
    /// Why nothing forward is started, if so: a sentence for people.
    pub suspended: Option<String>,
    /// What follows when a step has failed for good.
    pub on_failure: OnFailure,
    /// Most steps of this object that may be open.
    pub parallelism: usize,
    /// Most steps that this object can hold.
    pub max_steps: usize,
    /// How many more steps may be opened in the whole workspace.
    pub available: usize,
    /// `Workspace.status.epoch` of this leader.
    pub epoch: i64,
    /// The reconcile annotation has changed: what failed gets its attempts back.
    pub retry_requested: bool,
    /// What happens to steps that are no longer in the graph.
    pub removed: RemovedSteps,
    /// Gates of steps that are no longer in the graph, by id; one that is not here is open.
    pub gates: BTreeMap<String, Gate>,
    /// Failed steps whose cause is known to be gone: they get their attempts back (L2).
    pub revive: BTreeSet<String>,
    /// Steps without effect whose result is old from this time on: they are run again.
    pub observe_again: BTreeMap<String, Timestamp>,
    /// Steps that a person has said are not needed.
    pub waived: BTreeSet<String>,
    /// Highest run of any step that was forgotten: one that comes back goes on from there (protocols §2: never reset).
    pub run_floor: i64,
}

impl Default for Policy {
    /// An object that is wanted, with nothing in its way.
    fn default() -> Self {
        Policy {
            mode: Mode::Forward,
            suspended: None,
            on_failure: OnFailure::Continue,
            parallelism: usize::MAX,
            max_steps: MAX_STEPS,
            available: usize::MAX,
            epoch: 0,
            retry_requested: false,
            removed: RemovedSteps::Undo,
            gates: BTreeMap::new(),
            revive: BTreeSet::new(),
            observe_again: BTreeMap::new(),
            waived: BTreeSet::new(),
            run_floor: 0,
        }
    }
}

/// Whether the object is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is wanted.
    Forward,
    /// It is being deleted.
    Delete,
}

/// What happens to steps that are no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedSteps {
    /// They are undone, then forgotten.
    Undo,
    /// They are forgotten; what they made stays.
    Forget,
}

/// What a pass comes to. Everything is a value; nothing has been done yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The plan with its checkpoints, to be persisted before anything is done.
    pub steps: Vec<StepStatus>,
    /// New intents among them: their executors are created once the intents are durable.
    pub start: Vec<String>,
    /// Open runs of this process whose executor is missing: the create is repeated.
    pub resume: Vec<String>,
    /// Open runs that must be given up (protocols §2).
    pub give_up: Vec<String>,
    /// When to look again if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Highest run of any step that was forgotten, to be kept for the next pass.
    pub run_floor: i64,
    /// What to tell people.
    pub verdict: Verdict,
    /// A deletion has come to where only a person helps: an undo failed for good, or lacks credentials, rights or a Secret, for which it
    /// is tried for ever; and no other one runs, is next, waits or is tried again.
    pub needs_a_person: bool,
    /// Why, in the order of deciding; for logs and golden tests.
    pub notes: Vec<String>,
}

/// How the object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every step succeeded.
    Ready,
    /// Steps are open or about to be.
    Running(String),
    /// A step failed and will be tried again.
    Retrying(String),
    /// Something outside is not there yet.
    Waiting(String),
    /// Nothing forward is started.
    Suspended(String),
    /// A step failed for good.
    Failed(String),
    /// A step failed for good, and nothing more is started until a person decides.
    Paused(String),
    /// The object is being deleted.
    Deleting(String),
    /// Deletion needs a person.
    DeletionBlocked(String),
    /// Nothing is left to undo.
    Deleted,
}

/// From so far ahead on a time was written by a clock that has been set back since: nobody knows how long ago it was.
pub const CLOCK_TOLERANCE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// When an object looks again that found no free place in its workspace.
const PLACE_WAIT: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// State of one pass.
pub(crate) struct Pass<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) observed: &'a Observed,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
    pub(crate) entries: Vec<StepStatus>,
    pub(crate) start: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) run_floor: i64,
    pub(crate) waiting: BTreeMap<String, String>,
    /// Entries that were open while a dependency was planned again, with its name.
    overtaken: BTreeMap<String, String>,
    /// Phases at the beginning of the pass.
    pub(crate) before: BTreeMap<String, StepPhase>,
}

/// Decides. `steps` are the settled checkpoints ([`crate::settle::settle`]), `graph` was built from them.
///
/// Same arguments, same decision.
pub fn decide(graph: &Graph, steps: &[StepStatus], observed: &Observed, policy: &Policy, now: Timestamp) -> Decision {
    let mut pass = Pass {
        graph,
        observed,
        policy,
        now,
        entries: Vec::new(),
        start: Vec::new(),
        notes: Vec::new(),
        wake_at: None,
        run_floor: policy.run_floor,
        waiting: BTreeMap::new(),
        overtaken: BTreeMap::new(),
        before: steps.iter().map(|step| (step.id.clone(), step.phase)).collect(),
    };
    pass.merge(steps);
    match policy.mode {
        Mode::Forward => {
            pass.replan();
            pass.revive();
            pass.observe_again();
            pass.follow_dependencies();
            pass.start_forward();
            undo::removed(&mut pass);
        }
        Mode::Delete => undo::everything(&mut pass),
    }
    pass.finish()
}

impl Pass<'_> {
    /// One entry per step of the graph, in its order; then what is no longer in the graph.
    fn merge(&mut self, steps: &[StepStatus]) {
        let known: BTreeMap<&str, &StepStatus> = steps.iter().map(|step| (step.id.as_str(), step)).collect();
        let forget = self.policy.mode == Mode::Forward && self.policy.removed == RemovedSteps::Forget;
        let stays = |step: &&StepStatus| step.is_open() || (!forget && undo::is_owed(step));
        let removed = steps.iter().filter(|step| self.graph.get(&step.id).is_none());
        let held = self.graph.steps().iter().filter(|step| known.contains_key(step.id.as_str())).count();
        let mut room = self.policy.max_steps.saturating_sub(held + removed.clone().filter(stays).count());
        for step in self.graph.steps() {
            if !known.contains_key(step.id.as_str()) {
                // Steps that were removed and are not undone yet may leave no room for new ones.
                let Some(left) = room.checked_sub(1) else { continue };
                room = left;
            }
            let mut entry =
                known.get(step.id.as_str()).map_or_else(|| planned(step, self.run_floor), |entry| (*entry).clone());
            // An open entry stays as its run was started, so that nothing it was built on goes away under it.
            if !entry.is_open() {
                if let Some(other) = self.overtaken_by(&entry, step, steps) {
                    self.overtaken.insert(entry.id.clone(), other);
                }
                describe(&mut entry, step);
            }
            self.entries.push(entry);
        }
        self.entries.extend(removed.cloned());
    }

    /// A changed input plans the step again, with all that depends on it.
    fn replan(&mut self) {
        let mut changed: BTreeSet<String> = BTreeSet::new();
        for position in 0..self.entries.len() {
            let Some(step) = self.graph.get(&self.entries[position].id) else {
                self.outdate(position, &changed);
                continue;
            };
            let entry = &mut self.entries[position];
            if entry.is_open() {
                continue;
            }
            // Inputs that are not known just now change nothing: what was done stays done.
            let new_input = step.input_hash.as_ref().filter(|hash| !hash.is_in(&entry.input_hash));
            let cause = step.depends_on.iter().find(|dependency| changed.contains(dependency.step.as_str()));
            // What was already planned again, or omitted since, has told its dependents once. What was passed over tells
            // them when it runs after all.
            let over = !matches!(entry.phase, StepPhase::Pending | StepPhase::Omitted | StepPhase::Skipped);
            let was_tried = entry.run > 0 && over;
            let cause = cause.map(|other| other.step.to_string()).or_else(|| self.overtaken.get(&entry.id).cloned());
            if let Some(hash) = new_input {
                hash.as_str().clone_into(&mut entry.input_hash);
            }
            if new_input.is_some() || (cause.is_some() && was_tried) {
                if was_tried {
                    let why = cause.map_or("its input changed".to_owned(), |other| format!("'{other}' runs again"));
                    self.notes.push(format!("plan {} again: {why}", entry.id));
                    changed.insert(entry.id.clone());
                }
                reset(entry);
            }
        }
    }

    /// A step that left the plan, and whose undo is still to come, was built on something that runs again: should it come
    /// back, it is not done.
    fn outdate(&mut self, position: usize, changed: &BTreeSet<String>) {
        let entry = &mut self.entries[position];
        let built_on = entry.depends_on.iter().any(|dependency| changed.contains(&dependency.step));
        if built_on && entry.phase == StepPhase::Succeeded {
            self.notes.push(format!("{} was built on what runs again", entry.id));
            reset(entry);
        }
    }

    /// The hard dependency that was planned again while this entry was open. Asked in the pass that sees the end of the
    /// run, because only then does the entry still hold the edges that it was started with.
    fn overtaken_by(&self, entry: &StepStatus, step: &Step, steps: &[StepStatus]) -> Option<String> {
        let ended = matches!(self.observed.get(&entry.id), Some(RunView::Ended(_))) && !entry.is_open();
        let started = entry.started_at.as_ref().filter(|_| ended)?.0.as_second();
        let still_wanted = |id: &str| step.depends_on.iter().any(|dependency| dependency.step.as_str() == id);
        let hard = entry.depends_on.iter().filter(|dependency| dependency.type_ == DependencyType::Hard);
        let wanted = hard.filter(|dependency| still_wanted(&dependency.step));
        let mut others = wanted.filter_map(|dependency| steps.iter().find(|other| other.id == dependency.step));
        let newer = |other: &StepStatus| other.started_at.as_ref().is_some_and(|at| at.0.as_second() > started);
        let other = others.find(|other| match other.phase {
            StepPhase::Succeeded => newer(other),
            StepPhase::Skipped => false,
            StepPhase::Pending
            | StepPhase::Running
            | StepPhase::Failed
            | StepPhase::Cancelled
            | StepPhase::Omitted
            | StepPhase::Undoing
            | StepPhase::Undone
            | StepPhase::UndoFailed => true,
        });
        other.map(|other| other.id.clone())
    }

    /// Whether a run of this step, begun now, could not be told from one before the open runs that depend on it: times
    /// in status are whole seconds.
    fn is_too_soon(&mut self, position: usize) -> bool {
        let id = &self.entries[position].id;
        let dependents = self.entries.iter().filter(|other| other.is_open());
        let built_on = dependents.filter(|other| other.depends_on.iter().any(|dependency| dependency.step == *id));
        let last = built_on.filter_map(|other| other.started_at.as_ref()).map(|time| time.0.as_second()).max();
        let Some(last) = last.filter(|last| *last >= self.now.as_second()) else { return false };
        let at = Timestamp::from_second(last.saturating_add(1)).unwrap_or(Timestamp::MAX);
        self.wake(at);
        true
    }

    /// Failed entries that may be tried again become Pending with a time.
    fn revive(&mut self) {
        for entry in &mut self.entries {
            let Some(step) = self.graph.get(&entry.id) else { continue };
            let failed = matches!(entry.phase, StepPhase::Failed | StepPhase::UndoFailed | StepPhase::Undone);
            let undo_waits = entry.phase == StepPhase::Undoing && !entry.is_open();
            let waits = entry.phase == StepPhase::Pending && (entry.attempt > 0 || entry.losses > 0);
            if entry.phase == StepPhase::Failed && self.policy.revive.contains(&entry.id) {
                self.notes.push(format!("plan {} again: what it failed for is mended", entry.id));
                reset(entry);
            } else if self.policy.retry_requested && (failed || waits) {
                self.notes.push(format!("plan {} again: asked for by annotation", entry.id));
                reset(entry);
            } else if matches!(entry.phase, StepPhase::Undone | StepPhase::UndoFailed) || undo_waits {
                // It was removed once and is wanted again.
                reset(entry);
            } else if let (StepPhase::Failed, Some(class)) = (entry.phase, entry.class) {
                match after_failure(entry, class, &step.retry) {
                    // A time that was asked for with the last failure would look like a retry to come.
                    AfterFailure::GiveUp => entry.retry_at = None,
                    AfterFailure::RetryAt(at) => {
                        entry.phase = StepPhase::Pending;
                        entry.retry_at = Some(Time(at));
                        self.notes.push(format!("retry {} ({class:?}, attempt {})", entry.id, entry.attempt));
                    }
                }
            }
        }
    }

    /// Runs again what only looks (S4 excepts it) once its result is old, if it could be run now: what was seen last
    /// stands until it can be seen again.
    fn observe_again(&mut self) {
        if self.policy.suspended.is_some() {
            return;
        }
        for position in 0..self.entries.len() {
            let entry = &self.entries[position];
            let Some(at) = self.policy.observe_again.get(&entry.id).copied() else { continue };
            let Some(step) = self.graph.get(&entry.id) else { continue };
            let is_over = matches!(entry.phase, StepPhase::Succeeded | StepPhase::Failed);
            let only_looks = !step.action.has_effect() && step.gate == Gate::Open;
            if !is_over || !only_looks || !self.dependencies_have_ended(step) {
                continue;
            }
            if at > self.now {
                self.wake(at);
                continue;
            }
            self.notes.push(format!("plan {} again: its result is old", self.entries[position].id));
            reset(&mut self.entries[position]);
        }
    }

    /// Omits what can no longer be, brings back what can, passes over what its condition does not want: each step after
    /// all that it depends on, so that one pass comes to the end of it.
    fn follow_dependencies(&mut self) {
        let graph = self.graph;
        let mut told = BTreeSet::new();
        for position in 0..self.entries.len() {
            let Some(step) = graph.get(&self.entries[position].id) else { continue };
            skip::hear(self, position, step, &mut told);
            skip::reconsider(self, position, step);
            if skip::waive(self, position, step) {
                continue;
            }
            self.omit_or_bring_back(position, step);
            skip::decide(self, position, step, &mut told);
        }
    }

    fn omit_or_bring_back(&mut self, position: usize, step: &Step) {
        if !matches!(self.entries[position].phase, StepPhase::Pending | StepPhase::Omitted) {
            return;
        }
        let obstacle = match &step.gate {
            Gate::Gone(what) => Some(what.clone()),
            Gate::Open | Gate::Waiting(_) => self.failed_dependency(step),
        };
        let entry = &mut self.entries[position];
        match (obstacle, entry.phase) {
            (Some(why), StepPhase::Pending) => {
                self.notes.push(format!("omit {}: {why}", entry.id));
                let reason = if skip::is_anew(entry) { step_reasons::OMITTED_ANEW } else { step_reasons::OMITTED };
                entry.phase = StepPhase::Omitted;
                reason.clone_into(&mut entry.reason);
                entry.message = cut(&why);
                entry.retry_at = None;
            }
            (None, StepPhase::Omitted) => reset(entry),
            (Some(_) | None, _) => {}
        }
    }

    fn failed_dependency(&self, step: &Step) -> Option<String> {
        step.depends_on.iter().filter(|dependency| dependency.type_ == DependencyType::Hard).find_map(|dependency| {
            let phase = self.phase(dependency.step.as_str())?;
            let failed = matches!(
                phase,
                StepPhase::Failed
                    | StepPhase::Cancelled
                    | StepPhase::Omitted
                    | StepPhase::Undoing
                    | StepPhase::Undone
                    | StepPhase::UndoFailed
            );
            failed.then(|| format!("step '{}' it depends on is {phase:?}", dependency.step))
        })
    }

    /// Opens what can be opened, in the order of the graph.
    fn start_forward(&mut self) {
        let paused = self.pauses();
        for position in 0..self.entries.len() {
            let entry = &self.entries[position];
            let Some(step) = self.graph.get(&entry.id) else { continue };
            if entry.phase != StepPhase::Pending || !self.dependencies_have_ended(step) {
                continue;
            }
            if self.policy.suspended.is_some() || paused {
                continue;
            }
            if let Gate::Waiting(what) = &step.gate {
                self.waiting.insert(entry.id.clone(), what.clone());
                continue;
            }
            if step.input_hash.is_none() {
                self.waiting.insert(entry.id.clone(), format!("the inputs of step '{}' are not known yet", entry.id));
                continue;
            }
            if self.is_later(position) || self.is_too_soon(position) || !self.has_slot(position) {
                continue;
            }
            let id = self.entries[position].id.clone();
            open(&mut self.entries[position], Direction::Forward, self.policy.epoch, self.now);
            self.notes.push(format!("start {id} run {}", self.entries[position].run));
            self.start.push(id);
        }
    }

    /// Whether a wanted step has failed for good, and that stops the others.
    fn pauses(&self) -> bool {
        let failed = |entry: &StepStatus| entry.phase == StepPhase::Failed && self.graph.get(&entry.id).is_some();
        match self.policy.on_failure {
            OnFailure::Continue => false,
            OnFailure::Pause => self.entries.iter().any(failed),
        }
    }

    pub(crate) fn dependencies_have_ended(&self, step: &Step) -> bool {
        step.depends_on.iter().all(|dependency| {
            let phase = self.phase(dependency.step.as_str());
            match dependency.type_ {
                DependencyType::Hard => matches!(phase, Some(StepPhase::Succeeded | StepPhase::Skipped)),
                DependencyType::Soft => {
                    phase.map_or(self.graph.get(dependency.step.as_str()).is_none(), StepPhase::is_terminal)
                }
            }
        })
    }

    /// The latest time that a clock which was not set back can have written.
    fn latest(&self) -> Timestamp {
        self.now.saturating_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX)
    }

    /// Whether its time has not come; remembers the time.
    pub(crate) fn is_later(&mut self, position: usize) -> bool {
        let entry = &self.entries[position];
        let Some(at) = entry.retry_at.as_ref().map(|time| time.0) else { return false };
        if at <= self.now || entry.finished_at.as_ref().is_some_and(|ended| ended.0 > self.latest()) {
            return false;
        }
        self.wake(at);
        true
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether one more step may be opened. A place elsewhere in the workspace becomes free without a word to this
    /// object, so it looks again by itself.
    pub(crate) fn has_slot(&mut self, position: usize) -> bool {
        let open = self.entries.iter().filter(|entry| entry.is_open()).count();
        let takes_place = |entry: &StepStatus| entry.action.has_executor();
        let taken = self.entries.iter().filter(|entry| takes_place(entry) && self.start.contains(&entry.id)).count();
        if takes_place(&self.entries[position]) && taken >= self.policy.available {
            self.wake(self.now.saturating_add(PLACE_WAIT).unwrap_or(Timestamp::MAX));
            return false;
        }
        self.successor().is_none() && open < self.policy.parallelism
    }

    /// What holds a step back that is not in the graph any more, or is.
    pub(crate) fn gate(&self, id: &str) -> Gate {
        let wanted = self.graph.get(id).map(|step| &step.gate);
        wanted.or_else(|| self.policy.gates.get(id)).cloned().unwrap_or(Gate::Open)
    }

    /// The epoch of a later leader that has acted here already: then this process starts and ends nothing (protocols §6).
    fn successor(&self) -> Option<i64> {
        self.entries.iter().map(|entry| entry.epoch).max().filter(|epoch| *epoch > self.policy.epoch)
    }

    pub(crate) fn phase(&self, id: &str) -> Option<StepPhase> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.phase)
    }

    fn finish(self) -> Decision {
        let mut resume = Vec::new();
        let mut give_up = Vec::new();
        // A deletion starts nothing forward, not even what was intended before it.
        let unwanted =
            |entry: &StepStatus| self.policy.mode == Mode::Delete && entry.open_direction() == Some(Direction::Forward);
        for entry in self.entries.iter().filter(|entry| entry.is_open() && !self.start.contains(&entry.id)) {
            let stale = entry.epoch < self.policy.epoch;
            if entry.epoch > self.policy.epoch {
                continue;
            }
            match self.observed.get(&entry.id) {
                Some(RunView::Missing { ours: true }) if !stale && !unwanted(entry) => resume.push(entry.id.clone()),
                Some(RunView::Alive | RunView::Ended(_)) if !stale => {}
                Some(RunView::Alive | RunView::Ended(_) | RunView::Missing { .. } | RunView::Silent) | None => {
                    give_up.push(entry.id.clone());
                }
            }
        }
        let verdict = self.verdict();
        let needs_a_person = self.policy.mode == Mode::Delete && undo::needs_a_person(&self.entries);
        Decision {
            steps: self.entries,
            start: self.start,
            resume,
            give_up,
            wake_at: self.wake_at,
            run_floor: self.run_floor,
            verdict,
            needs_a_person,
            notes: self.notes,
        }
    }

    fn verdict(&self) -> Verdict {
        if let Some(epoch) = self.successor() {
            let ours = self.policy.epoch;
            return Verdict::Waiting(format!(
                "an operator of epoch {epoch} has acted here; this one, of {ours}, may not"
            ));
        }
        match self.policy.mode {
            Mode::Delete => undo::verdict(&self.entries, &self.waiting),
            Mode::Forward => self.forward_verdict(),
        }
    }

    fn forward_verdict(&self) -> Verdict {
        let in_phase = |phase: StepPhase| self.entries.iter().find(move |entry| entry.phase == phase);
        let removed = |entry: &StepStatus| self.graph.get(&entry.id).is_none();
        let undo = match self.policy.removed {
            RemovedSteps::Undo => undo::due(&self.entries).into_iter().filter(|entry| removed(entry)).collect(),
            RemovedSteps::Forget => Vec::new(),
        };
        let failed = self.entries.iter().filter(|entry| !undo.iter().any(|other| other.id == entry.id));
        let failure = failed.clone().find(|entry| entry.phase == StepPhase::Failed);
        let failure = failure.or_else(|| failed.clone().find(|entry| entry.phase == StepPhase::UndoFailed));
        // A removed step under an undo that failed for good waits for a person, whatever its phase.
        let moves = |entry: &StepStatus| !removed(entry) || undo.iter().any(|other| other.id == entry.id);
        let mut moving = self.entries.iter().filter(|entry| moves(entry));
        // One that has failed and waits for something since tells what it waits for.
        let is_free = |entry: &StepStatus| !self.waiting.contains_key(&entry.id);
        let retrying = moving.clone().find(|entry| !entry.is_open() && entry.retry_at.is_some() && is_free(entry));
        let pending = moving.any(|entry| entry.phase == StepPhase::Pending) || !undo.is_empty();
        if let Some(runs) = open_text(&self.entries, "running") {
            let also = failure.map_or_else(String::new, |entry| format!("; {}", failure_text(entry)));
            return Verdict::Running(format!("{runs}{also}"));
        }
        if let (true, Some(why)) = (pending, &self.policy.suspended) {
            return Verdict::Suspended(why.clone());
        }
        if let (true, true, Some(entry)) = (self.pauses(), undo.is_empty(), failure) {
            return Verdict::Paused(failure_text(entry));
        }
        if let Some(entry) = retrying {
            return Verdict::Retrying(failure_text(entry));
        }
        if let Some(what) = self.waiting.values().next() {
            return Verdict::Waiting(what.clone());
        }
        if pending {
            return Verdict::Running("waits for a free place: the workspace's parallelism is used up".to_owned());
        }
        if let Some(entry) = failure {
            return Verdict::Failed(failure_text(entry));
        }
        let listed = |step: &&Step| self.entries.iter().any(|entry| entry.id == step.id.as_str());
        let left_out = self.graph.steps().len() - self.graph.steps().iter().filter(listed).count();
        if left_out > 0 {
            let most = self.policy.max_steps;
            let text = format!("{left_out} steps wait until removed ones are undone: the object holds {most}");
            return Verdict::Waiting(text);
        }
        if let Some(entry) = in_phase(StepPhase::Omitted) {
            return Verdict::Failed(format!("step '{}' was omitted: {}", entry.id, entry.message));
        }
        let gone = self.graph.steps().iter().find_map(|step| match &step.gate {
            Gate::Gone(what) => Some((step.id.as_str(), what)),
            Gate::Open | Gate::Waiting(_) => None,
        });
        if let Some((id, what)) = gone {
            return Verdict::Failed(format!("step '{id}' is done, but {what}"));
        }
        Verdict::Ready
    }
}

/// The cause in one sentence: step, class, last words.
pub fn failure_text(entry: &StepStatus) -> String {
    let class = entry.class.map_or_else(String::new, |class| format!(" ({class:?})"));
    let words = if entry.message.is_empty() { &entry.reason } else { &entry.message };
    let what = match entry.phase {
        StepPhase::Undoing | StepPhase::UndoFailed => "undo of step",
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undone => "step",
    };
    format!("{what} '{}' failed{class}: {words}", entry.id)
}

/// What goes on, by direction: `running a, b; undoing c`, with this word for what goes forward. None where nothing is open.
pub(crate) fn open_text(entries: &[StepStatus], forward: &str) -> Option<String> {
    let heading = |direction: Direction| {
        let open = entries.iter().filter(|entry| entry.open_direction() == Some(direction));
        let ids: Vec<&str> = open.map(|entry| entry.id.as_str()).collect();
        let verb = match direction {
            Direction::Forward => forward,
            Direction::Undo => "undoing",
        };
        (!ids.is_empty()).then(|| format!("{verb} {}", ids.join(", ")))
    };
    let parts: Vec<String> = [Direction::Forward, Direction::Undo].into_iter().filter_map(heading).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether servers remember what a run of this action did, and answer the next one with it.
fn is_remembered(action: StepAction) -> bool {
    matches!(action, StepAction::Install | StepAction::Run)
}

fn planned(step: &Step, run_floor: i64) -> StepStatus {
    let input_hash = step.input_hash.as_ref().map_or_else(String::new, |hash| hash.as_str().to_owned());
    // It may have been here before, and be forgotten since.
    let was_here = run_floor > 0 && is_remembered(step.action) && !input_hash.is_empty();
    StepStatus {
        id: step.id.to_string(),
        action: step.action,
        why: String::new(),
        depends_on: Vec::new(),
        undo: step.undo,
        phase: StepPhase::Pending,
        run: run_floor,
        attempt: 0,
        losses: 0,
        input_hash: if was_here { InputHash::anew(&input_hash, run_floor) } else { input_hash },
        epoch: 0,
        started_at: None,
        finished_at: None,
        retry_at: None,
        external_id: None,
        outputs: BTreeMap::new(),
        effect: StepEffect::None,
        class: None,
        reason: String::new(),
        message: String::new(),
    }
}

/// Brings the planned half of an entry up to date.
fn describe(entry: &mut StepStatus, step: &Step) {
    entry.action = step.action;
    entry.why = prefix(&step.why, MAX_WHY);
    entry.undo = step.undo;
    entry.depends_on = step
        .depends_on
        .iter()
        .map(|dependency| StepDependency { step: dependency.step.to_string(), type_: dependency.type_ })
        .collect();
}

/// Back to Pending with all attempts; `run`, `effect` and what was made stay, and that a step was passed over before.
pub(crate) fn reset(entry: &mut StepStatus) {
    let anew = skip::is_anew(entry);
    // What was done is not done again because something before it was (S4), but for a script that somebody asked for. What
    // was undone is, and perhaps by others: then this step's own executor knows nothing of it.
    let does_again = match entry.phase {
        StepPhase::Succeeded => entry.action == StepAction::Run,
        StepPhase::Undone => is_remembered(entry.action),
        StepPhase::Pending
        | StepPhase::Running
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undoing
        | StepPhase::UndoFailed => false,
    };
    if does_again {
        entry.input_hash = InputHash::anew(&entry.input_hash, entry.run);
    }
    entry.phase = StepPhase::Pending;
    entry.attempt = 0;
    entry.losses = 0;
    entry.retry_at = None;
    entry.class = None;
    entry.reason.clear();
    if anew {
        step_reasons::DECIDED_ANEW.clone_into(&mut entry.reason);
    }
    entry.message.clear();
}

/// Writes the intent of a new run.
pub(crate) fn open(entry: &mut StepStatus, direction: Direction, epoch: i64, now: Timestamp) {
    let phase = match direction {
        Direction::Forward => StepPhase::Running,
        Direction::Undo => StepPhase::Undoing,
    };
    entry.phase = phase;
    // What is above the greatest number is refused by the API server, with the field's path.
    entry.run = entry.run.saturating_add(1);
    entry.epoch = epoch;
    entry.started_at = Some(Time(now));
    entry.finished_at = None;
    entry.retry_at = None;
    entry.class = None;
    format!("{phase:?}").clone_into(&mut entry.reason);
    entry.message.clear();
}

/// Policy for undo runs: patient, because giving up leaves something behind.
pub(crate) fn undo_retry() -> RetryPolicy {
    RetryPolicy {
        limit: 5,
        classes: vec![
            FailureClass::Transient,
            FailureClass::Throttled,
            FailureClass::Timeout,
            FailureClass::ScriptFailed,
        ],
        ..RetryPolicy::default()
    }
}

/// Decides nothing new: open runs are resumed or given up as ever, nothing is started. For objects whose graph cannot
/// be drawn just now.
pub fn hold(steps: &[StepStatus], observed: &Observed, epoch: i64, run_floor: i64) -> Decision {
    let policy = Policy { parallelism: 0, epoch, ..Policy::default() };
    let graph = Graph::default();
    let pass = Pass {
        graph: &graph,
        observed,
        policy: &policy,
        now: Timestamp::UNIX_EPOCH,
        entries: steps.to_vec(),
        start: Vec::new(),
        notes: Vec::new(),
        wake_at: None,
        run_floor,
        waiting: BTreeMap::new(),
        overtaken: BTreeMap::new(),
        before: BTreeMap::new(),
    };
    pass.finish()
}
