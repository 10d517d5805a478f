//! The custom resources of Provisioning, group `provisioning.dev`, version `v1alpha1`.
//!
//! Types only: what users write (`spec`), what the operator remembers (`status`), and the names that both sides
//! share (labels, annotations, condition reasons). No client, no clock, no I/O, so that every other crate can
//! use it.
#![deny(missing_docs)]
// kube's schema derive repeats the structs inside a function, where the lint misfires.
#![allow(unreachable_pub)]

pub mod batch_workflow;
pub mod cluster;
pub mod conditions;
pub mod names;
pub mod provider_config;
mod schemas;
pub mod server;
pub mod shared;
pub mod steps;
pub mod taskserv;
pub mod workspace;

pub use batch_workflow::{BatchWorkflow, BatchWorkflowSpec, BatchWorkflowStatus};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use provider_config::{ProviderConfig, ProviderConfigSpec, ProviderConfigStatus};
pub use server::{Server, ServerSpec, ServerStatus};
pub use taskserv::{Taskserv, TaskservSpec, TaskservStatus};
pub use workspace::{Workspace, WorkspaceSpec, WorkspaceStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every custom resource definition of this project, in the order in which users meet them.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Workspace::crd(),
        ProviderConfig::crd(),
        Server::crd(),
        Taskserv::crd(),
        Cluster::crd(),
        BatchWorkflow::crd(),
    ];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schemas::forbid_null(schema);
            schemas::begin_with_a_status(schema);
        }
    }
    crds
}
