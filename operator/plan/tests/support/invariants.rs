//! The invariants of protocols §7, as far as the planner can know them, checked at every pass of every test.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use provisioning_api::names::{MAX_STEP_MESSAGE, MAX_STEPS};
use provisioning_api::shared::OnFailure;
use provisioning_api::steps::{
    DependencyType, Direction, FailureClass, StepEffect, StepPhase, StepStatus, step_reasons,
};
use provisioning_plan::decision::{CLOCK_TOLERANCE, Decision, Mode, Policy, RemovedSteps, Verdict, decide};
use provisioning_plan::graph::{Gate, Graph, Step};
use provisioning_plan::observed::{Observed, RunView};
use provisioning_plan::summary;

use super::{is_undoable, stored};

/// One pass, all of it.
pub struct Pass<'a> {
    pub graph: &'a Graph,
    pub before: &'a [StepStatus],
    pub settled: &'a [StepStatus],
    pub observed: &'a Observed,
    pub policy: &'a Policy,
    pub now: Timestamp,
    pub decision: &'a Decision,
    /// Steps that really left something behind: what the world knows and the planner can only guess.
    pub effects: &'a BTreeSet<String>,
}

fn by_id(steps: &[StepStatus]) -> BTreeMap<&str, &StepStatus> {
    steps.iter().map(|step| (step.id.as_str(), step)).collect()
}

fn is_owed(entry: &StepStatus) -> bool {
    is_undoable(entry.undo) && (entry.effect == StepEffect::Possible || entry.phase == StepPhase::Undoing)
}

