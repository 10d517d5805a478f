//! (pure) What is new in an object since it was last seen, in lines for people.

use provisioning_api::conditions::types;
use provisioning_api::steps::{FailureClass, StepPhase, StepStatus};

use crate::item::Item;
use crate::times::{clock, span};

/// The lines for a change; none where nothing of meaning changed.
pub(crate) fn changes(before: Option<&Item>, after: Option<&Item>) -> Vec<String> {
    match (before, after) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec!["gone".to_owned()],
        (None, Some(after)) => first_sight(after),
        (Some(before), Some(after)) if before.uid() != after.uid() => {
            let mut lines = vec!["gone, and made anew".to_owned()];
            lines.extend(first_sight(after));
            lines
        }
        (Some(before), Some(after)) => differences(before, after),
    }
}

fn first_sight(item: &Item) -> Vec<String> {
    let mut text = standing(item);
    if let Some(progress) = item.progress().filter(|progress| *progress != "0/0") {
        text = format!("{text}, {progress} steps");
    }
    let mut lines = vec![text];
    lines.extend(item.typed.as_ref().err().map(|problem| cannot_read(problem)));
    if item.is_deleting() {
        lines.push("deletion was requested".to_owned());
    }
    let open = item.steps().iter().filter(|step| step.is_open());
    lines.extend(open.map(|step| format!("{}: {}", step.id, phase(step))));
    lines
}

fn differences(before: &Item, after: &Item) -> Vec<String> {
    let mut lines = Vec::new();
    if after.is_deleting() && !before.is_deleting() {
        lines.push("deletion was requested".to_owned());
    }
    if let Err(problem) = &after.typed
        && before.typed.as_ref().err() != Some(problem)
    {
        lines.push(cannot_read(problem));
    }
    let plan = |item: &Item| item.run().and_then(|run| run.plan.clone());
    if let Some(new) = plan(after).filter(|new| plan(before).is_none_or(|old| old.hash != new.hash)) {
        lines.push(format!("plan: {}", new.summary));
    }
    for step in after.steps() {
        let old = before.steps().iter().find(|old| old.id == step.id);
        let new = |old: &&StepStatus| old.phase != step.phase || old.run != step.run || ended(old) != ended(step);
        // A step that is new and has not run is in the plan; there is nothing to say about it.
        if old.map_or(step.phase != StepPhase::Pending || step.run > 0, |old| new(&old)) {
            lines.push(format!("{}: {}", step.id, moved(old, step)));
        }
    }
    let told = |item: &Item| {
        let of = |type_| item.condition(type_).map(|it| (it.status.clone(), it.reason.clone()));
        (of(types::READY), of(types::STALLED))
    };
    if told(before) != told(after) {
        lines.push(standing(after));
    }
    lines
}

fn cannot_read(problem: &str) -> String {
    format!("this program can't read it: {problem}")
}

fn ended(step: &StepStatus) -> bool {
    step.finished_at.is_some()
}

fn moved(old: Option<&StepStatus>, step: &StepStatus) -> String {
    let same = old.is_none_or(|old| old.phase == step.phase);
    let from = old.filter(|_| !same).map_or_else(String::new, |old| format!("{:?} -> ", old.phase));
    format!("{from}{}", phase(step))
}

/// A step's phase with what people want to know of it.
pub(crate) fn phase(step: &StepStatus) -> String {
    let mut text = format!("{:?}", step.phase);
    let details = match step.phase {
        StepPhase::Running | StepPhase::Undoing if step.is_open() => vec![run(step)],
        StepPhase::Succeeded | StepPhase::Undone => took(step).into_iter().collect(),
        _ => Vec::new(),
    };
    if !details.is_empty() {
        text = format!("{text} ({})", details.join(", "));
    }
    if let Some(failure) = failure(step) {
        text = format!("{text}: {failure}");
    }
    text
}

fn run(step: &StepStatus) -> String {
    format!("run {}", step.run)
}

/// How long its last run took, or has taken so far.
pub(crate) fn took(step: &StepStatus) -> Option<String> {
    let started = step.started_at.as_ref()?.0;
    step.finished_at.as_ref().map(|finished| span(started, finished.0))
}

/// Class, reason and message of a failure that was not made good since, and when it is tried again.
pub(crate) fn failure(step: &StepStatus) -> Option<String> {
    let class: FailureClass = step.class?;
    if step.is_open() || matches!(step.phase, StepPhase::Succeeded | StepPhase::Undone) {
        return None;
    }
    let again = step.retry_at.as_ref().filter(|_| !step.phase.is_terminal());
    let again = again.map_or_else(String::new, |time| format!("; again at {}", clock(time.0)));
    let class = format!("{class:?}");
    let reason = if step.reason == class { String::new() } else { format!(" {}", step.reason) };
    Some(format!("{class}{reason}: {} (run {}, attempt {}){again}", step.message, step.run, step.attempt))
}

/// How an object stands: its `Ready`, with the message while it is not True.
pub(crate) fn standing(item: &Item) -> String {
    let Some(ready) = item.condition(types::READY) else { return "not looked at yet".to_owned() };
    let stalled = if item.stalled().is_some() { ", Stalled" } else { "" };
    match ready.status.as_str() {
        "True" => "Ready".to_owned(),
        _ => format!("not Ready{stalled} ({}): {}", ready.reason, ready.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::{server, step};

    const RUNNING: (&str, &str, &str) = ("False", "Running", "create is running");

    fn with(mut step: serde_json::Value, more: serde_json::Value) -> serde_json::Value {
        let (Some(step_map), serde_json::Value::Object(more)) = (step.as_object_mut(), more) else { return step };
        step_map.extend(more);
        step
    }

    #[test]
    fn a_server_on_its_way_reads_as_a_story() {
        let ok = json!({"finishedAt": "2026-05-04T10:00:13Z"});
        let bad = json!({"finishedAt": "2026-05-04T10:00:13Z", "class": "Transient", "reason": "SshRefused",
            "message": "connection refused", "attempt": 1});
        let scenes = [
            server("heron", ("Unknown", "Running", "first look"), json!([])),
            server("heron", RUNNING, json!([step("create", "Create", "Running")])),
            server("heron", RUNNING, json!([with(step("create", "Create", "Succeeded"), ok.clone())])),
            server(
                "heron",
                ("False", "Retrying", "reach: again soon"),
                json!([
                    with(step("create", "Create", "Succeeded"), ok.clone()),
                    with(step("reach", "Reach", "Pending"), bad)
                ]),
            ),
            server(
                "heron",
                ("True", "Succeeded", "all"),
                json!([
                    with(step("create", "Create", "Succeeded"), ok.clone()),
                    with(step("reach", "Reach", "Succeeded"), ok)
                ]),
            ),
        ];
        let mut story = changes(None, scenes.first());
        for pair in scenes.windows(2) {
            story.extend(changes(pair.first(), pair.get(1)));
        }
        story.extend(changes(scenes.last(), None));
        assert_eq!(
            story,
            [
                "not Ready (Running): first look, 1/2 steps",
                "create: Running (run 1)",
                "not Ready (Running): create is running",
                "create: Running -> Succeeded (12s)",
                "reach: Pending: Transient SshRefused: connection refused (run 1, attempt 1)",
                "not Ready (Retrying): reach: again soon",
                "reach: Pending -> Succeeded (12s)",
                "Ready",
                "gone",
            ]
        );
    }

    #[test]
    fn what_does_not_matter_is_not_told() {
        let heron = server("heron", RUNNING, json!([step("create", "Create", "Running")]));
        assert_eq!(changes(Some(&heron), Some(&heron)), Vec::<String>::new());
    }
}
