//! What this process knows of executors beyond the caches: what it created itself, and what was given up.
//!
//! Lost with the process on purpose: the next one knows nothing and therefore gives runs up (protocols §2).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisioning_plan::observed::Outcome;
use tokio::time::Instant;

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
    /// The Pod's loss was noticed while another holder has the claim. By the clock that nobody sets: what is counted from
    /// here makes sure that nobody acts any more.
    Lost(Instant),
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

    /// For how long a run's Pod is lost, at least; the first call sets the time.
    pub fn lost_for(&self, key: &RunKey) -> Duration {
        let mut known = lock(&self.known);
        match known.get(key) {
            Some(Knowledge::Lost(since)) => since.elapsed(),
            Some(Knowledge::Intended | Knowledge::Created(_) | Knowledge::Seen | Knowledge::Over(_)) | None => {
                known.insert(key.clone(), Knowledge::Lost(Instant::now()));
                Duration::ZERO
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_counted_from_its_first_notice_by_the_clock_that_nobody_sets() {
        let runs = Runs::default();
        let key: RunKey = ("uid-heron".to_owned(), "create".to_owned(), 3);
        runs.set(key.clone(), Knowledge::Seen);
        assert_eq!(runs.lost_for(&key), Duration::ZERO);
        for seconds in [40, 80, 120] {
            tokio::time::advance(Duration::from_secs(40)).await;
            assert_eq!(runs.lost_for(&key), Duration::from_secs(seconds));
        }
        runs.set(key.clone(), Knowledge::Seen);
        assert_eq!(runs.lost_for(&key), Duration::ZERO, "it was seen meanwhile");
    }
}
