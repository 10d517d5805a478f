//! The operator: controllers of all kinds, leader-elected.
//!
//! Start with [`engine`] (the six stages), then a kind's module (its graph), then [`watches`].

pub mod answers;
pub mod arguments;
pub mod batch_workflow;
pub mod bundles;
pub mod children;
pub mod cluster;
pub mod context;
pub mod engine;
pub mod error;
pub mod executors;
pub mod guarded;
pub mod health;
pub mod leader;
pub mod leftovers;
pub mod logging;
pub mod metrics;
pub mod probes;
pub mod probing;
pub mod provider_config;
pub mod queue;
#[cfg(test)]
mod recorded;
pub mod requests;
pub mod server;
pub mod taskserv;
pub mod traces;
pub mod watches;
pub mod workspace;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use tracing::Instrument;

use context::{Clock, Context, Epochs, Settings, Slots, Written};
use error::Error;
use guarded::Guarded;
use metrics::Metrics;
use queue::Queue;
use watches::Queues;

/// What ended the operator.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The namespace `kube-system` tells installations apart.
    #[error("failed to read the namespace kube-system")]
    ReadInstallation(#[source] kube::Error),
    /// The Lease.
    #[error("failed to take part in the election of a leader")]
    Elect(#[source] kube_lease_manager::LeaseManagerError),
    /// Another process leads now; the kubelet starts this one again as a candidate.
    #[error("leadership was lost")]
    LeadershipLost,
    /// A cache's task ended.
    #[error("a watch ended")]
    WatchEnded,
}

/// Runs until leadership is lost or `shutdown` resolves.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    client: Client,
    metrics: Metrics,
    settings: Settings,
    clock: Clock,
    health: SocketAddr,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let readiness = health::Readiness::default();
    let server = tokio::spawn(health::serve(health, metrics.clone(), readiness.clone()));
    let (stores, queues, mut watches) = watches::start(&client, &settings.namespace);
    let installation = installation(&client).await?;
    if !stores.ready().await {
        return Err(RunError::WatchEnded);
    }
    readiness.set();
    let mut leads = leader::elect(client.clone(), &settings).await.map_err(RunError::Elect)?;
    let reporter =
        Reporter { controller: "provisioning-operator".to_owned(), instance: Some(settings.identity.clone()) };
    let traces = settings.traces.clone().map(|to| traces::Traces::start(to, metrics.spans_dropped.clone()));
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter.clone()),
        reporter,
        client,
        settings,
        installation,
        stores,
        runs: engine::runs::Runs::default(),
        epochs: Epochs::default(),
        slots: Slots::default(),
        shelf: bundles::Shelf::default(),
        written: Written::default(),
        probing: probing::Probing::new(queues.wake_taskservs.clone()),
        metrics,
        traces,
        clock,
        superseded: tokio::sync::Notify::new(),
        made: std::sync::Mutex::default(),
        copied: std::sync::Mutex::default(),
        too_large: std::sync::Mutex::default(),
    });
    tokio::pin!(shutdown);
    tokio::select! {
        biased;
        () = &mut shutdown => return Ok(()),
        elected = leads.wait_for(|leads| *leads) => { elected.map_err(|_| RunError::LeadershipLost)?; }
    }
    context.metrics.leader.set(1);
    tracing::info!(identity = context.settings.identity, "leads");
    let ended = tokio::select! {
        biased;
        () = &mut shutdown => Ok(()),
        _ = leads.wait_for(|leads| !*leads) => Err(RunError::LeadershipLost),
        // The election may not know yet: a process that slept, or that hears nothing of its Lease.
        () = context.superseded.notified() => Err(RunError::LeadershipLost),
        () = controllers(&context, queues) => Err(RunError::WatchEnded),
        () = probes::run(context.clone()) => Err(RunError::WatchEnded),
        () = probing::run(context.clone()) => Err(RunError::WatchEnded),
        // A cache that nobody feeds is worse than no operator.
        _ = futures::future::select_all(&mut watches) => Err(RunError::WatchEnded),
    };
    server.abort();
    watches.iter().for_each(tokio::task::JoinHandle::abort);
    ended
}

