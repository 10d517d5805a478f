//! The cluster under test, and the programs that speak to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest run of a program such as kubectl.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(180);

/// What a program did.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output, where the program ended with 0.
    ///
    /// # Errors
    /// Its words where it did not.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.stderr, self.stdout);
        Ok(self.stdout)
    }

    /// The standard error, where the program did not end with 0.
    ///
    /// # Errors
    /// Its output where it did.
    pub fn refusal(self) -> Result<String> {
        ensure!(self.code != 0, "this should have been refused: {}", self.stdout);
        Ok(self.stderr)
    }
}

/// The cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// A client as the administrator.
    pub client: kube::Client,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The `provisioning` program.
    pub provisioning: PathBuf,
    /// Where the operator lives.
    pub system: String,
    /// Where the Local provider's servers live.
    pub site: String,
    /// Folder on this machine below which the disks of servers lie.
    pub disks: PathBuf,
    /// The API server's audit log.
    pub audit_log: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    /// Reads what `scripts/e2e` put into the environment.
    ///
    /// # Errors
    /// A variable that is missing, or a kubeconfig that is none. A test that can't run fails.
    pub async fn connect() -> Result<Self> {
        // Several crypto providers may be linked in; the first test decides, the others find it decided.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = variable("KUBECONFIG")?;
        let config = kube::config::Kubeconfig::read_from(&kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
        config.read_timeout = Some(Duration::from_secs(60));
        Ok(Cluster {
            client: kube::Client::try_from(config)?,
            kubeconfig,
            provisioning: variable("E2E_PROVISIONING")?,
            kubectl: variable("E2E_KUBECTL")?,
            disks: variable("E2E_DISKS")?,
            audit_log: variable("E2E_AUDIT_LOG")?,
            system: "provisioning-system".to_owned(),
            site: provisioning_api::names::DEFAULT_SITE.to_owned(),
        })
    }

    /// The `nu` that scripts are run by on servers.
    ///
    /// # Errors
    /// Where the environment does not name it.
    pub fn nu() -> Result<PathBuf> {
        variable("E2E_NU")
    }

    /// Runs kubectl to its end, whatever that is. `input` goes to its standard input.
    ///
    /// # Errors
    /// Where it can't be started or does not end.
    pub async fn kubectl(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Result<Output> {
        self.program(&self.kubectl, arguments, input.as_ref(), &[]).await
    }

    /// Runs `provisioning` to its end with some environment.
    ///
    /// # Errors
    /// Where it can't be started or does not end.
    pub async fn provisioning(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        self.program(&self.provisioning, arguments, &[], environment).await
    }

    async fn program(
        &self,
        program: &Path,
        arguments: &[&str],
        input: &[u8],
        environment: &[(&str, &str)],
    ) -> Result<Output> {
        let what = || format!("{} {}", program.display(), arguments.join(" "));
        let mut child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(what)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).await.with_context(what)?;
        }
        let output = tokio::time::timeout(PROGRAM_DEADLINE, child.wait_with_output())
            .await
            .with_context(|| format!("{} did not end in {PROGRAM_DEADLINE:?}", what()))?
            .with_context(what)?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn variable(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name).with_context(|| format!("{name} is not set: run scripts/e2e"))?;
    Ok(PathBuf::from(value))
}
