//! Every extension of this repository is a bundle.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use provisioning_extensions::{Bundle, Package, ParameterSchema, Root, solve};
use semver::VersionReq;

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../taskservs");
    let mut folders: Vec<PathBuf> = fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    // taskservs/lib is what several of them share.
    folders.retain(|folder| folder.join("manifest.yaml").exists());
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

#[test]
fn every_folder_is_a_bundle_of_its_name() {
    for folder in folders() {
        let bundle = Bundle::load_folder(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        assert_eq!(folder.file_name().unwrap(), bundle.manifest().name.as_str());
        let maps = bundle.to_config_map_data();
        assert_eq!(Bundle::from_config_map_data(&maps.data, &maps.binary_data).unwrap(), bundle);
    }
}

#[test]
fn every_schema_answers_what_it_does_not_know() {
    for folder in folders() {
        let bundle = Bundle::load_folder(&folder).unwrap();
        let closed = |schema: &&ParameterSchema| schema.schema()["additionalProperties"] == false;
        let Some(schema) = bundle.schema().filter(closed) else { continue };
        let wrong = BTreeMap::from([("prot-of-nobody".to_owned(), serde_json::json!({"a": ["b"]}))]);
        let problems = schema.check(&wrong);
        let words = "there is no such parameter";
        assert!(problems.iter().any(|problem| problem.message.contains(words)), "{}: {problems:?}", folder.display());
    }
}

/// What an extension requires is here, in a version that will do.
#[test]
fn every_extension_can_be_had_with_what_is_here() {
    let offered: Vec<Package> = folders().iter().map(|folder| Bundle::load_folder(folder).unwrap().package()).collect();
    for package in &offered {
        let root = Root { name: package.name.clone(), version: VersionReq::STAR, by: "the test".to_owned() };
        let chosen = solve(&[root], &offered, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(chosen.last().map(|last| &last.digest), Some(&package.digest));
    }
}
