//! ServiceAccounts and RoleBindings of a workspace's executors. Created, never changed.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, PostParams};
use provisioning_api::names::{LABEL_MANAGED_BY, MANAGER};

use crate::context::{Context, lock};
use crate::error::Error;

/// Name of a workspace's RoleBinding in a site.
pub fn site_binding(namespace: &str) -> String {
    format!("workspace-{namespace}")
}

/// Makes a ServiceAccount, if it is not there.
///
/// # Errors
/// Where the API server refuses.
pub async fn account(ctx: &Context, namespace: &str, name: &str) -> Result<(), Error> {
    let account = ServiceAccount { metadata: metadata(name), ..ServiceAccount::default() };
    ensure(ctx, namespace, name, &account).await
}

/// Binds a ClusterRole to an account of `account_namespace` within `namespace`, if that is not done yet.
///
/// # Errors
/// Where the API server refuses.
pub async fn bind(
    ctx: &Context,
    namespace: &str,
    name: &str,
    role: &str,
    account_namespace: &str,
    account: &str,
) -> Result<(), Error> {
    let binding = RoleBinding {
        metadata: metadata(name),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account.to_owned(),
            namespace: Some(account_namespace.to_owned()),
            api_group: None,
        }]),
    };
    ensure(ctx, namespace, name, &binding).await
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

async fn ensure<K>(ctx: &Context, namespace: &str, name: &str, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let key = format!("{} {namespace}/{name}", K::kind(&()));
    if lock(&ctx.made).contains(&key) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    match api.create(&PostParams::default(), object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(source) => return Err(Error::request("create", key, source)),
    }
    lock(&ctx.made).insert(key);
    Ok(())
}
