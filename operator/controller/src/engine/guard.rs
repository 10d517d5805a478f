//! One bad object never stops the others: it is reported where its owner looks, and left alone.

use jiff::Timestamp;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, DeserializeGuard};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::names::MANAGER;
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_plan::conditions::{Standing, conditions};
use serde::de::DeserializeOwned;

use super::kind::Kind;
use super::notices::Notice;
use super::report::event;
use crate::context::Context;
use crate::error::Error;

/// The object, if this operator can read it and may write its status.
///
/// # Errors
/// Where the report about an unreadable one could not be written.
pub async fn readable<K: Kind>(ctx: &Context, guarded: &DeserializeGuard<K>) -> Result<Option<K>, Error> {
    match &guarded.0 {
        Ok(object) => {
            let format = object.run_status().map_or(0, |status| status.schema);
            if format > STATUS_SCHEMA {
                too_new(ctx, object, format).await;
                return Ok(None);
            }
            Ok(Some(object.clone()))
        }
        Err(invalid) => {
            ctx.metrics.undecodable.with_label_values(&[K::KIND]).inc();
            report::<K>(ctx, guarded.meta(), &invalid.error).await?;
            Ok(None)
        }
    }
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
pub async fn report<K: Resource<DynamicType = ()> + DeserializeOwned>(
    ctx: &Context,
    meta: &kube::api::ObjectMeta,
    error: &str,
) -> Result<(), Error> {
    let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &ApiResource::erase::<K>(&()));
    let object = format!("{} {namespace}/{name}", K::kind(&()));
    let live = api.get_opt(&name).await.map_err(|source| Error::request("read", &object, source))?;
    let Some(live) = live else { return Ok(()) };
    let next = undecodable::<K>(&live, error, ctx.now());
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

/// (pure) The object with conditions that say why it cannot be read, and of which generation that is said: without it
/// kstatus would go on waiting. The rest of status is not understood and goes back as it came.
pub(crate) fn undecodable<K: Resource<DynamicType = ()> + DeserializeOwned>(
    live: &DynamicObject,
    error: &str,
    now: Timestamp,
) -> DynamicObject {
    let words: String = where_it_fails::<K>(live).unwrap_or_else(|| error.to_owned()).chars().take(512).collect();
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

/// Path and words of the first field that cannot be read; the guard around the watch keeps the words only.
fn where_it_fails<K: Resource<DynamicType = ()> + DeserializeOwned>(live: &DynamicObject) -> Option<String> {
    let value = serde_json::to_value(live).ok()?;
    let error = serde_path_to_error::deserialize::<_, K>(value).err()?;
    Some(format!("{}: {}", error.path(), error.inner()))
}
