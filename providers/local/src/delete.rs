//! Delete: everything that carries the owner's uid, disks included, and see it gone (protocols §3).
//!
//! Order: wipe pods are created first, while the servers still tell which nodes hold their disks; the scheduler keeps
//! them waiting until the servers are gone (template.rs). Then the servers and the Secrets go, the wipe pods do their
//! work, are seen to have succeeded, and go too. What a run finds that follows one cut at any point:
//!
//! | cut | what is there | what the next run does |
//! |---|---|---|
//! | before a wipe pod's create | servers | all of it |
//! | after a wipe pod's create | servers, wipe pods waiting | keeps the waiting ones, deletes the servers |
//! | after the servers' delete | wipe pods waiting, running or done | awaits the active ones; runs a done one again (it is idempotent) |
//! | while a wipe pod lacks its image | wipe pods waiting | makes it again with another image |
//! | after the wipe pods' delete | nothing | one more wipe: without a pod nobody knows that it was done |
//!
//! A server pod that vanished by other hands leaves no node behind: then one wipe pod runs wherever the scheduler
//! puts it, which on a site of one node is the right place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use provisioning_api::names::LABEL_ROLE;
use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;
use tokio::time::{Instant, sleep};

use crate::catalog::{Catalog, CatalogError};
use crate::errors::Failure;
use crate::names::{Machine, ROLE_SERVER, ROLE_WIPE};
use crate::pods::{complaint, has_ended, image, is_terminating, label, lacks_image, last_words, node, phase};
use crate::site::{Patience, Site, SiteError};
use crate::template::{self, TemplateError};

/// Time between the two empty lists that make an absence: longer than a write takes to be seen by a consistent read.
const CONSISTENCY_WINDOW: Duration = Duration::from_secs(1);

/// How long a wipe pod may lack its image before the run ends; the next one takes another image.
const NO_IMAGE_AFTER: Duration = Duration::from_secs(10);

