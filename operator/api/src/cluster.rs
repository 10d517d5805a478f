//! Cluster: servers in groups, and services over them.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::server::ServerSpec;
use crate::shared::{DeletionPolicy, runs_steps};
use crate::steps::{DependencyType, RunStatus};
use crate::taskserv::{ExtensionReference, SecretReference};

/// The servers and services that are wanted.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "clu",
    category = "provisioning",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A Cluster is servers in groups with services over them: it makes Servers and Taskservs in the order of their dependencies, follows a change of a group's size, and takes down what it made in reverse order unless `deletionPolicy` is Orphan.",
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name becomes a label: at most 63 characters, lower-case letters, digits and dashes"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoints[0].addresses[0]"),
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
pub struct ClusterSpec {
    /// The servers, in groups by name. At most 8 groups and 64 servers in all.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub server_groups: Vec<ServerGroup>,
    /// The services, by name, each on all servers of a group. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub taskservs: Vec<ClusterTaskserv>,
    /// Where the cluster is reached, published in status with the addresses of the group's servers. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub endpoints: Vec<ClusterEndpoint>,
    /// Outputs of services that are published in status. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<ClusterOutput>,
    /// Whether the Servers and Taskservs that it made are deleted with it, or when they are no longer wanted. Existing
    /// servers always stay. Default Delete.
    #[serde(default = "default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
    /// While true nothing forward is started. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_deletion_policy() -> DeletionPolicy {
    DeletionPolicy::Delete
}

/// Servers that are treated alike: made for this cluster, or there already.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.servers) ? !has(self.count) && !has(self.template) : has(self.count) && has(self.template)").message("give either servers, or count and template"))]
pub struct ServerGroup {
    /// Name of the group, unique in the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How many servers are made. They are named CLUSTER-GROUP-0, CLUSTER-GROUP-1 and so on; a smaller number takes the
    /// last ones away, after the services have left them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub count: Option<i32>,
    /// What each of them is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ServerSpec>,
    /// Names of Servers that are there already. They are never changed nor deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Option<Vec<String>>,
}

/// A service on all servers of a group. It becomes the Taskserv CLUSTER-NAME.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.dependsOn) || self.dependsOn.all(d, d.taskserv != self.name)").message("a taskserv cannot depend on itself"))]
#[x_kube(validation = Rule::new("self.extension.name == oldSelf.extension.name").message("the extension of a taskserv is immutable: remove the taskserv and add one of another name"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterTaskserv {
    /// Name of the service, unique in the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name of the group whose servers it is installed on.
    #[schemars(length(min = 1, max = 63))]
    pub group: String,
    /// What is installed.
    pub extension: ExtensionReference,
    /// Parameters of the extension; its documentation lists them. At most 64, never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::parameters")]
    pub parameters: BTreeMap<String, Value>,
    /// Secret parameters of the extension, by name, each a reference to a Secret of this namespace. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::secret_parameters")]
    pub secret_parameters: BTreeMap<String, SecretReference>,
    /// Groups whose servers' addresses its scripts are told of, each under the group's name. A change of these servers or
    /// addresses runs the scripts again. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub peers: Vec<String>,
    /// Services that come before this one. At most 15.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["taskserv"]))]
    pub depends_on: Vec<TaskservDependency>,
    /// Whether the service is uninstalled with its Taskserv, or from a server that leaves the group. Default Delete.
    #[serde(default = "default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
}

/// A dependency between two services of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskservDependency {
    /// Name of the other service.
    #[schemars(length(min = 1, max = 63))]
    pub taskserv: String,
    /// `Hard` (default): the other service must be Ready. `Soft`: it must have ended, however.
    #[serde(rename = "type", default)]
    pub type_: DependencyType,
}

/// A port of a group's servers where the cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterEndpoint {
    /// Name of the endpoint, unique in the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name of the group whose servers answer.
    #[schemars(length(min = 1, max = 63))]
    pub group: String,
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Scheme of the addresses, for example `http`. By default they have none: ADDRESS:PORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[a-z][a-z0-9+.-]*$"))]
    pub scheme: Option<String>,
}

/// An output of a service's scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterOutput {
    /// Name under which it is published, unique in the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// Name of the service.
    #[schemars(length(min = 1, max = 63))]
    pub taskserv: String,
    /// Name of the output, as the extension's documentation has it.
    #[schemars(length(min = 1, max = 63))]
    pub output: String,
}

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatus {
    /// Plan, checkpoints, conditions.
    #[serde(flatten)]
    pub run: RunStatus,
    /// Its servers, group by group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub members: Vec<ClusterMember>,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<PublishedEndpoint>,
    /// The outputs that `spec.outputs` names, once they are known: the values of all servers in their order, each once,
    /// by commas. At most 512 bytes each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::outputs")]
    pub outputs: BTreeMap<String, String>,
}

/// One server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterMember {
    /// Name of the group.
    #[schemars(length(max = 63))]
    pub group: String,
    /// Name of the Server.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Its first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// How it stands.
    pub state: MemberState,
}

/// How a server of a cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberState {
    /// The Server is Ready.
    Ready,
    /// It is not.
    NotReady,
    /// There is no Server of this name.
    Missing,
}

/// An endpoint with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedEndpoint {
    /// Name of the endpoint.
    #[schemars(length(max = 63))]
    pub name: String,
    /// SCHEME://ADDRESS:PORT or ADDRESS:PORT, for the servers whose address is known; the first 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 300)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}

runs_steps!(Cluster);
