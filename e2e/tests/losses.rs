//! What is lost behind the operator's back, by hand or with a store that was restored: it is noticed, told, and gone on from.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::{ANNOTATION_ABANDON, WORKSPACE_NAME};
use provisioning_api::{Server, Taskserv, Workspace};
use provisioning_e2e::{Case, Kind, STATUS_BY_HAND, case, condition, is_ready};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(240);
/// A machine that does not answer is looked at after the second knock.
const NOTICED: Duration = Duration::from_secs(120);
/// A deletion that has nothing to undo.
const SOON: Duration = Duration::from_secs(45);

fn has_reason(object: &impl Kind, reason: &str) -> bool {
    condition(object, types::STALLED).is_some_and(|stalled| stalled.status == "True" && stalled.reason == reason)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_lost_epoch_a_lost_machine_and_what_is_abandoned() {
    case("a_lost_epoch_a_lost_machine_and_what_is_abandoned", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("heron")).await?;
        case.apply(&case.redis_on("cache", &["heron"])).await?;
        case.wait_for::<Taskserv>("cache", "Ready", PATIENCE, is_ready).await?;
        the_epoch_is_raised_anew(&case).await?;
        what_is_not_blocked_is_not_abandoned(&case).await?;
        what_is_blocked_is_abandoned_when_asked(&case).await?;
        nothing_is_uninstalled_from_a_machine_that_is_gone(&case).await
    });
}

/// Whatever the Workspace's status was when it was lost, executors of this leader may act again.
async fn the_epoch_is_raised_anew(case: &Case) -> Result<()> {
    let before = case.get::<Workspace>(WORKSPACE_NAME).await?.status.context("no status")?;
    case.patch::<Workspace>(WORKSPACE_NAME, &json!({"metadata": {"annotations": {STATUS_BY_HAND: "wiped"}}})).await?;
    let wipe = Patch::Merge(json!({"status": null}));
    let api = case.api::<Workspace>();
    api.patch_status(WORKSPACE_NAME, &PatchParams::default(), &wipe).await?;
    case.apply(&case.server("knot")).await?;
    case.wait_for::<Server>("knot", "Ready", PATIENCE, is_ready).await?;
    let after = case.get::<Workspace>(WORKSPACE_NAME).await?.status.context("no status")?;
    ensure!(after.epoch > before.epoch, "epoch {} after {}", after.epoch, before.epoch);
    ensure!(after.ssh_public_key == before.ssh_public_key, "another key: {:?}", after.ssh_public_key);
    case.rule("a Workspace whose status was wiped gets a higher epoch and its key back, and runs go on");
    Ok(())
}

async fn what_is_not_blocked_is_not_abandoned(case: &Case) -> Result<()> {
    let machine = case.machine("knot").await?.name_any();
    case.patch::<Server>("knot", &json!({"metadata": {"annotations": {ANNOTATION_ABANDON: "true"}}})).await?;
    case.delete::<Server>("knot").await?;
    case.gone::<Server>("knot", PATIENCE).await?;
    let left = case.site_pods().await?;
    ensure!(!left.iter().any(|pod| pod.name_any() == machine), "{machine} was left behind");
    case.rule("a deletion that is not blocked is not abandoned, although the annotation is there already");
    Ok(())
}

async fn what_is_blocked_is_abandoned_when_asked(case: &Case) -> Result<()> {
    let uid = case.get::<Taskserv>("cache").await?.uid().unwrap_or_default();
    case.on_server("heron", &format!("truncate --size 9 /var/lib/provisioning/{uid}/install+heron.json")).await?;
    case.delete::<Taskserv>("cache").await?;
    let is_blocked = |cache: &Taskserv| has_reason(cache, reasons::DELETION_BLOCKED);
    let blocked = case.wait_for::<Taskserv>("cache", "Stalled: DeletionBlocked", PATIENCE, is_blocked).await?;
    let words = condition(&blocked, types::STALLED).map(|stalled| stalled.message.clone()).unwrap_or_default();
    let all = ["undo of step 'install/heron' failed", "move that file away", ANNOTATION_ABANDON];
    ensure!(all.iter().all(|part| words.contains(part)), "{words}");
    case.patch::<Taskserv>("cache", &json!({"metadata": {"annotations": {ANNOTATION_ABANDON: "true"}}})).await?;
    case.gone::<Taskserv>("cache", SOON).await?;
    case.on_server("heron", "dpkg-query -W redis-server").await?;
    case.rule("a blocked deletion names its cause and both ways out; abandoned, what it could not undo stays");
    case.apply(&case.redis_on("cache", &["heron"])).await?;
    case.wait_for::<Taskserv>("cache", "Ready", PATIENCE, is_ready).await?;
    case.rule("the same is installed over it again");
    Ok(())
}

async fn nothing_is_uninstalled_from_a_machine_that_is_gone(case: &Case) -> Result<()> {
    let machine = case.machine("heron").await?.name_any();
    let pods = Api::<Pod>::namespaced(case.cluster.client.clone(), &case.cluster.site);
    pods.delete(&machine, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
    case.reconcile::<Server>("heron").await?;
    let is_gone = |server: &Server| has_reason(server, reasons::SERVER_GONE);
    case.wait_for::<Server>("heron", "Stalled: ServerGone", NOTICED, is_gone).await?;
    case.delete::<Taskserv>("cache").await?;
    case.gone::<Taskserv>("cache", SOON).await?;
    case.rule("a Taskserv on a machine that is gone has nothing to uninstall there");
    Ok(())
}
