//! The operator's process: settings from arguments and environment, a client, and off it goes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use provisioning_controller::context::Settings;

/// Provisions servers, services and workflows from custom resources.
#[derive(Debug, Parser)]
#[command(name = "provisioning-operator", version)]
struct Arguments {
    /// Namespace that the operator runs in.
    #[arg(long, env = "PROVISIONING_NAMESPACE", default_value = "provisioning-system")]
    namespace: String,
    /// Name of this process among all operators of the cluster.
    #[arg(long, env = "POD_NAME")]
    identity: String,
    /// Image that holds the executors.
    #[arg(long, env = "PROVISIONING_RUNNER_IMAGE")]
    runner_image: String,
    /// Namespaces that the Local provider may use as sites, separated by commas.
    #[arg(long, env = "PROVISIONING_SITES", value_delimiter = ',', default_value = provisioning_api::names::DEFAULT_SITE)]
    sites: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "PROVISIONING_HEALTH_ADDRESS", default_value = "127.0.0.1:8080")]
    health_address: SocketAddr,
    /// How many objects of one kind are worked on at the same time.
    #[arg(long, env = "PROVISIONING_CONCURRENCY", default_value_t = 16)]
    concurrency: u16,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = kube::Client::try_default().await.context("no Kubernetes API server to talk to")?;
    let settings = Settings {
        namespace: arguments.namespace,
        identity: arguments.identity,
        sites: arguments.sites,
        runner_image: arguments.runner_image,
        concurrency: arguments.concurrency,
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    let clock = Arc::new(jiff::Timestamp::now);
    provisioning_controller::run(client, settings, clock, arguments.health_address, shutdown).await?;
    Ok(())
}
