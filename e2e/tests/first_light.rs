//! The happy path, and what must hold along it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent};
use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::{
    ANNOTATION_STEP_ID, JOB_MANAGER, LABEL_MANAGED_BY, LABEL_OWNER_KIND, LABEL_OWNER_NAME, LABEL_RUN, MANAGER,
};
use provisioning_api::steps::{Direction, StepPhase};
use provisioning_api::{BatchWorkflow, Server, Taskserv, Workspace};
use provisioning_e2e::{Case, DEADLINE, Kind, Redis, case, condition, describe, step};
use serde_json::json;

/// How long a thing that must not happen is waited for.
const QUIET: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_first_example_runs_once_as_planned_and_goes_in_reverse() {
    case("the_first_example_runs_once_as_planned_and_goes_in_reverse", |case: Case| async move {
        let example = case.example("first")?;
        case.apply_yaml(&example).await?;
        case.ready::<BatchWorkflow>("first").await?;
        case.rule("the example ends Ready");
        redis_answers(&case, "heron", 6379).await?;
        case.rule("SET and GET are answered, by the host called heron");
        what_was_planned_was_executed(&case).await?;
        case.rule("the steps are those that were planned, in their order, each in one run");
        each_run_is_one_job(&case, 9).await?;
        case.rule("each run is one Job, one Pod, one Lease of one name; the Jobs are Complete");
        creates_are_counted(&case, 2, 9).await?;
        case.rule("the audit log counts 2 machines created, 9 Jobs, 9 Pods, 9 Leases");
        applied_again_it_changes_nothing(&case, &example).await?;
        case.rule("applied again it changes nothing");
        it_goes_in_reverse(&case).await?;
        case.rule("the workflow's deletion uninstalls redis before a server's deletion begins, and leaves nothing");
        Ok(())
    });
}

async fn redis_answers(case: &Case, server: &str, port: u16) -> Result<()> {
    let mut redis = Redis::connect(&format!("{}:{port}", case.address(server).await?)).await?;
    ensure!(redis.ask(&["SET", "greeting", &case.namespace]).await? == ["OK"]);
    ensure!(redis.ask(&["GET", "greeting"]).await? == std::slice::from_ref(&case.namespace));
    let name = redis.ask(&["CONFIG", "GET", "syslog-ident"]).await?;
    ensure!(name == ["syslog-ident", server], "answered by {name:?}");
    let hostname = case.on_server(server, "hostname").await?;
    ensure!(hostname.trim() == server, "its host name is {hostname}");
    Ok(())
}

async fn what_was_planned_was_executed(case: &Case) -> Result<()> {
    let of = |steps: &[provisioning_api::steps::StepStatus]| {
        steps.iter().map(|step| (step.id.clone(), step.run, step.phase)).collect::<Vec<_>>()
    };
    let expected = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), 1, StepPhase::Succeeded)).collect::<Vec<_>>();
    let workflow = case.get::<BatchWorkflow>("first").await?;
    assert_eq!(of(workflow.steps()), expected(&["heron", "curlew", "redis"]), "{}", describe(&workflow));
    for name in ["heron", "curlew"] {
        let server = case.get::<Server>(name).await?;
        assert_eq!(of(server.steps()), expected(&["create", "observe", "reach"]), "{}", describe(&server));
    }
    let taskserv = case.get::<Taskserv>("redis").await?;
    assert_eq!(of(taskserv.steps()), expected(&["install/heron", "check/heron"]), "{}", describe(&taskserv));
    // The server's own record agrees.
    let there: Vec<_> = case
        .server_runs("heron")
        .await?
        .into_iter()
        .map(|run| (run.event, run.step, run.run, run.direction, run.script, run.exit))
        .collect();
    let line = |event: &str, step: &str, script: &str, exit| {
        (event.to_owned(), step.to_owned(), 1, Direction::Forward, script.to_owned(), exit)
    };
    assert_eq!(
        there,
        [
            line("start", "install/heron", "install", None),
            line("end", "install/heron", "install", Some(0)),
            line("start", "check/heron", "check", None),
            line("end", "check/heron", "check", Some(0)),
        ]
    );
    assert_eq!(case.server_runs("curlew").await?, []);
    Ok(())
}

