//! The `provisioning` command line: one module for each command.
//!
//! | module | what |
//! |---|---|
//! | `commands` | the commands: arguments, and what they do |
//! | `groups`, `complete` | the groups of commands, aliases, help; completion in shells |
//! | `kinds`, `names`, `item`, `manifest`, `schema`, `make` | kinds and objects: names, reading, checking, making |
//! | `builtin`, `offers`, `scaffold` | extensions: those of this program, those on offer, new ones |
//! | `cluster`, `kubeconfig`, `request`, `applying`, `watching`, `goal` | which cluster, requests, watches, waiting |
//! | `chain` | (pure) from an object to the cause |
//! | `changes`, `columns`, `table`, `advice`, `logline`, `safe`, `times`, `output` | (pure) what people read |
//! | `dry_run` | a flag of many commands |
//! | `error`, `exit` | how it ends |

// `output::tell` and `output::print` know what to do where nothing can be written; the macros panic.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod advice;
mod applying;
mod builtin;
mod chain;
mod changes;
mod cluster;
mod columns;
mod commands;
mod complete;
mod dry_run;
mod error;
mod exit;
mod goal;
mod groups;
mod item;
mod kinds;
mod kubeconfig;
mod logline;
mod make;
mod manifest;
mod names;
mod offers;
mod output;
mod request;
mod safe;
mod scaffold;
mod schema;
#[cfg(test)]
mod stub;
mod table;
mod times;
mod watching;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use cluster::ClusterArguments;
use commands::intervene::{self, Wish};
use commands::{apply, config, delete, diff, extension, generate, list, logs, of_kind, platform};
use commands::{show, tree, wait, watch, why, workspace};
use error::Error;
use exit::Exit;
use output::Style;

/// Provisions and runs infrastructure on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "provisioning", version, max_term_width = 100, after_help = exit::HELP)]
struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// No colours; also with NO_COLOR set, or when standard output is no terminal
    #[arg(long, global = true, help_heading = "Options")]
    no_color: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    OfKind(of_kind::OfKind),
    /// Create or change objects from manifests
    #[command(after_help = "Examples:\n  provisioning apply -f examples/first/\n  \
        provisioning apply -f workflow.yaml --wait --timeout 20m\n  cat server.yaml | provisioning apply -f - --dry-run=server")]
    Apply(apply::Arguments),
    /// List objects
    #[command(after_help = "Examples:\n  provisioning list -n first\n  provisioning list srv,tsv -A -o wide\n  \
        provisioning list servers -l tier=web -o json")]
    List(list::Arguments),
    /// Show an object: how it stands, its plan, what failed, what to do next
    #[command(
        after_help = "Examples:\n  provisioning show server heron -n first\n  provisioning show workspace -o yaml"
    )]
    Show(show::Arguments),
    /// Show what belongs to a workspace, workflow or cluster, with its steps
    #[command(after_help = "Examples:\n  provisioning tree -n first\n  provisioning tree batchworkflow first --watch")]
    Tree(tree::Arguments),
    /// Say why an object is not Ready: from it to the cause, and what to do
    #[command(
        after_help = "Examples:\n  provisioning why batchworkflow first\n  provisioning why tsv/redis -n first -o json\n\n\
        The exit code is 0 also where the object is not Ready: the question was answered."
    )]
    Why(why::Arguments),
    /// Tell changes as they happen, a line each
    #[command(after_help = "Examples:\n  provisioning watch -n first\n  provisioning watch srv,tsv -A\n  \
        provisioning watch bwf first --until ready --timeout 15m")]
    Watch(watch::Arguments),
    /// Show what the executors of steps wrote, also of failed runs whose Job is gone
    #[command(
        after_help = "Examples:\n  provisioning logs server heron\n  provisioning logs tsv/redis --step install/heron\n  \
        provisioning logs bwf first --follow"
    )]
    Logs(logs::Arguments),
    /// Wait until objects are ready, deleted, or have a condition
    #[command(after_help = "Examples:\n  provisioning wait bwf first --timeout 15m\n  \
        provisioning wait server heron curlew --for deleted\n  provisioning wait ws --for condition=Ready=False -v")]
    Wait(wait::Arguments),
    /// Try again what failed, and look anew at what is Ready
    #[command(after_help = "Examples:\n  provisioning retry server heron\n  provisioning retry bwf/first tsv/redis")]
    Retry(intervene::Arguments),
    /// Pass steps of a workflow over, on record
    #[command(
        after_help = "Examples:\n  provisioning skip first proxy db\n  provisioning skip bwf/first proxy --dry-run=server\n\n\
        A step that runs is awaited, one that succeeded is left alone. There is no way back but another input of the step."
    )]
    Skip(intervene::SkipArguments),
    /// Start nothing forward for objects; what runs is awaited
    #[command(after_help = "Examples:\n  provisioning suspend bwf first\n  provisioning suspend workspace")]
    Suspend(intervene::Arguments),
    /// Let suspended objects go on
    #[command(after_help = "Examples:\n  provisioning resume bwf first\n  provisioning resume workspace")]
    Resume(intervene::Arguments),
    /// Delete objects, and take down what they stand for
    #[command(
        after_help = "Examples:\n  provisioning delete server heron --wait\n  provisioning delete -f examples/first/ --wait\n  \
        provisioning delete workspace -n first --wait"
    )]
    Delete(delete::Arguments),
    /// List, show, load and write extensions: what Taskservs install
    Extension(extension::Arguments),
    /// Make, list and choose workspaces
    Workspace(workspace::Arguments),
    /// Print the manifest of an object, from flags
    #[command(after_help = "Examples:\n  provisioning generate server heron --size medium > heron.yaml\n  \
        provisioning generate taskserv redis --servers heron | provisioning apply -f -\n\n\
        `create` with the same flags writes the same object.")]
    Generate(generate::Arguments),
    /// Show what `apply` would change; exit code 1 where anything differs
    #[command(after_help = "Examples:\n  provisioning diff -f examples/first/\n  \
        provisioning generate server heron | provisioning diff -f -\n\n\
        The API server applies and stores nothing. Exit code 0: no difference, 1: differences, more: an error.")]
    Diff(diff::Arguments),
    /// Show what is read from where
    Config(config::Arguments),
    /// Run a Kubernetes of your own on this machine
    Platform(platform::Arguments),
    /// Print a script that completes commands, and names of the cluster, in a shell
    #[command(after_help = "Examples:\n  source <(provisioning completion bash)\n  \
        provisioning completion fish > ~/.config/fish/completions/provisioning.fish\n\n\
        The script calls this program; one that is installed anew needs a new script. For kubectl's own completion, call \
        this program `kubectl_complete-provisioning` too, by a link.")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Explain the exit codes
    #[command(after_help = exit::PAGE)]
    ExitCodes,
}

