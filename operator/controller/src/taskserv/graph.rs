// (pure) Validates a Taskserv and draws its steps.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{MAX_OUTPUT_COUNT, MAX_TASKSERV_EDGES, MAX_TASKSERV_STEPS};
use provisioning_api::server::{Installed, InstalledState};
use provisioning_api::shared::{DeletionPolicy, RetryPolicy, RunsSteps};
use provisioning_api::steps::{StepAction, StepEffect, StepPhase, StepStatus, UndoAction};
use provisioning_api::taskserv::{ResolvedExtension, TaskservServer};
use provisioning_api::{Server, Taskserv};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::{RemovedSteps, failure_text};
use provisioning_plan::graph::{Dependency, Gate, Graph, Step};
use provisioning_plan::ids::{InputHash, StepId, fraction};
use provisioning_plan::nearest::hint;
use provisioning_plan::undo::{due, is_refused};
use provisioning_sdk::request::Extension;

use super::inputs::cannot_be_read;
use super::place::{self, Wanted, concerns};
use super::resolve::{Resolution, resolve};
use super::{Facts, debts, inputs, order};
use crate::bundles::too_many_parameters;
use crate::engine::kind::{held_up_by, stuck};

/// Most rows of `status.servers`.
const MAX_ROWS: usize = 64;

const INSTALL: &str = "install";
const CHECK: &str = "check";

/// Server and extension of a step of a Taskserv: ids are `install/SERVER` and `check/SERVER`, and for what the extension
/// requires `install/SERVER/EXTENSION` and `check/SERVER/EXTENSION`.
fn parts(step: &str) -> Option<(&str, Option<&str>)> {
    let (verb, rest) = step.split_once('/')?;
    let parts = rest.split_once('/').map_or((rest, None), |(server, extension)| (server, Some(extension)));
    (verb == INSTALL || verb == CHECK).then_some(parts)
}

/// The server that a step of a Taskserv acts on.
pub fn server_of(step: &str) -> Option<&str> {
    parts(step).map(|(server, _)| server)
}

/// The extension that a step of a Taskserv is about.
pub(crate) fn extension_of<'a>(taskserv: &'a Taskserv, step: &'a str) -> Option<&'a str> {
    parts(step).map(|(_, extension)| extension.unwrap_or(&taskserv.spec.extension.name))
}

/// Ids of the two steps for an extension on a server.
pub(crate) fn ids(taskserv: &Taskserv, server: &str, extension: &str) -> (StepId, StepId) {
    let of = |verb: &str| match extension == taskserv.spec.extension.name {
        true => StepId::new(format!("{verb}/{server}")),
        false => StepId::new(format!("{verb}/{server}/{extension}")),
    };
    (of(INSTALL), of(CHECK))
}

/// The steps of an extension on a server, as they are stored.
pub(crate) fn stored<'a>(taskserv: &'a Taskserv, server: &str, extension: &str) -> [Option<&'a StepStatus>; 2] {
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let (install, check) = ids(taskserv, server, extension);
    [install, check].map(|id| steps.iter().find(|step| step.id == id.as_str()))
}

/// The steps of a Taskserv that is wanted.
pub(crate) fn draw(taskserv: &Taskserv, facts: &Facts) -> Result<Graph, Standing> {
    let resolution = resolve(taskserv, facts)?;
    validate(taskserv, facts, &resolution)?;
    let mut steps = Vec::new();
    for name in facts.members()? {
        let Some(server) = facts.server(name) else {
            if !facts.unreadable.contains(name) {
                return Err(unknown_server(name, facts));
            }
            steps.extend(on_unreadable(taskserv, facts, name));
            continue;
        };
        let wanted = wanted_on(taskserv, facts, &resolution, server)?;
        steps.extend(on_server(taskserv, facts, server, &wanted));
    }
    refuse_too_many(&steps)?;
    Graph::new(steps).map_err(|error| Standing::stalled(reasons::INVALID, error.to_string()))
}

