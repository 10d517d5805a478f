//! One watch per kind. Each change goes into the cache first and then wakes every object that it concerns, so that a
//! pass never runs on an older cache than the news that started it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::names::{
    LABEL_EXTENSION, LABEL_MANAGED_BY, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_OWNER_UID, MANAGER, WORKSPACE_NAME,
};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepPhase, StepStatus};
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use serde::de::DeserializeOwned;

use crate::batch_workflow;
use crate::executors::{Job, Pod};
use crate::guarded::Guarded;
use crate::queue::{Queue, Waker, queue};
use crate::taskserv::{concerns, server_of};

/// Objects of our kinds in one answer of a list, the text of which is in memory, twice: each may have 1.5 MB.
pub(crate) const PAGE: u32 = 10;

/// The same of the other kinds: many more, which are small unless somebody who may make Pods means harm.
const FOREIGN_PAGE: u32 = 50;

/// The caches.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Workspaces.
    pub workspaces: Store<Guarded<Workspace>>,
    /// ProviderConfigs.
    pub provider_configs: Store<Guarded<ProviderConfig>>,
    /// Servers.
    pub servers: Store<Guarded<Server>>,
    /// Taskservs.
    pub taskservs: Store<Guarded<Taskserv>>,
    /// Clusters.
    pub clusters: Store<Guarded<Cluster>>,
    /// BatchWorkflows.
    pub workflows: Store<Guarded<BatchWorkflow>>,
    /// Pods of our Jobs.
    pub pods: Store<Pod>,
    /// Our Jobs.
    pub jobs: Store<Job>,
    /// Extension bundles in the operator's namespace.
    pub bundles: Store<ConfigMap>,
}

impl Stores {
    /// A readable BatchWorkflow by uid. Labels, where such a uid stands, are written by anybody: it counts in its own
    /// namespace only.
    pub fn workflow_by_uid(&self, namespace: &str, uid: &str) -> Option<BatchWorkflow> {
        let found = self.workflows.find(|guarded| is(guarded.meta(), namespace, uid))?;
        found.0.as_ref().ok().cloned()
    }

    /// A readable Cluster by uid, likewise.
    pub fn cluster_by_uid(&self, namespace: &str, uid: &str) -> Option<Cluster> {
        let found = self.clusters.find(|guarded| is(guarded.meta(), namespace, uid))?;
        found.0.as_ref().ok().cloned()
    }

    /// Waits until every cache is filled.
    pub async fn ready(&self) -> bool {
        let results = tokio::join!(
            self.workspaces.wait_until_ready(),
            self.provider_configs.wait_until_ready(),
            self.servers.wait_until_ready(),
            self.taskservs.wait_until_ready(),
            self.clusters.wait_until_ready(),
            self.workflows.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.jobs.wait_until_ready(),
            self.bundles.wait_until_ready(),
        );
        let (a, b, c, d, e, f, g, h, i) = results;
        [a, b, c, d, e, f, g, h, i].iter().all(Result::is_ok)
    }
}

fn is(meta: &ObjectMeta, namespace: &str, uid: &str) -> bool {
    (meta.namespace.as_deref(), meta.uid.as_deref()) == (Some(namespace), Some(uid))
}

/// Caches that hold these clusters and nothing else.
#[cfg(test)]
pub(crate) fn caches_of(clusters: &[Cluster]) -> Stores {
    caches_with(&[], clusters)
}

/// Caches that hold these workflows and clusters and nothing else.
#[cfg(test)]
pub(crate) fn caches_with(workflows: &[BatchWorkflow], clusters: &[Cluster]) -> Stores {
    let (stores, mut writers) = caches();
    for workflow in workflows {
        writers.workflows.apply_watcher_event(&watcher::Event::Apply(Guarded(Ok(workflow.clone()))));
    }
    for cluster in clusters {
        writers.clusters.apply_watcher_event(&watcher::Event::Apply(Guarded(Ok(cluster.clone()))));
    }
    stores
}

/// Caches that hold these Servers, readable or not, and nothing else.
#[cfg(test)]
pub(crate) fn caches_of_servers(servers: Vec<Guarded<Server>>) -> Stores {
    let (stores, mut writers) = caches();
    for server in servers {
        writers.servers.apply_watcher_event(&watcher::Event::Apply(server));
    }
    stores
}

