//! (pure) From an object to what it waits for or failed by: one link of a chain, and where the next one is.

use provisioning_api::conditions::{reasons, types};
use provisioning_api::names::WORKSPACE_NAME;
use provisioning_api::steps::{FailureClass, StepAction, StepPhase, StepStatus};
use serde::Serialize;
use serde_json::Value;

use crate::changes::failure;
use crate::commands::tree::child_of;
use crate::item::{Item, Typed};
use crate::kinds::{Kind, Target};

/// Longest text of parameters in a line.
const MAX_PARAMETERS: usize = 160;

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    /// It is what its spec asks for.
    Ready,
    /// It works on it, or waits for something that comes by itself.
    Going,
    /// Nothing more happens until a person changes something.
    Stalled,
    /// The operator has not looked at it, or not at its newest spec.
    NotSeen,
    /// There is no such object.
    Missing,
    /// Not an object: the bundle and parameters that a step ran with.
    Given,
}

/// The step that a link is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepOf {
    pub(crate) id: String,
    pub(crate) action: StepAction,
    pub(crate) phase: StepPhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<FailureClass>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    pub(crate) run: i64,
    pub(crate) attempt: i32,
    /// Other steps that failed too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) also_failed: Vec<String>,
    /// Class, reason and words of a failure that was not made good, in one line.
    #[serde(skip)]
    pub(crate) failure: Option<String>,
}

/// One link of a chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Link {
    /// `server/heron`, or `extension/redis 0.1.0`.
    pub(crate) object: String,
    pub(crate) state: State,
    /// Of its condition `Ready`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<StepOf>,
}

impl Link {
    /// How an object stands, and which step that is about.
    pub(crate) fn of(item: &Item) -> Self {
        let ready = item.condition(types::READY);
        let state = match item.is_ready() {
            true => State::Ready,
            false if item.stalled().is_some() => State::Stalled,
            // A pass that the API server refuses is told at once, and never gets to the newest spec.
            false if ready.is_some_and(|ready| ready.reason == reasons::API_ERROR) => State::Going,
            false if ready.is_none() || !item.is_up_to_date() => State::NotSeen,
            false => State::Going,
        };
        let message = match (&item.typed, ready) {
            (Err(problem), _) => format!("this program can't read it: {problem}"),
            (_, Some(_)) if state == State::NotSeen => "the operator has not seen its newest spec yet".to_owned(),
            (_, Some(ready)) => ready.message.clone(),
            (_, None) => "the operator has not looked at it yet".to_owned(),
        };
        let step = if state == State::Ready { None } else { culprit(item).map(|step| step_of(item, step)) };
        let reason = ready.filter(|_| state != State::NotSeen).map(|ready| ready.reason.clone()).unwrap_or_default();
        Self { object: item.target().to_string(), state, reason, message, step }
    }

    /// An object that is referred to and does not exist.
    pub(crate) fn missing(target: &Target) -> Self {
        let (object, message) = (target.to_string(), "there is no such object".to_owned());
        Self { object, state: State::Missing, reason: String::new(), message, step: None }
    }

    /// A line for people: object, reason, step, class and words.
    pub(crate) fn line(&self) -> String {
        let state = match self.state {
            State::Ready => "Ready",
            State::Going => "not Ready",
            State::Stalled => "Stalled",
            State::NotSeen => "not looked at",
            State::Missing => "missing",
            State::Given => "given",
        };
        let reason = match self.reason.as_str() {
            "" | reasons::SUCCEEDED => String::new(),
            reason => format!(" ({reason})"),
        };
        let step = self.step.as_ref().map_or_else(String::new, |step| format!(", step {} ({:?})", step.id, step.phase));
        let failure = self.step.as_ref().and_then(|step| step.failure.clone());
        let words = failure.unwrap_or_else(|| self.message.clone());
        let also = match self.step.as_ref().map(|step| step.also_failed.as_slice()) {
            None | Some([]) => String::new(),
            Some(others) => format!("; failed too: {}", others.join(", ")),
        };
        match (self.state, words.as_str()) {
            (State::Given, words) => format!("{}: {words}", self.object),
            (State::Ready, _) | (_, "") => format!("{}: {state}{reason}{step}{also}", self.object),
            (_, words) => format!("{}: {state}{reason}{step}: {words}{also}", self.object),
        }
    }
}

