//! Requests whose answers are read as far as they are needed. An answer holds more than was asked for: who wrote which
//! field of an object, which anybody who may edit it can make as large as the store takes (ADR 26).

use http::Request;
use kube::api::{Api, DeleteParams, DynamicObject, GetParams, ListParams, ObjectList, Patch, PatchParams, PostParams};
use kube::core::{PartialObjectMeta, request};
use kube::{Client, Resource, ResourceExt};
use provisioning_api::names::MANAGER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::guarded::Guarded;
use crate::watches::PAGE;

type Metadata = PartialObjectMeta<DynamicObject>;

/// What a list tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its resourceVersion.
    pub version: Option<String>,
    /// It is on its way out.
    pub is_deleted: bool,
}

/// Replaces status; returns the object as the API server has it then.
///
/// # Errors
/// [`Error::Conflict`] where the object, which is described in words, changed since it was read.
pub async fn replace_status<K>(client: &Client, object: &K, described: &str) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let encode = |source| Error::Encode { object: described.to_owned(), source };
    let text = serde_json::to_vec(object).map_err(encode)?;
    let path = K::url_path(&(), object.meta().namespace.as_deref());
    let request = request::Request::new(path).replace_subresource("status", &object.name_any(), &by_us(), text);
    let written = ask::<Guarded<K>>(client, request).await;
    written.map_err(|source| Error::request("update", described, source))?.readable(described)
}

/// Writes the list of finalizers, if the object is still the one that was read; returns it as the API server has it then.
///
/// # Errors
/// [`Error::Conflict`] where it is not.
pub async fn patch_finalizers<K>(
    client: &Client,
    object: &K,
    finalizers: &[String],
    described: &str,
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let patch = serde_json::json!({"metadata": {
        "resourceVersion": object.meta().resource_version,
        "finalizers": finalizers,
    }});
    let path = K::url_path(&(), object.meta().namespace.as_deref());
    let request = request::Request::new(path).patch(&object.name_any(), &patched_by_us(), &Patch::Merge(patch));
    let written = ask::<Guarded<K>>(client, request).await;
    written.map_err(|source| Error::request("patch", described, source))?.readable(described)
}

