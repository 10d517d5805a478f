//! What every generated definition has to be (conventions.md, architecture.md §3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

mod support;

use serde_json::Value;
use support::{Definition, definitions, nodes};

/// Fails with all that was found, so that one run shows everything.
fn check(rule: &str, broken: impl Fn(&str, &Value, &Definition) -> Option<String>) {
    let mut found = Vec::new();
    for definition in definitions() {
        for (path, node) in nodes(definition.schema()) {
            if let Some(what) = broken(&path, node, &definition) {
                found.push(format!("{}{path}: {what}", definition.kind));
            }
        }
    }
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn is_spec(path: &str) -> bool {
    path.starts_with(".spec")
}

#[test]
fn every_field_is_documented() {
    check("every field has a description that ends like a sentence", |path, node, _| {
        let is_field = !path.ends_with("[]") && !path.ends_with("{}");
        let text = node["description"].as_str().unwrap_or_default();
        (is_field && !text.trim_end().ends_with('.')).then(|| format!("'{text}'"))
    });
}

/// What YAML 1.1, which kubectl reads, takes for something else than text where it stands without quotes.
const NO_TEXT: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];

#[test]
fn no_field_and_no_value_has_to_be_quoted_in_yaml() {
    check("a word of a spec that YAML takes for text", |path, node, _| {
        // What only the operator writes needs no quotes of people.
        if !is_spec(path) {
            return None;
        }
        let field = path.rsplit('.').next().map(|name| name.trim_end_matches("[]").trim_end_matches("{}").to_owned());
        let values =
            node["enum"].as_array().into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned));
        field.into_iter().chain(values).find(|word| NO_TEXT.contains(&word.to_lowercase().as_str()))
    });
}

#[test]
fn every_default_of_a_spec_is_documented() {
    check("the description names the default", |path, node, _| {
        let told = node["description"].as_str().unwrap_or_default().contains("efault");
        (is_spec(path) && !node["default"].is_null() && !told).then(|| node["default"].to_string())
    });
}

#[test]
fn every_string_is_bounded() {
    check("maxLength, enum or format date-time", |_, node, _| {
        let bounded = !node["maxLength"].is_null() || node["enum"].is_array() || node["format"] == "date-time";
        (node["type"] == "string" && !bounded).then(|| "a string without bound".to_owned())
    });
}

#[test]
fn every_list_is_bounded_and_says_how_it_merges() {
    check("maxItems; spec lists of objects keyed, status lists atomic but for conditions", |path, node, _| {
        if node["type"] != "array" {
            return None;
        }
        if node["maxItems"].is_null() {
            return Some("no maxItems".to_owned());
        }
        let type_ = node["x-kubernetes-list-type"].as_str().unwrap_or("none");
        let keys = node["x-kubernetes-list-map-keys"].as_array();
        let objects = node["items"]["type"] == "object";
        let wanted = match (is_spec(path), objects) {
            (true, true) => type_ == "map" && keys.is_some_and(|keys| !keys.is_empty()),
            (true, false) => type_ == "set" || type_ == "atomic",
            (false, _) if path == ".status.conditions" => type_ == "map" && keys.is_some_and(|keys| keys[0] == "type"),
            (false, _) => type_ == "atomic",
        };
        (!wanted).then(|| format!("list type {type_}"))
    });
}

#[test]
fn every_map_is_bounded() {
    check("properties, or maxProperties", |path, node, _| {
        let open = node["properties"].is_null() || node["x-kubernetes-preserve-unknown-fields"] == true;
        let root = path.is_empty() || path == ".metadata";
        (node["type"] == "object" && open && !root && node["maxProperties"].is_null())
            .then(|| "no maxProperties".into())
    });
}

#[test]
fn every_number_of_a_spec_is_bounded() {
    check("minimum and maximum", |path, node, _| {
        let bounded = !node["minimum"].is_null() && !node["maximum"].is_null();
        (is_spec(path) && node["type"] == "integer" && !bounded).then(|| "an integer without bounds".to_owned())
    });
}

