use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_APPLIED, ANNOTATION_RECONCILE, LABEL_OWNER_UID};
use provisioning_api::steps::StepPhase;
use provisioning_plan::conditions::State;
use provisioning_plan::observed::Observed;
use serde_json::{Value, json};

use super::*;
use crate::children::applied_by;
use crate::engine::decide::{Planned, decide};
use crate::engine::observe::Seen;

/// A cluster and what it has made so far, without an API server. What happens is written down, a line each.
struct World {
    cluster: Cluster,
    servers: BTreeMap<String, Value>,
    taskservs: BTreeMap<String, Value>,
    story: Vec<String>,
}

fn template() -> Value {
    json!({"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"os": "debian", "version": "12"}})
}

/// A front on a server that is there, before two web servers that are made.
fn marsh(count: i32) -> Value {
    json!({
        "serverGroups": [
            {"name": "front", "servers": ["bittern"]},
            {"name": "web", "count": count, "template": template()},
        ],
        "taskservs": [
            {"name": "nginx", "group": "web", "extension": {"name": "nginx"}, "parameters": {"port": 8081}},
            {"name": "proxy", "group": "front", "extension": {"name": "haproxy"}, "peers": ["web"],
                "parameters": {"backendGroup": "web", "backendPort": 8081}, "dependsOn": [{"taskserv": "nginx"}]},
        ],
        "endpoints": [{"name": "http", "group": "front", "port": 80, "scheme": "http"}],
        "outputs": [{"name": "version", "taskserv": "nginx", "output": "version"}],
    })
}

fn cluster(spec: &Value) -> Cluster {
    let metadata = json!({"name": "marsh", "namespace": "fen", "uid": "uid-marsh", "generation": 1});
    let object =
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Cluster", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "fen", "uid": format!("uid-{name}"), "generation": 1}, "spec": spec})
}

/// A status with one condition, for the newest generation.
fn stand(object: &mut Value, status: &str, reason: &str, words: &str) {
    let at = "2026-01-01T00:00:00Z";
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": reason, "message": words, "lastTransitionTime": at});
    let mut conditions = vec![condition("Ready", status)];
    if reason == reasons::STEP_FAILED {
        conditions.push(condition("Stalled", "True"));
    }
    let generation = object["metadata"]["generation"].clone();
    let mut next = object["status"].clone();
    next["observedGeneration"] = generation;
    next["conditions"] = json!(conditions);
    next["lastHandledReconcileAt"] = object["metadata"]["annotations"][ANNOTATION_RECONCILE].clone();
    object["status"] = next;
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut bittern = object("Server", "bittern", &template());
        stand(&mut bittern, "True", "Succeeded", "all steps succeeded");
        bittern["status"]["addresses"] = json!([{"type": "Internal", "address": "10.0.0.1"}]);
        World {
            cluster: cluster(spec),
            servers: BTreeMap::from([("bittern".to_owned(), bittern)]),
            taskservs: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    fn facts(&self) -> Facts {
        let read = |value: &Value| serde_json::from_value::<Server>(value.clone()).unwrap();
        let servers: BTreeMap<String, Server> =
            self.servers.iter().map(|(name, value)| (name.clone(), read(value))).collect();
        let read = |value: &Value| serde_json::from_value::<Taskserv>(value.clone()).unwrap();
        let taskservs: BTreeMap<String, Taskserv> =
            self.taskservs.iter().map(|(name, value)| (name.clone(), read(value))).collect();
        let mut facts =
            Facts { known_servers: servers.keys().cloned().collect(), servers, taskservs, ..Facts::default() };
        let seen = |(id, child): (StepId, Child)| Some((id.to_string(), self.view(&facts, &child)?));
        facts.children = parts::children(&self.cluster).into_iter().filter_map(seen).collect();
        facts.stuck = children::stuck_undos(&self.cluster, |child| self.view(&facts, child));
        facts
    }

    fn view(&self, facts: &Facts, child: &Child) -> Option<ChildView> {
        match child.kind {
            "Server" => facts.servers.get(&child.name).map(|it| children::seen(&self.cluster, it, BTreeMap::new())),
            _ => facts.taskservs.get(&child.name).map(|it| children::seen(&self.cluster, it, BTreeMap::new())),
        }
    }

    /// How open runs stand, as the engine would find them.
    fn observed(&self, facts: &Facts) -> Observed {
        let steps = self.cluster.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let view = |step: &StepStatus| {
            let Some(child) = children::from_why(&step.why) else { return RunView::Ended(Outcome::succeeded()) };
            let seen = self.view(facts, &child);
            match (step.open_direction(), seen) {
                (Some(Direction::Undo), None) => RunView::Ended(Outcome::succeeded()),
                (Some(Direction::Undo), seen) => children::undo(seen.as_ref()),
                (_, seen) => children::forward(step, &child, seen, None, now).0,
            }
        };
        steps.iter().filter(|step| step.is_open()).map(|step| (step.id.clone(), view(step))).collect()
    }

    /// One pass, with the writes that follow from it.
    fn pass(&mut self) -> Planned<Cluster> {
        let facts = self.facts();
        let workspace =
            WorkspaceView { epoch: 1, suspended: false, deleting: false, parallelism: 8, ssh_public_key: None };
        let seen = Seen {
            object: self.cluster.clone(),
            workspace: Ok(workspace),
            observed: self.observed(&facts),
            facts,
            suspended: None,
            retry_requested: false,
            wake_at: None,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let planned = decide(&seen, usize::MAX);
        self.story.extend(planned.decision.notes.iter().cloned());
        self.cluster = planned.next.clone();
        for id in planned.decision.start.iter().chain(&planned.decision.resume) {
            let step = planned.decision.steps.iter().find(|step| step.id == *id).unwrap();
            match self.cluster.task(&seen.facts, step).unwrap() {
                Task::Apply(child) => self.write(step, &child),
                Task::Delete(child) => self.delete(&child),
                Task::Watch => {}
                other => panic!("{other:?}"),
            }
        }
        planned
    }

    fn write(&mut self, step: &StepStatus, child: &Child) {
        let place = if child.kind == "Server" { &mut self.servers } else { &mut self.taskservs };
        let known = place.contains_key(&child.name);
        let live = place.entry(child.name.clone()).or_insert_with(|| object(child.kind, &child.name, &child.spec));
        if known && live["spec"] != child.spec {
            live["metadata"]["generation"] = json!(live["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        live["spec"] = child.spec.clone();
        live["metadata"]["labels"][LABEL_OWNER_UID] = json!("uid-marsh");
        live["metadata"]["annotations"][ANNOTATION_APPLIED] = json!(applied_by(step));
        if let Some(asked) = &child.reconcile {
            live["metadata"]["annotations"][ANNOTATION_RECONCILE] = json!(asked);
        }
        let on = child.spec["servers"].as_array().map_or_else(String::new, |names| format!(" on {}", list(names)));
        let told = child.spec["peers"]["web"].as_array().map_or_else(String::new, |it| format!(" of {}", list(it)));
        self.story.push(format!("  writes {} {}{on}{told}", child.kind, child.name));
    }

    fn delete(&mut self, child: &Child) {
        self.story.push(format!("  deletes {} {}", child.kind, child.name));
        let place = if child.kind == "Server" { &mut self.servers } else { &mut self.taskservs };
        place.remove(&child.name);
    }

    /// All parts come to Ready, one pass after the other, until nothing more happens.
    fn settle(&mut self) -> Planned<Cluster> {
        for _ in 0..20 {
            for (number, server) in self.servers.values_mut().enumerate() {
                let address = format!("10.0.0.{}", number + 1);
                server["status"]["addresses"] = json!([{"type": "Internal", "address": address}]);
                stand(server, "True", "Succeeded", "all steps succeeded");
            }
            for taskserv in self.taskservs.values_mut() {
                let names = taskserv["spec"]["servers"].as_array().unwrap().clone();
                let row = |name: &Value| json!({"name": name, "phase": "Succeeded", "outputs": {"version": "1.22.1"}});
                taskserv["status"] = json!({"servers": names.iter().map(row).collect::<Vec<_>>()});
                stand(taskserv, "True", "Succeeded", "all steps succeeded");
            }
            let (before, planned) = (self.cluster.clone(), self.pass());
            if before == self.cluster && planned.decision.start.is_empty() {
                return planned;
            }
        }
        panic!("it does not come to rest:\n{}", self.story.join("\n"));
    }

    fn change(&mut self, spec: &Value) {
        self.story.clear();
        self.cluster.spec = serde_json::from_value(spec.clone()).unwrap();
        self.cluster.metadata.generation = self.cluster.metadata.generation.map(|generation| generation + 1);
    }

    fn told(&self, expected: &str) {
        assert_eq!(self.story.join("\n"), expected.trim_matches('\n'));
    }
}

fn list(names: &[Value]) -> String {
    names.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>().join(", ")
}

fn settled(spec: &Value) -> World {
    let mut world = World::new(spec);
    let planned = world.settle();
    assert_eq!(planned.standing.state, State::Ready, "{}", planned.standing.message);
    world
}

fn refused(spec: &Value) -> Standing {
    cluster(spec).graph(&World::new(spec).facts(), &[]).unwrap_err()
}

#[test]
fn servers_come_first_then_services_in_their_order() {
    settled(&marsh(2)).told(
        "
start server/marsh-web-0 run 1
start server/marsh-web-1 run 1
start group/front run 1
  writes Server marsh-web-0
  writes Server marsh-web-1
start group/web run 1
start taskserv/nginx run 1
  writes Taskserv marsh-nginx on marsh-web-0, marsh-web-1
start taskserv/proxy run 1
  writes Taskserv marsh-proxy on bittern of marsh-web-0, marsh-web-1",
    );
}

#[test]
fn the_plan_says_what_is_undone_and_how() {
    let world = settled(&marsh(1));
    let steps = &world.cluster.run_status().unwrap().steps;
    let told: Vec<String> =
        steps.iter().map(|step| format!("{} {:?} {:?}: {}", step.id, step.action, step.undo, step.why)).collect();
    assert_eq!(
        told,
        [
            "server/marsh-web-0 Apply DeleteObject: Server marsh-web-0",
            "group/front Wait None: servers bittern",
            "group/web Wait None: servers marsh-web-0",
            "taskserv/nginx Apply DeleteObject: Taskserv marsh-nginx",
            "taskserv/proxy Apply DeleteObject: Taskserv marsh-proxy",
        ]
    );
}

#[test]
fn a_larger_group_gets_its_servers_before_the_services_are_told() {
    let mut world = settled(&marsh(1));
    world.change(&marsh(2));
    world.settle();
    world.told(
        "
plan group/web again: its input changed
plan taskserv/nginx again: 'group/web' runs again
plan taskserv/proxy again: 'group/web' runs again
start server/marsh-web-1 run 1
  writes Server marsh-web-1
start group/web run 2
start taskserv/nginx run 2
  writes Taskserv marsh-nginx on marsh-web-0, marsh-web-1
start taskserv/proxy run 2
  writes Taskserv marsh-proxy on bittern of marsh-web-0, marsh-web-1",
    );
}

#[test]
fn services_leave_a_server_before_it_goes() {
    let mut world = settled(&marsh(2));
    world.change(&marsh(1));
    let planned = world.settle();
    assert_eq!(planned.standing.state, State::Ready, "{}", planned.standing.message);
    world.told(
        "
plan group/web again: its input changed
plan taskserv/nginx again: 'group/web' runs again
plan taskserv/proxy again: 'group/web' runs again
start group/web run 2
start taskserv/nginx run 2
  writes Taskserv marsh-nginx on marsh-web-0
start taskserv/proxy run 2
  writes Taskserv marsh-proxy on bittern of marsh-web-0
undo server/marsh-web-1 run 2
  deletes Server marsh-web-1
forget server/marsh-web-1: no longer in the plan",
    );
    let members = &world.cluster.status.as_ref().unwrap().members;
    assert_eq!(members.iter().map(|member| member.server.as_str()).collect::<Vec<_>>(), ["bittern", "marsh-web-0"]);
}

#[test]
fn a_server_waits_for_its_uninstallation_only_while_it_answers() {
    let mut world = settled(&marsh(2));
    world.change(&marsh(1));
    // The services have left the list and are up to date; nginx is not yet uninstalled.
    for taskserv in ["marsh-nginx", "marsh-proxy"] {
        let live = world.taskservs.get_mut(taskserv).unwrap();
        let spec =
            parts::children(&world.cluster).into_iter().find(|(_, child)| child.name == taskserv).unwrap().1.spec;
        live["spec"] = spec;
        stand(live, "Unknown", "Running", "running install/marsh-web-1");
    }
    world.taskservs.get_mut("marsh-nginx").unwrap()["status"]["steps"] = json!([{"id": "install/marsh-web-1",
        "action": "Install", "undo": "Uninstall", "inputHash": "v1:0", "phase": "Undoing", "effect": "Possible", "run": 2}]);
    let gates = |world: &World| world.cluster.gates(&world.facts());
    let words = "Taskserv 'marsh-nginx' is uninstalled from Server 'marsh-web-1' first";
    assert_eq!(gates(&world), BTreeMap::from([("server/marsh-web-1".to_owned(), Gate::Waiting(words.to_owned()))]));
    stand(world.servers.get_mut("marsh-web-1").unwrap(), "False", "StepFailed", "it does not answer");
    assert_eq!(gates(&world), BTreeMap::new());
}

#[test]
fn a_server_waits_until_those_that_were_told_of_it_have_forgotten_it() {
    let mut world = settled(&marsh(2));
    world.change(&marsh(1));
    let gate = |world: &World| world.cluster.gates(&world.facts()).remove("server/marsh-web-1");
    let waiting = |words: &str| Some(Gate::Waiting(words.to_owned()));
    assert_eq!(gate(&world), waiting("Taskserv 'marsh-nginx' has still to leave Server 'marsh-web-1'"));
    world.taskservs.get_mut("marsh-nginx").unwrap()["spec"]["servers"] = json!(["marsh-web-0"]);
    assert_eq!(gate(&world), waiting("Taskserv 'marsh-proxy' has still to leave Server 'marsh-web-1'"));
    let proxy = world.taskservs.get_mut("marsh-proxy").unwrap();
    proxy["spec"]["peers"] = json!({"web": ["marsh-web-0"]});
    proxy["metadata"]["generation"] = json!(7);
    assert_eq!(gate(&world), waiting("Taskserv 'marsh-proxy' has not seen yet that Server 'marsh-web-1' goes"));
    let proxy = world.taskservs.get_mut("marsh-proxy").unwrap();
    stand(proxy, "Unknown", "Running", "running install/bittern");
    proxy["status"]["steps"] = json!([{"id": "install/bittern", "action": "Install", "undo": "Uninstall",
        "inputHash": "v1:0", "phase": "Running", "run": 2}]);
    let words = "Taskserv 'marsh-proxy' is brought up to date before Server 'marsh-web-1' goes";
    assert_eq!(gate(&world), waiting(words));
    world.taskservs.get_mut("marsh-proxy").unwrap()["status"]["steps"][0]["phase"] = json!("Succeeded");
    assert_eq!(gate(&world), None);
}

#[test]
fn a_service_that_cannot_leave_is_the_cause_that_is_told() {
    let mut world = settled(&marsh(2));
    world.change(&marsh(1));
    world.pass();
    world.pass();
    stand(world.taskservs.get_mut("marsh-nginx").unwrap(), "False", "StepFailed", "uninstall failed: dpkg is locked");
    world.pass();
    let planned = world.pass();
    assert_eq!((planned.standing.state, planned.standing.reason), (State::Stalled, reasons::STEP_FAILED));
    let words = "step 'taskserv/nginx' failed (Invalid): Taskserv 'marsh-nginx': uninstall failed: dpkg is locked";
    assert_eq!(planned.standing.message, words);
    assert!(world.servers.contains_key("marsh-web-1"), "{:?}", world.story);
    // Once it is mended, all goes on.
    let planned = world.settle();
    assert_eq!(planned.standing.state, State::Ready, "{}", planned.standing.message);
    assert!(!world.servers.contains_key("marsh-web-1"), "{:?}", world.story);
}

#[test]
fn what_it_made_is_deleted_in_reverse_and_nothing_else() {
    let mut world = settled(&marsh(2));
    world.story.clear();
    world.cluster.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap());
    while world.pass().decision.verdict != provisioning_plan::decision::Verdict::Deleted {
        assert!(world.story.len() < 20, "{:?}", world.story);
    }
    world.told(
        "
undo taskserv/proxy run 2
  deletes Taskserv marsh-proxy
undo taskserv/nginx run 2
  deletes Taskserv marsh-nginx
undo server/marsh-web-1 run 2
undo server/marsh-web-0 run 2
  deletes Server marsh-web-1
  deletes Server marsh-web-0",
    );
    assert_eq!(world.servers.keys().collect::<Vec<_>>(), ["bittern"]);
}

#[test]
fn a_deletion_asks_nothing_of_the_spec() {
    let mut world = settled(&marsh(1));
    world.servers.remove("bittern");
    assert!(world.cluster.graph(&world.facts(), &[]).is_err());
    world.cluster.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap());
    assert!(world.cluster.graph(&world.facts(), &[]).is_ok());
}

#[test]
fn with_the_policy_orphan_what_it_made_stays() {
    let mut spec = marsh(2);
    spec["deletionPolicy"] = json!("Orphan");
    let mut world = settled(&spec);
    world.story.clear();
    world.cluster.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap());
    assert_eq!(world.pass().decision.verdict, provisioning_plan::decision::Verdict::Deleted);
    world.told("");
}

#[test]
fn what_somebody_deleted_is_made_again_once() {
    let mut world = settled(&marsh(1));
    world.story.clear();
    world.servers.remove("marsh-web-0");
    let planned = world.settle();
    assert_eq!(planned.standing.state, State::Ready, "{}", planned.standing.message);
    world.told(
        "
plan server/marsh-web-0 again: its input changed
plan group/web again: 'server/marsh-web-0' runs again
plan taskserv/nginx again: 'group/web' runs again
plan taskserv/proxy again: 'group/web' runs again
start server/marsh-web-0 run 2
  writes Server marsh-web-0
start group/web run 2
start taskserv/nginx run 2
  writes Taskserv marsh-nginx on marsh-web-0
start taskserv/proxy run 2
  writes Taskserv marsh-proxy on bittern of marsh-web-0",
    );
}

#[test]
fn what_somebody_made_in_its_place_is_not_taken_for_its_own() {
    let mut world = settled(&marsh(1));
    world.taskservs.get_mut("marsh-nginx").unwrap()["metadata"]["labels"][LABEL_OWNER_UID] = json!("uid-other");
    let graph = world.cluster.graph(&world.facts(), &world.cluster.run_status().unwrap().steps).unwrap();
    let step = world.cluster.run_status().unwrap().steps.iter().find(|step| step.id == "taskserv/nginx").unwrap();
    let hash = graph.get("taskserv/nginx").unwrap().input_hash.as_ref().unwrap();
    assert_ne!(hash.as_str(), step.input_hash, "it is applied again, which tells whose it is");
}

#[test]
fn a_part_that_is_no_longer_ready_shows_with_its_words() {
    let words = "GET /health on 10.0.0.2:8081: connection refused";
    for (kind, name, status, reason, state, told) in [
        ("Taskserv", "marsh-nginx", "False", "Retrying", State::Reconciling, reasons::RETRYING),
        ("Taskserv", "marsh-nginx", "Unknown", "Running", State::Reconciling, reasons::WAITING),
        ("Taskserv", "marsh-nginx", "False", "StepFailed", State::Stalled, reasons::DEPENDENCY_STALLED),
        ("Server", "bittern", "False", "Retrying", State::Reconciling, reasons::RETRYING),
        ("Server", "marsh-web-0", "False", "StepFailed", State::Stalled, reasons::DEPENDENCY_STALLED),
    ] {
        let mut world = settled(&marsh(1));
        let place = if kind == "Server" { &mut world.servers } else { &mut world.taskservs };
        stand(place.get_mut(name).unwrap(), status, reason, words);
        let planned = world.pass();
        assert_eq!((planned.standing.state, planned.standing.reason), (state, told), "{kind} {reason}");
        let message = &planned.standing.message;
        assert!(message.starts_with(&format!("{kind} '{name}' is ")) && message.ends_with(words), "{message}");
        let ready = &planned.next.run_status().unwrap().conditions[0];
        assert_eq!(ready.status, if told == reasons::WAITING { "Unknown" } else { "False" }, "{kind} {reason}");
        // And back.
        assert_eq!(world.settle().standing.state, State::Ready);
    }
}

#[test]
fn a_group_waits_for_servers_that_are_there() {
    let mut world = World::new(&marsh(1));
    stand(world.servers.get_mut("bittern").unwrap(), "Unknown", "Running", "running create");
    world.pass();
    stand(world.servers.get_mut("marsh-web-0").unwrap(), "True", "Succeeded", "all steps succeeded");
    for _ in 0..3 {
        world.pass();
        if let Some(nginx) = world.taskservs.get_mut("marsh-nginx") {
            stand(nginx, "True", "Succeeded", "all steps succeeded");
        }
    }
    let planned = world.pass();
    assert_eq!(planned.standing.reason, reasons::WAITING);
    assert_eq!(planned.standing.message, "Server 'bittern' is not Ready: running create");
    assert_eq!(world.taskservs.keys().collect::<Vec<_>>(), ["marsh-nginx"]);
    stand(world.servers.get_mut("bittern").unwrap(), "False", "StepFailed", "no such zone");
    let planned = world.pass();
    assert_eq!((planned.standing.state, planned.standing.reason), (State::Stalled, reasons::DEPENDENCY_STALLED));
    assert_eq!(planned.standing.message, "Server 'bittern' is Stalled: no such zone");
}

#[test]
fn a_server_with_too_long_a_name_is_refused_and_stands_in_no_status() {
    let mut world = World::new(&marsh(2));
    world.cluster.metadata.name = Some("m".repeat(61));
    let refused = world.pass().standing;
    assert_eq!((refused.state, refused.reason), (State::Stalled, reasons::INVALID));
    assert!(refused.message.contains("would have a name of"), "{}", refused.message);
    let members = &world.cluster.status.as_ref().unwrap().members;
    assert_eq!(members.iter().map(|member| member.server.as_str()).collect::<Vec<_>>(), ["bittern"]);
}

#[test]
fn members_endpoints_and_outputs_are_published() {
    let world = settled(&marsh(1));
    let status = serde_json::to_value(world.cluster.status.as_ref().unwrap()).unwrap();
    assert_eq!(
        status["members"],
        json!([{"group": "front", "server": "bittern", "address": "10.0.0.1", "state": "Ready"},
            {"group": "web", "server": "marsh-web-0", "address": "10.0.0.2", "state": "Ready"}])
    );
    assert_eq!(status["endpoints"], json!([{"name": "http", "addresses": ["http://10.0.0.1:80"]}]));
    assert_eq!(status["outputs"], json!({"version": "1.22.1"}));
}

#[test]
fn an_address_of_ip_6_stands_in_brackets() {
    let mut world = settled(&marsh(1));
    world.servers.get_mut("bittern").unwrap()["status"]["addresses"] =
        json!([{"type": "Internal", "address": "fd00::7"}]);
    let planned = world.pass();
    assert_eq!(planned.next.status.unwrap().endpoints[0].addresses, ["http://[fd00::7]:80"]);
}

#[test]
fn what_cannot_be_carried_out_is_found_when_the_graph_is_drawn() {
    let with = |pointer: &str, value: Value| {
        let mut spec = marsh(2);
        *spec.pointer_mut(pointer).unwrap() = value;
        spec
    };
    let many = |group: usize| json!({"name": format!("web-{group}"), "count": 32, "template": template()});
    let mut large = marsh(2);
    large["serverGroups"].as_array_mut().unwrap().extend([many(1), many(2)]);
    let mut circle = marsh(2);
    circle["taskservs"][0]["dependsOn"] = json!([{"taskserv": "proxy"}]);
    let (invalid, unknown) = (reasons::INVALID, reasons::UNKNOWN_REFERENCE);
    for (spec, reason, words) in [
        (
            with("/serverGroups/0/servers", json!(["bitern"])),
            unknown,
            "spec.serverGroups[0].servers[0]: there is no Server 'bitern' in this namespace (did you mean 'bittern'?)",
        ),
        (
            with("/taskservs/0/group", json!("wen")),
            unknown,
            "spec.taskservs[0].group: there is no group 'wen' in this cluster (did you mean 'web'?)",
        ),
        (
            with("/taskservs/1/peers", json!(["wen"])),
            unknown,
            "spec.taskservs[1].peers[0]: there is no group 'wen' in this cluster (did you mean 'web'?)",
        ),
        (
            with("/endpoints/0/group", json!("back")),
            unknown,
            "spec.endpoints[0].group: there is no group 'back' in this cluster",
        ),
        (
            with("/outputs/0/taskserv", json!("nginz")),
            unknown,
            "spec.outputs[0].taskserv: there is no taskserv 'nginz' in this cluster (did you mean 'nginx'?)",
        ),
        (
            with("/taskservs/1/dependsOn", json!([{"taskserv": "nginz"}])),
            unknown,
            "spec.taskservs: step 'taskserv/proxy' depends on 'taskserv/nginz', which does not exist",
        ),
        (circle, reasons::CYCLE, "spec.taskservs: the steps depend on each other in a circle: taskserv/nginx -> "),
        (large, invalid, "spec.serverGroups: 67 servers are more than the 64 of one Cluster: split it into several"),
        (with("/taskservs/0/name", json!("n".repeat(58))), invalid, "spec.taskservs[0].name: Taskserv 'marsh-nnnn"),
        (with("/serverGroups/1/name", json!("w".repeat(58))), invalid, "spec.serverGroups[1].name: Server 'marsh-wwww"),
    ] {
        let standing = refused(&spec);
        assert_eq!((standing.state, standing.reason), (State::Stalled, reason), "{}", standing.message);
        assert!(standing.message.starts_with(words), "{}", standing.message);
    }
}

#[test]
fn the_inputs_of_steps_are_hashed_as_in_the_first_release() {
    let graph = cluster(&marsh(1)).graph(&World::new(&marsh(1)).facts(), &[]).unwrap();
    let hash = |id: &str| graph.get(id).unwrap().input_hash.as_ref().unwrap().as_str().to_owned();
    let hashes = ["server/marsh-web-0", "group/web", "taskserv/proxy"].map(hash);
    assert_eq!(
        hashes,
        [
            "v1:58a94664880c4877a935332e889e556c",
            "v1:13a7d35d6ba563a63db606c6a25a10ae",
            "v1:8f3cebd518b38881045dfac4f364c399",
        ]
    );
}

#[test]
fn a_name_that_somebody_else_holds_is_left_alone_and_taken_once_it_is_free() {
    let mut world = World::new(&marsh(1));
    world.servers.insert("marsh-web-0".to_owned(), object("Server", "marsh-web-0", &template()));
    let taken = Outcome {
        class: Some(provisioning_api::steps::FailureClass::Invalid),
        harmless: true,
        reason: reasons::NAME_CONFLICT.to_owned(),
        message: "Server 'marsh-web-0' exists".to_owned(),
        ..Outcome::default()
    };
    let facts = world.facts();
    let mut object = world.cluster.clone();
    let graph = object.graph(&facts, &[]).unwrap();
    let policy = provisioning_plan::decision::Policy { epoch: 1, ..Default::default() };
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let started = provisioning_plan::decision::decide(&graph, &[], &Observed::new(), &policy, now);
    let ended = Observed::from([("server/marsh-web-0".to_owned(), RunView::Ended(taken))]);
    object.run_status_mut().steps = provisioning_plan::settle::settle(&started.steps, &ended, now);
    assert_eq!(object.run_status().unwrap().steps[0].phase, StepPhase::Failed);
    assert_eq!(object.mended(&facts), BTreeSet::new());
    world.servers.remove("marsh-web-0");
    assert_eq!(object.mended(&world.facts()), BTreeSet::from(["server/marsh-web-0".to_owned()]));
}

#[test]
fn a_part_that_cannot_be_read_is_not_told_as_gone_and_nothing_is_made_in_its_place() {
    let mut world = settled(&marsh(1));
    let mut facts = world.facts();
    let part = facts.children.get_mut("server/marsh-web-0").unwrap();
    part.standing = children::Standing::Stalled("this operator cannot read it: no spec; correct it first".to_owned());
    facts.servers.remove("marsh-web-0");
    let ready = Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: String::new() };
    let told = world.cluster.standing(&facts, &ready).unwrap();
    let words = "Server 'marsh-web-0' is Stalled: this operator cannot read it: no spec; correct it first";
    assert_eq!(told, Standing::stalled(reasons::DEPENDENCY_STALLED, words));
    let steps = world.cluster.run_status_mut().steps.clone();
    let graph = world.cluster.graph(&facts, &steps).unwrap();
    let step = steps.iter().find(|step| step.id == "server/marsh-web-0").unwrap();
    assert_eq!(graph.get(&step.id).unwrap().input_hash.as_ref().unwrap().as_str(), step.input_hash);
}

/// A child that was asked to go and does not: it is stuck, or on its way.
fn lingering(child: &Value, reason: &str, words: &str) -> Value {
    let mut child = child.clone();
    child["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:02:00Z");
    stand(&mut child, "False", reason, words);
    child
}

#[test]
fn a_child_that_cannot_be_taken_down_is_the_cause_that_a_deletion_tells() {
    let mut world = settled(&marsh(1));
    let proxy = world.taskservs["marsh-proxy"].clone();
    world.cluster.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap());
    world.pass();
    let words = "undo of step 'install/bittern' failed (ScriptFailed): dpkg is locked";
    let mut linger = |reason: &str| {
        world.taskservs.insert("marsh-proxy".to_owned(), lingering(&proxy, reason, words));
        world.pass().standing
    };
    let moving = linger("Deleting");
    assert_eq!(moving, Standing::reconciling(reasons::DELETING, "undoing taskserv/proxy"));
    let stuck = linger("StepFailed");
    let told = format!("Taskserv 'marsh-proxy' is Stalled: {words}");
    assert_eq!(stuck, Standing::stalled(reasons::DEPENDENCY_STALLED, told));
    // Once it moves again, so does the cluster.
    assert_eq!(linger("Deleting"), moving);
    world.taskservs.remove("marsh-proxy");
    while world.pass().decision.verdict != provisioning_plan::decision::Verdict::Deleted {
        assert!(world.story.len() < 40, "{:?}", world.story);
    }
}

#[test]
fn what_leaves_a_cluster_and_is_stuck_is_told_once_nothing_else_is_going_on() {
    let mut world = settled(&marsh(3));
    let servers = ["marsh-web-1", "marsh-web-2"].map(|name| (name.to_owned(), world.servers[name].clone()));
    world.change(&marsh(1));
    world.settle();
    let undoing = |name: &String| {
        let step = json!({"id": format!("server/{name}"), "action": "Apply", "why": format!("Server {name}"),
            "undo": "DeleteObject", "inputHash": "v1:0", "phase": "Undoing", "effect": "Possible", "run": 2});
        serde_json::from_value::<StepStatus>(step).unwrap()
    };
    world.cluster.run_status_mut().steps.extend(servers.iter().map(|(name, _)| undoing(name)));
    let mut linger = |reasons: [&str; 2]| {
        for ((name, server), reason) in servers.iter().zip(reasons) {
            world.servers.insert(name.clone(), lingering(server, reason, "the zone is closed"));
        }
        world.pass().standing
    };
    let moving = Standing::reconciling(reasons::RUNNING, "undoing server/marsh-web-1, server/marsh-web-2");
    assert_eq!(linger(["StepFailed", "Deleting"]), moving);
    let told = "Server 'marsh-web-1' is Stalled: the zone is closed";
    assert_eq!(linger(["StepFailed", "StepFailed"]), Standing::stalled(reasons::DEPENDENCY_STALLED, told));
}
