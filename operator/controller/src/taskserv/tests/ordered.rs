//! What is optional comes first where it comes, and nothing waits for it in vain.

use provisioning_api::steps::DependencyType;
use provisioning_extensions::{Package, optional_before};

use super::*;

/// By name kubernetes would come before weave.
const SHELF: [&str; 3] = ["kubernetes 1.0.0 optional weave ^1", "weave 1.0.0 requires lib *", "lib 1.0.0"];
const FIRST: &str = "Taskserv 'net' installs extension 'weave' on Server 'heron' first";

fn suspend(marsh: &mut Marsh, name: &str) {
    marsh.taskservs.get_mut(name).unwrap().spec.suspend = true;
}

#[test]
fn what_is_optional_comes_first_where_another_taskserv_brings_it() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("crane", "kubernetes", &["heron"]);
    marsh.apply("net", &json!({"extension": {"name": "weave"}, "serverSelector": {}}));
    // Nobody has looked at it yet.
    let waits = marsh.pass("crane");
    assert_eq!((waits.reason, waits.message.as_str()), (reasons::WAITING, FIRST));
    // It is on the list.
    marsh.pass("net");
    assert_eq!(marsh.pass("crane").message, FIRST);
    assert_eq!(marsh.steps("crane"), ["install/heron Pending", "check/heron Pending"]);
    assert_eq!(marsh.run("net"), ["install/heron/lib", "check/heron/lib", "install/heron", "check/heron"]);
    assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"]);
    assert!(marsh.is_ready("crane") && marsh.is_ready("net"));
}

#[test]
fn what_is_optional_and_comes_to_no_server_of_its_own_is_not_waited_for() {
    let mut marsh = Marsh::new(&SHELF, &["heron", "plover"]);
    marsh.want("crane", "kubernetes", &["heron"]);
    marsh.want("net", "weave", &["plover"]);
    assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"]);
    // What is there when it comes is not installed again.
    marsh.want("net", "weave", &["heron", "plover"]);
    marsh.run("net");
    assert!(marsh.list("heron").contains("weave 1.0.0 Installed by net"), "{}", marsh.list("heron"));
    assert_eq!(marsh.run("crane"), [""; 0]);
}

#[test]
fn what_is_optional_and_fails_is_not_waited_for_any_longer() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("crane", "kubernetes", &["heron"]);
    marsh.want("net", "weave", &["heron"]);
    marsh.pass("net");
    assert_eq!(marsh.pass("crane").message, FIRST);
    marsh.pass_with("net", &[("install/heron/lib", failed("no reed"))]);
    assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"]);
    // One that cannot even begin is none either.
    let mut marsh = Marsh::new(&SHELF[..2], &["heron"]);
    marsh.want("crane", "kubernetes", &["heron"]);
    marsh.want("net", "weave", &["heron"]);
    assert_eq!(marsh.pass("crane").message, FIRST);
    assert_eq!(marsh.pass("net").reason, reasons::UNKNOWN_REFERENCE);
    assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"]);
}

#[test]
fn what_is_optional_and_suspended_or_going_is_not_waited_for() {
    for begun in [false, true] {
        for goes in [false, true] {
            let mut marsh = Marsh::new(&SHELF, &["heron"]);
            marsh.want("crane", "kubernetes", &["heron"]);
            marsh.want("net", "weave", &["heron"]);
            if begun {
                marsh.pass("net");
            }
            assert_eq!(marsh.pass("crane").message, FIRST);
            match goes {
                true => marsh.delete("net"),
                false => suspend(&mut marsh, "net"),
            }
            assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"], "begun {begun}, goes {goes}");
        }
    }
}

#[test]
fn what_is_optional_and_needs_what_nobody_is_at_work_on_is_not_waited_for() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("library", "lib", &["heron"]);
    marsh.pass("library");
    marsh.want("net", "weave", &["heron"]);
    assert_eq!(marsh.pass("net").message, "Taskserv 'library' is installing extension 'lib' on Server 'heron'");
    marsh.want("crane", "kubernetes", &["heron"]);
    assert_eq!(marsh.pass("crane").message, FIRST);
    suspend(&mut marsh, "library");
    assert_eq!(marsh.run("crane"), ["install/heron", "check/heron"]);
}

#[test]
fn of_one_taskserv_what_is_optional_comes_first_and_may_fail() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.offer("stack 1.0.0 requires kubernetes * requires weave *");
    marsh.want("stack", "stack", &["heron"]);
    marsh.pass("stack");
    let steps = &marsh.taskservs["stack"].status.as_ref().unwrap().run.steps;
    let install = steps.iter().find(|step| step.id == "install/heron/kubernetes").unwrap();
    let before: Vec<_> = install.depends_on.iter().map(|other| (other.step.as_str(), other.type_)).collect();
    assert_eq!(before, [("check/heron/weave", DependencyType::Soft)]);
    marsh.pass_with("stack", &[("install/heron/lib", Outcome::succeeded())]);
    marsh.pass_with("stack", &[("check/heron/lib", Outcome::succeeded())]);
    marsh.pass_with("stack", &[("install/heron/weave", failed("no reed"))]);
    // weave is not checked, kubernetes is installed; only what requires both cannot be.
    assert_eq!(marsh.run("stack"), ["install/heron/kubernetes", "check/heron/kubernetes"]);
    assert!(!marsh.is_ready("stack"));
}

