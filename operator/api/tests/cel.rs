//! Each CEL rule of the definitions accepts what it should and refuses what it should, with its message. The fixtures in
//! `cel/` are whole objects; the tests on a cluster replay them against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Definition, broken_rules, definitions, documents, nodes, violations};

/// A message up to its first colon, lower-case, with dashes.
fn slug(message: &str) -> String {
    let text = message.split(':').next().unwrap_or_default().to_lowercase();
    let words: Vec<&str> =
        text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.join("-")
}

struct Rule {
    message: String,
    text: String,
    is_about_changes: bool,
}

/// Rules of a definition by slug.
fn rules(definition: &Definition) -> BTreeMap<String, Rule> {
    let mut found = BTreeMap::new();
    for (path, node) in nodes(definition.schema()) {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap().to_owned();
            let text = rule["rule"].as_str().unwrap().to_owned();
            let is_about_changes = text.contains("oldSelf");
            // A type that is used at two places brings its rule to both.
            let twice = found.insert(slug(&message), Rule { message, text: text.clone(), is_about_changes });
            let same = twice.is_none_or(|other| other.text == text);
            assert!(same, "{}{path}: two rules of one message", definition.kind);
        }
    }
    found
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cel")
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn object(path: &Path) -> Value {
    let mut documents = documents(path);
    assert_eq!(documents.len(), 1, "{}: one object a file", path.display());
    documents.remove(0)
}

/// Files of one rule whose name begins so.
fn files(path: &Path, prefix: &str) -> Vec<PathBuf> {
    let files: Vec<PathBuf> =
        names(path).iter().filter(|name| name.starts_with(prefix)).map(|name| path.join(name)).collect();
    files
}

#[test]
fn each_rule_has_its_fixtures_and_each_fixture_its_rule() {
    let definitions = definitions();
    let plurals: BTreeSet<String> = definitions.iter().map(|definition| definition.plural.clone()).collect();
    let folders: BTreeSet<String> = names(&folder()).into_iter().filter(|name| name != "README.md").collect();
    assert_eq!(folders, plurals, "one folder a kind");
    for definition in &definitions {
        let wanted: BTreeSet<String> = rules(definition).into_keys().collect();
        assert_eq!(names(&folder().join(&definition.plural)), wanted, "{}: one folder a rule", definition.kind);
    }
}

#[test]
fn rules_accept_what_is_valid_and_refuse_the_rest_with_their_message() {
    let mut asked = 0;
    for definition in definitions() {
        for (slug, rule) in rules(&definition) {
            let path = folder().join(&definition.plural).join(&slug);
            let old = path.join("old.yaml");
            assert_eq!(old.exists(), rule.is_about_changes, "{}: old.yaml", path.display());
            let old = old.exists().then(|| object(&old));
            let valid = files(&path, "valid");
            let refused = files(&path, "refused");
            assert!(!valid.is_empty(), "{}: nothing valid", path.display());
            assert_eq!(refused.is_empty(), path.join("unreachable.md").exists(), "{}: refused", path.display());
            for file in old.iter().map(|_| path.join("old.yaml")).chain(valid) {
                let value = object(&file);
                let before = old.as_ref().filter(|_| !file.ends_with("old.yaml"));
                assert_eq!(broken_rules(definition.schema(), &value, before), [""; 0], "{}", file.display());
                assert_eq!(violations(definition.schema(), &value), [""; 0], "{}", file.display());
                asked += 1;
            }
            for file in refused {
                let value = object(&file);
                let broken = broken_rules(definition.schema(), &value, old.as_ref());
                assert!(broken.contains(&rule.message), "{}: {broken:?}", file.display());
                assert_eq!(violations(definition.schema(), &value), [""; 0], "{}: the schema refuses", file.display());
                asked += 1;
            }
        }
    }
    assert!(asked > 40, "only {asked} fixtures");
}

#[test]
fn fixtures_are_whole_objects_of_their_kind() {
    for definition in definitions() {
        for slug in rules(&definition).keys() {
            let path = folder().join(&definition.plural).join(slug);
            for file in files(&path, "").into_iter().filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
                let value = object(&file);
                assert_eq!(value["kind"], definition.kind.as_str(), "{}", file.display());
                assert_eq!(value["apiVersion"], "provisioning.dev/v1alpha1", "{}", file.display());
                assert_eq!(value["metadata"]["namespace"], "cel", "{}", file.display());
            }
        }
    }
}
