//! The supervisor: keeps the services of one instance running until it is told to stop.
//!
//! It runs inside the instance's network namespace, detached from every terminal. One task keeps each service, one asks for
//! its health, one writes the status. SIGTERM and SIGINT mean an orderly stop of services and containers; what lies outside
//! of the namespace (links, firewall rules, the namespace itself) is left to `stop`, which can reach it.
//!
//! If the supervisor is killed, the services go on. They are not its children in a way that matters: the next `start` finds
//! them by their pid files and ends them (containers excepted) before it starts its own.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::binaries::{Binaries, BinariesError};
use crate::cgroup;
use crate::config::Render;
use crate::files::{self, FileError, at};
use crate::health::{Prober, install_crypto};
use crate::images::{self, ImagesError};
use crate::instance::Instance;
use crate::network::{self, NetworkError};
use crate::process::{ProcessIdentity, write_pid_file};
use crate::services::{Context, STOP_ROWS, Service};
use crate::state::{State, StateError};
use crate::status::{self, Health, ServiceStatus, SupervisorStatus, service_pid_file, supervisor_pid_file};
use crate::stop::end_containers;

/// The first pause before a service that ended is started again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran this long has recovered: its next end counts as the first.
const RECOVERED: Duration = Duration::from_secs(60);
/// A service's log is put aside at its start when it is larger than this.
const LOG_BYTES: u64 = 64 << 20;

/// The supervisor can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// `start` prepares an instance before it runs the supervisor.
    #[error("failed to supervise {0}: it was never started; use `provisioning platform start`")]
    NotPrepared(String),
    /// One supervisor for each instance.
    #[error("failed to supervise {instance}: pid {pid} does so already")]
    Supervised {
        /// The instance.
        instance: String,
        /// The other supervisor.
        pid: i32,
    },
    /// Signals can't be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`BinariesError`].
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// See [`ImagesError`].
    #[error(transparent)]
    Images(#[from] ImagesError),
}

/// What all tasks share.
struct Board {
    context: Context,
    started: Timestamp,
    services: Mutex<BTreeMap<Service, ServiceStatus>>,
    /// Sent to at every change, for those who wait for a service and for the writer of the status.
    changed: watch::Sender<()>,
}

