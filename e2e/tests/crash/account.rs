//! The account of a run: the end that it came to, and what it did on the way, from the API server's audit log, from the
//! servers' own logs and from status.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use provisioning_api::names::{ANNOTATION_STEP_ID, LABEL_OWNER_UID, LABEL_ROLE, LABEL_RUN};
use provisioning_api::steps::{Direction, StepAction, StepPhase, StepStatus};
use provisioning_e2e::{Case, Object, Redis, ServerRun, made};
use serde_json::{Value, json};

use crate::{CACHE, SERVERS};

/// Outputs that differ from run to run: addresses, keys, ids.
const UNEQUAL: [&str; 3] = ["address", "hostKey", "machineID"];

/// What a fault may have changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hits {
    /// Steps that were open at a fault, as `Kind name step`: only they may have another run, one more for each time.
    pub(crate) steps: Vec<String>,
    /// Processes of the operator that died: each may have written an intent and not come to its Job.
    pub(crate) operators: usize,
    /// Executions of scripts that were cut off on the server itself: each is started once more.
    pub(crate) cuts: usize,
}

impl Hits {
    /// Notes all steps that are open now.
    pub(crate) async fn note(&mut self, case: &Case) -> Result<()> {
        let open = all_steps(case).await?.into_iter().filter(|(_, _, step)| step.is_open());
        self.steps.extend(open.map(|(object, _, step)| format!("{object} {}", step.id)));
        Ok(())
    }

    /// How often this step was open at a fault.
    pub(crate) fn on(&self, object: &str, step: &str) -> i64 {
        let name = format!("{object} {step}");
        self.steps.iter().filter(|hit| **hit == name).map(|_| 1).sum()
    }
}

/// All steps: `Kind name`, uid of the object, step.
async fn all_steps(case: &Case) -> Result<Vec<(String, String, StepStatus)>> {
    let rows = case.objects().await?.into_iter().flat_map(|object| {
        let (name, uid) = (object.name.clone(), object.uid());
        object.steps.into_iter().map(move |step| (name.clone(), uid.clone(), step))
    });
    Ok(rows.collect())
}

/// Name and uid of every object of ours.
pub(crate) async fn uids(case: &Case) -> Result<BTreeMap<String, String>> {
    Ok(case.objects().await?.into_iter().map(|object| (object.name.clone(), object.uid())).collect())
}

/// The end of a run, without what differs between two runs of the same.
pub(crate) async fn end(case: &Case) -> Result<Value> {
    Ok(json!({ "objects": objects(case).await?, "answers": answers(case).await? }))
}

/// How all objects stand: specs, conditions, steps, outputs.
pub(crate) async fn objects(case: &Case) -> Result<BTreeMap<String, Value>> {
    Ok(case.objects().await?.iter().map(end_of).collect())
}

fn end_of(object: &Object) -> (String, Value) {
    let conditions = object.conditions.iter().map(|found| (&found.type_, json!([found.status, found.reason])));
    let steps = object.steps.iter().map(|step| {
        let outputs = step.outputs.iter().map(|(key, value)| (key, masked(key, value)));
        (&step.id, json!({"phase": step.phase, "outputs": outputs.collect::<BTreeMap<_, _>>()}))
    });
    let end = json!({
        "spec": object.spec,
        "generation": object.meta.generation,
        "conditions": conditions.collect::<BTreeMap<_, _>>(),
        "steps": steps.collect::<BTreeMap<_, _>>(),
    });
    (object.name.clone(), end)
}

fn masked(key: &str, value: &str) -> String {
    // A workflow's outputs have the server's name in front; an endpoint is an address under the name that it was given.
    let word = key.rsplit('.').next().unwrap_or_default();
    if UNEQUAL.contains(&word) || key.starts_with("endpoint.") { "…".to_owned() } else { value.to_owned() }
}

/// A connection to the redis of this run.
pub(crate) async fn redis(case: &Case) -> Result<Redis> {
    Redis::connect(&format!("{}:6379", case.address(SERVERS[0]).await?)).await
}

async fn answers(case: &Case) -> Result<Vec<Vec<String>>> {
    let mut redis = redis(case).await?;
    let mut answers = Vec::new();
    let commands: [&[&str]; 5] = [
        &["PING"],
        &["SET", "nest", "3 eggs"],
        &["GET", "nest"],
        &["CONFIG", "GET", "appendonly"],
        &["CONFIG", "GET", "syslog-ident"],
    ];
    for command in commands {
        answers.push(redis.ask(command).await.with_context(|| command.join(" "))?);
    }
    Ok(answers)
}

