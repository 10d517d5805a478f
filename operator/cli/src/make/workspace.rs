//! A workspace from flags: its namespace, its Workspace, and where its servers come from.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use provisioning_api::names::WORKSPACE_NAME;
use serde_json::{Value, json};

use super::{object, set};
use crate::complete;
use crate::error::Error;
use crate::kinds::Kind;
use crate::manifest::{Document, made};
use crate::names;

/// Flags of a workspace.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkspaceFlags {
    /// Its namespace
    #[arg(value_name = "NAME", value_parser = names::argument, add = ArgValueCompleter::new(complete::namespaces))]
    pub(crate) name: String,
    /// Name of the ProviderConfig, of type Local
    #[arg(long, value_name = "NAME", default_value = "local")]
    provider_config: String,
    /// Make no ProviderConfig
    #[arg(long, conflicts_with = "provider_config")]
    without_provider: bool,
    /// How many steps may be open at the same time in it. Default 8
    #[arg(long, value_name = "NUMBER")]
    parallelism: Option<i32>,
}

/// The objects of a workspace, in the order in which they are written.
pub(crate) fn documents(flags: &WorkspaceFlags) -> Result<Vec<Document>, Error> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": flags.name,
        // Nothing that runs in a workspace needs privileges.
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let within = |name: &str| json!({"name": name, "namespace": flags.name});
    let mut spec = json!({});
    set(&mut spec, "parallelism", flags.parallelism);
    let mut all: Vec<Value> = vec![namespace, object(Kind::Workspace, within(WORKSPACE_NAME), spec)];
    if !flags.without_provider {
        all.push(object(Kind::ProviderConfig, within(&flags.provider_config), json!({"type": "Local"})));
    }
    Ok(all.into_iter().map(made).collect::<Result<_, _>>()?)
}
