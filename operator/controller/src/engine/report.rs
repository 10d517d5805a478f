//! Stage 5 (client): always runs, also after an error; tells people and says when to look again.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::LABEL_OWNER_UID;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{STATUS_SCHEMA, StepStatus};
use provisioning_plan::conditions::{Standing, State, conditions};
use provisioning_plan::settle::prefix;

use super::act::Acted;
use super::decide::earlier;
use super::kind::Kind;
use super::notices::{self, Notice};
use super::observe::Seen;
use super::persist::{Stored, write_status};
use super::requeue_in;
use crate::context::Context;
use crate::error::Error;
use crate::traces::{self, Maker, Span, Subject};
use crate::watches::Stores;

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
    trace(ctx, seen, stored, acted.as_ref().is_ok_and(|acted| acted.gone));
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
        end = Some(Notice::new(true, reasons::UNHEALTHY, stored.standing.message.clone()));
    }
    for notice in told.into_iter().chain(end) {
        event(ctx, &stored.object, &notice).await;
    }
}

/// Hands over the spans of a pass.
fn trace<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>, gone: bool) {
    let Some(to) = &ctx.traces else { return };
    let subject = subject(&ctx.stores, &seen.object, &stored.object);
    let state = stored.standing.state;
    let spans = spans(&subject, &seen.object, &stored.decision.steps, state, gone, seen.now);
    spans.into_iter().for_each(|span| to.record(span));
}

/// (pure) Spans of the runs that have ended, and of the attempt that has.
fn spans<K: Kind>(
    subject: &Subject,
    before: &K,
    after: &[StepStatus],
    state: State,
    gone: bool,
    now: Timestamp,
) -> Vec<Span> {
    let known = before.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let mut spans: Vec<Span> =
        notices::moved(known, after).filter_map(|step| traces::of_step(subject, step, now)).collect();
    let ended = match state {
        State::Ready => (!before.is_ready()).then_some(false),
        State::Stalled => before.stalled().is_none().then_some(true),
        State::Reconciling => gone.then_some(false),
    };
    spans.extend(ended.and_then(|failed| traces::of_object(subject, after, failed, now)));
    spans
}

/// (pure) Whose spans these are, and below which step of another object they belong.
fn subject<K: Kind>(stores: &Stores, before: &K, after: &K) -> Subject {
    let (namespace, name) = (after.namespace().unwrap_or_default(), after.name_any());
    let owner = after.labels().get(LABEL_OWNER_UID);
    Subject {
        kind: K::KIND,
        uid: after.uid().unwrap_or_default(),
        generation: after.meta().generation.unwrap_or(0),
        attempt: reconciling_since(before).or_else(|| reconciling_since(after)),
        maker: owner.and_then(|uid| maker(stores, K::KIND, (&namespace, &name), uid)),
        namespace,
        name,
    }
}

/// Since when an object is worked on. In the pass that ends it, the object as it was before knows.
fn reconciling_since<K: Kind>(object: &K) -> Option<Timestamp> {
    let conditions = object.run_status()?.conditions.iter();
    let mut true_ones = conditions.filter(|condition| condition.status == "True");
    true_ones.find(|condition| condition.type_ == types::RECONCILING).map(|found| found.last_transition_time.0)
}

/// The step that made an object, of a workflow or of a cluster; a cluster may be a workflow's itself. Labels can say
/// anything, in a circle too: above a cluster only a workflow counts.
fn maker(stores: &Stores, kind: &str, (namespace, name): (&str, &str), owner: &str) -> Option<Maker> {
    if let Some(found) = workflow_step(stores, kind, (namespace, name), owner) {
        return Some(found);
    }
    let cluster = stores.cluster_by_uid(namespace, owner)?;
    let stands_for = format!("{kind} {name}");
    let entry = cluster.run_status()?.steps.iter().find(|entry| entry.why == stands_for)?;
    let above = cluster.labels().get(LABEL_OWNER_UID);
    let above = above.and_then(|uid| workflow_step(stores, "Cluster", (namespace, &cluster.name_any()), uid));
    let top = above.map_or_else(|| (owner.to_owned(), cluster.metadata.generation.unwrap_or(0)), |above| above.top);
    Some(Maker { uid: owner.to_owned(), top, step: entry.id.clone(), run: entry.run })
}

fn workflow_step(stores: &Stores, kind: &str, (namespace, name): (&str, &str), uid: &str) -> Option<Maker> {
    let workflow = stores.workflow_by_uid(namespace, uid)?;
    let step = workflow.spec.steps.iter().find(|step| step.applied() == Some((kind, name)))?;
    let entry = workflow.run_status()?.steps.iter().find(|entry| entry.id == step.name)?;
    let top = (uid.to_owned(), workflow.metadata.generation.unwrap_or(0));
    Some(Maker { uid: uid.to_owned(), top, step: entry.id.clone(), run: entry.run })
}

/// Longest note of an Event, bytes: the API server takes 1024, and calls them characters.
const MAX_NOTE: usize = 1024;

