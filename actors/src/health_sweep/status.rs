//! What the sweeps have found, with hysteresis: one slow answer of the store must not take a whole service out of its
//! load balancer, and one lucky answer must not put it back.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::model::Millis;

/// How many of the last sweeps are kept for each probe.
pub const HISTORY_MAX: usize = 32;

/// How many sweeps in a row change the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Bad sweeps in a row that make a healthy dependency unhealthy.
    pub bad_sweeps: u32,
    /// Good sweeps in a row that make it healthy again.
    pub good_sweeps: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { bad_sweeps: 3, good_sweeps: 2 }
    }
}

/// The verdict on one dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No sweep has finished yet.
    Unknown,
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// One answer, or the lack of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When the check ended.
    pub at_ms: Millis,
    /// How long it took.
    pub took_ms: u64,
    /// What was wrong; absent if nothing was.
    pub fault: Option<String>,
}

/// What is known of one dependency.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The probe's name.
    pub name: &'static str,
    /// True if the service is not ready without it.
    pub required: bool,
    /// The verdict.
    pub state: State,
    /// Since when the verdict stands; absent before the first sweep.
    pub since_ms: Option<Millis>,
    /// Sweeps in a row that contradict the verdict.
    pub against: u32,
    /// The last sweeps, oldest first, at most [`HISTORY_MAX`].
    pub history: VecDeque<Sample>,
}

impl Status {
    /// A dependency nobody has asked yet.
    #[must_use]
    pub fn unknown(name: &'static str, required: bool) -> Self {
        Self { name, required, state: State::Unknown, since_ms: None, against: 0, history: VecDeque::new() }
    }

    /// The newest sample.
    #[must_use]
    pub fn last(&self) -> Option<&Sample> {
        self.history.back()
    }

    /// What is known after one more sweep.
    #[must_use]
    pub fn after(&self, sample: Sample, thresholds: Thresholds) -> Self {
        let mut next = self.clone();
        let said = if sample.fault.is_none() { State::Healthy } else { State::Unhealthy };
        next.against = if said == self.state { 0 } else { self.against + 1 };
        let needed = match self.state {
            // The first sweep decides at once: nobody should wait for three of them at boot.
            State::Unknown => 1,
            State::Healthy => thresholds.bad_sweeps,
            State::Unhealthy => thresholds.good_sweeps,
        };
        if next.against >= needed {
            (next.state, next.since_ms, next.against) = (said, Some(sample.at_ms), 0);
        }
        next.history.push_back(sample);
        while next.history.len() > HISTORY_MAX {
            next.history.pop_front();
        }
        next
    }
}

/// The verdicts, shared with whoever answers `/readyz`. Cheap to clone, reading never waits. It outlives the actor that
/// writes it, so a restart of the sweep forgets nothing.
#[derive(Debug, Clone)]
pub struct Health(Arc<ArcSwap<Vec<Status>>>);

impl Health {
    pub(super) fn new(statuses: Vec<Status>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(statuses)))
    }

    pub(super) fn store(&self, statuses: Vec<Status>) {
        self.0.store(Arc::new(statuses));
    }

    /// All verdicts, in the order of the probes.
    #[must_use]
    pub fn statuses(&self) -> Arc<Vec<Status>> {
        self.0.load_full()
    }

    /// True if every required dependency is healthy; false before the first sweep.
    #[must_use]
    pub fn required_ok(&self) -> bool {
        self.required_faults().is_empty()
    }

    /// The required dependencies that are not healthy, each with what is wrong.
    #[must_use]
    pub fn required_faults(&self) -> Vec<String> {
        let statuses = self.0.load();
        let bad = statuses.iter().filter(|status| status.required && status.state != State::Healthy);
        bad.map(|status| {
            let fault = status.last().and_then(|sample| sample.fault.as_deref());
            format!("{}: {}", status.name, fault.unwrap_or("not checked yet"))
        })
        .collect()
    }

    /// True if anything at all, required or not, is unhealthy.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.0.load().iter().any(|status| status.state == State::Unhealthy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Sample {
        Sample { at_ms: 1, took_ms: 1, fault: None }
    }

    fn bad() -> Sample {
        Sample { fault: Some("away".to_owned()), ..good() }
    }

    /// The verdict after each of the samples, `g` for good and `b` for bad.
    fn verdicts(samples: &str) -> String {
        let mut status = Status::unknown("store", true);
        let mut verdicts = String::new();
        for sample in samples.chars() {
            status = status.after(if sample == 'g' { good() } else { bad() }, Thresholds::default());
            verdicts.push(match status.state {
                State::Healthy => 'H',
                State::Unhealthy => 'U',
                State::Unknown => '?',
            });
        }
        verdicts
    }

    #[test]
    fn three_bad_sweeps_in_a_row_or_two_good_ones_change_the_verdict() {
        assert_eq!(verdicts("gbbgbbb"), "HHHHHHU");
        assert_eq!(verdicts("gbbbgbgg"), "HHHUUUUH");
    }

    #[test]
    fn the_first_sweep_decides_at_once() {
        assert_eq!(verdicts("g"), "H");
        assert_eq!(verdicts("bgg"), "UUH");
    }

    #[test]
    fn the_time_of_a_verdict_is_that_of_the_sweep_which_changed_it() {
        let at = |at_ms| Sample { at_ms, ..good() };
        let status = Status::unknown("store", true).after(at(10), Thresholds::default());
        assert_eq!(status.after(at(20), Thresholds::default()).since_ms, Some(10));
    }

    #[test]
    fn the_history_is_bounded_and_keeps_the_newest() {
        let mut status = Status::unknown("store", true);
        for at_ms in 0..100 {
            status = status.after(Sample { at_ms, ..good() }, Thresholds::default());
        }
        assert_eq!(status.history.len(), HISTORY_MAX);
        assert_eq!(status.last().unwrap().at_ms, 99);
    }

    #[test]
    fn only_required_dependencies_count_for_readiness() {
        let health = Health::new(vec![Status::unknown("store", true), Status::unknown("bus", false)]);
        assert_eq!(health.required_faults(), ["store: not checked yet"]);
        let thresholds = Thresholds::default();
        health.store(vec![
            Status::unknown("store", true).after(good(), thresholds),
            Status::unknown("bus", false).after(bad(), thresholds),
        ]);
        assert!(health.required_ok() && health.degraded());
        health.store(vec![Status::unknown("store", true).after(bad(), thresholds)]);
        assert_eq!(health.required_faults(), ["store: away"]);
    }
}
