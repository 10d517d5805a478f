//! Server: create → observe → reach.

mod graph;
mod publish;

use std::collections::BTreeSet;

use kube::api::Api;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use provisioning_api::conditions::reasons;
use provisioning_api::server::InstalledFor;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{Direction, StepAction, StepStatus};
use provisioning_api::{ProviderConfig, Server, Taskserv};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::Graph;
use provisioning_sdk::request::{ProviderRequest, RunnerRequest, Target};

use crate::context::Context;
use crate::engine::kind::{Kind, Task, WorkspaceView, by_name, held_up_by, in_namespace, stuck};
use crate::engine::observe::reconcile_request;
use crate::error::Error;
use crate::guarded::Guarded;
use crate::watches::Stores;
use crate::{batch_workflow, taskserv};

/// Creating or deleting a machine may take this long, seconds.
const PROVIDER_TIMEOUT: i64 = 300;
/// Opening a first session may take this long, seconds.
const REACH_TIMEOUT: i64 = 120;

/// What a Server looks at.
#[derive(Debug)]
pub struct Facts {
    /// Its ProviderConfig, if there is one.
    pub provider: Option<ProviderConfig>,
    /// Names of all ProviderConfigs, for "did you mean".
    pub providers: Vec<String>,
    /// Public key that the machine shall trust.
    pub user_key: Option<String>,
    /// Taskservs that have an open step on it.
    pub busy_with: Vec<String>,
    /// uids of Taskservs that its list still names and that are gone without having left it.
    pub gone: BTreeSet<String>,
    /// Value of the reconcile annotation: a new one is a new look at the machine.
    pub asked: Option<String>,
    /// Value of the annotation that was acted on before.
    pub handled: Option<String>,
}

impl Kind for Server {
    const KIND: &'static str = "Server";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<Guarded<Self>> {
        &stores.servers
    }

    async fn observe(&self, ctx: &Context, workspace: Option<&WorkspaceView>) -> Result<Facts, Error> {
        let namespace = self.namespace().unwrap_or_default();
        let stores = &ctx.stores;
        Ok(Facts {
            provider: by_name(&stores.provider_configs, &namespace, &self.spec.provider_config_ref.name),
            providers: in_namespace(&stores.provider_configs, &namespace)
                .iter()
                .map(|other| other.name_any())
                .collect(),
            user_key: workspace.and_then(|workspace| workspace.ssh_public_key.clone()),
            busy_with: busy_with(stores, &namespace, &self.name_any()),
            gone: gone(ctx, self).await?,
            asked: reconcile_request(self),
            handled: self.run_status().and_then(|status| status.last_handled_reconcile_at.clone()),
        })
    }

    fn graph(&self, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
        graph::draw(self, facts, settled)
    }

    fn task(&self, _: &Facts, step: &StepStatus) -> Result<Task, String> {
        let creation = self.status.as_ref().and_then(|status| status.creation.clone());
        let creation = creation.ok_or("the parameters of the machine are not frozen yet")?;
        let incarnation = graph::incarnation(self);
        let request = match (step.action, step.open_direction()) {
            (StepAction::Create, Some(Direction::Undo)) => ProviderRequest::Delete { incarnation, creation },
            (StepAction::Create, _) => ProviderRequest::Create { hostname: self.name_any(), incarnation, creation },
            (StepAction::Observe, _) => ProviderRequest::Observe { incarnation, creation },
            (StepAction::Reach, _) => {
                let target = target(self).ok_or("the machine has no address or host key yet")?;
                let request = RunnerRequest::Reach { target };
                return Ok(Task::Runner { request, bundle: None, timeout_seconds: REACH_TIMEOUT });
            }
            (
                StepAction::Describe
                | StepAction::Install
                | StepAction::Check
                | StepAction::Apply
                | StepAction::Delete
                | StepAction::Wait
                | StepAction::Run,
                _,
            ) => {
                return Err(format!("a Server has no step that does {:?}", step.action));
            }
        };
        Ok(Task::Provider { request, timeout_seconds: PROVIDER_TIMEOUT })
    }

    fn publish(&mut self, facts: &Facts) {
        publish::fill(self, facts);
    }

    fn standing(&self, facts: &Facts, by_steps: &Standing) -> Option<Standing> {
        let steps = &self.run_status()?.steps;
        let provider = facts.provider.as_ref().filter(|_| by_steps.reason == reasons::WAITING);
        if let Some(condition) = provider.and_then(stuck) {
            // Waiting would not end (L1); once the ProviderConfig moves again, so does this.
            let name = &self.spec.provider_config_ref.name;
            return Some(held_up_by("ProviderConfig", name, &condition.message));
        }
        graph::is_gone(steps).then(|| {
            let id = self.status.as_ref().and_then(|status| status.provider_id.clone()).unwrap_or_default();
            let text = format!(
                "the provider no longer has {id}: its disk is lost. Delete this Server and create it again; nothing is \
                 created in its place by itself"
            );
            Standing::stalled(reasons::SERVER_GONE, text)
        })
    }

    fn removed(&self) -> RemovedSteps {
        RemovedSteps::Forget
    }
}

