//! The command `provider-conformance`: runs the checks against a provider's binary and prints what they said.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};

use crate::worlds::cloud::SmallCloud;
use crate::worlds::site::Site;
use crate::{CHECKS, MakeWorld, Provider, Suite};

/// Does a provider keep its contract?
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The provider's binary.
    #[arg(long, required_unless_present = "list")]
    provider: Option<PathBuf>,
    /// What the provider talks to.
    #[arg(long, value_enum, default_value = "small-cloud")]
    world: WorldName,
    /// Only this check; may be given several times.
    #[arg(long = "check", value_parser = clap::builder::PossibleValuesParser::new(CHECKS.iter().map(|check| check.id)))]
    checks: Vec<String>,
    /// Also the checks that take more than half a minute.
    #[arg(long)]
    slow: bool,
    /// Checks at a time.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Print the checks and their rules, run nothing.
    #[arg(long)]
    list: bool,
    /// Arguments for the provider, after `--`. The operator gives none.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum WorldName {
    /// The small cloud of the reference provider.
    SmallCloud,
    /// The site of the Local provider.
    Site,
}

/// Runs it with the process's arguments. Exit code 0: nothing failed; 1: something did.
pub async fn run() -> ExitCode {
    let Arguments { provider, world, checks, slow, parallel, list, arguments } = Arguments::parse();
    let program = match provider {
        Some(program) if !list => program,
        _ => {
            CHECKS.iter().for_each(|check| println!("| `{}` | {} | {} |", check.id, check.about, check.rule));
            return ExitCode::SUCCESS;
        }
    };
    // Processes are started in folders of their own.
    let program = std::path::absolute(&program).unwrap_or(program);
    let world: MakeWorld = match world {
        WorldName::SmallCloud => Arc::new(|| Box::new(SmallCloud::default())),
        WorldName::Site => Arc::new(|| Box::new(Site::default())),
    };
    let provider = Provider { program, arguments };
    let report = crate::run(&Suite { provider, world, slow, only: checks, parallel }).await;
    println!("{report}");
    if report.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
