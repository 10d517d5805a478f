//! What of an instance is still on the machine: found by its records and by its prefix, never guessed.

use std::fmt;
use std::path::PathBuf;

use crate::instance::Instance;
use crate::process::{self, ProcessIdentity};
use crate::services::Service;
use crate::status::{service_pid_file, supervisor};
use crate::{cgroup, mounts, network};

/// One thing that a stopped instance should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process that still runs, and what it is.
    Process(ProcessIdentity, String),
    /// A mount below the instance's directory.
    Mount(PathBuf),
    /// A cgroup.
    Cgroup(PathBuf),
    /// A link, network namespace or firewall rule, as text.
    Network(String),
}

impl fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(identity, name) => write!(formatter, "process {} ({name})", identity.pid),
            Self::Mount(path) => write!(formatter, "mount {}", path.display()),
            Self::Cgroup(path) => write!(formatter, "cgroup {}", path.display()),
            Self::Network(text) => formatter.write_str(text),
        }
    }
}

/// Everything of the instance that is on the machine: for one that runs, all of it; for a stopped one, nothing.
pub fn leftovers(instance: &Instance) -> Vec<Leftover> {
    let mut found: Vec<Leftover> = Vec::new();
    if let Some(identity) = supervisor(instance) {
        found.push(Leftover::Process(identity, "supervisor".to_owned()));
    }
    let services = processes(instance).into_iter().map(|(identity, name)| Leftover::Process(identity, name));
    found.extend(services);
    let pods = cgroup::processes(instance.prefix());
    let pods = pods.into_iter().filter_map(ProcessIdentity::of);
    found.extend(pods.map(|identity| Leftover::Process(identity, "in a container".to_owned())));
    found.extend(mounts::below(instance.directory()).into_iter().map(Leftover::Mount));
    found.extend(cgroup::existing(instance.prefix()).into_iter().map(Leftover::Cgroup));
    found.extend(network::remains(instance.prefix()).into_iter().map(Leftover::Network));
    found
}

/// The services of the instance and containerd's shims that run, with or without a supervisor.
///
/// A process counts as ours if its pid file says so (pid, start and boot agree), or if it has the name of one of our
/// programs and its command line a path of the instance: so it is found even if the supervisor was killed before it wrote the
/// file.
pub(crate) fn processes(instance: &Instance) -> Vec<(ProcessIdentity, String)> {
    let recorded = Service::ALL.into_iter().filter_map(|service| {
        Some((process::read_pid_file(&service_pid_file(instance, service))?, service.name().to_owned()))
    });
    let mut found: Vec<(ProcessIdentity, String)> = recorded.collect();
    let inside = format!("{}/", instance.directory().display());
    for listed in process::list() {
        let known = found.iter().any(|(identity, _)| *identity == listed.identity);
        if known {
            continue;
        }
        let name = listed.executable.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = Service::ALL.iter().any(|service| service.name() == name) || name == SHIM;
        if ours && listed.command_line.iter().any(|word| word.contains(&inside)) {
            found.push((listed.identity, name));
        }
    }
    found
}

/// Whether anything runs in a container of the instance.
pub(crate) fn containers_run(instance: &Instance) -> bool {
    !cgroup::processes(instance.prefix()).is_empty()
}

/// containerd's helper that stays with each pod.
pub(crate) const SHIM: &str = "containerd-shim-runc-v2";
