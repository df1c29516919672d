//! How long a child waits before it is started again.

use std::time::Duration;

/// Exponential backoff with the jitter *inside* the cap: no delay is ever longer than `cap`.
///
/// The n-th consecutive restart waits `min(cap, base * factor^(n-1))`, less a random share of up to `jitter` of it. A
/// child that ran for `reset_after` starts counting anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Delay of the first restart.
    pub base: Duration,
    /// What each further restart multiplies the delay by; at least 1.
    pub factor: f64,
    /// No delay is longer.
    pub cap: Duration,
    /// The random share that is taken off, 0 (none) to 1 (full jitter).
    pub jitter: f64,
    /// A run at least this long forgets the restarts before it.
    pub reset_after: Duration,
    /// The first restart after a good run does not wait at all.
    pub first_immediate: bool,
}

impl Backoff {
    /// No delay between restarts, as Erlang/OTP's supervisor does it.
    pub const NONE: Self = Self {
        base: Duration::ZERO,
        factor: 1.0,
        cap: Duration::ZERO,
        jitter: 0.0,
        reset_after: Duration::ZERO,
        first_immediate: false,
    };

    /// `base` doubling to `cap`, a fifth of it random, forgotten after a minute of good running.
    pub fn doubling(base: Duration, cap: Duration) -> Self {
        Self { base, cap, ..Self::default() }
    }

    /// The delay before restart number `attempt` (from 1), where `random` is uniform in 0..1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let attempt = attempt.max(1);
        if self.first_immediate && attempt == 1 {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(attempt - 1).unwrap_or(i32::MAX);
        if self.base.is_zero() {
            return Duration::ZERO;
        }
        let seconds = (self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent)).min(self.cap.as_secs_f64());
        let jittered = seconds * (1.0 - self.jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0));
        // As a number the longest durations are rounded up, to more than there are.
        Duration::try_from_secs_f64(jittered).map_or(self.cap, |delay| delay.min(self.cap))
    }
}

impl Default for Backoff {
    /// 1 s doubling to 30 s, a fifth of it random, forgotten after 60 s of good running.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(30),
            jitter: 0.2,
            reset_after: Duration::from_secs(60),
            first_immediate: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_stay_there() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let seconds: Vec<u64> = (1..=8).map(|attempt| backoff.delay(attempt, 0.5).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.delay(u32::MAX, 0.5), backoff.cap);
    }

    #[test]
    fn nothing_stays_nothing_however_often_and_the_longest_cap_is_one() {
        let none = Backoff { base: Duration::ZERO, ..Backoff::default() };
        assert_eq!(none.delay(5000, 0.5), Duration::ZERO);
        let endless = Backoff { cap: Duration::MAX, jitter: 0.0, ..Backoff::default() };
        assert_eq!(endless.delay(5000, 0.5), Duration::MAX);
    }

    #[test]
    fn jitter_only_shortens_and_never_leaves_the_cap() {
        let backoff = Backoff { jitter: 0.5, ..Backoff::default() };
        for attempt in 1..40 {
            for step in 0..=10 {
                let delay = backoff.delay(attempt, f64::from(step) / 10.0);
                assert!(delay <= backoff.cap);
                assert!(delay >= backoff.delay(attempt, 0.0) / 2);
            }
        }
    }

    #[test]
    fn the_first_restart_may_be_immediate() {
        let backoff = Backoff { first_immediate: true, jitter: 0.0, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(2, 0.0), Duration::from_secs(2));
        assert_eq!(Backoff::NONE.delay(9, 0.7), Duration::ZERO);
    }
}
