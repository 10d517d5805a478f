//! Every extension of this repository is a bundle.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use provisioning_extensions::{Bundle, Package, Root, solve};
use semver::VersionReq;
use serde_json::{Value, json};

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
        let schema = bundle.schema().unwrap_or_else(|| panic!("{}: there is no schema.json", folder.display()));
        assert_eq!(schema.schema()["additionalProperties"], false, "{}", folder.display());
        let wrong = BTreeMap::from([("prot-of-nobody".to_owned(), json!({"a": ["b"]}))]);
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

/// The first table of a page: what stands in backticks in the first column, and the second column.
fn documented(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| parameter |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let mut found = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (names, default) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let names = names.split(',').map(|name| name.trim().trim_matches('`').to_owned());
        found.extend(names.map(|name| (name, default.trim_matches('`').to_owned())));
    }
    found
}

/// Its page lists the parameters that there are, with the defaults that they have.
#[test]
fn every_extension_has_a_page_that_tells_its_parameters() {
    for folder in folders() {
        let page = folder.join("docs/README.md");
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let schema: Value = serde_json::from_str(&fs::read_to_string(folder.join("schema.json")).unwrap()).unwrap();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let documented = documented(&page);
        let (told, known): (Vec<_>, Vec<_>) = (documented.keys().collect(), properties.keys().collect());
        assert_eq!(told, known, "{}: the page's table and schema.json", folder.display());
        for (name, property) in &properties {
            // Lists and maps are told in words.
            let default = match property.get("default") {
                Some(Value::String(text)) => text.clone(),
                Some(simple @ (Value::Bool(_) | Value::Number(_))) => simple.to_string(),
                _ => continue,
            };
            let words = &documented[name];
            let is_told = *words == default || (default.is_empty() && !words.is_empty());
            assert!(is_told, "{}: {name} is {default:?} by default, the page says {words:?}", folder.display());
        }
    }
}

/// A parameter, as KCL or as a JSON schema has it.
#[derive(Debug, PartialEq)]
struct Parameter {
    /// `integer`, `string`, `boolean`, `array`, `object`, or the values that there are.
    type_: Value,
    default: Option<Value>,
    required: bool,
}

/// The attributes of the schema `…Parameters`; of KCL no more is read than these files use.
fn of_kcl(text: &str) -> BTreeMap<String, Parameter> {
    let start = text.lines().skip_while(|line| !line.starts_with("schema ") || !line.ends_with("Parameters:"));
    let mut quotes = 0;
    let body = start.skip(1).skip_while(|line| {
        quotes += line.matches("\"\"\"").count();
        quotes < 2 || line.contains("\"\"\"")
    });
    let attributes = body.take_while(|line| !line.trim().is_empty() && line.trim() != "check:");
    attributes.map(attribute).collect()
}

/// `name: type`, `name?: type` or `name: type = default`.
fn attribute(line: &str) -> (String, Parameter) {
    let (name, rest) = line.trim().split_once(": ").unwrap_or_else(|| panic!("{line:?} is no attribute"));
    let (type_, default) = rest.split_once(" = ").map_or((rest, None), |(type_, default)| (type_, Some(default)));
    let literal = |text: &str| {
        let json = text.replace("True", "true").replace("False", "false");
        serde_json::from_str::<Value>(&json).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    };
    let type_ = match type_ {
        "int" => json!("integer"),
        "str" => json!("string"),
        "bool" => json!("boolean"),
        list if list.starts_with('[') => json!("array"),
        map if map.starts_with('{') => json!("object"),
        values => values.split(" | ").map(literal).collect(),
    };
    let required = !name.ends_with('?') && default.is_none();
    (name.trim_end_matches('?').to_owned(), Parameter { type_, default: default.map(literal), required })
}

fn of_json(schema: &Value) -> BTreeMap<String, Parameter> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let parameter = |(name, property): (&String, &Value)| {
        let type_ = property.get("enum").or_else(|| property.get("type")).cloned().unwrap_or_default();
        (name.clone(), Parameter { type_, default: property.get("default").cloned(), required: required(name) })
    };
    schema["properties"].as_object().unwrap().iter().map(parameter).collect()
}

/// Nothing here evaluates KCL; people who write it rely on these files.
#[test]
fn the_schema_in_kcl_has_the_parameters_of_schema_json() {
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(folder.join(format!("kcl/{name}.k"))).unwrap();
        let schema: Value = serde_json::from_slice(&fs::read(folder.join("schema.json")).unwrap()).unwrap();
        assert_eq!(of_kcl(&text), of_json(&schema), "{name}");
    }
}
