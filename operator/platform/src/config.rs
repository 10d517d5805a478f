//! The configuration files of the services: pure texts, rendered anew at each start.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::binaries::Binaries;
use crate::cgroup::CgroupVersion;
use crate::files::{self, FileError};
use crate::instance::Instance;
use crate::network::BRIDGE;
use crate::pki::Pki;
use crate::services::ports;
use crate::state::State;

/// The image of the process that holds a pod's namespaces, imported at each start.
pub(crate) const PAUSE_IMAGE: &str = "localhost/provisioning-pause:1";

/// Programs that get a kubeconfig with their own identity.
const CLIENTS: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// What the texts depend on.
pub(crate) struct Render<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) state: &'a State,
    pub(crate) binaries: &'a Binaries,
    pub(crate) cgroups: CgroupVersion,
    /// Whether kube-proxy must masquerade all traffic to services (see [`crate::network::configure_namespace`]).
    pub(crate) masquerade_all: bool,
}

/// Where a rendered file lies.
pub(crate) fn file(instance: &Instance, name: &str) -> PathBuf {
    instance.config().join(name)
}

impl Render<'_> {
    /// Writes all files.
    pub(crate) fn write(&self) -> Result<(), FileError> {
        let Self { instance, .. } = self;
        let cni = file(instance, "cni");
        files::create_directory(&cni)?;
        for client in CLIENTS {
            files::write(
                &file(instance, &format!("{client}.kubeconfig")),
                self.client_kubeconfig(client).as_bytes(),
                0o600,
            )?;
        }
        files::write(&instance.kubeconfig(), self.admin_kubeconfig()?.as_bytes(), 0o600)?;
        files::write(&file(instance, "containerd.toml"), self.containerd().as_bytes(), 0o644)?;
        files::write(&cni.join("10-pods.conflist"), self.cni().as_bytes(), 0o644)?;
        files::write(&file(instance, "kubelet.yaml"), self.kubelet().as_bytes(), 0o644)?;
        files::write(&file(instance, "kube-proxy.yaml"), self.kube_proxy().as_bytes(), 0o644)?;
        files::write(&file(instance, "audit.yaml"), AUDIT_POLICY.as_bytes(), 0o644)?;
        files::write(&file(instance, "resolv.conf"), resolv_conf().as_bytes(), 0o644)
    }

    fn client_kubeconfig(&self, name: &str) -> String {
        let pki = Pki::of(self.instance);
        let user = format!(
            "client-certificate: {}\n    client-key: {}",
            pki.certificate(name).display(),
            pki.key(name).display()
        );
        kubeconfig(
            "provisioning",
            &self.state.server,
            &format!("certificate-authority: {}", pki.authority().display()),
            &user,
        )
    }

    /// The administrator's: with all data inside, so that it can be copied.
    fn admin_kubeconfig(&self) -> Result<String, FileError> {
        let pki = Pki::of(self.instance);
        let data =
            |path: PathBuf| std::fs::read(&path).map(|bytes| STANDARD.encode(bytes)).map_err(files::at("read", &path));
        let user = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            data(pki.certificate("admin"))?,
            data(pki.key("admin"))?
        );
        let authority = format!("certificate-authority-data: {}", data(pki.authority())?);
        Ok(kubeconfig(&self.instance.node_name(), &self.state.server, &authority, &user))
    }

    fn containerd(&self) -> String {
        let Self { instance, binaries, .. } = self;
        let directory = instance.directory().display();
        format!(
            r#"version = 3
root = "{root}"
state = "{state}"
disabled_plugins = [
  # Its socket has a fixed path, which two instances would fight for.
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # root may lack CAP_SYS_RESOURCE, and then lowering the score fails every container.
  restrict_oom_score_adj = true
  # So that every mount and network namespace lies below the instance's directory, where stop finds it.
  netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{config}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  Root = "{directory}/state/runc"
  SystemdCgroup = false
"#,
            root = instance.containerd_root().display(),
            state = instance.containerd_state().display(),
            socket = instance.containerd_socket().display(),
            cni = binaries.cni().display(),
            config = file(instance, "cni").display(),
        )
    }

    /// No `ipMasq`: the machine masquerades the whole block (network.rs), which saves two iptables runs for each pod.
    fn cni(&self) -> String {
        let Self { instance, state, .. } = self;
        // Keys in their alphabet's order: what order JSON is printed in depends on a feature that other crates may switch.
        let bridge = serde_json::json!({
            "bridge": BRIDGE, "hairpinMode": true, "ipMasq": false,
            "ipam": {
                "dataDir": instance.containerd_state().join("ipam"),
                "ranges": [[{ "gateway": state.network.node_address(), "subnet": state.network.pods() }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "type": "host-local",
            },
            "isGateway": true, "type": "bridge",
        });
        let ports = serde_json::json!({ "capabilities": { "portMappings": true }, "type": "portmap" });
        let list = serde_json::json!({ "cniVersion": "1.0.0", "name": instance.prefix(), "plugins": [bridge, ports] });
        format!("{list:#}\n")
    }

    fn kubelet(&self) -> String {
        let Self { instance, state, cgroups, .. } = self;
        let pki = Pki::of(instance);
        // Kubernetes refuses v1 machines unless told otherwise; on v2 the field has no meaning and stays away.
        let fail = match cgroups {
            CgroupVersion::V1 => "failCgroupV1: false\n",
            CgroupVersion::V2 => "",
        };
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{fail}cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
address: {address}
port: {port}
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
healthzPort: {healthz}
containerRuntimeEndpoint: unix://{socket}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {authority}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
clusterDomain: cluster.local
resolvConf: {resolv}
podLogsDir: {directory}/pod-logs
volumePluginDir: {directory}/kubelet/volume-plugins
failSwapOn: false
localStorageCapacityIsolation: false
maxPods: 500
podPidsLimit: 16384
serializeImagePulls: false
registryPullQPS: 0
# Nothing can be pulled again, so no image may be collected: 100 turns collection off.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{nodefs.available: "1%", nodefs.inodesFree: "1%", imagefs.available: "1%", memory.available: "100Mi"}}
"#,
            cgroup = state.cgroup,
            address = state.network.node_address(),
            port = ports::KUBELET,
            healthz = ports::KUBELET_HEALTHZ,
            socket = instance.containerd_socket().display(),
            authority = pki.authority().display(),
            certificate = pki.certificate("kubelet").display(),
            key = pki.key("kubelet").display(),
            resolv = file(instance, "resolv.conf").display(),
            directory = instance.directory().display(),
        )
    }

    fn kube_proxy(&self) -> String {
        let Self { instance, state, masquerade_all, .. } = self;
        format!(
            r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: {node}
clusterCIDR: {pods}
healthzBindAddress: 127.0.0.1:{healthz}
metricsBindAddress: 127.0.0.1:{metrics}
clientConnection: {{kubeconfig: {kubeconfig}}}
iptables: {{masqueradeAll: {masquerade_all}}}
# These sysctls belong to the machine and can't be set from a network namespace.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"#,
            node = instance.node_name(),
            pods = state.network.pods(),
            healthz = ports::KUBE_PROXY_HEALTHZ,
            metrics = ports::KUBE_PROXY_METRICS,
            kubeconfig = file(instance, "kube-proxy.kubeconfig").display(),
        )
    }
}

/// Every request once, when it was answered; tests count them.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

fn kubeconfig(name: &str, server: &str, authority: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {server}
    {authority}
users:
- name: {name}
  user:
    {user}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}}}
"
    )
}

/// The name servers that pods with `dnsPolicy: Default` get: the machine's, or what its local resolver itself asks.
fn resolv_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let own = read("/etc/resolv.conf");
    if only_loopback_servers(&own) { read("/run/systemd/resolve/resolv.conf") } else { own }
}

/// Whether no name server is reachable from another network namespace.
fn only_loopback_servers(resolv_conf: &str) -> bool {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.map(str::trim).all(|server| server.starts_with("127.") || server == "::1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_resolver_is_of_no_use_to_pods() {
        assert!(only_loopback_servers("# systemd-resolved\nnameserver 127.0.0.53\n"));
        assert!(only_loopback_servers(""));
        assert!(!only_loopback_servers("nameserver 127.0.0.53\nnameserver 192.0.2.7\n"));
    }
}
