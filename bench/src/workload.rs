//! What the operator is given to do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use provisioning_api::conditions::types::STALLED;
use provisioning_api::names::{LABEL_MANAGED_BY, MANAGER, WORKSPACE_NAME};
use provisioning_api::steps::StepPhase;
use provisioning_api::{BatchWorkflow, ProviderConfig, Server, Taskserv, Workspace};
use provisioning_e2e::{Kind, describe, is_ready, is_true};
use serde_json::{Value, json};

/// Workflows of a block: with the Workspace and the ProviderConfig they make 200 objects.
const WORKFLOWS: usize = 22;
/// Servers of a workflow, each with a Taskserv.
const SERVERS: usize = 4;
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A namespace and what is applied in it.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The namespace.
    pub(crate) namespace: String,
    workspace: Value,
    workflows: Vec<Value>,
}

/// Pairs of a Server and a Redis on it, one after the other: nothing ever runs beside anything else.
pub(crate) fn chain(links: usize) -> Load {
    let mut steps = Vec::new();
    for link in 1..=links {
        let (server, redis) = (format!("heron-{link}"), format!("redis-{link}"));
        let after = (link > 1).then(|| format!("redis-{}", link - 1));
        steps.push(server_step(&server, after.as_deref()));
        steps.push(redis_step(&redis, &server));
    }
    let workflow = workflow("chain", &json!({"parallelism": 1, "steps": steps}));
    Load { namespace: "bench-chain".to_owned(), workspace: json!({"parallelism": 1}), workflows: vec![workflow] }
}

/// 200 objects: workflows that make Servers and a Redis on each, in a workspace as it comes.
pub(crate) fn block(number: u16) -> Load {
    let workflows = (1..=WORKFLOWS).map(|flock| {
        let steps = (1..=SERVERS).flat_map(|bird| {
            let (server, redis) = (format!("heron-{flock}-{bird}"), format!("redis-{flock}-{bird}"));
            [server_step(&server, None), redis_step(&redis, &server)]
        });
        workflow(&format!("flock-{flock}"), &json!({"steps": steps.collect::<Vec<_>>()}))
    });
    Load { namespace: format!("bench-{number}"), workspace: json!({}), workflows: workflows.collect() }
}

