//! Stage 4 (client): executors for what is durable.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::names::{ANNOTATION_INPUT_HASH, LABEL_OWNER_UID, MANAGER};
use provisioning_api::steps::{FailureClass, StepStatus};
use provisioning_plan::ids::job_name;
use provisioning_plan::observed::{Outcome, RunView};
use provisioning_sdk::request::Owner;

use super::jobs::Run;
use super::kind::{Kind, Task};
use super::observe::Seen;
use super::persist::Stored;
use super::runs::{Knowledge, RunKey};
use super::{fence, finalize, give_up};
use crate::context::Context;
use crate::error::Error;
use crate::{bundles, children};

/// What was done, and what it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// Something ended right here: look again at once.
    pub again: bool,
    /// The object is finished with; it has no finalizer of ours any more.
    pub gone: bool,
    /// Look again then, milliseconds from now.
    pub in_millis: Option<i64>,
}

/// Does what the stored decision says.
///
/// # Errors
/// The first request that failed. The next pass repeats it.
pub async fn act<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>) -> Result<Acted, Error> {
    let mut acted = Acted::default();
    // A request that fails keeps no later stage from being tried: what is durable is acted on, whoever else is refused.
    let mut failed = None;
    for id in stored.decision.start.iter().chain(&stored.decision.resume) {
        acted.again |= keep_first(&mut failed, execute(ctx, seen, stored, id).await).unwrap_or(false);
    }
    for id in &stored.decision.give_up {
        let Some(step) = stored.decision.steps.iter().find(|step| step.id == *id) else { continue };
        match keep_first(&mut failed, give_up::give_up(ctx, &stored.object, step).await) {
            Some(give_up::GivenUp::Over) => acted.again = true,
            Some(give_up::GivenUp::NotYet) => acted.in_millis = Some(2_000),
            None => {}
        }
    }
    let ended = ended_steps(seen, stored);
    keep_first(&mut failed, finalize::close_jobs(ctx, &stored.object).await);
    keep_first(&mut failed, stored.object.after_end(ctx, &seen.facts, &ended).await);
    match failed {
        Some(error) => Err(error),
        None => finish(ctx, seen, stored, acted).await,
    }
}

/// The rest, which waits until all before it has succeeded.
async fn finish<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>, mut acted: Acted) -> Result<Acted, Error> {
    stored.object.release(ctx, false).await?;
    acted.in_millis = [acted.in_millis, finalize::clean_jobs(ctx, &stored.object).await?].into_iter().flatten().min();
    acted.gone = finalize::finish(ctx, seen, stored).await?;
    Ok(acted)
}

/// The value, or nothing and the first error kept.
fn keep_first<T>(failed: &mut Option<Error>, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::debug!(error = error.chain(), "a request of this pass failed");
            failed.get_or_insert(error);
            None
        }
    }
}

/// Entries whose end this pass has made durable.
fn ended_steps<K: Kind>(seen: &Seen<K>, stored: &Stored<K>) -> Vec<StepStatus> {
    let ended = |step: &&StepStatus| matches!(seen.observed.get(&step.id), Some(RunView::Ended(_)));
    stored.decision.steps.iter().filter(ended).cloned().collect()
}

