use provisioning_api::BatchWorkflow;
use provisioning_api::names::{ANNOTATION_APPLIED, LABEL_OWNER_UID};
use serde_json::{Value, json};

use super::*;
use crate::watches::caches_of_servers;

/// A workflow whose only step, which applies Server `heron`, is in its first run.
fn morning() -> BatchWorkflow {
    let server = json!({"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}});
    let step = json!({"id": "nest", "action": "Apply", "why": "Server heron", "undo": "DeleteObject",
        "phase": "Running", "run": 1, "inputHash": "v1:0"});
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow",
        "metadata": {"name": "morning", "namespace": "marsh", "uid": "uid-morning", "generation": 1},
        "spec": {"steps": [{"name": "nest", "apply": {"server": {"name": "heron", "spec": server}}}]},
        "status": {"steps": [step]}}))
    .unwrap()
}

/// Server `heron` with a spec that is none.
fn unreadable(uid: &str) -> Guarded<Server> {
    let metadata = json!({"name": "heron", "namespace": "marsh", "labels": {LABEL_OWNER_UID: uid},
        "annotations": {ANNOTATION_APPLIED: "nest/1"}});
    let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server", "metadata": metadata,
        "spec": {"providerConfigRef": 7}});
    let guarded: Guarded<Server> = serde_json::from_value(object).unwrap();
    assert!(guarded.0.is_err());
    guarded
}

fn heron() -> Child {
    Child { kind: "Server", name: "heron".to_owned(), spec: Value::Null, reconcile: None }
}

#[test]
fn an_object_that_cannot_be_read_holds_its_name() {
    let seen = |servers| view(&caches_of_servers(servers), &morning(), &heron());
    assert_eq!(seen(Vec::new()), None);
    let foreign = seen(vec![unreadable("uid-evening")]).unwrap();
    assert!(!foreign.ours, "{foreign:?}");
    // Whoever failed for the name has to wait until it is free.
    assert_ne!(foreign.standing, Standing::Ready);
}

#[test]
fn a_child_of_ours_that_cannot_be_read_ends_the_step_with_the_words_why() {
    let (owner, stores) = (morning(), caches_of_servers(vec![unreadable("uid-morning")]));
    let step = &owner.run_status().unwrap().steps[0];
    let now = Timestamp::from_second(10).unwrap();
    let (RunView::Ended(outcome), None) = forward(step, &heron(), view(&stores, &owner, &heron()), None, now) else {
        panic!("it still waits")
    };
    assert_eq!((outcome.class, outcome.reason.as_str()), (Some(FailureClass::Invalid), CHILD_FAILED));
    let message = &outcome.message;
    assert!(message.starts_with("Server 'heron': this operator cannot read it: "), "{message}");
    assert!(message.ends_with("; correct it first"), "{message}");
}
