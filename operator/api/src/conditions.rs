//! Condition types and the closed list of reasons. One constant each, with what it means.

/// Condition types. `Ready` is always there; the others only while true, as kstatus expects.
pub mod types {
    /// The object is what its spec asks for, at the observed generation.
    pub const READY: &str = "Ready";
    /// Work is going on, or waits for something that will come by itself.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing more happens until a person changes something; the reason says what.
    pub const STALLED: &str = "Stalled";
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal;)+) => {
        /// Reasons of conditions. The list is closed: a reason that is not here is never written.
        pub mod reasons {
            $($(#[doc = $doc])+ pub const $name: &str = $value;)+

            /// Every reason with its documentation, for the generated page of the user guide.
            pub const ALL: &[(&str, &str)] = &[$(($value, concat!($($doc, " "),+))),+];
        }
    };
}

reasons! {
    /// All steps succeeded for this generation.
    SUCCEEDED = "Succeeded";
    /// Steps are running or about to.
    RUNNING = "Running";
    /// A step failed and will be tried again; the message says which, why and when.
    RETRYING = "Retrying";
    /// Something this object refers to is not Ready yet; the message names it.
    WAITING = "Waiting";
    /// Something this object refers to is Stalled, and nothing else is left to do; the message names it and its words.
    DEPENDENCY_STALLED = "DependencyStalled";
    /// All steps succeeded, and a probe of the service fails; the message names server, probe, port and what came of it.
    UNHEALTHY = "Unhealthy";
    /// `spec.suspend` is true here or in the Workspace: nothing forward is started.
    SUSPENDED = "Suspended";
    /// A step failed for good; the message carries the step, the class and the last words of the cause.
    STEP_FAILED = "StepFailed";
    /// A step failed for good and `spec.onFailure` is Pause: no step starts until it is tried again or passed over; the
    /// message has the cause and both ways out.
    PAUSED = "Paused";
    /// The spec cannot be carried out as written; the message names the field and the allowed values.
    INVALID = "Invalid";
    /// The steps depend on each other in a circle, or extensions do; the message shows the whole path.
    CYCLE = "Cycle";
    /// A name that this object refers to does not exist; the message names the nearest one that does.
    UNKNOWN_REFERENCE = "UnknownReference";
    /// An object of the wanted name exists and belongs to somebody else; the message has both names.
    NAME_CONFLICT = "NameConflict";
    /// There is no Workspace in this namespace, or it cannot be read; create one named `workspace`, or correct it.
    NO_WORKSPACE = "NoWorkspace";
    /// The status was written by a newer operator; this one changes nothing.
    STATUS_TOO_NEW = "StatusTooNew";
    /// The stored object cannot be read by this operator; the message has the path of the field, or says that it is too large.
    UNDECODABLE = "Undecodable";
    /// The object is being deleted; the message says what is being undone or waited for.
    DELETING = "Deleting";
    /// Deletion cannot go on by itself; the message names what remains and how to abandon it.
    DELETION_BLOCKED = "DeletionBlocked";
    /// The provider no longer has the resource of this server.
    SERVER_GONE = "ServerGone";
    /// The operator's own request to the API server failed; it is repeated.
    API_ERROR = "ApiError";
}
