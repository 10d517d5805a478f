use std::sync::Arc;

use provisioning_api::Server;
use provisioning_api::steps::{FailureClass, UndoAction};
use provisioning_extensions::{Manifest, ParameterSchema};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Observed;
use provisioning_sdk::request::{RunnerRequest, Script, ScriptRequest};
use serde_json::{Value, json};

use super::run::Ground;
use super::*;
use crate::bundles::{Contents, Offered};
use crate::engine::decide::{Planned, decide};
use crate::engine::observe::seen;

fn workflow(steps: &Value) -> BatchWorkflow {
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow",
        "metadata": {"name": "evening", "namespace": "marsh", "uid": "uid-evening", "generation": 1},
        "spec": {"steps": steps}}))
    .unwrap()
}

/// A step that runs `redis save`, changed as said.
fn save(change: &Value) -> Value {
    let mut run = json!({"extension": {"name": "redis"}, "script": "save", "servers": ["heron"]});
    run.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"name": "keep", "run": run})
}

fn offered(version: &str) -> Offered {
    let manifest = json!({"apiVersion": "extension.provisioning.dev/v1alpha1", "kind": "Extension", "name": "redis",
        "version": version, "secrets": [{"name": "password", "required": false}], "scripts": [{"name": "save"}]});
    let manifest = Manifest::from_yaml(&manifest.to_string()).unwrap();
    let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "additionalProperties": false, "properties": {"seconds": {"type": "integer", "default": 30}}});
    let schema = ParameterSchema::of_script(schema.to_string().as_bytes(), &manifest).unwrap();
    Offered {
        name: "redis".to_owned(),
        version: version.to_owned(),
        digest: format!("sha256:{version}"),
        contents: Arc::new(Contents {
            manifest: Some(manifest),
            schema: None,
            script_schemas: [("save".to_owned(), schema)].into(),
        }),
    }
}

/// A Server, Ready or not, with redis installed in a version.
fn server(name: &str, is_ready: bool, installed: &str) -> Server {
    let status = if is_ready { "True" } else { "False" };
    let ready = json!({"type": "Ready", "status": status, "reason": "Running", "message": "running reach",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": name, "namespace": "marsh", "uid": format!("uid-{name}")},
        "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}},
        "status": {"conditions": [ready], "incarnation": 1, "machineID": format!("machine-{name}"), "hostKey": "key",
            "addresses": [{"type": "Internal", "address": "10.0.0.5"}],
            "installed": [{"extension": "redis", "version": installed, "digest": format!("sha256:{installed}"),
                "state": "Installed", "by": {"name": "cache", "uid": "uid-cache"}, "requiredBy": []}]}}))
    .unwrap()
}

fn ground(servers: &[Server]) -> Ground {
    Ground {
        servers: servers.iter().map(|server| (server.name_any(), server.clone())).collect(),
        bundles: vec![offered("1.0.0"), offered("1.1.0"), offered("2.0.0")],
    }
}

/// One pass over a workflow whose open runs ended as said.
fn pass(object: &BatchWorkflow, ground: Ground, ends: &[(&str, Outcome)]) -> Planned<BatchWorkflow> {
    let ended = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), RunView::Ended(outcome.clone()));
    let observed: Observed = ends.iter().map(ended).collect();
    decide(&seen(object.clone(), Facts { ground, ..Facts::default() }, observed), 8)
}

fn phases(planned: &Planned<BatchWorkflow>) -> Vec<(&str, StepPhase)> {
    planned.decision.steps.iter().map(|step| (step.id.as_str(), step.phase)).collect()
}

