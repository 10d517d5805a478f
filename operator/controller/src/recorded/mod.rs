//! Objects of every kind in every phase, as this operator writes them: what GitOps tools are shown.
//!
//! `tools/gitops` has the real kstatus, Argo CD's Lua and Flux's CEL judge them, against a table. They come out of the
//! pure half of a pass and are compared with the files in `tools/gitops/testdata/objects`;
//! `GOLDEN=write cargo test -p provisioning-controller recorded` writes those anew.
//!
//! A kind has a file here with its [`Recorded`], and a line in [`all`].

mod batch_workflow;
mod cluster;
mod provider_config;
mod server;
mod taskserv;
mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::core::DynamicObject;
use provisioning_api::names::{ANNOTATION_ABANDON, FINALIZER};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, STATUS_SCHEMA, StepStatus};
use provisioning_plan::conditions::State;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::act::name_conflict;
use crate::engine::decide::{Planned, decide};
use crate::engine::guard::undecodable;
use crate::engine::kind::{Kind, WorkspaceView};
use crate::engine::observe::{NoWorkspace, Seen};
use crate::engine::report::with_error;
use crate::error::Error;
use crate::guarded::Guarded;

/// Recorded objects by `kind/phase`.
type Records = BTreeMap<String, Value>;

/// What it takes to record a kind that runs steps.
trait Recorded: Kind {
    /// A spec that can be carried out.
    fn spec() -> Value;
    /// What it sees when everything around it is well.
    fn facts(&self) -> Self::Facts;
    /// What a step leaves that succeeds.
    fn success(_: &StepStatus) -> Outcome {
        Outcome::succeeded()
    }
    /// A failure that it tries again.
    fn passing() -> FailureClass {
        FailureClass::Transient
    }
    /// Phases that other kinds don't have.
    fn special(records: &mut Records);
}

fn at(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-03-01T08:00:00Z".parse().unwrap();
    start + SignedDuration::from_mins(minutes)
}

/// A manifest as the API server stores it when it is new: with the defaults of the schema, an empty status among them.
fn stored<K: DeserializeOwned + Serialize>(kind: &str, name: &str, spec: &Value) -> K {
    let metadata = json!({"name": name, "namespace": "marsh", "uid": format!("uid-of-{name}"), "generation": 1,
        "creationTimestamp": at(0)});
    let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec,
        "status": {}});
    serde_json::from_value(object).unwrap()
}

fn new<K: Recorded>(spec: &Value) -> K {
    stored(K::KIND, &format!("blue-{}", K::KIND.to_lowercase()), spec)
}

/// The same object with one field of another value.
fn with<K: DeserializeOwned + Serialize>(object: &K, pointer: &str, value: Value) -> K {
    serde_json::from_value(changed(object, pointer, value)).unwrap()
}

fn changed(object: &impl Serialize, pointer: &str, value: Value) -> Value {
    let mut json = serde_json::to_value(object).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    json
}

/// The finalizer is there before the first status.
fn taken_up<K: Kind>(object: &K) -> K {
    let mut object = object.clone();
    object.meta_mut().finalizers = Some(vec![FINALIZER.to_owned()]);
    object
}

/// Somebody asked for its deletion; the API server counts that as a change.
fn asked_to_go<K: Kind>(object: &K) -> K {
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.deletion_timestamp = Some(Time(at(30)));
    meta.generation = meta.generation.map(|generation| generation + 1);
    object
}

fn scene<K: Recorded>(object: &K) -> Seen<K> {
    Seen {
        object: taken_up(object),
        workspace: Ok(WorkspaceView {
            epoch: 1,
            suspended: false,
            deleting: false,
            parallelism: 8,
            ssh_public_key: Some("ssh-ed25519 AAAAmarsh".to_owned()),
        }),
        facts: object.facts(),
        observed: Observed::new(),
        suspended: None,
        retry_requested: false,
        wake_at: None,
        now: at(1),
    }
}

