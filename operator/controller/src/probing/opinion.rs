// (pure) What is thought of a service after what its probe has met.

use super::ask::Failure;

/// Failures in a row before a service is unhealthy: a restart takes less.
pub(super) const FAILURES: u32 = 3;

/// What is thought of a service at one of its probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Opinion {
    /// Not asked often enough by this process.
    #[default]
    Unknown,
    /// Asked often enough, and what answers may be another machine: nothing is known, nor to be waited for.
    Unproven,
    /// It answered last time, or has not failed often enough since.
    Healthy,
    /// It failed again and again; the last words.
    Unhealthy(String),
}

/// What is remembered of a probe.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    opinion: Opinion,
    /// Failures since the last answer.
    failures: u32,
    /// The last words, and how often they came in a row.
    words: String,
    same: u32,
    /// Answers that proved nothing.
    strange: u32,
}

impl Memory {
    /// Takes note of one question. True: the opinion is another one now.
    pub(super) fn hear(&mut self, answer: Result<(), &Failure>) -> bool {
        let opinion = match answer {
            Ok(()) => {
                *self = Memory { opinion: std::mem::take(&mut self.opinion), ..Memory::default() };
                Opinion::Healthy
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.same = if failure.words == self.words { self.same.saturating_add(1) } else { 1 };
                self.words.clone_from(&failure.words);
                match &self.opinion {
                    // Other words have to last as well: a service that fails now so, now so, is not written each time.
                    Opinion::Unhealthy(_) if self.same < FAILURES => return false,
                    Opinion::Unknown | Opinion::Unproven | Opinion::Healthy if self.failures < FAILURES => {
                        return false;
                    }
                    Opinion::Unknown | Opinion::Unproven | Opinion::Healthy | Opinion::Unhealthy(_) => {
                        Opinion::Unhealthy(failure.words.clone())
                    }
                }
            }
        };
        let is_new = self.opinion != opinion;
        self.opinion = opinion;
        is_new
    }

    /// Takes note of an answer that proves nothing. True: the opinion is another one now.
    pub(super) fn hear_stranger(&mut self) -> bool {
        self.strange = self.strange.saturating_add(1);
        let is_new = self.opinion == Opinion::Unknown && self.strange >= FAILURES;
        if is_new {
            self.opinion = Opinion::Unproven;
        }
        is_new
    }

    pub(super) fn opinion(&self) -> &Opinion {
        &self.opinion
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ask::Trouble;
    use super::*;

    fn failure(words: &str) -> Failure {
        Failure { trouble: Trouble::Refused, words: words.to_owned() }
    }

    /// Opinions after each letter: `.` an answer, `?` one that proves nothing, another letter a failure with it as words.
    fn heard(letters: &str) -> Vec<String> {
        let mut memory = Memory::default();
        let hear = |letter: char| {
            let failure = failure(&letter.to_string());
            let is_new = match letter {
                '.' => memory.hear(Ok(())),
                '?' => memory.hear_stranger(),
                _ => memory.hear(Err(&failure)),
            };
            let sign = if is_new { "!" } else { "" };
            match memory.opinion() {
                Opinion::Unknown => format!("?{sign}"),
                Opinion::Unproven => format!("unproven{sign}"),
                Opinion::Healthy => format!("well{sign}"),
                Opinion::Unhealthy(words) => format!("{words}{sign}"),
            }
        };
        letters.chars().map(hear).collect()
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy_and_one_answer_well() {
        assert_eq!(heard(".."), ["well!", "well"]);
        assert_eq!(heard("rrr."), ["?", "?", "r!", "well!"]);
        assert_eq!(heard(".rr.rr"), ["well!", "well", "well", "well", "well", "well"]);
        assert_eq!(heard(".rsr"), ["well!", "well", "well", "r!"]);
    }

    #[test]
    fn other_words_are_told_once_they_last() {
        assert_eq!(heard("rrrsss"), ["?", "?", "r!", "r", "r", "s!"]);
        assert_eq!(heard("rrrsrsrs"), ["?", "?", "r!", "r", "r", "r", "r", "r"]);
    }

    #[test]
    fn answers_that_prove_nothing_end_the_waiting_and_change_no_opinion() {
        assert_eq!(heard("????."), ["?", "?", "unproven!", "unproven", "well!"]);
        assert_eq!(heard("??r?rr"), ["?", "?", "?", "unproven!", "unproven", "r!"]);
        assert_eq!(heard(".???"), ["well!", "well", "well", "well"]);
        assert_eq!(heard("rrr???"), ["?", "?", "r!", "r", "r", "r"]);
    }

    proptest! {
        #[test]
        fn news_are_rarer_than_answers(letters in "[.rs]{0,64}") {
            let heard = heard(&letters);
            let letters: Vec<char> = letters.chars().collect();
            for (position, told) in heard.iter().enumerate() {
                let last = &letters[position.saturating_sub(2)..=position];
                let failed = last.len() == 3 && last.iter().all(|letter| *letter != '.');
                if told.ends_with('!') {
                    prop_assert!(letters[position] == '.' || failed, "news after {:?}", last);
                }
                if letters[position] == '.' {
                    prop_assert!(told.starts_with("well"), "{:?} after an answer", told);
                }
                if failed {
                    prop_assert!(!told.starts_with("well") && !told.starts_with('?'), "{:?} after {:?}", told, last);
                }
            }
        }
    }
}
