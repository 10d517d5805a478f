//! `status.json`: what the supervisor last said of itself and its services, written at every change and once a second.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::instance::Instance;
use crate::process::{ProcessIdentity, read_pid_file};
use crate::services::Service;
use crate::state::{State, StateError};

/// A supervisor that has not written for this long is stuck.
const STALE: SignedDuration = SignedDuration::from_secs(15);

/// The status can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Not our JSON.
    #[error("failed to read the supervisor's status")]
    Format(#[source] serde_json::Error),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Health {
    /// It waits for what it needs.
    Waiting,
    /// It runs, and has not been healthy since its start.
    Starting,
    /// Its last probe succeeded.
    Healthy,
    /// It runs, was healthy, and its last probe failed.
    Unhealthy,
    /// It ended by itself and waits for its next start.
    Restarting,
    /// It was stopped, or its supervisor is gone.
    Stopped,
}

/// One service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// How it is.
    pub health: Health,
    /// Its process, while it runs.
    pub process: Option<ProcessIdentity>,
    /// When that process was started.
    pub started: Option<Timestamp>,
    /// How often it was started again after it had ended by itself, since the supervisor's start.
    pub restarts: u32,
    /// How it last ended: exit code or signal, and when.
    pub last_exit: Option<String>,
    /// Why the last probe failed.
    pub problem: Option<String>,
}

impl Default for ServiceStatus {
    fn default() -> Self {
        Self { health: Health::Waiting, process: None, started: None, restarts: 0, last_exit: None, problem: None }
    }
}

/// What the supervisor writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SupervisorStatus {
    pub(crate) written: Timestamp,
    pub(crate) started: Timestamp,
    pub(crate) services: BTreeMap<Service, ServiceStatus>,
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Phase {
    /// It was never started here, or was purged.
    Absent,
    /// It has data, and nothing runs.
    Stopped,
    /// Its supervisor runs, and not all services are healthy.
    Degraded,
    /// Everything is healthy.
    Running,
    /// Its supervisor has not been heard of for 15 seconds.
    Stuck,
    /// Services run without their supervisor, which was killed: `start` recovers, `stop` ends them.
    Orphaned,
}

/// An instance, as `provisioning platform status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Its name.
    pub instance: String,
    /// Whether it runs.
    pub phase: Phase,
    /// The API server.
    pub server: Option<String>,
    /// The administrator's kubeconfig.
    pub kubeconfig: Option<String>,
    /// The supervisor's process.
    pub supervisor: Option<ProcessIdentity>,
    /// The services, in the order of their start.
    pub services: BTreeMap<Service, ServiceStatus>,
}

/// The supervisor's pid file.
pub(crate) fn supervisor_pid_file(instance: &Instance) -> std::path::PathBuf {
    instance.run().join("supervisor.pid")
}

/// The supervisor of an instance, if it runs.
pub(crate) fn supervisor(instance: &Instance) -> Option<ProcessIdentity> {
    read_pid_file(&supervisor_pid_file(instance))
}

pub(crate) fn service_pid_file(instance: &Instance, service: Service) -> std::path::PathBuf {
    instance.run().join(format!("{service}.pid"))
}

/// Reads what the supervisor wrote; `None` before it has.
pub(crate) fn read(instance: &Instance) -> Result<Option<SupervisorStatus>, StatusError> {
    let text = files::read_optional(&instance.status_file())?;
    text.map(|text| serde_json::from_str(&text).map_err(StatusError::Format)).transpose()
}

/// The status of an instance now: what was written, checked against the processes that are there.
pub fn status(instance: &Instance) -> Result<InstanceStatus, StatusError> {
    let state = State::load(instance)?;
    let supervisor = supervisor(instance);
    let written = read(instance)?;
    let stale = written.as_ref().is_none_or(|written| Timestamp::now().duration_since(written.written) > STALE);
    let mut services = written.map(|written| written.services).unwrap_or_default();
    for (service, status) in &mut services {
        if supervisor.is_none() {
            status.process = read_pid_file(&service_pid_file(instance, *service));
            status.health = Health::Stopped;
        }
    }
    let running = services.values().any(|status| status.process.is_some());
    let healthy =
        services.len() == Service::ALL.len() && services.values().all(|status| status.health == Health::Healthy);
    let phase = match (&state, &supervisor) {
        (None, _) => Phase::Absent,
        (Some(_), None) if running => Phase::Orphaned,
        (Some(_), None) => Phase::Stopped,
        (Some(_), Some(_)) if stale => Phase::Stuck,
        (Some(_), Some(_)) if healthy => Phase::Running,
        (Some(_), Some(_)) => Phase::Degraded,
    };
    let kubeconfig = state.as_ref().map(|_| instance.kubeconfig().display().to_string());
    let server = state.map(|state| state.server);
    Ok(InstanceStatus { instance: instance.name().to_string(), phase, server, kubeconfig, supervisor, services })
}
