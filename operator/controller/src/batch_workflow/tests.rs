use std::collections::BTreeMap;

use provisioning_api::steps::{FailureClass, UndoAction};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Observed;
use serde_json::{Value, json};

use super::*;
use crate::engine::decide::{Planned, decide};
use crate::engine::observe::seen;

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
    workflow.graph(&Facts::default(), &[])
}

/// One pass over a workflow whose open runs ended as said.
fn pass(object: &BatchWorkflow, ends: &[(&str, Outcome)]) -> Planned<BatchWorkflow> {
    pass_with(object, Facts::default(), ends)
}

fn pass_with(object: &BatchWorkflow, facts: Facts, ends: &[(&str, Outcome)]) -> Planned<BatchWorkflow> {
    let ended = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), RunView::Ended(outcome.clone()));
    let observed: Observed = ends.iter().map(ended).collect();
    decide(&seen(object.clone(), facts, observed), usize::MAX)
}

fn phase(planned: &Planned<BatchWorkflow>, name: &str) -> StepPhase {
    planned.decision.steps.iter().find(|step| step.id == name).unwrap().phase
}

#[test]
fn a_workflow_that_pauses_says_why_and_how_to_go_on() {
    let steps = json!([{"name": "heron", "apply": server("heron")}, {"name": "curlew", "apply": server("curlew")}]);
    let paused = workflow(&json!({"parallelism": 1, "onFailure": "Pause", "steps": steps}));
    let started = pass(&paused, &[]);
    let failed = Outcome::failed(FailureClass::Invalid, children::CHILD_FAILED, "zone 'mars' is unknown");
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
    let failed = Outcome::failed(FailureClass::Invalid, children::CHILD_FAILED, "zone 'mars' is unknown");
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

fn apply(name: &str) -> Value {
    json!({"name": name, "apply": server(name)})
}

fn delete(name: &str, object: &str, after: &str) -> Value {
    json!({"name": name, "dependsOn": [{"step": after}], "delete": {"kind": "Server", "name": object}})
}

fn wait(condition: &str) -> Value {
    json!({"name": "ready", "timeoutSeconds": 60, "wait": {"kind": "Server", "name": "heron", "for": condition}})
}

#[test]
fn the_plan_says_what_has_no_inverse() {
    let graph = graph(&with_steps(&json!([apply("heron"), delete("old", "bittern", "heron"), wait("true")]))).unwrap();
    let told = |name: &str| {
        let step = graph.get(name).unwrap();
        (step.action, step.undo, step.why.as_str())
    };
    let deleted = "delete Server bittern; what is gone does not come back";
    assert_eq!(told("old"), (StepAction::Delete, UndoAction::Irreversible, deleted));
    assert_eq!(told("ready"), (StepAction::Wait, UndoAction::None, "Server heron: true"));
}

#[test]
fn what_cannot_be_carried_out_is_found_when_the_graph_is_drawn() {
    let itself = json!({"name": "ready", "wait": {"kind": "BatchWorkflow", "name": "morning", "for": "true"}});
    for (steps, words) in [
        (json!([wait("object.status ==")]), "spec.steps[0].wait.for: not a CEL expression"),
        (json!([wait("steps.heron.phase == 'x'")]), "spec.steps[0].wait.for: 'steps' is not known"),
        (json!([itself]), "spec.steps[0].wait: a workflow cannot wait for itself"),
        (
            json!([apply("heron"), apply("curlew"), delete("old", "heron", "curlew")]),
            "spec.steps[2].delete: Server 'heron' is applied by step 'heron': this step must depend on that one",
        ),
    ] {
        let standing = graph(&with_steps(&steps)).unwrap_err();
        assert_eq!((standing.state, standing.reason), (State::Stalled, reasons::INVALID));
        assert!(standing.message.starts_with(words), "{}", standing.message);
    }
}

#[test]
fn each_action_is_one_request_at_most() {
    let object = with_steps(&json!([apply("heron"), delete("old", "bittern", "heron"), wait("true")]));
    let facts = Facts::default();
    let mut step = pass(&object, &[]).decision.steps.remove(0);
    let mut task = |name: &str| {
        name.clone_into(&mut step.id);
        object.task(&facts, &step).unwrap()
    };
    assert!(matches!(task("heron"), Task::Apply(child) if child.name == "heron"));
    assert!(
        matches!(task("old"), Task::DeleteNamed(child) if (child.kind, child.name.as_str()) == ("Server", "bittern"))
    );
    assert_eq!(task("ready"), Task::Watch);
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn a_wait_ends_when_its_condition_holds_or_its_time_is_over() {
    let object = with_steps(&json!([wait("object.status.incarnation > 1")]));
    let wait = object.spec.steps[0].wait.as_ref().unwrap();
    let view =
        |object: Option<Value>, now: i64| actions::wait_view(object.as_ref(), wait, Some(seconds(60)), seconds(now));
    let alive = (RunView::Alive, Some(seconds(60)));
    let with = |incarnation: i64| Some(json!({"metadata": {}, "status": {"incarnation": incarnation}}));
    assert_eq!(view(None, 10), alive, "it is not there yet");
    assert_eq!(view(Some(json!({"metadata": {}})), 10), alive, "it has no status yet");
    assert_eq!(view(with(1), 10), alive);
    assert_eq!(view(with(2), 70), (RunView::Ended(Outcome::succeeded()), None), "better late");
    for (object, words) in [
        (None, "there is no Server 'heron'"),
        (Some(json!({"metadata": {}})), "there is no 'status'"),
        (with(1), "Server 'heron' has not come to what is waited for in time"),
    ] {
        let (RunView::Ended(outcome), None) = view(object, 60) else { panic!("it still waits") };
        assert_eq!((outcome.class, outcome.reason.as_str()), (Some(FailureClass::Timeout), "DeadlineExceeded"));
        assert!(outcome.message.contains(words), "{}", outcome.message);
    }
}

#[test]
fn a_deletion_is_asked_for_until_it_goes_on_and_fails_with_the_words_of_what_is_stuck() {
    let object = with_steps(&json!([apply("heron"), delete("old", "bittern", "heron")]));
    let child = deleted(&object.spec.steps[1]).unwrap();
    let seen = |deleting: bool, standing: ChildStanding| {
        Some(ChildView { ours: false, deleting, applied_by: None, standing, class: None, outputs: BTreeMap::new() })
    };
    let view =
        |seen: Option<ChildView>, now: i64| actions::delete_view(&child, seen, Some(seconds(60)), seconds(now)).0;
    assert_eq!(view(None, 10), RunView::Missing { ours: true });
    assert_eq!(view(seen(false, ChildStanding::Ready), 10), RunView::Missing { ours: true });
    assert_eq!(view(seen(true, ChildStanding::Moving("undo of 'create' is next".into())), 10), RunView::Alive);
    let RunView::Ended(late) = view(seen(true, ChildStanding::Moving("undo of 'create' is next".into())), 60) else {
        panic!("it still waits")
    };
    assert_eq!(late.class, Some(FailureClass::Timeout));
    let RunView::Ended(stuck) = view(seen(true, ChildStanding::Stalled("what remains: create".into())), 10) else {
        panic!("it still waits")
    };
    assert_eq!(stuck.message, "deletion of Server 'bittern': what remains: create");
}

#[test]
fn what_the_workflow_itself_deleted_is_not_missed() {
    let mut object = with_steps(&json!([apply("heron"), delete("old", "heron", "heron")]));
    object = pass(&object, &[]).next;
    object = pass(&object, &[("heron", Outcome::succeeded())]).next;
    object = pass(&object, &[("old", Outcome::succeeded())]).next;
    let child = child(&object.spec.steps[0]).unwrap();
    let facts = Facts {
        children: vec![("heron".to_owned(), child, None)],
        deleted: BTreeSet::from(["old".to_owned()]),
        ..Facts::default()
    };
    let ready = Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: "all steps succeeded".to_owned() };
    assert_eq!(object.standing(&facts, &ready), None);
    assert_eq!(object.run_status().unwrap().steps[1].phase, StepPhase::Succeeded);
}

#[test]
fn an_object_has_one_step_that_applies_it() {
    let steps = json!([{"name": "heron", "apply": server("heron")}, {"name": "bittern", "apply": server("heron")}]);
    let standing = graph(&with_steps(&steps)).unwrap_err();
    let words = "spec.steps[1].apply: Server 'heron' is applied by step 'heron' already: one step for each object";
    assert_eq!((standing.reason, standing.message.as_str()), (reasons::INVALID, words));
}

#[test]
fn a_step_under_another_name_takes_its_object_on_instead_of_deleting_it() {
    let with = |steps: &Value| workflow(&json!({"deletionPolicy": "Delete", "steps": steps}));
    let old = with(&json!([{"name": "web", "apply": server("heron")}]));
    let applied = pass(&pass(&old, &[]).next, &[("web", Outcome::succeeded())]).next;
    let mut renamed = with(&json!([{"name": "web-0", "apply": server("heron")}]));
    renamed.status.clone_from(&applied.status);
    let taken_on = pass(&renamed, &[]);
    assert_eq!(taken_on.decision.start, ["web-0"], "{:?}", taken_on.decision.notes);
    // Until then the older step stands for it.
    let applied = pass(&taken_on.next, &[("web-0", Outcome::succeeded())]);
    assert_eq!((applied.decision.start.len(), applied.decision.steps.len()), (0, 2), "{:?}", applied.decision.notes);
    let done = pass(&applied.next, &[]);
    assert_eq!(done.decision.start, [""; 0], "{:?}", done.decision.notes);
    let left: Vec<&str> = done.decision.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!((left, done.standing.state), (vec!["web-0"], State::Ready));
}

#[test]
fn what_another_step_or_run_applied_is_not_what_this_one_wants() {
    let object = pass(&with_steps(&json!([{"name": "heron", "apply": server("heron")}])), &[]).next;
    let step = object.run_status().unwrap().steps[0].clone();
    let child = child(&object.spec.steps[0]).unwrap();
    let seen = |applied_by: &str, deleting| {
        Some(ChildView {
            ours: true,
            deleting,
            applied_by: Some(applied_by.to_owned()),
            standing: ChildStanding::Ready,
            class: None,
            outputs: BTreeMap::new(),
        })
    };
    let view = |applied_by: &str, deleting| {
        children::forward(&step, &child, seen(applied_by, deleting), Some(seconds(60)), seconds(10)).0
    };
    assert!(matches!(view("heron/1", false), RunView::Ended(outcome) if outcome.class.is_none()));
    for other in ["heron/2", "bittern/1", "1"] {
        assert_eq!(view(other, false), RunView::Missing { ours: true }, "{other}");
    }
    // On its way out: waited for, not written again and again.
    assert_eq!(view("heron/1", true), RunView::Alive);
}

#[test]
fn a_child_that_becomes_unhealthy_shows_in_the_workflow_that_made_it_and_nothing_runs_again() {
    let redis = json!({"name": "redis", "apply": {"taskserv": {"name": "redis", "spec": {
        "extension": {"name": "redis"}, "servers": ["heron"]}}}});
    let mut object = pass(&with_steps(&json!([redis])), &[]).next;
    object = pass(&object, &[("redis", Outcome::succeeded())]).next;
    let words = "Server 'heron': probe 'tcp' (TCP port 6379): connection refused";
    let facts = |standing: ChildStanding| {
        let view = ChildView {
            ours: true,
            deleting: false,
            applied_by: Some("redis/1".to_owned()),
            standing,
            class: None,
            outputs: BTreeMap::new(),
        };
        let child = child(&object.spec.steps[0]).unwrap();
        Facts { children: vec![("redis".to_owned(), child, Some(view))], ..Facts::default() }
    };
    let ready = Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: "all steps succeeded".to_owned() };
    let unhealthy = object.standing(&facts(ChildStanding::Unhealthy(words.to_owned())), &ready).unwrap();
    let told = format!("Taskserv 'redis' is not Ready: {words}");
    assert_eq!(unhealthy, Standing::reconciling(reasons::UNHEALTHY, told));
    assert_eq!(object.mended(&facts(ChildStanding::Unhealthy(words.to_owned()))), BTreeSet::new());
    assert_eq!(object.standing(&facts(ChildStanding::Ready), &ready), None);
}

