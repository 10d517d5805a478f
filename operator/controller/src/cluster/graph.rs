// (pure) Validates a Cluster and draws its steps: servers → groups → services.

use std::collections::BTreeMap;

use kube::ResourceExt;
use provisioning_api::cluster::{ClusterTaskserv, ServerGroup};
use provisioning_api::conditions::reasons;
use provisioning_api::shared::{DeletionPolicy, RunsSteps};
use provisioning_api::steps::{StepAction, StepEffect, StepPhase, StepStatus, UndoAction};
use provisioning_api::{Cluster, Server, Taskserv};
use provisioning_plan::conditions::Standing;
use provisioning_plan::graph::{Dependency, Gate, Graph, GraphError, Step};
use provisioning_plan::ids::{InputHash, StepId};
use provisioning_plan::nearest::hint;

use super::Facts;
use super::parts::{self, group_step, server_step, taskserv_step};
use crate::children::view::{self as children, no_retry};
use crate::engine::kind::Child;
use crate::taskserv::server_of;

/// Most servers of one cluster: keeps the worst status below its size limit.
const MAX_SERVERS: usize = 64;

pub(crate) fn draw(cluster: &Cluster, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
    if cluster.metadata.deletion_timestamp.is_none() {
        check(cluster, facts)?;
    }
    let undo = match cluster.spec.deletion_policy {
        DeletionPolicy::Delete => UndoAction::DeleteObject,
        DeletionPolicy::Orphan => UndoAction::Orphan,
    };
    let apply = |(id, child): (StepId, Child)| Step {
        action: StepAction::Apply,
        why: format!("{} {}", child.kind, child.name),
        input_hash: Some(input_hash(&id, &child, facts, settled)),
        depends_on: cluster
            .spec
            .taskservs
            .iter()
            .find(|it| taskserv_step(&it.name) == id)
            .map_or_else(Vec::new, before),
        undo,
        retry: no_retry(),
        gate: Gate::Open,
        when: None,
        id,
    };
    let made = parts::children(cluster).into_iter().map(apply);
    let groups = cluster.spec.server_groups.iter().map(|group| join(cluster, group, facts));
    Graph::new(made.chain(groups).collect()).map_err(|error| match &error {
        GraphError::Cycle { .. } => Standing::stalled(reasons::CYCLE, format!("spec.taskservs: {error}")),
        GraphError::UnknownStep { .. } => {
            Standing::stalled(reasons::UNKNOWN_REFERENCE, format!("spec.taskservs: {error}"))
        }
        GraphError::Duplicate(_) | GraphError::TooLarge { .. } => {
            Standing::stalled(reasons::INVALID, format!("spec: {error}"))
        }
    })
}

/// What a step's result depends on.
fn input_hash(id: &StepId, child: &Child, facts: &Facts, settled: &[StepStatus]) -> InputHash {
    let is_there = facts.children.get(id.as_str()).is_some_and(|view| view.ours);
    let entry = settled.iter().find(|step| step.id == id.as_str());
    children::input_hash(&(child.kind, &child.name, &child.spec), entry, is_there)
}

/// The step in which a group comes together. It keeps the edges few: services depend on groups, groups on servers.
fn join(cluster: &Cluster, group: &ServerGroup, facts: &Facts) -> Step {
    let servers = parts::servers(cluster, group);
    let made = group.template.is_some();
    let depends_on = servers.iter().filter(|_| made).map(|name| Dependency::hard(&server_step(name))).collect();
    let gate =
        servers.iter().filter(|_| !made).find_map(|name| not_ready(facts, name)).map_or(Gate::Open, Gate::Waiting);
    Step {
        id: group_step(&group.name),
        action: StepAction::Wait,
        why: format!("servers {}", servers.join(", ")),
        input_hash: Some(InputHash::of(&("group", &group.name, &servers))),
        depends_on,
        undo: UndoAction::None,
        retry: no_retry(),
        gate,
        when: None,
    }
}

/// What comes before a service: its own group, those that its scripts are told of, and other services.
fn before(taskserv: &ClusterTaskserv) -> Vec<Dependency> {
    let mut groups = vec![&taskserv.group];
    groups.extend(taskserv.peers.iter().filter(|peer| **peer != taskserv.group));
    let groups = groups.into_iter().map(|name| Dependency::hard(&group_step(name)));
    let others =
        taskserv.depends_on.iter().map(|other| Dependency { step: taskserv_step(&other.taskserv), type_: other.type_ });
    groups.chain(others).collect()
}

fn not_ready(facts: &Facts, name: &str) -> Option<String> {
    let server = facts.server(name)?;
    let deleting = server.metadata.deletion_timestamp.is_some();
    match (deleting, server.is_ready()) {
        (true, _) => Some(format!("Server '{name}' is being deleted")),
        (false, true) => None,
        (false, false) => Some(format!("Server '{name}' is not Ready: {}", server.ready_message())),
    }
}

