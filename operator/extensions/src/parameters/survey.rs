//! Goes once through a schema, so that what is compiled afterwards is known to be small and to end.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Cost, DRAFT, SchemaError};
use crate::words::nearest;

/// Deepest nesting of schemas, references followed.
const MAX_DEPTH: usize = 32;
/// Most schemas within a schema, references followed: what a check of one value may visit.
const MAX_SCHEMAS: usize = 2048;
/// Most patterns, references followed: each compiles to something.
const MAX_PATTERNS: usize = 64;
const DEFS: &str = "#/$defs/";

/// What a keyword holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Something that is no schema.
    Value,
    /// A schema.
    One,
    /// A list of schemas.
    List,
    /// Schemas by name.
    Named,
    /// A reference.
    Reference,
    /// As `Value` and `Named`, but at the top only.
    TopValue,
    TopNamed,
}

/// The keywords of draft 2020-12 that a schema.json may use. Left out are those that name other documents (`$id`,
/// `$anchor`, `$dynamicRef`), and those that validate nothing (`contentEncoding`).
const KEYWORDS: [(&str, Holds); 49] = [
    ("$comment", Holds::Value),
    ("$defs", Holds::TopNamed),
    ("$ref", Holds::Reference),
    ("$schema", Holds::TopValue),
    ("additionalProperties", Holds::One),
    ("allOf", Holds::List),
    ("anyOf", Holds::List),
    ("const", Holds::Value),
    ("contains", Holds::One),
    ("default", Holds::Value),
    ("dependentRequired", Holds::Value),
    ("dependentSchemas", Holds::Named),
    ("deprecated", Holds::Value),
    ("description", Holds::Value),
    ("else", Holds::One),
    ("enum", Holds::Value),
    ("examples", Holds::Value),
    ("exclusiveMaximum", Holds::Value),
    ("exclusiveMinimum", Holds::Value),
    ("format", Holds::Value),
    ("if", Holds::One),
    ("items", Holds::One),
    ("maxContains", Holds::Value),
    ("maxItems", Holds::Value),
    ("maxLength", Holds::Value),
    ("maxProperties", Holds::Value),
    ("maximum", Holds::Value),
    ("minContains", Holds::Value),
    ("minItems", Holds::Value),
    ("minLength", Holds::Value),
    ("minProperties", Holds::Value),
    ("minimum", Holds::Value),
    ("multipleOf", Holds::Value),
    ("not", Holds::One),
    ("oneOf", Holds::List),
    ("pattern", Holds::Value),
    ("patternProperties", Holds::Named),
    ("prefixItems", Holds::List),
    ("properties", Holds::Named),
    ("propertyNames", Holds::One),
    ("readOnly", Holds::Value),
    ("required", Holds::Value),
    ("then", Holds::One),
    ("title", Holds::Value),
    ("type", Holds::Value),
    ("unevaluatedItems", Holds::One),
    ("unevaluatedProperties", Holds::One),
    ("uniqueItems", Holds::Value),
    ("writeOnly", Holds::Value),
];

/// What was found.
pub(super) struct Survey<'a> {
    /// The top-level properties.
    pub(super) properties: &'a Map<String, Value>,
    /// What a check of one value may cost.
    pub(super) cost: Cost,
    /// Every default: the path of the schema that holds it, that schema, the default.
    pub(super) defaults: Vec<(String, &'a Value, &'a Value)>,
}

/// Size of a schema, references followed.
#[derive(Clone, Copy)]
struct Size {
    schemas: usize,
    patterns: usize,
    depth: usize,
}

struct Walk<'a> {
    has_choices: bool,
    defs: Option<&'a Map<String, Value>>,
    /// Sizes of the entries of `$defs`; None for one that is being measured.
    measured: BTreeMap<&'a str, Option<Size>>,
    defaults: Vec<(String, &'a Value, &'a Value)>,
}

/// Checks all rules that the compiler does not.
pub(super) fn survey(schema: &Value) -> Result<Survey<'_>, SchemaError> {
    let Value::Object(top) = schema else {
        return Err(rule("", "it is not an object"));
    };
    match top.get("$schema") {
        Some(Value::String(draft)) if draft == DRAFT => {}
        _ => return Err(rule("$schema", &format!("it has to be {DRAFT:?}"))),
    }
    if top.get("type") != Some(&Value::from("object")) {
        return Err(rule("type", "it has to be \"object\": parameters are a mapping"));
    }
    let Some(Value::Object(properties)) = top.get("properties") else {
        return Err(rule("properties", "it is missing or no object; a schema without parameters has {}"));
    };
    let defs = top.get("$defs").and_then(Value::as_object);
    let mut walk = Walk { has_choices: false, defs, measured: BTreeMap::new(), defaults: Vec::new() };
    let Size { schemas, .. } = walk.visit(schema, "", 1)?;
    Ok(Survey { properties, cost: Cost { schemas, has_choices: walk.has_choices }, defaults: walk.defaults })
}

