//! The claim: nothing acts before it holds its run (protocols §2, step 4).

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use provisioning_api::Workspace;
use provisioning_api::names::{GROUP, LABEL_MANAGED_BY, LABEL_OWNER_UID, MANAGER, VERSION, WORKSPACE_NAME};
use provisioning_api::steps::{Direction, RunStatus};

use crate::request::{Envelope, Owner};

/// A read of the owner older than this is no basis for a mutating call.
const FRESH: Duration = Duration::from_secs(30);

/// When a read began, by two clocks: one stands still while a machine sleeps, the other may be set.
#[derive(Clone, Copy, Debug)]
struct ReadAt {
    steady: Instant,
    wall: SystemTime,
}

impl ReadAt {
    fn now() -> Self {
        ReadAt { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether both clocks say that it was a moment ago. A wall clock that was set back says nothing.
    fn is_fresh(self, now: ReadAt) -> bool {
        let steady = now.steady.duration_since(self.steady);
        steady <= FRESH && now.wall.duration_since(self.wall).is_ok_and(|wall| wall <= FRESH)
    }
}

/// Why an executor may not act.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The run was given up, superseded, or is somebody else's. Nothing was done.
    #[error("this run may not act: {0}")]
    Refused(String),
    /// The API server could not be asked. Nothing was done since.
    #[error("failed to ask the API server about the claim of {object}")]
    Request {
        /// What was asked for.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Which Pod of which Job this process is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the Job and of the Lease.
    pub job_name: String,
    /// uid of the Pod: the holder.
    pub pod_uid: String,
}

/// A held claim. [`Claim::confirm`] goes before every mutating call.
pub struct Claim {
    client: Client,
    owner: Owner,
    step: String,
    run: i64,
    direction: Direction,
    input_hash: String,
    read_at: ReadAt,
}

impl Claim {
    /// Creates the Lease of this run and reads owner and Workspace, uncached.
    ///
    /// # Errors
    /// [`ClaimError::Refused`] where another pod holds the Lease or status no longer has this run open.
    pub async fn acquire<P>(client: Client, envelope: &Envelope<P>, identity: &Identity) -> Result<Self, ClaimError> {
        create_lease(&client, envelope, identity).await?;
        let mut claim = Claim {
            client,
            owner: envelope.owner.clone(),
            step: envelope.step.clone(),
            run: envelope.run,
            direction: envelope.direction,
            input_hash: envelope.input_hash.clone(),
            read_at: ReadAt::now(),
        };
        let epoch = claim.read_open_step().await?;
        let workspaces: Api<Workspace> = Api::namespaced(claim.client.clone(), &claim.owner.namespace);
        let workspace = workspaces.get(WORKSPACE_NAME).await.map_err(|source| request("the Workspace", source))?;
        let current = workspace.status.map_or(0, |status| status.epoch);
        if epoch != current {
            return Err(ClaimError::Refused(format!(
                "the step was started under epoch {epoch}, the workspace is at {current}"
            )));
        }
        Ok(claim)
    }

    /// Makes sure that the last look at the owner is at most 30 s old; looks again where it is older.
    ///
    /// # Errors
    /// [`ClaimError::Refused`] where the run is no longer open.
    pub async fn confirm(&mut self) -> Result<(), ClaimError> {
        if !self.read_at.is_fresh(ReadAt::now()) {
            self.read_open_step().await?;
        }
        Ok(())
    }

    /// Reads the owner and compares; returns the epoch of the open entry.
    async fn read_open_step(&mut self) -> Result<i64, ClaimError> {
        let began = ReadAt::now();
        let gvk = GroupVersionKind::gvk(GROUP, VERSION, &self.owner.kind);
        let plural = format!("{}s", self.owner.kind.to_lowercase());
        let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.owner.namespace, &resource);
        let found = api
            .get_opt(&self.owner.name)
            .await
            .map_err(|source| request(&format!("{} {}", self.owner.kind, self.owner.name), source))?;
        let Some(object) = found else {
            return Err(ClaimError::Refused(format!("{} {} is gone", self.owner.kind, self.owner.name)));
        };
        let epoch = self.compare(&object).map_err(ClaimError::Refused)?;
        self.read_at = began;
        Ok(epoch)
    }

    fn compare(&self, object: &DynamicObject) -> Result<i64, String> {
        if object.uid().as_deref() != Some(self.owner.uid.as_str()) {
            return Err(format!("{} {} is another object now", self.owner.kind, self.owner.name));
        }
        if self.direction == Direction::Forward && object.metadata.deletion_timestamp.is_some() {
            return Err(format!("{} {} is being deleted", self.owner.kind, self.owner.name));
        }
        let status = object.data.get("status").cloned().unwrap_or_default();
        let run_status: RunStatus =
            serde_json::from_value(status).map_err(|error| format!("the owner's status cannot be read: {error}"))?;
        let Some(step) = run_status.steps.iter().find(|step| step.id == self.step) else {
            return Err(format!("step {} is no longer planned", self.step));
        };
        if step.open_direction() != Some(self.direction) || step.run != self.run {
            return Err(format!(
                "step {} is at run {} in phase {:?}, not at run {}",
                step.id, step.run, step.phase, self.run
            ));
        }
        if step.input_hash != self.input_hash {
            return Err(format!("the input of step {} has changed", step.id));
        }
        Ok(step.epoch)
    }
}

async fn create_lease<P>(client: &Client, envelope: &Envelope<P>, identity: &Identity) -> Result<(), ClaimError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &envelope.owner.namespace);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(identity.job_name.clone()),
            labels: Some(
                [(LABEL_MANAGED_BY, MANAGER), (LABEL_OWNER_UID, envelope.owner.uid.as_str())]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            // Not owned by the Job: the garbage collector would free a claim, while its holder still acts, as soon as
            // somebody deletes the Job. The operator removes both together.
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.pod_uid.clone()),
            acquire_time: Some(MicroTime(jiff::Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let held =
                leases.get(&identity.job_name).await.map_err(|source| request("the Lease of this run", source))?;
            let holder = held.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            // An unanswered create of our own may have landed before.
            if holder == identity.pod_uid {
                Ok(())
            } else {
                Err(ClaimError::Refused(format!("the run is held by {holder}")))
            }
        }
        Err(source) => Err(request("the Lease of this run", source)),
    }
}

fn request(object: &str, source: kube::Error) -> ClaimError {
    ClaimError::Request { object: object.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_fresh_only_where_both_clocks_say_so() {
        let then = ReadAt::now();
        let after = |steady, wall| ReadAt {
            steady: then.steady + Duration::from_secs(steady),
            wall: then.wall + Duration::from_secs(wall),
        };
        assert!(then.is_fresh(after(30, 30)));
        // Too long ago; the machine slept; the wall clock was set forward, stood still, was set back.
        assert!(!then.is_fresh(after(31, 31)) && !then.is_fresh(after(1, 31)) && !then.is_fresh(after(31, 0)));
        assert!(!then.is_fresh(ReadAt { steady: then.steady, wall: then.wall - Duration::from_secs(1) }));
    }
}
