//! A world that runs a plan: settle → decide → persist → act, with scripted outcomes and a virtual clock. Every pass is
//! checked against the invariants and written into a log that reads as a story.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use provisioning_api::steps::{Direction, FailureClass, StepEffect, StepPhase, StepStatus};
use provisioning_plan::decision::{Decision, Mode, Policy, Verdict, decide};
use provisioning_plan::graph::Graph;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use provisioning_plan::settle::settle;
use provisioning_plan::summary;

use super::invariants::{History, Pass};
use super::{at, graph, policy, stored};

/// How one run goes.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long it takes, seconds.
    pub takes: i64,
    /// How it ends.
    pub end: End,
}

/// How one run ends.
#[derive(Clone, Debug)]
pub enum End {
    /// A result was left.
    Result(Outcome),
    /// Without a word.
    Lost,
}

impl Script {
    /// Succeeds after some seconds.
    pub fn succeeds(takes: i64) -> Self {
        Script { takes, end: End::Result(Outcome::succeeded()) }
    }
    /// Fails after some seconds.
    pub fn fails(takes: i64, class: FailureClass, text: &str) -> Self {
        Script { takes, end: End::Result(Outcome::failed(class, "Scripted", text)) }
    }
    /// Succeeds after some seconds and leaves outputs.
    pub fn leaves(takes: i64, outputs: &[(&str, &str)]) -> Self {
        let outputs = outputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Script { takes, end: End::Result(Outcome { outputs, ..Outcome::succeeded() }) }
    }
    /// Ends without a word.
    pub fn lost(takes: i64) -> Self {
        Script { takes, end: End::Lost }
    }
}

/// Where a crash of the operator hits the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing was written.
    BeforePersist,
    /// The intent is durable, no executor was made.
    BeforeAct,
    /// Executors were made, nobody remembers it.
    AfterAct,
}

struct Executor {
    ends_at: Timestamp,
    end: End,
    acted: bool,
}

type Run = (String, i64);

/// The world.
pub struct World {
    /// What is wanted.
    pub graph: Graph,
    /// What bounds it.
    pub policy: Policy,
    /// What the API server holds.
    pub steps: Vec<StepStatus>,
    /// Now.
    pub now: Timestamp,
    /// The story so far.
    pub log: String,
    /// The last decision.
    pub last: Option<Decision>,
    /// Passes so far.
    pub passes: usize,
    /// What was done, for invariants over time.
    pub history: History,
    /// Steps that really left something behind.
    pub effects: BTreeSet<String>,
    /// Steps whose server is gone: nothing can have an effect there.
    pub gone: BTreeSet<String>,
    /// Crashes at the next pass.
    pub crash: Option<Crash>,
    scripts: BTreeMap<Run, Script>,
    default: Script,
    executors: BTreeMap<Run, Executor>,
    over: BTreeMap<Run, Outcome>,
    lost_since: BTreeMap<Run, Timestamp>,
    mine: BTreeSet<Run>,
    again_at: Option<Timestamp>,
}

impl World {
    /// An empty status and a graph.
    pub fn new(text: &str) -> Self {
        World::with(graph(text))
    }

    /// An empty status and a graph.
    pub fn with(graph: Graph) -> Self {
        World {
            graph,
            policy: policy(),
            steps: Vec::new(),
            now: at(0),
            log: String::new(),
            last: None,
            passes: 0,
            history: History::default(),
            effects: BTreeSet::new(),
            gone: BTreeSet::new(),
            crash: None,
            scripts: BTreeMap::new(),
            default: Script::succeeds(10),
            executors: BTreeMap::new(),
            over: BTreeMap::new(),
            lost_since: BTreeMap::new(),
            mine: BTreeSet::new(),
            again_at: None,
        }
    }

    /// What the given run of a step will do; other runs succeed after 10 s.
    pub fn script(&mut self, id: &str, run: i64, script: Script) -> &mut Self {
        self.scripts.insert((id.to_owned(), run), script);
        self
    }

