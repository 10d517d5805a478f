//! Faults, made from outside: processes are killed or frozen on the machine, Pods lose their network, servers are rebooted,
//! the platform is stopped.
//!
//! A process is named by the Pod that it runs in and by its program, and found by the Pod's uid in its cgroup. That is the
//! same on no two clusters, so nobody else's operator on this machine can be hit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use provisioning_api::Server;
use serde_json::Value;
use tokio::process::Command;

use crate::case::Case;
use crate::cluster::Cluster;
use crate::objects::{Kind, describe};
use crate::servers::ServerRun;
use crate::wait::until;

/// How long a moment may be away, and how long a recovery may take. Many servers boot side by side meanwhile.
const DEADLINE: Duration = Duration::from_secs(300);
/// The operator's program.
const OPERATOR: &str = "/provisioning-operator";
/// Who leads is written there.
const LEASE: &str = "provisioning-operator";

/// A process in a Pod, found before the moment at which it shall die.
#[derive(Clone, Debug)]
pub struct Victim {
    pid: u32,
    /// The Pod that it runs in.
    pub pod: Pod,
}

impl Victim {
    /// Kills it: `kill -9`.
    ///
    /// # Errors
    /// Where it is gone already.
    pub async fn kill(&self) -> Result<()> {
        let uid = self.pod.uid().unwrap_or_default();
        ensure!(is_in_pod(self.pid, &uid), "process {} of pod {} is gone already", self.pid, self.pod.name_any());
        kill_pid(self.pid).await
    }

    /// Stops it where it is. It goes on when the returned value is dropped.
    ///
    /// # Errors
    /// Where it is gone already.
    pub async fn freeze(&self) -> Result<Frozen> {
        signal(self.pid, "STOP").await?;
        Ok(Frozen(self.pid))
    }

    /// Takes the network away from the whole Pod: what it sends and what is sent to it is dropped without a word. It is
    /// back when the returned value is dropped.
    ///
    /// # Errors
    /// Where `iptables` refuses.
    pub async fn cut_off(&self) -> Result<CutOff> {
        self.cut(vec![vec!["INPUT"], vec!["OUTPUT"]]).await
    }

    /// As [`Victim::cut_off`], but only what comes in by SSH: the machine itself still reaches others.
    ///
    /// # Errors
    /// Where `iptables` refuses.
    pub async fn cut_off_ssh(&self) -> Result<CutOff> {
        let tcp = |chain, end| vec![chain, "-p", "tcp", end, "22"];
        self.cut(vec![tcp("INPUT", "--dport"), tcp("OUTPUT", "--sport")]).await
    }

    async fn cut(&self, rules: Vec<Vec<&'static str>>) -> Result<CutOff> {
        let cut = CutOff { pid: self.pid, rules };
        for rule in &cut.rules {
            let status = Command::from(cut.command("-I", rule)).status().await?;
            ensure!(status.success(), "iptables -I {rule:?} in the network of pid {}: {status}", self.pid);
        }
        Ok(cut)
    }
}

/// A process that stands still.
#[derive(Debug)]
pub struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = std::process::Command::new("kill").args(["-s", "CONT", &self.0.to_string()]).status();
    }
}

/// A Pod without network.
#[derive(Debug)]
pub struct CutOff {
    pid: u32,
    /// Chain and match of each rule.
    rules: Vec<Vec<&'static str>>,
}

impl CutOff {
    fn command(&self, verb: &str, rule: &[&str]) -> std::process::Command {
        // The namespace of the Pod is that of each of its processes; the rules go with it.
        let mut command = std::process::Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net", "iptables", "-w", verb]);
        command.args(rule).args(["-j", "DROP"]);
        command
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        for rule in &self.rules {
            let _ = self.command("-D", rule).status();
        }
    }
}

async fn kill_pid(pid: u32) -> Result<()> {
    signal(pid, "KILL").await
}

async fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().await?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}

/// Whether a process is in a cgroup of this Pod, however the kubelet's driver spells its uid.
fn is_in_pod(pid: u32, uid: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    !uid.is_empty()
        && (groups.contains(&format!("pod{uid}")) || groups.contains(&format!("pod{}", uid.replace('-', "_"))))
}

fn runs_program(pid: u32, program: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).next() == Some(program.as_bytes())
}

/// The process of a program in a Pod, while it runs.
pub fn process_of(pod: &Pod, program: &str) -> Option<Victim> {
    find_process(pod, |pid| runs_program(pid, program))
}

/// The process that holds a Pod together as long as the Pod lives, whatever its containers do.
pub fn sandbox_of(pod: &Pod) -> Option<Victim> {
    find_process(pod, |pid| runs_program(pid, "/pause"))
}

fn find_process(pod: &Pod, is_it: impl Fn(u32) -> bool) -> Option<Victim> {
    let uid = pod.uid()?;
    let entries = std::fs::read_dir("/proc").ok()?;
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| is_it(*pid) && is_in_pod(*pid, &uid))?;
    Some(Victim { pid, pod: pod.clone() })
}

