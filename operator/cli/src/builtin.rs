//! The extension bundles that this program was built with: those of the chart of the same release.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::ConfigMap;
use provisioning_extensions::Bundle;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/bundles.rs"));
}

/// All of them, by name; read when they are first asked for. One that can't be read is left out: a test refuses to let
/// that happen.
pub(crate) fn bundles() -> &'static [Bundle] {
    static BUNDLES: OnceLock<Vec<Bundle>> = OnceLock::new();
    BUNDLES.get_or_init(|| {
        let maps = embedded::MAPS.iter().filter_map(|text| serde_saphyr::from_str::<ConfigMap>(text).ok());
        maps.filter_map(|map| read(&map).ok()).collect()
    })
}

/// The bundle that a ConfigMap holds, or what is wrong with it.
pub(crate) fn read(map: &ConfigMap) -> Result<Bundle, String> {
    let binary = map.binary_data.iter().flatten().map(|(key, content)| (key.clone(), content.0.clone()));
    let binary: BTreeMap<String, Vec<u8>> = binary.collect();
    Bundle::from_config_map_data(map.data.iter().flatten(), &binary).map_err(|error| crate::cluster::causes(&error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use provisioning_extensions::ANNOTATION_DIGEST;

    use super::*;

    #[test]
    fn all_are_what_their_maps_say() {
        assert!(!embedded::MAPS.is_empty());
        assert_eq!(bundles().len(), embedded::MAPS.len());
        for (text, bundle) in embedded::MAPS.iter().zip(bundles()) {
            let map: ConfigMap = serde_saphyr::from_str(text).unwrap();
            let name = &bundle.manifest().name;
            assert_eq!(map.immutable, Some(true), "{name}");
            assert_eq!(map.metadata.name, Some(bundle.config_map_name()), "{name}");
            assert_eq!(map.metadata.labels, Some(bundle.labels()), "{name}");
            let digest = map.metadata.annotations.unwrap().remove(ANNOTATION_DIGEST);
            assert_eq!(digest.as_deref(), Some(bundle.digest()), "{name}");
        }
    }

    #[test]
    fn they_are_the_folders_of_the_repository() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/provisioning/files/extensions");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".yaml")?.to_owned())).collect();
        names.sort();
        let known: Vec<&str> = bundles().iter().map(|bundle| bundle.manifest().name.as_str()).collect();
        assert_eq!(known, names);
    }
}
