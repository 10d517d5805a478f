// The ProviderConfig: one step, describe.

use std::collections::BTreeMap;

use provisioning_api::ProviderConfig;
use provisioning_api::steps::StepStatus;
use provisioning_plan::observed::Outcome;
use serde_json::{Value, json};

use super::{Recorded, Records, asked_to_go, begun, for_good, job_taken, new, pass, ready, record, scene};
use crate::engine::kind::Kind;
use crate::engine::observe::Seen;
use crate::provider_config::Facts;

impl Recorded for ProviderConfig {
    fn spec() -> Value {
        json!({"type": "Local"})
    }

    fn facts(&self) -> Facts {
        Facts { servers: Vec::new(), asked: None, sites: vec![self.spec.site.clone()], grounded: true }
    }

    fn success(_: &StepStatus) -> Outcome {
        let offer = [
            ("zones", json!(["meadow"])),
            ("sizes", json!([{"name": "small", "cores": 1, "memory": "512Mi", "disk": "10Gi"}])),
            ("images", json!([{"os": "debian", "version": "12", "id": "debian-12"}])),
        ];
        let outputs: BTreeMap<String, String> =
            offer.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
        Outcome { outputs, ..Outcome::succeeded() }
    }

    fn special(records: &mut Records) {
        let mut add = |phase: &str, object: &Self| record(records, Self::KIND, phase, object);
        let fresh = new::<Self>(&Self::spec());
        let waits = Facts { grounded: false, ..fresh.facts() };
        add("waiting", &pass(Seen { facts: waits, ..scene(&fresh) }, for_good).next);
        let elsewhere = Facts { sites: vec!["fen".to_owned()], ..fresh.facts() };
        add("invalid", &pass(Seen { facts: elsewhere, ..scene(&fresh) }, for_good).next);
        add("name-conflict", &pass(scene(&begun::<Self>()), job_taken).next);
        let leaving = asked_to_go(&ready::<Self>());
        let needed = Facts { servers: vec!["blue-heron".to_owned()], ..leaving.facts() };
        add("deleting", &pass(Seen { facts: needed, ..scene(&leaving) }, for_good).next);
    }
}
