//! The fence (protocols §6): a new leader raises the workspace's epoch before it acts there.

use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use kube::core::DeserializeGuard;
use provisioning_api::names::{MANAGER, WORKSPACE_NAME};
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_api::{ProviderConfig, Server, Taskserv, Workspace};

use super::kind::Kind;
use crate::context::Context;
use crate::error::{Category, Error};

/// The epoch that this leader raised in a workspace; raises it at the first call.
///
/// # Errors
/// Where the API server refuses, or another process raised it in between: then nothing is done.
pub async fn raised(ctx: &Context, namespace: &str, workspace: &Workspace) -> Result<i64, Error> {
    let uid = workspace.uid().unwrap_or_default();
    let cell = ctx.epochs.cell(namespace);
    let mut held = cell.lock().await;
    if let Some((for_uid, epoch)) = held.as_ref()
        && *for_uid == uid
    {
        return Ok(*epoch);
    }
    let epoch = raise(ctx, namespace).await?;
    // Raised is raised: what cannot be taken over below is given up.
    *held = Some((uid, epoch));
    restamp::<ProviderConfig>(ctx, namespace, epoch).await?;
    restamp::<Server>(ctx, namespace, epoch).await?;
    restamp::<Taskserv>(ctx, namespace, epoch).await?;
    tracing::info!(namespace, epoch, "raised the epoch of the workspace");
    Ok(epoch)
}

async fn raise(ctx: &Context, namespace: &str) -> Result<i64, Error> {
    let api: Api<Workspace> = Api::namespaced(ctx.client.clone(), namespace);
    let object = format!("Workspace {namespace}/{WORKSPACE_NAME}");
    let mut live = api.get(WORKSPACE_NAME).await.map_err(|source| Error::request("read", &object, source))?;
    let status = live.status.get_or_insert_default();
    status.epoch += 1;
    status.schema = STATUS_SCHEMA;
    status.leader = Some(ctx.settings.identity.clone());
    let epoch = status.epoch;
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    api.replace_status(WORKSPACE_NAME, &parameters, &live)
        .await
        .map_err(|source| Error::request("update", format!("status of {object}"), source))?;
    Ok(epoch)
}

/// Open entries that exist now are taken over: their epoch, and nothing else, becomes ours.
async fn restamp<K: Kind>(ctx: &Context, namespace: &str, epoch: i64) -> Result<(), Error> {
    let api: Api<DeserializeGuard<K>> = Api::namespaced(ctx.client.clone(), namespace);
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|source| Error::request("list", format!("{}s in {namespace}", K::KIND), source))?;
    let readable = list.items.into_iter().filter_map(|guarded| guarded.0.ok());
    let ours = readable.filter(|object| object.run_status().is_none_or(|status| status.schema <= STATUS_SCHEMA));
    for mut object in ours {
        let open: Vec<usize> = object.run_status().map_or_else(Vec::new, |status| {
            let open = status.steps.iter().enumerate().filter(|(_, step)| step.is_open() && step.epoch < epoch);
            open.map(|(position, _)| position).collect()
        });
        if open.is_empty() {
            continue;
        }
        for position in open {
            object.run_status_mut().steps[position].epoch = epoch;
        }
        match super::persist::write_status(ctx, &object).await {
            Ok(_) => {}
            // It moved in between; what is still open under the old epoch is given up.
            Err(Error::Conflict { object }) => tracing::info!(object, "not taken over: it changed"),
            // One bad object never stops the others.
            Err(error) if error.category() == Category::Permanent => {
                tracing::warn!(error = error.chain(), "not taken over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
