//! Lists of a tenant's rows, newest first: the part of them that needs no store.

use uuid::Uuid;

use super::{Job, JobFilter, JobState, Place};
use crate::model::Millis;

/// The states of the jobs that are not finished.
pub(super) const LIVE_STATES: [JobState; 4] =
    [JobState::Scheduled, JobState::Ready, JobState::Running, JobState::Retrying];
/// The states of the others.
pub(super) const FINISHED_STATES: [JobState; 3] = [JobState::Done, JobState::Dead, JobState::Cancelled];

/// Before the first row of every list.
pub(super) const START: Place = Place { at_ms: Millis::MAX, id: Uuid::max() };

/// Where the list begins: behind the place, and behind all that is not older than the filter says.
pub(super) fn from(filter: &JobFilter, after: Option<Place>) -> Place {
    let before = filter.created_before_ms.map(|at_ms| Place { at_ms, id: Uuid::nil() });
    after.into_iter().chain(before).min().unwrap_or(START)
}

/// Whether the filter lets jobs in this state pass.
pub(super) fn is_wanted(filter: &JobFilter, state: JobState) -> bool {
    filter.states.is_empty() || filter.states.contains(&state)
}

/// One page of several lists that are each in order.
pub(super) fn merged(mut jobs: Vec<Job>, limit: u32) -> Vec<Job> {
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse(Place { at_ms: job.created_at_ms, id: job.id }));
    jobs.truncate(limit as usize);
    jobs
}