fn step_of(item: &Item, step: &StepStatus) -> StepOf {
    let others = item.steps().iter().filter(|other| other.id != step.id && has_failed(other) && matters(item, other));
    StepOf {
        id: step.id.clone(),
        action: step.action,
        phase: step.phase,
        class: step.class.filter(|_| failure(step).is_some()),
        reason: step.reason.clone(),
        message: step.message.clone(),
        run: step.run,
        attempt: step.attempt,
        also_failed: if has_failed(step) { others.map(|other| other.id.clone()).collect() } else { Vec::new() },
        failure: failure(step),
    }
}

/// Failed for good.
pub(crate) fn has_failed(step: &StepStatus) -> bool {
    matches!(step.phase, StepPhase::Failed | StepPhase::UndoFailed)
}

/// The step that an object's standing is about: one that failed for good, else one that is to be tried again, else one that
/// runs, else the first that waits.
pub(crate) fn culprit(item: &Item) -> Option<&StepStatus> {
    let steps = || item.steps().iter().filter(|step| matters(item, step));
    let failed = steps().find(|step| has_failed(step));
    let again = || steps().find(|step| failure(step).is_some());
    let open = || steps().find(|step| step.is_open());
    let waiting = || steps().find(|step| !step.phase.is_terminal());
    failed.or_else(again).or_else(open).or_else(waiting)
}

/// On its way out, what failed before is no matter any more.
fn matters(item: &Item, step: &StepStatus) -> bool {
    !item.is_deleting() || step.is_open() || matches!(step.phase, StepPhase::Undoing | StepPhase::UndoFailed)
}

/// The object that comes next in a chain; none where the cause lies in this one. `seen` are those before it.
pub(crate) fn next(item: &Item, seen: &[Target]) -> Option<Target> {
    let ready = item.condition(types::READY)?;
    if !item.is_up_to_date() {
        return None;
    }
    let named = || mentioned(&ready.message).into_iter().find(|target| !seen.contains(target));
    match ready.reason.as_str() {
        // A service that does not answer: perhaps because its server does not.
        reasons::UNHEALTHY => named(),
        reasons::WAITING | reasons::DEPENDENCY_STALLED => named().or_else(|| referred(item)),
        reasons::SUSPENDED | reasons::NO_WORKSPACE if item.kind != Kind::Workspace => named(),
        reasons::DELETING => named().or_else(|| by_step(item)),
        // All of its steps are done: it is not Ready for the reason of one of its parts.
        _ if item.kind == Kind::Cluster && culprit(item).is_none() => named(),
        _ => by_step(item),
    }
    .filter(|target| !seen.contains(target))
}

fn by_step(item: &Item) -> Option<Target> {
    let step = culprit(item)?;
    // Of somebody else's object there is nothing to learn: its name is taken.
    child_of(step).filter(|_| step.reason != reasons::NAME_CONFLICT).or_else(|| server_of(item, step))
}

/// The Server of a Taskserv's step that failed by the machine, not by the script.
fn server_of(item: &Item, step: &StepStatus) -> Option<Target> {
    const BY_THE_MACHINE: [&str; 8] = [
        "AuthenticationRefused",
        "ConnectionLost",
        "DiskFull",
        "HostKeyMismatch",
        "NoSpace",
        "NotBooted",
        "ServerNotReady",
        "Unreachable",
    ];
    let is_machine = item.kind == Kind::Taskserv && BY_THE_MACHINE.contains(&step.reason.as_str());
    is_machine.then(|| server_in(step)).flatten()
}

/// Ids of a Taskserv's steps are `install/SERVER` and `check/SERVER`, and for what its extension requires
/// `install/SERVER/EXTENSION` and `check/SERVER/EXTENSION`.
fn server_in(step: &StepStatus) -> Option<Target> {
    let name = step.id.split('/').nth(1)?;
    Some(Target { kind: Kind::Server, name: name.to_owned() })
}

