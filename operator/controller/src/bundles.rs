//! Extension bundles: immutable ConfigMaps of the operator's namespace, copied by digest into workspaces that use them.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use provisioning_api::names::{ANNOTATION_DIGEST, LABEL_EXTENSION, LABEL_EXTENSION_VERSION, LABEL_MANAGED_BY, MANAGER};

use provisioning_extensions::{Manifest, Timeouts};

use crate::context::{Context, lock};
use crate::error::Error;
use crate::watches::Stores;

/// A bundle that is on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Name of the extension.
    pub name: String,
    /// SemVer.
    pub version: String,
    /// `sha256:…`.
    pub digest: String,
    /// ConfigMap that holds it, in the operator's namespace and, once copied, in the workspace.
    pub config_map: String,
    /// How long its scripts may take, from its manifest.
    pub timeouts: Timeouts,
}

/// Every bundle on offer, by name and version.
pub fn offered(stores: &Stores) -> Vec<Offered> {
    let mut all: Vec<Offered> = stores.bundles.state().iter().filter_map(|map| read(map)).collect();
    all.sort_by(|left, right| (&left.name, &left.version).cmp(&(&right.name, &right.version)));
    all
}

fn read(map: &ConfigMap) -> Option<Offered> {
    Some(Offered {
        name: map.labels().get(LABEL_EXTENSION)?.clone(),
        version: map.labels().get(LABEL_EXTENSION_VERSION)?.clone(),
        digest: map.annotations().get(ANNOTATION_DIGEST)?.clone(),
        config_map: map.name_any(),
        timeouts: timeouts(map),
    })
}

/// Timeouts of a bundle's manifest. One that cannot be read gets the defaults: the runner refuses the bundle anyway.
fn timeouts(map: &ConfigMap) -> Timeouts {
    let text = map.data.as_ref().and_then(|data| data.get("manifest.yaml"));
    text.and_then(|text| Manifest::from_yaml(text).ok()).map_or_else(Timeouts::default, |manifest| manifest.timeouts)
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
