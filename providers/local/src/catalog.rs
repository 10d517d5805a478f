//! What the site offers, as its ConfigMap says, and whether a request is among it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use provisioning_api::names::{MAX_RESULT, SITE_CATALOG};
use provisioning_api::provider_config::{OfferedImage, OfferedSize};
use provisioning_api::server::Creation;
use provisioning_sdk::result::StepResult;
use serde::{Deserialize, Serialize};

/// Key of the catalog in its ConfigMap.
const KEY: &str = "catalog.json";
/// Least similarity (Jaro-Winkler, 0 to 1) at which a known value is offered as the one that was meant.
const SIMILAR: f64 = 0.7;
/// How many bytes of allowed values a message lists: a message keeps 256 bytes in all.
const LISTED: usize = 100;

/// Why the catalog cannot be used, or does not hold what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The chart renders the key.
    #[error("ConfigMap {SITE_CATALOG} has no key {KEY}")]
    FindKey,
    /// Not the JSON that the chart renders.
    #[error("failed to read {KEY} of ConfigMap {SITE_CATALOG}")]
    ReadCatalog(#[from] serde_json::Error),
    /// The root of all disks must be a path that cannot be taken for another one.
    #[error("diskRoot {0:?} of ConfigMap {SITE_CATALOG} is no clean absolute path")]
    CheckDiskRoot(String),
    /// Not offered.
    #[error("unknown {what} {wanted:?}{hint}; the site offers {offered}")]
    FindOffer {
        /// `zone` or `image`.
        what: &'static str,
        /// What was asked for.
        wanted: String,
        /// Empty, or the nearest known value in words.
        hint: String,
        /// The allowed values.
        offered: String,
    },
    /// Nothing is offered at all.
    #[error("the site offers no {0}: see `local.{0}s` of the chart's values")]
    FindAny(&'static str),
    /// A result is bounded; leaving offers out in silence would lie.
    #[error("the catalog takes {0} bytes as a result, at most {MAX_RESULT} fit: shorten `local` in the chart's values")]
    FitResult(usize),
}

/// What a site offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// Zones that a server may name; names only.
    pub zones: Vec<String>,
    /// Named sizes.
    pub sizes: Vec<OfferedSize>,
    /// Images; `id` is the container image.
    pub images: Vec<OfferedImage>,
    /// Folder on every node below which disks lie.
    pub disk_root: String,
}

impl Catalog {
    /// Reads the site's ConfigMap.
    ///
    /// # Errors
    /// [`CatalogError`] where it is not what the chart renders.
    pub fn read(map: &ConfigMap) -> Result<Self, CatalogError> {
        let text = map.data.as_ref().and_then(|data| data.get(KEY)).ok_or(CatalogError::FindKey)?;
        let catalog: Catalog = serde_json::from_str(text)?;
        let clean = catalog.disk_root.starts_with('/')
            && catalog.disk_root.len() > 1
            && catalog.disk_root.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
        if !clean {
            return Err(CatalogError::CheckDiskRoot(catalog.disk_root));
        }
        Ok(catalog)
    }

    /// Makes sure that zone and image of a creation are offered. Sizes in numbers are free.
    ///
    /// # Errors
    /// [`CatalogError::FindOffer`] naming the value, the nearest known one and the allowed ones.
    pub fn check(&self, creation: &Creation) -> Result<(), CatalogError> {
        let zones: Vec<&str> = self.zones.iter().map(String::as_str).collect();
        find("zone", &creation.zone, &zones)?;
        let images: Vec<&str> = self.images.iter().map(|image| image.id.as_str()).collect();
        find("image", &creation.image, &images)
    }

    /// Images for a pod that removes disks, the best first: any Debian has `find` and `rm`, and the admission policy
    /// allows offered images only. The server's own comes first, or last where the node is known to lack it.
    ///
    /// # Errors
    /// [`CatalogError::FindAny`] where no image is offered.
    pub fn wipe_images(&self, creation: &Creation, own_first: bool) -> Result<Vec<&str>, CatalogError> {
        let mut images: Vec<&str> = self.images.iter().map(|image| image.id.as_str()).collect();
        images.sort_by_key(|image| (*image == creation.image) != own_first);
        if images.is_empty() { Err(CatalogError::FindAny("image")) } else { Ok(images) }
    }