impl Pass<'_> {
    /// Everything that one pass can show.
    pub fn check(&self) {
        self.same_arguments_same_decision();
        self.order_of_the_list();
        self.runs_and_epochs_rise();
        self.open_entries_are_not_rewritten();
        self.starts_have_their_dependencies();
        self.conditions_are_kept();
        self.waivers_are_kept();
        self.undo_goes_backward();
        self.caps_hold();
        self.bounds_hold();
        self.effects_are_known();
        self.verdict_is_true();
        self.nothing_new_changes_nothing();
        self.no_hot_loop();
    }

    fn same_arguments_same_decision(&self) {
        let again = decide(self.graph, self.settled, self.observed, self.policy, self.now);
        assert_eq!(*self.decision, again, "the same arguments gave another decision");
    }

    fn order_of_the_list(&self) {
        let listed: Vec<&str> = self.decision.steps.iter().map(|step| step.id.as_str()).collect();
        assert!(listed.len() <= MAX_STEPS, "{} entries", listed.len());
        let wanted = self.graph.steps().iter().map(|step| step.id.as_str());
        let wanted: Vec<&str> = wanted.filter(|id| listed.len() < MAX_STEPS || listed.contains(id)).collect();
        assert_eq!(listed[..wanted.len()], wanted[..], "the graph's order is kept");
        let rest = &listed[wanted.len()..];
        let kept: Vec<&str> = self.settled.iter().map(|step| step.id.as_str()).filter(|id| rest.contains(id)).collect();
        assert_eq!(rest, kept, "removed steps keep their order");
    }

    /// S6.
    fn runs_and_epochs_rise(&self) {
        let before = by_id(self.before);
        for entry in &self.decision.steps {
            let run = before.get(entry.id.as_str()).map_or(self.policy.run_floor, |old| old.run);
            let started = self.decision.start.contains(&entry.id);
            assert_eq!(entry.run, run + i64::from(started), "S6: run of {} rises by one with an intent", entry.id);
            if let Some(old) = before.get(entry.id.as_str()) {
                assert!(entry.epoch >= old.epoch, "S6: the epoch of {} fell", entry.id);
            }
            if started {
                assert_eq!(entry.epoch, self.policy.epoch, "an intent carries the leader's epoch");
                assert!(entry.is_open(), "{} was started and is not open", entry.id);
            }
        }
        let after = by_id(&self.decision.steps);
        for old in self.before.iter().filter(|old| !after.contains_key(old.id.as_str())) {
            assert!(self.decision.run_floor >= old.run, "S6: the runs of {} are forgotten", old.id);
        }
        assert!(self.decision.run_floor >= self.policy.run_floor, "S6: the floor of runs fell");
        for id in &self.decision.start {
            assert!(!self.decision.resume.contains(id) && !self.decision.give_up.contains(id), "{id} twice");
        }
    }

    /// Protocols §2: it is ended first.
    fn open_entries_are_not_rewritten(&self) {
        let after = by_id(&self.decision.steps);
        for old in self.settled.iter().filter(|step| step.is_open()) {
            let new = after.get(old.id.as_str()).unwrap_or_else(|| panic!("the open entry {} was dropped", old.id));
            let unstamped = StepStatus { epoch: old.epoch, ..(*new).clone() };
            assert_eq!(*old, unstamped, "an open entry was rewritten");
        }
    }

    /// S2, suspension, gates, times.
    fn starts_have_their_dependencies(&self) {
        let after = by_id(&self.decision.steps);
        let settled = by_id(self.settled);
        for id in &self.decision.start {
            let entry = after[id.as_str()];
            let old = settled.get(id.as_str());
            assert!(!old.is_some_and(|old| old.is_open()), "{id} was open already");
            if let Some(old) = old {
                let waited = match entry.open_direction() {
                    Some(Direction::Forward) => old.phase == StepPhase::Pending,
                    Some(Direction::Undo) => old.phase == StepPhase::Undoing,
                    None => false,
                };
                let due = old.retry_at.as_ref().is_none_or(|at| at.0 <= self.now)
                    || old.finished_at.as_ref().is_some_and(|at| at.0 > self.now + CLOCK_TOLERANCE);
                let news = self.policy.retry_requested || old.input_hash != entry.input_hash;
                assert!(due || news || !waited, "{id} was started before its time");
            }
            if entry.open_direction() != Some(Direction::Forward) {
                continue;
            }
            assert_eq!(self.policy.mode, Mode::Forward, "S5: forward start of {id} in a deletion");
            assert_eq!(self.policy.suspended, None, "{id} was started while suspended");
            let mut wanted = self.decision.steps.iter().filter(|other| self.graph.get(&other.id).is_some());
            let failed = wanted.find(|other| other.phase == StepPhase::Failed);
            let paused = failed.filter(|_| self.policy.on_failure == OnFailure::Pause);
            assert_eq!(paused, None, "{id} was started while paused");
            let step = self.graph.get(id).unwrap_or_else(|| panic!("{id} is not wanted"));
            assert_eq!(step.gate, Gate::Open, "{id} was started behind a closed gate");
            let hash = step.input_hash.as_ref().unwrap_or_else(|| panic!("{id} was started without inputs"));
            assert!(hash.is_in(&entry.input_hash), "{id} was started with an old input: {}", entry.input_hash);
            for dependency in &step.depends_on {
                let other = after[dependency.step.as_str()];
                match dependency.type_ {
                    DependencyType::Hard => {
                        let done = matches!(other.phase, StepPhase::Succeeded | StepPhase::Skipped);
                        assert!(done, "S2: {id} was started while {} is {:?}", other.id, other.phase);
                        let wanted = self.graph.get(&other.id).unwrap();
                        if let (Gate::Open, Some(hash)) = (&wanted.gate, &wanted.input_hash) {
                            assert_eq!(
                                other.input_hash,
                                hash.as_str(),
                                "S2: {id} was started over an old {}",
                                other.id
                            );
                        }
                    }
                    DependencyType::Soft => {
                        assert!(other.phase.is_terminal(), "{id} did not wait for {}", other.id);
                    }
                }
            }
        }
    }

    /// A step runs only if its condition holds, and is passed over only if it does not, for what it depends on now.
    fn conditions_are_kept(&self) {
        let after = by_id(&self.decision.steps);
        for step in self.graph.steps() {
            let (Some(entry), Some(when)) = (after.get(step.id.as_str()), &step.when) else { continue };
            let others = step.depends_on.iter().filter_map(|dependency| after.get(dependency.step.as_str()));
            let holds = || when.holds(others.clone().map(|other| (other.id.as_str(), other.phase, &other.outputs)));
            let started = self.decision.start.contains(&entry.id) && entry.phase == StepPhase::Running;
            if started && entry.attempt == 0 && entry.losses == 0 {
                assert_eq!(holds(), Ok(true), "{} was started against its condition", entry.id);
            }
            let waived = entry.reason == step_reasons::WAIVED;
            if entry.phase == StepPhase::Skipped && !waived && self.policy.mode == Mode::Forward {
                assert_eq!(holds(), Ok(false), "{} was skipped and its condition holds", entry.id);
                assert!(others.clone().all(|other| other.phase.is_terminal()), "{} was skipped too early", entry.id);
            }
        }
        for entry in self.decision.steps.iter().filter(|entry| entry.phase == StepPhase::Skipped) {
            assert!(!self.decision.start.contains(&entry.id), "{} was skipped and started", entry.id);
            let waived = entry.reason == step_reasons::WAIVED;
            let wanted = waived || self.graph.get(&entry.id).is_none_or(|step| step.when.is_some());
            assert!(wanted || self.policy.mode == Mode::Delete, "{} was skipped without a condition", entry.id);
        }
    }

    /// What was waived stays so until its input changes, and nothing is waived without a wish, or in the middle.
    fn waivers_are_kept(&self) {
        let (settled, after) = (by_id(self.settled), by_id(&self.decision.steps));
        if self.policy.mode == Mode::Delete {
            return;
        }
        for entry in self.decision.steps.iter().filter(|entry| entry.reason == step_reasons::WAIVED) {
            let Some(step) = self.graph.get(&entry.id) else { continue };
            let before = settled.get(entry.id.as_str());
            let recorded = before.is_some_and(|old| old.reason == step_reasons::WAIVED);
            assert!(recorded || self.policy.waived.contains(&entry.id), "{} was waived by nobody", entry.id);
            let ran = before.is_some_and(|old| old.is_open() || old.phase == StepPhase::Succeeded);
            let same = before.is_some_and(|old| old.input_hash == entry.input_hash);
            assert!(!(ran && same) || self.replanned(step), "{} was waived although it ran or was done", entry.id);
            let ended = step.depends_on.iter().all(|other| after[other.step.as_str()].phase.is_terminal());
            let phase = if ended { StepPhase::Skipped } else { StepPhase::Pending };
            assert_eq!(entry.phase, phase, "the waived {}", entry.id);
        }
        for old in self.settled.iter().filter(|old| old.reason == step_reasons::WAIVED) {
            let Some(entry) = after.get(old.id.as_str()).filter(|_| self.graph.get(&old.id).is_some()) else {
                continue;
            };
            let kept = entry.reason == step_reasons::WAIVED || entry.input_hash != old.input_hash;
            assert!(kept, "the waiver of {} was forgotten", old.id);
        }
    }

    /// Whether something that a step depends on, directly or not, is planned again in this pass.
    fn replanned(&self, step: &Step) -> bool {
        let (settled, after) = (by_id(self.settled), by_id(&self.decision.steps));
        let mut todo: Vec<&str> = step.depends_on.iter().map(|other| other.step.as_str()).collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let (Some(new), old) = (after.get(id), settled.get(id)) else { continue };
            if old.is_none_or(|old| old.phase != new.phase || old.input_hash != new.input_hash) {
                return true;
            }
            let next = self.graph.get(id).map(|step| step.depends_on.as_slice()).unwrap_or_default();
            todo.extend(next.iter().map(|other| other.step.as_str()));
        }
        false
    }

    /// S5.
    fn undo_goes_backward(&self) {
        let settled = by_id(self.settled);
        for entry in self.decision.steps.iter().filter(|entry| self.decision.start.contains(&entry.id)) {
            if entry.open_direction() != Some(Direction::Undo) {
                continue;
            }
            let old = settled[entry.id.as_str()];
            assert_eq!(old.effect, StepEffect::Possible, "S5: {} had no effect and is undone", entry.id);
            assert!(is_undoable(entry.undo), "{} cannot be undone", entry.id);
            let wanted = self.policy.mode == Mode::Forward && self.graph.get(&entry.id).is_some();
            assert!(!wanted, "{} is wanted and is undone", entry.id);
            for other in self.built_on(&entry.id) {
                // Edges of several graphs may form a circle, where only one of the two can be undone first.
                if self.built_on(&other.id).iter().any(|back| back.id == entry.id) {
                    let open = settled[other.id.as_str()].is_open();
                    assert!(!open, "S5: {} is undone under the open {}", entry.id, other.id);
                    continue;
                }
                assert!(!other.is_open(), "S5: {} is undone under the open {}", entry.id, other.id);
                assert!(!is_owed(other), "S5: {} is undone before {}", entry.id, other.id);
            }
        }
    }

    /// All that depends on a step, directly or not, wherever it stands in the list.
    fn built_on(&self, id: &str) -> Vec<&StepStatus> {
        let mut found: BTreeSet<&str> = BTreeSet::from([id]);
        let mut todo = vec![id];
        let mut dependents = Vec::new();
        while let Some(next) = todo.pop() {
            for entry in &self.decision.steps {
                let depends = entry.depends_on.iter().any(|dependency| dependency.step == next);
                if depends && found.insert(&entry.id) {
                    todo.push(&entry.id);
                    dependents.push(entry);
                }
            }
        }
        dependents
    }

    /// S8.
    fn caps_hold(&self) {
        let open = |steps: &[StepStatus]| steps.iter().filter(|step| step.is_open()).count();
        let most = self.policy.parallelism.max(open(self.settled));
        assert!(open(&self.decision.steps) <= most, "S8: more than {most} open");
        assert!(self.taken() <= self.policy.available, "S8: more starts than free places");
    }

    /// Places of the workspace that this pass takes.
    fn taken(&self) -> usize {
        let takes_place = |entry: &&StepStatus| entry.action.has_executor() && self.decision.start.contains(&entry.id);
        self.decision.steps.iter().filter(takes_place).count()
    }

    /// Whatever is longer, the API server refuses the whole status.
    fn bounds_hold(&self) {
        for entry in &self.decision.steps {
            assert!(entry.message.len() <= MAX_STEP_MESSAGE, "{}: message of {} bytes", entry.id, entry.message.len());
            assert!(entry.reason.len() <= 64, "{}: reason of {} bytes", entry.id, entry.reason.len());
            assert!(entry.why.len() <= 128, "{}: why of {} bytes", entry.id, entry.why.len());
        }
        let progress = summary::progress(&self.decision.steps);
        assert_eq!(usize::try_from(progress.total).unwrap(), self.decision.steps.len());
        assert!(progress.succeeded + progress.failed + progress.running <= progress.total);
        assert_eq!(progress.summary, format!("{}/{}", progress.succeeded, progress.total));
        let open = self.decision.steps.iter().filter(|step| step.is_open()).count();
        assert_eq!(usize::try_from(progress.running).unwrap(), open);
    }

    /// What really exists is open, or remembered as possible, or was left on purpose.
    fn effects_are_known(&self) {
        let after = by_id(&self.decision.steps);
        for id in self.effects {
            let Some(entry) = after.get(id.as_str()) else {
                let old = by_id(self.settled);
                let left = self.policy.removed == RemovedSteps::Forget
                    || old.get(id.as_str()).is_none_or(|old| !is_undoable(old.undo));
                assert!(left, "{id} left something behind and was forgotten");
                continue;
            };
            let gone = entry.reason == "Gone";
            assert!(entry.is_open() || entry.effect == StepEffect::Possible || gone, "the effect of {id} is not known");
        }
    }

    fn verdict_is_true(&self) {
        let entries = &self.decision.steps;
        let wanted = |entry: &&StepStatus| self.graph.get(&entry.id).is_some();
        let open = entries.iter().any(StepStatus::is_open);
        match &self.decision.verdict {
            Verdict::Ready => {
                let mut all = entries.iter().filter(wanted);
                assert!(all.all(|entry| matches!(entry.phase, StepPhase::Succeeded | StepPhase::Skipped)), "Ready?");
                assert!(!open, "Ready with an open run");
                let owed = entries.iter().any(|entry| !wanted(&entry) && is_owed(entry));
                assert!(!owed, "Ready while something has to be undone");
            }
            Verdict::Failed(_) => {
                assert!(!open && self.decision.wake_at.is_none(), "Failed, but it goes on by itself");
            }
            Verdict::Paused(_) => {
                assert!(!open && self.decision.wake_at.is_none(), "Paused, but it goes on by itself");
                assert_eq!(self.policy.on_failure, OnFailure::Pause);
                assert!(entries.iter().filter(wanted).any(|entry| entry.phase == StepPhase::Failed), "Paused by what?");
            }
            Verdict::DeletionBlocked(_) => {
                assert!(!open && self.decision.wake_at.is_none(), "blocked, but it goes on by itself");
                assert!(self.decision.needs_a_person, "blocked, and may not be abandoned");
            }
            Verdict::Deleted => {
                assert!(!open && !entries.iter().any(is_owed), "Deleted, but something is left");
            }
            Verdict::Suspended(_) => assert!(self.policy.suspended.is_some()),
            Verdict::Running(_) | Verdict::Retrying(_) | Verdict::Waiting(_) | Verdict::Deleting(_) => {}
        }
        if self.decision.needs_a_person {
            let tries = |entry: &&StepStatus| entry.phase == StepPhase::Undoing && entry.class.is_some();
            let all = entries.iter().filter(tries).all(|entry| entry.class == Some(FailureClass::Unauthorized));
            assert!(!open && all, "it may be abandoned, and goes on by itself");
        }
        let free = self.policy.available > self.taken() && self.policy.parallelism > 0;
        let held = self.policy.suspended.is_some() && self.policy.mode == Mode::Forward;
        let gates = self.graph.steps().iter().map(|step| &step.gate).chain(self.policy.gates.values());
        let gated = gates.into_iter().any(|gate| matches!(gate, Gate::Waiting(_)));
        if !open && self.decision.wake_at.is_none() && free && !held && !gated {
            let over = matches!(
                self.decision.verdict,
                Verdict::Ready
                    | Verdict::Failed(_)
                    | Verdict::Paused(_)
                    | Verdict::Deleted
                    | Verdict::DeletionBlocked(_)
            );
            assert!(over, "L1: nothing will happen, and the verdict is {:?}: {entries:#?}", self.decision.verdict);
        }
    }

    /// L4: the next pass, with nothing new, writes nothing and starts nothing.
    fn nothing_new_changes_nothing(&self) {
        let after = stored(&self.decision.steps);
        let observed: Observed = after
            .iter()
            .filter(|step| step.is_open())
            .map(|step| {
                let view = match self.observed.get(&step.id) {
                    Some(view) if !self.decision.start.contains(&step.id) => view.clone(),
                    Some(_) | None => RunView::Alive,
                };
                (step.id.clone(), view)
            })
            .collect();
        let policy = Policy {
            retry_requested: false,
            run_floor: self.decision.run_floor,
            available: self.policy.available - self.taken(),
            ..self.policy.clone()
        };
        let next = decide(self.graph, &after, &observed, &policy, self.now);
        assert_eq!(next.steps, after, "L4: a pass without news changed something");
        assert!(next.start.is_empty(), "L4: a pass without news started {:?}", next.start);
        assert_eq!(next.verdict, self.decision.verdict, "a pass without news came to another verdict");
        assert_eq!(next.wake_at, self.decision.wake_at, "a pass without news wakes at another time");
    }

    fn no_hot_loop(&self) {
        if let Some(at) = self.decision.wake_at {
            assert!(at > self.now, "the wake-up is not in the future");
        }
    }
}