    /// A line of the story that is no decision.
    pub fn say(&mut self, text: &str) {
        let clock = self.clock();
        let _ = writeln!(self.log, "{clock}  * {text}");
    }

    /// Another graph.
    pub fn edit(&mut self, why: &str, text: &str) {
        self.say(why);
        self.graph = graph(text);
        self.pass();
    }

    /// Whether nothing more happens by itself.
    pub fn is_over(&self) -> bool {
        match self.verdict() {
            Verdict::Ready
            | Verdict::Failed(_)
            | Verdict::Paused(_)
            | Verdict::Deleted
            | Verdict::DeletionBlocked(_) => true,
            Verdict::Running(_)
            | Verdict::Retrying(_)
            | Verdict::Waiting(_)
            | Verdict::Suspended(_)
            | Verdict::Deleting(_) => false,
        }
    }

    /// The object is deleted.
    pub fn delete(&mut self) {
        self.say("the object is deleted");
        self.policy.mode = Mode::Delete;
        self.pass();
    }

    /// The reconcile annotation changes.
    pub fn ask_again(&mut self) {
        self.say("the reconcile annotation is set");
        self.policy.retry_requested = true;
        self.pass();
    }

    /// Suspends or resumes.
    pub fn suspend(&mut self, who: Option<&str>) {
        self.say(&who.map_or("resumed".to_owned(), |who| format!("suspended: {who}")));
        self.policy.suspended = who.map(str::to_owned);
        self.pass();
    }

    /// Another process takes over; `restamps`: it saw the open entries and gave them its epoch.
    pub fn new_leader(&mut self, restamps: bool) {
        self.policy.epoch += 1;
        self.forget_process();
        self.say(&format!(
            "a new leader, epoch {}{}",
            self.policy.epoch,
            if restamps { ", takes over what is open" } else { "" }
        ));
        if restamps {
            for step in self.steps.iter_mut().filter(|step| step.is_open()) {
                step.epoch = self.policy.epoch;
            }
        }
    }

    fn forget_process(&mut self) {
        self.mine.clear();
        self.over.clear();
        self.lost_since.clear();
        self.again_at = None;
    }

