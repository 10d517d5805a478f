//! The harness of the end-to-end tests: a real Kubernetes, the chart, real Debian servers.
//!
//! A test is one call of [`case`]. It gets a [`Case`]: a namespace of its own with a Workspace and a ProviderConfig,
//! functions that wait for conditions, and a teardown that asserts that nothing is left. Tests talk to the operator
//! through the API alone.
//!
//! ```no_run
//! use provisioning_e2e::{Case, case};
//! use provisioning_api::Server;
//!
//! #[test]
//! #[ignore = "needs a cluster: scripts/e2e"]
//! fn a_server_becomes_ready() {
//!     case("a_server_becomes_ready", |case: Case| async move {
//!         case.workspace().await?;
//!         case.apply(&case.server("blue-heron")).await?;
//!         case.ready::<Server>("blue-heron").await?;
//!         Ok(())
//!     });
//! }
//! ```
//!
//! `scripts/e2e [FILTER]` sets what [`Cluster`] reads from the environment.
#![deny(missing_docs)]

mod audit;
mod case;
mod cluster;
mod failure;
pub mod faults;
mod objects;
mod redis;
mod servers;
mod shop;
mod table;
mod wait;

pub use audit::{AuditEvent, made, tally};
pub use case::{Case, case, record};
pub use cluster::{Cluster, Output};
pub use objects::{Kind, Object, STATUS_BY_HAND, condition, describe, is_ready, is_true, step};
pub use redis::Redis;
pub use servers::ServerRun;
pub use table::Row;
pub use wait::DEADLINE;

/// Folder of this repository: `E2E_REPOSITORY`. Not the one that was built, for checkouts may share a target folder.
pub fn repository() -> std::path::PathBuf {
    std::env::var_os("E2E_REPOSITORY").unwrap_or_else(|| "..".into()).into()
}
