//! Steps without a Job: one API write on a child object (protocols §2).

pub mod view;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{
    ANNOTATION_APPLIED, ANNOTATION_RECONCILE, GROUP, LABEL_MANAGED_BY, LABEL_OWNER_KIND, LABEL_OWNER_NAME,
    LABEL_OWNER_UID, MANAGER, VERSION,
};
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_plan::observed::Outcome;

use crate::answers;
use crate::context::Context;
use crate::engine::kind::{Child, Kind};
use crate::engine::runs::{Knowledge, RunKey};
use crate::error::Error;

fn api(ctx: &Context, namespace: &str, kind: &str) -> (Api<DynamicObject>, ApiResource) {
    let gvk = GroupVersionKind::gvk(GROUP, VERSION, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &format!("{}s", kind.to_lowercase()));
    (Api::namespaced_with(ctx.client.clone(), namespace, &resource), resource)
}

/// What is there by a child's name, without what is in it: it may be anybody's, and as large as it can be.
async fn look(
    api: &Api<DynamicObject>,
    child: &Child,
    described: &str,
) -> Result<Option<PartialObjectMeta<DynamicObject>>, Error> {
    let found = answers::metadata(api, &child.name).await;
    let found = found.map_err(|source| Error::request("read", described, source))?;
    found.map(|found| found.readable(described)).transpose()
}

/// Creates or updates the child. True: the run ended right here, with a refusal.
///
/// # Errors
/// Where the API server does not answer, or the child changed in between.
pub async fn apply<K: Kind>(
    ctx: &Context,
    owner: &K,
    step: &StepStatus,
    child: &Child,
    key: RunKey,
) -> Result<bool, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let (api, resource) = api(ctx, &namespace, child.kind);
    let name = format!("{} {namespace}/{}", child.kind, child.name);
    let found = look(&api, child, &name).await?;
    let existed = found.is_some();
    if let Some(other) = found.as_ref().filter(|other| !is_ours(owner, *other)) {
        ctx.runs.set(key, Knowledge::Over(taken(owner, other, child)));
        return Ok(true);
    }
    if found.as_ref().is_some_and(|live| is_past(live, step)) {
        return Err(Error::Conflict { object: name });
    }
    if found.as_ref().is_some_and(|live| live.metadata.deletion_timestamp.is_some()) {
        // Its end wakes the owner, whose pass then comes here again.
        return Ok(false);
    }
    // Its status is not written with it, and its spec is ours.
    let new = DynamicObject::new(&child.name, &resource).within(&namespace);
    let mut object = match found {
        Some(live) => DynamicObject { metadata: live.metadata, ..new },
        None => new,
    };
    fill(&mut object, owner, step, child);
    let written = if existed { answers::replace(&api, &object).await } else { answers::create(&api, &object).await };
    match written {
        Ok(()) => {
            ctx.runs.set(key, Knowledge::Created(ctx.now()));
            Ok(false)
        }
        Err(source) => {
            let Some(mut outcome) = refusal(&source) else {
                return Err(Error::request(if existed { "update" } else { "create" }, name, source));
            };
            outcome.harmless = !existed;
            ctx.runs.set(key, Knowledge::Over(outcome));
            Ok(true)
        }
    }
}

/// The end of a step whose write was refused, in the API server's own words. What its code says: not as it is written (a
/// rule of the CRD, and a policy that gives no reason of its own), or not by us and not now (rights, a quota, a policy
/// with reason Forbidden), which may change without the object.
fn refusal(error: &kube::Error) -> Option<Outcome> {
    let kube::Error::Api(status) = error else { return None };
    let (class, reason) = match status.code {
        400 | 422 => (FailureClass::Invalid, "Refused"),
        403 => (FailureClass::Unauthorized, "Forbidden"),
        _ => return None,
    };
    Some(Outcome::failed(class, reason, status.message.clone()))
}

/// Value of the annotation that says which run of which step wrote a child last.
pub fn applied_by(step: &StepStatus) -> String {
    format!("{}/{}", step.id, step.run)
}

