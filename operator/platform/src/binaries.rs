//! Finding the programs that `tools/build` made, in the user's cache.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::command::{find_program, is_executable};

const KUBERNETES: [&[u8]; 2] =
    [include_bytes!("../../../tools/kubernetes/go.mod"), include_bytes!("../../../tools/kubernetes/go.sum")];
const RUNTIME: [&[u8]; 2] =
    [include_bytes!("../../../tools/runtime/go.mod"), include_bytes!("../../../tools/runtime/go.sum")];
const PAUSE: [&[u8]; 1] = [include_bytes!("../../../images/pause/pause.c")];

/// Programs of the system that an instance needs, and the Debian package of each.
const SYSTEM_PROGRAMS: [(&str, &str); 6] = [
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
];

/// Where distributions put the CNI plugins: Debian, Fedora, upstream.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

/// A program that the platform runs is not there.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// Neither XDG_CACHE_HOME nor HOME is set.
    #[error("failed to find the cache directory: set HOME or XDG_CACHE_HOME")]
    Cache,
    /// `tools/build` has not been run with the pins that this program was compiled with.
    #[error("failed to find {program} in {}: build it with `make kubernetes` (tools/build)", directory.display())]
    NotBuilt {
        /// The program.
        program: &'static str,
        /// Where it should be.
        directory: PathBuf,
    },
    /// A package of the system is missing.
    #[error("failed to find {program}: install it with `apt-get install {package}` (tools/install-packages)")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
}

/// Where the programs of an instance are.
#[derive(Clone, Debug)]
pub struct Binaries {
    kubernetes: PathBuf,
    runtime: PathBuf,
    pause: PathBuf,
    cni: PathBuf,
}

impl Binaries {
    /// Finds all programs, or names the first that is missing and the way to get it.
    pub fn find() -> Result<Self, BinariesError> {
        let cache = cache_directory()?.join("bin");
        let kubernetes = cache.join(keyed("kubernetes", KUBERNETES, Some("k8s.io/kubernetes")));
        let runtime = cache.join(keyed("runtime", RUNTIME, Some("github.com/containerd/containerd/v2")));
        let pause = cache.join(keyed("pause", PAUSE, None));
        let programs =
            ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];
        built(&kubernetes, &programs)?;
        built(&runtime, &["etcd", "containerd", "containerd-shim-runc-v2", "ctr", "crictl"])?;
        built(&pause, &["pause"])?;
        for (program, package) in SYSTEM_PROGRAMS {
            find_program(program).ok_or(BinariesError::NotInstalled { program, package })?;
        }
        let cni = CNI_FOLDERS.iter().map(PathBuf::from).find(|folder| is_executable(&folder.join("bridge")));
        let missing =
            BinariesError::NotInstalled { program: "the CNI plugins", package: "containernetworking-plugins" };
        Ok(Self { kubernetes, runtime, pause, cni: cni.ok_or(missing)? })
    }

    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        let below = |name: &str| folder.join(name);
        Self { kubernetes: below("kubernetes"), runtime: below("runtime"), pause: below("pause"), cni: below("cni") }
    }

    /// One of kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl.
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }

    /// One of etcd, containerd, containerd-shim-runc-v2, ctr, crictl.
    pub fn runtime(&self, program: &str) -> PathBuf {
        self.runtime.join(program)
    }

    /// The static program of the pause image.
    pub fn pause(&self) -> PathBuf {
        self.pause.join("pause")
    }

    /// The directory of the CNI plugins.
    pub(crate) fn cni(&self) -> &Path {
        &self.cni
    }

    /// PATH for the services: containerd looks for its shim and runc there, kube-proxy for iptables.
    pub(crate) fn search_path(&self) -> String {
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.runtime.display())
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/provisioning`.
fn cache_directory() -> Result<PathBuf, BinariesError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(cache.ok_or(BinariesError::Cache)?.join("provisioning"))
}

fn built(directory: &Path, programs: &[&'static str]) -> Result<(), BinariesError> {
    match programs.iter().find(|program| !is_executable(&directory.join(program))) {
        Some(program) => Err(BinariesError::NotBuilt { program, directory: directory.to_owned() }),
        None => Ok(()),
    }
}

/// The directory's name, as `tools/build` computes it: name, version of `module` if there is one, hash of the files.
fn keyed<const N: usize>(name: &str, files: [&[u8]; N], module: Option<&str>) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file);
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let version = module.and_then(|module| pinned(&String::from_utf8_lossy(files[0]), module));
    match version {
        Some(version) => format!("{name}-{version}-{hash}"),
        None => format!("{name}-{hash}"),
    }
}

/// The version of a module that a go.mod requires.
fn pinned(go_mod: &str, module: &str) -> Option<String> {
    let lines = go_mod.lines().map(|line| line.trim_start_matches("require ").trim());
    lines
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == module)
        .and_then(|(_, version)| version.split_ascii_whitespace().next().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_a_block_and_in_a_single_line() {
        let text = "module x\n\nrequire a.org/one v1.2.3\n\nrequire (\n\ta.org/one/two v2.0.0 // indirect\n)\n";
        assert_eq!(pinned(text, "a.org/one").as_deref(), Some("v1.2.3"));
        assert_eq!(pinned(text, "a.org/one/two").as_deref(), Some("v2.0.0"));
        assert_eq!(pinned(text, "a.org"), None);
    }

    #[test]
    fn the_keys_are_those_of_the_build_script() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/build");
        for (name, key) in [
            ("kubernetes", keyed("kubernetes", KUBERNETES, Some("k8s.io/kubernetes"))),
            ("runtime", keyed("runtime", RUNTIME, Some("github.com/containerd/containerd/v2"))),
            ("pause", keyed("pause", PAUSE, None)),
        ] {
            let printed = crate::command::run(script, &["--print", name]).unwrap();
            assert!(printed.trim().ends_with(&format!("/{key}")), "{printed} is not {key}");
        }
    }
}
