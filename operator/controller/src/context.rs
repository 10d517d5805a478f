//! What every pass needs, built once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, ResourceExt};

use crate::bundles::Shelf;
use crate::engine::runs::Runs;
use crate::metrics::Metrics;
use crate::probing::Probing;
use crate::traces::{Collector, Traces};
use crate::watches::Stores;

/// Where time comes from; the simulator brings its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Settings of this operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace that the operator runs in; holds the extension bundles and the leader's Lease.
    pub namespace: String,
    /// This process, unique among all operators of the cluster.
    pub identity: String,
    /// Namespaces that the Local provider may use as sites; only there the operator hands out rights.
    pub sites: Vec<String>,
    /// Image that holds the executors.
    pub runner_image: String,
    /// How many objects of one kind are worked on at the same time.
    pub concurrency: u16,
    /// Where traces go, if anywhere.
    pub traces: Option<Collector>,
}

/// Everything that a pass uses.
pub struct Context {
    /// Client with the operator's ServiceAccount.
    pub client: Client,
    /// Settings.
    pub settings: Settings,
    /// uid of the namespace `kube-system`.
    pub installation: String,
    /// Caches.
    pub stores: Stores,
    /// What this process knows of executors beyond the caches.
    pub runs: Runs,
    /// Epochs that this process has raised, by workspace.
    pub epochs: Epochs,
    /// Open Jobs by workspace.
    pub slots: Slots,
    /// Extension bundles that were read.
    pub shelf: Shelf,
    /// Our own last write of each object.
    pub written: Written,
    /// What services answer.
    pub probing: Probing,
    /// Counters.
    pub metrics: Metrics,
    /// Takes traces, if anybody does.
    pub traces: Option<Traces>,
    /// Writes Events, and counts up those of the last minutes that come again.
    pub recorder: Recorder,
    /// Who Events come from.
    pub reporter: Reporter,
    /// Time.
    pub clock: Clock,
    /// Accounts and bindings known to be there (`Kind namespace/name`).
    pub made: Mutex<BTreeSet<String>>,
    /// Told when a later leader was seen.
    pub superseded: tokio::sync::Notify,
    /// Bundle copies known to be in a workspace (`namespace/name`).
    pub copied: Mutex<BTreeSet<String>>,
    /// Uid and generation of objects of which it was written that they are too large to be read.
    pub too_large: Mutex<BTreeSet<(String, i64)>>,
}

impl Context {
    /// Forgets what was made in a namespace, so that it is made sure of again.
    pub fn forget_made(&self, namespace: &str) {
        let inside = format!(" {namespace}/");
        lock(&self.made).retain(|key| !key.contains(&inside));
        lock(&self.copied).retain(|key| !key.starts_with(&format!("{namespace}/")));
    }

    /// Now, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        let now = (self.clock)();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}

/// Something of one workspace that passes take in turns, also across requests.
pub type Turn<T> = Arc<tokio::sync::Mutex<T>>;

/// uid of a Workspace and the epoch that was raised for it.
pub type Raised = (String, i64);

/// Epochs of workspaces, raised once by this process before its first effect there (protocols §6).
#[derive(Debug, Default)]
pub struct Epochs {
    by_workspace: Mutex<BTreeMap<String, Turn<Option<Raised>>>>,
}

impl Epochs {
    /// The cell of a workspace: uid of the Workspace and the epoch raised for it.
    pub fn cell(&self, namespace: &str) -> Turn<Option<Raised>> {
        lock(&self.by_workspace).entry(namespace.to_owned()).or_default().clone()
    }
}

/// How long a cache is waited for after a write of ours.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(10);

/// Our own last write of each object, so that a pass on a cache that has not seen it yet is not made at all: it would
/// only end in a conflict, and the event that is on its way starts the next one.
#[derive(Debug, Default)]
pub struct Written {
    by_uid: Mutex<BTreeMap<String, (u64, Timestamp)>>,
}

impl Written {
    /// Remembers a write. Resource versions of one kind are comparable numbers (KEP-5504); others are not remembered.
    pub fn remember(&self, object: &impl ResourceExt, now: Timestamp) {
        if let (Some(uid), Some(version)) = (object.uid(), number(object)) {
            lock(&self.by_uid).insert(uid, (version, now));
        }
    }

    /// Forgets an object that is finished with.
    pub fn forget(&self, object: &impl ResourceExt) {
        if let Some(uid) = object.uid() {
            lock(&self.by_uid).remove(&uid);
        }
    }

    /// Whether our last write is newer than this object, and the cache may still catch up.
    pub fn is_ahead_of(&self, object: &impl ResourceExt, now: Timestamp) -> bool {
        let (Some(uid), Some(version)) = (object.uid(), number(object)) else { return false };
        let mut written = lock(&self.by_uid);
        match written.get(&uid) {
            Some((ours, at)) if *ours > version && now.duration_since(*at) < CACHE_LAG => true,
            Some(_) => {
                written.remove(&uid);
                false
            }
            None => false,
        }
    }
}

fn number(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// How many Jobs are open in each workspace, by object. Decisions of one workspace that open Jobs go one after the
/// other, so that two objects cannot take the same last place (S8).
#[derive(Debug, Default)]
pub struct Slots {
    by_workspace: Mutex<BTreeMap<String, Turn<BTreeMap<String, usize>>>>,
}

impl Slots {
    /// The table of a workspace: open Jobs by uid of their owner.
    pub fn table(&self, namespace: &str) -> Turn<BTreeMap<String, usize>> {
        lock(&self.by_workspace).entry(namespace.to_owned()).or_default().clone()
    }
}

/// Locks; a panic in another pass is no reason to stop this one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