/// The receiving ends.
pub struct Queues {
    /// For Workspaces.
    pub workspaces: Queue,
    /// For ProviderConfigs.
    pub provider_configs: Queue,
    /// For Servers.
    pub servers: Queue,
    /// For Taskservs.
    pub taskservs: Queue,
    /// For Clusters.
    pub clusters: Queue,
    /// For BatchWorkflows.
    pub workflows: Queue,
    /// Wakes Taskservs for news that come by no watch.
    pub wake_taskservs: Waker,
}

/// The sending ends.
#[derive(Clone)]
struct Wakers {
    workspaces: Waker,
    provider_configs: Waker,
    servers: Waker,
    taskservs: Waker,
    clusters: Waker,
    workflows: Waker,
}

/// Starts all watches. The returned tasks run until the runtime ends.
pub fn start(client: &Client, namespace: &str) -> (Stores, Queues, Vec<tokio::task::JoinHandle<()>>) {
    let (stores, writers) = caches();
    let (wakers, queues) = channels();
    let managed = watcher::Config::default().page_size(FOREIGN_PAGE).labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    let extensions = watcher::Config::default().page_size(FOREIGN_PAGE).labels(LABEL_EXTENSION);
    let all = || watcher::Config::default().page_size(PAGE);
    let c = || client.clone();
    let fan = |stores: &Stores, wakers: &Wakers| Fan { stores: stores.clone(), wakers: wakers.clone() };
    let f = || fan(&stores, &wakers);
    let tasks = vec![
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.workspaces, f(), Fan::workspace)),
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.provider_configs, f(), Fan::provider_config)),
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.servers, f(), Fan::server)),
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.taskservs, f(), Fan::taskserv)),
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.clusters, f(), Fan::cluster)),
        tokio::spawn(watch(guarded(Api::all(c()), all()), writers.workflows, f(), Fan::workflow)),
        tokio::spawn(watch(readable(Api::all(c()), managed.clone()), writers.pods, f(), |fan, pod: &Pod| {
            fan.made_for(pod.labels(), pod.namespace())
        })),
        tokio::spawn(watch(readable(Api::all(c()), managed), writers.jobs, f(), |fan, job: &Job| {
            fan.made_for(job.labels(), job.namespace())
        })),
        tokio::spawn(watch(
            readable(Api::namespaced(c(), namespace), extensions),
            writers.bundles,
            f(),
            |fan, _: &ConfigMap| fan.extension(),
        )),
    ];
    (stores, queues, tasks)
}

struct Writers {
    workspaces: Writer<Guarded<Workspace>>,
    provider_configs: Writer<Guarded<ProviderConfig>>,
    servers: Writer<Guarded<Server>>,
    taskservs: Writer<Guarded<Taskserv>>,
    clusters: Writer<Guarded<Cluster>>,
    workflows: Writer<Guarded<BatchWorkflow>>,
    pods: Writer<Pod>,
    jobs: Writer<Job>,
    bundles: Writer<ConfigMap>,
}

fn caches() -> (Stores, Writers) {
    let writers = Writers {
        workspaces: Writer::default(),
        provider_configs: Writer::default(),
        servers: Writer::default(),
        taskservs: Writer::default(),
        clusters: Writer::default(),
        workflows: Writer::default(),
        pods: Writer::default(),
        jobs: Writer::default(),
        bundles: Writer::default(),
    };
    let stores = Stores {
        workspaces: writers.workspaces.as_reader(),
        provider_configs: writers.provider_configs.as_reader(),
        servers: writers.servers.as_reader(),
        taskservs: writers.taskservs.as_reader(),
        clusters: writers.clusters.as_reader(),
        workflows: writers.workflows.as_reader(),
        pods: writers.pods.as_reader(),
        jobs: writers.jobs.as_reader(),
        bundles: writers.bundles.as_reader(),
    };
    (stores, writers)
}

fn channels() -> (Wakers, Queues) {
    let (workspaces, workspace_queue) = queue();
    let (provider_configs, provider_config_queue) = queue();
    let (servers, server_queue) = queue();
    let (taskservs, taskserv_queue) = queue();
    let (clusters, cluster_queue) = queue();
    let (workflows, workflow_queue) = queue();
    let wakers = Wakers { workspaces, provider_configs, servers, taskservs, clusters, workflows };
    let queues = Queues {
        workspaces: workspace_queue,
        provider_configs: provider_config_queue,
        servers: server_queue,
        taskservs: taskserv_queue,
        clusters: cluster_queue,
        workflows: workflow_queue,
        wake_taskservs: wakers.taskservs.clone(),
    };
    (wakers, queues)
}