/// Value of the reconcile annotation by which a repeated try asks the child to try again, too. The run first: of a long
/// value only the beginning is read.
pub fn asks_again<K: Kind>(owner: &K, step: &StepStatus) -> Option<String> {
    let is_repeated = step.attempt > 0 || step.losses > 0 || step.run > 1;
    is_repeated.then(|| format!("{}/{}", step.run, owner.name_any()))
}

/// Whether a child was written by a later run of this step already: then whoever asks has slept.
fn is_past(live: &impl ResourceExt, step: &StepStatus) -> bool {
    let applied = live.annotations().get(ANNOTATION_APPLIED).and_then(|value| value.rsplit_once('/'));
    applied.is_some_and(|(id, run)| id == step.id && run.parse::<i64>().is_ok_and(|run| run > step.run))
}

fn fill<K: Kind>(object: &mut DynamicObject, owner: &K, step: &StepStatus, child: &Child) {
    let labels = object.labels_mut();
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(LABEL_OWNER_UID.to_owned(), owner.uid().unwrap_or_default());
    labels.insert(LABEL_OWNER_KIND.to_owned(), K::KIND.to_owned());
    labels.insert(LABEL_OWNER_NAME.to_owned(), owner.name_any());
    let annotations = object.annotations_mut();
    annotations.insert(ANNOTATION_APPLIED.to_owned(), applied_by(step));
    if let Some(reconcile) = &child.reconcile {
        annotations.insert(ANNOTATION_RECONCILE.to_owned(), reconcile.clone());
    }
    if !object.data.is_object() {
        object.data = serde_json::json!({});
    }
    object.data["spec"] = child.spec.clone();
}

/// Lets go of the children that an owner no longer stands for; of all of them at its own end.
///
/// # Errors
/// Where the API server refuses.
pub async fn release_left<K: Kind>(ctx: &Context, owner: &K, all: bool) -> Result<(), Error> {
    // At its own end the caches are not enough: a child may have been made that they have not seen.
    let left = if all { owned(ctx, owner).await? } else { view::left_behind(&ctx.stores, owner) };
    let namespace = owner.namespace().unwrap_or_default();
    for child in left {
        release(&api(ctx, &namespace, child.kind).0, &child).await?;
    }
    Ok(())
}

/// A child as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// Its resourceVersion.
    pub version: Option<String>,
}

/// Takes our labels off a child: from now on it stands for itself, and nobody holds it back.
///
/// # Errors
/// Where the API server refuses, or the child changed in between: somebody else may have made it anew by the same name.
async fn release(api: &Api<DynamicObject>, child: &Held) -> Result<(), Error> {
    let Held { kind, name, version } = child;
    let patch = serde_json::json!({"metadata": {
        "resourceVersion": version,
        "labels": {LABEL_OWNER_UID: null, LABEL_OWNER_KIND: null, LABEL_OWNER_NAME: null},
        "annotations": {ANNOTATION_APPLIED: null},
    }});
    match answers::patch_metadata(api, name, &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => {
            let namespace = api.namespace().unwrap_or_default();
            Err(Error::request("patch", format!("{kind} {namespace}/{name}"), source))
        }
    }
}

/// Kinds that a child may have.
const CHILD_KINDS: [&str; 3] = ["Server", "Taskserv", "Cluster"];

/// Everything that carries this owner's uid and is not on its way out, from the API server itself.
///
/// # Errors
/// Where it does not answer.
async fn owned<K: Kind>(ctx: &Context, owner: &K) -> Result<Vec<Held>, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let labels = format!("{LABEL_OWNER_UID}={}", owner.uid().unwrap_or_default());
    let mut found = Vec::new();
    for kind in CHILD_KINDS {
        let list = answers::list(&api(ctx, &namespace, kind).0, &labels).await;
        let list = list.map_err(|source| Error::request("list", format!("{kind}s in {namespace}"), source))?;
        let stays = list.into_iter().filter(|child| !child.is_deleted);
        found.extend(stays.map(|child| Held { kind, name: child.name, version: child.version }));
    }
    Ok(found)
}

