//! Starting an instance: prepare what it needs, run its supervisor, wait until it accepts pods.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::binaries::{Binaries, BinariesError};
use crate::cgroup;
use crate::command::CommandError;
use crate::files::{self, FileError, at};
use crate::health::{self, HealthError};
use crate::instance::Instance;
use crate::leftovers::{self, SHIM, containers_run};
use crate::lock::{LockError, lock};
use crate::logs::excerpt;
use crate::network::{self, NetworkError};
use crate::pki::{self, PkiError};
use crate::services::Service;
use crate::state::{State, StateError};
use crate::status::{self, Health, ServiceStatus, StatusError};
use crate::stop::end_all_containers;

/// How long the supervisor may take to say that it is there.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(10);
/// inotify instances for each user. The node takes about 16 and each Local server six, all of root; of Debian's 128 there
/// would be none left from about 20 servers on, and systemd and the kubelet end without one.
const INOTIFY_INSTANCES: u32 = 1024;
const INOTIFY_SETTING: &str = "/proc/sys/fs/inotify/max_user_instances";
/// From so many ends by itself on, who waits for a service is told of them.
const ENDS_TOO_OFTEN: u32 = 3;
/// Lines of a log in an error.
const TOLD_LINES: usize = 10;

/// An instance can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Namespaces, mounts and cgroups need root.
    #[error(
        "failed to start: the platform runs containers and needs root; use sudo, or `--context` with a cluster of yours"
    )]
    NotRoot,
    /// The supervisor ended at once.
    #[error("failed to run the supervisor; the end of {log} says:\n{tail}")]
    Supervisor {
        /// Its log.
        log: String,
        /// Its last lines.
        tail: String,
    },
    /// Not everything came up in time.
    #[error(
        "failed to become ready within {seconds} s: {what}\nsee `provisioning platform status` and `provisioning platform logs`"
    )]
    NotReady {
        /// The limit.
        seconds: u64,
        /// What is missing.
        what: String,
    },
    /// A process of an earlier run can't be ended.
    #[error("failed to end {0}, left by an earlier supervisor")]
    Orphan(String),
    /// See [`BinariesError`].
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// See [`LockError`].
    #[error(transparent)]
    Lock(#[from] LockError),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// See [`StatusError`].
    #[error(transparent)]
    Status(#[from] StatusError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// See [`CommandError`].
    #[error(transparent)]
    Command(#[from] CommandError),
    /// See [`HealthError`].
    #[error(transparent)]
    Health(#[from] HealthError),
}

/// How to start.
pub struct StartOptions<'a> {
    /// The program, with its arguments, that calls [`crate::supervise`] for the instance.
    pub supervisor: Vec<OsString>,
    /// How long to wait until pods are accepted. Cold, on two busy cores, it takes half a minute.
    pub wait_timeout: Duration,
    /// Told what is being done, at every change.
    pub progress: &'a mut dyn FnMut(&str),
}

/// What `start` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It was started.
    Now,
    /// It ran already.
    AlreadyRunning,
}

/// Starts an instance and waits until it accepts pods. One that runs already is fine.
///
/// After a killed supervisor, its services are ended and started anew; containers go on meanwhile.
///
/// After a stop, pods are shown as they were before it until the kubelet has looked at each, for some seconds: whoever needs one
/// running asks the pod itself, or waits for its restart count to grow.
pub async fn start(instance: &Instance, options: StartOptions<'_>) -> Result<Started, StartError> {
    let StartOptions { supervisor, wait_timeout, progress } = options;
    if !nix::unistd::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    Binaries::find()?;
    let deadline = Instant::now() + wait_timeout;
    let _held = lock(&instance.lock_file(), wait_timeout)?;
    if status::supervisor(instance).is_some() {
        wait_until_ready(instance, deadline, wait_timeout, progress).await?;
        return Ok(Started::AlreadyRunning);
    }
    progress("preparing network, keys and cgroups");
    end_orphans(instance)?;
    let state = prepare(instance)?;
    raise_inotify_instances(std::path::Path::new(INOTIFY_SETTING), progress);
    progress("starting the supervisor");
    run_supervisor(instance, &state, &supervisor)?;
    wait_until_ready(instance, deadline, wait_timeout, progress).await?;
    Ok(Started::Now)
}

/// Never lowered, and not put back: other instances count on it. Where it cannot be raised fewer servers fit.
fn raise_inotify_instances(setting: &std::path::Path, progress: &mut dyn FnMut(&str)) {
    let now = std::fs::read_to_string(setting).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let Some(now) = now.filter(|now| *now < INOTIFY_INSTANCES) else { return };
    match std::fs::write(setting, format!("{INOTIFY_INSTANCES}\n")) {
        Ok(()) => progress(&format!("raised fs.inotify.max_user_instances from {now} to {INOTIFY_INSTANCES}")),
        Err(error) => progress(&format!(
            "fs.inotify.max_user_instances is {now} and cannot be raised to {INOTIFY_INSTANCES} ({error}): \
             a node and its servers need six for each server"
        )),
    }
}

/// Ends the services that a killed supervisor left. Shims stay, and with them the containers, if their network does.
fn end_orphans(instance: &Instance) -> Result<(), StartError> {
    for (identity, name) in leftovers::processes(instance) {
        if name != SHIM && !identity.terminate(Duration::from_secs(5)) {
            return Err(StartError::Orphan(format!("{name} (pid {})", identity.pid)));
        }
    }
    // After a reboot of the machine there is neither, and what containerd remembers of its containers is wrong.
    let network = State::load(instance)?.is_some_and(|state| state.network.namespace_file().exists());
    if !network || !containers_run(instance) {
        end_all_containers(instance)?;
    }
    files::remove(&instance.run())?;
    Ok(files::remove(&instance.status_file())?)
}

fn prepare(instance: &Instance) -> Result<State, StartError> {
    for directory in [instance.run(), instance.logs(), instance.config(), instance.kubelet_root()] {
        files::create_directory(&directory)?;
    }
    // etcd refuses a directory that others may read.
    let etcd = instance.etcd();
    files::create_directory(&etcd)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&etcd, private).map_err(at("set the mode of", &etcd))?;
    let state = {
        // Two new instances at once must not choose the same subnet.
        let services = instance.directory().parent().unwrap_or(instance.directory());
        let _held = lock(&services.join(".lock"), Duration::from_secs(60))?;
        State::load_or_create(instance)?
    };
    network::ensure(&state.network)?;
    cgroup::ensure(&state.cgroup)?;
    pki::ensure(instance, &state.network, Timestamp::now())?;
    Ok(state)
}

