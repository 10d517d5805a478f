//! The largest status that the kinds of this release can come to stays below its limit (protocols §1): made by the planner
//! itself from the worst names, edges and results.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

mod support;

use std::collections::BTreeMap;

use provisioning_api::cluster::{ClusterMember, MemberState, PublishedEndpoint};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{
    MAX_INSTALLED, MAX_OUTPUT, MAX_OUTPUT_COUNT, MAX_OUTPUTS, MAX_STATUS, MAX_TASKSERV_EDGES, MAX_TASKSERV_STEPS,
};
use provisioning_api::server::{Installed, InstalledFor, InstalledState};
use provisioning_api::steps::{FailureClass, RunStatus, STATUS_SCHEMA, StepAction, StepPhase, StepStatus};
use provisioning_api::taskserv::{ResolvedExtension, TaskservServer};
use provisioning_api::{BatchWorkflowStatus, ClusterStatus, ServerStatus, TaskservStatus};
use provisioning_plan::conditions::{Standing, conditions};
use provisioning_plan::decision::{Policy, decide};
use provisioning_plan::graph::{Graph, MAX_EDGES, Step};
use provisioning_plan::observed::{Observed, Outcome, RunView};
use provisioning_plan::settle::settle;
use provisioning_plan::summary;
use support::{at, policy, steps};

/// A name of 63 characters.
fn name(number: usize) -> String {
    format!("{}{number:03}", "h".repeat(60))
}

/// Text whose every byte is written as two.
fn quotes(bytes: usize) -> String {
    "\"".repeat(bytes)
}

/// Entries whose first run succeeded with all the outputs that fit, and whose second one failed with all the words.
fn worst(graph: &Graph) -> Vec<StepStatus> {
    let all = Policy { parallelism: 300, available: 300, epoch: 1_000_000, ..policy() };
    let count = graph.steps().len();
    let mut entries = decide(graph, &[], &Observed::new(), &all, at(0)).steps;
    let size = MAX_OUTPUTS / MAX_OUTPUT_COUNT / 2 - 4;
    let outputs: BTreeMap<String, String> =
        (0..MAX_OUTPUT_COUNT).map(|number| (format!("o{number}"), quotes(size.min(MAX_OUTPUT)))).collect();
    for number in 0..count {
        let id = entries[number].id.clone();
        for round in 0..2 {
            let outcome = if round == 0 && number == 0 {
                Outcome { outputs: outputs.clone(), ..Outcome::succeeded() }
            } else if round == 0 {
                // Only what is made outside has an external id.
                let made = matches!(entries[number].action, StepAction::Create | StepAction::Apply);
                Outcome { external_id: made.then(|| quotes(256)), ..Outcome::succeeded() }
            } else {
                let mut failed = Outcome::failed(FailureClass::Infrastructure, &"R".repeat(64), quotes(10_000));
                failed.retry_after_seconds = Some(3600);
                failed
            };
            entries[number].phase = StepPhase::Running;
            entries[number].run = 1_000_000_000;
            entries[number].epoch = 1_000_000_000;
            entries[number].started_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
            entries = settle(&entries, &Observed::from([(id.clone(), RunView::Ended(outcome))]), at(10));
        }
    }
    assert!(entries.iter().all(|entry| entry.message.len() > 250), "each has all the words");
    assert!(entries[0].outputs.len() == MAX_OUTPUT_COUNT, "the outputs were refused: {}", entries[0].message);
    entries
}

fn run_status(entries: Vec<StepStatus>) -> RunStatus {
    RunStatus {
        observed_generation: i64::MAX,
        conditions: conditions(&Standing::stalled(reasons::UNKNOWN_REFERENCE, quotes(5000)), &[], i64::MAX, at(0)),
        schema: STATUS_SCHEMA,
        last_handled_reconcile_at: Some(quotes(256)),
        plan: Some(summary::plan(&entries, i64::MAX)),
        progress: Some(summary::progress(&entries)),
        steps: entries,
        run_floor: i64::MAX,
    }
}

fn written(status: &impl serde::Serialize) -> usize {
    serde_json::to_vec(status).unwrap().len()
}

#[test]
fn the_largest_workflow_fits() {
    let mut wanted: Vec<Step> = Vec::new();
    let mut edges = 0;
    for number in 0..64 {
        let mut step = steps(&format!("{} apply", name(number))).remove(0);
        step.why = quotes(128);
        let before = (0..number).rev().take(63).take(MAX_EDGES - edges);
        step.depends_on = before
            .map(|other| provisioning_plan::graph::Dependency::hard(&provisioning_plan::ids::StepId::new(name(other))))
            .collect();
        edges += step.depends_on.len();
        wanted.push(step);
    }
    assert_eq!(edges, MAX_EDGES);
    let status = BatchWorkflowStatus { run: run_status(worst(&Graph::new(wanted).unwrap())) };
    let size = written(&status);
    println!("largest BatchWorkflow status: {size} bytes of {MAX_STATUS}");
    assert!(size < MAX_STATUS, "{size} bytes");
}

