//! What to do about a script on a server: the decision of protocols §2 and §3, pure.

use std::collections::BTreeMap;

use provisioning_api::steps::Direction;
use provisioning_sdk::request::Script;
use serde::{Deserialize, Serialize};

/// How far an execution got, as its runner knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It was started; its exit file says more.
    Running,
    /// It ended with exit code 0 and its outputs are in the marker.
    Succeeded,
    /// It ended otherwise.
    Failed,
}

/// What a server remembers of a step. Written before a script starts and after it ended, atomically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// Id of the step, for people.
    pub step: String,
    /// Highest run that acted.
    pub run: i64,
    /// Highest epoch that acted.
    pub epoch: i64,
    /// Direction of that run.
    pub direction: Direction,
    /// The script that it ran.
    pub script: Script,
    /// Its input.
    pub input_hash: String,
    /// How far it got.
    pub phase: Phase,
    /// Run under whose number the unit was started; lower than `run` where that one attached to it.
    pub execution: i64,
    /// Outputs, once Succeeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Run.
    pub run: i64,
    /// Epoch when the intent was written.
    pub epoch: i64,
    /// Direction.
    pub direction: Direction,
    /// Script.
    pub script: Script,
    /// Input.
    pub input_hash: String,
}

/// What is seen of the marker's execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Whether its unit is alive.
    pub alive: bool,
    /// What its exit file says.
    pub exit: Option<i32>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A later run or leader was here: nothing may be done.
    Refuse,
    /// Start the script.
    Start,
    /// The very same is running: follow it.
    Attach,
    /// Something else of this step is running: wait for its end, then decide again.
    Await,
    /// It ended: its exit code and stdout are the result.
    TakeExit(i32),
    /// It succeeded, and the marker holds the outputs.
    TakeOutputs,
}

