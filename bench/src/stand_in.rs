//! The stand-in for a kubelet: a Node that is no machine. The scheduler binds the operator's Pods to it, because every other
//! node is cordoned; each is claimed as an executor claims its run, answered at once, and ended.
//!
//! It says Running before it says Succeeded, as a kubelet does, because each is news for whoever watches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use provisioning_api::names::SITE_CATALOG;
use provisioning_e2e::Cluster;
use provisioning_sdk::claim::{Claim, Identity};
use provisioning_sdk::executor::claim_failure;
use provisioning_sdk::request::{ENV_REQUEST, Envelope};
use provisioning_sdk::result::StepResult;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::answers::{World, answer};
use crate::ledger::{Entry, Ledger};
use crate::machine::Machine;

/// Name of the Node, and of whoever writes here.
const NODE: &str = "stand-in";
/// Where kubelets keep their Leases.
const LEASES: &str = "kube-node-lease";
/// Between two renewals; a kubelet's own interval.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long the node may take until Pods can be bound to it.
const ACCEPTS: Duration = Duration::from_secs(60);
/// Pods that are answered at a time.
const AT_A_TIME: usize = 32;

struct StandIn {
    client: Client,
    world: World,
    behind: SignedDuration,
    ledger: Ledger,
    places: Arc<Semaphore>,
}

/// Makes the node, keeps it alive and answers its Pods, until the tasks are dropped. Returns once the scheduler may use it,
/// and it alone.
///
/// # Errors
/// Where the node cannot be made, or does not become usable.
pub(crate) async fn start(
    cluster: &Cluster,
    machine: &Machine,
    ledger: Ledger,
    behind: SignedDuration,
) -> Result<JoinSet<Result<()>>> {
    let client = cluster.client.clone();
    let catalog = Api::<ConfigMap>::namespaced(client.clone(), &cluster.site).get(SITE_CATALOG).await?;
    let catalog = catalog.data.and_then(|mut data| data.remove("catalog.json")).context("the site has no catalog")?;
    let world = World {
        catalog: serde_json::from_str(&catalog)?,
        address: machine.address,
        host_key: machine.host_key.clone(),
    };
    renew(&client).await?;
    make_node(&client).await?;
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let stand_in = Arc::new(StandIn { client: client.clone(), world, behind, ledger, places });
    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeat(client.clone()));
    tasks.spawn(stand_in.watch());
    until_usable(&client).await?;
    cordon_others(&client).await?;
    Ok(tasks)
}

fn apply() -> PatchParams {
    PatchParams::apply(NODE).force()
}

async fn make_node(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE,
        "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}}});
    nodes.patch(NODE, &apply(), &Patch::Apply(node)).await.context("make the node")?;
    let room = json!({"cpu": "10k", "memory": "10Ti", "pods": "100k"});
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "StandIn", "message": "no machine is behind this node",
            "lastHeartbeatTime": Time(Timestamp::now()), "lastTransitionTime": Time(Timestamp::now())})
    };
    let status = json!({"apiVersion": "v1", "kind": "Node", "status": {"capacity": room, "allocatable": room,
        "conditions": [condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False")]}});
    nodes.patch_status(NODE, &apply(), &Patch::Apply(status)).await.context("say that the node is ready")?;
    Ok(())
}

async fn renew(client: &Client) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE},
        "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now())}});
    leases.patch(NODE, &apply(), &Patch::Apply(lease)).await.context("renew the node's Lease")?;
    Ok(())
}

async fn heartbeat(client: Client) -> Result<()> {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        renew(&client).await?;
    }
}

