//! `scripts/unused-rights --strict`, which ends a run of all end-to-end tests: a right that nobody uses fails it, unless the
//! script says why it must stay.
#![allow(clippy::unwrap_used)] // its helpers are tests too

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const OPERATOR: &str = "system:serviceaccount:provisioning-system:provisioning-operator";

fn right(resource: &str, verb: &str) -> Value {
    let group = if resource == "pods" { "" } else { "provisioning.dev" };
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

fn used(resource: &str, verb: &str) -> String {
    let group = if resource == "pods" { "" } else { "provisioning.dev" };
    let entry = json!({"stage": "ResponseComplete", "user": {"username": OPERATOR}, "verb": verb,
        "objectRef": {"resource": resource, "apiGroup": group, "namespace": "first"}, "responseStatus": {"code": 200}});
    format!("{entry}\n")
}

/// Whether the script is content with these rights and requests, and what it says.
fn judged(rights: &[Value], requests: &[String], flags: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("clusterrole", json!({"rules": rights}).to_string());
    write("role", json!({"items": []}).to_string());
    write("audit.log", requests.concat());
    write("kubectl", format!("#!/bin/sh\ncat '{}'/$2\n", folder.path().display()));
    fs::set_permissions(folder.path().join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/unused-rights");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(script);
    let output = command.arg(folder.path().join("audit.log")).args(flags).env("PATH", path).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Rights that the script names, and that no request of these tests uses.
fn excused() -> Vec<Value> {
    let told = ["workspaces", "providerconfigs", "servers", "clusters", "batchworkflows"];
    let told = told.map(|kind| right(&format!("{kind}/status"), "patch"));
    [right("providerconfigs", "get"), right("clusters", "update")].into_iter().chain(told).collect()
}

fn with_excused(rights: &[Value]) -> Vec<Value> {
    [rights, &excused()].concat()
}

#[test]
fn all_rights_that_are_used_or_excused_are_well() {
    let (well, text) = judged(&with_excused(&[right("pods", "list")]), &[used("pods", "list")], &["--strict"]);
    assert!(well && text.contains("that may be: update clusters.provisioning.dev: "), "{text}");
}

#[test]
fn a_right_that_nobody_uses_fails_a_run_of_all_tests_only() {
    let rights = with_excused(&[right("pods", "list"), right("pods", "delete")]);
    let (well, text) = judged(&rights, &[used("pods", "list")], &["--strict"]);
    assert!(!well && text.contains("unused-rights: delete pods: take it out of the role"), "{text}");
    let (well, text) = judged(&rights, &[used("pods", "list")], &[]);
    assert!(well && text.contains("not used: delete pods\n"), "{text}");
}

#[test]
fn an_excuse_for_a_right_that_nobody_has_is_told() {
    let mut rights = with_excused(&[right("pods", "list")]);
    rights.retain(|granted| *granted != right("clusters", "update"));
    let (well, text) = judged(&rights, &[used("pods", "list")], &["--strict"]);
    assert!(!well && text.contains("no role grants 'update clusters.provisioning.dev' any more"), "{text}");
}
