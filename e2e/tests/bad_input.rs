//! Bad input: each way to be wrong is told in the object that the user made, with class, field and the way out; nothing
//! that is wrong stops anything else.

use std::time::Duration;

use crate::support::offer;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, Status};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, StepPhase};
use provisioning_api::{BatchWorkflow, Cluster, Server, Taskserv, Workspace};
use provisioning_e2e::{Case, DEADLINE, Kind, Row, case, condition, describe, is_true, step};
use serde_json::{Value, json};

mod unreadable;

/// A server whose SSH never answers fails after 3 tries of 60 s and pauses of 5 and 10 s, up to a quarter longer.
const UNREACHABLE: Duration = Duration::from_secs(60 * 3 + 19 + 60);

fn workflow(name: &str, steps: &Value) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "BatchWorkflow", "metadata": {"name": name},
        "spec": {"deletionPolicy": "Delete", "steps": steps}})
}

/// A step that applies this object.
fn apply_step(name: &str, object: &Value, after: &[&str]) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let depends: Vec<_> = after.iter().map(|step| json!({"step": step, "type": "Hard"})).collect();
    json!({"name": name, "dependsOn": depends,
        "apply": {kind: {"name": object["metadata"]["name"], "spec": object["spec"]}}})
}

fn held(mut object: Value) -> Value {
    object["spec"]["suspend"] = json!(true);
    object
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent) {
        parent[key] = value;
    }
    object
}

fn service(name: &str, extension: &str, server: &str) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "metadata": {"name": name},
        "spec": {"extension": {"name": extension}, "servers": [server]}})
}

/// Waits until the object is Stalled with this reason and these words, notes it in the table, and gives it.
async fn told<K: Kind>(case: &Case, about: &str, name: &str, reason: &str, field: &str, words: &[&str]) -> Result<K> {
    let object = case.stalled::<K>(name).await?;
    tell(about, &object, reason, field, words)?;
    why(case, about, &object, field, words).await?;
    Ok(object)
}

/// `provisioning why` names the cause too: the field and the same words, but for those about the step of a workflow, which
/// it tells in its own way.
async fn why<K: Kind>(case: &Case, about: &str, object: &K, field: &str, words: &[&str]) -> Result<()> {
    let cause: Vec<&str> = words.iter().copied().chain([field]).filter(|words| !words.starts_with("step '")).collect();
    case.why::<K>(about, &object.name_any(), &cause).await
}

fn tell<K: Kind>(about: &str, object: &K, reason: &str, field: &str, words: &[&str]) -> Result<()> {
    let stalled = condition(object, types::STALLED).context("not Stalled")?;
    let ready = condition(object, types::READY).context("no condition Ready")?;
    assert_eq!((stalled.reason.as_str(), ready.status.as_str()), (reason, "False"), "{}", describe(object));
    assert_eq!(ready.message, stalled.message, "Ready and Stalled differ");
    let failed = object.steps().iter().find(|step| step.phase == StepPhase::Failed);
    let class = failed.and_then(|step| step.class).map(|class| format!("/{class:?}")).unwrap_or_default();
    let row = Row {
        case: about.to_owned(),
        object: format!("{} {}", K::kind(&()), object.name_any()),
        reason: format!("{reason}{class}"),
        field: field.to_owned(),
        message: stalled.message.clone(),
    };
    row.write()?;
    for words in words.iter().chain(std::iter::once(&field)) {
        ensure!(stalled.message.contains(words), "{words:?} is not in the message:\n{}", describe(object));
    }
    Ok(())
}

/// A step of the object that failed in this way; its message has these words.
fn failed<K: Kind>(object: &K, id: &str, class: FailureClass, reason: &str, words: &[&str]) -> Result<()> {
    let step = step(object, id).with_context(|| format!("no step {id}"))?;
    assert_eq!((step.phase, step.class), (StepPhase::Failed, Some(class)), "{}", describe(object));
    assert_eq!(step.reason, reason, "{}", describe(object));
    for words in words {
        ensure!(step.message.contains(words), "{words:?} is not in the step's message:\n{}", describe(object));
    }
    Ok(())
}