/// What does not fit into one object's status.
fn refuse_too_many(steps: &[Step]) -> Result<(), Standing> {
    let edges = steps.iter().map(|step| step.depends_on.len()).sum();
    let over = [("steps", steps.len(), MAX_TASKSERV_STEPS), ("dependencies between them", edges, MAX_TASKSERV_EDGES)];
    let Some((what, count, most)) = over.into_iter().find(|(_, count, most)| count > most) else { return Ok(()) };
    let text = format!(
        "the servers, each with its extensions, make {count} {what}, and one Taskserv holds {most}: name fewer servers, or \
         install what is required with Taskservs of its own"
    );
    Err(Standing::stalled(reasons::INVALID, text))
}

/// Refuses what no script should be started with.
pub(crate) fn validate(taskserv: &Taskserv, facts: &Facts, resolution: &Resolution) -> Result<(), Standing> {
    if let Some(text) = too_many_parameters(&taskserv.spec.parameters, "spec.parameters") {
        return Err(Standing::stalled(reasons::INVALID, text));
    }
    inputs::check(taskserv, facts, &resolution.own.digest)
}

fn unknown_server(name: &str, facts: &Facts) -> Standing {
    let hint = hint(name, facts.known_servers.iter().map(String::as_str));
    let text = format!("spec.servers: there is no Server '{name}' in this namespace{hint}");
    Standing::stalled(reasons::UNKNOWN_REFERENCE, text)
}

/// What is wanted on a server; one that goes is asked nothing more.
pub(crate) fn wanted_on(
    taskserv: &Taskserv,
    facts: &Facts,
    resolution: &Resolution,
    server: &Server,
) -> Result<Vec<Wanted>, Standing> {
    match server.metadata.deletion_timestamp {
        Some(_) => Ok(place::unseen(taskserv, facts, resolution)),
        None => place::fit(taskserv, facts, resolution, server),
    }
}

/// While the object goes, its steps are what they were; only how they are undone follows the spec, so that a person may
/// still choose to leave things behind.
pub(crate) fn farewell(taskserv: &Taskserv, facts: &Facts, steps: &[StepStatus]) -> Graph {
    let drawn = steps.iter().map(|step| as_stored(taskserv, facts, steps, step));
    // Edges of several plans may form a circle; then each step keeps what it was planned with.
    Graph::new(drawn.collect()).unwrap_or_default()
}

/// One of these steps as it was planned before.
fn as_stored(taskserv: &Taskserv, facts: &Facts, steps: &[StepStatus], step: &StepStatus) -> Step {
    let known = |id: &str| steps.iter().any(|step| step.id == id);
    let edges = step.depends_on.iter().filter(|dependency| known(&dependency.step));
    Step {
        id: StepId::new(step.id.clone()),
        action: step.action,
        why: step.why.clone(),
        input_hash: None,
        depends_on: edges
            .map(|dependency| Dependency { step: StepId::new(dependency.step.clone()), type_: dependency.type_ })
            .collect(),
        undo: undo(taskserv, step.action),
        retry: retry(),
        gate: undo_gate(taskserv, facts, step),
        when: None,
    }
}

fn retry() -> RetryPolicy {
    RetryPolicy { limit: 5, ..RetryPolicy::default() }
}