/// Why it is not all gone.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A call failed.
    #[error(transparent)]
    CallSite(#[from] SiteError),
    /// The catalog is broken: without it the place of the disks is unknown.
    #[error(transparent)]
    ReadCatalog(#[from] CatalogError),
    /// No manifest.
    #[error(transparent)]
    BuildManifest(#[from] TemplateError),
    /// The wipe pod ended badly.
    #[error("failed to remove the disks of this server: {0}")]
    WipeDisks(String),
    /// Time is up.
    #[error("failed to see everything of this server go; left: {0}")]
    AwaitAbsence(String),
}

impl Failure for DeleteError {
    fn class(&self) -> FailureClass {
        match self {
            DeleteError::CallSite(error) => error.class(),
            DeleteError::ReadCatalog(error) => error.class(),
            DeleteError::BuildManifest(_) => FailureClass::Invalid,
            DeleteError::WipeDisks(_) | DeleteError::AwaitAbsence(_) => FailureClass::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            DeleteError::CallSite(error) => error.reason(),
            DeleteError::ReadCatalog(error) => error.reason(),
            DeleteError::BuildManifest(_) => "BadManifest",
            DeleteError::WipeDisks(_) => "DisksRemain",
            DeleteError::AwaitAbsence(_) => "ServerRemains",
        }
    }

    fn retry_after_seconds(&self) -> Option<i64> {
        match self {
            DeleteError::CallSite(error) => error.retry_after_seconds(),
            _ => None,
        }
    }
}

/// Deletes pods, Secrets and disks of the owner, of all incarnations.
///
/// # Errors
/// [`DeleteError`]; the next run goes on from whatever is left.
pub async fn delete(site: &mut Site, machine: &Machine, patience: &mut Patience) -> Result<StepResult, DeleteError> {
    let catalog = Catalog::read(&site.read_catalog_map().await?)?;
    let wipes = start_wipes(site, machine, &catalog, patience).await?;
    delete_servers(site, machine).await?;
    for incarnation in (0..=machine.incarnation()).rev() {
        site.delete_secret(&machine.secret_name(incarnation)).await?;
    }
    patience.refresh();
    await_wipes(site, machine, &wipes, patience).await?;
    patience.refresh();
    clear_wipes(site, machine, patience).await?;
    Ok(StepResult::succeeded(BTreeMap::from([("state".to_owned(), "Gone".to_owned())])))
}

/// Makes sure that a wipe pod waits for every node that holds a disk, and that each is younger than the last server
/// there: one that ended before proves nothing. Returns their names.
async fn start_wipes(
    site: &mut Site,
    machine: &Machine,
    catalog: &Catalog,
    patience: &mut Patience,
) -> Result<BTreeSet<String>, DeleteError> {
    let mut wanted: Option<BTreeMap<String, Pod>> = None;
    loop {
        let pods = site.list_pods(&machine.owner_selector()).await?;
        let (old, active): (Vec<&Pod>, Vec<&Pod>) = pods
            .iter()
            .filter(|pod| label(pod, LABEL_ROLE) == ROLE_WIPE)
            .partition(|pod| has_ended(pod) || is_terminating(pod) || lacks_image(pod));
        let wanted = match &mut wanted {
            Some(wanted) => wanted,
            None => wanted.insert(wanted_wipes(machine, catalog, &pods, &active)?),
        };
        for pod in old.iter().filter(|pod| !is_terminating(pod)) {
            site.delete_pod(pod).await?;
        }
        if old.is_empty() {
            for pod in wanted.values() {
                // AlreadyExists: it is active, as the list says, or the next look sees it.
                site.create_pod(pod).await?;
            }
            return Ok(wanted.keys().cloned().chain(active.iter().map(|pod| pod.name_any())).collect());
        }
        if !patience.pause().await {
            return Err(DeleteError::AwaitAbsence(remaining(&pods)));
        }
    }
}

/// The wipe pods that have to be made: one for every node with a server, and one that is not bound to a node where
/// none is known.
fn wanted_wipes(
    machine: &Machine,
    catalog: &Catalog,
    pods: &[Pod],
    active: &[&Pod],
) -> Result<BTreeMap<String, Pod>, DeleteError> {
    let image = choose_image(machine, catalog, pods)?;
    let mut nodes: BTreeSet<Option<&str>> =
        pods.iter().filter(|pod| label(pod, LABEL_ROLE) == ROLE_SERVER).map(node).filter(Option::is_some).collect();
    if nodes.is_empty() && active.is_empty() {
        nodes.insert(None);
    }
    let mut wanted = BTreeMap::new();
    for node in nodes {
        let pod = template::wipe(machine, node, image, &catalog.disk_root)?;
        if !active.iter().any(|active| active.name_any() == pod.name_any()) {
            wanted.insert(pod.name_any(), pod);
        }
    }
    Ok(wanted)
}

/// The image for wipe pods: none that the node is known to lack, because a server or a wipe pod before waited for it.
fn choose_image<'a>(machine: &Machine, catalog: &'a Catalog, pods: &[Pod]) -> Result<&'a str, DeleteError> {
    let own_is_absent = pods.iter().any(|pod| label(pod, LABEL_ROLE) == ROLE_SERVER && lacks_image(pod));
    let images = catalog.wipe_images(machine.creation(), !own_is_absent)?;
    let is_absent = |candidate: &str| {
        pods.iter().any(|pod| label(pod, LABEL_ROLE) == ROLE_WIPE && lacks_image(pod) && image(pod) == Some(candidate))
    };
    Ok(images.iter().copied().find(|candidate| !is_absent(candidate)).unwrap_or(images[0]))
}

async fn delete_servers(site: &mut Site, machine: &Machine) -> Result<(), DeleteError> {
    for pod in site.list_pods(&machine.owner_selector()).await? {
        if label(&pod, LABEL_ROLE) == ROLE_SERVER && !is_terminating(&pod) {
            tracing::info!(pod = pod.name_any(), "deleting the machine");
            site.delete_pod(&pod).await?;
        }
    }
    Ok(())
}