/// One pass in which every open run is seen to have ended like this.
fn pass<K: Recorded>(seen: Seen<K>, end: impl Fn(&StepStatus) -> Outcome) -> Planned<K> {
    let mut seen = seen;
    let steps = seen.object.run_status().map(|status| status.steps.clone()).unwrap_or_default();
    for step in steps.iter().filter(|step| step.is_open()) {
        seen.observed.insert(step.id.clone(), RunView::Ended(end(step)));
    }
    decide(&seen, usize::MAX)
}

fn begun<K: Recorded>() -> K {
    pass(scene(&new::<K>(&K::spec())), K::success).next
}

/// As many passes as it takes until it stands like this.
fn until<K: Recorded>(object: K, state: State, end: impl Fn(&StepStatus) -> Outcome) -> K {
    let mut object = object;
    for minute in 1..40 {
        let planned = pass(Seen { now: at(minute), ..scene(&object) }, &end);
        object = planned.next;
        if planned.standing.state == state {
            return object;
        }
    }
    panic!("{} never came to {state:?}: {}", object.name_any(), serde_json::to_string(&object).unwrap());
}

fn ready<K: Recorded>() -> K {
    until(begun::<K>(), State::Ready, K::success)
}

/// How a run ends of which nothing good can come any more.
fn for_good(_: &StepStatus) -> Outcome {
    Outcome::failed(FailureClass::Invalid, "NotSupported", "the other side says that it cannot do this")
}

/// How a run ends whose Job, or Pod, has the name of somebody else's.
fn job_taken(_: &StepStatus) -> Outcome {
    name_conflict("provisioning-run-1")
}

fn record(records: &mut Records, kind: &str, phase: &str, object: &impl Serialize) {
    let before = records.insert(format!("{}/{phase}", kind.to_lowercase()), serde_json::to_value(object).unwrap());
    assert!(before.is_none(), "{kind} {phase} is recorded twice");
}

/// The phases that every kind that runs steps goes through.
fn kind<K: Recorded>(records: &mut Records) {
    let mut add = |phase: &str, object: &K| record(records, K::KIND, phase, object);
    add("new", &new(&K::spec()));
    let begun = begun::<K>();
    add("running", &begun);
    let reset = |_: &StepStatus| Outcome::failed(K::passing(), "ConnectionReset", "connection reset by peer");
    add("retrying", &pass(scene(&begun), reset).next);
    add("step-failed", &pass(scene(&begun), for_good).next);
    let refused = Error::Unanswered { object: format!("{} marsh/{}", K::KIND, begun.name_any()) };
    add("api-error", &with_error(&taken_up(&new::<K>(&K::spec())), &refused, at(1)));
    let held = with(&new::<K>(&K::spec()), "/spec/suspend", json!(true));
    let words = format!("{} '{}' is suspended: set spec.suspend to false to go on", K::KIND, held.name_any());
    add("suspended", &pass(Seen { suspended: Some(words), ..scene(&held) }, K::success).next);
    add(
        "no-workspace",
        &pass(Seen { workspace: Err(NoWorkspace::Absent), ..scene(&new(&K::spec())) }, K::success).next,
    );
    let ready = ready::<K>();
    add("ready", &ready);
    add("ready-for-the-generation-before", &with(&ready, "/metadata/generation", json!(2)));
    add("status-too-new", &with(&ready, "/status/schema", json!(STATUS_SCHEMA + 1)));
    add("deletion-not-seen-yet", &asked_to_go(&ready));
    unreadable(records, &ready);
    K::special(records);
}

/// What is undone when it is deleted, and what cannot be.
fn deletion<K: Recorded>(records: &mut Records) {
    let deleting = pass(scene(&asked_to_go(&ready::<K>())), K::success).next;
    record(records, K::KIND, "deleting", &deleting);
    record(records, K::KIND, "deletion-blocked", &until(deleting, State::Stalled, for_good));
}

/// The stored object has a value that this operator does not know: written by somebody with an older or newer schema.
fn unreadable<K>(records: &mut Records, ready: &K)
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Serialize,
{
    let broken = with::<DynamicObject>(
        &serde_json::from_value(changed(ready, "/spec/suspend", json!("tomorrow"))).unwrap(),
        "/metadata/generation",
        json!(2),
    );
    let kind = K::kind(&());
    let read: Guarded<K> = serde_json::from_value(serde_json::to_value(&broken).unwrap()).unwrap();
    let error = read.0.err().unwrap().error;
    record(records, &kind, "undecodable", &undecodable(&broken, &error, at(2)));
}

