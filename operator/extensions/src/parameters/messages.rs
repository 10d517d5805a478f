//! What the validator found, in words for the one who wrote the parameters.

use std::collections::BTreeSet;

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind as Kind};
use jsonschema::types::JsonType;
use serde_json::Value;

use super::Problem;
use crate::words::{list, nearest};

/// Most characters of a value that a message shows.
const MAX_VALUE: usize = 64;
/// Most characters of a message.
const MAX_MESSAGE: usize = 512;
/// Most forms of an `anyOf` or `oneOf` that a message goes into, and most problems of each.
const MAX_FORMS: usize = 4;
const MAX_PER_FORM: usize = 3;

/// Types of values.
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// What is wrong with a schema itself, in words for its author. Where the validator's words name no way out, they are ours.
pub(super) fn of_schema(error: &ValidationError<'_>) -> String {
    let value = shown(error.instance());
    let text = error.to_string();
    let is_at = |keyword: &str| error.instance_path().as_str().rsplit('/').next() == Some(keyword);
    match error.kind() {
        Kind::Format { format } if format == "regex" => format!(
            "{value} is no regular expression that can be matched in linear time: no look-around, no back-references, and \
             at most {} KiB when compiled",
            super::MAX_PATTERN_BYTES / 1024
        ),
        Kind::AnyOf { .. } if is_at("type") => {
            let near = error.instance().as_str().and_then(|name| nearest(name, TYPES));
            let near = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            format!("{value} is no type; there are {}, and lists of these{near}", list(TYPES))
        }
        _ => match text.strip_prefix("Unknown format: ").and_then(|rest| rest.split_once(". ")) {
            Some((format, _)) => format!(
                "the format {format} is not known, so nothing would be checked; known are those of JSON Schema 2020-12, such \
                 as date, date-time, email, hostname, ipv4, ipv6, uri, uuid"
            ),
            None => text,
        },
    }
}

/// Reads errors of one check.
pub(super) struct Reader<'a> {
    /// The schema that was checked against.
    pub(super) schema: &'a Value,
    /// What was checked.
    pub(super) instance: &'a Value,
    /// Names that are secrets, not parameters.
    pub(super) secrets: &'a BTreeSet<String>,
}

impl Reader<'_> {
    /// The problems that an error stands for.
    pub(super) fn problems(&self, error: &ValidationError<'_>) -> Vec<Problem> {
        let pointer = error.instance_path().as_str();
        let path = place_of(self.instance, pointer);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let known = self.known(error);
                unexpected.iter().map(|name| self.unknown(&path, &known, name)).collect()
            }
            Kind::Required { property } => vec![missing(&path, property.as_str().unwrap_or_default())],
            _ => vec![problem(&path, self.message(error, &path))],
        }
    }

    /// A property of the value at a path that is none of those that are known there.
    pub(super) fn unknown(&self, path: &str, known: &BTreeSet<&str>, name: &str) -> Problem {
        let words = if path.is_empty() && self.secrets.contains(name) {
            // Its value is not repeated: it may be the secret itself.
            "it is a secret: give it by secretParameters, as a reference to a Secret".to_owned()
        } else {
            match nearest(name, known.iter().copied()) {
                Some(near) => format!("there is no such parameter; did you mean '{near}'?"),
                None if known.is_empty() => "there is no such parameter".to_owned(),
                None => format!("there is no such parameter; there are {}", list(known)),
            }
        };
        problem(&child(path, name), words)
    }

    /// The properties that the schema of an error names.
    fn known(&self, error: &ValidationError<'_>) -> BTreeSet<&str> {
        let known = self.beside(error).and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect()
    }

    fn message(&self, error: &ValidationError<'_>, path: &str) -> String {
        let value = shown(error.instance());
        match error.kind() {
            Kind::Type { kind } => format!("{value} is not {}", types(kind)),
            Kind::Minimum { .. }
            | Kind::Maximum { .. }
            | Kind::ExclusiveMinimum { .. }
            | Kind::ExclusiveMaximum { .. } => format!("{value} is out of range; allowed is {}", self.range(error)),
            Kind::MinLength { .. } | Kind::MaxLength { .. } => {
                let count = error.instance().as_str().map_or(0, |text| text.chars().count());
                let bounds = self.bounds(error, "minLength", "maxLength");
                format!("{value} has {count} characters; allowed is {bounds}")
            }
            Kind::MinItems { .. } | Kind::MaxItems { .. } => {
                let count = error.instance().as_array().map_or(0, Vec::len);
                format!("it has {count} entries; allowed is {}", self.bounds(error, "minItems", "maxItems"))
            }
            Kind::MinProperties { .. } | Kind::MaxProperties { .. } => {
                let count = error.instance().as_object().map_or(0, serde_json::Map::len);
                format!("it has {count} entries; allowed is {}", self.bounds(error, "minProperties", "maxProperties"))
            }
            Kind::AdditionalItems { limit } => format!("it has too many entries; allowed is at most {limit}"),
            Kind::MultipleOf { multiple_of } => format!("{value} is not a multiple of {multiple_of}"),
            Kind::Pattern { pattern } => format!("{value} does not match the pattern {}", cut(pattern, 2 * MAX_VALUE)),
            Kind::Format { format } => format!("{value} is not of the format {format}"),
            Kind::Enum { options } => one_of(error.instance(), options),
            Kind::Constant { expected_value } => format!("{value} is not {}", shown(expected_value)),
            Kind::UniqueItems => twice(error.instance()),
            Kind::FalseSchema => "it cannot be given here".to_owned(),
            Kind::Not { schema } => {
                format!("{value} is not allowed, as whatever fits {}", cut(&schema.to_string(), 2 * MAX_VALUE))
            }
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.forms(context, path),
            Kind::OneOfMultipleValid { context } => {
                format!("it fits more than one of {} forms that exclude each other", context.len())
            }
            Kind::PropertyNames { error: inner } => format!("as a name, {}", self.message(inner, path)),
            // Rare ones. The validator's own words, without the value, which it would not cut.
            _ => error.masked_with("the value").to_string(),
        }
    }

    /// Why none of the forms fits: the first problems of each.
    fn forms(&self, context: &[Vec<ValidationError<'static>>], path: &str) -> String {
        let forms = context.iter().take(MAX_FORMS).enumerate().map(|(index, errors)| {
            let mut problems: Vec<Problem> = errors.iter().flat_map(|error| self.problems(error)).collect();
            problems.sort();
            let words = problems
                .iter()
                .take(MAX_PER_FORM)
                .map(|problem| if problem.path == path { problem.message.clone() } else { problem.to_string() });
            format!("({}) {}", index + 1, words.collect::<Vec<_>>().join(", "))
        });
        format!("it fits none of the {} allowed forms: {}", context.len(), forms.collect::<Vec<_>>().join("; "))
    }

    /// The schema that holds the keyword of this error.
    fn beside(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.pointer(parent)
    }

    fn range(&self, error: &ValidationError<'_>) -> String {
        self.limits(
            error,
            &[
                ("minimum", "at least"),
                ("exclusiveMinimum", "more than"),
                ("maximum", "at most"),
                ("exclusiveMaximum", "less than"),
            ],
        )
    }

    fn bounds(&self, error: &ValidationError<'_>, least: &str, most: &str) -> String {
        self.limits(error, &[(least, "at least"), (most, "at most")])
    }

    fn limits(&self, error: &ValidationError<'_>, keywords: &[(&str, &str)]) -> String {
        let schema = self.beside(error);
        let limit = |(keyword, words): &(&str, &str)| Some(format!("{words} {}", schema?.get(keyword)?));
        keywords.iter().filter_map(limit).collect::<Vec<_>>().join(" and ")
    }
}

