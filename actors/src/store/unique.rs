//! Jobs of which a tenant wants one, and not two: by a key that it chooses.
//!
//! The terms are those of [Oban](https://hexdocs.pm/oban/unique_jobs.html) and
//! [River](https://pkg.go.dev/github.com/riverqueue/river#UniqueOpts): a second job is a duplicate while the first is in
//! one of some states, and within a period from when it was accepted. As with River, what the *first* has said holds: it
//! has the key, and says for how long.

use std::str::FromStr;

use serde::Deserialize;

use super::{Job, JobState};
use crate::model::Millis;

/// The longest key, in characters.
pub const KEY_MAX_CHARS: usize = 255;
/// The longest period, in milliseconds: 30 days. A job that is forgotten before has its key no longer.
pub const PERIOD_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// What makes a job the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// Chosen by the tenant; other tenants' keys are others.
    pub key: String,
    /// How long it has the key at most, from when it was accepted; `None` is without an end.
    pub period_ms: Option<u64>,
    /// In which states it has the key.
    pub states: UniqueStates,
}

/// Sets of states, named as Oban's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UniqueStates {
    /// Until it has ended.
    Incomplete,
    /// Also when it is done; one that is dead or cancelled leaves the key to others.
    Successful,
    /// However it ends.
    All,
}

impl Unique {
    /// With the states that go with a period, or with none: "once within it" means a job that is done, too.
    pub fn new(key: impl Into<String>, period_ms: Option<u64>) -> Self {
        let states = if period_ms.is_some() { UniqueStates::Successful } else { UniqueStates::Incomplete };
        Self { key: key.into(), period_ms, states }
    }

    /// Until when a job that is accepted now has the key at most.
    pub fn until_ms(&self, now_ms: Millis) -> Option<Millis> {
        self.period_ms.map(|period_ms| now_ms.saturating_add_unsigned(period_ms))
    }

    /// Whether `job`, which took the key with these words, still has it.
    pub fn is_held_by(job: &Job, states: UniqueStates, until_ms: Option<Millis>, now_ms: Millis) -> bool {
        let in_states = match job.state {
            JobState::Scheduled | JobState::Ready | JobState::Running | JobState::Retrying => true,
            JobState::Done => states != UniqueStates::Incomplete,
            JobState::Dead | JobState::Cancelled => states == UniqueStates::All,
        };
        in_states && until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }
}

impl UniqueStates {
    /// All of them, the smallest set first.
    pub const ALL: [Self; 3] = [Self::Incomplete, Self::Successful, Self::All];

    /// Its name, as in the HTTP surface and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Successful => "successful",
            Self::All => "all",
        }
    }
}

impl FromStr for UniqueStates {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|states| states.as_str() == name);
        found.ok_or_else(|| format!("must be one of: {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::job;

    #[test]
    fn a_key_is_held_in_its_states_and_within_its_period() {
        let held = |state, states, until_ms| Unique::is_held_by(&Job { state, ..job() }, states, until_ms, 100);
        let (incomplete, successful, all) = (UniqueStates::Incomplete, UniqueStates::Successful, UniqueStates::All);
        for state in [JobState::Scheduled, JobState::Ready, JobState::Running, JobState::Retrying] {
            assert_eq!([incomplete, successful, all].map(|states| held(state, states, None)), [true; 3]);
            assert!(!held(state, all, Some(100)) && held(state, all, Some(101)));
        }
        let ended = |state| [incomplete, successful, all].map(|states| held(state, states, None));
        assert_eq!(ended(JobState::Done), [false, true, true]);
        assert_eq!(ended(JobState::Dead), [false, false, true]);
        assert_eq!(ended(JobState::Cancelled), [false, false, true]);
    }

    #[test]
    fn without_a_word_on_states_a_period_counts_jobs_that_are_done() {
        assert_eq!(Unique::new("k", None).states, UniqueStates::Incomplete);
        assert_eq!(Unique::new("k", Some(5)).states, UniqueStates::Successful);
        assert_eq!(Unique::new("k", Some(5)).until_ms(7), Some(12));
    }
}
