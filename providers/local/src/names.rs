//! One machine of the site: whose it is, and what everything that belongs to it is called.

use std::collections::BTreeMap;

use provisioning_api::names::{
    LABEL_INSTALLATION, LABEL_MANAGED_BY, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_NAMESPACE, LABEL_OWNER_UID,
    LABEL_ROLE, LABEL_TOKEN, MANAGER,
};
use provisioning_api::server::Creation;
use provisioning_sdk::request::Owner;
use provisioning_sdk::values::{MAX_NAME, is_dns_label, is_tag_value, is_uid};
use sha2::{Digest, Sha256};

/// Label: which machine in the owner's life a site resource belongs to.
pub const LABEL_INCARNATION: &str = "provisioning.dev/incarnation";
/// Label: zone of a server. The zones of a site are names only; all of its servers share its nodes.
pub const LABEL_ZONE: &str = "provisioning.dev/zone";
/// Value of the role label on a server's pod and Secret.
pub const ROLE_SERVER: &str = "server";
/// Value of the role label on a pod that removes disks.
pub const ROLE_WIPE: &str = "wipe";

/// Hex digits of the token in a pod's name: 40 bits, to tell servers of one name in many workspaces apart.
const SHORT_TOKEN: usize = 10;

/// Why a request names no machine that could exist.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The uid becomes a label, part of a path and of a pattern for `find`.
    #[error("{0:?} is no uid: 36 hexadecimal digits and dashes are expected")]
    CheckUid(String),
    /// The token becomes a label value.
    #[error("{0:?} is no token: at most 63 letters, digits, dashes, dots and underscores are expected")]
    CheckToken(String),
    /// The site and the workspace are namespaces and parts of a path; the host name is one label.
    #[error("{0:?} is no DNS label: at most 63 lower-case letters, digits and dashes are expected")]
    CheckLabel(String),
    /// Incarnations count from 0.
    #[error("incarnation {0} is negative")]
    CheckIncarnation(i64),
}

/// One machine: its owner, which one in the owner's life, and its frozen parameters. Checked, so that every name and
/// path made from it is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    owner: Owner,
    installation: String,
    incarnation: i64,
    creation: Creation,
}