/// Publishes one Event; one that cannot be written stops nothing.
pub async fn event<K: Kind>(ctx: &Context, object: &K, notice: &Notice) {
    let event = Event {
        type_: if notice.warning { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.clone(),
        note: Some(prefix(&notice.note, MAX_NOTE)),
        // The API server's own bound.
        action: notice.run.as_deref().unwrap_or("Reconcile").chars().take(128).collect(),
        secondary: None,
    };
    // A run tells each of these once: there is nothing to count up, so nothing is remembered.
    let recorder = match notice.run {
        Some(_) => Recorder::new(ctx.client.clone(), ctx.reporter.clone()),
        None => ctx.recorder.clone(),
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        tracing::info!(%error, "an event could not be written");
    }
}

#[cfg(test)]
mod tests {
    use provisioning_api::{BatchWorkflow, Cluster, Server};
    use serde_json::{Value, json};

    use super::*;
    use crate::watches::caches_with;

    fn metadata(name: &str, owner: &str) -> Value {
        json!({"name": name, "namespace": "marsh", "uid": format!("uid-{name}"), "generation": 5,
            "labels": {LABEL_OWNER_UID: owner}})
    }

    fn step(id: &str, why: &str, run: i64) -> Value {
        json!({"id": id, "action": "Apply", "undo": "DeleteObject", "inputHash": "v1:0", "phase": "Succeeded", "why": why,
            "run": run, "startedAt": "2026-05-04T03:02:01Z", "finishedAt": "2026-05-04T03:02:11Z"})
    }

    /// A condition that holds since a second after three.
    fn condition(type_: &str, second: i64) -> Value {
        json!({"type": type_, "status": "True", "reason": "Running", "message": "", "observedGeneration": 5,
            "lastTransitionTime": format!("2026-05-04T03:02:{second:02}Z")})
    }

    fn server(name: &str, owner: &str, conditions: &[Value], steps: &[Value]) -> Server {
        serde_json::from_value(json!({"metadata": metadata(name, owner),
            "spec": {"providerConfigRef": {"name": "local"}, "providerSize": "small", "image": {"id": "x"}},
            "status": {"observedGeneration": 5, "conditions": conditions, "steps": steps}}))
        .unwrap()
    }

    fn cluster(owner: &str) -> Cluster {
        serde_json::from_value(json!({"metadata": metadata("web", owner), "spec": {"serverGroups": []},
            "status": {"steps": [step("server/web-back-0", "Server web-back-0", 2)]}}))
        .unwrap()
    }

    fn workflow() -> BatchWorkflow {
        let apply = json!({"cluster": {"name": "web", "spec": {"serverGroups": []}}});
        serde_json::from_value(json!({"metadata": metadata("dawn", ""),
            "spec": {"steps": [{"name": "pages", "apply": apply}]},
            "status": {"steps": [step("pages", "Cluster web", 1)]}}))
        .unwrap()
    }

    fn maker(uid: &str, top: &str, step: &str, run: i64) -> Maker {
        Maker { uid: uid.to_owned(), top: (top.to_owned(), 5), step: step.to_owned(), run }
    }

    #[test]
    fn what_a_cluster_of_a_workflow_made_is_in_the_trace_of_the_workflow() {
        let stores = caches_with(&[workflow()], &[cluster("uid-dawn")]);
        let heron = server("web-back-0", "uid-web", &[], &[]);
        let made = Some(maker("uid-web", "uid-dawn", "server/web-back-0", 2));
        assert_eq!(subject(&stores, &heron, &heron).maker, made);
        let web = cluster("uid-dawn");
        assert_eq!(subject(&stores, &web, &web).maker, Some(maker("uid-dawn", "uid-dawn", "pages", 1)));
    }

    #[test]
    fn a_cluster_that_nobody_made_has_a_trace_of_its_own_and_so_has_one_that_claims_itself() {
        for owner in ["", "uid-web", "uid-gone"] {
            let stores = caches_with(&[workflow()], &[cluster(owner)]);
            let heron = server("web-back-0", "uid-web", &[], &[]);
            let made = Some(maker("uid-web", "uid-web", "server/web-back-0", 2));
            assert_eq!(subject(&stores, &heron, &heron).maker, made, "{owner}");
            let stray = server("other", "uid-web", &[], &[]);
            assert_eq!(subject(&stores, &stray, &stray).maker, None, "{owner}");
        }
    }

    #[test]
    fn an_attempt_ends_with_one_span_of_the_object_however_it_ends() {
        let stores = caches_with(&[], &[]);
        let now = "2026-05-04T03:02:20Z".parse().unwrap();
        let count = |before: &[Value], after: &[Value], state: State, gone: bool| {
            let steps = [step("create", "", 1)];
            let (before, after) = (server("heron", "", before, &steps), server("heron", "", after, &steps));
            let known = after.run_status().unwrap().steps.as_slice();
            spans(&subject(&stores, &before, &after), &before, known, state, gone, now).len()
        };
        let (working, ready, stalled) =
            ([condition("Reconciling", 1)], [condition("Ready", 12)], [condition("Stalled", 12)]);
        assert_eq!(count(&working, &ready, State::Ready, false), 1);
        assert_eq!(count(&working, &stalled, State::Stalled, false), 1);
        assert_eq!(count(&working, &working, State::Reconciling, true), 1, "taken down");
        assert_eq!(count(&working, &working, State::Reconciling, false), 0, "it goes on");
        assert_eq!(count(&ready, &ready, State::Ready, false), 0, "told already");
        assert_eq!(count(&stalled, &stalled, State::Stalled, false), 0, "told already");
        // A service that answers again: no step ran since.
        assert_eq!(count(&[condition("Reconciling", 15)], &ready, State::Ready, false), 0);
    }
}
