//! What several suites need beside the harness.

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use provisioning_api::names::{ANNOTATION_DIGEST, LABEL_EXTENSION};
use provisioning_e2e::{Case, repository};
use provisioning_extensions::Bundle;

/// Puts the extension e2e/extensions/NAME on offer: a ConfigMap in the operator's namespace, as the chart does with those
/// of the product. Others of this name, of an earlier run, go.
pub(crate) async fn offer(case: &Case, name: &str) -> Result<()> {
    let api = Api::<ConfigMap>::namespaced(case.cluster.client.clone(), &case.cluster.system);
    let old = ListParams::default().labels(&format!("{LABEL_EXTENSION}={name}"));
    api.delete_collection(&Default::default(), &old).await?;
    offer_beside(case, name).await
}

/// The same for a folder whose extension is on offer in another version, which stays.
pub(crate) async fn offer_beside(case: &Case, name: &str) -> Result<()> {
    let folder = repository().join("e2e/extensions").join(name);
    let bundle = Bundle::load_folder(&folder).with_context(|| format!("{}", folder.display()))?;
    let maps = bundle.to_config_map_data();
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(bundle.config_map_name()),
            labels: Some(bundle.labels()),
            annotations: Some([(ANNOTATION_DIGEST.to_owned(), bundle.digest().to_owned())].into()),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(maps.data),
        binary_data: Some(maps.binary_data.into_iter().map(|(key, content)| (key, ByteString(content))).collect()),
    };
    let api = Api::<ConfigMap>::namespaced(case.cluster.client.clone(), &case.cluster.system);
    api.create(&PostParams::default(), &map).await.with_context(|| format!("offer extension {name}"))?;
    Ok(())
}