fn all() -> Records {
    let mut records = Records::new();
    workspace::record_all(&mut records);
    kind::<provisioning_api::ProviderConfig>(&mut records);
    kind::<provisioning_api::Server>(&mut records);
    kind::<provisioning_api::Taskserv>(&mut records);
    kind::<provisioning_api::BatchWorkflow>(&mut records);
    kind::<provisioning_api::Cluster>(&mut records);
    records
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/gitops/testdata/objects")
}

/// Names and texts of the files that are there.
fn files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(kind.path()).unwrap().flatten() {
            let name = format!("{}/{}", kind.file_name().display(), file.file_name().display());
            found.insert(name, std::fs::read_to_string(file.path()).unwrap());
        }
    }
    found
}

#[test]
fn the_recorded_objects_are_those_that_this_operator_writes() {
    let text = |(name, object): (String, Value)| {
        let yaml = serde_saphyr::to_string(&object).unwrap();
        (format!("{name}.yaml"), format!("# Recorded by operator/controller/src/recorded. Do not edit.\n{yaml}"))
    };
    let records: BTreeMap<String, String> = all().into_iter().map(text).collect();
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        let _ = std::fs::remove_dir_all(folder());
        for (name, text) in &records {
            let path = folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
    let files = files();
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<BTreeSet<_>>();
    let anew = "GOLDEN=write cargo test -p provisioning-controller recorded, then look at the difference";
    assert_eq!(names(&files), names(&records), "{anew}");
    for (name, text) in &records {
        assert_eq!(&files[name], text, "{name}: {anew}");
    }
}

#[test]
fn a_new_object_is_recorded_with_the_defaults_of_its_schema() {
    let defaults = |kind: &str| {
        let crds = provisioning_api::all_crds();
        let crd = crds.into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let mut schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        let status = schema.properties.as_mut().unwrap().remove("status").unwrap();
        assert_eq!(status.default.map(|default| default.0), Some(json!({})), "{kind} begins without a status");
        let properties = status.properties.unwrap();
        properties.into_iter().filter_map(|(name, schema)| Some((name, schema.default?.0))).collect::<BTreeMap<_, _>>()
    };
    let records = all();
    let fresh: Vec<_> = records.iter().filter(|(name, _)| name.ends_with("/new")).collect();
    assert_eq!(fresh.len(), provisioning_api::all_crds().len(), "each kind has one");
    for (name, object) in fresh {
        let status: BTreeMap<String, Value> = serde_json::from_value(object["status"].clone()).unwrap();
        assert_eq!(status, defaults(object["kind"].as_str().unwrap()), "{name}");
        assert_eq!(status["observedGeneration"], json!(0), "{name}");
    }
}

/// Nobody may act for a deletion any more once it is abandoned, and no leader goes on with its runs.
#[test]
fn without_a_workspace_what_is_abandoned_is_given_up_and_nothing_else() {
    let deleting =
        pass(scene(&asked_to_go(&ready::<provisioning_api::Server>())), provisioning_api::Server::success).next;
    let open: Vec<String> =
        deleting.run_status().unwrap().steps.iter().filter(|step| step.is_open()).map(|step| step.id.clone()).collect();
    assert_eq!(open, ["create"]);
    for (value, view, given_up) in [
        ("true", RunView::Silent, true),
        ("true", RunView::Missing { ours: true }, true),
        ("true", RunView::Alive, false),
        ("false", RunView::Silent, false),
    ] {
        let mut object = deleting.clone();
        object.annotations_mut().insert(ANNOTATION_ABANDON.to_owned(), value.to_owned());
        let observed = Observed::from([("create".to_owned(), view.clone())]);
        let planned = decide(&Seen { workspace: Err(NoWorkspace::Absent), observed, ..scene(&object) }, usize::MAX);
        assert_eq!(planned.decision.give_up.len(), usize::from(given_up), "{value} {view:?}");
    }
}