/// What an object is called, and by whom it was labelled; not what is in it.
///
/// # Errors
/// kube's, where the API server does not answer.
pub async fn metadata(api: &Api<DynamicObject>, name: &str) -> Result<Option<Guarded<Metadata>>, kube::Error> {
    let request = request::Request::new(api.resource_url()).get_metadata(name, &GetParams::default());
    match ask(&api.clone().into_client(), request).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// All objects with these labels, page by page.
///
/// # Errors
/// kube's, where the API server does not answer.
pub async fn list<K: Resource + Clone>(api: &Api<K>, labels: &str) -> Result<Vec<Listed>, kube::Error> {
    let client = api.clone().into_client();
    let mut page = ListParams::default().labels(labels).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let request = request::Request::new(api.resource_url()).list_metadata(&page);
        let answer: ObjectList<Guarded<Metadata>> = ask(&client, request).await?;
        found.extend(answer.items.iter().map(|object| Listed {
            name: object.name_any(),
            version: object.resource_version(),
            is_deleted: object.meta().deletion_timestamp.is_some(),
        }));
        match answer.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Creates an object. The answer, which is all of it, stays a text.
///
/// # Errors
/// kube's, where the API server does not answer or refuses.
pub async fn create(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), kube::Error> {
    let text = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request = request::Request::new(api.resource_url()).create(&by_us(), text);
    pass_over(&api.clone().into_client(), request).await
}

/// Replaces an object. The answer, which is all of it, stays a text.
///
/// # Errors
/// kube's, where the API server does not answer or refuses.
pub async fn replace(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), kube::Error> {
    let text = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request = request::Request::new(api.resource_url()).replace(&object.name_any(), &by_us(), text);
    pass_over(&api.clone().into_client(), request).await
}

/// Patches what an object is called and labelled. The answer stays a text.
///
/// # Errors
/// kube's, where the API server does not answer or refuses.
pub async fn patch_metadata<K: Resource + Clone>(
    api: &Api<K>,
    name: &str,
    patch: &serde_json::Value,
) -> Result<(), kube::Error> {
    let request =
        request::Request::new(api.resource_url()).patch_metadata(name, &patched_by_us(), &Patch::Merge(patch));
    pass_over(&api.clone().into_client(), request).await
}

/// Deletes an object. False: it was not there. The answer, which may be all of it, stays a text.
///
/// # Errors
/// kube's, where the API server does not answer or refuses.
pub async fn delete<K: Resource + Clone>(
    api: &Api<K>,
    name: &str,
    parameters: &DeleteParams,
) -> Result<bool, kube::Error> {
    let request = request::Request::new(api.resource_url()).delete(name, parameters);
    match pass_over(&api.clone().into_client(), request).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a request and leaves the answer a text.
///
/// # Errors
/// kube's, where the API server does not answer or refuses, or where this is no request.
pub async fn pass_over(client: &Client, request: Result<Request<Vec<u8>>, request::Error>) -> Result<(), kube::Error> {
    client.request_text(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

fn by_us() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn patched_by_us() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<Request<Vec<u8>>, request::Error>,
) -> Result<T, kube::Error> {
    client.request(request.map_err(kube::Error::BuildRequest)?).await
}

#[cfg(test)]
mod tests {
    use http::{Method, Response};
    use kube::client::Body;
    use kube::core::{ApiResource, GroupVersionKind};
    use provisioning_api::Workspace;
    use provisioning_api::names::{GROUP, VERSION};
    use serde_json::json;

    use super::*;

    /// An API server whose answers have a `managedFields` that nobody can decode: whoever reads it fails.
    fn client() -> Client {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let metadata =
                |name: &str| json!({"name": name, "resourceVersion": "7", "managedFields": "as much as it takes"});
            let mut object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "metadata": metadata("heron"),
                "spec": {}});
            let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
            let (code, answer) = match (request.method(), path.rsplit('/').next()) {
                (&Method::GET, Some("workspaces")) if !query.contains("continue=") => {
                    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    (200, json!({"metadata": {"continue": "more"}, "items": [object]}))
                }
                (&Method::GET, Some("workspaces")) => {
                    object["metadata"]["name"] = json!("ibis");
                    (200, json!({"metadata": {}, "items": [object]}))
                }
                (_, Some("bittern")) => {
                    (404, json!({"status": "Failure", "message": "", "reason": "NotFound", "code": 404}))
                }
                _ => (200, object),
            };
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
        });
        Client::new(service, "default")
    }

    fn workspaces() -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, "Workspace");
        Api::namespaced_with(client(), "marsh", &ApiResource::from_gvk(&kind))
    }

    #[tokio::test]
    async fn nothing_decodes_who_wrote_which_field() {
        let api = workspaces();
        let found = metadata(&api, "heron").await.unwrap().unwrap();
        assert_eq!(found.readable("it").unwrap().metadata.resource_version.as_deref(), Some("7"));
        assert!(metadata(&api, "bittern").await.unwrap().is_none());
        let object: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "heron"}})).unwrap();
        create(&api, &object).await.unwrap();
        replace(&api, &object).await.unwrap();
        patch_metadata(&api, "heron", &json!({})).await.unwrap();
        let workspace = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "spec": {},
            "metadata": {"name": "heron", "namespace": "marsh"}});
        let workspace: Workspace = serde_json::from_value(workspace).unwrap();
        let written = replace_status(&client(), &workspace, "status of it").await.unwrap();
        assert_eq!(written.resource_version().as_deref(), Some("7"));
        let written = patch_finalizers(&client(), &workspace, &[], "it").await.unwrap();
        assert_eq!(written.resource_version().as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_last_page() {
        let listed =
            |name: &str, is_deleted| Listed { name: name.to_owned(), version: Some("7".to_owned()), is_deleted };
        assert_eq!(list(&workspaces(), "a=b").await.unwrap(), [listed("heron", true), listed("ibis", false)]);
    }

    #[tokio::test]
    async fn a_deletion_tells_whether_there_was_anything() {
        let parameters = DeleteParams::default();
        assert!(delete(&workspaces(), "heron", &parameters).await.unwrap());
        assert!(!delete(&workspaces(), "bittern", &parameters).await.unwrap());
    }
}
