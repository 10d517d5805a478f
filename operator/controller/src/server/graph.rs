// (pure) Validates a Server and draws its steps.

use kube::ResourceExt;
use provisioning_api::Server;
use provisioning_api::conditions::reasons;
use provisioning_api::provider_config::ProviderConfigStatus;
use provisioning_api::server::Creation;
use provisioning_api::shared::{DeletionPolicy, RetryPolicy, RunsSteps};
use provisioning_api::steps::{StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_plan::conditions::Standing;
use provisioning_plan::graph::{Dependency, Gate, Graph, Step};
use provisioning_plan::ids::{InputHash, StepId, creation_token};
use provisioning_plan::nearest::hint;

use super::Facts;

/// Ids of a Server's steps.
pub(crate) const CREATE: &str = "create";
pub(crate) const OBSERVE: &str = "observe";
pub(crate) const REACH: &str = "reach";

/// Output of `observe`: `Running` or `Gone`.
const STATE: &str = "state";

pub(crate) fn draw(server: &Server, facts: &Facts, settled: &[StepStatus]) -> Result<Graph, Standing> {
    let (creation, gate) = creation(server, facts)?;
    let incarnation = incarnation(server);
    let deleting = server.metadata.deletion_timestamp.is_some();
    let gate = match facts.busy_with.as_slice() {
        [] => gate,
        busy if deleting => Gate::Waiting(format!("open steps on it: {}", busy.join(", "))),
        _ => gate,
    };
    let name = server.name_any();
    let (create, observe, reach) = (StepId::new(CREATE), StepId::new(OBSERVE), StepId::new(REACH));
    let undo = match server.spec.deletion_policy {
        DeletionPolicy::Delete => UndoAction::DeleteServer,
        DeletionPolicy::Orphan => UndoAction::Orphan,
    };
    let output = |id: &str, key: &str| settled.iter().find(|step| step.id == id).and_then(|step| step.outputs.get(key));
    let host_key = output(CREATE, "hostKey");
    let address = output(OBSERVE, "address");
    let reach_gate = if is_gone(settled) { Gate::Gone("the machine is gone".to_owned()) } else { Gate::Open };
    let steps = vec![
        Step {
            id: create.clone(),
            action: StepAction::Create,
            why: format!("machine {name}"),
            input_hash: creation.as_ref().map(|creation| InputHash::of(&(creation, incarnation))),
            depends_on: Vec::new(),
            undo,
            retry: RetryPolicy::default(),
            gate,
            when: None,
        },
        Step {
            id: observe.clone(),
            action: StepAction::Observe,
            why: format!("address of {name}"),
            input_hash: Some(InputHash::of(&(incarnation, look(facts, settled)))),
            depends_on: vec![Dependency::hard(&create)],
            undo: UndoAction::None,
            retry: RetryPolicy::default(),
            gate: Gate::Open,
            when: None,
        },
        Step {
            id: reach,
            action: StepAction::Reach,
            why: format!("SSH to {name}"),
            input_hash: Some(InputHash::of(&(incarnation, host_key, address))),
            depends_on: vec![Dependency::hard(&observe)],
            undo: UndoAction::None,
            retry: RetryPolicy { limit: 2, ..RetryPolicy::default() },
            gate: reach_gate,
            when: None,
        },
    ];
    Graph::new(steps).map_err(|error| Standing::stalled(reasons::INVALID, error.to_string()))
}

/// Which look at the machine is wanted: the reconcile annotation, once the machine has been observed before.
fn look(facts: &Facts, settled: &[StepStatus]) -> Option<String> {
    let observed = settled.iter().any(|step| step.id == OBSERVE && step.phase == StepPhase::Succeeded);
    if observed { facts.asked.clone() } else { facts.asked.clone().or_else(|| facts.handled.clone()) }
}

/// Whether the last look found no machine.
pub(crate) fn is_gone(steps: &[StepStatus]) -> bool {
    steps.iter().any(|step| {
        step.id == OBSERVE
            && step.phase == StepPhase::Succeeded
            && step.outputs.get(STATE).is_some_and(|state| state == "Gone")
    })
}

/// Which machine in the object's life this is about; the first is 1.
pub(crate) fn incarnation(server: &Server) -> i64 {
    server.status.as_ref().map_or(1, |status| status.incarnation.max(1))
}

/// What the machine is created with: frozen if it was frozen before, otherwise resolved from spec and provider.
pub(crate) fn creation(server: &Server, facts: &Facts) -> Result<(Option<Creation>, Gate), Standing> {
    if let Some(frozen) = server.status.as_ref().and_then(|status| status.creation.clone()) {
        return Ok((Some(frozen), Gate::Open));
    }
    let name = &server.spec.provider_config_ref.name;
    let Some(provider) = &facts.provider else {
        let hint = hint(name, facts.providers.iter().map(String::as_str));
        let text = format!("spec.providerConfigRef.name: there is no ProviderConfig '{name}' in this namespace{hint}");
        return Err(Standing::stalled(reasons::UNKNOWN_REFERENCE, text));
    };
    let Some(offer) = provider.status.as_ref().filter(|_| provider.is_ready()) else {
        let text = format!("ProviderConfig '{name}' is not Ready: {}", provider.ready_message());
        return Ok((None, Gate::Waiting(text)));
    };
    let Some(user_key) = &facts.user_key else {
        return Ok((None, Gate::Waiting("the workspace has no SSH key yet".to_owned())));
    };
    let (cores, memory_mib, disk_gib) = size(server, offer)?;
    let creation = Creation {
        provider: provider.spec.type_,
        site: provider.spec.site.clone(),
        zone: zone(server, provider.spec.zone.as_deref(), offer)?,
        cores,
        memory_mib,
        disk_gib,
        reserved_percent: provider.spec.reserved_percent,
        image: image(server, offer)?,
        user_key: user_key.clone(),
        token: creation_token(&server.uid().unwrap_or_default(), CREATE, incarnation(server)),
    };
    Ok((Some(creation), Gate::Open))
}

fn invalid(field: &str, value: &str, what: &str, allowed: &[String]) -> Standing {
    let hint = hint(value, allowed.iter().map(String::as_str));
    let text = format!("{field}: the provider has no {what} '{value}'{hint}; it has {}", allowed.join(", "));
    Standing::stalled(reasons::INVALID, text)
}

fn zone(server: &Server, default: Option<&str>, offer: &ProviderConfigStatus) -> Result<String, Standing> {
    let wanted = server.spec.zone.as_deref().or(default);
    match wanted {
        Some(zone) if !offer.zones.iter().any(|other| other == zone) => {
            Err(invalid("spec.zone", zone, "zone", &offer.zones))
        }
        Some(zone) => Ok(zone.to_owned()),
        None => offer.zones.first().cloned().ok_or_else(|| invalid("spec.zone", "", "zone", &offer.zones)),
    }
}

fn size(server: &Server, offer: &ProviderConfigStatus) -> Result<(i32, i64, i64), Standing> {
    let (cores, memory, disk) = match (&server.spec.size, &server.spec.provider_size) {
        (Some(size), _) => (size.cores, size.memory.as_str(), size.disk.as_str()),
        (None, Some(name)) => {
            let Some(size) = offer.sizes.iter().find(|size| size.name == *name) else {
                let names: Vec<String> = offer.sizes.iter().map(|size| size.name.clone()).collect();
                return Err(invalid("spec.providerSize", name, "size", &names));
            };
            (size.cores, size.memory.as_str(), size.disk.as_str())
        }
        (None, None) => {
            return Err(Standing::stalled(reasons::INVALID, "spec: give exactly one of size and providerSize"));
        }
    };
    let unreadable = |field: &str, text: &str| {
        Standing::stalled(reasons::INVALID, format!("{field}: '{text}' is no size; write for example 512Mi or 10Gi"))
    };
    let memory_mib = mebibytes(memory).ok_or_else(|| unreadable("spec.size.memory", memory))?;
    let disk_mib = mebibytes(disk).ok_or_else(|| unreadable("spec.size.disk", disk))?;
    Ok((cores, memory_mib, disk_mib / 1024))
}

/// MiB of a quantity in Mi or Gi.
pub(crate) fn mebibytes(quantity: &str) -> Option<i64> {
    let (digits, factor) = match (quantity.strip_suffix("Mi"), quantity.strip_suffix("Gi")) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1024),
        (None, None) => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(factor)
}

fn image(server: &Server, offer: &ProviderConfigStatus) -> Result<String, Standing> {
    let image = &server.spec.image;
    if let Some(id) = &image.id {
        let ids: Vec<String> = offer.images.iter().map(|image| image.id.clone()).collect();
        return if ids.contains(id) { Ok(id.clone()) } else { Err(invalid("spec.image.id", id, "image", &ids)) };
    }
    let (os, version) = (image.os.as_deref().unwrap_or_default(), image.version.as_deref().unwrap_or_default());
    let found = offer.images.iter().find(|offered| offered.os == os && offered.version == version);
    found.map(|offered| offered.id.clone()).ok_or_else(|| {
        let names: Vec<String> =
            offer.images.iter().map(|offered| format!("{} {}", offered.os, offered.version)).collect();
        invalid("spec.image", &format!("{os} {version}"), "image", &names)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_mebibytes() {
        assert_eq!(mebibytes("512Mi"), Some(512));
        assert_eq!(mebibytes("2Gi"), Some(2048));
        assert_eq!(mebibytes("2G"), None);
        assert_eq!(mebibytes("9999999999999999999Gi"), None);
    }
}
