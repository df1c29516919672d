//! A schedule as it is kept, and what is asked of the store about schedules.

use serde_json::Value;
use uuid::Uuid;

use super::Fence;
use super::policy::Policies;
use crate::jobs::Cadence;
use crate::model::{Millis, TenantId, TraceContext, new_id};

/// A schedule that does not exist yet, or what an existing one is to become.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// Whose schedule it is.
    pub tenant: TenantId,
    /// When it fires.
    pub cadence: Cadence,
    /// What it does about missed fires, about jobs that have not ended, and when it begins and ends.
    pub policies: Policies,
    /// Which line its jobs wait in.
    pub queue: String,
    /// Which handler runs its jobs.
    pub kind: String,
    /// What the handler is told, each time.
    pub payload: Value,
    /// Spreads the jobs of many schedules that fire together: each waits for a part of this, always the same for one
    /// schedule. 0 is none.
    pub jitter_ms: u64,
    /// How many attempts of each job are charged before it is dead.
    pub max_attempts: u32,
    /// Lower runs first.
    pub priority: i32,
    /// How long one attempt may take; `None` is the scheduler's default.
    pub timeout_ms: Option<u64>,
    /// How long its jobs are kept when they have ended; `None` is as long as the operator says.
    pub keep_ms: Option<u64>,
    /// The span that asked for it, and the trace in which it all began.
    pub context: TraceContext,
}

impl NewSchedule {
    /// A schedule with the defaults of a job, asked for by the current span.
    pub fn new(tenant: TenantId, cadence: Cadence, kind: impl Into<String>, payload: Value) -> Self {
        Self {
            id: new_id(),
            tenant,
            cadence,
            policies: Policies::default(),
            queue: super::NewJob::QUEUE_DEFAULT.to_owned(),
            kind: kind.into(),
            payload,
            jitter_ms: 0,
            max_attempts: super::NewJob::MAX_ATTEMPTS_DEFAULT,
            priority: 0,
            timeout_ms: None,
            keep_ms: None,
            context: TraceContext::current(),
        }
    }

    /// When one that is made or resumed now fires first.
    pub fn first_fire(&self, now_ms: Millis) -> Option<Millis> {
        first_fire(&self.cadence, &self.policies, now_ms)
    }
}

/// A schedule as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its id.
    pub id: Uuid,
    /// Whose schedule it is.
    pub tenant: TenantId,
    /// When it fires.
    pub cadence: Cadence,
    /// What it does about missed fires, about jobs that have not ended, and when it begins and ends. The number of
    /// remaining fires is the present one.
    pub policies: Policies,
    /// Which line its jobs wait in.
    pub queue: String,
    /// Which handler runs its jobs.
    pub kind: String,
    /// What the handler is told, each time.
    pub payload: Value,
    /// Spreads the jobs of many schedules that fire together.
    pub jitter_ms: u64,
    /// How many attempts of each job are charged before it is dead.
    pub max_attempts: u32,
    /// Lower runs first.
    pub priority: i32,
    /// How long one attempt may take; `None` is the scheduler's default.
    pub timeout_ms: Option<u64>,
    /// How long its jobs are kept when they have ended; `None` is as long as the operator says.
    pub keep_ms: Option<u64>,
    /// When it fires next; `None` when it never will again.
    pub next_fire_at_ms: Option<Millis>,
    /// Which fire made a job last.
    pub last_fire_at_ms: Option<Millis>,
    /// From where the distances of a plain cadence count.
    pub anchor_ms: Millis,
    /// A fire that waits for the end of the job before.
    pub buffered_fire_at_ms: Option<Millis>,
    /// What has become of its fires so far.
    pub tally: Tally,
    /// When it was accepted.
    pub created_at_ms: Millis,
    /// Since when its tenant has paused it.
    pub paused_at_ms: Option<Millis>,
    /// Why it fires no more, if it broke.
    pub last_error: Option<String>,
    /// The span that asked for it, and the trace in which it all began.
    pub context: TraceContext,
}

