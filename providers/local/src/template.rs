//! The three fixed manifests: a server's Secret, its pod, and the pod that removes disks.
//!
//! The chart's admission policy allows exactly these (charts/provisioning/templates/site/pods.yaml): a change here
//! is a change there, and tests/admission has cases for both. The scripts are one copy, compiled in here and compared
//! with there.

use k8s_openapi::api::core::v1::{Pod, Secret};
use provisioning_api::names::ANNOTATION_HOST_KEY;
use serde_json::{Value, json};

use crate::keys::HostKey;
use crate::names::{Machine, ROLE_SERVER, ROLE_WIPE};

const FILL: &str = include_str!("../../../charts/provisioning/files/site/fill.sh");
const BOOT: &str = include_str!("../../../charts/provisioning/files/site/boot.sh");
const STOP: &str = include_str!("../../../charts/provisioning/files/site/stop.sh");

/// Seconds a server gets to stop its services: enough for a database to write its last checkpoint.
const GRACE: i64 = 30;
/// Tries, one a second, before a server that never opens port 22 is restarted: never, in practice. A server whose
/// sshd was switched off on purpose is the user's business.
const NEVER: i32 = 1_000_000;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The JSON below is no Pod: a mistake in this file.
    #[error("failed to build a manifest")]
    BuildManifest(#[from] serde_json::Error),
}

/// The Secret of a server: its private host key and the public key that it trusts.
pub fn secret(machine: &Machine, key: &HostKey) -> Result<Secret, TemplateError> {
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": machine.secret_name(machine.incarnation()),
            "labels": machine.labels(ROLE_SERVER),
        },
        "type": "Opaque",
        "immutable": true,
        "stringData": {
            "ssh_host_ed25519_key": key.private(),
            "authorized_keys": format!("{}\n", machine.creation().user_key.trim()),
        },
    }))?)
}

/// The pod that is a server.
pub fn server(machine: &Machine, hostname: &str, host_key: &str, disk_root: &str) -> Result<Pod, TemplateError> {
    let creation = machine.creation();
    let resources = resources(creation.cores, creation.memory_mib, creation.reserved_percent);
    let disk = json!({"name": "disk", "mountPath": "/disk"});
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": machine.pod_name(),
            "labels": machine.labels(ROLE_SERVER),
            "annotations": {ANNOTATION_HOST_KEY: host_key},
        },
        "spec": {
            "hostname": hostname,
            "restartPolicy": "Always",
            "dnsPolicy": "Default",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE,
            "initContainers": [{
                "name": "fill",
                "image": creation.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", FILL],
                "resources": resources,
                "securityContext": capabilities(&["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"]),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [disk, {"name": "keys", "mountPath": "/keys", "readOnly": true}],
            }],
            "containers": [{
                "name": "server",
                "image": creation.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", BOOT],
                "env": [{"name": "container", "value": "docker"}],
                "resources": resources,
                "securityContext": {"privileged": true},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [disk],
                "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", STOP]}}},
                // Quick to notice the boot, then quiet: sshd logs a line for every probe.
                "startupProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 1, "failureThreshold": NEVER},
                "readinessProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 20, "failureThreshold": 2},
            }],
            "volumes": [
                {"name": "disk", "hostPath": {
                    "path": machine.disk_folder(disk_root),
                    "type": "DirectoryOrCreate",
                }},
                // Optional: a server that has its key on disk must boot without it, and one that has not must say why
                // (fill.sh does) instead of waiting for a mount in silence.
                {"name": "keys", "secret": {
                    "secretName": machine.secret_name(machine.incarnation()),
                    "defaultMode": 0o400,
                    "optional": true,
                }},
            ],
        },
    }))?)
}