/// On a Server that cannot be read everything stays as it is and waits. Nothing is left out there meanwhile: it would
/// count as no longer wanted.
fn on_unreadable(taskserv: &Taskserv, facts: &Facts, name: &str) -> Vec<Step> {
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let is_undone = |phase| matches!(phase, StepPhase::Undoing | StepPhase::Undone | StepPhase::UndoFailed);
    let here = |step: &&StepStatus| server_of(&step.id) == Some(name) && !is_undone(step.phase);
    let here: Vec<StepStatus> = steps.iter().filter(here).cloned().collect();
    if !here.is_empty() {
        return here.iter().map(|step| as_stored(taskserv, facts, &here, step)).collect();
    }
    let own = &taskserv.spec.extension.name;
    let (install, check) = ids(taskserv, name, own);
    let step = |id: &StepId, action: StepAction, depends_on: Vec<Dependency>| Step {
        id: id.clone(),
        action,
        why: format!("{own} on {name}"),
        input_hash: None,
        depends_on,
        undo: undo(taskserv, action),
        retry: retry(),
        gate: gate(taskserv, facts, name),
        when: None,
    };
    vec![
        step(&install, StepAction::Install, Vec::new()),
        step(&check, StepAction::Check, vec![Dependency::hard(&install)]),
    ]
}

/// Whether what was installed is removed again.
pub(crate) fn uninstalls(taskserv: &Taskserv) -> bool {
    taskserv.spec.deletion_policy == DeletionPolicy::Delete
}

fn undo(taskserv: &Taskserv, action: StepAction) -> UndoAction {
    match (action, taskserv.spec.deletion_policy) {
        (StepAction::Install, DeletionPolicy::Delete) => UndoAction::Uninstall,
        (StepAction::Install, DeletionPolicy::Orphan) => UndoAction::Orphan,
        (_, _) => UndoAction::None,
    }
}

/// Install → check for each extension that this Taskserv looks after; on those of others its steps wait.
fn on_server(taskserv: &Taskserv, facts: &Facts, server: &Server, wanted: &[Wanted]) -> Vec<Step> {
    let name = server.name_any();
    let ours = |wanted: &Wanted| {
        let entry = place::find(server, &wanted.name);
        let is_others = entry.is_some_and(|entry| !is_ours(taskserv, entry) && entry.state != InstalledState::Removing);
        wanted.name == taskserv.spec.extension.name || !is_others
    };
    let around = order::around(taskserv, facts, server, wanted);
    let mut steps = Vec::new();
    for one in wanted.iter().filter(|wanted| ours(wanted)) {
        let (install, check) = ids(taskserv, &name, &one.name);
        let rather = around.before(one);
        let before = wanted.iter().filter(|other| ours(other)).filter_map(|other| {
            let (_, check) = ids(taskserv, &name, &other.name);
            let needs = one.after.contains(&other.name).then(|| Dependency::hard(&check));
            needs.or_else(|| rather.contains(&other.name).then(|| Dependency::soft(&check)))
        });
        let before = before.collect();
        let gate = forward_gate(taskserv, facts, server, wanted, one);
        // What was installed may be checked in any case.
        let install_gate = match (&gate, noted(server, one)) {
            (Gate::Open, Gate::Open) => around.awaited(one, &name).map_or(Gate::Open, Gate::Waiting),
            (Gate::Open, noted) => noted,
            (Gate::Waiting(_) | Gate::Gone(_), _) => gate.clone(),
        };
        let hash = hash(taskserv, facts, server, one);
        let why = why(taskserv, &name, one);
        let step = |id: &StepId, action: StepAction, depends_on: Vec<Dependency>, gate: Gate| Step {
            id: id.clone(),
            action,
            why: why.clone(),
            input_hash: hash.clone(),
            depends_on,
            undo: undo(taskserv, action),
            retry: retry(),
            gate,
            when: None,
        };
        steps.push(step(&install, StepAction::Install, before, install_gate));
        steps.push(step(&check, StepAction::Check, vec![Dependency::hard(&install)], gate));
    }
    steps
}

fn why(taskserv: &Taskserv, server: &str, wanted: &Wanted) -> String {
    let Wanted { name, version, replaces, required_by, .. } = wanted;
    let [install, _] = stored(taskserv, server, name);
    let was_there = install.is_some_and(|step| step.started_at.is_some());
    let what = match replaces.as_ref().filter(|_| was_there) {
        Some(from) => format!("upgrade {name} from {from} to {version} on {server}"),
        None => format!("{name} on {server}"),
    };
    match required_by.first() {
        Some(other) => format!("{what}, for {other}"),
        None => what,
    }
}

