//! Faults in mid-run. Each time the same end as without one (specs, conditions, steps, outputs, answers), two machines
//! created as the API server's audit log counts them, and scripts completed as often as planned, as the server's own log
//! counts them, with an extra start only where the fault cut one off.
//!
//! The moment of a fault is seen, not guessed: a watch says that the step is Running, or the server's disk says that the
//! script runs. Faults that hit the whole cluster have it for themselves; the others run side by side.
#![allow(clippy::panic)] // a test that cannot compare has failed

#[path = "crash/account.rs"]
mod account;
#[path = "crash/shop.rs"]
mod c_shop_killed_at_random;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::Duration;

use account::{Hits, differences, end, nothing_left, redis, settle, uids, undone};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, LogParams, Patch, PatchParams};
use provisioning_api::names::{ANNOTATION_STEP_ID, LABEL_OWNER_UID, LABEL_RUN, WORKSPACE_NAME};
use provisioning_api::steps::{StepPhase, StepStatus};
use provisioning_api::{BatchWorkflow, ProviderConfig, Server, Taskserv, Workspace};
use provisioning_e2e::faults::{process_of, restarts, runs_until_wiped, sandbox_of};
use provisioning_e2e::{Case, Kind, STATUS_BY_HAND, case, describe, is_ready, step};
use serde_json::{Value, json};

/// Its machine gets redis, and the faults; the other one shows that a fault hits nothing else.
const SERVERS: [&str; 2] = ["blue-heron", "grey-curlew"];
const CACHE: &str = "Taskserv cache";
const INSTALL: &str = "install/blue-heron";
const CHECK: &str = "check/blue-heron";
const RUNNER: &str = "/provisioning-runner";
/// How long a run may take, faults and back-off included.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the holder of a claim that was lost without a word may still act; times in status are cut to the second.
const HOLDER_LOSS: jiff::SignedDuration = jiff::SignedDuration::from_secs(89);

/// Held shared by a run that must not meet a fault of another one; alone by a fault that hits them all.
static CLUSTER: RwLock<()> = RwLock::new(());

/// The end of the run without a fault, run once by the first test that asks. `None`: it failed.
static UNDISTURBED: LazyLock<Option<Value>> = LazyLock::new(|| {
    let run = || shared("a_run_without_a_fault", |case: Case| async move { ready(&case, &Hits::default()).await });
    catch_unwind(AssertUnwindSafe(run)).ok()
});

#[track_caller]
fn assert_same_end(found: &Value) {
    let Some(expected) = UNDISTURBED.as_ref() else { panic!("the run without a fault failed") };
    let differences = differences("", found, expected);
    assert!(differences.is_empty(), "another end than without the fault:\n{}", differences.join("\n"));
}

/// Runs the workflow to its end with a body that hurts it; other such runs may go on meanwhile.
fn shared<F>(name: &str, body: impl FnOnce(Case) -> F + Send + 'static) -> Value
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let _held = CLUSTER.read().unwrap_or_else(PoisonError::into_inner);
    run(name, body)
}

/// As [`shared`], with the cluster for itself.
fn alone<F>(name: &str, body: impl FnOnce(Case) -> F + Send + 'static) -> Value
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let _held = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
    run(name, body)
}

