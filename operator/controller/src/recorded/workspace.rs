// The Workspace: no steps, so its phases are its own.

use provisioning_api::Workspace;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{FINALIZER, WORKSPACE_NAME};
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_api::workspace::ObjectCounts;
use provisioning_plan::conditions::Standing;
use serde_json::{Value, json};

use super::{Records, at, record, stored, unreadable, with};
use crate::workspace::{reported, standing};

fn new(spec: &Value) -> Workspace {
    stored("Workspace", WORKSPACE_NAME, spec)
}

fn settled(workspace: &Workspace) -> Workspace {
    let mut workspace = workspace.clone();
    workspace.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let objects = ObjectCounts { servers: 2, ..ObjectCounts::default() };
    reported(&workspace, &standing(&workspace), "ssh-ed25519 AAAAmarsh".to_owned(), objects, at(1))
}

pub(super) fn record_all(records: &mut Records) {
    let fresh = new(&json!({}));
    let ready = settled(&fresh);
    let mut add = |phase: &str, object: &Workspace| record(records, "Workspace", phase, object);
    add("new", &fresh);
    // The first write of all: a leader raises the epoch before it does anything.
    let mut raised = fresh.clone();
    raised.status.as_mut().unwrap().epoch = 1_772_352_001;
    raised.status.as_mut().unwrap().schema = STATUS_SCHEMA;
    add("epoch-raised", &raised);
    add("ready", &ready);
    add("suspended", &settled(&new(&json!({"suspend": true}))));
    add("ready-for-the-generation-before", &with(&ready, "/metadata/generation", json!(2)));
    add("status-too-new", &with(&ready, "/status/schema", json!(STATUS_SCHEMA + 1)));
    let mut leaving = with(&ready, "/metadata/generation", json!(2));
    leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(30)));
    add("deletion-not-seen-yet", &leaving);
    let waits = Standing::reconciling(reasons::DELETING, "waits for Server blue-heron");
    add("deleting", &reported(&leaving, &waits, String::new(), ObjectCounts::default(), at(31)));
    unreadable(records, &ready);
}
