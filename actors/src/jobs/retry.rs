//! What follows from how an attempt ended: done, another attempt, or dead.

use serde_json::Value;

use super::JobError;
use crate::store::{Fault, Job, Outcome};

/// Longest error text that is kept with a job, in bytes.
pub const ERROR_MAX: usize = 2_000;

/// How often a job may be put off, so that none waits for ever for what never comes.
pub const SNOOZES_MAX: u32 = 1_000;
/// The longest time that a handler may put a job off for, or ask for as its wait, in milliseconds: a day.
pub const WAIT_MAX_MS: u64 = 24 * 3_600_000;

/// How long a failed job waits, and how much it is allowed.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The first wait is at most this long; each further one at most twice the one before.
    pub base_ms: u64,
    /// No wait is longer.
    pub cap_ms: u64,
    /// So many crashes quarantine a job, however many attempts it has left.
    pub crashes_max: u32,
}

/// The waits of a kind that knows better than the operator: full jitter under a ceiling that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySchedule {
    /// The first wait is at most this long; each further one at most twice the one before.
    pub base_ms: u64,
    /// No wait is longer.
    pub cap_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base_ms: 1_000, cap_ms: 600_000, crashes_max: 3 }
    }
}

/// How one attempt ended.
#[derive(Debug)]
pub enum Ending {
    /// The handler answered.
    Done {
        /// Its answer.
        result: Option<Value>,
    },
    /// The handler failed.
    Failed(JobError),
    /// The attempt took too long.
    TimedOut {
        /// What it was allowed.
        timeout_ms: u64,
    },
    /// The handler panicked.
    Panicked {
        /// The panic's message, and where it is recorded.
        message: String,
    },
    /// The attempt was stopped from outside and is nobody's fault.
    Interrupted,
    /// There is no handler for its kind here. Another version of the program may know it: this one may only be older.
    Unknown,
}

impl RetryPolicy {
    /// With the waits of a kind, if it has its own.
    #[must_use]
    pub fn with(self, schedule: Option<RetrySchedule>) -> Self {
        match schedule {
            Some(RetrySchedule { base_ms, cap_ms }) => Self { base_ms, cap_ms, ..self },
            None => self,
        }
    }

    /// What becomes of `job`, whose present attempt ended so.
    pub fn decide(&self, job: &Job, ending: Ending) -> Outcome {
        match ending {
            Ending::Done { result } => Outcome::Done { result },
            Ending::Interrupted => Outcome::Release,
            Ending::TimedOut { timeout_ms } => self.retry(job, format!("timed out after {timeout_ms} ms"), None),
            Ending::Panicked { message } => self.crash(job, message),
            Ending::Failed(JobError::Dead { reason }) => {
                Outcome::Dead { reason: shortened(reason), fault: Fault::Failure }
            }
            Ending::Failed(JobError::Snooze { after_ms, reason }) => snooze(job, after_ms, reason),
            Ending::Unknown => {
                let reason = format!("no handler for the kind {:?}", job.kind);
                snooze(job, self.wait_ms(job.snoozes + 1, fastrand::f64()).max(self.base_ms), reason)
            }
            Ending::Failed(JobError::Retry { error, after_ms }) => self.retry(job, error, after_ms),
        }
    }

    /// The wait after so many failures in a row: full jitter, because many jobs that failed together should not come
    /// back together. `random` is from 0 to 1.
    pub fn wait_ms(&self, failures: u32, random: f64) -> u64 {
        let doublings = failures.saturating_sub(1).min(63);
        let ceiling = self.base_ms.saturating_mul(1 << doublings).min(self.cap_ms);
        (ceiling as f64 * random.clamp(0.0, 1.0)) as u64
    }

    fn retry(&self, job: &Job, error: String, after_ms: Option<u64>) -> Outcome {
        if job.charged() >= job.max_attempts {
            return Outcome::Dead { reason: last_attempt(job, &error), fault: Fault::Failure };
        }
        let after_ms = match after_ms {
            Some(asked_ms) => asked_ms.min(WAIT_MAX_MS),
            None => self.wait_ms(job.charged(), fastrand::f64()),
        };
        Outcome::Retry { after_ms, error: shortened(error), fault: Fault::Failure }
    }

    fn crash(&self, job: &Job, message: String) -> Outcome {
        let crashes = job.crashes + 1;
        if crashes >= self.crashes_max {
            let reason = shortened(format!("quarantined after {crashes} crashes: {message}"));
            return Outcome::Dead { reason, fault: Fault::Crash };
        }
        if job.charged() >= job.max_attempts {
            return Outcome::Dead { reason: last_attempt(job, &message), fault: Fault::Crash };
        }
        let after_ms = self.wait_ms(job.charged(), fastrand::f64());
        Outcome::Retry { after_ms, error: shortened(message), fault: Fault::Crash }
    }
}

