//! The Local provider keeps its contract: its binary, against a site in memory; and that site answers as a real one.
// clippy knows functions with #[test] as tests, not their helpers in a folder of tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use provisioning_api::names::{LABEL_OWNER_UID, SITE_CATALOG};
use provisioning_conformance::world::{Call, Reply};
use provisioning_conformance::worlds::site::{SITE, Site};
use provisioning_conformance::{Provider, Suite, run};
use serde_json::{Value, json};

#[tokio::test]
async fn the_local_provider_keeps_every_rule() {
    let suite = Suite {
        provider: Provider { program: PathBuf::from(env!("CARGO_BIN_EXE_provider-local")), arguments: Vec::new() },
        world: Arc::new(|| Box::new(Site::default())),
        slow: true,
        only: Vec::new(),
        parallel: 4,
    };
    let report = run(&suite).await;
    println!("Local provider, against a site in memory:\n{report}");
    assert_eq!((report.failed(), report.not_run()), (vec![], vec![]), "{report}");
}

/// Calls of the provider, those among them that go wrong, in an order in which each means something.
fn calls(pod_uid: &str) -> Vec<Call> {
    let call = |method: &str, path: &str, body: Value| Call {
        method: method.to_owned(),
        path: format!("/api/v1/namespaces/{SITE}/{path}"),
        headers: Vec::new(),
        body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
    };
    let uid = "0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d10";
    let labels = json!({LABEL_OWNER_UID: uid});
    // A gate keeps it from the scheduler: nothing but the API server acts on it.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "srv-blue-heron", "labels": labels},
        "spec": {"schedulingGates": [{"name": "provisioning.dev/test"}],
            "containers": [{"name": "server", "image": "localhost/marsh-image:7"}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "srv-blue-heron", "labels": labels},
        "type": "Opaque", "stringData": {"key": "none"}});
    let exactly = |uid: &str| json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let list =
        |uid: &str| call("GET", &format!("pods?labelSelector=provisioning.dev%2Fowner-uid%3D{uid}"), Value::Null);
    vec![
        call("GET", &format!("configmaps/{SITE_CATALOG}"), Value::Null),
        list(uid),
        call("POST", "pods", pod.clone()),
        call("POST", "pods", pod),
        call("GET", "pods/srv-blue-heron", Value::Null),
        call("GET", "pods/srv-grey-goose", Value::Null),
        list(uid),
        list("ffffffff-3c55-4d7e-9a39-6f1f4a8c2d10"),
        call("POST", "secrets", secret.clone()),
        call("POST", "secrets", secret),
        call("DELETE", "secrets/srv-blue-heron", Value::Null),
        call("DELETE", "secrets/srv-blue-heron", Value::Null),
        call("DELETE", "pods/srv-grey-goose", exactly(pod_uid)),
        call("DELETE", "pods/srv-blue-heron", exactly("ffffffff-3c55-4d7e-9a39-6f1f4a8c2d10")),
        call("DELETE", "pods/srv-blue-heron", exactly(pod_uid)),
    ]
}

/// What of an answer the provider decides on.
fn essence(reply: &Reply) -> Value {
    let body = &reply.body;
    let names: Vec<&Value> =
        body["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]["name"]).collect();
    let labels = &body["metadata"]["labels"];
    json!({"code": reply.code, "reason": body["reason"], "name": body["metadata"]["name"], "labels": labels, "items": names})
}

async fn ask(client: &Client, call: &Call) -> Reply {
    let request = Request::builder().method(call.method.as_str()).uri(&call.path);
    let request = request.header("content-type", "application/json").body(Body::from(call.body.clone())).unwrap();
    let (parts, body) = client.send(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Reply::new(parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap())
}

/// The cluster of KUBECONFIG, and no other: a Pod's own, or one on this machine, is not what was meant.
async fn administrator() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let given = Kubeconfig::from_env().unwrap().expect("KUBECONFIG of an administrator");
    let config = Config::from_custom_kubeconfig(given, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A namespace named like the site in memory, without a catalog. What an earlier run left is removed before.
async fn prepare(client: &Client) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let end = Instant::now() + Duration::from_secs(60);
    while namespaces.get_opt(SITE).await.unwrap().is_some() {
        assert!(Instant::now() < end, "namespace {SITE} of an earlier run does not go");
        let _ = namespaces.delete(SITE, &DeleteParams::default()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": SITE}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SITE);
    // No pod is accepted before.
    while accounts.get_opt("default").await.unwrap().is_none() {
        assert!(Instant::now() < end, "namespace {SITE} got no default account");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
#[ignore = "needs a cluster, and KUBECONFIG of its administrator"]
async fn the_site_in_memory_answers_as_the_real_api_server_does() {
    let client = administrator().await;
    prepare(&client).await;
    let mut memory = Site::default();
    memory.catalog = None;
    let (mut real_uid, mut memory_uid) = (String::new(), String::new());
    let mut differences = Vec::new();
    for at in 0..calls("").len() {
        let (real_call, memory_call) = (calls(&real_uid).swap_remove(at), calls(&memory_uid).swap_remove(at));
        let (real, memory) = (ask(&client, &real_call).await, memory.apply(&memory_call));
        if real_call.method == "POST" && real.code == 201 && real.body["kind"] == "Pod" {
            let uid = |reply: &Reply| reply.body["metadata"]["uid"].as_str().unwrap().to_owned();
            (real_uid, memory_uid) = (uid(&real), uid(&memory));
        }
        if essence(&real) != essence(&memory) {
            let line = format!("{} {}", real_call.method, real_call.path);
            differences.push(format!("{line}: real {}, in memory {}", essence(&real), essence(&memory)));
        }
    }
    let namespaces = Api::<Namespace>::all(client);
    namespaces.delete(SITE, &DeleteParams::default()).await.unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
