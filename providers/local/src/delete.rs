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
use tokio::time::sleep;

use crate::catalog::{Catalog, CatalogError};
use crate::errors::Failure;
use crate::names::{Machine, ROLE_SERVER, ROLE_WIPE};
use crate::pods::{complaint, has_ended, is_terminating, label, last_words, node, phase};
use crate::site::{Patience, Site, SiteError};
use crate::template::{self, TemplateError};

/// Time between the two empty lists that make an absence: longer than a write takes to be seen by a consistent read.
const CONSISTENCY_WINDOW: Duration = Duration::from_secs(1);

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
    await_wipes(site, machine, &wipes, patience).await?;
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
            .partition(|pod| has_ended(pod) || is_terminating(pod));
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
    let image = catalog.wipe_image(machine.creation())?;
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
    loop {
        let pods = site.list_pods(&machine.owner_selector()).await?;
        for pod in &pods {
            if label(pod, LABEL_ROLE) == ROLE_WIPE && phase(pod) == "Failed" {
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
