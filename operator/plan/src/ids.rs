//! Names and hashes. All of them are functions of their arguments, so that two processes arrive at the same ones.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Stable name of a step within its object, for example `install/blue-heron`. 1 to 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StepId(String);

impl StepId {
    /// Takes a name as it is; the graph checks its length.
    pub fn new(name: impl Into<String>) -> Self {
        StepId(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Hash of everything that a step's result depends on: `v1:` and 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InputHash(String);

impl InputHash {
    /// Hashes the inputs' canonical JSON (maps are sorted by serde_json's default map).
    ///
    /// Callers pass the meaningful inputs only: no defaults, no image digests (protocols §1).
    pub fn of(inputs: &impl Serialize) -> Self {
        let value = serde_json::to_value(inputs).unwrap_or_default();
        InputHash(format!("v1:{}", hex(value.to_string().as_bytes(), 32)))
    }

    /// The hash as it is stored in status.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the input of a stored hash, which may have a mark of [`InputHash::anew`].
    pub fn is_in(&self, stored: &str) -> bool {
        stored.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(ANEW))
    }

    /// A stored hash for a step that is to do again what it did in this run: executors, which answer from what they find of an
    /// earlier run with the same hash, tell it from the one before.
    pub(crate) fn anew(stored: &str, run: i64) -> String {
        let plain = stored.split_once(ANEW).map_or(stored, |(plain, _)| plain);
        format!("{plain}{ANEW}{run}")
    }
}

/// Between a hash and the run after which the step was planned anew.
const ANEW: char = '/';

/// Name of the Job, Pod and Lease of one run: `prov-` and 32 hex digits.
pub fn job_name(owner_uid: &str, step: &str, run: i64) -> String {
    format!("prov-{}", hex(format!("{owner_uid}\n{step}\n{run}").as_bytes(), 32))
}

/// Label value for a step id of any length: 16 hex digits.
pub fn step_label(step: &str) -> String {
    hex(step.as_bytes(), 16)
}

/// Idempotency token of a creation: the same over all runs of one incarnation. 32 hex digits.
pub fn creation_token(owner_uid: &str, step: &str, incarnation: i64) -> String {
    hex(format!("{owner_uid}\n{step}\n{incarnation}").as_bytes(), 32)
}

/// A number in 0..1 that depends on the step and its run only; seeds jitter.
pub fn fraction(step: &str, run: i64) -> f64 {
    let digest = Sha256::digest(format!("{step}\n{run}").as_bytes());
    let bytes = [digest[0], digest[1], digest[2], digest[3]];
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

pub(crate) fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_over_releases() {
        // Changing one of these re-runs every step of every user: see protocols §8.
        assert_eq!(job_name("uid-1", "create", 1), "prov-8b301d70f4da0e03fa12cad0e97453fa");
        assert_eq!(creation_token("uid-1", "create", 1), "8b301d70f4da0e03fa12cad0e97453fa");
        assert_eq!(step_label("create"), "fa8847b0c3318327");
        assert_eq!(
            InputHash::of(&serde_json::json!({"b": 1, "a": 2})),
            InputHash::of(&serde_json::json!({"a": 2, "b": 1}))
        );
    }

    #[test]
    fn a_step_planned_anew_has_the_same_input_and_another_hash() {
        let (input, other) = (InputHash::of(&1), InputHash::of(&2));
        let anew = InputHash::anew(input.as_str(), 3);
        assert_ne!(anew, input.as_str());
        assert!(input.is_in(input.as_str()) && input.is_in(&anew) && !other.is_in(&anew) && !input.is_in(""));
        assert_eq!(InputHash::anew(&anew, 5), InputHash::anew(input.as_str(), 5));
    }

    #[test]
    fn another_run_is_another_job() {
        assert_ne!(job_name("u", "create", 1), job_name("u", "create", 2));
        assert_ne!(job_name("u", "a", 11), job_name("u", "a1", 1));
    }

    #[test]
    fn fractions_stay_below_one() {
        assert!((0..1000).all(|run| (0.0..1.0).contains(&fraction("heron", run))));
    }
}