/// What an object that waits refers to, where its words name nothing.
fn referred(item: &Item) -> Option<Target> {
    match item.typed.as_ref().ok()? {
        Typed::Server(server) => {
            Some(Target { kind: Kind::ProviderConfig, name: server.spec.provider_config_ref.name.clone() })
        }
        Typed::Taskserv(_) => culprit(item).and_then(server_in),
        Typed::BatchWorkflow(_) | Typed::Cluster(_) => by_step(item),
        Typed::ProviderConfig(_) => Some(Target { kind: Kind::Workspace, name: WORKSPACE_NAME.to_owned() }),
        Typed::Workspace(_) => None,
    }
}

/// The objects that the operator's words name, in their order: `Server 'heron'`, `Server heron`, `the Workspace`. A name
/// without quotes ends a part of the sentence: the next word of `no Server of this namespace` is no name.
fn mentioned(words: &str) -> Vec<Target> {
    let mut found: Vec<(usize, Target)> = Vec::new();
    for kind in Kind::ALL {
        for (at, text) in words.match_indices(kind.name()) {
            let rest = words.get(at + text.len()..).unwrap_or_default();
            let rest = rest.strip_prefix(' ').unwrap_or_default();
            let quoted = rest.strip_prefix('\'');
            let rest = quoted.unwrap_or(rest);
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            let is_whole = match quoted {
                Some(_) => after.starts_with('\''),
                None => after.is_empty() || after.starts_with([',', ';', ':', '.', ')']) || after.starts_with(" is "),
            };
            match Target::named(kind, name) {
                _ if kind == Kind::Workspace => found.push((at, Target { kind, name: WORKSPACE_NAME.to_owned() })),
                Ok(target) if is_whole => found.push((at, target)),
                _ => {}
            }
        }
    }
    if let Some(at) = words.find("the workspace ") {
        found.push((at, Target { kind: Kind::Workspace, name: WORKSPACE_NAME.to_owned() }));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, target)| target).collect()
}

/// The bundle and the parameters of a script that failed: what a person would change.
pub(crate) fn given(item: &Item) -> Option<Link> {
    let Ok(Typed::Taskserv(taskserv)) = &item.typed else { return None };
    let step = culprit(item).filter(|step| failure(step).is_some() && server_of(item, step).is_none())?;
    let by_script =
        matches!(step.class, Some(FailureClass::ScriptFailed | FailureClass::Invalid | FailureClass::Timeout));
    let script = match (step.action, step.phase) {
        _ if !by_script => return None,
        (_, StepPhase::Undoing | StepPhase::UndoFailed) => "uninstall",
        (StepAction::Check, _) => "check",
        _ => "install",
    };
    let mut parts = step.id.split('/').skip(1);
    let on = parts.next().map_or_else(String::new, |server| format!(" on {server}"));
    let own = taskserv.spec.extension.name.as_str();
    // What the extension requires is installed as it comes.
    let (extension, given) = match parts.next() {
        Some(dependency) => (dependency, Value::Null),
        None => (own, serde_json::to_value(&taskserv.spec.parameters).unwrap_or_default()),
    };
    let mut chosen = taskserv.status.iter().flat_map(|status| status.resolved.iter().chain(&status.dependencies));
    let resolved = chosen.find(|resolved| resolved.name == extension);
    let version = resolved.map_or_else(String::new, |resolved| format!(" {}", resolved.version));
    let object = format!("extension/{extension}{version}");
    let parameters = parameters(&given);
    let message = format!("scripts/{script}.nu{on}, with {parameters}");
    Some(Link { object, state: State::Given, reason: String::new(), message, step: None })
}

