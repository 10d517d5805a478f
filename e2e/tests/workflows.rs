//! What a workflow can do besides applying: pass over, wait, delete, stop at a failure, be waived by a person.

use std::time::Duration;

use anyhow::{Result, ensure};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::steps::StepPhase;
use provisioning_api::{BatchWorkflow, Server, Taskserv};
use provisioning_e2e::{Case, DEADLINE, case, condition, step};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(240);

fn workflow(name: &str, on_failure: &str, steps: &Value) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": {"name": name},
        "spec": {"deletionPolicy": "Delete", "onFailure": on_failure, "steps": steps}})
}

/// A Taskserv whose parameters its schema refuses.
fn wrong(case: &Case, server: &str) -> Value {
    let mut spec = case.redis_on("wrong", &[server])["spec"].clone();
    spec["parameters"]["port"] = json!(70_000);
    json!({"name": "wrong", "apply": {"taskserv": {"name": "wrong", "spec": spec}}})
}

/// What a step waits for that has nothing to wait for.
fn exists() -> Value {
    json!({"kind": "Workspace", "name": "workspace", "for": "object.metadata.name == 'workspace'"})
}

async fn phase(case: &Case, workflow: &str, id: &str) -> Result<(Option<StepPhase>, String)> {
    let workflow = case.get::<BatchWorkflow>(workflow).await?;
    Ok(step(&workflow, id).map_or((None, String::new()), |step| (Some(step.phase), step.reason.clone())))
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_workflow_passes_over_waits_and_deletes() {
    case("a_workflow_passes_over_waits_and_deletes", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("grey-heron")).await?;
        case.wait_for::<Server>("grey-heron", "Ready", PATIENCE, provisioning_e2e::is_ready).await?;
        let spec = case.server("blue-heron")["spec"].clone();
        let ready = "object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')";
        case.apply(&workflow(
            "marsh",
            "Continue",
            &json!([
                {"name": "blue", "apply": {"server": {"name": "blue-heron", "spec": spec}}},
                {"name": "never", "dependsOn": [{"step": "blue"}], "when": "steps.blue.outputs.address == 'nowhere'",
                    "apply": {"server": {"name": "white-heron", "spec": spec}}},
                {"name": "seen", "dependsOn": [{"step": "blue"}, {"step": "never"}],
                    "wait": {"kind": "Server", "name": "blue-heron", "for": ready}},
                {"name": "bye", "dependsOn": [{"step": "seen"}], "delete": {"kind": "Server", "name": "grey-heron"}},
            ]),
        ))
        .await?;
        case.wait_for::<BatchWorkflow>("marsh", "Ready", PATIENCE, provisioning_e2e::is_ready).await?;
        ensure!(phase(&case, "marsh", "never").await? == (Some(StepPhase::Skipped), "WhenFalse".to_owned()));
        ensure!(case.api::<Server>().get_opt("white-heron").await?.is_none(), "what was passed over was made");
        case.rule("a step whose condition is false is passed over, and what depends on it goes on");
        ensure!(case.api::<Server>().get_opt("grey-heron").await?.is_none(), "what was to be deleted is there");
        ensure!(case.site_pods().await?.len() == 1, "its machine is there");
        case.rule("a delete step ends when the object and its machine are gone");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_paused_workflow_goes_on_when_the_failed_step_is_waived() {
    case("a_paused_workflow_goes_on_when_the_failed_step_is_waived", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("knot")).await?;
        case.apply(&workflow(
            "fen",
            "Pause",
            &json!([
                wrong(&case, "knot"),
                {"name": "after", "dependsOn": [{"step": "wrong"}], "wait": exists()},
            ]),
        ))
        .await?;
        let paused = |fen: &BatchWorkflow| {
            condition(fen, types::STALLED).is_some_and(|condition| condition.reason == reasons::PAUSED)
        };
        case.wait_for::<BatchWorkflow>("fen", "paused", DEADLINE, paused).await?;
        case.rule("onFailure: Pause stops at the first failure and says so");
        case.provisioning(&["skip", "fen", "wrong"]).await?.success()?;
        case.wait_for::<BatchWorkflow>("fen", "Ready", DEADLINE, provisioning_e2e::is_ready).await?;
        ensure!(phase(&case, "fen", "wrong").await? == (Some(StepPhase::Skipped), "Waived".to_owned()));
        ensure!(phase(&case, "fen", "after").await?.0 == Some(StepPhase::Succeeded));
        ensure!(case.api::<Taskserv>().get_opt("wrong").await?.is_some(), "what was made before the waiver is gone");
        case.rule("a step that a person waives is Skipped for the record, and the rest goes on");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_workflow_goes_on_beside_a_failed_step_and_retry_takes_it_up_again() {
    case("a_workflow_goes_on_beside_a_failed_step_and_retry_takes_it_up_again", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("teal")).await?;
        let after = |name: &str, type_: &str, when: Option<&str>| {
            let mut step = json!({"name": name, "dependsOn": [{"step": "wrong", "type": type_}], "wait": exists()});
            if let Some(when) = when {
                step["when"] = json!(when);
            }
            step
        };
        case.apply(&workflow(
            "mere",
            "Continue",
            &json!([
                wrong(&case, "teal"),
                after("built-on-it", "Hard", None),
                after("mourns", "Soft", Some("steps.wrong.phase == 'Failed'")),
                after("cheers", "Soft", Some("steps.wrong.phase == 'Succeeded'")),
                {"name": "beside", "wait": exists()},
            ]),
        ))
        .await?;
        let failed = |mere: &BatchWorkflow| {
            condition(mere, types::STALLED).is_some_and(|condition| condition.reason == reasons::STEP_FAILED)
        };
        case.wait_for::<BatchWorkflow>("mere", "StepFailed", DEADLINE, failed).await?;
        let expected = [
            ("wrong", StepPhase::Failed),
            ("built-on-it", StepPhase::Omitted),
            ("mourns", StepPhase::Succeeded),
            ("cheers", StepPhase::Skipped),
            ("beside", StepPhase::Succeeded),
        ];
        for (name, wanted) in expected {
            let found = phase(&case, "mere", name).await?;
            ensure!(found.0 == Some(wanted), "{name} is {found:?}, not {wanted:?}");
        }
        case.rule("onFailure: Continue runs all that does not need what failed, and `when` sees its phase");

        let workflow = case.get::<BatchWorkflow>("mere").await?;
        let run = step(&workflow, "wrong").map_or(0, |step| step.run);
        case.provisioning(&["retry", "bwf", "mere"]).await?.success()?;
        let again = |mere: &BatchWorkflow| failed(mere) && step(mere, "wrong").is_some_and(|step| step.run == run + 1);
        case.wait_for::<BatchWorkflow>("mere", "tried again", DEADLINE, again).await?;
        case.rule("retry has what failed tried again");
        Ok(())
    });
}
