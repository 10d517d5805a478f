//! The embedded Kubernetes: a whole single-node cluster, run as child processes of a small supervisor.
//!
//! ```text
//! start ──> network namespace, bridge, keys, cgroup ──> supervisor ──> etcd, containerd, kube-apiserver, kube-controller-manager,
//!                                                                      kube-scheduler, kubelet, kube-proxy
//! ```
//!
//! Several instances live side by side. Everything of one lies below its directory (`~/.provisioning/services/NAME`) or carries
//! its prefix (`prov-…`): [`leftovers`] lists what is there, and [`stop`] fails if anything stays. Data is kept by [`stop`] and
//! deleted by [`purge`]. Programs come from the user's cache, where `tools/build` puts them.
//!
//! | module | what |
//! |---|---|
//! | `instance`, `state` | names and paths; the record of what was made |
//! | `network`, `cgroup`, `mounts`, `process` | the machine: made, found, removed |
//! | `pki`, `config`, `services`, `binaries` | what the services are given: pure but for writing files |
//! | `supervisor`, `health`, `status` | keeping them running, and saying so |
//! | `start`, `stop`, `leftovers`, `logs` | what commands call |
//! | `image`, `images` | writing image archives, importing them |

mod binaries;
mod cgroup;
mod command;
mod config;
mod files;
#[cfg(test)]
mod golden;
mod health;
pub mod image;
mod images;
mod instance;
mod leftovers;
mod lock;
mod logs;
mod mounts;
mod network;
mod pki;
mod process;
mod services;
mod start;
mod state;
mod status;
mod stop;
mod supervisor;

pub use binaries::{Binaries, BinariesError};
pub use command::CommandError;
pub use files::FileError;
pub use health::{HealthError, accepts_pods, client};
pub use images::{ImagesError, Loaded, load_image};
pub use instance::{Instance, InstanceError, InstanceName, NAME_LENGTH};
pub use leftovers::{Leftover, leftovers};
pub use lock::LockError;
pub use logs::{LogsError, log_file, log_names, show as show_log};
pub use network::{Network, NetworkError};
pub use pki::PkiError;
pub use process::ProcessIdentity;
pub use services::Service;
pub use start::{StartError, StartOptions, Started, start};
pub use state::{State, StateError};
pub use status::{Health, InstanceStatus, Phase, ServiceStatus, StatusError, status};
pub use stop::{StopError, Stopped, purge, stop};
pub use supervisor::{SupervisorError, supervise};
