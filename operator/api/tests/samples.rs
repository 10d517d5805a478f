//! What users are told to apply is valid, decodes strictly, and says what is meant; what is over a bound is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

mod support;

use provisioning_api::shared::{DeletionPolicy, OnFailure};
use provisioning_api::taskserv::Dependencies;
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{Definition, broken_rules, definition_of, definitions, documents, root, violations};

fn samples(folder: &str) -> Vec<Value> {
    let mut paths: Vec<_> =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths.sort();
    assert!(paths.len() >= 4, "{folder} has lost files: {paths:?}");
    paths.iter().flat_map(|path| documents(path)).collect()
}

/// Decodes, and finds nothing that the type does not know: what it writes again holds all that was read.
fn decodes<T: DeserializeOwned + serde::Serialize>(value: &Value) -> T {
    let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    let again = serde_json::to_value(&typed).unwrap();
    assert_eq!(lost(value, &again, ""), [""; 0], "fields that the type does not know");
    typed
}

fn lost(read: &Value, written: &Value, path: &str) -> Vec<String> {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => read
            .iter()
            .flat_map(|(name, value)| match written.get(name) {
                Some(other) => lost(value, other, &format!("{path}.{name}")),
                None => vec![format!("{path}.{name}")],
            })
            .collect(),
        (Value::Array(read), Value::Array(written)) if read.len() == written.len() => read
            .iter()
            .zip(written)
            .enumerate()
            .flat_map(|(number, (value, other))| lost(value, other, &format!("{path}[{number}]")))
            .collect(),
        (read, written) if read == written => Vec::new(),
        (_, _) => vec![path.to_owned()],
    }
}

fn decode(value: &Value) {
    match value["kind"].as_str().unwrap() {
        "Workspace" => drop(decodes::<Workspace>(value)),
        "ProviderConfig" => drop(decodes::<ProviderConfig>(value)),
        "Server" => drop(decodes::<Server>(value)),
        "Taskserv" => drop(decodes::<Taskserv>(value)),
        "Cluster" => drop(decodes::<Cluster>(value)),
        "BatchWorkflow" => drop(decodes::<BatchWorkflow>(value)),
        other => panic!("unknown kind {other}"),
    }
}

#[test]
fn the_first_example_is_valid_and_decodes_strictly() {
    let definitions = definitions();
    let ours: Vec<Value> = samples("examples/first")
        .into_iter()
        .filter(|value| value["apiVersion"] == "provisioning.dev/v1alpha1")
        .collect();
    assert!(ours.len() >= 3, "objects of ours in the first example: {}", ours.len());
    ours.iter().for_each(|object| is_valid(&definitions, object));
}

fn is_valid(definitions: &[Definition], object: &Value) {
    let schema = definition_of(definitions, object).schema();
    assert_eq!(violations(schema, object), [""; 0], "{}", object["metadata"]["name"]);
    assert_eq!(broken_rules(schema, object, None), [""; 0], "{}", object["metadata"]["name"]);
    decode(object);
}

#[test]
fn the_documentation_has_a_valid_example_of_every_kind() {
    let (definitions, examples) = (definitions(), samples("docs/kinds/examples"));
    for Definition { kind, .. } in &definitions {
        let own: Vec<&Value> = examples.iter().filter(|example| example["kind"] == *kind).collect();
        assert_eq!(own.len(), 1, "examples of {kind}");
        is_valid(&definitions, own[0]);
    }
}

#[test]
fn the_cluster_of_the_documentation_is_valid_and_decodes_strictly() {
    let page = std::fs::read_to_string(root().join("docs/clusters.md")).unwrap();
    let text = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let object: Value = serde_saphyr::from_str(text).unwrap();
    let definitions = definitions();
    let schema = definition_of(&definitions, &object).schema();
    assert_eq!(violations(schema, &object), [""; 0]);
    assert_eq!(broken_rules(schema, &object, None), [""; 0]);
    decode(&object);
}

