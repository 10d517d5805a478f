//! A Cluster on real servers: haproxy on one that is there, before nginx on those that it makes. Its size is changed, and
//! it goes in reverse. The same as a step of a workflow, and as people see it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{Resource, ResourceExt};
use provisioning_api::cluster::MemberState;
use provisioning_api::conditions::{reasons, types};
use provisioning_api::{BatchWorkflow, Cluster, Server, Taskserv};
use provisioning_e2e::{Case, DEADLINE, case, condition, is_ready};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long servers and packages may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(420);

/// haproxy on `bittern`, before nginx on so many servers of its own.
fn marsh(case: &Case, count: usize) -> Value {
    let template = case.server("x")["spec"].clone();
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "marsh"}, "spec": {
        "serverGroups": [
            {"name": "front", "servers": ["bittern"]},
            {"name": "web", "count": count, "template": template},
        ],
        "taskservs": [
            {"name": "nginx", "group": "web", "extension": {"name": "nginx"}, "parameters": {"port": 8081}},
            {"name": "proxy", "group": "front", "extension": {"name": "haproxy"}, "peers": ["web"],
                "parameters": {"port": 8080, "backendGroup": "web", "backendPort": 8081},
                "dependsOn": [{"taskserv": "nginx"}]},
        ],
        "endpoints": [{"name": "http", "group": "front", "port": 8080, "scheme": "http"}],
        "outputs": [{"name": "backends", "taskserv": "proxy", "output": "backends"}],
    }})
}

/// The answer to a GET, head and body; nothing that caches or keeps connections in between.
async fn get(host: &str, path: &str) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    tokio::time::timeout(Duration::from_secs(10), asked)
        .await
        .with_context(|| format!("{host}{path}"))?
        .with_context(|| format!("{host}{path}"))
}

/// The hosts that answer behind the cluster's endpoint, each by its own name.
async fn hosts(case: &Case) -> Result<BTreeSet<String>> {
    let status = case.get::<Cluster>("marsh").await?.status.context("no status")?;
    let address = status.endpoints.first().and_then(|endpoint| endpoint.addresses.first()).context("no endpoint")?;
    let host = address.strip_prefix("http://").context("no http")?;
    let mut found = BTreeSet::new();
    for _ in 0..8 {
        let answer = get(host, "/whoami").await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        found.insert(answer.lines().last().unwrap_or_default().trim().to_owned());
    }
    Ok(found)
}

fn names(wanted: &[&str]) -> BTreeSet<String> {
    wanted.iter().map(|name| (*name).to_owned()).collect()
}

async fn answer(case: &Case, wanted: &[&str]) -> Result<()> {
    let wanted = names(wanted);
    // A backend that has just come takes two good checks, four seconds, to get its turn.
    let look = || async {
        let found = hosts(case).await?;
        Ok(if found == wanted { Ok(()) } else { Err(format!("answered by {found:?}")) })
    };
    case.until(&format!("{wanted:?} answer in turn"), Duration::from_secs(30), look).await
}

async fn sized(case: &Case, count: usize) -> Result<Cluster> {
    case.apply(&marsh(case, count)).await?;
    let marsh = case.wait_for::<Cluster>("marsh", "Ready", PATIENCE, is_ready).await?;
    let members = marsh.status.clone().unwrap_or_default().members;
    ensure!(members.iter().all(|member| member.state == MemberState::Ready), "{members:?}");
    ensure!(members.len() == count + 1, "{members:?}");
    ensure!(case.site_pods().await?.len() == count + 1, "so many machines");
    Ok(marsh)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_cluster_spreads_over_its_servers_follows_its_size_and_goes_in_reverse() {
    case("a_cluster_spreads_over_its_servers_follows_its_size_and_goes_in_reverse", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("bittern")).await?;
        sized(&case, 2).await?;
        answer(&case, &["marsh-web-0", "marsh-web-1"]).await?;
        case.rule("requests through haproxy reach both nginx in turn, each naming its host");
        let once = uids(&case).await?;
        case.apply(&marsh(&case, 2)).await?;
        case.stays("the cluster", Duration::from_secs(3), || async {
            Ok(case.get::<Cluster>("marsh").await?.resource_version())
        })
        .await?;
        case.rule("applied again it changes nothing");
        let larger = sized(&case, 3).await?;
        ensure!(uids(&case).await?.is_superset(&once), "what was there was made anew");
        answer(&case, &["marsh-web-0", "marsh-web-1", "marsh-web-2"]).await?;
        let backends = larger.status.unwrap_or_default().outputs.remove("backends").unwrap_or_default();
        ensure!(backends.contains("marsh-web-2"), "haproxy was told of {backends}");
        case.rule("a larger group gets a server, and haproxy is told of it");
        case.apply(&marsh(&case, 1)).await?;
        left_first(&case, "marsh-web-2").await?;
        sized(&case, 1).await?;
        answer(&case, &["marsh-web-0"]).await?;
        case.rule("a smaller group: nginx leaves a server before that goes");
        in_reverse(&case).await
    });
}

