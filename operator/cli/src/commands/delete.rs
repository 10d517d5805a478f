//! `provisioning delete`: asks for the deletion of objects; the operator takes down what they stand for.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::exit::Exit;
use crate::goal::{Goal, Waiting};
use crate::kinds::{Kind, Target, targets};
use crate::manifest::{self, DocumentKind};
use crate::output::{print, program, tell};
use crate::request::{Deletion, RequestError, delete, explained};
use crate::times::parse_duration;

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME…, or KIND/NAME…; a workspace needs no name
    #[arg(value_name = "KIND NAME", required_unless_present = "files", conflicts_with = "files",
        add = ArgValueCompleter::new(complete::objects))]
    objects: Vec<String>,
    /// The objects of a file, a folder, or - for standard input; the last one first
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// How objects are deleted.
#[derive(Clone, Debug, Args)]
pub(crate) struct How {
    /// Wait until they are gone; what is undone meanwhile goes to standard error
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "30m", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Deletes objects.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let written =
        if arguments.files.is_empty() { named(&arguments.objects)? } else { in_files(&arguments.files, cluster)? };
    objects(written, &arguments.how, cluster).await
}

/// Deletes objects that are named.
pub(crate) async fn of_kind(targets: Vec<Target>, how: &How, cluster: &ClusterArguments) -> Result<Exit, Error> {
    objects(targets.into_iter().map(|target| (target, None)).collect(), how, cluster).await
}

async fn objects(written: Written, how: &How, cluster: &ClusterArguments) -> Result<Exit, Error> {
    if how.dry_run.is_client() {
        written.iter().for_each(|(target, _)| print(&format!("{target} deleted{}\n", how.dry_run.suffix())));
        return Ok(Exit::Done);
    }
    let cluster = Cluster::find(cluster).await?;
    let mut exit = Exit::Done;
    let mut started: Vec<(Target, String)> = Vec::new();
    for (target, namespace) in written {
        let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
        match delete(&cluster, &target, &namespace, how.dry_run.is_server()).await {
            Ok(_) if how.dry_run.is_server() => print(&format!("{target} deleted{}\n", how.dry_run.suffix())),
            Ok(Deletion::Done) => print(&format!("{target} deleted\n")),
            Ok(Deletion::Started) => {
                if !how.wait {
                    print(&format!("{target} is being deleted\n"));
                }
                started.push((target, namespace));
            }
            Err(RequestError::NotFound { .. }) if how.ignore_not_found => {}
            Err(error @ RequestError::NoAnswer(_)) => return Err(error.into()),
            Err(error) => {
                tell(&format!("error: {}", explained(&error, target.kind, &namespace)));
                exit = if exit == Exit::Done { error.exit() } else { exit };
            }
        }
    }
    if how.wait {
        gone(&cluster, started, how.timeout).await?;
    }
    Ok(exit)
}

/// Waits until all are gone, namespace by namespace.
async fn gone(cluster: &Cluster, mut started: Vec<(Target, String)>, timeout: Duration) -> Result<(), Error> {
    let waiting = Waiting { goal: Goal::Deleted, timeout: Some(timeout), keep_waiting: false };
    started.sort_by(|a, b| a.1.cmp(&b.1));
    for group in started.chunk_by(|a, b| a.1 == b.1) {
        let Some((_, namespace)) = group.first() else { continue };
        let targets: Vec<Target> = group.iter().map(|(target, _)| target.clone()).collect();
        let cluster = Cluster { namespace: namespace.clone(), ..cluster.clone() };
        super::wait::together(&cluster, &targets, &waiting, true).await?;
        for target in targets {
            print(&format!("{target} deleted\n"));
        }
    }
    Ok(())
}

/// Objects, and the namespace of each where it names one.
type Written = Vec<(Target, Option<String>)>;

fn named(words: &[String]) -> Result<Written, Error> {
    let first = words.first().map(|word| word.split('/').next().unwrap_or_default().to_ascii_lowercase());
    if first.is_some_and(|kind| ["namespace", "namespaces", "ns"].contains(&kind.as_str())) {
        return Err(Error::Usage(format!(
            "namespaces are not deleted here; take the workspace down first, in order, then delete the empty namespace:\n  \
             {} -n NAMESPACE delete workspace --wait\n  kubectl delete namespace NAMESPACE",
            program()
        )));
    }
    Ok(targets(words)?.into_iter().map(|target| (target, None)).collect())
}

fn in_files(files: &[PathBuf], cluster: &ClusterArguments) -> Result<Written, Error> {
    let mut found = Vec::new();
    for document in manifest::read(files, cluster.namespace.as_deref())?.into_iter().rev() {
        let namespace = (!document.namespace.is_empty()).then_some(document.namespace);
        match document.kind {
            DocumentKind::Ours(kind) => found.push((Target { kind, name: document.name }, namespace)),
            DocumentKind::Namespace => {
                let name = document.name;
                tell(&format!("note: namespace {name} stays; once it is empty: kubectl delete namespace {name}"));
            }
        }
    }
    // A Workspace takes down all that is left, in order: nothing that it waits for may be asked for after it.
    found.sort_by_key(|(target, _)| target.kind == Kind::Workspace);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_folder_is_deleted_from_its_end_without_its_namespace() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/first");
        let found = in_files(&[folder], &ClusterArguments::default()).unwrap();
        let names: Vec<String> = found.iter().map(|(target, namespace)| format!("{namespace:?} {target}")).collect();
        assert_eq!(
            names,
            [
                "Some(\"first\") batchworkflow/first",
                "Some(\"first\") providerconfig/local",
                "Some(\"first\") workspace/workspace"
            ]
        );
    }

    #[test]
    fn who_wants_to_delete_a_namespace_learns_how() {
        let error = named(&["ns".to_owned(), "first".to_owned()]).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("delete workspace --wait"), "{error}");
    }
}
