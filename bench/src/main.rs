//! `bench`: prints the project's figures. `scripts/bench` starts it, inside the network of a platform.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    provisioning_bench::run(&provisioning_bench::Arguments::parse()).await
}
