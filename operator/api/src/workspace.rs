//! Workspace: a namespace that holds one is a workspace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::steps::MAX_NUMBER;

/// What a workspace is allowed to do.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev", version = "v1alpha1", kind = "Workspace", plural = "workspaces",
    shortname = "ws", category = "provisioning", namespaced, status = "WorkspaceStatus", derive = "PartialEq",
    doc = "A Workspace turns its namespace into a workspace. There is one per namespace, always named `workspace`; every other object of this API needs it, and deleting it takes everything in the namespace down in order.",
    validation = Rule::new("self.metadata.name == 'workspace'").message("a Workspace is always named 'workspace': there is one per namespace; use another namespace for a second one"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.objects.servers"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSpec {
    /// How many steps of this workspace may be open at the same time, over all objects. Default 8.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = 256))]
    pub parallelism: i32,
    /// While true nothing forward is started in this workspace; what runs is awaited, deletion works. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_parallelism() -> i32 {
    8
}

/// What is known of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceStatus {
    /// metadata.generation that this status is about.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
    /// See the page on conditions in the user guide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// Format of this status.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub schema: i32,
    /// The fence: raised by every new leader before it acts here; runs of a lower epoch may not act.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub epoch: i64,
    /// Identity of the leader that raised the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub leader: Option<String>,
    /// Public half of the workspace's SSH key, in OpenSSH's one-line form. Every server of the workspace trusts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub ssh_public_key: Option<String>,
    /// How many objects of each kind are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectCounts>,
}

/// How many objects of each kind a workspace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectCounts {
    /// ProviderConfigs.
    #[schemars(range(min = 0))]
    pub provider_configs: i32,
    /// Servers.
    #[schemars(range(min = 0))]
    pub servers: i32,
    /// Taskservs.
    #[schemars(range(min = 0))]
    pub taskservs: i32,
    /// Clusters.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub clusters: i32,
    /// BatchWorkflows.
    #[schemars(range(min = 0))]
    pub batch_workflows: i32,
}
