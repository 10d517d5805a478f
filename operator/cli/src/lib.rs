//! The `provisioning` command line: one module for each command.
//!
//! | module | what |
//! |---|---|
//! | `commands` | the commands: arguments, and what they do |
//! | `kinds`, `item`, `manifest`, `schema` | kinds and objects: names, reading, checking |
//! | `builtin`, `offers`, `scaffold` | extensions: those of this program, those on offer, new ones |
//! | `cluster`, `request`, `watching`, `goal` | which cluster, requests, watches, waiting |
//! | `chain` | (pure) from an object to the cause |
//! | `changes`, `columns`, `table`, `advice`, `logline`, `times`, `output` | (pure) what people read |
//! | `error`, `exit` | how it ends |

mod advice;
mod builtin;
mod chain;
mod changes;
mod cluster;
mod columns;
mod commands;
mod error;
mod exit;
mod goal;
mod item;
mod kinds;
mod logline;
mod manifest;
mod offers;
mod output;
mod request;
mod scaffold;
mod schema;
#[cfg(test)]
mod stub;
mod table;
mod times;
mod watching;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use cluster::ClusterArguments;
use commands::{apply, delete, extension, list, logs, platform, show, tree, wait, watch, why};
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
    /// Delete objects, and take down what they stand for
    #[command(
        after_help = "Examples:\n  provisioning delete server heron --wait\n  provisioning delete -f examples/first/ --wait\n  \
        provisioning delete workspace -n first --wait"
    )]
    Delete(delete::Arguments),
    /// List, show, load and write extensions: what Taskservs install
    #[command(visible_alias = "ext")]
    Extension(extension::Arguments),
    /// Run a Kubernetes of your own on this machine
    Platform(platform::Arguments),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Examples:\n  source <(provisioning completion bash)\n  \
        provisioning completion fish > ~/.config/fish/completions/provisioning.fish")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Explain the exit codes
    #[command(after_help = exit::PAGE)]
    ExitCodes,
}

/// Reads the command line, runs the command, and turns what became of it into the exit code.
pub fn run() -> ExitCode {
    let parser = Arguments::command().bin_name(output::program());
    let read = parser.try_get_matches().and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches));
    let Arguments { cluster, no_color, command } = read.unwrap_or_else(|error| error.exit());
    let style = Style::of_stdout(no_color);
    let result = match command {
        Command::Platform(arguments) => return on_platform(arguments),
        Command::Apply(arguments) => block_on(apply::run(arguments, &cluster)),
        Command::List(arguments) => block_on(list::run(arguments, &cluster, style)),
        Command::Show(arguments) => block_on(show::run(arguments, &cluster, style)),
        Command::Tree(arguments) => block_on(tree::run(arguments, &cluster, style)),
        Command::Why(arguments) => block_on(why::run(arguments, &cluster, style)),
        Command::Watch(arguments) => block_on(watch::run(arguments, &cluster, style)),
        Command::Logs(arguments) => block_on(logs::run(arguments, &cluster, style)),
        Command::Wait(arguments) => block_on(wait::run(arguments, &cluster)),
        Command::Delete(arguments) => block_on(delete::run(arguments, &cluster)),
        Command::Extension(arguments) => block_on(extension::run(arguments, &cluster, style)),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "provisioning", &mut script);
            output::print(&String::from_utf8_lossy(&script));
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

/// A client's work: waiting, mostly, so one thread is enough.
fn block_on(work: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(work)
}

fn on_platform(arguments: platform::Arguments) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
    runtime.and_then(|runtime| runtime.block_on(platform::run(arguments))).unwrap_or_else(|error| {
        output::error(&error);
        exit::FAILED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
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
        for command in Arguments::command().get_subcommands().filter(|command| command.get_name() != "platform") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") || command.get_name() == "exit-codes", "{}", command.get_name());
        }
    }
}
