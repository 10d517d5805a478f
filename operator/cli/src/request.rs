//! Requests to the API server: one for each object or list, and what its refusals mean.

use std::fmt;

use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::Status;
use serde_json::Value;

use crate::applying::FIELD_MANAGER;
use crate::cluster::{Cluster, causes};
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Kind, Target};
use crate::names::{self, NameError};
use crate::output::{program, tell};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespace(String),
    All,
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Namespace(namespace) => write!(formatter, "namespace {namespace}"),
            Scope::All => formatter.write_str("all namespaces"),
        }
    }
}

/// A request that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Nothing can have this name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The API server knows the kind, and no such object.
    #[error("{what}: not found")]
    NotFound { what: String },
    /// There is no such namespace, so nothing can be made in it.
    #[error(
        "failed to {verb} {what}: there is no namespace '{namespace}'; apply it first: kubectl create namespace {namespace}"
    )]
    NoNamespace { verb: &'static str, what: String, namespace: String },
    /// The API server does not know the kind.
    #[error(
        "failed to {verb} {what}: this cluster does not know the kind; install the operator's chart, or its CRDs with \
         `kubectl apply -f crds/`"
    )]
    UnknownKind { verb: &'static str, what: String },
    /// The API server said no.
    #[error("failed to {verb} {what}: {}", refusal(.status))]
    Refused { verb: &'static str, what: String, status: Box<Status> },
    /// It did not answer.
    #[error(transparent)]
    NoAnswer(#[from] crate::cluster::ClusterError),
    /// Its answer can't be read.
    #[error("failed to {verb} {what}: {text}")]
    Answer { verb: &'static str, what: String, text: String },
}

impl RequestError {
    /// Sorts an error of kube into what it means here.
    pub(crate) fn new(cluster: &Cluster, verb: &'static str, what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => Self::from_status(verb, what, status),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::Auth(_) => {
                let tried = cluster.tried.clone().answered(&cluster.server, answer(&error));
                Self::NoAnswer(crate::cluster::ClusterError::NoCluster(tried))
            }
            other => Self::Answer { verb, what, text: causes(&other) },
        }
    }

    pub(crate) fn from_status(verb: &'static str, what: impl Into<String>, status: Box<Status>) -> Self {
        let what = what.into();
        // Only the reply about an object has details; that about a path that nobody serves is plain text.
        let missing = status.details.as_ref().filter(|details| !details.name.is_empty());
        match (status.code, missing) {
            (404, Some(missing)) if missing.kind == "namespaces" => {
                Self::NoNamespace { verb, what, namespace: missing.name.clone() }
            }
            (404, Some(_)) => Self::NotFound { what },
            (404, None) => Self::UnknownKind { verb, what },
            _ => Self::Refused { verb, what, status },
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Name(_) => Exit::Usage,
            Self::NotFound { .. } | Self::NoNamespace { .. } => Exit::No,
            Self::UnknownKind { .. } | Self::Refused { .. } => Exit::Refused,
            Self::NoAnswer(_) => Exit::Unreachable,
            Self::Answer { .. } => Exit::Failed,
        }
    }
}

/// Why there was no answer: the innermost cause is what people know.
fn answer(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A refusal in people's words: every field on a line of its own.
fn refusal(status: &Status) -> String {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let field = |field: &str| field.trim_start_matches('.').to_owned();
    let lines: String = causes
        .iter()
        .map(|cause| match cause.field.as_str() {
            "" | "<nil>" => format!("\n  {}", cause.message),
            name => format!("\n  {}: {}", field(name), cause.message),
        })
        .collect();
    match status.code {
        401 => format!("the API server does not accept these credentials (401): {}", status.message),
        403 => format!("not allowed (403): {}", status.message),
        409 if !causes.is_empty() => format!(
            "somebody else manages these fields (409); take them over with --force-conflicts, or leave them out:{lines}"
        ),
        422 if !causes.is_empty() => format!("the API server refuses it (422):{lines}"),
        code => format!("{} ({code})", status.message),
    }
}

/// Untyped access to a kind.
pub(crate) fn api(cluster: &Cluster, kind: Kind, scope: &Scope) -> Api<DynamicObject> {
    let resource: ApiResource = kind.resource();
    match scope {
        Scope::Namespace(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        Scope::All => Api::all_with(cluster.client.clone(), &resource),
    }
}

/// The last look before an address is made, whoever made the name: nothing escapes what is put into one, so a name `#` or
/// `?` would make it that of all objects of the kind.
pub(crate) fn check_address(namespace: Option<&str>, name: &str) -> Result<(), NameError> {
    namespace.map_or(Ok(()), names::check).and_then(|()| names::check(name))
}

fn own(cluster: &Cluster) -> Scope {
    Scope::Namespace(cluster.namespace.clone())
}

fn in_namespace(cluster: &Cluster, target: &Target) -> String {
    format!("{target} in namespace {}", cluster.namespace)
}

/// One object.
pub(crate) async fn get(cluster: &Cluster, target: &Target) -> Result<Item, RequestError> {
    check_address(Some(&cluster.namespace), &target.name)?;
    let found = api(cluster, target.kind, &own(cluster)).get(&target.name).await;
    let error = |error| RequestError::new(cluster, "get", in_namespace(cluster, target), error);
    found.map(|object| Item::new(target.kind, object)).map_err(error)
}

/// All objects of a kind, by namespace and name.
pub(crate) async fn list(
    cluster: &Cluster,
    kind: Kind,
    scope: &Scope,
    selector: Option<&str>,
) -> Result<Vec<Item>, RequestError> {
    if let Scope::Namespace(namespace) = scope {
        names::check(namespace)?;
    }
    let parameters = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
    let found = api(cluster, kind, scope).list(&parameters).await;
    let error = |error| RequestError::new(cluster, "list", format!("{} in {scope}", kind.plural()), error);
    let mut items: Vec<Item> = found.map_err(error)?.items.into_iter().map(|it| Item::new(kind, it)).collect();
    items.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    Ok(items)
}

/// What came of several requests, and how the command ends: what was refused is told, and the first refusal counts. Without
/// a cluster none of them can be answered.
pub(crate) fn what_came<T>(answers: Vec<Result<T, RequestError>>) -> Result<(Vec<T>, Exit), RequestError> {
    let (mut came, mut exit) = (Vec::new(), Exit::Done);
    for answer in answers {
        match answer {
            Ok(answer) => came.push(answer),
            Err(error @ RequestError::NoAnswer(_)) => return Err(error),
            Err(error) => {
                tell(&format!("error: {error}"));
                exit = if exit == Exit::Done { error.exit() } else { exit };
            }
        }
    }
    Ok((came, exit))
}

/// Merges a change into one object. With a `resourceVersion` in it, only while the object is still that one.
pub(crate) async fn merge(
    cluster: &Cluster,
    target: &Target,
    change: &Value,
    dry_run: bool,
) -> Result<Item, RequestError> {
    check_address(Some(&cluster.namespace), &target.name)?;
    let parameters = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let changed =
        api(cluster, target.kind, &own(cluster)).patch(&target.name, &parameters, &Patch::Merge(change)).await;
    let error = |error| RequestError::new(cluster, "change", in_namespace(cluster, target), error);
    changed.map(|object| Item::new(target.kind, object)).map_err(error)
}

/// What a deletion led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The object is gone.
    Done,
    /// It waits until all that it stands for is taken down.
    Started,
}

/// Asks for the deletion of one object, or whether it would be allowed.
pub(crate) async fn delete(
    cluster: &Cluster,
    target: &Target,
    namespace: &str,
    dry_run: bool,
) -> Result<Deletion, RequestError> {
    check_address(Some(namespace), &target.name)?;
    let scope = Scope::Namespace(namespace.to_owned());
    let parameters = DeleteParams { dry_run, ..DeleteParams::background() };
    let reply = api(cluster, target.kind, &scope).delete(&target.name, &parameters).await;
    let what = format!("{target} in {scope}");
    let reply = reply.map_err(|error| RequestError::new(cluster, "delete", what, error))?;
    Ok(if reply.is_left() { Deletion::Started } else { Deletion::Done })
}

/// An error about an object in words, with the hint where there is no such object.
pub(crate) fn explained(error: &RequestError, kind: Kind, namespace: &str) -> String {
    match error {
        RequestError::NotFound { .. } => format!("{error}; {}", list_hint(kind, namespace)),
        _ => error.to_string(),
    }
}

/// Ends with this hint where an object is not found.
pub(crate) fn list_hint(kind: Kind, namespace: &str) -> String {
    format!("see what is there: {} list {kind} -n {namespace}", program())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> Box<Status> {
        Box::new(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_refusal_names_every_field() {
        let reply = status(serde_json::json!({"code": 422, "reason": "Invalid", "message": "x", "details": {
            "name": "heron", "causes": [
                {"reason": "FieldValueInvalid", "field": "spec", "message": "Invalid value: give exactly one of size and providerSize"},
                {"reason": "FieldValueInvalid", "field": "<nil>", "message": "some rules were not checked"}]}}));
        let error = RequestError::from_status("apply", "server/heron", reply);
        assert_eq!(
            error.to_string(),
            "failed to apply server/heron: the API server refuses it (422):\n  spec: Invalid value: give exactly one of \
             size and providerSize\n  some rules were not checked"
        );
        assert_eq!(error.exit(), Exit::Refused);
    }

    #[tokio::test]
    async fn nothing_is_sent_about_what_nothing_can_be_called() {
        let stub = crate::stub::Stub::new(|_| crate::stub::reply(200, serde_json::json!({"metadata": {}})));
        let cluster = stub.cluster();
        for name in names::tests::NONE {
            let target = Target { kind: Kind::Server, name: name.to_owned() };
            let elsewhere = Cluster { namespace: name.to_owned(), ..cluster.clone() };
            let heron = Target { kind: Kind::Server, name: "heron".to_owned() };
            let change = serde_json::json!({});
            let errors = [
                get(&cluster, &target).await.unwrap_err(),
                get(&elsewhere, &heron).await.unwrap_err(),
                merge(&cluster, &target, &change, false).await.unwrap_err(),
                merge(&elsewhere, &heron, &change, false).await.unwrap_err(),
                delete(&cluster, &target, "first", false).await.unwrap_err(),
                delete(&cluster, &heron, name, false).await.unwrap_err(),
                list(&cluster, Kind::Server, &Scope::Namespace(name.to_owned()), None).await.unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.exit() == Exit::Usage), "{name:?}: {errors:?}");
        }
        assert_eq!(stub.requests(), [""; 0]);
    }

    #[test]
    fn a_missing_object_is_not_a_missing_kind() {
        let object = status(serde_json::json!({"code": 404, "reason": "NotFound", "details": {"name": "heron"}}));
        let error = RequestError::from_status("get", "server/heron", object);
        assert_eq!((error.to_string().as_str(), error.exit()), ("server/heron: not found", Exit::No));
        let path = status(serde_json::json!({"code": 404, "message": "404 page not found"}));
        let error = RequestError::from_status("list", "servers", path);
        assert!(error.to_string().contains("does not know the kind"), "{error}");
    }

    #[test]
    fn a_conflict_says_who_and_how_to_go_on() {
        let reply = status(serde_json::json!({"code": 409, "reason": "Conflict", "details": {"causes": [
            {"reason": "FieldManagerConflict", "field": ".spec.parallelism", "message": "conflict with \"kubectl\""}]}}));
        let error = RequestError::from_status("apply", "workspace/workspace", reply).to_string();
        assert!(error.contains("--force-conflicts"), "{error}");
        assert!(error.ends_with("\n  spec.parallelism: conflict with \"kubectl\""), "{error}");
    }
}
