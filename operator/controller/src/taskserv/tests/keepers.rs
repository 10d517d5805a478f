//! Who looks after an extension on a server, and with what, when things change in between.

use super::*;

fn redis(version: &str) -> Value {
    json!({"extension": {"name": "redis", "version": version}, "servers": ["heron"]})
}

#[test]
fn a_version_that_is_asked_for_under_an_open_run_is_installed_after_it() {
    for open in ["install/heron", "check/heron"] {
        let mut marsh = Marsh::new(&["redis 0.1.0"], &["heron"]);
        marsh.apply("cache", &redis("*"));
        marsh.pass("cache");
        if open == "check/heron" {
            marsh.pass_with("cache", &[("install/heron", Outcome::succeeded())]);
        }
        marsh.offer("redis 0.2.0");
        marsh.apply("cache", &redis("^0.2"));
        marsh.began.clear();
        marsh.pass("cache");
        assert_eq!(marsh.began, [""; 0], "{open} is not over yet");
        let waits = marsh.pass_with("cache", &[(open, Outcome::succeeded())]);
        assert_eq!(waits.message, "Server 'heron' has not noted yet that version 0.2.0 of 'redis' is wanted");
        marsh.run("cache");
        assert_eq!(marsh.began, ["install/heron 0.2.0", "check/heron 0.2.0"], "{open}");
        assert!(marsh.is_ready("cache"));
        assert_eq!(marsh.list("heron"), "redis 0.2.0 Installed by cache for cache");
    }
}

#[test]
fn inputs_that_change_under_an_open_check_are_installed_under_an_entry_that_says_so() {
    let mut marsh = Marsh::new(&["redis 0.1.0"], &["heron"]);
    marsh.apply("cache", &redis("*"));
    marsh.run("cache");
    marsh.taskservs.get_mut("cache").unwrap().status.as_mut().unwrap().run.steps[1].phase = StepPhase::Pending;
    marsh.pass("cache");
    let mut other = redis("*");
    other["parameters"] = json!({"size": 3});
    marsh.apply("cache", &other);
    let waits = marsh.pass_with("cache", &[("check/heron", Outcome::succeeded())]);
    assert_eq!(waits.message, "Server 'heron' has not noted yet that 'redis' is installed again");
    marsh.pass("cache");
    assert_eq!(marsh.steps("cache"), ["install/heron Running", "check/heron Pending"]);
    assert_eq!(marsh.list("heron"), "redis 0.1.0 Installing by cache for cache");
}

fn strict(extension: &str, version: &str) -> Value {
    json!({"extension": {"name": extension, "version": version}, "servers": ["heron"], "dependencies": "Strict"})
}

#[test]
fn strict_installs_no_dependency_that_its_keeper_has_left() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("library", "lib", &["heron"]);
    marsh.run("library");
    marsh.apply("site", &strict("web", "*"));
    marsh.run("site");
    marsh.delete("library");
    marsh.run("library");
    assert_eq!(marsh.run("site"), [""; 0]);
    let refused = marsh.pass("site");
    assert_eq!(refused.reason, reasons::INVALID);
    let words = "spec.dependencies is Strict, 'web' requires 'lib', and Server 'heron' has version 1.0.0, which nobody else \
                 looks after: install 1.0.0 there with a Taskserv of its own first";
    assert!(refused.message.starts_with(words), "{}", refused.message);
    marsh.want("depot", "lib", &["heron"]);
    assert_eq!(marsh.run("depot"), ["install/heron", "check/heron"]);
    assert_eq!(marsh.run("site"), [""; 0]);
    assert!(marsh.is_ready("site"));
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installed by depot for depot+site"), "{}", marsh.list("heron"));
}