fn is_ours<K: Kind>(owner: &K, object: &impl ResourceExt) -> bool {
    object.labels().get(LABEL_OWNER_UID) == owner.uid().as_ref()
}

fn taken<K: Kind>(owner: &K, other: &impl ResourceExt, child: &Child) -> Outcome {
    let (kind, name, whose) = (child.kind, &child.name, owner_of(other));
    let (own_kind, own_name) = (K::KIND, owner.name_any());
    conflict(format!(
        "{kind} '{name}' exists and {whose}: {own_kind} '{own_name}' does not take it over; choose another name"
    ))
}

fn owner_of(object: &impl ResourceExt) -> String {
    let labels = object.labels();
    match (labels.get(LABEL_OWNER_KIND), labels.get(LABEL_OWNER_NAME)) {
        (Some(kind), Some(name)) => format!("belongs to {kind} '{name}'"),
        _ => "was made by somebody else".to_owned(),
    }
}

fn conflict(text: String) -> Outcome {
    let mut outcome = Outcome::failed(FailureClass::Invalid, reasons::NAME_CONFLICT, text);
    outcome.harmless = true;
    outcome
}

/// Deletes the child if it is ours. True: there is nothing (left) to delete.
///
/// # Errors
/// Where the API server does not answer.
pub async fn delete<K: Kind>(ctx: &Context, owner: &K, child: &Child, key: RunKey) -> Result<bool, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let (api, _) = api(ctx, &namespace, child.kind);
    let name = format!("{} {namespace}/{}", child.kind, child.name);
    let found = look(&api, child, &name).await?;
    let Some(live) = found.filter(|live| is_ours(owner, live)) else {
        ctx.runs.set(key, Knowledge::Over(Outcome::succeeded()));
        return Ok(true);
    };
    if live.metadata.deletion_timestamp.is_none() {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: live.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        let deleted = answers::delete(&api, &child.name, &parameters).await;
        deleted.map_err(|source| Error::request("delete", name, source))?;
    }
    Ok(false)
}

/// Deletes an object that a step names, unless another one made it. True: the run ended right here.
///
/// # Errors
/// Where the API server does not answer, or the object changed in between.
pub async fn delete_named<K: Kind>(ctx: &Context, owner: &K, child: &Child, key: RunKey) -> Result<bool, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let (api, _) = api(ctx, &namespace, child.kind);
    let name = format!("{} {namespace}/{}", child.kind, child.name);
    let found = look(&api, child, &name).await?;
    let over = |outcome| {
        ctx.runs.set(key.clone(), Knowledge::Over(outcome));
        Ok(true)
    };
    let Some(live) = found else { return over(Outcome::succeeded()) };
    if let Some(refused) = not_ours_to_delete(owner, &live, child) {
        return over(refused);
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    // Whose it is was read from this version of it.
    let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match answers::delete(&api, &child.name, &parameters).await {
        Ok(true) => Ok(false),
        Ok(false) => over(Outcome::succeeded()),
        Err(source) => match refusal(&source) {
            Some(outcome) => over(outcome),
            None => Err(Error::request("delete", name, source)),
        },
    }
}