    /// Seconds since the beginning, as h:mm:ss.
    fn clock(&self) -> String {
        let seconds = self.now.duration_since(at(0)).as_secs();
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// Passes until nothing more happens by itself.
    pub fn rest(&mut self) {
        self.run_until(at(100 * 24 * 3600));
    }

    /// Passes for some seconds.
    pub fn run_for(&mut self, seconds: i64) {
        self.run_until(self.now + SignedDuration::from_secs(seconds));
    }

    fn run_until(&mut self, end: Timestamp) {
        if self.last.is_none() {
            self.pass();
        }
        let limit = self.passes + 20_000;
        while let Some(next) = self.next_event() {
            if next > end {
                break;
            }
            assert!(self.passes < limit, "no rest after 20000 passes");
            self.now = self.now.max(next);
            self.pass();
        }
        if end < at(99 * 24 * 3600) {
            self.now = self.now.max(end);
        }
    }

    /// When the world or a wake-up will cause another pass.
    pub fn next_event(&self) -> Option<Timestamp> {
        let wake = self.last.as_ref().and_then(|decision| decision.wake_at);
        let ends = self.steps.iter().filter(|step| step.is_open()).filter_map(|step| {
            let executor = self.executors.get(&(step.id.clone(), step.run))?;
            (executor.ends_at > self.now).then_some(executor.ends_at)
        });
        ends.chain(wake).chain(self.again_at).min()
    }

    /// What a pass sees of the open runs.
    pub fn observe(&self) -> Observed {
        let mut observed = Observed::new();
        for step in self.steps.iter().filter(|step| step.is_open()) {
            let run = (step.id.clone(), step.run);
            let view = match (self.over.get(&run), self.executors.get(&run)) {
                (Some(outcome), _) => RunView::Ended(outcome.clone()),
                (None, None) => RunView::Missing { ours: self.mine.contains(&run) },
                (None, Some(executor)) if executor.ends_at > self.now => RunView::Alive,
                (None, Some(executor)) => match &executor.end {
                    End::Result(outcome) => RunView::Ended(outcome.clone()),
                    End::Lost => RunView::Silent,
                },
            };
            observed.insert(step.id.clone(), view);
        }
        observed
    }

    /// One pass.
    pub fn pass(&mut self) {
        self.passes += 1;
        self.again_at = None;
        self.the_world_acts();
        let observed = self.observe();
        let before = self.steps.clone();
        let settled = settle(&before, &observed, self.now);
        let decision = decide(&self.graph, &settled, &observed, &self.policy, self.now);
        let pass = Pass {
            graph: &self.graph,
            before: &before,
            settled: &settled,
            observed: &observed,
            policy: &self.policy,
            now: self.now,
            decision: &decision,
            effects: &self.effects,
        };
        pass.check();
        let crash = self.crash.take();
        if crash == Some(Crash::BeforePersist) {
            self.say("the operator crashes before it has written");
            self.forget_process();
            self.again_at = Some(self.now + SignedDuration::from_secs(1));
            self.last = Some(Decision { wake_at: None, ..decision });
            return;
        }
        self.history.record(&pass);
        self.tell(&before, &settled, &decision);
        self.steps = stored(&decision.steps);
        // What was let go is nobody's any more.
        self.effects.retain(|id| self.steps.iter().any(|step| step.id == *id));
        self.policy.retry_requested = false;
        self.policy.run_floor = decision.run_floor;
        self.mine.extend(self.steps.iter().filter(|step| decision.start.contains(&step.id)).map(|step| {
            let run: Run = (step.id.clone(), step.run);
            run
        }));
        if crash == Some(Crash::BeforeAct) {
            self.say("the operator crashes before it has acted");
        } else {
            self.act(&decision);
        }
        if crash == Some(Crash::AfterAct) {
            self.say("the operator crashes");
        }
        if crash.is_some() {
            self.forget_process();
            self.again_at = Some(self.now + SignedDuration::from_secs(1));
        }
        self.last = Some(decision);
    }

    /// Runs whose time has come have their effect.
    fn the_world_acts(&mut self) {
        for ((id, run), executor) in &mut self.executors {
            if executor.acted || executor.ends_at > self.now {
                continue;
            }
            executor.acted = true;
            let Some(step) = self.steps.iter().find(|step| step.id == *id && step.run == *run) else { continue };
            let harmless = match &executor.end {
                End::Result(outcome) => outcome.harmless,
                End::Lost => false,
            };
            let succeeded = matches!(&executor.end, End::Result(outcome) if outcome.class.is_none());
            match step.open_direction() {
                Some(Direction::Forward) if step.action.has_effect() && !harmless && !self.gone.contains(id) => {
                    self.effects.insert(id.clone());
                }
                Some(Direction::Undo) if succeeded => {
                    self.effects.remove(id);
                }
                Some(Direction::Forward | Direction::Undo) | None => {}
            }
        }
    }

    fn act(&mut self, decision: &Decision) {
        for id in decision.start.iter().chain(&decision.resume) {
            let step = self.steps.iter().find(|step| step.id == *id).unwrap();
            let run: Run = (step.id.clone(), step.run);
            let script = self.scripts.get(&run).unwrap_or(&self.default).clone();
            let ends_at = self.now + SignedDuration::from_secs(script.takes);
            self.executors.entry(run).or_insert(Executor { ends_at, end: script.end, acted: false });
        }
        for id in &decision.give_up {
            let step = self.steps.iter().find(|step| step.id == *id).unwrap();
            let run: Run = (step.id.clone(), step.run);
            let text = "the executor was lost";
            match self.executors.get(&run) {
                None => {
                    let mut outcome = Outcome::failed(FailureClass::Infrastructure, "ExecutorLost", text);
                    outcome.harmless = true;
                    self.over.insert(run, outcome);
                    self.again_at = Some(self.now);
                }
                Some(executor) if executor.ends_at > self.now => {
                    self.again_at = Some(executor.ends_at);
                }
                Some(executor) => match &executor.end {
                    End::Result(outcome) => {
                        self.over.insert(run, outcome.clone());
                        self.again_at = Some(self.now);
                    }
                    End::Lost => {
                        let since = *self.lost_since.entry(run.clone()).or_insert(self.now);
                        let certain = since + SignedDuration::from_secs(90);
                        if certain <= self.now {
                            self.over.insert(run, Outcome::failed(FailureClass::Infrastructure, "ExecutorLost", text));
                            self.again_at = Some(self.now);
                        } else {
                            self.again_at = Some(certain);
                        }
                    }
                },
            }
        }
    }

    /// Writes a pass into the log.
    fn tell(&mut self, before: &[StepStatus], settled: &[StepStatus], decision: &Decision) {
        let mut lines: Vec<String> = Vec::new();
        for (old, new) in before.iter().zip(settled) {
            if old != new {
                let class = new.class.map_or_else(String::new, |class| format!(" {class:?}"));
                let words = if new.message.is_empty() { String::new() } else { format!(": {}", new.message) };
                lines.push(format!("end of {} run {}: {:?}{class}{words}", new.id, new.run, new.phase));
            }
        }
        lines.extend(decision.notes.iter().cloned());
        lines.extend(decision.resume.iter().map(|id| format!("resume {id}")));
        lines.extend(decision.give_up.iter().map(|id| format!("give up {id}")));
        let clock = self.clock();
        let wake = decision
            .wake_at
            .map_or_else(String::new, |at| format!(", wakes in {} s", at.duration_since(self.now).as_secs()));
        let progress = summary::progress(&decision.steps);
        lines.push(format!("= {} [{}]{wake}", verdict_text(&decision.verdict), progress.summary));
        for (number, line) in lines.iter().enumerate() {
            let time = if number == 0 { clock.as_str() } else { "" };
            let _ = writeln!(self.log, "{time:<7}  {line}");
        }
    }

    /// The story, and how it ended.
    pub fn story(&mut self) -> String {
        let mut text = std::mem::take(&mut self.log);
        text.push('\n');
        for step in &self.steps {
            let losses = if step.losses > 0 { format!(" losses {}", step.losses) } else { String::new() };
            let effect = if step.effect == StepEffect::Possible { ", may have left something" } else { "" };
            let _ = writeln!(
                text,
                "{:<10} {:<10} run {} attempt {}{losses} epoch {}{effect}",
                step.id,
                format!("{:?}", step.phase),
                step.run,
                step.attempt,
                step.epoch
            );
        }
        text
    }

    /// The last verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.last.as_ref().unwrap().verdict
    }

    /// Phase of a step.
    pub fn phase(&self, id: &str) -> Option<StepPhase> {
        self.steps.iter().find(|step| step.id == id).map(|step| step.phase)
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ready => "Ready".to_owned(),
        Verdict::Running(text) => format!("Running: {text}"),
        Verdict::Retrying(text) => format!("Retrying: {text}"),
        Verdict::Waiting(text) => format!("Waiting: {text}"),
        Verdict::Suspended(text) => format!("Suspended: {text}"),
        Verdict::Failed(text) => format!("Failed: {text}"),
        Verdict::Paused(text) => format!("Paused: {text}"),
        Verdict::Deleting(text) => format!("Deleting: {text}"),
        Verdict::DeletionBlocked(text) => format!("DeletionBlocked: {text}"),
        Verdict::Deleted => "Deleted".to_owned(),
    }
}
