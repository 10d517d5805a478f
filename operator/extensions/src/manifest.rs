//! `manifest.yaml`: who an extension is.

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The `apiVersion` of the manifests that this build reads.
pub const API_VERSION: &str = "extension.provisioning.dev/v1alpha1";
/// The `kind` of a manifest.
pub const KIND: &str = "Extension";

/// Shortest and longest timeout of a script, seconds.
const TIMEOUT_BOUNDS: std::ops::RangeInclusive<i64> = 5..=7200;
/// Longest description, bytes.
const MAX_DESCRIPTION: usize = 512;
/// Longest name or version: both are label values.
const MAX_LABEL: usize = 63;

/// Why a manifest is refused. Every message names the field's path.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not YAML, or not a mapping.
    #[error("failed to read manifest.yaml: {0}")]
    Syntax(String),
    /// A field that no manifest has.
    #[error("manifest.yaml: unknown field {path}; known here: {known}")]
    UnknownField {
        /// Path of the field.
        path: String,
        /// The known fields at that place.
        known: String,
    },
    /// A field is missing or its value is wrong.
    #[error("manifest.yaml: {path}: {problem}")]
    Field {
        /// Path of the field.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// How long each script may take, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// `scripts/install.nu`. Default 600.
    pub install: i64,
    /// `scripts/check.nu`. Default 60.
    pub check: i64,
    /// `scripts/uninstall.nu`. Default 300.
    pub uninstall: i64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { install: 600, check: 60, uninstall: 300 }
    }
}

/// A validated manifest.
///
/// ```yaml
/// apiVersion: extension.provisioning.dev/v1alpha1
/// kind: Extension
/// name: redis            # a DNS label
/// version: 0.1.0         # SemVer, without build metadata
/// description: Redis     # at most 512 bytes; optional
/// timeoutSeconds:        # 5 to 7200 each; optional
///   install: 600
///   check: 60
///   uninstall: 300
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name, a DNS label.
    pub name: String,
    /// Version, without build metadata: two bundles of one version are the same bundle.
    pub version: Version,
    /// For people; may be empty.
    pub description: String,
    /// How long each script may take.
    pub timeouts: Timeouts,
}

impl Manifest {
    /// Reads and validates a manifest.
    ///
    /// # Errors
    /// [`ManifestError`], naming the path of the first field that is wrong.
    pub fn from_yaml(text: &str) -> Result<Self, ManifestError> {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| ManifestError::Syntax(first_line(&error.to_string())))?;
        let Value::Object(fields) = value else {
            return Err(ManifestError::Syntax("it is not a mapping".to_owned()));
        };
        refuse_unknown(&fields, "", &["apiVersion", "kind", "name", "version", "description", "timeoutSeconds"])?;
        require_constant(&fields, "apiVersion", API_VERSION)?;
        require_constant(&fields, "kind", KIND)?;
        let description = match fields.get("description") {
            None => String::new(),
            Some(_) => text_of(&fields, "description")?.to_owned(),
        };
        if description.len() > MAX_DESCRIPTION {
            return Err(field("description", &format!("{} bytes; at most {MAX_DESCRIPTION}", description.len())));
        }
        Ok(Manifest {
            name: name_of(&fields)?,
            version: version_of(&fields)?,
            description,
            timeouts: timeouts_of(&fields)?,
        })
    }
}

fn name_of(fields: &Map<String, Value>) -> Result<String, ManifestError> {
    let name = text_of(fields, "name")?;
    let inner = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > MAX_LABEL || !inner || name.starts_with('-') || name.ends_with('-') {
        return Err(field(
            "name",
            &format!("{name:?} is no DNS label (lower-case letters, digits and inner '-', at most {MAX_LABEL})"),
        ));
    }
    Ok(name.to_owned())
}

fn version_of(fields: &Map<String, Value>) -> Result<Version, ManifestError> {
    let text = text_of(fields, "version")?;
    let version = Version::parse(text)
        .map_err(|error| field("version", &format!("{text:?} is not SemVer (as in 1.2.3): {error}")))?;
    // The version is a label value too, which neither holds '+' nor ends with a '-'.
    if !version.build.is_empty() || text.len() > MAX_LABEL || text.ends_with('-') {
        return Err(field(
            "version",
            &format!("{text:?} has build metadata, ends with '-', or is longer than {MAX_LABEL}"),
        ));
    }
    Ok(version)
}

