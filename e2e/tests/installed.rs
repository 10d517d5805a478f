//! Several Taskservs on the same servers: what they share is installed once and goes with its last user, what does not go
//! together is refused, servers join and leave by their labels, and a newer bundle is an upgrade. The extensions are those
//! of `e2e/extensions`: wren and warbler require reed, cuckoo conflicts with it, tern has two versions, sedge requires
//! nginx and comes after lark where that comes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::server::{Installed, InstalledState};
use provisioning_api::{Server, Taskserv};
use provisioning_e2e::{Case, DEADLINE, case, condition, is_ready, step};
use serde_json::{Value, json};

use crate::support::{offer, offer_beside};

const PATIENCE: Duration = Duration::from_secs(240);

fn taskserv(name: &str, extension: &str, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "metadata": {"name": name},
        "spec": {"extension": {"name": extension}}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

/// The list of a server, by extension.
async fn installed(case: &Case, server: &str) -> Result<BTreeMap<String, Installed>> {
    let list = case.get::<Server>(server).await?.status.map(|status| status.installed).unwrap_or_default();
    Ok(list.into_iter().map(|entry| (entry.extension.clone(), entry)).collect())
}

/// The list of a server, once everything on it is installed: it follows the conditions of Taskservs.
async fn settled(case: &Case, server: &str) -> Result<BTreeMap<String, Installed>> {
    let done = |list: &BTreeMap<String, Installed>| list.values().all(|entry| entry.state == InstalledState::Installed);
    case.until(&format!("all on {server} is installed"), DEADLINE, || async {
        let list = installed(case, server).await?;
        Ok(if done(&list) { Ok(list) } else { Err(format!("{list:?}")) })
    })
    .await
}

fn users(entry: &Installed) -> Vec<&str> {
    let mut names: Vec<&str> = entry.required_by.iter().map(|user| user.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Which scripts of an extension were begun on a server, in their order.
async fn begun(case: &Case, server: &str, extension: &str) -> Result<Vec<String>> {
    let runs = case.server_runs(server).await?.into_iter();
    let own = runs.filter(|run| run.event == "start" && run.extension == extension);
    Ok(own.map(|run| run.script.trim_end_matches(".nu").to_owned()).collect())
}

async fn is_there(case: &Case, server: &str, path: &str) -> Result<bool> {
    Ok(case.on_server(server, &format!("test -e {path} && echo yes || echo no")).await?.trim() == "yes")
}

async fn ready(case: &Case, name: &str) -> Result<()> {
    case.wait_for::<Taskserv>(name, "Ready", PATIENCE, is_ready).await.map(drop)
}

/// Waits until an object is stuck for this reason, with these words.
async fn told(case: &Case, name: &str, reason: &str, words: &[&str]) -> Result<()> {
    let is_told = |object: &Taskserv| {
        condition(object, types::STALLED)
            .is_some_and(|stalled| stalled.reason == reason && words.iter().all(|word| stalled.message.contains(word)))
    };
    case.wait_for::<Taskserv>(name, &format!("{reason}: {words:?}"), DEADLINE, is_told).await.map(drop)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn what_two_taskservs_require_is_installed_once_and_goes_with_the_last() {
    case("what_two_taskservs_require_is_installed_once_and_goes_with_the_last", |case: Case| async move {
        case.workspace().await?;
        for extension in ["reed", "wren", "warbler", "cuckoo"] {
            offer(&case, extension).await?;
        }
        case.apply(&case.server("sandpiper")).await?;
        let on = json!({"servers": ["sandpiper"]});
        for name in ["wren", "warbler"] {
            case.apply(&taskserv(name, name, &on)).await?;
        }
        for name in ["wren", "warbler"] {
            ready(&case, name).await?;
        }
        shared(&case).await?;
        conflicts(&case, &on).await?;
        let (keeper, other) = handed_over(&case).await?;
        case.rule(&format!("the reed outlives {keeper}, which had brought it"));
        case.delete::<Taskserv>(&other).await?;
        case.gone::<Taskserv>(&other, PATIENCE).await?;
        ensure!(!is_there(&case, "sandpiper", "/srv/reed").await?, "the reed is there without a user");
        case.rule("the reed goes with its last user, after the nest in it");
        // What was refused goes on by itself.
        ready(&case, "cuckoo").await?;
        let left: Vec<String> = installed(&case, "sandpiper").await?.into_keys().collect();
        ensure!(left == ["cuckoo"], "still listed: {left:?}");
        case.rule("who conflicted with it is installed once it is gone");
        Ok(())
    });
}

async fn shared(case: &Case) -> Result<()> {
    let scripts = begun(case, "sandpiper", "reed").await?;
    ensure!(scripts == ["install", "check"], "scripts of the reed: {scripts:?}");
    let list = settled(case, "sandpiper").await?;
    let reed = list.get("reed").context("the reed is not listed")?;
    ensure!(users(reed) == ["warbler", "wren"], "{reed:?}");
    case.rule("two Taskservs require the reed: it is installed and checked once");
    case.stays("the server at rest", Duration::from_secs(10), || async {
        Ok(case.get::<Server>("sandpiper").await?.metadata.resource_version)
    })
    .await
    .map(drop)
}

async fn conflicts(case: &Case, on: &Value) -> Result<()> {
    case.apply(&taskserv("cuckoo", "cuckoo", on)).await?;
    let words = ["Server 'sandpiper'", "cuckoo 1.0.0", "reed 1.0.0", "Taskserv cuckoo wants cuckoo", "requires reed"];
    told(case, "cuckoo", reasons::INVALID, &words).await?;
    ensure!(begun(case, "sandpiper", "cuckoo").await?.is_empty(), "a script of the cuckoo was begun");
    case.rule("an extension that conflicts is refused with both names, and none of its scripts is begun");
    // A second Taskserv of one extension would write over the first one's configuration.
    case.apply(&taskserv("wren-2", "wren", on)).await?;
    told(case, "wren-2", reasons::INVALID, &["'wren' on Server 'sandpiper' belongs to Taskserv 'wren'"]).await?;
    case.delete::<Taskserv>("wren-2").await?;
    case.gone::<Taskserv>("wren-2", DEADLINE).await
}

/// The Taskserv that brought the reed goes; the other one looks after it then.
async fn handed_over(case: &Case) -> Result<(String, String)> {
    let list = installed(case, "sandpiper").await?;
    let keeper = list.get("reed").context("the reed is not listed")?.by.name.clone();
    let other = if keeper == "wren" { "warbler" } else { "wren" };
    case.delete::<Taskserv>(&keeper).await?;
    case.gone::<Taskserv>(&keeper, PATIENCE).await?;
    ensure!(is_there(case, "sandpiper", "/srv/reed/stalk").await?, "the reed went with {keeper}");
    ensure!(!is_there(case, "sandpiper", &format!("/srv/{keeper}")).await?, "the nest of {keeper} is left");
    case.until("the other one looks after the reed", PATIENCE, || async {
        let list = installed(case, "sandpiper").await?;
        let well = |entry: &&Installed| entry.by.name == other && entry.state == InstalledState::Installed;
        Ok(list.get("reed").filter(well).map(drop).ok_or_else(|| format!("{list:?}")))
    })
    .await?;
    ready(case, other).await?;
    Ok((keeper, other.to_owned()))
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn servers_join_and_leave_by_their_labels_and_a_newer_bundle_is_an_upgrade() {
    case("servers_join_and_leave_by_their_labels_and_a_newer_bundle_is_an_upgrade", |case: Case| async move {
        case.workspace().await?;
        offer(&case, "tern").await?;
        let north = json!({"shore": "north"});
        let mut stint = case.server("stint");
        stint["metadata"]["labels"] = north.clone();
        case.apply(&stint).await?;
        case.apply(&case.server("dotterel")).await?;
        let mut object = taskserv("tern", "tern", &json!({"serverSelector": {"matchLabels": north}}));
        case.apply(&object).await?;
        ready(&case, "tern").await?;
        case.wait_for::<Server>("dotterel", "Ready", PATIENCE, is_ready).await?;
        ensure!(!is_there(&case, "dotterel", "/srv/tern").await?, "it is on a server that does not match");
        joins_and_leaves(&case, &north).await?;
        // A new version on the shelf changes nothing; a requirement that asks for it does.
        offer_beside(&case, "tern-next").await?;
        object["spec"]["extension"]["version"] = json!("^1.1");
        case.apply(&object).await?;
        upgraded(&case).await?;
        object["spec"]["extension"]["version"] = json!("~1.0");
        case.apply(&object).await?;
        told(&case, "tern", reasons::INVALID, &["go back from tern 1.1.0 to 1.0.0", "\"=1.0.0\""]).await?;
        case.rule("a step back that nobody asked for exactly is refused");
        Ok(())
    });
}

async fn joins_and_leaves(case: &Case, north: &Value) -> Result<()> {
    let label = |labels: Value| json!({"metadata": {"labels": labels}});
    case.patch::<Server>("dotterel", &label(north.clone())).await?;
    let joined = |object: &Taskserv| is_ready(object) && step(object, "check/dotterel").is_some();
    case.wait_for::<Taskserv>("tern", "Ready with dotterel", PATIENCE, joined).await?;
    ensure!(is_there(case, "dotterel", "/srv/tern").await?, "it is not on the server that joined");
    ensure!(begun(case, "stint", "tern").await? == ["install", "check"], "something ran again on the other one");
    case.rule("a server that begins to match is installed, and nothing runs again elsewhere");
    case.patch::<Server>("stint", &label(json!({"shore": null}))).await?;
    let left = |object: &Taskserv| is_ready(object) && step(object, "install/stint").is_none();
    case.wait_for::<Taskserv>("tern", "Ready without stint", PATIENCE, left).await?;
    ensure!(!is_there(case, "stint", "/srv/tern").await?, "it is still on the server that left");
    case.until("the list is empty", DEADLINE, || async {
        let list = installed(case, "stint").await?;
        Ok(if list.is_empty() { Ok(()) } else { Err(format!("{list:?}")) })
    })
    .await?;
    case.rule("a server that ceases to match is left without it, as deletionPolicy says");
    Ok(())
}

async fn upgraded(case: &Case) -> Result<()> {
    let planned = |object: &Taskserv| {
        step(object, "install/dotterel").is_some_and(|step| step.why == "upgrade tern from 1.0.0 to 1.1.0 on dotterel")
    };
    case.wait_for::<Taskserv>("tern", "an upgrade in its plan", DEADLINE, planned).await?;
    ready(case, "tern").await?;
    ensure!(case.on_server("dotterel", "cat /srv/tern").await?.trim() == "1.1.0", "it is not the new version");
    let list = settled(case, "dotterel").await?;
    let tern = list.get("tern").context("tern is not listed")?;
    ensure!(tern.version == "1.1.0", "{tern:?}");
    case.rule("a newer bundle is installed as planned steps that say from where to where");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn what_is_optional_comes_first_and_what_is_required_is_probed() {
    case("what_is_optional_comes_first_and_what_is_required_is_probed", |case: Case| async move {
        case.workspace().await?;
        for extension in ["sedge", "lark"] {
            offer(&case, extension).await?;
        }
        for server in ["godwit", "whimbrel"] {
            case.apply(&case.server(server)).await?;
        }
        // The one that comes after the other is there first, before there is a server for either.
        case.apply(&taskserv("sedge", "sedge", &json!({"servers": ["godwit", "whimbrel"]}))).await?;
        case.apply(&taskserv("lark", "lark", &json!({"servers": ["godwit"]}))).await?;
        for name in ["sedge", "lark"] {
            ready(&case, name).await?;
        }
        for (server, company) in [("godwit", "with a lark"), ("whimbrel", "alone")] {
            let found = case.on_server(server, "cat /srv/sedge").await?;
            ensure!(found.trim() == company, "sedge on {server} was installed {found:?}, not {company}");
        }
        case.rule("what is optional is installed first where it comes, and not waited for where it does not");
        probed(&case).await
    });
}

/// Stops what is there only because sedge requires it, and starts it again.
async fn probed(case: &Case) -> Result<()> {
    let words = "Server 'whimbrel': probe 'health' of extension 'nginx' (GET /health on port 80): connection refused";
    let is_told = |object: &Taskserv| {
        condition(object, types::READY)
            .is_some_and(|ready| ready.reason == reasons::UNHEALTHY && ready.message == words)
    };
    case.on_server("whimbrel", "systemctl stop nginx.service").await?;
    case.wait_for::<Taskserv>("sedge", "Unhealthy", DEADLINE, is_told).await?;
    case.on_server("whimbrel", "systemctl start nginx.service").await?;
    ready(case, "sedge").await?;
    case.rule("what was installed because sedge requires it is probed, and shows in sedge with its words");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_secret_that_comes_late_brings_its_taskserv_on() {
    case("a_secret_that_comes_late_brings_its_taskserv_on", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("ruff")).await?;
        let password = json!({"password": {"secretName": "taskserv-late", "key": "password"}});
        let spec = json!({"servers": ["ruff"], "secretParameters": password});
        case.apply(&taskserv("cache", "redis", &spec)).await?;
        let words = "there is no Secret 'taskserv-late' with key 'password'";
        let is_told = |object: &Taskserv| {
            condition(object, types::READY)
                .is_some_and(|ready| ready.reason == reasons::RETRYING && ready.message.contains(words))
        };
        case.wait_for::<Taskserv>("cache", words, PATIENCE, is_told).await?;
        case.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taskserv-late"},
            "stringData": {"password": "ruff-4711"}}))
            .await?;
        ready(&case, "cache").await?;
        case.rule("a Secret that comes late is found, and nobody has to ask for it");
        Ok(())
    });
}
