//! `scripts`: what workflows can run beside install, check and uninstall.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ManifestError;
use super::fields::{description_of, field, items_of, label_of, refuse_duplicate, refuse_unknown};

/// Most scripts of an extension.
const MAX_SCRIPTS: usize = 16;
/// Scripts that every extension has; they belong to its Taskserv.
const LIFECYCLE: [&str; 3] = ["install", "check", "uninstall"];

/// A script that a step of a workflow can run: `scripts/NAME.nu`. Its parameters are described in `schemas/NAME.json`; without
/// that file it takes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedScript {
    /// Name, a DNS label.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
}

pub(super) fn scripts_of(fields: &Map<String, Value>) -> Result<Vec<OfferedScript>, ManifestError> {
    let mut names = BTreeSet::new();
    let mut scripts = Vec::new();
    for item in items_of(fields, "scripts", MAX_SCRIPTS)? {
        refuse_unknown(item.fields, &item.prefix, &["name", "description"])?;
        let name = label_of(item.fields, &item.prefix, "name")?;
        if LIFECYCLE.contains(&name.as_str()) {
            let problem = format!("{name:?} belongs to the Taskserv; a script of a workflow has another name");
            return Err(field(&format!("{}name", item.prefix), &problem));
        }
        refuse_duplicate(&mut names, &item, &name)?;
        scripts.push(OfferedScript { name, description: description_of(item.fields, &item.prefix)? });
    }
    Ok(scripts)
}