fn run<F>(name: &str, body: impl FnOnce(Case) -> F + Send + 'static) -> Value
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let found = Arc::new(Mutex::new(Value::Null));
    let result = found.clone();
    case(name, move |case: Case| async move {
        case.apply_yaml(include_str!("crash/marsh.yaml")).await?;
        let end = body(case).await?;
        *result.lock().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(())
    });
    found.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes the Workspace away past its finalizer, and makes another one.
async fn force_away(case: &Case) -> Result<()> {
    case.delete::<Workspace>(WORKSPACE_NAME).await?;
    case.patch::<Workspace>(WORKSPACE_NAME, &serde_json::json!({"metadata": {"finalizers": null}})).await?;
    case.gone::<Workspace>(WORKSPACE_NAME, PATIENCE).await?;
    case.apply_yaml(include_str!("crash/marsh.yaml")).await
}

/// Waits until the workflow is Ready, settles the account, and gives the end.
async fn ready(case: &Case, hits: &Hits) -> Result<Value> {
    at_rest(case, PATIENCE, || settled(case, &SERVERS), || end(case), || settle(case, hits)).await
}

/// Waits until all is settled, takes the account, and gives the end. An operator that heard nothing itself may have asked
/// for one more look at a server: then the account was taken in the middle of it, and is taken again.
async fn at_rest<S, E, A>(
    case: &Case,
    patience: Duration,
    settled: impl Fn() -> S,
    end: impl Fn() -> E,
    account: impl Fn() -> A,
) -> Result<Value>
where
    S: Future<Output = Result<Result<(), String>>>,
    E: Future<Output = Result<Value>>,
    A: Future<Output = Result<()>>,
{
    for _ in 0..5 {
        case.until("everything is Ready and true", patience, &settled).await?;
        let before = end().await?;
        let account = account().await;
        if settled().await?.is_ok() && end().await? == before {
            return account.map(|()| before);
        }
    }
    anyhow::bail!("it does not come to rest")
}

/// All objects but Clusters, which not every case has, are Ready, nothing is open any more, and the addresses are those of the machines.
async fn settled(case: &Case, servers: &[&str]) -> Result<Result<(), String>> {
    let mut wrong = unready::<BatchWorkflow>(case).await?;
    wrong.extend(unready::<ProviderConfig>(case).await?);
    wrong.extend(unready::<Server>(case).await?);
    wrong.extend(unready::<Taskserv>(case).await?);
    if wrong.is_empty() {
        wrong = moved(case, servers).await?;
    }
    Ok(if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) })
}

/// Servers whose address is not their machine's: one that moved is looked at, beside the workflow.
async fn moved(case: &Case, servers: &[&str]) -> Result<Vec<String>> {
    let mut moved = Vec::new();
    for server in servers {
        let machine = case.machine(server).await?;
        let (told, true_one) = (case.address(server).await?, machine.status.and_then(|status| status.pod_ip));
        if Some(&told) != true_one.as_ref() {
            moved.push(format!("Server {server} has address {told}, its machine {true_one:?}"));
        }
    }
    Ok(moved)
}

/// What is not Ready yet, or has open steps.
async fn unready<K: Kind>(case: &Case) -> Result<Vec<String>> {
    let objects = case.api::<K>().list(&Default::default()).await?.items;
    if objects.is_empty() {
        return Ok(vec![format!("no {}", K::kind(&()))]);
    }
    let unready = objects.iter().filter(|object| !is_ready(*object) || object.steps().iter().any(StepStatus::is_open));
    Ok(unready.map(describe).collect())
}

/// Makes sure that the install was done by a second run: the fault hit the first one.
async fn second_run(case: &Case) -> Result<()> {
    let taskserv = case.get::<Taskserv>("cache").await?;
    ensure!(step(&taskserv, INSTALL).is_some_and(|step| step.run == 2), "not hit once: {}", describe(&taskserv));
    Ok(())
}

fn is_at(found: Option<&StepStatus>, phase: StepPhase) -> bool {
    found.is_some_and(|step| step.phase == phase && step.is_open())
}

/// Kills the operator while this step is open, and makes sure that it was.
async fn kill_operator<K: Kind>(case: &Case, hits: &mut Hits, name: &str, id: &str, phase: StepPhase) -> Result<()> {
    let operator = case.cluster.operator().await?;
    let what = format!("{id} is {phase:?}");
    case.moment::<K>(name, &what, |object| is_at(step(object, id), phase)).await?;
    operator.kill().await?;
    let object = case.get::<K>(name).await?;
    ensure!(is_at(step(&object, id), phase), "{id} was over before the operator died: {:#?}", step(&object, id));
    hits.note(case).await?;
    hits.operators += 1;
    case.cluster.replace_where_backed_off(&operator).await
}