#[test]
fn a_script_is_a_step_on_each_server_and_one_in_which_they_come_together() {
    let two = || ground(&[server("heron", true, "1.0.0"), server("curlew", true, "1.0.0")]);
    let after = json!({"name": "later", "dependsOn": [{"step": "keep"}],
        "wait": {"kind": "Server", "name": "heron", "for": "true"}});
    let object = workflow(&json!([save(&json!({"servers": ["heron", "curlew"]})), after]));
    let started = pass(&object, two(), &[]);
    assert_eq!(started.decision.start, ["keep/heron", "keep/curlew"]);
    let part = &started.decision.steps[0];
    assert_eq!(
        (part.action, part.undo, part.why.as_str()),
        (StepAction::Run, UndoAction::Irreversible, "redis save on heron")
    );
    let half = pass(&started.next, two(), &[("keep/heron", Outcome::succeeded())]);
    assert_eq!(half.decision.start, [""; 0]);
    let both = pass(&half.next, two(), &[("keep/curlew", Outcome::succeeded())]);
    assert_eq!(both.decision.start, ["keep"]);
    let last = pass(&both.next, two(), &[("keep", Outcome::succeeded())]);
    assert_eq!(last.decision.start, ["later"]);
}

#[test]
fn a_part_that_fails_fails_the_whole_and_is_not_tried_again_by_itself() {
    let one = || ground(&[server("heron", true, "1.0.0")]);
    let started = pass(&workflow(&json!([save(&json!({}))])), one(), &[]);
    let failure = Outcome::failed(FailureClass::ScriptFailed, "ScriptFailed", "exit code 3: no room");
    let failed = pass(&started.next, one(), &[("keep/heron", failure)]);
    assert_eq!(phases(&failed), [("keep/heron", StepPhase::Failed), ("keep", StepPhase::Omitted)]);
    assert_eq!(failed.standing.state, State::Stalled);
    assert!(failed.standing.message.starts_with("step 'keep/heron' failed (ScriptFailed): exit code 3: no room"));
}

#[test]
fn a_waiver_of_the_step_is_one_of_its_parts() {
    let mut object = workflow(&json!([save(&json!({"servers": ["heron", "curlew"]}))]));
    object.metadata.annotations = Some([("provisioning.dev/skip-steps".to_owned(), "keep".to_owned())].into());
    let two = ground(&[server("heron", true, "1.0.0"), server("curlew", true, "1.0.0")]);
    let waived = pass(&object, two, &[]);
    assert!(phases(&waived).iter().all(|(_, phase)| *phase == StepPhase::Skipped), "{:?}", phases(&waived));
    assert_eq!(waived.standing.message, "all other steps succeeded; waived: keep");
}

#[test]
fn what_is_wrong_with_a_script_is_said_with_its_place_before_anything_runs() {
    for (change, words) in [
        (json!({"extension": {"name": "reddis"}}), "spec.steps[0].run.extension: there is no extension \"reddis\""),
        (
            json!({"extension": {"name": "redis", "version": "^7"}}),
            "spec.steps[0].run.extension: extension \"redis\" has no",
        ),
        (json!({"extension": {"name": "redis", "version": "new"}}), "spec.steps[0].run.extension.version: no SemVer"),
        (
            json!({"script": "safe"}),
            "spec.steps[0].run.script: extension 'redis' 1.0.0 has no script 'safe' for workflows (did you mean 'save'?); it has save",
        ),
        (
            json!({"servers": ["hero"]}),
            "spec.steps[0].run.servers: there is no Server 'hero' in this namespace (did you mean 'heron'?)",
        ),
        (json!({"parameters": {"seconds": "x"}}), "spec.steps[0].run.parameters.seconds: "),
        (json!({"parameters": {"secs": 1}}), "spec.steps[0].run.parameters.secs: "),
        (
            json!({"secretParameters": {"pasword": {"secretName": "taskserv-x", "key": "k"}}}),
            "spec.steps[0].run.secretParameters.pasword: extension 'redis' 1.0.0 has no such secret (did you mean 'password'?)",
        ),
    ] {
        let planned = pass(&workflow(&json!([save(&change)])), ground(&[server("heron", true, "1.0.0")]), &[]);
        assert_eq!(planned.standing.state, State::Stalled, "{change}");
        assert!(planned.standing.message.starts_with(words), "{change}: {}", planned.standing.message);
        assert_eq!(planned.decision.start, [""; 0], "{change}");
    }
}

