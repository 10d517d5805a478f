//! Ends that were seen become checkpoints. Facts only; what follows from them is decided later.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use provisioning_api::names::{
    MAX_EXTERNAL_ID, MAX_OUTPUT, MAX_OUTPUT_COUNT, MAX_OUTPUTS, MAX_REASON, MAX_STEP_MESSAGE,
};
use provisioning_api::steps::{Direction, FailureClass, StepAction, StepEffect, StepPhase, StepStatus};

use crate::observed::{Observed, Outcome, RunView};

/// Ends every open entry whose end was seen.
pub fn settle(steps: &[StepStatus], observed: &Observed, now: Timestamp) -> Vec<StepStatus> {
    let mut settled = steps.to_vec();
    for position in 0..settled.len() {
        let Some(direction) = settled[position].open_direction() else { continue };
        let Some(RunView::Ended(outcome)) = observed.get(&settled[position].id) else { continue };
        let others: usize = settled.iter().filter(|step| step.id != settled[position].id).map(size_of_outputs).sum();
        let bounded = match (direction, outcome.class) {
            // A child has done all that was asked of it: its outputs are an offer, and can be read there.
            (Direction::Forward, None) if settled[position].action == StepAction::Apply => offered(outcome, others),
            (Direction::Forward, None) => within_bounds(outcome, others),
            // Nothing but their words is kept.
            (Direction::Forward, Some(_)) | (Direction::Undo, _) => outcome.clone(),
        };
        end(&mut settled[position], direction, &bounded, now);
    }
    settled
}

/// Ends one open entry.
fn end(step: &mut StepStatus, direction: Direction, outcome: &Outcome, now: Timestamp) {
    step.finished_at = Some(Time(now));
    step.class = outcome.class;
    step.reason = prefix(&outcome.reason, MAX_REASON);
    step.message = cut(&outcome.message);
    let retry_after = outcome.class.and(outcome.retry_after_seconds);
    step.retry_at = retry_after.and_then(|seconds| {
        let wait = jiff::SignedDuration::from_secs(seconds.clamp(0, 24 * 3600));
        now.saturating_add(wait).ok().map(Time)
    });
    match (direction, outcome.class) {
        (Direction::Forward, None) => {
            step.phase = StepPhase::Succeeded;
            step.outputs.clone_from(&outcome.outputs);
            if outcome.external_id.is_some() {
                step.external_id.clone_from(&outcome.external_id);
            }
        }
        (Direction::Undo, None) => {
            step.phase = StepPhase::Undone;
            step.effect = StepEffect::None;
            step.outputs.clear();
            step.external_id = None;
        }
        (Direction::Forward, Some(_)) => step.phase = StepPhase::Failed,
        // Still Undoing, but no longer open: `finishedAt` is set.
        (Direction::Undo, Some(_)) => {}
    }
    match outcome.class {
        Some(FailureClass::Infrastructure | FailureClass::Refused) => step.losses = step.losses.saturating_add(1),
        Some(_) => step.attempt = step.attempt.saturating_add(1),
        None => {}
    }
    if direction == Direction::Forward && step.action.has_effect() && !outcome.harmless {
        step.effect = StepEffect::Possible;
    }
}

/// The outputs of a child where they fit, and none where not.
fn offered(outcome: &Outcome, others: usize) -> Outcome {
    let fits = within_bounds(outcome, others);
    if fits.class.is_none() {
        return fits;
    }
    let bare = Outcome { outputs: BTreeMap::new(), ..outcome.clone() };
    let bare = within_bounds(&bare, others);
    Outcome { message: format!("outputs left out: {}", fits.message), ..bare }
}

/// A result that does not fit into the object turns a success into a failure that says so: the API server would refuse
/// the whole status.
fn within_bounds(outcome: &Outcome, others: usize) -> Outcome {
    let own = size_of(&outcome.outputs);
    let count = outcome.outputs.len();
    let long = outcome.outputs.iter().find(|(_, value)| value.len() > MAX_OUTPUT);
    let id = outcome.external_id.as_ref().map_or(0, String::len);
    let (reason, text) = if own.saturating_add(others) > MAX_OUTPUTS {
        let text =
            format!("outputs of {own} bytes do not fit: an object holds {MAX_OUTPUTS} bytes, {others} are taken");
        ("OutputsTooLarge", text)
    } else if count > MAX_OUTPUT_COUNT {
        ("TooManyOutputs", format!("{count} outputs are more than the {MAX_OUTPUT_COUNT} that a step may have"))
    } else if let Some((name, value)) = long {
        let length = value.len();
        ("OutputTooLarge", format!("output '{name}' of {length} bytes is longer than {MAX_OUTPUT} bytes"))
    } else if id > MAX_EXTERNAL_ID {
        ("ExternalIdTooLong", format!("an external id of {id} bytes is longer than {MAX_EXTERNAL_ID} bytes"))
    } else {
        return outcome.clone();
    };
    Outcome::failed(FailureClass::Invalid, reason, text)
}

fn size_of_outputs(step: &StepStatus) -> usize {
    size_of(&step.outputs)
}

/// Bytes that outputs take in status: control characters are written as six.
fn size_of(outputs: &BTreeMap<String, String>) -> usize {
    let written = |text: &str| serde_json::to_string(text).map_or(usize::MAX, |json| json.len().saturating_sub(2));
    outputs.iter().fold(0, |sum, (name, value)| sum.saturating_add(written(name)).saturating_add(written(value)))
}

/// At most 256 bytes in one line, the beginning dropped: the last words are the cause. Control characters, such as the
/// colours of a script's output, become blanks.
pub(crate) fn cut(message: &str) -> String {
    let message = message.replace(char::is_control, " ");
    if message.len() <= MAX_STEP_MESSAGE {
        return message;
    }
    let mut start = message.len() - (MAX_STEP_MESSAGE - '…'.len_utf8());
    while !message.is_char_boundary(start) {
        start += 1;
    }
    format!("…{}", &message[start..])
}

/// At most so many bytes from the beginning, whole characters.
pub fn prefix(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