/// Hash of everything that an extension's steps on a server depend on; none while something is not known yet.
pub(crate) fn hash(taskserv: &Taskserv, facts: &Facts, server: &Server, wanted: &Wanted) -> Option<InputHash> {
    let machine = server.status.as_ref()?;
    let machine = (machine.incarnation, machine.machine_id.as_ref()?);
    let given = inputs::given(taskserv, facts, &wanted.name, &wanted.digest).ok()?;
    let basic = (&wanted.name, &wanted.digest, given.parameters, server.name_any(), machine);
    // Without them the hash is what it was before there were any, so that an upgrade runs nothing again.
    Some(match (given.secrets.is_empty(), given.surroundings == inputs::Surroundings::default()) {
        (true, true) => InputHash::of(&basic),
        (_, _) => InputHash::of(&(basic, given.secrets, given.surroundings)),
    })
}

fn is_ours(taskserv: &Taskserv, entry: &Installed) -> bool {
    taskserv.uid().is_some_and(|uid| entry.by.uid == uid)
}

/// Whether no other Taskserv looks after an extension on a server.
pub(crate) fn looks_after(taskserv: &Taskserv, server: &Server, extension: &str) -> bool {
    place::find(server, extension).is_none_or(|entry| is_ours(taskserv, entry))
}

/// What holds a wanted extension back: its server, the servers around, what others do on it.
fn forward_gate(taskserv: &Taskserv, facts: &Facts, server: &Server, wanted: &[Wanted], one: &Wanted) -> Gate {
    let gate = gate(taskserv, facts, &server.name_any());
    if gate != Gate::Open {
        return gate;
    }
    if let Err(what) = inputs::given(taskserv, facts, &one.name, &one.digest) {
        return Gate::Waiting(what);
    }
    if let Some(what) = place::in_the_way(facts, server, wanted, &taskserv.uid().unwrap_or_default()) {
        return Gate::Waiting(what);
    }
    let mut needs = one.after.iter().chain([&one.name]).filter_map(|name| place::find(server, name));
    if let Some(entry) = needs.find(|entry| !is_ours(taskserv, entry) && is_awaited(one, entry)) {
        return Gate::Waiting(awaited(facts, server, entry));
    }
    // Who looked after it before may still act: it may have begun when the list was changed.
    if let Some(other) = facts.others.values().find(|other| acts(other, &server.name_any(), &one.name)) {
        return Gate::Waiting(at_work(&other.name_any(), server, &one.name));
    }
    let Wanted { name, version, digest, .. } = one;
    match place::find(server, name).map(|entry| (entry.state, entry.digest == *digest)) {
        Some((InstalledState::Installing | InstalledState::Installed, true)) => Gate::Open,
        // A run may still act with the bundle that is listed.
        Some((InstalledState::Installing | InstalledState::Installed, false)) => Gate::Waiting(format!(
            "Server '{}' has not noted yet that version {version} of '{name}' is wanted",
            server.name_any()
        )),
        // What this Taskserv itself was removing ends first.
        Some((InstalledState::Removing, _)) | None => {
            Gate::Waiting(format!("Server '{}' has not noted yet that '{name}' is wanted", server.name_any()))
        }
    }
}

/// Nothing is installed under an entry that says it is: another Taskserv may take such a one over.
fn noted(server: &Server, one: &Wanted) -> Gate {
    match place::find(server, &one.name).filter(|entry| entry.state == InstalledState::Installed) {
        Some(_) => {
            let text =
                format!("Server '{}' has not noted yet that '{}' is installed again", server.name_any(), one.name);
            Gate::Waiting(text)
        }
        None => Gate::Open,
    }
}

/// Whether somebody else's entry is waited for: until it is installed, or until it is one's own turn.
fn is_awaited(one: &Wanted, entry: &Installed) -> bool {
    entry.extension == one.name || entry.state != InstalledState::Installed
}

