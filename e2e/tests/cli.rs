//! The command line against a real API server: objects made, compared, changed and deleted by it; logs of what failed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use provisioning_api::steps::StepPhase;
use provisioning_api::{Server, Taskserv};
use provisioning_e2e::{Case, case, describe, step};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(240);

/// Runs a line of words in the test's namespace; gives what it printed where it ended with this code.
async fn run(case: &Case, line: &str, code: i32) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = case.provisioning(&words).await?;
    ensure!(output.code == code, "{line}: {} instead of {code}: {}{}", output.code, output.stdout, output.stderr);
    Ok(if code == 0 || code == 1 { output.stdout } else { output.stderr })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a file's name")
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_server_is_made_compared_changed_and_deleted() {
    case("a_server_is_made_compared_changed_and_deleted", |case: Case| async move {
        case.workspace().await?;
        let flags = "heron --zone local-a --labels tier=web --suspend";
        ensure!(run(&case, &format!("server create {flags}"), 0).await? == "server/heron created\n");
        let again = run(&case, &format!("server create {flags}"), 5).await?;
        ensure!(again.contains("already exists"), "{again}");
        case.rule("create makes a new object, and leaves one that is there alone");
        ensure!(run(&case, "server list -o name -l tier=web", 0).await? == "server/heron\n");
        let shown: Value = serde_json::from_str(&run(&case, "srv describe heron -o json", 0).await?)?;
        let generated = run(&case, &format!("generate server {flags}"), 0).await?;
        let generated: Value = serde_saphyr::from_str(&generated)?;
        for (name, value) in generated["spec"].as_object().context("spec")? {
            ensure!(shown["spec"][name] == *value, "spec.{name} is {}, not {value}", shown["spec"][name]);
        }
        case.rule("what is there is what generate prints");

        let folder = tempfile::tempdir()?;
        let file = folder.path().join("heron.yaml");
        std::fs::write(&file, serde_saphyr::to_string(&generated)?)?;
        let file = text(&file)?;
        ensure!(run(&case, &format!("diff -f {file}"), 0).await?.is_empty(), "the same is said to differ");
        let mut orphan = generated.clone();
        orphan["spec"]["deletionPolicy"] = "Orphan".into();
        std::fs::write(file, serde_saphyr::to_string(&orphan)?)?;
        let difference = run(&case, &format!("diff -f {file}"), 1).await?;
        ensure!(difference.contains("-  deletionPolicy: Delete\n+  deletionPolicy: Orphan\n"), "{difference}");
        let before = case.get::<Server>("heron").await?;
        ensure!(format!("{:?}", before.spec.deletion_policy) == "Delete", "diff has changed it");
        let mut moved = generated.clone();
        moved["spec"]["zone"] = "local-b".into();
        std::fs::write(file, serde_saphyr::to_string(&moved)?)?;
        let refused = run(&case, &format!("diff -f {file}"), 5).await?;
        ensure!(refused.contains("spec.zone is immutable"), "{refused}");
        case.rule("diff tells a change, no change, and what would be refused, and changes nothing");

        // What create, resume and apply write fits together: all three are this program.
        run(&case, "resume server heron", 0).await?;
        run(&case, "suspend server heron", 0).await?;
        std::fs::write(file, serde_saphyr::to_string(&orphan)?)?;
        run(&case, &format!("apply -f {file}"), 0).await?;
        std::fs::write(file, serde_saphyr::to_string(&generated)?)?;
        run(&case, &format!("apply -f {file}"), 0).await?;
        case.rule("apply takes over what create and suspend wrote, without being forced");

        run(&case, "server delete heron --dry-run=server", 0).await?;
        ensure!(case.get::<Server>("heron").await?.metadata.deletion_timestamp.is_none(), "a dry run deletes");
        run(&case, "server delete heron --wait --timeout 2m", 0).await?;
        ensure!(case.api::<Server>().get_opt("heron").await?.is_none(), "it is still there");
        run(&case, "server show heron", 3).await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_workspace_is_made_chosen_and_completed() {
    case("a_workspace_is_made_chosen_and_completed", |case: Case| async move {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("kubeconfig");
        std::fs::copy(&case.cluster.kubeconfig, &file)?;
        let own = [("KUBECONFIG", text(&file)?)];
        let new = format!("{}-new", case.namespace);
        let tried = case.cluster.provisioning(&["workspace", "init", &new, "--dry-run=server"], &own).await?;
        ensure!(tried.stderr.contains("is not tried: its namespace"), "{}", tried.stderr);
        ensure!(tried.success()?.contains(&format!("namespace/{new} created (server dry run)")));
        case.rule("a dry run of a new workspace tries what can be tried");
        let init = ["workspace", "init", &case.namespace, "--use", "--wait"];
        let said = case.cluster.provisioning(&init, &own).await?.success()?;
        ensure!(said.contains("workspace/workspace created") && said.contains("using workspace"), "{said}");
        let again = case.cluster.provisioning(&init, &own).await?.success()?;
        ensure!(!again.contains("created"), "{again}");
        let listed = case.cluster.provisioning(&["workspace", "list"], &own).await?.success()?;
        let mark = listed.lines().find(|line| line.starts_with('*')).context("no workspace is marked")?;
        ensure!(mark.contains(&case.namespace), "{listed}");
        let view = case.cluster.provisioning(&["config", "view", "-o", "json"], &own).await?.success()?;
        ensure!(serde_json::from_str::<Value>(&view)?["namespace"]["value"] == case.namespace.as_str(), "{view}");
        case.rule("a workspace that was chosen is the namespace of the context");

        case.cluster.provisioning(&["server", "create", "heron", "--suspend"], &own).await?.success()?;
        let asked = [own[0], ("_PROVISIONING_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", "3"), ("_CLAP_IFS", "\n")];
        let words = ["--", "provisioning", "show", "server", "h"];
        ensure!(case.cluster.provisioning(&words, &asked).await?.success()? == "heron");
        let words = ["--", "provisioning", "list", "-n", &case.namespace];
        ensure!(case.cluster.provisioning(&words, &asked).await?.success()? == case.namespace);
        case.rule("names of objects and workspaces complete");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_log_of_a_failed_step_outlives_its_job() {
    case("the_log_of_a_failed_step_outlives_its_job", |case: Case| async move {
        case.workspace().await?;
        run(&case, "server create dunlin", 0).await?;
        run(&case, "wait server dunlin --timeout 4m", 0).await?;
        run(&case, "taskserv create cache --extension redis --servers dunlin -p package=redis-nosuch", 0).await?;
        let words = "Unable to locate package redis-nosuch";
        // Begun before there is a Job, and ended by the failure.
        let followed = run(&case, "logs taskserv/cache -f", 0).await?;
        ensure!(followed.contains(words), "{followed}");
        case.rule("logs -f waits for the first run, shows it as it goes, and ends with it");
        run(&case, "wait tsv cache --for condition=Stalled --timeout 4m", 0).await?;
        let log = "logs taskserv/cache --step install/dunlin";
        let said = run(&case, log, 0).await?;
        ensure!(said.contains(words), "{said}");
        let kept = ["get", "configmaps", "-l", "provisioning.dev/log-of", "-o", "name"];
        case.until("the log kept", PATIENCE, || async {
            let found = case.kubectl(&kept, "").await?.success()?;
            Ok(if found.is_empty() { Err("none".to_owned()) } else { Ok(()) })
        })
        .await?;
        let jobs = ["delete", "jobs,pods", "-l", "provisioning.dev/owner-kind=Taskserv", "--wait=true"];
        case.kubectl(&jobs, "").await?.success()?;
        let said = run(&case, log, 0).await?;
        ensure!(said.contains(words), "{said}");
        case.rule("the log of a failed step is there also after its Job is gone");

        let before = case.get::<Taskserv>("cache").await?;
        let runs = |taskserv: &Taskserv| step(taskserv, "install/dunlin").map_or(0, |step| step.run);
        run(&case, "retry tsv cache", 0).await?;
        let again = |taskserv: &Taskserv| {
            runs(taskserv) > runs(&before)
                && step(taskserv, "install/dunlin").is_some_and(|step| step.phase == StepPhase::Failed)
        };
        let after = case.wait_for("cache", "tried again", PATIENCE, again).await?;
        ensure!(runs(&after) == runs(&before) + 1, "{}", describe(&after));
        case.rule("retry has what failed tried again, once");
        Ok(())
    });
}
