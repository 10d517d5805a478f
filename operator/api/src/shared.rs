//! Pieces that several kinds use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::types;
use crate::steps::{FailureClass, RunStatus};

/// Reference to an object of the same namespace. No reference ever leaves a workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// What happens, when the object is deleted, to what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is taken down too.
    Delete,
    /// It stays, and nobody looks after it any more.
    Orphan,
}

/// What follows when a step has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Everything that does not depend on the failed step goes on.
    #[default]
    Continue,
    /// No step starts any more until a person decides: try again, or pass the failed step over. Running ones are awaited.
    Pause,
}

/// When and how often a failed step is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Tries after the first one. Default 3.
    #[serde(default = "RetryPolicy::default_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub limit: i32,
    /// Wait before the first retry, seconds. Default 5.
    #[serde(default = "RetryPolicy::default_backoff")]
    #[schemars(range(min = 1, max = 3600))]
    pub backoff_seconds: i32,
    /// Each further wait is this many times longer. Default 2.
    #[serde(default = "RetryPolicy::default_factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: i32,
    /// Longest wait, seconds. Default 300.
    #[serde(default = "RetryPolicy::default_cap")]
    #[schemars(range(min = 1, max = 86400))]
    pub cap_seconds: i32,
    /// Classes of failure that are retried. Default Transient, Throttled, Timeout.
    #[serde(default = "RetryPolicy::default_classes")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Vec<FailureClass>,
}

impl RetryPolicy {
    fn default_limit() -> i32 {
        3
    }
    fn default_backoff() -> i32 {
        5
    }
    fn default_factor() -> i32 {
        2
    }
    fn default_cap() -> i32 {
        300
    }
    fn default_classes() -> Vec<FailureClass> {
        vec![FailureClass::Transient, FailureClass::Throttled, FailureClass::Timeout]
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            limit: Self::default_limit(),
            backoff_seconds: Self::default_backoff(),
            factor: Self::default_factor(),
            cap_seconds: Self::default_cap(),
            classes: Self::default_classes(),
        }
    }
}

/// A kind that runs steps: gives the engine its shared part of status, whatever the kind.
pub trait RunsSteps {
    /// `spec.suspend`.
    fn is_suspended(&self) -> bool;
    /// The shared part of status, if there is a status.
    fn run_status(&self) -> Option<&RunStatus>;
    /// The shared part of status; makes an empty status where there is none.
    fn run_status_mut(&mut self) -> &mut RunStatus;

    /// The condition of a type, if status has it.
    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.run_status()?.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether condition `Ready` is True.
    fn is_ready(&self) -> bool {
        self.condition(types::READY).is_some_and(|ready| ready.status == "True")
    }

    /// Condition `Stalled`, while it is True: nothing more happens by itself.
    fn stalled(&self) -> Option<&Condition> {
        self.condition(types::STALLED).filter(|stalled| stalled.status == "True")
    }

    /// The message of condition `Ready`, for people.
    fn ready_message(&self) -> &str {
        self.condition(types::READY).map_or("not looked at yet", |ready| ready.message.as_str())
    }
}

macro_rules! runs_steps {
    ($kind:ident) => {
        impl $crate::shared::RunsSteps for $kind {
            fn is_suspended(&self) -> bool {
                self.spec.suspend
            }
            fn run_status(&self) -> Option<&$crate::steps::RunStatus> {
                self.status.as_ref().map(|status| &status.run)
            }
            fn run_status_mut(&mut self) -> &mut $crate::steps::RunStatus {
                &mut self.status.get_or_insert_default().run
            }
        }
    };
}
pub(crate) use runs_steps;
