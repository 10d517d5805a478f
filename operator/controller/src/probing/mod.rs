//! Asks services whether they work: the probes of an extension, at each server on which it is installed, every ten
//! seconds (docs/health.md, ADR 21). [`crate::probes`] is another thing: it knocks at the servers themselves.
//!
//! What is heard stays in this process. Only where the opinion of a service changes its Taskserv is looked at, and that
//! pass writes the condition. Nothing here talks to the API server.

mod ask;
mod opinion;
mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::ResourceExt;
use provisioning_api::{Server, Taskserv};
use provisioning_plan::ids::fraction;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::bundles::offered;
use crate::context::{Context, lock};
use crate::engine::kind::by_name;
use crate::metrics::ProbeMetrics;
use crate::queue::Waker;

use ask::{Failure, PATIENCE, ask};
use opinion::Memory;
pub use opinion::Opinion;
pub use question::Question;
pub(crate) use question::{questions, standing};

/// Time between two questions of one probe, give or take the jitter.
const PERIOD: Duration = Duration::from_secs(10);
/// A question comes up to this much earlier or later, so that what began together does not stay together.
const JITTER: Duration = Duration::from_secs(1);
/// How often it is seen which questions are due.
const BEAT: Duration = Duration::from_millis(250);
/// How often it is seen what there is to ask.
const SURVEY: Duration = Duration::from_secs(3);
/// Questions at the same time.
const PLACES: usize = 64;
/// Questions at the same time of one workspace: a hundred dead servers of one do not keep another waiting.
const PLACES_OF_ONE: usize = 16;
/// Places that only a workspace gets which has none: nor do the dead servers of several keep another one from being asked at
/// all; it gets one question at a time then.
const PLACES_FOR_FIRSTS: usize = 16;

/// uid of the Taskserv, Server, the extension where it is not the Taskserv's own, probe.
type Key = (String, String, Option<String>, String);

/// What is known of one probe.
#[derive(Debug)]
struct Record {
    namespace: String,
    taskserv: String,
    question: Question,
    /// When it is asked next. Later than any answer to the last question can come.
    due: Instant,
    /// Questions so far: they give the jitter.
    asked: i64,
    memory: Memory,
}

/// What the services were heard to say.
#[derive(Debug)]
pub struct Probing {
    records: Mutex<BTreeMap<Key, Record>>,
    taskservs: Waker,
}

impl Probing {
    /// Knows nothing yet; wakes Taskservs by this.
    pub fn new(taskservs: Waker) -> Self {
        Probing { records: Mutex::default(), taskservs }
    }

    /// What is asked about a Taskserv, and what is thought of it by now.
    pub fn opinions(&self, taskserv: &Taskserv, questions: Vec<Question>) -> Vec<(Question, Opinion)> {
        let uid = taskserv.uid().unwrap_or_default();
        let records = lock(&self.records);
        let opinion = |question: &Question| {
            let record = records.get(&key(&uid, question)).filter(|record| record.question == *question);
            record.map_or(Opinion::Unknown, |record| record.memory.opinion().clone())
        };
        questions.into_iter().map(|question| (question.clone(), opinion(&question))).collect()
    }

    /// Takes over what there is to ask now. What is asked otherwise than before is unknown again.
    fn take_over(&self, found: Vec<(Key, Found)>, now: Instant, counted: &ProbeMetrics) {
        let mut records = lock(&self.records);
        let keys: BTreeSet<Key> = found.iter().map(|(key, _)| key.clone()).collect();
        records.retain(|key, _| keys.contains(key));
        for (key, Found { namespace, taskserv, question }) in found {
            match records.get_mut(&key) {
                Some(record) if record.question == question => {}
                Some(record) => {
                    record.question = question;
                    record.memory = Memory::default();
                }
                None => {
                    // Spread over the whole period, also where a thousand are found at once.
                    let due = now + PERIOD.mul_f64(fraction(&seed(&key), 0));
                    let memory = Memory::default();
                    records.insert(key, Record { namespace, taskserv, question, due, asked: 0, memory });
                }
            }
        }
        counted.count(&records);
    }

    /// The questions that are due, the longest due ones first, as many as there are places.
    fn due(&self, now: Instant, places: &mut Places) -> Vec<(Key, Question, Place)> {
        let mut records = lock(&self.records);
        let mut due: Vec<(&Key, &mut Record)> = records.iter_mut().filter(|(_, record)| record.due <= now).collect();
        due.sort_by_key(|(_, record)| record.due);
        let mut taken = Vec::new();
        for (key, record) in due {
            let Some(place) = places.take(&record.namespace) else { continue };
            record.asked += 1;
            let jitter = JITTER.mul_f64(2.0 * fraction(&seed(key), record.asked));
            record.due = now + PERIOD.saturating_sub(JITTER) + jitter;
            taken.push((key.clone(), record.question.clone(), place));
        }
        taken
    }

