//! How much memory the operator takes, and how large its image is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use provisioning_e2e::Cluster;

use crate::figures::Figure;

/// The operator's Pods.
const OPERATOR: &str = "app.kubernetes.io/name=provisioning,app.kubernetes.io/component=operator";
/// The operator's program, as the kernel cuts its name.
const PROGRAM: &str = "provisioning-op";
/// Most memory, MiB.
const MEMORY: f64 = 64.0;
/// Largest image, MB.
const IMAGE: f64 = 40.0;

/// What the kernel says of a process, KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    now: u32,
    most: u32,
}

/// The memory of the operator's process now (`VmRSS`), and the most that it ever had (`VmHWM`).
///
/// # Errors
/// Where there is no such process on this machine.
pub(crate) async fn memory(cluster: &Cluster) -> Result<Memory> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.system);
    let pods = pods.list(&ListParams::default().labels(OPERATOR)).await?;
    let uid = pods.iter().find_map(ResourceExt::uid).context("there is no Pod of the operator")?;
    // The kubelet writes it so or, in the names of units, so.
    let names = [uid.clone(), uid.replace('-', "_")];
    for process in fs::read_dir("/proc")? {
        let folder = process?.path();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        if read("comm").trim() == PROGRAM && names.iter().any(|name| read("cgroup").contains(name.as_str())) {
            let status = read("status");
            return parse(&status).with_context(|| format!("{}: {status}", folder.display()));
        }
    }
    anyhow::bail!("no process {PROGRAM} of Pod {uid} is on this machine")
}

fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some(Memory { now: field("VmRSS:")?, most: field("VmHWM:")? })
}

/// The figure: what it takes at rest, with what it took before.
pub(crate) fn figure(busy: &Memory, rest: &Memory, objects: usize) -> Figure {
    let mebibytes = |kibibytes: u32| f64::from(kibibytes) / 1024.0;
    let words = format!(
        "VmRSS of its process at rest; {:.1} MiB when all had just become Ready; VmHWM {:.1} MiB",
        mebibytes(busy.now),
        mebibytes(rest.most)
    );
    Figure::at_most(format!("memory of the operator with {objects} objects"), mebibytes(rest.now), MEMORY, "MiB")
        .with(words)
}

/// The size of the operator's image: its archive, which is not compressed.
///
/// # Errors
/// Where the file is not there.
pub(crate) fn image(archive: &Path) -> Result<Figure> {
    let bytes = fs::metadata(archive).with_context(|| format!("{}", archive.display()))?.len();
    // Whole kilobytes fit into what a float holds exactly.
    let size = f64::from(u32::try_from(bytes / 1_000)?) / 1_000.0;
    Ok(Figure::at_most("image of the operator", size, IMAGE, "MB").with("its archive, not compressed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tprovisioning-op\nVmPeak:\t  999 kB\nVmHWM:\t   70000 kB\nVmRSS:\t   41984 kB\n";
        assert_eq!(parse(status), Some(Memory { now: 41_984, most: 70_000 }));
        assert_eq!(parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn the_figure_is_what_it_takes_at_rest() {
        let (busy, rest) = (Memory { now: 60 * 1024, most: 61 * 1024 }, Memory { now: 40 * 1024, most: 65 * 1024 });
        assert!(figure(&busy, &rest, 1_000).holds());
        assert!(!figure(&rest, &Memory { now: 65 * 1024, ..rest }, 1_000).holds());
    }
}
