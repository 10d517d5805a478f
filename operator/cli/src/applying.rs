//! Writing an object: server-side apply or creation, one request for each.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Api, Resource, ResourceExt};

use crate::cluster::Cluster;
use crate::manifest::{Document, DocumentKind};
use crate::request::{RequestError, check_address};

/// Who writes, for server-side apply.
pub(crate) const FIELD_MANAGER: &str = "provisioning-cli";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Configured,
    Unchanged,
    /// It is as it was asked for; whether it was before, the answer does not tell.
    Applied,
}

impl Outcome {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Applied => "applied",
        }
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// The API server checks, and changes nothing.
    pub(crate) dry_run: bool,
    /// Fields that somebody else manages are taken over.
    pub(crate) force: bool,
}

/// An object as the API server has it now, or would have it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) outcome: Outcome,
    pub(crate) object: DynamicObject,
}

/// Where objects of a document's kind are.
pub(crate) fn place(document: &Document) -> (ApiResource, Option<&str>) {
    match document.kind {
        DocumentKind::Namespace => (ApiResource::erase::<Namespace>(&()), None),
        DocumentKind::Ours(kind) => (kind.resource(), Some(document.namespace.as_str())),
    }
}

/// A document and its namespace, for messages.
pub(crate) fn named(document: &Document) -> String {
    let within = place(document).1.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    format!("{document}{within}")
}

/// Applies one object; a second request only where the first one conflicts with nothing but what this program wrote
/// before in another way (`create`, `suspend`): that is no one else's.
pub(crate) async fn apply(cluster: &Cluster, document: &Document, how: How) -> Result<Written, RequestError> {
    match once(cluster, document, how).await {
        Err(RequestError::Refused { status, .. }) if !how.force && is_own(&status) => {
            once(cluster, document, How { force: true, ..how }).await
        }
        other => other,
    }
}

/// Whether all fields of a conflict are managed by this program.
fn is_own(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let own = format!("conflict with \"{FIELD_MANAGER}\"");
    status.code == 409 && !causes.is_empty() && causes.iter().all(|cause| cause.message.starts_with(&own))
}

async fn once(cluster: &Cluster, document: &Document, how: How) -> Result<Written, RequestError> {
    let (resource, namespace) = place(document);
    check_address(namespace, &document.name)?;
    let what = named(document);
    let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
    parameters.dry_run = how.dry_run;
    parameters.force = how.force;
    let url = DynamicObject::url_path(&resource, namespace);
    let failed = |error| RequestError::new(cluster, "apply", what.clone(), error);
    let request = Request::new(url).patch(&document.name, &parameters, &Patch::Apply(&document.json));
    let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    let begin = Instant::now();
    let reply = cluster.client.send(request.map(Body::from)).await.map_err(failed)?;
    let (code, date) = (reply.status(), reply.headers().get("date").cloned());
    let body = reply.into_body().collect_bytes().await.map_err(failed)?;
    if !code.is_success() {
        let text = String::from_utf8_lossy(&body);
        let status = serde_json::from_str::<Status>(&text)
            .unwrap_or_else(|_| Status::failure(text.trim(), "").with_code(code.as_u16()));
        return Err(RequestError::from_status("apply", what, status.boxed()));
    }
    let object: DynamicObject =
        serde_json::from_slice(&body).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()).map(|date| date.timestamp());
    let outcome = outcome(code.as_u16() == 201, last_change(&object), date, begin.elapsed());
    Ok(Written { outcome, object })
}

/// Creates one object; one that is there already is refused by the API server.
pub(crate) async fn create(cluster: &Cluster, document: &Document, dry_run: bool) -> Result<(), RequestError> {
    let (resource, namespace) = place(document);
    check_address(namespace, &document.name)?;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let failed = |error| RequestError::new(cluster, "create", named(document), error);
    let object = serde_json::from_value(document.json.clone());
    let object: DynamicObject = object.map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let parameters = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
    api.create(&parameters, &object).await.map(drop).map_err(failed)
}

/// When this program last changed the object, as the API server remembers it.
fn last_change(object: &DynamicObject) -> Option<Timestamp> {
    let own = object.managed_fields().iter().find(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    });
    own?.time.as_ref().map(|time| time.0)
}

