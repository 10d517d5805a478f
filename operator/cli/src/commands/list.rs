//! `provisioning list`: one request for each kind.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterArguments};
use crate::columns::{cells, headers};
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Kind, kinds, known};
use crate::output::{Format, Style, print, tell};
use crate::request::{Scope, list, what_came};
use crate::table::{Cell, Table};

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "KIND", help = format!("Kinds, in one word with commas or in several: {}. Default: all", known()),
        add = ArgValueCompleter::new(complete::kinds))]
    kinds: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Which objects of a kind, and how they are shown.
#[derive(Clone, Debug, Args)]
pub(crate) struct How {
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels, such as tier=web
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// How to show them
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Lists objects.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    objects(&kinds(&arguments.kinds)?, &arguments.how, cluster, style).await
}

/// Lists objects of some kinds.
pub(crate) async fn objects(
    kinds: &[Kind],
    how: &How,
    cluster: &ClusterArguments,
    style: Style,
) -> Result<Exit, Error> {
    let cluster = Cluster::find(cluster).await?;
    let scope = if how.all_namespaces { Scope::All } else { Scope::Namespace(cluster.namespace.clone()) };
    let (lists, exit) = lists(&cluster, kinds, &scope, how.selector.as_deref()).await?;
    if exit != Exit::Done && lists.is_empty() {
        return Ok(exit);
    }
    if lists.iter().all(|(_, items)| items.is_empty()) && matches!(how.output, None | Some(Format::Wide)) {
        let what = if let [kind] = kinds { kind.plural() } else { "objects" };
        if exit == Exit::Done {
            tell(&format!("no {what} in {scope}"));
        }
        return Ok(exit);
    }
    print(&shown(&lists, &scope, how.output, style, Timestamp::now())?);
    Ok(exit)
}

/// The objects of each kind, and how the command ends; one request for each, all at the same time. A kind that can't be
/// listed (forbidden, or not known to the cluster) is told and hides no other.
async fn lists(
    cluster: &Cluster,
    kinds: &[Kind],
    scope: &Scope,
    selector: Option<&str>,
) -> Result<(Vec<(Kind, Vec<Item>)>, Exit), Error> {
    let requests =
        kinds.iter().map(|kind| async { list(cluster, *kind, scope, selector).await.map(|items| (*kind, items)) });
    let (mut came, exit) = what_came(join_all(requests).await)?;
    if !came.is_empty() {
        // Names carry their kind where several were asked for, whatever came.
        let missing: Vec<Kind> = kinds.iter().copied().filter(|kind| came.iter().all(|(it, _)| it != kind)).collect();
        came.extend(missing.into_iter().map(|kind| (kind, Vec::new())));
    }
    Ok((came, exit))
}

fn shown(
    lists: &[(Kind, Vec<Item>)],
    scope: &Scope,
    format: Option<Format>,
    style: Style,
    now: Timestamp,
) -> Result<String, Error> {
    let items = || lists.iter().flat_map(|(_, items)| items);
    let all = || -> Value {
        let items: Vec<&Value> = items().map(|item| &item.json).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&all())?),
        Some(Format::Yaml) => serde_saphyr::to_string(&all())?,
        Some(Format::Name) => items().map(|item| format!("{}\n", item.target())).collect(),
        None | Some(Format::Wide) => tables(lists, scope, format.is_some(), style, now),
    })
}

fn tables(lists: &[(Kind, Vec<Item>)], scope: &Scope, wide: bool, style: Style, now: Timestamp) -> String {
    let several = lists.len() > 1;
    let tables = lists.iter().filter(|(_, items)| !items.is_empty()).map(|(kind, items)| {
        let first = if *scope == Scope::All { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
        let mut table = Table::new(first.into_iter().chain(headers(*kind, wide)));
        for item in items {
            let name = if several { item.target().to_string() } else { item.name().to_owned() };
            let mut row: Vec<Cell> = Vec::new();
            if *scope == Scope::All {
                row.push(item.namespace().into());
            }
            row.push(name.into());
            row.extend(cells(item, wide, now));
            table.add(row);
        }
        table.render("", style)
    });
    tables.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::tests::server;
    use crate::stub::{Stub, reply};

    fn two() -> Vec<(Kind, Vec<Item>)> {
        let curlew = server("curlew", ("False", "Running", "create is running"), json!([]));
        let heron = server("heron", ("True", "Succeeded", "all steps succeeded"), json!([]));
        vec![(Kind::Server, vec![curlew, heron])]
    }

    fn text(scope: &Scope, format: Option<Format>) -> String {
        let now = "2026-05-04T10:05:00Z".parse().unwrap();
        shown(&two(), scope, format, Style::PLAIN, now).unwrap()
    }

    #[test]
    fn a_table_has_the_columns_of_kubectl() {
        assert_eq!(
            text(&Scope::Namespace("first".into()), None),
            "NAME     ADDRESS    READY   STEPS   REASON      AGE\n\
             curlew   10.7.0.9   False   1/2     Running     5m\n\
             heron    10.7.0.9   True    1/2     Succeeded   5m\n"
        );
        let wide = text(&Scope::All, Some(Format::Wide));
        assert!(
            wide.starts_with("NAMESPACE   NAME     ADDRESS    READY   STEPS   REASON      PROVIDER-ID   MESSAGE"),
            "{wide}"
        );
        assert_eq!(text(&Scope::All, Some(Format::Name)), "server/curlew\nserver/heron\n");
    }

    #[test]
    fn json_and_yaml_hold_all_of_the_objects() {
        let json: Value = serde_json::from_str(&text(&Scope::All, Some(Format::Json))).unwrap();
        let yaml: Value = serde_saphyr::from_str(&text(&Scope::All, Some(Format::Yaml))).unwrap();
        assert_eq!(json, yaml);
        assert_eq!(json["items"][1]["metadata"]["name"], "heron");
    }

    #[tokio::test]
    async fn a_kind_that_cannot_be_listed_hides_no_other() {
        let stub = Stub::new(|request| match request.uri().path().rsplit('/').next() {
            Some("servers") => reply(403, json!({"kind": "Status", "code": 403, "reason": "Forbidden"})),
            Some("clusters") => reply(404, json!({"kind": "Status", "code": 404})),
            _ => reply(200, json!({"metadata": {}, "items": [{"metadata": {"name": "x"}}]})),
        });
        let (found, exit) = lists(&stub.cluster(), &Kind::ALL, &Scope::All, None).await.unwrap();
        let kinds: Vec<Kind> = found.iter().filter(|(_, items)| !items.is_empty()).map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Workspace, Kind::ProviderConfig, Kind::BatchWorkflow, Kind::Taskserv]);
        assert_eq!(exit, Exit::Refused);
    }

    #[tokio::test]
    async fn each_kind_is_one_request_and_nothing_is_discovered() {
        let stub = Stub::new(|_| reply(200, json!({"metadata": {}, "items": []})));
        let scope = Scope::Namespace("first".into());
        let (_, exit) = lists(&stub.cluster(), &Kind::ALL, &scope, None).await.unwrap();
        assert_eq!(exit, Exit::Done);
        let expected = ["workspaces", "providerconfigs", "batchworkflows", "clusters", "servers", "taskservs"]
            .map(|plural| format!("GET /apis/provisioning.dev/v1alpha1/namespaces/first/{plural}?"));
        assert_eq!(stub.requests(), expected);
    }
}