#[test]
fn the_largest_cluster_fits() {
    // 64 servers in 8 groups, 16 services that are told of all groups and depend on all before them.
    let mut text = String::new();
    let group = |number: usize| format!("group/{}", name(number));
    for number in 0..64 {
        text.push_str(&format!("server/{} apply\n", name(number)));
    }
    for number in 0..8 {
        let servers: Vec<String> = (0..8).map(|other| format!("server/{}", name(number * 8 + other))).collect();
        text.push_str(&format!("{} wait after={}\n", group(number), servers.join(",")));
    }
    for number in 0..16 {
        let before = (0..8).map(group).chain((0..number).map(|other| format!("taskserv/{}", name(other))));
        text.push_str(&format!("taskserv/{} apply after={}\n", name(number), before.collect::<Vec<_>>().join(",")));
    }
    let mut wanted = steps(&text);
    // "Taskserv NAME" and lists of names: letters only.
    wanted.iter_mut().for_each(|step| step.why = "w".repeat(128));
    let graph = Graph::new(wanted).unwrap();
    let mut entries = worst(&graph);
    for entry in &mut entries {
        // KIND/NAME; outputs are not kept in the steps of a cluster.
        entry.external_id = entry.external_id.take().map(|_| format!("Taskserv/{}", name(0)));
        entry.outputs.clear();
    }
    let members = (0..64).map(|number| ClusterMember {
        group: name(number / 8),
        server: name(number),
        address: Some("a".repeat(253)),
        state: MemberState::NotReady,
    });
    let endpoints = (0..8).map(|number| PublishedEndpoint {
        name: name(number),
        addresses: (0..16).map(|_| format!("{}://{}:65535", "s".repeat(16), "a".repeat(253))).collect(),
    });
    let status = ClusterStatus {
        members: members.collect(),
        endpoints: endpoints.collect(),
        outputs: (0..8).map(|number| (name(number), quotes(512))).collect(),
        run: run_status(entries),
    };
    let size = written(&status);
    println!("largest Cluster status: {size} bytes of {MAX_STATUS}");
    assert!(size < MAX_STATUS, "{size} bytes");
}

#[test]
fn the_largest_taskserv_fits_even_while_all_its_servers_are_replaced() {
    // Two servers with 32 extensions each have the longest names.
    let id = |verb: &str, number: usize| format!("{verb}/{}/{}", name(number / 32), name(number % 32));
    let mut edges = 0;
    let text: String = (0..MAX_TASKSERV_STEPS / 2)
        .map(|number| {
            let before =
                (number / 32 * 32..number).rev().take(MAX_TASKSERV_EDGES - MAX_TASKSERV_STEPS / 2 - edges).take(3);
            let before: Vec<String> = before.map(|other| id("check", other)).collect();
            edges += before.len();
            let after = if before.is_empty() { String::new() } else { format!(" after={}", before.join(",")) };
            let (install, check) = (id("install", number), id("check", number));
            format!("{install} install{after}\n{check} check after={install}\n")
        })
        .collect();
    let mut wanted = steps(&text);
    assert_eq!(wanted.len(), MAX_TASKSERV_STEPS);
    assert_eq!(wanted.iter().map(|step| step.depends_on.len()).sum::<usize>(), MAX_TASKSERV_EDGES);
    // "EXTENSION on SERVER": names only.
    wanted.iter_mut().for_each(|step| step.why = "w".repeat(128));
    let entries = worst(&Graph::new(wanted).unwrap());
    let rows = (0..64).map(|number| TaskservServer {
        name: name(number),
        phase: StepPhase::UndoFailed,
        outputs: if number == 0 { entries[0].outputs.clone() } else { BTreeMap::new() },
    });
    let chosen = ResolvedExtension {
        name: name(0),
        version: "9".repeat(64),
        digest: "9".repeat(80),
        generation: i64::MAX,
        replaces: Some("9".repeat(64)),
    };
    let status = TaskservStatus {
        servers: rows.collect(),
        resolved: Some(chosen.clone()),
        dependencies: vec![chosen; MAX_INSTALLED - 1],
        run: run_status(entries),
    };
    let size = written(&status);
    println!("largest Taskserv status: {size} bytes of {MAX_STATUS}");
    assert!(size < MAX_STATUS, "{size} bytes");
}

#[test]
fn the_largest_list_of_what_is_installed_fits() {
    let user = |number: usize| InstalledFor { uid: "u".repeat(64), name: name(number) };
    let entry = |number: usize| Installed {
        extension: name(number),
        version: "9".repeat(64),
        digest: "9".repeat(80),
        state: InstalledState::Installing,
        by: user(0),
        inherited_from: Some(user(1)),
        required_by: (0..MAX_INSTALLED).map(user).collect(),
    };
    let entries =
        worst(&Graph::new(steps("create create\nobserve observe after=create\nreach reach after=observe")).unwrap());
    let installed = (0..MAX_INSTALLED).map(entry).collect();
    let status = ServerStatus { run: run_status(entries), installed, ..ServerStatus::default() };
    let size = written(&status);
    println!("largest Server status: {size} bytes of {MAX_STATUS}");
    assert!(size < MAX_STATUS, "{size} bytes");
}
