//! `reference-provider`: a provider for the small cloud, to read and to be checked; see the library's `reference`.

use std::process::ExitCode;

use clap::Parser;
use provisioning_conformance::reference::{self, Fault};

/// A provider for the small cloud of the conformance suite.
#[derive(Parser)]
struct Arguments {
    /// A mistake to make. The suite has to notice it.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    reference::run(Arguments::parse().fault).await
}