fn dynamic(case: &Case, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("provisioning.dev", "v1alpha1", kind);
    let plural = format!("{}s", kind.to_lowercase());
    let resource = kube::api::ApiResource::from_gvk_with_plural(&gvk, &plural);
    Api::namespaced_with(case.cluster.client.clone(), &case.namespace, &resource)
}

/// What the API server says to the creation of an object that it must refuse.
async fn refused(case: &Case, object: &Value) -> Result<Box<Status>> {
    let api = dynamic(case, object["kind"].as_str().unwrap_or_default());
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    refusal(api.create(&PostParams::default(), &object).await)
}

fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> Result<Box<Status>> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(status),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

/// The API server's refusal as a row; its words are those of the first cause.
fn tell_refusal(about: &str, object: &str, status: &Status, field: &str, words: &[&str]) -> Result<()> {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let cause = causes.iter().find(|cause| cause.field.contains(field)).or(causes.first());
    let message = cause.map_or(status.message.clone(), |cause| cause.message.clone());
    let path = cause.map(|cause| cause.field.clone()).unwrap_or_default();
    let row = Row {
        case: about.to_owned(),
        object: object.to_owned(),
        reason: format!("refused/{} ({})", status.reason, status.code),
        field: path.clone(),
        message: message.clone(),
    };
    row.write()?;
    ensure!(path.contains(field) || message.contains(field), "{field:?} is named nowhere: {status:?}");
    for words in words {
        ensure!(status.message.contains(words), "{words:?} is not in the message: {}", status.message);
    }
    Ok(())
}

