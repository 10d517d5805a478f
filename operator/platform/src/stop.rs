//! Stopping an instance, and removing everything that it made outside its directory.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cgroup;
use crate::files::{self, FileError};
use crate::instance::Instance;
use crate::leftovers::{self, Leftover, SHIM, leftovers};
use crate::lock::{LockError, lock};
use crate::mounts;
use crate::network::{self, NetworkError};
use crate::services::STOP_ROWS;
use crate::state::State;
use crate::status;

/// The supervisor's own limits add up to less: 5 + 20 + 5 + 10 + 10 seconds.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(60);
/// How long the processes of all containers may take to vanish after SIGKILL.
const CONTAINERS_LIMIT: Duration = Duration::from_secs(20);

/// An instance can't be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// See `start`.
    #[error("failed to stop: the platform runs as root; use sudo")]
    NotRoot,
    /// Something is still there.
    #[error("failed to remove all of the instance; still there: {}", list(.0))]
    Leftovers(Vec<Leftover>),
    /// See [`LockError`].
    #[error(transparent)]
    Lock(#[from] LockError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
}

fn list(leftovers: &[Leftover]) -> String {
    leftovers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What `stop` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ran, or something of it did.
    Now,
    /// Nothing was there to be stopped.
    AlreadyStopped,
}

/// Stops an instance and keeps its data. Works whatever state it is in: running, orphaned, half started, after a reboot.
///
/// Containers are killed, not asked: for what is in them it is as if the power went.
pub fn stop(instance: &Instance, progress: &mut dyn FnMut(&str)) -> Result<Stopped, StopError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StopError::NotRoot);
    }
    if !instance.directory().exists() && leftovers(instance).is_empty() {
        return Ok(Stopped::AlreadyStopped);
    }
    let _held = lock(&instance.lock_file(), Duration::from_secs(120))?;
    stop_locked(instance, progress)
}

/// Stops an instance and deletes all its data.
pub fn purge(instance: &Instance, progress: &mut dyn FnMut(&str)) -> Result<(), StopError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StopError::NotRoot);
    }
    if !instance.directory().exists() && leftovers(instance).is_empty() {
        return Ok(());
    }
    let _held = lock(&instance.lock_file(), Duration::from_secs(120))?;
    stop_locked(instance, progress)?;
    progress("deleting data");
    Ok(files::remove(instance.directory())?)
}

fn stop_locked(instance: &Instance, progress: &mut dyn FnMut(&str)) -> Result<Stopped, StopError> {
    if leftovers(instance).is_empty() {
        return Ok(Stopped::AlreadyStopped);
    }
    if let Some(supervisor) = status::supervisor(instance) {
        progress("stopping services and containers");
        supervisor.signal(Signal::SIGTERM);
        if !supervisor.wait_until_gone(SUPERVISOR_LIMIT) {
            supervisor.terminate(Duration::ZERO);
        }
    }
    progress("removing what is left");
    end_services(instance);
    // No record is read: everything is named by the prefix, so that a broken state.json is in nobody's way here.
    end_all_containers(instance)?;
    cgroup::remove(instance.prefix())?;
    network::remove(instance.prefix())?;
    let left = leftovers(instance);
    if left.is_empty() { Ok(Stopped::Now) } else { Err(StopError::Leftovers(left)) }
}

/// Ends services without their supervisor, in the same order; containers after the kubelet, which would restart them.
fn end_services(instance: &Instance) {
    for row in STOP_ROWS {
        let running = leftovers::processes(instance);
        let row = running
            .into_iter()
            .filter(|(_, name)| row.iter().any(|service| service.name() == name))
            .collect::<Vec<_>>();
        for (identity, _) in &row {
            identity.signal(Signal::SIGTERM);
        }
        for (identity, _) in &row {
            identity.terminate(Duration::from_secs(5));
        }
        kill_containers(instance);
    }
}

/// Kills all containers and removes what only they need. No service may run.
pub(crate) fn end_all_containers(instance: &Instance) -> Result<(), FileError> {
    kill_containers(instance);
    mounts::unmount_below(instance.directory());
    remove_run_files(instance)
}

fn kill_containers(instance: &Instance) -> bool {
    let ended = cgroup::kill_all(instance.prefix(), CONTAINERS_LIMIT);
    for (identity, _) in leftovers::processes(instance).into_iter().filter(|(_, name)| name == SHIM) {
        identity.terminate(Duration::ZERO);
    }
    ended
}

/// Kills all containers of an instance whose kubelet has ended. Called by the supervisor.
pub(crate) fn end_containers(state: &State) -> bool {
    cgroup::kill_all(&state.cgroup, CONTAINERS_LIMIT)
}

/// What is worth nothing after a stop, as /run after a reboot: containerd's state, sockets, leases of pod addresses, pid files.
fn remove_run_files(instance: &Instance) -> Result<(), FileError> {
    remove_shim_sockets(&instance.containerd_state());
    for path in [instance.containerd_state(), instance.run(), instance.containerd_socket()] {
        files::remove(&path)?;
    }
    files::remove(&instance.containerd_socket().with_extension("sock.ttrpc"))?;
    remove_dead_links(Path::new("/var/log/containers"), instance.directory());
    remove_cni_results(Path::new("/var/lib/cni/results"), instance.prefix());
    Ok(())
}

/// Shims have their sockets in /run/containerd/s, a fixed place; one that was killed leaves it there.
fn remove_shim_sockets(state: &Path) {
    let bundles = state.join("io.containerd.runtime.v2.task/k8s.io");
    for bundle in std::fs::read_dir(bundles).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(bundle.path().join("bootstrap.json")).unwrap_or_default();
        let address = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        let socket = address.get("address").and_then(|address| address.as_str()?.strip_prefix("unix://"));
        if let Some(socket) = socket.filter(|socket| socket.starts_with("/run/containerd/s/")) {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// The kubelet links to each container's log in /var/log/containers, a fixed place.
fn remove_dead_links(folder: &Path, directory: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(directory)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// CNI remembers results in /var/lib/cni/results, a fixed place: `<network>-<sandbox>-eth0`, and for each sandbox's loopback
/// `cni-loopback-<sandbox>-lo`, which does not say whose it is.
fn remove_cni_results(folder: &Path, network: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let sandbox =
            name.to_str().and_then(|name| name.strip_prefix(network)?.strip_prefix('-')?.strip_suffix("-eth0"));
        if let Some(sandbox) = sandbox {
            let _ = std::fs::remove_file(folder.join(format!("cni-loopback-{sandbox}-lo")));
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