impl Machine {
    /// Checks what becomes part of names, labels and paths.
    ///
    /// # Errors
    /// [`NameError`] with the first value that is malformed.
    pub fn new(owner: Owner, installation: String, incarnation: i64, creation: Creation) -> Result<Self, NameError> {
        if !is_uid(&owner.uid) {
            return Err(NameError::CheckUid(owner.uid));
        }
        for label in [&owner.namespace, &owner.name, &creation.site] {
            check_label(label)?;
        }
        if !is_tag_value(&creation.token) {
            return Err(NameError::CheckToken(creation.token));
        }
        if incarnation < 0 {
            return Err(NameError::CheckIncarnation(incarnation));
        }
        Ok(Machine { owner, installation, incarnation, creation })
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Which machine in the owner's life.
    pub fn incarnation(&self) -> i64 {
        self.incarnation
    }

    /// The frozen parameters.
    pub fn creation(&self) -> &Creation {
        &self.creation
    }

    /// Name of the server's pod: the idempotency token of its creation, since a name exists once in a namespace.
    pub fn pod_name(&self) -> String {
        let token = short_hash(&self.creation.token);
        let room = MAX_NAME - "srv-".len() - 1 - token.len();
        let name: String = self.owner.name.chars().take(room).collect();
        format!("srv-{}-{token}", name.trim_end_matches('-'))
    }

    /// Name of the Secret with the host key. Needs no token, so that Delete can name those of all incarnations.
    pub fn secret_name(&self, incarnation: i64) -> String {
        format!("host-key-{}-{incarnation}", self.owner.uid)
    }

    /// Name of the pod that removes the disks from a node; without a node, from wherever it is scheduled.
    pub fn wipe_name(&self, node: Option<&str>) -> String {
        match node {
            Some(node) => format!("wipe-{}-{}", self.owner.uid, short_hash(node)),
            None => format!("wipe-{}", self.owner.uid),
        }
    }

    /// What the operator stores as the provider's identifier: `SITE/POD`.
    pub fn external_id(&self) -> String {
        format!("{}/{}", self.creation.site, self.pod_name())
    }

    /// Folder on the node below which all disks of the workspace are. The workspace is part of the path so that the
    /// admission policy can keep a workspace's executor from the disks of another.
    pub fn disks_folder(&self, disk_root: &str) -> String {
        format!("{disk_root}/{}/{}", self.creation.site, self.owner.namespace)
    }

    /// Folder on the node that is this machine's disk.
    pub fn disk_folder(&self, disk_root: &str) -> String {
        format!("{}/{}-{}", self.disks_folder(disk_root), self.owner.uid, self.incarnation)
    }

    /// Labels of everything that belongs to this machine.
    pub fn labels(&self, role: &str) -> BTreeMap<String, String> {
        let Owner { kind, namespace, name, uid } = &self.owner;
        [
            (LABEL_MANAGED_BY, MANAGER),
            (LABEL_OWNER_UID, uid),
            (LABEL_OWNER_KIND, kind),
            (LABEL_OWNER_NAME, name),
            (LABEL_OWNER_NAMESPACE, namespace),
            (LABEL_INSTALLATION, &self.installation),
            (LABEL_TOKEN, &self.creation.token),
            (LABEL_ROLE, role),
            (LABEL_ZONE, &self.creation.zone),
            (LABEL_INCARNATION, &self.incarnation.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Selects everything that was ever made for the owner.
    pub fn owner_selector(&self) -> String {
        format!("{LABEL_OWNER_UID}={}", self.owner.uid)
    }

    /// Selects this machine's pod alone.
    pub fn server_selector(&self) -> String {
        format!("{},{LABEL_TOKEN}={},{LABEL_ROLE}={ROLE_SERVER}", self.owner_selector(), self.creation.token)
    }
}

/// Checks a value that becomes a namespace, a host name or one element of a path.
///
/// # Errors
/// [`NameError::CheckLabel`] where it is no DNS label.
pub fn check_label(value: &str) -> Result<(), NameError> {
    if is_dns_label(value) { Ok(()) } else { Err(NameError::CheckLabel(value.to_owned())) }
}

fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().chars().take(SHORT_TOKEN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn names_are_equal_over_runs_and_differ_between_machines() {
        let first = testing::machine("blue-heron", 0);
        assert_eq!(first.pod_name(), testing::machine("blue-heron", 0).pod_name());
        assert_ne!(first.pod_name(), testing::machine("blue-heron", 1).pod_name());
        assert!(first.pod_name().starts_with("srv-blue-heron-"), "{}", first.pod_name());
        assert_eq!(first.external_id(), format!("wetland/{}", first.pod_name()));
    }

    #[test]
    fn a_name_of_63_characters_gives_a_pod_name_that_fits() {
        for name in ["h".repeat(63), format!("{}-{}", "h".repeat(47), "x".repeat(15))] {
            let machine = testing::machine(&name, 0);
            assert!(check_label(&machine.pod_name()).is_ok(), "{}", machine.pod_name());
            assert!(check_label(&machine.wipe_name(Some("node-1"))).is_ok(), "{}", machine.wipe_name(Some("node-1")));
        }
    }

    #[test]
    fn a_disk_lies_below_its_workspace() {
        let machine = testing::machine("blue-heron", 2);
        assert_eq!(machine.disk_folder("/disks"), format!("/disks/wetland/marsh/{}-2", testing::UID));
    }

    #[test]
    fn what_could_leave_a_path_or_a_pattern_is_refused() {
        let good = testing::machine("blue-heron", 0);
        let with = |change: &dyn Fn(&mut Owner, &mut Creation)| {
            let (mut owner, mut creation) = (good.owner.clone(), good.creation.clone());
            change(&mut owner, &mut creation);
            Machine::new(owner, "i".into(), 0, creation)
        };
        assert!(matches!(with(&|owner, _| owner.uid = "*".into()), Err(NameError::CheckUid(_))));
        assert!(matches!(with(&|owner, _| owner.namespace = "..".into()), Err(NameError::CheckLabel(_))));
        assert!(matches!(with(&|_, creation| creation.site = "a/b".into()), Err(NameError::CheckLabel(_))));
        assert!(matches!(with(&|_, creation| creation.token = "a,b".into()), Err(NameError::CheckToken(_))));
    }
}