/// Whether a schema has the type integer, itself or by its reference. The schema has been surveyed.
pub(super) fn has_type(schema: &Value, property: &Value, wanted: &str) -> bool {
    let defs = |reference: &str| reference.strip_prefix(DEFS).and_then(|name| schema.get("$defs")?.get(name));
    match (property.get("type"), property.get("$ref")) {
        (Some(name), _) => name == wanted,
        (None, Some(Value::String(reference))) => {
            defs(reference).is_some_and(|target| has_type(schema, target, wanted))
        }
        (None, _) => false,
    }
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Value, path: &str, level: usize) -> Result<Size, SchemaError> {
        let mut size = Size { schemas: 1, patterns: 0, depth: 1 };
        let keywords = match schema {
            Value::Bool(_) => return Ok(size),
            Value::Object(keywords) => keywords,
            _ => return Err(rule(path, "it is no schema: neither an object nor true or false")),
        };
        if level > MAX_DEPTH {
            return Err(too_deep(path));
        }
        for (keyword, value) in keywords {
            let place = join(path, keyword);
            let held = holds(keyword, level == 1).map_err(|problem| rule(&place, &problem))?;
            for (place, inner) in inner_schemas(held, value, &place)? {
                add(&mut size, self.visit(inner, &place, level + 1)?, &place)?;
            }
            self.has_choices |= matches!(keyword.as_str(), "anyOf" | "oneOf");
            size.patterns += match keyword.as_str() {
                "pattern" => 1,
                "patternProperties" => value.as_object().map_or(0, Map::len),
                _ => 0,
            };
            if held == Holds::Reference {
                let target = self.reference(value, &place, level)?;
                add(&mut size, target, &place)?;
            }
        }
        if keywords.contains_key("unevaluatedProperties") || keywords.contains_key("unevaluatedItems") {
            // All beside it is visited once more, to learn what it has evaluated, and so on level by level.
            let again = size;
            add(&mut size, again, path)?;
            size.depth -= 1;
        }
        if let Some(default) = keywords.get("default") {
            self.defaults.push((path.to_owned(), schema, default));
        }
        if level + size.depth - 1 > MAX_DEPTH {
            return Err(too_deep(path));
        }
        if size.patterns > MAX_PATTERNS {
            return Err(rule(path, &format!("it holds more than {MAX_PATTERNS} patterns, references followed")));
        }
        Ok(size)
    }

    fn reference(&mut self, value: &'a Value, place: &str, level: usize) -> Result<Size, SchemaError> {
        let defs = self.defs;
        let target = value.as_str().and_then(|text| text.strip_prefix(DEFS)).filter(|name| is_plain(name));
        let Some(name) = target else {
            return Err(rule(
                place,
                &format!("{value} is not \"{DEFS}NAME\"; nothing outside of this file, nor elsewhere in it, is read"),
            ));
        };
        let Some(schema) = defs.and_then(|defs| defs.get(name)) else {
            return Err(rule(place, &format!("$defs has no {name:?}")));
        };
        match self.measured.get(name) {
            Some(Some(size)) => Ok(*size),
            Some(None) => Err(rule(place, &format!("{name:?} holds itself by this reference"))),
            None => {
                self.measured.insert(name, None);
                // Defaults are gathered where `$defs` itself is visited.
                let known = self.defaults.len();
                let size = self.visit(schema, &join("$defs", name), level + 1)?;
                self.defaults.truncate(known);
                self.measured.insert(name, Some(size));
                Ok(size)
            }
        }
    }
}

/// What a keyword holds, or what is wrong with it.
fn holds(keyword: &str, at_top: bool) -> Result<Holds, String> {
    // The specification leaves these to authors.
    if keyword.starts_with("x-") {
        return Ok(Holds::Value);
    }
    match KEYWORDS.iter().find(|(name, _)| *name == keyword) {
        Some((_, Holds::TopNamed | Holds::TopValue)) if !at_top => Err("it belongs at the top".to_owned()),
        Some((_, held)) => Ok(*held),
        None => {
            let hint = nearest(keyword, KEYWORDS.iter().map(|(name, _)| *name));
            let hint = hint.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
            Err(format!("schemas of parameters do not have this keyword{hint}"))
        }
    }
}

/// The schemas within a keyword, with their paths.
fn inner_schemas<'a>(held: Holds, value: &'a Value, place: &str) -> Result<Vec<(String, &'a Value)>, SchemaError> {
    match held {
        Holds::Value | Holds::TopValue | Holds::Reference => Ok(Vec::new()),
        Holds::One => Ok(vec![(place.to_owned(), value)]),
        Holds::List => match value {
            Value::Array(list) => {
                Ok(list.iter().enumerate().map(|(index, inner)| (format!("{place}[{index}]"), inner)).collect())
            }
            _ => Err(rule(place, "it is not a list of schemas")),
        },
        Holds::Named | Holds::TopNamed => match value {
            Value::Object(named) => Ok(named.iter().map(|(name, inner)| (join(place, name), inner)).collect()),
            _ => Err(rule(place, "it is not an object of schemas")),
        },
    }
}

fn add(size: &mut Size, inner: Size, place: &str) -> Result<(), SchemaError> {
    size.schemas = size.schemas.saturating_add(inner.schemas);
    size.patterns = size.patterns.saturating_add(inner.patterns);
    size.depth = size.depth.max(inner.depth + 1);
    if size.schemas > MAX_SCHEMAS {
        let problem = format!("more than {MAX_SCHEMAS} schemas within each other, references followed");
        return Err(rule(place, &problem));
    }
    Ok(())
}

/// Whether a name means the same in a URI as it does by itself.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn too_deep(path: &str) -> SchemaError {
    rule(path, &format!("schemas are nested more than {MAX_DEPTH} deep, references followed"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn rule(path: &str, problem: &str) -> SchemaError {
    SchemaError::Rule { path: path.to_owned(), problem: problem.to_owned() }
}