/// What a watch brings.
type News<K> = watcher::Result<watcher::Event<K>>;

/// A watch of a kind of ours. An object that cannot be read is news too: it is reported to whom it belongs.
fn guarded<K>(api: Api<Guarded<K>>, config: watcher::Config) -> impl Stream<Item = News<Guarded<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config).default_backoff()
}

/// A watch of a kind of Kubernetes. An object that cannot be read is left out, and the log says so: it stops no other.
fn readable<K>(api: Api<Guarded<K>>, config: watcher::Config) -> impl Stream<Item = News<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    guarded(api, config).filter_map(|news| {
        future::ready(match news {
            Ok(watcher::Event::Apply(object)) => decoded(object).map(|object| Ok(watcher::Event::Apply(object))),
            Ok(watcher::Event::Delete(object)) => decoded(object).map(|object| Ok(watcher::Event::Delete(object))),
            Ok(watcher::Event::InitApply(object)) => {
                decoded(object).map(|object| Ok(watcher::Event::InitApply(object)))
            }
            Ok(watcher::Event::Init) => Some(Ok(watcher::Event::Init)),
            Ok(watcher::Event::InitDone) => Some(Ok(watcher::Event::InitDone)),
            Err(error) => Some(Err(error)),
        })
    })
}

fn decoded<K: Resource<DynamicType = ()>>(object: Guarded<K>) -> Option<K> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            tracing::error!(kind = %K::kind(&()), namespace, name, error = invalid.error, "an object cannot be read");
            None
        }
    }
}

/// Feeds one cache; after each change, wakes whom it concerns.
async fn watch<K>(
    news: impl Stream<Item = News<K>> + Send,
    mut writer: Writer<K>,
    fan: Fan,
    concerns: impl Fn(&Fan, &K) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let reader = writer.as_reader();
    let mut events = std::pin::pin!(news);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch was interrupted; it goes on");
                continue;
            }
        };
        // What vanished while the watch was away has no event of its own.
        let before = if matches!(event, watcher::Event::InitDone) { reader.state() } else { Vec::new() };
        writer.apply_watcher_event(&event);
        for object in before {
            if reader.get(&ObjectRef::from_obj(&*object)).is_none() {
                concerns(&fan, &object);
            }
        }
        match event {
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => concerns(&fan, &object),
            // Until a new list is whole the cache shows the old one; then all of the new one, and nobody else writes to it.
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
            watcher::Event::InitDone => {
                let mut all = reader.state();
                // As the API server lists: who is woken first has the first of the places.
                all.sort_by_cached_key(|object| (object.namespace(), object.name_any()));
                all.iter().for_each(|object| concerns(&fan, object));
            }
        }
    }
}

/// Knows which objects a change concerns.
#[derive(Clone)]
struct Fan {
    stores: Stores,
    wakers: Wakers,
}

impl Fan {
    fn workspace(&self, guarded: &Guarded<Workspace>) {
        let namespace = guarded.namespace().unwrap_or_default();
        self.wakers.workspaces.wake(&namespace, &guarded.name_any());
        wake_all(&self.stores.provider_configs, &self.wakers.provider_configs, &namespace);
        wake_all(&self.stores.servers, &self.wakers.servers, &namespace);
        wake_all(&self.stores.taskservs, &self.wakers.taskservs, &namespace);
        wake_all(&self.stores.clusters, &self.wakers.clusters, &namespace);
        wake_all(&self.stores.workflows, &self.wakers.workflows, &namespace);
    }