#[test]
fn what_strict_needs_goes_to_another_one_that_looks_after_it() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("library", "lib", &["heron"]);
    marsh.run("library");
    marsh.apply("avocet", &strict("web", "*"));
    marsh.run("avocet");
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.run("bittern");
    marsh.delete("library");
    marsh.run("library");
    assert_eq!(marsh.run("avocet"), [""; 0]);
    assert_eq!(marsh.run("bittern"), ["install/heron/lib", "check/heron/lib"]);
    assert_eq!(marsh.run("avocet"), [""; 0]);
    assert!(marsh.is_ready("avocet") && marsh.is_ready("bittern"));
}

#[test]
fn strict_brings_no_other_version_of_what_others_look_after() {
    let shelf = ["lib 1.0.0", "web 1.0.0 requires lib *", "wiki 1.0.0 requires lib *"];
    let mut marsh = Marsh::new(&shelf, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.apply("bittern", &strict("wiki", "*"));
    marsh.run("bittern");
    assert!(marsh.is_ready("bittern"));
    marsh.offer("lib 2.0.0");
    marsh.offer("wiki 2.0.0 requires lib ^2");
    marsh.apply("bittern", &strict("wiki", "^2"));
    assert_eq!(marsh.run("bittern"), [""; 0]);
    let refused = marsh.pass("bittern");
    assert_eq!(refused.reason, reasons::INVALID);
    assert!(refused.message.contains("Server 'heron' has version 1.0.0: install 2.0.0"), "{}", refused.message);
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installed by avocet"), "{}", marsh.list("heron"));
}

#[test]
fn what_a_suspended_keeper_has_not_installed_falls_to_the_next_one() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.pass("avocet");
    marsh.suspend("avocet", true);
    // While its run may still act, it is waited for.
    assert_eq!(marsh.pass("bittern").message, "Taskserv 'avocet' is installing extension 'lib' on Server 'heron'");
    marsh.pass_with("avocet", &[("install/heron/lib", Outcome::succeeded())]);
    assert_eq!(marsh.run("bittern")[..2], ["install/heron/lib", "check/heron/lib"]);
    assert!(marsh.is_ready("bittern"));
    // It goes on with what the other one has installed.
    marsh.suspend("avocet", false);
    assert_eq!(marsh.run("avocet"), ["install/heron", "check/heron"]);
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installed by bittern for avocet+bittern"));
}

#[test]
fn who_waits_for_a_suspended_keeper_says_so() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("library", "lib", &["heron"]);
    marsh.pass("library");
    marsh.suspend("library", true);
    marsh.pass_with("library", &[("install/heron", Outcome::succeeded())]);
    marsh.want("site", "web", &["heron"]);
    assert_eq!(marsh.run("site"), [""; 0], "only its own Taskserv knows its parameters");
    let waits = marsh.pass("site");
    assert_eq!(waits.reason, reasons::WAITING);
    assert_eq!(
        waits.message,
        "Taskserv 'library' looks after extension 'lib' on Server 'heron' and does not go on: library rests"
    );
    marsh.suspend("library", false);
    assert_eq!(marsh.run("library"), ["check/heron"]);
    assert_eq!(marsh.run("site"), ["install/heron", "check/heron"]);
}

#[test]
fn nothing_is_begun_beside_a_run_of_who_looked_after_it_before() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.pass("avocet");
    marsh.pass("bittern");
    // The list is given to the other one in the moment in which the run began.
    let status = marsh.servers.get_mut("heron").unwrap().status.as_mut().unwrap();
    let lib = status.installed.iter_mut().find(|entry| entry.extension == "lib").unwrap();
    lib.by = lib.required_by.iter().find(|user| user.name == "bittern").unwrap().clone();
    let waits = marsh.pass("bittern");
    assert_eq!(waits.message, "Taskserv 'avocet' is installing extension 'lib' on Server 'heron'");
    marsh.pass_with("avocet", &[("install/heron/lib", Outcome::succeeded())]);
    assert_eq!(marsh.run("bittern")[..1], ["install/heron/lib"]);
}
