//! Our kinds, seen alike.

use std::fmt::Debug;

use anyhow::Result;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::types::READY;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::StepStatus;
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::case::Case;

/// Annotation of an object whose status a test writes in the operator's place: it is not judged (tools/gitops).
pub const STATUS_BY_HAND: &str = "e2e.provisioning.dev/status-by-hand";

/// A kind of ours: what tests ask of every object.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync
{
    /// `status.conditions`.
    fn conditions(&self) -> &[Condition];
    /// `status.steps`; none where the kind has no steps.
    fn steps(&self) -> &[StepStatus];
    /// `status.observedGeneration`.
    fn observed_generation(&self) -> i64;
}

macro_rules! kinds {
    ($($kind:ident),+) => {
        $(impl Kind for $kind {
            fn conditions(&self) -> &[Condition] {
                self.run_status().map(|status| status.conditions.as_slice()).unwrap_or_default()
            }
            fn steps(&self) -> &[StepStatus] {
                self.run_status().map(|status| status.steps.as_slice()).unwrap_or_default()
            }
            fn observed_generation(&self) -> i64 {
                self.run_status().map(|status| status.observed_generation).unwrap_or_default()
            }
        })+
    };
}
kinds!(ProviderConfig, Server, Taskserv, Cluster, BatchWorkflow);

impl Kind for Workspace {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
    fn steps(&self) -> &[StepStatus] {
        &[]
    }
    fn observed_generation(&self) -> i64 {
        self.status.as_ref().map(|status| status.observed_generation).unwrap_or_default()
    }
}

/// One object of any kind, as it is stored.
#[derive(Clone, Debug)]
pub struct Object {
    /// `Kind name`.
    pub name: String,
    /// Its metadata.
    pub meta: ObjectMeta,
    /// Its spec.
    pub spec: Value,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// `status.steps`.
    pub steps: Vec<StepStatus>,
}

impl Object {
    fn of<K: Kind>(object: &K) -> Result<Self> {
        Ok(Object {
            name: format!("{} {}", K::kind(&()), object.name_any()),
            meta: object.meta().clone(),
            spec: serde_json::to_value(object)?["spec"].take(),
            conditions: object.conditions().to_vec(),
            steps: object.steps().to_vec(),
        })
    }

    /// Whether it is of this kind.
    pub fn is_a(&self, kind: &str) -> bool {
        self.name.split(' ').next() == Some(kind)
    }

    /// Its uid.
    pub fn uid(&self) -> String {
        self.meta.uid.clone().unwrap_or_default()
    }
}

impl Case {
    /// All objects of ours in this test's namespace.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        let mut all = self.objects_of::<Workspace>().await?;
        all.extend(self.objects_of::<ProviderConfig>().await?);
        all.extend(self.objects_of::<Server>().await?);
        all.extend(self.objects_of::<Taskserv>().await?);
        all.extend(self.objects_of::<Cluster>().await?);
        all.extend(self.objects_of::<BatchWorkflow>().await?);
        Ok(all)
    }

    async fn objects_of<K: Kind>(&self) -> Result<Vec<Object>> {
        self.api::<K>().list(&Default::default()).await?.iter().map(Object::of).collect()
    }
}

/// The condition of this type, if it is there.
pub fn condition<'a>(object: &'a impl Kind, type_: &str) -> Option<&'a Condition> {
    object.conditions().iter().find(|condition| condition.type_ == type_)
}

/// Whether condition `type_` is True for the generation that is stored.
pub fn is_true(object: &impl Kind, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| {
        condition.status == "True" && condition.observed_generation == object.meta().generation
    })
}

/// Whether the object is Ready, for the generation that is stored.
pub fn is_ready(object: &impl Kind) -> bool {
    is_true(object, READY) && Some(object.observed_generation()) == object.meta().generation
}

/// The step of this id.
pub fn step<'a>(object: &'a impl Kind, id: &str) -> Option<&'a StepStatus> {
    object.steps().iter().find(|step| step.id == id)
}

/// Name, conditions and steps, one a line: what a failed wait prints.
pub fn describe<K: Kind>(object: &K) -> String {
    let meta = object.meta();
    let mut text = format!(
        "{} {} generation {} observed {}{}\n",
        K::kind(&()),
        object.name_any(),
        meta.generation.unwrap_or_default(),
        object.observed_generation(),
        if meta.deletion_timestamp.is_some() { " (being deleted)" } else { "" },
    );
    for Condition { type_, status, reason, message, .. } in object.conditions() {
        text.push_str(&format!("  {type_}={status} {reason}: {message}\n"));
    }
    for step in object.steps() {
        let class = step.class.map(|class| format!(" {class:?}")).unwrap_or_default();
        text.push_str(&format!(
            "  step {} {:?} {:?} run {} attempt {}{class} {}: {}\n",
            step.id, step.action, step.phase, step.run, step.attempt, step.reason, step.message
        ));
    }
    text
}
