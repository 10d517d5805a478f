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

#[cfg(test)]
mod tests {
    use provisioning_api::names::ANNOTATION_HOST_KEY;
    use russh::keys::PrivateKey;
    use serde_json::json;

    use super::*;
    use crate::errors::to_result;
    use crate::testing::{self, FakeSite, Fault, label as label_of, machine, relabelled, text};

    async fn run(site: &FakeSite, machine: &Machine, fault: Option<Fault>) -> Result<StepResult, CreateError> {
        let mut process = site.start(fault).await;
        create(&mut process, machine, "blue-heron", &mut Patience::new(120)).await
    }

    /// Exactly one machine of ours, whose Secret holds the private half of the key that it is known by.
    fn assert_one_machine(site: &FakeSite, result: &StepResult) {
        let pods: Vec<_> =
            site.pods().into_iter().filter(|pod| label_of(pod, LABEL_OWNER_UID) == testing::UID).collect();
        assert_eq!(pods.len(), 1, "{pods:#?}");
        let public = text(&pods[0]["metadata"]["annotations"][ANNOTATION_HOST_KEY]);
        assert_eq!(result.outputs["hostKey"], public);
        let secrets = site.secrets();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets[0]["metadata"]["name"], pods[0]["spec"]["volumes"][1]["secret"]["secretName"]);
        let private = PrivateKey::from_openssh(text(&secrets[0]["stringData"]["ssh_host_ed25519_key"])).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap().trim(), public);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_create_makes_exactly_these_calls() {
        let site = FakeSite::new();
        let result = run(&site, &machine("blue-heron", 0), None).await.unwrap();
        assert_one_machine(&site, &result);
        assert_eq!(result.external_id, Some(machine("blue-heron", 0).external_id()));
        let calls = site.with(|world| world.calls.clone());
        assert_eq!(calls, ["GET configmaps", "LIST pods", "POST secrets", "POST pods", "LIST pods"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_create_adopts_and_changes_nothing() {
        let site = FakeSite::new();
        let machine = machine("blue-heron", 0);
        let first = run(&site, &machine, None).await.unwrap();
        site.with(|world| world.calls.clear());
        // The catalog has moved on: what exists is not judged by it.
        site.with(|world| world.catalog.as_mut().unwrap().zones = vec!["elsewhere".into()]);
        assert_eq!(run(&site, &machine, None).await.unwrap(), first);
        assert_eq!(site.with(|world| world.calls.clone()), ["GET configmaps", "LIST pods"]);
    }

    #[tokio::test(start_paused = true)]
    async fn cut_once_or_twice_at_any_call_there_is_one_machine_in_the_end() {
        let faults = |at| [Fault::Before(at), Fault::After(at)];
        for first in (0..5).flat_map(faults) {
            // A run after a cut may take more calls: the Secret is deleted and made again.
            for second in (0..8).flat_map(faults) {
                let site = FakeSite::new();
                let machine = machine("blue-heron", 0);
                assert!(run(&site, &machine, Some(first)).await.is_err(), "{first:?}");
                let _ = run(&site, &machine, Some(second)).await;
                let result = run(&site, &machine, None).await.unwrap();
                assert_one_machine(&site, &result);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_a_dead_run_that_lands_late_leaves_one_machine_with_its_own_key() {
        for at in 2..4 {
            for late in 1..9 {
                let site = FakeSite::new();
                let machine = machine("blue-heron", 0);
                assert!(run(&site, &machine, Some(Fault::Late(at, late))).await.is_err());
                let result = run(&site, &machine, None).await.unwrap();
                // Whatever has not landed yet lands now.
                assert_eq!(run(&site, &machine, None).await.unwrap(), result, "call {at} lands {late} calls later");
                assert_one_machine(&site, &result);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn extra_machines_and_wipes_of_the_owner_go_and_a_neighbour_stays() {
        let site = FakeSite::new();
        testing::add_neighbour(&site);
        let older = machine("blue-heron", 0);
        run(&site, &older, None).await.unwrap();
        let wipe = template::wipe(&older, None, testing::IMAGE, "/disks").unwrap();
        site.add_pod(serde_json::to_value(&wipe).unwrap(), json!({"phase": "Pending"}));
        let newer = machine("blue-heron", 1);
        let result = run(&site, &newer, None).await.unwrap();
        assert_eq!(result.outputs["incarnation"], "1");
        let names: Vec<String> = site.pods().iter().map(|pod| text(&pod["metadata"]["name"]).to_owned()).collect();
        assert_eq!(names, [newer.pod_name(), "srv-grey-goose".into()]);
        assert_eq!(site.with(|world| world.site.disks.len()), 3, "a sweep removes no disk");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evicted_machine_is_made_again() {
        let site = FakeSite::new();
        let machine = machine("blue-heron", 0);
        let pod = template::server(&machine, "blue-heron", "ssh-ed25519 OLD", "/disks").unwrap();
        site.add_pod(serde_json::to_value(&pod).unwrap(), json!({"phase": "Failed", "reason": "Evicted"}));
        let result = run(&site, &machine, None).await.unwrap();
        assert_one_machine(&site, &result);
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_run_does_not_touch_a_newer_machine() {
        let site = FakeSite::new();
        run(&site, &machine("blue-heron", 1), None).await.unwrap();
        let error = run(&site, &machine("blue-heron", 0), None).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (FailureClass::Refused, "NewerIncarnation"));
        assert_eq!(site.pods().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_of_another_owner_with_our_name_is_a_conflict() {
        let site = FakeSite::new();
        let machine = machine("blue-heron", 0);
        let pod = template::server(&machine, "blue-heron", "ssh-ed25519 X", "/disks").unwrap();
        let foreign = relabelled(&pod, &machine.pod_name(), &[(LABEL_OWNER_UID, "somebody")]);
        site.add_pod(foreign, json!({"phase": "Running"}));
        let error = run(&site, &machine, None).await.unwrap_err();
        assert_eq!((error.class(), error.reason()), (FailureClass::Invalid, "NameConflict"));
        assert!(error.to_string().contains("somebody"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_offered_is_refused_before_any_write() {
        let site = FakeSite::new();
        let mut creation = testing::creation("token-0");
        creation.image = "localhost/marsh-image:8".into();
        let machine = Machine::new(testing::owner("blue-heron"), "f00d".into(), 0, creation).unwrap();
        let result = to_result(&run(&site, &machine, None).await.unwrap_err());
        assert_eq!(result.class, Some(FailureClass::Invalid));
        assert!(result.message.contains(testing::IMAGE), "{}", result.message);
        assert_eq!(site.with(|world| world.calls.clone()), ["GET configmaps", "LIST pods"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_class_of_an_answer_reaches_the_result() {
        for (code, class) in [
            (500, FailureClass::Transient),
            (429, FailureClass::Throttled),
            (401, FailureClass::Unauthorized),
            (422, FailureClass::Invalid),
        ] {
            for at in 0..5 {
                let error = run(&FakeSite::new(), &machine("blue-heron", 0), Some(Fault::Answer(at, code))).await;
                let result = to_result(&error.unwrap_err());
                assert_eq!(result.class, Some(class), "call {at}");
                assert!(result.message.ends_with("as planned"), "{}", result.message);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_catalog_the_message_says_where_it_comes_from() {
        let site = FakeSite::new();
        site.with(|world| world.catalog = None);
        let result = to_result(&run(&site, &machine("blue-heron", 0), None).await.unwrap_err());
        assert_eq!(result.class, Some(FailureClass::Invalid));
        assert!(result.message.contains("the chart makes it"), "{}", result.message);
    }
}