async fn uids(case: &Case) -> Result<BTreeSet<String>> {
    let servers = case.api::<Server>().list(&Default::default()).await?;
    let taskservs = case.api::<Taskserv>().list(&Default::default()).await?;
    Ok(servers.iter().filter_map(ResourceExt::uid).chain(taskservs.iter().filter_map(ResourceExt::uid)).collect())
}

/// Watches a server that goes: its machine may not be taken while nginx has something on it.
async fn left_first(case: &Case, server: &str) -> Result<()> {
    let seen = AtomicBool::new(false);
    let look = || async {
        // Server first: what is true of the service later was true of it then.
        let Some(found) = case.api::<Server>().get_opt(server).await? else { return Ok(Ok(())) };
        let nginx = case.get::<Taskserv>("marsh-nginx").await?;
        if found.meta().deletion_timestamp.is_some() {
            seen.store(true, Ordering::Relaxed);
            let rows = nginx.status.as_ref().map(|status| status.servers.as_slice()).unwrap_or_default();
            ensure!(rows.iter().all(|row| row.name != server), "{server} goes with nginx on it: {rows:?}");
        }
        Ok(Err(provisioning_e2e::describe(&nginx)))
    };
    case.until(&format!("{server} gone"), PATIENCE, look).await?;
    ensure!(seen.load(Ordering::Relaxed), "nobody saw {server} go");
    Ok(())
}

