//! The stop table: what each step of the stop may take, and whether all of them fit into the grace period.

use std::fmt;
use std::time::Duration;

use super::Settings;

/// What flushing the telemetry may take, at the very end.
pub const FLUSH: Duration = Duration::from_secs(2);

/// What must be left of the grace period: the platform's own steps, a slow disk.
const RESERVE: Duration = Duration::from_secs(2);

/// The steps of the stop, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopTable {
    /// Each step with its budget: the drain, the children in reverse start order, the flush.
    pub steps: Vec<(&'static str, Duration)>,
    /// What all of it may take.
    pub grace_period: Duration,
}

impl StopTable {
    /// The table of these settings.
    pub fn of(settings: &Settings) -> Self {
        let steps = vec![
            ("drain delay", settings.shutdown.drain_delay),
            ("api", settings.api.stop_budget),
            ("scheduler", settings.scheduler.stop_budget),
            ("channel_manager", settings.channel_manager.stop_budget),
            ("broadcaster", settings.broadcaster.stop_budget),
            ("liveness_monitor", settings.liveness_monitor.stop_budget),
            ("health_sweep", settings.health_sweep.stop_budget),
            ("bus", settings.bus.stop_budget),
            ("store", settings.store.stop_budget),
            ("admin", settings.admin.stop_budget),
            ("telemetry flush", FLUSH),
        ];
        Self { steps, grace_period: settings.shutdown.grace_period }
    }

    /// All steps together.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|(_, budget)| *budget).sum()
    }

    /// Why it does not fit, if it does not.
    pub(super) fn fault(&self) -> Option<String> {
        let least = self.total() + RESERVE;
        (self.grace_period < least).then(|| {
            format!(
                "must be at least {}: the stop budgets add up to {} and {} must be left (`app config` shows the table)",
                least.as_millis(),
                self.total().as_millis(),
                RESERVE.as_millis()
            )
        })
    }
}

impl fmt::Display for StopTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26}{:>8}", "stop, in this order", "ms")?;
        for (step, budget) in &self.steps {
            writeln!(f, "  {step:<24}{:>8}", budget.as_millis())?;
        }
        writeln!(f, "  {:<24}{:>8}", "together", self.total().as_millis())?;
        let left = self.grace_period.saturating_sub(self.total());
        writeln!(f, "  {:<24}{:>8}", "left of the grace period", left.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    #[test]
    fn the_default_table_fits_with_more_than_the_reserve_left() {
        let table = StopTable::of(&load(&Sources::default()).unwrap().settings);
        assert_eq!(table.total(), Duration::from_millis(26_500));
        assert_eq!(table.fault(), None);
    }

    #[test]
    fn a_table_that_leaves_one_millisecond_too_little_is_refused() {
        let step = |ms| vec![("api", Duration::from_millis(ms))];
        let table = |ms| StopTable { steps: step(ms), grace_period: Duration::from_secs(10) };
        assert_eq!(table(8_000).fault(), None);
        assert!(table(8_001).fault().unwrap().starts_with("must be at least 10001: the stop budgets add up to 8001"));
    }

    #[test]
    fn the_table_lists_the_steps_and_what_is_left() {
        let table = StopTable { steps: vec![("api", Duration::from_secs(7))], grace_period: Duration::from_secs(30) };
        let shown = table.to_string();
        assert!(shown.contains("  api                         7000\n"), "{shown}");
        assert!(shown.contains("  left of the grace period   23000\n"), "{shown}");
    }
}
