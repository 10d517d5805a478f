//! One bad object never stops the others: it is reported where its owner looks, and left alone.

use jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, Request};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::names::MANAGER;
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_plan::conditions::{Standing, conditions};

use super::kind::Kind;
use super::notices::Notice;
use super::report::event;
use crate::answers;
use crate::context::{Context, lock};
use crate::error::{Error, is_too_large};
use crate::guarded::{Guarded, Unreadable};

/// Most objects that are remembered as told to be too large.
const MAX_REMEMBERED: usize = 10_000;

/// The object, if this operator can read it and may write its status.
///
/// # Errors
/// Where the report about an unreadable one could not be written.
pub async fn readable<K: Kind>(ctx: &Context, guarded: &Guarded<K>) -> Result<Option<K>, Error> {
    match &guarded.0 {
        Ok(object) => {
            let format = object.run_status().map_or(0, |status| status.schema);
            if format > STATUS_SCHEMA {
                too_new(ctx, object, format).await;
                return Ok(None);
            }
            // Labels, which can be too many as well, are not of a generation.
            lock(&ctx.too_large).remove(&generation(object));
            Ok(Some(object.clone()))
        }
        Err(unreadable) => {
            report(ctx, guarded, unreadable).await?;
            Ok(None)
        }
    }
}

fn generation<K: Resource>(object: &K) -> (String, i64) {
    let meta = object.meta();
    (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0))
}

/// Says that a newer operator has written this status. Nothing in it is touched, conditions neither: what this operator
/// does not know it would write back without. So people are told by an Event, which the recorder counts up.
async fn too_new<K: Kind>(ctx: &Context, object: &K, format: i32) {
    let text = format!(
        "status.schema is {format} and this operator knows {STATUS_SCHEMA}: it writes nothing here; upgrade the operator"
    );
    tracing::error!(kind = K::KIND, object = object.name_any(), format, "{}", reasons::STATUS_TOO_NEW);
    event(ctx, object, &Notice::new(true, reasons::STATUS_TOO_NEW, text)).await;
}

/// Writes into the conditions of an object why it cannot be read.
///
/// # Errors
/// Where the API server refuses.
pub async fn report<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    guarded: &Guarded<K>,
    unreadable: &Unreadable,
) -> Result<(), Error> {
    let Unreadable { metadata: meta, error, is_too_large: without_end } = unreadable;
    ctx.metrics.undecodable.with_label_values(&[K::kind(&()).as_ref()]).inc();
    if *without_end {
        return too_large(ctx, guarded, error).await;
    }
    let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &ApiResource::erase::<K>(&()));
    let object = format!("{} {namespace}/{name}", K::kind(&()));
    let live = api.get_opt(&name).await.map_err(|source| Error::request("read", &object, source))?;
    let Some(live) = live else { return Ok(()) };
    let next = undecodable(&live, error, ctx.now());
    if next.data == live.data {
        return Ok(());
    }
    tracing::error!(object, error, "object cannot be read");
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    api.replace_status(&name, &parameters, &next)
        .await
        .map_err(|source| Error::request("update", format!("status of {object}"), source))?;
    Ok(())
}

/// Writes the same into an object that is too large to be fetched and written back as a whole: nobody has built it up, so nobody
/// knows what it said before. It is told once for each of its generations.
async fn too_large<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    guarded: &Guarded<K>,
    error: &str,
) -> Result<(), Error> {
    let (name, namespace) = (guarded.name_any(), guarded.namespace().unwrap_or_default());
    let told = generation(guarded);
    if lock(&ctx.too_large).contains(&told) {
        return Ok(());
    }
    let object = format!("{} {namespace}/{name}", K::kind(&()));
    tracing::error!(object, error, "object is too large");
    let text = format!("this operator does not read the stored object: {error}. Take out of its spec what is too much");
    let next = conditions(&Standing::stalled(reasons::UNDECODABLE, text), &[], told.1, ctx.now());
    let patch = Patch::Merge(serde_json::json!({
        "metadata": {"resourceVersion": guarded.resource_version()},
        "status": {"observedGeneration": told.1, "conditions": next},
    }));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let url = K::url_path(&(), Some(&namespace));
    let request = Request::new(url).patch_subresource("status", &name, &parameters, &patch);
    match answers::pass_over(&ctx.client, request).await {
        // Nor is there room for the words in one that is as large as the store takes; the log has them.
        Err(kube::Error::Api(status)) if status.code == 404 || is_too_large(&status) => {}
        answer => answer.map_err(|source| Error::request("patch", format!("status of {object}"), source))?,
    }
    let mut all = lock(&ctx.too_large);
    // What is forgotten is told once more.
    if all.len() >= MAX_REMEMBERED {
        all.clear();
    }
    all.insert(told);
    Ok(())
}

/// (pure) The object with conditions that say why it cannot be read, and of which generation that is said: without it
/// kstatus would go on waiting. The rest of status is not understood and goes back as it came.
pub(crate) fn undecodable(live: &DynamicObject, error: &str, now: Timestamp) -> DynamicObject {
    let words: String = error.chars().take(512).collect();
    let text =
        format!("this operator cannot read the stored object: {words}. Correct the field, or upgrade the operator");
    let before = live.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let before: Vec<_> = serde_json::from_value(before).unwrap_or_default();
    let generation = live.metadata.generation.unwrap_or(0);
    let next = conditions(&Standing::stalled(reasons::UNDECODABLE, text), &before, generation, now);
    let mut object = live.clone();
    if !object.data["status"].is_object() {
        object.data["status"] = serde_json::json!({});
    }
    object.data["status"]["observedGeneration"] = serde_json::json!(generation);
    object.data["status"]["conditions"] = serde_json::json!(next);
    object
}