fn awaited(facts: &Facts, server: &Server, entry: &Installed) -> String {
    let Installed { extension, by, .. } = entry;
    let open = facts.others.get(&by.uid).is_some_and(|other| acts(other, &server.name_any(), extension));
    match facts.at_rest.get(&by.uid).filter(|_| !open) {
        Some(why) => {
            let server = server.name_any();
            format!(
                "Taskserv '{}' looks after extension '{extension}' on Server '{server}' and does not go on: {why}",
                by.name
            )
        }
        None => at_work(&by.name, server, extension),
    }
}

fn at_work(taskserv: &str, server: &Server, extension: &str) -> String {
    format!("Taskserv '{taskserv}' is installing extension '{extension}' on Server '{}'", server.name_any())
}

/// Whether a run for an extension may still act on a server.
pub(crate) fn acts(taskserv: &Taskserv, server: &str, extension: &str) -> bool {
    stored(taskserv, server, extension).iter().flatten().any(|step| step.is_open())
}

/// The bundle whose script a step runs: the one that the server's list names, else the one that was chosen.
pub(crate) fn bundle_of(taskserv: &Taskserv, server: &Server, step: &str) -> Option<Extension> {
    let extension = extension_of(taskserv, step)?;
    if let Some(entry) = place::find(server, extension).filter(|entry| is_ours(taskserv, entry)) {
        let Installed { extension, version, digest, .. } = entry.clone();
        return Some(Extension { name: extension, version, digest });
    }
    let status = taskserv.status.as_ref()?;
    let mut chosen = status.resolved.iter().chain(&status.dependencies);
    let ResolvedExtension { name, version, digest, .. } = chosen.find(|resolved| resolved.name == extension)?.clone();
    Some(Extension { name, version, digest })
}

/// Gates of steps that are no longer in the plan.
pub(crate) fn gates(taskserv: &Taskserv, facts: &Facts) -> BTreeMap<String, Gate> {
    let mut steps = taskserv.run_status().map(|status| status.steps.clone()).unwrap_or_default();
    debts::take_on(taskserv, facts, &mut steps);
    steps.iter().map(|step| (step.id.clone(), undo_gate(taskserv, facts, step))).collect()
}

/// What holds the undo of a step back. What another Taskserv needs, or looks after, is not removed by this one.
fn undo_gate(taskserv: &Taskserv, facts: &Facts, step: &StepStatus) -> Gate {
    let (Some(name), Some(extension)) = (server_of(&step.id), extension_of(taskserv, &step.id)) else {
        return Gate::Open;
    };
    let server = facts.server(name);
    let gate = gate(taskserv, facts, name);
    if matches!(gate, Gate::Gone(_)) {
        return gate;
    }
    let uid = taskserv.uid().unwrap_or_default();
    let Some(entry) = server.and_then(|server| place::find(server, extension)) else { return gate };
    let ours = entry.by.uid == uid;
    match entry.state {
        InstalledState::Removing if ours => gate,
        // This Taskserv has not left it yet: that comes first.
        InstalledState::Installing | InstalledState::Installed if ours => {
            Gate::Waiting(format!("Server '{name}' still lists extension '{extension}' as needed"))
        }
        InstalledState::Installing | InstalledState::Installed | InstalledState::Removing => {
            Gate::Gone(format!("Taskserv '{}' looks after extension '{extension}' now", entry.by.name))
        }
    }
}

/// Forward a server must be Ready; backward it must only be reachable, and one that goes takes its services along.
fn gate(taskserv: &Taskserv, facts: &Facts, name: &str) -> Gate {
    if facts.unreadable.contains(name) {
        return Gate::Waiting(cannot_be_read(name));
    }
    let Some(server) = facts.server(name) else { return Gate::Gone(format!("Server '{name}' is gone")) };
    if server.metadata.deletion_timestamp.is_some() {
        return Gate::Gone(format!("Server '{name}' is being deleted"));
    }
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    if deleting && crate::server::is_gone(server) {
        return Gate::Gone(format!("the machine of Server '{name}' is gone"));
    }
    let reachable = crate::server::target(server).is_some();
    if server.is_ready() || (deleting && reachable) {
        return Gate::Open;
    }
    Gate::Waiting(format!("Server '{name}' is not Ready: {}", server.ready_message()))
}

