//! The checks. Each has an id that stays, the place where its rule stands, and the rule in one sentence.

mod claim;
mod classes;
mod create;
mod delete;
mod read;
mod requests;

use crate::scene::{Stage, Verdict};
use crate::world::Soon;

/// How a check is run.
type Function = for<'a> fn(&'a Stage) -> Soon<'a, Verdict>;

/// One rule of the contract.
pub struct Check {
    /// Stable name.
    pub id: &'static str,
    /// Where the rule stands: a section of docs/design/protocols.md, or of docs/write-a-provider.md.
    pub rule: &'static str,
    /// The rule.
    pub about: &'static str,
    /// Takes more than half a minute.
    pub slow: bool,
    /// `None`: judged from what the processes of all other checks left.
    pub(crate) run: Option<Function>,
}

const fn check(id: &'static str, rule: &'static str, about: &'static str, run: Function) -> Check {
    Check { id, rule, about, slow: false, run: Some(run) }
}

const fn output(id: &'static str, rule: &'static str, about: &'static str) -> Check {
    Check { id, rule, about, slow: false, run: None }
}

/// All checks, in the order of the report.
pub const CHECKS: &[Check] = &[
    check(
        "create-once",
        "protocols 3",
        "a second create with one token adopts the first machine, also when the provider has forgotten the token",
        |stage| Box::pin(create::once(stage)),
    ),
    check(
        "create-token",
        "protocols 3",
        "a create whose answer was lost, and that no list shows yet, is not made a second time",
        |stage| Box::pin(create::token(stage)),
    ),
    check(
        "create-cut",
        "protocols 3, S1",
        "killed at any call of a create, the next run ends with one machine",
        |stage| Box::pin(create::cut(stage)),
    ),
    check(
        "create-parameters",
        "protocols 3",
        "one token with other parameters is Invalid, or answered with the first machine",
        |stage| Box::pin(create::parameters(stage)),
    ),
    check(
        "create-foreign",
        "protocols 3",
        "a machine of another owner is neither adopted nor touched by a create, whatever else its tags say",
        |stage| Box::pin(create::foreign(stage)),
    ),
    check("create-sweep", "protocols 3", "a create leaves no other machine of its owner", |stage| {
        Box::pin(create::sweep(stage))
    }),
    check(
        "create-tags",
        "protocols 3",
        "what is created carries installation, namespace, kind, name, uid and token",
        |stage| Box::pin(create::tags(stage)),
    ),
    check(
        "observe",
        "write-a-provider",
        "a machine that runs is observed Running, with its address, externalID and host key",
        |stage| Box::pin(read::observe(stage)),
    ),
    check(
        "observe-absence",
        "protocols 3",
        "Gone is said of what is not there, and of nothing that one list merely leaves out",
        |stage| Box::pin(read::observe_absence(stage)),
    ),
    check(
        "delete",
        "protocols 5",
        "a delete leaves nothing of its owner, says Gone, and says it again when asked again",
        |stage| Box::pin(delete::own(stage)),
    ),
    check("delete-foreign", "protocols 3, S7", "a delete touches only what carries the owner's uid", |stage| {
        Box::pin(delete::foreign(stage))
    }),
    check(
        "delete-absence",
        "protocols 3, S7",
        "Gone is not said while something is on its way out, or after one empty list",
        |stage| Box::pin(delete::absence(stage)),
    ),
    check(
        "delete-cut",
        "protocols 3",
        "killed at any call of a delete, the next run ends with nothing left",
        |stage| Box::pin(delete::cut(stage)),
    ),
    check(
        "list",
        "write-a-provider",
        "a list holds everything of the installation and nothing else; what does not fit is counted",
        |stage| Box::pin(read::list(stage)),
    ),
    check("describe", "write-a-provider", "zones, sizes and images are told as JSON", |stage| {
        Box::pin(read::describe(stage))
    }),
    check("reads", "write-a-provider", "describe, observe and list change nothing", |stage| {
        Box::pin(read::reads(stage))
    }),
    check("claim", "protocols 2", "nothing is changed before the claim is held, nor without it", |stage| {
        Box::pin(claim::held(stage))
    }),
    Check {
        id: "claim-renewed",
        rule: "protocols 2",
        about: "a change that begins more than 30 s after the last look at the owner needs a new look",
        slow: true,
        run: Some(|stage| Box::pin(claim::renewed(stage))),
    },
    check(
        "class-invalid",
        "protocols 4",
        "an unknown zone or image is Invalid, names what was asked for and what is offered, and changes nothing",
        |stage| Box::pin(classes::invalid(stage)),
    ),
    check(
        "class-unauthorized",
        "protocols 4",
        "credentials that are not accepted are Unauthorized, at whichever call",
        |stage| Box::pin(classes::unauthorized(stage)),
    ),
    check(
        "class-throttled",
        "protocols 4",
        "too many requests is Throttled, with the provider's own wish in retryAfterSeconds",
        |stage| Box::pin(classes::throttled(stage)),
    ),
    check(
        "class-transient",
        "protocols 4",
        "500, 503 and a lost connection are Transient, and a later run succeeds",
        |stage| Box::pin(classes::transient(stage)),
    ),
    check("class-timeout", "protocols 4", "a call without an answer ends as Timeout at the deadline", |stage| {
        Box::pin(classes::timeout(stage))
    }),
    check(
        "requests-hostile",
        "write-a-provider",
        "what cannot be read, or names nothing that could exist, is Invalid and changes nothing",
        |stage| Box::pin(requests::hostile(stage)),
    ),
    check("requests-grow", "write-a-provider", "fields that the provider does not know are passed over", |stage| {
        Box::pin(requests::grow(stage))
    }),
    check(
        "sigterm",
        "write-a-provider",
        "ended by SIGTERM, a run claims no success, and the next one ends with one machine",
        |stage| Box::pin(requests::sigterm(stage)),
    ),
    output(
        "result",
        "write-a-provider",
        "each run leaves one JSON object of at most 4 KiB and the exit code that belongs to it",
    ),
    output("progress", "write-a-provider", "standard output is one JSON object a line"),
    output("secrets", "S11", "no secret is in standard output, standard error or the result"),
];
