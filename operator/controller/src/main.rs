//! The operator's process: settings from arguments and environment, a client, and off it goes.

use anyhow::Context as _;
use clap::Parser;
use provisioning_controller::arguments::Arguments;
use provisioning_controller::logging;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let log = logging::subscriber(arguments.log_format, logging::filter(), std::io::stdout);
    tracing::subscriber::set_global_default(log).context("failed to begin the log")?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    arguments.carry_out(shutdown).await?;
    Ok(())
}