/// Whether this request changed anything.
///
/// 201 says that it created. Otherwise the API server moves the time of our entry in `managedFields` exactly when something
/// changed, and the reply's own `Date` is of the same clock: an entry from before the request means that nothing did. Both
/// have whole seconds, so an object that was changed within the second before is told as changed once too often.
fn outcome(created: bool, changed: Option<Timestamp>, date: Option<Timestamp>, took: Duration) -> Outcome {
    if created {
        return Outcome::Created;
    }
    let (Some(changed), Some(date)) = (changed, date) else { return Outcome::Applied };
    let since = date.duration_since(changed).as_secs_f64();
    if since > took.as_secs_f64() + 1.0 { Outcome::Unchanged } else { Outcome::Configured }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Exit;
    use crate::manifest::tests::documents;
    use crate::stub::{Stub, reply};

    const TWO: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: first}
---
apiVersion: provisioning.dev/v1alpha1
kind: Workspace
metadata: {name: workspace, namespace: first}
spec: {}
";

    #[test]
    fn only_what_the_answer_tells_is_said() {
        let at = |second| Timestamp::from_second(second).ok();
        let moment = Duration::from_millis(5);
        assert_eq!(outcome(true, None, None, moment), Outcome::Created);
        assert_eq!(outcome(false, at(100), at(100), moment), Outcome::Configured);
        assert_eq!(outcome(false, at(100), at(102), moment), Outcome::Unchanged);
        assert_eq!(outcome(false, at(100), at(102), Duration::from_secs(3)), Outcome::Configured);
        assert_eq!(outcome(false, None, at(102), moment), Outcome::Applied);
        assert_eq!(outcome(false, at(100), None, moment), Outcome::Applied);
    }

    #[tokio::test]
    async fn each_object_is_one_request() {
        let stub = Stub::new(|request| {
            let created = request.uri().path().ends_with("/namespaces/first");
            reply(if created { 201 } else { 200 }, json!({"metadata": {"name": "x"}}))
        });
        let cluster = stub.cluster();
        let how = How { dry_run: true, force: false };
        let mut outcomes = Vec::new();
        for document in &documents(TWO) {
            outcomes.push(apply(&cluster, document, how).await.unwrap().outcome);
        }
        assert_eq!(outcomes, [Outcome::Created, Outcome::Applied]);
        let parameters = "&dryRun=All&fieldManager=provisioning-cli&fieldValidation=Strict";
        let expected = [
            format!("PATCH /api/v1/namespaces/first?{parameters}"),
            format!("PATCH /apis/provisioning.dev/v1alpha1/namespaces/first/workspaces/workspace?{parameters}"),
        ];
        assert_eq!(stub.requests(), expected);
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_its_fields() {
        let stub = Stub::new(|_| {
            reply(
                422,
                json!({"kind": "Status", "code": 422, "reason": "Invalid", "details": {"name": "first",
                "causes": [{"field": "spec.parallelism", "message": "too many"}]}}),
            )
        });
        let error = apply(&stub.cluster(), &documents(TWO)[1], How::default()).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().ends_with("\n  spec.parallelism: too many"), "{error}");
    }

    /// A server that knows of a conflict with this manager, unless it is forced.
    fn conflicting(manager: &'static str) -> Stub {
        Stub::new(move |request| match request.uri().query().unwrap_or_default().contains("force=true") {
            true => reply(200, json!({"metadata": {"name": "workspace"}})),
            false => reply(
                409,
                json!({"kind": "Status", "code": 409, "reason": "Conflict", "details": {"causes": [
                    {"reason": "FieldManagerConflict", "field": ".spec.suspend",
                     "message": format!("conflict with \"{manager}\" using provisioning.dev/v1alpha1")}]}}),
            ),
        })
    }

    #[tokio::test]
    async fn what_this_program_wrote_itself_is_no_conflict() {
        let document = &documents(TWO)[1];
        let own = conflicting(FIELD_MANAGER);
        apply(&own.cluster(), document, How::default()).await.unwrap();
        assert_eq!(own.requests().len(), 2);
        let other = conflicting("kubectl");
        assert!(apply(&other.cluster(), document, How::default()).await.is_err());
        assert_eq!(other.requests().len(), 1);
    }
}
