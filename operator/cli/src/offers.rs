//! Extensions on offer: those of this program, and those in the operator's namespace of a cluster.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use provisioning_api::names::{LABEL_EXTENSION, LABEL_EXTENSION_VERSION};
use provisioning_extensions::{ANNOTATION_DIGEST, Bundle, Catalog, CatalogError, Entry};
use semver::{Version, VersionReq};
use serde_json::{Value, json};

use crate::builtin;
use crate::cluster::Cluster;
use crate::request::RequestError;

/// One bundle, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) name: String,
    /// As it is written; SemVer, unless somebody labelled a ConfigMap by hand.
    pub(crate) version: String,
    /// `sha256:…`
    pub(crate) digest: String,
    /// This program holds it.
    pub(crate) built_in: bool,
    /// The ConfigMap in the operator's namespace that holds it.
    pub(crate) config_map: Option<String>,
    /// The bundle, or why the ConfigMap holds none.
    pub(crate) bundle: Result<Bundle, String>,
}

impl Offer {
    fn built_in(bundle: &Bundle) -> Self {
        Self {
            name: bundle.manifest().name.clone(),
            version: bundle.manifest().version.to_string(),
            digest: bundle.digest().to_owned(),
            built_in: true,
            config_map: None,
            bundle: Ok(bundle.clone()),
        }
    }

    /// As the operator reads it: name, version and digest are those of labels and annotation.
    fn in_cluster(map: &ConfigMap) -> Self {
        let label = |key: &str| map.metadata.labels.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default();
        let digest = map.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_DIGEST)).cloned();
        let offer = Self {
            name: label(LABEL_EXTENSION),
            version: label(LABEL_EXTENSION_VERSION),
            digest: digest.unwrap_or_default(),
            built_in: false,
            config_map: map.metadata.name.clone(),
            bundle: builtin::read(map),
        };
        let bundle = offer.bundle.clone().and_then(|bundle| match offer.misfit(&bundle) {
            None => Ok(bundle),
            Some(problem) => Err(problem),
        });
        Self { bundle, ..offer }
    }

    /// What a ConfigMap says of its bundle and is not so: the runner will refuse it.
    fn misfit(&self, bundle: &Bundle) -> Option<String> {
        let manifest = bundle.manifest();
        [
            ("name", self.name.clone(), manifest.name.clone()),
            ("version", self.version.clone(), manifest.version.to_string()),
            ("digest", self.digest.clone(), bundle.digest().to_owned()),
        ]
        .into_iter()
        .find(|(_, said, is)| said != is)
        .map(|(what, said, is)| format!("its ConfigMap says {what} '{said}', its files say '{is}'"))
    }

    /// `built-in`, `cluster`, or both.
    pub(crate) fn sources(&self) -> Vec<&'static str> {
        let cluster = self.config_map.is_some();
        [(self.built_in, "built-in"), (cluster, "cluster")]
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, at)| at)
            .collect()
    }

    /// What the extension says of itself, or what is wrong with it.
    pub(crate) fn description(&self) -> String {
        match &self.bundle {
            Ok(bundle) => bundle.manifest().description.clone(),
            Err(problem) => format!("can't be used: {problem}"),
        }
    }

    /// A file of the bundle.
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        let files = self.bundle.as_ref().ok()?.files();
        files.iter().find(|(known, _)| known.as_str() == path).map(|(_, content)| content.as_slice())
    }

    /// The manifest with all its fields, also those that this build gives no meaning.
    pub(crate) fn manifest(&self) -> Value {
        let text = self.file("manifest.yaml").and_then(|content| std::str::from_utf8(content).ok());
        text.and_then(|text| serde_saphyr::from_str(text).ok()).unwrap_or_default()
    }

    /// The schema of its parameters, if it has one.
    pub(crate) fn schema(&self) -> Option<Value> {
        self.file("schema.json").and_then(|content| serde_json::from_slice(content).ok())
    }

    /// All of it, for programs: the manifest, and what is known beside.
    pub(crate) fn json(&self) -> Value {
        let mut json = self.manifest();
        if !json.is_object() {
            json = json!({"name": self.name, "version": self.version});
        }
        let files: Vec<Value> = self
            .bundle
            .iter()
            .flat_map(Bundle::files)
            .map(|(path, content)| json!({"path": path.as_str(), "bytes": content.len()}))
            .collect();
        json["digest"] = json!(self.digest);
        json["sources"] = json!(self.sources());
        json["configMap"] = json!(self.config_map);
        json["files"] = json!(files);
        json["parameters"] = json!(self.schema());
        if let Err(problem) = &self.bundle {
            json["problem"] = json!(problem);
        }
        json
    }

    fn semver(&self) -> Option<Version> {
        Version::parse(&self.version).ok()
    }
}

/// Where a cluster keeps extensions.
pub(crate) struct Shelf<'a> {
    pub(crate) cluster: &'a Cluster,
    /// The operator's namespace.
    pub(crate) namespace: &'a str,
}

