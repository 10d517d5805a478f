// (pure) What other Taskservs left on servers, and this one has to remove without ever having installed it.

use kube::ResourceExt;
use provisioning_api::names::MAX_STEPS;
use provisioning_api::server::{InstalledFor, InstalledState};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{
    DependencyType, StepAction, StepDependency, StepEffect, StepPhase, StepStatus, UndoAction,
};
use provisioning_api::{Server, Taskserv};

use super::{Facts, graph, place};

/// Adds an installation that may have had an effect for each extension that is being removed and was inherited, or says
/// so of the one that is there and never ran. Once that is durable, the server's list forgets from whom it came.
pub(crate) fn take_on(taskserv: &Taskserv, facts: &Facts, steps: &mut Vec<StepStatus>) {
    if !graph::uninstalls(taskserv) {
        return;
    }
    let known = facts.servers.iter().filter_map(|(_, server)| server.as_ref());
    for server in known.filter(|server| server.metadata.deletion_timestamp.is_none()) {
        for (extension, former) in inherited(taskserv, server) {
            add(taskserv, &server.name_any(), extension, former, steps);
        }
    }
}

/// Extensions that this Taskserv is about to remove, and who may have installed them.
fn inherited<'a>(taskserv: &Taskserv, server: &'a Server) -> impl Iterator<Item = (&'a str, &'a InstalledFor)> {
    let uid = taskserv.uid().unwrap_or_default();
    let entries = place::installed(server).iter();
    let ours = entries.filter(move |entry| entry.by.uid == uid && entry.state == InstalledState::Removing);
    ours.filter_map(|entry| Some((entry.extension.as_str(), entry.inherited_from.as_ref()?)))
}

fn add(taskserv: &Taskserv, server: &str, extension: &str, former: &InstalledFor, steps: &mut Vec<StepStatus>) {
    let (install, _) = graph::ids(taskserv, server, extension);
    let is_full = steps.len() >= MAX_STEPS;
    match steps.iter_mut().find(|step| step.id == install.as_str()) {
        Some(step) if step.is_open() => return,
        Some(step) => {
            step.effect = StepEffect::Possible;
            step.undo = UndoAction::Uninstall;
        }
        // One of the steps that are there has to go first.
        None if is_full => return,
        None => {
            let run = taskserv.run_status().map_or(0, |status| status.run_floor);
            let why = format!("{extension} on {server}, left by {}", former.name);
            steps.push(left(install.as_str(), why, run));
        }
    }
    // The extension itself may be built on it, and goes first.
    let (own, _) = graph::ids(taskserv, server, &taskserv.spec.extension.name);
    let own = steps.iter_mut().find(|step| own != install && step.id == own.as_str());
    if let Some(own) = own.filter(|own| own.depends_on.iter().all(|other| other.step != install.as_str())) {
        own.depends_on.push(StepDependency { step: install.to_string(), type_: DependencyType::Hard });
    }
}

fn left(id: &str, why: String, run: i64) -> StepStatus {
    StepStatus {
        id: id.to_owned(),
        action: StepAction::Install,
        why,
        depends_on: Vec::new(),
        undo: UndoAction::Uninstall,
        phase: StepPhase::Cancelled,
        run,
        attempt: 0,
        losses: 0,
        input_hash: String::new(),
        epoch: 0,
        started_at: None,
        finished_at: None,
        retry_at: None,
        external_id: None,
        outputs: std::collections::BTreeMap::new(),
        effect: StepEffect::Possible,
        class: None,
        reason: String::new(),
        message: String::new(),
    }
}
