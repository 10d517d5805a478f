//! Waiting within a run's deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::request::deadline;

/// First pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When waiting must end, and how long to pause between two looks.
pub struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    /// Waits until a tenth (at most 10 s) before `timeout_seconds` have passed: the executor's own deadline would
    /// end the run without words.
    pub fn new(timeout_seconds: i64) -> Self {
        let timeout = deadline(timeout_seconds);
        let margin = (timeout / 10).min(Duration::from_secs(10));
        Patience { end: Instant::now() + timeout - margin, pause: FIRST_PAUSE }
    }

    /// Begins with short pauses again: something else is waited for now.
    pub fn refresh(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Pauses; `false` when there is no time left.
    pub async fn pause(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_before_the_deadline_of_the_run() {
        let began = Instant::now();
        let mut patience = Patience::new(60);
        while patience.pause().await {}
        assert_eq!(began.elapsed(), Duration::from_secs(54));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_out_of_all_bounds_is_cut() {
        assert!(Patience::new(i64::MAX).pause().await);
        assert!(Patience::new(i64::MIN).pause().await);
    }
}
