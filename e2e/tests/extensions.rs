//! Every extension on real servers, by the rules that its author was given (docs/write-an-extension.md): installed through
//! the operator while an attempt is killed, installed again without a trace, spoken to by an independent client, rebooted,
//! changed, stopped, uninstalled, and put beside what a person installed there before. What is tried stands in `taskservs/NAME/tests/case*.yaml`; a folder without one fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;
use provisioning_api::conditions::types;
use provisioning_api::names::{SSH_SECRET, WORKSPACE_NAME};
use provisioning_api::{Server, Taskserv, Workspace};
use provisioning_e2e::{Case, Cluster, case, condition, describe, repository, step};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

/// How long an installation may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(420);
/// Names of the servers; their number is the case's.
const SERVERS: [&str; 3] = ["dunlin", "knot", "ruff"];
/// Where the suite's own request for a script lies on a server.
const REQUEST: &str = "/run/suite-request.json";
/// Where it brings the scripts to on a server that has none of them.
const COPY: &str = "/var/tmp/suite";
/// `nu` where the operator brings it to.
const NU: &str = "/opt/provisioning/bin/nu";

/// When a change is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it began, as systemd writes a time.
    After(&'static str),
    /// As soon as it has started one of the services anew.
    Started,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(time) => write!(out, "after {time}"),
            Self::Started => out.write_str("as a service starts"),
        }
    }
}

/// `tests/case*.yaml` of an extension.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Plan {
    /// Parameters of the tested Taskserv.
    parameters: BTreeMap<String, Value>,
    /// Its secrets.
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    /// Extensions that are installed on the same servers first, with their parameters.
    #[serde(default)]
    with: BTreeMap<String, BTreeMap<String, Value>>,
    /// How many servers it is installed on, 1 to 3.
    servers: usize,
    /// Parameters that are changed later.
    changed: BTreeMap<String, Value>,
    /// Its services; `check` fails while one is stopped.
    services: Vec<String>,
    /// Ports that are open while it is installed.
    ports: Vec<u16>,
    /// Packages that are there only while it is installed.
    packages: Vec<String>,
    /// The installation is killed when a message begins with this.
    interrupt_at: String,
    /// What a person may have there already.
    before: Option<Before>,
}

/// The service as somebody else installed it, with data.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Before {
    /// Installs it by hand: a shell script, in the end `true`.
    install: String,
    /// A shell script that succeeds while package, service and data are there.
    proof: String,
    /// With these parameters an installation over it fails, and not before it has changed something.
    fails: BTreeMap<String, Value>,
    /// Takes away what made it fail, where that was not the parameters.
    #[serde(default)]
    mend: String,
}

/// One extension under test.
struct Subject {
    name: String,
    folder: PathBuf,
    plan: Plan,
    case: Case,
}

fn run(extension: &'static str, file: &'static str) {
    let name =
        format!("extension_{}_{}", extension.replace('-', "_"), file.trim_end_matches(".yaml").replace('-', "_"));
    case(&name, move |case: Case| async move {
        let folder = repository().join("taskservs").join(extension);
        Subject::read(case, extension, folder, file)?.all().await
    });
}

/// What `provisioning extension new` writes passes by the same rules, as it is.
#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_new_one_passes_as_it_is_written() {
    case("a_new_one_passes_as_it_is_written", |case: Case| async move {
        let parent = tempfile::tempdir()?;
        let folder = parent.path().join("whistle");
        let path = folder.to_str().context("a folder's name")?;
        case.provisioning(&["extension", "new", "whistle", "--dir", path]).await?.success()?;
        case.provisioning(&["extension", "load", path]).await?.success()?;
        Subject::read(case, "whistle", folder, "case.yaml")?.all().await
    });
}

impl Subject {
    fn read(case: Case, name: &str, folder: PathBuf, file: &str) -> Result<Self> {
        let path = folder.join("tests").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let plan: Plan = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!((1..=SERVERS.len()).contains(&plan.servers), "{}: servers: {}", path.display(), plan.servers);
        Ok(Self { name: name.to_owned(), folder, plan, case })
    }

    async fn all(&self) -> Result<()> {
        self.ground().await?;
        self.never_there_is_noticed().await?;
        self.installed_although_killed().await?;
        self.speaks("after the installation").await?;
        self.installed_twice_changes_nothing().await?;
        self.a_change_that_is_cut_off_is_taken_back().await?;
        self.survives_a_reboot().await?;
        self.a_stopped_service_is_noticed().await?;
        self.changed_parameters_are_brought_about().await?;
        self.uninstalled().await?;
        self.what_was_there_before_stays().await?;
        self.case.delete::<Workspace>(WORKSPACE_NAME).await
    }

