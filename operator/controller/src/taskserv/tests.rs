//! Several Taskservs on the same servers, pass by pass: each is told what the servers and the others say, changes the
//! servers' lists, decides, and its scripts end as a test says.

use std::collections::BTreeMap;
use std::sync::Arc;

use provisioning_api::server::InstalledState;
use provisioning_api::taskserv::Dependencies;
use provisioning_extensions::Manifest;
use provisioning_plan::conditions::State;
use provisioning_plan::observed::{Observed, Outcome, RunView};
use serde_json::{Value, json};

use super::*;
use crate::bundles::Contents;
use crate::engine::decide::decide;
use crate::engine::observe::{Seen, seen};

mod debts;
mod keepers;
mod unreadable;

/// All that there is in a namespace.
#[derive(Default)]
struct Marsh {
    servers: BTreeMap<String, Server>,
    taskservs: BTreeMap<String, Taskserv>,
    /// Servers that cannot be read just now.
    unreadable: Vec<String>,
    /// Whether the workspace has no place for one more run.
    is_full: bool,
    shelf: Vec<Offered>,
    /// Lists that were written, as API requests are counted.
    writes: usize,
    /// Scripts that were begun, with the version of their bundle.
    began: Vec<String>,
}

impl Marsh {
    /// Bundles, one a line: `web 1.0.0 requires lib ^1`, and servers that are Ready.
    fn new(bundles: &[&str], servers: &[&str]) -> Self {
        let mut marsh = Marsh::default();
        bundles.iter().for_each(|line| marsh.offer(line));
        servers.iter().for_each(|name| marsh.server(name, &json!({})));
        marsh
    }

    fn offer(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut manifest = json!({"apiVersion": "extension.provisioning.dev/v1alpha1", "kind": "Extension",
            "name": words[0], "version": words[1]});
        for relation in words[2..].chunks(3) {
            let mut list = manifest[relation[0]].as_array().cloned().unwrap_or_default();
            list.push(json!({"name": relation[1], "version": relation[2]}));
            manifest[relation[0]] = json!(list);
        }
        self.shelf.push(Offered {
            name: words[0].to_owned(),
            version: words[1].to_owned(),
            digest: format!("#{}-{}", words[0], words[1]),
            contents: Arc::new(Contents {
                manifest: Some(Manifest::from_yaml(&manifest.to_string()).unwrap()),
                schema: None,
                ..Contents::default()
            }),
        });
    }

    fn server(&mut self, name: &str, labels: &Value) {
        let ready = json!({"type": "Ready", "status": "True", "reason": "Succeeded", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let server = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": name, "namespace": "marsh", "uid": format!("uid-{name}"), "labels": labels},
            "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}},
            "status": {"conditions": [ready], "incarnation": 1, "machineID": format!("machine-{name}"),
                "hostKey": "key", "addresses": [{"type": "Internal", "address": "10.0.0.5"}]}});
        self.servers.insert(name.to_owned(), serde_json::from_value(server).unwrap());
    }

