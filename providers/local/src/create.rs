//! Create: find by owner and token, adopt, or create; then no extra machine is left (protocols §3).
//!
//! The pod is what counts: its name comes from the token, and a name exists once, so there is never a second machine
//! of one token. Its annotation names the host key that its Secret holds. This is what a run finds that follows one
//! cut at any point (the order is list, Secret, pod, sweep):
//!
//! | cut | what is there | what the next run does |
//! |---|---|---|
//! | before the Secret's create | nothing | creates both |
//! | after the Secret's create | Secret A, no pod | A cannot be read, so it is deleted; creates Secret B and a pod with B |
//! | after the delete of Secret A | nothing | creates both |
//! | after the pod's create, answer seen or not | Secret A, pod with A | adopts; nothing is changed |
//! | before or within the sweep | ours, extras | adopts, sweeps the rest |
//! | pod A's create lands late, after the next run's list | Secret B, pod with A | its own create says AlreadyExists, the annotation is not B: deletes the pod, begins again |
//! | Secret A's create lands late, after the next run's delete | Secret A, no pod | its own create says AlreadyExists: deletes it and begins again |
//! | the Secret is removed by hand, pod filled | pod with A, key on its disk | adopts; the pod boots without the Secret (fill.sh) |
//! | the Secret is removed by hand, pod not filled | pod with A, no key | adopts; the pod says why it does not start, Observe repeats it |

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use provisioning_api::names::{LABEL_OWNER_UID, LABEL_ROLE, LABEL_TOKEN};
use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;

use crate::catalog::{Catalog, CatalogError};
use crate::errors::Failure;
use crate::keys::{HostKey, KeyError};
use crate::names::{LABEL_INCARNATION, Machine, ROLE_SERVER};
use crate::pods::{has_ended, host_key, is_terminating, label};
use crate::site::{Created, Patience, Site, SiteError};
use crate::template::{self, TemplateError};