async fn nothing_was_made(case: &Case) -> Result<()> {
    let servers = case.api::<Server>().list(&Default::default()).await?;
    let names: Vec<_> = servers.iter().map(ResourceExt::name_any).collect();
    ensure!(names.is_empty(), "made although the plan is wrong: {names:?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_cycle_is_told_with_its_whole_path() {
    case("a_cycle_is_told_with_its_whole_path", |case: Case| async move {
        case.workspace().await?;
        let server = |name| case.server(name);
        let steps = json!([
            apply_step("reed", &server("reed"), &["rush"]),
            apply_step("sedge", &server("sedge"), &["reed"]),
            apply_step("rush", &server("rush"), &["sedge"]),
            apply_step("islet", &server("islet"), &[]),
        ]);
        case.apply(&workflow("marsh", &steps)).await?;
        let marsh: BatchWorkflow = told(&case, "a cycle", "marsh", reasons::CYCLE, "spec.steps", &[]).await?;
        let path = ["reed -> sedge -> rush -> reed", "sedge -> rush -> reed -> sedge", "rush -> reed -> sedge -> rush"];
        let whole = path.iter().any(|path| marsh.ready_message().contains(path));
        ensure!(whole, "not the whole path:\n{}", describe(&marsh));
        // Not even the step that has nothing to do with the cycle.
        nothing_was_made(&case).await
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_unknown_step_is_told_with_the_nearest_one() {
    case("an_unknown_step_is_told_with_the_nearest_one", |case: Case| async move {
        case.workspace().await?;
        let steps = json!([
            apply_step("heron", &case.server("heron"), &[]),
            apply_step("cache", &case.redis_on("cache", &["heron"]), &["herno"]),
        ]);
        case.apply(&workflow("marsh", &steps)).await?;
        let words = ["step 'cache'", "'herno'", "did you mean 'heron'?"];
        told::<BatchWorkflow>(&case, "an unknown step", "marsh", reasons::UNKNOWN_REFERENCE, "spec.steps", &words)
            .await?;
        nothing_was_made(&case).await
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_unknown_server_or_extension_is_told_with_the_nearest_one() {
    case("an_unknown_server_or_extension_is_told_with_the_nearest_one", |case: Case| async move {
        case.workspace().await?;
        case.apply(&held(case.server("heron"))).await?;
        let server = case.redis_on("cache", &["herno"]);
        let extension = service("store", "reddis", "heron");
        let version = with(case.redis_on("pinned", &["heron"]), "/spec/extension/version", json!("^7"));
        let garbled = with(case.redis_on("garbled", &["heron"]), "/spec/extension/version", json!("newest"));
        for object in [&server, &extension, &version, &garbled] {
            case.apply(object).await?;
        }
        let unknown = reasons::UNKNOWN_REFERENCE;
        let words = ["'herno'", "did you mean 'heron'?"];
        told::<Taskserv>(&case, "an unknown server", "cache", unknown, "spec.servers", &words).await?;
        let words = ["reddis", "did you mean", "redis"];
        told::<Taskserv>(&case, "an unknown extension", "store", unknown, "spec.extension", &words).await?;
        told::<Taskserv>(&case, "an unknown version", "pinned", unknown, "spec.extension", &["redis", "^7", "0.2.2"])
            .await?;
        let words = ["^1.2"];
        told::<Taskserv>(
            &case,
            "a version that is none",
            "garbled",
            reasons::INVALID,
            "spec.extension.version",
            &words,
        )
        .await?;
        // The same in workflows: the cause is in the object that the user made.
        let other = with(server, "/metadata/name", json!("cache-2"));
        case.apply(&workflow("marsh", &json!([apply_step("cache", &other, &[])]))).await?;
        let words = ["step 'cache'", "'herno'", "did you mean 'heron'?"];
        let about = "an unknown server, in a workflow";
        let marsh: BatchWorkflow = told(&case, about, "marsh", reasons::STEP_FAILED, "spec.servers", &words).await?;
        failed(
            &marsh,
            "cache",
            FailureClass::Invalid,
            "ChildFailed",
            &["Taskserv 'cache-2'", "did you mean 'heron'?"],
        )?;
        let other = with(extension, "/metadata/name", json!("store-2"));
        case.apply(&workflow("fen", &json!([apply_step("store", &other, &[])]))).await?;
        let words = ["step 'store'", "reddis", "did you mean", "redis"];
        let about = "an unknown extension, in a workflow";
        told::<BatchWorkflow>(&case, about, "fen", reasons::STEP_FAILED, "spec.extension", &words).await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_unknown_image_size_zone_or_provider_is_told_with_the_nearest_one() {
    case("an_unknown_image_size_zone_or_provider_is_told_with_the_nearest_one", |case: Case| async move {
        case.workspace().await?;
        let image = with(case.server("heron"), "/spec/image/version", json!("13"));
        let size = with(case.server("curlew"), "/spec/providerSize", json!("smal"));
        let zone = with(case.server("avocet"), "/spec/zone", json!("lokal-a"));
        let provider = with(case.server("godwit"), "/spec/providerConfigRef/name", json!("lokal"));
        for object in [&image, &size, &zone, &provider] {
            case.apply(object).await?;
        }
        let (invalid, unknown) = (reasons::INVALID, reasons::UNKNOWN_REFERENCE);
        let words = ["'debian 13'", "did you mean 'debian 12'?"];
        told::<Server>(&case, "an unknown image", "heron", invalid, "spec.image", &words).await?;
        let words = ["'smal'", "did you mean 'small'?", "small, medium, large"];
        told::<Server>(&case, "an unknown size", "curlew", invalid, "spec.providerSize", &words).await?;
        case.apply(&service("nest", "redis", "curlew")).await?;
        let words = ["Server 'curlew' is Stalled", "spec.providerSize", "'smal'"];
        let about = "a service on a server that is stalled";
        told::<Taskserv>(&case, about, "nest", reasons::DEPENDENCY_STALLED, "spec.providerSize", &words).await?;
        let words = ["'lokal-a'", "did you mean 'local-a'?", "local-a, local-b"];
        told::<Server>(&case, "an unknown zone", "avocet", invalid, "spec.zone", &words).await?;
        let words = ["'lokal'", "did you mean 'local'?"];
        let field = "spec.providerConfigRef.name";
        told::<Server>(&case, "an unknown provider", "godwit", unknown, field, &words).await?;
        let other = with(size, "/metadata/name", json!("plover"));
        case.apply(&workflow("marsh", &json!([apply_step("plover", &other, &[])]))).await?;
        let words = ["step 'plover'", "'smal'", "did you mean 'small'?"];
        let about = "an unknown size, in a workflow";
        let marsh: BatchWorkflow =
            told(&case, about, "marsh", reasons::STEP_FAILED, "spec.providerSize", &words).await?;
        failed(&marsh, "plover", FailureClass::Invalid, "ChildFailed", &["Server 'plover'", "did you mean 'small'?"])?;
        ensure!(case.site_pods().await?.is_empty(), "a machine was made");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_changed_immutable_field_is_refused_by_the_api_server() {
    case("a_changed_immutable_field_is_refused_by_the_api_server", |case: Case| async move {
        case.workspace().await?;
        let sized = json!({"cores": 1, "memory": "512Mi", "disk": "10Gi"});
        case.apply(&held(with(case.server("heron"), "/spec/zone", json!("local-a")))).await?;
        let mut measured = held(case.server("curlew"));
        measured["spec"]["size"] = sized;
        if let Some(spec) = measured["spec"].as_object_mut() {
            spec.remove("providerSize");
        }
        case.apply(&measured).await?;
        case.apply(&held(case.redis_on("cache", &["heron"]))).await?;
        let changes = [
            ("Server", "heron", "spec.image", json!({"spec": {"image": {"version": "11"}}})),
            ("Server", "heron", "spec.providerSize", json!({"spec": {"providerSize": "large"}})),
            ("Server", "heron", "spec.zone", json!({"spec": {"zone": "local-b"}})),
            ("Server", "heron", "spec.zone", json!({"spec": {"zone": null}})),
            ("Server", "heron", "spec.providerConfigRef", json!({"spec": {"providerConfigRef": {"name": "other"}}})),
            ("Server", "curlew", "spec.size", json!({"spec": {"size": {"cores": 2}}})),
            ("Taskserv", "cache", "spec.extension.name", json!({"spec": {"extension": {"name": "nginx"}}})),
            ("ProviderConfig", "local", "spec.site", json!({"spec": {"site": "elsewhere"}})),
        ];
        for (kind, name, field, change) in changes {
            let api = dynamic(&case, kind);
            let status = refusal(api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await)?;
            assert_eq!(status.code, 422, "{status:?}");
            let words = [field, "is immutable", &format!("create another {kind} instead")];
            tell_refusal("a changed immutable field", &format!("{kind} {name}"), &status, field, &words)?;
            let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
            ensure!(causes.iter().any(|cause| cause.field == field), "no cause has the field's path: {causes:?}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_spec_over_a_bound_is_refused_by_the_api_server() {
    case("a_spec_over_a_bound_is_refused_by_the_api_server", |case: Case| async move {
        let many = |count: usize| {
            let server = |number| apply_step(&format!("s{number}"), &case.server(&format!("s{number}")), &[]);
            workflow("marsh", &json!((0..count).map(server).collect::<Vec<_>>()))
        };
        let names: Vec<_> = (0..33).map(|number| format!("s{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let workspace = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
            "metadata": {"name": "workspace"}, "spec": {"parallelism": 257}});
        let parameters: serde_json::Map<_, _> = (0..65).map(|number| (format!("p{number}"), json!(number))).collect();
        let mut sized = with(case.server("heron"), "/spec/size", json!({"cores": 257, "memory": "1Gi", "disk": "1Gi"}));
        if let Some(spec) = sized["spec"].as_object_mut() {
            spec.remove("providerSize");
        }
        let long = "h".repeat(64);
        // Shorter than any allowed name too: told is what it has to begin with, not how long it has to be.
        let secret = json!({"password": {"secretName": "mine", "key": "password"}});
        let bounds = [
            (workspace, "spec.parallelism", "256"),
            (sized, "spec.size.cores", "256"),
            (many(65), "spec.steps", "64"),
            (with(many(1), "/spec/parallelism", json!(0)), "spec.parallelism", "1"),
            (case.redis_on("cache", &names), "spec.servers", "32"),
            (with(case.redis_on("cache", &["s"]), "/spec/parameters", json!(parameters)), "spec.parameters", "64"),
            (case.server(&long), "name", "63"),
            (with(case.redis_on("cache", &["s"]), "/spec/secretParameters", secret), "secretName", "'^taskserv-"),
        ];
        for (object, field, bound) in bounds {
            let status = refused(&case, &object).await?;
            assert_eq!(status.code, 422, "{status:?}");
            let text = |value: &Value| value.as_str().unwrap_or_default().chars().take(12).collect::<String>();
            let what = format!("{} {}", object["kind"].as_str().unwrap_or_default(), text(&object["metadata"]["name"]));
            tell_refusal("a spec over a bound", &what, &status, field, &[bound])?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_second_workspace_is_refused_by_the_api_server() {
    case("a_second_workspace_is_refused_by_the_api_server", |case: Case| async move {
        let workspace = |name| json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "metadata": {"name": name}, "spec": {}});
        let other = refused(&case, &workspace("marsh")).await?;
        let words = ["always named 'workspace'", "use another namespace for a second one"];
        tell_refusal("a Workspace of another name", "Workspace marsh", &other, "", &words)?;
        case.workspace().await?;
        let second = refused(&case, &workspace("workspace")).await?;
        assert_eq!((second.code, second.reason.as_str()), (409, "AlreadyExists"));
        tell_refusal("a second Workspace", "Workspace workspace", &second, "", &["already exists"])
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_cluster_whose_servers_would_have_too_long_names_is_told_and_goes() {
    case("a_cluster_whose_servers_would_have_too_long_names_is_told_and_goes", |case: Case| async move {
        case.workspace().await?;
        let name = "m".repeat(61);
        let template = case.server("heron")["spec"].clone();
        let cluster = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
            "spec": {"serverGroups": [{"name": "web", "count": 1, "template": template}]}});
        case.apply(&cluster).await?;
        let words = ["would have a name of", "at most 63"];
        let field = "spec.serverGroups[0]";
        told::<Cluster>(&case, "a name that is too long", &name, reasons::INVALID, field, &words).await?;
        case.delete::<Cluster>(&name).await?;
        case.gone::<Cluster>(&name, DEADLINE).await?;
        nothing_was_made(&case).await
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn an_object_without_a_workspace_says_what_to_create() {
    case("an_object_without_a_workspace_says_what_to_create", |case: Case| async move {
        case.apply(&case.server("heron")).await?;
        let words = ["create one named 'workspace'"];
        told::<Server>(&case, "no Workspace", "heron", reasons::NO_WORKSPACE, "", &words).await?;
        // Once it is there, the server waits for its provider by itself.
        case.workspace().await?;
        case.patch::<Server>("heron", &json!({"spec": {"suspend": true}})).await?;
        case.wait_for::<Server>("heron", "no longer Stalled", DEADLINE, |server| !is_true(server, types::STALLED))
            .await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_workflow_takes_over_no_object_of_somebody_else() {
    case("a_workflow_takes_over_no_object_of_somebody_else", |case: Case| async move {
        case.workspace().await?;
        case.apply(&held(case.server("heron"))).await?;
        let before =
            case.wait_for::<Server>("heron", "seen", DEADLINE, |server| !server.conditions().is_empty()).await?;
        case.apply(&workflow("marsh", &json!([apply_step("nest", &case.server("heron"), &[])]))).await?;
        let words = ["step 'nest'", "Server 'heron'", "BatchWorkflow 'marsh'", "choose another name"];
        let marsh: BatchWorkflow =
            told(&case, "a name that is taken", "marsh", reasons::NAME_CONFLICT, "", &words).await?;
        failed(&marsh, "nest", FailureClass::Invalid, "NameConflict", &["Server 'heron'"])?;
        let after = case.get::<Server>("heron").await?;
        assert_eq!((before.spec, before.metadata.labels), (after.spec, after.metadata.labels));
        case.delete::<BatchWorkflow>("marsh").await?;
        case.gone::<BatchWorkflow>("marsh", DEADLINE).await?;
        ensure!(case.get::<Server>("heron").await?.metadata.deletion_timestamp.is_none(), "it took the server along");
        Ok(())
    });
}

/// A workflow of a server and a service on it that ends Failed. What is told of the service's step.
struct Failure<'a> {
    about: &'a str,
    reason: &'a str,
    words: &'a [&'a str],
}

async fn service_fails(case: &Case, server: &str, service: &Value, failure: &Failure<'_>) -> Result<()> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let steps = json!([apply_step("service", service, &[])]);
    case.apply(&workflow("marsh", &steps)).await?;
    let install = format!("install/{server}");
    let mut words = vec!["step 'service'", name, install.as_str()];
    words.extend(failure.words);
    let marsh: BatchWorkflow = told(case, failure.about, "marsh", reasons::STEP_FAILED, "service", &words).await?;
    failed(&marsh, "service", FailureClass::ScriptFailed, "ChildFailed", failure.words)?;
    let taskserv = case.get::<Taskserv>(name).await?;
    tell(failure.about, &taskserv, reasons::STEP_FAILED, &install, failure.words)?;
    why(case, failure.about, &taskserv, &install, failure.words).await?;
    failed(&taskserv, &install, FailureClass::ScriptFailed, failure.reason, failure.words)?;
    let check = step(&taskserv, &format!("check/{server}")).context("no step check")?;
    assert_eq!((check.phase, check.run), (StepPhase::Omitted, 0), "{}", describe(&taskserv));
    let installs = case.server_runs(server).await?.into_iter().filter(|run| run.event == "start").count();
    assert_eq!(installs, 1, "a script that fails is not tried again unless the policy says so");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_script_that_exits_3_is_told_with_its_last_words() {
    case("a_script_that_exits_3_is_told_with_its_last_words", |case: Case| async move {
        case.workspace().await?;
        offer(&case, "grumpy").await?;
        case.apply(&case.server("bluethroat")).await?;
        case.ready::<Server>("bluethroat").await?;
        let failure = Failure {
            about: "a script that exits 3",
            reason: "ScriptFailed",
            words: &["exit code 3", "the marsh is dry: no place for a nest"],
        };
        service_fails(&case, "bluethroat", &service("nest", "grumpy", "bluethroat"), &failure).await
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_package_that_does_not_exist_is_told_in_apt_s_words() {
    case("a_package_that_does_not_exist_is_told_in_apt_s_words", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("ruff")).await?;
        case.ready::<Server>("ruff").await?;
        let mut cache = case.redis_on("cache", &["ruff"]);
        cache["spec"]["parameters"]["package"] = json!("redis-nosuch");
        let failure = Failure {
            about: "a package that does not exist",
            reason: "ScriptFailed",
            words: &["exit code 100", "Unable to locate package redis-nosuch"],
        };
        service_fails(&case, "ruff", &cache, &failure).await
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_parameter_or_secret_that_is_wrong_is_told_before_anything_runs() {
    case("a_parameter_or_secret_that_is_wrong_is_told_before_anything_runs", |case: Case| async move {
        case.workspace().await?;
        case.apply(&held(case.server("knot"))).await?;
        let with_parameters = |name: &str, parameters: Value| {
            let mut cache = with(case.redis_on("cache", &["knot"]), "/metadata/name", json!(name));
            cache["spec"]["parameters"] = parameters;
            cache
        };
        let invalid = reasons::INVALID;
        case.apply(&with_parameters("wide", json!({"port": 70_000}))).await?;
        let field = "spec.parameters.port";
        told::<Taskserv>(&case, "a wrong parameter", "wide", invalid, field, &["70000"]).await?;
        case.apply(&with_parameters("typo", json!({"prot": 7000}))).await?;
        let field = "spec.parameters.prot";
        told::<Taskserv>(&case, "an unknown parameter", "typo", invalid, field, &["did you mean 'port'?"]).await?;
        case.apply(&service("open", "postgres", "knot")).await?;
        let field = "spec.secretParameters.password";
        let words = ["missing", "secretName: taskserv-NAME"];
        told::<Taskserv>(&case, "a missing secret", "open", invalid, field, &words).await?;
        case.apply(&workflow("marsh", &json!([apply_step("nest", &with_parameters("nest", json!({"port": 0})), &[])])))
            .await?;
        let words = ["step 'nest'", "spec.parameters.port"];
        let about = "a wrong parameter, in a workflow";
        told::<BatchWorkflow>(&case, about, "marsh", reasons::STEP_FAILED, "spec.parameters.port", &words).await?;
        ensure!(case.site_pods().await?.is_empty(), "a machine was made");
        let ran =
            case.kubectl(&["get", "jobs", "-l", "provisioning.dev/owner-kind=Taskserv", "-o", "name"], "").await?;
        ensure!(ran.success()?.is_empty(), "a script was run");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_full_disk_is_told_as_such() {
    case("a_full_disk_is_told_as_such", |case: Case| async move {
        case.workspace().await?;
        offer(&case, "glutton").await?;
        case.apply(&case.server("bearded-tit")).await?;
        case.ready::<Server>("bearded-tit").await?;
        case.on_server("bearded-tit", "mkdir -p /srv/larder && mount -t tmpfs -o size=1m larder /srv/larder").await?;
        let failure = Failure { about: "a full disk", reason: "NoSpace", words: &["No space left on device"] };
        service_fails(&case, "bearded-tit", &service("larder", "glutton", "bearded-tit"), &failure).await?;
        // With room on the disk and a word from a person it goes on.
        case.on_server("bearded-tit", "umount /srv/larder").await?;
        case.reconcile::<BatchWorkflow>("marsh").await?;
        case.wait_for::<BatchWorkflow>("marsh", "Ready", DEADLINE, provisioning_e2e::is_ready).await?;
        case.rule("with room and the reconcile annotation the failed step is tried again and succeeds");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_server_whose_ssh_never_comes_up_fails_in_bounded_time() {
    case("a_server_whose_ssh_never_comes_up_fails_in_bounded_time", |case: Case| async move {
        case.workspace().await?;
        let steps = json!([
            apply_step("heron", &case.server("heron"), &[]),
            apply_step("cache", &case.redis_on("cache", &["heron"]), &["heron"]),
        ]);
        case.apply(&workflow("marsh", &steps)).await?;
        // Held between the boot and the first contact, to switch SSH off there.
        let observing = |server: &Server| step(server, "observe").is_some_and(|step| step.phase == StepPhase::Running);
        case.wait_for("heron", "observed", DEADLINE, observing).await?;
        case.patch::<Workspace>("workspace", &json!({"spec": {"suspend": true}})).await?;
        let held = |server: &Server| {
            step(server, "observe").is_some_and(|step| step.phase == StepPhase::Succeeded)
                && condition(server, types::READY).is_some_and(|condition| condition.reason == reasons::SUSPENDED)
        };
        let server = case.wait_for("heron", "held before SSH", DEADLINE, held).await?;
        assert_eq!(step(&server, "reach").map(|step| step.run), Some(0), "{}", describe(&server));
        case.on_server("heron", "systemctl mask --now ssh").await?;
        case.patch::<Workspace>("workspace", &json!({"spec": {"suspend": false}})).await?;
        let end = |workflow: &BatchWorkflow| is_true(workflow, types::STALLED);
        let marsh = case.wait_for("marsh", "Stalled", UNREACHABLE, end).await?;
        let words = ["step 'heron'", "Server 'heron'", "reach", "failed to connect to", ":22"];
        tell("SSH never comes up", &marsh, reasons::STEP_FAILED, "heron", &words)?;
        why(&case, "SSH never comes up", &marsh, "reach", &words).await?;
        failed(&marsh, "heron", FailureClass::Transient, "ChildFailed", &["reach", "failed to connect"])?;
        let cache = step(&marsh, "cache").context("no step cache")?;
        assert_eq!((cache.phase, cache.run), (StepPhase::Omitted, 0), "{}", describe(&marsh));
        let server = case.get::<Server>("heron").await?;
        let words = ["failed to connect to", ":22"];
        tell("SSH never comes up", &server, reasons::STEP_FAILED, "reach", &words)?;
        why(&case, "SSH never comes up", &server, "reach", &words).await?;
        failed(&server, "reach", FailureClass::Transient, "Unreachable", &["failed to connect to"])?;
        case.rule("it ends Failed, class Transient, reason Unreachable");
        // Mended, and asked again, it goes on: no rebuild, no new object. This also lets the workspace end.
        case.on_server("heron", "systemctl unmask ssh && systemctl start ssh").await?;
        case.reconcile::<BatchWorkflow>("marsh").await?;
        case.wait_for::<BatchWorkflow>("marsh", "Ready", DEADLINE, provisioning_e2e::is_ready).await?;
        case.rule("with SSH back, the reconcile annotation on the workflow brings it to Ready");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn kubectl_delete_namespace_under_live_objects_is_refused() {
    case("kubectl_delete_namespace_under_live_objects_is_refused", |case: Case| async move {
        case.workspace().await?;
        case.apply(&held(case.server("heron"))).await?;
        let words = case.cluster.kubectl(&["delete", "namespace", &case.namespace], "").await?.refusal()?;
        let row = Row {
            case: "kubectl delete namespace".to_owned(),
            object: "Namespace (this test's)".to_owned(),
            reason: "refused/Forbidden".to_owned(),
            field: "metadata.labels[provisioning.dev/live]".to_owned(),
            message: words.replace(&case.namespace, "NAMESPACE"),
        };
        row.write()?;
        let way_out = format!("kubectl delete workspace workspace -n {}", case.namespace);
        for words_of in ["holds a live Workspace", &way_out] {
            let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(flat.contains(words_of), "{words_of:?} is not in the message: {words}");
        }
        ensure!(case.get::<Server>("heron").await?.metadata.deletion_timestamp.is_none(), "the server goes");
        ensure!(case.get::<Workspace>("workspace").await?.metadata.deletion_timestamp.is_none(), "the workspace goes");
        // Nor can the label be taken away first, not even by an administrator.
        let words =
            case.cluster.kubectl(&["label", "namespace", &case.namespace, "provisioning.dev/live-"], "").await?;
        ensure!(words.refusal()?.contains("set and removed by the provisioning operator alone"));
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn no_reachable_cluster_is_told_with_what_was_tried() {
    case("no_reachable_cluster_is_told_with_what_was_tried", |case: Case| async move {
        let home = tempfile::tempdir()?;
        let folder = home.path().to_str().context("a folder's name")?;
        let (missing, silent) = (format!("{folder}/missing"), format!("{folder}/silent"));
        let mut config = kube::config::Kubeconfig::read_from(&case.cluster.kubeconfig)?;
        for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some("https://127.0.0.1:9".to_owned());
        }
        std::fs::write(&silent, serde_saphyr::to_string(&config)?)?;
        let tried =
            ["no reachable cluster", "tried", "KUBECONFIG", ".kube/config", "instance 'none'", "platform start"];
        let cases = [
            ("no cluster is configured", "", tried.to_vec()),
            ("a kubeconfig that is not there", missing.as_str(), vec!["KUBECONFIG", &missing, "No such file"]),
            ("no cluster answers", silent.as_str(), vec!["KUBECONFIG", &silent, "https://127.0.0.1:9", "refused"]),
        ];
        for (about, kubeconfig, words) in cases {
            let environment = [("HOME", folder), ("KUBECONFIG", kubeconfig), ("PROVISIONING_INSTANCE", "none")];
            let output = case.cluster.provisioning(&["list"], &environment).await?;
            let row = Row {
                case: about.to_owned(),
                object: "provisioning list".to_owned(),
                reason: format!("exit code {}", output.code),
                field: String::new(),
                message: output.stderr.replace(folder, "HOME"),
            };
            row.write()?;
            assert_eq!(output.code, 6, "{}", output.stderr);
            let why = case.cluster.provisioning(&["why", "server", "heron"], &environment).await?;
            assert_eq!((why.code, &why.stderr), (6, &output.stderr), "`why` says it otherwise");
            for words in words {
                ensure!(output.stderr.contains(words), "{words:?} is not in the message: {}", output.stderr);
            }
        }
        Ok(())
    });
}