    fn servers(&self) -> &'static [&'static str] {
        &SERVERS[..self.plan.servers]
    }

    fn taskserv(&self, parameters: &BTreeMap<String, Value>) -> Value {
        let secrets: BTreeMap<_, _> =
            self.plan.secrets.keys().map(|name| (name, json!({"secretName": "taskserv-suite", "key": name}))).collect();
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "metadata": {"name": "subject"},
            "spec": {"extension": {"name": self.name}, "servers": self.servers(), "parameters": parameters,
                "secretParameters": secrets}})
    }

    async fn ground(&self) -> Result<()> {
        self.case.workspace().await?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taskserv-suite"},
            "stringData": self.plan.secrets});
        self.case.apply(&secret).await?;
        for server in self.servers() {
            self.case.apply(&self.case.server(server)).await?;
        }
        for (name, parameters) in &self.plan.with {
            let other = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "metadata": {"name": name},
                "spec": {"extension": {"name": name}, "servers": self.servers(), "parameters": parameters}});
            self.case.apply(&other).await?;
        }
        for name in self.plan.with.keys() {
            self.ready(name).await?;
        }
        for server in self.servers() {
            self.case.wait_for::<Server>(server, "Ready", PATIENCE, provisioning_e2e::is_ready).await?;
        }
        Ok(())
    }

    async fn ready(&self, taskserv: &str) -> Result<()> {
        self.case.wait_for::<Taskserv>(taskserv, "Ready", PATIENCE, provisioning_e2e::is_ready).await.map(drop)
    }

    /// The first attempt is killed as soon as it says that it is where the case wants it to be cut off.
    async fn installed_although_killed(&self) -> Result<()> {
        self.case.apply(&self.taskserv(&self.plan.parameters)).await?;
        let first = self.servers()[0];
        let uid = self.case.get::<Taskserv>("subject").await?.uid().unwrap_or_default();
        let search = format!(
            "grep -ls '\"message\":\"{}' /var/lib/provisioning/{uid}/install+{first}.run-*/stdout | head -n 1",
            self.plan.interrupt_at
        );
        let kill = "systemctl list-units --plain --no-legend 'provisioning-*.service' | awk '{ print $1 }' | \
                    xargs -r systemctl kill --kill-whom=all --signal=KILL";
        self.case
            .until("the installation is where it is to be cut off", PATIENCE, || async {
                if self.case.on_server(first, &search).await?.trim().is_empty() {
                    return Ok(Err(format!("no message begins with '{}'", self.plan.interrupt_at)));
                }
                self.case.on_server(first, kill).await?;
                Ok(Ok(()))
            })
            .await?;
        self.ready("subject").await?;
        let starts = self.case.server_runs(first).await?;
        let starts =
            starts.iter().filter(|run| run.event == "start" && run.script == "install" && run.extension == self.name);
        ensure!(starts.count() >= 2, "the installation was not cut off");
        self.case.rule("an installation that was killed in the middle is finished by the next attempt");
        let subject = self.case.get::<Taskserv>("subject").await?;
        for server in self.servers() {
            self.tells_the_packages_version(&subject, server).await?;
            for port in &self.plan.ports {
                ensure!(self.is_open(server, *port).await?, "port {port} of {server} is closed after the installation");
            }
        }
        Ok(())
    }

    /// What was installed is told by an output: the version of the bundle is another one.
    async fn tells_the_packages_version(&self, subject: &Taskserv, server: &str) -> Result<()> {
        if self.plan.packages.is_empty() {
            return Ok(());
        }
        let told = step(subject, &format!("install/{server}")).and_then(|step| step.outputs.get("version"));
        let told = told.with_context(|| format!("no output 'version': {}", describe(subject)))?;
        // What `os` sets up is the distribution.
        let packages = self.plan.packages.join(" ");
        let query = format!("dpkg-query -W -f='${{Version}}\\n' {packages}; cat /etc/debian_version");
        let installed = self.case.on_server(server, &query).await?;
        ensure!(installed.lines().any(|version| version == told), "version is {told}, the server has:\n{installed}");
        self.case.rule("its output 'version' is that of what is installed");
        Ok(())
    }

    async fn is_open(&self, server: &str, port: u16) -> Result<bool> {
        let address = format!("{}:{port}", self.case.address(server).await?);
        let connect = tokio::time::timeout(Duration::from_secs(3), TcpStream::connect(&address)).await;
        Ok(matches!(connect, Ok(Ok(_))))
    }

    /// An independent client, outside of the servers.
    async fn speaks(&self, when: &str) -> Result<()> {
        let key = tempfile::NamedTempFile::new()?;
        let secrets: Api<Secret> = Api::namespaced(self.case.cluster.client.clone(), &self.case.namespace);
        let data = secrets.get(SSH_SECRET).await?.data.unwrap_or_default();
        std::fs::write(key.path(), &data.get("id_ed25519").context("no key")?.0)?;
        let ssh = format!(
            "ssh -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=10",
            key.path().display()
        );
        let mut command = Command::new(self.folder.join("tests/speak"));
        command.env("SSH", ssh).stdin(Stdio::null()).kill_on_drop(true);
        for (name, value) in &self.plan.secrets {
            command.env(format!("SECRET_{}", name.to_uppercase()), value);
        }
        for server in self.servers() {
            command.arg(self.case.address(server).await?);
        }
        let output =
            tokio::time::timeout(Duration::from_secs(120), command.output()).await.context("speak hangs")??;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!("speak {when}: {}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        self.case.rule(&format!("{when}: {}", said.lines().last().unwrap_or_default()));
        Ok(())
    }

    /// The operator has not been on this server for the extension yet, so its scripts are brought there by hand.
    async fn never_there_is_noticed(&self) -> Result<()> {
        let first = self.servers()[0];
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name(Cluster::nu()?, "nu")?;
        archive.append_dir_all("scripts", self.folder.join("scripts"))?;
        let archive = archive.into_inner()?;
        let unpack = format!("mkdir {COPY} && tar -xf - -C {COPY}");
        self.case.on_server_with(first, &unpack, &archive).await?;

        let nu = format!("{COPY}/nu");
        let before = self.traces(first).await?;
        match self.run(first, &nu, COPY, "check").await? {
            Ok(words) => bail!("check is content on a server that never had it: {words}"),
            Err(words) => self.case.rule(&format!("never there: {}", words.lines().last().unwrap_or_default())),
        }
        let uninstall = self.run(first, &nu, COPY, "uninstall").await?;
        uninstall.map_err(|words| anyhow::anyhow!("uninstallation on {first}, which never had it: {words}"))?;
        let after = self.traces(first).await?;
        ensure!(before == after, "something is changed on {first}, which never had it:\n{before}\n{after}");
        self.case.on_server(first, &format!("rm -r {COPY}")).await.map(drop)
    }

    /// Runs one of the installed bundle's scripts by hand, past the operator. `Err`: its words.
    async fn script(&self, server: &str, script: &str) -> Result<Result<String, String>> {
        let folder = self.bundle(server).await?;
        self.run(server, NU, &folder, script).await
    }

    /// The folder of the installed bundle on a server.
    async fn bundle(&self, server: &str) -> Result<String> {
        let taskserv = self.case.get::<Taskserv>("subject").await;
        let digest = match &taskserv {
            Ok(taskserv) => {
                taskserv.status.as_ref().and_then(|status| status.resolved.as_ref()).map(|it| it.digest.clone())
            }
            // Gone with its object; the bundle stays on the server.
            Err(_) => None,
        };
        Ok(match digest {
            Some(digest) => format!("/var/lib/provisioning/bundles/{}", digest.trim_start_matches("sha256:")),
            None => {
                let found = format!("grep -lx 'name: {}' /var/lib/provisioning/bundles/*/manifest.yaml", self.name);
                let found = self.case.on_server(server, &found).await?;
                found.trim().trim_end_matches("/manifest.yaml").to_owned()
            }
        })
    }

    /// Runs one of the scripts below a folder of a server. `Err`: its words.
    async fn run(&self, server: &str, nu: &str, folder: &str, script: &str) -> Result<Result<String, String>> {
        let command = format!("{nu} --no-config-file scripts/{script}.nu {REQUEST}");
        let said = self.with_request(server, folder, &self.plan.parameters, &command).await?;
        let (code, words) = said.split_once('\n').unwrap_or((said.as_str(), ""));
        Ok(if code == "0" { Ok(words.to_owned()) } else { Err(format!("exit code {code}: {words}")) })
    }

    /// Runs a command in a folder of a server, where a request with these parameters lies. Its exit code, and what it said.
    async fn with_request(
        &self,
        server: &str,
        folder: &str,
        parameters: &BTreeMap<String, Value>,
        command: &str,
    ) -> Result<String> {
        let request = self.request(server, parameters).await?.to_string().replace('\'', "'\\''");
        let command = format!(
            "umask 077; printf %s '{request}' >{REQUEST}; umask 022; cd {folder} && {command} >/run/suite-out 2>&1; \
             code=$?; rm -f {REQUEST}; echo $code; cat /run/suite-out"
        );
        self.case.on_server(server, &command).await
    }

    fn changed_parameters(&self) -> BTreeMap<String, Value> {
        let mut parameters = self.plan.parameters.clone();
        parameters.extend(self.plan.changed.clone());
        parameters
    }

    /// A request as the runner writes it: the schema's defaults are filled in.
    async fn request(&self, server: &str, parameters: &BTreeMap<String, Value>) -> Result<Value> {
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(self.folder.join("schema.json"))?)?;
        let mut all = BTreeMap::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = property.get("default") {
                all.insert(name.clone(), default.clone());
            }
        }
        all.extend(parameters.clone());
        let mut servers = Vec::new();
        for name in self.servers() {
            servers.push(json!({"name": name, "hostname": name, "address": self.case.address(name).await?}));
        }
        let own = servers.iter().find(|told| told["name"] == server).cloned();
        Ok(json!({"parameters": all, "secrets": self.plan.secrets, "server": own, "servers": servers, "peers": {}}))
    }

    /// What an installation could have touched: processes, files, packages.
    async fn traces(&self, server: &str) -> Result<String> {
        let services = self.plan.services.join(" ");
        let command = format!(
            "systemctl show --property=MainPID,ActiveEnterTimestampMonotonic {services}; \
             find /etc -xdev -type f -printf '%p %T@ %i\\n' | sort | sha256sum; stat -c '%s %Y' /var/log/dpkg.log 2>/dev/null || true"
        );
        self.case
            .on_server(
                server,
                if services.is_empty() { command.split_once(';').map_or("", |(_, rest)| rest) } else { &command },
            )
            .await
    }

    async fn installed_twice_changes_nothing(&self) -> Result<()> {
        for server in self.servers() {
            let before = self.traces(server).await?;
            let again = self.script(server, "install").await?;
            again.map_err(|words| anyhow::anyhow!("the second installation on {server} failed: {words}"))?;
            let after = self.traces(server).await?;
            ensure!(before == after, "the second installation on {server} changed something:\n{before}\n{after}");
        }
        self.case.rule("installed again: no process, no file of /etc and no package is touched");
        Ok(())
    }

    /// Whatever a run with other parameters has come to when it is killed, one with the former brings these about again.
    async fn a_change_that_is_cut_off_is_taken_back(&self) -> Result<()> {
        let first = self.servers()[0];
        let folder = self.bundle(first).await?;
        let changed = self.changed_parameters();
        let mut cut = Vec::new();
        for moment in [Moment::After("300ms"), Moment::After("1s"), Moment::Started] {
            let said = self.with_request(first, &folder, &changed, &self.cut_off(&folder, moment)).await?;
            if said.contains("Finished with result: timeout") || said.contains("killed as it started") {
                cut.push(moment.to_string());
            } else {
                // It was done before that moment came.
                ensure!(said.lines().next() == Some("0"), "a change that was to be killed {moment} failed: {said}");
            }
            let again = self.script(first, "install").await?;
            again.map_err(|words| anyhow::anyhow!("after a change that was to be killed {moment}: {words}"))?;
            let check = self.script(first, "check").await?;
            check.map_err(|words| anyhow::anyhow!("check, after a change that was to be killed {moment}: {words}"))?;
        }
        ensure!(!cut.is_empty(), "no change was killed: each was done before its moment came");
        self.case.rule(&format!(
            "a change that is killed ({}) is taken back by an installation with the former parameters",
            cut.join(", ")
        ));
        Ok(())
    }

    /// A command that installs, and is killed at a moment. Its exit code is 0 where it is done before.
    fn cut_off(&self, folder: &str, moment: Moment) -> String {
        let unit = format!("--property=KillSignal=SIGKILL --working-directory={folder}");
        let install = format!("{NU} --no-config-file scripts/install.nu {REQUEST}");
        match moment {
            Moment::After(time) => {
                format!("systemd-run --wait --collect --property=RuntimeMaxSec={time} {unit} {install}")
            }
            // Between the start of a service with what is new and the note of what it was started with.
            // The unit of one that failed stays until it is reset; one that succeeded is gone at once.
            Moment::Started => format!(
                "bash -c 'starts() {{ systemctl show --property=ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic {}; }}; \
                 before=$(starts); \
                 systemd-run --unit=cut --service-type=exec {unit} {install} || exit; \
                 while systemctl is-active --quiet cut; do [ \"$(starts)\" = \"$before\" ] && continue; \
                 systemctl kill --signal=KILL cut && echo killed as it started; break; done; sleep 0.2; \
                 result=$(systemctl show --value --property=Result cut); systemctl reset-failed cut 2>/dev/null; \
                 echo $result; [ $result = success ] || [ $result = signal ]'",
                self.plan.services.join(" ")
            ),
        }
    }

    async fn survives_a_reboot(&self) -> Result<()> {
        for server in self.servers() {
            self.case.reboot(server).await?;
        }
        // Addresses may change; the operator looks, and what depends on them runs again.
        let back = || async {
            for server in self.servers() {
                let pod = self.case.machine(server).await?;
                let address = self.case.address(server).await?;
                if pod.status.and_then(|status| status.pod_ip) != Some(address.clone()) {
                    return Ok(Err(format!("{server} is not at {address} any more")));
                }
                if TcpStream::connect(format!("{address}:22")).await.is_err() {
                    return Ok(Err(format!("{server} does not answer")));
                }
                if let Err(words) = self.script(server, "check").await? {
                    return Ok(Err(format!("check on {server}: {words}")));
                }
            }
            Ok(Ok(()))
        };
        self.case.until("everything is back after the reboot", PATIENCE, back).await?;
        self.ready("subject").await?;
        self.speaks("after a reboot").await
    }

    async fn a_stopped_service_is_noticed(&self) -> Result<()> {
        let first = self.servers()[0];
        for service in &self.plan.services {
            self.case.on_server(first, &format!("systemctl stop {service}")).await?;
            match self.script(first, "check").await? {
                Ok(words) => bail!("check is content although {service} is stopped: {words}"),
                Err(words) => {
                    self.case.rule(&format!("{service} is stopped: {}", words.lines().last().unwrap_or_default()))
                }
            }
            self.case.on_server(first, &format!("systemctl reset-failed; systemctl start {service}")).await?;
            let well = || async { self.script(first, "check").await };
            self.case.until("check is content again", Duration::from_secs(60), well).await?;
        }
        Ok(())
    }

    async fn changed_parameters_are_brought_about(&self) -> Result<()> {
        let before = self.case.get::<Taskserv>("subject").await?.metadata.generation;
        self.case.apply(&self.taskserv(&self.changed_parameters())).await?;
        let done = |taskserv: &Taskserv| {
            let seen = taskserv.status.as_ref().map(|status| status.run.observed_generation);
            provisioning_e2e::is_ready(taskserv) && seen > before
        };
        self.case.wait_for("subject", "Ready with the changed parameters", PATIENCE, done).await?;
        // The old parameters are what is checked by hand: the service runs with others now.
        match self.script(self.servers()[0], "check").await? {
            Ok(_) => bail!("check is content with the former parameters"),
            Err(words) => self.case.rule(&format!("changed; formerly: {}", words.lines().last().unwrap_or_default())),
        }
        Ok(())
    }

    async fn uninstalled(&self) -> Result<()> {
        self.case.delete::<Taskserv>("subject").await?;
        self.case.gone::<Taskserv>("subject", PATIENCE).await?;
        for server in self.servers() {
            for port in &self.plan.ports {
                ensure!(
                    !self.is_open(server, *port).await?,
                    "port {port} of {server} is open after the uninstallation"
                );
            }
            for package in &self.plan.packages {
                let ask = format!("dpkg-query -W -f '${{db:Status-Status}}' {package} 2>/dev/null || true");
                let status = self.case.on_server(server, &ask).await?;
                ensure!(status.is_empty() || status == "not-installed", "package {package} is {status} on {server}");
            }
            match self.script(server, "check").await? {
                Ok(words) => bail!("check is content although nothing is there: {words}"),
                Err(words) => self.case.rule(&format!("not there: {}", words.lines().last().unwrap_or_default())),
            }
            let again = self.script(server, "uninstall").await?;
            again.map_err(|words| anyhow::anyhow!("a second uninstallation on {server} failed: {words}"))?;
        }
        Ok(())
    }

    /// Deleted after an installation that failed, and after one that did not: each time only our configuration goes.
    async fn what_was_there_before_stays(&self) -> Result<()> {
        let Some(before) = &self.plan.before else { return Ok(()) };
        let first = self.servers()[0];
        self.by_hand(first, "install", &before.install).await?;
        self.by_hand(first, "proof", &before.proof).await?;

        let mut parameters = self.plan.parameters.clone();
        parameters.extend(before.fails.clone());
        self.case.apply(&self.taskserv(&parameters)).await?;
        let stalled = |taskserv: &Taskserv| provisioning_e2e::is_true(taskserv, types::STALLED);
        let stalled = self.case.wait_for::<Taskserv>("subject", "Stalled", PATIENCE, stalled).await?;
        let words = condition(&stalled, types::STALLED).map(|told| told.message.clone()).unwrap_or_default();
        let note = format!("cat /var/lib/provisioning-{}/before.json", self.name);
        self.case.on_server(first, &note).await.context("the installation failed before it changed anything")?;
        self.deleted_and_still_there(first, &before.proof).await?;
        self.case.rule(&format!("deleted after '{words}': what was there before is there"));

        self.by_hand(first, "mend", &before.mend).await?;
        self.case.apply(&self.taskserv(&self.plan.parameters)).await?;
        self.ready("subject").await?;
        self.deleted_and_still_there(first, &before.proof).await?;
        self.case.rule("installed over what was there before, and deleted: it is there, with its data");
        Ok(())
    }

    async fn deleted_and_still_there(&self, server: &str, proof: &str) -> Result<()> {
        self.case.delete::<Taskserv>("subject").await?;
        self.case.gone::<Taskserv>("subject", PATIENCE).await?;
        // A service that was restarted without our configuration may be reading its data.
        let there =
            || async { Ok(self.by_hand(server, "proof", proof).await.map(drop).map_err(|error| format!("{error:#}"))) };
        self.case.until("what was there before is there", Duration::from_secs(60), there).await?;
        let left = self.case.on_server(server, "find /etc -name 'provisioning.*' -not -path '/etc/ssh/*'").await?;
        ensure!(left.is_empty(), "our configuration is left on {server}:\n{left}");
        Ok(())
    }

    /// Runs a script of the case on a server, as a person who is root there.
    async fn by_hand(&self, server: &str, name: &str, script: &str) -> Result<()> {
        let script = format!(
            "export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8; set -e; exec 2>&1\n{script}"
        );
        self.case.on_server(server, &script).await.map(drop).with_context(|| format!("before.{name} of the case"))
    }
}

