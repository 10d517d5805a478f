// The BatchWorkflow: its steps end as its children stand.

use std::collections::BTreeMap;

use provisioning_api::BatchWorkflow;
use provisioning_api::conditions::reasons;
use provisioning_api::names::ANNOTATION_SKIP_STEPS;
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Outcome;
use serde_json::{Value, json};

use super::{Recorded, Records, begun, deletion, for_good, new, pass, ready, record, scene, until};
use crate::batch_workflow::Facts;
use crate::children::view::{ChildView, Standing};
use crate::engine::kind::{Child, Kind};
use crate::engine::observe::Seen;

fn step(name: &str, after: &[&str]) -> Value {
    let after: Vec<Value> = after.iter().map(|step| json!({"step": step})).collect();
    let spec = json!({"providerConfigRef": {"name": "blue-providerconfig"}, "providerSize": "small",
        "image": {"os": "debian", "version": "12"}});
    json!({"name": name, "dependsOn": after, "retry": {}, "apply": {"server": {"name": name, "spec": spec}}})
}

/// The child of every step, and how it stands.
fn children(workflow: &BatchWorkflow, standing: &Standing) -> Facts {
    let view = |name: &str| ChildView {
        ours: true,
        deleting: false,
        applied_by: Some(format!("{name}/1")),
        standing: standing.clone(),
        class: None,
        outputs: BTreeMap::new(),
    };
    let child = |name: &str| Child { kind: "Server", name: name.to_owned(), spec: Value::Null, reconcile: None };
    let steps = workflow.spec.steps.iter();
    let children = steps.map(|step| (step.name.clone(), child(&step.name), Some(view(&step.name)))).collect();
    Facts { children, ..Facts::default() }
}

impl Recorded for BatchWorkflow {
    fn spec() -> Value {
        json!({"deletionPolicy": "Delete", "steps": [step("heron", &[]), step("curlew", &["heron"])]})
    }

    fn facts(&self) -> Facts {
        children(self, &Standing::Ready)
    }

    fn special(records: &mut Records) {
        deletion::<Self>(records);
        let mut add = |phase: &str, object: &Self| record(records, Self::KIND, phase, object);
        let ready = ready::<Self>();
        let beside =
            |standing: Standing| pass(Seen { facts: children(&ready, &standing), ..scene(&ready) }, Self::success).next;
        add("waiting", &beside(Standing::Moving("SSH to heron".to_owned())));
        add("unhealthy", &beside(Standing::Unhealthy("Server 'heron': probe 'tcp': connection refused".to_owned())));
        add("dependency-stalled", &beside(Standing::Stalled("the provider no longer has heron".to_owned())));
        let refused = |steps: Value| pass(scene(&new::<Self>(&json!({"steps": steps}))), for_good).next;
        add("cycle", &refused(json!([step("heron", &["curlew"]), step("curlew", &["heron"])])));
        add("unknown-reference", &refused(json!([step("heron", &["curlw"]), step("curlew", &[])])));
        let mut conditional = step("heron", &[]);
        conditional["when"] = json!("steps.bittern.phase == 'Succeeded'");
        add("invalid", &refused(json!([conditional])));
        let taken = |_: &StepStatus| {
            let words = "Server 'heron' was made by somebody else, not by BatchWorkflow 'blue-batchworkflow'";
            Outcome::failed(FailureClass::Invalid, reasons::NAME_CONFLICT, words)
        };
        add("name-conflict", &pass(scene(&begun::<Self>()), taken).next);
        let mut spec = Self::spec();
        spec["onFailure"] = json!("Pause");
        let pausing = pass(scene(&new::<Self>(&spec)), for_good).next;
        let mut paused = until(pausing, State::Stalled, for_good);
        add("paused", &paused);
        let skip = BTreeMap::from([(ANNOTATION_SKIP_STEPS.to_owned(), "heron".to_owned())]);
        paused.metadata.annotations = Some(skip);
        add("ready-with-a-waiver", &until(paused, State::Ready, Self::success));
    }
}
