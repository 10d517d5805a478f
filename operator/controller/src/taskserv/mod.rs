//! Taskserv: per server, install → check.

mod graph;
mod inputs;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use provisioning_api::conditions::{reasons, types};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{Direction, StepAction, StepPhase, StepStatus};
use provisioning_api::{Server, Taskserv};
use provisioning_plan::conditions::{Standing, State};
use provisioning_plan::decision::{RemovedSteps, Verdict};
use provisioning_plan::graph::{Gate, Graph};
use provisioning_sdk::request::{Extension, RunnerRequest, Script, ScriptRequest};

use crate::bundles::{Offered, offered};
use crate::context::Context;
use crate::engine::kind::{Kind, Task, WorkspaceView, by_name, in_namespace};
use crate::error::Error;
use crate::probes::ask_for_a_look;
use crate::probing::{self, Opinion, Question};
use crate::watches::Stores;

use graph::Surroundings;
pub use graph::server_of;

/// What reaching a server and bringing the bundle may take on top of the script's own time, seconds.
const TRANSPORT: i64 = 90;
/// The runner's words for a server that is not where it was: it does not answer, or another one does.
const LOST_SIGHT: [&str; 2] = ["Unreachable", "HostKeyMismatch"];

/// What a Taskserv looks at.
#[derive(Debug)]
pub struct Facts {
    /// Its Servers, in the order of the spec and then those that have steps yet; `None` where there is none.
    pub servers: Vec<(String, Option<Server>)>,
    /// Servers that its scripts are told of; `None` where there is none.
    pub peers: BTreeMap<String, Option<Server>>,
    /// Names of all Servers, for "did you mean".
    pub known_servers: Vec<String>,
    /// Bundles on offer.
    pub bundles: Vec<Offered>,
    /// What its probes ask, and what is thought of it by now.
    pub probes: Vec<(Question, Opinion)>,
}

impl Kind for Taskserv {
    const KIND: &'static str = "Taskserv";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<DeserializeGuard<Self>> {
        &stores.taskservs
    }

    fn observe(&self, ctx: &Context, _: Option<&WorkspaceView>) -> impl Future<Output = Result<Facts, Error>> + Send {
        let namespace = self.namespace().unwrap_or_default();
        let mut names = self.spec.servers.clone();
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        for name in steps.iter().filter_map(|step| server_of(&step.id)) {
            if !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        let find = |name: String| {
            let server = by_name(&ctx.stores.servers, &namespace, &name);
            (name, server)
        };
        let all = in_namespace(&ctx.stores.servers, &namespace);
        let peers = self.spec.peers.values().flatten().map(|name| find(name.clone())).collect();
        let bundles = offered(ctx);
        let questions = probing::probed(self, &bundles)
            .map(|contents| probing::questions(self, contents, |name| find(name.to_owned()).1));
        let facts = Facts {
            probes: ctx.probing.opinions(self, questions.unwrap_or_default()),
            peers,
            servers: names.into_iter().map(find).collect(),
            known_servers: all.iter().map(|server| server.name_any()).collect(),
            bundles,
        };
        std::future::ready(Ok(facts))
    }

    fn graph(&self, facts: &Facts, _: &[StepStatus]) -> Result<Graph, Standing> {
        graph::draw(self, facts)
    }

    fn task(&self, facts: &Facts, step: &StepStatus) -> Result<Task, String> {
        let name = server_of(&step.id).ok_or("the step names no server")?;
        let server = facts.servers.iter().find(|(other, _)| other == name).and_then(|(_, server)| server.as_ref());
        let server = server.ok_or_else(|| format!("Server '{name}' is gone"))?;
        let target = crate::server::target(server).ok_or_else(|| format!("Server '{name}' has no address yet"))?;
        let resolved = self.status.as_ref().and_then(|status| status.resolved.clone());
        let resolved = resolved.ok_or("no bundle was chosen yet")?;
        let timeouts = graph::timeouts(facts, &resolved.digest);
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
                | StepAction::Wait,
                _,
            ) => return Err(format!("a Taskserv has no step that does {:?}", step.action)),
        };
        let extension = Extension {
            name: resolved.name.clone(),
            version: resolved.version.clone(),
            digest: resolved.digest.clone(),
        };
        let bundle = Some(provisioning_extensions::config_map_name(&resolved.name, &resolved.digest));
        let parameters = graph::parameters(self, facts, &resolved.digest);
        // What is taken away needs no other server, nor what was secret: both may be gone.
        let undo = script == Script::Uninstall;
        let surroundings =
            if undo { Surroundings::default() } else { graph::surroundings(self, facts, &resolved.digest)? };
        let secrets = if undo { BTreeMap::new() } else { self.spec.secret_parameters.clone() };
        let Surroundings { servers, peers } = surroundings;
        let script = ScriptRequest { target, extension, script, parameters, secrets, servers, peers };
        let request = RunnerRequest::Script(script);
        Ok(Task::Runner { request, bundle, timeout_seconds: timeout + TRANSPORT })
    }

    fn publish(&mut self, facts: &Facts) {
        let chosen = graph::resolve(self, facts).ok();
        let rows = graph::rows(self);
        let status = self.status.get_or_insert_default();
        if let Some(chosen) = chosen {
            status.resolved = Some(chosen);
        }
        status.servers = rows;
    }

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        if by_steps.reason == reasons::WAITING {
            return graph::held_up(self, facts);
        }
        let looks = self.only_looks_again(by_steps);
        if by_steps.state != State::Ready && !looks {
            return None;
        }
        let before = self.run_status().and_then(|status| ready(&status.conditions));
        probing::standing(before, &facts.probes).or_else(|| looks.then(|| Standing::from(&Verdict::Ready)))
    }

    fn observed_again(&self, _: &Facts) -> BTreeMap<String, Timestamp> {
        graph::checked_again(self)
    }

    fn gates(&self, facts: &Facts) -> BTreeMap<String, Gate> {
        graph::gates(self, facts)
    }

    /// A server that was away is Ready again: what could not reach it may try again.
    fn mended(&self, facts: &Facts) -> BTreeSet<String> {
        let steps = self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let lost =
            steps.iter().filter(|step| step.phase == StepPhase::Failed && LOST_SIGHT.contains(&step.reason.as_str()));
        let back = lost.filter(|step| {
            let server = server_of(&step.id).and_then(|name| facts.servers.iter().find(|(other, _)| other == name));
            server.and_then(|(_, server)| server.as_ref()).is_some_and(|server| was_seen_after(server, step))
        });
        back.map(|step| step.id.clone()).collect()
    }

    fn removed(&self) -> RemovedSteps {
        graph::removed(self)
    }

    /// A server that did not answer is looked at again by its own controller: its address may have changed.
    async fn after_end(&self, ctx: &Context, facts: &Facts, ended: &[StepStatus]) -> Result<(), Error> {
        for step in ended.iter().filter(|step| step.class.is_some() && LOST_SIGHT.contains(&step.reason.as_str())) {
            let server = server_of(&step.id).and_then(|name| facts.servers.iter().find(|(other, _)| other == name));
            let Some((_, Some(server))) = server else { continue };
            if server.is_ready() {
                // The run first: a long value is cut at its end.
                let value = format!("{}/{}/{}", step.run, step.id, self.name_any());
                ask_for_a_look(ctx, server, &value).await?;
            }
        }
        Ok(())
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == types::READY)
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
        let was_done = ready(&status.conditions).is_some_and(|condition| {
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
mod tests;