    /// Outputs of Describe: `zones`, `sizes`, `images`, each JSON.
    ///
    /// # Errors
    /// [`CatalogError::FitResult`] where they do not fit a result.
    pub fn outputs(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        let outputs = BTreeMap::from([
            ("zones".to_owned(), serde_json::to_string(&self.zones)?),
            ("sizes".to_owned(), serde_json::to_string(&self.sizes)?),
            ("images".to_owned(), serde_json::to_string(&self.images)?),
        ]);
        let bytes = serde_json::to_string(&StepResult::succeeded(outputs.clone()))?.len();
        if bytes > MAX_RESULT { Err(CatalogError::FitResult(bytes)) } else { Ok(outputs) }
    }
}

fn find(what: &'static str, wanted: &str, offered: &[&str]) -> Result<(), CatalogError> {
    if offered.contains(&wanted) {
        return Ok(());
    }
    if offered.is_empty() {
        return Err(CatalogError::FindAny(what));
    }
    let nearest = offered
        .iter()
        .rev() // of equally near ones the first listed
        .map(|known| (strsim::jaro_winkler(known, wanted), *known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    let hint = nearest.map(|(_, known)| format!(" (did you mean {known:?}?)")).unwrap_or_default();
    let mut list = offered[0].to_owned();
    for (listed, known) in offered.iter().enumerate().skip(1) {
        if list.len() + known.len() > LISTED {
            list.push_str(&format!(" and {} more", offered.len() - listed));
            break;
        }
        list.push_str(&format!(", {known}"));
    }
    Err(CatalogError::FindOffer { what, wanted: wanted.to_owned(), hint, offered: list })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn an_unknown_zone_is_named_with_the_nearest_and_the_allowed_ones() {
        let catalog = testing::catalog();
        let mut creation = testing::machine("blue-heron", 0).creation().clone();
        creation.zone = "local-c".into();
        let error = catalog.check(&creation).unwrap_err().to_string();
        assert_eq!(error, r#"unknown zone "local-c" (did you mean "local-a"?); the site offers local-a, local-b"#);
        creation.zone = "mars".into();
        let error = catalog.check(&creation).unwrap_err().to_string();
        assert_eq!(error, r#"unknown zone "mars"; the site offers local-a, local-b"#);
    }

    #[test]
    fn an_unknown_image_is_refused_and_a_known_one_is_not() {
        let catalog = testing::catalog();
        let mut creation = testing::machine("blue-heron", 0).creation().clone();
        assert!(catalog.check(&creation).is_ok());
        creation.image = "docker.io/library/debian".into();
        assert!(matches!(catalog.check(&creation), Err(CatalogError::FindOffer { what: "image", .. })));
        assert_eq!(catalog.wipe_images(&creation, true).unwrap(), [testing::IMAGE]);
    }

    #[test]
    fn disks_are_removed_with_an_image_that_is_there() {
        let mut catalog = testing::catalog();
        let other = OfferedImage { os: "debian".into(), version: "13".into(), id: "localhost/other:1".into() };
        catalog.images.insert(0, other);
        let creation = testing::creation("token-0");
        assert_eq!(catalog.wipe_images(&creation, true).unwrap(), [testing::IMAGE, "localhost/other:1"]);
        assert_eq!(catalog.wipe_images(&creation, false).unwrap(), ["localhost/other:1", testing::IMAGE]);
        catalog.images.clear();
        assert!(matches!(catalog.wipe_images(&creation, true), Err(CatalogError::FindAny("image"))));
    }

    #[test]
    fn a_disk_root_that_climbs_is_refused() {
        for path in ["relative", "/", "/var/../etc", "/var//lib", "/var/lib/"] {
            let mut catalog = testing::catalog();
            catalog.disk_root = path.into();
            let error = Catalog::read(&testing::catalog_map(&catalog)).unwrap_err();
            assert!(matches!(error, CatalogError::CheckDiskRoot(_)), "{path}: {error}");
        }
    }

    #[test]
    fn a_catalog_too_large_for_a_result_says_so() {
        let mut catalog = testing::catalog();
        assert_eq!(catalog.outputs().unwrap()["zones"], r#"["local-a","local-b"]"#);
        catalog.zones = (0..500).map(|number| format!("zone-{number}")).collect();
        assert!(matches!(catalog.outputs(), Err(CatalogError::FitResult(_))));
    }
}