async fn in_reverse(case: &Case) -> Result<()> {
    let host = format!("{}:8080", case.address("bittern").await?);
    case.delete::<Cluster>("marsh").await?;
    // At no time a server goes while a service is there.
    let look = || async {
        let taskservs = case.api::<Taskserv>().list(&Default::default()).await?;
        let servers = case.api::<Server>().list(&Default::default()).await?;
        let going: Vec<_> = servers.iter().filter(|server| server.meta().deletion_timestamp.is_some()).collect();
        ensure!(
            going.is_empty() || taskservs.items.is_empty(),
            "{:?} go while {:?} are there",
            going.iter().map(|server| server.name_any()).collect::<Vec<_>>(),
            taskservs.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        let cluster = case.api::<Cluster>().get_opt("marsh").await?;
        Ok(cluster.map_or(Ok(()), |cluster| Err(provisioning_e2e::describe(&cluster))))
    };
    case.until("the cluster gone, its services before its servers", PATIENCE, look).await?;
    ensure!(case.api::<Server>().list(&Default::default()).await?.items.len() == 1, "servers are left");
    ensure!(case.site_pods().await?.len() == 1, "machines are left");
    ensure!(is_ready(&case.get::<Server>("bittern").await?), "the server that was there before is not Ready");
    ensure!(TcpStream::connect(&host).await.is_err(), "haproxy still answers on {host}");
    case.rule("deleted in reverse: services, then the servers that it made; the one that was there before stays");
    Ok(())
}

/// A workflow that makes a server, a Cluster with Redis on it, and waits for its members.
fn morning(case: &Case) -> Value {
    let cache =
        json!({"name": "cache", "group": "nests", "extension": {"name": "redis"}, "parameters": {"bind": "0.0.0.0"}});
    let colony = json!({
        "serverGroups": [{"name": "nests", "servers": ["heron"]}],
        "taskservs": [cache],
        "endpoints": [{"name": "redis", "group": "nests", "port": 6379}],
    });
    let ready = "object.status.members.all(m, m.state == 'Ready') && object.status.endpoints.size() == 1";
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": {"name": "morning"},
    "spec": {"deletionPolicy": "Delete", "steps": [
        {"name": "heron", "apply": {"server": {"name": "heron", "spec": case.server("heron")["spec"]}}},
        {"name": "colony", "dependsOn": [{"step": "heron"}], "apply": {"cluster": {"name": "colony", "spec": colony}}},
        {"name": "seen", "dependsOn": [{"step": "colony"}], "when": "steps.colony.outputs['endpoint.redis'] != ''",
            "wait": {"kind": "Cluster", "name": "colony", "for": ready}},
    ]}})
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_workflow_makes_a_cluster_and_people_see_it() {
    case("a_workflow_makes_a_cluster_and_people_see_it", |case: Case| async move {
        case.workspace().await?;
        case.apply(&morning(&case)).await?;
        let end = |workflow: &BatchWorkflow| is_ready(workflow) || provisioning_e2e::is_true(workflow, types::STALLED);
        let morning = case.wait_for::<BatchWorkflow>("morning", "at its end", PATIENCE, end).await?;
        ensure!(is_ready(&morning), "{}", provisioning_e2e::describe(&morning));
        case.rule("a workflow applies a Cluster, reads its outputs, and waits for it");
        for (arguments, wanted) in [
            (&["tree", "bwf", "morning"][..], "taskserv/colony-cache"),
            (&["list", "clusters"], "colony"),
            (&["show", "clu", "colony"], "endpoint redis:"),
            (&["why", "cluster/colony"], "Ready"),
            (&["logs", "bwf", "morning", "--step", "colony"], "redis"),
            (&["wait", "clu", "colony"], ""),
        ] {
            let arguments = [&["-n", &case.namespace], arguments].concat();
            let said = case.cluster.provisioning(&arguments, &[]).await?.success()?;
            ensure!(said.contains(wanted), "{arguments:?} says nothing of {wanted}:\n{said}");
        }
        case.rule("tree, list, show, why, logs and wait know it");
        case.delete::<Server>("heron").await?;
        let why =
            |cluster: &Cluster| condition(cluster, types::READY).is_some_and(|ready| ready.message.contains("heron"));
        case.wait_for::<Cluster>("colony", "told of its server", DEADLINE, why).await?;
        case.rule("a server that goes is told by the cluster");
        case.delete::<BatchWorkflow>("morning").await?;
        case.gone::<BatchWorkflow>("morning", PATIENCE).await?;
        ensure!(case.api::<Cluster>().get_opt("colony").await?.is_none(), "the cluster is left");
        case.rule("with the workflow it goes");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_cluster_takes_over_nothing_of_somebody_else() {
    case("a_cluster_takes_over_nothing_of_somebody_else", |case: Case| async move {
        case.workspace().await?;
        let mut server = case.server("marsh-web-0");
        server["spec"]["suspend"] = json!(true);
        case.apply(&server).await?;
        let mut marsh = marsh(&case, 1);
        marsh["spec"]["serverGroups"] = json!([marsh["spec"]["serverGroups"][1]]);
        for field in ["taskservs", "endpoints", "outputs"] {
            marsh["spec"][field] = json!([]);
        }
        case.apply(&marsh).await?;
        let stalled = case.stalled::<Cluster>("marsh").await?;
        let told = condition(&stalled, types::STALLED).context("not Stalled")?;
        ensure!(told.reason == reasons::NAME_CONFLICT && told.message.contains("Cluster 'marsh'"), "{told:?}");
        case.delete::<Cluster>("marsh").await?;
        case.gone::<Cluster>("marsh", DEADLINE).await?;
        ensure!(case.get::<Server>("marsh-web-0").await?.metadata.deletion_timestamp.is_none(), "it was taken down");
        case.rule("a server of somebody else by a wanted name is left alone, also by the deletion");
        Ok(())
    });
}