    /// Takes note of an answer. The one of a server that is not where it says to be proves nothing, its silence does.
    fn hear(&self, heard: &Heard, is_itself: impl Fn(&str, &str) -> bool, counted: &ProbeMetrics) {
        let Heard { key, question, answer } = heard;
        counted.answer(answer.as_ref().err());
        let mut records = lock(&self.records);
        let Some(record) = records.get_mut(key).filter(|record| record.question == *question) else { return };
        let is_new = if answer.is_ok() && !is_itself(&record.namespace, &question.server) {
            record.memory.hear_stranger()
        } else {
            record.memory.hear(answer.as_ref().copied())
        };
        if is_new {
            let (taskserv, opinion) = (&record.taskserv, record.memory.opinion());
            tracing::info!(namespace = record.namespace, taskserv, server = question.server, ?opinion, "probed");
            self.taskservs.wake(&record.namespace, taskserv);
            counted.count(&records);
        }
    }
}

fn key(uid: &str, question: &Question) -> Key {
    (uid.to_owned(), question.server.clone(), question.required.clone(), question.probe.clone())
}

fn seed((uid, server, required, probe): &Key) -> String {
    format!("{uid}/{server}/{}/{probe}", required.as_deref().unwrap_or_default())
}

/// Something to ask.
#[derive(Clone)]
struct Found {
    namespace: String,
    taskserv: String,
    question: Question,
}

/// What came of a question.
struct Heard {
    key: Key,
    question: Question,
    answer: Result<(), Failure>,
}

/// A place is taken as long as its token lives, whatever becomes of the question.
type Place = (Arc<()>, Arc<()>);

/// Bounds what is asked at the same time.
#[derive(Debug, Default)]
struct Places {
    all: Arc<()>,
    by_workspace: BTreeMap<String, Arc<()>>,
}

impl Places {
    fn take(&mut self, namespace: &str) -> Option<Place> {
        let of_one = self.by_workspace.entry(namespace.to_owned()).or_default();
        // The first token of each is the one that is kept here.
        let taken = |token: &Arc<()>| Arc::strong_count(token) - 1;
        let most = if taken(of_one) == 0 { PLACES } else { PLACES - PLACES_FOR_FIRSTS };
        let is_free = taken(&self.all) < most && taken(of_one) < PLACES_OF_ONE;
        is_free.then(|| (self.all.clone(), of_one.clone()))
    }

    fn forget_idle(&mut self) {
        self.by_workspace.retain(|_, tokens| Arc::strong_count(tokens) > 1);
    }
}

/// Asks until the process ends.
pub async fn run(ctx: Arc<Context>) {
    let counted = &ctx.metrics.probes;
    let mut places = Places::default();
    let mut asked: JoinSet<Heard> = JoinSet::new();
    let mut surveyed: Option<Instant> = None;
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            Some(ended) = asked.join_next() => match ended {
                Ok(heard) => {
                    let server = |namespace: &str, name: &str| by_name(&ctx.stores.servers, namespace, name);
                    let is_itself =
                        |namespace: &str, name: &str| question::is_itself(server(namespace, name).as_ref());
                    ctx.probing.hear(&heard, is_itself, counted);
                }
                Err(error) => tracing::warn!(%error, "a probe was not asked to its end"),
            },
            _ = beats.tick() => {
                let now = Instant::now();
                if surveyed.is_none_or(|at| now.duration_since(at) >= SURVEY) {
                    surveyed = Some(now);
                    places.forget_idle();
                    ctx.probing.take_over(survey(&ctx), now, counted);
                }
                for (key, question, place) in ctx.probing.due(now, &mut places) {
                    asked.spawn(async move {
                        let answer = ask(question.address, &question.kind, PATIENCE).await;
                        drop(place);
                        Heard { key, question, answer }
                    });
                }
            }
        }
    }
}

/// Everything that there is to ask, from the caches.
fn survey(ctx: &Context) -> Vec<(Key, Found)> {
    let offered = offered(ctx);
    let mut found = Vec::new();
    for guarded in ctx.stores.taskservs.state() {
        let Ok(taskserv) = &guarded.0 else { continue };
        let (uid, namespace) = (taskserv.uid().unwrap_or_default(), taskserv.namespace().unwrap_or_default());
        let find = |name: &str| by_name::<Server>(&ctx.stores.servers, &namespace, name);
        for question in questions(taskserv, &offered, find) {
            let (namespace, taskserv) = (namespace.clone(), taskserv.name_any());
            found.push((key(&uid, &question), Found { namespace, taskserv, question }));
        }
    }
    found
}

impl ProbeMetrics {
    fn answer(&self, failure: Option<&Failure>) {
        let outcome = failure.map_or("answered", |failure| failure.trouble.label());
        self.answers.with_label_values(&[outcome]).inc();
    }

    fn count(&self, records: &BTreeMap<Key, Record>) {
        let failing = records.values().filter(|record| matches!(record.memory.opinion(), Opinion::Unhealthy(_)));
        self.failing.set(i64::try_from(failing.count()).unwrap_or(i64::MAX));
        self.known.set(i64::try_from(records.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