/// How often the containers of a Pod were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|ContainerStatus { restart_count, .. }| restart_count).sum()
}

impl Cluster {
    /// The operator's process, once it runs and its Pod is Ready.
    ///
    /// # Errors
    /// Where there is none in time.
    pub async fn operator(&self) -> Result<Victim> {
        until("the operator runs", DEADLINE, || async {
            let found = self.operators().await?;
            let alive = found.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let seen =
                || format!("{} pods: {:?}", found.len(), found.iter().map(|pod| &pod.status).collect::<Vec<_>>());
            Ok(alive.filter(|pod| is_ready(pod)).find_map(|pod| process_of(pod, OPERATOR)).ok_or_else(seen))
        })
        .await
    }

    /// The process of the operator that leads.
    ///
    /// # Errors
    /// Where none leads in time.
    pub async fn leader(&self) -> Result<Victim> {
        until("an operator leads", DEADLINE, || async {
            let (found, holder) = (self.operators().await?, self.lease_holder().await?);
            let leads = found.iter().find(|pod| holder.contains(&pod.name_any()));
            Ok(leads
                .and_then(|pod| process_of(pod, OPERATOR))
                .ok_or_else(|| format!("the Lease is held by '{holder}'")))
        })
        .await
    }

    /// Waits until another operator than this one leads.
    ///
    /// # Errors
    /// Where none does.
    pub async fn replaced(&self, leader: &Victim) -> Result<()> {
        let name = leader.pod.name_any();
        until(&format!("another operator than {name} leads"), DEADLINE, || async {
            let holder = self.lease_holder().await?;
            Ok(if holder.is_empty() || holder.contains(&name) { Err(holder) } else { Ok(()) })
        })
        .await
    }

    /// Waits until the container of an operator was started again, or its Pod is gone.
    ///
    /// # Errors
    /// Where it lives on.
    pub async fn started_again(&self, victim: &Victim) -> Result<()> {
        let name = victim.pod.name_any();
        until(&format!("{name} was started again"), DEADLINE, || async {
            let found = self.operators().await?;
            let now = found.iter().find(|pod| pod.name_any() == name).map(restarts);
            Ok(if now.is_some_and(|now| now <= restarts(&victim.pod)) { Err(format!("{now:?}")) } else { Ok(()) })
        })
        .await
    }

    async fn operators(&self) -> Result<Vec<Pod>> {
        let labels =
            ListParams::default().labels("app.kubernetes.io/name=provisioning,app.kubernetes.io/component=operator");
        Ok(Api::<Pod>::namespaced(self.client.clone(), &self.system).list(&labels).await?.items)
    }

    async fn lease_holder(&self) -> Result<String> {
        let lease = Api::<Lease>::namespaced(self.client.clone(), &self.system).get(LEASE).await?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    }