async fn each_run_is_one_job(case: &Case, expected: usize) -> Result<()> {
    let client = &case.cluster.client;
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    let jobs = Api::<Job>::namespaced(client.clone(), &case.namespace).list(&ours).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), &case.namespace).list(&ours).await?;
    let leases = Api::<Lease>::namespaced(client.clone(), &case.namespace).list(&Default::default()).await?;
    let names = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let job_names = names(jobs.iter().map(ResourceExt::name_any).collect());
    assert_eq!(job_names.len(), expected, "{job_names:?}");
    assert_eq!(job_names, names(pods.iter().map(ResourceExt::name_any).collect()), "Jobs and Pods");
    assert_eq!(job_names, names(leases.iter().map(ResourceExt::name_any).collect()), "Jobs and Leases");
    for job in &jobs.items {
        let name = job.name_any();
        assert_eq!(job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref()), Some(JOB_MANAGER), "{name}");
        let conditions = job.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let complete = conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True");
        assert!(complete, "{name}: {conditions:?}");
        let pod = pods.iter().find(|pod| pod.name_any() == name).context("no pod")?;
        let owner = pod.owner_references().first().context("no owner")?;
        assert_eq!((owner.kind.as_str(), Some(owner.uid.clone())), ("Job", job.uid()), "{name}");
        let lease = leases.iter().find(|lease| lease.name_any() == name).context("no lease")?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        assert_eq!(holder, pod.uid(), "holder of {name}");
    }
    Ok(())
}

async fn creates_are_counted(case: &Case, machines: usize, runs: usize) -> Result<()> {
    let namespace = &case.namespace;
    let provider = format!("system:serviceaccount:{namespace}:provisioning-local-provider");
    let created = case.cluster.audit(namespace, |event| event.verb == "create" && event.code == 201).await?;
    let count = |wanted: &dyn Fn(&provisioning_e2e::AuditEvent) -> bool| {
        created.iter().filter(|event| event.subresource.is_empty() && wanted(event)).count()
    };
    let site = &case.cluster.site;
    assert_eq!(
        count(&|event| event.resource == "pods" && event.namespace == *site && event.user == provider),
        machines
    );
    for resource in ["jobs", "pods", "leases"] {
        assert_eq!(count(&|event| event.resource == resource && event.namespace == *namespace), runs, "{resource}");
    }
    Ok(())
}

/// kind/name → resourceVersion of all that a second apply could touch.
async fn versions(case: &Case) -> Result<BTreeMap<String, String>> {
    let mut found = case.versions().await?;
    for job in Api::<Job>::namespaced(case.cluster.client.clone(), &case.namespace).list(&Default::default()).await? {
        found.insert(format!("Job {}", job.name_any()), job.resource_version().unwrap_or_default());
    }
    Ok(found)
}

async fn applied_again_it_changes_nothing(case: &Case, example: &str) -> Result<()> {
    let before = versions(case).await?;
    case.apply_yaml(example).await?;
    let after = case.stays("the workspace", QUIET, || versions(case)).await?;
    assert_eq!(before, after);
    Ok(())
}