macro_rules! extensions {
    ($($test:ident: $extension:literal, $file:literal;)+) => {
        const ALL: &[(&str, &str)] = &[$(($extension, $file)),+];
        $(
            #[test]
            #[ignore = "needs a cluster: scripts/e2e"]
            fn $test() {
                run($extension, $file);
            }
        )+
    };
}

extensions! {
    containerd: "containerd", "case.yaml";
    etcd: "etcd", "case.yaml";
    etcd_single: "etcd", "case-single.yaml";
    haproxy: "haproxy", "case.yaml";
    nginx: "nginx", "case.yaml";
    node_exporter: "node-exporter", "case.yaml";
    os: "os", "case.yaml";
    postgres: "postgres", "case.yaml";
    redis: "redis", "case.yaml";
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A case that nobody runs would be a promise that nobody keeps.
#[test]
#[ignore = "runs with the suites: scripts/e2e"]
fn every_extension_has_a_case_and_every_case_is_run() {
    let folder = repository().join("taskservs");
    let mut found = Vec::new();
    for extension in names(&folder).into_iter().filter(|name| folder.join(name).join("manifest.yaml").exists()) {
        let cases: Vec<String> =
            names(&folder.join(&extension).join("tests")).into_iter().filter(|name| name.starts_with("case")).collect();
        assert!(!cases.is_empty(), "taskservs/{extension}/tests has no case.yaml");
        found.extend(cases.into_iter().map(|file| (extension.clone(), file)));
    }
    let mut run: Vec<(String, String)> =
        ALL.iter().map(|(name, file)| ((*name).to_owned(), (*file).to_owned())).collect();
    found.sort();
    run.sort();
    assert_eq!(found, run, "left: taskservs/*/tests, right: extensions! in this file");
}
