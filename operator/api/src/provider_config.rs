//! ProviderConfig: where servers come from.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::runs_steps;
use crate::steps::RunStatus;

/// The kinds of provider that this release can talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProviderType {
    /// A small cloud inside the Kubernetes cluster: each server is a Debian machine in a pod of the site.
    Local,
}

/// How to reach a provider, and what Servers get when they do not say.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev", version = "v1alpha1", kind = "ProviderConfig", plural = "providerconfigs",
    shortname = "pcfg", category = "provisioning", namespaced, status = "ProviderConfigStatus", derive = "PartialEq",
    doc = "A ProviderConfig says where Servers come from: the type of provider, its site and defaults. Its status lists what the provider offers. It cannot go while a Server refers to it.",
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name becomes a label: at most 63 characters, lower-case letters, digits and dashes"),
    validation = Rule::new("self.spec.type == oldSelf.spec.type").message("spec.type is immutable: create another ProviderConfig instead").field_path(".spec.type"),
    validation = Rule::new("self.spec.site == oldSelf.spec.site").message("spec.site is immutable: create another ProviderConfig instead").field_path(".spec.site"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderConfigSpec {
    /// Which provider. Immutable.
    #[serde(rename = "type")]
    pub type_: ProviderType,
    /// Namespace in which the Local provider keeps its servers; prepared by the chart. Immutable. Default `provisioning-local`.
    #[serde(default = "default_site")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub site: String,
    /// Zone of Servers that name none. Default: the provider's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// Local: share of a server's size that is reserved on the node, percent; its limit is the full size. Default 10.
    #[serde(default = "default_overcommit")]
    #[schemars(range(min = 1, max = 100))]
    pub reserved_percent: i32,
    /// While true nothing forward is started. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_site() -> String {
    crate::names::DEFAULT_SITE.to_owned()
}

fn default_overcommit() -> i32 {
    10
}

/// What a provider offers, as it said itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderConfigStatus {
    /// Plan, checkpoints, conditions.
    #[serde(flatten)]
    pub run: RunStatus,
    /// Zones that a Server may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub zones: Vec<String>,
    /// Values that `providerSize` may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub sizes: Vec<OfferedSize>,
    /// Images that a Server may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub images: Vec<OfferedImage>,
}

/// A named size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfferedSize {
    /// Name, as in `spec.providerSize` of a Server.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Processor cores.
    #[schemars(range(min = 1, max = 1024))]
    pub cores: i32,
    /// Memory, for example `512Mi`.
    #[schemars(length(max = 16))]
    pub memory: String,
    /// Disk, for example `10Gi`. The Local provider records it and enforces nothing.
    #[schemars(length(max = 16))]
    pub disk: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfferedImage {
    /// Operating system, for example `debian`.
    #[schemars(length(min = 1, max = 63))]
    pub os: String,
    /// Its version, for example `12`.
    #[schemars(length(min = 1, max = 63))]
    pub version: String,
    /// The provider's own identifier, as in `spec.image.id` of a Server.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
}

runs_steps!(ProviderConfig);
