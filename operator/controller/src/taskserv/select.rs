// (pure) Which servers a Taskserv is about.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use provisioning_api::Taskserv;
use provisioning_api::conditions::reasons;
use provisioning_api::taskserv::{LabelOperator, LabelRequirement, ServerSelector};
use provisioning_plan::conditions::Standing;

/// Most Servers that a selector may match: what `status.servers` holds.
pub(crate) const MAX_SELECTED: usize = 64;

/// Names of the Servers, in the order of the spec or by name. One that cannot be read has its labels all the same: it is
/// none that leaves.
///
/// # Errors
/// More than an object can hold.
pub(crate) fn members<'a>(
    taskserv: &Taskserv,
    servers: impl Iterator<Item = &'a ObjectMeta>,
) -> Result<Vec<String>, Standing> {
    if taskserv.spec.server_selector.is_none() {
        return Ok(taskserv.spec.servers.clone());
    }
    let mut names: Vec<String> =
        servers.filter(|server| means(taskserv, server)).filter_map(|server| server.name.clone()).collect();
    names.sort();
    if names.len() > MAX_SELECTED {
        let text = format!(
            "spec.serverSelector: it matches {} Servers, and one Taskserv holds {MAX_SELECTED}: narrow it, and make \
             another Taskserv for the others",
            names.len()
        );
        return Err(Standing::stalled(reasons::INVALID, text));
    }
    Ok(names)
}

/// Whether a Taskserv wants to be on a Server.
pub(crate) fn means(taskserv: &Taskserv, server: &ObjectMeta) -> bool {
    let none = BTreeMap::new();
    match &taskserv.spec.server_selector {
        // One that is being deleted takes its services along; it is no place for new ones.
        Some(selector) => {
            server.deletion_timestamp.is_none() && matches(selector, server.labels.as_ref().unwrap_or(&none))
        }
        None => server.name.as_ref().is_some_and(|name| taskserv.spec.servers.contains(name)),
    }
}

/// Whether labels are those that are meant.
fn matches(selector: &ServerSelector, labels: &BTreeMap<String, String>) -> bool {
    let ServerSelector { match_labels, match_expressions } = selector;
    match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && match_expressions.iter().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelRequirement, labels: &BTreeMap<String, String>) -> bool {
    let LabelRequirement { key, operator, values } = requirement;
    let value = labels.get(key);
    match operator {
        LabelOperator::In => value.is_some_and(|value| values.contains(value)),
        LabelOperator::NotIn => value.is_none_or(|value| !values.contains(value)),
        LabelOperator::Exists => value.is_some(),
        LabelOperator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use provisioning_api::Server;
    use serde_json::{Value, json};

    use super::*;

    fn selects(selector: &Value, labels: &Value) -> bool {
        let selector: ServerSelector = serde_json::from_value(selector.clone()).unwrap();
        matches(&selector, &serde_json::from_value(labels.clone()).unwrap())
    }

    #[test]
    fn all_parts_of_a_selector_must_hold() {
        let north = json!({"shore": "north", "reed": ""});
        assert!(selects(&json!({}), &north) && selects(&json!({}), &json!({})));
        assert!(selects(&json!({"matchLabels": {"shore": "north"}}), &north));
        assert!(!selects(&json!({"matchLabels": {"shore": "north", "reed": "tall"}}), &north));
        let one = |operator: &str, key: &str, values: Value| {
            let mut expression = json!({"key": key, "operator": operator});
            if values.is_array() {
                expression["values"] = values;
            }
            json!({"matchLabels": {"reed": ""}, "matchExpressions": [expression]})
        };
        assert!(selects(&one("In", "shore", json!(["south", "north"])), &north));
        assert!(!selects(&one("In", "tide", json!(["high"])), &north));
        assert!(selects(&one("NotIn", "tide", json!(["high"])), &north), "an absent label has no value");
        assert!(!selects(&one("NotIn", "shore", json!(["north"])), &north));
        assert!(selects(&one("Exists", "shore", Value::Null), &north));
        assert!(!selects(&one("DoesNotExist", "shore", Value::Null), &north));
        assert!(selects(&one("DoesNotExist", "tide", Value::Null), &north));
    }

    #[test]
    fn what_goes_is_not_selected_and_too_many_are_told() {
        let server = |name: &str, going: bool| -> Server {
            let mut value = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": name, "labels": {"shore": "north"}},
                "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}}});
            if going {
                value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(value).unwrap()
        };
        let taskserv: Taskserv = serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1",
            "kind": "Taskserv", "metadata": {"name": "cache"},
            "spec": {"extension": {"name": "tide"}, "serverSelector": {"matchLabels": {"shore": "north"}}}}))
        .unwrap();
        let shore = [server("plover", false), server("heron", false), server("egret", true)];
        assert_eq!(members(&taskserv, shore.iter().map(|server| &server.metadata)).unwrap(), ["heron", "plover"]);
        let crowd: Vec<Server> = (0..65).map(|number| server(&format!("gull-{number}"), false)).collect();
        let told = members(&taskserv, crowd.iter().map(|server| &server.metadata)).unwrap_err();
        assert_eq!(told.reason, reasons::INVALID);
        assert!(told.message.starts_with("spec.serverSelector: it matches 65 Servers"), "{}", told.message);
    }
}
