//! How a Taskserv stands by its probes and by checks that come again.

use serde_json::{Value, json};

use super::*;

/// A Taskserv on `heron` of generation 2 with this condition Ready and these steps.
fn taskserv(ready: (&str, &str), generation: i64, steps: &Value) -> Taskserv {
    let conditions = json!([{"type": "Ready", "status": ready.0, "reason": ready.1, "message": "said before",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation}]);
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv",
        "metadata": {"name": "cache", "namespace": "marsh", "uid": "uid-cache", "generation": 2},
        "spec": {"extension": {"name": "redis"}, "servers": ["heron"], "checkIntervalSeconds": 3600},
        "status": {"steps": steps, "conditions": conditions}}))
    .unwrap()
}

fn steps(install: &str, check: &str) -> Value {
    let step = |id: &str, action: &str, phase: &str| {
        json!({"id": id, "action": action, "undo": "None", "phase": phase, "run": 1, "inputHash": "v1:0",
            "finishedAt": "2026-01-01T00:00:00Z"})
    };
    json!([step("install/heron", "Install", install), step("check/heron", "Check", check)])
}

fn facts(opinion: Opinion) -> Facts {
    let question = Question {
        server: "heron".to_owned(),
        required: None,
        probe: "tcp".to_owned(),
        kind: provisioning_extensions::ProbeKind::Tcp,
        address: "10.0.0.5:6379".parse().unwrap(),
        run: 1,
    };
    Facts {
        members: Ok(vec!["heron".to_owned()]),
        others: BTreeMap::new(),
        at_rest: BTreeMap::new(),
        servers: Vec::new(),
        peers: BTreeMap::new(),
        known_servers: Vec::new(),
        unreadable: BTreeSet::new(),
        bundles: Vec::new(),
        probes: vec![(question, opinion)],
    }
}

fn unhealthy() -> Opinion {
    Opinion::Unhealthy("connection refused".to_owned())
}

fn running() -> Standing {
    Standing::reconciling(reasons::RUNNING, "running check/heron")
}

/// Reason and message, or nothing where the steps are right.
fn stands(taskserv: &Taskserv, opinion: Opinion, by_steps: &Standing) -> Option<(&'static str, String)> {
    taskserv.standing(&facts(opinion), by_steps).map(|standing| (standing.reason, standing.message))
}

#[test]
fn what_is_done_and_does_not_answer_is_unhealthy_and_nothing_else_is() {
    let words = "Server 'heron': probe 'tcp' (TCP port 6379): connection refused".to_owned();
    let done = taskserv(("True", "Succeeded"), 2, &steps("Succeeded", "Succeeded"));
    let ready = Standing::from(&Verdict::Ready);
    assert_eq!(stands(&done, unhealthy(), &ready), Some((reasons::UNHEALTHY, words)));
    assert_eq!(stands(&done, Opinion::Healthy, &ready), None);
    let failed = Standing::stalled(reasons::STEP_FAILED, "step 'check/heron' failed");
    assert_eq!(stands(&done, unhealthy(), &failed), None, "a step that failed tells more");
}

#[test]
fn a_check_that_only_looks_again_leaves_what_is_said() {
    let done = Some((reasons::SUCCEEDED, "all steps succeeded".to_owned()));
    for phase in ["Pending", "Running"] {
        let looking = taskserv(("True", "Succeeded"), 2, &steps("Succeeded", phase));
        assert_eq!(stands(&looking, Opinion::Healthy, &running()), done, "{phase}");
        let words = stands(&looking, unhealthy(), &running()).unwrap().0;
        assert_eq!(words, reasons::UNHEALTHY, "{phase}");
    }
    let said = taskserv(("False", "Unhealthy"), 2, &steps("Succeeded", "Running"));
    let kept = Some((reasons::UNHEALTHY, "said before".to_owned()));
    assert_eq!(stands(&said, Opinion::Unknown, &running()), kept);
}

#[test]
fn a_check_after_an_installation_is_shown_as_what_it_is() {
    let first = taskserv(("Unknown", "Running"), 2, &steps("Succeeded", "Running"));
    assert_eq!(stands(&first, Opinion::Healthy, &running()), None);
    let older = taskserv(("True", "Succeeded"), 1, &steps("Succeeded", "Running"));
    assert_eq!(stands(&older, Opinion::Healthy, &running()), None, "Ready was said of an older spec");
    let installing = taskserv(("True", "Succeeded"), 2, &steps("Running", "Pending"));
    assert_eq!(stands(&installing, Opinion::Healthy, &running()), None);
    let mut again = steps("Succeeded", "Running");
    again[1]["attempt"] = json!(1);
    let again = taskserv(("True", "Succeeded"), 2, &again);
    assert_eq!(stands(&again, Opinion::Healthy, &running()), None, "it failed once");
}

#[test]
fn a_check_is_old_an_interval_after_its_end_and_only_where_one_is_given() {
    let mut taskserv = taskserv(("True", "Succeeded"), 2, &steps("Succeeded", "Succeeded"));
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let old = graph::checked_again(&taskserv, at("2026-01-01T00:10:00Z"));
    let wait = old["check/heron"].duration_since(at("2026-01-01T00:00:00Z")).as_secs();
    assert!((3600..=3960).contains(&wait), "{wait} s");
    assert_eq!(old.len(), 1, "an installation is never old");
    taskserv.spec.check_interval_seconds = None;
    assert_eq!(graph::checked_again(&taskserv, at("2026-01-01T00:10:00Z")), BTreeMap::new());
}

#[test]
fn a_check_that_ended_in_the_future_is_old_now() {
    let taskserv = taskserv(("True", "Succeeded"), 2, &steps("Succeeded", "Succeeded"));
    let now: Timestamp = "2025-06-01T00:00:00Z".parse().unwrap();
    assert_eq!(graph::checked_again(&taskserv, now), BTreeMap::from([("check/heron".to_owned(), now)]));
}
