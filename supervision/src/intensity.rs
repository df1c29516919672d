//! How many restarts in how much time are still acceptable.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// A restart budget: `restarts` within `period` are allowed, the next one is not. 0 allows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are allowed within `period`.
    pub restarts: u32,
    /// The sliding window.
    pub period: Duration,
    /// Whether time counts in whole seconds only, see [`Intensity::in_whole_seconds`].
    pub whole_seconds: bool,
}

impl Intensity {
    /// `restarts` within `period`.
    pub const fn new(restarts: u32, period: Duration) -> Self {
        Self { restarts, period, whole_seconds: false }
    }

    /// Counts time in whole seconds, as OTP does: a restart falls out of the window up to a second later than `period` says.
    pub const fn in_whole_seconds(self) -> Self {
        Self { whole_seconds: true, ..self }
    }
}

/// The restarts that still count. It keeps at most `restarts` time stamps, so its cost does not grow with their number
/// (in OTP it does).
#[derive(Debug)]
pub(crate) struct RestartWindow {
    limit: Intensity,
    epoch: Instant,
    stamps: VecDeque<Instant>,
}

impl RestartWindow {
    pub(crate) fn new(limit: Intensity) -> Self {
        Self { limit, epoch: Instant::now(), stamps: VecDeque::new() }
    }

    /// Counts one restart at `now`; false if that is one too many.
    #[must_use]
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let now = if self.limit.whole_seconds { self.whole_second(now) } else { now };
        self.forget_before(now);
        if self.stamps.len() >= self.limit.restarts as usize {
            return false;
        }
        self.stamps.push_back(now);
        true
    }

    /// Forgets all restarts: a manual restart starts with a full budget.
    pub(crate) fn clear(&mut self) {
        self.stamps.clear();
    }

    fn whole_second(&self, now: Instant) -> Instant {
        self.epoch + Duration::from_secs(now.duration_since(self.epoch).as_secs())
    }

    fn forget_before(&mut self, now: Instant) {
        while self.stamps.front().is_some_and(|stamp| now.duration_since(*stamp) > self.limit.period) {
            self.stamps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(restarts: u32) -> RestartWindow {
        RestartWindow::new(Intensity::new(restarts, Duration::from_secs(60)))
    }

    #[test]
    fn n_restarts_are_allowed_and_the_next_is_not() {
        let now = Instant::now();
        let mut window = window(2);
        assert!(window.allows(now));
        assert!(window.allows(now));
        assert!(!window.allows(now));
    }

    #[test]
    fn restarts_older_than_the_period_do_not_count() {
        let start = Instant::now();
        let mut window = window(1);
        assert!(window.allows(start));
        assert!(!window.allows(start + Duration::from_secs(60)));
        assert!(window.allows(start + Duration::from_millis(60_001)));
    }

    #[test]
    fn in_whole_seconds_the_window_is_up_to_a_second_longer() {
        let mut window = RestartWindow::new(Intensity::new(1, Duration::from_secs(5)).in_whole_seconds());
        let start = window.epoch;
        assert!(window.allows(start));
        assert!(!window.allows(start + Duration::from_millis(5_900)));
        assert!(window.allows(start + Duration::from_secs(6)));
    }

    #[test]
    fn a_budget_of_zero_allows_none() {
        assert!(!window(0).allows(Instant::now()));
    }
}