/// A JSON pointer into a value as people write it: `backends[1].port`, `sysctl["vm.swappiness"]`.
pub(super) fn place_of(root: &Value, pointer: &str) -> String {
    let mut path = String::new();
    let mut current = Some(root);
    for segment in pointer.split('/').skip(1) {
        let name = segment.replace("~1", "/").replace("~0", "~");
        match current {
            Some(Value::Array(items)) => {
                path = format!("{path}[{name}]");
                current = name.parse::<usize>().ok().and_then(|index| items.get(index));
            }
            other => {
                path = child(&path, &name);
                current = other.and_then(|value| value.get(&name));
            }
        }
    }
    path
}

/// The path of an entry of a map.
pub(super) fn child(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'));
    match (plain, path.is_empty()) {
        (true, true) => cut(name, MAX_VALUE),
        (true, false) => format!("{path}.{}", cut(name, MAX_VALUE)),
        (false, _) => format!("{path}[{:?}]", cut(name, MAX_VALUE)),
    }
}

/// A property of the value at a path that has to be there.
pub(super) fn missing(path: &str, name: &str) -> Problem {
    problem(&child(path, name), "it is missing".to_owned())
}

fn problem(path: &str, message: String) -> Problem {
    Problem { path: path.to_owned(), message: cut(&message, MAX_MESSAGE) }
}

fn shown(value: &Value) -> String {
    cut(&value.to_string(), MAX_VALUE)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn types(kind: &TypeKind) -> String {
    let word = |kind: JsonType| match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "text",
        JsonType::Array => "a list",
        JsonType::Object => "a mapping",
    };
    match kind {
        TypeKind::Single(kind) => word(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(word).collect::<Vec<_>>().join(" or "),
    }
}

fn one_of(value: &Value, options: &Value) -> String {
    let options: Vec<&Value> = options.as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let near = value.as_str().and_then(|text| nearest(text, options.iter().filter_map(|option| option.as_str())));
    let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
    format!("{} is not one of {}{hint}", shown(value), list(options.iter().map(|option| shown(option))))
}

fn twice(value: &Value) -> String {
    let mut seen = BTreeSet::new();
    let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
    match entries.iter().find(|entry| !seen.insert(entry.to_string())) {
        Some(entry) => format!("{} is there twice; each entry is allowed once", shown(entry)),
        None => "an entry is there twice; each is allowed once".to_owned(),
    }
}