/// What was done so far, for what one pass cannot show.
#[derive(Default)]
pub struct History {
    clock: usize,
    /// When the last forward run of a step was started, and under which hard dependencies.
    started: BTreeMap<String, (usize, Vec<String>)>,
    /// When it was last planned again or started.
    touched: BTreeMap<String, usize>,
    /// Steps whose last forward run succeeded, with its input.
    succeeded: BTreeMap<String, String>,
    /// Every dependency that a step ever had.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl History {
    /// Takes one pass in; S4 is checked with it.
    pub fn record(&mut self, pass: &Pass<'_>) {
        self.clock += 1;
        for step in pass.graph.steps() {
            let now: BTreeSet<String> = step.depends_on.iter().map(|other| other.step.to_string()).collect();
            // An edge that was away for a while orders what is to come, not what was done.
            if let Some((_, recorded)) = self.started.get_mut(step.id.as_str()) {
                recorded.retain(|other| now.contains(other));
            }
            self.edges.entry(step.id.to_string()).or_default().extend(now);
        }
        for (old, new) in pass.before.iter().zip(pass.settled) {
            if old != new {
                if new.phase == StepPhase::Succeeded {
                    self.succeeded.insert(new.id.clone(), new.input_hash.clone());
                } else {
                    self.succeeded.remove(&new.id);
                }
            }
        }
        let settled = by_id(pass.settled);
        for entry in &pass.decision.steps {
            let phase = settled.get(entry.id.as_str()).map(|old| old.phase);
            let started = pass.decision.start.contains(&entry.id);
            if started && entry.phase == StepPhase::Running {
                self.check_again(entry);
            }
            let planned = matches!(entry.phase, StepPhase::Pending | StepPhase::Omitted) && phase != Some(entry.phase);
            // Planned for another input, if only for a while, or passed over since: what succeeded before counts no more.
            let other_input = settled.get(entry.id.as_str()).is_some_and(|old| old.input_hash != entry.input_hash);
            let by_condition = entry.phase == StepPhase::Skipped || entry.reason == step_reasons::WHEN_FAILED;
            if other_input || by_condition {
                self.succeeded.remove(&entry.id);
            }
            if started || planned || (other_input && by_condition) {
                self.touched.insert(entry.id.clone(), self.clock);
            }
            if started && entry.phase == StepPhase::Running {
                let hard = entry.depends_on.iter().filter(|dependency| dependency.type_ == DependencyType::Hard);
                let hard = hard.map(|dependency| dependency.step.clone()).collect();
                self.started.insert(entry.id.clone(), (self.clock, hard));
            }
        }
        let gone = |id: &str| {
            let entry = pass.decision.steps.iter().find(|entry| entry.id == id);
            entry.is_none_or(|entry| entry.phase == StepPhase::Undone)
                || pass.settled.iter().any(|old| old.id == id && old.phase == StepPhase::Undone)
        };
        let known: Vec<String> = self.started.keys().filter(|id| gone(id)).cloned().collect();
        for id in known {
            self.forget(&id);
            self.succeeded.remove(&id);
        }
        if pass.decision.verdict == Verdict::Ready {
            self.check_nothing_is_stale(pass);
        }
    }

