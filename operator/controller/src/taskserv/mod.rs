//! Taskserv: per server, its extensions in dependency order, each install → check.

mod claims;
mod debts;
mod graph;
mod inputs;
mod order;
mod place;
mod reserve;
mod resolve;
mod select;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::MAX_TASKSERV_STEPS;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{Direction, StepAction, StepPhase, StepStatus};
use provisioning_api::{Server, Taskserv};
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::decision::{RemovedSteps, Verdict};
use provisioning_plan::graph::{Gate, Graph};
use provisioning_sdk::request::{RunnerRequest, Script, ScriptRequest};

use crate::bundles::{Offered, offered};
use crate::context::Context;
use crate::engine::kind::{Kind, Task, WorkspaceView, all_in_namespace, by_name, in_namespace};
use crate::engine::observe::suspended;
use crate::error::Error;
use crate::guarded::Guarded;
use crate::probes::ask_for_a_look;
use crate::probing::{self, Opinion, Question};
use crate::watches::Stores;

use inputs::{Given, Surroundings};
use resolve::resolve;

pub use graph::server_of;
pub(crate) use graph::{bundle_of, extension_of, looks_after};
pub(crate) use inputs::own_parameters;
pub(crate) use place::concerns;
pub(crate) use reserve::bury;

/// What reaching a server and bringing the bundle may take on top of the script's own time, seconds.
pub(crate) const TRANSPORT: i64 = 90;
/// The runner's words for a server that is not where it was: it does not answer, or another one does.
const LOST_SIGHT: [&str; 2] = ["Unreachable", "HostKeyMismatch"];

/// What a Taskserv looks at.
#[derive(Debug)]
pub struct Facts {
    /// Names of the Servers that the spec means, or why that cannot be said.
    pub members: Result<Vec<String>, Standing>,
    /// These Servers, and then those that have steps yet or have it on their lists; `None` where there is none that can
    /// be read.
    pub servers: Vec<(String, Option<Server>)>,
    /// Other Taskservs on these Servers, by uid; where order matters, those too that want to be there.
    pub others: BTreeMap<String, Taskserv>,
    /// Why some of these begin nothing just now, by uid.
    pub at_rest: BTreeMap<String, String>,
    /// Servers that its scripts are told of; `None` where there is none.
    pub peers: BTreeMap<String, Option<Server>>,
    /// Names of all Servers, for "did you mean".
    pub known_servers: Vec<String>,
    /// Names of Servers that are there and cannot be read. What is on them is not known.
    pub unreadable: BTreeSet<String>,
    /// Bundles on offer.
    pub bundles: Vec<Offered>,
    /// What its probes ask, and what is thought of it by now.
    pub probes: Vec<(Question, Opinion)>,
}

impl Facts {
    /// Names of the Servers that the spec means.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn members(&self) -> Result<&[String], Standing> {
        self.members.as_deref().map_err(Clone::clone)
    }

    /// One of the Servers, if it is there and can be read.
    fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|(other, _)| other == name).and_then(|(_, server)| server.as_ref())
    }
}

