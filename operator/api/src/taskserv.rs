//! Taskserv: a service on servers.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::shared::{DeletionPolicy, runs_steps};
use crate::steps::{RunStatus, StepPhase};

/// The service that is wanted, and where.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev", version = "v1alpha1", kind = "Taskserv", plural = "taskservs",
    shortname = "tsv", category = "provisioning", namespaced, status = "TaskservStatus", derive = "PartialEq",
    doc = "A Taskserv installs an extension (a service with its scripts) on servers, checks it, and uninstalls it with this object unless `deletionPolicy` is Orphan.",
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name becomes a label: at most 63 characters, lower-case letters, digits and dashes"),
    validation = Rule::new("self.spec.extension.name == oldSelf.spec.extension.name").message("spec.extension.name is immutable: create another Taskserv instead").field_path(".spec.extension.name"),
    printcolumn(name = "Extension", type_ = "string", json_path = ".spec.extension.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Servers", type_ = "string", json_path = ".spec.servers", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.servers) != has(self.serverSelector)").message("give exactly one of servers and serverSelector"))]
#[serde(rename_all = "camelCase")]
pub struct TaskservSpec {
    /// What is installed.
    pub extension: ExtensionReference,
    /// Names of the Servers that it is installed on. Exactly one of `servers` and `serverSelector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Vec<String>,
    /// The Servers of this namespace that it is installed on, by their labels; at most 64 may match. One that matches
    /// later is installed too; one that no longer matches is left as `deletionPolicy` says. Exactly one of `servers` and
    /// `serverSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_selector: Option<ServerSelector>,
    /// What happens with other extensions that this one requires. Default Auto.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// Parameters of the extension; its documentation lists them. At most 64, never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::parameters")]
    pub parameters: BTreeMap<String, Value>,
    /// Secret parameters of the extension, by name, each a reference to a Secret of this namespace. At most 16. The value
    /// is read when a script runs; another value needs another Secret, so that the change can be seen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::secret_parameters")]
    pub secret_parameters: BTreeMap<String, SecretReference>,
    /// Servers that the scripts are told the addresses of, in groups; the extension's documentation says which groups it
    /// uses. At most 8 groups of 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::peers")]
    pub peers: BTreeMap<String, Vec<String>>,
    /// How long after its end the check of a server is run again, seconds: one that fails makes the object Stalled, and one
    /// that succeeds later makes it Ready again. Nothing is installed again by itself. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 604_800))]
    pub check_interval_seconds: Option<i32>,
    /// Whether the service is uninstalled with this object. Default Delete.
    #[serde(default = "default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
    /// While true nothing forward is started. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_deletion_policy() -> DeletionPolicy {
    DeletionPolicy::Delete
}

/// What happens with the extensions that an extension requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dependencies {
    /// What is not on a server yet is installed before, and goes with the last Taskserv that needs it.
    #[default]
    Auto,
    /// They have to be on each server already.
    Strict,
}

/// Servers by their labels. All of its parts must hold; an empty one means every Server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::match_labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels, one a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key"]))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) : !has(self.values)").message("give values with In and NotIn, and only with them"))]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What must hold of its value. NotIn holds where the label is absent, too.
    pub operator: LabelOperator,
    /// Values, with In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// What a label is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// Its value is one of the values.
    In,
    /// Its value is none of the values, or it is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// An extension by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExtensionReference {
    /// Name, for example `redis`. Immutable in a Taskserv.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// SemVer requirement on the bundle's version, for example `^1.2`. Default: the newest. A version older than the one
    /// that is installed is taken only where it is asked for exactly, as in `=1.2.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version: Option<String>,
}

/// One value in a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret. It begins with `taskserv-`, so that no other Secret can be brought to a server.
    #[schemars(length(max = 253), regex(pattern = r"^taskserv-[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Key in the Secret, for example `password`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What is known of the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskservStatus {
    /// Plan, checkpoints, conditions.
    #[serde(flatten)]
    pub run: RunStatus,
    /// The bundle that was chosen; stays until the generation changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedExtension>,
    /// The bundles that were chosen for what the extension requires, in the order of installation. On a server that has
    /// another version which will do, that one stays: see `status.installed` of the Server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 31), extend("x-kubernetes-list-type" = "atomic"))]
    pub dependencies: Vec<ResolvedExtension>,
    /// A row per server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub servers: Vec<TaskservServer>,
}

/// A bundle that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolvedExtension {
    /// Name of the extension.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Version of the bundle, SemVer.
    #[schemars(length(max = 64))]
    pub version: String,
    /// `sha256:` and 64 hex digits, over the bundle's files.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// metadata.generation that it was chosen for.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// The version that was chosen before, where it was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub replaces: Option<String>,
}

/// One server of a Taskserv.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskservServer {
    /// Name of the Server.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Phase of its last unfinished step, or Succeeded.
    pub phase: StepPhase,
    /// What the scripts reported, for example the package's version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::outputs")]
    pub outputs: BTreeMap<String, String>,
}

runs_steps!(Taskserv);
