//! The table of services: what each is started as, what it needs first, how its health is asked for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::binaries::Binaries;
use crate::config::file;
use crate::instance::Instance;
use crate::pki::Pki;
use crate::state::{API_PORT, State};

/// Ports inside the instance's network namespace. Nobody else lives there, so they are the usual ones.
pub(crate) mod ports {
    pub(crate) const ETCD: u16 = 2379;
    pub(crate) const ETCD_PEER: u16 = 2380;
    pub(crate) const CONTROLLER_MANAGER: u16 = 10257;
    pub(crate) const SCHEDULER: u16 = 10259;
    pub(crate) const KUBELET: u16 = 10250;
    pub(crate) const KUBELET_HEALTHZ: u16 = 10248;
    pub(crate) const KUBE_PROXY_HEALTHZ: u16 = 10256;
    pub(crate) const KUBE_PROXY_METRICS: u16 = 10249;
}

/// The services of an instance, in the order of their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The store.
    Etcd,
    /// The container runtime.
    Containerd,
    /// The API server.
    KubeApiserver,
    /// The controllers.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The node's agent.
    Kubelet,
    /// The services' addresses.
    KubeProxy,
}

impl Service {
    /// All of them, in the order of their start.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::Containerd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
    ];

    /// Its name, and that of its program, log and pid file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// What has to be healthy before it is started for the first time.
    pub(crate) fn needs(self) -> &'static [Self] {
        match self {
            Self::Etcd | Self::Containerd => &[],
            Self::KubeApiserver => &[Self::Etcd],
            Self::KubeControllerManager | Self::KubeScheduler | Self::KubeProxy => &[Self::KubeApiserver],
            Self::Kubelet => &[Self::Containerd, Self::KubeApiserver],
        }
    }

    /// How long it may take to end after SIGTERM before it is killed.
    pub(crate) fn grace(self) -> Duration {
        match self {
            // It answers what is in flight, and ends the watches of clients that may be gone already.
            Self::KubeApiserver => Duration::from_secs(10),
            Self::Etcd => Duration::from_secs(10),
            Self::Containerd | Self::KubeControllerManager | Self::KubeScheduler | Self::Kubelet | Self::KubeProxy => {
                Duration::from_secs(5)
            }
        }
    }
}

/// Services in the order of stopping: those of one row together. Containers end between the first row and the second.
pub(crate) const STOP_ROWS: [&[Service]; 4] = [
    &[Service::Kubelet, Service::KubeProxy, Service::KubeScheduler, Service::KubeControllerManager],
    &[Service::Containerd],
    &[Service::KubeApiserver],
    &[Service::Etcd],
];

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a command line depends on.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) instance: Instance,
    pub(crate) state: State,
    pub(crate) binaries: Binaries,
}

/// How a service is started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// How a service's health is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// GET of this URL answers 200. https is checked against the instance's authority.
    Http(String),
    /// Something accepts connections at this socket.
    Socket(PathBuf),
}

impl Context {
    pub(crate) fn launch(&self, service: Service) -> Launch {
        let name = service.name();
        let program = match service {
            Service::Etcd | Service::Containerd => self.binaries.runtime(name),
            _ => self.binaries.kubernetes(name),
        };
        let arguments = match service {
            Service::Etcd => self.etcd(),
            Service::Containerd => vec![format!("--config={}", self.file("containerd.toml"))],
            Service::KubeApiserver => self.kube_apiserver(),
            Service::KubeControllerManager => self.kube_controller_manager(),
            Service::KubeScheduler => self.kube_scheduler(),
            Service::Kubelet => self.kubelet(),
            Service::KubeProxy => vec![format!("--config={}", self.file("kube-proxy.yaml"))],
        };
        Launch { program, arguments }
    }

