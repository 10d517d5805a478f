//! When a failed run is tried again (protocols §4).

use jiff::{SignedDuration, Timestamp};
use provisioning_api::shared::RetryPolicy;
use provisioning_api::steps::{FailureClass, StepStatus};

use crate::ids::fraction;

/// Runs that may be lost to the infrastructure, or refused, before the step fails for good.
pub const MAX_LOSSES: i32 = 10;
/// Wait between two tries with credentials that were refused, or are not there.
const UNAUTHORIZED_WAIT: SignedDuration = SignedDuration::from_mins(15);
/// The same where the executor said when to come back: it never ends by itself, so it must not be often.
const UNAUTHORIZED_FLOOR: SignedDuration = SignedDuration::from_mins(1);
/// Longest wait after a loss.
const LOSS_CAP_SECONDS: i64 = 60;

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Try again at this time.
    RetryAt(Timestamp),
    /// No retry.
    GiveUp,
}

/// What follows the failure that a checkpoint holds. A function of the checkpoint and the policy, so that a process
/// that comes later arrives at the same time.
pub fn after_failure(step: &StepStatus, class: FailureClass, policy: &RetryPolicy) -> AfterFailure {
    let ended = step.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let wait = match class {
        FailureClass::Infrastructure | FailureClass::Refused => {
            (step.losses <= MAX_LOSSES).then(|| backoff(step, 1, 2, LOSS_CAP_SECONDS, step.losses))
        }
        FailureClass::Unauthorized => {
            Some(if step.retry_at.is_some() { UNAUTHORIZED_FLOOR } else { UNAUTHORIZED_WAIT })
        }
        FailureClass::Invalid => None,
        FailureClass::Transient | FailureClass::Throttled | FailureClass::Timeout | FailureClass::ScriptFailed => {
            (policy.classes.contains(&class) && step.attempt <= policy.limit).then(|| {
                let cap = i64::from(policy.cap_seconds);
                backoff(step, i64::from(policy.backoff_seconds), i64::from(policy.factor), cap, step.attempt)
            })
        }
    };
    match wait {
        None => AfterFailure::GiveUp,
        Some(wait) => {
            let asked = step.retry_at.as_ref().map_or(ended, |time| time.0);
            AfterFailure::RetryAt(whole_second(ended.saturating_add(wait).unwrap_or(Timestamp::MAX).max(asked)))
        }
    }
}

/// `base · factor^(count-1)`, at most `cap`, and up to a quarter more, by step and run.
fn backoff(step: &StepStatus, base: i64, factor: i64, cap: i64, count: i32) -> SignedDuration {
    let exponent = u32::try_from(count.saturating_sub(1)).unwrap_or(0);
    let seconds = base.saturating_mul(factor.saturating_pow(exponent)).min(cap);
    let whole = SignedDuration::from_secs(seconds);
    whole.saturating_add(SignedDuration::from_secs_f64(whole.as_secs_f64() * 0.25 * fraction(&step.id, step.run)))
}

/// The next whole second: times in status have no finer grain, and what is stored must be what was decided.
fn whole_second(at: Timestamp) -> Timestamp {
    let seconds = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