/// Runs the supervisor in a session of its own and in the instance's network namespace; mounts and cgroups stay ours.
fn run_supervisor(instance: &Instance, state: &State, supervisor: &[OsString]) -> Result<(), StartError> {
    let path = instance.logs().join("supervisor.log");
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(at("open", &path))?;
    let errors = log.try_clone().map_err(at("open", &path))?;
    let mut command = Command::new("setsid");
    command
        .arg("--fork")
        .arg("nsenter")
        .arg(format!("--net={}", state.network.namespace_file().display()))
        .args(supervisor);
    // A working directory of the user's would keep his file system busy.
    command.current_dir("/").stdout(Stdio::from(log)).stderr(Stdio::from(errors));
    run_detached(&mut command)?;
    let deadline = Instant::now() + SUPERVISOR_LIMIT;
    while status::supervisor(instance).is_none() || status::read(instance)?.is_none() {
        if Instant::now() >= deadline {
            return Err(StartError::Supervisor { log: path.display().to_string(), tail: excerpt(&path, TOLD_LINES) });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `setsid --fork` returns at once; what it forked keeps our log files, so its output is not collected.
fn run_detached(command: &mut Command) -> Result<(), StartError> {
    let shown = "setsid".to_owned();
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|source| CommandError::Spawn { command: shown.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(CommandError::Status { command: shown, status: status.to_string(), stderr: String::new() }.into())
}

/// A service that is waited for. Of one that ends again and again: how, where to read why, and what helps where the machine
/// has run out of what all programs share.
fn awaited(name: &str, status: Option<&ServiceStatus>, log: impl Fn() -> String) -> String {
    let Some(status) = status.filter(|status| status.restarts >= ENDS_TOO_OFTEN) else { return name.to_owned() };
    let ending = status.last_exit.as_deref().unwrap_or("nothing known");
    let log = log();
    let hint = if log.contains("inotify") && log.contains("too many open files") {
        "; this machine has no inotify instance left: sysctl -w fs.inotify.max_user_instances=1024"
    } else {
        ""
    };
    format!("{name} (ended {} times, last: {ending}; see provisioning platform logs {name}{hint})", status.restarts)
}

/// Waits until every service is healthy and the node accepts pods.
async fn wait_until_ready(
    instance: &Instance,
    deadline: Instant,
    limit: Duration,
    progress: &mut dyn FnMut(&str),
) -> Result<(), StartError> {
    let mut client = None;
    let mut shown = String::new();
    loop {
        let status = status::status(instance)?;
        if status.supervisor.is_none() {
            let path = instance.logs().join("supervisor.log");
            return Err(StartError::Supervisor { log: path.display().to_string(), tail: excerpt(&path, TOLD_LINES) });
        }
        let waiting: Vec<String> = Service::ALL
            .iter()
            .map(|service| (service, status.services.get(service)))
            .filter(|(_, status)| status.is_none_or(|status| status.health != Health::Healthy))
            .map(|(service, status)| {
                awaited(service.name(), status, || {
                    excerpt(&instance.logs().join(format!("{}.log", service.name())), TOLD_LINES)
                })
            })
            .collect();
        let what = if waiting.is_empty() {
            let client = match &client {
                Some(client) => client,
                None => client.insert(health::client(instance).await?),
            };
            match health::accepts_pods(client, &instance.node_name()).await {
                Ok(()) => return Ok(()),
                Err(error) => format!("not yet: {error}"),
            }
        } else {
            format!("waiting for {}", waiting.join(", "))
        };
        if what != shown {
            progress(&what);
            shown.clone_from(&what);
        }
        if Instant::now() >= deadline {
            return Err(StartError::NotReady { seconds: limit.as_secs(), what });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inotify_instances_are_raised_and_never_lowered() {
        let folder = tempfile::tempdir().unwrap();
        let raised = |text: &str| {
            let setting = folder.path().join("setting");
            std::fs::write(&setting, text).unwrap();
            let mut told = Vec::new();
            raise_inotify_instances(&setting, &mut |line| told.push(line.to_owned()));
            (std::fs::read_to_string(&setting).unwrap(), told.join("; "))
        };
        let words = "raised fs.inotify.max_user_instances from 128 to 1024".to_owned();
        assert_eq!(raised("128\n"), ("1024\n".to_owned(), words));
        for enough in ["1024\n", "8192\n", "what is this\n"] {
            assert_eq!(raised(enough), (enough.to_owned(), String::new()));
        }
        let mut told = Vec::new();
        raise_inotify_instances(&folder.path().join("none"), &mut |line| told.push(line.to_owned()));
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn a_service_that_ends_again_and_again_is_awaited_with_its_reason() {
        let ended = |restarts| ServiceStatus {
            restarts,
            last_exit: Some("exit code 1 at 14:20".to_owned()),
            ..ServiceStatus::default()
        };
        let full = || "\"Failed to start cAdvisor\" err=\"inotify_init: too many open files\"".to_owned();
        assert_eq!(awaited("kubelet", None, full), "kubelet");
        assert_eq!(awaited("kubelet", Some(&ended(2)), full), "kubelet");
        assert_eq!(
            awaited("kubelet", Some(&ended(3)), String::new),
            "kubelet (ended 3 times, last: exit code 1 at 14:20; see provisioning platform logs kubelet)"
        );
        let words = awaited("kubelet", Some(&ended(9)), full);
        assert!(
            words.ends_with(
                "logs kubelet; this machine has no inotify instance left: sysctl -w fs.inotify.max_user_instances=1024)"
            ),
            "{words}"
        );
    }
}
