//! `manifest.yaml`: who an extension is.

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod fields;
mod probes;
mod relations;
mod scripts;
mod secrets;

use fields::{description_of, field, first_line, label_of, refuse_unknown, require_constant, text_of};
pub use probes::{Probe, ProbeKind, ProbePort};
pub use relations::{Relation, satisfies};
pub use scripts::OfferedScript;
pub use secrets::SecretParameter;

/// The `apiVersion` of the manifests that this build reads.
pub const API_VERSION: &str = "extension.provisioning.dev/v1alpha1";
/// The `kind` of a manifest.
pub const KIND: &str = "Extension";

/// Shortest and longest timeout of a script, seconds.
const TIMEOUT_BOUNDS: std::ops::RangeInclusive<i64> = 5..=7200;
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
/// requires:              # on the same server, installed before; at most 32, as in the next two lists
///   - {name: os, version: ^0.1}       # a SemVer requirement; without one, any version
/// optional:              # as requires, where it is there for another reason
///   - {name: node-exporter}
/// conflicts:             # never on the same server
///   - {name: valkey}
/// secrets:               # at most 16
///   - {name: password, required: true, description: Of the default user}
/// probes:                # what the operator asks over the network; at most 8
///   - {name: tcp, type: Tcp, port: 6379}
///   - {name: http, type: Http, portParameter: port, bindParameter: bind, path: /health, status: 200}
/// scripts:               # what steps of workflows can run: scripts/NAME.nu; at most 16
///   - {name: dump, description: Writes a dump}
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
    /// Whether the servers of a Taskserv together form the service, as the members of an etcd do: each script is then told
    /// of all, and is run again when one of them joins, leaves or moves. Default false.
    pub members: bool,
    /// What has to be on the same server, and is installed before.
    pub requires: Vec<Relation>,
    /// What is installed before and has to be of this version, where it is there for another reason.
    pub optional: Vec<Relation>,
    /// What cannot be on the same server.
    pub conflicts: Vec<Relation>,
    /// What the scripts are given from Secrets.
    pub secrets: Vec<SecretParameter>,
    /// What the operator asks of a server on which the extension is installed.
    pub probes: Vec<Probe>,
    /// What steps of workflows can run.
    pub scripts: Vec<OfferedScript>,
}

/// The fields of a manifest.
const FIELDS: [&str; 13] = [
    "apiVersion",
    "kind",
    "name",
    "version",
    "description",
    "timeoutSeconds",
    "members",
    "requires",
    "optional",
    "conflicts",
    "secrets",
    "probes",
    "scripts",
];

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
        refuse_unknown(&fields, "", &FIELDS)?;
        require_constant(&fields, "apiVersion", API_VERSION)?;
        require_constant(&fields, "kind", KIND)?;
        let name = label_of(&fields, "", "name")?;
        Ok(Manifest {
            version: version_of(&fields)?,
            description: description_of(&fields, "")?,
            timeouts: timeouts_of(&fields)?,
            members: members_of(&fields)?,
            requires: relations::relations_of(&fields, "requires", &name)?,
            optional: relations::relations_of(&fields, "optional", &name)?,
            conflicts: relations::relations_of(&fields, "conflicts", &name)?,
            secrets: secrets::secrets_of(&fields)?,
            probes: probes::probes_of(&fields)?,
            scripts: scripts::scripts_of(&fields)?,
            name,
        })
    }
}

fn members_of(fields: &Map<String, Value>) -> Result<bool, ManifestError> {
    match fields.get("members") {
        None => Ok(false),
        Some(Value::Bool(members)) => Ok(*members),
        Some(other) => Err(field("members", &format!("{other} is neither true nor false"))),
    }
}