fn snooze(job: &Job, after_ms: u64, reason: String) -> Outcome {
    if job.snoozes >= SNOOZES_MAX {
        let reason = shortened(format!("put off {SNOOZES_MAX} times: {reason}"));
        return Outcome::Dead { reason, fault: Fault::Failure };
    }
    Outcome::Snooze { after_ms: after_ms.min(WAIT_MAX_MS), reason: shortened(reason) }
}

fn last_attempt(job: &Job, error: &str) -> String {
    shortened(format!("attempt {} of {}: {error}", job.charged(), job.max_attempts))
}

/// Cuts a text at [`ERROR_MAX`], on the border of a character.
fn shortened(mut text: String) -> String {
    if text.len() > ERROR_MAX {
        text.truncate(text.floor_char_boundary(ERROR_MAX));
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::job;

    const POLICY: RetryPolicy = RetryPolicy { base_ms: 1_000, cap_ms: 60_000, crashes_max: 3 };

    fn failed() -> Ending {
        Ending::Failed(JobError::retry("the bus is away"))
    }

    #[test]
    fn waits_double_up_to_the_cap_and_never_pass_it() {
        let most: Vec<u64> = (1..=9).map(|failures| POLICY.wait_ms(failures, 1.0)).collect();
        assert_eq!(most, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(POLICY.wait_ms(u32::MAX, 1.0), 60_000);
        assert_eq!(POLICY.wait_ms(5, 0.0), 0);
    }

    #[test]
    fn the_last_attempt_that_fails_is_the_end() {
        let early = POLICY.decide(&job().attempt(2).max_attempts(3), failed());
        assert!(matches!(early, Outcome::Retry { fault: Fault::Failure, .. }), "{early:?}");
        let last = POLICY.decide(&job().attempt(3).max_attempts(3), failed());
        let reason = "attempt 3 of 3: the bus is away".to_owned();
        assert_eq!(last, Outcome::Dead { reason, fault: Fault::Failure });
    }

    #[test]
    fn an_attempt_that_was_given_back_does_not_count() {
        let outcome = POLICY.decide(&job().attempt(5).refunds(3).max_attempts(3), failed());
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    }

    #[test]
    fn the_third_crash_quarantines_however_many_attempts_are_left() {
        let panicked = || Ending::Panicked { message: "poison".to_owned() };
        let second = POLICY.decide(&job().attempt(2).crashes(1).max_attempts(99), panicked());
        assert!(matches!(second, Outcome::Retry { fault: Fault::Crash, .. }), "{second:?}");
        let third = POLICY.decide(&job().attempt(3).crashes(2).max_attempts(99), panicked());
        let reason = "quarantined after 3 crashes: poison".to_owned();
        assert_eq!(third, Outcome::Dead { reason, fault: Fault::Crash });
    }

    #[test]
    fn a_handler_may_ask_for_a_wait_of_a_day_whatever_the_backoff() {
        let asked = |after_ms| Ending::Failed(JobError::Retry { error: "429".to_owned(), after_ms: Some(after_ms) });
        let wait = |after_ms| match POLICY.decide(&job().attempt(1), asked(after_ms)) {
            Outcome::Retry { after_ms, .. } => after_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(7), wait(3_600_000), wait(u64::MAX)), (7, 3_600_000, WAIT_MAX_MS));
    }

    #[test]
    fn a_job_may_be_put_off_for_a_day_at_once_and_so_many_times() {
        let snooze = |snoozes| {
            let ending = Ending::Failed(JobError::Snooze { after_ms: u64::MAX, reason: "no file".to_owned() });
            POLICY.decide(&Job { snoozes, ..job().attempt(1).max_attempts(1) }, ending)
        };
        let reason = "no file".to_owned();
        assert_eq!(snooze(SNOOZES_MAX - 1), Outcome::Snooze { after_ms: WAIT_MAX_MS, reason });
        let reason = "put off 1000 times: no file".to_owned();
        assert_eq!(snooze(SNOOZES_MAX), Outcome::Dead { reason, fault: Fault::Failure });
    }

    #[test]
    fn an_interrupted_attempt_is_given_back() {
        assert_eq!(POLICY.decide(&job().attempt(1).max_attempts(1), Ending::Interrupted), Outcome::Release);
    }

    #[test]
    fn a_long_error_is_cut_on_the_border_of_a_character() {
        let reason = "ä".repeat(ERROR_MAX);
        let outcome = POLICY.decide(&job(), Ending::Failed(JobError::Dead { reason }));
        let Outcome::Dead { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.len() <= ERROR_MAX + 4 && reason.ends_with("ä ..."));
    }
}
