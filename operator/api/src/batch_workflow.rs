//! BatchWorkflow: steps over objects of our kinds.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::ClusterSpec;
use crate::server::ServerSpec;
use crate::shared::{DeletionPolicy, OnFailure, RetryPolicy, runs_steps};
use crate::steps::{DependencyType, RunStatus};
use crate::taskserv::{ExtensionReference, SecretReference, TaskservSpec};

/// The steps that are wanted.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev",
    version = "v1alpha1",
    kind = "BatchWorkflow",
    plural = "batchworkflows",
    shortname = "bwf",
    category = "provisioning",
    namespaced,
    status = "BatchWorkflowStatus",
    derive = "PartialEq",
    doc = "A BatchWorkflow brings objects into being in the order of their dependencies and waits until each is Ready. Applied again unchanged it does nothing.",
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name becomes a label: at most 63 characters, lower-case letters, digits and dashes"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BatchWorkflowSpec {
    /// The steps, by name. At most 64.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<WorkflowStep>,
    /// How many steps may be open at the same time. Default 4.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: i32,
    /// What follows when a step has failed for good. `Continue`: all that does not depend on it goes on. `Pause`: no step
    /// starts any more, running ones are awaited, and a person decides (a new try by the annotation
    /// provisioning.dev/reconcile-requested-at). Default Continue.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Whether what it made is deleted with it, or when its step is removed. Default Orphan.
    #[serde(default = "default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
    /// While true nothing forward is started. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_parallelism() -> i32 {
    4
}

fn default_deletion_policy() -> DeletionPolicy {
    DeletionPolicy::Orphan
}

/// One step of a workflow.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.dependsOn) || self.dependsOn.all(d, d.step != self.name)").message("a step cannot depend on itself"))]
#[x_kube(validation = Rule::new("[has(self.apply), has(self.delete), has(self.run), has(self.wait)].filter(given, given).size() == 1").message("give exactly one of apply, delete, run and wait"))]
#[x_kube(validation = Rule::new("has(self.apply) == has(oldSelf.apply) && (!has(self.apply) || ((has(self.apply.server) ? self.apply.server.name : '') == (has(oldSelf.apply.server) ? oldSelf.apply.server.name : '') && (has(self.apply.taskserv) ? self.apply.taskserv.name : '') == (has(oldSelf.apply.taskserv) ? oldSelf.apply.taskserv.name : '') && (has(self.apply.cluster) ? self.apply.cluster.name : '') == (has(oldSelf.apply.cluster) ? oldSelf.apply.cluster.name : '')))").message("the object that a step applies is immutable: remove the step and add one of another name"))]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStep {
    /// Name of the step, unique in the workflow.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Steps that come before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 63), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["step"]))]
    pub depends_on: Vec<WorkflowDependency>,
    /// Whether the step is wanted: a CEL expression over the steps that it depends on, such as
    /// `steps['web-0'].phase == 'Succeeded' && steps.db.outputs.address.startsWith('10.')`. Each has `phase` (Succeeded,
    /// Failed, Skipped, …) and, once it succeeded, `outputs` by name. Decided once, when all of them have ended: false passes
    /// the step over (phase Skipped), which satisfies those that depend on it. There are operators, `has`, `all`, `exists`,
    /// `exists_one`, `size`, `contains`, `startsWith`, `endsWith`, `string`, `int` and `double`. By default the step is
    /// wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Creates or updates an object and waits until it is Ready. A step has exactly one of apply, delete,
    /// run and wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplyAction>,
    /// Deletes an object of this namespace and waits until it is gone; one that is not there is done. What another
    /// workflow made is left alone: the step fails with both names. It cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<DeleteAction>,
    /// Runs a script of an extension on servers, once for each time that the step is planned. It cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunAction>,
    /// Waits until a condition over an object of this namespace holds, at most timeoutSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitAction>,
    /// When and how often a failure is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long one try may take, seconds. Default 1800.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: i32,
}

impl WorkflowStep {
    /// Kind and name of the object that it applies.
    pub fn applied(&self) -> Option<(&'static str, &str)> {
        let apply = self.apply.as_ref()?;
        let server = apply.server.as_ref().map(|server| ("Server", server.name.as_str()));
        let taskserv = || apply.taskserv.as_ref().map(|taskserv| ("Taskserv", taskserv.name.as_str()));
        let cluster = || apply.cluster.as_ref().map(|cluster| ("Cluster", cluster.name.as_str()));
        server.or_else(taskserv).or_else(cluster)
    }

