//! Stage 2 (pure): what follows from what was seen.

use jiff::Timestamp;
use kube::ResourceExt;
use provisioning_api::conditions::reasons;
use provisioning_api::names::ANNOTATION_RECONCILE;
use provisioning_api::steps::{STATUS_SCHEMA, StepPhase, StepStatus};
use provisioning_plan::conditions::{Standing, State, conditions};
use provisioning_plan::decision::{Decision, Mode, Policy, Verdict, decide as plan_decide, hold};
use provisioning_plan::observed::{Observed, RunView};
use provisioning_plan::settle::settle;
use provisioning_plan::summary;

use super::finalize::is_abandoned;
use super::kind::Kind;
use super::observe::{Seen, reconcile_request};

/// What a pass came to.
#[derive(Debug)]
pub struct Planned<K: Kind> {
    /// The object with the status that shall be stored.
    pub next: K,
    /// The planner's decision.
    pub decision: Decision,
    /// How the object stands.
    pub standing: Standing,
}

/// Decides. `available`: how many Jobs may still be opened in the workspace.
pub fn decide<K: Kind>(seen: &Seen<K>, available: usize) -> Planned<K> {
    let object = &seen.object;
    let before = object.run_status().cloned().unwrap_or_default();
    let mut settled = settle(&before.steps, &seen.observed, seen.now);
    object.take_on(&seen.facts, &mut settled);
    if let Ok(workspace) = &seen.workspace {
        // Nobody else can act for a run without an executor: the new leader goes on with it.
        let own = |step: &&mut StepStatus| step.is_open() && !step.action.has_executor();
        settled.iter_mut().filter(own).for_each(|step| step.epoch = step.epoch.max(workspace.epoch));
    }
    let deleting = object.meta().deletion_timestamp.is_some();
    let policy = policy(seen, deleting, available);
    let drawn = object.graph(&seen.facts, &settled);
    let (decision, standing) = match (deleting, &seen.workspace, drawn) {
        // Without a workspace nothing can act: no epoch, no accounts, no key.
        (_, Err(none), _) => without_workspace(seen, &settled, policy.run_floor, none.standing()),
        (true, Ok(_), drawn) => {
            let graph = drawn.unwrap_or_default();
            let decision = plan_decide(&graph, &settled, &seen.observed, &policy, seen.now);
            let standing = deletion_standing(object, &decision.verdict);
            (decision, standing)
        }
        (false, Ok(_), Err(standing)) => (hold(&settled, &seen.observed, policy.epoch, policy.run_floor), standing),
        (false, Ok(_), Ok(graph)) => {
            let decision = plan_decide(&graph, &settled, &seen.observed, &policy, seen.now);
            let standing = forward_standing(&decision);
            (decision, standing)
        }
    };
    let (next, standing) = next_object(seen, &decision, standing);
    Planned { next, decision, standing }
}

fn policy<K: Kind>(seen: &Seen<K>, deleting: bool, available: usize) -> Policy {
    Policy {
        mode: if deleting { Mode::Delete } else { Mode::Forward },
        suspended: seen.suspended.clone(),
        on_failure: seen.object.on_failure(),
        parallelism: seen.object.parallelism(),
        max_steps: K::max_steps(),
        available,
        epoch: seen.workspace.as_ref().map_or(0, |workspace| workspace.epoch),
        retry_requested: seen.retry_requested,
        removed: seen.object.removed(),
        gates: seen.object.gates(&seen.facts),
        waived: seen.object.waived(),
        revive: seen.object.mended(&seen.facts),
        observe_again: seen.object.observed_again(&seen.facts, seen.now),
        run_floor: seen.object.run_status().map_or(0, |status| status.run_floor),
    }
}

