//! Objects from flags: what `generate` prints is what `create` writes.
//!
//! A kind that can be made has one row in [`KINDS`]: its flags, and how they become a spec. Its group of commands (`create`,
//! `list`, `show`, `delete`) and its part of `generate` follow from the row.

mod batch;
mod cluster;
mod server;
mod taskserv;
mod workspace;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use clap_complete::engine::ArgValueCompleter;
use provisioning_api::names::{GROUP, VERSION};
use provisioning_plan::nearest::hint;
use serde_json::{Map, Value, json};

use crate::complete;
use crate::error::Error;
use crate::kinds::Kind;
use crate::manifest::{Document, made};

/// Flags that make the spec of one kind.
trait Flags: Args + Sized {
    /// Only what was asked for: the API server knows the defaults.
    fn spec(self, name: &str) -> Result<Value, String>;
}

/// A kind that can be made by flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maker {
    pub(crate) kind: Kind,
    /// As in commands; the kind's own name, or a shorter one.
    pub(crate) name: &'static str,
    /// Arguments behind `create` or `generate NAME` in an example that works.
    pub(crate) example: &'static str,
    augment: fn(Command) -> Command,
    spec: fn(&ArgMatches, &str) -> Result<Value, Error>,
}

/// The kinds that have a group of commands of their own.
pub(crate) const KINDS: [Maker; 4] = [
    Maker::new::<server::ServerFlags>(Kind::Server, "server", "heron --size small"),
    Maker::new::<taskserv::TaskservFlags>(Kind::Taskserv, "taskserv", "redis --servers heron --parameter bind=0.0.0.0"),
    Maker::new::<cluster::ClusterFlags>(
        Kind::Cluster,
        "cluster",
        "web --group pages=heron,curlew --taskserv nginx=pages",
    ),
    Maker::new::<batch::BatchFlags>(Kind::BatchWorkflow, "batch", "first --server heron --taskserv redis@heron"),
];

/// Flags of all kinds.
#[derive(Clone, Debug, Args)]
struct CommonFlags {
    /// Labels, such as tier=web; several with commas
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = pair)]
    labels: Vec<(String, String)>,
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    if name.is_empty() { Err(format!("'{text}' has no name")) } else { Ok((name.to_owned(), value.to_owned())) }
}

impl Maker {
    const fn new<F: Flags>(kind: Kind, name: &'static str, example: &'static str) -> Self {
        let spec = |matches: &ArgMatches, name: &str| {
            let flags = F::from_arg_matches(matches).map_err(|error| Error::Usage(error.to_string()))?;
            flags.spec(name).map_err(Error::Usage)
        };
        Self { kind, name, example, augment: F::augment_args, spec }
    }

    /// Adds a name and the flags to a command.
    pub(crate) fn arguments(&self, command: Command) -> Command {
        let text = format!("Name of the {}", self.kind.name());
        let name = clap::Arg::new("name").required(true).value_name("NAME").help(text);
        // A new name is nothing that could be known.
        let name = name.add(ArgValueCompleter::new(complete::nothing));
        CommonFlags::augment_args((self.augment)(command.arg(name)))
    }

    /// The object that the flags ask for, checked as if it came from a file; without a namespace unless one was asked for.
    pub(crate) fn document(&self, matches: &ArgMatches, namespace: Option<&str>) -> Result<Document, Error> {
        let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
        let common = CommonFlags::from_arg_matches(matches).map_err(|error| Error::Usage(error.to_string()))?;
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        if !common.labels.is_empty() {
            let labels: Map<String, Value> =
                common.labels.into_iter().map(|(key, value)| (key, json!(value))).collect();
            metadata["labels"] = Value::Object(labels);
        }
        Ok(made(object(self.kind, metadata, (self.spec)(matches, name)?))?)
    }
}

fn object(kind: Kind, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

pub(crate) use workspace::{WorkspaceFlags, documents as workspace_documents};

/// One of some words, or the nearest.
fn word(given: &str, known: &[&'static str]) -> Result<String, String> {
    let found = known.iter().find(|word| word.eq_ignore_ascii_case(given));
    let wrong = || format!("'{given}' is not one of {}{}", known.join(", "), hint(given, known.iter().copied()));
    found.map(|word| (*word).to_owned()).ok_or_else(wrong)
}

/// `Delete` or `Orphan`.
fn deletion_policy(text: &str) -> Result<String, String> {
    word(text, &["Delete", "Orphan"])
}

/// Puts what was asked for into a spec.
fn set(spec: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        spec[name] = value.into();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The object that a command line makes.
    pub(crate) fn document(kind: Kind, line: &str) -> Result<Document, String> {
        let maker = KINDS.iter().find(|maker| maker.kind == kind).unwrap();
        let command = maker.arguments(Command::new(maker.name).no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        maker.document(&matches, None).map_err(|error| error.to_string())
    }

    /// Its spec.
    pub(crate) fn spec(kind: Kind, line: &str) -> Value {
        document(kind, line).unwrap().json["spec"].take()
    }

    #[test]
    fn what_an_example_makes_is_valid() {
        for maker in KINDS {
            let made = document(maker.kind, maker.example);
            assert!(made.is_ok(), "{}: {made:?}", maker.name);
        }
    }

    #[test]
    fn labels_and_namespace_are_in_the_metadata() {
        let made = document(Kind::Server, "heron --labels tier=web,zone=a").unwrap();
        assert_eq!(made.json["metadata"], json!({"name": "heron", "labels": {"tier": "web", "zone": "a"}}));
        assert!(document(Kind::Server, "heron --labels web").unwrap_err().contains("'web' is not NAME=VALUE"));
    }

    #[test]
    fn flags_are_checked_like_manifests() {
        let error = document(Kind::Server, "heron --cores 999 --memory 1Gi --disk 1Gi").unwrap_err();
        assert_eq!(
            error,
            "nothing was sent; 1 problem found:\n  the flags, server/heron: spec.size.cores: 999 is not within 1 to 256"
        );
        let error = document(Kind::Server, "heron --deletion-policy Orfan").unwrap_err();
        assert!(error.contains("did you mean 'Orphan'?"), "{error}");
    }
}