    /// Creates a Taskserv of an extension, or changes its spec.
    fn apply(&mut self, name: &str, spec: &Value) {
        let before = self.taskservs.remove(name);
        let generation = before.as_ref().and_then(|old| old.metadata.generation).unwrap_or(0) + 1;
        let mut taskserv: Taskserv = serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1",
            "kind": "Taskserv", "spec": spec, "metadata": {"name": name, "namespace": "marsh",
                "uid": format!("uid-{name}"), "generation": generation, "finalizers": ["provisioning.dev/operator"]}}))
        .unwrap();
        taskserv.status = before.and_then(|old| old.status);
        self.taskservs.insert(name.to_owned(), taskserv);
    }

    fn want(&mut self, name: &str, extension: &str, servers: &[&str]) {
        self.apply(name, &json!({"extension": {"name": extension}, "servers": servers}));
    }

    fn suspend(&mut self, name: &str, suspend: bool) {
        self.taskservs.get_mut(name).unwrap().spec.suspend = suspend;
    }

    /// A server whose last look at its machine has failed for good; its address is known.
    fn stall(&mut self, server: &str) {
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "StepFailed", "message": "no",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let status = self.servers.get_mut(server).unwrap().status.get_or_insert_default();
        let conditions = json!([condition("Ready", "False"), condition("Stalled", "True")]);
        status.run.conditions = serde_json::from_value(conditions).unwrap();
    }

    fn delete(&mut self, name: &str) {
        let taskserv = self.taskservs.get_mut(name).unwrap();
        taskserv.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    }

    /// One pass; `ends` are the steps whose runs have ended since. What is told is the reason and the message.
    fn pass_with(&mut self, name: &str, ends: &[(&str, Outcome)]) -> Standing {
        let object = self.taskservs[name].clone();
        let (unreadable, all): (Vec<&Server>, Vec<&Server>) =
            self.servers.values().partition(|server| self.unreadable.contains(&server.name_any()));
        let unreadable = unreadable.into_iter().map(|server| &server.metadata).collect();
        let mut facts =
            facts(&object, &all, unreadable, |other| self.taskservs.get(other).cloned(), self.shelf.clone());
        if order::matters(&facts.bundles) {
            order::meet(&mut facts, &object, self.taskservs.values());
        }
        let rests = |taskserv: &Taskserv| taskserv.spec.suspend.then(|| format!("{} rests", taskserv.name_any()));
        facts.at_rest = facts.others.iter().filter_map(|(uid, other)| Some((uid.clone(), rests(other)?))).collect();
        let suspended = rests(&object).filter(|_| object.metadata.deletion_timestamp.is_none());
        let changes = if suspended.is_none() { claims::changes(&object, &facts) } else { Ok(Vec::new()) };
        for (server, installed) in changes.unwrap_or_default() {
            let known = self.servers.get_mut(&server).unwrap();
            known.status.get_or_insert_default().installed = installed;
            self.writes += 1;
            facts.servers.iter_mut().find(|(other, _)| *other == server).unwrap().1 = Some(known.clone());
        }
        let steps = object.run_status().map(|status| status.steps.clone()).unwrap_or_default();
        let mut observed: Observed =
            steps.iter().filter(|step| step.is_open()).map(|step| (step.id.clone(), RunView::Alive)).collect();
        for (id, outcome) in ends {
            assert!(observed.insert((*id).to_owned(), RunView::Ended(outcome.clone())).is_some(), "{id} is not open");
        }
        let seen = Seen { suspended, ..seen(object, facts, observed) };
        let planned = decide(&seen, if self.is_full { 0 } else { usize::MAX });
        let is_over = planned.decision.verdict == Verdict::Deleted && planned.next.held_by(&seen.facts).is_none();
        for id in &planned.decision.start {
            self.begin(&planned.next, &seen.facts, planned.decision.steps.iter().find(|step| step.id == *id).unwrap());
        }
        match is_over {
            true => self.taskservs.remove(name),
            false => self.taskservs.insert(name.to_owned(), planned.next),
        };
        planned.standing
    }

    /// What was begun can be said, and the server's list says so already.
    fn begin(&mut self, taskserv: &Taskserv, facts: &Facts, step: &StepStatus) {
        let Task::Runner { request: RunnerRequest::Script(script), .. } = taskserv.task(facts, step).unwrap() else {
            panic!("{} runs no script", step.id)
        };
        let ScriptRequest { extension, script, .. } = script;
        self.began.push(format!("{} {}", step.id, extension.version));
        let entry = server_of(&step.id).and_then(|name| place::find(&self.servers[name], &extension.name)).unwrap();
        assert_eq!((entry.by.name.clone(), &entry.digest), (taskserv.name_any(), &extension.digest), "{}", step.id);
        match script {
            Script::Install => assert_eq!(entry.state, InstalledState::Installing, "{}", step.id),
            Script::Uninstall => assert_eq!(entry.state, InstalledState::Removing, "{}", step.id),
            Script::Check => assert_ne!(entry.state, InstalledState::Removing, "{}", step.id),
            Script::Named(name) => panic!("a Taskserv runs {name}"),
        }
    }

    fn pass(&mut self, name: &str) -> Standing {
        self.pass_with(name, &[])
    }

    /// Ends all open runs well, again and again, until nothing changes any more. The scripts that ran, in their order.
    fn run(&mut self, name: &str) -> Vec<String> {
        let mut ran = Vec::new();
        for _ in 0..100 {
            let Some(taskserv) = self.taskservs.get(name) else { return ran };
            let before = (taskserv.clone(), self.servers.clone());
            let open = taskserv.status.iter().flat_map(|status| &status.run.steps).filter(|step| step.is_open());
            let open: Vec<(String, StepPhase)> = open.map(|step| (step.id.clone(), step.phase)).collect();
            let told = open.iter().map(|(id, phase)| match phase {
                StepPhase::Undoing => format!("undo {id}"),
                _ => id.clone(),
            });
            ran.extend(told);
            let ends: Vec<_> = open.iter().map(|(id, _)| (id.as_str(), Outcome::succeeded())).collect();
            self.pass_with(name, &ends);
            if self.taskservs.get(name).is_some_and(|after| (after, &self.servers) == (&before.0, &before.1)) {
                return ran;
            }
        }
        panic!("{name} does not come to rest");
    }

    fn steps(&self, name: &str) -> Vec<String> {
        let steps = self.taskservs[name].status.iter().flat_map(|status| &status.run.steps);
        steps.map(|step| format!("{} {:?}", step.id, step.phase)).collect()
    }

    fn list(&self, server: &str) -> String {
        let one = |entry: &provisioning_api::server::Installed| {
            let users: Vec<&str> = entry.required_by.iter().map(|user| user.name.as_str()).collect();
            format!(
                "{} {} {:?} by {} for {}",
                entry.extension,
                entry.version,
                entry.state,
                entry.by.name,
                users.join("+")
            )
        };
        place::installed(&self.servers[server]).iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn is_ready(&self, name: &str) -> bool {
        self.taskservs[name].is_ready()
    }
}

