// (pure) What a Server shows, from its steps.

use provisioning_api::Server;
use provisioning_api::server::{Address, AddressType};
use provisioning_api::steps::{StepPhase, StepStatus};

use super::Facts;
use super::graph::{CREATE, OBSERVE, REACH, creation, incarnation, is_gone};

pub(crate) fn fill(server: &mut Server, facts: &Facts) {
    let incarnation = incarnation(server);
    let frozen = creation(server, facts).ok().and_then(|(creation, _)| creation);
    let status = server.status.get_or_insert_default();
    status.incarnation = incarnation;
    let steps = status.run.steps.clone();
    let find = |id: &str| steps.iter().find(|step: &&StepStatus| step.id == id);
    // Frozen in the write of the first intent, and never changed while the incarnation lives.
    if status.creation.is_none() && find(CREATE).is_some_and(|step| step.run > 0) {
        status.creation = frozen;
    }
    if let Some(create) = find(CREATE) {
        if create.phase == StepPhase::Undone {
            status.provider_id = None;
            status.addresses.clear();
            status.installed.clear();
        } else if create.external_id.is_some() {
            status.provider_id.clone_from(&create.external_id);
        }
        if let Some(key) = create.outputs.get("hostKey") {
            status.host_key = Some(key.clone());
        }
    }
    // What was on a machine went with it.
    if is_gone(&steps) {
        status.installed.clear();
    }
    crate::taskserv::bury(&mut status.installed, |user| facts.gone.contains(&user.uid));
    let address = find(OBSERVE).filter(|_| !is_gone(&steps)).and_then(|step| step.outputs.get("address"));
    if let Some(address) = address {
        status.addresses = vec![Address { type_: AddressType::Internal, address: address.clone() }];
    }
    if let Some(id) = find(REACH).and_then(|step| step.outputs.get("machineID")) {
        status.machine_id = Some(id.clone());
    }
}
