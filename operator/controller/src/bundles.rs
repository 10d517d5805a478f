//! Extension bundles: immutable ConfigMaps of the operator's namespace, copied by digest into workspaces that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use provisioning_api::names::{ANNOTATION_DIGEST, LABEL_EXTENSION, LABEL_EXTENSION_VERSION, LABEL_MANAGED_BY, MANAGER};
use provisioning_extensions::{Bundle, Manifest, ParameterSchema, SecretParameter};
use provisioning_plan::nearest::hint;
use serde_json::Value;

use crate::context::{Context, lock};
use crate::error::Error;

/// A bundle that is on offer.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Name of the extension.
    pub name: String,
    /// SemVer.
    pub version: String,
    /// `sha256:…`.
    pub digest: String,
    /// What is in it.
    pub contents: Arc<Contents>,
}

/// What the operator itself uses of a bundle. Nothing, where it cannot be read: the runner refuses it anyway.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its manifest.
    pub manifest: Option<Manifest>,
    /// Rules of its parameters.
    pub schema: Option<ParameterSchema>,
    /// Rules of the parameters of its scripts for workflows, by script.
    pub script_schemas: BTreeMap<String, ParameterSchema>,
}

/// Most bytes of parameters: they travel in one environment variable, and the kernel takes 128 KiB.
const MAX_PARAMETERS: usize = 32 * 1024;

/// What is wrong with parameters that are too large, with their path.
pub fn too_many_parameters(parameters: &BTreeMap<String, Value>, path: &str) -> Option<String> {
    let size = serde_json::to_string(parameters).map_or(0, |text| text.len());
    (size > MAX_PARAMETERS).then(|| format!("{path}: {size} bytes of JSON; at most {MAX_PARAMETERS}"))
}

/// Bundles that were read, by name of their ConfigMap and its resourceVersion: reading takes a digest over all of it.
#[derive(Debug, Default)]
pub struct Shelf {
    read: Mutex<BTreeMap<(String, String), Arc<Contents>>>,
}

impl Shelf {
    fn contents(&self, map: &ConfigMap) -> Arc<Contents> {
        let key = (map.name_any(), map.resource_version().unwrap_or_default());
        if let Some(known) = lock(&self.read).get(&key) {
            return Arc::clone(known);
        }
        // Not under the lock: a long one holds up nobody who asks for others.
        let contents = Arc::new(read(map));
        lock(&self.read).entry(key).or_insert(contents).clone()
    }

    fn keep(&self, keys: &BTreeSet<(String, String)>) {
        lock(&self.read).retain(|key, _| keys.contains(key));
    }
}

/// Every bundle on offer, by name and version.
pub fn offered(ctx: &Context) -> Vec<Offered> {
    let maps = ctx.stores.bundles.state();
    let keys = maps.iter().map(|map| (map.name_any(), map.resource_version().unwrap_or_default())).collect();
    ctx.shelf.keep(&keys);
    let mut all: Vec<Offered> = maps.iter().filter_map(|map| offer(ctx, map)).collect();
    all.sort_by(|left, right| (&left.name, &left.version).cmp(&(&right.name, &right.version)));
    all
}

fn offer(ctx: &Context, map: &ConfigMap) -> Option<Offered> {
    Some(Offered {
        name: map.labels().get(LABEL_EXTENSION)?.clone(),
        version: map.labels().get(LABEL_EXTENSION_VERSION)?.clone(),
        digest: map.annotations().get(ANNOTATION_DIGEST)?.clone(),
        contents: ctx.shelf.contents(map),
    })
}

fn read(map: &ConfigMap) -> Contents {
    let text = map.data.iter().flatten();
    let binary: BTreeMap<String, Vec<u8>> =
        map.binary_data.iter().flatten().map(|(key, content)| (key.clone(), content.0.clone())).collect();
    match Bundle::from_config_map_data(text, &binary) {
        Ok(bundle) => Contents {
            manifest: Some(bundle.manifest().clone()),
            schema: bundle.schema().cloned(),
            script_schemas: bundle.script_schemas().clone(),
        },
        Err(error) => {
            tracing::warn!(bundle = map.name_any(), %error, "a bundle on offer cannot be read");
            Contents::default()
        }
    }
}

impl Contents {
    /// Everything that is wrong with these parameters, each with the path of its field in a Taskserv.
    pub fn parameter_problems(&self, parameters: &BTreeMap<String, Value>) -> Vec<String> {
        let Some(schema) = &self.schema else { return Vec::new() };
        schema.check(parameters).iter().map(|problem| problem.below("spec.parameters")).collect()
    }

    /// Secrets that are missing or that the extension does not know.
    pub fn secret_problems<'a>(&self, given: impl Iterator<Item = &'a str>) -> Vec<String> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let given: Vec<&str> = given.collect();
        let known = || manifest.secrets.iter().map(|secret| secret.name.as_str());
        let missing =
            manifest.secrets.iter().filter(|secret| secret.required && !given.contains(&secret.name.as_str()));
        let missing = missing.map(|secret| {
            let SecretParameter { name, description, .. } = secret;
            format!(
                "spec.secretParameters.{name}: missing ({description}); write {{secretName: taskserv-NAME, key: KEY}}"
            )
        });
        let unknown = given.iter().filter(|name| !known().any(|other| other == **name)).map(|name| {
            let hint = hint(name, known());
            format!("spec.secretParameters.{name}: extension '{}' has no such secret{hint}", manifest.name)
        });
        missing.chain(unknown).collect()
    }

    /// The parameters with the schema's defaults.
    pub fn with_defaults(&self, parameters: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        self.schema.as_ref().map_or_else(|| parameters.clone(), |schema| schema.with_defaults(parameters))
    }
}

/// Puts a copy of a bundle into a workspace, if it is not there. The name holds the digest, and the copy is immutable.
///
/// # Errors
/// Where the API server refuses.
pub async fn copy(ctx: &Context, namespace: &str, config_map: &str) -> Result<(), Error> {
    let key = format!("{namespace}/{config_map}");
    if lock(&ctx.copied).contains(&key) {
        return Ok(());
    }
    let reference = kube::runtime::reflector::ObjectRef::<ConfigMap>::new(config_map).within(&ctx.settings.namespace);
    let Some(source) = ctx.stores.bundles.get(&reference) else {
        // Gone from the catalogue; a copy that was made before still serves.
        return Ok(());
    };
    let mut labels = source.labels().clone();
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned());
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(config_map.to_owned()),
            labels: Some(labels),
            annotations: source
                .annotations()
                .get(ANNOTATION_DIGEST)
                .map(|digest| [(ANNOTATION_DIGEST.to_owned(), digest.clone())].into()),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: source.data.clone(),
        binary_data: source.binary_data.clone(),
    };
    let maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    match maps.create(&PostParams::default(), &copy).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(source) => return Err(Error::request("create", format!("ConfigMap {key}"), source)),
    }
    lock(&ctx.copied).insert(key);
    Ok(())
}