/// Why a step must not delete an object: another workflow made it. One that no workflow stands for may be deleted.
fn not_ours_to_delete<K: Kind>(owner: &K, live: &impl ResourceExt, child: &Child) -> Option<Outcome> {
    if is_ours(owner, live) || !live.labels().contains_key(LABEL_OWNER_UID) {
        return None;
    }
    let (kind, name, whose) = (child.kind, &child.name, owner_of(live));
    let (own_kind, own_name) = (K::KIND, owner.name_any());
    Some(conflict(format!("{kind} '{name}' {whose}: {own_kind} '{own_name}' does not delete it")))
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use provisioning_api::BatchWorkflow;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::observe::reconcile_request;

    /// Servers of an API server that knows one, `bittern`, at version 7, and keeps to preconditions.
    fn servers() -> Api<DynamicObject> {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let (head, body) = request.into_parts();
            let patch: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
            let (asked, version) = (head.uri.path(), &patch["metadata"]["resourceVersion"]);
            let known = head.method == Method::PATCH && asked.ends_with("/namespaces/marsh/servers/bittern");
            let code = match (known, version.is_null() || *version == "7") {
                (true, true) => 200,
                (true, false) => 409,
                (false, _) => 404,
            };
            let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": "bittern"}});
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": "",
                "code": code});
            let answer = if code == 200 { object } else { status };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, "Server"), "servers");
        Api::namespaced_with(Client::new(service, "default"), "marsh", &resource)
    }

    #[tokio::test]
    async fn a_child_that_was_made_anew_since_it_was_read_keeps_its_owner() {
        let held = |name: &str, version: &str| Held {
            kind: "Server",
            name: name.to_owned(),
            version: Some(version.to_owned()),
        };
        assert!(release(&servers(), &held("bittern", "7")).await.is_ok());
        let refused = release(&servers(), &held("bittern", "6")).await.unwrap_err();
        assert!(matches!(&refused, Error::Conflict { object } if object == "Server marsh/bittern"), "{refused:?}");
        assert!(release(&servers(), &held("heron", "6")).await.is_ok(), "it is gone");
    }

    fn workflow(name: &str) -> BatchWorkflow {
        serde_json::from_value(json!({
            "apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "spec": {"steps": []},
            "metadata": {"name": name, "namespace": "marsh", "uid": "uid-morning"}}))
        .unwrap()
    }

    #[test]
    fn each_repeated_try_reaches_the_child_whatever_the_length_of_its_owners_name() {
        let step = |run: i64| {
            let step = json!({"id": "nest", "action": "Apply", "undo": "None", "phase": "Running", "run": run,
                "inputHash": "v1:0"});
            serde_json::from_value::<StepStatus>(step).unwrap()
        };
        assert_eq!(asks_again(&workflow("morning"), &step(1)), None);
        for length in [1, 61, 62, 63] {
            let owner = workflow(&"m".repeat(length));
            let heard = |run: i64| {
                let mut child = workflow("heron");
                let asked = asks_again(&owner, &step(run)).unwrap();
                child.metadata.annotations = Some([(ANNOTATION_RECONCILE.to_owned(), asked)].into());
                reconcile_request(&child).unwrap()
            };
            let all: std::collections::BTreeSet<String> = (2..200).map(heard).collect();
            assert_eq!(all.len(), 198, "{length}");
        }
    }

    fn verdict(labels: &Value) -> Option<Outcome> {
        let owner = workflow("morning");
        let live: DynamicObject = serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1",
            "kind": "Server", "metadata": {"name": "bittern", "namespace": "marsh", "labels": labels}}))
        .unwrap();
        let child = Child { kind: "Server", name: "bittern".to_owned(), spec: Value::Null, reconcile: None };
        not_ours_to_delete(&owner, &live, &child)
    }

    #[test]
    fn a_step_deletes_what_its_workflow_or_no_workflow_made() {
        assert_eq!(verdict(&json!({LABEL_OWNER_UID: "uid-morning"})), None);
        assert_eq!(verdict(&json!({"team": "herons"})), None);
        let other = json!({LABEL_OWNER_UID: "uid-2", LABEL_OWNER_KIND: "BatchWorkflow", LABEL_OWNER_NAME: "evening"});
        let refused = verdict(&other).unwrap();
        let words = "Server 'bittern' belongs to BatchWorkflow 'evening': BatchWorkflow 'morning' does not delete it";
        assert_eq!((refused.reason.as_str(), refused.message.as_str()), ("NameConflict", words));
        assert_eq!((refused.class, refused.harmless), (Some(FailureClass::Invalid), true));
    }
}