/// Asserts what must hold after every run that ended Ready.
pub(crate) async fn settle(case: &Case, hits: &Hits) -> Result<()> {
    one_machine_each(case, &SERVERS).await?;
    let mut all = Vec::new();
    for server in SERVERS {
        all.extend(case.server_runs(server).await?);
    }
    scripts(&all, hits)?;
    runs(case, hits).await?;
    jobs_and_leases(case, hits).await
}

/// S1: one live machine for each Server, and never more creates than that.
pub(crate) async fn one_machine_each(case: &Case, planned: &[&str]) -> Result<()> {
    let pods = case.site_pods().await?;
    let machines = pods.iter().filter(|pod| pod.labels().get(LABEL_ROLE).is_some_and(|role| role == "server"));
    let mut owners: Vec<_> = machines.filter_map(|pod| pod.labels().get(LABEL_OWNER_UID).cloned()).collect();
    let servers = case.objects().await?.into_iter().filter(|object| object.is_a("Server"));
    let mut servers: Vec<String> = servers.map(|server| server.uid()).collect();
    owners.sort();
    servers.sort();
    ensure!(servers.len() == planned.len() && owners == servers, "machines of {owners:?}, Servers {servers:?}");
    creates_of_machines(case, planned.len()).await
}

/// S1, as the API server counts: so many machines were created for this workspace, ever.
pub(crate) async fn creates_of_machines(case: &Case, planned: usize) -> Result<()> {
    let provider = format!("system:serviceaccount:{}:provisioning-local-provider", case.namespace);
    let creates = case.cluster.audit(&case.namespace, |event| {
        event.verb == "create"
            && event.resource == "pods"
            && event.subresource.is_empty()
            && event.namespace == case.cluster.site
            && event.user == provider
            && event.name.starts_with("srv-")
    });
    let creates = made(creates.await?);
    ensure!(creates.len() == planned, "creates of machines in the audit log: {creates:#?}");
    Ok(())
}

/// Every script has one completion, as planned, and one start, but where it was cut off. Runs and epochs never fall.
fn scripts(all: &[ServerRun], hits: &Hits) -> Result<()> {
    let of = |script: &str, event: &str| all.iter().filter(|run| run.script == script && run.event == event).count();
    ensure!(all.iter().all(|run| run.event == "start" || run.exit == Some(0)), "a script failed: {all:#?}");
    ensure!(all.iter().all(|run| run.script == "install" || run.script == "check"), "not planned: {all:#?}");
    ensure!(of("install", "end") == 1, "install ended {} times: {all:#?}", of("install", "end"));
    let starts = of("install", "start");
    ensure!(starts == 1 + hits.cuts, "install was started {starts} times, {} cuts: {all:#?}", hits.cuts);
    let checks = hits.on(CACHE, &format!("check/{}", SERVERS[0]));
    let ended = of("check", "end");
    ensure!(ended >= 1 && i64::try_from(ended)? <= 1 + checks, "check ended {ended} times: {all:#?}");
    ensure!(of("check", "start") == ended, "checks without an end: {all:#?}");
    never_falls(all)
}

/// S6, as the server saw it; where nothing is cut off, each start has a run of its own.
pub(crate) fn never_falls(all: &[ServerRun]) -> Result<()> {
    let mut last: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for run in all {
        let now = (run.run, run.epoch);
        let before = last.insert(&run.step, now).unwrap_or_default();
        ensure!(now.0 >= before.0 && now.1 >= before.1, "{} fell from {before:?} to {now:?}: {all:#?}", run.step);
    }
    Ok(())
}

/// S4: what succeeded is not executed again. Only a step that a fault hit has a second run, or one that looks only.
pub(crate) async fn runs(case: &Case, hits: &Hits) -> Result<()> {
    for (object, _, step) in all_steps(case).await? {
        let most = 1 + hits.on(&object, &step.id);
        let planned = if step.phase == StepPhase::Skipped { step.run == 0 } else { step.run >= 1 };
        let fine = planned && (step.run <= most || !step.action.has_effect());
        ensure!(fine, "{object} {} is at run {}, at most {most} expected: {hits:#?}", step.id, step.run);
    }
    Ok(())
}