async fn it_goes_in_reverse(case: &Case) -> Result<()> {
    let api = Api::<Job>::namespaced(case.cluster.client.clone(), &case.namespace);
    // A Job goes with its owner, so they are collected as they come.
    let begin = api.list(&Default::default()).await?.metadata.resource_version.unwrap_or_default();
    let watched = api.watch(&Default::default(), &begin).await?.boxed();
    case.delete::<BatchWorkflow>("first").await?;
    let gone = case.gone::<BatchWorkflow>("first", DEADLINE);
    let jobs = collect(watched, gone).await?;
    let last_write = |resource: &'static str, name: &'static str, verbs: &'static [&'static str]| async move {
        let operator = |user: &str| user.ends_with(":provisioning-operator");
        let events = case.cluster.audit(&case.namespace, |event| {
            event.namespace == case.namespace && event.subresource.is_empty() && operator(&event.user)
        });
        let mut found = events.await?.into_iter().filter(|event| {
            event.resource == resource
                && event.name == name
                && verbs.contains(&event.verb.as_str())
                && event.code == 200
        });
        let last = found.next_back().map(|event| event.time);
        last.with_context(|| format!("no {verbs:?} of {resource} {name}"))
    };
    // The finalizer's removal is the operator's last write to an object. Times are RFC 3339 in microseconds, UTC.
    let redis_gone = last_write("taskservs", "redis", &["update", "patch"]).await?;
    let heron_deleted = last_write("servers", "heron", &["delete"]).await?;
    ensure!(redis_gone <= heron_deleted, "redis went at {redis_gone}, heron's deletion came at {heron_deleted}");
    last_write("servers", "curlew", &["delete"]).await?;
    let uninstall = undo_job(&jobs, "Taskserv", "redis", "install/heron")?;
    let removal = undo_job(&jobs, "Server", "heron", "create")?;
    let ended = uninstall.status.as_ref().and_then(|status| status.completion_time.clone());
    let ended = ended.context("the uninstall has no end")?;
    let began = removal.metadata.creation_timestamp.clone().context("the delete has no beginning")?;
    ensure!(ended.0 <= began.0, "the uninstall ended at {}, the delete began at {}", ended.0, began.0);
    let pods: Vec<_> = case.site_pods().await?.iter().map(ResourceExt::name_any).collect();
    ensure!(pods.is_empty(), "left: {pods:?}");
    ensure!(case.disks()?.is_empty(), "left: {:?}", case.disks()?);
    Ok(())
}

/// The Jobs that a watch tells of until `end`, each as it was seen last.
async fn collect(
    mut watched: BoxStream<'_, kube::Result<WatchEvent<Job>>>,
    end: impl Future<Output = Result<()>>,
) -> Result<Vec<Job>> {
    let mut jobs = BTreeMap::new();
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            done = &mut end => break done?,
            event = watched.next() => {
                if let WatchEvent::Added(job) | WatchEvent::Modified(job) = event.context("the watch ended")?? {
                    jobs.insert(job.name_any(), job);
                }
            }
        }
    }
    Ok(jobs.into_values().collect())
}