    /// Kind and name of the object that it looks at without having made it: what it deletes or waits for.
    pub fn regards(&self) -> Option<(&'static str, &str)> {
        let deleted = self.delete.as_ref().map(|delete| (delete.kind.as_str(), delete.name.as_str()));
        deleted.or_else(|| self.wait.as_ref().map(|wait| (wait.kind.as_str(), wait.name.as_str())))
    }
}

fn default_timeout() -> i32 {
    1800
}

/// A dependency between two steps of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowDependency {
    /// Name of the other step.
    #[schemars(length(min = 1, max = 63))]
    pub step: String,
    /// `Hard` (default): the other step must have succeeded. `Soft`: it must have ended.
    #[serde(rename = "type", default)]
    pub type_: DependencyType,
}

/// The object that an `apply` step brings into being: exactly one of the fields.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.server), has(self.taskserv), has(self.cluster)].filter(given, given).size() == 1").message("give exactly one of server, taskserv and cluster"))]
pub struct ApplyAction {
    /// A Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerTemplate>,
    /// A Taskserv.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taskserv: Option<TaskservTemplate>,
    /// A Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterTemplate>,
}

/// The object that a `delete` step takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteAction {
    /// Its kind.
    pub kind: DeletedKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Kinds that a workflow can delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletedKind {
    /// A Server.
    Server,
    /// A Taskserv.
    Taskserv,
    /// A Cluster.
    Cluster,
}

impl DeletedKind {
    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            DeletedKind::Server => "Server",
            DeletedKind::Taskserv => "Taskserv",
            DeletedKind::Cluster => "Cluster",
        }
    }
}

/// The script that a `run` step runs, and where.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(self.script in ['install', 'check', 'uninstall'])").message("install, check and uninstall belong to a Taskserv: apply one").field_path(".script"))]
#[serde(rename_all = "camelCase")]
pub struct RunAction {
    /// The extension. On a server that has it installed in a version which will do, it is that one; else the newest.
    pub extension: ExtensionReference,
    /// Name of one of its scripts for workflows, for example `dump`; `provisioning extension show NAME` lists them.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub script: String,
    /// Names of the Servers, each of which has to be Ready. On each it is a step of its own, `STEP/SERVER`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Vec<String>,
    /// Parameters of the script. At most 64, never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::parameters")]
    pub parameters: BTreeMap<String, Value>,
    /// Secrets of the extension that the script is given, by name, each a reference to a Secret of this namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::secret_parameters")]
    pub secret_parameters: BTreeMap<String, SecretReference>,
}

/// What a `wait` step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitAction {
    /// Kind of the object.
    pub kind: AwaitedKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A CEL expression over `object`, such as
    /// `object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')`; it reads `object.metadata`,
    /// `object.spec` and `object.status`. A field that is not there yet counts as false. The language is that of `when`.
    #[serde(rename = "for")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: String,
}

/// Kinds that a workflow can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwaitedKind {
    /// The Workspace of this namespace.
    Workspace,
    /// A ProviderConfig.
    ProviderConfig,
    /// A Server.
    Server,
    /// A Taskserv.
    Taskserv,
    /// A Cluster.
    Cluster,
    /// Another BatchWorkflow.
    BatchWorkflow,
}

impl AwaitedKind {
    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            AwaitedKind::Workspace => "Workspace",
            AwaitedKind::ProviderConfig => "ProviderConfig",
            AwaitedKind::Server => "Server",
            AwaitedKind::Taskserv => "Taskserv",
            AwaitedKind::Cluster => "Cluster",
            AwaitedKind::BatchWorkflow => "BatchWorkflow",
        }
    }
}

/// A Server to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerTemplate {
    /// Name of the Server.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its spec.
    pub spec: ServerSpec,
}

/// A Taskserv to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskservTemplate {
    /// Name of the Taskserv.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its spec.
    pub spec: TaskservSpec,
}

/// A Cluster to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterTemplate {
    /// Name of the Cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its spec.
    pub spec: ClusterSpec,
}

/// What is known of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchWorkflowStatus {
    /// Plan, checkpoints, conditions.
    #[serde(flatten)]
    pub run: RunStatus,
}

runs_steps!(BatchWorkflow);
