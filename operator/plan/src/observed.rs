//! What a pass sees of the executors of open steps.

use std::collections::BTreeMap;

use provisioning_api::steps::FailureClass;

/// What is seen of the executor of one open run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunView {
    /// It exists, or what it waits for is still going on.
    Alive,
    /// It ended, and this is what it left.
    Ended(Outcome),
    /// There is none. `ours`: this process wrote the intent and may repeat the create.
    Missing {
        /// Whether this process wrote the intent.
        ours: bool,
    },
    /// It ended without a word, or was lost: only giving the run up can end it.
    Silent,
}

/// What one run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// `None`: it succeeded.
    pub class: Option<FailureClass>,
    /// Stable constant in CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The provider's identifier.
    pub external_id: Option<String>,
    /// Results by name.
    pub outputs: BTreeMap<String, String>,
    /// The provider's own wish for the next try, seconds.
    pub retry_after_seconds: Option<i64>,
    /// The run is known not to have acted at all.
    pub harmless: bool,
}

impl Outcome {
    /// A success without outputs.
    pub fn succeeded() -> Self {
        Outcome { reason: "Succeeded".to_owned(), ..Outcome::default() }
    }

    /// A failure.
    pub fn failed(class: FailureClass, reason: &str, message: impl Into<String>) -> Self {
        Outcome {
            class: Some(class),
            reason: reason.to_owned(),
            message: message.into(),
            harmless: class == FailureClass::Refused,
            ..Outcome::default()
        }
    }
}

/// By step id. A step without an entry is not known to have an executor.
pub type Observed = BTreeMap<String, RunView>;