#[test]
fn the_bundle_is_the_one_that_the_server_has_where_it_will_do() {
    let script = |version: Value, installed: &str| -> ScriptRequest {
        let one = ground(&[server("heron", true, installed)]);
        let step = save(&json!({"extension": {"name": "redis", "version": version}, "parameters": {}}));
        let started = pass(&workflow(&json!([step])), ground(&[server("heron", true, installed)]), &[]);
        let facts = Facts { ground: one, ..Facts::default() };
        match started.next.task(&facts, &started.decision.steps[0]).unwrap() {
            Task::Runner { request: RunnerRequest::Script(script), timeout_seconds, .. } => {
                assert_eq!(timeout_seconds, 1890);
                script
            }
            other => panic!("{other:?}"),
        }
    };
    let request = script(Value::Null, "1.0.0");
    assert_eq!(
        (request.extension.version.as_str(), request.script.clone()),
        ("1.0.0", Script::Named("save".to_owned()))
    );
    assert_eq!(Value::Object(request.parameters.into_iter().collect()), json!({"seconds": 30}));
    assert_eq!(script(json!("^1.1"), "1.0.0").extension.version, "1.1.0");
    assert_eq!(script(Value::Null, "0.9.0").extension.version, "2.0.0", "what is not on offer cannot be run");
}

#[test]
fn a_server_is_waited_for_and_what_was_done_on_it_stays_done_without_it() {
    let apply = json!({"name": "heron", "apply": {"server": {"name": "heron", "spec": {
        "providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}}}}});
    let object = workflow(&json!([apply, save(&json!({}))]));
    let nothing = pass(&object, ground(&[]), &[("heron", Outcome::succeeded())]);
    assert_eq!(nothing.decision.start, ["heron"], "{}", nothing.standing.message);

    let object = workflow(&json!([save(&json!({}))]));
    let waits = pass(&object, ground(&[server("heron", false, "1.0.0")]), &[]);
    assert_eq!(
        (waits.standing.reason, waits.standing.message.as_str()),
        (reasons::WAITING, "Server 'heron' is not Ready: running reach")
    );
    let started = pass(&waits.next, ground(&[server("heron", true, "1.0.0")]), &[]);
    let ended = pass(&started.next, ground(&[server("heron", true, "1.0.0")]), &[("keep/heron", Outcome::succeeded())]);
    let done = pass(&ended.next, ground(&[server("heron", true, "1.0.0")]), &[("keep", Outcome::succeeded())]);
    // Server and bundles are gone.
    let later = pass(&done.next, Ground::default(), &[]);
    assert_eq!((later.standing.state, later.decision.start.len()), (State::Ready, 0), "{}", later.standing.message);
}

#[test]
fn only_a_single_server_lends_the_step_its_outputs() {
    let outputs = |servers: Value, ids: &[&str]| {
        let object = workflow(&json!([save(&json!({"servers": servers}))]));
        let servers = || ground(&[server("heron", true, "1.0.0"), server("curlew", true, "1.0.0")]);
        let mut planned = pass(&object, servers(), &[]);
        for id in ids {
            let outputs = [("file".to_owned(), format!("/{id}"))].into();
            planned = pass(&planned.next, servers(), &[(id, Outcome { outputs, ..Outcome::succeeded() })]);
        }
        run::together(&planned.next, &object.spec.steps[0]).outputs
    };
    assert_eq!(outputs(json!(["heron"]), &["keep/heron"]).get("file").map(String::as_str), Some("/keep/heron"));
    assert!(outputs(json!(["heron", "curlew"]), &["keep/heron", "keep/curlew"]).is_empty());
}