/// Waits until no server is left and every wipe pod has succeeded.
async fn await_wipes(
    site: &Site,
    machine: &Machine,
    wipes: &BTreeSet<String>,
    patience: &mut Patience,
) -> Result<(), DeleteError> {
    let mut absent_since = None;
    loop {
        let pods = site.list_pods(&machine.owner_selector()).await?;
        let now = Instant::now();
        if !pods.iter().any(lacks_image) {
            absent_since = None;
        }
        for pod in pods.iter().filter(|pod| label(pod, LABEL_ROLE) == ROLE_WIPE) {
            let absent = lacks_image(pod) && now.duration_since(*absent_since.get_or_insert(now)) >= NO_IMAGE_AFTER;
            if absent || phase(pod) == "Failed" {
                let words = last_words(pod).or_else(|| complaint(pod).map(|complaint| complaint.message));
                return Err(DeleteError::WipeDisks(words.unwrap_or_default()));
            }
        }
        let done = pods.iter().filter(|pod| phase(pod) == "Succeeded").map(|pod| pod.name_any()).collect();
        let server_left = pods.iter().any(|pod| label(pod, LABEL_ROLE) == ROLE_SERVER);
        if !server_left && wipes.is_subset(&done) {
            return Ok(());
        }
        if !patience.pause().await {
            return Err(DeleteError::AwaitAbsence(remaining(&pods)));
        }
    }
}

/// Deletes the wipe pods and believes the absence only after two empty lists.
async fn clear_wipes(site: &mut Site, machine: &Machine, patience: &mut Patience) -> Result<(), DeleteError> {
    let mut empty_before = false;
    loop {
        let pods = site.list_pods(&machine.owner_selector()).await?;
        if pods.is_empty() {
            if empty_before {
                return Ok(());
            }
            empty_before = true;
            sleep(CONSISTENCY_WINDOW).await;
            continue;
        }
        empty_before = false;
        for pod in pods.iter().filter(|pod| label(pod, LABEL_ROLE) == ROLE_WIPE && !is_terminating(pod)) {
            site.delete_pod(pod).await?;
        }
        if !patience.pause().await {
            return Err(DeleteError::AwaitAbsence(remaining(&pods)));
        }
    }
}

