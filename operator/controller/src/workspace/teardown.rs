// The way down: workflows, then clusters, then services, then servers, then providers; the protection of the namespace goes last.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{
    EXECUTOR_ACCOUNT, FINALIZER, LABEL_EXTENSION, LABEL_MANAGED_BY, LOCAL_PROVIDER_ACCOUNT, MANAGER, SSH_SECRET,
};
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use provisioning_plan::conditions::Standing;

use super::{LOOK_AGAIN, accounts, live, report, set_live};
use crate::answers;
use crate::context::{Context, lock};
use crate::engine::finalize::delete;
use crate::engine::kind::{Kind, all_in_namespace};
use crate::engine::persist::api;
use crate::error::Error;

pub(crate) async fn go_on(ctx: &Context, workspace: &Workspace) -> Result<Action, Error> {
    let namespace = workspace.namespace().unwrap_or_default();
    let left = [
        take_down::<BatchWorkflow>(ctx, &namespace).await?,
        take_down::<Cluster>(ctx, &namespace).await?,
        take_down::<Taskserv>(ctx, &namespace).await?,
        take_down::<Server>(ctx, &namespace).await?,
        take_down::<ProviderConfig>(ctx, &namespace).await?,
    ];
    if let Some(text) = left.into_iter().flatten().next() {
        report(ctx, workspace, Standing::reconciling(reasons::DELETING, text), String::new()).await?;
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    remove_ground(ctx, &namespace).await?;
    set_live(ctx, &namespace, false).await?;
    let rest: Vec<String> = workspace.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    live::patch_finalizers(ctx, workspace, &rest).await?;
    forget(ctx, &namespace).await;
    Ok(Action::await_change())
}

/// Deletes all objects of a kind, unless an earlier kind is still going. Says what is waited for.
async fn take_down<K: Kind>(ctx: &Context, namespace: &str) -> Result<Option<String>, Error> {
    let objects = all_in_namespace(K::store(&ctx.stores), namespace);
    let mut waits = None;
    for guarded in &objects {
        let Ok(object) = &guarded.0 else {
            let text = format!("waits for {} {}, which cannot be read: correct it first", K::KIND, guarded.name_any());
            waits.get_or_insert(text);
            continue;
        };
        if object.meta().deletion_timestamp.is_none() && !earlier_kinds_live::<K>(ctx, namespace) {
            delete(&api::<K>(ctx, object), &object.name_any()).await?;
        }
        let text = object.stalled().map(|condition| condition.message.clone()).unwrap_or_default();
        waits.get_or_insert_with(|| {
            let more = if text.is_empty() { String::new() } else { format!(": {text}") };
            format!("waits for {} {}{more}", K::KIND, object.name_any())
        });
    }
    Ok(waits)
}

/// Whether kinds that must go before this one still have objects.
fn earlier_kinds_live<K: Kind>(ctx: &Context, namespace: &str) -> bool {
    let some = |count: usize| count > 0;
    let workflows = some(all_in_namespace(&ctx.stores.workflows, namespace).len());
    let clusters = workflows || some(all_in_namespace(&ctx.stores.clusters, namespace).len());
    let taskservs = clusters || some(all_in_namespace(&ctx.stores.taskservs, namespace).len());
    let servers = some(all_in_namespace(&ctx.stores.servers, namespace).len());
    match K::KIND {
        "Cluster" => workflows,
        "Taskserv" => clusters,
        "Server" => taskservs,
        "ProviderConfig" => taskservs || servers,
        _ => false,
    }
}

async fn remove_ground(ctx: &Context, namespace: &str) -> Result<(), Error> {
    for site in &ctx.settings.sites {
        let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), site);
        delete(&bindings, &accounts::site_binding(namespace)).await?;
    }
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), namespace);
    let service_accounts: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), namespace);
    for account in [EXECUTOR_ACCOUNT, LOCAL_PROVIDER_ACCOUNT] {
        delete(&bindings, account).await?;
        delete(&service_accounts, account).await?;
    }
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    delete(&secrets, SSH_SECRET).await?;
    let maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    let copies = answers::list(&maps, &format!("{LABEL_MANAGED_BY}={MANAGER},{LABEL_EXTENSION}")).await;
    let copies = copies.map_err(|source| Error::request("list", format!("bundle copies in {namespace}"), source))?;
    for map in copies {
        delete(&maps, &map.name).await?;
    }
    Ok(())
}

/// A Workspace that is made here later starts from nothing.
async fn forget(ctx: &Context, namespace: &str) {
    ctx.forget_made(namespace);
    let binding = format!("/{}", accounts::site_binding(namespace));
    lock(&ctx.made).retain(|key| !key.ends_with(&binding));
    *ctx.epochs.cell(namespace).lock().await = None;
    // Absent is as good: a label that was never set cannot be removed.
    let _ = ctx.metrics.epoch.remove_label_values(&[namespace]);
}
