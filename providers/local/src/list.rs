//! List: what this installation has in the site, so that a sweep can report what belongs to no object.

use std::collections::BTreeMap;

use kube::ResourceExt;
use provisioning_api::names::{
    LABEL_INSTALLATION, LABEL_OWNER_NAME, LABEL_OWNER_NAMESPACE, LABEL_OWNER_UID, LABEL_TOKEN,
};
use provisioning_sdk::result::StepResult;
use serde::Serialize;

use crate::pods::label;
use crate::site::{Site, SiteError};

/// Bytes of JSON that `resources` may take: a result has 4096 in all, quotes within it are escaped.
const ROOM: usize = 3000;

/// One resource of the site.
#[derive(Debug, Serialize)]
struct Resource {
    name: String,
    namespace: String,
    owner: String,
    uid: String,
    token: String,
}

/// Pods of this installation. Outputs: `resources` (a JSON list, the caller's own workspace first), `total`, and
/// `omitted`, the number that did not fit.
///
/// # Errors
/// [`SiteError`] where the site cannot be read.
pub async fn list(site: &Site, installation: &str, workspace: &str) -> Result<StepResult, SiteError> {
    let mut resources: Vec<Resource> = site
        .list_pods(&format!("{LABEL_INSTALLATION}={installation}"))
        .await?
        .iter()
        .map(|pod| Resource {
            name: pod.name_any(),
            namespace: label(pod, LABEL_OWNER_NAMESPACE).to_owned(),
            owner: label(pod, LABEL_OWNER_NAME).to_owned(),
            uid: label(pod, LABEL_OWNER_UID).to_owned(),
            token: label(pod, LABEL_TOKEN).to_owned(),
        })
        .collect();
    resources.sort_by(|one, other| {
        let key = |resource: &Resource| (resource.namespace != workspace, resource.name.clone());
        key(one).cmp(&key(other))
    });
    Ok(StepResult::succeeded(fit(&resources)))
}

fn fit(resources: &[Resource]) -> BTreeMap<String, String> {
    let mut text = String::from("[");
    let mut listed = 0;
    let mut bytes = 2;
    for resource in resources {
        let entry = serde_json::to_string(resource).unwrap_or_default();
        // Counted as it will stand in the result, where each quote takes two bytes.
        bytes += entry.len() + entry.matches('"').count() + 1;
        if bytes > ROOM {
            break;
        }
        if listed > 0 {
            text.push(',');
        }
        text.push_str(&entry);
        listed += 1;
    }
    text.push(']');
    BTreeMap::from([
        ("resources".to_owned(), text),
        ("total".to_owned(), resources.len().to_string()),
        ("omitted".to_owned(), (resources.len() - listed).to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use provisioning_api::names::MAX_RESULT;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_list_of_any_length_fits_a_result_and_says_what_it_leaves_out() {
        for count in [0, 1, 500] {
            let resources: Vec<Resource> = (0..count)
                .map(|number| Resource {
                    name: format!("srv-{}-{number}", "n".repeat(40)),
                    namespace: "m".repeat(63),
                    owner: "o".repeat(63),
                    uid: crate::testing::UID.into(),
                    token: "t".repeat(63),
                })
                .collect();
            let outputs = fit(&resources);
            let listed: Vec<Value> = serde_json::from_str(&outputs["resources"]).unwrap();
            let omitted: usize = outputs["omitted"].parse().unwrap();
            assert_eq!(listed.len() + omitted, count);
            assert!(count == 0 || !listed.is_empty());
            assert!(serde_json::to_string(&StepResult::succeeded(outputs)).unwrap().len() <= MAX_RESULT);
        }
    }
}