    fn provider_config(&self, guarded: &Guarded<ProviderConfig>) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.wakers.provider_configs.wake(&namespace, &name);
        self.wakers.workspaces.wake(&namespace, WORKSPACE_NAME);
        self.regarded("ProviderConfig", &namespace, &name);
        for server in self.stores.servers.state() {
            if let Ok(server) = &server.0
                && server.namespace().as_deref() == Some(namespace.as_str())
                && server.spec.provider_config_ref.name == name
            {
                self.wakers.servers.wake(&namespace, &server.name_any());
            }
        }
    }

    fn server(&self, guarded: &Guarded<Server>) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.wakers.servers.wake(&namespace, &name);
        self.wakers.workspaces.wake(&namespace, WORKSPACE_NAME);
        self.owner(guarded.labels(), &namespace);
        self.regarded("Server", &namespace, &name);
        if let Ok(server) = &guarded.0 {
            self.wakers.provider_configs.wake(&namespace, &server.spec.provider_config_ref.name);
        }
        for taskserv in self.stores.taskservs.state() {
            if let Ok(taskserv) = &taskserv.0
                && taskserv.namespace().as_deref() == Some(namespace.as_str())
                && uses(taskserv, &name)
            {
                self.wakers.taskservs.wake(&namespace, &taskserv.name_any());
            }
        }
    }

    fn taskserv(&self, guarded: &Guarded<Taskserv>) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.wakers.taskservs.wake(&namespace, &name);
        self.wakers.workspaces.wake(&namespace, WORKSPACE_NAME);
        self.owner(guarded.labels(), &namespace);
        self.regarded("Taskserv", &namespace, &name);
        if let Ok(taskserv) = &guarded.0 {
            let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
            let with_steps = steps.iter().filter_map(|step| server_of(&step.id));
            for server in taskserv.spec.servers.iter().map(String::as_str).chain(with_steps) {
                self.wakers.servers.wake(&namespace, server);
            }
        }
        self.listed(&namespace, &guarded.uid().unwrap_or_default());
        self.neighbours(guarded, &namespace);
    }

    /// A Taskserv concerns those that have still to begin something on its servers: they may come after it, without being
    /// on any list together with it. One that cannot be read may be on any server.
    fn neighbours(&self, changed: &Guarded<Taskserv>, namespace: &str) {
        let shares = |step: &StepStatus| {
            let name = server_of(&step.id).filter(|_| step.phase == StepPhase::Pending);
            name.is_some_and(|name| changed.0.as_ref().map_or(true, |changed| uses(changed, name)))
        };
        for other in self.stores.taskservs.state() {
            let Ok(other) = &other.0 else { continue };
            let steps = other.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
            if other.namespace().as_deref() == Some(namespace) && steps.iter().any(shares) {
                self.wakers.taskservs.wake(namespace, &other.name_any());
            }
        }
    }

    /// A Taskserv concerns the Servers that list it, and those who need what it looks after there.
    fn listed(&self, namespace: &str, uid: &str) {
        for server in self.stores.servers.state() {
            let Ok(server) = &server.0 else { continue };
            if server.namespace().as_deref() != Some(namespace) {
                continue;
            }
            let list = server.status.as_ref().map(|status| status.installed.as_slice()).unwrap_or_default();
            for entry in list.iter().filter(|entry| concerns(entry, uid)) {
                self.wakers.servers.wake(namespace, &server.name_any());
                if entry.by.uid == uid {
                    entry.required_by.iter().for_each(|user| self.wakers.taskservs.wake(namespace, &user.name));
                }
            }
        }
    }

    fn cluster(&self, guarded: &Guarded<Cluster>) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.wakers.clusters.wake(&namespace, &name);
        self.wakers.workspaces.wake(&namespace, WORKSPACE_NAME);
        self.owner(guarded.labels(), &namespace);
        self.regarded("Cluster", &namespace, &name);
        let uid = guarded.uid().unwrap_or_default();
        wake_children(&self.stores.servers, &self.wakers.servers, &namespace, &uid);
        wake_children(&self.stores.taskservs, &self.wakers.taskservs, &namespace, &uid);
    }

    fn workflow(&self, guarded: &Guarded<BatchWorkflow>) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.wakers.workflows.wake(&namespace, &name);
        self.wakers.workspaces.wake(&namespace, WORKSPACE_NAME);
        self.regarded("BatchWorkflow", &namespace, &name);
        let uid = guarded.uid().unwrap_or_default();
        wake_children(&self.stores.servers, &self.wakers.servers, &namespace, &uid);
        wake_children(&self.stores.taskservs, &self.wakers.taskservs, &namespace, &uid);
        wake_children(&self.stores.clusters, &self.wakers.clusters, &namespace, &uid);
        if let Ok(workflow) = &guarded.0 {
            let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
            steps
                .iter()
                .filter_map(batch_workflow::server_of)
                .for_each(|name| self.wakers.servers.wake(&namespace, name));
        }
    }

    fn extension(&self) {
        for taskserv in self.stores.taskservs.state() {
            self.wakers.taskservs.wake(&taskserv.namespace().unwrap_or_default(), &taskserv.name_any());
        }
        for workflow in self.stores.workflows.state() {
            if let Ok(readable) = &workflow.0
                && readable.spec.steps.iter().any(|step| step.run.is_some())
            {
                self.wakers.workflows.wake(&workflow.namespace().unwrap_or_default(), &workflow.name_any());
            }
        }
    }

    /// A Job or Pod concerns the object whose step it runs.
    fn made_for(&self, labels: &BTreeMap<String, String>, namespace: Option<String>) {
        let (Some(kind), Some(name)) = (labels.get(LABEL_OWNER_KIND), labels.get(LABEL_OWNER_NAME)) else { return };
        let namespace = namespace.unwrap_or_default();
        match kind.as_str() {
            "ProviderConfig" => self.wakers.provider_configs.wake(&namespace, name),
            "Server" => self.wakers.servers.wake(&namespace, name),
            "Taskserv" => self.wakers.taskservs.wake(&namespace, name),
            "BatchWorkflow" => self.wakers.workflows.wake(&namespace, name),
            _ => {}
        }
    }

    /// An object concerns the workflows with a step that deletes it, waits for it, runs a script on it, or would make it
    /// were its name free, and the clusters that it is a part of.
    fn regarded(&self, kind: &str, namespace: &str, name: &str) {
        for workflow in self.stores.workflows.state() {
            if let Ok(workflow) = &workflow.0
                && workflow.namespace().as_deref() == Some(namespace)
                && workflow.spec.steps.iter().any(|step| is_about(step, kind, name))
            {
                self.wakers.workflows.wake(namespace, &workflow.name_any());
            }
        }
        for cluster in self.stores.clusters.state() {
            if let Ok(cluster) = &cluster.0
                && cluster.namespace().as_deref() == Some(namespace)
                && is_part_of(cluster, kind, name)
            {
                self.wakers.clusters.wake(namespace, &cluster.name_any());
            }
        }
    }

    /// A child concerns the workflow or cluster that made it.
    fn owner(&self, labels: &BTreeMap<String, String>, namespace: &str) {
        if let (Some(uid), Some(name)) = (labels.get(LABEL_OWNER_UID), labels.get(LABEL_OWNER_NAME))
            && !uid.is_empty()
        {
            match labels.get(LABEL_OWNER_KIND).map(String::as_str) {
                Some("Cluster") => self.wakers.clusters.wake(namespace, name),
                Some(_) | None => self.wakers.workflows.wake(namespace, name),
            }
        }
    }
}