/// The Job of the last run of a step.
fn undo_job<'a>(jobs: &'a [Job], kind: &str, name: &str, id: &str) -> Result<&'a Job> {
    let is = |labels: &BTreeMap<String, String>, key: &str, value: &str| labels.get(key).is_some_and(|is| is == value);
    let wanted = |job: &&Job| {
        is(job.labels(), LABEL_OWNER_KIND, kind)
            && is(job.labels(), LABEL_OWNER_NAME, name)
            && is(job.annotations(), ANNOTATION_STEP_ID, id)
    };
    let run = |job: &&Job| job.labels().get(LABEL_RUN).and_then(|run| run.parse::<i64>().ok());
    let last = jobs.iter().filter(wanted).max_by_key(run).with_context(|| format!("no Job of {kind} {name} {id}"))?;
    ensure!(run(&last) == Some(2), "the undo of {kind} {name} {id} is run {:?}", run(&last));
    Ok(last)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn suspend_holds_and_resumes() {
    case("suspend_holds_and_resumes", |case: Case| async move {
        case.workspace().await?;
        let mut server = case.server("grey-plover");
        server["spec"]["suspend"] = json!(true);
        case.apply(&server).await?;
        let held = |server: &Server| {
            condition(server, types::RECONCILING).is_some_and(|condition| condition.reason == reasons::SUSPENDED)
        };
        case.wait_for("grey-plover", "suspended", DEADLINE, held).await?;
        case.stays("a suspended server", QUIET, || async { Ok(case.get::<Server>("grey-plover").await?.status) })
            .await?;
        ensure!(case.site_pods().await?.is_empty(), "a suspended Server has a machine");
        case.rule("a suspended Server starts nothing");

        // The Workspace's word holds for all that is in it.
        case.patch::<Workspace>("workspace", &json!({"spec": {"suspend": true}})).await?;
        let seen =
            |workspace: &Workspace| workspace.observed_generation() == workspace.metadata.generation.unwrap_or(0);
        case.wait_for("workspace", "suspended", DEADLINE, seen).await?;
        case.patch::<Server>("grey-plover", &json!({"spec": {"suspend": false}})).await?;
        let seen = |server: &Server| server.observed_generation() == server.metadata.generation.unwrap_or(0);
        let server = case.wait_for("grey-plover", "held by the Workspace", DEADLINE, seen).await?;
        assert!(held(&server), "{}", describe(&server));
        ensure!(case.site_pods().await?.is_empty(), "a suspended Workspace has a machine");
        case.rule("a suspended Workspace starts nothing");

        case.patch::<Workspace>("workspace", &json!({"spec": {"suspend": false}})).await?;
        case.ready::<Server>("grey-plover").await?;
        case.rule("resumed, it goes on to Ready");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_reconcile_annotation_observes_a_ready_server_once() {
    case("the_reconcile_annotation_observes_a_ready_server_once", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("avocet")).await?;
        let before = case.ready::<Server>("avocet").await?;
        let runs = |server: &Server| server.steps().iter().map(|step| (step.id.clone(), step.run)).collect::<Vec<_>>();
        assert_eq!(runs(&before), [("create".to_owned(), 1), ("observe".to_owned(), 1), ("reach".to_owned(), 1)]);
        let asked = case.reconcile::<Server>("avocet").await?;
        let observed = |server: &Server| {
            step(server, "observe").is_some_and(|step| step.run == 2 && step.phase == StepPhase::Succeeded)
        };
        case.wait_for("avocet", "observed again", DEADLINE, observed).await?;
        // What depends on a repeated step is repeated too (protocols §1): SSH is tried anew, nothing is created.
        case.ready::<Server>("avocet").await?;
        let after = case
            .stays("a Ready server after the observation", QUIET, || async {
                Ok(runs(&case.get::<Server>("avocet").await?))
            })
            .await?;
        assert_eq!(after, [("create".to_owned(), 1), ("observe".to_owned(), 2), ("reach".to_owned(), 2)]);
        let handled =
            case.get::<Server>("avocet").await?.status.and_then(|status| status.run.last_handled_reconcile_at);
        assert_eq!(handled.as_ref(), asked.annotations().get(provisioning_api::names::ANNOTATION_RECONCILE));
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn servers_of_equal_names_in_two_workspaces_do_not_meet() {
    case("servers_of_equal_names_in_two_workspaces_do_not_meet", |case: Case| async move {
        let other = case.sibling("b").await?;
        for workspace in [&case, &other] {
            workspace.workspace().await?;
            workspace.apply(&workspace.server("dunlin")).await?;
        }
        let mut machines = Vec::new();
        for workspace in [&case, &other] {
            let status = workspace.ready::<Server>("dunlin").await?.status.context("no status")?;
            ensure!(workspace.on_server("dunlin", "hostname").await?.trim() == "dunlin");
            machines.push([
                status.provider_id.context("no providerID")?,
                status.addresses.first().context("no address")?.address.clone(),
                status.host_key.context("no host key")?,
                status.machine_id.context("no machineID")?,
            ]);
        }
        for (left, right) in machines[0].iter().zip(&machines[1]) {
            assert_ne!(left, right);
        }
        assert_eq!((case.site_pods().await?.len(), other.site_pods().await?.len()), (1, 1));
        case.rule("equal names: two machines that share neither id, address, host key nor machine id");
        let uid = |pods: Vec<Pod>| pods.first().and_then(ResourceExt::uid);
        let before = uid(case.site_pods().await?);
        other.teardown().await?;
        assert_eq!(before, uid(case.site_pods().await?));
        assert_eq!(case.disks()?.len(), 1);
        case.on_server("dunlin", "systemctl is-active ssh").await?;
        case.rule("one workspace's end leaves the other's server of that name alone");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_taskserv_works_on_a_server_made_by_hand() {
    case("a_taskserv_works_on_a_server_made_by_hand", |case: Case| async move {
        case.workspace().await?;
        // The service first: it waits for its server by itself.
        case.apply(&case.server("bittern")).await?;
        let mut service = case.redis_on("cache", &["bittern"]);
        service["spec"]["parameters"]["port"] = json!(7001);
        case.apply(&service).await?;
        case.ready::<Taskserv>("cache").await?;
        redis_answers(&case, "bittern", 7001).await?;
        case.rule("installed and answering on the port that was asked for");
        case.delete::<Taskserv>("cache").await?;
        case.gone::<Taskserv>("cache", DEADLINE).await?;
        ensure!(
            Redis::connect(&format!("{}:7001", case.address("bittern").await?)).await.is_err(),
            "redis still listens"
        );
        let left =
            case.on_server("bittern", "dpkg-query -W -f '${Status}' redis-server 2>/dev/null || echo none").await?;
        ensure!(!left.contains("installed") || left.contains("not-installed"), "redis-server is {left}");
        let scripts: Vec<_> = case
            .server_runs("bittern")
            .await?
            .into_iter()
            .filter(|run| run.event == "end")
            .map(|run| (run.script, run.direction, run.exit))
            .collect();
        let ended = |script: &str, direction| (script.to_owned(), direction, Some(0));
        assert_eq!(
            scripts,
            [
                ended("install", Direction::Forward),
                ended("check", Direction::Forward),
                ended("uninstall", Direction::Undo)
            ]
        );
        case.ready::<Server>("bittern").await?;
        case.rule("its deletion uninstalls it and leaves the server Ready");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn deletion_policy_orphan_leaves_the_machine() {
    case("deletion_policy_orphan_leaves_the_machine", |case: Case| async move {
        case.workspace().await?;
        let mut server = case.server("godwit");
        server["spec"]["deletionPolicy"] = json!("Orphan");
        case.apply(&server).await?;
        let server = case.ready::<Server>("godwit").await?;
        let (pod, uid) = (case.site_pod("godwit").await?, server.uid().context("no uid")?);
        case.delete::<Server>("godwit").await?;
        case.gone::<Server>("godwit", DEADLINE).await?;
        let pods = case
            .stays("the orphan", QUIET, || async {
                let pods = case.site_pods().await?;
                Ok(pods
                    .iter()
                    .map(|pod| (pod.name_any(), pod.metadata.deletion_timestamp.is_some()))
                    .collect::<Vec<_>>())
            })
            .await?;
        assert_eq!(pods, [(pod.clone(), false)]);
        assert_eq!(case.disks()?.len(), 1);
        let address = server.status.and_then(|status| status.addresses.first().map(|first| first.address.clone()));
        tokio::net::TcpStream::connect((address.context("no address")?, 22)).await.context("its port 22")?;
        case.rule("the object is gone; machine and disk stay, and SSH listens");
        remove_orphan(&case, &pod, &uid).await
    });
}

/// What an administrator does with an orphan of the Local provider that nobody wants any more: its pod and its host key's
/// Secret are deleted from the site, then its folder from the node.
async fn remove_orphan(case: &Case, pod: &str, uid: &str) -> Result<()> {
    let (client, site) = (&case.cluster.client, &case.cluster.site);
    let pods = Api::<Pod>::namespaced(client.clone(), site);
    pods.delete(pod, &Default::default()).await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), site);
    let all = ListParams::default().labels(&format!("{}={uid}", provisioning_api::names::LABEL_OWNER_UID));
    secrets.delete_collection(&Default::default(), &all).await?;
    case.until("the orphan's pod gone", DEADLINE, || async {
        Ok(if pods.get_opt(pod).await?.is_some() { Err(pod.to_owned()) } else { Ok(()) })
    })
    .await?;
    for disk in case.disks()? {
        let folder = case.cluster.disks.join(site).join(&case.namespace).join(&disk);
        ensure!(disk.starts_with(uid), "{disk} is not the orphan's");
        std::fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}