impl Shelf<'_> {
    pub(crate) fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// The bundles there; one request.
    async fn offers(&self, name: Option<&str>) -> Result<Vec<Offer>, RequestError> {
        let labels = name.map_or_else(|| LABEL_EXTENSION.to_owned(), |name| format!("{LABEL_EXTENSION}={name}"));
        let what = format!("extensions in namespace {}", self.namespace);
        let found = self.maps().list(&ListParams::default().labels(&labels)).await;
        let found = found.map_err(|error| RequestError::new(self.cluster, "list", what, error))?;
        Ok(found.items.iter().map(Offer::in_cluster).collect())
    }
}

/// Everything on offer by name and version; without a shelf only what is built in.
pub(crate) async fn gather(shelf: Option<&Shelf<'_>>, name: Option<&str>) -> Result<Vec<Offer>, RequestError> {
    let mut offers: Vec<Offer> = builtin::bundles()
        .iter()
        .filter(|bundle| name.is_none_or(|name| bundle.manifest().name == name))
        .map(Offer::built_in)
        .collect();
    if let Some(shelf) = shelf {
        for found in shelf.offers(name).await? {
            let same = |offer: &&mut Offer| {
                (&offer.name, &offer.version, &offer.digest) == (&found.name, &found.version, &found.digest)
            };
            // A map that says so and holds something else is not the same.
            match offers.iter_mut().find(same).filter(|_| found.bundle.is_ok()) {
                Some(offer) => offer.config_map = found.config_map,
                None => offers.push(found),
            }
        }
    }
    offers.sort_by_cached_key(|offer| (offer.name.clone(), offer.semver(), offer.digest.clone()));
    Ok(offers)
}

/// The one that a name and a version or requirement mean: as the operator would choose, and with its words.
pub(crate) fn choose<'a>(
    offers: &'a [Offer],
    name: &str,
    requirement: Option<&VersionReq>,
) -> Result<&'a Offer, CatalogError> {
    let known = offers.iter().filter_map(|offer| {
        Some(Entry { name: offer.name.clone(), version: offer.semver()?, digest: offer.digest.clone() })
    });
    let catalog = Catalog::new(known);
    let entry = catalog.resolve(name, requirement)?;
    let is = |offer: &&Offer| {
        offer.name == entry.name && offer.semver().as_ref() == Some(&entry.version) && offer.digest == entry.digest
    };
    offers.iter().find(is).ok_or_else(|| CatalogError::UnknownName {
        name: name.to_owned(),
        nearest: None,
        known: offers.iter().map(|offer| offer.name.clone()).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    /// A bundle of three scripts without words.
    pub(crate) fn bundle(name: &str, version: &str, install: &str) -> Bundle {
        let manifest = format!(
            "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: {name}\nversion: {version}\n\
             description: For a test\ntimeoutSeconds: {{install: 30}}\n"
        );
        let files = [
            ("manifest.yaml", manifest.as_str()),
            ("scripts/install.nu", install),
            ("scripts/check.nu", ""),
            ("scripts/uninstall.nu", ""),
        ];
        Bundle::new(files.map(|(path, text)| (path.parse().unwrap(), text.as_bytes().to_vec())).into()).unwrap()
    }

    /// Its ConfigMap as the API server has it.
    pub(crate) fn map(bundle: &Bundle) -> Value {
        json!({"metadata": {"name": bundle.config_map_name(), "labels": bundle.labels(),
            "annotations": {ANNOTATION_DIGEST: bundle.digest()}}, "data": bundle.to_config_map_data().data})
    }

    #[tokio::test]
    async fn what_is_in_both_places_is_one() {
        let own = &builtin::bundles()[0];
        let mut broken = map(&bundle("heron", "1.0.0", ""));
        broken["data"]["scripts..install.nu"] = json!("other");
        let items = [map(own), map(&bundle("answer", "0.10.0", "")), map(&bundle("answer", "0.9.0", "")), broken];
        let stub = Stub::new(move |_| reply(200, json!({"metadata": {}, "items": items})));
        let cluster = stub.cluster();
        let shelf = Shelf { cluster: &cluster, namespace: "provisioning-system" };
        let offers = gather(Some(&shelf), None).await.unwrap();
        let of = |name: &str| offers.iter().filter(|offer| offer.name == name).cloned().collect::<Vec<Offer>>();
        assert_eq!(of(&own.manifest().name)[0].sources(), ["built-in", "cluster"]);
        assert_eq!(of("answer").iter().map(|offer| offer.version.as_str()).collect::<Vec<_>>(), ["0.9.0", "0.10.0"]);
        assert!(of("heron")[0].description().starts_with("can't be used: its ConfigMap says digest"), "{offers:?}");
        assert_eq!(
            stub.requests(),
            ["GET /api/v1/namespaces/provisioning-system/configmaps?&labelSelector=provisioning.dev%2Fextension"]
        );
        assert_eq!(choose(&offers, "answer", None).unwrap().version, "0.10.0");
        assert_eq!(choose(&offers, "answer", "=0.9.0".parse().ok().as_ref()).unwrap().version, "0.9.0");
        assert!(choose(&offers, "anser", None).unwrap_err().to_string().contains("did you mean \"answer\"?"));
    }
}
