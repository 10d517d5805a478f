//! Single rules, each at one decision.

mod support;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::steps::{FailureClass, StepEffect, StepPhase, StepStatus};
use provisioning_plan::decision::{Decision, Mode, Policy, RemovedSteps, Verdict, decide};
use provisioning_plan::graph::Graph;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use provisioning_plan::settle::settle;
use support::{at, entry, graph, graph_error, phases, policy, stored};

fn ended(id: &str, outcome: Outcome) -> Observed {
    Observed::from([(id.to_owned(), RunView::Ended(outcome))])
}

/// One whole pass.
fn pass(graph: &Graph, steps: &[StepStatus], observed: &Observed, policy: &Policy, now: Timestamp) -> Decision {
    decide(graph, &settle(steps, observed, now), observed, policy, now)
}

/// Entries of a graph whose steps all succeeded.
fn all_succeeded(graph: &Graph) -> Vec<StepStatus> {
    let mut steps = decide(graph, &[], &Observed::new(), &policy(), at(0)).steps;
    for step in &mut steps {
        step.phase = StepPhase::Succeeded;
        step.run = 1;
        step.epoch = 1;
        step.started_at = Some(Time(at(0)));
        step.finished_at = Some(Time(at(5)));
        step.effect = StepEffect::Possible;
    }
    steps
}

#[test]
fn a_retry_time_is_what_the_api_server_gives_back() {
    let graph = graph("heron create");
    let now = at(10) + SignedDuration::from_millis(321);
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let failed = ended("heron", Outcome::failed(FailureClass::Transient, "Reset", "connection reset"));
    let decision = pass(&graph, &started.steps, &failed, &policy(), now);
    let retry_at = decision.steps[0].retry_at.clone();
    assert!(retry_at.is_some());
    assert_eq!(stored(&decision.steps)[0].retry_at, retry_at);
}

#[test]
fn nothing_is_undone_under_what_is_built_on_it_directly_or_not() {
    let graph = graph("heron create\nreach reach after=heron\nredis install after=reach");
    let steps = all_succeeded(&graph);
    let deletion = Policy { mode: Mode::Delete, ..policy() };
    let decision = pass(&graph, &steps, &Observed::new(), &deletion, at(10));
    assert_eq!(decision.start, ["redis"]);
}

#[test]
fn an_open_entry_keeps_what_it_was_started_with() {
    let before = graph("heron apply\nredis apply after=heron");
    let mut steps = all_succeeded(&before);
    steps[1].phase = StepPhase::Running;
    let observed = Observed::from([("redis".to_owned(), RunView::Alive)]);
    let after = graph("redis apply undo=Orphan");
    let decision = pass(&after, &steps, &observed, &policy(), at(10));
    assert_eq!(entry(&decision.steps, "redis"), entry(&steps, "redis"));
    assert!(decision.start.is_empty(), "heron was undone under the open redis");
}

#[test]
fn a_step_whose_undo_failed_can_be_wanted_again() {
    let graph = graph("heron apply");
    let mut steps = all_succeeded(&graph);
    steps[0].phase = StepPhase::Undoing;
    steps[0].class = Some(FailureClass::Transient);
    steps[0].retry_at = Some(Time(at(100)));
    let decision = pass(&graph, &steps, &Observed::new(), &policy(), at(10));
    assert_eq!(decision.start, ["heron"]);
    assert_eq!(decision.steps[0].phase, StepPhase::Running);
}

#[test]
fn what_was_open_while_its_dependency_ran_again_runs_again_itself() {
    let text = "heron apply\nredis apply after=heron";
    let mut steps = all_succeeded(&graph(text));
    steps[1].phase = StepPhase::Running;
    steps[1].started_at = Some(Time(at(6)));
    let changed = graph("heron apply input=2\nredis apply after=heron");
    let alive = Observed::from([("redis".to_owned(), RunView::Alive)]);
    let first = pass(&changed, &steps, &alive, &policy(), at(6));
    assert_eq!((first.start.len(), first.wake_at), (0, Some(at(7))), "within one second the order could not be told");
    let second = pass(&changed, &first.steps, &alive, &policy(), at(7));
    assert_eq!(second.start, ["heron"]);
    let both = Observed::from([
        ("heron".to_owned(), RunView::Ended(Outcome::succeeded())),
        ("redis".to_owned(), RunView::Ended(Outcome::succeeded())),
    ]);
    let third = pass(&changed, &stored(&second.steps), &both, &policy(), at(20));
    assert_eq!(third.start, ["redis"]);
}

#[test]
fn a_retry_that_was_asked_for_is_not_forgotten_for_want_of_a_place() {
    let graph = graph("heron create");
    let mut steps = all_succeeded(&graph);
    steps[0].phase = StepPhase::UndoFailed;
    steps[0].class = Some(FailureClass::Invalid);
    let asked = Policy { mode: Mode::Delete, available: 0, retry_requested: true, ..policy() };
    let first = pass(&graph, &steps, &Observed::new(), &asked, at(10));
    assert!(first.start.is_empty());
    let later = Policy { mode: Mode::Delete, ..policy() };
    let second = pass(&graph, &first.steps, &Observed::new(), &later, at(11));
    assert_eq!(second.start, ["heron"]);
}

#[test]
fn a_wish_for_the_next_try_does_not_outlive_the_last_one() {
    let graph = graph("heron create limit=0");
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let mut outcome = Outcome::failed(FailureClass::Throttled, "TooManyRequests", "slow down");
    outcome.retry_after_seconds = Some(60);
    let failed = pass(&graph, &started.steps, &ended("heron", outcome), &policy(), at(10));
    assert!(matches!(failed.verdict, Verdict::Failed(_)), "{:?}", failed.verdict);
    let outcome = Outcome { retry_after_seconds: Some(60), ..Outcome::succeeded() };
    let succeeded = pass(&graph, &started.steps, &ended("heron", outcome), &policy(), at(10));
    assert_eq!(succeeded.verdict, Verdict::Ready);
}

#[test]
fn a_deletion_gives_up_a_forward_run_that_has_no_executor_yet() {
    let graph = graph("heron apply");
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let deletion = Policy { mode: Mode::Delete, ..policy() };
    let observed = Observed::from([("heron".to_owned(), RunView::Missing { ours: true })]);
    let decision = pass(&graph, &started.steps, &observed, &deletion, at(1));
    assert_eq!((decision.resume.len(), decision.give_up), (0, vec!["heron".to_owned()]));
}
