//! The part of the Kubernetes API that a claim needs (protocols §2): Leases, the owner, its Workspace. Everything else
//! of these groups is forbidden, as an executor's role forbids it.

use std::collections::BTreeMap;

use provisioning_api::steps::{Direction, StepPhase};
use provisioning_sdk::request::{Envelope, ProviderRequest};
use serde_json::{Value, json};

use crate::world::{Call, Reply};

/// Prefixes of the paths that are answered here.
const GROUPS: [&str; 2] = ["/apis/coordination.k8s.io/", "/apis/provisioning.dev/"];

/// How the world of the operator differs from what the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// Another Pod holds the Lease.
    HeldByOther,
    /// The step is at a later run.
    LaterRun,
    /// The step's input has changed.
    OtherInput,
    /// The step is over.
    Closed,
    /// The step is no longer planned.
    Unplanned,
    /// The Workspace has a later epoch than the step.
    LaterEpoch,
    /// The owner is gone.
    OwnerGone,
    /// The owner was deleted and made anew.
    OtherOwner,
    /// The owner is being deleted.
    BeingDeleted,
    /// The API server fails to store the Lease.
    LeaseUnanswered,
}

/// State of that part.
#[derive(Default)]
pub(crate) struct Claims {
    owner: Option<Value>,
    path: String,
    epoch: i64,
    leases: BTreeMap<String, Value>,
    broken: bool,
}

impl Claims {
    /// Makes everything fit a request, but for what has drifted.
    pub(crate) fn expect(&mut self, envelope: &Envelope<ProviderRequest>, job: &str, drift: Option<Drift>) {
        let owner = &envelope.owner;
        let has = |wanted: Drift| drift == Some(wanted);
        let phase = match (has(Drift::Closed), envelope.direction) {
            (true, _) => StepPhase::Succeeded,
            (false, Direction::Forward) => StepPhase::Running,
            (false, Direction::Undo) => StepPhase::Undoing,
        };
        let step = json!({
            "id": if has(Drift::Unplanned) { "another" } else { envelope.step.as_str() },
            "action": "Create", "undo": "DeleteServer", "phase": phase,
            "run": envelope.run + i64::from(has(Drift::LaterRun)),
            "inputHash": if has(Drift::OtherInput) { "v1:other" } else { envelope.input_hash.as_str() },
            "epoch": envelope.epoch,
        });
        let mut metadata = json!({"name": owner.name, "namespace": owner.namespace, "uid": owner.uid});
        if has(Drift::OtherOwner) {
            metadata["uid"] = json!("deadbeef-3c55-4d7e-9a39-6f1f4a8c2d10");
        }
        if has(Drift::BeingDeleted) || envelope.direction == Direction::Undo {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": owner.kind, "metadata": metadata,
            "status": {"steps": [step]}});
        self.owner = (!has(Drift::OwnerGone)).then_some(object);
        self.path = format!("{}s/{}", owner.kind.to_lowercase(), owner.name);
        self.epoch = envelope.epoch + i64::from(has(Drift::LaterEpoch));
        self.broken = has(Drift::LeaseUnanswered);
        self.leases.clear();
        if has(Drift::HeldByOther) {
            self.leases.insert(job.to_owned(), lease(job, "another-pod"));
        }
    }

    /// From now on the step is over.
    pub(crate) fn close(&mut self) {
        if let Some(owner) = &mut self.owner {
            owner["status"]["steps"][0]["phase"] = json!(StepPhase::Cancelled);
        }
    }

    /// Holder of a Lease.
    pub(crate) fn holder(&self, job: &str) -> Option<&str> {
        self.leases.get(job)?["spec"]["holderIdentity"].as_str()
    }

    /// Answers, where the call is for this part.
    pub(crate) fn answer(&mut self, call: &Call) -> Option<Reply> {
        let route = call.route();
        if !GROUPS.iter().any(|group| route.starts_with(group)) {
            return None;
        }
        // /apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL[/NAME]
        let rest = route.splitn(7, '/').nth(6).unwrap_or_default();
        Some(match (call.method.as_str(), rest.split_once('/').unwrap_or((rest, ""))) {
            ("POST", ("leases", "")) if self.broken => status(500, "InternalError", "etcdserver: request timed out"),
            ("POST", ("leases", "")) => self.create_lease(&call.body),
            ("GET", ("leases", name)) => found(self.leases.get(name), name),
            ("GET", ("workspaces", "workspace")) => Reply::new(200, self.workspace()),
            ("GET", _) if rest == self.path => found(self.owner.as_ref(), rest),
            ("GET", (_, name)) if !name.is_empty() => found(None, rest),
            (method, _) => status(403, "Forbidden", &format!("the executor's account cannot {method} {route}")),
        })
    }

    fn create_lease(&mut self, body: &[u8]) -> Reply {
        let lease: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(name) = lease["metadata"]["name"].as_str().map(str::to_owned) else {
            return status(422, "Invalid", "metadata.name: Required value");
        };
        if self.leases.contains_key(&name) {
            return status(409, "AlreadyExists", &format!("leases.coordination.k8s.io {name:?} already exists"));
        }
        self.leases.insert(name, lease.clone());
        Reply::new(201, lease)
    }

    fn workspace(&self) -> Value {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
            "metadata": {"name": "workspace"}, "spec": {}, "status": {"epoch": self.epoch}})
    }
}

fn lease(name: &str, holder: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": holder}})
}

fn found(object: Option<&Value>, name: &str) -> Reply {
    match object {
        Some(object) => Reply::new(200, object.clone()),
        None => status(404, "NotFound", &format!("{name:?} not found")),
    }
}

/// A failure as the Kubernetes API words it.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Reply {
    Reply::new(
        code,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "code": code}),
    )
}
