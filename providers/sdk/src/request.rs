//! What an executor is asked to do. The Pod template holds it, so it is frozen with the Job.

use std::collections::BTreeMap;
use std::time::Duration;

use provisioning_api::server::Creation;
use provisioning_api::steps::Direction;
use provisioning_api::taskserv::SecretReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Environment variable that holds the [`Envelope`] as JSON.
pub const ENV_REQUEST: &str = "PROVISIONING_REQUEST";
/// Environment variable with the name of the Pod's Job (also the name of the claim's Lease).
pub const ENV_JOB_NAME: &str = "PROVISIONING_JOB_NAME";
/// Environment variable with the Pod's own uid (downward API).
pub const ENV_POD_UID: &str = "PROVISIONING_POD_UID";
/// Environment variable with the file to write the result to; without it, `/dev/termination-log`, where the kubelet
/// reads it. For runs outside of a Pod.
pub const ENV_TERMINATION_LOG: &str = "PROVISIONING_TERMINATION_LOG";
/// Longest that an executor runs, whatever its request says, seconds.
pub const MAX_TIMEOUT_SECONDS: i64 = 24 * 60 * 60;
/// Folder in which the workspace's SSH key is mounted (`id_ed25519`).
pub const SSH_FOLDER: &str = "/var/run/provisioning/ssh";
/// Folder in which the secret parameters are mounted, a folder each.
pub const SECRETS_FOLDER: &str = "/var/run/provisioning/secrets";
/// File in such a folder that holds the value.
pub const SECRET_VALUE: &str = "value";
/// Folder in which the extension bundle is mounted.
pub const BUNDLE_FOLDER: &str = "/var/run/provisioning/bundle";

/// One run of one step, with what it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<P> {
    /// The object whose step this is.
    pub owner: Owner,
    /// Id of the step.
    pub step: String,
    /// Number of the run.
    pub run: i64,
    /// `Workspace.status.epoch` when the intent was written. Recorded on servers; the claim compares the live values.
    pub epoch: i64,
    /// Forward or undo.
    pub direction: Direction,
    /// Input hash of the step.
    pub input_hash: String,
    /// How long the executor may take, seconds, counted from its start.
    pub timeout_seconds: i64,
    /// uid of the namespace `kube-system`.
    pub installation: String,
    /// What to do.
    pub payload: P,
}

/// How long a run may take: what its request says, between a second and a day.
pub fn deadline(timeout_seconds: i64) -> Duration {
    Duration::from_secs(timeout_seconds.clamp(1, MAX_TIMEOUT_SECONDS).unsigned_abs())
}

/// The object whose step is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Kind, for example `Server`.
    pub kind: String,
    /// Namespace, that is the workspace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
}

/// What a provider can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ProviderRequest {
    /// Which zones, sizes and images there are. Outputs: `zones`, `sizes`, `images`, each JSON.
    Describe {
        /// Site (Local).
        site: String,
    },
    /// Find by owner and token, adopt, or create. externalID: the machine; output `hostKey`.
    Create {
        /// Host name of the machine.
        hostname: String,
        /// Which machine in the object's life.
        incarnation: i64,
        /// Frozen parameters.
        creation: Creation,
    },
    /// Wait until the machine runs and has an address. Outputs: `address`, `state` (`Running`, `Gone`), `hostKey`.
    Observe {
        /// Which machine in the object's life.
        incarnation: i64,
        /// Frozen parameters.
        creation: Creation,
    },
    /// Delete everything that carries the owner's uid, and see it gone.
    Delete {
        /// Which machine in the object's life.
        incarnation: i64,
        /// Frozen parameters.
        creation: Creation,
    },
    /// Everything in the site that carries this installation's tag. Outputs: `resources`, a JSON list of
    /// `{name, namespace, owner, uid, token}`; `total`; and `omitted`, the number that did not fit a result.
    List {
        /// Site (Local).
        site: String,
    },
}

/// What the runner can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RunnerRequest {
    /// Open a session, check the host key, bring `nu`. Outputs: `machineID`, `hostname`.
    Reach {
        /// Where.
        target: Target,
    },
    /// Run a script of the mounted bundle. Outputs: what the script reports.
    Script(ScriptRequest),
}

/// Which script is run where, with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptRequest {
    /// Where.
    pub target: Target,
    /// The bundle.
    pub extension: Extension,
    /// Which of its scripts.
    pub script: Script,
    /// Parameters for the script, with the schema's defaults.
    pub parameters: BTreeMap<String, Value>,
    /// Secret parameters: where each value comes from. The value itself is mounted, see [`secret_file`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretReference>,
    /// The servers that together form the service, this one among them, in order. Empty where the extension does not
    /// ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Peer>,
    /// Other servers, in groups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, Vec<Peer>>,
}

/// Another server, as scripts are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Name of the Server, which is its host name.
    pub name: String,
    /// IP address.
    pub address: String,
}

/// File with the value of a secret parameter, below the folder in which they are mounted ([`SECRETS_FOLDER`]).
pub fn secret_file(folder: &std::path::Path, parameter: &str) -> std::path::PathBuf {
    folder.join(parameter).join(SECRET_VALUE)
}

/// A server to be reached over SSH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the Server.
    pub server: String,
    /// IP address or host name.
    pub address: String,
    /// Port, 22 as a rule.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Public host key in OpenSSH's one-line form. Another key is refused.
    pub host_key: String,
}

/// A bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Name.
    pub name: String,
    /// Version, SemVer.
    pub version: String,
    /// `sha256:…` over the bundle; the runner computes it again before it executes anything.
    pub digest: String,
}

/// A script of a bundle. As JSON it is its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Script {
    /// `scripts/install.nu`
    Install,
    /// `scripts/check.nu`
    Check,
    /// `scripts/uninstall.nu`
    Uninstall,
    /// `scripts/NAME.nu`, which a step of a workflow runs.
    Named(String),
}

impl Script {
    /// Its name, which is that of its file.
    pub fn name(&self) -> &str {
        match self {
            Script::Install => "install",
            Script::Check => "check",
            Script::Uninstall => "uninstall",
            Script::Named(name) => name,
        }
    }

    /// Path within the bundle.
    pub fn path(&self) -> String {
        format!("scripts/{}.nu", self.name())
    }
}

impl From<String> for Script {
    fn from(name: String) -> Self {
        match name.as_str() {
            "install" => Script::Install,
            "check" => Script::Check,
            "uninstall" => Script::Uninstall,
            _ => Script::Named(name),
        }
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        script.name().to_owned()
    }
}
