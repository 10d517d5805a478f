//! What the checks said, as a table.

use std::fmt::{self, Display, Formatter};

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rule was kept; what there is to say about it.
    Passed(String),
    /// The rule was broken: what was seen.
    Failed(String),
    /// Not run, and why. Never counted as passed.
    NotRun(String),
}

/// One check with its outcome.
#[derive(Clone, Debug)]
pub struct Row {
    /// Stable name of the check.
    pub id: &'static str,
    /// Where the rule stands.
    pub rule: &'static str,
    /// The rule.
    pub about: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

/// All rows.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the checks.
    pub rows: Vec<Row>,
}

impl Report {
    /// Ids of the checks that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.ids(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// Ids of the checks that were not run.
    pub fn not_run(&self) -> Vec<&'static str> {
        self.ids(|outcome| matches!(outcome, Outcome::NotRun(_)))
    }

    fn ids(&self, wanted: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        self.rows.iter().filter(|row| wanted(&row.outcome)).map(|row| row.id).collect()
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for Row { id, rule, about, outcome } in &self.rows {
            let (word, text) = match outcome {
                Outcome::Passed(note) => ("passed", note),
                Outcome::Failed(seen) => ("FAILED", seen),
                Outcome::NotRun(why) => ("not run", why),
            };
            writeln!(out, "{word:<8}{id:<20}{about} [{rule}]")?;
            if !text.is_empty() {
                writeln!(out, "{:28}{text}", "")?;
            }
        }
        let (failed, not_run) = (self.failed().len(), self.not_run().len());
        write!(out, "{} passed, {failed} failed, {not_run} not run", self.rows.len() - failed - not_run)
    }
}