/// Refuses what cannot be carried out as written.
fn check(cluster: &Cluster, facts: &Facts) -> Result<(), Standing> {
    let invalid = |text: String| Standing::stalled(reasons::INVALID, text);
    let unknown = |text: String| Standing::stalled(reasons::UNKNOWN_REFERENCE, text);
    let mut count = 0;
    for (position, group) in cluster.spec.server_groups.iter().enumerate() {
        let servers = parts::servers(cluster, group);
        count += servers.len();
        for (place, name) in servers.iter().enumerate() {
            if group.template.is_some() && name.len() > parts::MAX_NAME {
                let field = format!("spec.serverGroups[{position}].name");
                return Err(invalid(too_long(&field, "Server", name)));
            }
            if group.template.is_none() && facts.server(name).is_none() {
                let hint = hint(name, facts.known_servers.iter().map(String::as_str));
                let field = format!("spec.serverGroups[{position}].servers[{place}]");
                return Err(unknown(format!("{field}: there is no Server '{name}' in this namespace{hint}")));
            }
        }
    }
    if count > MAX_SERVERS {
        let text = format!(
            "spec.serverGroups: {count} servers are more than the {MAX_SERVERS} of one Cluster: split it into several"
        );
        return Err(invalid(text));
    }
    for (field, name) in references_to_groups(cluster) {
        if parts::group(cluster, name).is_none() {
            let hint = hint(name, cluster.spec.server_groups.iter().map(|group| group.name.as_str()));
            return Err(unknown(format!("{field}: there is no group '{name}' in this cluster{hint}")));
        }
    }
    for (position, taskserv) in cluster.spec.taskservs.iter().enumerate() {
        let name = parts::taskserv_name(cluster, taskserv);
        if name.len() > parts::MAX_NAME {
            return Err(invalid(too_long(&format!("spec.taskservs[{position}].name"), "Taskserv", &name)));
        }
    }
    for (position, output) in cluster.spec.outputs.iter().enumerate() {
        let mut names = cluster.spec.taskservs.iter().map(|taskserv| taskserv.name.as_str());
        let name = &output.taskserv;
        if !names.clone().any(|other| other == name) {
            let hint = hint(name, names.by_ref());
            let field = format!("spec.outputs[{position}].taskserv");
            return Err(unknown(format!("{field}: there is no taskserv '{name}' in this cluster{hint}")));
        }
    }
    Ok(())
}

fn too_long(field: &str, kind: &str, name: &str) -> String {
    format!(
        "{field}: {kind} '{name}' would have a name of {} characters; at most {}: choose a shorter one",
        name.len(),
        parts::MAX_NAME
    )
}

/// Every place of the spec that names a group.
fn references_to_groups(cluster: &Cluster) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for (position, taskserv) in cluster.spec.taskservs.iter().enumerate() {
        found.push((format!("spec.taskservs[{position}].group"), taskserv.group.as_str()));
        let peers = taskserv.peers.iter().enumerate();
        found.extend(peers.map(|(place, name)| (format!("spec.taskservs[{position}].peers[{place}]"), name.as_str())));
    }
    for (position, endpoint) in cluster.spec.endpoints.iter().enumerate() {
        found.push((format!("spec.endpoints[{position}].group"), endpoint.group.as_str()));
    }
    found
}

/// What holds back the deletion of Servers that are no longer wanted: the services leave them first.
pub(crate) fn gates(cluster: &Cluster, facts: &Facts) -> BTreeMap<String, Gate> {
    let wanted: Vec<String> = parts::children(cluster).into_iter().map(|(id, _)| id.to_string()).collect();
    let steps = cluster.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let left = steps.iter().filter(|step| !wanted.contains(&step.id));
    let each = left.filter_map(|step| {
        let name = step.why.strip_prefix("Server ")?;
        let what = facts.taskservs.values().find_map(|taskserv| occupied_by(taskserv, name, facts.server(name)))?;
        Some((step.id.clone(), Gate::Waiting(what)))
    });
    each.collect()
}

/// Why a Taskserv of this cluster still needs a server that goes.
fn occupied_by(taskserv: &Taskserv, server: &str, machine: Option<&Server>) -> Option<String> {
    let name = taskserv.name_any();
    let spec = &taskserv.spec;
    if spec.servers.iter().chain(spec.peers.values().flatten()).any(|other| other == server) {
        return Some(format!("Taskserv '{name}' has still to leave Server '{server}'"));
    }
    let status = taskserv.run_status();
    if status.is_none_or(|status| status.observed_generation != taskserv.metadata.generation.unwrap_or(0)) {
        return Some(format!("Taskserv '{name}' has not seen yet that Server '{server}' goes"));
    }
    let steps = status.map(|status| status.steps.as_slice()).unwrap_or_default();
    for step in steps {
        let on_it = server_of(&step.id) == Some(server);
        // From a machine that does not answer nothing can be uninstalled; it goes with all that is on it.
        if on_it && step.effect == StepEffect::Possible && machine.is_some_and(RunsSteps::is_ready) {
            return Some(format!("Taskserv '{name}' is uninstalled from Server '{server}' first"));
        }
        // A service that was told of it forgets it before it is gone.
        if !on_it && matches!(step.phase, StepPhase::Pending | StepPhase::Running) && !spec.peers.is_empty() {
            return Some(format!("Taskserv '{name}' is brought up to date before Server '{server}' goes"));
        }
    }
    None
}