impl Kind for Taskserv {
    const KIND: &'static str = "Taskserv";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<Guarded<Self>> {
        &stores.taskservs
    }

    async fn observe(&self, ctx: &Context, workspace: Option<&WorkspaceView>) -> Result<Facts, Error> {
        let mut facts = look(self, ctx);
        claims::settle(self, ctx, workspace, &mut facts).await?;
        Ok(facts)
    }

    fn graph(&self, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
        match self.metadata.deletion_timestamp {
            Some(_) => Ok(graph::farewell(self, facts, settled)),
            None => graph::draw(self, facts),
        }
    }

    fn take_on(&self, facts: &Facts, steps: &mut Vec<StepStatus>) {
        debts::take_on(self, facts, steps);
    }

    fn task(&self, facts: &Facts, step: &StepStatus) -> Result<Task, String> {
        let name = server_of(&step.id).ok_or("the step names no server")?;
        let server = facts.server(name).ok_or_else(|| match facts.unreadable.contains(name) {
            true => inputs::cannot_be_read(name),
            false => format!("Server '{name}' is gone"),
        })?;
        let target = crate::server::target(server).ok_or_else(|| format!("Server '{name}' has no address yet"))?;
        let extension = bundle_of(self, server, &step.id).ok_or("no bundle was chosen yet")?;
        let timeouts = inputs::timeouts(facts, &extension.digest);
        let (script, timeout) = match (step.action, step.open_direction()) {
            (StepAction::Install, Some(Direction::Undo)) => (Script::Uninstall, timeouts.uninstall),
            (StepAction::Install, _) => (Script::Install, timeouts.install),
            (StepAction::Check, _) => (Script::Check, timeouts.check),
            (
                StepAction::Describe
                | StepAction::Create
                | StepAction::Observe
                | StepAction::Reach
                | StepAction::Apply
                | StepAction::Delete
                | StepAction::Wait
                | StepAction::Run,
                _,
            ) => return Err(format!("a Taskserv has no step that does {:?}", step.action)),
        };
        let bundle = Some(provisioning_extensions::config_map_name(&extension.name, &extension.digest));
        let given = inputs::given(self, facts, &extension.name, &extension.digest);
        // What is taken away needs no other server, nor what was secret: both may be gone.
        let Given { parameters, secrets, surroundings } = match (&script, given) {
            (Script::Uninstall, given) => Given {
                parameters: given.map_or_else(|_| own_parameters(self, &extension.name), |given| given.parameters),
                secrets: BTreeMap::new(),
                surroundings: Surroundings::default(),
            },
            (Script::Install | Script::Check | Script::Named(_), given) => given?,
        };
        let parameters = inputs::with_defaults(parameters, facts, &extension.digest);
        let Surroundings { servers, peers } = surroundings;
        let script = ScriptRequest { target, extension, script, parameters, secrets, servers, peers };
        let request = RunnerRequest::Script(script);
        Ok(Task::Runner { request, bundle, timeout_seconds: timeout + TRANSPORT })
    }

    fn publish(&mut self, facts: &Facts) {
        let chosen = resolve(self, facts).ok();
        let rows = graph::rows(self);
        let status = self.status.get_or_insert_default();
        if let Some(chosen) = chosen {
            status.resolved = Some(chosen.own);
            status.dependencies = chosen.dependencies;
        }
        status.servers = rows;
    }

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        if by_steps.reason == reasons::WAITING {
            return graph::held_up(self, facts);
        }
        if by_steps.reason == reasons::SUCCEEDED && facts.members().is_ok_and(<[String]>::is_empty) {
            let text = "no Server of this namespace matches spec.serverSelector yet";
            return Some(Standing::reconciling(reasons::WAITING, text));
        }
        let looks = self.only_looks_again(by_steps);
        if by_steps.state != State::Ready && !looks {
            return None;
        }
        probing::standing(self.condition(types::READY), &facts.probes)
            .or_else(|| looks.then(|| Standing::from(&Verdict::Ready)))
    }

    fn held_up(&self, facts: &Facts) -> Option<Standing> {
        self.metadata.deletion_timestamp.as_ref()?;
        graph::held_up_on_its_way_out(self, facts)
    }

    fn observed_again(&self, _: &Facts, now: Timestamp) -> BTreeMap<String, Timestamp> {
        graph::checked_again(self, now)
    }

    fn held_by(&self, facts: &Facts) -> Option<String> {
        graph::still_listed(self, facts)
    }

    fn max_steps() -> usize {
        MAX_TASKSERV_STEPS
    }

    fn gates(&self, facts: &Facts) -> BTreeMap<String, Gate> {
        graph::gates(self, facts)
    }

    fn mended(&self, facts: &Facts) -> BTreeSet<String> {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        within_sight(steps, |step| facts.server(server_of(&step.id)?))
    }

    fn removed(&self) -> RemovedSteps {
        graph::removed(self)
    }

    async fn after_end(&self, ctx: &Context, facts: &Facts, ended: &[StepStatus]) -> Result<(), Error> {
        look_for_lost(ctx, &self.name_any(), ended, |step| facts.server(server_of(&step.id)?)).await
    }
}

/// A server that did not answer is looked at again by its own controller: its address may have changed.
pub(crate) async fn look_for_lost<'a>(
    ctx: &Context,
    asker: &str,
    ended: &[StepStatus],
    server: impl Fn(&StepStatus) -> Option<&'a Server>,
) -> Result<(), Error> {
    for step in ended.iter().filter(|step| step.class.is_some() && LOST_SIGHT.contains(&step.reason.as_str())) {
        let Some(server) = server(step).filter(|server| server.is_ready()) else { continue };
        // The run first: a long value is cut at its end.
        let value = format!("{}/{}/{asker}", step.run, step.id);
        ask_for_a_look(ctx, server, &value).await?;
    }
    Ok(())
}

/// Steps that could not reach a server which is Ready again: they may try again.
pub(crate) fn within_sight<'a>(
    steps: &[StepStatus],
    server: impl Fn(&StepStatus) -> Option<&'a Server>,
) -> BTreeSet<String> {
    let lost = |step: &&StepStatus| step.phase == StepPhase::Failed && LOST_SIGHT.contains(&step.reason.as_str());
    let back = steps.iter().filter(lost).filter(|step| server(step).is_some_and(|server| was_seen_after(server, step)));
    back.map(|step| step.id.clone()).collect()
}

