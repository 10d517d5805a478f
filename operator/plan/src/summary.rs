//! Counts and one-line summaries.

use provisioning_api::steps::{PlanStatus, Progress, StepPhase, StepStatus};

use crate::ids::hex;

/// Counts over the steps.
pub fn progress(steps: &[StepStatus]) -> Progress {
    let mut progress = Progress { total: i32::try_from(steps.len()).unwrap_or(i32::MAX), ..Progress::default() };
    for step in steps {
        match step.phase {
            StepPhase::Succeeded | StepPhase::Skipped | StepPhase::Undone => progress.succeeded += 1,
            StepPhase::Failed | StepPhase::Omitted | StepPhase::UndoFailed | StepPhase::Cancelled => {
                progress.failed += 1;
            }
            StepPhase::Running => progress.running += 1,
            StepPhase::Undoing => progress.running += i32::from(step.is_open()),
            StepPhase::Pending => {}
        }
    }
    progress.summary = format!("{}/{}", progress.succeeded, progress.total);
    progress
}

/// The plan in short.
pub fn plan(steps: &[StepStatus], generation: i64) -> PlanStatus {
    let mut text = String::new();
    for step in steps {
        let edges: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
        text.push_str(&format!("{}\n{}\n{}\n", step.id, step.input_hash, edges.join(",")));
    }
    let edges: usize = steps.iter().map(|step| step.depends_on.len()).sum();
    PlanStatus {
        hash: format!("v1:{}", hex(text.as_bytes(), 32)),
        generation,
        summary: format!("{} steps, {} dependencies", steps.len(), edges),
    }
}
