//! Services that stop working after they were installed: noticed from outside or by the clock, told with their words in
//! the Taskserv and in the workflow that made it, and nothing is run for it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::{BatchWorkflow, Server, Taskserv};
use provisioning_e2e::{Case, DEADLINE, Kind, case, condition, is_ready, step};
use serde_json::{Value, json};

/// How long an installation may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How soon a service that died has to be noticed.
const NOTICED: Duration = Duration::from_secs(60);
/// More than two rounds of probes.
const QUIET: Duration = Duration::from_secs(25);

fn nginx() -> Value {
    json!({"extension": {"name": "nginx"}, "servers": ["knot"], "parameters": {"port": 8081}})
}

fn is_unhealthy(object: &impl Kind, words: &str) -> bool {
    condition(object, types::READY).is_some_and(|ready| {
        ready.status == "False" && ready.reason == reasons::UNHEALTHY && ready.message.contains(words)
    })
}

/// Starts and ends of scripts on the server, and the operator's writes in the namespace.
async fn account(case: &Case) -> Result<(usize, usize)> {
    let writes = case.cluster.audit(&case.namespace, |event| {
        let reads = ["get", "list", "watch"].contains(&event.verb.as_str());
        event.namespace == case.namespace && event.user.ends_with(":provisioning-operator") && !reads
    });
    Ok((case.server_runs("knot").await?.len(), writes.await?.len()))
}

/// Stops a service, sees it noticed, and starts it again.
async fn stopped(case: &Case, unit: &str, taskserv: &str, words: &str) -> Result<()> {
    let runs = account(case).await?.0;
    case.on_server("knot", &format!("systemctl stop {unit}")).await?;
    case.wait_for::<Taskserv>(taskserv, "Unhealthy", NOTICED, |object| is_unhealthy(object, words)).await?;
    let told = format!("Taskserv '{taskserv}' is not Ready: {words}");
    case.wait_for::<BatchWorkflow>("pond", "Unhealthy", DEADLINE, |object| is_unhealthy(object, &told)).await?;
    case.rule(&format!("{unit} is stopped: {told}"));
    case.on_server("knot", &format!("systemctl start {unit}")).await?;
    case.wait_for::<Taskserv>(taskserv, "Ready", NOTICED, is_ready).await?;
    case.wait_for::<BatchWorkflow>("pond", "Ready", DEADLINE, is_ready).await?;
    ensure!(account(case).await?.0 == runs, "a script ran on the server");
    case.rule(&format!("{unit} is started: both are Ready again, and nothing was run"));
    Ok(())
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_service_that_dies_shows_in_its_taskserv_and_workflow_and_comes_back() {
    case("a_service_that_dies_shows_in_its_taskserv_and_workflow_and_comes_back", |case: Case| async move {
        case.workspace().await?;
        let server = case.server("knot")["spec"].clone();
        let redis = case.redis_on("redis", &["knot"])["spec"].clone();
        let after = json!([{"step": "knot"}]);
        case.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow",
            "metadata": {"name": "pond"}, "spec": {"deletionPolicy": "Delete", "steps": [
                {"name": "knot", "apply": {"server": {"name": "knot", "spec": server}}},
                {"name": "nginx", "dependsOn": after, "apply": {"taskserv": {"name": "nginx", "spec": nginx()}}},
                {"name": "redis", "dependsOn": after, "apply": {"taskserv": {"name": "redis", "spec": redis}}}]}}))
            .await?;
        case.wait_for::<BatchWorkflow>("pond", "Ready", PATIENCE, is_ready).await?;
        // The service is seen at least once before it dies, and seeing it writes nothing.
        let before = account(&case).await?;
        let look = || async { Ok(case.get::<Taskserv>("nginx").await?.metadata.resource_version) };
        case.stays("a Taskserv that is probed", QUIET, look).await?;
        ensure!(account(&case).await? == before, "probes wrote or ran something: {before:?}");
        case.rule("services that answer are asked without a write");
        let http = "Server 'knot': probe 'health' (GET /health on port 8081): connection refused";
        stopped(&case, "nginx.service", "nginx", http).await?;
        let tcp = "Server 'knot': probe 'tcp' (TCP port 6379): connection refused";
        stopped(&case, "redis-server.service", "redis", tcp).await?;
        for (name, id) in [("nginx", "install/knot"), ("redis", "install/knot"), ("redis", "check/knot")] {
            let taskserv = case.get::<Taskserv>(name).await?;
            ensure!(step(&taskserv, id).is_some_and(|step| step.run == 1), "{name}: {id} ran again");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_check_runs_again_by_the_clock_and_installs_nothing() {
    case("a_check_runs_again_by_the_clock_and_installs_nothing", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("knot")).await?;
        case.wait_for::<Server>("knot", "Ready", PATIENCE, is_ready).await?;
        let mut spec = nginx();
        spec["checkIntervalSeconds"] = json!(60);
        case.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv",
            "metadata": {"name": "nginx"}, "spec": spec}))
            .await?;
        case.wait_for::<Taskserv>("nginx", "Ready", PATIENCE, is_ready).await?;
        let second = || async {
            let taskserv = case.get::<Taskserv>("nginx").await?;
            if !is_ready(&taskserv) {
                bail!("a check that only looks again took Ready away:\n{}", provisioning_e2e::describe(&taskserv));
            }
            let check = step(&taskserv, "check/knot").map(|step| (step.run, step.is_open()));
            Ok(if check == Some((2, false)) { Ok(()) } else { Err(format!("{check:?}")) })
        };
        case.until("the check has run a second time", PATIENCE, second).await?;
        case.rule("a check by the clock leaves Ready as it is while it runs");
        // What no probe can see.
        case.on_server("knot", "systemctl disable nginx.service").await?;
        let failed = |taskserv: &Taskserv| {
            condition(taskserv, types::STALLED).is_some_and(|stalled| {
                stalled.reason == reasons::STEP_FAILED && stalled.message.contains("nginx.service is not enabled")
            })
        };
        case.wait_for::<Taskserv>("nginx", "failed by its check", PATIENCE, failed).await?;
        case.rule("a check by the clock that fails is told with its words");
        case.on_server("knot", "systemctl enable nginx.service").await?;
        let taskserv = case.wait_for::<Taskserv>("nginx", "Ready", PATIENCE, is_ready).await?;
        ensure!(step(&taskserv, "install/knot").is_some_and(|step| step.run == 1), "it was installed again");
        let installs = case.server_runs("knot").await?;
        let installs = installs.iter().filter(|run| run.event == "start" && run.script.starts_with("install"));
        ensure!(installs.count() == 1, "it was installed again");
        case.rule("when a later check succeeds it is Ready again, and nothing was installed for it");
        Ok(())
    });
}
