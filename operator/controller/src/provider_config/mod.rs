//! ProviderConfig: one step, describe, that asks the provider what it offers.

use std::future::Future;

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use provisioning_api::ProviderConfig;
use provisioning_api::conditions::reasons;
use provisioning_api::names::{LOCAL_PROVIDER_ACCOUNT, LOCAL_PROVIDER_SITE_ROLE};
use provisioning_api::shared::RetryPolicy;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_plan::conditions::Standing;
use provisioning_plan::decision::RemovedSteps;
use provisioning_plan::graph::{Gate, Graph, Step};
use provisioning_plan::ids::{InputHash, StepId};
use provisioning_sdk::request::ProviderRequest;

use crate::context::Context;
use crate::engine::kind::{Kind, Task, WorkspaceView, all_in_namespace};
use crate::engine::observe::reconcile_request;
use crate::error::Error;
use crate::guarded::Guarded;
use crate::watches::Stores;
use crate::workspace::accounts;

const DESCRIBE: &str = "describe";
const DESCRIBE_TIMEOUT: i64 = 60;

/// What a ProviderConfig looks at.
#[derive(Debug)]
pub struct Facts {
    /// Servers that refer to it.
    pub servers: Vec<String>,
    /// Value of the reconcile annotation: a new one is a new question.
    pub asked: Option<String>,
    /// Sites that may be used.
    pub sites: Vec<String>,
    /// Whether the executors' accounts are there.
    pub grounded: bool,
}

impl Kind for ProviderConfig {
    const KIND: &'static str = "ProviderConfig";
    type Facts = Facts;

    fn store(stores: &Stores) -> &Store<Guarded<Self>> {
        &stores.provider_configs
    }

    fn observe(
        &self,
        ctx: &Context,
        workspace: Option<&WorkspaceView>,
    ) -> impl Future<Output = Result<Facts, Error>> + Send {
        let namespace = self.namespace().unwrap_or_default();
        let grounded = workspace.is_some_and(|workspace| workspace.ssh_public_key.is_some());
        let allowed = ctx.settings.sites.contains(&self.spec.site);
        let wanted = grounded && allowed && self.metadata.deletion_timestamp.is_none();
        let referrers = referrers(ctx, &namespace, &self.name_any());
        let facts =
            Facts { servers: referrers, asked: reconcile_request(self), sites: ctx.settings.sites.clone(), grounded };
        async move {
            if wanted {
                let binding = accounts::site_binding(&namespace);
                accounts::bind(
                    ctx,
                    &self.spec.site,
                    &binding,
                    LOCAL_PROVIDER_SITE_ROLE,
                    &namespace,
                    LOCAL_PROVIDER_ACCOUNT,
                )
                .await?;
            }
            Ok(facts)
        }
    }

    fn graph(&self, facts: &Facts, _: &[StepStatus]) -> Result<Graph, Standing> {
        let site = &self.spec.site;
        if !facts.sites.contains(site) {
            let hint = provisioning_plan::nearest::hint(site, facts.sites.iter().map(String::as_str));
            let text =
                format!("spec.site: '{site}' is no site of this installation{hint}; it has {}", facts.sites.join(", "));
            return Err(Standing::stalled(reasons::INVALID, text));
        }
        let step = Step {
            id: StepId::new(DESCRIBE),
            action: StepAction::Describe,
            why: format!("what {:?} offers", self.spec.type_),
            input_hash: Some(InputHash::of(&(self.spec.type_, &self.spec.site, &facts.asked))),
            depends_on: Vec::new(),
            undo: UndoAction::None,
            retry: RetryPolicy::default(),
            gate: if facts.grounded {
                Gate::Open
            } else {
                Gate::Waiting("the Workspace has not made its accounts yet".to_owned())
            },
            when: None,
        };
        Graph::new(vec![step]).map_err(|error| Standing::stalled(reasons::INVALID, error.to_string()))
    }

    fn task(&self, _: &Facts, _: &StepStatus) -> Result<Task, String> {
        let request = ProviderRequest::Describe { site: self.spec.site.clone() };
        Ok(Task::Provider { request, timeout_seconds: DESCRIBE_TIMEOUT })
    }

    fn publish(&mut self, _: &Facts) {
        let status = self.status.get_or_insert_default();
        let Some(step) = status.run.steps.iter_mut().find(|step| step.id == DESCRIBE) else { return };
        if step.phase != StepPhase::Succeeded {
            return;
        }
        // The answer moves into fields of its own; kept twice it would only cost space.
        let outputs = std::mem::take(&mut step.outputs);
        let read = |name: &str| outputs.get(name).map(String::as_str).unwrap_or("[]").to_owned();
        if outputs.is_empty() {
            return;
        }
        status.zones = serde_json::from_str(&read("zones")).unwrap_or_default();
        status.sizes = serde_json::from_str(&read("sizes")).unwrap_or_default();
        status.images = serde_json::from_str(&read("images")).unwrap_or_default();
    }

    fn standing(&self, _: &Facts, _: &Standing) -> Option<Standing> {
        let status = self.status.as_ref()?;
        let described = status.run.steps.iter().any(|step| step.id == DESCRIBE && step.phase == StepPhase::Succeeded);
        let zone = self.spec.zone.as_ref().filter(|zone| described && !status.zones.contains(zone))?;
        let hint = provisioning_plan::nearest::hint(zone, status.zones.iter().map(String::as_str));
        let text = format!("spec.zone: the provider has no zone '{zone}'{hint}; it has {}", status.zones.join(", "));
        Some(Standing::stalled(reasons::INVALID, text))
    }

    fn removed(&self) -> RemovedSteps {
        RemovedSteps::Forget
    }

    fn held_by(&self, facts: &Facts) -> Option<String> {
        let servers: Vec<String> = facts.servers.iter().map(|name| format!("Server {name}")).collect();
        (!servers.is_empty()).then(|| format!("waits until nothing refers to it: {}", servers.join(", ")))
    }
}

/// Servers that refer to a ProviderConfig. One that cannot be read may be one of them, and holds it too.
fn referrers(ctx: &Context, namespace: &str, name: &str) -> Vec<String> {
    let all = all_in_namespace(&ctx.stores.servers, namespace);
    let mine = all
        .iter()
        .filter(|guarded| guarded.0.as_ref().map_or(true, |server| server.spec.provider_config_ref.name == name));
    mine.map(|guarded| guarded.name_any()).collect()
}
