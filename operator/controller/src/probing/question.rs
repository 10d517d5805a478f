// (pure) What is asked about a Taskserv, and how it stands by the answers.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus};
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Probe, ProbeKind};
use provisioning_plan::conditions::Standing;

use super::opinion::Opinion;
use crate::bundles::{Contents, Offered};
use crate::taskserv::{bundle_of, extension_of, looks_after, own_parameters, server_of};

/// Most failing probes that a message names.
const MAX_NAMED: usize = 3;

/// One probe of an extension at one of its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the Server.
    pub server: String,
    /// Name of the extension, where it is not the Taskserv's own but one that this requires.
    pub required: Option<String>,
    /// Name of the probe.
    pub probe: String,
    /// What is asked.
    pub kind: ProbeKind,
    /// Where.
    pub address: SocketAddr,
    /// Run of the installation: after another one, what was thought of the service before says nothing.
    pub run: i64,
}

/// What is asked: each probe of each extension that a Taskserv has installed on a server, for its own sake or because
/// another one requires it. Nothing of what is being deleted, nor of what another Taskserv looks after.
/// `find`: the Server of a name.
pub(crate) fn questions(
    taskserv: &Taskserv,
    offered: &[Offered],
    find: impl Fn(&str) -> Option<Server>,
) -> Vec<Question> {
    if taskserv.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let is_installed = |step: &&StepStatus| step.action == StepAction::Install && step.phase == StepPhase::Succeeded;
    // Most extensions have none, and then no Server has to be looked up.
    let has_probes = |offered: &Offered, name: &str| offered.name == name && !probes(&offered.contents).is_empty();
    let mut all = Vec::new();
    for step in steps.iter().filter(is_installed) {
        let Some((server, extension)) = server_of(&step.id).zip(extension_of(taskserv, &step.id)) else { continue };
        if offered.iter().any(|offered| has_probes(offered, extension))
            && let Some(server) = find(server)
            && looks_after(taskserv, &server, extension)
        {
            all.extend(at_server(taskserv, offered, step, &server, extension));
        }
    }
    all.sort_by_cached_key(|Question { server, required, probe, .. }| {
        (server.clone(), required.clone(), probe.clone())
    });
    all
}

fn probes(contents: &Contents) -> &[Probe] {
    contents.manifest.as_ref().map(|manifest| manifest.probes.as_slice()).unwrap_or_default()
}

/// What is asked of an extension on a server.
fn at_server(
    taskserv: &Taskserv,
    offered: &[Offered],
    step: &StepStatus,
    server: &Server,
    extension: &str,
) -> Vec<Question> {
    let bundle = bundle_of(taskserv, server, &step.id);
    let offered = bundle.and_then(|bundle| offered.iter().find(|offered| offered.digest == bundle.digest));
    let (Some(address), Some(offered)) = (address_of(server), offered) else { return Vec::new() };
    let parameters = offered.contents.with_defaults(&own_parameters(taskserv, extension));
    let asked = probes(&offered.contents).iter().filter_map(|probe| {
        Some(Question {
            server: server.name_any(),
            required: (extension != taskserv.spec.extension.name).then(|| extension.to_owned()),
            probe: probe.name.clone(),
            kind: probe.kind.clone(),
            address: SocketAddr::new(address, probe.port_at(address, &parameters)?),
            run: step.run,
        })
    });
    asked.collect()
}

/// Where a Server is asked. One that is going is not. Addresses of the operator's own machine are no server's: whoever
/// could write one into a status must not be able to make the operator talk to itself or to a cloud's metadata.
fn address_of(server: &Server) -> Option<IpAddr> {
    let status = server.status.as_ref().filter(|_| server.metadata.deletion_timestamp.is_none())?;
    let address: IpAddr = status.addresses.first()?.address.parse().ok()?;
    is_elsewhere(address.to_canonical()).then_some(address)
}

fn is_elsewhere(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// How a Taskserv stands whose steps all succeeded, if not Ready. `before`: its condition Ready so far.
///
/// A process that has just begun keeps what the former one has said until it knows better, so that a restart of the
/// operator makes nothing Ready for half a minute. What cannot be known because a server is not Ready is not waited for.
pub(crate) fn standing(before: Option<&Condition>, asked: &[(Question, Opinion)]) -> Option<Standing> {
    let said = before.filter(|condition| condition.reason == reasons::UNHEALTHY);
    if let Some(said) = said.filter(|_| asked.iter().any(|(_, opinion)| *opinion == Opinion::Unknown)) {
        return Some(Standing::reconciling(reasons::UNHEALTHY, said.message.clone()));
    }
    let failing: Vec<String> = asked
        .iter()
        .filter_map(|(question, opinion)| match opinion {
            Opinion::Unhealthy(words) => Some(format!("{}: {words}", described(question))),
            Opinion::Unknown | Opinion::Unproven | Opinion::Healthy => None,
        })
        .collect();
    let named = failing.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    match failing.len() {
        0 => None,
        count if count > MAX_NAMED => {
            let text = format!("{named}; and {} more", count - MAX_NAMED);
            Some(Standing::reconciling(reasons::UNHEALTHY, text))
        }
        _ => Some(Standing::reconciling(reasons::UNHEALTHY, named)),
    }
}

fn described(question: &Question) -> String {
    let Question { server, required, probe, kind, address, run: _ } = question;
    let of = required.as_ref().map(|extension| format!(" of extension '{extension}'")).unwrap_or_default();
    let port = address.port();
    match kind {
        ProbeKind::Tcp => format!("Server '{server}': probe '{probe}'{of} (TCP port {port})"),
        ProbeKind::Http { path, .. } => format!("Server '{server}': probe '{probe}'{of} (GET {path} on port {port})"),
    }
}

/// Whether a Server is where it says that it is. An answer of one that is not proves nothing: another machine may have its
/// address meanwhile.
pub(super) fn is_itself(server: Option<&Server>) -> bool {
    server.is_some_and(|server| server.is_ready() && server.metadata.deletion_timestamp.is_none())
}
