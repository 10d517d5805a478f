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
