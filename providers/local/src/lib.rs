//! The Local provider: a small cloud inside Kubernetes. Each server is a Debian machine with systemd and sshd in a
//! privileged pod of a namespace called the *site*; its disk is a folder of the node.
//!
//! Each run answers one [`ProviderRequest`] and ends. What a call does and survives is told at the head of its module.
#![deny(missing_docs)]

pub mod catalog;
pub mod create;
pub mod delete;
pub mod errors;
pub mod keys;
pub mod list;
pub mod names;
pub mod observe;
pub mod pods;
pub mod site;
pub mod template;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use provisioning_sdk::executor::{self, Context};
use provisioning_sdk::request::{Envelope, ProviderRequest};
use provisioning_sdk::result::StepResult;

use crate::catalog::{Catalog, CatalogError};
use crate::errors::{Failure, to_result};
use crate::names::{Machine, check_label};
use crate::site::{Patience, Site, SiteError};

/// Runs one request, read from the environment, to its result.
pub async fn run() -> ExitCode {
    executor::run(handle).await
}

/// Answers one request.
async fn handle(context: Context, envelope: Envelope<ProviderRequest>) -> StepResult {
    let mut patience = Patience::new(envelope.timeout_seconds);
    let Envelope { owner, installation, payload, .. } = envelope;
    let Context { client, claim } = context;
    let workspace = owner.namespace.clone();
    let machine = |incarnation, creation| Machine::new(owner, installation.clone(), incarnation, creation);
    match payload {
        ProviderRequest::Describe { site } => match check_label(&site) {
            Ok(()) => finish(describe(&Site::new(client, &site, claim)).await),
            Err(error) => to_result(&error),
        },
        ProviderRequest::List { site } => match check_label(&site) {
            Ok(()) => finish(list::list(&Site::new(client, &site, claim), &installation, &workspace).await),
            Err(error) => to_result(&error),
        },
        ProviderRequest::Create { hostname, incarnation, creation } => {
            match check_label(&hostname).and_then(|()| machine(incarnation, creation)) {
                Ok(machine) => {
                    let mut site = Site::new(client, &machine.creation().site, claim);
                    finish(create::create(&mut site, &machine, &hostname, &mut patience).await)
                }
                Err(error) => to_result(&error),
            }
        }
        ProviderRequest::Observe { incarnation, creation } => match machine(incarnation, creation) {
            Ok(machine) => {
                let site = Site::new(client, &machine.creation().site, claim);
                finish(observe::observe(&site, &machine, &mut patience).await)
            }
            Err(error) => to_result(&error),
        },
        ProviderRequest::Delete { incarnation, creation } => match machine(incarnation, creation) {
            Ok(machine) => {
                let mut site = Site::new(client, &machine.creation().site, claim);
                finish(delete::delete(&mut site, &machine, &mut patience).await)
            }
            Err(error) => to_result(&error),
        },
    }
}

fn finish<E: Failure + 'static>(answer: Result<StepResult, E>) -> StepResult {
    answer.unwrap_or_else(|error| to_result(&error))
}

/// Why the site could not be described.
#[derive(Debug, thiserror::Error)]
enum DescribeError {
    /// A call failed.
    #[error(transparent)]
    CallSite(#[from] SiteError),
    /// The catalog is broken or too large.
    #[error(transparent)]
    ReadCatalog(#[from] CatalogError),
}

impl Failure for DescribeError {
    fn class(&self) -> provisioning_api::steps::FailureClass {
        match self {
            DescribeError::CallSite(error) => error.class(),
            DescribeError::ReadCatalog(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            DescribeError::CallSite(error) => error.reason(),
            DescribeError::ReadCatalog(error) => error.reason(),
        }
    }

    fn retry_after_seconds(&self) -> Option<i64> {
        match self {
            DescribeError::CallSite(error) => error.retry_after_seconds(),
            DescribeError::ReadCatalog(_) => None,
        }
    }
}

/// Zones, sizes and images of the site, each JSON.
async fn describe(site: &Site) -> Result<StepResult, DescribeError> {
    let catalog = Catalog::read(&site.read_catalog_map().await?)?;
    Ok(StepResult::succeeded(catalog.outputs()?))
}