/// Whether the provider has said that the machine of this Server is no more.
pub fn is_gone(server: &Server) -> bool {
    server.run_status().is_some_and(|status| graph::is_gone(&status.steps))
}

/// How a Server is reached over SSH, once that is known.
pub fn target(server: &Server) -> Option<Target> {
    let status = server.status.as_ref()?;
    Some(Target {
        server: server.name_any(),
        address: status.addresses.first()?.address.clone(),
        port: 22,
        user: "root".to_owned(),
        host_key: status.host_key.clone()?,
    })
}

/// Taskservs that the list names and that do not exist: somebody forced them away. The cache may not know yet of one that
/// was just made, so each is asked for.
async fn gone(ctx: &Context, server: &Server) -> Result<BTreeSet<String>, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let listed = server.status.as_ref().map(|status| status.installed.as_slice()).unwrap_or_default();
    let users: BTreeSet<&InstalledFor> =
        listed.iter().flat_map(|entry| entry.required_by.iter().chain([&entry.by])).collect();
    let api: Api<Taskserv> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut gone = BTreeSet::new();
    for InstalledFor { uid, name } in users {
        let is_known = ctx.stores.taskservs.find(|guarded| guarded.meta().uid.as_ref() == Some(uid)).is_some();
        if is_known {
            continue;
        }
        let found = api.get_metadata_opt(name).await;
        let found = found.map_err(|source| Error::request("read", format!("Taskserv {namespace}/{name}"), source))?;
        if found.and_then(|found| found.uid()).as_ref() != Some(uid) {
            gone.insert(uid.clone());
        }
    }
    Ok(gone)
}

fn busy_with(stores: &Stores, namespace: &str, server: &str) -> Vec<String> {
    let taskservs = in_namespace(&stores.taskservs, namespace);
    let taskservs = taskservs.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let taskservs = taskservs.filter(|taskserv| acts(*taskserv, |step| taskserv::server_of(&step.id) == Some(server)));
    let workflows = in_namespace(&stores.workflows, namespace);
    let workflows = workflows.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let workflows =
        workflows.filter(|workflow| acts(*workflow, |step| batch_workflow::server_of(step) == Some(server)));
    let taskservs = taskservs.map(|taskserv| format!("Taskserv {}", taskserv.name_any()));
    taskservs.chain(workflows.map(|workflow| format!("BatchWorkflow {}", workflow.name_any()))).collect()
}

/// Whether an object has an open step like this.
fn acts(object: &impl RunsSteps, is_it: impl Fn(&StepStatus) -> bool) -> bool {
    let steps = object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    steps.iter().any(|step| step.is_open() && is_it(step))
}
