//! Places for Jobs in a workspace: one decision at a time, so that two objects cannot take the same last one (S8).

use std::collections::BTreeMap;

use kube::ResourceExt;
use provisioning_api::shared::RunsSteps;
use tokio::sync::OwnedMutexGuard;

use super::kind::{Kind, in_namespace};
use super::observe::Seen;
use crate::context::Context;
use crate::watches::Stores;

/// The right to open Jobs, held from decision to intent.
pub struct Reservation {
    table: Option<OwnedMutexGuard<BTreeMap<String, usize>>>,
    available: usize,
}

impl Reservation {
    /// How many more Jobs may be opened.
    pub fn available(&self) -> usize {
        self.available
    }

    /// The intent is durable: this object has that many open Jobs now.
    pub fn settle<K: Kind>(mut self, object: &K) {
        if let Some(table) = &mut self.table {
            table.insert(object.uid().unwrap_or_default(), open_steps(object));
        }
    }
}

/// Waits for the turn of this object and counts what is open elsewhere in the workspace.
pub async fn reserve<K: Kind>(ctx: &Context, seen: &Seen<K>) -> Reservation {
    let Some(workspace) = seen.workspace.as_ref().ok().filter(|_| seen.object.has_executors()) else {
        return Reservation { table: None, available: usize::MAX };
    };
    let namespace = seen.object.namespace().unwrap_or_default();
    let mut table = ctx.slots.table(&namespace).lock_owned().await;
    let cached = open_by_uid(&ctx.stores, &namespace);
    table.retain(|uid, _| cached.contains_key(uid));
    let own = seen.object.uid().unwrap_or_default();
    let elsewhere: usize =
        cached.iter().filter(|(uid, _)| **uid != own).map(|(uid, open)| table.get(uid).copied().unwrap_or(*open)).sum();
    let taken = elsewhere + open_steps(&seen.object);
    let available = workspace.parallelism.saturating_sub(taken);
    Reservation { table: Some(table), available }
}

fn open_by_uid(stores: &Stores, namespace: &str) -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    count(&stores.provider_configs, namespace, &mut open);
    count(&stores.servers, namespace, &mut open);
    count(&stores.taskservs, namespace, &mut open);
    count(&stores.workflows, namespace, &mut open);
    open
}

fn count<K: Kind>(
    store: &kube::runtime::reflector::Store<crate::guarded::Guarded<K>>,
    namespace: &str,
    open: &mut BTreeMap<String, usize>,
) {
    for guarded in in_namespace(store, namespace) {
        if let Ok(object) = &guarded.0 {
            open.insert(object.uid().unwrap_or_default(), open_steps(object));
        }
    }
}

fn open_steps(object: &impl RunsSteps) -> usize {
    object.run_status().map_or(0, |status| status.steps.iter().filter(|step| step.is_executed()).count())
}