/// Stalled, where all that is left waits for servers, or Taskservs at work on them, that are stalled themselves: it would
/// wait for ever (L1). Once one of them moves again, so does this.
pub(crate) fn held_up(taskserv: &Taskserv, facts: &Facts) -> Option<Standing> {
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let members = facts.members().ok()?;
    // Scripts wait for the addresses of fellow members and peers, too.
    let fellows = facts.servers.iter().filter(|(name, _)| members.contains(name)).map(|(name, server)| (name, server));
    let around: Vec<_> = match inputs::asks_for_others(taskserv, facts) {
        true => fellows.chain(&facts.peers).collect(),
        false => Vec::new(),
    };
    let is_addressed = |server: &Option<Server>| {
        server.as_ref().and_then(|server| server.status.as_ref()).is_some_and(|status| !status.addresses.is_empty())
    };
    let cause = |step: &StepStatus| {
        let name = server_of(&step.id)?;
        if let Some(standing) = hopeless(facts, name) {
            return Some(standing);
        }
        let server = facts.server(name)?;
        if let Some(entry) = awaited_by(taskserv, facts, server, step) {
            let other = facts.others.get(&entry.by.uid)?;
            return stuck(other).map(|condition| held_up_by("Taskserv", &other.name_any(), &condition.message));
        }
        around.iter().filter(|(_, server)| !is_addressed(server)).find_map(|(name, _)| hopeless(facts, name))
    };
    let listed = |step: &StepStatus| server_of(&step.id).is_some_and(|name| members.iter().any(|other| other == name));
    // What is to be done, and what is to be undone because its server has left the list.
    let left = steps.iter().filter(|step| match listed(step) {
        true => step.phase == StepPhase::Pending,
        false => step.effect == StepEffect::Possible,
    });
    let causes: Vec<Standing> = left.map(cause).collect::<Option<_>>()?;
    causes.into_iter().next()
}

/// How a Taskserv stands, on its way out, where all that is left waits for servers which are stalled or cannot be read: as
/// [`held_up`]. What waits for a person already, because it failed for good or lacks credentials, is told beside it.
pub(crate) fn held_up_on_its_way_out(taskserv: &Taskserv, facts: &Facts) -> Option<Standing> {
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    if steps.iter().any(StepStatus::is_open) {
        return None;
    }
    // An entry that has still to be left waits for this Taskserv itself, not for its server.
    let waits = |step: &StepStatus, server: &str| {
        matches!(undo_gate(taskserv, facts, step), Gate::Waiting(_))
            && matches!(gate(taskserv, facts, server), Gate::Waiting(_))
    };
    let cause = |step: &StepStatus| {
        let server = server_of(&step.id).filter(|server| waits(step, server))?;
        hopeless(facts, server)
    };
    let (refused, left): (Vec<&StepStatus>, Vec<&StepStatus>) =
        due(steps).into_iter().partition(|step| is_refused(step) && cause(step).is_none());
    let causes: Vec<Standing> = left.into_iter().map(cause).collect::<Option<_>>()?;
    let Some(mut standing) = causes.into_iter().next() else {
        // What an unreadable server lists holds it, once nothing is left to be undone.
        let unreadable = facts.servers.iter().map(|(name, _)| name).find(|name| facts.unreadable.contains(*name))?;
        let is_held = refused.is_empty() && still_listed(taskserv, facts)? == cannot_be_read(unreadable);
        return hopeless(facts, unreadable).filter(|_| is_held);
    };
    let given_up = steps.iter().filter(|step| step.phase == StepPhase::UndoFailed);
    for step in given_up.chain(refused) {
        standing.message = format!("{}; {}", standing.message, failure_text(step));
    }
    Some(standing)
}

