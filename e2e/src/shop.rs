//! examples/shop, as it is: opened in a test's own namespace, and asked from outside.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::case::Case;

/// Longest time for the whole proof; each of its questions has a limit of its own.
const PROOF: Duration = Duration::from_secs(120);

impl Case {
    /// Applies examples/shop, after the password of its database.
    ///
    /// # Errors
    /// What kubectl said.
    pub async fn open_shop(&self) -> Result<()> {
        let password = format!("--from-literal=password={}", self.namespace);
        self.kubectl(&["create", "secret", "generic", "taskserv-store", &password], "").await?.success()?;
        self.apply_yaml(&self.example("shop")?).await
    }

    /// The proof of the demo; its words, or what it complains of.
    ///
    /// # Errors
    /// Where it can't be started or does not end.
    pub async fn prove_shop(&self) -> Result<Result<String, String>> {
        let mut script = Command::new(crate::repository().join("scripts/proof-shop"));
        script.arg(&self.namespace).stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(PROOF, script.output()).await;
        let output = ended.with_context(|| format!("the proof did not end in {PROOF:?}"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    }
}
