//! Does a provider keep its contract? Each check starts the provider's binary as a process, as an operator's Job does,
//! against a [`world`] that the suite controls: it counts the calls, cuts the process off at any of them, answers with
//! errors, and knows what is really there. `docs/write-a-provider.md` is the contract in words.
//!
//! A crate of its own, so that nothing of it gets into a program that ships.
#![deny(missing_docs)]

mod checks;
mod claims;
pub mod command;
pub mod process;
pub mod reference;
pub mod report;
mod scene;
mod server;
pub mod world;
pub mod worlds;

use std::sync::{Arc, Mutex};

use futures::StreamExt;

pub use checks::{CHECKS, Check};
pub use process::Provider;
pub use report::{Outcome, Report, Row};

use crate::scene::Stage;
use crate::world::World;

/// Makes a fresh world for a scene; scenes never share one.
pub type MakeWorld = Arc<dyn Fn() -> Box<dyn World> + Send + Sync>;

/// What to check, and how.
pub struct Suite {
    /// The program, with what it is started with.
    pub provider: Provider,
    /// What it talks to.
    pub world: MakeWorld,
    /// Also the checks that take more than half a minute.
    pub slow: bool,
    /// Ids of the checks to run; empty: all.
    pub only: Vec<String>,
    /// Checks at a time. They mostly wait.
    pub parallel: usize,
}

/// Runs the checks; the report has one row for each, in the order of [`CHECKS`].
pub async fn run(suite: &Suite) -> Report {
    let findings = Arc::new(Mutex::new(Vec::new()));
    let stage = Stage::new(suite.provider.clone(), suite.world.clone(), findings.clone());
    let rows = futures::stream::iter(CHECKS)
        .map(|check| {
            let stage = stage.clone();
            async move { (check, outcome(suite, check, &stage).await) }
        })
        .buffered(suite.parallel.max(1))
        .collect::<Vec<_>>()
        .await;
    let findings = findings.lock().map(|findings| findings.clone()).unwrap_or_default();
    let rows = rows.into_iter().map(|(check, outcome)| Row {
        id: check.id,
        rule: check.rule,
        about: check.about,
        // What every process of every check has to keep is judged when all of them have run.
        outcome: outcome.unwrap_or_else(|| judge(check.id, &findings)),
    });
    Report { rows: rows.collect() }
}

async fn outcome(suite: &Suite, check: &'static Check, stage: &Stage) -> Option<Outcome> {
    if !suite.only.is_empty() && !suite.only.iter().any(|id| id == check.id) {
        return Some(Outcome::NotRun("not asked for".to_owned()));
    }
    if check.slow && !suite.slow {
        return Some(Outcome::NotRun("takes more than 30 s; ask with --slow".to_owned()));
    }
    let run = check.run?;
    Some(match run(stage).await {
        Ok(note) => Outcome::Passed(note),
        Err(seen) => Outcome::Failed(seen),
    })
}

fn judge(id: &str, findings: &[(&'static str, String)]) -> Outcome {
    let mut seen: Vec<&str> = findings.iter().filter(|(of, _)| *of == id).map(|(_, text)| text.as_str()).collect();
    seen.sort_unstable();
    seen.dedup();
    match seen.first() {
        None => Outcome::Passed("in every run above".to_owned()),
        Some(first) if seen.len() == 1 => Outcome::Failed((*first).to_owned()),
        Some(first) => Outcome::Failed(format!("{first} (and {} more)", seen.len() - 1)),
    }
}