/// The pod that removes every disk of the owner from a node: not privileged, its one variable part is one argument
/// of `find`, and no shell reads it.
///
/// The scheduler does not place it while a server of the owner, a terminating one included, is on that node: so it can
/// be created before the server is deleted, while the server still tells the node, and a cut in between loses nothing.
pub fn wipe(machine: &Machine, node: Option<&str>, image: &str, disk_root: &str) -> Result<Pod, TemplateError> {
    let owner_uid = &machine.owner().uid;
    let mut affinity = json!({
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {
                provisioning_api::names::LABEL_OWNER_UID: owner_uid,
                provisioning_api::names::LABEL_ROLE: ROLE_SERVER,
            }},
        }]},
    });
    if let Some(node) = node {
        affinity["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
        ]}});
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": machine.wipe_name(node), "labels": machine.labels(ROLE_WIPE)},
        "spec": {
            "restartPolicy": "Never",
            "dnsPolicy": "Default",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "affinity": affinity,
            "containers": [{
                "name": "wipe",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": [
                    "find", "/disks", "-mindepth", "1", "-maxdepth", "1", "-name", format!("{owner_uid}-*"),
                    "-exec", "rm", "-rf", "--one-file-system", "--", "{}", "+",
                ],
                "resources": {
                    "limits": {"cpu": "1", "memory": "128Mi"},
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                },
                "securityContext": capabilities(&["DAC_OVERRIDE", "FOWNER"]),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "disks", "mountPath": "/disks"}],
            }],
            "volumes": [{"name": "disks", "hostPath": {
                "path": machine.disks_folder(disk_root),
                "type": "DirectoryOrCreate",
            }}],
        },
    }))?)
}

/// Root with these capabilities and no others.
fn capabilities(add: &[&str]) -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": add}})
}

/// Limits are the size, requests a share of it, rounded up.
fn resources(cores: i32, memory_mib: i64, reserved_percent: i32) -> Value {
    let share = |whole: i64| (whole * i64::from(reserved_percent) + 99) / 100;
    json!({
        "limits": {"cpu": cores.to_string(), "memory": format!("{memory_mib}Mi")},
        "requests": {"cpu": format!("{}m", share(i64::from(cores) * 1000)), "memory": format!("{}Mi", share(memory_mib))},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn requests_are_the_reserved_share_of_the_size() {
        let resources = resources(2, 512, 10);
        assert_eq!(resources["limits"], json!({"cpu": "2", "memory": "512Mi"}));
        assert_eq!(resources["requests"], json!({"cpu": "200m", "memory": "52Mi"}));
    }

    #[test]
    fn a_server_s_manifest_holds_no_secret_and_nothing_of_the_node_but_its_disk() {
        let machine = testing::machine("blue-heron", 3);
        let key = HostKey::generate().unwrap();
        let pod = server(&machine, "blue-heron", key.public(), "/disks").unwrap();
        let text = serde_json::to_string(&pod).unwrap();
        assert!(!text.contains("PRIVATE KEY"));
        assert_eq!(text.matches("hostPath").count(), 1);
        assert!(text.contains(&format!("/disks/wetland/marsh/{}-3", testing::UID)));
        assert!(text.contains(&machine.secret_name(3)));
    }

    #[test]
    fn a_wipe_names_the_owner_in_one_argument_and_waits_for_its_servers() {
        let machine = testing::machine("blue-heron", 0);
        let pod = wipe(&machine, Some("node-1"), testing::IMAGE, "/disks").unwrap();
        let spec = pod.spec.unwrap();
        let command = spec.containers[0].command.clone().unwrap();
        let pattern = format!("{}-*", testing::UID);
        assert_eq!(command.iter().filter(|word| word.contains(testing::UID)).collect::<Vec<_>>(), [&pattern]);
        assert!(!command.iter().any(|word| word == "sh" || word.ends_with("/sh")));
        let affinity = spec.affinity.unwrap();
        assert!(affinity.pod_anti_affinity.is_some() && affinity.node_affinity.is_some());
        let free = wipe(&machine, None, testing::IMAGE, "/disks").unwrap().spec.unwrap().affinity.unwrap();
        assert!(free.pod_anti_affinity.is_some() && free.node_affinity.is_none());
    }
}
