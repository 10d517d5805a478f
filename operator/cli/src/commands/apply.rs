//! `provisioning apply`: everything is checked first, then one request for each object.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::applying::{How, Outcome, apply};
use crate::cluster::{Cluster, ClusterArguments};
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::exit::Exit;
use crate::goal::{Goal, Waiting};
use crate::manifest::{self, Document, DocumentKind};
use crate::output::{print, tell};
use crate::request::RequestError;
use crate::times::parse_duration;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A file, a folder (its .yaml, .yml and .json files by name), or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
    /// Take over fields that somebody else manages
    #[arg(long)]
    force_conflicts: bool,
    /// Wait until all applied objects are Ready; what happens meanwhile goes to standard error
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "30m", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
}

/// Applies manifests.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    // First what needs no cluster: a wrong file is told also where there is none.
    let checked = manifest::read(&arguments.files, cluster.namespace.as_deref())?;
    if arguments.dry_run.is_client() {
        checked.iter().for_each(|document| print(&format!("{document} is valid{}\n", arguments.dry_run.suffix())));
        return Ok(Exit::Done);
    }
    let cluster = Cluster::find(cluster).await?;
    let documents: Vec<Document> = checked.into_iter().map(|document| document.within(&cluster.namespace)).collect();
    let how = How { dry_run: arguments.dry_run.is_server(), force: arguments.force_conflicts };
    let (exit, applied) = all(&cluster, &documents, how).await?;
    if arguments.wait && exit == Exit::Done {
        wait(&cluster, &applied, arguments.timeout).await?;
    }
    Ok(exit)
}

/// Applies documents one by one; one that is refused stops no other.
pub(super) async fn all<'a>(
    cluster: &Cluster,
    documents: &'a [Document],
    how: How,
) -> Result<(Exit, Vec<&'a Document>), Error> {
    let mut exit = Exit::Done;
    let mut applied = Vec::new();
    // Namespaces that are only tried: what is in them can't be, by an API server that does not have them.
    let mut tried: Vec<&str> = Vec::new();
    for document in documents {
        if document.kind != DocumentKind::Namespace && tried.contains(&document.namespace.as_str()) {
            tell(&format!("note: {document} is not tried: its namespace {} is not there yet", document.namespace));
            continue;
        }
        match apply(cluster, document, how).await {
            Ok(written) => {
                let dry = if how.dry_run { " (server dry run)" } else { "" };
                print(&format!("{document} {}{dry}\n", written.outcome.word()));
                if how.dry_run && document.kind == DocumentKind::Namespace && written.outcome == Outcome::Created {
                    tried.push(&document.name);
                }
                applied.push(document);
            }
            // Without a cluster the rest can't work either.
            Err(error @ RequestError::NoAnswer(_)) => return Err(error.into()),
            Err(error) => {
                tell(&format!("error: {error}"));
                exit = if exit == Exit::Done { error.exit() } else { exit };
            }
        }
    }
    Ok((exit, applied))
}

/// Waits until all are Ready.
pub(super) async fn wait(cluster: &Cluster, documents: &[&Document], timeout: Duration) -> Result<(), Error> {
    let end = Instant::now() + timeout;
    for document in documents {
        let DocumentKind::Ours(kind) = document.kind else { continue };
        let timeout = Some(end.saturating_duration_since(Instant::now()));
        let waiting = Waiting { goal: Goal::Ready, timeout, keep_waiting: false };
        let mut told = super::wait::teller();
        crate::goal::wait(
            cluster,
            kind,
            &document.namespace,
            std::slice::from_ref(&document.name),
            &waiting,
            &mut told,
        )
        .await?;
        print(&format!("{document} ready\n"));
    }
    Ok(())
}
