//! The Workspace as the API server has it now. Who wrote which field of it can be as much as the store takes, and each
//! effect is preceded by such a read: so it is passed over, like in the kinds that run steps.

use kube::ResourceExt;
use kube::api::Api;
use provisioning_api::Workspace;
use provisioning_api::names::WORKSPACE_NAME;

use crate::answers;
use crate::context::Context;
use crate::error::Error;
use crate::guarded::Guarded;

/// `Workspace namespace/name`, for errors.
pub fn describe(namespace: &str) -> String {
    format!("Workspace {namespace}/{WORKSPACE_NAME}")
}

/// The Workspace of a namespace, if there is one.
///
/// # Errors
/// Where the API server does not answer, or with what is no Workspace.
pub async fn find(ctx: &Context, namespace: &str) -> Result<Option<Workspace>, Error> {
    let object = describe(namespace);
    let live = api(ctx, namespace).get_opt(WORKSPACE_NAME).await;
    let live = live.map_err(|source| Error::request("read", &object, source))?;
    live.map(|live| live.readable(&object)).transpose()
}

/// The Workspace of a namespace that has one.
///
/// # Errors
/// As [`find`], and where there is none.
pub async fn get(ctx: &Context, namespace: &str) -> Result<Workspace, Error> {
    let object = describe(namespace);
    let live = api(ctx, namespace).get(WORKSPACE_NAME).await;
    live.map_err(|source| Error::request("read", &object, source))?.readable(&object)
}

/// Replaces status.
///
/// # Errors
/// [`Error::Conflict`] where the Workspace changed since it was read.
pub async fn write_status(ctx: &Context, workspace: &Workspace) -> Result<(), Error> {
    let object = format!("status of {}", describe(&workspace.namespace().unwrap_or_default()));
    answers::replace_status(&ctx.client, workspace, &object).await.map(drop)
}

/// Writes the list of finalizers, if the Workspace is still the one that was read.
///
/// # Errors
/// [`Error::Conflict`] where it is not.
pub async fn patch_finalizers(ctx: &Context, workspace: &Workspace, finalizers: &[String]) -> Result<Workspace, Error> {
    let object = describe(&workspace.namespace().unwrap_or_default());
    answers::patch_finalizers(&ctx.client, workspace, finalizers, &object).await
}

fn api(ctx: &Context, namespace: &str) -> Api<Guarded<Workspace>> {
    Api::namespaced(ctx.client.clone(), namespace)
}