    /// Takes the operator away (0) or has so many of it, and waits until it is so.
    ///
    /// # Errors
    /// Where it does not become so.
    pub async fn scale_operator(&self, replicas: usize) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), &self.system);
        let patch = Patch::Merge(serde_json::json!({"spec": {"replicas": replicas}}));
        deployments.patch_scale("provisioning-operator", &PatchParams::default(), &patch).await?;
        until(&format!("there are {replicas} operators"), DEADLINE, || async {
            let found = self.operators().await?;
            let ready = found.iter().filter(|pod| is_ready(pod)).count();
            let so = found.len() == replicas && ready == replicas;
            Ok(if so { Ok(()) } else { Err(format!("{} pods, {ready} of them Ready", found.len())) })
        })
        .await
    }

    /// Replaces a Pod at once, where its next start would be backed off by the kubelet. Only saves time.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn replace_where_backed_off(&self, victim: &Victim) -> Result<()> {
        if restarts(&victim.pod) == 0 {
            return Ok(());
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.system);
        pods.delete(&victim.pod.name_any(), &DeleteParams { grace_period_seconds: Some(0), ..Default::default() })
            .await?;
        Ok(())
    }

    /// `provisioning platform status`.
    ///
    /// # Errors
    /// Where it can't be asked.
    pub async fn platform_status(&self) -> Result<Value> {
        let output = self.provisioning(&["platform", "status", "--output", "json"], &[]).await?;
        serde_json::from_str(&output.stdout).with_context(|| format!("{}{}", output.stdout, output.stderr))
    }

    /// Kills a service of the platform by its record, and waits until it is healthy again in another process.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn kill_service(&self, service: &str) -> Result<()> {
        let before = self.service_pid(service).await?;
        let before = before.with_context(|| format!("{service} is not healthy"))?;
        kill_pid(before).await?;
        until(&format!("{service} is back"), DEADLINE, || async {
            Ok(self.service_pid(service).await?.filter(|pid| *pid != before).ok_or_else(|| "not yet".to_owned()))
        })
        .await?;
        Ok(())
    }

    /// pid of a service of the platform, where it is healthy and runs as that.
    async fn service_pid(&self, service: &str) -> Result<Option<u32>> {
        let status = self.platform_status().await?;
        let status = &status["services"][service];
        let pid = status["process"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Ok(pid.filter(|_| status["health"] == "Healthy"))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Case {
    /// Waits for a moment: watches an object, which need not be there yet, until it is as `predicate` says. Quicker than
    /// looking again and again, so that what lasts for a second is not missed.
    ///
    /// # Errors
    /// After the deadline, with what was seen last.
    pub async fn moment<K: Kind>(&self, name: &str, what: &str, predicate: impl Fn(&K) -> bool) -> Result<K> {
        let mut last = "absent".to_owned();
        let watched = self.watched(name, &predicate, &mut last);
        match tokio::time::timeout(DEADLINE, watched).await {
            Ok(found) => found,
            Err(_) => bail!("{} {name} {what}: not so after {DEADLINE:?}. Last seen:\n{last}", K::kind(&())),
        }
    }

    async fn watched<K: Kind>(&self, name: &str, predicate: &impl Fn(&K) -> bool, last: &mut String) -> Result<K> {
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(294);
        let mut events = self.api::<K>().watch(&parameters, "0").await?.boxed();
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    if predicate(&object) {
                        return Ok(object);
                    }
                    *last = describe(&object);
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => bail!("watch of {} {name}: {status:?}", K::kind(&())),
            }
        }
        bail!("the watch of {} {name} ended. Last seen:\n{last}", K::kind(&()))
    }

    /// Folder on this machine that is a server's root file system.
    ///
    /// # Errors
    /// Where there is none yet.
    pub async fn disk(&self, server: &str) -> Result<PathBuf> {
        let uid = self.get::<Server>(server).await?.uid().unwrap_or_default();
        let disks = self.disks()?;
        let disk =
            disks.iter().find(|disk| disk.starts_with(&uid)).with_context(|| format!("{server} has no disk yet"))?;
        Ok(self.cluster.disks.join(&self.cluster.site).join(&self.namespace).join(disk).join("root"))
    }

    /// Waits until a script runs on a server: its own log has a start without an end. Looks at the disk, past the cluster.
    ///
    /// # Errors
    /// Where it does not begin in time.
    pub async fn script_runs(&self, server: &str, script: &str) -> Result<ServerRun> {
        until(&format!("{script} runs on {server}"), DEADLINE, || async {
            let Ok(disk) = self.disk(server).await else { return Ok(Err("no disk".to_owned())) };
            let runs = runs_on_disk(&disk)?;
            let last = runs.iter().rfind(|run| run.script == script);
            Ok(last.filter(|run| run.event == "start").cloned().ok_or_else(|| format!("{runs:?}")))
        })
        .await
    }

    /// The Pod of the site that is a server's machine.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn machine(&self, server: &str) -> Result<Pod> {
        let name = self.site_pod(server).await?;
        Ok(Api::<Pod>::namespaced(self.cluster.client.clone(), &self.cluster.site).get(&name).await?)
    }

    /// `systemctl reboot` on a server; waits until its container was started again.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn reboot(&self, server: &str) -> Result<()> {
        let before = restarts(&self.machine(server).await?);
        // The command dies with the machine: how it ends says nothing.
        let pod = self.site_pod(server).await?;
        let inside = ["chroot", "/proc/1/root", "systemctl", "reboot"];
        let arguments = ["exec", "-n", &self.cluster.site, &pod, "-c", "server", "--"];
        let asked = self.cluster.kubectl(&[&arguments[..], &inside].concat(), "").await?;
        until(&format!("{server} was started again"), Duration::from_secs(90), || async {
            let pod = self.machine(server).await?;
            let seen = || format!("{:?}; systemctl reboot: {asked:?}", pod.status);
            Ok(if restarts(&pod) > before { Ok(()) } else { Err(seen()) })
        })
        .await
    }
}

/// What ran on a server, read from its disk. No file: nothing yet. A last line that is half written is left out.
///
/// # Errors
/// A line that is none.
pub fn runs_on_disk(disk: &Path) -> Result<Vec<ServerRun>> {
    let text = std::fs::read_to_string(disk.join("var/lib/provisioning/runs.ndjson")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// What ran on a server, as last seen before its disk was wiped.
///
/// # Errors
/// A line that is none, or a disk that stays.
pub async fn runs_until_wiped(disk: &Path) -> Result<Vec<ServerRun>> {
    let last = std::sync::Mutex::new(Vec::new());
    until(&format!("{} is wiped", disk.display()), DEADLINE, || async {
        let runs = runs_on_disk(disk)?;
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if runs.len() < last.len() {
            return Ok(Ok(()));
        }
        *last = runs;
        Ok(Err(format!("{last:?}")))
    })
    .await?;
    Ok(last.into_inner().unwrap_or_default())
}
