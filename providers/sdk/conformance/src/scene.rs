//! A scene: one fresh world, one server in front of it, and the processes that a check starts there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provisioning_api::provider_config::ProviderType;
use provisioning_api::server::Creation;
use provisioning_api::steps::{Direction, FailureClass};
use provisioning_sdk::request::{Envelope, Owner, ProviderRequest};
use provisioning_sdk::result::{StepResult, tail};
use tempfile::TempDir;

use crate::MakeWorld;
use crate::claims::Drift;
use crate::process::{self, End, Provider, Run, Start};
use crate::server::{Entry, Plan, Server};
use crate::world::{MACHINE, Offer, Quirk, Refusal, Reply, Resource, Tags};

/// Installation of all subjects.
pub(crate) const INSTALLATION: &str = "5f0c3d9e-6a0b-4b52-8a77-0d4c4e2b9a11";
/// uid of [`Subject::new`]'s owner.
const UID: &str = "0b1f6a7e-3c55-4d7e-9a39-6f1f4a8c2d10";
/// Seconds that a request may take where a check is not about its deadline.
const TIMEOUT: i64 = 60;
/// The token that the executor's account has at the Kubernetes API.
const ACCOUNT_TOKEN: &str = "account-token-7c1f2b9a4d";
/// Begins every private key in PEM and OpenSSH's form.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// What a check says: a note for people, or what was seen instead of the rule.
pub(crate) type Verdict = Result<String, String>;

/// What all checks share.
#[derive(Clone)]
pub(crate) struct Stage {
    provider: Provider,
    world: MakeWorld,
    findings: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Stage {
    pub(crate) fn new(provider: Provider, world: MakeWorld, findings: Arc<Mutex<Vec<(&'static str, String)>>>) -> Self {
        Stage { provider, world, findings }
    }

    /// A fresh world.
    pub(crate) async fn scene(&self) -> Result<Scene, String> {
        let world = (self.world)();
        let offer = world.offer();
        let folder = TempDir::new().map_err(|error| format!("failed to make a folder: {error}"))?;
        let mut secrets = world.secrets();
        secrets.extend([ACCOUNT_TOKEN.to_owned(), PRIVATE_KEY.to_owned()]);
        let server = Server::start(world).await.map_err(|error| format!("failed to listen: {error}"))?;
        kubeconfig(folder.path(), &server.origin).map_err(|error| format!("failed to write kubeconfig: {error}"))?;
        Ok(Scene { stage: self.clone(), offer, secrets, server, folder, run: 0 })
    }
}

/// The client's configuration; in a Pod the kubelet mounts the same facts.
fn kubeconfig(folder: &Path, origin: &str) -> std::io::Result<()> {
    let config = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": origin}}],
        "users": [{"name": "u", "user": {"token": ACCOUNT_TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "marsh"}}]});
    std::fs::write(folder.join("kubeconfig"), config.to_string())
}

/// A server that requests are about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) owner: Owner,
    pub(crate) hostname: String,
    pub(crate) incarnation: i64,
    pub(crate) creation: Creation,
}

impl Subject {
    /// `blue-heron`, in its first life.
    pub(crate) fn new(offer: &Offer) -> Self {
        Subject::named(offer, "blue-heron", UID)
    }

    /// Another server.
    pub(crate) fn named(offer: &Offer, name: &str, uid: &str) -> Self {
        let owner = Owner { kind: "Server".into(), namespace: "marsh".into(), name: name.into(), uid: uid.into() };
        let creation = Creation {
            provider: ProviderType::Local,
            site: offer.site.clone(),
            zone: offer.zone.clone(),
            cores: 1,
            memory_mib: 512,
            disk_gib: 10,
            reserved_percent: 10,
            image: offer.image.clone(),
            user_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHeronHeronHeronHeronHeronHeronHeron marsh".into(),
            token: format!("{name}-token-0"),
        };
        Subject { owner, hostname: name.into(), incarnation: 0, creation }
    }

    /// The tags that its machine has to carry.
    pub(crate) fn tags(&self) -> Tags {
        let Owner { kind, namespace, name, uid } = self.owner.clone();
        Tags { installation: INSTALLATION.into(), namespace, kind, name, uid, token: self.creation.token.clone() }
    }

