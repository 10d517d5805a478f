// The Cluster: a service on a server that is there.

use std::collections::BTreeMap;

use provisioning_api::conditions::reasons;
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_api::{Cluster, Server, Taskserv};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Outcome;
use serde_json::{Value, json};

use super::{Recorded, Records, begun, deletion, for_good, new, pass, ready, record, scene, until, with};
use crate::children::view::{ChildView, Standing};
use crate::cluster::Facts;
use crate::engine::kind::Kind;
use crate::engine::observe::Seen;

/// What it sees beside this server, its service being like this.
fn beside(server: Option<Server>, taskserv: &Taskserv) -> Facts {
    let mut service = taskserv.clone();
    service.metadata.name = Some("blue-cluster-nginx".to_owned());
    let child = ChildView {
        ours: true,
        deleting: false,
        applied_by: Some("taskserv/nginx/1".to_owned()),
        standing: Standing::Ready,
        class: None,
        outputs: BTreeMap::new(),
    };
    Facts {
        servers: server.into_iter().map(|server| ("blue-server".to_owned(), server)).collect(),
        taskservs: BTreeMap::from([("blue-cluster-nginx".to_owned(), service)]),
        known_servers: vec!["blue-server".to_owned()],
        children: BTreeMap::from([("taskserv/nginx".to_owned(), child)]),
        stuck: BTreeMap::new(),
    }
}

impl Recorded for Cluster {
    fn spec() -> Value {
        json!({"serverGroups": [{"name": "web", "servers": ["blue-server"]}],
            "taskservs": [{"name": "nginx", "group": "web", "extension": {"name": "nginx"}}]})
    }

    fn facts(&self) -> Facts {
        beside(Some(ready()), &ready())
    }

    /// Its parts try again by themselves; it does only where the API server asks to wait.
    fn passing() -> FailureClass {
        FailureClass::Throttled
    }

    fn special(records: &mut Records) {
        deletion::<Self>(records);
        let mut add = |phase: &str, object: &Self| record(records, Self::KIND, phase, object);
        let fresh = new::<Self>(&Self::spec());
        let running = ready::<Self>();
        let now = |facts: Facts| pass(Seen { facts, ..scene(&running) }, Self::success).next;
        add("waiting", &now(beside(Some(begun()), &ready())));
        let unhealthy = with(&ready::<Taskserv>(), "/status/conditions/0/status", json!("False"));
        let unhealthy = with(&unhealthy, "/status/conditions/0/reason", json!(reasons::UNHEALTHY));
        let words = "Server 'blue-server': probe 'tcp' (TCP port 80): connection refused";
        let unhealthy = with(&unhealthy, "/status/conditions/0/message", json!(words));
        add("unhealthy", &now(beside(Some(ready()), &unhealthy)));
        let stuck = until(begun::<Server>(), State::Stalled, for_good);
        add("dependency-stalled", &now(beside(Some(stuck), &ready())));
        let nobody = Facts { known_servers: vec!["green-server".to_owned()], ..beside(None, &ready()) };
        add("unknown-reference", &pass(Seen { facts: nobody, ..scene(&fresh) }, for_good).next);
        let mut circle = Self::spec();
        circle["taskservs"][0]["dependsOn"] = json!([{"taskserv": "proxy"}]);
        let proxy = json!({"name": "proxy", "group": "web", "extension": {"name": "haproxy"},
            "dependsOn": [{"taskserv": "nginx"}]});
        circle["taskservs"].as_array_mut().unwrap().push(proxy);
        add("cycle", &pass(scene(&new::<Self>(&circle)), for_good).next);
        let long = with(&fresh, "/spec/taskservs/0/name", json!("n".repeat(58)));
        add("invalid", &pass(scene(&long), for_good).next);
        let taken = |step: &StepStatus| match step.id.starts_with("taskserv/") {
            true => Outcome::failed(
                FailureClass::Invalid,
                reasons::NAME_CONFLICT,
                "Taskserv 'blue-cluster-nginx' exists and was made by somebody else",
            ),
            false => Outcome::succeeded(),
        };
        add("name-conflict", &until(begun::<Self>(), State::Stalled, taken));
    }
}