/// What is seen of the child of the first step.
fn beside(object: &BatchWorkflow, view: Option<ChildView>) -> Facts {
    let step = &object.spec.steps[0];
    Facts { children: vec![(step.name.clone(), child(step).unwrap(), view)], ..Facts::default() }
}

fn ready(ours: bool, applied_by: &str) -> Option<ChildView> {
    let applied_by = Some(applied_by.to_owned());
    let standing = ChildStanding::Ready;
    Some(ChildView { ours, deleting: false, applied_by, standing, class: None, outputs: BTreeMap::new() })
}

/// Steps that begin again where this is seen of the child of the first one, and the workflow after that.
fn again(object: &BatchWorkflow, view: Option<ChildView>) -> (Vec<String>, BatchWorkflow) {
    let planned = pass_with(object, beside(object, view), &[]);
    (planned.decision.start, planned.next)
}

#[test]
fn what_somebody_deleted_is_made_again_with_what_depends_on_it() {
    let after = json!({"name": "curlew", "dependsOn": [{"step": "heron"}], "apply": server("curlew")});
    let mut object = pass(&with_steps(&json!([apply("heron"), after, apply("bittern")])), &[]).next;
    object = pass(&object, &[("heron", Outcome::succeeded()), ("bittern", Outcome::succeeded())]).next;
    object = pass(&object, &[("curlew", Outcome::succeeded())]).next;
    assert_eq!(again(&object, ready(true, "heron/1")).0, [""; 0]);
    // An object of that name that is not ours is applied as well, which tells whose it is.
    assert_eq!(again(&object, ready(false, "heron/1")).0, ["heron"]);
    let (started, next) = again(&object, None);
    assert_eq!(started, ["heron"]);
    let done = pass_with(&next, beside(&next, ready(true, "heron/2")), &[("heron", Outcome::succeeded())]);
    assert_eq!(done.decision.start, ["curlew"], "{:?}", done.decision.notes);
    object = pass(&done.next, &[("curlew", Outcome::succeeded())]).next;
    assert_eq!(again(&object, ready(true, "heron/2")), (Vec::new(), object.clone()), "it comes to rest");
    assert_eq!(again(&object, None).0, ["heron"], "once more");
}