/// Makes the executor of one open run, or the one API write that takes its place. True: it ended right here.
async fn execute<K: Kind>(ctx: &Context, seen: &Seen<K>, stored: &Stored<K>, id: &str) -> Result<bool, Error> {
    let Some(step) = stored.decision.steps.iter().find(|step| step.id == *id) else { return Ok(false) };
    let uid = stored.object.uid().unwrap_or_default();
    let key: RunKey = (uid, step.id.clone(), step.run);
    let task = match stored.object.task(&seen.facts, step) {
        Ok(task) => task,
        Err(why) => {
            let mut outcome = Outcome::failed(FailureClass::Transient, "NotPossibleNow", why);
            outcome.harmless = true;
            ctx.runs.set(key, Knowledge::Over(outcome));
            return Ok(true);
        }
    };
    if matches!(task, Task::Apply(_) | Task::Delete(_) | Task::DeleteNamed(_)) {
        fence::confirm(ctx, &stored.object, step, stored.written).await?;
    }
    match &task {
        Task::Apply(child) => children::apply(ctx, &stored.object, step, child, key).await,
        Task::Delete(child) => children::delete(ctx, &stored.object, child, key).await,
        Task::DeleteNamed(child) => children::delete_named(ctx, &stored.object, child, key).await,
        Task::Watch => {
            ctx.runs.set(key, Knowledge::Created(ctx.now()));
            Ok(false)
        }
        Task::Provider { .. } => create_executor(ctx, stored, step, &task, key).await,
        Task::Runner { bundle, .. } => {
            if let Some(bundle) = bundle {
                bundles::copy(ctx, &stored.object.namespace().unwrap_or_default(), bundle).await?;
            }
            create_executor(ctx, stored, step, &task, key).await
        }
    }
}

async fn create_executor<K: Kind>(
    ctx: &Context,
    stored: &Stored<K>,
    step: &StepStatus,
    task: &Task,
    key: RunKey,
) -> Result<bool, Error> {
    let object = &stored.object;
    let owner = Owner {
        kind: K::KIND.to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    };
    let Some(direction) = step.open_direction() else { return Ok(false) };
    let image = &ctx.settings.runner_image;
    let run = Run { owner, step, direction, task, installation: &ctx.installation, image };
    let encode = |source| Error::Encode { object: format!("Job of step {}", step.id), source };
    let Some((job, adopted)) = create_or_adopt::<Job>(ctx, &run.job().map_err(encode)?, step).await? else {
        ctx.runs.set(key, Knowledge::Over(name_conflict(&run.name())));
        return Ok(true);
    };
    let pod = run.pod(&job.uid().unwrap_or_default()).map_err(encode)?;
    if create_or_adopt::<Pod>(ctx, &pod, step).await?.is_none() {
        ctx.runs.set(key, Knowledge::Over(name_conflict(&run.name())));
        return Ok(true);
    }
    if adopted { &ctx.metrics.jobs_adopted } else { &ctx.metrics.jobs_created }.inc();
    ctx.runs.set(key, Knowledge::Created(ctx.now()));
    Ok(false)
}

/// (pure) The end of a run whose name is taken.
pub(crate) fn name_conflict(name: &str) -> Outcome {
    let text = format!("a Job or Pod named {name} exists and is not ours: delete it, then ask for a retry");
    let mut outcome = Outcome::failed(FailureClass::Invalid, reasons::NAME_CONFLICT, text);
    outcome.harmless = true;
    outcome
}

/// Creates an object; one that exists already is adopted (true) if it carries our uid and input hash. `None`: it is not
/// ours.
async fn create_or_adopt<T>(ctx: &Context, wanted: &T, step: &StepStatus) -> Result<Option<(T, bool)>, Error>
where
    T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let object = format!("{} {namespace}/{name}", T::kind(&()));
    let api: Api<T> = Api::namespaced(ctx.client.clone(), &namespace);
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, wanted).await {
        Ok(created) => Ok(Some((created, false))),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let found = api.get(&name).await.map_err(|source| Error::request("read", &object, source))?;
            let same_owner = found.labels().get(LABEL_OWNER_UID) == wanted.labels().get(LABEL_OWNER_UID);
            let same_input = found.annotations().get(ANNOTATION_INPUT_HASH) == Some(&step.input_hash);
            Ok((same_owner && same_input).then_some((found, true)))
        }
        Err(source) => Err(Error::request("create", object, source)),
    }
}

/// Name of the Job, Pod and Lease of an entry's last run.
pub fn run_name<K: Kind>(object: &K, step: &StepStatus) -> String {
    job_name(&object.uid().unwrap_or_default(), &step.id, step.run)
}