async fn installation(client: &Client) -> Result<String, RunError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get_metadata("kube-system").await.map_err(RunError::ReadInstallation)?;
    Ok(system.uid().unwrap_or_default())
}

async fn controllers(context: &Arc<Context>, queues: Queues) {
    let stores = context.stores.clone();
    tokio::join!(
        control(context, stores.workspaces, queues.workspaces, workspace::reconcile),
        control(context, stores.provider_configs, queues.provider_configs, engine::reconcile),
        control(context, stores.servers, queues.servers, engine::reconcile),
        control(context, stores.taskservs, queues.taskservs, engine::reconcile),
        control(context, stores.clusters, queues.clusters, engine::reconcile),
        control(context, stores.workflows, queues.workflows, engine::reconcile),
    );
}

/// What the log says of a pass: which object it is about.
pub fn pass_span(kind: &str, namespace: &str, object: &str) -> tracing::Span {
    tracing::info_span!("pass", kind, namespace, object)
}

/// One pass as a task of its own, which ends with its future: a panic in it is this pass's error.
async fn guarded_pass<Pass>(pass: Pass) -> Result<Action, Error>
where
    Pass: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let mut task = tokio::task::JoinSet::new();
    task.spawn(pass);
    match task.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Error::Panicked(error.to_string())),
        None => Ok(Action::await_change()),
    }
}

/// A pass, counted and timed.
async fn measured_pass<Pass>(metrics: Metrics, kind: String, pass: Pass) -> Result<Action, Error>
where
    Pass: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let began = tokio::time::Instant::now();
    let result = guarded_pass(pass).await;
    let outcome = result.as_ref().map_or_else(|error| error.category().label(), |_| "ok");
    metrics.reconcile_seconds.with_label_values(&[kind.as_str()]).observe(began.elapsed().as_secs_f64());
    metrics.reconciles.with_label_values(&[kind.as_str(), outcome]).inc();
    result
}

/// Runs the passes of one kind. Each pass is a task of its own: a panic in one is that pass's error, not the end.
async fn control<K, Reconcile, Pass>(
    context: &Arc<Context>,
    store: Store<Guarded<K>>,
    queue: Queue,
    reconcile: Reconcile,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    Reconcile: Fn(Arc<Guarded<K>>, Arc<Context>) -> Pass,
    Pass: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let concurrency = context.settings.concurrency;
    passes(context.clone(), &context.metrics, concurrency, store, queue, reconcile, engine::error_policy).await;
}

