//! What tools that apply from Git rely on: applied again nothing changes, managers side by side do not fight, and nobody
//! takes a new object for a finished one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::MANAGER;
use provisioning_api::server::InstalledState;
use provisioning_api::{BatchWorkflow, ProviderConfig, Server, Taskserv, Workspace};
use provisioning_e2e::{Case, DEADLINE, Kind, case, condition, repository};
use serde_json::{Value, json};

/// How long a thing that must not happen is waited for.
const QUIET: Duration = Duration::from_secs(5);

/// `kubectl apply --server-side` as this manager, which must not be refused.
async fn apply_as(case: &Case, manager: &str, files: &str, input: &str) -> Result<()> {
    let manager = format!("--field-manager={manager}");
    case.kubectl(&["apply", "--server-side", &manager, "-f", files], input).await?.success()?;
    Ok(())
}

/// examples/first, copied but for the name of the namespace.
fn first_folder(case: &Case) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(repository().join("examples/first"))? {
        let path = entry?.path();
        let yaml = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let namespace = yaml.contains("kind: Namespace");
        let ours = match namespace {
            true => yaml.replace("name: first", &format!("name: {}", case.namespace)),
            false => yaml.replace("namespace: first", &format!("namespace: {}", case.namespace)),
        };
        ensure!(ours != yaml, "{} names no namespace", path.display());
        std::fs::write(copy.path().join(path.file_name().context("no name")?), ours)?;
    }
    Ok(copy)
}

/// kind/name → resourceVersion of the namespace and all objects in it.
async fn versions(case: &Case) -> Result<BTreeMap<String, String>> {
    let namespace = Api::<Namespace>::all(case.cluster.client.clone()).get(&case.namespace).await?;
    let mut found = case.versions().await?;
    found.insert("Namespace".to_owned(), namespace.resource_version().unwrap_or_default());
    Ok(found)
}

