//! `schema.json`: which parameters an extension takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use crate::manifest::{Manifest, ProbePort};

mod messages;
mod survey;

/// The draft that schemas are written in.
pub(crate) const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Largest schema.json, bytes.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Most problems that one check returns.
const MAX_PROBLEMS: usize = 16;
/// Largest compiled pattern, bytes. A pattern of a few characters can ask for megabytes, and the operator has little.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// Weight of a value times schemas up to which all problems are looked for: each can be one, and some hold a copy of the
/// value. Some 26 MB then.
const MAX_COMPARISONS: usize = 400_000;
/// Bytes that count for one.
const UNIT: usize = 64;
/// What a map weighs, and twice what each of its entries weighs beside its value.
const MAP: usize = 10;

/// Why a schema.json is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON.
    #[error("failed to read schema.json: {0}")]
    Syntax(String),
    /// Too large.
    #[error("schema.json has {0} bytes; at most {MAX_SCHEMA_BYTES} are allowed")]
    TooLarge(usize),
    /// Something in it is wrong.
    #[error("schema.json: {}{problem}", place(.path))]
    Rule {
        /// Where, for example `properties.port.default`; empty for the whole.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// It does not go together with the manifest.
    #[error("manifest.yaml: {path}: {problem}")]
    Manifest {
        /// The manifest's field, for example `probes[0].portParameter`.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// One thing that is wrong with parameters, in words for the one who wrote them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, for example `port` or `backends[1].port`; empty for the parameters as a whole.
    pub path: String,
    /// What is wrong, the value (cut to 64 characters), and what is allowed.
    pub message: String,
}

impl Problem {
    /// In one line, with its path below that of the field which holds the parameters, for example `spec.parameters`.
    pub fn below(&self, field: &str) -> String {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        format!("{field}{dot}{}: {}", self.path, self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", place(&self.path), self.message)
    }
}

/// A validated schema.json.
///
/// It is JSON Schema, draft 2020-12, with less freedom, because the operator runs what an author wrote (ADR 0014):
/// `$ref` names an entry of the top's `$defs` and never comes back to itself, keywords that are not known are refused
/// rather than ignored (`x-…` is for notes), `format` is checked, and patterns are matched in linear time, so they
/// have no look-around and no back-references. Nothing is ever fetched or read.
#[derive(Clone)]
pub struct ParameterSchema {
    schema: Value,
    defaults: BTreeMap<String, Value>,
    secrets: BTreeSet<String>,
    /// What its check may cost.
    cost: Cost,
    validator: Arc<Validator>,
}

impl ParameterSchema {
    /// Reads and validates a schema, also against the manifest beside it.
    ///
    /// # Errors
    /// [`SchemaError`] where it breaks a rule, a default is not valid, a probe's `portParameter` is no integer
    /// property, its `bindParameter` no string property, or a secret is a property too.
    pub fn new(text: &str, manifest: &Manifest) -> Result<Self, SchemaError> {
        Self::read(text, manifest, true)
    }

    /// Reads and validates the schema of a script of a workflow; probes take nothing from its parameters.
    ///
    /// # Errors
    /// [`SchemaError`] as of [`ParameterSchema::new`].
    pub fn of_script(content: &[u8], manifest: &Manifest) -> Result<Self, SchemaError> {
        let text = std::str::from_utf8(content).map_err(|error| SchemaError::Syntax(error.to_string()))?;
        Self::read(text, manifest, false)
    }

    fn read(text: &str, manifest: &Manifest, has_probes: bool) -> Result<Self, SchemaError> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLarge(text.len()));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| SchemaError::Syntax(error.to_string()))?;
        let survey = survey::survey(&schema)?;
        let validator = compile(&schema).map_err(|(path, problem)| SchemaError::Rule { path, problem })?;
        for (path, owner, default) in &survey.defaults {
            check_default(&schema, path, owner, default, survey.cost)?;
        }
        if has_probes {
            check_probes(&schema, survey.properties, manifest)?;
        }
        check_secrets(survey.properties, manifest)?;
        let default_of = |(name, property): (&String, &Value)| Some((name.clone(), property.get("default")?.clone()));
        Ok(ParameterSchema {
            defaults: survey.properties.iter().filter_map(default_of).collect(),
            secrets: manifest.secrets.iter().map(|secret| secret.name.clone()).collect(),
            validator: Arc::new(validator),
            cost: survey.cost,
            schema,
        })
    }

    /// What is wrong with these parameters, sorted by path, at most 16 problems; nothing where they are valid.
    /// Defaults are filled in first: what is checked is what the scripts get.
    pub fn check(&self, parameters: &BTreeMap<String, Value>) -> Vec<Problem> {
        let instance = Value::Object(self.with_defaults(parameters).into_iter().collect());
        let reader = messages::Reader { schema: &self.schema, instance: &instance, secrets: &self.secrets };
        let mut problems = BTreeSet::new();
        problems_of(&self.validator, &instance, self.cost, &reader, &mut |problem| {
            problems.insert(problem);
            // The first ones in order are kept, whatever the order in which they are found.
            if problems.len() > MAX_PROBLEMS {
                problems.pop_last();
            }
        });
        problems.into_iter().collect()
    }

    /// The parameters, with the default of every top-level property that is not given.
    pub fn with_defaults(&self, parameters: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        let mut filled = self.defaults.clone();
        filled.extend(parameters.iter().map(|(name, value)| (name.clone(), value.clone())));
        filled
    }

    /// The schema as it was written.
    pub fn schema(&self) -> &Value {
        &self.schema
    }
}