#[test]
fn no_number_of_a_status_is_negative() {
    check("minimum", |path, node, _| {
        (!is_spec(path) && node["type"] == "integer" && node["minimum"].is_null()).then(|| "no minimum".to_owned())
    });
}

#[test]
fn a_choice_is_an_enum_and_only_suspend_is_a_boolean() {
    check("no boolean but suspend", |path, node, _| {
        (node["type"] == "boolean" && !path.ends_with(".suspend")).then(|| "a boolean".to_owned())
    });
}

#[test]
fn nothing_is_nullable() {
    // `has(self.x)` is true for a null, so that a rule `exactly one of` would take a null for a value.
    check("a field that is not set is absent", |_, node, _| {
        (!node["nullable"].is_null()).then(|| "nullable".to_owned())
    });
}

#[test]
fn schemas_are_structural() {
    let known = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
        "nullable",
    ];
    check("one type a node, no references, no alternatives", |_, node, _| {
        let strange: Vec<&str> =
            node.as_object().unwrap().keys().map(String::as_str).filter(|key| !known.contains(key)).collect();
        let typed = node["type"].is_string();
        (!strange.is_empty() || !typed).then(|| format!("type {}, {strange:?}", node["type"]))
    });
}

#[test]
fn every_rule_has_a_message() {
    check("messages are for people", |_, node, _| {
        let rules = node["x-kubernetes-validations"].as_array();
        let silent = rules.into_iter().flatten().filter(|rule| rule["message"].as_str().is_none_or(str::is_empty));
        let silent: Vec<String> = silent.map(|rule| rule["rule"].to_string()).collect();
        (!silent.is_empty()).then(|| silent.join(", "))
    });
}

#[test]
fn columns_come_in_one_order() {
    for definition in definitions() {
        let columns = definition.crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
        let name = |column: &Value| column["name"].as_str().unwrap().to_owned();
        assert_eq!(columns.last().map(name), Some("Age".to_owned()), "{}: Age comes last", definition.kind);
        let usual: Vec<String> =
            columns.iter().filter(|column| column["priority"].as_i64().unwrap_or(0) == 0).map(name).collect();
        let place = |wanted: &str| usual.iter().position(|column| column == wanted);
        let ready = place("Ready").unwrap_or_else(|| panic!("{}: no Ready", definition.kind));
        assert_eq!(place("Reason"), Some(usual.len() - 2), "{}: Reason comes before Age", definition.kind);
        assert!(ready <= 1, "{}: one column of identity, then Ready: {usual:?}", definition.kind);
        assert!(usual.len() - 2 - ready <= 2, "{}: between Ready and Reason only progress: {usual:?}", definition.kind);
        assert!(usual.len() <= 5, "{}: the rest belongs to -o wide: {usual:?}", definition.kind);
    }
}

#[test]
fn every_kind_has_its_short_name_its_category_and_a_status() {
    for definition in definitions() {
        let spec = &definition.crd["spec"];
        assert_eq!(spec["names"]["categories"][0], "provisioning", "{}", definition.kind);
        assert_eq!(spec["names"]["shortNames"].as_array().map(Vec::len), Some(1), "{}", definition.kind);
        assert_eq!(spec["scope"], "Namespaced", "{}", definition.kind);
        assert_eq!(spec["versions"].as_array().map(Vec::len), Some(1), "{}", definition.kind);
        assert!(spec["versions"][0]["subresources"]["status"].is_object(), "{}", definition.kind);
    }
}

#[test]
fn the_folder_holds_what_the_types_generate() {
    for (crd, definition) in provisioning_api::all_crds().iter().map(|crd| {
        let found = definitions().into_iter().find(|definition| definition.plural == crd.spec.names.plural);
        (serde_json::to_value(crd).unwrap(), found.unwrap())
    }) {
        assert!(same(&crd, &definition.crd), "{}: run `make generate`", definition.kind);
    }
}

/// Equal, where 1 and 1.0 are the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        (left, right) => left == right,
    }
}
