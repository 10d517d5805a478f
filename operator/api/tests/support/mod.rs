//! What the tests of the API share: the generated definitions, a validator of structural schemas, CEL.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document of a YAML file.
pub fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parsed: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&text);
    parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One generated definition.
pub struct Definition {
    /// Plural name, as in the file's name.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// The whole definition.
    pub crd: Value,
}

impl Definition {
    /// `openAPIV3Schema` of its one version.
    pub fn schema(&self) -> &Value {
        &self.crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }
}

/// The generated definitions, as users install them.
pub fn definitions() -> Vec<Definition> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root().join("crds")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let definitions: Vec<Definition> = paths
        .iter()
        .map(|path| {
            let crd = documents(path).remove(0);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            Definition { plural: text(&crd["spec"]["names"]["plural"]), kind: text(&crd["spec"]["names"]["kind"]), crd }
        })
        .collect();
    assert_eq!(definitions.len(), 6, "a kind was added or lost");
    definitions
}

/// The definition of an object's kind.
pub fn definition_of<'a>(definitions: &'a [Definition], object: &Value) -> &'a Definition {
    let kind = object["kind"].as_str().unwrap();
    definitions.iter().find(|definition| definition.kind == kind).unwrap_or_else(|| panic!("no definition of {kind}"))
}

/// Every node of a schema with its path: `.spec.steps[].name`, `{}` for the values of a map.
pub fn nodes(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect(schema, String::new(), &mut found);
    found
}

fn collect<'a>(schema: &'a Value, path: String, found: &mut Vec<(String, &'a Value)>) {
    found.push((path.clone(), schema));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect(property, format!("{path}.{name}"), found);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], format!("{path}[]"), found);
    }
    if schema["additionalProperties"].is_object() {
        collect(&schema["additionalProperties"], format!("{path}{{}}"), found);
    }
}

/// What the API server's schema validation says (strict about unknown fields, as `kubectl apply` asks it to be).
pub fn violations(schema: &Value, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    validate(schema, object, "", &mut found);
    found
}

fn validate(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_null() {
        if schema["nullable"] != true {
            found.push(format!("{path}: null"));
        }
        return;
    }
    let type_ = schema["type"].as_str().unwrap_or("?");
    let fits = match type_ {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("{path}: type {other} in a schema"),
    };
    if !fits {
        found.push(format!("{path}: not of type {type_}"));
        return;
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{path}: {value} is not one of the allowed values"));
    }
    match value {
        Value::Object(fields) => validate_object(schema, fields, path, found),
        Value::Array(items) => validate_list(schema, items, path, found),
        Value::String(text) => validate_text(schema, text, path, found),
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            in_range(number, schema["minimum"].as_f64(), schema["maximum"].as_f64(), path, found);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn validate_object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, found: &mut Vec<String>) {
    in_range(length(fields.len()), None, schema["maxProperties"].as_f64(), path, found);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{path}.{name}: required"));
        }
    }
    for (name, value) in fields {
        let at = format!("{path}.{name}");
        let root = path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
        if let Some(property) = schema["properties"].get(name) {
            validate(property, value, &at, found);
        } else if schema["additionalProperties"].is_object() {
            validate(&schema["additionalProperties"], value, &at, found);
        } else if schema["x-kubernetes-preserve-unknown-fields"] != true && !root {
            found.push(format!("{at}: unknown field"));
        }
    }
}

fn validate_list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<String>) {
    in_range(length(items.len()), schema["minItems"].as_f64(), schema["maxItems"].as_f64(), path, found);
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => Some(keys.iter().map(|key| item[*key].to_string()).collect::<Vec<_>>().join(",")),
        Some("set") => Some(item.to_string()),
        Some(_) | None => None,
    };
    for (number, item) in items.iter().enumerate() {
        validate(&schema["items"], item, &format!("{path}[{number}]"), found);
        if let Some(own) = identity(item)
            && items[..number].iter().any(|other| identity(other).as_ref() == Some(&own))
        {
            found.push(format!("{path}[{number}]: duplicate"));
        }
    }
}

fn validate_text(schema: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    in_range(length(text.chars().count()), schema["minLength"].as_f64(), schema["maxLength"].as_f64(), path, found);
    if let Some(pattern) = schema["pattern"].as_str()
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        found.push(format!("{path}: does not match {pattern}"));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        found.push(format!("{path}: is no time"));
    }
}

fn in_range(number: f64, least: Option<f64>, most: Option<f64>, path: &str, found: &mut Vec<String>) {
    if least.is_some_and(|least| number < least) {
        found.push(format!("{path}: less than {}", least.unwrap_or_default()));
    }
    if most.is_some_and(|most| number > most) {
        found.push(format!("{path}: more than {}", most.unwrap_or_default()));
    }
}

fn length(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// Messages of the CEL rules that an object, or its change, breaks.
pub fn broken_rules(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    match kube::core::cel::Validator::new().validate(schema, object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|error| {
                let expected = kube::core::cel::ErrorKind::ValidationFailure;
                assert_eq!(error.kind, expected, "{}: {}", error.rule, error.message);
                error.message
            })
            .collect(),
    }
}
