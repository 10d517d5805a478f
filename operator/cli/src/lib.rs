//! The `provisioning` command line: one module for each group of commands.

mod commands;
mod exit;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::platform;

/// Provisions and runs infrastructure on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "provisioning", version, max_term_width = 100, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    group: Group,
}

#[derive(Debug, Subcommand)]
enum Group {
    /// Run a Kubernetes of your own on this machine
    Platform(platform::Arguments),
}

/// Reads the command line, runs the command, and turns what became of it into the exit code.
pub fn run() -> ExitCode {
    let Arguments { group } = Arguments::parse();
    let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match group {
                Group::Platform(arguments) => platform::run(arguments).await,
            }
        })
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            exit::FAILED
        }
    }
}
