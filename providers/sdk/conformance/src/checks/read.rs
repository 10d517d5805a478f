//! What only looks: observe, list, describe.

use provisioning_api::provider_config::{OfferedImage, OfferedSize};
use provisioning_sdk::request::ProviderRequest;
use provisioning_sdk::result::StepResult;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::scene::{INSTALLATION, Scene, Stage, Subject, Verdict, succeeded};
use crate::world::{MACHINE, Quirk, Tags};

use super::create::{STRANGER, twin};

/// Machines that do not fit into one result, nor into one page of any provider.
const MANY: usize = 60;

pub(super) async fn observe(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let created = scene.created(&subject).await?;
    let observed = succeeded(&scene.ask(&subject, subject.observe()).await?, "observe")?;
    let output = |name: &str| observed.outputs.get(name).map(String::as_str).unwrap_or_default();
    if output("state") != "Running" || output("address").is_empty() {
        return Err(format!(
            "state {:?} at address {:?}; expected Running and one",
            output("state"),
            output("address")
        ));
    }
    if observed.external_id != created.external_id {
        return Err(format!("externalID {:?}, the create said {:?}", observed.external_id, created.external_id));
    }
    match (created.outputs.get("hostKey"), observed.outputs.get("hostKey")) {
        (Some(created), Some(observed)) if created != observed => Err("observe and create tell two host keys".into()),
        (_, None) => Err("there is no output hostKey, without which nothing reaches the server".into()),
        (_, Some(_)) => Ok(format!("at {}", output("address"))),
    }
}

pub(super) async fn observe_absence(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let absent = succeeded(&scene.ask(&subject, subject.observe()).await?, "observe of what never was")?;
    expect_state(&absent, "Gone", "observe of what never was")?;
    scene.plant(&twin(&subject)).await;
    let beside = succeeded(&scene.ask(&subject, subject.observe()).await?, "observe beside another owner's machine")?;
    expect_state(&beside, "Gone", "observe beside another owner's machine")?;
    scene.created(&subject).await?;
    let stale = scene.take_on(Quirk::StaleLists(1)).await;
    let there = succeeded(&scene.ask(&subject, subject.observe()).await?, "observe while one list is behind")?;
    expect_state(&there, "Running", "observe while one list is behind")?;
    Ok(if stale { "with a list that is behind".into() } else { "lists of this world are never behind".into() })
}

fn expect_state(result: &StepResult, expected: &str, what: &str) -> Result<(), String> {
    match result.outputs.get("state").map(String::as_str) {
        Some(state) if state == expected => Ok(()),
        state => Err(format!("{what}: state {state:?}, expected {expected}")),
    }
}

/// One entry of output `resources`.
#[derive(Debug, Deserialize)]
struct Listed {
    namespace: String,
    owner: String,
    uid: String,
    token: String,
}

pub(super) async fn list(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    scene.created(&subject).await?;
    // A page of a provider may hold less than a result does.
    for number in 0..8 {
        scene.plant(&numbered(number)).await;
    }
    scene.plant(&Tags { installation: "another-installation".into(), ..twin(&subject) }).await;
    let few = listed(&mut scene, &subject).await?;
    let wanted: Vec<Tags> = machines(&scene).await;
    for tags in &wanted {
        let is_it = |entry: &&Listed| {
            (&entry.namespace, &entry.owner, &entry.uid, &entry.token)
                == (&tags.namespace, &tags.name, &tags.uid, &tags.token)
        };
        if !few.entries.iter().any(|entry| is_it(&entry)) {
            return Err(format!(
                "{} of {} is there and not listed (namespace, owner, uid, token); {} of {} are",
                tags.name,
                tags.namespace,
                few.entries.len(),
                wanted.len()
            ));
        }
    }
    if few.entries.len() != wanted.len() || few.omitted != 0 {
        return Err(format!("{} entries for {} machines; omitted: {}", few.entries.len(), wanted.len(), few.omitted));
    }
    for number in 8..MANY {
        scene.plant(&numbered(number)).await;
    }
    let many = listed(&mut scene, &subject).await?;
    let there = machines(&scene).await.len();
    if many.entries.len() + many.omitted != there || many.total != there {
        return Err(format!(
            "of {there} machines {} are listed, {} are said to be omitted, total is {}",
            many.entries.len(),
            many.omitted,
            many.total
        ));
    }
    Ok(format!("{} of {}; {} of {there}, the others counted", few.entries.len(), wanted.len(), many.entries.len()))
}

fn numbered(number: usize) -> Tags {
    Tags {
        installation: INSTALLATION.into(),
        namespace: "fen".into(),
        kind: "Server".into(),
        name: format!("grey-goose-{number}"),
        uid: STRANGER.replace("ffffffff", &format!("{number:08x}")),
        token: format!("grey-goose-token-{number}"),
    }
}

async fn machines(scene: &Scene) -> Vec<Tags> {
    let is_ours = |tags: &Tags| tags.installation == INSTALLATION;
    let machines = scene.resources().await.into_iter().filter(|resource| resource.what == MACHINE);
    machines.map(|resource| resource.tags).filter(is_ours).collect()
}

struct List {
    entries: Vec<Listed>,
    total: usize,
    omitted: usize,
}

async fn listed(scene: &mut Scene, subject: &Subject) -> Result<List, String> {
    let request = ProviderRequest::List { site: scene.offer.site.clone() };
    let result = succeeded(&scene.ask(subject, request).await?, "list")?;
    Ok(List {
        entries: output(&result, "resources")?,
        total: output(&result, "total")?,
        omitted: output(&result, "omitted")?,
    })
}

fn output<T: DeserializeOwned>(result: &StepResult, name: &str) -> Result<T, String> {
    let text = result.outputs.get(name).ok_or_else(|| format!("there is no output {name}"))?;
    serde_json::from_str(text).map_err(|error| format!("output {name} cannot be read: {error}"))
}

pub(super) async fn describe(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let request = ProviderRequest::Describe { site: scene.offer.site.clone() };
    let result = succeeded(&scene.ask(&subject, request).await?, "describe")?;
    let zones: Vec<String> = output(&result, "zones")?;
    let sizes: Vec<OfferedSize> = output(&result, "sizes")?;
    let images: Vec<OfferedImage> = output(&result, "images")?;
    let Subject { creation, .. } = subject;
    if !zones.contains(&creation.zone) || !images.iter().any(|image| image.id == creation.image) {
        return Err(format!("zone {} or image {} is offered and not told", creation.zone, creation.image));
    }
    Ok(format!("{} zones, {} sizes, {} images", zones.len(), sizes.len(), images.len()))
}

pub(super) async fn reads(stage: &Stage) -> Verdict {
    let mut scene = stage.scene().await?;
    let subject = Subject::new(&scene.offer);
    let site = scene.offer.site.clone();
    let mut calls = 0;
    for there in [false, true] {
        if there {
            scene.created(&subject).await?;
        }
        let requests = [
            ProviderRequest::Describe { site: site.clone() },
            subject.observe(),
            ProviderRequest::List { site: site.clone() },
        ];
        for request in requests {
            scene.ask(&subject, request).await?;
            let log = scene.calls().await;
            if let Some(call) = log.iter().find(|call| call.mutates) {
                return Err(format!("a request that only looks made the call {}", call.line));
            }
            calls += log.len();
        }
    }
    Ok(format!("{calls} calls"))
}
