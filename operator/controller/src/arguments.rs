//! What the operator's program is told, by arguments or environment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kube::Client;

use crate::context::Settings;
use crate::logging::LogFormat;
use crate::metrics::Metrics;
use crate::traces::Collector;
use crate::{RunError, health, leftovers, requests, run};

/// Provisions servers, services and workflows from custom resources.
#[derive(Debug, Parser)]
#[command(name = "provisioning-operator", version, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// Namespace that the operator runs in.
    #[arg(long, env = "PROVISIONING_NAMESPACE", default_value = "provisioning-system")]
    pub namespace: String,
    /// Name of this process among all operators of the cluster.
    #[arg(long, env = "POD_NAME", required = true)]
    pub identity: Option<String>,
    /// Image that holds the executors.
    #[arg(long, env = "PROVISIONING_RUNNER_IMAGE", required = true)]
    pub runner_image: Option<String>,
    /// Namespaces that the Local provider may use as sites, separated by commas.
    #[arg(long, env = "PROVISIONING_SITES", value_delimiter = ',', default_value = provisioning_api::names::DEFAULT_SITE)]
    pub sites: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "PROVISIONING_HEALTH_ADDRESS", default_value = "127.0.0.1:8080")]
    pub health_address: SocketAddr,
    /// How many objects of one kind are worked on at the same time.
    #[arg(long, env = "PROVISIONING_CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
    /// Form of the log; its level is RUST_LOG's.
    #[arg(long, env = "PROVISIONING_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Collector that traces are sent to, as http://HOST:PORT; without it there are none.
    #[arg(long, env = "PROVISIONING_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Collector>,
    /// Something else than to operate.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Questions that the chart asks.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Names the objects that nobody would take down without the operator; fails if there are any.
    Leftovers,
    /// Asks an operator whether it is ready, for at most 30 seconds.
    Ask {
        /// Name or address where it serves /readyz.
        host: String,
        /// Port.
        port: u16,
    },
}

/// How long an operator is asked until it is ready.
const ASK_PATIENCE: Duration = Duration::from_secs(30);

/// Why the program ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No client could be made.
    #[error("no Kubernetes API server to talk to")]
    Configure(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Metrics.
    #[error("failed to register the metrics")]
    RegisterMetrics(#[from] prometheus::Error),
    /// What is left could not be listed, so nobody knows whether something is.
    #[error("failed to list what is left")]
    ListLeftovers(#[source] kube::Error),
    /// The answer to a question is no.
    #[error("{0}")]
    Answer(String),
    /// The operator.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Arguments {
    /// Does what was asked for.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub async fn carry_out(self, shutdown: impl Future<Output = ()>) -> Result<(), ProgramError> {
        match self.command.clone() {
            None => self.operate(shutdown).await,
            Some(Command::Ask { host, port }) => {
                let answer = health::ask(&host, port, ASK_PATIENCE).await.map_err(ProgramError::Answer)?;
                println!("port {port} of {host} answers: {answer}");
                Ok(())
            }
            Some(Command::Leftovers) => {
                let (client, _) = client().await?;
                let found = leftovers::find(&client).await.map_err(ProgramError::ListLeftovers)?;
                match leftovers::refusal(&found) {
                    Some(text) => Err(ProgramError::Answer(text)),
                    None => {
                        println!("nothing is left that would need the operator");
                        Ok(())
                    }
                }
            }
        }
    }

    async fn operate(self, shutdown: impl Future<Output = ()>) -> Result<(), ProgramError> {
        let (client, metrics) = client().await?;
        let settings = Settings {
            namespace: self.namespace,
            identity: self.identity.unwrap_or_default(),
            sites: self.sites,
            runner_image: self.runner_image.unwrap_or_default(),
            concurrency: self.concurrency,
            traces: self.otlp_endpoint,
        };
        let clock = Arc::new(jiff::Timestamp::now);
        Ok(run(client, metrics, settings, clock, self.health_address, shutdown).await?)
    }
}

/// A client as the environment says, and the metrics that it is counted in.
async fn client() -> Result<(Client, Metrics), ProgramError> {
    let metrics = Metrics::new()?;
    let mut config = kube::Config::infer().await.map_err(|error| ProgramError::Configure(Box::new(error)))?;
    // A connection whose other end is gone without a word would hold a pass for ever, and a cache behind the truth. The quietest
    // one that is well is a watch, which is told a bookmark each minute and ends before five.
    config.read_timeout = Some(Duration::from_secs(295));
    config.reset_reader_on_write = true;
    let client = requests::client(config, metrics.api_requests.clone());
    Ok((client.map_err(|error| ProgramError::Configure(Box::new(error)))?, metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_operates_says_as_whom_and_with_what_image_and_who_only_asks_need_not() {
        // These come from the environment in a Pod; a test has none of it.
        if ["POD_NAME", "PROVISIONING_RUNNER_IMAGE"].iter().any(|name| std::env::var_os(name).is_some()) {
            panic!("POD_NAME and PROVISIONING_RUNNER_IMAGE must not be set here");
        }
        let refused = Arguments::try_parse_from(["provisioning-operator"]).unwrap_err().to_string();
        assert!(refused.contains("--identity") && refused.contains("--runner-image"), "{refused}");
        let both = ["provisioning-operator", "--identity", "heron", "--runner-image", "localhost/runner:dev"];
        let operates = Arguments::try_parse_from(both).unwrap();
        assert_eq!((operates.command, operates.log_format), (None, LogFormat::Json));
        let asks = Arguments::try_parse_from(["provisioning-operator", "ask", "10.0.0.1", "8080"]).unwrap();
        assert_eq!(asks.command, Some(Command::Ask { host: "10.0.0.1".to_owned(), port: 8080 }));
    }
}
