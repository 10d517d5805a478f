// The Taskserv: per server, install and check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use provisioning_api::server::{Installed, InstalledFor, InstalledState};
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Manifest, ProbeKind};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Outcome;
use serde_json::{Value, json};

use super::{
    Recorded, Records, asked_to_go, begun, deletion, for_good, job_taken, new, pass, ready, record, scene, until, with,
};
use crate::bundles::{Contents, Offered};
use crate::engine::kind::Kind;
use crate::engine::observe::Seen;
use crate::probing::{Opinion, Question};
use crate::taskserv::Facts;

fn digest() -> String {
    format!("sha256:{}", "5".repeat(64))
}

/// A server that is Ready and lists what the Taskserv wants there, or what it removes.
fn listing(taskserv: &Taskserv) -> Server {
    let user = InstalledFor { uid: taskserv.uid().unwrap(), name: taskserv.name_any() };
    let (state, required_by) = match taskserv.metadata.deletion_timestamp {
        None => (InstalledState::Installing, vec![user.clone()]),
        Some(_) => (InstalledState::Removing, Vec::new()),
    };
    let entry = Installed {
        extension: "redis".to_owned(),
        version: "0.2.0".to_owned(),
        digest: digest(),
        state,
        by: user,
        inherited_from: None,
        required_by,
    };
    let mut server: Server = ready();
    server.status.as_mut().unwrap().installed = vec![entry];
    server
}

/// A bundle on the shelf, with this line more in its manifest.
fn offered(name: &str, line: &str) -> Offered {
    let manifest = format!(
        "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: {name}\nversion: 0.2.0\n{line}\n"
    );
    let manifest = Some(Manifest::from_yaml(&manifest).unwrap());
    let contents = Arc::new(Contents { manifest, schema: None, ..Contents::default() });
    Offered { name: name.to_owned(), version: "0.2.0".to_owned(), digest: digest(), contents }
}

fn beside(server: Option<Server>) -> Facts {
    Facts {
        members: Ok(vec!["blue-server".to_owned()]),
        others: BTreeMap::new(),
        at_rest: BTreeMap::new(),
        servers: vec![("blue-server".to_owned(), server)],
        peers: BTreeMap::new(),
        known_servers: vec!["blue-server".to_owned()],
        unreadable: BTreeSet::new(),
        bundles: vec![offered("redis", "")],
        probes: Vec::new(),
    }
}

impl Recorded for Taskserv {
    fn spec() -> Value {
        json!({"extension": {"name": "redis"}, "servers": ["blue-server"]})
    }

    fn facts(&self) -> Facts {
        beside(Some(listing(self)))
    }

    fn special(records: &mut Records) {
        deletion::<Self>(records);
        let mut add = |phase: &str, object: &Self| record(records, Self::KIND, phase, object);
        let fresh = new::<Self>(&Self::spec());
        let unreadable = Facts { unreadable: BTreeSet::from(["blue-server".to_owned()]), ..beside(None) };
        let going = asked_to_go(&ready::<Self>());
        add("deletion-held-up", &pass(Seen { facts: unreadable, ..scene(&going) }, Self::success).next);
        add("waiting", &pass(Seen { facts: beside(Some(begun())), ..scene(&fresh) }, for_good).next);
        let stuck = until(begun::<Server>(), State::Stalled, for_good);
        add("dependency-stalled", &pass(Seen { facts: beside(Some(stuck)), ..scene(&fresh) }, for_good).next);
        let nobody = Facts { known_servers: vec!["green-server".to_owned()], ..beside(None) };
        add("unknown-reference", &pass(Seen { facts: nobody, ..scene(&fresh) }, for_good).next);
        add(
            "invalid",
            &pass(scene(&with(&fresh, "/spec/extension", json!({"name": "redis", "version": "soon"}))), for_good).next,
        );
        let circle = vec![offered("redis", "requires: [{name: os}]"), offered("os", "requires: [{name: redis}]")];
        let circle = Facts { bundles: circle, ..beside(Some(ready())) };
        add("cycle", &pass(Seen { facts: circle, ..scene(&fresh) }, for_good).next);
        let script = |_: &StepStatus| Outcome::failed(FailureClass::ScriptFailed, "ExitCode", "apt-get ended with 100");
        let question = Question {
            server: "blue-server".to_owned(),
            required: None,
            probe: "tcp".to_owned(),
            kind: ProbeKind::Tcp,
            address: "10.0.0.5:6379".parse().unwrap(),
            run: 1,
        };
        let probes = vec![(question, Opinion::Unhealthy("connection refused".to_owned()))];
        let silent = Facts { probes, ..fresh.facts() };
        add("unhealthy", &pass(Seen { facts: silent, ..scene(&ready::<Self>()) }, Self::success).next);
        add("name-conflict", &pass(scene(&begun::<Self>()), job_taken).next);
        add("script-failed", &pass(scene(&begun::<Self>()), script).next);
    }
}
