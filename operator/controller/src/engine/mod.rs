//! The engine: the six stages that every kind that runs steps goes through.
//!
//! `observe` (client) reads; `decide` (pure) chooses; `persist` (client) writes the intent with the resourceVersion
//! that was read; `act` (client) creates executors; `report` (client) always runs. A kind brings its graph
//! ([`kind::Kind`]).

pub mod act;
pub mod decide;
pub mod epoch;
pub mod fence;
pub mod finalize;
pub mod give_up;
pub mod guard;
pub mod jobs;
pub mod kind;
pub mod logs;
pub mod notices;
pub mod observe;
pub mod persist;
pub mod report;
pub mod runs;
pub mod slots;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use crate::context::Context;
use crate::error::{Category, Error};
use crate::guarded::Guarded;
use kind::Kind;

/// One pass over one object.
///
/// # Errors
/// The first error that stopped it; status tells people what is going on in any case.
pub async fn reconcile<K: Kind>(guarded: Arc<Guarded<K>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(object) = guard::readable(&ctx, &guarded).await? else { return Ok(Action::await_change()) }; // (client)
    if ctx.written.is_ahead_of(&object, ctx.now()) {
        return Ok(requeue_in(1_000));
    }
    let Some(object) = persist::finalizer(&ctx, object).await? else { return Ok(Action::await_change()) }; // (client)
    let seen = match observe::observe(&ctx, object.clone()).await {
        Ok(seen) => seen, // (client)
        Err(error) => return Err(report::failed(&ctx, &object, error).await),
    };
    let slots = slots::reserve(&ctx, &seen).await;
    let planned = decide::decide(&seen, slots.available()); // (pure)
    let stored = match persist::persist(&ctx, &seen, planned, slots).await {
        Ok(stored) => stored, // (client)
        // What the API server does not take it never will, and people have to see that nothing goes on.
        Err(error) if error.category() == Category::Permanent && !error.is_about_nothing() => {
            return Err(report::failed(&ctx, &object, error).await);
        }
        Err(error) => return Err(error),
    };
    let acted = act::act(&ctx, &seen, &stored).await; // (client)
    report::report(&ctx, &seen, &stored, acted).await // (client)
}

/// What follows a failed pass.
#[allow(clippy::needless_pass_by_value)] // the signature that kube-runtime asks for
pub fn error_policy<K>(object: Arc<Guarded<K>>, error: &Error, _: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    let (kind, namespace, name) = (K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    let _pass = crate::pass_span(&kind, &namespace, &name).entered();
    match error.category() {
        Category::Conflict => tracing::debug!(error = error.chain(), "somebody else wrote first"),
        Category::Transient | Category::Permanent => {
            tracing::warn!(error = error.chain(), category = error.category().label(), "pass failed");
        }
    }
    Action::requeue(error.retry_after())
}

/// Wake-up in whole milliseconds, never sooner than 50 ms.
pub(crate) fn requeue_in(millis: i64) -> Action {
    Action::requeue(Duration::from_millis(u64::try_from(millis).unwrap_or(0).max(50)))
}