/// A new node is tainted until the control plane has seen it Ready.
async fn until_usable(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let end = tokio::time::Instant::now() + ACCEPTS;
    loop {
        let taints = nodes.get(NODE).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
        if taints.is_empty() {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "the node is still tainted after {ACCEPTS:?}: {taints:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn cordon_others(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        let name = node.name_any();
        if name != NODE {
            nodes.cordon(&name).await.with_context(|| format!("cordon {name}"))?;
        }
    }
    Ok(())
}

impl StandIn {
    /// The node's clock.
    fn now(&self) -> Time {
        let now = Timestamp::now();
        Time(now.checked_sub(self.behind).unwrap_or(now))
    }

    async fn watch(self: Arc<Self>) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
        let mut news = std::pin::pin!(watcher(pods, config).default_backoff().applied_objects());
        while let Some(pod) = news.next().await {
            // After a minute without news the client gives the watch up, and it begins again.
            let Ok(pod) = pod else { continue };
            let uid = pod.uid().unwrap_or_default();
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
            if matches!(phase, "Succeeded" | "Failed") {
                self.ledger.end_seen(&uid, Timestamp::now());
            } else if !self.ledger.knows(&uid) && pod.metadata.deletion_timestamp.is_none() {
                self.clone().begin(pod, &uid);
            }
        }
        bail!("the watch of Pods ended")
    }

    fn begin(self: Arc<Self>, pod: Pod, uid: &str) {
        let run = match read(&pod) {
            Ok(run) => run,
            Err(error) => return self.ledger.trouble(format!("Pod {}: {error:#}", pod.name_any())),
        };
        let Envelope { owner, step, run: number, .. } = run.envelope.clone();
        let job = pod.name_any();
        let entry = Entry { owner, step, run: number, job, bound: Timestamp::now(), end_seen: None, failure: None };
        if self.ledger.begin(uid, entry) {
            let uid = uid.to_owned();
            tokio::spawn(async move {
                let Ok(_place) = self.places.acquire().await else { return };
                if let Err(error) = self.execute(&pod, &uid, &run).await {
                    self.ledger.trouble(format!("Pod {}: {error:#}", pod.name_any()));
                }
            });
        }
    }

    async fn execute(&self, pod: &Pod, uid: &str, run: &Run) -> Result<()> {
        let began = self.now();
        let running = json!({"running": {"startedAt": began}});
        self.say(pod, "Running", &began, &running).await.context("say that it runs")?;
        let identity = Identity { job_name: pod.name_any(), pod_uid: uid.to_owned() };
        let result = match Claim::acquire(self.client.clone(), &run.envelope, &identity).await {
            Ok(_) => answer(&run.program, &run.envelope, &self.world)?,
            Err(error) => StepResult { harmless: true, ..claim_failure(&error) },
        };
        let has_failed = result.class.is_some();
        if has_failed {
            self.ledger.failed(uid, format!("{}: {}", result.reason, result.message));
        }
        let terminated = json!({"terminated": {"exitCode": i32::from(has_failed), "startedAt": began,
            "finishedAt": self.now(), "reason": if has_failed { "Error" } else { "Completed" },
            "message": result.to_termination_message()}});
        let phase = if has_failed { "Failed" } else { "Succeeded" };
        self.say(pod, phase, &began, &terminated).await.context("say that it has ended")
    }

    /// Writes the status of a Pod, as a kubelet does.
    async fn say(&self, pod: &Pod, phase: &str, began: &Time, state: &Value) -> Result<()> {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("it has no container")?;
        let is_ready = if phase == "Running" { "True" } else { "False" };
        let condition = |type_: &str| json!({"type": type_, "status": is_ready, "lastTransitionTime": self.now()});
        let status = json!({"status": {"phase": phase, "startTime": began,
            "conditions": [condition("Ready"), condition("ContainersReady")],
            "containerStatuses": [{"name": container.name, "image": container.image, "imageID": "", "restartCount": 0,
                "ready": phase == "Running", "started": phase == "Running", "state": state}]}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await?;
        Ok(())
    }
}

/// What a Pod's executor is asked.
struct Run {
    program: String,
    envelope: Envelope<Value>,
}

/// Reads a Pod as its kubelet and its executor would.
fn read(pod: &Pod) -> Result<Run> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("it has no container")?;
    let program = container.command.iter().flatten().next().cloned().context("it has no command")?;
    let request = container.env.iter().flatten().find(|variable| variable.name == ENV_REQUEST);
    let request = request.and_then(|variable| variable.value.as_deref()).context("it has no request")?;
    // No variable is meant, so a kubelet would only halve each `$`.
    let envelope = serde_json::from_str(&request.replace("$$", "$")).context("its request cannot be read")?;
    Ok(Run { program, envelope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_its_executor_would() {
        let request = json!({"owner": {"kind": "Server", "namespace": "marsh", "name": "heron", "uid": "u"},
            "step": "create", "run": 3, "epoch": 1, "direction": "Forward", "inputHash": "v1:0", "timeoutSeconds": 60,
            "installation": "i", "payload": {"price": "$7"}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "executor",
            "command": ["/provider-local"],
            "env": [{"name": ENV_REQUEST, "value": request.to_string().replace('$', "$$")}]}]}});
        let run = read(&serde_json::from_value(pod).unwrap()).unwrap();
        assert_eq!((run.program.as_str(), run.envelope.run), ("/provider-local", 3));
        assert_eq!(run.envelope.payload, json!({"price": "$7"}));
    }

    #[test]
    fn a_pod_without_a_request_is_refused_with_words() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "web", "command": ["/nginx"]}]}});
        let error = read(&serde_json::from_value(pod).unwrap()).err().unwrap();
        assert_eq!(error.to_string(), "it has no request");
    }
}