impl fmt::Debug for ParameterSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParameterSchema").field("schema", &self.schema).field("secrets", &self.secrets).finish()
    }
}

/// The rest is made from these two.
impl PartialEq for ParameterSchema {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema && self.secrets == other.secrets
    }
}

impl Eq for ParameterSchema {}

/// The schema of a bundle, which old bundles do not have.
pub(crate) fn schema_of(content: Option<&[u8]>, manifest: &Manifest) -> Result<Option<ParameterSchema>, SchemaError> {
    if let Some(content) = content {
        let text = std::str::from_utf8(content).map_err(|error| SchemaError::Syntax(error.to_string()))?;
        return ParameterSchema::new(text, manifest).map(Some);
    }
    match probe_parameters(manifest).next() {
        Some((path, name, _)) => {
            let problem = format!("{name:?} is a property of no schema.json: the bundle has none");
            Err(SchemaError::Manifest { path, problem })
        }
        None => Ok(None),
    }
}

/// Compiles a schema, or says where and what is wrong with it.
fn compile(schema: &Value) -> Result<Validator, (String, String)> {
    jsonschema::draft202012::options()
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
        .build(schema)
        .map_err(|error| (messages::place_of(schema, error.instance_path().as_str()), messages::of_schema(&error)))
}

/// What decides how much a check may cost.
#[derive(Clone, Copy)]
struct Cost {
    /// How many schemas a check of one value visits at most, references followed.
    schemas: usize,
    /// There is `anyOf` or `oneOf` among them: below these the validator gathers all errors, each with a copy of the value.
    has_choices: bool,
}

/// What is wrong with a value. The validator gathers all errors before it gives the first one, so where there could be too many
/// it is asked for one, or only whether there is any.
fn problems_of(
    validator: &Validator,
    value: &Value,
    cost: Cost,
    reader: &messages::Reader<'_>,
    tell: &mut dyn FnMut(Problem),
) {
    let is_small = weight(value).saturating_mul(cost.schemas) <= MAX_COMPARISONS;
    if is_small {
        validator.iter_errors(value).for_each(|error| reader.problems(&error).into_iter().for_each(&mut *tell));
    } else if !cost.has_choices {
        validator.validate(value).err().into_iter().flat_map(|error| reader.problems(&error)).for_each(tell);
    } else if !validator.is_valid(value) {
        let mut problems = wrong_names(value, reader);
        problems.extend(unfit_parts(value, reader.schema));
        if problems.is_empty() {
            problems.push(unfit(""));
        }
        problems.into_iter().for_each(tell);
    }
}

