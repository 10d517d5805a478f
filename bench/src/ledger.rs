//! What the stand-in did, run by run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;
use provisioning_sdk::request::Owner;
use serde::Serialize;

/// Most troubles that are kept.
const TROUBLES: usize = 100;

/// One run that the stand-in answered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Whose step it is.
    pub(crate) owner: Owner,
    /// The step.
    pub(crate) step: String,
    /// Its run.
    pub(crate) run: i64,
    /// Name of the Job.
    pub(crate) job: String,
    /// When the stand-in first saw the Pod on its node.
    pub(crate) bound: Timestamp,
    /// When the stand-in's own watch brought the Pod's end.
    pub(crate) end_seen: Option<Timestamp>,
    /// What it answered, where that was a failure.
    pub(crate) failure: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<String, Entry>,
    troubles: Vec<String>,
}

/// The account of the stand-in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<State>>);

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a Pod, by its uid. False: it is known already.
    pub(crate) fn begin(&self, pod: &str, entry: Entry) -> bool {
        let mut state = self.state();
        let is_new = !state.runs.contains_key(pod);
        if is_new {
            state.runs.insert(pod.to_owned(), entry);
        }
        is_new
    }

    /// Whether a Pod is known.
    pub(crate) fn knows(&self, pod: &str) -> bool {
        self.state().runs.contains_key(pod)
    }

    /// Notes the first news of a Pod's end.
    pub(crate) fn end_seen(&self, pod: &str, at: Timestamp) {
        if let Some(entry) = self.state().runs.get_mut(pod) {
            entry.end_seen.get_or_insert(at);
        }
    }

    /// Notes that a run failed.
    pub(crate) fn failed(&self, pod: &str, why: String) {
        if let Some(entry) = self.state().runs.get_mut(pod) {
            entry.failure = Some(why);
        }
    }

    /// Notes what should not have happened.
    pub(crate) fn trouble(&self, what: String) {
        let mut state = self.state();
        if state.troubles.len() < TROUBLES {
            state.troubles.push(what);
        }
    }

    /// What should not have happened: refused requests, and runs that failed.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let state = self.state();
        let failed = state.runs.values().filter_map(|entry| {
            let why = entry.failure.as_ref()?;
            Some(format!("step {} of {} {}: {why}", entry.step, entry.owner.kind, entry.owner.name))
        });
        state.troubles.iter().cloned().chain(failed).collect()
    }

    /// The runs in a namespace.
    pub(crate) fn runs(&self, namespace: &str) -> Vec<Entry> {
        let state = self.state();
        state.runs.values().filter(|entry| entry.owner.namespace == namespace).cloned().collect()
    }

    /// Writes a line of JSON for each run.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let state = self.state();
        let mut lines = Vec::new();
        for entry in state.runs.values() {
            serde_json::to_writer(&mut lines, entry)?;
            writeln!(lines)?;
        }
        std::fs::write(file, lines).with_context(|| format!("write {}", file.display()))
    }
}
