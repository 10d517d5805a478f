// (pure) Validates a Taskserv and draws its steps.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use provisioning_api::conditions::reasons;
use provisioning_api::shared::{DeletionPolicy, RetryPolicy, RunsSteps};
use provisioning_api::steps::{StepAction, StepEffect, StepPhase, StepStatus, UndoAction};
use provisioning_api::taskserv::{ResolvedExtension, TaskservServer};
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Catalog, Entry};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Dependency, Gate, Graph, Step};
use provisioning_plan::ids::{InputHash, StepId, fraction};
use provisioning_plan::nearest::hint;
use semver::{Version, VersionReq};

use super::{Facts, inputs};
use crate::engine::kind::{held_up_by, stuck};

pub(crate) use inputs::{Surroundings, parameters, surroundings, timeouts};

/// Most bytes of parameters: they travel in one environment variable, and the kernel takes 128 KiB.
const MAX_PARAMETERS: usize = 32 * 1024;

const INSTALL: &str = "install";
const CHECK: &str = "check";

/// The server that a step of a Taskserv acts on: ids are `install/SERVER` and `check/SERVER`.
pub fn server_of(step: &str) -> Option<&str> {
    let (verb, server) = step.split_once('/')?;
    (verb == INSTALL || verb == CHECK).then_some(server)
}

pub(crate) fn draw(taskserv: &Taskserv, facts: &Facts) -> Result<Graph, Standing> {
    let bundle = resolve(taskserv, facts)?;
    let size = serde_json::to_string(&taskserv.spec.parameters).map_or(0, |text| text.len());
    if size > MAX_PARAMETERS {
        let text = format!("spec.parameters: {size} bytes of JSON; at most {MAX_PARAMETERS}");
        return Err(Standing::stalled(reasons::INVALID, text));
    }
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    if !deleting {
        inputs::check(taskserv, facts, &bundle.digest)?;
    }
    let surroundings = surroundings(taskserv, facts, &bundle.digest);
    let mut steps = Vec::new();
    for name in &taskserv.spec.servers {
        let server = facts.servers.iter().find(|(other, _)| other == name).and_then(|(_, server)| server.as_ref());
        if server.is_none() && !deleting {
            return Err(unknown_server(name, facts));
        }
        steps.extend(on_server(taskserv, &bundle, name, server, &surroundings));
    }
    Graph::new(steps).map_err(|error| Standing::stalled(reasons::INVALID, error.to_string()))
}

fn unknown_server(name: &str, facts: &Facts) -> Standing {
    let hint = hint(name, facts.known_servers.iter().map(String::as_str));
    let text = format!("spec.servers: there is no Server '{name}' in this namespace{hint}");
    Standing::stalled(reasons::UNKNOWN_REFERENCE, text)
}

fn on_server(
    taskserv: &Taskserv,
    bundle: &ResolvedExtension,
    name: &str,
    server: Option<&Server>,
    surroundings: &Result<Surroundings, String>,
) -> [Step; 2] {
    let (install, check) = (StepId::new(format!("{INSTALL}/{name}")), StepId::new(format!("{CHECK}/{name}")));
    let extension = &taskserv.spec.extension.name;
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    let gate = match (gate(taskserv, name, server), surroundings) {
        // What is taken away needs no other server.
        (Gate::Open, Err(what)) if !deleting => Gate::Waiting(what.clone()),
        (gate, _) => gate,
    };
    let machine = server.and_then(|server| server.status.as_ref());
    let machine = machine.and_then(|status| status.machine_id.as_ref().map(|id| (status.incarnation, id)));
    let hash = machine.zip(surroundings.as_ref().ok()).map(|(machine, surroundings)| {
        let basic = (extension, &bundle.digest, &taskserv.spec.parameters, name, machine);
        let secrets = &taskserv.spec.secret_parameters;
        // Without them the hash is what it was before there were any, so that an upgrade runs nothing again.
        match (secrets.is_empty(), *surroundings == Surroundings::default()) {
            (true, true) => InputHash::of(&basic),
            (_, _) => InputHash::of(&(basic, secrets, surroundings)),
        }
    });
    let undo = match taskserv.spec.deletion_policy {
        DeletionPolicy::Delete => UndoAction::Uninstall,
        DeletionPolicy::Orphan => UndoAction::Orphan,
    };
    [
        Step {
            id: install.clone(),
            action: StepAction::Install,
            why: format!("{extension} on {name}"),
            input_hash: hash.clone(),
            depends_on: Vec::new(),
            undo,
            retry: RetryPolicy { limit: 5, ..RetryPolicy::default() },
            gate: gate.clone(),
            when: None,
        },
        Step {
            id: check,
            action: StepAction::Check,
            why: format!("{extension} on {name}"),
            input_hash: hash,
            depends_on: vec![Dependency::hard(&install)],
            undo: UndoAction::None,
            retry: RetryPolicy { limit: 5, ..RetryPolicy::default() },
            gate,
            when: None,
        },
    ]
}

/// Gates of steps on servers that have left the list.
pub(crate) fn gates(taskserv: &Taskserv, facts: &Facts) -> BTreeMap<String, Gate> {
    let left = facts.servers.iter().filter(|(name, _)| !taskserv.spec.servers.contains(name));
    let each = left.flat_map(|(name, server)| {
        let gate = gate(taskserv, name, server.as_ref());
        [INSTALL, CHECK].map(|verb| (format!("{verb}/{name}"), gate.clone()))
    });
    each.collect()
}