/// How one stands that waits for a server for which it would wait for ever.
fn hopeless(facts: &Facts, server: &str) -> Option<Standing> {
    if facts.unreadable.contains(server) {
        return Some(Standing::stalled(reasons::DEPENDENCY_STALLED, cannot_be_read(server)));
    }
    let known = facts.server(server).or_else(|| facts.peers.get(server)?.as_ref())?;
    stuck(known).map(|condition| held_up_by("Server", server, &condition.message))
}

/// Somebody else's entry that a step waits for.
fn awaited_by<'a>(taskserv: &Taskserv, facts: &Facts, server: &'a Server, step: &StepStatus) -> Option<&'a Installed> {
    let extension = extension_of(taskserv, &step.id)?;
    let resolution = resolve(taskserv, facts).ok()?;
    let wanted = wanted_on(taskserv, facts, &resolution, server).ok()?;
    let one = wanted.iter().find(|wanted| wanted.name == extension)?;
    // A step may wait for one that waits itself.
    let needs = wanted.iter().filter_map(|wanted| place::find(server, &wanted.name));
    needs.into_iter().find(|entry| !is_ours(taskserv, entry) && is_awaited(one, entry))
}

/// What still has to be struck out of a server's list before the object may go.
pub(crate) fn still_listed(taskserv: &Taskserv, facts: &Facts) -> Option<String> {
    let uid = taskserv.uid()?;
    let known = facts.servers.iter().filter_map(|(_, server)| server.as_ref());
    let mut staying = known.filter(|server| server.metadata.deletion_timestamp.is_none());
    if let Some(server) = staying.find(|server| place::installed(server).iter().any(|entry| concerns(entry, &uid))) {
        return Some(format!("status.installed of Server '{}' still names it", server.name_any()));
    }
    // What that one lists is not seen, and may have to be removed.
    let (name, _) = facts.servers.iter().find(|(name, _)| uninstalls(taskserv) && facts.unreadable.contains(name))?;
    Some(cannot_be_read(name))
}

/// A row per server: the phase of its first step that is not done, and what the extension's own scripts reported.
pub(crate) fn rows(taskserv: &Taskserv) -> Vec<TaskservServer> {
    let mut rows: BTreeMap<String, TaskservServer> = BTreeMap::new();
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    for step in steps {
        let Some((name, dependency)) = parts(&step.id) else { continue };
        let row = rows.entry(name.to_owned()).or_insert_with(|| TaskservServer {
            name: name.to_owned(),
            phase: StepPhase::Succeeded,
            outputs: BTreeMap::new(),
        });
        if row.phase == StepPhase::Succeeded {
            row.phase = step.phase;
        }
        if dependency.is_none() {
            row.outputs.extend(step.outputs.clone());
            while row.outputs.len() > MAX_OUTPUT_COUNT {
                row.outputs.pop_last();
            }
        }
    }
    rows.into_values().take(MAX_ROWS).collect()
}

/// When the check of each server is old, where the spec says so: its interval after its end, and up to a tenth later, so
/// that the checks of many do not stay together. One that ended in the future did so by a clock that was set back since:
/// nobody knows how old it is, and it is due.
pub(crate) fn checked_again(taskserv: &Taskserv, now: Timestamp) -> BTreeMap<String, Timestamp> {
    let Some(seconds) = taskserv.spec.check_interval_seconds else { return BTreeMap::new() };
    let uid = taskserv.metadata.uid.as_deref().unwrap_or_default();
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let checks = steps.iter().filter(|step| step.action == StepAction::Check);
    let old = checks.filter_map(|step| {
        let ended = step.finished_at.as_ref()?.0;
        if ended > now {
            return Some((step.id.clone(), now));
        }
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
