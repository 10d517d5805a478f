//! Where things are on a server.

use sha2::{Digest, Sha256};

/// Longest encoded step id that is used as it is; file names end at 255 bytes.
const MAX_STEP_NAME: usize = 180;

/// The folders on a server. Tests use others.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What has to survive a reboot.
    pub root: String,
    /// What need not: a script's request, which may hold secrets, and its stderr, so that a full disk can be reported.
    pub volatile: String,
    /// The `nu` binary.
    pub nu: String,
}

impl Default for Layout {
    fn default() -> Self {
        Layout {
            root: "/var/lib/provisioning".to_owned(),
            volatile: "/run/provisioning".to_owned(),
            nu: "/opt/provisioning/bin/nu".to_owned(),
        }
    }
}

impl Layout {
    /// The server side of the runner, named by its content so that two versions can't disturb each other.
    pub fn helper(&self, sha256: &str) -> String {
        format!("{}/lib/{}.sh", self.root, sha256.get(..16).unwrap_or(sha256))
    }

    /// Folder of a bundle.
    pub fn bundle(&self, digest: &str) -> String {
        format!("{}/bundles/{}", self.root, digest.strip_prefix("sha256:").unwrap_or(digest))
    }

    /// Where the files of a step are, or `None` where the uid is none.
    pub fn place(&self, owner_uid: &str, step: &str) -> Option<Place> {
        let is_uid = (1..=64).contains(&owner_uid.len())
            && owner_uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_uid.then(|| Place {
            base: format!("{}/{owner_uid}/{}", self.root, step_name(step)),
            hash: hex(&Sha256::new().chain_update(owner_uid).chain_update("\0").chain_update(step).finalize())[..16]
                .to_owned(),
        })
    }
}

/// The files of one step of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What all names begin with: `.json` is the marker, `.lock` is held while the script runs.
    pub base: String,
    hash: String,
}

impl Place {
    /// The marker.
    pub fn marker(&self) -> String {
        format!("{}.json", self.base)
    }

    /// Folder in which the files of an execution are gathered; its marker's digest tells two that do so apart.
    pub fn staging(&self, marker_digest: &str) -> String {
        format!("{}.new-{}", self.base, marker_digest.get(..16).unwrap_or(marker_digest))
    }

    /// The request of an execution that is about to start, in the folder of what does not outlive a reboot.
    pub fn request(&self, volatile: &str, marker_digest: &str) -> String {
        format!("{volatile}/request-{}-{}.json", self.hash, marker_digest.get(..16).unwrap_or(marker_digest))
    }

    /// Folder of one execution: stdout, exit code.
    pub fn execution(&self, run: i64) -> String {
        format!("{}.run-{run}", self.base)
    }

    /// The transient unit of one execution.
    pub fn unit(&self, run: i64) -> String {
        format!("provisioning-{}-{run}.service", self.hash)
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file name for a step id, one for each: `/` is `+`, what else needs care is `=XX`; a long one ends in its hash.
/// It holds no dot, so that no file of one step looks like one of another.
fn step_name(step: &str) -> String {
    let mut name = String::new();
    for byte in step.bytes() {
        match byte {
            b'/' => name.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("={byte:02x}")),
        }
    }
    if name.is_empty() || name.len() > MAX_STEP_NAME {
        let digest = hex(&Sha256::digest(step));
        name.truncate(MAX_STEP_NAME - 34);
        return format!("{name}=-{}", &digest[..32]);
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_readable_where_ids_are_ordinary() {
        let place = Layout::default().place("0f3a-11", "db-0/redis/install").unwrap();
        assert_eq!(place.marker(), "/var/lib/provisioning/0f3a-11/db-0+redis+install.json");
        assert_eq!(place.execution(3), "/var/lib/provisioning/0f3a-11/db-0+redis+install.run-3");
        assert!(place.unit(3).starts_with("provisioning-") && place.unit(3).ends_with("-3.service"));
    }

    #[test]
    fn an_owner_uid_is_no_path() {
        for bad in ["", "..", "a/b", "a b", "$x", &"x".repeat(65)] {
            assert_eq!(Layout::default().place(bad, "s"), None);
        }
    }

    proptest! {
        #[test]
        fn different_steps_have_different_safe_names(steps in prop::collection::hash_set("[a-b./+=%ä]{0,6}|[a-c]{240,253}", 2..20)) {
            let names: HashSet<String> = steps.iter().map(|step| step_name(step)).collect();
            prop_assert_eq!(names.len(), steps.len());
            for name in names {
                prop_assert!(!name.is_empty() && name.len() <= MAX_STEP_NAME);
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+=".contains(&b)));
            }
        }
    }
}