/// Whether a Taskserv acts on a Server, has acted on it, or tells its scripts of it. One that selects by labels is asked
/// in any case: the Server may just have begun to match, or ceased to.
fn uses(taskserv: &Taskserv, server: &str) -> bool {
    let spec = &taskserv.spec;
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    spec.server_selector.is_some()
        || spec.servers.iter().chain(spec.peers.values().flatten()).any(|name| name == server)
        || steps.iter().any(|step| server_of(&step.id) == Some(server))
}

/// Whether a step makes, deletes or waits for an object, or runs a script on it.
fn is_about(step: &WorkflowStep, kind: &str, name: &str) -> bool {
    let runs_there = || step.run.as_ref().is_some_and(|run| run.servers.iter().any(|server| server == name));
    [step.regards(), step.applied()].contains(&Some((kind, name))) || (kind == "Server" && runs_there())
}

/// Whether an object is a server of a Cluster that was there before, or what one of its steps makes.
fn is_part_of(cluster: &Cluster, kind: &str, name: &str) -> bool {
    let steps = cluster.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let mut existing = cluster.spec.server_groups.iter().filter_map(|group| group.servers.as_ref()).flatten();
    let stands_for = format!("{kind} {name}");
    (kind == "Server" && existing.any(|server| server == name)) || steps.iter().any(|step| step.why == stands_for)
}

fn wake_all<K>(store: &Store<Guarded<K>>, waker: &Waker, namespace: &str)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in store.state() {
        if object.namespace().as_deref() == Some(namespace) {
            waker.wake(namespace, &object.name_any());
        }
    }
}

