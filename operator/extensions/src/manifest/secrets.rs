//! `secrets`: what the scripts are given from Secrets.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ManifestError;
use super::fields::{description_of, field, items_of, refuse_duplicate, refuse_unknown, text_of};

/// Most secrets of an extension.
const MAX_SECRETS: usize = 16;
/// Longest name of a secret.
const MAX_NAME: usize = 63;

/// A parameter whose value comes from a Secret and is shown nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretParameter {
    /// Name, `^[a-z][A-Za-z0-9]{0,62}$`.
    pub name: String,
    /// Whether the extension can't be installed without it.
    pub required: bool,
    /// For people; may be empty.
    pub description: String,
}

pub(super) fn secrets_of(fields: &Map<String, Value>) -> Result<Vec<SecretParameter>, ManifestError> {
    let mut names = BTreeSet::new();
    let mut secrets = Vec::new();
    for item in items_of(fields, "secrets", MAX_SECRETS)? {
        refuse_unknown(item.fields, &item.prefix, &["name", "required", "description"])?;
        let name = text_of(item.fields, &item.prefix, "name")?;
        if !is_name(name) {
            let problem = format!(
                "{name:?} is no name of a secret (a lower-case letter, then letters and digits, at most {MAX_NAME})"
            );
            return Err(field(&format!("{}name", item.prefix), &problem));
        }
        refuse_duplicate(&mut names, &item, name)?;
        let required = match item.fields.get("required") {
            None => true,
            Some(Value::Bool(required)) => *required,
            Some(other) => {
                return Err(field(&format!("{}required", item.prefix), &format!("{other} is neither true nor false")));
            }
        };
        let description = description_of(item.fields, &item.prefix)?;
        secrets.push(SecretParameter { name: name.to_owned(), required, description });
    }
    Ok(secrets)
}

/// As a property of schema.json is named, so that scripts read both alike.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