/// What is left, for people: names, and what holds each one up.
fn remaining(pods: &[Pod]) -> String {
    let describe = |pod: &Pod| match complaint(pod) {
        Some(trouble) if !trouble.message.is_empty() => format!("{} ({})", pod.name_any(), trouble.message),
        _ => format!("{} ({})", pod.name_any(), phase(pod)),
    };
    pods.iter().map(describe).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use provisioning_api::names::LABEL_OWNER_UID;
    use serde_json::json;

    use super::*;
    use crate::create::create;
    use crate::errors::to_result;
    use crate::testing::{self, FakeSite, Fault, label as label_of, machine};

    async fn run(site: &FakeSite, fault: Option<Fault>) -> Result<StepResult, DeleteError> {
        let mut process = site.start(fault).await;
        delete(&mut process, &machine("blue-heron", 1), &mut Patience::new(120)).await
    }

    /// A site with a server in its second life, the disk of its first one, and a neighbour.
    async fn inhabited() -> (FakeSite, String) {
        let site = FakeSite::new();
        let neighbour = testing::add_neighbour(&site);
        for incarnation in 0..2 {
            let mut process = site.start(None).await;
            let machine = machine("blue-heron", incarnation);
            create(&mut process, &machine, "blue-heron", &mut Patience::new(120)).await.unwrap();
        }
        assert_eq!(site.with(|world| world.site.disks.len()), 3);
        site.with(|world| world.calls.clear());
        (site, neighbour)
    }

    fn assert_only_the_neighbour_is_left(site: &FakeSite, neighbour: &str) {
        assert!(site.pods().iter().all(|pod| label_of(pod, LABEL_OWNER_UID) != testing::UID), "{:#?}", site.pods());
        assert_eq!(site.pods().len(), 1);
        assert!(site.secrets().is_empty());
        assert_eq!(site.with(|world| world.site.disks.iter().cloned().collect::<Vec<_>>()), [neighbour]);
    }

    #[tokio::test(start_paused = true)]
    async fn pods_secrets_and_disks_of_all_incarnations_go_in_this_order() {
        let (site, neighbour) = inhabited().await;
        let result = run(&site, None).await.unwrap();
        assert_eq!(result.outputs["state"], "Gone");
        assert_only_the_neighbour_is_left(&site, &neighbour);
        let writes: Vec<String> = site.with(|world| {
            world.calls.iter().filter(|call| !call.starts_with("LIST") && !call.starts_with("GET")).cloned().collect()
        });
        let expected = ["POST pods", "DELETE pods", "DELETE secrets", "DELETE secrets", "DELETE pods"];
        assert_eq!(writes, expected, "wipe pod first, then the server, its Secrets, then the wipe pod");
    }

    #[tokio::test(start_paused = true)]
    async fn cut_at_any_call_the_next_run_finishes() {
        let mut cuts = 0;
        for at in 0.. {
            let mut finished = true;
            for fault in [Fault::Before(at), Fault::After(at), Fault::Late(at, 2), Fault::Late(at, 5)] {
                let (site, neighbour) = inhabited().await;
                if run(&site, Some(fault)).await.is_err() {
                    finished = false;
                    cuts += 1;
                    run(&site, None).await.unwrap();
                    // A late create of a wipe pod lands by now; the sweep of the next run takes it.
                    run(&site, None).await.unwrap();
                }
                assert_only_the_neighbour_is_left(&site, &neighbour);
            }
            if finished {
                break;
            }
        }
        assert!(cuts >= 40, "{cuts}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_of_what_never_was_succeeds() {
        let site = FakeSite::new();
        assert_eq!(run(&site, None).await.unwrap().outputs["state"], "Gone");
        assert!(site.pods().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wipe_that_fails_is_told_and_tried_again() {
        let (site, neighbour) = inhabited().await;
        let wipe = template::wipe(&machine("blue-heron", 1), Some("reed"), testing::IMAGE, "/disks").unwrap();
        let failed = json!({"phase": "Failed", "containerStatuses": [{"name": "wipe", "image": "i", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1,
            "message": "rm: cannot remove '/disks/x': Operation not permitted"}}}]});
        // One that ended in an earlier run says nothing about this one.
        site.add_pod(serde_json::to_value(&wipe).unwrap(), failed.clone());
        run(&site, None).await.unwrap();
        assert_only_the_neighbour_is_left(&site, &neighbour);

        let error = DeleteError::WipeDisks(
            last_words(&serde_json::from_value(json!({"metadata": {}, "status": failed})).unwrap()).unwrap(),
        );
        let result = to_result(&error);
        assert_eq!((result.class, result.reason.as_str()), (Some(FailureClass::Transient), "DisksRemain"));
        assert!(result.message.contains("Operation not permitted"), "{}", result.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_image_is_nowhere_can_be_deleted() {
        let site = FakeSite::new();
        let other = provisioning_api::provider_config::OfferedImage {
            os: "debian".into(),
            version: "13".into(),
            id: "localhost/other:1".into(),
        };
        site.with(|world| {
            world.site.absent_images.insert(testing::IMAGE.into());
            world.catalog.as_mut().unwrap().images.push(other);
        });
        let mut process = site.start(None).await;
        create(&mut process, &machine("blue-heron", 1), "blue-heron", &mut Patience::new(120)).await.unwrap();
        run(&site, None).await.unwrap();
        assert!(site.pods().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wipe_that_lacks_its_image_is_made_again_with_another() {
        let (site, neighbour) = inhabited().await;
        let other = provisioning_api::provider_config::OfferedImage {
            os: "debian".into(),
            version: "13".into(),
            id: "localhost/other:1".into(),
        };
        site.with(|world| world.catalog.as_mut().unwrap().images.push(other));
        let swap = |present: &str, absent: &str| {
            site.with(|world| {
                world.site.absent_images.insert(absent.into());
                world.site.absent_images.remove(present);
            });
        };
        swap("localhost/other:1", testing::IMAGE);
        let began = Instant::now();
        let error = run(&site, None).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (FailureClass::Transient, "DisksRemain"));
        assert!(error.to_string().contains("no such image"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
        run(&site, None).await.unwrap();
        assert_only_the_neighbour_is_left(&site, &neighbour);
    }
}