    /// S4: what succeeded with an equal input is executed again only if something that it depends on was.
    fn check_again(&self, entry: &StepStatus) {
        if self.succeeded.get(&entry.id) != Some(&entry.input_hash) {
            return;
        }
        let Some((last, _)) = self.started.get(&entry.id) else { return };
        let mut todo: Vec<&String> = vec![&entry.id];
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut cause = false;
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                cause |= *id != entry.id && self.touched.get(id).is_some_and(|at| at > last);
                todo.extend(self.edges.get(id).into_iter().flatten());
            }
        }
        assert!(cause, "S4: {} succeeded with an equal input and is executed again", entry.id);
    }

    /// When all is done, everything is newer than what it was built on.
    fn check_nothing_is_stale(&self, pass: &Pass<'_>) {
        let after = by_id(&pass.decision.steps);
        let passed_over = |id: &str| after.get(id).is_some_and(|entry| entry.phase == StepPhase::Skipped);
        for step in pass.graph.steps().iter().filter(|step| !passed_over(step.id.as_str())) {
            let Some((at, recorded)) = self.started.get(step.id.as_str()) else { continue };
            for dependency in step.depends_on.iter().filter(|other| other.type_ == DependencyType::Hard) {
                let name = dependency.step.as_str();
                let Some((before, _)) = self.started.get(name) else { continue };
                if recorded.iter().any(|other| other == name) {
                    assert!(before < at, "Ready, but {name} ran again under {} and that did not", step.id);
                }
            }
        }
    }

    /// A step that was undone or left the list says nothing about those that once needed it.
    fn forget(&mut self, id: &str) {
        self.started.remove(id);
        for (_, recorded) in self.started.values_mut() {
            recorded.retain(|other| other != id);
        }
    }
}