    pub(crate) fn create(&self) -> ProviderRequest {
        let Subject { hostname, incarnation, creation, .. } = self.clone();
        ProviderRequest::Create { hostname, incarnation, creation }
    }

    pub(crate) fn observe(&self) -> ProviderRequest {
        ProviderRequest::Observe { incarnation: self.incarnation, creation: self.creation.clone() }
    }

    pub(crate) fn delete(&self) -> ProviderRequest {
        ProviderRequest::Delete { incarnation: self.incarnation, creation: self.creation.clone() }
    }
}

/// One world with a server in front of it.
pub(crate) struct Scene {
    stage: Stage,
    pub(crate) offer: Offer,
    secrets: Vec<String>,
    server: Server,
    folder: TempDir,
    run: i64,
}

/// How one process is started, apart from what it is asked.
#[derive(Default)]
pub(crate) struct Ask {
    pub(crate) plan: Plan,
    pub(crate) drift: Option<Drift>,
    pub(crate) timeout_seconds: Option<i64>,
    pub(crate) terminate: bool,
}

impl Scene {
    /// Runs one request in a world where nothing goes wrong.
    pub(crate) async fn ask(&mut self, subject: &Subject, payload: ProviderRequest) -> Result<Run, String> {
        self.ask_with(subject, payload, Ask::default()).await
    }

    /// Runs one request.
    pub(crate) async fn ask_with(
        &mut self,
        subject: &Subject,
        payload: ProviderRequest,
        ask: Ask,
    ) -> Result<Run, String> {
        let envelope = self.envelope(subject, payload, ask.timeout_seconds.unwrap_or(TIMEOUT));
        let text = serde_json::to_string(&envelope).map_err(|error| format!("failed to write a request: {error}"))?;
        self.start(&envelope, Some(text.into()), Some(POD), ask).await
    }

    /// Runs with this text as its request; the API expects `envelope`.
    pub(crate) async fn ask_raw(
        &mut self,
        envelope: &Envelope<ProviderRequest>,
        request: Option<Vec<u8>>,
        pod: Option<&str>,
    ) -> Result<Run, String> {
        self.start(envelope, request.map(OsString::from_vec), pod, Ask::default()).await
    }

    /// The request for a subject under the next run's number.
    pub(crate) fn envelope(
        &mut self,
        subject: &Subject,
        payload: ProviderRequest,
        timeout_seconds: i64,
    ) -> Envelope<ProviderRequest> {
        self.run += 1;
        let undo = matches!(payload, ProviderRequest::Delete { .. });
        Envelope {
            owner: subject.owner.clone(),
            step: "create".into(),
            run: self.run,
            epoch: 3,
            direction: if undo { Direction::Undo } else { Direction::Forward },
            input_hash: "v1:0123456789abcdef0123456789abcdef".into(),
            timeout_seconds,
            installation: INSTALLATION.into(),
            payload,
        }
    }

    async fn start(
        &mut self,
        envelope: &Envelope<ProviderRequest>,
        request: Option<OsString>,
        pod: Option<&str>,
        ask: Ask,
    ) -> Result<Run, String> {
        let job = self.job();
        let end = match (&ask.plan, ask.terminate) {
            (_, true) => End::Terminate,
            (Plan::CutBefore(_) | Plan::CutAfter(_), false) => End::Kill,
            _ => End::ByItself,
        };
        let world_environment = {
            let mut state = self.server.state.lock().await;
            state.claims.expect(envelope, &job, ask.drift);
            state.log.clear();
            state.plan = ask.plan;
            let environment = state.world.environment(&self.server.origin, self.folder.path());
            environment.map_err(|error| format!("failed to write the provider's credentials: {error}"))?
        };
        let kubeconfig = self.folder.path().join("kubeconfig").display().to_string();
        let environment = [vec![("KUBECONFIG".to_owned(), kubeconfig)], world_environment].concat();
        let deadline = Duration::from_secs(u64::try_from(envelope.timeout_seconds).unwrap_or(1).min(600));
        let start = Start {
            provider: &self.stage.provider,
            folder: self.folder.path(),
            request,
            job: &job,
            pod,
            environment,
            deadline,
            end,
        };
        let run = process::start(start, &self.server.reached).await?;
        self.server.state.lock().await.plan = Plan::Fine;
        if let Ok(mut findings) = self.stage.findings.lock() {
            findings.extend(process::inspect(&run, end, &self.secrets));
        }
        Ok(run)
    }

