//! The shop: many servers and services and a cluster of them in one workflow, proved from outside.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::StepPhase;
use provisioning_api::{BatchWorkflow, Cluster};
use provisioning_e2e::{Case, case, describe, is_ready, step};
use serde_json::json;
use tokio::process::{Child, Command};

/// Three machines and seven services, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(420);
/// A stopped service is seen by the second or third look at it.
const NOTICED: Duration = Duration::from_secs(90);

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_shop_is_proved_from_outside_and_a_stopped_nginx_is_noticed() {
    case("the_shop_is_proved_from_outside_and_a_stopped_nginx_is_noticed", |case: Case| async move {
        case.open_shop().await?;
        let drawn = tempfile::NamedTempFile::new()?;
        let drawing = draw_a_tree(&case, drawn.path())?;
        case.wait_for::<BatchWorkflow>("shop", "Ready", PATIENCE, is_ready).await?;
        case.rule("three servers, five services and a cluster are Ready");
        the_tree_was_drawn_as_the_shop_grew(&case, drawing, drawn.path()).await?;
        let workflow = case.get::<BatchWorkflow>("shop").await?;
        let skipped = step(&workflow, "metrics").is_some_and(|step| step.phase == StepPhase::Skipped);
        ensure!(skipped, "metrics is not Skipped: {}", describe(&workflow));
        case.rule("the part whose condition is false is Skipped");
        let most = most_at_once(&workflow);
        ensure!((2..=3).contains(&most), "{most} steps at once instead of 2 or 3: {}", describe(&workflow));
        case.rule("several steps ran at once, and never more than its parallelism");
        let words = case.prove_shop().await?.map_err(anyhow::Error::msg)?;
        ensure!(words.lines().count() == 3, "{words}");
        case.rule("both web servers in turn, a row, a value");
        a_dump_is_written_once_for_each_time_that_it_is_asked_for(&case).await?;
        a_stopped_nginx_is_noticed(&case).await?;
        Ok(())
    });
}

/// `tree --watch` on a terminal of its own; what it writes there goes to a file.
fn draw_a_tree(case: &Case, file: &Path) -> Result<Child> {
    let program = case.cluster.provisioning.display();
    let line = format!("{program} -n {} --no-color tree batchworkflow shop --watch", case.namespace);
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--flush", "--command", &line]).arg(file);
    terminal.env("KUBECONFIG", &case.cluster.kubeconfig).env("LC_ALL", "C.UTF-8");
    terminal.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    terminal.spawn().context("script, of util-linux")
}

async fn the_tree_was_drawn_as_the_shop_grew(case: &Case, mut drawing: Child, file: &Path) -> Result<()> {
    let read = || async {
        let text = tokio::fs::read(file).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let frames: Vec<Vec<String>> = text.split("\u{1b}[H").skip(1).map(lines).collect();
        anyhow::Ok(frames)
    };
    let last_is = |frame: &Vec<String>| frame.first().is_some_and(|root| tells_ready(root)) && !has(frame, "●");
    case.until("the tree is drawn as Ready", NOTICED, || async {
        Ok(read().await?.last().filter(|last| last_is(last)).map(drop).ok_or_else(|| "no such drawing".to_owned()))
    })
    .await?;
    let frames = read().await?;
    let root = frames.first().and_then(|frame| frame.first()).context("an empty drawing")?;
    ensure!(root.starts_with("batchworkflow/shop") && !tells_ready(root), "{root}");
    // A step of an object that a step of the workflow made.
    ensure!(frames.iter().any(|frame| has(frame, "─ ● install/")), "no step of a child was drawn while it ran");
    let wait = |frame: &Vec<String>| frame.iter().filter(|line| line.contains("○ ")).count();
    ensure!(frames.iter().any(|frame| wait(frame) > 0), "nothing was drawn that waits");
    let last = frames.last().context("no drawing")?;
    ensure!(has(last, "✓ web") && has(last, "– metrics") && wait(last) == 0, "{}", last.join("\n"));
    ensure!(drawing.try_wait()?.is_none(), "it ended by itself");
    drawing.kill().await?;
    case.rule(&format!(
        "tree --watch drew it {} times as it grew, with the steps of what its steps made",
        frames.len()
    ));
    Ok(())
}

/// Of the line of an object: the first one drawn may be `not looked at yet` or `not Ready (Running): …`.
fn tells_ready(line: &str) -> bool {
    line.contains(" Ready") && !line.contains(" not Ready")
}

fn has(frame: &[String], part: &str) -> bool {
    frame.iter().any(|line| line.contains(part))
}

