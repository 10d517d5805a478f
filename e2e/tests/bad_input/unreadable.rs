//! Objects that the operator can't read: of a shape that it does not know, and without end.

use super::*;

/// Loosens the schema of Servers so that a value no operator of this version knows can be stored, stores it with `store`,
/// and puts the schema back, whatever `store` said.
async fn with_loose_schema<T>(case: &Case, store: impl AsyncFn() -> Result<T>) -> Result<T> {
    let name = "servers.provisioning.dev";
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/deletionPolicy/enum";
    let kubectl = async |arguments: &[&str]| {
        let output = case.cluster.kubectl(arguments, "").await?;
        output.success().context("the schema of Servers")
    };
    let patch =
        async |change: Value| kubectl(&["patch", "crd", name, "--type=json", "-p", &json!([change]).to_string()]).await;
    let before = kubectl(&["get", "crd", name, "--show-managed-fields", "-o", "json"]).await?;
    let managers = serde_json::from_str::<Value>(&before)?["metadata"]["managedFields"].take();
    patch(json!({"op": "remove", "path": path})).await?;
    let stored = store().await;
    patch(json!({"op": "add", "path": path, "value": ["Delete", "Orphan"]})).await?;
    // Else helm finds the schema to be ours when it upgrades the chart.
    patch(json!({"op": "replace", "path": "/metadata/managedFields", "value": managers})).await?;
    stored
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_undecodable_object_is_told_and_stops_no_other() {
    case("an_undecodable_object_is_told_and_stops_no_other", |case: Case| async move {
        let result = undecodable(&case).await;
        // Whatever came of it: what can't be read can't be taken down either.
        let servers = dynamic(&case, "Server");
        let mended = json!({"spec": {"deletionPolicy": "Delete"}});
        for name in ["heron", "snipe"] {
            match servers.patch(name, &PatchParams::default(), &Patch::Merge(&mended)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return result.and(Err(error.into())),
            }
        }
        result?;
        case.gone::<Workspace>("workspace", DEADLINE).await?;
        case.rule("corrected, it goes, and the Workspace with it");
        Ok(())
    });
}

async fn undecodable(case: &Case) -> Result<()> {
    case.workspace().await?;
    case.apply(&held(case.server("heron"))).await?;
    let suspended = |server: &Server| {
        condition(server, types::READY).is_some_and(|condition| condition.reason == reasons::SUSPENDED)
    };
    case.wait_for("heron", "held", DEADLINE, suspended).await?;
    let servers = dynamic(case, "Server");
    let bent = json!({"spec": {"deletionPolicy": "Sometimes"}});
    let fresh = held(with(case.server("snipe"), "/spec/deletionPolicy", json!("Sometimes")));
    with_loose_schema(case, async || {
        // The new schema reaches the handlers a moment later.
        case.until("the loose schema in force", DEADLINE, || async {
            match servers.patch("heron", &PatchParams::default(), &Patch::Merge(&bent)).await {
                Ok(_) => Ok(Ok(())),
                Err(kube::Error::Api(status)) if status.code == 422 => Ok(Err(status.message)),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        case.apply(&fresh).await
    })
    .await?;
    for name in ["heron", "snipe"] {
        undecodable_is_told(case, name).await?;
    }
    case.rule("the object that can't be read is told as such, new or known before");
    case.apply(&case.server("ruff")).await?;
    case.ready::<Server>("ruff").await?;
    case.rule("a Server made after it becomes Ready");
    // Its end can't be arranged by who can't read it, and must not be passed over: the ground stays.
    case.delete::<Workspace>("workspace").await?;
    case.gone::<Server>("ruff", DEADLINE).await?;
    let told = |workspace: &Workspace| {
        condition(workspace, types::READY).is_some_and(|condition| condition.message.contains("heron"))
    };
    case.wait_for("workspace", "waiting for what can't be read", Duration::from_secs(20), told).await?;
    case.rule("a Workspace's deletion waits for it and names it");
    Ok(())
}

async fn undecodable_is_told(case: &Case, name: &str) -> Result<()> {
    let words = ["spec.deletionPolicy", "Sometimes", "Delete", "Orphan"];
    let all = [&words[..], &["Correct the field, or upgrade the operator"]].concat();
    unreadable_is_told(case, "an undecodable object", ("Server", name), "spec.deletionPolicy", &all).await?;
    case.why::<Server>("an undecodable object", name, &words).await
}

/// Waits until an object that can't be read is Stalled for that, with these words, and notes it in the table.
async fn unreadable_is_told(
    case: &Case,
    about: &str,
    (kind, name): (&str, &str),
    field: &str,
    words: &[&str],
) -> Result<()> {
    let objects = dynamic(case, kind);
    let stalled = case
        .until("told as unreadable", DEADLINE, || async {
            let object = objects.get(name).await?;
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array).cloned();
            let stalled = conditions.unwrap_or_default().into_iter().find(|it| it["type"] == types::STALLED);
            Ok(stalled.ok_or_else(|| format!("{:#}", object.data["status"])))
        })
        .await?;
    assert_eq!(stalled["reason"], reasons::UNDECODABLE);
    let message = stalled["message"].as_str().unwrap_or_default().to_owned();
    for words in words {
        ensure!(message.contains(words), "{words:?} is not in the message: {message}");
    }
    let row = Row {
        case: about.to_owned(),
        object: format!("{kind} {name}"),
        reason: reasons::UNDECODABLE.to_owned(),
        field: field.to_owned(),
        message,
    };
    row.write()
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_object_without_end_is_told_and_stops_no_other() {
    case("an_object_without_end_is_told_and_stops_no_other", |case: Case| async move {
        case.workspace().await?;
        let taskservs = dynamic(&case, "Taskserv");
        // 1.2 MB; built up as maps, twice, it would be more than the memory that the operator may have.
        let crowd = json!({"a": vec![json!({"": 0}); 170_000]});
        let crowd = with(service("crowd", "redis", "heron"), "/spec/parameters", crowd);
        // Not by kubectl, which would put all of it into an annotation too.
        taskservs.create(&PostParams::default(), &serde_json::from_value(crowd)?).await?;
        let words = ["more than 100000 values", "Take out of its spec what is too much"];
        unreadable_is_told(&case, "an object without end", ("Taskserv", "crowd"), "spec.parameters", &words).await?;
        // No case for the tests of the command line: it would be a record of megabytes.
        let said = case.provisioning(&["why", "taskserv/crowd"]).await?.success()?;
        ensure!(words.iter().all(|words| said.contains(words)), "{said}");
        case.apply(&case.server("ruff")).await?;
        case.ready::<Server>("ruff").await?;
        case.rule("a Server made after it becomes Ready");
        // A workflow that meets it by name does not build it up either.
        let step = apply_step("crowd", &service("crowd", "redis", "ruff"), &[]);
        case.apply(&workflow("marsh", &json!([step]))).await?;
        let marsh = case.stalled::<BatchWorkflow>("marsh").await?;
        failed(
            &marsh,
            "crowd",
            FailureClass::Invalid,
            reasons::NAME_CONFLICT,
            &["exists and was made by somebody else"],
        )?;
        case.rule("a workflow with a step of its name is told that the name is taken");
        case.delete::<BatchWorkflow>("marsh").await?;
        case.gone::<BatchWorkflow>("marsh", DEADLINE).await?;
        let selector = "app.kubernetes.io/name=provisioning,app.kubernetes.io/component=operator";
        let ends = "jsonpath={.items[*].status.containerStatuses[*].lastState.terminated.reason}";
        let arguments = ["-n", &case.cluster.system, "get", "pods", "-l", selector, "-o", ends];
        let ended = case.cluster.kubectl(&arguments, "").await?;
        let ended = ended.success()?;
        ensure!(!ended.contains("OOMKilled"), "the operator ended: {ended}");
        case.delete::<Taskserv>("crowd").await?;
        case.rule("the operator holds nothing on it, so it can be deleted");
        Ok(())
    });
}
