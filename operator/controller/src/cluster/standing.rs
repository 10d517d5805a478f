// (pure) How a Cluster stands where its parts know better than its steps.

use kube::Resource;
use provisioning_api::Cluster;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepPhase, StepStatus};
use provisioning_plan::conditions::{Standing, State};

use super::{Facts, parts};
use crate::children::view::{ChildView, Standing as ChildStanding, reason_of};
use crate::engine::kind::{held_up_by, is_up_to_date, stuck};

pub(crate) fn standing(cluster: &Cluster, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
    match (by_steps.state, by_steps.reason) {
        (State::Ready, _) => by_parts(cluster, facts),
        (_, reasons::WAITING) => failed(cluster).or_else(|| held_up(cluster, facts)),
        (State::Reconciling | State::Stalled, _) => None,
    }
}

/// Done is not the same as still so: a server or service that is no longer Ready shows here too, with its words. Servers
/// first, because what is on them fails with them.
fn by_parts(cluster: &Cluster, facts: &Facts) -> Option<Standing> {
    for group in &cluster.spec.server_groups {
        for name in parts::servers(cluster, group) {
            let seen = facts.children.get(parts::server_step(&name).as_str());
            let found = trouble("Server", &name, facts.server(&name), seen);
            if found.is_some() {
                return found;
            }
        }
    }
    cluster.spec.taskservs.iter().find_map(|taskserv| {
        let name = parts::taskserv_name(cluster, taskserv);
        let seen = facts.children.get(parts::taskserv_step(&taskserv.name).as_str());
        trouble("Taskserv", &name, facts.taskservs.get(&name), seen)
    })
}

/// What is wrong with a part. Where its own condition is False, so is the cluster's, for the same reason.
/// `seen`: the part as the step sees it that makes it; one that cannot be read is only there.
fn trouble<K: Resource<DynamicType = ()> + RunsSteps>(
    kind: &str,
    name: &str,
    part: Option<&K>,
    seen: Option<&ChildView>,
) -> Option<Standing> {
    let waiting = |text: String| Some(Standing::reconciling(reasons::WAITING, text));
    let Some(part) = part else {
        return match seen.map(|view| &view.standing) {
            Some(ChildStanding::Stalled(words)) => Some(held_up_by(kind, name, words)),
            Some(_) | None => waiting(format!("{kind} '{name}' is gone")),
        };
    };
    if part.meta().deletion_timestamp.is_some() {
        return waiting(format!("{kind} '{name}' is being deleted"));
    }
    if let Some(condition) = stuck(part) {
        return Some(held_up_by(kind, name, &condition.message));
    }
    if !part.run_status().is_some_and(|status| is_up_to_date(part, status)) {
        return waiting(format!("{kind} '{name}' has not seen its newest spec yet"));
    }
    (!part.is_ready()).then(|| {
        let text = format!("{kind} '{name}' is not Ready: {}", part.ready_message());
        Standing::reconciling(reason_of(part), text)
    })
}

/// A step that failed for good while others wait: they may wait for what the failed one was to bring about.
fn failed(cluster: &Cluster) -> Option<Standing> {
    let steps = &cluster.run_status()?.steps;
    let failed = |phase: StepPhase| steps.iter().find(|step| step.phase == phase);
    let step: &StepStatus = failed(StepPhase::Failed).or_else(|| failed(StepPhase::UndoFailed))?;
    let class = step.class.map_or_else(String::new, |class| format!(" ({class:?})"));
    let reason = if step.reason == reasons::NAME_CONFLICT { reasons::NAME_CONFLICT } else { reasons::STEP_FAILED };
    Some(Standing::stalled(reason, format!("step '{}' failed{class}: {}", step.id, step.message)))
}

/// Stalled, where a group waits for an existing server that is stalled itself: it would wait for ever (L1). Once that
/// server moves again, so does this.
fn held_up(cluster: &Cluster, facts: &Facts) -> Option<Standing> {
    let steps = &cluster.run_status()?.steps;
    let pending = |id: &str| steps.iter().any(|step| step.id == id && step.phase == StepPhase::Pending);
    let groups = cluster.spec.server_groups.iter().filter(|group| pending(parts::group_step(&group.name).as_str()));
    let servers = groups.filter_map(|group| group.servers.as_ref()).flatten();
    let mut stuck = servers.filter_map(|name| Some((name, stuck(facts.server(name)?)?)));
    stuck.next().map(|(name, condition)| held_up_by("Server", name, &condition.message))
}
