//! Asking services how they are, and the API server whether the node is ready.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::instance::Instance;
use crate::pki::Pki;
use crate::services::{Context, Probe, Service};

/// Longer than any healthy answer on a loaded machine, shorter than a person's patience.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Not healthy, or not reachable.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is not one; a mistake in the table of services.
    #[error("failed to use {0:?} as an address")]
    Address(String),
    /// No answer, or not 200.
    #[error("failed to get an answer from {0}")]
    Request(String, #[source] Box<kube::Error>),
    /// No answer in time.
    #[error("failed to get an answer from {0} within 3 s")]
    Timeout(String),
    /// The socket does not accept.
    #[error("failed to connect to {0}")]
    Socket(String, #[source] std::io::Error),
    /// The administrator's kubeconfig can't be used.
    #[error("failed to use the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// The node has not reported Ready.
    #[error("failed to find node {0} Ready: {1}")]
    NodeNotReady(String, String),
    /// The controllers have not made it yet.
    #[error("failed to find the service account `default` in namespace `default`")]
    NoServiceAccount,
}

/// Installs the process's cryptography, which kube needs chosen once; a second call does nothing.
pub(crate) fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Something that can be asked again and again over one kept connection.
pub(crate) enum Prober {
    /// A client of the server, and the path to ask for.
    Http { client: Client, url: String, path: String },
    /// The path of a socket.
    Socket(String),
}

impl Prober {
    pub(crate) fn new(context: &Context, service: Service) -> Result<Self, HealthError> {
        let url = match context.probe(service) {
            Probe::Socket(path) => return Ok(Self::Socket(path.display().to_string())),
            Probe::Http(url) => url,
        };
        let address: http::Uri = url.parse().map_err(|_| HealthError::Address(url.clone()))?;
        let path = address.path().to_owned();
        // kube puts the server's own path in front of each request's.
        let server = url.strip_suffix(&path).and_then(|server| server.parse().ok());
        let mut config = Config::new(server.ok_or_else(|| HealthError::Address(url.clone()))?);
        config.root_cert_file = Some(Pki::of(&context.instance).authority());
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|source| HealthError::Request(url.clone(), Box::new(source)))?;
        Ok(Self::Http { client, url, path })
    }

    pub(crate) async fn ask(&self) -> Result<(), HealthError> {
        match self {
            Self::Socket(path) => {
                let connected = tokio::net::UnixStream::connect(path).await;
                connected.map(drop).map_err(|source| HealthError::Socket(path.clone(), source))
            }
            Self::Http { client, url, path } => {
                let request =
                    http::Request::get(path).body(Vec::new()).map_err(|_| HealthError::Address(url.clone()))?;
                let answer = tokio::time::timeout(TIMEOUT, client.request_text(request)).await;
                let answer = answer.map_err(|_| HealthError::Timeout(url.clone()))?;
                answer.map(drop).map_err(|source| HealthError::Request(url.clone(), Box::new(source)))
            }
        }
    }
}

/// A client of the instance's API server, as its administrator.
pub async fn client(instance: &Instance) -> Result<Client, HealthError> {
    install_crypto();
    let kubeconfig = Kubeconfig::read_from(instance.kubeconfig()).map_err(HealthError::Kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(HealthError::Kubeconfig)?;
    let server = config.cluster_url.to_string();
    // The address is on this machine; a proxy of the user's shell can't reach it.
    config.proxy_url = None;
    Client::try_from(config).map_err(|source| HealthError::Request(server, Box::new(source)))
}

/// Whether pods can be created: the node is Ready, and the service account that they get by default is there.
pub async fn accepts_pods(client: &Client, node_name: &str) -> Result<(), HealthError> {
    let asked = async {
        let request = |source| HealthError::Request("the API server".to_owned(), Box::new(source));
        let node = Api::<Node>::all(client.clone()).get_opt(node_name).await.map_err(request)?;
        let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        if ready.as_ref().is_none_or(|ready| ready.status != "True") {
            let why = ready.and_then(|ready| ready.message).unwrap_or_else(|| "it has not registered yet".to_owned());
            return Err(HealthError::NodeNotReady(node_name.to_owned(), why));
        }
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        let account = accounts.get_opt("default").await.map_err(request)?;
        account.map(drop).ok_or(HealthError::NoServiceAccount)
    };
    let answer = tokio::time::timeout(TIMEOUT, asked).await;
    answer.map_err(|_| HealthError::Timeout("the API server".to_owned()))?
}