/// Each Job is a run of a step, no two of the same; each Lease is the claim of one; no run has more than one.
pub(crate) async fn jobs_and_leases(case: &Case, hits: &Hits) -> Result<()> {
    let client = || case.cluster.client.clone();
    let steps = all_steps(case).await?;
    let jobs = Api::<Job>::namespaced(client(), &case.namespace).list(&ListParams::default()).await?.items;
    let mut seen = BTreeSet::new();
    for job in &jobs {
        let (uid, id) = (job.labels().get(LABEL_OWNER_UID), job.annotations().get(ANNOTATION_STEP_ID));
        let run: i64 = job.labels().get(LABEL_RUN).and_then(|run| run.parse().ok()).unwrap_or_default();
        let step = steps.iter().find(|(_, owner, step)| Some(owner) == uid && Some(&step.id) == id);
        let step = step.map(|(_, _, step)| step).with_context(|| format!("Job {} is of no step", job.name_any()))?;
        ensure!((1..=step.run).contains(&run), "Job {} has run {run} of {step:?}", job.name_any());
        ensure!(seen.insert((uid, id, run)), "Job {} is the second one of {id:?} run {run}", job.name_any());
    }
    let executed = steps
        .iter()
        .filter(|(_, _, step)| ![StepAction::Apply, StepAction::Delete, StepAction::Wait].contains(&step.action));
    let runs: i64 = executed.map(|(_, _, step)| step.run).sum();
    let creates = case.cluster.audit(&case.namespace, |event| {
        event.verb == "create" && event.resource == "jobs" && event.namespace == case.namespace
    });
    let created: BTreeSet<String> = made(creates.await?).into_iter().map(|event| event.name).collect();
    let open = usize::try_from(runs)?.checked_sub(created.len());
    // An operator may die between several intents and their Jobs; each such step was open then.
    let lost = if hits.operators == 0 { 0 } else { hits.steps.len() };
    ensure!(open.is_some_and(|open| open <= lost), "{runs} runs, {} Jobs created", created.len());
    let gone = jobs.iter().filter(|job| !created.contains(&job.name_any())).map(ResourceExt::name_any);
    ensure!(gone.count() == 0, "Jobs that the audit log does not know");
    let pods = Api::<Pod>::namespaced(client(), &case.namespace).list(&ListParams::default()).await?.items;
    for lease in Api::<Lease>::namespaced(client(), &case.namespace).list(&ListParams::default()).await?.items {
        let name = lease.name_any();
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let claimant = pods.iter().find(|pod| pod.name_any() == name).and_then(ResourceExt::uid);
        let explained = holder == "operator" || created.contains(&name);
        ensure!(explained, "Lease {name} of {holder} belongs to no Job");
        ensure!(holder == "operator" || claimant.is_none_or(|uid| uid == holder), "Lease {name} is held by {holder}");
    }
    Ok(())
}

/// Undo: one uninstall, after the one install, and its run is the highest.
pub(crate) fn undone(all: &[ServerRun]) -> Result<()> {
    let undo: Vec<_> = all.iter().filter(|run| run.direction == Direction::Undo).collect();
    let exits: Vec<_> = undo.iter().map(|run| (run.script.as_str(), run.event.as_str(), run.exit)).collect();
    ensure!(exits == [("uninstall", "start", None), ("uninstall", "end", Some(0))], "undo: {all:#?}");
    let last = all.iter().rposition(|run| run.direction == Direction::Forward).unwrap_or_default();
    ensure!(last + undo.len() + 1 == all.len(), "a forward step during undo: {all:#?}");
    never_falls(all)
}

/// Nothing of the workflow is left in the namespace: no child, no Job, no Lease.
pub(crate) async fn nothing_left(case: &Case) -> Result<()> {
    let owners = uids(case).await?;
    let kept = |name: &String| name.starts_with("Workspace ") || name.starts_with("ProviderConfig ");
    ensure!(owners.keys().all(kept), "objects are left: {owners:?}");
    let uids: BTreeSet<&String> = owners.values().collect();
    let is_ours = |uid: Option<&String>| uid.is_some_and(|uid| uids.contains(uid));
    let client = || case.cluster.client.clone();
    for job in Api::<Job>::namespaced(client(), &case.namespace).list(&ListParams::default()).await? {
        let going = job.metadata.deletion_timestamp.is_some();
        ensure!(going || is_ours(job.labels().get(LABEL_OWNER_UID)), "Job {} is left", job.name_any());
    }
    for lease in Api::<Lease>::namespaced(client(), &case.namespace).list(&ListParams::default()).await? {
        ensure!(is_ours(lease.labels().get(LABEL_OWNER_UID)), "Lease {} is left", lease.name_any());
    }
    let pods: Vec<_> = case.site_pods().await?.iter().map(ResourceExt::name_any).collect();
    ensure!(pods.is_empty(), "pods of the site are left: {pods:?}");
    Ok(())
}

/// Where two ends differ: path, one, other.
pub(crate) fn differences(path: &str, left: &Value, right: &Value) -> Vec<String> {
    match (left, right) {
        (Value::Object(one), Value::Object(two)) => {
            let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
            let null = Value::Null;
            let at = |map: &serde_json::Map<String, Value>, key: &String| map.get(key).unwrap_or(&null).clone();
            keys.iter().flat_map(|key| differences(&format!("{path}/{key}"), &at(one, key), &at(two, key))).collect()
        }
        _ if left == right => Vec::new(),
        _ => vec![format!("{path}: {left} instead of {right}")],
    }
}
