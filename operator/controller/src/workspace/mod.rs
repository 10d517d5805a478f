//! Workspace: not a plan of steps but the ground on which plans stand: epoch, accounts, SSH key, and the way down.

pub mod accounts;
pub mod live;
mod ssh_key;
mod teardown;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use provisioning_api::Workspace;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{
    EXECUTOR_ACCOUNT, EXECUTOR_ROLE, FINALIZER, LABEL_LIVE, LOCAL_PROVIDER_ACCOUNT, MANAGER,
};
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_api::workspace::ObjectCounts;
use provisioning_plan::conditions::{Standing, State, conditions};

use crate::context::{Context, lock};
use crate::engine::epoch;
use crate::engine::kind::{Kind, in_namespace};
use crate::error::Error;
use crate::guarded::Guarded;

/// One pass over a Workspace.
///
/// # Errors
/// The first request that failed.
pub async fn reconcile(guarded: Arc<Guarded<Workspace>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(workspace) = readable(&ctx, &guarded).await? else { return Ok(Action::await_change()) };
    let Some(workspace) = finalizer(&ctx, workspace).await? else { return Ok(Action::await_change()) };
    let namespace = workspace.namespace().unwrap_or_default();
    epoch::raised(&ctx, &namespace, &workspace, 0).await?; // (client)
    if workspace.metadata.deletion_timestamp.is_some() {
        return teardown::go_on(&ctx, &workspace).await; // (client)
    }
    let workspace = newest(&ctx, workspace).await?; // (client)
    let key = prepare(&ctx, &workspace).await?; // (client)
    report(&ctx, &workspace, standing(&workspace), key).await?; // (client)
    Ok(Action::await_change())
}

/// (pure) How a Workspace stands that is not on its way out.
pub(crate) fn standing(workspace: &Workspace) -> Standing {
    if workspace.spec.suspend {
        let text = "this Workspace is suspended: nothing forward is started until spec.suspend is false";
        return Standing { state: State::Ready, reason: reasons::SUSPENDED, message: text.to_owned() };
    }
    Standing {
        state: State::Ready,
        reason: reasons::SUCCEEDED,
        message: "accounts and SSH key are in place".to_owned(),
    }
}

async fn readable(ctx: &Context, guarded: &Guarded<Workspace>) -> Result<Option<Workspace>, Error> {
    match &guarded.0 {
        Ok(workspace) if workspace.status.as_ref().is_some_and(|status| status.schema > STATUS_SCHEMA) => Ok(None),
        Ok(workspace) => Ok(Some(workspace.clone())),
        Err(unreadable) => {
            crate::engine::guard::report(ctx, guarded, unreadable).await?;
            Ok(None)
        }
    }
}

async fn finalizer(ctx: &Context, workspace: Workspace) -> Result<Option<Workspace>, Error> {
    let has = workspace.finalizers().iter().any(|name| name == FINALIZER);
    if has {
        return Ok(Some(workspace));
    }
    if workspace.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let mut finalizers = workspace.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    live::patch_finalizers(ctx, &workspace, &finalizers).await.map(Some)
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// As long as no key is published the cache may be behind our own writes; a second key pair would lock everybody out.
async fn newest(ctx: &Context, cached: Workspace) -> Result<Workspace, Error> {
    if cached.status.as_ref().is_some_and(|status| status.ssh_public_key.is_some()) {
        return Ok(cached);
    }
    live::get(ctx, &cached.namespace().unwrap_or_default()).await
}

/// Label on the namespace, accounts, SSH key. Returns the public key.
async fn prepare(ctx: &Context, workspace: &Workspace) -> Result<String, Error> {
    let namespace = workspace.namespace().unwrap_or_default();
    let known = workspace.status.as_ref().and_then(|status| status.ssh_public_key.clone());
    let live = format!("Label {namespace}/{LABEL_LIVE}");
    if !lock(&ctx.made).contains(&live) {
        set_live(ctx, &namespace, true).await?;
        lock(&ctx.made).insert(live);
    }
    for account in [EXECUTOR_ACCOUNT, LOCAL_PROVIDER_ACCOUNT] {
        accounts::account(ctx, &namespace, account).await?;
        accounts::bind(ctx, &namespace, account, EXECUTOR_ROLE, &namespace, account).await?;
    }
    match known {
        Some(key) => Ok(key),
        None => ssh_key::make(ctx, workspace).await,
    }
}

/// Sets or removes the label that protects the namespace from deletion.
async fn set_live(ctx: &Context, namespace: &str, live: bool) -> Result<(), Error> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let value = if live { serde_json::json!("true") } else { serde_json::Value::Null };
    let patch = serde_json::json!({"metadata": {"labels": {LABEL_LIVE: value}}});
    match api.patch_metadata(namespace, &parameters(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 && !live => Ok(()),
        Err(source) => Err(Error::request("patch", format!("Namespace {namespace}"), source)),
    }
}

/// Writes status, if there is anything new in it.
async fn report(ctx: &Context, workspace: &Workspace, standing: Standing, key: String) -> Result<(), Error> {
    let namespace = workspace.namespace().unwrap_or_default();
    let next = reported(workspace, &standing, key, counts(ctx, &namespace), ctx.now());
    if next == *workspace {
        return Ok(());
    }
    live::write_status(ctx, &next).await
}

/// (pure) The Workspace with its next status.
pub(crate) fn reported(
    workspace: &Workspace,
    standing: &Standing,
    key: String,
    objects: ObjectCounts,
    now: Timestamp,
) -> Workspace {
    let mut next = workspace.clone();
    let generation = workspace.metadata.generation.unwrap_or(0);
    let status = next.status.get_or_insert_default();
    status.observed_generation = generation;
    status.schema = STATUS_SCHEMA;
    if !key.is_empty() {
        status.ssh_public_key = Some(key);
    }
    status.objects = Some(objects);
    status.conditions = conditions(standing, &status.conditions, generation, now);
    next
}

fn counts(ctx: &Context, namespace: &str) -> ObjectCounts {
    fn count<K: Kind>(ctx: &Context, namespace: &str) -> i32 {
        i32::try_from(in_namespace(K::store(&ctx.stores), namespace).len()).unwrap_or(i32::MAX)
    }
    ObjectCounts {
        provider_configs: count::<provisioning_api::ProviderConfig>(ctx, namespace),
        servers: count::<provisioning_api::Server>(ctx, namespace),
        taskservs: count::<provisioning_api::Taskserv>(ctx, namespace),
        clusters: count::<provisioning_api::Cluster>(ctx, namespace),
        batch_workflows: count::<provisioning_api::BatchWorkflow>(ctx, namespace),
    }
}

/// When a pass that waits for deletions looks again, in case no watch event comes.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);
