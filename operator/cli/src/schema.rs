//! Checks JSON against the schema of a kind: shape only. Patterns and rules in CEL are the API server's to judge.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use provisioning_plan::nearest::hint;
use serde_json::Value;

use crate::kinds::Kind;

/// Something that the schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Path of the field, such as `spec.steps[2].apply`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.text)
    }
}

/// The schema of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    schema: Option<JSONSchemaProps>,
}

impl Checker {
    pub(crate) fn new(kind: Kind) -> Self {
        let version = kind.crd().and_then(|crd| crd.spec.versions.into_iter().next());
        Self { schema: version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema) }
    }

    /// Everything in `spec` and `status` that the schema does not allow, in the order of the fields.
    pub(crate) fn check(&self, json: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        let properties = self.schema.as_ref().and_then(|schema| schema.properties.as_ref());
        for part in ["spec", "status"] {
            let Some(schema) = properties.and_then(|properties| properties.get(part)) else { continue };
            match json.get(part) {
                Some(value) => check(part, value, schema, &mut problems),
                None if part == "spec" => problems.push(problem(part, "is missing".to_owned())),
                None => {}
            }
        }
        problems
    }
}

fn problem(field: &str, text: String) -> Problem {
    Problem { field: field.to_owned(), text }
}

fn check(field: &str, value: &Value, schema: &JSONSchemaProps, problems: &mut Vec<Problem>) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    if let Some(wanted) = schema.type_.as_deref()
        && !is(wanted, value)
    {
        let quotes =
            if wanted == "string" && !value.is_object() && !value.is_array() { "; put it in quotes" } else { "" };
        problems.push(problem(field, format!("{}, where {} belongs{quotes}", named(value), with_article(wanted))));
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|one| one.0 == *value)
    {
        let words: Vec<&str> = allowed.iter().filter_map(|one| one.0.as_str()).collect();
        let given = value.as_str().unwrap_or_default();
        let near = hint(given, words.iter().copied());
        problems.push(problem(field, format!("'{given}' is not one of {}{near}", words.join(", "))));
    }
    check_bounds(field, value, schema, problems);
    match value {
        Value::Object(map) => check_object(field, map, schema, problems),
        Value::Array(list) => {
            if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
                for (position, item) in list.iter().enumerate() {
                    check(&format!("{field}[{position}]"), item, items, problems);
                }
            }
        }
        _ => {}
    }
}

fn check_object(
    field: &str,
    map: &serde_json::Map<String, Value>,
    schema: &JSONSchemaProps,
    problems: &mut Vec<Problem>,
) {
    let empty = std::collections::BTreeMap::new();
    let properties = schema.properties.as_ref().unwrap_or(&empty);
    for name in schema.required.iter().flatten().filter(|name| !map.contains_key(name.as_str())) {
        problems.push(problem(&format!("{field}.{name}"), "is missing".to_owned()));
    }
    let free = schema.x_kubernetes_preserve_unknown_fields == Some(true);
    for (name, value) in map {
        let path = format!("{field}.{name}");
        match (properties.get(name), &schema.additional_properties) {
            (Some(known), _) => check(&path, value, known, problems),
            (None, Some(JSONSchemaPropsOrBool::Schema(values))) => check(&path, value, values, problems),
            (None, _) if free => {}
            (None, _) => {
                let near = hint(name, properties.keys().map(String::as_str));
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                let text = format!("unknown field{near}; known here: {}", known.join(", "));
                problems.push(problem(&path, text));
            }
        }
    }
}

fn check_bounds(field: &str, value: &Value, schema: &JSONSchemaProps, problems: &mut Vec<Problem>) {
    if let Some(number) = value.as_f64() {
        let low = schema.minimum.is_some_and(|minimum| number < minimum);
        let high = schema.maximum.is_some_and(|maximum| number > maximum);
        if low || high {
            let bound = |bound: Option<f64>| bound.map_or_else(|| "any".to_owned(), |bound| bound.to_string());
            let text = format!("{value} is not within {} to {}", bound(schema.minimum), bound(schema.maximum));
            problems.push(problem(field, text));
        }
    }
    let size = match value {
        Value::String(text) => Some((text.chars().count(), schema.min_length, schema.max_length, "characters")),
        Value::Array(list) => Some((list.len(), schema.min_items, schema.max_items, "entries")),
        Value::Object(map) => Some((map.len(), schema.min_properties, schema.max_properties, "entries")),
        _ => None,
    };
    if let Some((size, least, most, what)) = size {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        if let Some(least) = least.filter(|least| size < *least) {
            problems.push(problem(field, format!("has {size} {what}; at least {least} are needed")));
        }
        if let Some(most) = most.filter(|most| size > *most) {
            problems.push(problem(field, format!("has {size} {what}; at most {most} are allowed")));
        }
    }
}

fn is(wanted: &str, value: &Value) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn with_article(wanted: &str) -> String {
    match wanted {
        "array" => "a list".to_owned(),
        "object" | "integer" => format!("an {wanted}"),
        _ => format!("a {wanted}"),
    }
}

fn named(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(kind: Kind, spec: Value) -> Vec<String> {
        let json = serde_json::json!({"spec": spec});
        Checker::new(kind).check(&json).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_passes() {
        let spec = serde_json::json!({"extension": {"name": "redis"}, "servers": ["heron"],
            "parameters": {"bind": "0.0.0.0", "deep": {"anything": [1, true]}}});
        assert_eq!(problems(Kind::Taskserv, spec), Vec::<String>::new());
        assert_eq!(problems(Kind::Workspace, serde_json::json!({})), Vec::<String>::new());
    }

    #[test]
    fn every_problem_has_its_path() {
        let spec = serde_json::json!({
            "steps": [{"name": "heron", "aply": {}, "apply": {"server": {"name": "heron", "spec": {
                "providerConfigRef": {"name": "local"}, "provideSize": "small",
                "image": {"os": "debian", "version": 12}, "deletionPolicy": "Orfan"}}}}],
            "parallelism": 0,
        });
        assert_eq!(
            problems(Kind::BatchWorkflow, spec),
            [
                "spec.parallelism: 0 is not within 1 to 64",
                "spec.steps[0].aply: unknown field (did you mean 'apply'?); known here: apply, delete, dependsOn, \
                 name, retry, run, timeoutSeconds, wait, when",
                "spec.steps[0].apply.server.spec.deletionPolicy: 'Orfan' is not one of Delete, Orphan (did you mean \
                 'Orphan'?)",
                "spec.steps[0].apply.server.spec.image.version: the number 12, where a string belongs; put it in quotes",
                "spec.steps[0].apply.server.spec.provideSize: unknown field (did you mean 'providerSize'?); known here: \
                 deletionPolicy, image, providerConfigRef, providerSize, size, suspend, zone",
            ]
        );
    }

    #[test]
    fn what_is_missing_or_too_long_is_named() {
        assert_eq!(
            problems(Kind::Taskserv, serde_json::json!({"servers": []})),
            ["spec.extension: is missing", "spec.servers: has 0 entries; at least 1 are needed"]
        );
        assert_eq!(Checker::new(Kind::Server).check(&serde_json::json!({}))[0].to_string(), "spec: is missing");
    }
}
