//! `provisioning generate`: the manifest of an object from flags, on standard output. Asks no cluster.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use serde_json::Value;

use super::of_kind::described;
use crate::cluster::ClusterArguments;
use crate::error::Error;
use crate::exit::Exit;
use crate::make::{KINDS, Maker, WorkspaceFlags, workspace_documents};
use crate::manifest::Document;
use crate::output::print;

/// The word for a workspace's objects.
const WORKSPACE: &str = "workspace";

/// Arguments of `generate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Wanted,
}

/// What is made.
#[derive(Clone, Debug)]
enum Wanted {
    Object(&'static Maker, Box<ArgMatches>),
    Workspace(WorkspaceFlags, Format),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Prints manifests.
pub(crate) fn run(arguments: &Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    print(&manifest(&arguments.what, cluster.namespace.as_deref())?);
    Ok(Exit::Done)
}

fn manifest(wanted: &Wanted, namespace: Option<&str>) -> Result<String, Error> {
    match wanted {
        Wanted::Object(maker, matches) => {
            let format = matches.get_one::<Format>("output").copied().unwrap_or(Format::Yaml);
            text(&[maker.document(matches, namespace)?], format)
        }
        Wanted::Workspace(flags, format) => text(&workspace_documents(flags)?, *format),
    }
}

/// Documents of one file.
fn text(documents: &[Document], format: Format) -> Result<String, Error> {
    let one = |json: &Value| -> Result<String, Error> {
        Ok(match format {
            Format::Yaml => serde_saphyr::to_string(json)?,
            Format::Json => format!("{}\n", serde_json::to_string_pretty(json)?),
        })
    };
    let texts = documents.iter().map(|document| one(&document.json)).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("---\n"))
}

fn output() -> Arg {
    let format = clap::builder::EnumValueParser::<Format>::new();
    Arg::new("output").short('o').long("output").value_parser(format).default_value("yaml").help("How to print it")
}

impl Subcommand for Wanted {
    fn augment_subcommands(command: Command) -> Command {
        let kinds = KINDS.iter().map(|maker| {
            let (name, example) = (maker.name, maker.example);
            described(
                maker.arguments(Command::new(name)).arg(output()),
                format!("Print the manifest of a {}", maker.kind.name()),
                format!(
                    "Examples:\n  provisioning generate {name} {example}\n  \
                     provisioning generate {name} {example} | provisioning apply -f -"
                ),
            )
        });
        let workspace = described(
            WorkspaceFlags::augment_args(Command::new(WORKSPACE)).arg(output()),
            "Print the manifests of a workspace: namespace, Workspace, ProviderConfig".to_owned(),
            "Example: provisioning generate workspace first > workspace.yaml".to_owned(),
        );
        command.subcommands(kinds).subcommand(workspace)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        name == WORKSPACE || KINDS.iter().any(|maker| maker.name == name)
    }
}

impl FromArgMatches for Wanted {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        if name == WORKSPACE {
            let format = matches.get_one::<Format>("output").copied().unwrap_or(Format::Yaml);
            return Ok(Self::Workspace(WorkspaceFlags::from_arg_matches(matches)?, format));
        }
        let maker = KINDS.iter().find(|maker| maker.name == name).ok_or_else(missing)?;
        Ok(Self::Object(maker, Box::new(matches.clone())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::documents;

    fn generated(line: &str, namespace: Option<&str>) -> String {
        let command = Wanted::augment_subcommands(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace()).unwrap();
        manifest(&Wanted::from_arg_matches(&matches).unwrap(), namespace).unwrap()
    }

    #[test]
    fn a_server_reads_as_a_person_would_write_it() {
        let expected = "\
apiVersion: provisioning.dev/v1alpha1
kind: Server
metadata:
  name: heron
  namespace: first
spec:
  image:
    os: debian
    version: \"12\"
  providerConfigRef:
    name: local
  providerSize: small
";
        assert_eq!(generated("server heron", Some("first")), expected);
        let command = Wanted::augment_subcommands(Command::new("x"));
        let about = command.find_subcommand("server").and_then(Command::get_about).map(ToString::to_string);
        assert_eq!(about.as_deref(), Some("Print the manifest of a Server"));
        let json: Value = serde_json::from_str(&generated("server heron -o json", None)).unwrap();
        assert_eq!(json["metadata"], serde_json::json!({"name": "heron"}));
    }

    #[test]
    fn a_workspace_is_three_documents_that_apply_takes() {
        let text = generated("workspace first --parallelism 4", None);
        let names: Vec<String> = documents(&text).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["namespace/first", "workspace/workspace", "providerconfig/local"]);
        assert!(text.contains("parallelism: 4"), "{text}");
        assert_eq!(documents(&generated("workspace first --without-provider", None)).len(), 2);
    }
}
