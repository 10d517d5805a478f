//! What a pass has to tell (pure): Events, counts and log lines for steps that began, failed or ended.

use provisioning_api::conditions::reasons;
use provisioning_api::steps::{StepPhase, StepStatus};
use provisioning_plan::conditions::{Standing, State};

use crate::metrics::{Metrics, class_label, phase_label};

/// One Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Something went wrong.
    pub warning: bool,
    /// Reason, never empty.
    pub reason: String,
    /// Words for people.
    pub note: String,
    /// The run of a step that this is about, as `STEP RUN`; without, it is about the object as a whole.
    pub run: Option<String>,
}

impl Notice {
    /// Words under a reason.
    pub fn new(warning: bool, reason: &str, note: String) -> Self {
        let reason = if reason.is_empty() { reasons::RUNNING } else { reason };
        Notice { warning, reason: reason.to_owned(), note, run: None }
    }

    /// Words about a run of a step.
    fn about(step: &StepStatus, warning: bool, reason: &str, note: String) -> Self {
        Notice { run: Some(format!("{} {}", step.id, step.run)), ..Notice::new(warning, reason, note) }
    }
}

/// Steps that are elsewhere than before: in another phase, or in another run.
pub fn moved<'a>(before: &'a [StepStatus], after: &'a [StepStatus]) -> impl Iterator<Item = &'a StepStatus> {
    after.iter().filter(|step| {
        let earlier = before.iter().find(|other| other.id == step.id);
        !earlier.is_some_and(|other| other.phase == step.phase && other.run == step.run)
    })
}

/// The Event of a step that has moved. A success has none of its own: the next step's start or the object's end tells it.
pub fn of_step(step: &StepStatus) -> Option<Notice> {
    let words = || format!("step {}: {}", step.id, step.message);
    let notice = |warning, reason, note| Some(Notice::about(step, warning, reason, note));
    match step.phase {
        StepPhase::Failed | StepPhase::UndoFailed => notice(true, &step.reason, words()),
        StepPhase::Pending if step.class.is_some() => notice(true, "Retrying", words()),
        StepPhase::Running => notice(false, "Started", format!("step {} run {}", step.id, step.run)),
        StepPhase::Undoing => notice(false, "Undoing", format!("step {} run {}", step.id, step.run)),
        StepPhase::Undone => notice(false, "Undone", format!("step {} is undone", step.id)),
        StepPhase::Skipped => notice(false, &step.reason, words()),
        StepPhase::Pending | StepPhase::Succeeded | StepPhase::Cancelled | StepPhase::Omitted => None,
    }
}

/// The Event of an object that has come to its end: it is Ready, or Stalled. A step that failed has told the latter.
pub fn of_object(standing: &Standing, was_ready: bool, was_stalled: bool, steps: &[Notice]) -> Option<Notice> {
    match standing.state {
        State::Ready if !was_ready => Some(Notice::new(false, standing.reason, standing.message.clone())),
        State::Stalled if !was_stalled && !steps.iter().any(|notice| notice.warning) => {
            Some(Notice::new(true, standing.reason, standing.message.clone()))
        }
        State::Ready | State::Stalled | State::Reconciling => None,
    }
}

/// Counts a step that has moved, and logs it.
pub fn count(metrics: &Metrics, kind: &str, step: &StepStatus) {
    let phase = phase_label(step.phase);
    // A step remembers the class of its last failure; after a success it is not why the step ended.
    let failed = matches!(step.phase, StepPhase::Pending | StepPhase::Failed | StepPhase::UndoFailed);
    let class = class_label(step.class.filter(|_| failed));
    match step.phase {
        StepPhase::Running => metrics.steps_started.with_label_values(&[kind, "forward"]).inc(),
        StepPhase::Undoing => metrics.steps_started.with_label_values(&[kind, "undo"]).inc(),
        // Planned, or planned again: nothing has run.
        StepPhase::Pending if step.class.is_none() => return,
        StepPhase::Pending
        | StepPhase::Succeeded
        | StepPhase::Failed
        | StepPhase::Cancelled
        | StepPhase::Skipped
        | StepPhase::Omitted
        | StepPhase::Undone
        | StepPhase::UndoFailed => metrics.steps_ended.with_label_values(&[kind, phase, class]).inc(),
    }
    tracing::info!(step = step.id, run = step.run, phase, class, reason = step.reason, "step");
}

#[cfg(test)]
mod tests {
    use provisioning_api::steps::FailureClass;

    use super::*;

