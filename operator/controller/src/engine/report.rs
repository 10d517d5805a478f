//! Stage 5 (client): always runs, also after an error; tells people and says when to look again.

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use provisioning_api::conditions::reasons;
use provisioning_api::steps::{STATUS_SCHEMA, StepPhase};
use provisioning_plan::conditions::{Standing, State, conditions};

use super::act::Acted;
use super::decide::earlier;
use super::kind::Kind;
use super::observe::Seen;
use super::persist::{Stored, write_status};
use super::requeue_in;
use crate::context::Context;
use crate::error::Error;

/// Reports.
///
/// # Errors
/// The error of the act, once it is written down.
pub async fn report<K: Kind>(
    ctx: &Context,
    seen: &Seen<K>,
    stored: &Stored<K>,
    acted: Result<Acted, Error>,
) -> Result<Action, Error> {
    events(ctx, seen, stored).await;
    let acted = match acted {
        Ok(acted) => acted,
        Err(error) => return Err(failed(ctx, &stored.object, error).await),
    };
    if !acted.gone {
        clear_error(ctx, seen, stored).await?;
    }
    if acted.gone {
        return Ok(Action::await_change());
    }
    if acted.again {
        return Ok(requeue_in(0));
    }
    let wake_at = earlier(stored.decision.wake_at, seen.wake_at);
    let wake = wake_at.map(|at| i64::try_from(at.duration_since(seen.now).as_millis()).unwrap_or(i64::MAX));
    let soonest = [wake, acted.in_millis].into_iter().flatten().min();
    Ok(soonest.map_or_else(Action::await_change, requeue_in))
}

/// What kept failing works now.
async fn clear_error<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) -> Result<(), Error> {
    let mut object = stored.object.clone();
    let generation = object.meta().generation.unwrap_or(0);
    let status = object.run_status_mut();
    if !status.conditions.iter().any(|condition| condition.reason == reasons::API_ERROR) {
        return Ok(());
    }
    status.conditions = conditions(&stored.standing, &status.conditions, generation, seen.now);
    write_status(ctx, &object).await?;
    Ok(())
}

/// The error of a stage becomes a condition, unless it was only a conflict. What this process believed to have made in
/// the namespace is made sure of again.
pub async fn failed<K: Kind>(ctx: &Context, before: &K, error: Error) -> Error {
    if matches!(error, Error::Conflict { .. }) {
        return error;
    }
    ctx.forget_made(&before.namespace().unwrap_or_default());
    let mut object = before.clone();
    let generation = object.meta().generation.unwrap_or(0);
    let standing = Standing::reconciling(reasons::API_ERROR, error.chain());
    let status = object.run_status_mut();
    status.schema = STATUS_SCHEMA;
    status.conditions = conditions(&standing, &status.conditions, generation, ctx.now());
    if object != *before
        && let Err(second) = write_status(ctx, &object).await
    {
        tracing::info!(error = second.chain(), "the error could not be reported");
    }
    error
}

/// Events at start, failure and end; nothing where nothing happened.
async fn events<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) {
    let before = seen.object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    for step in &stored.decision.steps {
        let earlier = before.iter().find(|other| other.id == step.id);
        if earlier.is_some_and(|other| other.phase == step.phase && other.run == step.run) {
            continue;
        }
        match step.phase {
            StepPhase::Failed | StepPhase::UndoFailed => {
                event(ctx, &stored.object, true, &step.reason, &format!("step {}: {}", step.id, step.message)).await;
            }
            StepPhase::Pending if step.class.is_some() => {
                event(ctx, &stored.object, true, "Retrying", &format!("step {}: {}", step.id, step.message)).await;
            }
            StepPhase::Running | StepPhase::Undoing => {
                event(ctx, &stored.object, false, "Started", &format!("step {} run {}", step.id, step.run)).await;
            }
            StepPhase::Skipped => {
                event(ctx, &stored.object, false, &step.reason, &format!("step {}: {}", step.id, step.message)).await;
            }
            StepPhase::Pending
            | StepPhase::Succeeded
            | StepPhase::Cancelled
            | StepPhase::Omitted
            | StepPhase::Undone => {}
        }
    }
    let was = |reason: &str| {
        seen.object.run_status().is_some_and(|status| status.conditions.iter().any(|known| known.reason == reason))
    };
    if stored.standing.reason == reasons::UNHEALTHY && !was(reasons::UNHEALTHY) {
        event(ctx, &stored.object, true, reasons::UNHEALTHY, &stored.standing.message).await;
    }
    if stored.standing.state == State::Ready && !seen.object.is_ready() {
        event(ctx, &stored.object, false, stored.standing.reason, &stored.standing.message).await;
    }
}

/// Publishes one Event; one that cannot be written stops nothing.
pub async fn event<K: Kind>(ctx: &Context, object: &K, warning: bool, reason: &str, note: &str) {
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: if reason.is_empty() { reasons::RUNNING.to_owned() } else { reason.to_owned() },
        note: Some(note.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::info!(%error, "an event could not be written");
    }
}
