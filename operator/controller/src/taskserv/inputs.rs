// (pure) What the scripts of a Taskserv are told: parameters, secrets by reference, and the servers around.

use std::collections::BTreeMap;

use provisioning_api::conditions::reasons;
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

/// The servers around, once all their addresses are known, and the bundle which says whether the scripts ask for them.
///
/// # Errors
/// Text for people: what is waited for. What was done before stays as it is meanwhile.
pub(crate) fn surroundings(taskserv: &Taskserv, facts: &Facts, digest: &str) -> Result<Surroundings, String> {
    let manifest = manifest(facts, digest).ok_or_else(|| {
        let extension = &taskserv.spec.extension.name;
        format!(
            "the bundle of extension '{extension}' with digest {digest} is not on offer any more, or cannot be read"
        )
    })?;
    let members = if manifest.members { taskserv.spec.servers.as_slice() } else { &[] };
    let groups = taskserv.spec.peers.iter().map(|(group, names)| Ok((group.clone(), told(facts, names)?)));
    Ok(Surroundings { servers: told(facts, members)?, peers: groups.collect::<Result<_, String>>()? })
}

/// Whether the scripts are told of other servers.
pub(crate) fn asks_for_others(taskserv: &Taskserv, facts: &Facts) -> bool {
    let pinned = taskserv.status.as_ref().and_then(|status| status.resolved.as_ref());
    let members = pinned.and_then(|pinned| manifest(facts, &pinned.digest)).is_some_and(|manifest| manifest.members);
    members || !taskserv.spec.peers.is_empty()
}

fn told(facts: &Facts, names: &[String]) -> Result<Vec<Peer>, String> {
    let peer = |name: &String| {
        let address = find(facts, name)
            .and_then(|server| server.status.as_ref())
            .and_then(|status| status.addresses.first())
            .ok_or_else(|| format!("Server '{name}' has no address yet"))?;
        Ok(Peer { name: name.clone(), address: address.address.clone() })
    };
    names.iter().map(peer).collect()
}

fn find<'a>(facts: &'a Facts, name: &str) -> Option<&'a Server> {
    let own = facts.servers.iter().find(|(other, _)| other == name).and_then(|(_, server)| server.as_ref());
    own.or_else(|| facts.peers.get(name).and_then(Option::as_ref))
}

/// The bundle of this digest, while it is on offer.
fn on_offer<'a>(facts: &'a Facts, digest: &str) -> Option<&'a Offered> {
    facts.bundles.iter().find(|offered| offered.digest == digest)
}

fn manifest<'a>(facts: &'a Facts, digest: &str) -> Option<&'a Manifest> {
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
            if find(facts, name).is_none() {
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
pub(crate) fn parameters(taskserv: &Taskserv, facts: &Facts, digest: &str) -> BTreeMap<String, Value> {
    let given = &taskserv.spec.parameters;
    on_offer(facts, digest).map_or_else(|| given.clone(), |offered| offered.contents.with_defaults(given))
}

/// Timeouts of a bundle; the defaults for one that is no longer on offer.
pub(crate) fn timeouts(facts: &Facts, digest: &str) -> Timeouts {
    manifest(facts, digest).map_or_else(Timeouts::default, |manifest| manifest.timeouts)
}
