//! An object as the API server has it, and as far as this build can read it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DynamicObject, ObjectMeta, TypeMeta};
use provisioning_api::conditions::types;
use provisioning_api::names::ANNOTATION_RECONCILE;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{RunStatus, StepStatus};
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use serde_json::Value;

use crate::kinds::{Kind, Target};
use crate::safe::one_line;
use crate::schema;

/// An object. One that can't be read is still an object, with a name, conditions and JSON.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    /// All of it but `managedFields`, also fields that this build does not know.
    pub(crate) json: Value,
    pub(crate) metadata: ObjectMeta,
    /// The typed object, or what is wrong with it, for people: each text in it is one line without control characters.
    pub(crate) typed: Result<Typed, String>,
    conditions: Vec<Condition>,
}

/// A typed object.
#[derive(Clone, Debug)]
pub(crate) enum Typed {
    Workspace(Box<Workspace>),
    ProviderConfig(Box<ProviderConfig>),
    BatchWorkflow(Box<BatchWorkflow>),
    Cluster(Box<Cluster>),
    Server(Box<Server>),
    Taskserv(Box<Taskserv>),
}

impl Item {
    /// Reads what came from the API server.
    pub(crate) fn new(kind: Kind, mut raw: DynamicObject) -> Self {
        // Items of a list may come without them.
        let resource = kind.resource();
        raw.types.get_or_insert(TypeMeta { api_version: resource.api_version, kind: resource.kind });
        // Who wrote which field is half of an object, and nobody's question here; kubectl leaves it out too.
        raw.metadata.managed_fields = None;
        let metadata = raw.metadata.clone();
        let json = serde_json::to_value(raw).unwrap_or_default();
        let read = harmless(&json);
        let conditions = read.pointer("/status/conditions").cloned().unwrap_or_default();
        let conditions = serde_json::from_value(conditions).unwrap_or_default();
        let typed = Typed::read(kind, &read).map_err(|error| unreadable(kind, &read, &error));
        Self { kind, json, metadata, typed, conditions }
    }

    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> Target {
        Target { kind: self.kind, name: self.name().to_owned() }
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    pub(crate) fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether `Ready` is True for the newest spec.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_deleting()
            && self.is_up_to_date()
            && self.condition(types::READY).is_some_and(|ready| ready.status == "True")
    }

    /// `Stalled`, while it is True for the newest spec.
    pub(crate) fn stalled(&self) -> Option<&Condition> {
        self.condition(types::STALLED).filter(|stalled| stalled.status == "True" && self.is_up_to_date())
    }

    /// Whether status is about the newest spec, and about the newest request for another look.
    pub(crate) fn is_up_to_date(&self) -> bool {
        let asked = self.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_RECONCILE));
        // The operator remembers the first 64 characters.
        let asked = asked.map(|value| one_line(&value.chars().take(64).collect::<String>()));
        let heard = self.run().is_none_or(|run| asked.is_none() || asked == run.last_handled_reconcile_at);
        heard && self.is_of_newest_spec()
    }

    /// Whether status is about the newest spec, though perhaps not about the newest request for another look.
    pub(crate) fn is_of_newest_spec(&self) -> bool {
        let observed = self.json.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or(0);
        observed >= self.metadata.generation.unwrap_or(0)
    }

    /// The part of status that all kinds share that run steps.
    pub(crate) fn run(&self) -> Option<&RunStatus> {
        match self.typed.as_ref().ok()? {
            Typed::Workspace(_) => None,
            Typed::ProviderConfig(object) => object.run_status(),
            Typed::BatchWorkflow(object) => object.run_status(),
            Typed::Cluster(object) => object.run_status(),
            Typed::Server(object) => object.run_status(),
            Typed::Taskserv(object) => object.run_status(),
        }
    }

    pub(crate) fn steps(&self) -> &[StepStatus] {
        self.run().map(|run| run.steps.as_slice()).unwrap_or_default()
    }

    /// `succeeded/total`, where there is a plan.
    pub(crate) fn progress(&self) -> Option<&str> {
        self.run()?.progress.as_ref().map(|progress| progress.summary.as_str())
    }

    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// A text at a path of its JSON.
    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        match self.json.pointer(pointer)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl Typed {
    fn read(kind: Kind, json: &Value) -> Result<Self, serde_json::Error> {
        use serde::Deserialize;
        Ok(match kind {
            Kind::Workspace => Self::Workspace(Box::new(Workspace::deserialize(json)?)),
            Kind::ProviderConfig => Self::ProviderConfig(Box::new(ProviderConfig::deserialize(json)?)),
            Kind::BatchWorkflow => Self::BatchWorkflow(Box::new(BatchWorkflow::deserialize(json)?)),
            Kind::Cluster => Self::Cluster(Box::new(Cluster::deserialize(json)?)),
            Kind::Server => Self::Server(Box::new(Server::deserialize(json)?)),
            Kind::Taskserv => Self::Taskserv(Box::new(Taskserv::deserialize(json)?)),
        })
    }
}

/// A copy whose texts do a terminal no harm; keys too, for maps of names that people choose.
fn harmless(json: &Value) -> Value {
    match json {
        Value::String(text) => Value::String(one_line(text)),
        Value::Array(list) => list.iter().map(harmless).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (one_line(key), harmless(value))).collect(),
        other => other.clone(),
    }
}

