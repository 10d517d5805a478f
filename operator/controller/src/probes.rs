//! Knocks at the SSH port of Ready servers, so that a machine that has moved or died is looked at before somebody needs
//! it. A knock ends with the key exchange: it learns whose machine answers (two that restart together may swap their
//! addresses), logs in nowhere and writes nothing. Only silence, or a stranger's key, does: it asks the Server's own
//! controller for a new look.
//!
//! The operator may be unable to reach what executors can (network policies). Then a look finds all well, the knock still
//! fails, and asking again would go on for ever: so silence is reported once per address until a knock succeeds.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use provisioning_api::Server;
use provisioning_api::conditions::types;
use provisioning_api::names::{ANNOTATION_RECONCILE, MANAGER};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{FailureClass, StepPhase, StepStatus};
use russh::Preferred;
use russh::client;
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use crate::context::Context;
use crate::error::Error;
use crate::guarded::Guarded;

/// Time between two rounds; each Ready server is knocked at once per round.
const ROUND: Duration = Duration::from_secs(20);
/// A server that has not answered by then is silent.
const PATIENCE: Duration = Duration::from_secs(3);
/// Silent rounds before it is reported: a reboot takes less.
const SILENCES: u32 = 2;
/// One that stays silent after that is knocked at in each of so many rounds only: it may have been shut off from the operator
/// for good, and a thousand such servers of one workspace would make the rounds of all last minutes.
const SELDOM: u64 = 6;
/// Knocks at the same time.
const CONCURRENCY: usize = 32;
/// A server that failed because it could not be reached is looked at again after this time.
const SECOND_CHANCE: SignedDuration = SignedDuration::from_mins(5);

/// How the value of the annotation begins that asks for it.
const SECOND_CHANCE_MARK: &str = "second-chance/";

/// What is remembered of knocks; lost with the process, which only costs one more look.
#[derive(Debug, Default)]
struct Memory {
    silences: BTreeMap<String, u32>,
    reported: BTreeSet<(String, String)>,
    rounds: u64,
    /// Since when each server was Ready when it was knocked at last.
    ready_since: BTreeMap<String, Option<Timestamp>>,
}

/// Knocks until the process ends.
pub async fn run(context: Arc<Context>) {
    let mut memory = Memory::default();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        round(&context, &mut memory).await;
    }
}

async fn round(context: &Context, memory: &mut Memory) {
    let known = context.stores.servers.state();
    let servers: Vec<&Server> = known.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
    let alive: BTreeSet<String> = servers.iter().filter_map(|server| server.uid()).collect();
    memory.silences.retain(|uid, _| alive.contains(uid));
    memory.reported.retain(|(uid, _)| alive.contains(uid));
    memory.ready_since.retain(|uid, _| alive.contains(uid));
    memory.rounds += 1;
    let now = context.now();
    for server in &servers {
        let Some(failed_at) = due_for_second_chance(server, now) else { continue };
        let value = format!("{SECOND_CHANCE_MARK}{}", failed_at.as_second());
        // Once: where nothing came of it, the next one needs a person. Whoever asked later, or a machine that was Ready
        // and is silent now, has left another value there.
        let used =
            server.annotations().get(ANNOTATION_RECONCILE).is_some_and(|value| value.starts_with(SECOND_CHANCE_MARK));
        if !used {
            ask(context, server, value).await;
        }
    }
    let ready = servers.into_iter().filter(|server| server.is_ready() && server.metadata.deletion_timestamp.is_none());
    let knocks: Vec<_> = ready
        .filter_map(|server| {
            let status = server.status.as_ref()?;
            let (address, key) = (status.addresses.first()?.address.clone(), status.host_key.clone()?);
            let since = server.condition(types::READY).map(|ready| ready.last_transition_time.0);
            if !memory.is_due(&server.uid().unwrap_or_default(), &address, since) {
                return None;
            }
            Some(async move { (knock(&address, &key).await, server, address) })
        })
        .collect();
    let mut answers = futures::stream::iter(knocks).buffer_unordered(CONCURRENCY);
    while let Some((answer, server, address)) = answers.next().await {
        let uid = server.uid().unwrap_or_default();
        if memory.hear(&uid, &address, answer) {
            tracing::info!(server = server.name_any(), address, ?answer, "is not where it was; its controller looks");
            ask(context, server, format!("{answer:?}/{address}/{}", now.as_second())).await;
        }
    }
}

impl Memory {
    /// Whether a server is knocked at in this round. One that has become Ready anew was perhaps down, and is back.
    fn is_due(&mut self, uid: &str, address: &str, since: Option<Timestamp>) -> bool {
        // Each in a round of its own, not all in the same one.
        let turn = uid.bytes().fold(self.rounds, |sum, byte| sum + u64::from(byte));
        let is_anew = self.ready_since.get(uid) != Some(&since);
        let is_due =
            turn.is_multiple_of(SELDOM) || is_anew || !self.reported.contains(&(uid.to_owned(), address.to_owned()));
        if is_due {
            self.ready_since.insert(uid.to_owned(), since);
        }
        is_due
    }

    /// Takes note of one knock; true: it has to be reported.
    fn hear(&mut self, uid: &str, address: &str, answer: Answer) -> bool {
        let key = (uid.to_owned(), address.to_owned());
        let silences = self.silences.entry(uid.to_owned()).or_insert(0);
        match answer {
            Answer::Itself => {
                *silences = 0;
                self.reported.remove(&key);
                false
            }
            // There is nothing to wait for: the machine is elsewhere.
            Answer::Stranger => self.reported.insert(key),
            Answer::Silence => {
                *silences += 1;
                *silences >= SILENCES && self.reported.insert(key)
            }
        }
    }
}

