//! `provisioning server`, `taskserv`, `batch`: `create`, `list`, `show` and `delete` for one kind, from the row of the kind
//! in [`KINDS`].

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::{delete, list, show};
use crate::applying;
use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::exit::Exit;
use crate::kinds::{Kind, KindError, Target};
use crate::make::{KINDS, Maker};
use crate::output::{Style, print};

/// What to do with objects of a kind.
#[derive(Clone, Debug)]
pub(crate) struct OfKind {
    maker: &'static Maker,
    verb: Verb,
}

#[derive(Clone, Debug)]
enum Verb {
    /// The flags are read once the namespace is known.
    Create(Box<ArgMatches>),
    List(list::How),
    Show(Vec<String>, show::How),
    Delete(Vec<String>, delete::How),
}

/// Runs a command on one kind.
pub(crate) async fn run(command: OfKind, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let OfKind { maker, verb } = command;
    let kind = maker.kind;
    match verb {
        Verb::Create(matches) => create(maker, &matches, cluster).await,
        Verb::List(how) => list::objects(&[kind], &how, cluster, style).await,
        Verb::Show(names, how) => show::objects(&named(kind, &names)?, &how, cluster, style).await,
        Verb::Delete(names, how) => delete::of_kind(named(kind, &names)?, &how, cluster).await,
    }
}

fn named(kind: Kind, names: &[String]) -> Result<Vec<Target>, KindError> {
    names.iter().map(|name| Target::named(kind, name)).collect()
}

/// Writes what `generate` prints; an object that is there already is left as it is.
async fn create(maker: &Maker, matches: &ArgMatches, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let dry_run = DryRun::from_arg_matches(matches).map_err(|error| Error::Usage(error.to_string()))?;
    let document = maker.document(matches, cluster.namespace.as_deref())?;
    if dry_run.is_client() {
        print(&serde_saphyr::to_string(&document.json)?);
        return Ok(Exit::Done);
    }
    let cluster = Cluster::find(cluster).await?;
    let document = document.within(&cluster.namespace);
    applying::create(&cluster, &document, dry_run.is_server()).await?;
    print(&format!("{document} created{}\n", dry_run.suffix()));
    Ok(Exit::Done)
}

/// A command with its words, put on last: flags that are derived bring the words of their struct.
pub(super) fn described(command: Command, about: String, examples: String) -> Command {
    command.about(about).long_about(None).after_help(examples)
}

/// The group of a kind.
fn group(maker: &'static Maker) -> Command {
    let (kind, name, example) = (maker.kind, maker.name, maker.example);
    let names = move || {
        let names = Arg::new("names").required(true).action(ArgAction::Append).num_args(1..).value_name("NAME");
        names.help(format!("Names of {}s", kind.name())).add(ArgValueCompleter::new(complete::of_kind(kind)))
    };
    let create = described(
        DryRun::augment_args(maker.arguments(Command::new("create"))),
        format!("Create a {}", kind.name()),
        format!(
            "Examples:\n  provisioning {name} create {example}\n  \
             provisioning {name} create {example} --dry-run=client\n\n\
             What is written is what `provisioning generate {name}` prints."
        ),
    );
    let list = described(
        list::How::augment_args(Command::new("list")),
        format!("List {}s", kind.name()),
        format!("Examples:\n  provisioning {name} list -A -o wide\n  provisioning {name} list -o name"),
    );
    let show = described(
        show::How::augment_args(Command::new("show").arg(names())),
        format!("Show a {}: how it stands, its plan, what failed", kind.name()),
        format!("Example: provisioning {name} show NAME -o yaml"),
    );
    let delete = described(
        delete::How::augment_args(Command::new("delete").arg(names())),
        format!("Delete {}s, and take down what they stand for", kind.name()),
        format!("Example: provisioning {name} delete NAME --wait"),
    );
    let group = Command::new(name).subcommand_required(true).arg_required_else_help(true);
    described(
        group.subcommands([create, list, show, delete]),
        format!("Create, list, show and delete {}s", kind.name()),
        format!(
            "Examples:\n  provisioning {name} create {example}\n  provisioning {name} list\n  \
             provisioning {name} delete NAME --wait"
        ),
    )
}

impl Subcommand for OfKind {
    fn augment_subcommands(command: Command) -> Command {
        command.subcommands(KINDS.iter().map(group))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        KINDS.iter().any(|maker| maker.name == name)
    }
}

impl FromArgMatches for OfKind {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(ErrorKind::MissingSubcommand);
        let (name, group) = matches.subcommand().ok_or_else(missing)?;
        let maker = KINDS.iter().find(|maker| maker.name == name).ok_or_else(missing)?;
        let (verb, matches) = group.subcommand().ok_or_else(missing)?;
        let names = || matches.get_many::<String>("names").unwrap_or_default().cloned().collect();
        let verb = match verb {
            "create" => Verb::Create(Box::new(matches.clone())),
            "list" => Verb::List(list::How::from_arg_matches(matches)?),
            "show" => Verb::Show(names(), show::How::from_arg_matches(matches)?),
            "delete" => Verb::Delete(names(), delete::How::from_arg_matches(matches)?),
            _ => return Err(missing()),
        };
        Ok(Self { maker, verb })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::Kind;
    use crate::stub::{Stub, reply};

    fn read(line: &str) -> OfKind {
        let command = OfKind::augment_subcommands(Command::new("x").no_binary_name(true));
        OfKind::from_arg_matches(&command.try_get_matches_from(line.split_whitespace()).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_with_a_row_has_all_verbs() {
        for maker in KINDS {
            let verbs: Vec<String> = group(KINDS.iter().find(|row| row.kind == maker.kind).unwrap())
                .get_subcommands()
                .map(|verb| verb.get_name().to_owned())
                .collect();
            assert_eq!(verbs, ["create", "list", "show", "delete"], "{}", maker.name);
        }
        let create = group(&KINDS[0]).find_subcommand("create").and_then(Command::get_about).map(ToString::to_string);
        assert_eq!(create.as_deref(), Some("Create a Server"));
        let OfKind { maker, verb } = read("server delete heron curlew --wait");
        assert_eq!(maker.kind, Kind::Server);
        assert!(matches!(verb, Verb::Delete(names, _) if names == ["heron", "curlew"]));
    }

    #[tokio::test]
    async fn what_is_created_is_what_generate_prints() {
        for maker in KINDS {
            let line = format!("{} create {}", maker.name, maker.example);
            let Verb::Create(matches) = read(&line).verb else { unreachable!() };
            let generated = maker.document(&matches, Some("first")).unwrap();
            let printed: Value = serde_saphyr::from_str(&serde_saphyr::to_string(&generated.json).unwrap()).unwrap();
            let stub = Stub::new(|_| reply(201, json!({"metadata": {"name": "x"}})));
            applying::create(&stub.cluster(), &generated, false).await.unwrap();
            let [sent] = stub.bodies().try_into().unwrap();
            assert_eq!(sent, printed, "{}", maker.name);
            assert_eq!(
                stub.requests(),
                [format!(
                    "POST /apis/provisioning.dev/v1alpha1/namespaces/first/{}?&fieldManager=provisioning-cli",
                    maker.kind.plural()
                )]
            );
        }
    }
}