/// What a manager owns of the object itself, status and other subresources left out: the fields below `spec`, and those
/// of `metadata`.
fn owned_by(object: &impl ResourceExt, manager: &str) -> (Vec<String>, Vec<String>) {
    let entries = object.managed_fields().iter();
    let own = entries.filter(|entry| entry.manager.as_deref() == Some(manager) && entry.subresource.is_none());
    let (mut spec, mut metadata) = (Vec::new(), Vec::new());
    for fields in own.filter_map(|entry| entry.fields_v1.as_ref()) {
        let below = |name: &str| fields.0.get(name).and_then(Value::as_object).into_iter().flatten();
        spec.extend(below("f:spec").map(|(field, _)| field.clone()));
        metadata.extend(below("f:metadata").map(|(field, _)| field.clone()));
    }
    (spec, metadata)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_folder_that_is_applied_twice_changes_nothing() {
    case("a_folder_that_is_applied_twice_changes_nothing", |case: Case| async move {
        let folder = first_folder(&case)?;
        let folder = folder.path().display().to_string();
        apply_as(&case, "from-git", &folder, "").await?;
        case.ready::<BatchWorkflow>("first").await?;
        // The Server says it a moment after the Taskserv, and is the last to be written.
        let known = |server: &Server| {
            let installed = server.status.iter().flat_map(|status| &status.installed);
            installed.map(|entry| entry.state).eq([InstalledState::Installed])
        };
        case.wait_for::<Server>("heron", "known to have Redis", DEADLINE, known).await?;
        let before = case.stays("the workspace at rest", QUIET, || versions(&case)).await?;
        ensure!(before.len() == 7, "{before:?}");
        apply_as(&case, "from-git", &folder, "").await?;
        let after = case.stays("the workspace", QUIET, || versions(&case)).await?;
        assert_eq!(before, after);
        case.rule("applied server-side a second time, the folder changes no resourceVersion");
        let drift = case.kubectl(&["diff", "--server-side", "--field-manager=from-git", "-f", &folder], "").await?;
        ensure!(drift.code == 0, "kubectl diff: {}{}", drift.stdout, drift.stderr);
        case.rule("a tool that compares sees no drift");
        let applied = [
            owned_by(&case.get::<Workspace>("workspace").await?, MANAGER),
            owned_by(&case.get::<ProviderConfig>("local").await?, MANAGER),
            owned_by(&case.get::<BatchWorkflow>("first").await?, MANAGER),
        ];
        for (spec, metadata) in applied {
            ensure!(spec.is_empty() && metadata == ["f:finalizers"], "the operator wrote {spec:?} {metadata:?}");
        }
        case.rule("of what was applied the operator owns the finalizer and status, and nothing in spec");
        Ok(())
    });
}

fn step(name: &str, timeout: i64) -> Value {
    let spec = json!({"providerConfigRef": {"name": "local"}, "providerSize": "small",
        "image": {"os": "debian", "version": "12"}});
    json!({"name": name, "timeoutSeconds": timeout, "apply": {"server": {"name": name, "spec": spec}}})
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// Waits until the operator has seen the newest spec and is at rest; returns the resourceVersion.
async fn settled<K: Kind>(case: &Case, name: &str, reason: &str) -> Result<String> {
    let done = |object: &K| {
        let ready = condition(object, types::READY);
        ready.is_some_and(|ready| ready.reason == reason && ready.observed_generation == object.meta().generation)
    };
    case.wait_for::<K>(name, reason, DEADLINE, done).await?;
    let version = || async { Ok(case.get::<K>(name).await?.resource_version().unwrap_or_default()) };
    case.stays("resourceVersion", QUIET, version).await
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn two_managers_of_one_object_do_not_fight() {
    case("two_managers_of_one_object_do_not_fight", |case: Case| async move {
        case.workspace().await?;
        let of_network = object("BatchWorkflow", "shared", &json!({"suspend": true, "steps": [step("heron", 300)]}));
        let of_storage = object("BatchWorkflow", "shared", &json!({"steps": [step("curlew", 300)]}));
        let servers =
            |name: &str| object("Taskserv", "shared", &json!({"extension": {"name": "redis"}, "servers": [name]}));
        let (one, other) = (servers("heron"), servers("curlew"));
        let managers = [("network", [&of_network, &one]), ("storage", [&of_storage, &other])];
        for (manager, objects) in managers {
            for text in objects {
                apply_as(&case, manager, "-", text).await?;
            }
        }
        let workflow = settled::<BatchWorkflow>(&case, "shared", reasons::SUSPENDED).await?;
        let taskserv = settled::<Taskserv>(&case, "shared", reasons::UNKNOWN_REFERENCE).await?;
        for _ in 0..3 {
            for (manager, objects) in managers {
                for text in objects {
                    apply_as(&case, manager, "-", text).await?;
                }
            }
        }
        ensure!(settled::<BatchWorkflow>(&case, "shared", reasons::SUSPENDED).await? == workflow);
        ensure!(settled::<Taskserv>(&case, "shared", reasons::UNKNOWN_REFERENCE).await? == taskserv);
        let names =
            |workflow: &BatchWorkflow| workflow.spec.steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
        ensure!(names(&case.get("shared").await?) == ["heron", "curlew"]);
        ensure!(case.get::<Taskserv>("shared").await?.spec.servers == ["heron", "curlew"]);
        case.rule("two managers own a step each and a server each; applying in turn changes nothing more");
        let greedy = object("BatchWorkflow", "shared", &json!({"steps": [step("curlew", 300), step("heron", 60)]}));
        let storage = ["apply", "--server-side", "--field-manager=storage", "-f", "-"];
        let words = case.kubectl(&storage, &greedy).await?.refusal()?;
        let told = words.contains("conflict with \"network\"") && words.contains("timeoutSeconds");
        ensure!(told, "{words}");
        case.rule("another value for what the other owns is a conflict that names both");
        let nothing = object("BatchWorkflow", "shared", &json!({"suspend": true, "steps": [step("bittern", 300)]}));
        apply_as(&case, "network", "-", &nothing).await?;
        settled::<BatchWorkflow>(&case, "shared", reasons::SUSPENDED).await?;
        ensure!(names(&case.get("shared").await?) == ["curlew", "bittern"]);
        case.rule("what a manager no longer applies goes, and the other's stays");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_new_object_has_a_status_of_no_generation() {
    case("a_new_object_has_a_status_of_no_generation", |case: Case| async move {
        let server = case.server("blue-heron")["spec"].clone();
        for (kind, name, spec) in [
            ("Workspace", "workspace", json!({})),
            ("ProviderConfig", "meadow", json!({"type": "Local"})),
            ("Server", "blue-heron", server),
            ("Taskserv", "blue-redis", json!({"extension": {"name": "redis"}, "servers": ["blue-heron"]})),
            ("BatchWorkflow", "morning", json!({"steps": [step("heron", 300)]})),
            ("Cluster", "web", json!({"serverGroups": [{"name": "web", "servers": ["blue-heron"]}]})),
        ] {
            let create = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
            let created = case.kubectl(&create, &object(kind, name, &spec)).await?.success()?;
            let created: Value = serde_json::from_str(&created)?;
            ensure!(created["metadata"]["generation"] == 1, "{kind}: {created}");
            ensure!(created["status"]["observedGeneration"] == 0, "{kind}: {}", created["status"]);
        }
        case.rule("kstatus takes an object that nobody has looked at for InProgress");
        Ok(())
    });
}
