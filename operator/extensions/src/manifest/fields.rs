//! Reading the fields of a manifest: every error names the whole path of the field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{MAX_LABEL, ManifestError};

/// Longest description, bytes.
const MAX_DESCRIPTION: usize = 512;

/// One mapping of a list, with its path up to the dot (`probes[0].`).
pub(super) struct Item<'a> {
    pub(super) prefix: String,
    pub(super) fields: &'a Map<String, Value>,
}

/// The mappings of the list `name`; none where the field is left out.
pub(super) fn items_of<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    most: usize,
) -> Result<Vec<Item<'a>>, ManifestError> {
    let Some(value) = fields.get(name) else {
        return Ok(Vec::new());
    };
    let Value::Array(values) = value else {
        return Err(field(name, &format!("{value} is not a list")));
    };
    if values.len() > most {
        return Err(field(name, &format!("{} entries; at most {most}", values.len())));
    }
    let item = |(index, value): (usize, &'a Value)| match value {
        Value::Object(fields) => Ok(Item { prefix: format!("{name}[{index}]."), fields }),
        other => Err(field(&format!("{name}[{index}]"), &format!("{other} is not a mapping"))),
    };
    values.iter().enumerate().map(item).collect()
}

/// Adds the name of an item to those of its list.
pub(super) fn refuse_duplicate(names: &mut BTreeSet<String>, item: &Item<'_>, name: &str) -> Result<(), ManifestError> {
    if names.insert(name.to_owned()) {
        return Ok(());
    }
    Err(field(&format!("{}name", item.prefix), &format!("{name:?} is there twice")))
}

pub(super) fn refuse_unknown(fields: &Map<String, Value>, prefix: &str, known: &[&str]) -> Result<(), ManifestError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        // What is in no known field may be anything, also a line of its own.
        Some(key) => Err(ManifestError::UnknownField {
            path: format!("{prefix}{}", key.escape_debug()),
            known: known.join(", "),
        }),
        None => Ok(()),
    }
}

pub(super) fn require_constant(fields: &Map<String, Value>, name: &str, wanted: &str) -> Result<(), ManifestError> {
    let found = text_of(fields, "", name)?;
    if found == wanted { Ok(()) } else { Err(field(name, &format!("{found:?} is not {wanted:?}"))) }
}

pub(super) fn text_of<'a>(fields: &'a Map<String, Value>, prefix: &str, name: &str) -> Result<&'a str, ManifestError> {
    let path = format!("{prefix}{name}");
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(field(&path, &format!("{other} is not text; put it in quotes"))),
        None => Err(field(&path, "it is missing")),
    }
}

/// Text that may be left out, at most 512 bytes.
pub(super) fn description_of(fields: &Map<String, Value>, prefix: &str) -> Result<String, ManifestError> {
    if !fields.contains_key("description") {
        return Ok(String::new());
    }
    let text = text_of(fields, prefix, "description")?;
    if text.len() > MAX_DESCRIPTION {
        let problem = format!("{} bytes; at most {MAX_DESCRIPTION}", text.len());
        return Err(field(&format!("{prefix}description"), &problem));
    }
    Ok(text.to_owned())
}

/// A DNS label.
pub(super) fn label_of(fields: &Map<String, Value>, prefix: &str, name: &str) -> Result<String, ManifestError> {
    let text = text_of(fields, prefix, name)?;
    let inner = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if text.is_empty() || text.len() > MAX_LABEL || !inner || text.starts_with('-') || text.ends_with('-') {
        return Err(field(
            &format!("{prefix}{name}"),
            &format!("{text:?} is no DNS label (lower-case letters, digits and inner '-', at most {MAX_LABEL})"),
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn field(path: &str, problem: &str) -> ManifestError {
    ManifestError::Field { path: path.to_owned(), problem: problem.to_owned() }
}

pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
