//! The one listener that all servers of the stand-in are: it shows a host key at the SSH port and takes connections at the
//! port of Redis, so that the operator's knocks and probes are answered. Nobody can log in, and there is no Redis.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use kube::config::Kubeconfig;
use provisioning_e2e::Cluster;
use russh::keys::{Algorithm, PrivateKey};
use russh::server;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Where servers are knocked at.
const SSH: u16 = 22;
/// Where Redis would listen.
const REDIS: u16 = 6379;
/// Sessions at a time; the operator knocks at 32 servers at once.
const SESSIONS: usize = 64;

/// The listener.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Its public key, in OpenSSH's one-line form.
    pub(crate) host_key: String,
    knocks: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Machine {
    /// Knocks and probes that were answered so far.
    pub(crate) fn answered(&self) -> (u64, u64) {
        (self.knocks.load(Ordering::Relaxed), self.connections.load(Ordering::Relaxed))
    }
}

/// The address that the API server listens on: the node's own, which Pods reach.
///
/// # Errors
/// Where the kubeconfig names no address.
pub(crate) fn node_address(cluster: &Cluster) -> Result<IpAddr> {
    let config = Kubeconfig::read_from(&cluster.kubeconfig)?;
    let server = config.clusters.into_iter().find_map(|named| named.cluster?.server).context("no cluster")?;
    let address = server.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')).map(|(address, _)| address);
    address.and_then(|text| text.parse().ok()).with_context(|| format!("{server} names no address"))
}

/// Listens.
///
/// # Errors
/// Where a port is taken.
pub(crate) async fn listen(address: IpAddr) -> Result<Machine> {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)?;
    let host_key = key.public_key().to_openssh()?;
    let machine = Machine { address, host_key, knocks: Arc::default(), connections: Arc::default() };
    let config = server::Config { keys: vec![key], ..server::Config::default() };
    let bind = |port| async move {
        TcpListener::bind((address, port)).await.with_context(|| format!("listen on port {port} of {address}"))
    };
    tokio::spawn(knocked_at(bind(SSH).await?, Arc::new(config), machine.knocks.clone()));
    tokio::spawn(connected_to(bind(REDIS).await?, machine.connections.clone()));
    Ok(machine)
}

/// Nobody is let in.
struct Nobody;

impl server::Handler for Nobody {
    type Error = russh::Error;
}

async fn knocked_at(listener: TcpListener, config: Arc<server::Config>, count: Arc<AtomicU64>) {
    let places = Arc::new(Semaphore::new(SESSIONS));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        count.fetch_add(1, Ordering::Relaxed);
        let config = config.clone();
        tokio::spawn(async move {
            // Who knocks leaves after the key exchange, which ends the session with an error.
            if let Ok(session) = server::run_stream(config, stream, Nobody).await {
                let _ = session.await;
            }
            drop(place);
        });
    }
}

async fn connected_to(listener: TcpListener, count: Arc<AtomicU64>) {
    while listener.accept().await.is_ok() {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