fn failed(words: &str) -> Outcome {
    Outcome::failed(provisioning_api::steps::FailureClass::ScriptFailed, "ScriptFailed", words)
}

mod ordered;

const SHELF: [&str; 5] = [
    "lib 1.0.0",
    "web 1.0.0 requires lib ^1",
    "wiki 1.0.0 requires lib ^1",
    "docker 1.0.0",
    "podman 1.0.0 conflicts docker *",
];

#[test]
fn an_extension_that_requires_nothing_has_two_steps_and_two_writes_of_the_list() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron"]);
    marsh.want("cache", "redis", &["heron"]);
    assert_eq!(marsh.run("cache"), ["install/heron", "check/heron"]);
    assert!(marsh.is_ready("cache"));
    assert_eq!((marsh.list("heron").as_str(), marsh.writes), ("redis 0.2.0 Installed by cache for cache", 2));
    // At rest nothing is written.
    marsh.run("cache");
    assert_eq!(marsh.writes, 2);
    marsh.delete("cache");
    assert_eq!(marsh.run("cache"), ["undo install/heron"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.writes), ("", 4));
    assert!(marsh.taskservs.is_empty());
}

#[test]
fn what_it_has_still_to_leave_itself_does_not_hold_it_up_on_its_way_out() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron"]);
    marsh.want("cache", "redis", &["heron"]);
    marsh.pass("cache");
    marsh.stall("heron");
    marsh.delete("cache");
    // The server's list names it, for the run is seen to end only now; the server is stalled, and reached all the same.
    let told = marsh.pass_with("cache", &[("install/heron", Outcome::succeeded())]);
    assert_eq!((told.state, told.reason), (State::Reconciling, reasons::DELETING), "{}", told.message);
    assert!(told.message.contains("still lists extension 'redis'"), "{}", told.message);
    assert_eq!(marsh.run("cache"), ["undo install/heron"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn what_an_extension_requires_is_installed_before_it_and_removed_after_it() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("site", "web", &["heron"]);
    assert_eq!(marsh.run("site"), ["install/heron/lib", "check/heron/lib", "install/heron", "check/heron"]);
    assert_eq!(marsh.list("heron"), "lib 1.0.0 Installed by site for site; web 1.0.0 Installed by site for site");
    let status = marsh.taskservs["site"].status.as_ref().unwrap();
    let pinned: Vec<&str> = status.dependencies.iter().map(|resolved| resolved.digest.as_str()).collect();
    assert_eq!((pinned, status.resolved.as_ref().unwrap().digest.as_str()), (vec!["#lib-1.0.0"], "#web-1.0.0"));
    let why: Vec<&str> = status.run.steps.iter().map(|step| step.why.as_str()).collect();
    assert!(why.contains(&"lib on heron, for web") && why.contains(&"web on heron"), "{why:?}");
    marsh.delete("site");
    assert_eq!(marsh.run("site"), ["undo install/heron", "undo install/heron/lib"]);
    assert_eq!(marsh.list("heron"), "");
}

#[test]
fn a_shared_extension_is_installed_once_and_goes_with_its_last_user() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.pass("avocet");
    let waits = marsh.pass("bittern");
    assert_eq!(waits.reason, reasons::WAITING);
    assert_eq!(waits.message, "Taskserv 'avocet' is installing extension 'lib' on Server 'heron'");
    assert_eq!(marsh.steps("bittern"), ["install/heron Pending", "check/heron Pending"]);
    marsh.run("avocet");
    assert_eq!(marsh.run("bittern"), ["install/heron", "check/heron"], "lib is not installed again");
    assert!(marsh.is_ready("avocet") && marsh.is_ready("bittern"));
    assert!(
        marsh.list("heron").starts_with("lib 1.0.0 Installed by avocet for avocet+bittern;"),
        "{}",
        marsh.list("heron")
    );
    // Its keeper goes, and leaves it to the other one, who makes sure of it.
    marsh.delete("avocet");
    assert_eq!(marsh.run("avocet"), ["undo install/heron"]);
    assert_eq!(marsh.run("bittern"), ["install/heron/lib", "check/heron/lib"]);
    assert_eq!(
        marsh.list("heron"),
        "lib 1.0.0 Installed by bittern for bittern; wiki 1.0.0 Installed by bittern for bittern"
    );
    assert!(marsh.is_ready("bittern"));
    marsh.delete("bittern");
    assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
    assert_eq!(marsh.list("heron"), "");
}