/// Top-level properties that are missing, or that the schema does not know: the first ones.
fn wrong_names(value: &Value, reader: &messages::Reader<'_>) -> Vec<Problem> {
    let (empty, of_schema) = (Map::new(), |keyword: &str| reader.schema.get(keyword));
    let given = value.as_object().unwrap_or(&empty);
    let known = of_schema("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required = of_schema("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing = required.filter(|name| !given.contains_key(*name)).map(|name| messages::missing("", name));
    // Patterns may know others.
    let is_closed =
        of_schema("additionalProperties") == Some(&json!(false)) && of_schema("patternProperties").is_none();
    let unknown = given.keys().filter(|name| is_closed && !known.contains_key(*name));
    let names: BTreeSet<&str> = known.keys().map(String::as_str).collect();
    let unknown = unknown.map(|name| reader.unknown("", &names, name));
    missing.take(MAX_PROBLEMS).chain(unknown.take(MAX_PROBLEMS)).collect()
}

/// Which of the top-level properties do not fit, where that is all that can be said of them.
fn unfit_parts(value: &Value, schema: &Value) -> Vec<Problem> {
    let Some(properties) = schema.get("properties") else { return Vec::new() };
    let alone = alone(schema, &json!({"properties": properties}));
    let (Ok(validator), Some(values)) = (compile(&alone), value.as_object()) else { return Vec::new() };
    let is_unfit = |(name, value): &(&String, &Value)| !validator.is_valid(&json!({name.as_str(): value}));
    values.iter().filter(is_unfit).map(|(name, _)| unfit(&messages::child("", name))).collect()
}

fn unfit(path: &str) -> Problem {
    let message = "it does not fit its schema, and there is too much of both to say where: try it with less";
    Problem { path: path.to_owned(), message: message.to_owned() }
}

/// A part of a schema by itself, with what its references name.
fn alone(schema: &Value, part: &Value) -> Value {
    json!({"$schema": DRAFT, "$defs": schema.get("$defs").unwrap_or(&json!({})), "allOf": [part]})
}

/// How much room a value takes, in units of 64 bytes.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / UNIT,
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + 1,
        Value::Object(map) => {
            map.iter().map(|(name, value)| MAP / 2 + name.len() / UNIT + weight(value)).sum::<usize>() + MAP
        }
        _ => 1,
    }
}

fn check_default(schema: &Value, path: &str, owner: &Value, default: &Value, cost: Cost) -> Result<(), SchemaError> {
    let rule = |problem| SchemaError::Rule { path: format!("{path}.default"), problem };
    let alone = alone(schema, owner);
    let validator = compile(&alone).map_err(|(_, problem)| rule(problem))?;
    let reader = messages::Reader { schema: &alone, instance: default, secrets: &BTreeSet::new() };
    let mut first: Option<Problem> = None;
    problems_of(&validator, default, cost, &reader, &mut |problem| {
        first = Some(match first.take() {
            Some(other) => other.min(problem),
            None => problem,
        });
    });
    match first {
        Some(problem) => Err(rule(problem.to_string())),
        None => Ok(()),
    }
}

fn check_probes(schema: &Value, properties: &Map<String, Value>, manifest: &Manifest) -> Result<(), SchemaError> {
    for (path, name, wanted) in probe_parameters(manifest) {
        let problem = match properties.get(name) {
            None => format!("{name:?} is no property of schema.json"),
            Some(property) if !survey::has_type(schema, property, wanted) => {
                format!("the property {name:?} of schema.json has not the type {wanted:?}")
            }
            Some(_) => continue,
        };
        return Err(SchemaError::Manifest { path, problem });
    }
    Ok(())
}

fn check_secrets(properties: &Map<String, Value>, manifest: &Manifest) -> Result<(), SchemaError> {
    match manifest.secrets.iter().position(|secret| properties.contains_key(&secret.name)) {
        Some(index) => Err(SchemaError::Manifest {
            path: format!("secrets[{index}].name"),
            problem: format!("{:?} is also a property of schema.json", manifest.secrets[index].name),
        }),
        None => Ok(()),
    }
}

/// The parameters that probes take their ports and addresses from, with the path of the manifest's field and the type that
/// they must have.
fn probe_parameters(manifest: &Manifest) -> impl Iterator<Item = (String, &str, &'static str)> {
    manifest.probes.iter().enumerate().flat_map(|(index, probe)| {
        let port = match &probe.port {
            ProbePort::Parameter(name) => Some((format!("probes[{index}].portParameter"), name.as_str(), "integer")),
            ProbePort::Number(_) => None,
        };
        let bind = probe.bind.as_deref();
        let bind = bind.map(|name| (format!("probes[{index}].bindParameter"), name, "string"));
        port.into_iter().chain(bind)
    })
}

#[cfg(test)]
mod tests;