fn wake_children<K>(store: &Store<Guarded<K>>, waker: &Waker, namespace: &str, uid: &str)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in store.state() {
        if object.labels().get(LABEL_OWNER_UID).map(String::as_str) == Some(uid) {
            waker.wake(namespace, &object.name_any());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;

    fn taskserv(name: &str, spec: &Value, phase: &str) -> Guarded<Taskserv> {
        let step = json!({"id": "install/heron", "action": "Install", "undo": "None", "inputHash": "v1:0", "phase": phase,
            "run": 0});
        let object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "spec": spec,
            "metadata": {"name": name, "namespace": "marsh", "uid": format!("uid-{name}")}, "status": {"steps": [step]}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_taskserv_wakes_those_that_have_something_to_begin_on_its_servers_and_no_others() {
        let on = |server: &str| json!({"extension": {"name": "reed"}, "servers": [server]});
        let by_labels = json!({"extension": {"name": "reed"}, "serverSelector": {}});
        let (stores, mut writers) = caches();
        for (name, phase) in [("waits", "Pending"), ("installed", "Succeeded")] {
            let object = taskserv(name, &on("heron"), phase);
            writers.taskservs.apply_watcher_event(&watcher::Event::Apply(object));
        }
        let (wakers, mut queues) = channels();
        let fan = Fan { stores, wakers };
        let mut woken = |changed: &Guarded<Taskserv>| {
            fan.taskserv(changed);
            let next = || queues.taskservs.next().now_or_never().flatten().map(|(_, name)| name);
            std::iter::from_fn(next).collect::<Vec<_>>()
        };
        assert_eq!(woken(&taskserv("net", &on("heron"), "Failed")), ["net", "waits"]);
        assert_eq!(woken(&taskserv("net", &by_labels, "Pending")), ["net", "waits"]);
        // It is still on heron, where it was.
        assert_eq!(woken(&taskserv("net", &on("plover"), "Failed")), ["net", "waits"]);
        let mut elsewhere = taskserv("net", &on("plover"), "Failed");
        elsewhere.0.as_mut().unwrap().status = None;
        assert_eq!(woken(&elsewhere), ["net"]);
        let unread: Guarded<Taskserv> = serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1",
            "kind": "Taskserv", "spec": 7, "metadata": {"name": "net", "namespace": "marsh"}}))
        .unwrap();
        assert_eq!(woken(&unread), ["net", "waits"], "nobody knows where it is");
    }

    #[tokio::test]
    async fn a_list_concerns_what_is_in_it_and_what_is_not_any_more() {
        let pod = |name: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "marsh"}})).unwrap()
        };
        let (_, writers) = caches();
        let (wakers, _) = channels();
        let (stores, _) = caches();
        let reader = writers.pods.as_reader();
        let fan = Fan { stores, wakers };
        let told = std::sync::Mutex::new(Vec::new());
        let concerned = |_: &Fan, pod: &Pod| {
            let cached: BTreeSet<String> = reader.state().iter().map(|pod| pod.name_any()).collect();
            told.lock().unwrap().push((pod.name_any(), cached.into_iter().collect::<Vec<_>>().join(" ")));
        };
        let news = [
            watcher::Event::Init,
            watcher::Event::InitApply(pod("b")),
            watcher::Event::InitApply(pod("a")),
            watcher::Event::InitDone,
            watcher::Event::Apply(pod("d")),
            watcher::Event::Delete(pod("d")),
            // Cut off, and begun again.
            watcher::Event::Init,
            watcher::Event::InitApply(pod("z")),
            watcher::Event::Init,
            watcher::Event::InitApply(pod("c")),
            watcher::Event::InitApply(pod("b")),
            watcher::Event::InitDone,
        ];
        Box::pin(watch(futures::stream::iter(news.map(Ok)), writers.pods, fan, concerned)).await;
        let told = told.into_inner().unwrap();
        let told: Vec<(&str, &str)> = told.iter().map(|(name, cached)| (name.as_str(), cached.as_str())).collect();
        let expected =
            [("a", "a b"), ("b", "a b"), ("d", "a b d"), ("d", "a b"), ("a", "b c"), ("b", "b c"), ("c", "b c")];
        assert_eq!(told, expected);
    }
}