    pub(crate) fn probe(&self, service: Service) -> Probe {
        use ports::{CONTROLLER_MANAGER, ETCD, KUBE_PROXY_HEALTHZ, KUBELET_HEALTHZ, SCHEDULER};
        match service {
            Service::Etcd => Probe::Http(format!("http://127.0.0.1:{ETCD}/readyz")),
            Service::Containerd => Probe::Socket(self.instance.containerd_socket()),
            Service::KubeApiserver => Probe::Http(format!("{}/readyz", self.state.server)),
            Service::KubeControllerManager => Probe::Http(format!("https://127.0.0.1:{CONTROLLER_MANAGER}/healthz")),
            Service::KubeScheduler => Probe::Http(format!("https://127.0.0.1:{SCHEDULER}/healthz")),
            Service::Kubelet => Probe::Http(format!("http://127.0.0.1:{KUBELET_HEALTHZ}/healthz")),
            Service::KubeProxy => Probe::Http(format!("http://127.0.0.1:{KUBE_PROXY_HEALTHZ}/healthz")),
        }
    }

    fn file(&self, name: &str) -> String {
        file(&self.instance, name).display().to_string()
    }

    fn etcd(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", ports::ETCD);
        let peer = format!("http://127.0.0.1:{}", ports::ETCD_PEER);
        vec![
            "--name=default".to_owned(),
            format!("--data-dir={}", self.instance.etcd().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=warn".to_owned(),
        ]
    }

    fn kube_apiserver(&self) -> Vec<String> {
        let Self { instance, state, .. } = self;
        let pki = Pki::of(instance);
        let address = state.network.node_address();
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", ports::ETCD),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={}", state.network.services()),
            format!("--tls-cert-file={}", pki.certificate("apiserver").display()),
            format!("--tls-private-key-file={}", pki.key("apiserver").display()),
            format!("--client-ca-file={}", pki.authority().display()),
            format!("--service-account-key-file={}", pki.service_account_public().display()),
            format!("--service-account-signing-key-file={}", pki.key("service-account").display()),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--kubelet-client-certificate={}", pki.certificate("apiserver-kubelet-client").display()),
            format!("--kubelet-client-key={}", pki.key("apiserver-kubelet-client").display()),
            format!("--kubelet-certificate-authority={}", pki.authority().display()),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--audit-policy-file={}", self.file("audit.yaml")),
            format!("--audit-log-path={}", instance.logs().join("audit.log").display()),
            "--audit-log-maxsize=200".to_owned(),
            "--audit-log-maxbackup=3".to_owned(),
        ]
    }

    /// Default flags but for addresses, identity and keys: limits of a user's cluster are limits here (architecture.md §5).
    fn kube_controller_manager(&self) -> Vec<String> {
        let pki = Pki::of(&self.instance);
        let mut arguments = self.control_plane("kube-controller-manager", ports::CONTROLLER_MANAGER);
        arguments.extend([
            format!("--root-ca-file={}", pki.authority().display()),
            format!("--service-account-private-key-file={}", pki.key("service-account").display()),
            format!("--cluster-signing-cert-file={}", pki.authority().display()),
            format!("--cluster-signing-key-file={}", pki.key("ca").display()),
            // Its own identity may only make service accounts and tokens; each controller's account may do that one's work.
            "--use-service-account-credentials=true".to_owned(),
        ]);
        arguments
    }

    fn kube_scheduler(&self) -> Vec<String> {
        self.control_plane("kube-scheduler", ports::SCHEDULER)
    }

    fn control_plane(&self, name: &str, port: u16) -> Vec<String> {
        let pki = Pki::of(&self.instance);
        let kubeconfig = self.file(&format!("{name}.kubeconfig"));
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", pki.certificate(name).display()),
            format!("--tls-private-key-file={}", pki.key(name).display()),
            // One copy of each: an election would only cost seconds at every start.
            "--leader-elect=false".to_owned(),
        ]
    }

    fn kubelet(&self) -> Vec<String> {
        let Self { instance, state, .. } = self;
        vec![
            format!("--config={}", self.file("kubelet.yaml")),
            format!("--kubeconfig={}", self.file("kubelet.kubeconfig")),
            format!("--root-dir={}", instance.kubelet_root().display()),
            format!("--cert-dir={}", instance.pki().display()),
            format!("--hostname-override={}", instance.node_name()),
            format!("--node-ip={}", state.network.node_address()),
        ]
    }
}
