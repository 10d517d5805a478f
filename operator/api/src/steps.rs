//! The plan and its checkpoints: one list, so that what is shown as plan is what is executed.
//!
//! Rules: protocols §1 (checkpoints), §2 (one run of a step), §4 (failure classes).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Format of `status` that this build writes. A higher number in an object means: hands off.
pub const STATUS_SCHEMA: i32 = 1;

/// Greatest number of a run or an epoch: what is written by hand stays one that every reader of JSON keeps exactly.
pub const MAX_NUMBER: i64 = (1 << 53) - 1;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepAction {
    /// Asks a provider what it offers (zones, sizes, images). Without effect.
    Describe,
    /// Creates a server at its provider, or adopts the one with our token.
    Create,
    /// Reads a server's address and state from its provider. Without effect.
    Observe,
    /// Opens an SSH session to a server, checks its host key, makes it ready for scripts.
    Reach,
    /// Runs an extension's `install.nu` on a server.
    Install,
    /// Runs an extension's `check.nu` on a server. Without effect.
    Check,
    /// Creates or updates an object of our kinds and waits until it is Ready.
    Apply,
    /// Deletes an object of our kinds and waits until it is gone. Leaves nothing that could be undone.
    Delete,
    /// Waits until a condition over an object of our kinds holds. Without effect.
    Wait,
    /// Runs a script of an extension on a server, other than its installation. What it does cannot be undone.
    Run,
}

impl StepAction {
    /// Whether a run can leave something behind that would have to be undone.
    pub fn has_effect(self) -> bool {
        match self {
            StepAction::Create | StepAction::Install | StepAction::Apply => true,
            StepAction::Describe
            | StepAction::Observe
            | StepAction::Reach
            | StepAction::Check
            | StepAction::Delete
            | StepAction::Wait
            | StepAction::Run => false,
        }
    }

    /// Whether an executor does it, in a Job that takes a place in the workspace. The others are one API write of the
    /// operator itself, or none.
    pub fn has_executor(self) -> bool {
        match self {
            StepAction::Describe
            | StepAction::Create
            | StepAction::Observe
            | StepAction::Reach
            | StepAction::Install
            | StepAction::Check
            | StepAction::Run => true,
            StepAction::Apply | StepAction::Delete | StepAction::Wait => false,
        }
    }
}

/// How a step is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UndoAction {
    /// There is nothing to undo.
    None,
    /// The server is deleted at its provider.
    DeleteServer,
    /// The extension's `uninstall.nu` runs on the server.
    Uninstall,
    /// The object that was applied is deleted.
    DeleteObject,
    /// What was made stays, as the deletion policy says.
    Orphan,
    /// It cannot be undone: what was deleted does not come back, and nobody knows what takes back what a script did.
    Irreversible,
}

/// Where a step is. `Running` and `Undoing` are *open*: their executor may still act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepPhase {
    /// Not started, or waiting for its next try.
    #[default]
    Pending,
    /// A forward run is open.
    Running,
    /// Done. With an equal input it is never executed again.
    Succeeded,
    /// Failed for good.
    Failed,
    /// Ended because it was no longer wanted.
    Cancelled,
    /// Passed over: its condition is false, or a person waived it.
    Skipped,
    /// Not possible: something it depends on did not succeed.
    Omitted,
    /// An undo run is open, or waits for its next try.
    Undoing,
    /// What it had made is gone.
    Undone,
    /// The undo failed for good.
    UndoFailed,
}

impl StepPhase {
    /// Terminal for a forward plan: nothing more happens to this step by itself.
    pub fn is_terminal(self) -> bool {
        match self {
            StepPhase::Succeeded
            | StepPhase::Failed
            | StepPhase::Cancelled
            | StepPhase::Skipped
            | StepPhase::Omitted
            | StepPhase::Undone
            | StepPhase::UndoFailed => true,
            StepPhase::Pending | StepPhase::Running | StepPhase::Undoing => false,
        }
    }
}

/// Reasons of steps that the planner itself gives; others come from what a step ran.
pub mod step_reasons {
    /// A hard dependency did not succeed, or what the step acts on is gone.
    pub const OMITTED: &str = "Omitted";
    /// The same, and before it was passed over.
    pub const OMITTED_ANEW: &str = "OmittedAnew";
    /// Its condition (`when`) is false.
    pub const WHEN_FALSE: &str = "WhenFalse";
    /// Its condition (`when`) cannot be decided.
    pub const WHEN_FAILED: &str = "WhenFailed";
    /// A person said by annotation that it is not needed. Stays until its input changes.
    pub const WAIVED: &str = "Waived";
    /// It was passed over, and will be decided anew when all that it depends on has ended.
    pub const DECIDED_ANEW: &str = "DecidedAnew";
}