impl Schedule {
    /// When it fires first if it is resumed now.
    pub fn first_fire(&self, now_ms: Millis) -> Option<Millis> {
        first_fire(&self.cadence, &self.policies, now_ms)
    }

    /// Its next fires, at most `count`; those of a paused one as if it were resumed now.
    pub fn upcoming(&self, now_ms: Millis, count: usize) -> Vec<Millis> {
        let next = if self.paused_at_ms.is_some() { self.first_fire(now_ms) } else { self.next_fire_at_ms };
        upcoming(&self.cadence, &self.policies, next, count)
    }
}

impl NewSchedule {
    /// The next fires of one that is made now, at most `count`: what a tenant wants to see before it trusts a pattern.
    pub fn upcoming(&self, now_ms: Millis, count: usize) -> Vec<Millis> {
        upcoming(&self.cadence, &self.policies, self.first_fire(now_ms), count)
    }
}

fn first_fire(cadence: &Cadence, policies: &Policies, now_ms: Millis) -> Option<Millis> {
    policies.allowed(cadence.first(now_ms, policies.start_at_ms))
}

fn upcoming(cadence: &Cadence, policies: &Policies, next: Option<Millis>, count: usize) -> Vec<Millis> {
    let Some(next) = policies.allowed(next) else { return Vec::new() };
    let left = policies.remaining_fires.map_or(count, |left| count.min(usize::try_from(left).unwrap_or(count)));
    // What is wanted beyond the horizon is not looked for, however often the pattern fires on the way.
    let horizon = next.saturating_add(crate::jobs::HORIZON_YEARS * 366 * 24 * 3_600_000);
    let within = |fire: &Millis| *fire <= horizon && policies.allowed(Some(*fire)).is_some();
    cadence.from(next, next).take_while(within).take(left).collect()
}

/// What has become of a schedule's fires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Made a job.
    pub fires: u64,
    /// Were too old to be made up for, or too many, or their tenant was disabled.
    pub missed: u64,
    /// Made none because the job of an earlier one had not ended.
    pub overlapped: u64,
}

/// Asks to fire what is due.
#[derive(Debug, Clone, Copy)]
pub struct FireDue {
    /// How many schedules at most; and if they make up for more than one fire each, about so many fires.
    pub limit: u32,
    /// Fires that are older than this are missed, unless their schedule says otherwise.
    pub catch_up_window_ms: u64,
}

/// What was fired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FireReport {
    /// Each fire that made a job.
    pub fired: Vec<Fired>,
    /// Jobs of earlier fires that were cancelled for them.
    pub cancelled: Vec<Fence>,
    /// Fires that were too old or too many to be made up for, or whose tenant is disabled or has as many jobs queued as it
    /// may.
    pub missed: u64,
    /// Fires that made no job because that of an earlier one had not ended.
    pub overlapped: u64,
    /// Fires that wait for the end of such a job.
    pub buffered: u64,
    /// In how many milliseconds the next schedule is due; 0 when some are due already.
    pub next_due_in_ms: Option<u64>,
}

/// One fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Of this schedule.
    pub schedule: Uuid,
    /// Made this job.
    pub job: Uuid,
    /// Was due at this time.
    pub fire_at_ms: Millis,
    /// Happened so much later.
    pub late_ms: u64,
}

/// What became of a fire that a tenant asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Triggered {
    /// It made a job.
    Started {
        /// The fire.
        fired: Fired,
        /// Jobs of earlier fires that were cancelled for it.
        cancelled: Vec<Fence>,
    },
    /// It waits for the end of the job before.
    Buffered {
        /// The fire.
        fire_at_ms: Millis,
    },
    /// It made no job, because that of an earlier fire has not ended.
    Overlapped,
}

/// What became of the fires of a past range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// Made these jobs.
    pub fired: Vec<Fired>,
    /// Jobs of earlier fires that were cancelled for them.
    pub cancelled: Vec<Fence>,
    /// How many had made a job before.
    pub present: u64,
    /// How many made none because the job of another one had not ended.
    pub overlapped: u64,
    /// The one that waits for the end of such a job.
    pub buffered_fire_at_ms: Option<Millis>,
}
