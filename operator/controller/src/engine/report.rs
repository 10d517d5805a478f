//! Stage 5 (client): always runs, also after an error; tells people and says when to look again.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use provisioning_api::conditions::reasons;
use provisioning_api::names::LABEL_OWNER_UID;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_plan::conditions::{Standing, State, conditions};

use super::act::Acted;
use super::decide::earlier;
use super::kind::Kind;
use super::notices;
use super::observe::Seen;
use super::persist::{Stored, write_status};
use super::requeue_in;
use crate::context::Context;
use crate::error::Error;
use crate::traces::{self, Maker, Subject};

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
    if matches!(error, Error::Conflict { .. } | Error::Superseded { .. }) {
        return error;
    }
    ctx.forget_made(&before.namespace().unwrap_or_default());
    let object = with_error(before, &error, ctx.now());
    if object != *before
        && let Err(second) = write_status(ctx, &object).await
    {
        tracing::info!(error = second.chain(), "the error could not be reported");
    }
    error
}

/// (pure) The object with conditions that tell of a request which failed.
pub(crate) fn with_error<K: Kind>(before: &K, error: &Error, now: Timestamp) -> K {
    let mut object = before.clone();
    let generation = object.meta().generation.unwrap_or(0);
    let standing = Standing::reconciling(reasons::API_ERROR, error.chain());
    let status = object.run_status_mut();
    status.schema = STATUS_SCHEMA;
    status.conditions = conditions(&standing, &status.conditions, generation, now);
    object
}

/// Events at start, failure and end; nothing where nothing happened.
async fn events<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) {
    let before = seen.object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let mut told = Vec::new();
    for step in notices::moved(before, &stored.decision.steps) {
        notices::count(&ctx.metrics, K::KIND, step);
        told.extend(notices::of_step(step));
    }
    let (was_ready, was_stalled) = (seen.object.is_ready(), seen.object.stalled().is_some());
    let mut end = notices::of_object(&stored.standing, was_ready, was_stalled, &told);
    let was = |reason: &str| {
        seen.object.run_status().is_some_and(|status| status.conditions.iter().any(|known| known.reason == reason))
    };
    if stored.standing.reason == reasons::UNHEALTHY && !was(reasons::UNHEALTHY) {
        end = Some(notices::Notice::new(true, reasons::UNHEALTHY, stored.standing.message.clone()));
    }
    trace(ctx, seen, stored);
    for notice in told.into_iter().chain(end) {
        event(ctx, &stored.object, notice.warning, &notice.reason, &notice.note).await;
    }
}

/// Spans of the runs that have ended, and of the plan that has.
fn trace<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) {
    let Some(to) = &ctx.traces else { return };
    let subject = subject(ctx, &stored.object);
    let before = seen.object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let after = stored.decision.steps.as_slice();
    for step in notices::moved(before, after) {
        traces::of_step(&subject, step, seen.now).into_iter().for_each(|span| to.record(span));
    }
    let ended = match stored.standing.state {
        State::Ready => (!seen.object.is_ready()).then_some(false),
        State::Stalled => seen.object.stalled().is_none().then_some(true),
        State::Reconciling => None,
    };
    let plan = ended.and_then(|failed| traces::of_object(&subject, after, failed, seen.now));
    plan.into_iter().for_each(|span| to.record(span));
}

/// Whose spans these are, and below which step of a workflow they belong.
fn subject<K: Kind>(ctx: &Context, object: &K) -> Subject {
    let name = object.name_any();
    let workflow = object.labels().get(LABEL_OWNER_UID).and_then(|uid| ctx.stores.workflow_by_uid(uid));
    let maker = workflow.and_then(|workflow| {
        let step = workflow.spec.steps.iter().find(|step| step.applied() == Some((K::KIND, name.as_str())))?;
        let entry = workflow.run_status()?.steps.iter().find(|entry| entry.id == step.name)?;
        let generation = workflow.metadata.generation.unwrap_or(0);
        Some(Maker { uid: workflow.uid()?, generation, step: entry.id.clone(), run: entry.run })
    });
    Subject {
        kind: K::KIND,
        namespace: object.namespace().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        generation: object.meta().generation.unwrap_or(0),
        name,
        maker,
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