async fn epoch(case: &Case) -> Result<i64> {
    Ok(case.get::<Workspace>(WORKSPACE_NAME).await?.status.map_or(0, |status| status.epoch))
}

/// Steps remember a later epoch than the Workspace has now, and a new leader still is the newest.
async fn the_workspace_alone_is_restored(case: &Case, before: i64) -> Result<()> {
    let restore = async {
        let by_hand = json!({"metadata": {"annotations": {STATUS_BY_HAND: "restored"}}});
        case.patch::<Workspace>(WORKSPACE_NAME, &by_hand).await?;
        let restored = Patch::Merge(json!({"status": {"epoch": 1}}));
        anyhow::Ok(case.api::<Workspace>().patch_status(WORKSPACE_NAME, &PatchParams::default(), &restored).await?)
    };
    case.cluster.scale_operator(0).await?;
    let restored = restore.await;
    case.cluster.scale_operator(1).await?;
    restored?;
    case.reconcile::<Server>(SERVERS[0]).await?;
    let looked_again = |server: &Server| {
        is_ready(server) && step(server, "observe").is_some_and(|observe| !observe.is_open() && observe.epoch > before)
    };
    case.wait_for::<Server>(SERVERS[0], "Ready of a later epoch", PATIENCE, looked_again).await?;
    case.rule("a Workspace that alone is restored gets an epoch above what its steps remember");
    Ok(())
}

/// The executor of the install, while the script runs on the server.
async fn installing(case: &Case, hits: &mut Hits) -> Result<Pod> {
    case.script_runs(SERVERS[0], "install").await?;
    let taskserv = case.get::<Taskserv>("cache").await?;
    let open = step(&taskserv, INSTALL).filter(|step| step.is_open()).context("install is over already")?;
    hits.steps.push(format!("{CACHE} {INSTALL}"));
    let pods = Api::<Pod>::namespaced(case.cluster.client.clone(), &case.namespace).list(&Default::default()).await?;
    let uid = taskserv.uid().unwrap_or_default();
    let pod = pods.items.into_iter().find(|pod| {
        pod.labels().get(LABEL_OWNER_UID) == Some(&uid)
            && pod.annotations().get(ANNOTATION_STEP_ID).is_some_and(|id| id == INSTALL)
            && pod.labels().get(LABEL_RUN) == Some(&open.run.to_string())
    });
    pod.context("install has no executor")
}

async fn remember(case: &Case) -> Result<()> {
    ensure!(redis(case).await?.ask(&["SET", "kept", &case.namespace]).await? == ["OK"]);
    Ok(())
}

/// Waits until redis is back, wherever it is now; then its first answer counts.
async fn recall(case: &Case) -> Result<()> {
    let found = case.until("redis is back", PATIENCE, || async {
        let Ok(mut redis) = redis(case).await else { return Ok(Err("nobody listens".to_owned())) };
        Ok(redis.ask(&["GET", "kept"]).await.map_err(|error| format!("{error:?}")))
    });
    let found = found.await?;
    ensure!(found == [case.namespace.clone()], "redis came back with {found:?}");
    Ok(())
}

/// `platform stop`, then `start`: the same objects and machines, with their disks.
async fn stop_and_start(case: &Case, hits: &mut Hits) -> Result<()> {
    let had = uids(case).await?;
    let machines = machines(case).await?;
    for server in SERVERS {
        case.on_server(server, "echo \"$(hostname)\" >>/srv/feathers").await?;
    }
    let feathers = feathers(case).await?;
    hits.note(case).await?;
    case.cluster.provisioning(&["platform", "stop"], &[]).await?.success()?;
    ensure!(case.cluster.platform_status().await?["phase"] == "Stopped", "the platform is not stopped");
    case.cluster.provisioning(&["platform", "start"], &[]).await?.success()?;
    case.cluster.operator().await?;
    ensure!(uids(case).await? == had, "other objects than before");
    ensure!(self::machines(case).await? == machines, "other machines than before");
    ensure!(self::feathers(case).await? == feathers, "other disks than before");
    Ok(())
}

