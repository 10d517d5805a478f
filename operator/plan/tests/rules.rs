//! Single rules, each at one decision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

mod support;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::steps::{FailureClass, StepEffect, StepPhase, StepStatus};
use provisioning_plan::decision::{Decision, Mode, Policy, RemovedSteps, Verdict, decide};
use provisioning_plan::graph::{Gate, Graph};
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
fn what_is_not_given_is_looked_for_when_the_executor_said_and_as_long_as_it_takes() {
    let graph = graph("redis install");
    for (asked, wait) in [(None, 900), (Some(120), 120), (Some(0), 60)] {
        let (mut steps, mut now) = (Vec::new(), at(0));
        for _ in 0..40 {
            let started = pass(&graph, &steps, &Observed::new(), &policy(), now);
            assert_eq!(started.start, ["redis"], "asked for {asked:?}");
            let mut outcome = Outcome::failed(FailureClass::Unauthorized, "MissingSecret", "there is no Secret 'reed'");
            outcome.retry_after_seconds = asked;
            let failed = pass(&graph, &started.steps, &ended("redis", outcome), &policy(), now);
            now += SignedDuration::from_secs(wait);
            assert_eq!(failed.wake_at, Some(now), "asked for {asked:?}");
            // Whoever comes later arrives at the same time.
            let later = now - SignedDuration::from_secs(1);
            assert_eq!(pass(&graph, &failed.steps, &Observed::new(), &policy(), later).wake_at, Some(now));
            steps = failed.steps;
        }
    }
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

#[test]
fn what_a_run_leaves_fits_into_the_object_or_fails_with_words() {
    let graph = graph("heron create");
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let with =
        |outputs: Vec<(String, String)>| Outcome { outputs: outputs.into_iter().collect(), ..Outcome::succeeded() };
    let long_id = Outcome { external_id: Some("x".repeat(257)), ..Outcome::succeeded() };
    let cases = [
        (with((0..65).map(|number| (format!("o{number}"), String::new())).collect()), "TooManyOutputs"),
        (with(vec![("motd".into(), "x".repeat(2049))]), "OutputTooLarge"),
        (with((0..9).map(|number| (format!("o{number}"), "x".repeat(2000))).collect()), "OutputsTooLarge"),
        (long_id, "ExternalIdTooLong"),
    ];
    for (outcome, reason) in cases {
        let failed = pass(&graph, &started.steps, &ended("heron", outcome), &policy(), at(10));
        let step = &failed.steps[0];
        assert_eq!((step.phase, step.reason.as_str()), (StepPhase::Failed, reason));
        assert_eq!(step.effect, StepEffect::Possible, "it may have acted");
    }
}

#[test]
fn a_failure_or_an_undo_is_judged_by_itself_and_not_by_the_size_of_its_outputs() {
    let graph = graph("heron create");
    let outputs = [("log".to_owned(), "x".repeat(20_000))];
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let mut outcome = Outcome::failed(FailureClass::Transient, "Reset", "connection reset");
    outcome.outputs = outputs.clone().into();
    let failed = pass(&graph, &started.steps, &ended("heron", outcome), &policy(), at(10));
    assert_eq!(failed.steps[0].class, Some(FailureClass::Transient));

    let deletion = Policy { mode: Mode::Delete, ..policy() };
    let undoing = pass(&graph, &all_succeeded(&graph), &Observed::new(), &deletion, at(10));
    let outcome = Outcome { outputs: outputs.into(), ..Outcome::succeeded() };
    let undone = pass(&graph, &undoing.steps, &ended("heron", outcome), &deletion, at(20));
    assert_eq!(undone.verdict, Verdict::Deleted);
}

#[test]
fn texts_of_any_length_are_cut_to_what_status_holds() {
    let name = "heron-".repeat(42);
    let text = "ä".repeat(400);
    let mut wanted = support::steps(&format!("{name} create gone={text}\nredis install after={name}"));
    wanted[0].why.clone_from(&text);
    let graph = Graph::new(wanted).unwrap();
    let decision = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    for step in &decision.steps {
        assert_eq!(step.phase, StepPhase::Omitted);
        assert!(step.message.len() <= 256, "{} bytes", step.message.len());
        assert!(step.why.len() <= 128, "{} bytes", step.why.len());
    }
    let graph = support::graph("heron create");
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let failed = ended("heron", Outcome::failed(FailureClass::Invalid, &"Long".repeat(40), text));
    let decision = pass(&graph, &started.steps, &failed, &policy(), at(10));
    assert_eq!(decision.steps[0].reason.len(), 64);
}

#[test]
fn a_graph_that_status_cannot_hold_is_refused() {
    let many: String = (0..65).map(|number| format!("s{number} apply\n")).collect();
    let names: Vec<String> = (0..65).map(|number| format!("s{number}")).collect();
    let error = graph_error(&format!("{many}last apply after={}", names.join(",")));
    assert!(error.to_string().starts_with("65 dependencies of one step are more than the 64"), "{error}");
    let error = graph_error(&format!("{} apply", "x".repeat(254)));
    assert!(error.to_string().starts_with("254 bytes in the name of one step are more than the 253"), "{error}");
}

#[test]
fn an_object_is_not_ready_while_something_removed_has_to_be_undone() {
    let steps = all_succeeded(&graph("heron apply\ncurlew apply"));
    let without = graph("curlew apply");
    let full = Policy { available: 0, ..policy() };
    let decision = pass(&without, &steps, &Observed::new(), &full, at(10));
    assert!(matches!(decision.verdict, Verdict::Running(_)), "{:?}", decision.verdict);
    let suspended = Policy { suspended: Some("Workspace workspace".into()), ..policy() };
    let decision = pass(&without, &steps, &Observed::new(), &suspended, at(10));
    assert!(matches!(decision.verdict, Verdict::Suspended(_)), "{:?}", decision.verdict);
    let forget = Policy { removed: RemovedSteps::Forget, ..full };
    let decision = pass(&without, &steps, &Observed::new(), &forget, at(10));
    assert_eq!(decision.verdict, Verdict::Ready);
}

#[test]
fn a_deletion_is_blocked_only_when_nothing_else_moves_and_then_names_what_remains() {
    let graph = graph("heron create\nredis install after=heron\ncurlew create");
    let mut steps = all_succeeded(&graph);
    let redis = steps.iter_mut().find(|step| step.id == "redis").unwrap();
    redis.phase = StepPhase::UndoFailed;
    redis.class = Some(FailureClass::Invalid);
    redis.message = "unit is masked".into();
    let full = Policy { mode: Mode::Delete, available: 0, ..policy() };
    let decision = pass(&graph, &steps, &Observed::new(), &full, at(10));
    let words = "undo of step 'redis' failed (Invalid): unit is masked";
    assert_eq!(decision.verdict, Verdict::Deleting(format!("undo of 'curlew' is next; {words}")));
    assert!(!decision.needs_a_person);
    steps.iter_mut().find(|step| step.id == "curlew").unwrap().effect = StepEffect::None;
    let decision = pass(&graph, &steps, &Observed::new(), &full, at(10));
    assert_eq!(decision.verdict, Verdict::DeletionBlocked(format!("{words}; what remains: heron, redis")));
    assert!(decision.needs_a_person);
    assert_eq!(phases(&decision.steps)["heron"], StepPhase::Succeeded);

    let redis = steps.iter_mut().find(|step| step.id == "redis").unwrap();
    (redis.phase, redis.class) = (StepPhase::Undoing, Some(FailureClass::Unauthorized));
    redis.finished_at = Some(Time(at(9)));
    let decision = pass(&graph, &steps, &Observed::new(), &full, at(10));
    assert!(matches!(decision.verdict, Verdict::Deleting(_)) && decision.needs_a_person, "{:?}", decision.verdict);
    let gates = BTreeMap::from([("curlew".to_owned(), Gate::Waiting("Server 'curlew' is not Ready".to_owned()))]);
    let gated = Policy { gates, ..full.clone() };
    let mut others = steps.clone();
    others.iter_mut().find(|step| step.id == "curlew").unwrap().effect = StepEffect::Possible;
    let without = support::graph("heron create\nredis install after=heron");
    assert!(!pass(&without, &others, &Observed::new(), &gated, at(10)).needs_a_person, "that gate may open");
    steps.iter_mut().find(|step| step.id == "redis").unwrap().class = Some(FailureClass::Transient);
    assert!(!pass(&graph, &steps, &Observed::new(), &full, at(10)).needs_a_person, "it is tried again");
}

#[test]
fn a_leader_that_was_replaced_starts_and_ends_nothing() {
    let graph = graph("heron create\ncurlew create");
    let mut steps = all_succeeded(&graph);
    steps[0].epoch = 2;
    steps[0].phase = StepPhase::Running;
    steps[1].phase = StepPhase::Pending;
    let decision = pass(&graph, &steps, &Observed::new(), &policy(), at(10));
    assert_eq!((decision.start.len(), decision.resume.len(), decision.give_up.len()), (0, 0, 0));
    assert!(matches!(decision.verdict, Verdict::Waiting(_)));
}

#[test]
fn nothing_starts_with_unknown_inputs() {
    let decision = pass(&graph("redis install unknown"), &[], &Observed::new(), &policy(), at(0));
    assert!(decision.start.is_empty());
    assert!(matches!(decision.verdict, Verdict::Waiting(_)));
}

#[test]
fn an_object_never_holds_more_steps_than_its_schema_allows() {
    let named = |prefix: &str| graph(&(0..100).map(|number| format!("{prefix}{number} apply\n")).collect::<String>());
    let full = Policy { available: 0, ..policy() };
    let mut steps = all_succeeded(&named("a"));
    for prefix in ["b", "c"] {
        steps = pass(&named(prefix), &steps, &Observed::new(), &full, at(10)).steps;
        for step in &mut steps {
            step.effect = StepEffect::Possible;
            step.phase = StepPhase::Succeeded;
        }
    }
    assert_eq!(steps.len(), 256, "100 wanted, 200 still to be undone: 44 must wait");
    for step in steps.iter_mut().filter(|step| !step.id.starts_with('c')) {
        step.phase = StepPhase::UndoFailed;
        step.finished_at = Some(Time(at(15)));
    }
    let c = named("c");
    let stuck = pass(&c, &steps, &Observed::new(), &policy(), at(20));
    assert_eq!((stuck.steps.len(), stuck.start.len()), (256, 0));
    assert!(matches!(stuck.verdict, Verdict::Failed(_)), "{:?}", stuck.verdict);
    let asked = Policy { retry_requested: true, parallelism: 300, available: 300, ..policy() };
    let moving = pass(&c, &steps, &Observed::new(), &asked, at(30));
    let undone: Observed = moving.start.iter().map(|id| (id.clone(), RunView::Ended(Outcome::succeeded()))).collect();
    let freed = pass(&c, &moving.steps, &undone, &policy(), at(40));
    let last = pass(&c, &freed.steps, &Observed::new(), &policy(), at(41));
    assert_eq!(last.steps.len(), 100);
}

#[test]
fn a_message_is_one_line_without_control_characters() {
    let graph = graph("heron create");
    let started = pass(&graph, &[], &Observed::new(), &policy(), at(0));
    let failed =
        ended("heron", Outcome::failed(FailureClass::Invalid, "Scripted", "\u{1b}[31merror\u{1b}[0m:\nno space"));
    let decision = pass(&graph, &started.steps, &failed, &policy(), at(10));
    assert_eq!(decision.steps[0].message, " [31merror [0m: no space");
}

#[test]
fn what_left_the_plan_under_an_open_run_is_undone_after_it() {
    let mut steps = all_succeeded(&graph("heron create\nredis install after=heron"));
    steps[1].phase = StepPhase::Running;
    steps[1].started_at = Some(Time(at(6)));
    let alive = Observed::from([("redis".to_owned(), RunView::Alive)]);
    let first = pass(&graph("redis install"), &steps, &alive, &policy(), at(10));
    let listed: Vec<&str> = first.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!((listed, first.start.len()), (vec!["redis", "heron"], 0), "what is not wanted stands last");
    let nothing = graph("");
    let second = pass(&nothing, &first.steps, &alive, &policy(), at(11));
    assert!(second.start.is_empty());
    let third = pass(&nothing, &second.steps, &ended("redis", Outcome::succeeded()), &policy(), at(20));
    assert_eq!(third.start, ["redis"]);
    let fourth = pass(&nothing, &third.steps, &ended("redis", Outcome::succeeded()), &policy(), at(30));
    assert_eq!(fourth.start, ["heron"]);
}

#[test]
fn in_a_circle_of_old_edges_what_was_begun_last_is_undone_first() {
    let mut steps = all_succeeded(&graph("heron create\nredis install after=heron"));
    steps[1].phase = StepPhase::Running;
    steps[1].started_at = Some(Time(at(6)));
    let alive = Observed::from([("redis".to_owned(), RunView::Alive)]);
    let turned = pass(&graph("redis install\nheron create after=redis"), &steps, &alive, &policy(), at(10));
    let nothing = graph("");
    let first = pass(&nothing, &turned.steps, &ended("redis", Outcome::succeeded()), &policy(), at(20));
    assert_eq!(first.start, ["redis"]);
    let second = pass(&nothing, &first.steps, &ended("redis", Outcome::succeeded()), &policy(), at(30));
    assert_eq!(second.start, ["heron"]);
}

#[test]
fn what_comes_back_is_not_done_if_what_it_was_built_on_ran_again_meanwhile() {
    let text = "heron create input=2\nredis install after=heron";
    let steps = all_succeeded(&graph("heron create\nredis install after=heron"));
    let suspended = Policy { suspended: Some("Workspace workspace".into()), ..policy() };
    let away = pass(&graph("heron create"), &steps, &Observed::new(), &suspended, at(10));
    let changed = pass(&graph("heron create input=2"), &away.steps, &Observed::new(), &suspended, at(11));
    assert_eq!(entry(&changed.steps, "redis").effect, StepEffect::Possible, "its undo is still owed");
    let back = pass(&graph(text), &changed.steps, &Observed::new(), &policy(), at(12));
    assert_eq!(back.start, ["heron"]);
    let next = pass(&graph(text), &back.steps, &ended("heron", Outcome::succeeded()), &policy(), at(20));
    assert_eq!(next.start, ["redis"]);
}

#[test]
fn a_new_input_of_what_stays_omitted_runs_nothing_again() {
    let text = "heron create gone=Server_heron\nredis install after=heron?";
    let mut steps = all_succeeded(&graph(text));
    steps[0].phase = StepPhase::Omitted;
    let changed = graph("heron create input=2 gone=Server_heron\nredis install after=heron?");
    let decision = pass(&changed, &steps, &Observed::new(), &policy(), at(10));
    assert!(decision.start.is_empty(), "{:?}", decision.notes);
    assert_eq!(entry(&decision.steps, "redis").phase, StepPhase::Succeeded);
}

#[test]
fn what_is_freed_by_a_gone_server_moves_in_the_same_pass() {
    let mut steps = all_succeeded(&graph("heron create\nredis install after=heron"));
    steps.reverse();
    let gates = [("redis".to_owned(), Gate::Gone("Server 'heron' is gone".to_owned()))].into();
    let decision = pass(&Graph::default(), &steps, &Observed::new(), &Policy { gates, ..policy() }, at(10));
    assert_eq!(decision.start, ["heron"]);
}

#[test]
fn a_removed_step_under_a_failed_undo_waits_for_a_person() {
    let mut steps = all_succeeded(&graph("heron create\nredis install after=heron"));
    steps[0].phase = StepPhase::Pending;
    steps[0].retry_at = Some(Time(at(5)));
    steps[1].phase = StepPhase::UndoFailed;
    steps[1].class = Some(FailureClass::Invalid);
    let decision = pass(&Graph::default(), &steps, &Observed::new(), &policy(), at(10));
    assert!(matches!(decision.verdict, Verdict::Failed(_)), "{:?}", decision.verdict);
}

/// A policy under which the result of step `check` is old from a time on.
fn old_from(seconds: i64) -> Policy {
    Policy { observe_again: [("check".to_owned(), at(seconds))].into(), ..policy() }
}

#[test]
fn what_only_looks_is_run_again_when_its_result_is_old_and_nothing_else_is() {
    let graph = graph("install install\ncheck check after=install");
    let steps = all_succeeded(&graph);
    let early = pass(&graph, &steps, &Observed::new(), &old_from(60), at(59));
    assert_eq!((early.steps, early.wake_at, early.verdict), (steps.clone(), Some(at(60)), Verdict::Ready));
    let due = pass(&graph, &steps, &Observed::new(), &old_from(60), at(60));
    assert_eq!(due.start, ["check"]);
    assert_eq!(entry(&due.steps, "install"), entry(&steps, "install"));
    let mut failed = steps;
    failed[1].phase = StepPhase::Failed;
    failed[1].class = Some(FailureClass::ScriptFailed);
    assert_eq!(pass(&graph, &failed, &Observed::new(), &old_from(60), at(60)).start, ["check"]);
}

#[test]
fn what_was_seen_last_stands_while_it_cannot_be_seen_again() {
    let text = "install install\ncheck check after=install";
    let steps = all_succeeded(&graph(text));
    let still = |text: &str, steps: &[StepStatus], policy: &Policy| {
        let decision = pass(&graph(text), steps, &Observed::new(), policy, at(100));
        assert_eq!((decision.start.len(), entry(&decision.steps, "check")), (0, entry(steps, "check")));
        assert_eq!(decision.wake_at, None);
    };
    still(text, &steps, &Policy { suspended: Some("suspended".into()), ..old_from(60) });
    still("install install\ncheck check after=install waits=heron", &steps, &old_from(60));
    let mut broken = steps;
    broken[0].phase = StepPhase::Running;
    let alive = Observed::from([("install".to_owned(), RunView::Alive)]);
    let decision = pass(&graph(text), &broken, &alive, &old_from(60), at(100));
    assert_eq!(entry(&decision.steps, "check").phase, StepPhase::Succeeded, "its dependency runs");
}

#[test]
fn what_has_an_effect_is_never_run_again_for_its_age() {
    let graph = graph("check install");
    let steps = all_succeeded(&graph);
    let decision = pass(&graph, &steps, &Observed::new(), &old_from(0), at(100));
    assert_eq!((decision.start.len(), decision.verdict), (0, Verdict::Ready));
}

/// Hash of an entry before and after it was planned again.
fn hashes(before: &[StepStatus], after: &Decision, id: &str) -> (String, String) {
    (entry(before, id).input_hash.clone(), entry(&after.steps, id).input_hash.clone())
}

#[test]
fn a_script_that_runs_again_is_told_from_its_earlier_run_and_an_installation_is_not() {
    let text = "heron apply input=1\nredis install after=heron\nsave run after=heron";
    let steps = all_succeeded(&graph(text));
    let changed = graph(&text.replace("input=1", "input=2"));
    let decision = pass(&changed, &steps, &Observed::new(), &policy(), at(10));
    let expected = [("heron", StepPhase::Running), ("redis", StepPhase::Pending), ("save", StepPhase::Pending)];
    assert_eq!(phases(&decision.steps), expected.into());
    let (before, after) = hashes(&steps, &decision, "save");
    assert_eq!(after, format!("{before}/1"));
    let (before, after) = hashes(&steps, &decision, "redis");
    assert_eq!(after, before);
    // The mark is no change of its input.
    let decision = pass(&changed, &decision.steps, &ended("heron", Outcome::succeeded()), &policy(), at(20));
    assert_eq!(decision.start, ["redis", "save"]);
    let both = Observed::from(["redis", "save"].map(|id| (id.to_owned(), RunView::Ended(Outcome::succeeded()))));
    let decision = pass(&changed, &decision.steps, &both, &policy(), at(30));
    assert_eq!(decision.verdict, Verdict::Ready);
    assert_eq!(pass(&changed, &decision.steps, &Observed::new(), &policy(), at(40)).steps, decision.steps);
}

#[test]
fn what_was_undone_or_forgotten_and_comes_back_is_told_from_what_it_was() {
    let graph = graph("redis install");
    let mut steps = all_succeeded(&graph);
    let first = steps[0].input_hash.clone();
    steps[0].phase = StepPhase::Undone;
    let decision = pass(&graph, &steps, &Observed::new(), &policy(), at(10));
    assert_eq!((decision.start.len(), decision.steps[0].input_hash.as_str()), (1, format!("{first}/1").as_str()));
    // Forgotten: only the highest run is known.
    let decision = pass(&graph, &[], &Observed::new(), &Policy { run_floor: 7, ..policy() }, at(10));
    assert_eq!((decision.steps[0].run, decision.steps[0].input_hash.as_str()), (8, format!("{first}/7").as_str()));
}

#[test]
fn only_what_an_executor_does_takes_a_place_of_the_workspace() {
    let graph = graph("heron apply\ncurlew apply\nsave run\ndump run\nready wait");
    let scarce = Policy { available: 1, ..policy() };
    let decision = pass(&graph, &[], &Observed::new(), &Policy { parallelism: 9, ..scarce }, at(0));
    assert_eq!(decision.start, ["heron", "curlew", "save", "ready"]);
    assert!(decision.wake_at.is_some(), "nobody tells of a place that becomes free");
}
