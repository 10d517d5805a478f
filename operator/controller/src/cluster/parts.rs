// (pure) What a Cluster is made of: its servers by group, and the objects that it makes.

use std::collections::BTreeMap;

use kube::ResourceExt;
use provisioning_api::Cluster;
use provisioning_api::cluster::{ClusterTaskserv, ServerGroup};
use provisioning_plan::ids::StepId;
use serde_json::{Value, json};

use crate::engine::kind::Child;

/// Longest name of a child: it becomes a label, and a Server's becomes its host name.
pub(crate) const MAX_NAME: usize = 63;

/// The step that makes a Server.
pub(crate) fn server_step(name: &str) -> StepId {
    StepId::new(format!("server/{name}"))
}

/// The step that waits for all servers of a group.
pub(crate) fn group_step(name: &str) -> StepId {
    StepId::new(format!("group/{name}"))
}

/// The step that makes the Taskserv of a service.
pub(crate) fn taskserv_step(name: &str) -> StepId {
    StepId::new(format!("taskserv/{name}"))
}

/// The servers of a group, in their order.
pub(crate) fn servers(cluster: &Cluster, group: &ServerGroup) -> Vec<String> {
    match (&group.servers, group.count) {
        (Some(existing), _) => existing.clone(),
        (None, count) => {
            (0..count.unwrap_or(0)).map(|number| format!("{}-{}-{number}", cluster.name_any(), group.name)).collect()
        }
    }
}

/// A group by name.
pub(crate) fn group<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a ServerGroup> {
    cluster.spec.server_groups.iter().find(|group| group.name == name)
}

/// Name of the Taskserv of a service.
pub(crate) fn taskserv_name(cluster: &Cluster, taskserv: &ClusterTaskserv) -> String {
    format!("{}-{}", cluster.name_any(), taskserv.name)
}

/// What the cluster makes, by step.
pub(crate) fn children(cluster: &Cluster) -> Vec<(StepId, Child)> {
    let mut found = Vec::new();
    for group in &cluster.spec.server_groups {
        let Some(template) = &group.template else { continue };
        let spec = serde_json::to_value(template).unwrap_or_default();
        for name in servers(cluster, group) {
            found.push((server_step(&name), Child { kind: "Server", name, spec: spec.clone(), reconcile: None }));
        }
    }
    for taskserv in &cluster.spec.taskservs {
        let (name, spec) = (taskserv_name(cluster, taskserv), taskserv_spec(cluster, taskserv));
        found.push((taskserv_step(&taskserv.name), Child { kind: "Taskserv", name, spec, reconcile: None }));
    }
    found
}

/// The spec of a service's Taskserv. What is not given is not written, so that the hash of the step stays as it is when
/// Taskservs get further fields.
fn taskserv_spec(cluster: &Cluster, taskserv: &ClusterTaskserv) -> Value {
    let of = |name: &String| group(cluster, name).map(|group| servers(cluster, group)).unwrap_or_default();
    let peers: BTreeMap<&String, Vec<String>> = taskserv.peers.iter().map(|name| (name, of(name))).collect();
    let mut spec = json!({
        "extension": taskserv.extension,
        "servers": of(&taskserv.group),
        "deletionPolicy": taskserv.deletion_policy,
    });
    if !taskserv.parameters.is_empty() {
        spec["parameters"] = json!(taskserv.parameters);
    }
    if !taskserv.secret_parameters.is_empty() {
        spec["secretParameters"] = json!(taskserv.secret_parameters);
    }
    if !peers.is_empty() {
        spec["peers"] = json!(peers);
    }
    spec
}
