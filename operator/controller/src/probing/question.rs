// (pure) What is asked about a Taskserv, and how it stands by the answers.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use provisioning_api::conditions::reasons;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus};
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::ProbeKind;
use provisioning_plan::conditions::Standing;

use super::opinion::Opinion;
use crate::bundles::{Contents, Offered};
use crate::taskserv::{extension_of, server_of};

/// Most failing probes that a message names.
const MAX_NAMED: usize = 3;

/// One probe of an extension at one of its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the Server.
    pub server: String,
    /// Name of the probe.
    pub probe: String,
    /// What is asked.
    pub kind: ProbeKind,
    /// Where.
    pub address: SocketAddr,
    /// Run of the installation: after another one, what was thought of the service before says nothing.
    pub run: i64,
}

/// The contents of the bundle that a Taskserv is on, if it has probes.
pub(crate) fn probed<'a>(taskserv: &Taskserv, offered: &'a [Offered]) -> Option<&'a Contents> {
    let digest = &taskserv.status.as_ref()?.resolved.as_ref()?.digest;
    let contents = &offered.iter().find(|offered| offered.digest == *digest)?.contents;
    contents.manifest.as_ref().is_some_and(|manifest| !manifest.probes.is_empty()).then_some(contents)
}

/// What is asked: each probe at each server on which the extension is installed. Nothing of what is being deleted, nor of
/// what the extension requires.
/// `find`: the Server of a name.
pub(crate) fn questions(
    taskserv: &Taskserv,
    contents: &Contents,
    find: impl Fn(&str) -> Option<Server>,
) -> Vec<Question> {
    let Some(manifest) = contents.manifest.as_ref().filter(|_| taskserv.metadata.deletion_timestamp.is_none()) else {
        return Vec::new();
    };
    let parameters = contents.with_defaults(&taskserv.spec.parameters);
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let is_own = |step: &StepStatus| extension_of(taskserv, &step.id) == Some(taskserv.spec.extension.name.as_str());
    let is_installed = |step: &StepStatus| step.action == StepAction::Install && step.phase == StepPhase::Succeeded;
    let mut all = Vec::new();
    for step in steps.iter().filter(|step| is_installed(step) && is_own(step)) {
        let Some(server) = server_of(&step.id) else { continue };
        let Some(address) = find(server).as_ref().and_then(address_of) else { continue };
        let asked = manifest.probes.iter().filter_map(|probe| {
            Some(Question {
                server: server.to_owned(),
                probe: probe.name.clone(),
                kind: probe.kind.clone(),
                address: SocketAddr::new(address, probe.port_at(address, &parameters)?),
                run: step.run,
            })
        });
        all.extend(asked);
    }
    all.sort_by(|left, right| (&left.server, &left.probe).cmp(&(&right.server, &right.probe)));
    all
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
    let Question { server, probe, kind, address, run: _ } = question;
    let port = address.port();
    match kind {
        ProbeKind::Tcp => format!("Server '{server}': probe '{probe}' (TCP port {port})"),
        ProbeKind::Http { path, .. } => format!("Server '{server}': probe '{probe}' (GET {path} on port {port})"),
    }
}

/// Whether a Server is where it says that it is. An answer of one that is not proves nothing: another machine may have its
/// address meanwhile.
pub(super) fn is_itself(server: Option<&Server>) -> bool {
    server.is_some_and(|server| server.is_ready() && server.metadata.deletion_timestamp.is_none())
}