fn workflow(name: &str, spec: &Value) -> Value {
    object("BatchWorkflow", name, spec)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn server_step(name: &str, after: Option<&str>) -> Value {
    let spec = json!({"providerConfigRef": {"name": "local"}, "providerSize": "small",
        "image": {"os": "debian", "version": "12"}});
    step(name, after, &json!({"server": {"name": name, "spec": spec}}))
}

/// Reachable from other machines, so that the operator's probe is asked.
fn redis_step(name: &str, server: &str) -> Value {
    let spec = json!({"extension": {"name": "redis"}, "servers": [server], "parameters": {"bind": "0.0.0.0"}});
    step(name, Some(server), &json!({"taskserv": {"name": name, "spec": spec}}))
}

fn step(name: &str, after: Option<&str>, apply: &Value) -> Value {
    let needs: Vec<Value> = after.iter().map(|other| json!({"step": other, "type": "Hard"})).collect();
    json!({"name": name, "dependsOn": needs, "apply": apply})
}

impl Load {
    /// Writes everything: the workspace first, as a person would.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn apply(&self, client: &Client) -> Result<()> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": self.namespace, "labels": labels}}))?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.with_context(|| self.namespace.clone())?;
        self.create::<Workspace>(client, object("Workspace", WORKSPACE_NAME, &self.workspace)).await?;
        self.create::<ProviderConfig>(client, object("ProviderConfig", "local", &json!({"type": "Local"}))).await?;
        for workflow in &self.workflows {
            self.create::<BatchWorkflow>(client, workflow.clone()).await?;
        }
        Ok(())
    }

    async fn create<K: Kind>(&self, client: &Client, object: Value) -> Result<()> {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await.context("create an object")?;
        Ok(())
    }

    /// Waits until all workflows are Ready.
    ///
    /// # Errors
    /// When one is Stalled, or after `deadline`, with how it stands.
    pub(crate) async fn ready(&self, client: &Client, deadline: Duration) -> Result<()> {
        let api: Api<BatchWorkflow> = Api::namespaced(client.clone(), &self.namespace);
        let began = Instant::now();
        loop {
            let all = api.list(&ListParams::default()).await?;
            let Some(open) = all.iter().find(|workflow| !is_ready(*workflow)) else { return Ok(()) };
            if is_true(open, STALLED) || began.elapsed() > deadline {
                bail!("{}: not Ready:\n{}", self.namespace, describe(open));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// How many Jobs of the operator there are.
///
/// # Errors
/// What the API server said.
pub(crate) async fn jobs(client: &Client) -> Result<usize> {
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    Ok(Api::<Job>::all(client.clone()).list_metadata(&ours).await?.items.len())
}

/// What there is, and what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    kinds: BTreeMap<String, usize>,
    /// Objects that are Ready for their generation.
    pub(crate) ready: usize,
    /// Steps that succeeded.
    pub(crate) steps: usize,
    /// Runs of these.
    pub(crate) runs: i64,
}

impl Standing {
    /// All objects.
    pub(crate) fn objects(&self) -> usize {
        self.kinds.values().sum()
    }

    fn count<K: Kind>(&mut self, object: &K) {
        *self.kinds.entry(K::kind(&()).into_owned()).or_default() += 1;
        self.ready += usize::from(is_ready(object));
        let succeeded = object.steps().iter().filter(|step| step.phase == StepPhase::Succeeded);
        self.steps += succeeded.clone().count();
        self.runs += succeeded.map(|step| step.run).sum::<i64>();
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let (objects, Standing { ready, steps, runs, .. }) = (self.objects(), self);
        write!(
            formatter,
            "{objects} objects, {ready} of them Ready ({}); {steps} steps succeeded in {runs} runs",
            kinds.join(", ")
        )
    }
}

/// Counts what is in the namespaces of some loads.
///
/// # Errors
/// What the API server said.
pub(crate) async fn standing(client: &Client, loads: &[Load]) -> Result<Standing> {
    let mut standing = Standing::default();
    for Load { namespace, .. } in loads {
        add::<Workspace>(client, namespace, &mut standing).await?;
        add::<ProviderConfig>(client, namespace, &mut standing).await?;
        add::<Server>(client, namespace, &mut standing).await?;
        add::<Taskserv>(client, namespace, &mut standing).await?;
        add::<BatchWorkflow>(client, namespace, &mut standing).await?;
    }
    Ok(standing)
}

async fn add<K: Kind>(client: &Client, namespace: &str, standing: &mut Standing) -> Result<()> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    for object in api.list(&ListParams::default()).await? {
        standing.count(&object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(load: &Load) -> Vec<BatchWorkflow> {
        load.workflows.iter().map(|workflow| serde_json::from_value(workflow.clone()).unwrap()).collect()
    }

    #[test]
    fn a_block_makes_two_hundred_objects() {
        let made: usize = read(&block(3)).iter().map(|workflow| 1 + workflow.spec.steps.len()).sum();
        assert_eq!(made + 2, 200);
    }

    #[test]
    fn in_the_chain_each_step_waits_for_the_one_before() {
        let chain = read(&chain(3)).remove(0);
        let steps = &chain.spec.steps;
        assert_eq!((steps.len(), chain.spec.parallelism), (6, 1));
        let needs: Vec<_> = steps.iter().map(|step| step.depends_on.first().map(|need| need.step.clone())).collect();
        let before = steps.iter().map(|step| Some(step.name.clone()));
        assert_eq!(needs, std::iter::once(None).chain(before).take(6).collect::<Vec<_>>());
    }
}
