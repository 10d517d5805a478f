//! What an uninstallation would leave without its operator. The chart asks before it lets helm go on.

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use provisioning_api::names::{GROUP, VERSION, WORKSPACE_NAME};

/// Most objects that are named; the rest is counted.
const NAMED: usize = 40;
/// Most objects of one kind that are looked at.
const PAGE: u32 = 500;

/// An object that is left: namespace, kind, name.
pub type Leftover = (String, String, String);

/// The objects of our kinds in all namespaces, by namespace. The kinds are those that the API server serves: where the
/// CRDs are gone there is nothing left.
///
/// # Errors
/// Where the API server does not answer or refuses: then nobody knows.
pub async fn find(client: &Client) -> Result<Vec<Leftover>, kube::Error> {
    let served = match client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await {
        Ok(served) => served.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for served in served.into_iter().filter(|served| !served.name.contains('/')) {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, &served.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &served.name);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let objects = api.list_metadata(&ListParams::default().limit(PAGE)).await?;
        found.extend(
            objects
                .items
                .iter()
                .map(|object| (object.namespace().unwrap_or_default(), served.kind.clone(), object.name_any())),
        );
    }
    found.sort();
    Ok(found)
}

/// Why the operator must stay, if it must: names what is left and says what to do.
pub fn refusal(found: &[Leftover]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let mut text = "the operator must stay: without it nobody takes down what these objects stand for".to_owned();
    for (namespace, kind, name) in found.iter().take(NAMED) {
        text.push_str(&format!("\n  {kind} {namespace}/{name}"));
    }
    if found.len() > NAMED {
        text.push_str(&format!("\n  and {} more", found.len() - NAMED));
    }
    text.push_str("\ndelete each Workspace first, and what is in it goes in order:");
    let mut namespaces: Vec<&str> = found.iter().map(|(namespace, _, _)| namespace.as_str()).collect();
    namespaces.dedup();
    for namespace in namespaces.iter().take(NAMED) {
        let has_workspace = found.iter().any(|(other, kind, _)| other == namespace && kind == "Workspace");
        if has_workspace {
            text.push_str(&format!("\n  kubectl --namespace {namespace} delete workspace {WORKSPACE_NAME}"));
        } else {
            text.push_str(&format!("\n  kubectl --namespace {namespace} delete {} --all", plurals(found, namespace)));
        }
    }
    Some(text)
}

/// The kinds that are left in a namespace, as kubectl takes them.
fn plurals(found: &[Leftover], namespace: &str) -> String {
    let mut kinds: Vec<String> =
        found.iter().filter(|(other, _, _)| other == namespace).map(|(_, kind, _)| kind.to_lowercase()).collect();
    kinds.dedup();
    kinds.join(",")
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn left(namespace: &str, kind: &str, name: &str) -> Leftover {
        (namespace.to_owned(), kind.to_owned(), name.to_owned())
    }

    /// A client whose API server knows these paths and no other.
    fn client(answers: &'static [(&'static str, &'static str)]) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let known = answers.iter().find(|(path, _)| *path == request.uri().path());
            let (code, body) = match known {
                Some((_, body)) if body.starts_with("403") => (403, status(403, "not for you")),
                Some((_, body)) => (200, serde_json::from_str(body).unwrap()),
                None => (404, status(404, "no such path")),
            };
            Ok::<_, std::convert::Infallible>(
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap(),
            )
        });
        Client::new(service, "default")
    }

    fn status(code: u16, message: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "", "code": code})
    }

    const GROUP_PATH: &str = "/apis/provisioning.dev/v1alpha1";
    const KINDS: &str = r#"{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "provisioning.dev/v1alpha1",
        "resources": [
          {"name": "servers", "singularName": "server", "namespaced": true, "kind": "Server", "verbs": ["list"]},
          {"name": "servers/status", "singularName": "", "namespaced": true, "kind": "Server", "verbs": ["get"]},
          {"name": "nests", "singularName": "nest", "namespaced": true, "kind": "Nest", "verbs": ["list"]}]}"#;
    const SERVERS: &str = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": [
          {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
           "metadata": {"name": "blue-heron", "namespace": "marsh"}}]}"#;
    const NESTS: &str = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": [
          {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
           "metadata": {"name": "reeds", "namespace": "dune"}}]}"#;

    #[tokio::test]
    async fn every_kind_that_is_served_is_looked_at_also_one_that_this_build_does_not_know() {
        let client = client(&[
            (GROUP_PATH, KINDS),
            ("/apis/provisioning.dev/v1alpha1/servers", SERVERS),
            ("/apis/provisioning.dev/v1alpha1/nests", NESTS),
        ]);
        let found = find(&client).await.unwrap();
        assert_eq!(found, [left("dune", "Nest", "reeds"), left("marsh", "Server", "blue-heron")]);
    }

    #[tokio::test]
    async fn nothing_is_left_where_the_kinds_are_gone() {
        assert_eq!(find(&client(&[])).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_list_that_is_refused_is_no_empty_one() {
        let client = client(&[(GROUP_PATH, KINDS), ("/apis/provisioning.dev/v1alpha1/servers", "403")]);
        assert!(find(&client).await.unwrap_err().to_string().contains("not for you"));
    }

    #[test]
    fn what_is_left_is_named_with_the_way_out() {
        let found = [
            left("dune", "Server", "grey-curlew"),
            left("dune", "Taskserv", "cache"),
            left("marsh", "Server", "blue-heron"),
            left("marsh", "Workspace", "workspace"),
        ];
        let expected = "the operator must stay: without it nobody takes down what these objects stand for
  Server dune/grey-curlew
  Taskserv dune/cache
  Server marsh/blue-heron
  Workspace marsh/workspace
delete each Workspace first, and what is in it goes in order:
  kubectl --namespace dune delete server,taskserv --all
  kubectl --namespace marsh delete workspace workspace";
        assert_eq!(refusal(&found).as_deref(), Some(expected));
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn the_list_is_bounded() {
        let many: Vec<Leftover> =
            (0..1000).map(|number| left("marsh", "Server", &format!("heron-{number:03}"))).collect();
        let text = refusal(&many).unwrap();
        assert!(text.contains("\n  and 960 more\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + NAMED + 1 + 1 + 1);
    }
}