/// The whole command line, with its groups and aliases.
fn command() -> clap::Command {
    groups::arrange(Arguments::command())
}

/// Reads the command line, runs the command, and turns what became of it into the exit code.
pub fn run() -> ExitCode {
    if complete::answer(command) {
        return Exit::Done.into();
    }
    let program = output::program();
    let mut parser = groups::called(command(), program).bin_name(program);
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.iter().any(|word| word == "--no-color") {
        parser = parser.color(ColorChoice::Never);
    }
    let words = with_help(&parser, words);
    let read = parser.try_get_matches_from(words).and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches));
    let Arguments { cluster, no_color, command } = read.unwrap_or_else(|error| error.exit());
    let style = Style::of_stdout(no_color);
    let result = match command {
        Command::Platform(arguments) => return on_platform(arguments, no_color),
        Command::OfKind(command) => block_on(of_kind::run(command, &cluster, style)),
        Command::Apply(arguments) => block_on(apply::run(arguments, &cluster)),
        Command::List(arguments) => block_on(list::run(arguments, &cluster, style)),
        Command::Show(arguments) => block_on(show::run(arguments, &cluster, style)),
        Command::Tree(arguments) => block_on(tree::run(arguments, &cluster, style)),
        Command::Why(arguments) => block_on(why::run(arguments, &cluster, style)),
        Command::Watch(arguments) => block_on(watch::run(arguments, &cluster, style)),
        Command::Logs(arguments) => block_on(logs::run(arguments, &cluster, style)),
        Command::Wait(arguments) => block_on(wait::run(arguments, &cluster)),
        Command::Retry(arguments) => block_on(intervene::run(arguments, Wish::Retry, &cluster)),
        Command::Skip(arguments) => block_on(intervene::skip(arguments, &cluster)),
        Command::Suspend(arguments) => block_on(intervene::run(arguments, Wish::Suspend, &cluster)),
        Command::Resume(arguments) => block_on(intervene::run(arguments, Wish::Resume, &cluster)),
        Command::Delete(arguments) => block_on(delete::run(arguments, &cluster)),
        Command::Workspace(arguments) => block_on(workspace::run(arguments, &cluster, style)),
        Command::Generate(arguments) => generate::run(&arguments, &cluster),
        Command::Diff(arguments) => block_on(diff::run(arguments, &cluster, style)),
        Command::Config(arguments) => config::run(&arguments, &cluster, style),
        Command::Extension(arguments) => block_on(extension::run(arguments, &cluster, style)),
        Command::Completion { shell } => {
            output::print(&complete::script(shell));
            Ok(Exit::Done)
        }
        Command::ExitCodes => {
            output::print(exit::PAGE);
            Ok(Exit::Done)
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit();
            output::error(&error.into());
            exit.into()
        }
    }
}

/// Words that are no UTF-8 are none of `help`.
fn with_help(parser: &clap::Command, words: Vec<OsString>) -> Vec<OsString> {
    let texts: Option<Vec<String>> = words.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    texts.map_or(words, |texts| groups::with_help(parser, texts).into_iter().map(OsString::from).collect())
}

/// A client's work: waiting, mostly, so one thread is enough.
fn block_on(work: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(work)
}

fn on_platform(arguments: platform::Arguments, no_colour: bool) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
    runtime.and_then(|runtime| runtime.block_on(platform::run(arguments, no_colour))).unwrap_or_else(|error| {
        output::error(&error);
        exit::FAILED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_of_the_cluster_may_come_before_the_command() {
        let arguments = Arguments::try_parse_from(["provisioning", "-n", "first", "list", "srv"]).unwrap();
        assert_eq!(arguments.cluster.namespace.as_deref(), Some("first"));
        let arguments = Arguments::try_parse_from(["provisioning", "list", "srv", "-n", "first"]).unwrap();
        assert_eq!(arguments.cluster.namespace.as_deref(), Some("first"));
    }

    #[test]
    fn every_command_on_objects_has_examples() {
        for command in command().get_subcommands().filter(|command| command.get_name() != "platform") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") || command.get_name() == "exit-codes", "{}", command.get_name());
        }
    }
}