#[test]
fn every_fixture_of_the_rules_decodes_strictly() {
    let mut count = 0;
    let mut todo = vec![root().join("operator/api/tests/cel")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "yaml") {
            decode(&documents(&path)[0]);
            count += 1;
        }
    }
    assert!(count > 40, "only {count} fixtures");
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn server() -> Value {
    json!({"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"os": "debian", "version": "12"}})
}

fn taskserv() -> Value {
    json!({"extension": {"name": "redis"}, "servers": ["blue-heron"]})
}

fn cluster() -> Value {
    json!({"serverGroups": [{"name": "nests", "count": 2, "template": server()}],
        "taskservs": [{"name": "cache", "group": "nests", "extension": {"name": "redis"}}],
        "endpoints": [{"name": "cache", "group": "nests", "port": 6379}],
        "outputs": [{"name": "version", "taskserv": "cache", "output": "version"}]})
}

fn workflow() -> Value {
    json!({"steps": [{"name": "heron", "apply": {"server": {"name": "blue-heron", "spec": server()}}}]})
}

fn wait() -> Value {
    json!({"steps": [{"name": "heron", "wait": {"kind": "Server", "name": "blue-heron", "for": "true"}}]})
}

fn delete() -> Value {
    json!({"steps": [{"name": "heron", "delete": {"kind": "Server", "name": "blue-heron"}}]})
}

#[test]
fn what_is_left_out_is_what_the_documentation_says() {
    let workspace: Workspace = decodes(&object("Workspace", "workspace", &json!({})));
    assert_eq!((workspace.spec.parallelism, workspace.spec.suspend), (8, false));
    let config: ProviderConfig = decodes(&object("ProviderConfig", "meadow", &json!({"type": "Local"})));
    assert_eq!((config.spec.site.as_str(), config.spec.reserved_percent), ("provisioning-local", 10));
    let server: Server = decodes(&object("Server", "blue-heron", &server()));
    assert_eq!((server.spec.deletion_policy, server.spec.suspend), (DeletionPolicy::Delete, false));
    let taskserv: Taskserv = decodes(&object("Taskserv", "cache", &taskserv()));
    assert_eq!(taskserv.spec.deletion_policy, DeletionPolicy::Delete);
    assert_eq!(taskserv.spec.dependencies, Dependencies::Auto);
    let cluster: Cluster = decodes(&object("Cluster", "colony", &cluster()));
    assert_eq!((cluster.spec.deletion_policy, cluster.spec.suspend), (DeletionPolicy::Delete, false));
    assert_eq!(cluster.spec.taskservs[0].deletion_policy, DeletionPolicy::Delete);
    let workflow: BatchWorkflow = decodes(&object("BatchWorkflow", "morning", &workflow()));
    assert_eq!((workflow.spec.parallelism, workflow.spec.deletion_policy), (4, DeletionPolicy::Orphan));
    assert_eq!((workflow.spec.steps[0].timeout_seconds, workflow.spec.on_failure), (1800, OnFailure::Continue));
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_types() {
    let definitions = definitions();
    let cases = [
        object("Workspace", "workspace", &json!({})),
        object("ProviderConfig", "meadow", &json!({"type": "Local"})),
        object("Server", "blue-heron", &server()),
        object("Taskserv", "cache", &taskserv()),
        object("Cluster", "colony", &{
            let mut spec = cluster();
            spec["taskservs"][0]["dependsOn"] = json!([{"taskserv": "front"}]);
            spec
        }),
        object("BatchWorkflow", "morning", &{
            let mut spec = workflow();
            spec["steps"][0]["retry"] = json!({});
            spec["steps"][0]["dependsOn"] = json!([{"step": "curlew"}]);
            spec
        }),
    ];
    for case in cases {
        let schema = definition_of(&definitions, &case).schema();
        let by_server = kube::core::cel::apply_defaults(schema, &case)["spec"].clone();
        let typed = match case["kind"].as_str().unwrap() {
            "Workspace" => serde_json::to_value(serde_json::from_value::<Workspace>(case.clone()).unwrap()),
            "ProviderConfig" => serde_json::to_value(serde_json::from_value::<ProviderConfig>(case.clone()).unwrap()),
            "Server" => serde_json::to_value(serde_json::from_value::<Server>(case.clone()).unwrap()),
            "Taskserv" => serde_json::to_value(serde_json::from_value::<Taskserv>(case.clone()).unwrap()),
            "Cluster" => serde_json::to_value(serde_json::from_value::<Cluster>(case.clone()).unwrap()),
            _ => serde_json::to_value(serde_json::from_value::<BatchWorkflow>(case.clone()).unwrap()),
        };
        assert_eq!(by_server, typed.unwrap()["spec"], "{}", case["kind"]);
    }
}

#[test]
fn what_is_over_a_bound_is_refused_where_it_is() {
    let definitions = definitions();
    let set = |mut spec: Value, pointer: &str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value;
        spec
    };
    let many = |count: usize| -> Vec<String> { (0..count).map(|number| format!("heron-{number}")).collect() };
    let steps = |count: usize| -> Value {
        let apply = &workflow()["steps"][0]["apply"];
        many(count).iter().map(|name| json!({"name": name, "apply": apply})).collect()
    };
    let size = |memory: &str| json!({"cores": 1, "memory": memory, "disk": "10Gi"});
    let parameters: serde_json::Map<String, Value> = many(65).into_iter().map(|name| (name, json!(1))).collect();
    let cases = [
        ("BatchWorkflow", set(workflow(), "/steps/0/when", json!("x".repeat(1025))), ".spec.steps[0].when"),
        ("BatchWorkflow", set(wait(), "/steps/0/wait/for", json!("x".repeat(1025))), ".spec.steps[0].wait.for"),
        ("BatchWorkflow", set(wait(), "/steps/0/wait/kind", json!("Secret")), ".spec.steps[0].wait.kind"),
        ("BatchWorkflow", set(delete(), "/steps/0/delete/kind", json!("Workspace")), ".spec.steps[0].delete.kind"),
        ("BatchWorkflow", set(delete(), "/steps/0/delete/name", json!("blue.heron")), ".spec.steps[0].delete.name"),
        ("BatchWorkflow", set(workflow(), "/onFailure", json!("Rollback")), ".spec.onFailure"),
        ("BatchWorkflow", set(workflow(), "/steps/0/when", json!("")), ".spec.steps[0].when"),
        ("Workspace", json!({"parallelism": 0}), ".spec.parallelism"),
        ("Workspace", json!({"parallelism": 257}), ".spec.parallelism"),
        ("Workspace", json!({"paralellism": 4}), ".spec.paralellism"),
        ("ProviderConfig", json!({"type": "Remote"}), ".spec.type"),
        ("ProviderConfig", json!({"type": "Local", "site": "Not-A-Name"}), ".spec.site"),
        ("ProviderConfig", json!({"type": "Local", "reservedPercent": 101}), ".spec.reservedPercent"),
        ("Server", set(server(), "/providerConfigRef/name", json!("x".repeat(64))), ".spec.providerConfigRef.name"),
        ("Server", set(server(), "/size", size("512")), ".spec.size.memory"),
        ("Server", set(server(), "/size", size("0Mi")), ".spec.size.memory"),
        ("Server", set(server(), "/size", json!(null)), ".spec.size"),
        ("Server", set(server(), "/deletionPolicy", json!("Retain")), ".spec.deletionPolicy"),
        ("Taskserv", set(taskserv(), "/servers", json!([])), ".spec.servers"),
        ("Taskserv", set(taskserv(), "/servers", json!(many(33))), ".spec.servers"),
        ("Taskserv", set(taskserv(), "/servers", json!(["heron", "heron"])), ".spec.servers[1]"),
        ("Taskserv", set(taskserv(), "/servers", json!(["blue.heron"])), ".spec.servers[0]"),
        ("Taskserv", set(taskserv(), "/dependencies", json!("Maybe")), ".spec.dependencies"),
        (
            "Taskserv",
            set(taskserv(), "/serverSelector", json!({"matchExpressions": [{"key": "shore", "operator": "Has"}]})),
            ".spec.serverSelector.matchExpressions[0].operator",
        ),
        ("Taskserv", set(taskserv(), "/parameters", Value::Object(parameters)), ".spec.parameters"),
        ("Cluster", set(cluster(), "/serverGroups", json!([])), ".spec.serverGroups"),
        ("Cluster", set(cluster(), "/serverGroups/0/count", json!(0)), ".spec.serverGroups[0].count"),
        ("Cluster", set(cluster(), "/serverGroups/0/count", json!(33)), ".spec.serverGroups[0].count"),
        ("Cluster", set(cluster(), "/serverGroups/0/servers", json!(many(33))), ".spec.serverGroups[0].servers"),
        ("Cluster", set(cluster(), "/taskservs/0/peers", json!(many(9))), ".spec.taskservs[0].peers"),
        ("Cluster", set(cluster(), "/endpoints/0/port", json!(65536)), ".spec.endpoints[0].port"),
        ("Cluster", set(cluster(), "/endpoints/0/scheme", json!("http://")), ".spec.endpoints[0].scheme"),
        ("BatchWorkflow", json!({"steps": []}), ".spec.steps"),
        ("BatchWorkflow", json!({"steps": steps(65)}), ".spec.steps"),
        ("BatchWorkflow", set(workflow(), "/parallelism", json!(65)), ".spec.parallelism"),
        ("BatchWorkflow", set(workflow(), "/steps/0/timeoutSeconds", json!(0)), ".spec.steps[0].timeoutSeconds"),
        ("BatchWorkflow", set(workflow(), "/steps/0/retry", json!({"limit": 21})), ".spec.steps[0].retry.limit"),
        ("BatchWorkflow", set(workflow(), "/steps/0/retry", json!({"factor": 0})), ".spec.steps[0].retry.factor"),
    ];
    for (kind, spec, wanted) in cases {
        let name = if kind == "Workspace" { "workspace" } else { "blue-heron" };
        let object = object(kind, name, &spec);
        let found = violations(definition_of(&definitions, &object).schema(), &object);
        assert!(found.iter().any(|text| text.starts_with(&format!("{wanted}:"))), "{kind} {wanted}: {found:?}");
    }
}