/// Hands out names as passes: at most `concurrency` at a time, one at a time for each object.
async fn passes<K, Shared, Reconcile, Pass>(
    context: Arc<Shared>,
    metrics: &Metrics,
    concurrency: u16,
    store: Store<Guarded<K>>,
    queue: Queue,
    reconcile: Reconcile,
    error_policy: impl Fn(Arc<Guarded<K>>, &Error, Arc<Shared>) -> Action,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    Reconcile: Fn(Arc<Guarded<K>>, Arc<Shared>) -> Pass,
    Pass: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let backlog = queue.backlog(metrics.queue_depth.with_label_values(&[kind.as_str()]));
    let passes = applier(
        |object: Arc<Guarded<K>>, context: Arc<Shared>| {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            backlog.begun(&namespace, &name);
            let pass = reconcile(object, context).instrument(pass_span(&kind, &namespace, &name));
            Box::pin(measured_pass(metrics.clone(), kind.clone(), pass))
        },
        error_policy,
        context,
        store,
        queue::requests(queue),
        Config::default().concurrency(concurrency),
    );
    passes
        .for_each(|result| {
            match result {
                Ok((object, _)) => tracing::trace!(%object, "passed"),
                // The object is gone: nothing is left to do for it.
                Err(kube::runtime::controller::Error::ObjectNotFound(object)) => {
                    backlog.begun(object.namespace.as_deref().unwrap_or_default(), &object.name);
                    tracing::trace!(%object, "gone");
                }
                Err(error) => tracing::debug!(%error, "a pass ended with an error"),
            }
            futures::future::ready(())
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use kube::runtime::{reflector, watcher};
    use provisioning_api::Workspace;

    use super::*;
    use crate::context::lock;

    const OBJECTS: usize = 40;
    const AT_A_TIME: u16 = 3;

    /// What runs now, by object, and the most that ever ran: of all, and of one object.
    #[derive(Default)]
    struct Tally {
        running: BTreeMap<String, usize>,
        most: usize,
        most_of_one: usize,
        passes: BTreeMap<String, usize>,
    }

    fn begin(tally: &Mutex<Tally>, name: &str) -> usize {
        let mut tally = lock(tally);
        *tally.running.entry(name.to_owned()).or_default() += 1;
        tally.most = tally.most.max(tally.running.values().sum());
        tally.most_of_one = tally.most_of_one.max(tally.running.values().copied().max().unwrap_or(0));
        let passes = tally.passes.entry(name.to_owned()).or_default();
        *passes += 1;
        *passes
    }

    fn filled(writer: &mut reflector::store::Writer<Guarded<Workspace>>) -> Store<Guarded<Workspace>> {
        writer.apply_watcher_event(&watcher::Event::Init);
        for number in 0..OBJECTS {
            let object = serde_json::from_value(serde_json::json!({
                "apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "spec": {},
                "metadata": {"name": "workspace", "namespace": format!("marsh-{number}")},
            }));
            writer.apply_watcher_event(&watcher::Event::InitApply(object.unwrap()));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        writer.as_reader()
    }

    #[tokio::test(start_paused = true)]
    async fn passes_are_bounded_one_at_a_time_for_each_object_and_a_panic_or_an_error_stops_no_other() {
        let mut writer = reflector::store::Writer::default();
        let store = filled(&mut writer);
        let (waker, queue) = queue::queue();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let reconcile = {
            let waker = waker.clone();
            move |object: Arc<Guarded<Workspace>>, tally: Arc<Mutex<Tally>>| {
                let waker = waker.clone();
                async move {
                    let namespace = object.namespace().unwrap_or_default();
                    let pass = begin(&tally, &namespace);
                    // News of itself in mid-pass: it is looked at again, afterwards.
                    if pass == 1 {
                        waker.wake(&namespace, "workspace");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    *lock(&tally).running.entry(namespace.clone()).or_default() -= 1;
                    assert!(!(pass == 1 && namespace == "marsh-7"), "planted");
                    if pass == 1 && namespace == "marsh-11" {
                        return Err(Error::Conflict { object: namespace });
                    }
                    Ok(Action::await_change())
                }
            }
        };
        let error_policy = |_, _: &Error, _| Action::requeue(Duration::from_millis(250));
        for number in 0..OBJECTS {
            waker.wake(&format!("marsh-{number}"), "workspace");
        }
        let metrics = Metrics::new().unwrap();
        let all = passes(tally.clone(), &metrics, AT_A_TIME, store, queue, reconcile, error_policy);
        assert!(tokio::time::timeout(Duration::from_secs(60), all).await.is_err(), "the passes ended");
        let tally = lock(&tally);
        assert_eq!((tally.most, tally.most_of_one), (usize::from(AT_A_TIME), 1));
        let seldom: Vec<_> = tally.passes.iter().filter(|(_, passes)| **passes < 2).collect();
        assert!(tally.passes.len() == OBJECTS && seldom.is_empty(), "not looked at twice: {seldom:?}");
    }

    #[tokio::test]
    async fn a_pass_counts_by_its_outcome_also_one_that_panics() {
        let metrics = Metrics::new().unwrap();
        let run = |pass| measured_pass(metrics.clone(), "Server".to_owned(), pass);
        let outcomes: [fn() -> Result<Action, Error>; 4] = [
            || Ok(Action::await_change()),
            || Err(Error::Conflict { object: "Server marsh/blue-heron".to_owned() }),
            || Err(Error::Unanswered { object: "Server marsh/blue-heron".to_owned() }),
            || panic!("a planted one"),
        ];
        for outcome in outcomes {
            let _ = run(async move { outcome() }).await;
        }
        for outcome in ["ok", "conflict", "transient", "permanent"] {
            assert_eq!(metrics.reconciles.with_label_values(&["Server", outcome]).get(), 1, "{outcome}");
        }
        let durations = metrics.reconcile_seconds.with_label_values(&["Server"]);
        assert_eq!(durations.get_sample_count(), 4);
    }
}
