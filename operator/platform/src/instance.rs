//! Instances: their names, and where everything of one lies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest instance name, so that the node's name and every socket path stay within their limits.
pub const NAME_LENGTH: usize = 20;

/// The kernel's limit for the path of a unix socket (`sun_path`, 108 bytes with the final NUL).
const SOCKET_PATH_LENGTH: usize = 107;

/// The name of an instance or its home is not usable.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Not a name: 1 to 20 of `a-z`, `0-9` and `-`, beginning with a letter.
    #[error(
        "failed to use {0:?} as an instance name: 1 to {NAME_LENGTH} of a-z, 0-9 and '-', a letter first, no '-' last"
    )]
    Name(String),
    /// Neither PROVISIONING_HOME nor HOME is set.
    #[error("failed to find the home directory: set HOME, or PROVISIONING_HOME to where instances may live")]
    Home,
    /// A socket below the home would be longer than the kernel allows.
    #[error("failed to use {}: sockets below it would be longer than {SOCKET_PATH_LENGTH} bytes; set PROVISIONING_HOME to a shorter path", .0.display())]
    PathTooLong(PathBuf),
}

/// A valid instance name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

impl InstanceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letters = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if letters && first && !text.ends_with('-') && text.len() <= NAME_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(InstanceError::Name(text.to_owned()))
        }
    }
}

impl TryFrom<String> for InstanceName {
    type Error = InstanceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

/// One instance: its name and the directory that holds all its state.
#[derive(Clone, Debug)]
pub struct Instance {
    name: InstanceName,
    directory: PathBuf,
    prefix: String,
}

impl Instance {
    /// The instance `name` of this user: below `$PROVISIONING_HOME/services`, by default `~/.provisioning/services`.
    pub fn of_user(name: InstanceName) -> Result<Self, InstanceError> {
        let home = match std::env::var_os("PROVISIONING_HOME").filter(|home| !home.is_empty()) {
            Some(home) => PathBuf::from(home),
            None => PathBuf::from(std::env::var_os("HOME").ok_or(InstanceError::Home)?).join(".provisioning"),
        };
        Self::below(&home.join("services"), name)
    }

    /// The names of all instances whose state lies beside this one's, its own included, sorted; none where they cannot be
    /// listed.
    pub fn neighbours(&self) -> Vec<InstanceName> {
        let services = self.directory.parent().and_then(|services| std::fs::read_dir(services).ok());
        let names = services.into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<InstanceName> =
            names.filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok()).collect();
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names
    }

    /// The instance `name` whose state lies in `services/name`.
    pub fn below(services: &Path, name: InstanceName) -> Result<Self, InstanceError> {
        let services = std::path::absolute(services).map_err(|_| InstanceError::Home)?;
        let directory = services.join(name.as_str());
        let instance = Self { prefix: prefix(&name, &directory), name, directory };
        let longest = instance.kubelet_root().join("pod-resources/kubelet.sock");
        if longest.as_os_str().len() > SOCKET_PATH_LENGTH {
            return Err(InstanceError::PathTooLong(instance.directory));
        }
        Ok(instance)
    }

    /// The instance's name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// The one prefix of everything outside the directory: network namespace, host link, cgroups, comments of firewall rules.
    ///
    /// At most 14 bytes (a link's name holds 15), and different for two instances of one name in two homes.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of its only node.
    pub fn node_name(&self) -> String {
        format!("provisioning-{}", self.name)
    }

    /// Where everything of the instance lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Record of what was made: addresses, names, cgroups.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// What the supervisor last said of itself and its services.
    pub(crate) fn status_file(&self) -> PathBuf {
        self.directory.join("status.json")
    }

    /// Held while one command starts or stops the instance.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Process ids: one file for each process.
    pub(crate) fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Logs: one file for each service, `supervisor.log` and `audit.log`.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.directory.join("pki")
    }

    /// Rendered configuration, written anew at each start.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// etcd's data.
    pub(crate) fn etcd(&self) -> PathBuf {
        self.directory.join("etcd")
    }

    /// containerd's data: images, snapshots.
    pub(crate) fn containerd_root(&self) -> PathBuf {
        self.directory.join("containerd")
    }

    /// containerd's state of running containers; worth nothing after a stop, like /run after a reboot.
    pub(crate) fn containerd_state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// kubelet's data: pods, volumes.
    pub(crate) fn kubelet_root(&self) -> PathBuf {
        self.directory.join("kubelet")
    }
}

fn prefix(name: &InstanceName, directory: &Path) -> String {
    let digest = Sha256::digest(directory.as_os_str().as_encoded_bytes());
    let short: String = name.as_str().chars().take(5).collect();
    format!("prov-{short}{:02x}{:02x}", digest[0], digest[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_short_dns_label() {
        for good in ["default", "t1", "a-b-c", "abcdefghijklmnopqrst"] {
            assert!(good.parse::<InstanceName>().is_ok(), "{good}");
        }
        for bad in ["", "1t", "-a", "a-", "A", "a_b", "a/b", "..", "abcdefghijklmnopqrstu"] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_prefix_fits_a_link_name_and_differs_between_homes() {
        let name: InstanceName = "heron-of-the-lake".parse().unwrap();
        let one = Instance::below(Path::new("/srv/one"), name.clone()).unwrap();
        let two = Instance::below(Path::new("/srv/two"), name).unwrap();
        assert!(one.prefix().len() <= 14);
        assert_ne!(one.prefix(), two.prefix());
    }

    #[test]
    fn a_home_too_deep_for_sockets_is_refused() {
        let deep = PathBuf::from("/").join("d".repeat(80));
        let error = Instance::below(&deep, InstanceName::default()).unwrap_err();
        assert!(matches!(error, InstanceError::PathTooLong(_)));
    }
}