    fn step(id: &str, phase: StepPhase, run: i64, class: Option<FailureClass>) -> StepStatus {
        let mut step: StepStatus = serde_json::from_value(serde_json::json!({
            "id": id, "action": "Install", "undo": "Uninstall", "inputHash": "v1:0", "phase": "Pending",
        }))
        .unwrap();
        (step.phase, step.run, step.class) = (phase, run, class);
        step.reason = "ScriptFailed".to_owned();
        step.message = "exit 3".to_owned();
        step
    }

    fn told(before: &[StepStatus], after: &[StepStatus]) -> Vec<String> {
        let notices = moved(before, after).filter_map(of_step);
        notices.map(|notice| format!("{} {}: {}", u8::from(notice.warning), notice.reason, notice.note)).collect()
    }

    #[test]
    fn an_event_tells_the_start_the_failure_and_the_undo_of_a_step() {
        use StepPhase::{Failed, Pending, Running, Succeeded, Undoing, Undone};
        let failed = Some(FailureClass::ScriptFailed);
        let life = [
            (Running, 1, None, vec!["0 Started: step nest run 1"]),
            (Pending, 1, failed, vec!["1 Retrying: step nest: exit 3"]),
            (Running, 2, None, vec!["0 Started: step nest run 2"]),
            (Failed, 2, failed, vec!["1 ScriptFailed: step nest: exit 3"]),
            (Running, 3, None, vec!["0 Started: step nest run 3"]),
            (Succeeded, 3, None, vec![]),
            (Undoing, 4, None, vec!["0 Undoing: step nest run 4"]),
            (Undone, 4, None, vec!["0 Undone: step nest is undone"]),
        ];
        let mut before = vec![step("nest", Pending, 0, None)];
        for (phase, run, class, expected) in life {
            let after = vec![step("nest", phase, run, class)];
            assert_eq!(told(&before, &after), expected, "{phase:?} run {run}");
            before = after;
            assert_eq!(told(&before, &before), Vec::<String>::new(), "nothing happened");
        }
    }

    #[test]
    fn a_notice_says_which_run_it_is_about() {
        let run = |id: &str, run| of_step(&step(id, StepPhase::Running, run, None)).unwrap().run;
        assert_eq!(run("nest", 1).as_deref(), Some("nest 1"));
        assert_eq!(run("install/heron", 2).as_deref(), Some("install/heron 2"));
        assert_eq!(Notice::new(false, reasons::SUCCEEDED, String::new()).run, None);
    }

    #[test]
    fn an_event_tells_the_end_of_an_object_once() {
        let ready = Standing { state: State::Ready, reason: reasons::SUCCEEDED, message: "all done".to_owned() };
        let notice = of_object(&ready, false, false, &[]).unwrap();
        assert_eq!((notice.warning, notice.note.as_str()), (false, "all done"));
        assert_eq!(of_object(&ready, true, false, &[]), None);
        let stalled = Standing::stalled(reasons::INVALID, "no such size".to_owned());
        let notice = of_object(&stalled, false, false, &[]).unwrap();
        assert_eq!((notice.warning, notice.note.as_str()), (true, "no such size"));
        assert_eq!(of_object(&stalled, false, true, &[]), None);
        let step = of_step(&step("nest", StepPhase::Failed, 1, Some(FailureClass::ScriptFailed))).unwrap();
        assert_eq!(of_object(&stalled, false, false, &[step]), None, "the step has told it");
    }

    #[test]
    fn ends_count_by_outcome_and_class_and_a_plan_counts_nothing() {
        let metrics = Metrics::new().unwrap();
        let failed = Some(FailureClass::ScriptFailed);
        for (phase, class) in [
            (StepPhase::Pending, None),
            (StepPhase::Running, None),
            (StepPhase::Pending, failed),
            (StepPhase::Failed, failed),
            (StepPhase::Succeeded, failed),
            (StepPhase::Undoing, None),
        ] {
            count(&metrics, "Taskserv", &step("nest", phase, 1, class));
        }
        let ended = |outcome, class| metrics.steps_ended.with_label_values(&["Taskserv", outcome, class]).get();
        let started = |direction| metrics.steps_started.with_label_values(&["Taskserv", direction]).get();
        assert_eq!([started("forward"), started("undo")], [1, 1]);
        let ends = [ended("Retrying", "ScriptFailed"), ended("Failed", "ScriptFailed"), ended("Succeeded", "")];
        assert_eq!(ends, [1, 1, 1]);
        assert_eq!(ended("Retrying", ""), 0);
    }
}
