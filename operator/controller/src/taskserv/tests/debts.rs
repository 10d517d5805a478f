//! What one Taskserv installed and another one has to remove.

use super::*;

/// Two Taskservs that are Ready and need one library, which the first of them has installed.
fn both() -> Marsh {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.run("bittern");
    marsh
}

#[test]
fn what_is_shared_is_removed_where_its_keeper_and_its_heir_go_together() {
    let mut marsh = both();
    marsh.delete("avocet");
    marsh.delete("bittern");
    assert_eq!(marsh.run("avocet"), ["undo install/heron"]);
    assert_eq!(
        marsh.list("heron"),
        "lib 1.0.0 Installed by bittern for bittern; wiki 1.0.0 Installed by bittern for bittern"
    );
    let why = |marsh: &Marsh| {
        let steps = &marsh.taskservs["bittern"].status.as_ref().unwrap().run.steps;
        steps.iter().find(|step| step.id == "install/heron/lib").unwrap().why.clone()
    };
    marsh.pass("bittern");
    assert_eq!(why(&marsh), "lib on heron, left by avocet");
    assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn a_crash_between_the_list_and_the_steps_loses_no_debt() {
    let mut marsh = both();
    marsh.delete("avocet");
    marsh.delete("bittern");
    marsh.run("avocet");
    let before = marsh.taskservs["bittern"].clone();
    marsh.pass("bittern");
    marsh.taskservs.insert("bittern".to_owned(), before);
    assert!(marsh.list("heron").contains("lib 1.0.0 Removing by bittern"), "{}", marsh.list("heron"));
    assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn an_heir_that_has_not_begun_yet_removes_what_was_left_to_it() {
    for suspend in [false, true] {
        let mut marsh = both();
        marsh.delete("avocet");
        marsh.run("avocet");
        // It has no place, or is suspended: its installation is planned, and never begins.
        marsh.is_full = !suspend;
        marsh.suspend("bittern", suspend);
        assert_eq!(marsh.run("bittern"), [""; 0]);
        assert!(
            marsh.steps("bittern").contains(&"install/heron/lib Pending".to_owned()),
            "{:?}",
            marsh.steps("bittern")
        );
        marsh.is_full = false;
        marsh.delete("bittern");
        assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
        assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
    }
}

#[test]
fn who_took_over_from_a_failed_keeper_and_goes_before_it_acts_removes_what_that_one_left() {
    for acted in [true, false] {
        let mut marsh = Marsh::new(&SHELF, &["heron"]);
        marsh.want("avocet", "web", &["heron"]);
        marsh.want("bittern", "wiki", &["heron"]);
        marsh.pass("avocet");
        marsh.pass("bittern");
        let outcome = Outcome { harmless: !acted, ..failed("no reed") };
        marsh.pass_with("avocet", &[("install/heron/lib", outcome)]);
        marsh.is_full = true;
        marsh.pass("bittern");
        assert_eq!(marsh.list("heron").split(" for ").next(), Some("lib 1.0.0 Installing by bittern"));
        marsh.is_full = false;
        marsh.delete("avocet");
        assert_eq!(marsh.run("avocet"), [""; 0]);
        marsh.delete("bittern");
        let removed = marsh.run("bittern");
        assert_eq!(removed, if acted { vec!["undo install/heron/lib"] } else { Vec::new() }, "acted: {acted}");
        assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
    }
}

#[test]
fn whose_own_extension_it_is_removes_what_it_took_over_and_never_touched() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    marsh.is_full = true;
    marsh.want("library", "lib", &["heron"]);
    marsh.pass("library");
    assert!(marsh.list("heron").starts_with("lib 1.0.0 Installing by library"), "{}", marsh.list("heron"));
    marsh.is_full = false;
    marsh.delete("avocet");
    assert_eq!(marsh.run("avocet"), ["undo install/heron"]);
    marsh.delete("library");
    assert_eq!(marsh.run("library"), ["undo install/heron"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn what_was_left_is_removed_once_where_its_heir_leaves_the_server() {
    let mut marsh = Marsh::new(&SHELF, &[]);
    marsh.server("heron", &json!({"shore": "north"}));
    marsh.want("avocet", "web", &["heron"]);
    marsh.run("avocet");
    let selector = json!({"matchLabels": {"shore": "north"}});
    marsh.apply("bittern", &json!({"extension": {"name": "wiki"}, "serverSelector": selector}));
    marsh.run("bittern");
    marsh.delete("avocet");
    marsh.run("avocet");
    marsh.servers.get_mut("heron").unwrap().metadata.labels = None;
    assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.steps("bittern")), ("", Vec::new()));
    assert_eq!(marsh.run("bittern"), [""; 0]);
}

#[test]
fn what_its_installer_left_behind_on_purpose_is_not_removed_by_an_heir_that_did_nothing() {
    let mut marsh = Marsh::new(&SHELF, &["heron"]);
    marsh.apply("avocet", &json!({"extension": {"name": "web"}, "servers": ["heron"], "deletionPolicy": "Orphan"}));
    marsh.run("avocet");
    marsh.want("bittern", "wiki", &["heron"]);
    marsh.run("bittern");
    marsh.delete("avocet");
    marsh.delete("bittern");
    assert_eq!(marsh.run("avocet"), [""; 0]);
    assert_eq!(marsh.run("bittern"), ["undo install/heron"]);
    assert_eq!((marsh.list("heron").as_str(), marsh.taskservs.len()), ("", 0));
}

#[test]
fn an_heir_that_has_acted_is_asked_for_nothing_more_than_its_own() {
    let mut marsh = both();
    marsh.delete("avocet");
    marsh.run("avocet");
    let from = |marsh: &Marsh| place::find(&marsh.servers["heron"], "lib").unwrap().inherited_from.clone();
    assert_eq!(from(&marsh).unwrap().name, "avocet");
    let writes = marsh.writes;
    assert_eq!(marsh.run("bittern"), ["install/heron/lib", "check/heron/lib"]);
    assert_eq!((from(&marsh), marsh.writes), (None, writes + 2), "it costs no write of its own");
    marsh.delete("bittern");
    assert_eq!(marsh.run("bittern"), ["undo install/heron", "undo install/heron/lib"]);
}
