//! Conditions as kstatus reads them, by table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::MAX_CONDITION_MESSAGE;
use provisioning_plan::conditions::{Standing, State, conditions};
use provisioning_plan::decision::Verdict;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn verdicts() -> Vec<(Verdict, State, &'static str)> {
    let text = || "words".to_owned();
    vec![
        (Verdict::Ready, State::Ready, reasons::SUCCEEDED),
        (Verdict::Running(text()), State::Reconciling, reasons::RUNNING),
        (Verdict::Retrying(text()), State::Reconciling, reasons::RETRYING),
        (Verdict::Waiting(text()), State::Reconciling, reasons::WAITING),
        (Verdict::Suspended(text()), State::Reconciling, reasons::SUSPENDED),
        (Verdict::Failed(text()), State::Stalled, reasons::STEP_FAILED),
        (Verdict::Deleting(text()), State::Reconciling, reasons::DELETING),
        (Verdict::DeletionBlocked(text()), State::Stalled, reasons::DELETION_BLOCKED),
        (Verdict::Deleted, State::Reconciling, reasons::DELETING),
    ]
}

fn find<'a>(list: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    list.iter().find(|condition| condition.type_ == type_)
}

/// What kstatus makes of conditions: `Stalled` wins, then `Reconciling`, then `Ready`.
fn kstatus(list: &[Condition]) -> &'static str {
    let is_true = |type_: &str| find(list, type_).is_some_and(|condition| condition.status == "True");
    if is_true(types::STALLED) {
        "Failed"
    } else if is_true(types::RECONCILING) || find(list, types::READY).is_none_or(|ready| ready.status != "True") {
        "InProgress"
    } else {
        "Current"
    }
}

#[test]
fn each_verdict_has_its_state_and_a_reason_of_the_closed_list() {
    for (verdict, state, reason) in verdicts() {
        let standing = Standing::from(&verdict);
        assert_eq!((standing.state, standing.reason), (state, reason), "{verdict:?}");
        assert!(reasons::ALL.iter().any(|(known, _)| *known == reason), "{reason} is not in the list");
        assert!(!standing.message.is_empty(), "{verdict:?} says nothing");
    }
}

#[test]
fn ready_is_always_there_and_the_others_only_while_true_and_never_both() {
    for (verdict, state, _) in verdicts() {
        let list = conditions(&Standing::from(&verdict), &[], 7, at(0));
        let wanted: &[&str] = match state {
            State::Ready => &[types::READY],
            State::Reconciling => &[types::READY, types::RECONCILING],
            State::Stalled => &[types::READY, types::STALLED],
        };
        let found: Vec<&str> = list.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(found, wanted, "{verdict:?}");
        for condition in list.iter().filter(|condition| condition.type_ != types::READY) {
            assert_eq!(condition.status, "True", "{verdict:?}");
        }
        let kept = kstatus(&list);
        let told = match state {
            State::Ready => "Current",
            State::Reconciling => "InProgress",
            State::Stalled => "Failed",
        };
        assert_eq!(kept, told, "{verdict:?}");
    }
}

#[test]
fn ready_is_true_when_done_false_when_something_is_wrong_and_else_unknown() {
    let table = [
        (Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: String::new() }, "True"),
        (Standing::reconciling(reasons::RUNNING, ""), "Unknown"),
        (Standing::reconciling(reasons::WAITING, ""), "Unknown"),
        (Standing::reconciling(reasons::RETRYING, ""), "False"),
        (Standing::reconciling(reasons::SUSPENDED, ""), "False"),
        (Standing::reconciling(reasons::DELETING, ""), "False"),
        (Standing::stalled(reasons::STEP_FAILED, ""), "False"),
        (Standing::stalled(reasons::CYCLE, ""), "False"),
        (Standing::stalled(reasons::DELETION_BLOCKED, ""), "False"),
    ];
    for (standing, status) in table {
        let list = conditions(&standing, &[], 1, at(0));
        assert_eq!(find(&list, types::READY).unwrap().status, status, "{standing:?}");
    }
}

#[test]
fn the_transition_time_moves_with_the_status_and_with_nothing_else() {
    let first = conditions(&Standing::reconciling(reasons::RETRYING, "once"), &[], 1, at(0));
    let other_words = conditions(&Standing::reconciling(reasons::SUSPENDED, "else"), &first, 2, at(60));
    for (type_, then) in [(types::READY, at(0)), (types::RECONCILING, at(0))] {
        let condition = find(&other_words, type_).unwrap();
        assert_eq!(condition.last_transition_time.0, then, "{type_} moved although its status is the same");
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), (reasons::SUSPENDED, "else"));
        assert_eq!(condition.observed_generation, Some(2));
    }
    let stalled = conditions(&Standing::stalled(reasons::STEP_FAILED, ""), &other_words, 2, at(90));
    assert_eq!(find(&stalled, types::READY).unwrap().last_transition_time.0, at(0), "False stays False");
    assert_eq!(find(&stalled, types::STALLED).unwrap().last_transition_time.0, at(90));
    let ready = conditions(&Standing::from(&Verdict::Ready), &stalled, 2, at(120));
    assert_eq!(find(&ready, types::READY).unwrap().last_transition_time.0, at(120));
    let again = conditions(&Standing::from(&Verdict::Ready), &ready, 2, at(180));
    assert_eq!(again, ready, "L4: nothing new, nothing to write");
}

#[test]
fn a_message_is_cut_to_what_a_condition_holds() {
    for words in ["x".repeat(5000), "ä".repeat(3000), "€".repeat(2000)] {
        let list = conditions(&Standing::stalled(reasons::STEP_FAILED, words.clone()), &[], 1, at(0));
        for condition in &list {
            assert!(condition.message.len() <= MAX_CONDITION_MESSAGE);
            assert!(condition.message.len() > MAX_CONDITION_MESSAGE - 4 && words.starts_with(&condition.message));
        }
    }
}
