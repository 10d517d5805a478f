// (pure) What the scripts of a Taskserv are told: parameters, secrets by reference, and the servers around.

use std::collections::BTreeMap;

use provisioning_api::conditions::reasons;
use provisioning_api::taskserv::SecretReference;
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Manifest, Timeouts};
use provisioning_plan::conditions::Standing;
use provisioning_plan::nearest::hint;
use provisioning_sdk::request::Peer;
use serde::Serialize;
use serde_json::Value;

use super::Facts;
use crate::bundles::Offered;

/// Other servers that the scripts are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Surroundings {
    /// The servers that together form the service, where the extension asks for them.
    pub(crate) servers: Vec<Peer>,
    /// Other servers, in groups.
    pub(crate) peers: BTreeMap<String, Vec<Peer>>,
}

/// What the scripts of one extension are given. Parameters, secrets and peers are those of the spec's own extension; what
/// it requires is installed as its bundle comes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Given {
    /// Parameters, without defaults.
    pub(crate) parameters: BTreeMap<String, Value>,
    /// Secrets by reference.
    pub(crate) secrets: BTreeMap<String, SecretReference>,
    /// Servers around.
    pub(crate) surroundings: Surroundings,
}

/// What is given, once all addresses are known, and the bundle which says whether the scripts ask for them.
///
/// # Errors
/// Text for people: what is waited for. What was done before stays as it is meanwhile.
pub(crate) fn given(taskserv: &Taskserv, facts: &Facts, extension: &str, digest: &str) -> Result<Given, String> {
    let manifest = manifest(facts, digest).ok_or_else(|| {
        format!(
            "the bundle of extension '{extension}' with digest {digest} is not on offer any more, or cannot be read: load \
             it again (provisioning extension load DIR)"
        )
    })?;
    let members = if manifest.members { facts.members().unwrap_or_default() } else { &[] };
    let servers = told(facts, members)?;
    if extension != taskserv.spec.extension.name {
        let surroundings = Surroundings { servers, peers: BTreeMap::new() };
        return Ok(Given { parameters: BTreeMap::new(), secrets: BTreeMap::new(), surroundings });
    }
    let groups = taskserv.spec.peers.iter().map(|(group, names)| Ok((group.clone(), told(facts, names)?)));
    Ok(Given {
        parameters: own_parameters(taskserv, extension),
        secrets: taskserv.spec.secret_parameters.clone(),
        surroundings: Surroundings { servers, peers: groups.collect::<Result<_, String>>()? },
    })
}

/// The parameters of the spec, for its own extension.
pub(crate) fn own_parameters(taskserv: &Taskserv, extension: &str) -> BTreeMap<String, Value> {
    match extension == taskserv.spec.extension.name {
        true => taskserv.spec.parameters.clone(),
        false => BTreeMap::new(),
    }
}

/// Whether the scripts are told of other servers.
pub(crate) fn asks_for_others(taskserv: &Taskserv, facts: &Facts) -> bool {
    let status = taskserv.status.iter();
    let mut pinned = status.flat_map(|status| status.resolved.iter().chain(&status.dependencies));
    let has_members = pinned.any(|one| manifest(facts, &one.digest).is_some_and(|manifest| manifest.members));
    has_members || !taskserv.spec.peers.is_empty()
}

fn told(facts: &Facts, names: &[String]) -> Result<Vec<Peer>, String> {
    let peer = |name: &String| {
        if facts.unreadable.contains(name) {
            return Err(cannot_be_read(name));
        }
        let address = find(facts, name)
            .and_then(|server| server.status.as_ref())
            .and_then(|status| status.addresses.first())
            .ok_or_else(|| format!("Server '{name}' has no address yet"))?;
        Ok(Peer { name: name.clone(), address: address.address.clone() })
    };
    names.iter().map(peer).collect()
}

/// What is said of a Server of which nothing is known but its name.
pub(crate) fn cannot_be_read(server: &str) -> String {
    format!("Server '{server}' cannot be read: correct it first")
}

fn find<'a>(facts: &'a Facts, name: &str) -> Option<&'a Server> {
    facts.server(name).or_else(|| facts.peers.get(name).and_then(Option::as_ref))
}

/// The bundle of this digest, while it is on offer.
fn on_offer<'a>(facts: &'a Facts, digest: &str) -> Option<&'a Offered> {
    facts.bundles.iter().find(|offered| offered.digest == digest)
}

/// What a bundle says of itself; nothing where it left the shelf, or cannot be read.
pub(crate) fn manifest<'a>(facts: &'a Facts, digest: &str) -> Option<&'a Manifest> {
    on_offer(facts, digest)?.contents.manifest.as_ref()
}

/// Refuses what no script should be started with.
pub(crate) fn check(taskserv: &Taskserv, facts: &Facts, digest: &str) -> Result<(), Standing> {
    peers(taskserv, facts)?;
    // A bundle that was taken off the shelf is not known any more; its scripts were checked against it once.
    let Some(offered) = on_offer(facts, digest) else { return Ok(()) };
    let mut problems = offered.contents.parameter_problems(&taskserv.spec.parameters);
    problems.extend(offered.contents.secret_problems(taskserv.spec.secret_parameters.keys().map(String::as_str)));
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Standing::stalled(reasons::INVALID, problems.join("; "))),
    }
}

fn peers(taskserv: &Taskserv, facts: &Facts) -> Result<(), Standing> {
    for (group, names) in &taskserv.spec.peers {
        for (position, name) in names.iter().enumerate() {
            if find(facts, name).is_none() && !facts.unreadable.contains(name) {
                let hint = hint(name, facts.known_servers.iter().map(String::as_str));
                let text =
                    format!("spec.peers.{group}[{position}]: there is no Server '{name}' in this namespace{hint}");
                return Err(Standing::stalled(reasons::UNKNOWN_REFERENCE, text));
            }
        }
    }
    Ok(())
}

/// The parameters with the schema's defaults.
pub(crate) fn with_defaults(given: BTreeMap<String, Value>, facts: &Facts, digest: &str) -> BTreeMap<String, Value> {
    match on_offer(facts, digest) {
        Some(offered) => offered.contents.with_defaults(&given),
        None => given,
    }
}

/// Timeouts of a bundle; the defaults for one that is no longer on offer.
pub(crate) fn timeouts(facts: &Facts, digest: &str) -> Timeouts {
    manifest(facts, digest).map_or_else(Timeouts::default, |manifest| manifest.timeouts)
}
