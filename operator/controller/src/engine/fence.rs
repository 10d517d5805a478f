//! The fence for steps without a Job (protocols §2): their one API write is the operator's own, so the operator looks
//! again itself before a write that comes long after its intent.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use provisioning_api::steps::StepStatus;
use tokio::time::Instant;

use super::kind::Kind;
use super::persist::{api, describe};
use crate::context::Context;
use crate::error::Error;
use crate::workspace::live;

/// How long the answer to a status write speaks for the object.
const FRESH: SignedDuration = SignedDuration::from_secs(5);

/// When the intent of a pass was written, by two clocks: one stands still while a machine sleeps, the other may be set.
#[derive(Clone, Copy, Debug)]
pub struct WrittenAt {
    wall: Timestamp,
    steady: Instant,
}

impl WrittenAt {
    /// Now.
    pub fn now(ctx: &Context) -> Self {
        WrittenAt { wall: ctx.now(), steady: Instant::now() }
    }

    fn is_fresh(self, now: Timestamp) -> bool {
        let wall = now.duration_since(self.wall);
        let steady = SignedDuration::try_from(self.steady.elapsed()).unwrap_or(SignedDuration::MAX);
        (SignedDuration::ZERO..FRESH).contains(&wall) && steady < FRESH
    }
}

/// Makes sure that a step is still open as this pass has it, under this leader's epoch. Asks the API server, unless the
/// intent was written just now.
///
/// # Errors
/// [`Error::Conflict`] where it is not so any more: then nothing is done.
pub async fn confirm<K: Kind>(
    ctx: &Context,
    object: &K,
    step: &StepStatus,
    written: Option<WrittenAt>,
) -> Result<(), Error> {
    if written.is_some_and(|written| written.is_fresh(ctx.now())) {
        return Ok(());
    }
    let name = describe(object);
    let live = api::<K>(ctx, object).get_opt(&object.name_any()).await;
    let live = live.map_err(|source| Error::request("read", &name, source))?;
    let live = live.map(|live| live.readable(&name)).transpose()?;
    let same = live.filter(|live| live.uid() == object.uid()).is_some_and(|live| {
        let steps = live.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        steps.iter().any(|found| found.id == step.id && is_the_run(found, step))
    });
    if !same {
        return Err(Error::Conflict { object: name });
    }
    let namespace = object.namespace().unwrap_or_default();
    let workspace = live::find(ctx, &namespace).await?;
    let status = workspace.and_then(|workspace| workspace.status);
    let epoch = status.as_ref().map_or(0, |status| status.epoch);
    if epoch > step.epoch {
        // Ours was lost and raised anew since this pass began.
        if status.and_then(|status| status.leader).is_some_and(|leader| leader == ctx.settings.identity) {
            return Err(Error::Conflict { object: live::describe(&namespace) });
        }
        ctx.superseded.notify_one();
        return Err(Error::Superseded { namespace, epoch });
    }
    Ok(())
}

fn is_the_run(found: &StepStatus, wanted: &StepStatus) -> bool {
    found.run == wanted.run
        && found.open_direction().is_some()
        && found.open_direction() == wanted.open_direction()
        && found.epoch == wanted.epoch
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use provisioning_api::steps::StepPhase;

    use super::*;

    fn step(run: i64, phase: StepPhase, epoch: i64) -> StepStatus {
        serde_json::from_value(serde_json::json!({"id": "heron", "action": "Apply", "undo": "None", "run": run,
            "inputHash": "v1:abc", "phase": phase, "epoch": epoch}))
        .unwrap()
    }

    #[test]
    fn only_the_same_open_run_of_the_same_epoch_is_confirmed() {
        let wanted = step(3, StepPhase::Running, 7);
        assert!(is_the_run(&step(3, StepPhase::Running, 7), &wanted));
        for other in [
            step(4, StepPhase::Running, 7),
            step(3, StepPhase::Undoing, 7),
            step(3, StepPhase::Succeeded, 7),
            step(3, StepPhase::Running, 8),
        ] {
            assert!(!is_the_run(&other, &wanted), "{other:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_intent_is_fresh_for_seconds_by_both_clocks() {
        let wall = Timestamp::from_second(1_000_000).unwrap();
        let written = WrittenAt { wall, steady: Instant::now() };
        let after = |seconds| wall + SignedDuration::from_secs(seconds);
        assert!(written.is_fresh(after(0)) && written.is_fresh(after(4)));
        // The machine slept: only the wall clock has moved. The clock was set back: nothing can be said.
        assert!(!written.is_fresh(after(5)) && !written.is_fresh(after(-1)));
        // The wall clock stands still.
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!written.is_fresh(after(0)));
    }
}
