//! `provisioning extension`: what can be installed on servers, and how to write more of it.

mod list;
mod load;
mod new;
mod show;

use std::io;

use clap::{Args, Subcommand};
use provisioning_extensions::{BundleError, CatalogError, ManifestError};

use crate::cluster::{Cluster, ClusterArguments, ClusterError};
use crate::error::Error;
use crate::exit::{self, Exit};
use crate::names;
use crate::offers::{Offer, Shelf, gather};
use crate::output::{Style, program, tell};
use crate::request::RequestError;

/// The group's arguments.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:\n  provisioning extension list\n  provisioning extension show redis\n  \
    provisioning extension new answer && provisioning extension load answer\n\n{}", exit::HELP))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List extensions: those of this program, and those in the cluster
    #[command(after_help = "Examples:\n  provisioning extension list\n  provisioning ext list --local -o wide\n  \
        provisioning ext list -o json | jq '.items[].name'")]
    List(list::Arguments),
    /// Show an extension: its manifest, scripts and parameters
    #[command(
        after_help = "Examples:\n  provisioning extension show redis\n  provisioning ext show redis --version 0.1.0\n  \
        provisioning ext show redis --local -o yaml"
    )]
    Show(show::Arguments),
    /// Check the folder of an extension, and put it into the cluster
    #[command(after_help = "Examples:\n  provisioning extension load taskservs/answer --dry-run=client\n  \
        provisioning extension load taskservs/answer\n\nA version is loaded once: a changed bundle needs a new version.")]
    Load(load::Arguments),
    /// Write the folder of a new extension that works, to be changed
    #[command(after_help = "Examples:\n  provisioning extension new answer\n  \
        provisioning extension new answer --dir taskservs/answer")]
    New(new::Arguments),
}

/// Which places are looked at.
#[derive(Clone, Debug, Args)]
struct Place {
    /// The operator's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = SYSTEM_NAMESPACE, value_parser = names::argument)]
    system_namespace: String,
    /// Only what this program holds; asks no cluster
    #[arg(long, conflicts_with = "system_namespace")]
    local: bool,
}

/// Where the chart puts the operator, unless told otherwise.
const SYSTEM_NAMESPACE: &str = "provisioning-system";

impl Place {
    /// What is on offer there.
    async fn offers(&self, arguments: &ClusterArguments) -> Result<Vec<Offer>, Error> {
        if self.local {
            return Ok(gather(None, None).await?);
        }
        let found = Cluster::find(arguments).await.map_err(without_cluster)?;
        let shelf = Shelf { cluster: &found, namespace: &self.system_namespace };
        Ok(gather(Some(&shelf), None).await.map_err(|error| match error {
            RequestError::NoAnswer(error) => RequestError::NoAnswer(without_cluster(error)),
            other => other,
        })?)
    }
}

fn without_cluster(error: ClusterError) -> ClusterError {
    tell(&format!("note: what {} itself holds is shown with --local", program()));
    error
}

/// Something about an extension did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtensionError {
    /// There is no such extension or version, or two of them.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A version that is neither a version nor a requirement.
    #[error("--version: '{text}' is neither a version such as 0.1.0 nor a requirement such as ^0.1: {problem}")]
    Version { text: String, problem: semver::Error },
    /// A folder is no bundle.
    #[error("{folder} is no extension")]
    Bundle {
        folder: String,
        #[source]
        source: Box<BundleError>,
    },
    /// A file where a folder is meant.
    #[error("{file} is a file; give the folder of the extension, the one with manifest.yaml")]
    NotAFolder { file: String },
    /// The version is there with another content.
    #[error(transparent)]
    Changed(Box<Changed>),
    /// The name is none.
    #[error("'{name}' can't be the name of an extension")]
    Name {
        name: String,
        #[source]
        source: ManifestError,
    },
    /// The folder to be written holds something.
    #[error("{0} is there and is not empty; name another folder with --dir")]
    NotEmpty(String),
    /// A file can't be read or written.
    #[error("failed to {verb} {path}")]
    File {
        verb: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

/// A version that is in the cluster with another content.
#[derive(Debug, thiserror::Error)]
#[error(
    "extension {extension} is in namespace {namespace} already, with another content: {present} ({map}), not {digest}; a \
     changed bundle needs a new version: raise `version` in {folder}/manifest.yaml"
)]
pub(crate) struct Changed {
    /// Name and version.
    extension: String,
    namespace: String,
    /// Digest of what is there, and its ConfigMap.
    present: String,
    map: String,
    /// Digest of what is in the folder.
    digest: String,
    folder: String,
}

impl ExtensionError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Catalog(CatalogError::Ambiguous { .. }) | Self::File { .. } => Exit::Failed,
            Self::Catalog(CatalogError::UnknownName { .. } | CatalogError::NoMatchingVersion { .. }) => Exit::No,
            Self::Version { .. }
            | Self::Bundle { .. }
            | Self::NotAFolder { .. }
            | Self::Name { .. }
            | Self::NotEmpty(_) => Exit::Usage,
            Self::Changed(_) => Exit::Refused,
        }
    }
}

/// Runs one command of the group.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    match arguments.command {
        Command::List(arguments) => list::run(arguments, cluster, style).await,
        Command::Show(arguments) => show::run(arguments, cluster, style).await,
        Command::Load(arguments) => load::run(arguments, cluster).await,
        Command::New(arguments) => new::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn every_command_has_examples() {
        let group = Arguments::augment_args(Command::new("extension"));
        for command in group.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
}
