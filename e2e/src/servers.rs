//! A look into the servers themselves, past everything that is under test: with kubectl exec into the site.

use anyhow::{Context, Result};
use provisioning_api::Server;
use provisioning_api::steps::Direction;
use serde::Deserialize;

use crate::case::Case;

/// One line of a server's own record of what ran on it: a start or an end of a script.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServerRun {
    /// When, RFC 3339 in milliseconds.
    pub time: String,
    /// `start` or `end`.
    pub event: String,
    /// Id of the step, for example `heron.install`.
    pub step: String,
    /// Number of the run.
    pub run: i64,
    /// Epoch of the run.
    pub epoch: i64,
    /// Forward or Undo.
    pub direction: Direction,
    /// Name of the extension.
    pub extension: String,
    /// `install.nu`, `check.nu` or `uninstall.nu`.
    pub script: String,
    /// Exit code, at an end.
    pub exit: Option<i32>,
}

impl Case {
    /// Runs a shell command on a server, as its root, past SSH.
    ///
    /// # Errors
    /// A command that fails, with its words.
    pub async fn on_server(&self, server: &str, command: &str) -> Result<String> {
        self.on_server_with(server, command, &[]).await
    }

    /// The same, with something to read on its standard input.
    ///
    /// # Errors
    /// A command that fails, with its words.
    pub async fn on_server_with(&self, server: &str, command: &str, input: &[u8]) -> Result<String> {
        let pod = self.site_pod(server).await?;
        let stdin: &[&str] = if input.is_empty() { &[] } else { &["--stdin"] };
        let arguments = ["exec", "-n", &self.cluster.site, &pod, "-c", "server"];
        let inside = ["--", "chroot", "/proc/1/root", "sh", "-c", command];
        let output = self.cluster.kubectl(&[&arguments[..], stdin, &inside].concat(), input).await?;
        output.success().with_context(|| format!("on server {server}: {command}"))
    }

    /// Name of the pod that is this Server's machine.
    ///
    /// # Errors
    /// Where the Server has none yet.
    pub async fn site_pod(&self, server: &str) -> Result<String> {
        let id = self.get::<Server>(server).await?.status.and_then(|status| status.provider_id);
        let id = id.with_context(|| format!("Server {server} has no providerID"))?;
        Ok(id.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// What ran on this server, as the server itself wrote it down.
    ///
    /// # Errors
    /// A server that can't be asked, or a line that is none.
    pub async fn server_runs(&self, server: &str) -> Result<Vec<ServerRun>> {
        let file = "/var/lib/provisioning/runs.ndjson";
        let text = self.on_server(server, &format!("test ! -e {file} || cat {file}")).await?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// First address of a Server.
    ///
    /// # Errors
    /// Where it has none.
    pub async fn address(&self, server: &str) -> Result<String> {
        let status = self.get::<Server>(server).await?.status;
        let address = status.and_then(|status| status.addresses.first().map(|first| first.address.clone()));
        address.with_context(|| format!("Server {server} has no address"))
    }
}
