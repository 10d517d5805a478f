//! Delete: all of the owner's, nothing else, and not gone before it is gone.

use futures::{StreamExt, TryStreamExt};

use crate::process::Run;
use crate::scene::{Ask, Scene, Stage, Subject, Verdict, succeeded, words};
use crate::server::Plan;
use crate::world::{Quirk, Tags};

use super::create::{CUTS_AT_ONCE, MAX_CUTS, STRANGER, twin};

/// Runs after which a delete has to have ended, where things linger.
const PATIENCE: usize = 5;

/// Makes sure that a delete said Gone and that this is true.
async fn gone(scene: &Scene, subject: &Subject, run: &Run, what: &str) -> Result<(), String> {
    let result = succeeded(run, what)?;
    if result.outputs.get("state").map(String::as_str) != Some("Gone") {
        return Err(format!("{what}: output state is {:?}, expected Gone", result.outputs.get("state")));
    }
    let left = scene.resources().await.into_iter().filter(|resource| resource.tags.uid == subject.owner.uid);
    let left: Vec<String> = left.map(|resource| format!("{} {}", resource.what, resource.id)).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{what}: Gone was said, but there is {}", left.join(", "))) }
}

pub(super) async fn own(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let run = scene.ask(&subject, subject.delete()).await?;
    gone(&scene, &subject, &run, "delete of what never was").await?;
    scene.created(&subject).await?;
    for what in ["delete", "second delete"] {
        let run = scene.ask(&subject, subject.delete()).await?;
        gone(&scene, &subject, &run, what).await?;
    }
    Ok(String::new())
}

pub(super) async fn foreign(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    scene.plant(&twin(&subject)).await;
    scene.plant(&Tags { token: "another-token".into(), ..twin(&subject) }).await;
    scene.plant(&Tags { installation: "another-installation".into(), ..twin(&subject) }).await;
    let strangers = |resources: Vec<crate::world::Resource>| {
        let kept = resources.into_iter().filter(|resource| resource.tags.uid == STRANGER);
        kept.map(|resource| format!("{} {}", resource.what, resource.id)).collect::<Vec<_>>()
    };
    let before = strangers(scene.resources().await);
    for what in ["delete", "delete when only others' machines are left"] {
        let run = scene.ask(&subject, subject.delete()).await?;
        let after = strangers(scene.resources().await);
        let lost: Vec<&str> = before.iter().filter(|id| !after.contains(id)).map(String::as_str).collect();
        if !lost.is_empty() {
            return Err(format!("{what} took what carries another owner's uid: {}", lost.join(", ")));
        }
        gone(&scene, &subject, &run, what).await?;
    }
    Ok(format!("{} resources of other owners stayed", before.len()))
}

pub(super) async fn absence(stage: &Stage) -> Verdict {
    let lingers = believed(stage, Quirk::Linger(3), "delete of what goes slowly").await?;
    let stale = believed(stage, Quirk::StaleLists(1), "delete while one list is behind").await?;
    Ok(match (lingers, stale) {
        (_, true) => "what lingers, and what a list leaves out".into(),
        (_, false) => "what lingers; lists of this world are never behind".into(),
    })
}

/// Deletes under a quirk until Gone is said, which has to be true then.
async fn believed(stage: &Stage, quirk: Quirk, what: &str) -> Result<bool, String> {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    let took = scene.take_on(quirk).await;
    let mut last = String::new();
    for _ in 0..PATIENCE {
        let run = scene.ask(&subject, subject.delete()).await?;
        if run.result.as_ref().is_some_and(|result| result.class.is_none()) {
            gone(&scene, &subject, &run, what).await?;
            return Ok(took);
        }
        last = words(&run);
    }
    Err(format!("{what}: not gone after {PATIENCE} runs; the last said {last}"))
}

pub(super) async fn cut(stage: &Stage) -> Verdict {
    let calls = {
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        scene.created(&subject).await?;
        let run = scene.ask(&subject, subject.delete()).await?;
        gone(&scene, &subject, &run, "delete").await?;
        scene.calls().await.len()
    };
    let plans = (0..calls.min(MAX_CUTS)).flat_map(|at| [Plan::CutBefore(at), Plan::CutAfter(at)]);
    let cuts = plans.map(|plan| async move {
        let what = format!("delete after {plan:?}");
        let mut scene = stage.scene().await?;
        let subject = Subject::new(&scene.offer);
        scene.created(&subject).await?;
        let neighbour = Tags { name: "grey-goose".into(), token: "grey-goose-token".into(), ..twin(&subject) };
        scene.plant(&neighbour).await;
        // How often a delete looks depends on time: one that ended before its cut is a delete too.
        scene.ask_with(&subject, subject.delete(), Ask { plan, ..Ask::default() }).await?;
        let run = scene.ask(&subject, subject.delete()).await?;
        gone(&scene, &subject, &run, &what).await?;
        match scene.machines(STRANGER).await.len() {
            1 => Ok(()),
            _ => Err(format!("{what}: another owner's machine is gone")),
        }
    });
    let done: Vec<()> = futures::stream::iter(cuts).buffer_unordered(CUTS_AT_ONCE).try_collect().await?;
    Ok(format!("{} cuts", done.len()))
}