#[test]
fn who_waits_for_each_other_by_optional_relations_waits_for_nobody() {
    let shelf = ["ant 1.0.0 optional bee *", "bee 1.0.0 optional cicada *", "cicada 1.0.0 requires ant *"];
    for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
        let mut marsh = Marsh::new(&shelf, &["heron"]);
        marsh.want("a", "ant", &["heron"]);
        marsh.want("b", "bee", &["heron"]);
        marsh.want("c", "cicada", &["heron"]);
        // Once each has chosen, all see the circle.
        order.iter().for_each(|name| drop(marsh.pass(name)));
        for _ in 0..3 {
            order.iter().for_each(|name| drop(marsh.run(name)));
        }
        assert!(order.iter().all(|name| marsh.is_ready(name)), "{order:?}: {:?}", marsh.list("heron"));
    }
}

/// A marsh of five extensions with a Taskserv each, drawn from a seed: what an extension requires is older than itself, what
/// is optional any other one.
struct Drawn {
    marsh: Marsh,
    packages: Vec<Package>,
    fails: Vec<bool>,
    /// Extensions in the order of their first installation.
    began: Vec<String>,
}

const NAMES: [&str; 5] = ["ant", "bee", "cicada", "drone", "emmet"];

impl Drawn {
    fn new(dice: &mut impl FnMut(u64) -> u64, troubled: bool) -> Self {
        let mut marsh = Marsh::new(&[], &["heron"]);
        for (position, name) in NAMES.iter().enumerate() {
            let mut line = format!("{name} 1.0.0");
            for (other_position, other) in NAMES.iter().enumerate().filter(|(_, other)| *other != name) {
                match dice(4) {
                    0 if other_position < position => line.push_str(&format!(" requires {other} *")),
                    1 => line.push_str(&format!(" optional {other} *")),
                    _ => {}
                }
            }
            marsh.offer(&line);
            marsh.want(name, name, &["heron"]);
        }
        let manifest = |offered: &Offered| offered.contents.manifest.clone().unwrap();
        let packages = marsh.shelf.iter().map(|offered| Package::new(&manifest(offered), &offered.digest)).collect();
        let fails = NAMES.map(|_| troubled && dice(4) == 0).to_vec();
        Drawn { marsh, packages, fails, began: Vec::new() }
    }

    /// One pass of a Taskserv; all that it has open ends.
    fn pass(&mut self, who: usize) {
        let name = NAMES[who];
        let taskserv = &self.marsh.taskservs[name];
        let open = taskserv.status.iter().flat_map(|status| &status.run.steps).filter(|step| step.is_open());
        let open: Vec<String> = open.map(|step| step.id.clone()).collect();
        for id in open.iter().filter(|id| id.starts_with("install/")) {
            let extension = extension_of(taskserv, id).unwrap().to_owned();
            if !self.began.contains(&extension) {
                self.began.push(extension);
            }
        }
        let outcome = || if self.fails[who] { failed("no reed") } else { Outcome::succeeded() };
        let ends: Vec<(&str, Outcome)> = open.iter().map(|id| (id.as_str(), outcome())).collect();
        self.marsh.pass_with(name, &ends);
    }

    /// Passes in any order, until long after the last change.
    fn settle(&mut self, dice: &mut impl FnMut(u64) -> u64, mut suspended: impl FnMut(&mut Marsh, usize)) {
        for round in 0..60 {
            suspended(&mut self.marsh, round);
            let first = usize::try_from(dice(5)).unwrap();
            for who in (0..5).map(|step| (first + step * 2) % 5) {
                if !self.marsh.taskservs[NAMES[who]].spec.suspend {
                    self.pass(who);
                }
            }
        }
    }

    /// An extension and all that it requires.
    fn needs(&self, name: &str) -> BTreeSet<String> {
        let mut needs = BTreeSet::from([name.to_owned()]);
        loop {
            let package = |name: &String| self.packages.iter().find(|package| package.name == *name).unwrap();
            let more = needs.iter().flat_map(|name| &package(name).requires).map(|relation| relation.name.clone());
            let all: BTreeSet<String> = more.chain(needs.iter().cloned()).collect();
            if all == needs {
                return needs;
            }
            needs = all;
        }
    }
}

fn dice(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |sides| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    }
}

#[test]
fn whatever_is_optional_all_become_ready_in_an_order_that_keeps_what_can_be_kept() {
    for seed in 0..40 {
        let mut dice = dice(seed);
        let mut drawn = Drawn::new(&mut dice, false);
        drawn.settle(&mut dice, |_, _| {});
        let all: Vec<&Package> = drawn.packages.iter().collect();
        let place = |name: &str| drawn.began.iter().position(|other| other == name);
        for package in &drawn.packages {
            let name = package.name.as_str();
            assert!(drawn.marsh.is_ready(name), "seed {seed}: {name}: {}", drawn.marsh.list("heron"));
            for before in optional_before(package, &all) {
                assert!(place(before) < place(name), "seed {seed}: {name} before {before}: {:?}", drawn.began);
            }
        }
    }
}

#[test]
fn who_needs_nobody_in_trouble_becomes_ready_whatever_is_optional() {
    for seed in 0..40 {
        let mut dice = dice(seed);
        let mut drawn = Drawn::new(&mut dice, true);
        let (sleeper, when) = (NAMES[usize::try_from(dice(5)).unwrap()], usize::try_from(dice(6)).unwrap());
        drawn.settle(&mut dice, |marsh, round| {
            if round == when {
                suspend(marsh, sleeper);
            }
        });
        let troubled = NAMES.iter().zip(&drawn.fails).filter(|(name, fails)| **fails || **name == sleeper);
        let touched: BTreeSet<String> = troubled.flat_map(|(name, _)| drawn.needs(name)).collect();
        for name in NAMES {
            let is_free = drawn.needs(name).is_disjoint(&touched);
            assert!(!is_free || drawn.marsh.is_ready(name), "seed {seed}: {name}: {}", drawn.marsh.list("heron"));
        }
    }
}