#[test]
fn a_newcomer_waits_until_what_is_removed_is_gone() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "lib", &["heron"]);
    marsh.run("avocet");
    marsh.delete("avocet");
    marsh.pass("avocet");
    marsh.want("bittern", "wiki", &["heron"]);
    let waits = marsh.pass("bittern");
    assert_eq!(waits.message, "Taskserv 'avocet' is removing extension 'lib' from Server 'heron'");
    marsh.run("avocet");
    assert_eq!(marsh.run("bittern"), ["install/heron/lib", "check/heron/lib", "install/heron", "check/heron"]);
}

#[test]
fn extensions_that_conflict_are_refused_with_both_names() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("crane", "docker", &["heron"]);
    marsh.run("crane");
    marsh.want("stork", "podman", &["heron"]);
    let refused = marsh.pass("stork");
    assert_eq!((refused.state, refused.reason), (State::Stalled, reasons::INVALID));
    assert_eq!(
        refused.message,
        "spec.extension: on Server 'heron': docker 1.0.0 and podman 1.0.0 cannot be on the same server, because podman \
         conflicts with docker: Taskserv crane wants docker, Taskserv stork wants podman"
    );
    assert_eq!(marsh.list("heron"), "docker 1.0.0 Installed by crane for crane");
    // While the other one goes, it waits; then it goes on by itself.
    marsh.delete("crane");
    marsh.pass("crane");
    let waits = marsh.pass("stork");
    assert_eq!(waits.message, "Taskserv 'crane' is removing extension 'docker' from Server 'heron'");
    marsh.run("crane");
    assert_eq!(marsh.run("stork"), ["install/heron", "check/heron"]);
}