fn version_of(fields: &Map<String, Value>) -> Result<Version, ManifestError> {
    let text = text_of(fields, "", "version")?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use semver::VersionReq;
    use serde_json::json;

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
            (format!("{GOOD}\"a\\nextension is valid\": 1\n"), "unknown field a\\nextension is valid;"),
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

    #[test]
    fn relations_secrets_and_probes_are_read() {
        let text = format!(
            "{GOOD}requires: [{{name: os, version: ^0.1}}]\noptional: [{{name: cilium}}]\nconflicts: [{{name: valkey}}]\n\
             secrets: [{{name: password}}, {{name: tlsKey, required: false, description: A key}}]\n\
             probes:\n- {{name: tcp, type: Tcp, port: 6379}}\n- {{name: http, type: Http, portParameter: port, bindParameter: bind, status: 204}}\n"
        );
        let manifest = Manifest::from_yaml(&text).unwrap();
        assert_eq!(manifest.requires, [Relation { name: "os".to_owned(), version: "^0.1".parse().unwrap() }]);
        assert_eq!(manifest.optional, [Relation { name: "cilium".to_owned(), version: VersionReq::STAR }]);
        assert_eq!(manifest.conflicts, [Relation { name: "valkey".to_owned(), version: VersionReq::STAR }]);
        let secret = |name: &str, required, description: &str| SecretParameter {
            name: name.to_owned(),
            required,
            description: description.to_owned(),
        };
        assert_eq!(manifest.secrets, [secret("password", true, ""), secret("tlsKey", false, "A key")]);
        let http = ProbeKind::Http { path: "/".to_owned(), status: Some(204) };
        let parameter = ProbePort::Parameter("port".to_owned());
        assert_eq!(
            manifest.probes,
            [
                Probe { name: "tcp".to_owned(), kind: ProbeKind::Tcp, port: ProbePort::Number(6379), bind: None },
                Probe { name: "http".to_owned(), kind: http, port: parameter.clone(), bind: Some("bind".to_owned()) }
            ]
        );
        let given = |value| [("port".to_owned(), value)].into();
        assert_eq!(parameter.resolve(&given(json!(80))), Some(80));
        assert_eq!(parameter.resolve(&given(json!(70000))), None);
        assert_eq!(parameter.resolve(&BTreeMap::new()), None);
    }

    #[test]
    fn a_probe_is_asked_only_where_the_service_listens() {
        let probe = "probes: [{name: tcp, type: Tcp, portParameter: port, bindParameter: bind}]";
        let probe = Manifest::from_yaml(&format!("{GOOD}{probe}\n")).unwrap().probes.remove(0);
        let port = |bind: Value, address: &str| {
            let parameters = BTreeMap::from([("port".to_owned(), json!(6379)), ("bind".to_owned(), bind)]);
            probe.port_at(address.parse().unwrap(), &parameters)
        };
        for (bind, address, asked) in [
            ("*", "10.0.0.5", true),
            ("all", "10.0.0.5", true),
            ("0.0.0.0", "10.0.0.5", true),
            ("0.0.0.0", "fd00::5", false),
            ("::", "10.0.0.5", true),
            ("127.0.0.1", "10.0.0.5", false),
            ("127.0.0.1 ::1", "10.0.0.5", false),
            ("127.0.0.1,10.0.0.5", "10.0.0.5", true),
            ("127.0.0.1 10.0.0.6", "10.0.0.5", false),
            ("", "10.0.0.5", false),
        ] {
            assert_eq!(port(json!(bind), address), asked.then_some(6379), "{bind:?} at {address}");
        }
        assert_eq!(port(json!(7), "10.0.0.5"), Some(6379), "what is no text says nothing");
        assert_eq!(probe.port_at("10.0.0.5".parse().unwrap(), &BTreeMap::new()), None, "there is no port");
    }

    #[test]
    fn what_is_wrong_in_a_list_is_named_with_its_index() {
        let many = |list: &str, count: usize, entry: fn(usize) -> String| {
            format!("{list}: [{}]", (0..count).map(entry).collect::<Vec<_>>().join(", "))
        };
        for (lines, words) in [
            ("requires: os".to_owned(), "requires: \"os\" is not a list"),
            ("requires: [os]".to_owned(), "requires[0]: \"os\" is not a mapping"),
            (
                "requires: [{name: os, colour: red}]".to_owned(),
                "unknown field requires[0].colour; known here: name, version",
            ),
            ("requires: [{name: os}, {version: ^1}]".to_owned(), "requires[1].name: it is missing"),
            ("optional: [{name: Os}]".to_owned(), "optional[0].name: \"Os\" is no DNS label"),
            (
                "requires: [{name: os, version: new}]".to_owned(),
                "requires[0].version: \"new\" is no SemVer requirement",
            ),
            ("requires: [{name: os, version: 1}]".to_owned(), "requires[0].version: 1 is not text; put it in quotes"),
            ("conflicts: [{name: redis}]".to_owned(), "conflicts[0].name: \"redis\" is the extension itself"),
            ("requires: [{name: a}, {name: a}]".to_owned(), "requires[1].name: \"a\" is there twice"),
            (many("requires", 33, |n| format!("{{name: a{n}}}")), "requires: 33 entries; at most 32"),
            ("secrets: [{name: Password}]".to_owned(), "secrets[0].name: \"Password\" is no name of a secret"),
            (format!("secrets: [{{name: {}}}]", "x".repeat(64)), "is no name of a secret"),
            (
                "secrets: [{name: a, required: maybe}]".to_owned(),
                "secrets[0].required: \"maybe\" is neither true nor false",
            ),
            ("secrets: [{name: a}, {name: a}]".to_owned(), "secrets[1].name: \"a\" is there twice"),
            (format!("secrets: [{{name: a, description: {}}}]", "x".repeat(513)), "secrets[0].description: 513 bytes"),
            (many("secrets", 17, |n| format!("{{name: a{n}}}")), "secrets: 17 entries; at most 16"),
            (
                "probes: [{name: a, type: Udp, port: 1}]".to_owned(),
                "probes[0].type: \"Udp\" is neither \"Tcp\" nor \"Http\"",
            ),
            ("probes: [{name: a, type: Tcp}]".to_owned(), "probes[0].port: it is missing, and so is portParameter"),
            (
                "probes: [{name: a, type: Tcp, port: 1, portParameter: p}]".to_owned(),
                "probes[0].port: it is given together with",
            ),
            (
                "probes: [{name: a, type: Tcp, port: 0}]".to_owned(),
                "probes[0].port: 0 is not a whole number from 1 to 65535",
            ),
            ("probes: [{name: a, type: Tcp, port: 65536}]".to_owned(), "probes[0].port: 65536 is not a whole number"),
            ("probes: [{name: a, type: Tcp, portParameter: 1}]".to_owned(), "probes[0].portParameter: 1 is not text"),
            (
                "probes: [{name: a, type: Tcp, port: 1, bindParameter: ''}]".to_owned(),
                "probes[0].bindParameter: it is empty",
            ),
            (
                "probes: [{name: a, type: Tcp, port: 1, path: /}]".to_owned(),
                "unknown field probes[0].path; known here: name, type, port",
            ),
            ("probes: [{name: a, type: Http, port: 1, path: x}]".to_owned(), "probes[0].path: \"x\" is no path"),
            ("probes: [{name: a, type: Http, port: 1, path: '/ x'}]".to_owned(), "probes[0].path: \"/ x\" is no path"),
            (
                "probes: [{name: a, type: Http, port: 1, status: 600}]".to_owned(),
                "probes[0].status: 600 is not a whole number from 100 to 599",
            ),
            (
                "probes: [{name: a, type: Tcp, port: 1}, {name: a, type: Tcp, port: 2}]".to_owned(),
                "probes[1].name: \"a\" is there twice",
            ),
            ("scripts: [{name: check}]".to_owned(), "scripts[0].name: \"check\" belongs to the Taskserv"),
            ("scripts: [{name: ../x}]".to_owned(), "scripts[0].name: \"../x\" is no DNS label"),
            ("scripts: [{name: a}, {name: a}]".to_owned(), "scripts[1].name: \"a\" is there twice"),
            (many("scripts", 17, |n| format!("{{name: a{n}}}")), "scripts: 17 entries; at most 16"),
            (many("probes", 9, |n| format!("{{name: a{n}, type: Tcp, port: 1}}")), "probes: 9 entries; at most 8"),
        ] {
            let error = Manifest::from_yaml(&format!("{GOOD}{lines}\n")).unwrap_err().to_string();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
        }
    }
}