fn parameters(parameters: &Value) -> String {
    if parameters.as_object().is_none_or(serde_json::Map::is_empty) {
        return "no parameters".to_owned();
    }
    let text = parameters.to_string();
    let short: String = text.chars().take(MAX_PARAMETERS).collect();
    if short.len() < text.len() { format!("parameters {short}…") } else { format!("parameters {text}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::{server, step};

    #[test]
    fn the_words_of_the_operator_name_what_comes_next() {
        let named = |words: &str| mentioned(words).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            named("Server 'heron' is Stalled: ProviderConfig 'local' is"),
            ["server/heron", "providerconfig/local"]
        );
        assert_eq!(named("open steps on it: Taskserv redis, Taskserv x-1"), ["taskserv/redis", "taskserv/x-1"]);
        assert_eq!(named("there is no Workspace in this namespace"), ["workspace/workspace"]);
        assert_eq!(named("the workspace has no SSH key yet"), ["workspace/workspace"]);
        assert_eq!(named("spec.size: Server. Servers"), [""; 0]);
        assert_eq!(named("no Server of this namespace matches spec.serverSelector yet"), [""; 0]);
        let waits = "waits until nothing refers to it: Server curlew, Server heron";
        assert_eq!(named(waits), ["server/curlew", "server/heron"]);
        assert_eq!(named("waits for Server lapwing: undo of step 'create' failed"), ["server/lapwing"]);
        let long = "n".repeat(64);
        assert_eq!(named(&format!("Taskserv '{long}' would have a name of 64 characters")), [""; 0]);
    }

    #[test]
    fn what_failed_for_good_comes_before_what_goes_on() {
        let again = {
            let mut again = step("observe", "Observe", "Pending");
            again["class"] = json!("Transient");
            again
        };
        let steps = [
            step("create", "Create", "Succeeded"),
            step("wait", "Observe", "Pending"),
            step("run", "Reach", "Running"),
            again,
            step("fail", "Reach", "Failed"),
        ];
        let of = |count: usize| {
            let item = server("heron", ("False", "Running", "x"), json!(steps[..count]));
            culprit(&item).map(|step| step.id.clone())
        };
        let found: Vec<Option<String>> = (1..=5).map(of).collect();
        let expected = [None, Some("wait"), Some("run"), Some("observe"), Some("fail")];
        assert_eq!(found, expected.map(|id| id.map(str::to_owned)));
    }

    #[test]
    fn a_cluster_whose_steps_are_done_leads_to_the_part_that_it_names() {
        let conditions = crate::item::tests::conditions;
        let ready = ("False", "Retrying", "Taskserv 'web-nginx' is not Ready: connection refused");
        let mut apply = step("taskserv/nginx", "Apply", "Succeeded");
        apply["why"] = json!("Taskserv web-nginx");
        let web = crate::item::tests::item(
            Kind::Cluster,
            json!({"metadata": {"name": "web", "namespace": "first", "uid": "uid-web", "generation": 1},
                "spec": {"serverGroups": []},
                "status": {"observedGeneration": 1, "conditions": conditions(ready), "steps": [apply]}}),
        );
        assert_eq!(next(&web, &[web.target()]).unwrap().to_string(), "taskserv/web-nginx");
    }

    #[test]
    fn what_does_not_answer_leads_to_its_server_if_that_is_not_ready() {
        let words = "Taskserv 'redis' is not Ready: Server 'curlew': probe 'tcp' (TCP port 6379): connection refused";
        let item = server("heron", ("False", "Unhealthy", words), json!([]));
        let redis = next(&item, &[item.target()]).unwrap();
        assert_eq!(redis.to_string(), "taskserv/redis");
        assert_eq!(next(&item, &[item.target(), redis]).unwrap().to_string(), "server/curlew");
    }

    #[test]
    fn a_newer_spec_makes_all_words_old() {
        let mut heron = server("heron", ("False", "Waiting", "ProviderConfig 'local' is not Ready: x"), json!([]));
        assert_eq!(next(&heron, &[heron.target()]).unwrap().to_string(), "providerconfig/local");
        heron.metadata.generation = Some(2);
        assert_eq!(next(&heron, &[heron.target()]), None);
        assert_eq!(Link::of(&heron).state, State::NotSeen);
    }
}