/// Why there is no machine yet.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A call failed.
    #[error(transparent)]
    CallSite(#[from] SiteError),
    /// The catalog is broken or does not offer what is wanted.
    #[error(transparent)]
    CheckCatalog(#[from] CatalogError),
    /// No host key.
    #[error(transparent)]
    GenerateKey(#[from] KeyError),
    /// No manifest.
    #[error(transparent)]
    BuildManifest(#[from] TemplateError),
    /// Another owner's pod has our name.
    #[error("failed to create pod {name}: it exists and belongs to another owner (uid {owner:?})")]
    ClaimName {
        /// Name of the pod.
        name: String,
        /// uid on the pod that is there.
        owner: String,
    },
    /// A run of an older machine must not touch a newer one.
    #[error("pod {name} is incarnation {found} of this server, this run is about incarnation {ours}")]
    MatchIncarnation {
        /// Name of the pod.
        name: String,
        /// What its label says.
        found: String,
        /// What this run is about.
        ours: i64,
    },
    /// The pod carries our token and no host key, so it was not made by us.
    #[error("pod {0} carries our token but no host key")]
    ReadHostKey(String),
    /// Leftovers did not go in time.
    #[error("failed to see leftover pods of this server go: {0}")]
    AwaitLeftovers(String),
}

impl Failure for CreateError {
    fn class(&self) -> FailureClass {
        match self {
            CreateError::CallSite(error) => error.class(),
            CreateError::CheckCatalog(error) => error.class(),
            CreateError::GenerateKey(error) => error.class(),
            CreateError::BuildManifest(_) | CreateError::ClaimName { .. } | CreateError::ReadHostKey(_) => {
                FailureClass::Invalid
            }
            CreateError::MatchIncarnation { .. } => FailureClass::Refused,
            CreateError::AwaitLeftovers(_) => FailureClass::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            CreateError::CallSite(error) => error.reason(),
            CreateError::CheckCatalog(error) => error.reason(),
            CreateError::GenerateKey(error) => error.reason(),
            CreateError::BuildManifest(_) => "BadManifest",
            CreateError::ClaimName { .. } | CreateError::ReadHostKey(_) => "NameConflict",
            CreateError::MatchIncarnation { .. } => "NewerIncarnation",
            CreateError::AwaitLeftovers(_) => "LeftoversRemain",
        }
    }

    fn retry_after_seconds(&self) -> Option<i64> {
        match self {
            CreateError::CallSite(error) => error.retry_after_seconds(),
            _ => None,
        }
    }
}

/// Brings it about that exactly one machine of the owner exists, the one with our token.
///
/// # Errors
/// [`CreateError`]; whatever was done by then, the next run goes on from it.
pub async fn create(
    site: &mut Site,
    machine: &Machine,
    hostname: &str,
    patience: &mut Patience,
) -> Result<StepResult, CreateError> {
    let catalog = Catalog::read(&site.read_catalog_map().await?)?;
    loop {
        let found = Found::sort(machine, site.list_pods(&machine.owner_selector()).await?)?;
        let obstacles: Vec<&Pod> = match &found.ours {
            Some(_) => found.leftovers.iter().collect(),
            // Other machines are swept once ours is there; what would be in our way goes first.
            None => found.leftovers.iter().filter(|pod| !is_other_machine(machine, pod)).collect(),
        };
        if !obstacles.is_empty() {
            let names = names(&obstacles);
            for pod in obstacles.into_iter().filter(|pod| !is_terminating(pod)) {
                tracing::info!(pod = pod.name_any(), "deleting a leftover");
                site.delete_pod(pod).await?;
            }
            if !patience.pause().await {
                return Err(CreateError::AwaitLeftovers(names));
            }
            continue;
        }
        if let Some(ours) = &found.ours {
            return adopted(machine, ours);
        }
        // Only now: a machine that exists is adopted also when the catalog has moved on.
        catalog.check(machine.creation())?;
        make(site, machine, hostname, &catalog, patience).await?;
    }
}

/// What a list of the owner's pods means for one machine.
struct Found {
    /// The machine: our token, alive.
    ours: Option<Pod>,
    /// Everything else: other tokens, wipe pods, dead or dying ones.
    leftovers: Vec<Pod>,
}

impl Found {
    fn sort(machine: &Machine, pods: Vec<Pod>) -> Result<Self, CreateError> {
        if let Some(newer) = pods.iter().find(|pod| is_newer(machine, pod)) {
            return Err(CreateError::MatchIncarnation {
                name: newer.name_any(),
                found: label(newer, LABEL_INCARNATION).to_owned(),
                ours: machine.incarnation(),
            });
        }
        let (mut ours, leftovers): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(|pod| {
            !is_other_machine(machine, pod) && is_server(pod) && !is_terminating(pod) && !has_ended(pod)
        });
        Ok(Found { ours: ours.pop(), leftovers })
    }
}

fn is_server(pod: &Pod) -> bool {
    label(pod, LABEL_ROLE) == ROLE_SERVER
}

fn is_other_machine(machine: &Machine, pod: &Pod) -> bool {
    is_server(pod) && label(pod, LABEL_TOKEN) != machine.creation().token
}

fn is_newer(machine: &Machine, pod: &Pod) -> bool {
    is_server(pod) && label(pod, LABEL_INCARNATION).parse::<i64>().is_ok_and(|found| found > machine.incarnation())
}

fn names(pods: &[&Pod]) -> String {
    pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(", ")
}

/// Creates Secret and pod; the caller's next look decides what that came to.
async fn make(
    site: &mut Site,
    machine: &Machine,
    hostname: &str,
    catalog: &Catalog,
    patience: &mut Patience,
) -> Result<(), CreateError> {
    let key = HostKey::generate()?;
    let secret = template::secret(machine, &key)?;
    if site.create_secret(&secret).await? == Created::AlreadyExists {
        // No pod uses it, and nobody may read it: it is of no use to this run.
        site.delete_secret(&secret.name_any()).await?;
        if site.create_secret(&secret).await? == Created::AlreadyExists {
            pause(patience, &secret.name_any()).await?;
            return Ok(());
        }
    }
    let pod = template::server(machine, hostname, key.public(), &catalog.disk_root)?;
    if site.create_pod(&pod).await? == Created::Fresh {
        tracing::info!(pod = pod.name_any(), "created the machine");
        return Ok(());
    }
    let Some(there) = site.get_pod(&pod.name_any()).await? else { return Ok(()) };
    let owner = label(&there, LABEL_OWNER_UID);
    if owner != machine.owner().uid || label(&there, LABEL_TOKEN) != machine.creation().token {
        return Err(CreateError::ClaimName { name: there.name_any(), owner: owner.to_owned() });
    }
    if host_key(&there) != Some(key.public()) {
        // A create of an earlier run landed late: its Secret is the one that was just replaced.
        tracing::info!(pod = there.name_any(), "deleting a pod whose Secret is gone");
        site.delete_pod(&there).await?;
        pause(patience, &there.name_any()).await?;
    }
    Ok(())
}

async fn pause(patience: &mut Patience, name: &str) -> Result<(), CreateError> {
    if patience.pause().await { Ok(()) } else { Err(CreateError::AwaitLeftovers(name.to_owned())) }
}

fn adopted(machine: &Machine, pod: &Pod) -> Result<StepResult, CreateError> {
    let key = host_key(pod).ok_or_else(|| CreateError::ReadHostKey(pod.name_any()))?;
    let outputs = BTreeMap::from([
        ("hostKey".to_owned(), key.to_owned()),
        ("incarnation".to_owned(), machine.incarnation().to_string()),
    ]);
    Ok(StepResult::succeeded(outputs).with_external_id(machine.external_id()))
}