#[test]
fn versions_that_do_not_go_together_are_refused_with_all_who_ask() {
    let shelf = ["lib 1.0.0", "lib 2.0.0", "web 1.0.0 requires lib ^1", "wiki 1.0.0 requires lib ^2"];
    let mut marsh = Marsh::new(&shelf, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.want("bittern", "wiki", &["heron"]);
    let refused = marsh.pass("bittern");
    assert_eq!(refused.reason, reasons::INVALID);
    for words in ["on Server 'heron'", "web 1.0.0 requires lib ^1", "wiki 1.0.0 requires lib ^2"] {
        assert!(refused.message.contains(words), "{}", refused.message);
    }
}

#[test]
fn what_is_there_stays_in_its_version_where_that_will_do_and_is_replaced_where_all_agree() {
    let mut marsh = Marsh::new(&["lib 1.0.0", "web 1.0.0 requires lib *", "wiki 1.0.0 requires lib *"], &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.offer("lib 2.0.0");
    marsh.want("bittern", "wiki", &["heron"]);
    assert_eq!(marsh.run("bittern"), ["install/heron", "check/heron"], "1.0.0 will do");
    marsh.offer("maps 1.0.0 requires lib ^2");
    marsh.want("curlew", "maps", &["heron"]);
    assert_eq!(marsh.run("curlew"), ["install/heron/lib", "check/heron/lib", "install/heron", "check/heron"]);
    assert!(marsh.list("heron").starts_with("lib 2.0.0 Installed by curlew for avocet+bittern+curlew"));
    assert_eq!(marsh.run("avocet"), [""; 0], "who kept it before has nothing to undo");
    assert!(marsh.is_ready("avocet") && marsh.is_ready("bittern"));
}

#[test]
fn whose_own_extension_it_is_takes_it_over_with_its_parameters() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.apply("library", &json!({"extension": {"name": "lib"}, "servers": ["heron"], "parameters": {"size": 3}}));
    assert_eq!(marsh.run("library"), ["install/heron", "check/heron"]);
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installed by library for avocet+library"));
    assert_eq!(marsh.run("avocet"), [""; 0]);
    assert_eq!(marsh.steps("avocet"), ["install/heron Succeeded", "check/heron Succeeded"]);
    // It goes first: who needs it keeps it.
    marsh.delete("library");
    assert_eq!(marsh.run("library"), [""; 0], "nothing is removed under who needs it");
    assert!(!marsh.taskservs.contains_key("library"));
    assert_eq!(marsh.run("avocet"), ["install/heron/lib", "check/heron/lib"]);
}

#[test]
fn two_taskservs_of_one_extension_on_a_server_are_refused() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron"]);
    marsh.want("cache", "redis", &["heron"]);
    marsh.run("cache");
    marsh.want("store", "redis", &["heron"]);
    let refused = marsh.pass("store");
    assert_eq!(refused.reason, reasons::INVALID);
    assert!(refused.message.starts_with("spec.extension.name: 'redis' on Server 'heron' belongs to Taskserv 'cache'"));
    assert!(marsh.pass("cache").state == State::Ready);
}

#[test]
fn who_fails_is_followed_by_the_next_and_both_say_what_went_wrong() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.pass("avocet");
    marsh.pass("bittern");
    let stuck = marsh.pass_with("avocet", &[("install/heron/lib", failed("no reed"))]);
    assert_eq!(stuck.reason, reasons::STEP_FAILED);
    marsh.pass("bittern");
    assert!(
        marsh.list("heron").starts_with("lib 1.0.0 Installing by bittern for avocet+bittern"),
        "{}",
        marsh.list("heron")
    );
    let waits = marsh.pass("avocet");
    assert_eq!(waits.message, "Taskserv 'bittern' is installing extension 'lib' on Server 'heron'");
    // The last one fails too: then both are stuck, and say why.
    marsh.pass_with("bittern", &[("install/heron/lib", failed("no reed"))]);
    let waits = marsh.pass("avocet");
    assert_eq!((waits.state, waits.reason), (State::Stalled, reasons::DEPENDENCY_STALLED));
    assert!(
        waits.message.contains("Taskserv 'bittern' is Stalled") && waits.message.contains("no reed"),
        "{}",
        waits.message
    );
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installing by bittern"), "{}", marsh.list("heron"));
}

#[test]
fn strict_asks_for_what_is_there_already() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    let strict = json!({"extension": {"name": "web"}, "servers": ["heron"], "dependencies": "Strict"});
    marsh.apply("site", &strict);
    assert_eq!(marsh.taskservs["site"].spec.dependencies, Dependencies::Strict);
    let refused = marsh.pass("site");
    assert_eq!(refused.reason, reasons::INVALID);
    assert!(
        refused
            .message
            .starts_with("spec.dependencies is Strict, 'web' requires 'lib', and Server 'heron' has no such extension"),
        "{}",
        refused.message
    );
    assert_eq!(marsh.list("heron"), "");
    marsh.want("library", "lib", &["heron"]);
    marsh.run("library");
    assert_eq!(marsh.run("site"), ["install/heron", "check/heron"]);
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installed by library for library+site"));
}

