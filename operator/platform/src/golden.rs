//! What services are started with, as one golden text: a change of a flag shows in review as a changed line.
//!
//! `GOLDEN=write cargo test -p provisioning-platform golden` writes it anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::binaries::Binaries;
use crate::cgroup::CgroupVersion;
use crate::config::{Render, file};
use crate::instance::Instance;
use crate::network::Network;
use crate::services::{Context, Service};
use crate::state::State;

fn context(services: &Path) -> Context {
    let instance = Instance::below(services, "heron".parse().unwrap()).unwrap();
    let network = Network { octet: 123, name: "prov-heron1a2b".to_owned() };
    let state = State {
        schema: 1,
        created: Timestamp::UNIX_EPOCH,
        server: "https://10.123.0.1:6443".to_owned(),
        cgroup: network.name.clone(),
        network,
    };
    Context { instance, state, binaries: Binaries::at(Path::new("/bin-of-the-cache")) }
}

fn render(cgroups: CgroupVersion) -> String {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path());
    let Context { instance, state, binaries } = &context;
    crate::pki::ensure(instance, &state.network, Timestamp::now()).unwrap();
    Render { instance, state, binaries, cgroups, masquerade_all: false }.write().unwrap();
    let mut text = String::new();
    for service in Service::ALL {
        let launch = context.launch(service);
        writeln!(text, "## {service}: {:?}\n{}", context.probe(service), launch.program.display()).unwrap();
        for argument in launch.arguments {
            writeln!(text, "  {argument}").unwrap();
        }
    }
    for name in [
        "containerd.toml",
        "cni/10-pods.conflist",
        "kubelet.yaml",
        "kube-proxy.yaml",
        "kubelet.kubeconfig",
        "audit.yaml",
    ] {
        writeln!(text, "## {name}\n{}", std::fs::read_to_string(file(instance, name)).unwrap()).unwrap();
    }
    // The home differs between runs, and so does the prefix that is made from it.
    let home = folder.path().display().to_string();
    text.replace(&home, "/home-of-instances").replace(instance.prefix(), "prov-heron0000")
}

#[test]
fn the_services_are_started_as_the_golden_text_says() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/golden.txt");
    let text = render(CgroupVersion::V1);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    for (number, (line, wanted)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            line,
            wanted,
            "line {} of golden.txt; if it is meant so, write it anew with GOLDEN=write",
            number + 1
        );
    }
    assert_eq!(text, expected);
}

#[test]
fn only_a_machine_with_cgroup_v1_tells_the_kubelet_to_bear_it() {
    assert!(render(CgroupVersion::V1).contains("failCgroupV1: false"));
    assert!(!render(CgroupVersion::V2).contains("failCgroupV1"));
}

#[test]
fn only_the_api_server_and_the_kubelet_listen_beyond_loopback() {
    let text = render(CgroupVersion::V1);
    let listens = ["--bind-address", "--listen", "address:", "BindAddress"];
    for line in text.lines().filter(|line| listens.iter().any(|word| line.contains(word))) {
        assert!(line.contains("127.0.0.1") || line.contains("10.123.0.1"), "{line}");
    }
}