fn without_workspace<K: Kind>(
    seen: &Seen<K>,
    settled: &[StepStatus],
    run_floor: i64,
    standing: Standing,
) -> (Decision, Standing) {
    let deleting = seen.object.meta().deletion_timestamp.is_some();
    let mut decision = hold(settled, &Observed::new(), 0, run_floor);
    // Before a deletion is abandoned nobody may act for it any more; without that, runs wait for the workspace.
    let is_lost = |step: &&StepStatus| {
        step.is_executed() && matches!(seen.observed.get(&step.id), Some(RunView::Missing { .. } | RunView::Silent))
    };
    decision.give_up = match deleting && is_abandoned(&seen.object) {
        true => settled.iter().filter(is_lost).map(|step| step.id.clone()).collect(),
        false => Vec::new(),
    };
    let untouched =
        settled.iter().all(|step| step.effect == provisioning_api::steps::StepEffect::None && !step.is_open());
    if deleting && untouched {
        decision.verdict = Verdict::Deleted;
        let standing = Standing::from(&decision.verdict);
        return (decision, standing);
    }
    (decision, standing)
}

/// A name that somebody else holds has a reason of its own: another name is the way out, not another try.
fn forward_standing(decision: &Decision) -> Standing {
    let failed = decision.steps.iter().find(|step| step.phase == StepPhase::Failed);
    match Standing::from(&decision.verdict) {
        Standing { state, reason: reasons::STEP_FAILED, message }
            if failed.is_some_and(|step| step.reason == reasons::NAME_CONFLICT) =>
        {
            Standing { state, reason: reasons::NAME_CONFLICT, message }
        }
        standing => standing,
    }
}

fn deletion_standing<K: Kind>(object: &K, verdict: &Verdict) -> Standing {
    match Standing::from(verdict) {
        Standing { state, reason, message } if reason == reasons::DELETION_BLOCKED => {
            let way_out = format!(
                "{message}. Mend the cause and annotate the object with {ANNOTATION_RECONCILE}=NOW to try again, or with \
                 {}=true to leave behind what remains",
                provisioning_api::names::ANNOTATION_ABANDON
            );
            tracing::debug!(object = object.name_any(), "deletion is blocked");
            Standing { state, reason, message: way_out }
        }
        standing => standing,
    }
}

/// The object with its next status.
fn next_object<K: Kind>(seen: &Seen<K>, decision: &Decision, standing: Standing) -> (K, Standing) {
    let mut next = seen.object.clone();
    let generation = next.meta().generation.unwrap_or(0);
    let asked = reconcile_request(&next);
    {
        let status = next.run_status_mut();
        status.steps.clone_from(&decision.steps);
        status.run_floor = decision.run_floor;
        status.schema = STATUS_SCHEMA;
        status.observed_generation = generation;
        status.plan = Some(summary::plan(&decision.steps, generation));
        status.progress = Some(summary::progress(&decision.steps));
        if asked.is_some() {
            status.last_handled_reconcile_at = asked;
        }
    }
    next.publish(&seen.facts);
    let deleting = next.meta().deletion_timestamp.is_some();
    let held = if deleting && decision.verdict == Verdict::Deleted { next.held_by(&seen.facts) } else { None };
    let standing = match held {
        Some(what) => Standing::reconciling(reasons::DELETING, what),
        None if deleting => standing,
        None => next.standing(&seen.facts, &standing).unwrap_or(standing),
    };
    let held_up = if standing.state == State::Reconciling { next.held_up(&seen.facts) } else { None };
    let standing = held_up.unwrap_or(standing);
    let unchanged = seen.object.run_status().is_some_and(|before| before.steps == decision.steps);
    let status = next.run_status_mut();
    // As long as the same intent keeps failing at the API server, the error stays where people look: written in turns
    // with what would stand there else, it would wake the object by every write. What succeeds clears it in this pass.
    let keeps_failing = status.conditions.iter().any(|condition| condition.reason == reasons::API_ERROR);
    let is_told = status.conditions.iter().all(|condition| condition.observed_generation == Some(generation));
    if keeps_failing && unchanged && is_told {
        return (next, standing);
    }
    status.conditions = conditions(&standing, &status.conditions, generation, seen.now);
    (next, standing)
}

/// The earlier of two times.
pub fn earlier(left: Option<Timestamp>, right: Option<Timestamp>) -> Option<Timestamp> {
    [left, right].into_iter().flatten().min()
}
