//! Create: once, whatever happens in between.

use futures::{StreamExt, TryStreamExt};
use provisioning_api::steps::FailureClass;

use crate::scene::{Ask, Scene, Stage, Subject, Verdict, succeeded, words};
use crate::server::Plan;
use crate::world::{Quirk, Tags};

/// Most calls of one request at which it is cut; a request of more calls is cut at these.
pub(super) const MAX_CUTS: usize = 40;
/// Cuts at a time: each mostly waits.
pub(super) const CUTS_AT_ONCE: usize = 4;

/// A uid that is not the subject's.
pub(super) const STRANGER: &str = "ffffffff-3c55-4d7e-9a39-6f1f4a8c2d10";

/// Tags that equal the subject's in all but the uid.
pub(super) fn twin(subject: &Subject) -> Tags {
    Tags { uid: STRANGER.into(), ..subject.tags() }
}

pub(super) async fn once(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let first = scene.created(&subject).await?;
    let machine = scene.one_machine(&subject, "first create").await?;
    let Some(id) = &first.external_id else { return Err("the result of a create has no externalID".into()) };
    let forgets = scene.take_on(Quirk::ForgetTokens).await;
    let again = succeeded(&scene.ask(&subject, subject.create()).await?, "second create")?;
    let now = scene.one_machine(&subject, "second create with the same token").await?;
    if now.id != machine.id {
        return Err(format!("the second create replaced {} by {}", machine.id, now.id));
    }
    if again.external_id != first.external_id || again.outputs.get("hostKey") != first.outputs.get("hostKey") {
        return Err(format!("the second create answered {:?} and not {id}, or another host key", again.external_id));
    }
    Ok(format!("{id}{}", if forgets { ", also after the tokens were forgotten" } else { "" }))
}

/// The last changing call of a create, and how many calls it makes.
async fn shape(stage: &Stage) -> Result<(usize, usize), String> {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    let calls = scene.calls().await;
    let last = calls.iter().rposition(|call| call.mutates);
    Ok((last.ok_or("a create makes no changing call")?, calls.len()))
}

pub(super) async fn token(stage: &Stage) -> Verdict {
    let (last, _) = shape(stage).await?;
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    cut_create(&mut scene, &subject, Plan::CutAfter(last)).await?;
    let stale = scene.take_on(Quirk::StaleLists(1)).await;
    succeeded(&scene.ask(&subject, subject.create()).await?, "create after a lost answer")?;
    scene.one_machine(&subject, "create, its answer lost, then create again with the same token").await?;
    Ok(if stale { "with a list that is behind".into() } else { "lists of this world are never behind".into() })
}

async fn cut_create(scene: &mut Scene, subject: &Subject, plan: Plan) -> Result<(), String> {
    let what = format!("{plan:?}");
    let run = scene.ask_with(subject, subject.create(), Ask { plan, ..Ask::default() }).await?;
    // It ended before its cut, so it took fewer calls than the first time.
    if run.by_itself { Err(format!("{what} was not reached: {}", words(&run))) } else { Ok(()) }
}

pub(super) async fn cut(stage: &Stage) -> Verdict {
    let (_, calls) = shape(stage).await?;
    let plans = (0..calls.min(MAX_CUTS)).flat_map(|at| [Plan::CutBefore(at), Plan::CutAfter(at)]);
    let cuts = plans.map(|plan| async move {
        let what = format!("{plan:?}");
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        cut_create(&mut scene, &subject, plan).await?;
        let run = scene.ask(&subject, subject.create()).await?;
        succeeded(&run, &format!("create after {what}"))?;
        scene.one_machine(&subject, &format!("create after {what}")).await
    });
    let machines: Vec<_> = futures::stream::iter(cuts).buffer_unordered(CUTS_AT_ONCE).try_collect().await?;
    Ok(format!("{} cuts", machines.len()))
}

pub(super) async fn parameters(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let mut subject = Subject::new(&scene.offer);
    let first = scene.created(&subject).await?;
    let machine = scene.one_machine(&subject, "first create").await?;
    subject.creation.cores = 2;
    subject.creation.memory_mib = 1024;
    let run = scene.ask(&subject, subject.create()).await?;
    let now = scene.one_machine(&subject, "create with the same token and other parameters").await?;
    if now != machine {
        return Err(format!("the machine {} became {}", machine.id, now.id));
    }
    match &run.result {
        Some(result) if result.class.is_none() && result.external_id == first.external_id => {
            Ok("answered with the first machine".into())
        }
        Some(result) if result.class == Some(FailureClass::Invalid) => Ok("refused as Invalid".into()),
        _ => Err(format!("expected the first machine or Invalid, got {}", words(&run))),
    }
}

pub(super) async fn foreign(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let twin = scene.plant(&twin(&subject)).await;
    let run = scene.ask(&subject, subject.create()).await?;
    if !scene.machines(STRANGER).await.iter().any(|machine| machine.id == twin) {
        return Err(format!("{twin}, which has our name and token but another uid, is gone"));
    }
    match &run.result {
        Some(result) if result.class.is_none() => {
            scene.one_machine(&subject, "create beside a machine of another owner").await?;
            Ok("made one of its own".into())
        }
        Some(result) if result.class == Some(FailureClass::Invalid) && result.message.contains(STRANGER) => {
            Ok("refused as Invalid, naming the other owner".into())
        }
        _ => Err(format!("expected a machine of its own, or Invalid naming uid {STRANGER}; got {}", words(&run))),
    }
}

pub(super) async fn sweep(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let mut subject = Subject::new(&scene.offer);
    scene.plant(&Tags { token: "blue-heron-token-other".into(), ..subject.tags() }).await;
    let twin = scene.plant(&twin(&subject)).await;
    subject.incarnation = 1;
    subject.creation.token = "blue-heron-token-1".into();
    scene.created(&subject).await?;
    let machine = scene.one_machine(&subject, "create beside an older machine of the same owner").await?;
    if machine.tags.token != subject.creation.token {
        return Err(format!("the machine that is left, {}, is not the one of this token", machine.id));
    }
    if !scene.machines(STRANGER).await.iter().any(|machine| machine.id == twin) {
        return Err(format!("{twin} of another owner was swept too"));
    }
    Ok("the older one went, another owner's stayed".into())
}

pub(super) async fn tags(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    let machine = scene.one_machine(&subject, "create").await?;
    let (found, wanted) = (machine.tags.pairs(), subject.tags());
    for ((name, found), (_, wanted)) in found.iter().zip(wanted.pairs()) {
        if *found != wanted {
            return Err(format!("tag {name} of {} is {found:?}, expected {wanted:?}", machine.id));
        }
    }
    Ok(String::new())
}
