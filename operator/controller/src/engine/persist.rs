//! Stage 3 (client): the intent becomes durable before anything is done.

use kube::ResourceExt;
use kube::api::Api;
use provisioning_api::names::FINALIZER;
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::Decision;

use super::decide::Planned;
use super::fence::WrittenAt;
use super::kind::Kind;
use super::observe::Seen;
use super::runs::{Knowledge, RunKey};
use super::slots::Reservation;
use crate::answers;
use crate::context::Context;
use crate::error::Error;
use crate::guarded::Guarded;

/// Longest wait for the answer to a write of status.
const WRITE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// What is durable now.
#[derive(Debug)]
pub struct Stored<K: Kind> {
    /// The object as the API server has it.
    pub object: K,
    /// The decision that it holds.
    pub decision: Decision,
    /// How it stands.
    pub standing: Standing,
    /// When this pass began to write it, where it did.
    pub written: Option<WrittenAt>,
}

/// Puts our finalizer on an object that has none: before the first effect there must be something that undoes it.
/// `None`: the object is on its way out and was never ours.
///
/// # Errors
/// Where the API server refuses.
pub async fn finalizer<K: Kind>(ctx: &Context, object: K) -> Result<Option<K>, Error> {
    let has = object.finalizers().iter().any(|name| name == FINALIZER);
    let deleting = object.meta().deletion_timestamp.is_some();
    match (has, deleting) {
        (true, _) => Ok(Some(object)),
        (false, true) => Ok(None),
        (false, false) => {
            let mut finalizers = object.finalizers().to_vec();
            finalizers.push(FINALIZER.to_owned());
            patch_finalizers(ctx, &object, &finalizers).await.map(Some)
        }
    }
}

/// Writes the list of finalizers, if the object is still the one that was read.
///
/// # Errors
/// [`Error::Conflict`] where it is not.
pub async fn patch_finalizers<K: Kind>(ctx: &Context, object: &K, finalizers: &[String]) -> Result<K, Error> {
    let written = answers::patch_finalizers(&ctx.client, object, finalizers, &describe(object)).await?;
    ctx.written.remember(&written, ctx.now());
    Ok(written)
}

/// Writes the next status with the resourceVersion that was read, if there is anything new in it.
///
/// # Errors
/// [`Error::Conflict`]: somebody wrote in between, and nothing was done.
pub async fn persist<K: Kind>(
    ctx: &Context,
    seen: &Seen<K>,
    planned: Planned<K>,
    slots: Reservation,
) -> Result<Stored<K>, Error> {
    let Planned { next, decision, standing } = planned;
    for note in &decision.notes {
        tracing::info!("{note}");
    }
    let written = (next != seen.object).then(|| WrittenAt::now(ctx));
    let object = if written.is_some() { write_status(ctx, &next).await? } else { next };
    let uid = object.uid().unwrap_or_default();
    let open: Vec<RunKey> = decision
        .steps
        .iter()
        .filter(|step| step.is_open())
        .map(|step| (uid.clone(), step.id.clone(), step.run))
        .collect();
    ctx.runs.retain(&uid, &open);
    for step in decision.steps.iter().filter(|step| decision.start.contains(&step.id)) {
        ctx.runs.set((uid.clone(), step.id.clone(), step.run), Knowledge::Intended);
    }
    slots.settle(&object);
    Ok(Stored { object, decision, standing, written })
}

/// Replaces status.
///
/// # Errors
/// [`Error::Conflict`] where the object changed since it was read.
pub async fn write_status<K: Kind>(ctx: &Context, object: &K) -> Result<K, Error> {
    let described = format!("status of {}", describe(object));
    let write = answers::replace_status(&ctx.client, object, &described);
    // A request that hangs must not hold the workspace's places for ever. Whether it was applied shows in the cache.
    let written = tokio::time::timeout(WRITE_PATIENCE, write)
        .await
        .map_err(|_| Error::Unanswered { object: describe(object) })??;
    ctx.written.remember(&written, ctx.now());
    Ok(written)
}

/// Typed access to the namespace of an object. An answer holds more than was sent: who wrote which field, which others can
/// make as large as the store takes.
pub fn api<K: Kind>(ctx: &Context, object: &K) -> Api<Guarded<K>> {
    Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default())
}

/// `Kind namespace/name`, for errors.
pub fn describe<K: Kind>(object: &K) -> String {
    format!("{} {}/{}", K::KIND, object.namespace().unwrap_or_default(), object.name_any())
}
