//! The operator: controllers of all kinds, leader-elected.
//!
//! Start with [`engine`] (the six stages), then a kind's module (its graph), then [`watches`].

pub mod batch_workflow;
pub mod bundles;
pub mod children;
pub mod context;
pub mod engine;
pub mod error;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod probes;
pub mod probing;
pub mod provider_config;
pub mod queue;
pub mod server;
pub mod taskserv;
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

use context::{Clock, Context, Epochs, Settings, Slots, Written};
use error::Error;
use queue::Queue;
use watches::{Guarded, Queues};

/// What ended the operator.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The namespace `kube-system` tells installations apart.
    #[error("failed to read the namespace kube-system")]
    ReadInstallation(#[source] kube::Error),
    /// The Lease.
    #[error("failed to take part in the election of a leader")]
    Elect(#[source] kube_lease_manager::LeaseManagerError),
    /// Metrics.
    #[error("failed to register the metrics")]
    RegisterMetrics(#[source] prometheus::Error),
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
    settings: Settings,
    clock: Clock,
    health: SocketAddr,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let metrics = metrics::Metrics::new().map_err(RunError::RegisterMetrics)?;
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
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
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
        clock,
        made: std::sync::Mutex::default(),
        copied: std::sync::Mutex::default(),
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
        control(context, stores.workflows, queues.workflows, engine::reconcile),
    );
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
    let config = Config::default().concurrency(context.settings.concurrency);
    let passes = applier(
        |object, context| Box::pin(guarded_pass(reconcile(object, context))),
        engine::error_policy,
        context.clone(),
        store,
        queue::requests(queue),
        config,
    );
    passes
        .for_each(|result| async move {
            match result {
                Ok((object, _)) => tracing::trace!(%object, "passed"),
                // The object is gone: nothing is left to do for it.
                Err(kube::runtime::controller::Error::ObjectNotFound(object)) => tracing::trace!(%object, "gone"),
                Err(error) => tracing::debug!(%error, "a pass ended with an error"),
            }
        })
        .await;
}
