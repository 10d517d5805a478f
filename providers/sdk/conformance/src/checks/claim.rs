//! Nothing acts before it holds its run.

use std::time::Duration;

use provisioning_api::steps::FailureClass;

use crate::claims::Drift;
use crate::scene::{Ask, POD, Scene, Stage, Subject, Verdict, failed, succeeded};
use crate::server::Plan;

/// More than the 30 s for which a look at the owner is good, with room for a slow machine.
const STALE: Duration = Duration::from_secs(32);

/// What may have happened to the run between its intent and its Pod.
const DRIFTS: [Drift; 9] = [
    Drift::HeldByOther,
    Drift::LaterRun,
    Drift::OtherInput,
    Drift::Closed,
    Drift::Unplanned,
    Drift::LaterEpoch,
    Drift::OwnerGone,
    Drift::OtherOwner,
    Drift::BeingDeleted,
];

async fn nothing_changed(scene: &Scene, what: &str) -> Result<(), String> {
    let calls = scene.calls().await;
    match calls.iter().find(|call| call.mutates) {
        Some(call) => Err(format!("{what}: the call {} was made all the same", call.line)),
        None => Ok(()),
    }
}

pub(super) async fn held(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    for drift in DRIFTS {
        let what = format!("create under {drift:?}");
        let ask = Ask { drift: Some(drift), ..Ask::default() };
        let run = scene.ask_with(&subject, subject.create(), ask).await?;
        nothing_changed(&scene, &what).await?;
        failed(&run, FailureClass::Refused, &what)?;
    }
    let ask = Ask { drift: Some(Drift::LeaseUnanswered), ..Ask::default() };
    let run = scene.ask_with(&subject, subject.create(), ask).await?;
    nothing_changed(&scene, "create without a Lease").await?;
    failed(&run, FailureClass::Transient, "create without a Lease")?;

    succeeded(&scene.ask(&subject, subject.create()).await?, "create")?;
    if scene.holder().await.as_deref() != Some(POD) {
        return Err(format!("the Lease {} is held by {:?}, expected the Pod's uid", scene.job(), scene.holder().await));
    }
    let log = scene.log().await;
    let first = log.iter().position(|entry| entry.mutates).unwrap_or(log.len());
    for part in ["/leases", "/servers/blue-heron", "/workspaces/workspace"] {
        if !log[..first].iter().any(|entry| !entry.to_world && entry.line.contains(part)) {
            return Err(format!("the first change came before a call to …{part}"));
        }
    }
    Ok(format!("{} ways to lose it", DRIFTS.len() + 1))
}

pub(super) async fn renewed(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    let calls = scene.calls().await;
    // The look before the first change is held up; a change that comes at once has its look just behind it.
    let Some(look) = calls.iter().position(|call| call.mutates).and_then(|first| first.checked_sub(1)) else {
        return Ok("the first call is a change: there is no time between".into());
    };
    let mut scene = stage.scene().await?;
    let plan = Plan::CloseAfter(look, STALE);
    let ask = Ask { plan, timeout_seconds: Some(120), ..Ask::default() };
    let run = scene.ask_with(&subject, subject.create(), ask).await?;
    let what = format!("create that was held up for {} s, while its step ended", STALE.as_secs());
    nothing_changed(&scene, &what).await?;
    failed(&run, FailureClass::Refused, &what)?;
    Ok(String::new())
}
