//! What the planner's tests share: graphs as text, a world that runs them, the invariants of protocols §7.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

pub mod invariants;
pub mod world;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use provisioning_api::shared::RetryPolicy;
use provisioning_api::steps::{DependencyType, FailureClass, StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_plan::condition::When;
use provisioning_plan::decision::Policy;
use provisioning_plan::graph::{Dependency, Gate, Graph, GraphError, Step};
use provisioning_plan::ids::{InputHash, StepId};

/// Where virtual time begins.
pub const START: &str = "2026-01-01T00:00:00Z";

/// Virtual time: seconds after the beginning.
pub fn at(seconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// Steps, one a line: `NAME ACTION [after=a,b?] [input=2] [undo=Orphan] [limit=1] [classes=Timeout,Throttled] [waits=Server_x]
/// [gone=Server_x] [unknown] [when=CEL]`. `b?` is a soft dependency; `_` in texts is a blank; `unknown`: inputs not known yet.
pub fn steps(text: &str) -> Vec<Step> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(step).collect()
}

/// A valid graph of [`steps`].
pub fn graph(text: &str) -> Graph {
    Graph::new(steps(text)).unwrap()
}

/// What is wrong with a graph of [`steps`].
pub fn graph_error(text: &str) -> GraphError {
    Graph::new(steps(text)).unwrap_err()
}

fn step(line: &str) -> Step {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap();
    let action = words.next().map_or(StepAction::Apply, action);
    let mut step = Step {
        id: StepId::new(name),
        action,
        why: format!("{action:?} {name}"),
        input_hash: None,
        depends_on: Vec::new(),
        undo: undo_of(action),
        retry: RetryPolicy::default(),
        gate: Gate::Open,
        when: None,
    };
    let mut input = "1".to_owned();
    let mut known = true;
    let mut condition = None;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "after" => step.depends_on = value.split(',').map(dependency).collect(),
            "input" => value.clone_into(&mut input),
            "undo" => step.undo = undo(value),
            "limit" => step.retry.limit = value.parse().unwrap(),
            "classes" => step.retry.classes = value.split(',').map(class).collect(),
            "waits" => step.gate = Gate::Waiting(value.replace('_', " ")),
            "gone" => step.gate = Gate::Gone(value.replace('_', " ")),
            "unknown" => known = false,
            "when" => condition = Some(value.replace('_', " ")),
            other => panic!("unknown word '{other}' in '{line}'"),
        }
    }
    step.input_hash = known.then(|| InputHash::of(&(name, input, &condition)));
    step.when = condition.map(|text| when(&text, &step.depends_on));
    step
}

/// A condition of a step with these dependencies.
pub fn when(text: &str, dependencies: &[Dependency]) -> When {
    let names: Vec<&str> = dependencies.iter().map(|dependency| dependency.step.as_str()).collect();
    When::new(text, &names).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn dependency(text: &str) -> Dependency {
    match text.strip_suffix('?') {
        Some(name) => Dependency { step: StepId::new(name), type_: DependencyType::Soft },
        None => Dependency::hard(&StepId::new(text)),
    }
}

fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap()
}

fn action(name: &str) -> StepAction {
    named(&format!("{}{}", name[..1].to_uppercase(), &name[1..]))
}

fn undo(name: &str) -> UndoAction {
    named(name)
}

/// A failure class by name.
pub fn class(name: &str) -> FailureClass {
    named(name)
}

fn undo_of(action: StepAction) -> UndoAction {
    match action {
        StepAction::Create => UndoAction::DeleteServer,
        StepAction::Install => UndoAction::Uninstall,
        StepAction::Apply => UndoAction::DeleteObject,
        StepAction::Delete | StepAction::Run => UndoAction::Irreversible,
        StepAction::Describe | StepAction::Observe | StepAction::Reach | StepAction::Check | StepAction::Wait => {
            UndoAction::None
        }
    }
}

/// Whether an undo would take something away.
pub fn is_undoable(undo: UndoAction) -> bool {
    match undo {
        UndoAction::DeleteServer | UndoAction::Uninstall | UndoAction::DeleteObject => true,
        UndoAction::None | UndoAction::Orphan | UndoAction::Irreversible => false,
    }
}

/// A policy without tight limits.
pub fn policy() -> Policy {
    Policy { parallelism: 4, available: 100, epoch: 1, ..Policy::default() }
}

/// Steps as the API server gives them back.
pub fn stored(steps: &[StepStatus]) -> Vec<StepStatus> {
    serde_json::from_value(serde_json::to_value(steps).unwrap()).unwrap()
}

/// Phases by step.
pub fn phases(steps: &[StepStatus]) -> BTreeMap<&str, StepPhase> {
    steps.iter().map(|step| (step.id.as_str(), step.phase)).collect()
}

/// One entry.
pub fn entry<'a>(steps: &'a [StepStatus], id: &str) -> &'a StepStatus {
    steps.iter().find(|step| step.id == id).unwrap()
}
