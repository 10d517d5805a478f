// (pure) What a Cluster shows: its members, where it is reached, and outputs of its services.

use provisioning_api::Cluster;
use provisioning_api::cluster::{ClusterEndpoint, ClusterMember, ClusterOutput, MemberState, PublishedEndpoint};
use provisioning_api::shared::RunsSteps;

use super::{Facts, parts};

/// Most addresses of one endpoint.
const MAX_ADDRESSES: usize = 16;
/// Longest output, bytes.
const MAX_OUTPUT: usize = 512;

pub(crate) fn fill(cluster: &mut Cluster, facts: &Facts) {
    let members: Vec<ClusterMember> = cluster
        .spec
        .server_groups
        .iter()
        .flat_map(|group| parts::servers(cluster, group).into_iter().map(|server| member(facts, &group.name, server)))
        // A longer one belongs to no server, and a status that holds it would be refused.
        .filter(|member| member.server.len() <= parts::MAX_NAME)
        .take(64)
        .collect();
    let endpoints = cluster.spec.endpoints.iter().map(|endpoint| published(endpoint, &members)).collect();
    let known = |output: &ClusterOutput| Some((output.name.clone(), value(cluster, facts, output)?));
    let outputs = cluster.spec.outputs.iter().filter_map(known).collect();
    let status = cluster.status.get_or_insert_default();
    status.members = members;
    status.endpoints = endpoints;
    status.outputs = outputs;
}

fn member(facts: &Facts, group: &str, server: String) -> ClusterMember {
    let found = facts.server(&server);
    let state = match found {
        None => MemberState::Missing,
        Some(found) if found.is_ready() && found.metadata.deletion_timestamp.is_none() => MemberState::Ready,
        Some(_) => MemberState::NotReady,
    };
    let addresses = found.and_then(|found| found.status.as_ref()).map(|status| status.addresses.as_slice());
    let address = addresses.and_then(|addresses| addresses.first()).map(|first| first.address.clone());
    ClusterMember { group: group.to_owned(), server, address, state }
}

fn published(endpoint: &ClusterEndpoint, members: &[ClusterMember]) -> PublishedEndpoint {
    let scheme = endpoint.scheme.as_ref().map_or_else(String::new, |scheme| format!("{scheme}://"));
    let port = endpoint.port;
    let answering = members.iter().filter(|member| member.group == endpoint.group);
    let addresses = answering.filter_map(|member| member.address.as_ref()).map(|address| {
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        format!("{scheme}{host}:{port}")
    });
    PublishedEndpoint { name: endpoint.name.clone(), addresses: addresses.take(MAX_ADDRESSES).collect() }
}

/// The values of all servers in their order, each once. Values that do not fit are left out as a whole.
fn value(cluster: &Cluster, facts: &Facts, output: &ClusterOutput) -> Option<String> {
    let taskserv = cluster.spec.taskservs.iter().find(|taskserv| taskserv.name == output.taskserv)?;
    let status = facts.taskservs.get(&parts::taskserv_name(cluster, taskserv))?.status.as_ref()?;
    let servers = parts::group(cluster, &taskserv.group).map(|group| parts::servers(cluster, group))?;
    let rows = servers.iter().filter_map(|name| status.servers.iter().find(|row| row.name == *name));
    let mut values: Vec<String> = Vec::new();
    let mut size = 0;
    for value in rows.filter_map(|row| row.outputs.get(&output.output)) {
        let value = value.replace(char::is_control, " ");
        if !values.contains(&value) && size + value.len() < MAX_OUTPUT {
            size += value.len() + 1;
            values.push(value);
        }
    }
    (!values.is_empty()).then(|| values.join(","))
}