/// The lines of a drawing, without what moves the cursor.
fn lines(frame: &str) -> Vec<String> {
    let plain = ["\u{1b}[0m", "\u{1b}[K", "\u{1b}[J", "\u{1b}[?7l", "\u{1b}[?7h"]
        .iter()
        .fold(frame.to_owned(), |text, sequence| text.replace(sequence, ""));
    plain.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A workflow that runs a script of `postgres` where it is installed.
async fn a_dump_is_written_once_for_each_time_that_it_is_asked_for(case: &Case) -> Result<()> {
    let nightly = |keep: u32| {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": {"name": "nightly"},
            "spec": {"steps": [{"name": "dump", "timeoutSeconds": 120, "run": {"extension": {"name": "postgres"},
                "script": "dump", "servers": ["robin"], "parameters": {"database": "shop", "keep": keep}}}]}})
    };
    let ends = || async {
        let runs = case.server_runs("robin").await?;
        anyhow::Ok(runs.iter().filter(|run| run.script == "dump" && run.event == "end").count())
    };
    for (keep, written) in [(2, 1), (3, 2)] {
        case.apply(&nightly(keep)).await?;
        let is_done = |workflow: &BatchWorkflow| is_ready(workflow) && is_observed(workflow);
        case.wait_for::<BatchWorkflow>("nightly", "Ready", NOTICED, is_done).await?;
        ensure!(ends().await? == written, "{} dumps were written, not {written}", ends().await?);
    }
    let workflow = case.get::<BatchWorkflow>("nightly").await?;
    let file = step(&workflow, "dump").and_then(|step| step.outputs.get("file").cloned());
    let file = file.with_context(|| format!("no output: {}", describe(&workflow)))?;
    let list = case.on_server("robin", &format!("runuser -u postgres -- pg_restore --list {file}")).await?;
    ensure!(list.contains("TABLE public"), "{list}");
    case.rule("a run step writes a dump that pg_restore reads, and a changed one writes another");
    let applied = case.get::<BatchWorkflow>("nightly").await?.resource_version();
    case.reconcile::<BatchWorkflow>("nightly").await?;
    let heard = |workflow: &BatchWorkflow| {
        is_ready(workflow) && workflow.resource_version() != applied && is_observed(workflow)
    };
    case.wait_for::<BatchWorkflow>("nightly", "Ready as before", NOTICED, heard).await?;
    ensure!(ends().await? == 2, "it was run again though nothing had changed");
    case.rule("unchanged it is not run again, also where a new try is asked for");
    case.delete::<BatchWorkflow>("nightly").await?;
    case.gone::<BatchWorkflow>("nightly", NOTICED).await
}

fn is_observed(workflow: &BatchWorkflow) -> bool {
    workflow.run_status().is_some_and(|status| Some(status.observed_generation) == workflow.metadata.generation)
}

/// How many steps of a workflow were open at the same time, by the times that it tells.
fn most_at_once(workflow: &BatchWorkflow) -> usize {
    let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let times = steps.iter().filter_map(|step| Some((step.started_at.as_ref()?.0, step.finished_at.as_ref()?.0)));
    let times: Vec<_> = times.collect();
    let open_at = |at| times.iter().filter(|(start, end)| *start <= at && at < *end).count();
    times.iter().map(|(start, _)| open_at(*start)).max().unwrap_or(0)
}

async fn a_stopped_nginx_is_noticed(case: &Case) -> Result<()> {
    case.on_server("wren", "systemctl stop nginx").await?;
    const WORDS: &str = "Server 'wren': probe 'health' (GET /health on port 8081): connection refused";
    let cluster = |cluster: &Cluster| !is_ready(cluster) && describe(cluster).contains(WORDS);
    case.wait_for::<Cluster>("web", "not Ready, in the words of wren's probe", NOTICED, cluster).await?;
    let workflow = |workflow: &BatchWorkflow| !is_ready(workflow) && describe(workflow).contains(WORDS);
    case.wait_for::<BatchWorkflow>("shop", "not Ready, in the words of wren's probe", NOTICED, workflow).await?;
    case.rule("a stopped nginx shows in the Cluster and in the workflow, in the words of its probe");
    let complaint = case.prove_shop().await?.err().context("the proof passes without one nginx")?;
    ensure!(complaint.contains("not two hosts in turn"), "{complaint}");
    case.rule("the proof fails without it");
    case.on_server("wren", "systemctl start nginx").await?;
    case.wait_for::<BatchWorkflow>("shop", "Ready again", NOTICED, is_ready).await?;
    let again = case.until("the proof passes again", NOTICED, || async { case.prove_shop().await });
    again.await?;
    case.rule("started again it is well again, with nothing installed twice");
    for (object, taskserv) in [("web-pages", "install/wren"), ("web-front", "install/robin")] {
        let found = case.get::<provisioning_api::Taskserv>(object).await?;
        ensure!(step(&found, taskserv).is_some_and(|step| step.run == 1), "{}", describe(&found));
    }
    Ok(())
}
