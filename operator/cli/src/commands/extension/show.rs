//! `provisioning extension show`: one extension, for people.

use clap::Args;
use provisioning_extensions::Bundle;
use semver::{Version, VersionReq};
use serde_json::Value;

use super::{ExtensionError, Place};
use crate::cluster::ClusterArguments;
use crate::commands::show::{Pairs, flatten, pairs, plain, section};
use crate::error::Error;
use crate::exit::Exit;
use crate::offers::{Offer, choose};
use crate::output::{Colour, Format, Style, print};
use crate::safe::one_line;
use crate::table::Table;

/// Arguments of `extension show`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the extension, or NAME@VERSION
    name: String,
    /// A version such as 0.1.0, or a requirement such as ^0.1. Default: the newest
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    place: Place,
    /// How to show it
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Shows an extension.
pub(super) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let (name, version) = asked(&arguments.name, arguments.version.as_deref())?;
    let requirement = version.map(requirement).transpose()?;
    let offers = arguments.place.offers(cluster).await?;
    let offer = choose(&offers, name, requirement.as_ref()).map_err(ExtensionError::from)?;
    print(&shown(offer, arguments.output, &arguments.place.system_namespace, style)?);
    Ok(Exit::Done)
}

/// Name and version, which may come in one word.
fn asked<'a>(name: &'a str, version: Option<&'a str>) -> Result<(&'a str, Option<&'a str>), Error> {
    match (name.split_once('@'), version) {
        (Some(_), Some(_)) => Err(Error::Usage("give the version behind @ or with --version, not both".to_owned())),
        (Some((name, version)), None) => Ok((name, Some(version))),
        (None, version) => Ok((name, version)),
    }
}

/// A version means itself alone; everything else is a requirement, as in a Taskserv.
fn requirement(text: &str) -> Result<VersionReq, ExtensionError> {
    let exact = Version::parse(text).map(|version| format!("={version}"));
    let written = exact.unwrap_or_else(|_| text.to_owned());
    VersionReq::parse(&written).map_err(|problem| ExtensionError::Version { text: text.to_owned(), problem })
}

fn shown(offer: &Offer, format: Option<Format>, namespace: &str, style: Style) -> Result<String, Error> {
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&offer.json())?),
        Some(Format::Yaml) => serde_saphyr::to_string(&offer.json())?,
        Some(Format::Name) => format!("extension/{}\n", offer.name),
        None | Some(Format::Wide) => describe(offer, namespace, style),
    })
}

fn describe(offer: &Offer, namespace: &str, style: Style) -> String {
    let title = style.paint(Colour::Bold, &one_line(&format!("Extension {} {}", offer.name, offer.version)));
    let colour = if offer.bundle.is_ok() { None } else { Some(Colour::Red) };
    let words = one_line(&offer.description());
    let mut text = format!("{title}\n{}\n", colour.map_or_else(|| words.clone(), |colour| style.paint(colour, &words)));
    section(&mut text, "Manifest", &pairs(&manifest(&offer.manifest())), style);
    if let Ok(bundle) = &offer.bundle {
        section(&mut text, "Files", &files(bundle), style);
        match offer.schema() {
            Some(schema) => section(&mut text, "Parameters", &parameters(&schema), style),
            None => text.push_str("\nParameters: it has no schema.json; see its documentation\n"),
        }
    }
    section(&mut text, "Where", &pairs(&places(offer, namespace)), style);
    text
}

/// The fields of a manifest by path, without those that the head has. Each entry of a list is a line.
fn manifest(manifest: &Value) -> Pairs {
    const HEAD: [&str; 5] = ["apiVersion", "kind", "name", "version", "description"];
    let mut found = Vec::new();
    for (name, value) in manifest.as_object().into_iter().flatten().filter(|(name, _)| !HEAD.contains(&name.as_str())) {
        match value {
            Value::Array(list) if list.iter().all(Value::is_object) => {
                found.extend(list.iter().map(|entry| (name.clone(), entry_of(entry))));
            }
            other => flatten(name, other, &mut found),
        }
    }
    found
}

/// An entry of a list: its name first.
fn entry_of(entry: &Value) -> String {
    let name = entry.get("name").map(plain);
    let rest = entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    name.into_iter().chain(rest.map(|(key, value)| format!("{key}: {}", plain(value)))).collect::<Vec<_>>().join(", ")
}

fn files(bundle: &Bundle) -> Table {
    let mut table = Table::default();
    for (path, content) in bundle.files() {
        table.add([path.as_str().to_owned(), format!("{} bytes", content.len())]);
    }
    table
}