/// What is wrong with an object, with the field where the schema tells it.
fn unreadable(kind: Kind, json: &Value, error: &serde_json::Error) -> String {
    let known = schema::Checker::new(kind).check(json);
    known.first().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object from JSON, as if it came from the API server.
    pub(crate) fn item(kind: Kind, json: Value) -> Item {
        Item::new(kind, serde_json::from_value(json).unwrap())
    }

    /// A Server with some steps.
    pub(crate) fn server(name: &str, ready: (&str, &str, &str), steps: Value) -> Item {
        item(
            Kind::Server,
            serde_json::json!({
                "apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": name, "namespace": "first", "uid": format!("uid-{name}"), "generation": 1,
                    "creationTimestamp": "2026-05-04T10:00:00Z"},
                "spec": {"providerConfigRef": {"name": "local"}, "providerSize": "small",
                    "image": {"os": "debian", "version": "12"}, "deletionPolicy": "Delete", "suspend": false},
                "status": {
                    "observedGeneration": 1, "schema": 1,
                    "conditions": conditions(ready),
                    "steps": steps,
                    "progress": {"total": 2, "succeeded": 1, "failed": 0, "running": 1, "summary": "1/2"},
                    "addresses": [{"type": "Internal", "address": "10.7.0.9"}],
                },
            }),
        )
    }

    /// Conditions as the operator writes them: status, reason and message of `Ready`.
    pub(crate) fn conditions((status, reason, message): (&str, &str, &str)) -> Value {
        let condition = |type_: &str, status: &str| {
            serde_json::json!({"type": type_, "status": status, "reason": reason, "message": message,
                "observedGeneration": 1, "lastTransitionTime": "2026-05-04T10:00:05Z"})
        };
        let mut list = vec![condition("Ready", status)];
        match reason {
            _ if status == "True" => {}
            "StepFailed" | "Invalid" | "DeletionBlocked" | "DependencyStalled" | "NoWorkspace" | "ServerGone" => {
                list.push(condition("Stalled", "True"))
            }
            _ => list.push(condition("Reconciling", "True")),
        }
        Value::Array(list)
    }

    /// One step.
    pub(crate) fn step(id: &str, action: &str, phase: &str) -> Value {
        serde_json::json!({"id": id, "action": action, "undo": "None", "inputHash": "v1:0", "phase": phase, "run": 1,
            "startedAt": "2026-05-04T10:00:01Z"})
    }

    #[test]
    fn who_wrote_which_field_is_left_out_and_nothing_else() {
        let json = serde_json::json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "later": 1,
            "metadata": {"name": "workspace", "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"parallelism": 3}});
        let mut without = json.clone();
        without["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(item(Kind::Workspace, json).json, without);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_still_an_object() {
        let broken = item(
            Kind::Server,
            serde_json::json!({
                "metadata": {"name": "heron", "namespace": "first"},
                "spec": {"providerConfigRef": {"name": "local"}, "image": "debian"},
                "status": {"conditions": conditions(("False", "Undecodable", "x"))},
            }),
        );
        assert_eq!(broken.typed.as_ref().unwrap_err(), "spec.image: a string, where an object belongs");
        assert_eq!(broken.name(), "heron");
        assert_eq!(broken.condition("Ready").unwrap().reason, "Undecodable");
        assert_eq!(broken.json["kind"], "Server");
    }

    #[test]
    fn what_people_read_of_an_object_commands_no_terminal_and_its_json_is_as_it_came() {
        let evil = "failed\n\u{1b}]0;x\u{7}";
        let mut reach = step("reach", "Reach", "Failed");
        reach["message"] = serde_json::json!(evil);
        reach["outputs"] = serde_json::json!({"\u{1b}a": evil});
        let mut heron = server("heron", ("False", "StepFailed", evil), serde_json::json!([reach]));
        assert_eq!(heron.condition("Ready").unwrap().message, "failed ^[]0;x^G");
        assert_eq!(heron.steps()[0].message, "failed ^[]0;x^G");
        assert_eq!(heron.steps()[0].outputs["^[a"], "failed ^[]0;x^G");
        assert_eq!(heron.json["status"]["steps"][0]["message"], evil);
        heron.json["spec"]["zone\u{1b}"] = serde_json::json!(7);
        heron.json["spec"]["image"] = serde_json::json!("x");
        let unread = item(Kind::Server, heron.json).typed.unwrap_err();
        assert!(!unread.chars().any(char::is_control), "{unread}");
    }

    #[test]
    fn a_request_for_another_look_is_heard_whatever_its_words() {
        let mut heron = server("heron", ("True", "Succeeded", "x"), serde_json::json!([])).json;
        heron["metadata"]["annotations"] = serde_json::json!({ANNOTATION_RECONCILE: "now\n"});
        heron["status"]["lastHandledReconcileAt"] = serde_json::json!("now\n");
        assert!(item(Kind::Server, heron).is_ready());
    }

    #[test]
    fn ready_counts_for_the_newest_spec_only() {
        let mut heron = server("heron", ("True", "Succeeded", "all steps succeeded"), serde_json::json!([]));
        assert!(heron.is_ready());
        heron.metadata.generation = Some(2);
        assert!(!heron.is_ready());
        let mut heron = server("heron", ("False", "StepFailed", "no"), serde_json::json!([]));
        assert!(heron.stalled().is_some());
        heron.metadata.annotations = Some([(ANNOTATION_RECONCILE.to_owned(), "now".to_owned())].into());
        assert!(heron.stalled().is_none());
    }
}
