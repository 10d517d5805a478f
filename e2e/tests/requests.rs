//! How much the operator asks of the API server, counted in its audit log: exact on any machine, however busy. `make bench`
//! counts the same over a thousand objects.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams};
use provisioning_api::names::{LABEL_MANAGED_BY, MANAGER};
use provisioning_api::steps::StepPhase;
use provisioning_api::{BatchWorkflow, Server, Taskserv};
use provisioning_e2e::{AuditEvent, Case, DEADLINE, Kind, case, is_ready, tally};
use serde_json::{Value, json};

/// How long an installation may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most requests of the operator per successful step.
const PER_STEP: usize = 10;
/// The same over the whole life of objects: their end costs a finalizer and what is swept by label, which no step pays for.
const PER_STEP_OF_A_LIFE: usize = 11;
/// Ten minutes after the end of a run its claim and its Job are removed, by a request each. Nobody waits for that here.
const CLEANING: usize = 2;
/// What the deletion below undoes: the workflow's two steps, the installation, the machine.
const UNDONE: usize = 4;

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_successful_step_costs_at_most_ten_requests_of_the_operator() {
    case("a_successful_step_costs_at_most_ten_requests_of_the_operator", |case: Case| async move {
        case.workspace().await?;
        let base = requests(&case).await?.len();
        case.apply(&pond(&case)).await?;
        case.wait_for::<BatchWorkflow>("pond", "Ready", PATIENCE, is_ready).await?;
        let jobs = closed_jobs(&case).await?;
        let runs = runs::<BatchWorkflow>(&case, "pond").await?
            + runs::<Server>(&case, "bittern").await?
            + runs::<Taskserv>(&case, "redis").await?;
        let forward = requests(&case).await?;
        let forward = &forward[base..];
        let asked = forward.len() + CLEANING * jobs;
        ensure!(asked <= PER_STEP * runs, "{asked} requests for {runs} steps: {:#?}", tally(forward));
        case.rule(&format!("{asked} requests for {runs} steps, events and cleaning up included"));
        what_was_done_is_counted(&case).await?;

        case.delete::<BatchWorkflow>("pond").await?;
        case.gone::<BatchWorkflow>("pond", PATIENCE).await?;
        let all = requests(&case).await?;
        let (all, runs) = (&all[base..], runs + UNDONE);
        ensure!(all.len() <= PER_STEP_OF_A_LIFE * runs, "{} requests for {runs} steps: {:#?}", all.len(), tally(all));
        case.rule(&format!("{} requests for {runs} steps, with their undoing and all that is swept", all.len()));
        Ok(())
    });
}

/// The operator's own numbers, read as docs/metrics.md says.
async fn what_was_done_is_counted(case: &Case) -> Result<()> {
    // A probe is asked within ten seconds, which nobody has waited for.
    case.until("all of it is counted", DEADLINE, || counted(case)).await?;
    case.rule("reconciles, steps, Jobs, queue, requests and probes are counted, and can be read");
    Ok(())
}

async fn counted(case: &Case) -> Result<Result<(), String>> {
    let service = "/api/v1/namespaces/provisioning-system/services/provisioning-operator:8080/proxy/metrics";
    let text = case.kubectl(&["get", "--raw", service], "").await?.success()?;
    let positive = |begin: &str| {
        let values = text.lines().filter(|line| line.starts_with(begin)).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).any(|value| value > 0.0)
    };
    let wanted = [
        "provisioning_leader",
        "provisioning_workspace_epoch{",
        "provisioning_reconciles_total{kind=\"BatchWorkflow\",outcome=\"ok\"}",
        "provisioning_reconcile_duration_seconds_count{kind=\"Server\"}",
        "provisioning_steps_started_total{direction=\"forward\",kind=\"Taskserv\"}",
        "provisioning_steps_ended_total{class=\"\",kind=\"Server\",outcome=\"Succeeded\"}",
        "provisioning_jobs_created_total",
        "provisioning_api_requests_total{",
        "provisioning_probe_known",
        "provisioning_probe_answers_total{outcome=\"answered\"}",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|begin| !positive(begin)).collect();
    ensure!(text.lines().any(|line| line.starts_with("provisioning_queue_depth{kind=")), "no queue: {text}");
    Ok(if missing.is_empty() { Ok(()) } else { Err(format!("not above 0: {missing:?}")) })
}

/// A server, and Redis on it.
fn pond(case: &Case) -> Value {
    let server = case.server("bittern")["spec"].clone();
    let redis = case.redis_on("redis", &["bittern"])["spec"].clone();
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": {"name": "pond"},
    "spec": {"deletionPolicy": "Delete", "steps": [
        {"name": "bittern", "apply": {"server": {"name": "bittern", "spec": server}}},
        {"name": "redis", "dependsOn": [{"step": "bittern"}], "apply": {"taskserv": {"name": "redis", "spec": redis}}},
    ]}})
}

/// The operator's requests about this test's workspace, wherever it made them, in their order.
async fn requests(case: &Case) -> Result<Vec<AuditEvent>> {
    let about = |event: &AuditEvent| event.namespace == case.namespace || event.name.ends_with(&case.namespace);
    case.cluster.audit(&case.namespace, |event| event.is_operators() && about(event)).await
}

/// Runs of an object's steps, all of which succeeded.
async fn runs<K: Kind>(case: &Case, name: &str) -> Result<usize> {
    let object = case.get::<K>(name).await?;
    let mut runs = 0;
    for step in object.steps() {
        ensure!(step.phase == StepPhase::Succeeded, "step {} of {name}: {:?}", step.id, step.phase);
        runs += usize::try_from(step.run)?;
    }
    Ok(runs)
}

/// Waits until all Jobs say how they ended, which is the last that is written for them; returns how many there are.
async fn closed_jobs(case: &Case) -> Result<usize> {
    let api: Api<Job> = Api::namespaced(case.cluster.client.clone(), &case.namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    let count = case.until("all Jobs closed", DEADLINE, || async {
        let jobs = api.list(&ours).await?;
        let is_open = |job: &&Job| job.status.as_ref().is_none_or(|status| status.conditions.is_none());
        let open: Vec<_> = jobs.iter().filter(is_open).filter_map(|job| job.metadata.name.clone()).collect();
        Ok(if open.is_empty() { Ok(jobs.items.len()) } else { Err(format!("open: {open:?}")) })
    });
    // That of the ProviderConfig's look is older than what is counted here.
    Ok(count.await? - 1)
}