#[test]
fn an_unknown_requirement_is_told_with_the_chain_and_the_nearest_name() {
    let mut marsh = Marsh::new(&["lib 1.0.0", "web 1.0.0 requires libb ^1"], &["heron"]);
    marsh.want("site", "web", &["heron"]);
    let refused = marsh.pass("site");
    assert_eq!(refused.reason, reasons::UNKNOWN_REFERENCE);
    assert_eq!(
        refused.message,
        "spec.extension: Taskserv site wants web, web 1.0.0 requires libb ^1, but there is no extension \"libb\"; did you \
         mean \"lib\"?"
    );
}

#[test]
fn servers_join_and_leave_a_selector_by_their_labels() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &[]);
    let spec = json!({"extension": {"name": "redis"}, "serverSelector": {"matchLabels": {"shore": "north"}}});
    marsh.apply("cache", &spec);
    let waits = marsh.pass("cache");
    assert_eq!(
        (waits.reason, waits.message.as_str()),
        (reasons::WAITING, "no Server of this namespace matches spec.serverSelector yet")
    );
    marsh.server("heron", &json!({"shore": "north"}));
    marsh.server("plover", &json!({"shore": "south"}));
    assert_eq!(marsh.run("cache"), ["install/heron", "check/heron"]);
    marsh.servers.get_mut("plover").unwrap().metadata.labels = Some([("shore".to_owned(), "north".to_owned())].into());
    assert_eq!(marsh.run("cache"), ["install/plover", "check/plover"]);
    marsh.servers.get_mut("heron").unwrap().metadata.labels = None;
    assert_eq!(marsh.run("cache"), ["undo install/heron"]);
    assert_eq!(
        (marsh.list("heron").as_str(), marsh.list("plover").as_str()),
        ("", "redis 0.2.0 Installed by cache for cache")
    );
    // What is to stay behind stays as it is, and nobody answers for it any more.
    let mut orphan = spec.clone();
    orphan["deletionPolicy"] = json!("Orphan");
    marsh.apply("cache", &orphan);
    marsh.run("cache");
    marsh.servers.get_mut("plover").unwrap().metadata.labels = None;
    assert_eq!(marsh.run("cache"), [""; 0]);
    assert_eq!(marsh.list("plover"), "");
}

#[test]
fn a_newer_bundle_is_a_planned_upgrade_that_says_from_where_to_where() {
    let mut marsh = Marsh::new(&["redis 0.1.0"], &["heron"]);
    let spec = |version: &str| json!({"extension": {"name": "redis", "version": version}, "servers": ["heron"]});
    marsh.apply("cache", &spec("*"));
    marsh.run("cache");
    marsh.offer("redis 0.2.0");
    assert_eq!(marsh.run("cache"), [""; 0], "a new bundle on the shelf changes nothing by itself");
    marsh.apply("cache", &spec("^0.2"));
    marsh.pass("cache");
    assert_eq!(marsh.steps("cache"), ["install/heron Running", "check/heron Pending"]);
    assert_eq!(marsh.list("heron"), "redis 0.2.0 Installing by cache for cache");
    let status = marsh.taskservs["cache"].status.as_ref().unwrap();
    assert_eq!(status.run.steps[0].why, "upgrade redis from 0.1.0 to 0.2.0 on heron");
    assert_eq!(status.resolved.as_ref().unwrap().replaces.as_deref(), Some("0.1.0"));
    assert_eq!(marsh.run("cache"), ["install/heron", "check/heron"]);
    assert_eq!(marsh.list("heron"), "redis 0.2.0 Installed by cache for cache");
}

#[test]
fn a_step_back_is_taken_only_where_that_version_is_named_exactly() {
    let mut marsh = Marsh::new(&["redis 0.1.0", "redis 0.2.0"], &["heron"]);
    let spec = |version: &str| json!({"extension": {"name": "redis", "version": version}, "servers": ["heron"]});
    marsh.apply("cache", &spec("*"));
    marsh.run("cache");
    marsh.apply("cache", &spec("~0.1"));
    let refused = marsh.pass("cache");
    assert_eq!(refused.reason, reasons::INVALID);
    assert_eq!(
        refused.message,
        "spec.extension.version: this would go back from redis 0.2.0 to 0.1.0, which an installation need not be able to: \
         ask for a version that does not, or for exactly this one with \"=0.1.0\""
    );
    assert_eq!(marsh.list("heron"), "redis 0.2.0 Installed by cache for cache");
    marsh.apply("cache", &spec("=0.1.0"));
    assert_eq!(marsh.run("cache"), ["install/heron", "check/heron"]);
    assert_eq!(marsh.list("heron"), "redis 0.1.0 Installed by cache for cache");
}

