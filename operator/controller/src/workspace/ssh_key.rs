//! The workspace's SSH key pair: made once, written once, never read.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use provisioning_api::names::{LABEL_MANAGED_BY, MANAGER, SSH_SECRET};
use provisioning_api::{Server, Workspace};
use russh::keys::ssh_key::{Algorithm, Error as KeyError, LineEnding};

use super::live;
use crate::context::Context;
use crate::engine::epoch;
use crate::error::Error;

/// Makes the key pair and returns its public half, which is not published yet: the write of status that does so is
/// refused if another leader has raised the epoch in between.
///
/// Servers that trust a key already are of a Workspace that was forced away and made again: that key stays. Without
/// such, a Secret that is there although no key was published is of a pass that was cut off: nobody can have used it and
/// nobody may read it, so it makes room, unless a newer leader may have made it.
///
/// # Errors
/// Where the API server refuses, or another process leads here by now.
pub(super) async fn make(ctx: &Context, workspace: &Workspace) -> Result<String, Error> {
    let namespace = workspace.namespace().unwrap_or_default();
    if let Some(trusted) = trusted(ctx, &namespace).await? {
        return Ok(trusted);
    }
    let (secret, public) = pair(&namespace)?;
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let failed = |source| Error::request("create", format!("Secret {namespace}/{SSH_SECRET}"), source);
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => return Ok(public),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(source) => return Err(failed(source)),
    }
    make_room(ctx, &api, workspace).await?;
    api.create(&PostParams::default(), &secret).await.map_err(failed)?;
    Ok(public)
}

/// The key that machines were created with.
async fn trusted(ctx: &Context, namespace: &str) -> Result<Option<String>, Error> {
    let servers = epoch::readable::<Server>(ctx, namespace).await?;
    let creations = servers.into_iter().filter_map(|server| server.status?.creation);
    let keys: BTreeSet<String> = creations.map(|creation| creation.user_key).collect();
    if keys.len() > 1 {
        let reason = "its Servers trust different keys; delete those that were made before this Workspace".to_owned();
        return Err(Error::GenerateKey { workspace: namespace.to_owned(), reason });
    }
    Ok(keys.into_iter().next())
}

fn pair(namespace: &str) -> Result<(Secret, String), Error> {
    let failed = |error: KeyError| Error::GenerateKey { workspace: namespace.to_owned(), reason: error.to_string() };
    let key = russh::keys::PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(|error| Error::GenerateKey { workspace: namespace.to_owned(), reason: error.to_string() })?;
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
    let public = key.public_key().to_openssh().map_err(failed)?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SSH_SECRET.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        string_data: Some(
            [("id_ed25519".to_owned(), private.to_string()), ("id_ed25519.pub".to_owned(), public.clone())].into(),
        ),
        ..Secret::default()
    };
    Ok((secret, public))
}

/// Deletes the Secret that is there, by its uid.
///
/// First its uid, then a look at the Workspace: a newer leader raises the epoch before it makes a Secret, so one that it
/// made is never deleted. The uid comes from a delete that is a dry run, because the operator may read no Secret.
async fn make_room(ctx: &Context, api: &Api<Secret>, workspace: &Workspace) -> Result<(), Error> {
    let namespace = workspace.namespace().unwrap_or_default();
    let name = format!("Secret {namespace}/{SSH_SECRET}");
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    let rehearsal = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let uid = match api.delete(SSH_SECRET, &rehearsal).await {
        Ok(answer) => answer.either(|secret| secret.uid(), |status| status.details.map(|details| details.uid)),
        Err(error) if gone(&error) => return Ok(()),
        Err(source) => return Err(Error::request("delete", name, source)),
    };
    let uid = uid.filter(|uid| !uid.is_empty());
    let changed = || Error::Conflict { object: live::describe(&namespace) };
    let live = live::get(ctx, &namespace).await?;
    let ours = epoch::raised(ctx, &namespace, workspace, 0).await?;
    let status = live.status.as_ref();
    let unpublished = status.is_some_and(|status| status.epoch == ours && status.ssh_public_key.is_none());
    let (Some(uid), true) = (uid, unpublished && live.uid() == workspace.uid()) else { return Err(changed()) };
    let exactly = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(SSH_SECRET, &exactly).await {
        Ok(_) => Ok(()),
        Err(error) if gone(&error) => Ok(()),
        Err(source) => Err(Error::request("delete", name, source)),
    }
}