/// The properties at the top of a schema.
fn parameters(schema: &Value) -> Table {
    let mut table = Table::new(["NAME", "TYPE", "DEFAULT", "DESCRIPTION"]);
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let property = referred(schema, property);
        let text = |key: &str| property.get(key).map(plain);
        let default = match text("default") {
            None if required.contains(&name.as_str()) => "(required)".to_owned(),
            other => other.unwrap_or_default(),
        };
        table.add([name.clone(), type_of(property), default, text("description").unwrap_or_default()]);
    }
    table
}

/// A property that only refers to an entry of `$defs` is that entry.
fn referred<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let name = property.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix("#/$defs/"));
    name.and_then(|name| schema.get("$defs")?.get(name)).unwrap_or(property)
}

fn type_of(property: &Value) -> String {
    let list = |values: &Vec<Value>, by: &str| values.iter().map(plain).collect::<Vec<_>>().join(by);
    match (property.get("enum"), property.get("type")) {
        (Some(Value::Array(values)), _) => list(values, "|"),
        (_, Some(Value::Array(types))) => list(types, "|"),
        (_, Some(type_)) => plain(type_),
        (_, None) => "any".to_owned(),
    }
}

fn places(offer: &Offer, namespace: &str) -> Pairs {
    let built_in = offer.built_in.then(|| ("built-in".to_owned(), "in this program".to_owned()));
    let map = offer.config_map.as_ref();
    let cluster = map.map(|name| ("cluster".to_owned(), format!("ConfigMap {name} in namespace {namespace}")));
    [("digest".to_owned(), offer.digest.clone())].into_iter().chain(built_in).chain(cluster).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::offers::tests::bundle;

    #[test]
    fn a_version_may_stand_behind_the_name() {
        assert_eq!(asked("redis", None).unwrap(), ("redis", None));
        assert_eq!(asked("redis", Some("^0.1")).unwrap(), ("redis", Some("^0.1")));
        assert_eq!(asked("redis@0.1.0", None).unwrap(), ("redis", Some("0.1.0")));
        assert_eq!(asked("redis@0.1.0", Some("0.1.0")).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn an_extension_is_shown_with_its_files_and_where_it_is() {
        let bundle = bundle("answer", "0.1.0", "def main [] {}\n");
        let offer = Offer {
            name: "answer".into(),
            version: "0.1.0".into(),
            digest: bundle.digest().to_owned(),
            built_in: true,
            config_map: Some(bundle.config_map_name()),
            bundle: Ok(bundle.clone()),
        };
        let manifest = String::from_utf8_lossy(&bundle.files().values().next().unwrap().clone()).len();
        let expected = format!(
            "Extension answer 0.1.0
For a test

Manifest
  timeoutSeconds.install:   30

Files
  manifest.yaml          {manifest} bytes
  scripts/check.nu       0 bytes
  scripts/install.nu     15 bytes
  scripts/uninstall.nu   0 bytes

Parameters: it has no schema.json; see its documentation

Where
  digest:     {}
  built-in:   in this program
  cluster:    ConfigMap {} in namespace provisioning-system
",
            bundle.digest(),
            bundle.config_map_name()
        );
        assert_eq!(describe(&offer, "provisioning-system", Style::PLAIN), expected);
    }

    #[test]
    fn a_manifest_is_shown_with_fields_that_this_build_does_not_know() {
        let shown = manifest(&json!({"name": "x", "requires": [{"version": "^0.1", "name": "os"}],
            "probes": [{"name": "tcp", "type": "Tcp", "port": 1}], "timeoutSeconds": {"check": 5}}));
        let expected =
            [("probes", "tcp, port: 1, type: Tcp"), ("requires", "os, version: ^0.1"), ("timeoutSeconds.check", "5")];
        assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn parameters_come_from_the_schema() {
        let schema = json!({"required": ["text"], "$defs": {"port": {"type": "integer", "description": "A port"}},
            "properties": {"port": {"$ref": "#/$defs/port"}, "text": {"type": "string"},
                "level": {"enum": ["info", "warn"], "default": "info"}, "any": {"type": ["string", "null"]}}});
        assert_eq!(
            parameters(&schema).render("", Style::PLAIN),
            "NAME    TYPE          DEFAULT      DESCRIPTION\n\
             any     string|null\n\
             level   info|warn     info\n\
             port    integer                    A port\n\
             text    string        (required)\n"
        );
    }

    #[test]
    fn a_version_means_itself() {
        assert!(!requirement("0.1.0").unwrap().matches(&Version::new(0, 1, 1)));
        assert!(requirement("^0.1").unwrap().matches(&Version::new(0, 1, 1)));
        assert_eq!(requirement("newest").unwrap_err().exit(), Exit::Usage);
    }
}