fn timeouts_of(fields: &Map<String, Value>) -> Result<Timeouts, ManifestError> {
    let mut timeouts = Timeouts::default();
    let Some(value) = fields.get("timeoutSeconds") else {
        return Ok(timeouts);
    };
    let Value::Object(given) = value else {
        return Err(field("timeoutSeconds", "it is not a mapping"));
    };
    refuse_unknown(given, "timeoutSeconds.", &["install", "check", "uninstall"])?;
    for (name, place) in
        [("install", &mut timeouts.install), ("check", &mut timeouts.check), ("uninstall", &mut timeouts.uninstall)]
    {
        let Some(value) = given.get(name) else { continue };
        match value.as_i64() {
            Some(seconds) if TIMEOUT_BOUNDS.contains(&seconds) => *place = seconds,
            _ => {
                let (low, high) = (TIMEOUT_BOUNDS.start(), TIMEOUT_BOUNDS.end());
                return Err(field(
                    &format!("timeoutSeconds.{name}"),
                    &format!("{value} is not a whole number of seconds from {low} to {high}"),
                ));
            }
        }
    }
    Ok(timeouts)
}

fn refuse_unknown(fields: &Map<String, Value>, prefix: &str, known: &[&str]) -> Result<(), ManifestError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ManifestError::UnknownField { path: format!("{prefix}{key}"), known: known.join(", ") }),
        None => Ok(()),
    }
}

fn require_constant(fields: &Map<String, Value>, name: &str, wanted: &str) -> Result<(), ManifestError> {
    let found = text_of(fields, name)?;
    if found == wanted { Ok(()) } else { Err(field(name, &format!("{found:?} is not {wanted:?}"))) }
}

fn text_of<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, ManifestError> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(field(name, &format!("{other} is not text; put it in quotes"))),
        None => Err(field(name, "it is missing")),
    }
}

fn field(path: &str, problem: &str) -> ManifestError {
    ManifestError::Field { path: path.to_owned(), problem: problem.to_owned() }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: redis\nversion: 0.1.0\n";

    #[test]
    fn defaults_fill_what_is_left_out() {
        let manifest = Manifest::from_yaml(GOOD).unwrap();
        assert_eq!(manifest.name, "redis");
        assert_eq!(manifest.version, Version::new(0, 1, 0));
        assert_eq!(manifest.timeouts, Timeouts { install: 600, check: 60, uninstall: 300 });
        let manifest = Manifest::from_yaml(&format!("{GOOD}timeoutSeconds: {{check: 15}}\n")).unwrap();
        assert_eq!(manifest.timeouts, Timeouts { install: 600, check: 15, uninstall: 300 });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        for (text, words) in [
            (format!("{GOOD}colour: red\n"), "unknown field colour"),
            (format!("{GOOD}timeoutSeconds: {{chekc: 15}}\n"), "unknown field timeoutSeconds.chekc"),
            (format!("{GOOD}timeoutSeconds: {{check: 4}}\n"), "timeoutSeconds.check: 4 is not a whole number"),
            (format!("{GOOD}timeoutSeconds: {{check: soon}}\n"), "timeoutSeconds.check"),
            (format!("{GOOD}timeoutSeconds: 3\n"), "timeoutSeconds: it is not a mapping"),
            (GOOD.replace("0.1.0", "1.2"), "version"),
            (GOOD.replace("0.1.0", "1.2.0+x"), "build metadata"),
            (GOOD.replace("redis", "Redis"), "name: \"Redis\""),
            (GOOD.replace("name: redis\n", ""), "name: it is missing"),
            (GOOD.replace("v1alpha1", "v9"), "apiVersion"),
            (GOOD.replace("kind: Extension", "kind: Other"), "kind"),
            (format!("{GOOD}description: {}\n", "x".repeat(513)), "description: 513 bytes"),
            ("- a\n".to_owned(), "not a mapping"),
            ("a: [".to_owned(), "failed to read manifest.yaml"),
        ] {
            let error = Manifest::from_yaml(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
        }
    }
}