/// Forward a server must be Ready; backward it must only be reachable, and one that goes takes its services along.
fn gate(taskserv: &Taskserv, name: &str, server: Option<&Server>) -> Gate {
    let Some(server) = server else { return Gate::Gone(format!("Server '{name}' is gone")) };
    if server.metadata.deletion_timestamp.is_some() {
        return Gate::Gone(format!("Server '{name}' is being deleted"));
    }
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    let reachable = crate::server::target(server).is_some();
    if server.is_ready() || (deleting && reachable) {
        return Gate::Open;
    }
    Gate::Waiting(format!("Server '{name}' is not Ready: {}", server.ready_message()))
}

/// Stalled, where all that is left waits for servers that are stalled themselves: it would wait for ever (L1). Once such a
/// server moves again, so does this.
pub(crate) fn held_up(taskserv: &Taskserv, facts: &Facts) -> Option<Standing> {
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let cause = |step: &StepStatus| {
        let name = server_of(&step.id)?;
        let server = facts.servers.iter().find(|(other, _)| other == name)?.1.as_ref()?;
        stuck(server).map(|condition| (name.to_owned(), condition.message.clone()))
    };
    let listed = |step: &StepStatus| {
        server_of(&step.id).is_some_and(|name| taskserv.spec.servers.iter().any(|other| other == name))
    };
    // What is to be done, and what is to be undone because its server has left the list.
    let left = steps.iter().filter(|step| match listed(step) {
        true => step.phase == StepPhase::Pending,
        false => step.effect == StepEffect::Possible,
    });
    let causes: Vec<(String, String)> = left.map(cause).collect::<Option<_>>()?;
    let (name, words) = causes.first()?;
    Some(held_up_by("Server", name, words))
}

/// The bundle: pinned once per generation, so that a new one on offer changes nothing by itself (architecture §4).
pub(crate) fn resolve(taskserv: &Taskserv, facts: &Facts) -> Result<ResolvedExtension, Standing> {
    let wanted = &taskserv.spec.extension;
    let generation = taskserv.metadata.generation.unwrap_or(0);
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    let pinned = taskserv.status.as_ref().and_then(|status| status.resolved.as_ref());
    if let Some(pinned) = pinned.filter(|pinned| deleting || pinned.generation == generation) {
        let ResolvedExtension { name, version, digest, .. } = pinned.clone();
        return Ok(ResolvedExtension { name, version, digest, generation });
    }
    let requirement = match wanted.version.as_deref().map(VersionReq::parse).transpose() {
        Ok(requirement) => requirement,
        Err(error) => {
            let text = format!("spec.extension.version: no SemVer requirement: {error}; write for example ^1.2");
            return Err(Standing::stalled(reasons::INVALID, text));
        }
    };
    let entries = facts.bundles.iter().filter_map(|offered| {
        let version = Version::parse(&offered.version).ok()?;
        Some(Entry { name: offered.name.clone(), version, digest: offered.digest.clone() })
    });
    let catalog = Catalog::new(entries);
    let found = catalog.resolve(&wanted.name, requirement.as_ref());
    let entry =
        found.map_err(|error| Standing::stalled(reasons::UNKNOWN_REFERENCE, format!("spec.extension: {error}")))?;
    let Entry { name, version, digest } = entry.clone();
    Ok(ResolvedExtension { name, version: version.to_string(), digest, generation })
}

/// A row per server: the phase of its first step that is not done, and what its scripts reported.
pub(crate) fn rows(taskserv: &Taskserv) -> Vec<TaskservServer> {
    let mut rows: BTreeMap<String, TaskservServer> = BTreeMap::new();
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    for step in steps {
        let Some(name) = server_of(&step.id) else { continue };
        let row = rows.entry(name.to_owned()).or_insert_with(|| TaskservServer {
            name: name.to_owned(),
            phase: StepPhase::Succeeded,
            outputs: BTreeMap::new(),
        });
        if row.phase == StepPhase::Succeeded {
            row.phase = step.phase;
        }
        row.outputs.extend(step.outputs.clone());
    }
    rows.into_values().collect()
}

/// When the check of each server is old, where the spec says so: its interval after its end, and up to a tenth later, so
/// that the checks of many do not stay together.
pub(crate) fn checked_again(taskserv: &Taskserv) -> BTreeMap<String, Timestamp> {
    let Some(seconds) = taskserv.spec.check_interval_seconds else { return BTreeMap::new() };
    let uid = taskserv.metadata.uid.as_deref().unwrap_or_default();
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let checks = steps.iter().filter(|step| step.action == StepAction::Check);
    let old = checks.filter_map(|step| {
        let ended = step.finished_at.as_ref()?.0;
        let more = f64::from(seconds) * 0.1 * fraction(&format!("{uid}/{}", step.id), step.run);
        let wait = SignedDuration::from_secs(i64::from(seconds)).saturating_add(SignedDuration::from_secs_f64(more));
        Some((step.id.clone(), ended.saturating_add(wait).unwrap_or(Timestamp::MAX)))
    });
    old.collect()
}

/// A server that leaves the list keeps its service, unless the service would be uninstalled with the object.
pub(crate) fn removed(taskserv: &Taskserv) -> RemovedSteps {
    match taskserv.spec.deletion_policy {
        DeletionPolicy::Delete => RemovedSteps::Undo,
        DeletionPolicy::Orphan => RemovedSteps::Forget,
    }
}