/// Name and uid of each machine's Pod.
async fn machines(case: &Case) -> Result<Vec<(String, Option<String>)>> {
    let mut machines = Vec::new();
    for server in SERVERS {
        let pod = case.machine(server).await?;
        machines.push((pod.name_any(), pod.uid()));
    }
    Ok(machines)
}

async fn feathers(case: &Case) -> Result<Vec<String>> {
    let mut feathers = Vec::new();
    for server in SERVERS {
        let file = case.disk(server).await?.join("srv/feathers");
        feathers.push(std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?);
    }
    Ok(feathers)
}

/// Faults of one run: side by side. The tests of a module come before those of the next one.
mod a_fault_of_one_run {
    use super::*;

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_run_without_one_is_as_planned() {
        let end = UNDISTURBED.clone().expect("the run without a fault failed");
        assert_eq!(end["answers"][2], serde_json::json!(["3 eggs"]));
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_job_deleted_in_mid_install_leaves_one_install() {
        let end = shared("a_job_deleted_in_mid_install_leaves_one_install", |case: Case| async move {
            let mut hits = Hits::default();
            let executor = installing(&case, &mut hits).await?;
            let jobs = Api::<Job>::namespaced(case.cluster.client.clone(), &case.namespace);
            jobs.delete(&executor.name_any(), &DeleteParams::background()).await?;
            let end = ready(&case, &hits).await?;
            second_run(&case).await?;
            Ok(end)
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn an_executor_killed_in_mid_install_leaves_one_install() {
        let end = shared("an_executor_killed_in_mid_install_leaves_one_install", |case: Case| async move {
            let mut hits = Hits::default();
            let executor = installing(&case, &mut hits).await?;
            process_of(&executor, RUNNER).context("the executor has no process")?.kill().await?;
            let end = ready(&case, &hits).await?;
            second_run(&case).await?;
            Ok(end)
        });
        assert_same_end(&end);
    }

    /// This one takes longer: the holder of the claim is lost without a word, and may be inside a call for 90 seconds.
    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn an_executor_pod_deleted_by_force_is_waited_for_and_leaves_one_install() {
        let end =
            shared("an_executor_pod_deleted_by_force_is_waited_for_and_leaves_one_install", |case: Case| async move {
                let mut hits = Hits::default();
                let executor = installing(&case, &mut hits).await?;
                let before = jiff::Timestamp::now();
                let delete = ["delete", "pod", &executor.name_any(), "--grace-period=0", "--force"];
                case.kubectl(&delete, "").await?.success()?;
                let end = ready(&case, &hits).await?;
                second_run(&case).await?;
                let taskserv = case.get::<Taskserv>("cache").await?;
                let second = step(&taskserv, INSTALL).and_then(|step| step.started_at.as_ref()).map(|time| time.0);
                let earliest = before + HOLDER_LOSS;
                ensure!(second.is_some_and(|at| at >= earliest), "run 2 began at {second:?}, not before {earliest}");
                Ok(end)
            });
        assert_same_end(&end);
    }

    /// The runner hears nothing any more, and takes the script up again where it is.
    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_server_that_is_not_heard_in_mid_install_completes_it_once() {
        let end = shared("a_server_that_is_not_heard_in_mid_install_completes_it_once", |case: Case| async move {
            let hits = Hits::default();
            let executor = installing(&case, &mut Hits::default()).await?;
            let machine = sandbox_of(&case.machine(SERVERS[0]).await?).context("the machine has no sandbox")?;
            let cut = machine.cut_off_ssh().await?;
            let pods = Api::<Pod>::namespaced(case.cluster.client.clone(), &case.namespace);
            let lost = case.until("the runner has lost the server", PATIENCE, || async {
                let log = pods.logs(&executor.name_any(), &LogParams::default()).await?;
                Ok(if log.contains("trying again with a new session") { Ok(()) } else { Err(log) })
            });
            lost.await?;
            drop(cut);
            ready(&case, &hits).await
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_server_rebooted_in_mid_install_completes_it_once() {
        let end = shared("a_server_rebooted_in_mid_install_completes_it_once", |case: Case| async move {
            let mut hits = Hits { cuts: 1, ..Hits::default() };
            installing(&case, &mut hits).await?;
            case.reboot(SERVERS[0]).await?;
            ready(&case, &hits).await
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_rebooted_server_has_its_redis_with_its_data() {
        let end = shared("a_rebooted_server_has_its_redis_with_its_data", |case: Case| async move {
            let hits = Hits::default();
            ready(&case, &hits).await?;
            remember(&case).await?;
            case.reboot(SERVERS[0]).await?;
            recall(&case).await?;
            ready(&case, &hits).await
        });
        assert_same_end(&end);
    }
}

/// Faults of the whole cluster: one after the other.
mod b_fault_of_the_cluster {
    use super::*;

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn an_operator_killed_while_servers_are_made_goes_on() {
        let end = alone("an_operator_killed_while_servers_are_made_goes_on", |case: Case| async move {
            let mut hits = Hits::default();
            let is_led = |workspace: &Workspace| workspace.status.as_ref().is_some_and(|status| status.epoch > 0);
            let led = case.wait_for::<Workspace>(WORKSPACE_NAME, "led", PATIENCE, is_led).await?;
            let first = led.status.map_or(0, |status| status.epoch);
            for id in ["create", "observe", "reach"] {
                kill_operator::<Server>(&case, &mut hits, SERVERS[0], id, StepPhase::Running).await?;
            }
            let end = ready(&case, &hits).await?;
            let epoch = epoch(&case).await?;
            ensure!(epoch >= first + 3, "three more leaders, and the epoch went from {first} to {epoch}");
            the_workspace_alone_is_restored(&case, epoch).await?;
            Ok(end)
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn an_operator_killed_while_a_service_comes_and_goes_goes_on() {
        let end = alone("an_operator_killed_while_a_service_comes_and_goes_goes_on", |case: Case| async move {
            let mut hits = Hits::default();
            for id in [INSTALL, CHECK] {
                kill_operator::<Taskserv>(&case, &mut hits, "cache", id, StepPhase::Running).await?;
            }
            let end = ready(&case, &hits).await?;
            let disk = case.disk(SERVERS[0]).await?;
            let seen = tokio::spawn(async move { runs_until_wiped(&disk).await });
            case.delete::<BatchWorkflow>("marsh").await?;
            kill_operator::<Taskserv>(&case, &mut hits, "cache", INSTALL, StepPhase::Undoing).await?;
            case.gone::<BatchWorkflow>("marsh", PATIENCE).await?;
            nothing_left(&case).await?;
            undone(&seen.await??)?;
            Ok(end)
        });
        assert_same_end(&end);
    }

    /// It sleeps through its replacement, wakes in the middle of the other one's work, and may do nothing more.
    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_leader_frozen_past_its_replacement_does_nothing_more() {
        let end = alone("a_leader_frozen_past_its_replacement_does_nothing_more", |case: Case| async move {
            let mut hits = Hits { operators: 1, ..Hits::default() };
            case.cluster.scale_operator(2).await?;
            let run = async {
                installing(&case, &mut hits).await?;
                let leader = case.cluster.leader().await?;
                let frozen = leader.freeze().await?;
                hits.note(&case).await?;
                case.cluster.replaced(&leader).await?;
                drop(frozen);
                let end = ready(&case, &hits).await?;
                case.cluster.started_again(&leader).await?;
                Ok(end)
            };
            let run: Result<Value> = run.await;
            case.cluster.scale_operator(1).await?;
            run
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn an_operator_without_network_gives_up_its_leadership_and_goes_on_later() {
        let name = "an_operator_without_network_gives_up_its_leadership_and_goes_on_later";
        let end = alone(name, |case: Case| async move {
            let mut hits = Hits { operators: 1, ..Hits::default() };
            installing(&case, &mut hits).await?;
            let operator = case.cluster.operator().await?;
            let sandbox = sandbox_of(&operator.pod).context("the operator has no sandbox")?;
            let cut = sandbox.cut_off().await?;
            hits.note(&case).await?;
            case.cluster.started_again(&operator).await?;
            drop(cut);
            case.cluster.replace_where_backed_off(&operator).await?;
            ready(&case, &hits).await
        });
        assert_same_end(&end);
    }

    /// Its epoch is lost, but what was done under it is not: the new one is higher than all that steps remember.
    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_workspace_forced_away_and_made_again_goes_on() {
        alone("a_workspace_forced_away_and_made_again_goes_on", |case: Case| async move {
            ready(&case, &Hits::default()).await?;
            let (before, had) = (epoch(&case).await?, uids(&case).await?);
            let old = case.get::<Workspace>(WORKSPACE_NAME).await?.status.and_then(|status| status.ssh_public_key);
            case.cluster.scale_operator(0).await?;
            let forced = force_away(&case).await;
            // Whatever came of it: the tests that follow need an operator.
            case.cluster.scale_operator(1).await?;
            forced?;
            case.ready::<Workspace>(WORKSPACE_NAME).await?;
            ensure!(epoch(&case).await? > before, "the epoch fell from {before} to {}", epoch(&case).await?);
            let new = case.get::<Workspace>(WORKSPACE_NAME).await?.status.and_then(|status| status.ssh_public_key);
            ensure!(new == old, "the servers trust {old:?}, the new Workspace holds {new:?}");
            let mut egret = case.server("white-egret");
            egret["spec"]["providerConfigRef"]["name"] = serde_json::json!("shed");
            case.apply(&egret).await?;
            case.ready::<Server>("white-egret").await?;
            // The key still opens the machines that were made before.
            case.apply(&case.redis_on("late", &[SERVERS[1]])).await?;
            case.wait_for::<Taskserv>("late", "Ready", PATIENCE, is_ready).await?;
            case.until("everything is Ready and true", PATIENCE, || settled(&case, &SERVERS)).await?;
            let has = uids(&case).await?;
            let lost = had.iter().filter(|(name, uid)| !name.starts_with("Workspace") && has.get(*name) != Some(uid));
            ensure!(lost.clone().next().is_none(), "other objects than before: {:?}", lost.collect::<Vec<_>>());
            Ok(Value::Null)
        });
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_kubelet_killed_in_mid_install_changes_nothing() {
        let end = alone("a_kubelet_killed_in_mid_install_changes_nothing", |case: Case| async move {
            installing(&case, &mut Hits::default()).await?;
            case.cluster.kill_service("kubelet").await?;
            let end = ready(&case, &Hits::default()).await?;
            for server in SERVERS {
                ensure!(restarts(&case.machine(server).await?) == 0, "{server} was started again");
            }
            Ok(end)
        });
        assert_same_end(&end);
    }

    #[test]
    #[ignore = "needs a cluster: scripts/e2e"]
    fn a_platform_stopped_in_mid_install_and_started_has_all_it_had() {
        let end = alone("a_platform_stopped_in_mid_install_and_started_has_all_it_had", |case: Case| async move {
            let mut hits = Hits { cuts: 1, operators: 1, ..Hits::default() };
            installing(&case, &mut hits).await?;
            stop_and_start(&case, &mut hits).await?;
            ready(&case, &hits).await?;
            remember(&case).await?;
            stop_and_start(&case, &mut hits).await?;
            recall(&case).await?;
            ready(&case, &hits).await
        });
        assert_same_end(&end);
    }
}