/// Everything from the caches.
fn look(taskserv: &Taskserv, ctx: &Context) -> Facts {
    let namespace = taskserv.namespace().unwrap_or_default();
    let all = all_in_namespace(&ctx.stores.servers, &namespace);
    let readable: Vec<&Server> = all.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
    let unreadable = all.iter().filter(|guarded| guarded.0.is_err()).map(|guarded| guarded.meta()).collect();
    let other = |name: &str| by_name(&ctx.stores.taskservs, &namespace, name);
    let mut facts = facts(taskserv, &readable, unreadable, other, offered(ctx));
    if order::matters(&facts.bundles) {
        let all = in_namespace(&ctx.stores.taskservs, &namespace);
        let all = all.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        order::meet(&mut facts, taskserv, all);
    }
    let at_rest =
        facts.others.iter().filter_map(|(uid, other)| Some((uid.clone(), suspended(&ctx.stores, other, None)?)));
    facts.at_rest = at_rest.collect();
    let questions = probing::questions(taskserv, &facts.bundles, |name| facts.server(name).cloned());
    facts.probes = ctx.probing.opinions(taskserv, questions);
    facts
}

/// (pure) What concerns a Taskserv, of all Servers and Taskservs of its namespace. Probes, and who is at rest, come after.
fn facts(
    taskserv: &Taskserv,
    all: &[&Server],
    mut unreadable: Vec<&ObjectMeta>,
    other: impl Fn(&str) -> Option<Taskserv>,
    bundles: Vec<Offered>,
) -> Facts {
    let uid = taskserv.uid().unwrap_or_default();
    // What goes with its server needs no reading.
    unreadable.retain(|server| server.deletion_timestamp.is_none());
    let members = all.iter().map(|server| &server.metadata).chain(unreadable.iter().copied());
    let members = select::members(taskserv, members);
    let mut names: Vec<String> = members.clone().unwrap_or_default();
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let with_steps = steps.iter().filter_map(|step| server_of(&step.id).map(str::to_owned));
    let listed = all.iter().filter(|server| place::installed(server).iter().any(|entry| concerns(entry, &uid)));
    for name in with_steps.chain(listed.map(|server| server.name_any())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let find = |name: String| {
        let server = all.iter().find(|server| server.name_any() == name).map(|server| (*server).clone());
        (name, server)
    };
    let servers: Vec<(String, Option<Server>)> = names.into_iter().map(find).collect();
    let entries = servers.iter().filter_map(|(_, server)| server.as_ref()).flat_map(place::installed);
    let users = entries.flat_map(|entry| entry.required_by.iter().chain([&entry.by])).filter(|user| user.uid != uid);
    let known = users.filter_map(|user| {
        let known = other(&user.name).filter(|known| known.uid().as_deref() == Some(user.uid.as_str()))?;
        Some((user.uid.clone(), known))
    });
    Facts {
        others: known.collect(),
        at_rest: BTreeMap::new(),
        peers: taskserv.spec.peers.values().flatten().map(|name| find(name.clone())).collect(),
        known_servers: all.iter().map(|server| server.name_any()).collect(),
        unreadable: unreadable.iter().filter_map(|server| server.name.clone()).collect(),
        bundles,
        probes: Vec::new(),
        members,
        servers,
    }
}

trait Looks {
    fn only_looks_again(&self, by_steps: &Standing) -> bool;
}

impl Looks for Taskserv {
    /// Whether all that runs are checks of what was Ready before: then it is Ready until one of them says otherwise. After
    /// an installation the condition was another one, because that ran first.
    fn only_looks_again(&self, by_steps: &Standing) -> bool {
        let Some(status) = self.run_status() else { return false };
        let is_first_try = |step: &StepStatus| step.attempt == 0 && step.class.is_none();
        let looks = |step: &StepStatus| match step.phase {
            StepPhase::Succeeded => true,
            StepPhase::Pending | StepPhase::Running => step.action == StepAction::Check && is_first_try(step),
            StepPhase::Failed
            | StepPhase::Cancelled
            | StepPhase::Skipped
            | StepPhase::Omitted
            | StepPhase::Undoing
            | StepPhase::Undone
            | StepPhase::UndoFailed => false,
        };
        let was_done = self.condition(types::READY).is_some_and(|condition| {
            let is_done = condition.status == "True" || condition.reason == reasons::UNHEALTHY;
            is_done && condition.observed_generation == self.metadata.generation
        });
        by_steps.reason == reasons::RUNNING && was_done && status.steps.iter().all(looks)
    }
}

/// Whether a Ready server was reached after a run on it had failed.
fn was_seen_after(server: &Server, step: &StepStatus) -> bool {
    let steps = server.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let failed = step.finished_at.as_ref().map(|time| time.0);
    let reached = steps.iter().filter(|other| other.action == StepAction::Reach && other.phase == StepPhase::Succeeded);
    server.is_ready() && reached.filter_map(|other| other.finished_at.as_ref()).any(|time| Some(time.0) > failed)
}

#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod tests;