/// Decides from what is on the server.
pub fn decide(ask: &Ask, marker: Option<&Marker>, execution: Execution) -> Decision {
    let Some(marker) = marker else {
        return Decision::Start;
    };
    let same_input =
        (marker.direction, &marker.script, &marker.input_hash) == (ask.direction, &ask.script, &ask.input_hash);
    let same_run = marker.run == ask.run;
    if ask.run < marker.run || ask.epoch < marker.epoch || (same_run && !same_input) {
        return Decision::Refuse;
    }
    // An exit file is the script's last act: that its unit still lingers does not matter.
    if execution.alive && execution.exit.is_none() {
        return if same_input { Decision::Attach } else { Decision::Await };
    }
    // A check says what is true now: it is never answered from an earlier run.
    let has_effect = match ask.script {
        Script::Install | Script::Uninstall | Script::Named(_) => true,
        Script::Check => false,
    };
    let answered = same_input && (same_run || has_effect);
    match (answered, marker.phase, execution.exit) {
        (true, Phase::Succeeded, _) => Decision::TakeOutputs,
        (true, Phase::Running, Some(0)) => Decision::TakeExit(0),
        (true, Phase::Running | Phase::Failed, Some(code)) if same_run => Decision::TakeExit(code),
        // Another input, a failure of an earlier run (this is its retry), or an end without a word (a reboot).
        _ => Decision::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Execution = Execution { alive: false, exit: None };
    const ALIVE: Execution = Execution { alive: true, exit: None };

    fn ended(code: i32) -> Execution {
        Execution { alive: false, exit: Some(code) }
    }

    fn ask(run: i64, epoch: i64, hash: &str) -> Ask {
        Ask { run, epoch, direction: Direction::Forward, script: Script::Install, input_hash: hash.to_owned() }
    }

    /// The marker of run 5 under epoch 7 with input `a`, forward.
    fn marker(phase: Phase) -> Marker {
        Marker {
            step: "s".to_owned(),
            run: 5,
            epoch: 7,
            direction: Direction::Forward,
            script: Script::Install,
            input_hash: "a".to_owned(),
            phase,
            execution: 5,
            outputs: BTreeMap::new(),
        }
    }

    #[test]
    fn the_table() {
        use Decision::{Attach, Await, Refuse, Start, TakeExit, TakeOutputs};
        use Phase::{Failed, Running, Succeeded};
        let rows = [
            // Who is too late does nothing, whatever is seen.
            (ask(4, 7, "a"), Running, ALIVE, Refuse),
            (ask(4, 9, "a"), Succeeded, ended(0), Refuse),
            (ask(6, 6, "a"), Failed, ended(1), Refuse),
            (ask(5, 6, "a"), Running, GONE, Refuse),
            (ask(5, 7, "b"), Running, ALIVE, Refuse),
            // Something runs.
            (ask(5, 7, "a"), Running, ALIVE, Attach),
            (ask(6, 7, "a"), Running, ALIVE, Attach),
            (ask(6, 8, "a"), Running, ALIVE, Attach),
            (ask(6, 7, "b"), Running, ALIVE, Await),
            // This run's own end, seen after the connection was lost.
            (ask(5, 7, "a"), Running, ended(0), TakeExit(0)),
            (ask(5, 7, "a"), Running, ended(3), TakeExit(3)),
            (ask(5, 7, "a"), Failed, ended(3), TakeExit(3)),
            (ask(5, 7, "a"), Succeeded, ended(0), TakeOutputs),
            (ask(5, 7, "a"), Running, GONE, Start),
            // An earlier run's end: a success counts, a failure is what this run retries.
            (ask(6, 7, "a"), Running, ended(0), TakeExit(0)),
            (ask(6, 7, "a"), Succeeded, ended(0), TakeOutputs),
            (ask(6, 7, "a"), Succeeded, GONE, TakeOutputs),
            (ask(6, 7, "a"), Running, ended(3), Start),
            (ask(6, 7, "a"), Failed, ended(3), Start),
            (ask(6, 7, "a"), Running, GONE, Start),
            (ask(6, 7, "b"), Running, ended(0), Start),
            (ask(6, 7, "b"), Succeeded, ended(0), Start),
            // The unit lingers for a moment after its last act.
            (ask(6, 7, "b"), Running, Execution { alive: true, exit: Some(0) }, Start),
            (ask(6, 7, "a"), Running, Execution { alive: true, exit: Some(0) }, TakeExit(0)),
        ];
        for (number, (ask, phase, execution, expected)) in rows.into_iter().enumerate() {
            let found = decide(&ask, Some(&marker(phase)), execution);
            assert_eq!(found, expected, "row {number}: {ask:?} {phase:?} {execution:?}");
        }
        assert_eq!(decide(&ask(1, 1, "a"), None, GONE), Start);
    }

    #[test]
    fn the_other_direction_is_another_input() {
        let undo = Ask { direction: Direction::Undo, ..ask(6, 7, "a") };
        assert_eq!(decide(&undo, Some(&marker(Phase::Running)), ALIVE), Decision::Await);
        assert_eq!(decide(&undo, Some(&marker(Phase::Succeeded)), ended(0)), Decision::Start);
    }

    #[test]
    fn a_check_is_never_answered_from_an_earlier_run() {
        let check = |run| Ask { script: Script::Check, ..ask(run, 7, "a") };
        let marker = |phase| Some(Marker { script: Script::Check, ..marker(phase) });
        assert_eq!(decide(&check(6), marker(Phase::Succeeded).as_ref(), ended(0)), Decision::Start);
        assert_eq!(decide(&check(6), marker(Phase::Running).as_ref(), ended(0)), Decision::Start);
        assert_eq!(decide(&check(5), marker(Phase::Running).as_ref(), ended(0)), Decision::TakeExit(0));
        assert_eq!(decide(&check(6), marker(Phase::Running).as_ref(), ALIVE), Decision::Attach);
    }

    #[test]
    fn another_script_is_another_input() {
        let other = Ask { script: Script::Uninstall, ..ask(6, 7, "a") };
        assert_eq!(decide(&other, Some(&marker(Phase::Succeeded)), ended(0)), Decision::Start);
        assert_eq!(decide(&Ask { run: 5, ..other }, Some(&marker(Phase::Succeeded)), ended(0)), Decision::Refuse);
    }

    /// Over all small cases: nothing starts while something runs, and (run, epoch) never falls.
    #[test]
    fn nothing_starts_beside_or_behind_another() {
        for run in 3..8 {
            for epoch in 5..9 {
                for hash in ["a", "b"] {
                    for phase in [Phase::Running, Phase::Succeeded, Phase::Failed] {
                        for execution in [GONE, ALIVE, ended(0), ended(1)] {
                            let decision = decide(&ask(run, epoch, hash), Some(&marker(phase)), execution);
                            if execution == ALIVE {
                                assert_ne!(decision, Decision::Start);
                            }
                            if run < 5 || epoch < 7 {
                                assert_eq!(decision, Decision::Refuse);
                            }
                        }
                    }
                }
            }
        }
    }
}
