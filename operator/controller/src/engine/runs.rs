//! What this process knows of executors beyond the caches: what it created itself, and what was given up.
//!
//! Lost with the process on purpose: the next one knows nothing and therefore gives runs up (protocols §2).

use std::collections::BTreeMap;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use provisioning_plan::observed::Outcome;

use crate::context::lock;

/// How long a Pod may take to appear in the cache after its creation was answered.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(30);

/// uid of the owner, step id, run.
pub type RunKey = (String, String, i64);

/// What is known of one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Knowledge {
    /// This process wrote the intent; the creates are not all answered yet.
    Intended,
    /// The creates were answered.
    Created(Timestamp),
    /// The Pod was seen in the cache.
    Seen,
    /// The Pod's loss was noticed while another holder has the claim.
    Lost(Timestamp),
    /// Given up: this is how it ended.
    Over(Outcome),
}

/// The table of all runs that are not over.
#[derive(Debug, Default)]
pub struct Runs {
    known: Mutex<BTreeMap<RunKey, Knowledge>>,
}

impl Runs {
    /// What is known of a run.
    pub fn get(&self, key: &RunKey) -> Option<Knowledge> {
        lock(&self.known).get(key).cloned()
    }

    /// Remembers.
    pub fn set(&self, key: RunKey, knowledge: Knowledge) {
        lock(&self.known).insert(key, knowledge);
    }

    /// Since when a run's Pod is lost; the first call sets the time.
    pub fn lost_since(&self, key: &RunKey, now: Timestamp) -> Timestamp {
        let mut known = lock(&self.known);
        match known.get(key) {
            Some(Knowledge::Lost(since)) => *since,
            Some(Knowledge::Intended | Knowledge::Created(_) | Knowledge::Seen | Knowledge::Over(_)) | None => {
                known.insert(key.clone(), Knowledge::Lost(now));
                now
            }
        }
    }

    /// Forgets all runs of an object but those that are still open.
    pub fn retain(&self, uid: &str, open: &[RunKey]) {
        lock(&self.known).retain(|key, _| key.0 != uid || open.contains(key));
    }
}

/// Whether a created Pod may still be on its way into the cache, and until when.
pub fn on_its_way(created: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let until = created.saturating_add(CACHE_LAG).unwrap_or(Timestamp::MAX);
    (now < until).then_some(until)
}