/// What a knock met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The machine with the key that is expected.
    Itself,
    /// A machine with another key.
    Stranger,
    /// Nobody who speaks SSH.
    Silence,
}

/// Compares the key that is shown and goes away.
struct Caller {
    expected: PublicKey,
    answer: Arc<OnceLock<Answer>>,
}

impl client::Handler for Caller {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let same = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.expected.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        };
        // The first is the only one: the session ends here.
        let _ = self.answer.set(if same { Answer::Itself } else { Answer::Stranger });
        Ok(false)
    }
}

async fn knock(address: &str, host_key: &str) -> Answer {
    let Ok(expected) = PublicKey::from_openssh(host_key) else { return Answer::Itself };
    let answer = Arc::new(OnceLock::new());
    let preferred = Preferred { key: Cow::Owned(vec![expected.algorithm()]), ..Preferred::default() };
    let config = Arc::new(client::Config { preferred, ..client::Config::default() });
    let caller = Caller { expected, answer: Arc::clone(&answer) };
    // Ends with an error in any case: what counts is what was seen on the way.
    let _ = tokio::time::timeout(PATIENCE, client::connect(config, (address, 22), caller)).await;
    answer.get().copied().unwrap_or(Answer::Silence)
}

/// A Server that failed for good because it could not be reached moves again by itself once it can be (L2).
fn due_for_second_chance(server: &Server, now: Timestamp) -> Option<Timestamp> {
    if server.metadata.deletion_timestamp.is_some() || server.stalled().is_none() {
        return None;
    }
    let steps = server.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let unreachable = |step: &&StepStatus| {
        step.phase == StepPhase::Failed && matches!(step.class, Some(FailureClass::Transient | FailureClass::Timeout))
    };
    let ended = steps.iter().find(unreachable)?.finished_at.as_ref()?.0;
    (now.duration_since(ended) > SECOND_CHANCE).then_some(ended)
}

async fn ask(context: &Context, server: &Server, value: String) {
    if let Err(error) = ask_for_a_look(context, server, &value).await {
        tracing::info!(server = server.name_any(), error = error.chain(), "could not ask for a look at it");
    }
}

/// Asks the controller of a Server to observe its machine again.
///
/// # Errors
/// Where the API server refuses.
pub async fn ask_for_a_look(ctx: &Context, server: &Server, value: &str) -> Result<(), Error> {
    let api: Api<Guarded<Server>> = Api::namespaced(ctx.client.clone(), &server.namespace().unwrap_or_default());
    let name = server.name_any();
    let patch = serde_json::json!({"metadata": {"annotations": {ANNOTATION_RECONCILE: value}}});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &parameters, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::request("patch", format!("Server {name}"), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_reported_once_per_address_until_a_knock_succeeds() {
        let mut memory = Memory::default();
        assert!(!memory.hear("u", "10.0.0.5", Answer::Silence));
        assert!(memory.hear("u", "10.0.0.5", Answer::Silence));
        assert!(!memory.hear("u", "10.0.0.5", Answer::Silence));
        assert!(memory.hear("u", "10.0.0.6", Answer::Silence), "another address is other news");
        assert!(!memory.hear("u", "10.0.0.5", Answer::Itself));
        assert!(!memory.hear("u", "10.0.0.5", Answer::Silence));
        assert!(memory.hear("u", "10.0.0.5", Answer::Silence));
    }

    #[test]
    fn one_that_is_silent_for_good_is_knocked_at_in_few_rounds_and_each_in_its_own() {
        let mut memory = Memory::default();
        let uids: Vec<String> = (100..700).map(|number| format!("uid-{number}")).collect();
        let then = Some(Timestamp::from_second(1_000).unwrap());
        let due = |memory: &mut Memory| uids.iter().filter(|uid| memory.is_due(uid, "10.0.0.5", then)).count();
        assert_eq!(due(&mut memory), uids.len(), "nothing is known of them yet");
        for uid in &uids {
            memory.hear(uid, "10.0.0.5", Answer::Silence);
            memory.hear(uid, "10.0.0.5", Answer::Silence);
        }
        let by_round: Vec<usize> = (0..SELDOM)
            .map(|round| {
                memory.rounds = round;
                due(&mut memory)
            })
            .collect();
        assert_eq!(by_round.iter().sum::<usize>(), uids.len(), "each once: {by_round:?}");
        assert!(by_round.iter().all(|count| *count < uids.len() / 3), "{by_round:?}");
        assert!(memory.is_due(&uids[0], "10.0.0.6", then), "its new address is another matter");
        let seldom: Vec<&String> = uids.iter().filter(|uid| !memory.is_due(uid, "10.0.0.5", then)).collect();
        memory.hear(seldom[0], "10.0.0.5", Answer::Itself);
        assert!(memory.is_due(seldom[0], "10.0.0.5", then));
        let later = Some(Timestamp::from_second(2_000).unwrap());
        assert!(memory.is_due(seldom[1], "10.0.0.5", later), "it was down and is Ready again");
        assert!(!memory.is_due(seldom[1], "10.0.0.5", later));
    }

    #[test]
    fn a_stranger_is_reported_at_once() {
        assert!(Memory::default().hear("u", "10.0.0.5", Answer::Stranger));
    }
}
