//! The reference provider: the contract kept against the small cloud, in the shortest way; and, one at a time, the
//! mistakes that the suite has to notice. A new provider can begin as a copy without the mistakes.

mod cloud;
mod fault;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use provisioning_api::server::Creation;
use provisioning_api::steps::FailureClass;
use provisioning_sdk::claim::{Claim, ClaimError};
use provisioning_sdk::executor::{self, Context, claim_failure};
use provisioning_sdk::patience::Patience;
use provisioning_sdk::request::{Envelope, Owner, ProviderRequest};
use provisioning_sdk::result::StepResult;
use provisioning_sdk::values::{is_dns_label, is_tag_value, is_uid};
use provisioning_sdk::words::words;
use serde_json::json;
use tokio::time::sleep;

use self::cloud::{Cloud, CloudError, Machine};
pub use self::fault::Fault;

/// How long a list of the small cloud may be behind: an absence is believed after two empty lists that far apart.
const CONSISTENCY_WINDOW: Duration = Duration::from_millis(200);
/// Bytes of JSON that output `resources` may take: a result has 4096 in all, and quotes within it are escaped.
const ROOM: usize = 3000;

/// Runs one request, read from the environment, to its result.
pub async fn run(fault: Option<Fault>) -> ExitCode {
    if let Some(code) = fault::before(fault).await {
        return code;
    }
    let code = executor::run(move |context, envelope| handle(context, envelope, fault)).await;
    fault::after(fault, code)
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
enum ReferenceError {
    /// The run may not act.
    #[error(transparent)]
    ConfirmClaim(#[from] ClaimError),
    /// A call failed.
    #[error(transparent)]
    CallCloud(#[from] CloudError),
    /// A value of the request names nothing that could exist.
    #[error("{0}")]
    CheckRequest(String),
    /// Time is up.
    #[error("failed to see {0} in time")]
    AwaitState(&'static str),
}

impl ReferenceError {
    fn to_result(&self, fault: Option<Fault>) -> StepResult {
        match self {
            ReferenceError::ConfirmClaim(error) => claim_failure(error),
            ReferenceError::CallCloud(error) => {
                let class = fault::misread(fault, error.code(), error.class());
                let mut result = StepResult::failed(class, error.reason(), &words(self));
                result.retry_after_seconds = error.retry_after_seconds().filter(|_| fault != Some(Fault::LostWish));
                result
            }
            ReferenceError::CheckRequest(_) => StepResult::failed(FailureClass::Invalid, "BadRequest", &words(self)),
            ReferenceError::AwaitState(_) => StepResult::failed(FailureClass::Transient, "NotYet", &words(self)),
        }
    }
}

/// Answers one request.
async fn handle(context: Context, envelope: Envelope<ProviderRequest>, fault: Option<Fault>) -> StepResult {
    tracing::info!(step = envelope.step, run = envelope.run, "asking the small cloud");
    let mut provider = match Cloud::from_environment(fault) {
        Ok(cloud) => {
            Provider { cloud, claim: context.claim, owner: envelope.owner, installation: envelope.installation, fault }
        }
        Err(error) => return ReferenceError::from(error).to_result(fault),
    };
    let mut patience = Patience::new(envelope.timeout_seconds);
    let answer = match envelope.payload {
        ProviderRequest::Describe { .. } => provider.describe().await,
        ProviderRequest::Create { hostname, incarnation, creation } => {
            match provider.check(&hostname, incarnation, &creation) {
                Ok(()) => provider.create(&hostname, &creation, &mut patience).await,
                Err(why) => Err(ReferenceError::CheckRequest(why)),
            }
        }
        ProviderRequest::Observe { creation, .. } => provider.observe(&creation, &mut patience).await,
        ProviderRequest::Delete { .. } => provider.delete(&mut patience).await,
        ProviderRequest::List { .. } => provider.list().await,
    };
    answer.unwrap_or_else(|error| error.to_result(fault))
}

struct Provider {
    cloud: Cloud,
    claim: Claim,
    owner: Owner,
    installation: String,
    fault: Option<Fault>,
}

impl Provider {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Before every call that changes something.
    async fn confirm(&mut self) -> Result<(), ReferenceError> {
        if !self.has(Fault::NeverRenews) {
            self.claim.confirm().await?;
        }
        Ok(())
    }

    /// What becomes a tag or a name is checked before anything is asked for with it.
    fn check(&self, hostname: &str, incarnation: i64, creation: &Creation) -> Result<(), String> {
        let good = is_uid(&self.owner.uid)
            && is_dns_label(&self.owner.namespace)
            && is_dns_label(&self.owner.name)
            && is_dns_label(hostname)
            && is_tag_value(&creation.token)
            && incarnation >= 0;
        if good || self.has(Fault::Trusting) {
            return Ok(());
        }
        Err("uid, names, token or incarnation of the request name nothing that could exist".to_owned())
    }

    /// Everything that carries the owner's uid.
    async fn owned(&self) -> Result<Vec<Machine>, CloudError> {
        self.cloud.machines(&[("installation", &self.installation), ("uid", &self.owner.uid)]).await
    }

    async fn describe(&self) -> Result<StepResult, ReferenceError> {
        let offers = self.cloud.offers().await?;
        let mut outputs: BTreeMap<String, String> =
            ["zones", "sizes", "images"].map(|key| (key.to_owned(), offers[key].to_string())).into();
        if self.has(Fault::PoorDescribe) {
            outputs.insert("images".to_owned(), "[]".to_owned());
        }
        Ok(StepResult::succeeded(outputs))
    }

    /// Find by uid and token, adopt, or create; then nothing else of the owner is left.
    async fn create(
        &mut self,
        hostname: &str,
        creation: &Creation,
        patience: &mut Patience,
    ) -> Result<StepResult, ReferenceError> {
        let found = match self.fault {
            Some(Fault::DoubleCreate) => Vec::new(),
            Some(Fault::AdoptsTwin) => self.cloud.machines(&[("token", &creation.token)]).await?,
            _ => self.owned().await?,
        };
        let is_ours = |machine: &&Machine| machine.tag("token") == creation.token && !machine.is_leaving();
        let ours = match found.iter().find(is_ours) {
            Some(starting) if self.has(Fault::HalfMade) && !starting.is_running() => {
                return Err(ReferenceError::CheckRequest(format!("{} is half made", starting.id)));
            }
            Some(other) if self.has(Fault::Replaces) && other.cores != i64::from(creation.cores) => {
                self.cloud.delete(&other.id.clone()).await?;
                let token = format!("{}-again", creation.token);
                self.cloud.create(self.wanted(hostname, creation), Some(&token)).await?
            }
            Some(machine) => machine.clone(),
            None => {
                self.confirm().await?;
                let token = (!self.has(Fault::IgnoredToken)).then_some(creation.token.as_str());
                let machine = self.cloud.create(self.wanted(hostname, creation), token).await?;
                tracing::info!(machine = machine.id, "created");
                machine
            }
        };
        loop {
            let mut extras = self.owned().await?;
            extras.retain(|extra| extra.id != ours.id && !self.spares(extra, creation));
            if extras.is_empty() {
                let outputs = BTreeMap::from([("hostKey".to_owned(), ours.host_key.clone())]);
                return Ok(StepResult::succeeded(outputs).with_external_id(ours.id));
            }
            self.remove(&extras).await?;
            if !patience.pause().await {
                return Err(ReferenceError::AwaitState("other machines of this server go"));
            }
        }
    }

    /// Providers that make doubles do not know them for what they are.
    fn spares(&self, extra: &Machine, creation: &Creation) -> bool {
        let is_double = extra.tag("token") == creation.token;
        self.has(Fault::NoSweep) || (is_double && matches!(self.fault, Some(Fault::DoubleCreate | Fault::IgnoredToken)))
    }

    fn wanted(&self, hostname: &str, creation: &Creation) -> serde_json::Value {
        let kind = if self.has(Fault::MissingTag) { "" } else { self.owner.kind.as_str() };
        let zone = if self.has(Fault::OwnZone) { "north-1" } else { creation.zone.as_str() };
        json!({
            "hostname": hostname, "zone": zone, "image": creation.image, "cores": creation.cores,
            "memoryMiB": creation.memory_mib, "diskGiB": creation.disk_gib, "userKey": creation.user_key,
            "tags": {
                "installation": self.installation, "namespace": self.owner.namespace, "kind": kind,
                "name": self.owner.name, "uid": self.owner.uid, "token": creation.token,
            },
        })
    }

    async fn remove(&mut self, machines: &[Machine]) -> Result<(), ReferenceError> {
        for machine in machines.iter().filter(|machine| !machine.is_leaving()) {
            self.confirm().await?;
            tracing::info!(machine = machine.id, "deleting");
            self.cloud.delete(&machine.id).await?;
        }
        Ok(())
    }

    /// Waits until the machine runs, or was missing from two lists.
    async fn observe(&mut self, creation: &Creation, patience: &mut Patience) -> Result<StepResult, ReferenceError> {
        if self.has(Fault::Touchy) {
            self.cloud.delete("m-none").await?;
        }
        let mut absent_before = self.has(Fault::HastyObserve);
        loop {
            let machines = self.owned().await?;
            let ours = machines.iter().find(|machine| machine.tag("token") == creation.token);
            match ours {
                None if absent_before => return Ok(gone()),
                None => {
                    absent_before = true;
                    sleep(CONSISTENCY_WINDOW).await;
                    continue;
                }
                Some(machine) if machine.is_running() => return Ok(self.running(machine)),
                Some(_) => absent_before = false,
            }
            if !patience.pause().await {
                return Err(ReferenceError::AwaitState("the machine run"));
            }
        }
    }

    fn running(&self, machine: &Machine) -> StepResult {
        let mut outputs = BTreeMap::from([
            ("state".to_owned(), "Running".to_owned()),
            ("address".to_owned(), machine.address.clone()),
            ("hostKey".to_owned(), machine.host_key.clone()),
        ]);
        if self.has(Fault::NoHostKey) {
            outputs.remove("hostKey");
        }
        StepResult::succeeded(outputs).with_external_id(machine.id.clone())
    }

    /// Deletes all of the owner's, and believes that it is gone after two empty lists.
    async fn delete(&mut self, patience: &mut Patience) -> Result<StepResult, ReferenceError> {
        let mut empty_before = false;
        loop {
            let machines = match self.fault {
                Some(Fault::ForeignDelete) => self.cloud.machines(&[("name", &self.owner.name)]).await?,
                _ => self.owned().await?,
            };
            if machines.is_empty() {
                if self.has(Fault::FailsOnAbsence) {
                    return Err(ReferenceError::CheckRequest("there is no such machine".to_owned()));
                }
                if empty_before {
                    return Ok(gone());
                }
                empty_before = true;
                sleep(CONSISTENCY_WINDOW).await;
                continue;
            }
            empty_before = false;
            self.remove(&machines).await?;
            if self.has(Fault::FalseAbsence) {
                return Ok(gone());
            }
            if !patience.pause().await {
                return Err(ReferenceError::AwaitState("the machine go"));
            }
        }
    }

    /// Everything of the installation, as far as it fits.
    async fn list(&self) -> Result<StepResult, ReferenceError> {
        let machines = self.cloud.machines(&[("installation", &self.installation)]).await?;
        let mut entries = Vec::new();
        let mut bytes = 2;
        for machine in &machines {
            let entry = json!({"name": machine.id, "namespace": machine.tag("namespace"),
                "owner": machine.tag("name"), "uid": machine.tag("uid"), "token": machine.tag("token")});
            let text = entry.to_string();
            // Counted as it will stand in the result, where each quote takes two bytes.
            bytes += text.len() + text.matches('"').count() + 1;
            if bytes > ROOM {
                break;
            }
            entries.push(entry);
        }
        let omitted = machines.len() - entries.len();
        Ok(StepResult::succeeded(BTreeMap::from([
            ("resources".to_owned(), json!(entries).to_string()),
            ("total".to_owned(), machines.len().to_string()),
            ("omitted".to_owned(), omitted.to_string()),
        ])))
    }
}

fn gone() -> StepResult {
    StepResult::succeeded(BTreeMap::from([("state".to_owned(), "Gone".to_owned())]))
}