#[test]
fn who_was_installed_by_an_earlier_release_is_entered_and_nothing_runs_again() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("site", "web", &["heron"]);
    marsh.run("site");
    // As a release left it that knew no requirements and kept no lists.
    let status = marsh.taskservs.get_mut("site").unwrap().status.as_mut().unwrap();
    status.dependencies.clear();
    status.run.steps.retain(|step| extension_is_own(&step.id));
    status.run.steps.iter_mut().for_each(|step| step.depends_on.retain(|other| extension_is_own(&other.step)));
    marsh.servers.get_mut("heron").unwrap().status.as_mut().unwrap().installed.clear();
    assert_eq!(marsh.run("site"), [""; 0]);
    assert_eq!(marsh.list("heron"), "web 1.0.0 Installed by site for site");
}

fn extension_is_own(step: &str) -> bool {
    step.split('/').count() == 2
}

#[test]
fn a_check_that_comes_again_leaves_the_list_as_it_is_until_it_fails() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron"]);
    marsh.want("cache", "redis", &["heron"]);
    marsh.run("cache");
    let status = marsh.taskservs.get_mut("cache").unwrap().status.as_mut().unwrap();
    status.run.steps[1].phase = StepPhase::Pending;
    marsh.pass("cache");
    assert_eq!(marsh.steps("cache"), ["install/heron Succeeded", "check/heron Running"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.writes), ("redis 0.2.0 Installed by cache for cache", 2));
    marsh.pass_with("cache", &[("check/heron", failed("it sleeps"))]);
    marsh.pass("cache");
    assert_eq!(marsh.list("heron"), "redis 0.2.0 Installing by cache for cache");
}

#[test]
fn more_servers_than_an_object_holds_are_refused() {
    let mut marsh = Marsh::new(&SHELF, &[]);
    for number in 0..33 {
        marsh.server(&format!("gull-{number}"), &json!({"shore": "north"}));
    }
    let spec = json!({"extension": {"name": "web"}, "serverSelector": {}});
    marsh.apply("site", &spec);
    let refused = marsh.pass("site");
    assert_eq!(refused.reason, reasons::INVALID);
    assert!(
        refused.message.starts_with("the servers, each with its extensions, make 132 steps"),
        "{}",
        refused.message
    );
    assert!(marsh.servers.values().all(|server| place::installed(server).is_empty()), "nothing was claimed");
}

#[test]
fn what_is_done_stays_where_a_bundle_left_the_shelf() {
    for gone in ["web", "lib"] {
        let mut marsh = Marsh::new(&SHELF, &["heron"]);
        marsh.want("site", "web", &["heron"]);
        marsh.run("site");
        let (steps, list) = (marsh.steps("site"), marsh.list("heron"));
        let shelf = marsh.shelf.clone();
        marsh.shelf.retain(|offered| offered.name != gone);
        assert_eq!(marsh.run("site"), [""; 0], "{gone}");
        assert_eq!((marsh.steps("site"), marsh.list("heron")), (steps, list), "{gone}");
        marsh.shelf = shelf;
        assert_eq!(marsh.run("site"), [""; 0], "{gone} is back");
    }
}

#[test]
fn who_waits_for_the_address_of_a_stuck_fellow_or_peer_is_stuck_with_its_words() {
    let mut marsh = Marsh::new(&["redis 0.2.0"], &["heron", "plover"]);
    let plover = marsh.servers.get_mut("plover").unwrap().status.as_mut().unwrap();
    plover.addresses.clear();
    plover.run.conditions =
        serde_json::from_value(json!([{"type": "Stalled", "status": "True", "reason": "StepFailed",
        "message": "no room", "lastTransitionTime": "2026-01-01T00:00:00Z"}]))
        .unwrap();
    let spec = json!({"extension": {"name": "redis"}, "servers": ["heron"], "peers": {"backends": ["plover"]}});
    marsh.apply("cache", &spec);
    marsh.pass("cache");
    let waits = marsh.pass("cache");
    assert_eq!((waits.state, waits.reason), (State::Stalled, reasons::DEPENDENCY_STALLED));
    assert!(waits.message.contains("Server 'plover'") && waits.message.contains("no room"), "{}", waits.message);
}
