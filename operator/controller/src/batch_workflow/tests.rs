use std::collections::BTreeMap;

use provisioning_plan::conditions::State;
use provisioning_plan::observed::Observed;
use serde_json::{Value, json};

use super::*;
use crate::engine::decide::{Planned, decide};
use crate::engine::observe::Seen;

fn server(name: &str) -> Value {
    json!({"server": {"name": name, "spec": {
        "providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"os": "debian", "version": "12"}}}})
}

fn workflow(spec: &Value) -> BatchWorkflow {
    let metadata = json!({"name": "morning", "namespace": "marsh", "uid": "uid-morning", "generation": 1});
    let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": metadata,
        "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn with_steps(steps: &Value) -> BatchWorkflow {
    workflow(&json!({"steps": steps}))
}

fn graph(workflow: &BatchWorkflow) -> Result<Graph, Standing> {
    workflow.graph(&Facts { children: Vec::new() }, &[])
}

/// One pass over a workflow whose open runs ended as said.
fn pass(object: &BatchWorkflow, ends: &[(&str, Outcome)]) -> Planned<BatchWorkflow> {
    let ended = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), RunView::Ended(outcome.clone()));
    let observed: Observed = ends.iter().map(ended).collect();
    let workspace = WorkspaceView {
        epoch: 1,
        suspended: false,
        deleting: false,
        parallelism: 8,
        ssh_public_key: Some(String::new()),
    };
    let seen = Seen {
        object: object.clone(),
        workspace: Some(workspace),
        facts: Facts { children: Vec::new() },
        observed,
        suspended: None,
        retry_requested: false,
        wake_at: None,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    decide(&seen, usize::MAX)
}

fn phase(planned: &Planned<BatchWorkflow>, name: &str) -> StepPhase {
    planned.decision.steps.iter().find(|step| step.id == name).unwrap().phase
}

#[test]
fn a_workflow_that_pauses_says_why_and_how_to_go_on() {
    let steps = json!([{"name": "heron", "apply": server("heron")}, {"name": "curlew", "apply": server("curlew")}]);
    let paused = workflow(&json!({"parallelism": 1, "onFailure": "Pause", "steps": steps}));
    let started = pass(&paused, &[]);
    let failed = Outcome::failed(FailureClass::Invalid, CHILD_FAILED, "zone 'mars' is unknown");
    let stopped = pass(&started.next, &[("heron", failed)]);
    assert_eq!((stopped.standing.state, stopped.standing.reason), (State::Stalled, reasons::PAUSED));
    assert_eq!((phase(&stopped, "curlew"), stopped.decision.start.len()), (StepPhase::Pending, 0));
    let message = &stopped.standing.message;
    assert!(
        message.starts_with("step 'heron' failed (Invalid): zone 'mars' is unknown. No other step starts"),
        "{message}"
    );
    assert!(message.contains("provisioning.dev/reconcile-requested-at"), "{message}");
}

#[test]
fn a_waiver_is_recorded_and_a_wrong_name_is_told() {
    let steps = json!([{"name": "heron", "apply": server("heron")},
        {"name": "curlew", "dependsOn": [{"step": "heron"}], "apply": server("curlew")}]);
    let mut object = pass(&with_steps(&steps), &[]).next;
    let failed = Outcome::failed(FailureClass::Invalid, CHILD_FAILED, "zone 'mars' is unknown");
    object = pass(&object, &[("heron", failed)]).next;
    let skip = |names: &str| BTreeMap::from([("provisioning.dev/skip-steps".to_owned(), names.to_owned())]);
    object.metadata.annotations = Some(skip(" heron , curlw,"));
    let waived = pass(&object, &[]);
    assert_eq!((phase(&waived, "heron"), phase(&waived, "curlew")), (StepPhase::Skipped, StepPhase::Running));
    let step = &waived.decision.steps[0];
    assert_eq!(step.reason, "Waived");
    let words = "waived by annotation provisioning.dev/skip-steps; it was Failed (Invalid): zone 'mars' is unknown";
    assert_eq!(step.message, words);
    let message = &waived.standing.message;
    let told = "; annotation provisioning.dev/skip-steps: 'curlw' is no step of this workflow (did you mean 'curlew'?)";
    assert!(message.ends_with(told), "{message}");
    // Without the annotation it stays so, and says so.
    object = waived.next;
    object.metadata.annotations = None;
    let ready = pass(&object, &[("curlew", Outcome::succeeded())]);
    assert_eq!((phase(&ready, "heron"), ready.standing.state), (StepPhase::Skipped, State::Ready));
    assert_eq!(ready.standing.message, "all other steps succeeded; waived: heron");
}

#[test]
fn of_a_long_annotation_only_the_beginning_is_read() {
    let mut object = with_steps(&json!([{"name": "heron", "apply": server("heron")}]));
    let value = format!("{},heron", "x,".repeat(3000));
    object.metadata.annotations = Some(BTreeMap::from([("provisioning.dev/skip-steps".to_owned(), value)]));
    let planned = pass(&object, &[]);
    assert_eq!(phase(&planned, "heron"), StepPhase::Running);
    assert!(planned.standing.message.contains("only the first 4096 characters"), "{}", planned.standing.message);
}

#[test]
fn a_condition_is_part_of_the_step_and_of_its_input_only_where_there_is_one() {
    let plain = json!([{"name": "heron", "apply": server("heron")},
        {"name": "curlew", "dependsOn": [{"step": "heron"}], "apply": server("curlew")}]);
    let mut conditional = plain.clone();
    conditional[1]["when"] = json!("steps.heron.phase == 'Succeeded'");
    let (plain, conditional) = (graph(&with_steps(&plain)).unwrap(), graph(&with_steps(&conditional)).unwrap());
    assert!(conditional.get("curlew").unwrap().when.is_some());
    assert_eq!(plain.get("heron"), conditional.get("heron"));
    assert_ne!(plain.get("curlew").unwrap().input_hash, conditional.get("curlew").unwrap().input_hash);
}

#[test]
fn the_input_of_a_step_is_hashed_as_in_the_first_release() {
    let graph = graph(&with_steps(&json!([{"name": "heron", "apply": server("heron")}]))).unwrap();
    let hash = graph.get("heron").unwrap().input_hash.as_ref().unwrap();
    assert_eq!(hash.as_str(), "v1:0957b65ed997792820dc3fbba25b2e23");
}

#[test]
fn what_is_wrong_with_a_condition_is_said_with_its_place() {
    for (when, words) in [
        ("steps.heron.phase = 'x'", "spec.steps[1].when: not a CEL expression: line 1, column"),
        ("steps.bittern.phase == 'x'", "spec.steps[1].when: 'bittern' is not among the dependencies of this step"),
        ("steps.heron.fase == 'x'", "spec.steps[1].when: a step has phase and outputs, not fase"),
    ] {
        let steps = json!([{"name": "heron", "apply": server("heron")},
            {"name": "curlew", "dependsOn": [{"step": "heron"}], "when": when, "apply": server("curlew")},
            {"name": "bittern", "apply": server("bittern")}]);
        let standing = graph(&with_steps(&steps)).unwrap_err();
        assert_eq!((standing.state, standing.reason), (State::Stalled, reasons::INVALID));
        assert!(standing.message.starts_with(words), "{}", standing.message);
    }
}
