//! Conditions as kstatus reads them: `Ready` always, `Reconciling` or `Stalled` only while true.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::{ANNOTATION_RECONCILE, ANNOTATION_SKIP_STEPS, MAX_CONDITION_MESSAGE};

use crate::decision::Verdict;

/// How an object stands, in the words of conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which of the three.
    pub state: State,
    /// One of [`reasons::ALL`].
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The three states that kstatus tells apart (a fourth, Terminating, follows from the deletion timestamp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ready=True.
    Ready,
    /// Ready=False, Reconciling=True.
    Reconciling,
    /// Ready=False, Stalled=True.
    Stalled,
}

impl Standing {
    /// Needs a person.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Standing { state: State::Stalled, reason, message: message.into() }
    }

    /// Goes on by itself.
    pub fn reconciling(reason: &'static str, message: impl Into<String>) -> Self {
        Standing { state: State::Reconciling, reason, message: message.into() }
    }
}

impl From<&Verdict> for Standing {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Ready => {
                Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: "all steps succeeded".to_owned() }
            }
            Verdict::Running(text) => Standing::reconciling(reasons::RUNNING, text),
            Verdict::Retrying(text) => Standing::reconciling(reasons::RETRYING, text),
            Verdict::Waiting(text) => Standing::reconciling(reasons::WAITING, text),
            Verdict::Suspended(text) => Standing::reconciling(reasons::SUSPENDED, text),
            Verdict::Failed(text) => Standing::stalled(reasons::STEP_FAILED, text),
            Verdict::Paused(text) => {
                let way_out = format!(
                    "{text}. No other step starts (spec.onFailure is Pause): mend the cause and annotate the object with \
                     {ANNOTATION_RECONCILE}=NOW to try again, or with {ANNOTATION_SKIP_STEPS}=STEP to pass the step over"
                );
                Standing::stalled(reasons::PAUSED, way_out)
            }
            Verdict::Deleting(text) => Standing::reconciling(reasons::DELETING, text),
            Verdict::DeletionBlocked(text) => Standing::stalled(reasons::DELETION_BLOCKED, text),
            Verdict::Deleted => Standing::reconciling(reasons::DELETING, "nothing is left to undo"),
        }
    }
}

/// The conditions for a standing. `lastTransitionTime` moves only when a status changes.
pub fn conditions(standing: &Standing, before: &[Condition], generation: i64, now: Timestamp) -> Vec<Condition> {
    let ready = match standing.state {
        State::Ready => "True",
        // On its way and nothing wrong: not known yet. Something wrong or unwanted: not ready.
        State::Reconciling if [reasons::RUNNING, reasons::WAITING].contains(&standing.reason) => "Unknown",
        State::Reconciling | State::Stalled => "False",
    };
    let mut list = vec![condition(types::READY, ready, standing, before, generation, now)];
    match standing.state {
        State::Ready => {}
        State::Reconciling => list.push(condition(types::RECONCILING, "True", standing, before, generation, now)),
        State::Stalled => list.push(condition(types::STALLED, "True", standing, before, generation, now)),
    }
    list
}

fn condition(
    type_: &str,
    status: &str,
    standing: &Standing,
    before: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Condition {
    let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    let mut message = standing.message.clone();
    if message.len() > MAX_CONDITION_MESSAGE {
        let mut end = MAX_CONDITION_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: standing.reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: same.map_or_else(|| Time(now), |condition| condition.last_transition_time.clone()),
    }
}
