//! A circuit breaker: after some failures in a row the other side gets a rest.
//!
//! It is deliberately simple. It opens after `failures_max` consecutive failures, stays open for a fixed time, then lets
//! exactly one call through as a probe: a success closes it, a failure opens it again.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive failures that open it.
    pub failures_max: u32,
    /// How long it stays open before a probe is let through.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures_max: 5, open_for: Duration::from_secs(10) }
    }
}

/// What a breaker lets through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Everything.
    All,
    /// One call, to see whether the other side is back.
    One,
    /// Nothing for this long.
    NoneFor(Duration),
}

/// The breaker of one host, or of one channel.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    failures_in_a_row: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    until: Instant,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, failures_in_a_row: 0, open: None }
    }

    /// What may be sent now. The caller keeps count of what is under way: `One` is one in flight, not one for each call.
    #[must_use]
    pub fn permit(&self) -> Permit {
        match self.open {
            None => Permit::All,
            Some(Open { until, .. }) => match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Permit::One,
                rest => Permit::NoneFor(rest),
            },
        }
    }

    /// A call was answered: the breaker is closed, whatever it was.
    pub fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
        self.open = None;
    }

    /// A call failed in a way that says something about the other side.
    pub fn failed(&mut self) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row >= self.settings.failures_max {
            let now = Instant::now();
            let since = self.open.map_or(now, |open| open.since);
            self.open = Some(Open { since, until: now + self.settings.open_for });
        }
    }

    /// True from the failure that opened it until the next success.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// For how long it has been open, through all probes that failed.
    #[must_use]
    pub fn open_for(&self) -> Option<Duration> {
        self.open.map(|open| open.since.elapsed())
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(BreakerSettings::default());
        for _ in 0..5 {
            assert_eq!(breaker.permit(), Permit::All);
            breaker.failed();
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_a_success_between_does_not_count() {
        let mut breaker = Breaker::new(BreakerSettings::default());
        for _ in 0..4 {
            breaker.failed();
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed();
        }
        assert!(!breaker.is_open());
        breaker.failed();
        assert_eq!(breaker.permit(), Permit::NoneFor(Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_rest_it_lets_one_through_and_a_success_closes_it() {
        let mut breaker = opened();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(breaker.permit(), Permit::One);
        breaker.succeeded();
        assert_eq!(breaker.permit(), Permit::All);
        assert_eq!(breaker.failures_in_a_row(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_for_the_same_time() {
        let mut breaker = opened();
        tokio::time::advance(Duration::from_secs(11)).await;
        breaker.failed();
        assert_eq!(breaker.permit(), Permit::NoneFor(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(breaker.open_for(), Some(Duration::from_secs(12)), "since the failure that opened it first");
        breaker.succeeded();
        assert_eq!(breaker.open_for(), None);
    }
}