#[test]
fn what_is_made_again_after_failures_is_done_once() {
    let step = json!({"name": "heron", "retry": {}, "apply": server("heron")});
    let mut object = pass(&with_steps(&json!([step])), &[]).next;
    object = pass(&object, &[("heron", Outcome::succeeded())]).next;
    object = again(&object, None).1;
    object =
        pass(&object, &[("heron", Outcome::failed(FailureClass::Transient, children::CHILD_FAILED, "no answer"))]).next;
    object.run_status_mut().steps[0].retry_at = None;
    object = pass(&object, &[]).next;
    object = pass(&object, &[("heron", Outcome::succeeded())]).next;
    let step = &object.run_status().unwrap().steps[0];
    assert_eq!((step.phase, step.run), (StepPhase::Succeeded, 3));
    assert_eq!(again(&object, ready(true, "heron/3")), (Vec::new(), object.clone()));
}

#[test]
fn what_the_workflow_takes_down_itself_is_not_made_again() {
    let steps = json!([apply("heron"), delete("old", "heron", "heron")]);
    let mut object = pass(&with_steps(&steps), &[]).next;
    object = pass(&object, &[("heron", Outcome::succeeded())]).next;
    for of_delete in [StepPhase::Pending, StepPhase::Running, StepPhase::Succeeded, StepPhase::Failed] {
        object.run_status_mut().steps[1].phase = of_delete;
        let planned = pass_with(&object, beside(&object, None), &[]);
        assert_eq!(phase(&planned, "heron"), StepPhase::Succeeded, "{of_delete:?}");
    }
    object.run_status_mut().steps[1].phase = StepPhase::Skipped;
    assert_eq!(again(&object, None).0, ["heron"]);
}
