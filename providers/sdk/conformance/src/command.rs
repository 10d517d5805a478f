//! The command `provider-conformance`: runs the checks against a provider's binary and prints what they said.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};

use crate::worlds::cloud::SmallCloud;
use crate::worlds::site::Site;
use crate::{CHECKS, Check, MakeWorld, Provider, Suite};

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
            let row = |check: &Check| format!("| `{}` | {} | {} |\n", check.id, check.about, check.rule);
            return print(&CHECKS.iter().map(row).collect::<String>(), ExitCode::SUCCESS);
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
    let end = if report.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    print(&format!("{report}\n"), end)
}

/// A reader that goes away (`| head`) changes nothing; a report that can't be written has not been given.
fn print(text: &str, end: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("provider-conformance: failed to write the report: {error}");
            ExitCode::FAILURE
        }
        _ => end,
    }
}
