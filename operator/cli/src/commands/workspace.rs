//! `provisioning workspace`: make one, list them, and choose the one that commands are about.

use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use provisioning_api::names::WORKSPACE_NAME;
use serde_json::{Value, json};

use super::apply;
use crate::applying::How;
use crate::cluster::{Cluster, ClusterArguments, Found};
use crate::columns::{cells, headers};
use crate::complete;
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::exit::{self, Exit};
use crate::item::Item;
use crate::kinds::{Kind, Target};
use crate::kubeconfig::set_namespace;
use crate::make::{WorkspaceFlags, workspace_documents};
use crate::names;
use crate::output::{Format, Style, print, program, tell};
use crate::request::{RequestError, Scope, get, list};
use crate::table::{Cell, Table};
use crate::times::parse_duration;

/// The group's arguments.
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:\n  provisioning workspace init first --use\n  provisioning workspace list\n  \
    provisioning workspace use first\n\nA workspace is a namespace with an object of kind Workspace in it.\n\n{}", exit::HELP))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a workspace: its namespace, its Workspace, and a ProviderConfig; what is there already stays
    #[command(after_help = "Examples:\n  provisioning workspace init first --use --wait\n  \
        provisioning workspace init first --parallelism 4 --dry-run=client")]
    Init(Init),
    /// List all workspaces of the cluster; the one in use is marked
    #[command(after_help = "Examples:\n  provisioning workspace list\n  provisioning workspace list -o name")]
    List(List),
    /// Make a workspace the one that commands are about, kubectl's too: the namespace of the kubeconfig's context
    #[command(
        after_help = "Examples:\n  provisioning workspace use first\n  provisioning workspace use first --context marsh\n\n\
        The same as `kubectl config set-context --current --namespace=NAME`, once the workspace was found there."
    )]
    Use(Use),
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    flags: WorkspaceFlags,
    /// Make it the one that commands are about
    #[arg(long = "use", conflicts_with = "dry_run")]
    use_it: bool,
    /// Wait until all is Ready
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "10m", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct List {
    /// How to show them
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct Use {
    /// Its namespace
    #[arg(value_name = "NAME", value_parser = names::argument, add = ArgValueCompleter::new(complete::namespaces))]
    name: String,
}

/// Runs a command on workspaces.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    match arguments.command {
        Command::Init(arguments) => init(arguments, cluster).await,
        Command::List(arguments) => {
            let cluster = Cluster::find(cluster).await?;
            let items = list(&cluster, Kind::Workspace, &Scope::All, None).await?;
            if items.is_empty() && matches!(arguments.output, None | Some(Format::Wide)) {
                tell(&format!("no workspaces; make one: {} workspace init NAME", program()));
                return Ok(Exit::Done);
            }
            print(&shown(&items, &cluster.namespace, arguments.output, style, Timestamp::now())?);
            Ok(Exit::Done)
        }
        Command::Use(arguments) => use_it(&arguments.name, cluster).await,
    }
}

async fn init(arguments: Init, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let Init { flags, use_it: and_use, wait, timeout, dry_run } = arguments;
    if let Some(other) = cluster.namespace.as_deref().filter(|other| *other != flags.name) {
        return Err(Error::Usage(format!(
            "-n '{other}' is not '{}', the workspace's namespace; leave it out",
            flags.name
        )));
    }
    let documents = workspace_documents(&flags)?;
    if dry_run.is_client() {
        let texts = documents.iter().map(|document| serde_saphyr::to_string(&document.json));
        print(&texts.collect::<Result<Vec<String>, _>>()?.join("---\n"));
        return Ok(Exit::Done);
    }
    let found = Cluster::find(cluster).await?;
    let how = How { dry_run: dry_run.is_server(), force: false };
    let (exit, applied) = apply::all(&found, &documents, how).await?;
    if exit != Exit::Done {
        return Ok(exit);
    }
    if and_use {
        remember(&flags.name, cluster)?;
    }
    if wait {
        apply::wait(&found, &applied, timeout).await?;
    }
    Ok(Exit::Done)
}

/// Uses a workspace that is there.
async fn use_it(name: &str, arguments: &ClusterArguments) -> Result<Exit, Error> {
    let cluster = Cluster { namespace: name.to_owned(), ..Cluster::find(arguments).await? };
    let target = Target { kind: Kind::Workspace, name: WORKSPACE_NAME.to_owned() };
    match get(&cluster, &target).await {
        Ok(_) => remember(name, arguments),
        Err(error @ RequestError::NotFound { .. }) => {
            let program = program();
            tell(&format!(
                "error: there is no workspace '{name}'; see which there are: {program} workspace list; or make it: {program} workspace init {name}"
            ));
            Ok(error.exit())
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the namespace into the kubeconfig.
fn remember(name: &str, arguments: &ClusterArguments) -> Result<Exit, Error> {
    let found = Found::find(arguments)?;
    let context = found.context(arguments);
    let context =
        context.ok_or_else(|| Error::Usage(format!("{} has no current context; give --context", found.source)))?;
    let file = set_namespace(&found.files, &context, name)?;
    print(&format!("using workspace {name}: namespace of context '{context}' in {}\n", file.display()));
    Ok(Exit::Done)
}

fn shown(items: &[Item], current: &str, format: Option<Format>, style: Style, now: Timestamp) -> Result<String, Error> {
    let all = || -> Value {
        let items: Vec<&Value> = items.iter().map(|item| &item.json).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&all())?),
        Some(Format::Yaml) => serde_saphyr::to_string(&all())?,
        Some(Format::Name) => items.iter().map(|item| format!("{}\n", item.namespace())).collect(),
        None | Some(Format::Wide) => {
            let wide = format.is_some();
            let mut table = Table::new(["CURRENT", "NAME"].into_iter().chain(headers(Kind::Workspace, wide)));
            for item in items {
                let mark = if item.namespace() == current { "*" } else { "" };
                let row: Vec<Cell> = vec![mark.into(), item.namespace().into()];
                table.add(row.into_iter().chain(cells(item, wide, now)));
            }
            table.render("", style)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::tests::{conditions, item};

    #[test]
    fn the_workspace_in_use_is_marked() {
        let workspace = |namespace: &str| {
            item(
                Kind::Workspace,
                json!({"metadata": {"name": "workspace", "namespace": namespace, "creationTimestamp": "2026-05-04T10:00:00Z"},
                    "spec": {}, "status": {"observedGeneration": 0, "objects": {"servers": 2, "taskservs": 0,
                        "providerConfigs": 1, "batchWorkflows": 0},
                        "conditions": conditions(("True", "Succeeded", "x"))}}),
            )
        };
        let (items, now) = ([workspace("first"), workspace("marsh")], "2026-05-04T10:05:00Z".parse().unwrap());
        assert_eq!(
            shown(&items, "marsh", None, Style::PLAIN, now).unwrap(),
            "CURRENT   NAME    READY   SERVERS   REASON      AGE\n          \
             first   True    2         Succeeded   5m\n*         marsh   True    2         Succeeded   5m\n"
        );
        assert_eq!(shown(&items, "marsh", Some(Format::Name), Style::PLAIN, now).unwrap(), "first\nmarsh\n");
    }
}
