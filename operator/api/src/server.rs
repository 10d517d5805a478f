//! Server: one machine at a provider.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{DeletionPolicy, LocalReference, runs_steps};
use crate::steps::RunStatus;

/// The machine that is wanted.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "provisioning.dev", version = "v1alpha1", kind = "Server", plural = "servers",
    shortname = "srv", category = "provisioning", namespaced, status = "ServerStatus", derive = "PartialEq",
    doc = "A Server is one machine at a provider. It is created once, whatever crashes in between, and deleted with this object unless `deletionPolicy` is Orphan.",
    validation = Rule::new("self.spec.providerConfigRef == oldSelf.spec.providerConfigRef").message("spec.providerConfigRef is immutable: create another Server instead").field_path(".spec.providerConfigRef"),
    validation = Rule::new("self.spec.image == oldSelf.spec.image").message("spec.image is immutable: create another Server instead").field_path(".spec.image"),
    validation = Rule::new("has(self.spec.size) == has(oldSelf.spec.size) && (!has(self.spec.size) || self.spec.size == oldSelf.spec.size)").message("spec.size is immutable: create another Server instead").field_path(".spec.size"),
    validation = Rule::new("has(self.spec.providerSize) == has(oldSelf.spec.providerSize) && (!has(self.spec.providerSize) || self.spec.providerSize == oldSelf.spec.providerSize)").message("spec.providerSize is immutable: create another Server instead").field_path(".spec.providerSize"),
    validation = Rule::new("has(self.spec.zone) == has(oldSelf.spec.zone) && (!has(self.spec.zone) || self.spec.zone == oldSelf.spec.zone)").message("spec.zone is immutable: create another Server instead").field_path(".spec.zone"),
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name of a Server becomes its host name: at most 63 characters, lower-case letters, digits and dashes"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0].address"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Provider-ID", type_ = "string", json_path = ".status.providerID", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.size) != has(self.providerSize)").message("give exactly one of size and providerSize"))]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The ProviderConfig that it is made with. Immutable.
    pub provider_config_ref: LocalReference,
    /// Size in numbers. Exactly one of `size` and `providerSize`. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Size by the provider's name for it (see `status.sizes` of the ProviderConfig). Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub provider_size: Option<String>,
    /// Zone. Default: that of the ProviderConfig. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// What it boots. Immutable.
    pub image: Image,
    /// Whether the machine goes with this object. Default Delete.
    #[serde(default = "default_deletion_policy")]
    pub deletion_policy: DeletionPolicy,
    /// While true nothing forward is started. Default false.
    #[serde(default)]
    pub suspend: bool,
}

fn default_deletion_policy() -> DeletionPolicy {
    DeletionPolicy::Delete
}

/// Size of a server in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    /// Processor cores.
    #[schemars(range(min = 1, max = 256))]
    pub cores: i32,
    /// Memory in MiB or GiB, for example `512Mi`.
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,6}(Mi|Gi)$"))]
    pub memory: String,
    /// Disk in GiB, for example `10Gi`. The Local provider records it and enforces nothing.
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,6}Gi$"))]
    pub disk: String,
}

/// What a server boots: an operating system with its version, or the provider's identifier.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.id) ? !has(self.os) && !has(self.version) : has(self.os) && has(self.version)").message("give either id, or os and version"))]
pub struct Image {
    /// Operating system, for example `debian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub os: Option<String>,
    /// Version of the operating system, for example `12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// The provider's own identifier of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub id: Option<String>,
}

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Plan, checkpoints, conditions.
    #[serde(flatten)]
    pub run: RunStatus,
    /// The provider's identifier of the machine.
    #[serde(rename = "providerID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub provider_id: Option<String>,
    /// Which machine in this object's life: rises only after the former one was seen terminated.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub incarnation: i64,
    /// What the machine is created with, frozen in the write of the first intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<Creation>,
    /// Where it can be reached; the first one is used for SSH.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<Address>,
    /// Public host key in OpenSSH's one-line form; a different one is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub host_key: Option<String>,
    /// `/etc/machine-id` of the machine.
    #[serde(rename = "machineID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub machine_id: Option<String>,
    /// Which extensions are on the machine, and for which Taskservs. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub installed: Vec<Installed>,
}

/// An extension on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Name of the extension.
    #[schemars(length(max = 63))]
    pub extension: String,
    /// Version of the bundle, SemVer.
    #[schemars(length(max = 64))]
    pub version: String,
    /// `sha256:` and 64 hex digits, over the bundle's files.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// How far it is.
    pub state: InstalledState,
    /// The Taskserv that installs, checks and removes it.
    pub by: InstalledFor,
    /// The Taskserv that looked after it before and may have installed it, until the one in `by` has acted itself: what is
    /// there is removed by that one in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_from: Option<InstalledFor>,
    /// The Taskservs that need it, sorted by uid; none while it is being removed. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub required_by: Vec<InstalledFor>,
}

/// How far an extension on a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InstalledState {
    /// It is being installed, or changed.
    Installing,
    /// It was installed and checked.
    Installed,
    /// Nobody needs it any more; it is being removed. Who needs it anew waits until it is gone.
    Removing,
}

/// A Taskserv, as a Server knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct InstalledFor {
    /// uid of the Taskserv.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
}

/// Frozen parameters of a creation: the same over all runs, so that the provider's idempotency token covers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Creation {
    /// Type of provider.
    pub provider: crate::provider_config::ProviderType,
    /// Site of the Local provider.
    #[schemars(length(max = 63))]
    pub site: String,
    /// Zone.
    #[schemars(length(max = 63))]
    pub zone: String,
    /// Processor cores.
    #[schemars(range(min = 0))]
    pub cores: i32,
    /// Memory, MiB.
    #[serde(rename = "memoryMiB")]
    #[schemars(range(min = 0))]
    pub memory_mib: i64,
    /// Disk, GiB.
    #[serde(rename = "diskGiB")]
    #[schemars(range(min = 0))]
    pub disk_gib: i64,
    /// Share of the size that is reserved on the node, percent (Local).
    #[schemars(range(min = 0))]
    pub reserved_percent: i32,
    /// The provider's identifier of the image.
    #[schemars(length(max = 253))]
    pub image: String,
    /// Public key that the machine trusts for root.
    #[schemars(length(max = 512))]
    pub user_key: String,
    /// Idempotency token: hash of uid, step and incarnation.
    #[schemars(length(max = 63))]
    pub token: String,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Which network it belongs to.
    #[serde(rename = "type")]
    pub type_: AddressType,
    /// IPv4 or IPv6 address.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
}

/// Which network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// Reachable inside the site or the provider's network.
    Internal,
}

runs_steps!(Server);
