// The Server: create, observe, reach.

use std::collections::{BTreeMap, BTreeSet};

use provisioning_api::steps::{StepAction, StepStatus};
use provisioning_api::{ProviderConfig, Server};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Outcome;
use serde_json::{Value, json};

use super::{Recorded, Records, begun, deletion, for_good, job_taken, new, pass, ready, record, scene, until, with};
use crate::engine::kind::Kind;
use crate::engine::observe::Seen;
use crate::server::Facts;

impl Recorded for Server {
    fn spec() -> Value {
        json!({"providerConfigRef": {"name": "blue-providerconfig"}, "providerSize": "small",
            "image": {"os": "debian", "version": "12"}})
    }

    fn facts(&self) -> Facts {
        Facts {
            provider: Some(ready()),
            providers: vec!["blue-providerconfig".to_owned()],
            user_key: Some("ssh-ed25519 AAAAmarsh".to_owned()),
            busy_with: Vec::new(),
            asked: None,
            handled: None,
            gone: BTreeSet::new(),
        }
    }

    fn success(step: &StepStatus) -> Outcome {
        let found = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        match step.action {
            StepAction::Create => Outcome {
                external_id: Some("local/marsh/blue-server".to_owned()),
                outputs: found("hostKey", "ssh-ed25519 AAAAhost"),
                ..Outcome::succeeded()
            },
            StepAction::Observe => Outcome { outputs: found("address", "10.100.0.3"), ..Outcome::succeeded() },
            _ => Outcome { outputs: found("machineID", "0f1e2d"), ..Outcome::succeeded() },
        }
    }

    fn special(records: &mut Records) {
        deletion::<Self>(records);
        let mut add = |phase: &str, object: &Self| record(records, Self::KIND, phase, object);
        let fresh = new::<Self>(&Self::spec());
        let beside = |provider: ProviderConfig| Facts { provider: Some(provider), ..fresh.facts() };
        add("waiting", &pass(Seen { facts: beside(begun()), ..scene(&fresh) }, for_good).next);
        let stuck = until(begun::<ProviderConfig>(), State::Stalled, for_good);
        add("dependency-stalled", &pass(Seen { facts: beside(stuck), ..scene(&fresh) }, for_good).next);
        let alone = Facts { provider: None, providers: vec!["green-providerconfig".to_owned()], ..fresh.facts() };
        add("unknown-reference", &pass(Seen { facts: alone, ..scene(&fresh) }, for_good).next);
        add("invalid", &pass(scene(&with(&fresh, "/spec/providerSize", json!("huge"))), for_good).next);
        add("name-conflict", &pass(scene(&begun::<Self>()), job_taken).next);
        let lost = |step: &StepStatus| match step.action {
            StepAction::Observe => {
                let state = BTreeMap::from([("state".to_owned(), "Gone".to_owned())]);
                Outcome { outputs: state, ..Outcome::succeeded() }
            }
            _ => Self::success(step),
        };
        add("server-gone", &until(begun::<Self>(), State::Stalled, lost));
    }
}