/// How strongly a step depends on another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DependencyType {
    /// The other one must have succeeded.
    #[default]
    Hard,
    /// The other one must have ended, however; an absent one does not matter.
    Soft,
}

/// One dependency of a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct StepDependency {
    /// Id of the other step, within the same object.
    #[schemars(length(min = 1, max = 253))]
    pub step: String,
    /// `Hard` (default) or `Soft`.
    #[serde(rename = "type", default)]
    pub type_: DependencyType,
}

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// Does the step.
    Forward,
    /// Undoes it.
    Undo,
}

/// Why a run failed; decides what follows (protocols §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureClass {
    /// The executor was lost (pod evicted, never started, node gone). Charged to no attempt.
    Infrastructure,
    /// The executor was not allowed to act (claim lost, epoch old). Nothing happened.
    Refused,
    /// Passing: connection reset, server error, SSH not up yet.
    Transient,
    /// The provider asked us to slow down.
    Throttled,
    /// The deadline passed; the effect is unknown.
    Timeout,
    /// The request itself is wrong. Not retried.
    Invalid,
    /// Credentials were refused.
    Unauthorized,
    /// A script ended with a non-zero exit code.
    ScriptFailed,
}

/// Whether a step can have left something behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepEffect {
    /// No run of it can have had an effect.
    #[default]
    None,
    /// At least one run may have had one.
    Possible,
}

/// One planned step together with its checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Stable name of the step within its object.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// What it does.
    pub action: StepAction,
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub why: String,
    /// Steps that come before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub depends_on: Vec<StepDependency>,
    /// How it is undone.
    pub undo: UndoAction,
    /// Where it is.
    #[serde(default)]
    pub phase: StepPhase,
    /// Number of the last run; rises by one with every intent and is never reset.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub run: i64,
    /// Runs that the retry policy has charged since the input last changed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Runs lost to the infrastructure or refused since the input last changed; charged to no attempt, but bounded.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub losses: i32,
    /// `v1:` and 32 hex digits: hash of everything the step's result depends on. A script that did it once and does it again
    /// has the number of that run behind it.
    #[schemars(length(max = 80))]
    pub input_hash: String,
    /// `Workspace.status.epoch` under which the last run was started.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub epoch: i64,
    /// When the last run was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub started_at: Option<Time>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub finished_at: Option<Time>,
    /// When it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub retry_at: Option<Time>,
    /// Identifier that the provider gave to what was made.
    #[serde(rename = "externalID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub external_id: Option<String>,
    /// Results that other steps and people may use; never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schemas::outputs")]
    pub outputs: BTreeMap<String, String>,
    /// Whether a run of it can have left something behind.
    #[serde(default)]
    pub effect: StepEffect,
    /// Class of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Stable constant in CamelCase for the last outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people: the last words of what happened, at most 256 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

impl StepStatus {
    /// *Open*: an executor of this step may still act.
    pub fn is_open(&self) -> bool {
        self.phase == StepPhase::Running || (self.phase == StepPhase::Undoing && self.finished_at.is_none())
    }

    /// Open, and what acts is an executor of its own: a Job with its Pod.
    pub fn is_executed(&self) -> bool {
        self.is_open() && self.action.has_executor()
    }

    /// Direction of the open run, if there is one.
    pub fn open_direction(&self) -> Option<Direction> {
        match (self.is_open(), self.phase) {
            (true, StepPhase::Undoing) => Some(Direction::Undo),
            (true, _) => Some(Direction::Forward),
            (false, _) => None,
        }
    }
}

/// The plan in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStatus {
    /// Hash over the ids, inputs and edges of all steps.
    #[schemars(length(max = 80))]
    pub hash: String,
    /// metadata.generation that it was made from.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// One line for people.
    #[schemars(length(max = 256))]
    pub summary: String,
}

/// Counts over `steps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Steps in the plan.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Succeeded or skipped.
    #[schemars(range(min = 0))]
    pub succeeded: i32,
    /// Failed or omitted.
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Open right now.
    #[schemars(range(min = 0))]
    pub running: i32,
    /// `succeeded/total`, for the printer column.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub summary: String,
}

/// What every kind that runs steps has in its status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// metadata.generation that this status is about.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
    /// See the page on conditions in the user guide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// Format of this status; an operator that knows only lower numbers leaves the object alone.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub schema: i32,
    /// Last value of the reconcile annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// The plan in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// The plan, a checkpoint per step. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<StepStatus>,
    /// Highest run of any step that left the plan: one that comes back goes on from there.
    #[serde(default, skip_serializing_if = "is_no_run")]
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub run_floor: i64,
    /// Counts over `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &i32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_no_run(n: &i64) -> bool {
    *n == 0
}
