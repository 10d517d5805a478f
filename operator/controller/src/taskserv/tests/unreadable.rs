//! A Server that this operator cannot read is there all the same.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::steps::{FailureClass, StepPhase};

use super::*;

const WORDS: &str = "Server 'heron' cannot be read: correct it first";

/// A cache on two servers, by their labels, of which one cannot be read any more.
fn cache(policy: &str) -> Marsh {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &[]);
    marsh.server("heron", &json!({"shore": "north"}));
    marsh.server("plover", &json!({"shore": "north"}));
    let selector = json!({"matchLabels": {"shore": "north"}});
    marsh
        .apply("cache", &json!({"extension": {"name": "redis"}, "serverSelector": selector, "deletionPolicy": policy}));
    marsh.run("cache");
    marsh.unreadable.push("heron".to_owned());
    marsh
}

#[test]
fn what_is_on_a_server_that_cannot_be_read_is_removed_once_it_can_be() {
    let mut marsh = cache("Delete");
    marsh.delete("cache");
    assert_eq!(marsh.run("cache"), ["undo install/plover"]);
    let told = marsh.pass("cache");
    assert_eq!((told.state, told.reason, told.message.as_str()), (State::Stalled, reasons::DEPENDENCY_STALLED, WORDS));
    marsh.unreadable.clear();
    assert_eq!(marsh.run("cache"), ["undo install/heron"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn what_a_server_that_cannot_be_read_may_list_holds_a_deletion_unless_it_is_to_stay() {
    for (policy, steps) in [("Delete", 0), ("Orphan", 4)] {
        let mut marsh = cache(policy);
        let status = marsh.taskservs.get_mut("cache").unwrap().status.as_mut().unwrap();
        status.run.steps.truncate(steps);
        marsh.delete("cache");
        marsh.run("cache");
        assert_eq!(marsh.taskservs.contains_key("cache"), policy == "Delete", "{policy}");
        if policy == "Delete" {
            assert_eq!(marsh.pass("cache").reason, reasons::DEPENDENCY_STALLED);
        }
    }
}

#[test]
fn what_failed_for_good_elsewhere_is_told_beside_a_server_that_cannot_be_read() {
    for (class, phase) in
        [(FailureClass::Invalid, StepPhase::UndoFailed), (FailureClass::Unauthorized, StepPhase::Undoing)]
    {
        let mut marsh = cache("Delete");
        let status = marsh.taskservs.get_mut("cache").unwrap().status.as_mut().unwrap();
        let step = status.run.steps.iter_mut().find(|step| step.id == "install/plover").unwrap();
        (step.phase, step.class, step.message) = (phase, Some(class), "no".to_owned());
        step.finished_at = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        marsh.delete("cache");
        let told = marsh.pass("cache");
        let words = format!("{WORDS}; undo of step 'install/plover' failed ({class:?}): no");
        assert_eq!(
            (told.state, told.reason, told.message.as_str()),
            (State::Stalled, reasons::DEPENDENCY_STALLED, &*words)
        );
    }
}

#[test]
fn a_server_that_cannot_be_read_is_still_a_member_and_nothing_is_done_there_twice() {
    for policy in ["Delete", "Orphan"] {
        let mut marsh = cache(policy);
        let before = marsh.steps("cache");
        assert_eq!(marsh.run("cache"), [""; 0], "{policy}");
        assert_eq!(marsh.steps("cache"), before, "{policy}");
        marsh.unreadable.clear();
        assert_eq!(marsh.run("cache"), [""; 0], "{policy}");
        assert_eq!(marsh.steps("cache"), before, "{policy}");
    }
}

#[test]
fn a_server_that_cannot_be_read_holds_up_nothing_on_others_and_is_told() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron", "plover"]);
    marsh.unreadable.push("heron".to_owned());
    marsh.want("cache", "redis", &["heron", "plover"]);
    assert_eq!(marsh.run("cache"), ["install/plover", "check/plover"]);
    let told = marsh.pass("cache");
    assert_eq!((told.state, told.reason, told.message.as_str()), (State::Stalled, reasons::DEPENDENCY_STALLED, WORDS));
    marsh.unreadable.clear();
    assert_eq!(marsh.run("cache"), ["install/heron", "check/heron"]);
    assert!(marsh.is_ready("cache"));
}

#[test]
fn who_is_told_of_a_server_that_cannot_be_read_waits_for_it() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron", "plover"]);
    marsh.unreadable.push("heron".to_owned());
    let spec = json!({"extension": {"name": "redis"}, "servers": ["plover"], "peers": {"backends": ["heron"]}});
    marsh.apply("cache", &spec);
    marsh.run("cache");
    let told = marsh.pass("cache");
    assert_eq!((told.state, told.reason, told.message.as_str()), (State::Stalled, reasons::DEPENDENCY_STALLED, WORDS));
    marsh.unreadable.clear();
    assert_eq!(marsh.run("cache"), ["install/plover", "check/plover"]);
}
