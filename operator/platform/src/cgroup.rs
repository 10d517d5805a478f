//! The cgroups of an instance's pods, on machines with cgroup v2, v1, or v1 with an empty v2 beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files::{self, FileError};

const ROOT: &str = "/sys/fs/cgroup";
/// What pods are limited by. Controllers that the machine lacks are skipped.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Which cgroups a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

/// Looks at the machine.
pub(crate) fn version() -> CgroupVersion {
    if Path::new(ROOT).join("cgroup.controllers").exists() { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

/// The roots of all hierarchies: one on v2, the directories below it on v1.
fn hierarchies() -> Vec<PathBuf> {
    if version() == CgroupVersion::V2 {
        return vec![PathBuf::from(ROOT)];
    }
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    // `cpu,cpuacct` has links `cpu` and `cpuacct` beside it: the same hierarchy three times.
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The instance's cgroup in every hierarchy where it exists.
pub(crate) fn existing(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(name)).filter(|path| path.is_dir()).collect()
}

/// Makes the cgroup that the kubelet gets as its root; it does not make that one itself.
pub(crate) fn ensure(name: &str) -> Result<(), FileError> {
    match version() {
        CgroupVersion::V2 => {
            let root = Path::new(ROOT);
            enable_controllers(root);
            files::create_directory(&root.join(name))?;
            enable_controllers(&root.join(name));
        }
        CgroupVersion::V1 => {
            // The v2 hierarchy beside v1 has no controllers; runc does not use it there.
            for root in hierarchies().iter().filter(|root| !root.join("cgroup.controllers").exists()) {
                let own = root.join(name);
                files::create_directory(&own)?;
                // A cpuset begins empty, and then no process can join it.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(value) = fs::read(root.join(file)) {
                        fs::write(own.join(file), value).map_err(files::at("write", &own.join(file)))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// One write for each: a single unknown controller would refuse them all. Already enabled, or not there, is fine.
fn enable_controllers(directory: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The directory and all below it, deepest first.
fn subtree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(subtree(&entry.path()));
        }
    }
    found.push(path.to_owned());
    found
}

/// Every process in the instance's cgroups.
pub(crate) fn processes(name: &str) -> BTreeSet<i32> {
    let groups = existing(name).into_iter().flat_map(|path| subtree(&path));
    let texts = groups.filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// Kills every process in the instance's cgroups, and what they fork meanwhile. True when none is left.
pub(crate) fn kill_all(name: &str, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let living = processes(name);
        if living.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // Pid 0 would be a process of an outer namespace, and `kill(0)` our own group.
        for pid in living.into_iter().filter(|pid| *pid > 0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the instance's cgroups; they must be empty of processes.
pub(crate) fn remove(name: &str) -> Result<(), FileError> {
    for path in existing(name).iter().flat_map(|path| subtree(path)) {
        let deadline = Instant::now() + Duration::from_secs(2);
        // The kernel says "busy" for a moment after the last process has gone.
        while let Err(error) = fs::remove_dir(&path) {
            match error.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(nix::errno::Errno::ENOENT) => break,
                Some(nix::errno::Errno::EBUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                _ => return Err(files::at("remove", &path)(error)),
            }
        }
    }
    Ok(())
}
