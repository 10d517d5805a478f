//! A REAL Kubernetes on this machine: needs root, `tools/build`, `tools/install-packages`, and about two minutes.
//!
//! Ignored without `--ignored`, so that it never counts as passed when it did not run; and even then it runs only with
//! PROVISIONING_PLATFORM_TESTS=1, and says loudly when it does not.

#![allow(clippy::unwrap_used, reason = "a test's helpers count as tests, which clippy.toml can't know")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use nix::sys::signal::Signal;
use provisioning_platform::{
    Health, Instance, Phase, ProcessIdentity, Service, StartOptions, Started, Stopped, client, leftovers, purge, start,
    status, stop,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Where the test's instances live: fixed, so that a run removes what a killed one left.
fn services() -> PathBuf {
    std::env::temp_dir().join("provisioning-platform-test")
}

fn instance(name: &str) -> Instance {
    Instance::below(&services(), name.parse().unwrap()).unwrap()
}

async fn started(instance: &Instance) -> Started {
    // cargo builds examples beside the tests: target/…/deps/instance-HASH and target/…/examples/supervise.
    let tests = std::env::current_exe().unwrap();
    let supervise = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/supervise");
    let supervisor = vec![supervise.into(), services().into(), instance.name().as_str().into()];
    let mut progress = |message: &str| eprintln!("  {}: {message}", instance.name());
    start(instance, StartOptions { supervisor, wait_timeout: LIMIT, progress: &mut progress }).await.unwrap()
}

fn purged(instance: &Instance) {
    purge(instance, &mut |_| {}).unwrap();
    assert!(!instance.directory().exists());
    assert_eq!(leftovers(instance), []);
}

fn stopped(instance: &Instance) {
    assert_eq!(stop(instance, &mut |_| {}).unwrap(), Stopped::Now);
    assert_eq!(leftovers(instance), []);
    assert_eq!(status(instance).unwrap().phase, Phase::Stopped);
}

/// Waits for a rule to hold, with a deadline.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run_pod(client: &Client, name: &str) {
    let pod = serde_json::json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "localhost/provisioning-pause:1", "imagePullPolicy": "Never" }],
        },
    });
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    eventually("the pod runs", async || container(client, name).await.is_some()).await;
}

/// The id of the pod's container and how often it was restarted, while it runs.
async fn container(client: &Client, name: &str) -> Option<(String, i32)> {
    let pod = Api::<Pod>::namespaced(client.clone(), "default").get(name).await.ok()?;
    let status = pod.status?.container_statuses?.into_iter().next()?;
    status.state?.running?;
    Some((status.container_id?, status.restart_count))
}

fn kubelet(instance: &Instance) -> ProcessIdentity {
    status(instance).unwrap().services[&Service::Kubelet].process.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "REAL Kubernetes: PROVISIONING_PLATFORM_TESTS=1 cargo test -p provisioning-platform --test instance -- --ignored"]
async fn an_instance_survives_kills_keeps_its_objects_and_leaves_nothing_behind() {
    if std::env::var_os("PROVISIONING_PLATFORM_TESTS").is_none_or(|value| value != "1") {
        // Not eprintln, which the harness swallows for tests that pass.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: platform tests were NOT run; set PROVISIONING_PLATFORM_TESTS=1 (as root)\n"
        );
        return;
    }
    let (heron, crane) = (instance("t1"), instance("t2"));
    purged(&heron);
    purged(&crane);

    assert_eq!(started(&heron).await, Started::Now);
    assert_eq!(started(&heron).await, Started::AlreadyRunning);
    let api = client(&heron).await.unwrap();
    run_pod(&api, "egret").await;

    a_killed_kubelet_is_started_again(&heron).await;
    a_killed_supervisor_is_recovered_from_and_pods_go_on(&heron, &api).await;
    a_second_instance_does_not_disturb_the_first(&heron, &crane).await;
    objects_are_there_after_stop_and_start_and_pods_run_again(&heron, &api).await;

    // Stop has to do all by itself now.
    status(&heron).unwrap().supervisor.unwrap().signal(Signal::SIGKILL);
    stopped(&heron);
    purged(&heron);
}

async fn a_killed_kubelet_is_started_again(instance: &Instance) {
    let before = kubelet(instance);
    // On a busy machine it may not have come up at once.
    let restarts = status(instance).unwrap().services[&Service::Kubelet].restarts;
    before.signal(Signal::SIGKILL);
    eventually("another kubelet is healthy", async || {
        let kubelet = status(instance).unwrap().services[&Service::Kubelet].clone();
        kubelet.health == Health::Healthy && kubelet.process.is_some_and(|process| process != before)
    })
    .await;
    let kubelet = status(instance).unwrap().services[&Service::Kubelet].clone();
    assert_eq!(kubelet.restarts, restarts + 1);
    assert!(kubelet.last_exit.unwrap().starts_with("signal 9"));
}

async fn a_killed_supervisor_is_recovered_from_and_pods_go_on(instance: &Instance, api: &Client) {
    let pod = container(api, "egret").await;
    let supervisor = status(instance).unwrap().supervisor.unwrap();
    supervisor.signal(Signal::SIGKILL);
    assert!(supervisor.wait_until_gone(LIMIT));
    assert_eq!(status(instance).unwrap().phase, Phase::Orphaned);
    let orphan = kubelet(instance);
    assert_eq!(started(instance).await, Started::Now);
    assert!(!orphan.is_alive());
    assert_eq!(status(instance).unwrap().phase, Phase::Running);
    assert_eq!(container(api, "egret").await, pod, "the container went on");
}

async fn a_second_instance_does_not_disturb_the_first(first: &Instance, second: &Instance) {
    assert_eq!(started(second).await, Started::Now);
    assert_ne!(status(first).unwrap().server, status(second).unwrap().server);
    run_pod(&client(second).await.unwrap(), "stork").await;
    purged(second);
    assert_eq!(started(first).await, Started::AlreadyRunning);
}

async fn objects_are_there_after_stop_and_start_and_pods_run_again(instance: &Instance, api: &Client) {
    let map =
        ConfigMap { data: Some(BTreeMap::from([("nest".to_owned(), "reeds".to_owned())])), ..ConfigMap::default() };
    let maps = Api::<ConfigMap>::namespaced(api.clone(), "default");
    let mut named = map.clone();
    named.metadata.name = Some("egret".to_owned());
    maps.create(&PostParams::default(), &named).await.unwrap();
    let (_, restarts) = container(api, "egret").await.unwrap();
    stopped(instance);
    assert_eq!(stop(instance, &mut |_| {}).unwrap(), Stopped::AlreadyStopped);
    assert_eq!(started(instance).await, Started::Now);
    assert_eq!(maps.get("egret").await.unwrap().data, map.data);
    eventually("the pod runs again", async || container(api, "egret").await.is_some_and(|(_, now)| now > restarts))
        .await;
}