    /// Name of the Job of the last run.
    pub(crate) fn job(&self) -> String {
        format!("prov-{:032}", self.run)
    }

    /// Who holds the Lease of the last run.
    pub(crate) async fn holder(&self) -> Option<String> {
        self.server.state.lock().await.claims.holder(&self.job()).map(str::to_owned)
    }

    /// Calls of the last process.
    pub(crate) async fn log(&self) -> Vec<Entry> {
        self.server.state.lock().await.log.clone()
    }

    /// Calls of the last process to the world.
    pub(crate) async fn calls(&self) -> Vec<Entry> {
        self.log().await.into_iter().filter(|entry| entry.to_world).collect()
    }

    /// What is really there.
    pub(crate) async fn resources(&self) -> Vec<Resource> {
        self.server.state.lock().await.world.resources().await
    }

    /// Machines that carry a uid.
    pub(crate) async fn machines(&self, uid: &str) -> Vec<Resource> {
        let is_wanted = |resource: &Resource| resource.what == MACHINE && resource.tags.uid == uid;
        self.resources().await.into_iter().filter(is_wanted).collect()
    }

    /// Puts a machine there that the provider did not make.
    pub(crate) async fn plant(&self, tags: &Tags) -> String {
        self.server.state.lock().await.world.plant(tags).await
    }

    pub(crate) async fn take_on(&self, quirk: Quirk) -> bool {
        self.server.state.lock().await.world.take_on(quirk)
    }

    pub(crate) async fn refusal(&self, refusal: Refusal) -> Reply {
        self.server.state.lock().await.world.refusal(refusal)
    }

    /// The one machine of a subject, or what is there instead.
    pub(crate) async fn one_machine(&self, subject: &Subject, after: &str) -> Result<Resource, String> {
        let machines = self.machines(&subject.owner.uid).await;
        match machines.as_slice() {
            [machine] => Ok(machine.clone()),
            others => {
                let ids: Vec<&str> = others.iter().map(|machine| machine.id.as_str()).collect();
                Err(format!("{after}: {} machines carry the owner's uid, expected 1: {}", ids.len(), ids.join(", ")))
            }
        }
    }

    /// Creates the subject's machine and makes sure that it is there.
    pub(crate) async fn created(&mut self, subject: &Subject) -> Result<StepResult, String> {
        let run = self.ask(subject, subject.create()).await?;
        let result = succeeded(&run, "create")?;
        self.one_machine(subject, "create").await?;
        Ok(result)
    }
}

/// uid of the Pod that runs the provider.
pub(crate) const POD: &str = "b7a1c2d3-1111-4222-8333-944455566677";

/// The result of a run that has to succeed.
pub(crate) fn succeeded(run: &Run, what: &str) -> Result<StepResult, String> {
    match &run.result {
        Some(result) if result.class.is_none() => Ok(result.clone()),
        _ => Err(format!("{what}: expected success, got {}", words(run))),
    }
}

/// The result of a run that has to fail with this class.
pub(crate) fn failed(run: &Run, class: FailureClass, what: &str) -> Result<StepResult, String> {
    match &run.result {
        Some(result) if result.class == Some(class) => Ok(result.clone()),
        _ => Err(format!("{what}: expected {class:?}, got {}", words(run))),
    }
}

/// The end of what it said on standard error: where a provider can't even be started, nothing else tells why.
fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = tail(&lines[lines.len().saturating_sub(5)..].join(" | "), 400);
    if last.is_empty() { String::new() } else { format!("; standard error ends with: {last}") }
}

/// A result in words.
pub(crate) fn words(run: &Run) -> String {
    match &run.result {
        None if process::signalled(run.status) => "no result: the process was killed".to_owned(),
        None => format!("no result, {}{}", run.status, last_words(&run.stderr)),
        Some(StepResult { class: None, outputs, .. }) => format!("success with outputs {outputs:?}"),
        Some(StepResult { class: Some(class), reason, message, .. }) => format!("{class:?} ({reason}: {message})"),
    }
}