impl Board {
    fn services(&self) -> MutexGuard<'_, BTreeMap<Service, ServiceStatus>> {
        // A panic while it was held can't leave a map half changed that matters here.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, service: Service, change: impl FnOnce(&mut ServiceStatus)) {
        change(self.services().entry(service).or_default());
        self.changed.send_replace(());
    }

    fn is_healthy(&self, service: Service) -> bool {
        self.services().get(&service).is_some_and(|status| status.health == Health::Healthy)
    }

    async fn wait_for(&self, needs: &[Service]) {
        let mut changes = self.changed.subscribe();
        while !needs.iter().all(|service| self.is_healthy(*service)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn write(&self) -> Result<(), FileError> {
        let services = self.services().clone();
        let status = SupervisorStatus { written: Timestamp::now(), started: self.started, services };
        let text = serde_json::to_vec_pretty(&status).unwrap_or_default();
        files::write(&self.context.instance.status_file(), &text, 0o644)
    }
}

/// A service that is being kept, and the way to end it.
struct Kept {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Supervises an instance that `start` has prepared, until SIGTERM or SIGINT.
pub async fn supervise(instance: &Instance) -> Result<(), SupervisorError> {
    install_crypto();
    let mut terminate = signal(SignalKind::terminate()).map_err(SupervisorError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SupervisorError::Signals)?;
    let state = State::load(instance)?.ok_or_else(|| SupervisorError::NotPrepared(instance.name().to_string()))?;
    let context = Context { instance: instance.clone(), state, binaries: Binaries::find()? };
    if let Some(other) = status::supervisor(instance) {
        return Err(SupervisorError::Supervised { instance: instance.name().to_string(), pid: other.pid });
    }
    if let Some(own) = i32::try_from(std::process::id()).ok().and_then(ProcessIdentity::of) {
        write_pid_file(&supervisor_pid_file(instance), &own)?;
    }
    prepare(&context)?;
    let services = Service::ALL.map(|service| (service, ServiceStatus::default())).into();
    let (changed, _) = watch::channel(());
    let board = Arc::new(Board { context, started: Timestamp::now(), services: Mutex::new(services), changed });
    let writer = tokio::spawn(write_status(board.clone()));
    let mut kept: BTreeMap<Service, Kept> = Service::ALL.map(|service| (service, keep(board.clone(), service))).into();
    log("supervising");
    tokio::select! {
        _ = terminate.recv() => log("stopping: SIGTERM"),
        _ = interrupt.recv() => log("stopping: SIGINT"),
    }
    for (position, row) in STOP_ROWS.iter().enumerate() {
        let tasks: Vec<JoinHandle<()>> = row.iter().filter_map(|service| kept.remove(service)).map(Kept::end).collect();
        for task in tasks {
            let _ = task.await;
        }
        if position == 0 {
            let context = board.context.clone();
            let ended = tokio::task::spawn_blocking(move || end_containers(&context.state)).await;
            log(if ended.is_ok_and(|ended| ended) { "all containers ended" } else { "some containers did not end" });
        }
    }
    writer.abort();
    board.write()?;
    files::remove(&supervisor_pid_file(&board.context.instance))?;
    log("stopped");
    Ok(())
}

impl Kept {
    fn end(self) -> JoinHandle<()> {
        let _ = self.stop.send(true);
        self.task
    }
}

/// Does what can be done only inside the namespace, and renders what depends on it.
fn prepare(context: &Context) -> Result<(), SupervisorError> {
    let Context { instance, state, binaries } = context;
    let masquerade_all = !network::configure_namespace()?;
    Render { instance, state, binaries, cgroups: cgroup::version(), masquerade_all }.write()?;
    Ok(())
}

fn log(message: &str) {
    // Standard error is supervisor.log; that its disk is full ends nothing.
    let _ = writeln!(std::io::stderr().lock(), "{} {message}", Timestamp::now());
}

/// Writes the status at every change, and once a second as a sign of life.
async fn write_status(board: Arc<Board>) {
    let mut changes = board.changed.subscribe();
    loop {
        if let Err(error) = board.write() {
            log(&format!("{error}"));
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
        // Changes come in bursts; a reader does not need every one of them.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn keep(board: Arc<Board>, service: Service) -> Kept {
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(async move {
        let prober = tokio::spawn(probe(board.clone(), service));
        let mut asked = stopping.clone();
        tokio::select! {
            () = board.wait_for(service.needs()) => keep_running(&board, service, stopping).await,
            () = told(&mut asked) => {}
        }
        prober.abort();
        board.change(service, |status| status.health = Health::Stopped);
    });
    Kept { stop, task }
}

/// Waits until the service is to end. The guard that `wait_for` returns must not live across an await.
async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Starts a service, again and again, until `stopping`; then ends it.
async fn keep_running(board: &Board, service: Service, mut stopping: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ending = match start_service(board, service) {
            Ok(mut child) => {
                tokio::select! {
                    status = child.wait() => describe(status),
                    () = told(&mut stopping) => return end_service(board, service, child).await,
                }
            }
            Err(error) => format!("{error}: {}", error.source),
        };
        log(&format!("{service}: {ending}"));
        if began.elapsed() > RECOVERED {
            pause = FIRST_PAUSE;
        }
        board.change(service, |status| {
            status.health = Health::Restarting;
            status.process = None;
            status.restarts += 1;
            status.last_exit = Some(format!("{ending} at {:.0}", Timestamp::now()));
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
            () = told(&mut stopping) => return,
        }
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        },
        Err(error) => format!("failed to wait for it: {error}"),
    }
}

fn start_service(board: &Board, service: Service) -> Result<Child, FileError> {
    let Context { instance, binaries, .. } = &board.context;
    let launch = board.context.launch(service);
    let path = instance.logs().join(format!("{service}.log"));
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES) {
        std::fs::rename(&path, path.with_extension("log.1")).map_err(at("rename", &path))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at("open", &path))?;
    let errors = file.try_clone().map_err(at("open", &path))?;
    let mut command = Command::new(&launch.program);
    // A clean environment: a proxy of the user's shell must not get between API server and kubelet.
    command.args(&launch.arguments).env_clear().env("PATH", binaries.search_path());
    command.env("HOME", instance.directory()).current_dir(instance.directory());
    // A group of its own: a signal to the supervisor's group must not reach the services.
    command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(errors);
    let mut child = command.spawn().map_err(at("run", &launch.program))?;
    let identity = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(ProcessIdentity::of);
    let noted = identity.as_ref().map_or(Ok(()), |own| write_pid_file(&service_pid_file(instance, service), own));
    if let Err(error) = noted {
        // Nobody would find it again, and the next one would meet it.
        let _ = child.start_kill();
        return Err(error);
    }
    log(&format!("{service}: started, pid {}", child.id().unwrap_or_default()));
    board.change(service, |status| {
        status.health = Health::Starting;
        status.process = identity;
        status.started = Some(Timestamp::now());
        status.problem = None;
    });
    Ok(child)
}

async fn end_service(board: &Board, service: Service, mut child: Child) {
    let identity = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(ProcessIdentity::of);
    if let Some(identity) = identity {
        identity.signal(nix::sys::signal::Signal::SIGTERM);
    }
    let ending = match tokio::time::timeout(service.grace(), child.wait()).await {
        Ok(status) => describe(status),
        Err(_) => {
            let _ = child.kill().await;
            format!("killed after {} s", service.grace().as_secs())
        }
    };
    log(&format!("{service}: stopped, {ending}"));
    let _ = files::remove(&service_pid_file(&board.context.instance, service));
    board.change(service, |status| {
        status.process = None;
        status.last_exit = Some(format!("{ending} at {:.0}", Timestamp::now()));
    });
}

/// Asks a service for its health for as long as it is kept: often while it starts, then every two seconds.
async fn probe(board: Arc<Board>, service: Service) {
    let prober = match Prober::new(&board.context, service) {
        Ok(prober) => prober,
        Err(error) => return board.change(service, |status| status.problem = Some(error.to_string())),
    };
    let mut pause_image = service == Service::Containerd;
    loop {
        let process = board.services().get(&service).and_then(|status| status.process.clone());
        let mut answer = match process {
            Some(_) => prober.ask().await.map_err(|error| describe_chain(&error)),
            None => Err("not running".to_owned()),
        };
        if answer.is_ok() && pause_image {
            // No pod can start without it, so containerd counts as healthy only when it is there.
            let context = board.context.clone();
            let imported = tokio::task::spawn_blocking(move || images::ensure_pause(&context)).await;
            answer = match imported {
                Ok(imported) => imported.map_err(|error| describe_chain(&error)),
                Err(error) => Err(error.to_string()),
            };
            pause_image = answer.is_err();
        }
        let healthy = record(&board, service, process, answer);
        tokio::time::sleep(if healthy { Duration::from_secs(2) } else { Duration::from_millis(100) }).await;
    }
}

/// Records an answer, unless the service was started anew meanwhile.
fn record(board: &Board, service: Service, asked: Option<ProcessIdentity>, answer: Result<(), String>) -> bool {
    let healthy = answer.is_ok();
    let mut services = board.services();
    let status = services.entry(service).or_default();
    if asked.is_none() || status.process != asked {
        return false;
    }
    let health = match (healthy, status.health) {
        (true, _) => Health::Healthy,
        (false, Health::Healthy | Health::Unhealthy) => Health::Unhealthy,
        (false, other) => other,
    };
    let problem = answer.err();
    if status.health != health || status.problem != problem {
        if status.health != health {
            log(&format!("{service}: {health:?}"));
        }
        status.health = health;
        status.problem = problem;
        drop(services);
        board.changed.send_replace(());
    }
    healthy
}

/// An error with its causes, on one line.
fn describe_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
