//! Every answer of the provider's API becomes the right class: it decides what the operator does next.

use futures::{StreamExt, TryStreamExt};
use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;

use crate::scene::{Ask, Stage, Subject, Verdict, failed, words};
use crate::server::Plan;
use crate::world::Refusal;

use super::create::{CUTS_AT_ONCE, MAX_CUTS};

/// What the throttled answer asks for, seconds.
const WISH: i64 = 7;

pub(super) async fn invalid(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let good = Subject::new(&scene.offer);
    let mut seen = Vec::new();
    for (what, wanted) in [("zone", "atlantis-9"), ("image", "localhost/no-such-image:9")] {
        let mut subject = good.clone();
        let offered = match what {
            "zone" => std::mem::replace(&mut subject.creation.zone, wanted.into()),
            _ => std::mem::replace(&mut subject.creation.image, wanted.into()),
        };
        let what = format!("create with the unknown {what} {wanted}");
        let run = scene.ask(&subject, subject.create()).await?;
        let result = failed(&run, FailureClass::Invalid, &what)?;
        if !result.message.contains(wanted) || !result.message.contains(&offered) {
            return Err(format!("{what}: the message names not both it and {offered}: {}", result.message));
        }
        if let Some(machine) = scene.machines(&subject.owner.uid).await.first() {
            return Err(format!("{what}: {} was made all the same", machine.id));
        }
        seen.push(result.message);
    }
    Ok(seen.swap_remove(0))
}

/// Runs a create for every call of it with one planned answer from that call on.
async fn at_every_call(
    stage: &Stage,
    class: FailureClass,
    plan: impl Fn(usize) -> Plan,
    recovers: bool,
) -> Result<Vec<StepResult>, String> {
    let calls = {
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        scene.created(&subject).await?;
        scene.calls().await.len()
    };
    let runs = (0..calls.min(MAX_CUTS)).map(plan).enumerate().map(|(at, plan)| async move {
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        let run = scene.ask_with(&subject, subject.create(), Ask { plan, ..Ask::default() }).await?;
        let result = failed(&run, class, &format!("from call {at} of a create on"))?;
        if recovers {
            scene.created(&subject).await.map_err(|seen| format!("after a failure from call {at} on: {seen}"))?;
        }
        Ok::<_, String>(result)
    });
    futures::stream::iter(runs).buffered(CUTS_AT_ONCE).try_collect().await
}

pub(super) async fn unauthorized(stage: &Stage) -> Verdict {
    let reply = stage.scene().await?.refusal(Refusal::Unauthorized).await;
    let plan = |at| Plan::Answer(at, reply.clone());
    let results = at_every_call(stage, FailureClass::Unauthorized, plan, false).await?;
    Ok(format!("at each of {} calls", results.len()))
}

pub(super) async fn throttled(stage: &Stage) -> Verdict {
    let reply = stage.scene().await?.refusal(Refusal::Throttled(WISH)).await;
    let plan = |at| Plan::Answer(at, reply.clone());
    let results = at_every_call(stage, FailureClass::Throttled, plan, false).await?;
    for (at, result) in results.iter().enumerate() {
        if result.retry_after_seconds != Some(WISH) {
            return Err(format!("call {at}: retryAfterSeconds {:?}, expected {WISH}", result.retry_after_seconds));
        }
    }
    Ok(format!("at each of {} calls", results.len()))
}

pub(super) async fn transient(stage: &Stage) -> Verdict {
    for code in [500, 503] {
        let reply = stage.scene().await?.refusal(Refusal::Broken(code)).await;
        let plan = |at| Plan::Answer(at, reply.clone());
        let runs = at_every_call(stage, FailureClass::Transient, plan, true).await;
        runs.map_err(|seen| format!("answers with {code} {seen}"))?;
    }
    let runs = at_every_call(stage, FailureClass::Transient, Plan::Reset, true).await;
    let calls = runs.map_err(|seen| format!("connections lost {seen}"))?.len();
    Ok(format!("at each of {calls} calls"))
}

pub(super) async fn timeout(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let ask = Ask { plan: Plan::Hang(0), timeout_seconds: Some(2), ..Ask::default() };
    let run = scene.ask_with(&subject, subject.create(), ask).await?;
    failed(&run, FailureClass::Timeout, "create whose first call is not answered")?;
    Ok(words(&run))
}
