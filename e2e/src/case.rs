//! One test: its namespace, its objects, its end.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use provisioning_api::names::{ANNOTATION_RECONCILE, LABEL_OWNER_NAMESPACE, WORKSPACE_NAME};
use provisioning_api::{ProviderConfig, Workspace};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::cluster::{Cluster, Output};
use crate::failure;
use crate::objects::Kind;
use crate::wait::until;

/// How long a workspace may take to go, servers included.
const TEARDOWN: Duration = Duration::from_secs(180);

/// A running test. Cheap to clone.
#[derive(Clone)]
pub struct Case {
    /// The test's function.
    pub name: String,
    /// The cluster under test.
    pub cluster: Cluster,
    /// The test's own namespace.
    pub namespace: String,
    began: Instant,
}

/// Runs a test: connects, makes the namespace, runs `body`, takes all down, prints the time. Whatever fails, `body`'s
/// panics included, is dumped to `target/e2e-failure/NAME/` before the teardown. With KEEP=1 a failed test's objects stay.
///
/// # Panics
/// With the cause, where the body or the teardown failed.
#[allow(clippy::panic)] // it is the test
pub fn case<F, B>(name: &str, body: B)
where
    B: FnOnce(Case) -> F,
    F: Future<Output = Result<()>> + 'static,
{
    let begin = Instant::now();
    let result =
        runtime().map_err(anyhow::Error::from).and_then(|runtime| LocalSet::new().block_on(&runtime, run(name, body)));
    let seconds = begin.elapsed().as_secs_f64();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    record(&format!("{seconds:7.1} s  {verdict:<6}  {name}"));
    if let Err(error) = result {
        panic!("{name}: {error:?}");
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Adds a line to `target/e2e-times.txt`, which `scripts/e2e` prints at the end, the longest time first.
pub fn record(line: &str) {
    eprintln!("{line}");
    let file = crate::repository().join("target/e2e-times.txt");
    let opened = OpenOptions::new().create(true).append(true).open(&file);
    if let Err(error) = opened.and_then(|mut file| writeln!(file, "{line}")) {
        eprintln!("{}: {error}", file.display());
    }
}

async fn run<F, B>(name: &str, body: B) -> Result<()>
where
    B: FnOnce(Case) -> F,
    F: Future<Output = Result<()>> + 'static,
{
    let case = Case::new(name).await?;
    let result = match tokio::task::spawn_local(body(case.clone())).await {
        Ok(result) => result,
        Err(error) => Err(match error.try_into_panic() {
            Ok(panic) => anyhow!("{}", words(panic.as_ref())),
            Err(error) => anyhow!(error),
        }),
    };
    if result.is_err() {
        failure::dump(&case).await;
        if std::env::var_os("KEEP").is_some() {
            eprintln!("{name}: kept namespace {}", case.namespace);
            return result;
        }
    }
    let teardown = case.teardown().await.context("teardown");
    if let (Ok(()), Err(_)) = (&result, &teardown) {
        failure::dump(&case).await;
    }
    result.and(teardown)
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Unique over the processes of one machine.
fn suffix() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Case {
    async fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        let short: String = name.replace('_', "-").chars().take(40).collect();
        let namespace = format!("{}-{}", short.trim_end_matches('-'), suffix());
        let case = Case { name: name.to_owned(), cluster, namespace, began: Instant::now() };
        case.create_namespace().await?;
        Ok(case)
    }

    /// Notes that a rule of this test was seen to hold, with the time since the test's beginning.
    pub fn rule(&self, rule: &str) {
        record(&format!("{:7.1} s  holds   {}: {rule}", self.began.elapsed().as_secs_f64(), self.name));
    }

    /// Another workspace for this test: same cluster, another namespace. The caller ends it with [`Case::teardown`].
    ///
    /// # Errors
    /// Where the namespace can't be made.
    pub async fn sibling(&self, suffix: &str) -> Result<Self> {
        let (name, namespace) = (format!("{}-{suffix}", self.name), format!("{}-{suffix}", self.namespace));
        let case = Case { name, namespace, ..self.clone() };
        case.create_namespace().await?;
        Ok(case)
    }

    /// Keeps what may tell the cause of a failure, as is done for a test that fails: `target/e2e-failure/NAME/`.
    pub async fn dump(&self) {
        failure::dump(self).await;
    }

    async fn create_namespace(&self) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        let api = Api::<Namespace>::all(self.cluster.client.clone());
        api.create(&Default::default(), &namespace).await.with_context(|| self.namespace.clone())?;
        Ok(())
    }

    /// Makes the Workspace and the ProviderConfig `local`, and waits until both are Ready.
    ///
    /// # Errors
    /// Where they don't become Ready.
    pub async fn workspace(&self) -> Result<()> {
        self.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
            "metadata": {"name": WORKSPACE_NAME}, "spec": {}}))
            .await?;
        self.apply(&json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "ProviderConfig",
            "metadata": {"name": "local"}, "spec": {"type": "Local"}}))
            .await?;
        self.ready::<Workspace>(WORKSPACE_NAME).await?;
        self.ready::<ProviderConfig>("local").await?;
        Ok(())
    }

    /// A small Debian Server.
    pub fn server(&self, name: &str) -> Value {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server", "metadata": {"name": name},
            "spec": server_spec()})
    }

    /// Redis on these servers, reachable from other machines.
    pub fn redis_on(&self, name: &str, servers: &[&str]) -> Value {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv", "metadata": {"name": name},
            "spec": {"extension": {"name": "redis"}, "servers": servers, "parameters": {"bind": "0.0.0.0"}}})
    }

    /// `kubectl apply` of an object in this test's namespace.
    ///
    /// # Errors
    /// What kubectl said.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        self.apply_yaml(&object.to_string()).await
    }

    /// `kubectl apply` of YAML documents (JSON is YAML) in this test's namespace.
    ///
    /// # Errors
    /// What kubectl said.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], yaml).await?.success()?;
        Ok(())
    }

    /// A folder of `examples/` as it is, but for the namespace, which this test has made.
    ///
    /// # Errors
    /// Where a file is not there, or names no namespace.
    pub fn example(&self, folder: &str) -> Result<String> {
        let mut text = String::new();
        for file in ["2-workspace.yaml", "3-provider.yaml", "4-workflow.yaml"] {
            let path = crate::repository().join("examples").join(folder).join(file);
            let yaml = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let theirs = format!("namespace: {folder}");
            ensure!(yaml.contains(&theirs), "{file} has no namespace");
            text.push_str(&format!("---\n{}\n", yaml.replace(&theirs, &format!("namespace: {}", self.namespace))));
        }
        Ok(text)
    }

    /// `kubectl -n NAMESPACE …`, to its end, whatever that is.
    ///
    /// # Errors
    /// Where it can't be started or does not end.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        self.cluster.kubectl(&[&["-n", &self.namespace], arguments].concat(), input).await
    }

    /// `provisioning -n NAMESPACE …`, to its end, whatever that is.
    ///
    /// # Errors
    /// Where it can't be started or does not end.
    pub async fn provisioning(&self, arguments: &[&str]) -> Result<Output> {
        self.cluster.provisioning(&[&["-n", &self.namespace], arguments].concat(), &[]).await
    }

    /// Asserts that `provisioning why` names the cause of an object's standing in these words. With `E2E_RECORD`, a folder,
    /// the objects are kept there for the tests of the command line without a cluster.
    ///
    /// # Errors
    /// Where a word is missing; with all that was said.
    pub async fn why<K: Kind>(&self, about: &str, name: &str, cause: &[&str]) -> Result<()> {
        let object = format!("{}/{name}", K::kind(&()).to_lowercase());
        let said = self.provisioning(&["why", &object]).await?.success()?;
        for words in cause {
            ensure!(said.contains(words), "{words:?} is not in what `why {object}` says:\n{said}");
        }
        let Some(folder) = std::env::var_os("E2E_RECORD") else { return Ok(()) };
        let list = self.kubectl(&["get", "provisioning", "-o", "json"], "").await?.success()?;
        let list: Value = serde_json::from_str(&list.replace(&self.namespace, "first"))?;
        let record = json!({"case": about, "object": object, "cause": cause, "objects": list["items"]});
        let file = format!("{} {}.yaml", about.replace(['/', ','], ""), object.replace('/', " ")).replace(' ', "-");
        std::fs::write(std::path::Path::new(&folder).join(file), serde_saphyr::to_string(&record)?)?;
        Ok(())
    }

    /// JSON merge patch of an object.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn patch<K: Kind>(&self, name: &str, patch: &Value) -> Result<K> {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("patch {} {name}: {patch}", K::kind(&())))
    }

    /// Asks for a new look at an object; the value is the time.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn reconcile<K: Kind>(&self, name: &str) -> Result<K> {
        let now = jiff::Timestamp::now().to_string();
        self.patch(name, &json!({"metadata": {"annotations": {ANNOTATION_RECONCILE: now}}})).await
    }

    /// Starts the deletion of an object.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn delete<K: Kind>(&self, name: &str) -> Result<()> {
        let parameters = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..Default::default() };
        self.api::<K>().delete(name, &parameters).await.with_context(|| format!("delete {} {name}", K::kind(&())))?;
        Ok(())
    }

    /// The pods of the site that belong to this workspace: servers and wipes.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn site_pods(&self) -> Result<Vec<Pod>> {
        let api = Api::<Pod>::namespaced(self.cluster.client.clone(), &self.cluster.site);
        let parameters = ListParams::default().labels(&format!("{LABEL_OWNER_NAMESPACE}={}", self.namespace));
        Ok(api.list(&parameters).await?.items)
    }

    /// Kind and name → resourceVersion of the objects that a user writes: they tell whether anything was written.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let objects = self.objects().await?.into_iter();
        Ok(objects.map(|object| (object.name, object.meta.resource_version.unwrap_or_default())).collect())
    }

    /// The disks on this machine that belong to servers of this workspace.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn disks(&self) -> Result<Vec<String>> {
        let folder = self.cluster.disks.join(&self.cluster.site).join(&self.namespace);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// Deletes the Workspace, and asserts that it takes everything with it: all objects, pods of the site, disks; and
    /// that the namespace can go then. A namespace that is gone already is fine.
    ///
    /// # Errors
    /// With what is left.
    pub async fn teardown(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        if namespaces.get_opt(&self.namespace).await?.is_none() {
            return self.nothing_left().await;
        }
        if self.api::<Workspace>().get_opt(WORKSPACE_NAME).await?.is_some() {
            self.delete::<Workspace>(WORKSPACE_NAME).await?;
            self.gone::<Workspace>(WORKSPACE_NAME, TEARDOWN).await?;
        }
        self.nothing_left().await?;
        namespaces.delete(&self.namespace, &Default::default()).await?;
        until(&format!("namespace {} gone", self.namespace), TEARDOWN, || async {
            Ok(match namespaces.get_opt(&self.namespace).await? {
                None => Ok(()),
                Some(namespace) => Err(serde_json::to_string(&namespace.status).unwrap_or_default()),
            })
        })
        .await
    }

    async fn nothing_left(&self) -> Result<()> {
        let pods: Vec<_> = self.site_pods().await?.iter().map(ResourceExt::name_any).collect();
        ensure!(pods.is_empty(), "pods of the site are left: {pods:?}");
        let disks = self.disks()?;
        ensure!(disks.is_empty(), "disks of servers are left: {disks:?}");
        let left: Vec<_> = self.objects().await?.into_iter().filter(|object| !object.is_a("Workspace")).collect();
        ensure!(left.is_empty(), "objects are left: {left:#?}");
        Ok(())
    }
}

/// The spec of a small Debian server.
fn server_spec() -> Value {
    json!({"providerConfigRef": {"name": "local"}, "providerSize": "small", "image": {"os": "debian", "version": "12"}})
}
