//! A schedule as it is kept, and what is asked of the store about schedules.

use serde_json::Value;
use uuid::Uuid;

use crate::jobs::Cadence;
use crate::model::{Millis, TenantId, TraceContext, new_id};

/// A schedule that does not exist yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// Whose schedule it is.
    pub tenant: TenantId,
    /// When it fires.
    pub cadence: Cadence,
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
            queue: super::NewJob::QUEUE_DEFAULT.to_owned(),
            kind: kind.into(),
            payload,
            jitter_ms: 0,
            max_attempts: super::NewJob::MAX_ATTEMPTS_DEFAULT,
            context: TraceContext::current(),
        }
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
    /// When it fires next; `None` when it never will again.
    pub next_fire_at_ms: Option<Millis>,
    /// When it fired last.
    pub last_fire_at_ms: Option<Millis>,
    /// When it was accepted.
    pub created_at_ms: Millis,
    /// Since when its tenant has paused it.
    pub paused_at_ms: Option<Millis>,
    /// Why it fires no more, if it broke.
    pub last_error: Option<String>,
    /// The span that asked for it, and the trace in which it all began.
    pub context: TraceContext,
}

/// Asks to fire what is due.
#[derive(Debug, Clone, Copy)]
pub struct FireDue {
    /// How many schedules at most.
    pub limit: u32,
    /// Of the fires that were missed only the latest is made up for, and only if it is not older than this.
    pub misfire_window_ms: u64,
}

/// What was fired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FireReport {
    /// Each fire that made a job.
    pub fired: Vec<Fired>,
    /// Fires that were too old to be made up for, or whose tenant is disabled or has as many jobs queued as it may.
    pub missed: u64,
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
