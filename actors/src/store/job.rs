//! A job as it is kept, and what is asked of the store about jobs.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Fence, Place, Unique};
use crate::jobs::Progress;
use crate::model::{Millis, TenantId, TraceContext, new_id};

/// A job that does not exist yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id, made by the caller, so that it can be told before the job is kept.
    pub id: Uuid,
    /// Whose job it is.
    pub tenant: TenantId,
    /// Which line it waits in.
    pub queue: String,
    /// Which handler runs it.
    pub kind: String,
    /// What the handler is told.
    pub payload: Value,
    /// Lower runs first. Default 0.
    pub priority: i32,
    /// Not before this time; `None` is now.
    pub run_at_ms: Option<Millis>,
    /// How many attempts are charged before it is dead. At least 1.
    pub max_attempts: u32,
    /// How long one attempt may take; `None` is the scheduler's default.
    pub timeout_ms: Option<u64>,
    /// While another job of the tenant has this key, there is no second one.
    pub unique: Option<Unique>,
    /// How long it is kept when it has ended; `None` is as long as the operator says.
    pub keep_ms: Option<u64>,
    /// The span that asked for it, and the trace in which it all began.
    pub context: TraceContext,
}

impl NewJob {
    /// How often a job is tried if nobody says otherwise.
    pub const MAX_ATTEMPTS_DEFAULT: u32 = 10;
    /// The line in which jobs wait if nobody says otherwise.
    pub const QUEUE_DEFAULT: &'static str = "default";

    /// A job for now, with the defaults, asked for by the current span.
    pub fn new(tenant: TenantId, kind: impl Into<String>, payload: Value) -> Self {
        Self {
            id: new_id(),
            tenant,
            queue: Self::QUEUE_DEFAULT.to_owned(),
            kind: kind.into(),
            payload,
            priority: 0,
            run_at_ms: None,
            max_attempts: Self::MAX_ATTEMPTS_DEFAULT,
            timeout_ms: None,
            unique: None,
            keep_ms: None,
            context: TraceContext::current(),
        }
    }
}

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Whose job it is.
    pub tenant: TenantId,
    /// Which line it waits in.
    pub queue: String,
    /// Which handler runs it.
    pub kind: String,
    /// What the handler is told.
    pub payload: Value,
    /// Where it is in its life, at the time of reading.
    pub state: JobState,
    /// Lower runs first.
    pub priority: i32,
    /// How often it was claimed. With the id it is the fence of every write.
    pub attempt: u32,
    /// How many of these claims are not charged: they were given back, or belong to the time before a redrive.
    pub refunds: u32,
    /// How often its runner was lost under it, or it panicked.
    pub crashes: u32,
    /// How many attempts are charged before it is dead.
    pub max_attempts: u32,
    /// How long one attempt may take; `None` is the scheduler's default.
    pub timeout_ms: Option<u64>,
    /// Not before this time.
    pub run_at_ms: Millis,
    /// When it was accepted.
    pub created_at_ms: Millis,
    /// When it was claimed last.
    pub claimed_at_ms: Option<Millis>,
    /// When it was done or dead.
    pub finished_at_ms: Option<Millis>,
    /// Why the last attempt failed, or why it is dead.
    pub last_error: Option<String>,
    /// What the handler answered.
    pub result: Option<Value>,
    /// The schedule that made it, and for which time.
    pub fired: Option<(Uuid, Millis)>,
    /// How far its last attempt was when it was asked last.
    pub progress: Option<Progress>,
    /// The span of its last run that has ended; empty before.
    pub last_run: TraceContext,
    /// Its unique key, if it was given one. Whether it still has it, [`Unique`] says.
    pub unique_key: Option<String>,
    /// How often it was sent round again after its end.
    pub redrives: u32,
    /// How often its handler put it off, since it was made or redriven.
    pub snoozes: u32,
    /// How long it is kept when it has ended; `None` is as long as the operator says.
    pub keep_ms: Option<u64>,
    /// The span that asked for it, and the trace in which it all began.
    pub context: TraceContext,
}

impl Job {
    /// A new one as it is when it was just kept, at this time.
    pub(crate) fn of(new: &NewJob, now: Millis) -> Self {
        let run_at_ms = new.run_at_ms.unwrap_or(now).max(now);
        let (traceparent, origin) = (new.context.traceparent(), new.context.origin());
        Self {
            id: new.id,
            tenant: new.tenant.clone(),
            queue: new.queue.clone(),
            kind: new.kind.clone(),
            payload: new.payload.clone(),
            state: if run_at_ms <= now { JobState::Ready } else { JobState::Scheduled },
            priority: new.priority,
            attempt: 0,
            refunds: 0,
            crashes: 0,
            max_attempts: new.max_attempts,
            timeout_ms: new.timeout_ms,
            run_at_ms,
            created_at_ms: now,
            claimed_at_ms: None,
            finished_at_ms: None,
            last_error: None,
            result: None,
            fired: None,
            progress: None,
            last_run: TraceContext::default(),
            unique_key: new.unique.as_ref().map(|unique| unique.key.clone()),
            redrives: 0,
            snoozes: 0,
            keep_ms: new.keep_ms,
            context: TraceContext::from_parts(traceparent.as_deref(), origin.as_deref())
                .with_request_id(new.context.request_id().cloned()),
        }
    }

    /// How many attempts count against `max_attempts`.
    pub fn charged(&self) -> u32 {
        self.attempt.saturating_sub(self.refunds)
    }

    /// What every write about the present claim must name.
    pub fn fence(&self) -> Fence {
        Fence { id: self.id, attempt: self.attempt }
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its time.
    Scheduled,
    /// May be claimed now.
    Ready,
    /// Claimed by a process.
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Ended well.
    Done,
    /// Ended badly, and will not be tried again. `last_error` says why.
    Dead,
    /// Ended by its tenant, whatever it did then. `last_error` says so.
    Cancelled,
}

impl JobState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Ready, Self::Running, Self::Retrying, Self::Done, Self::Dead, Self::Cancelled];

    /// Whether [`Store::redrive_job`](super::Store::redrive_job) takes it: it has ended, and not well.
    pub fn can_be_redriven(self) -> bool {
        matches!(self, Self::Dead | Self::Cancelled)
    }

    /// Its name, as in the HTTP surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| format!("is no state, must be one of: {}", known()))
    }
}

/// Which jobs of a tenant to list; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In any of these states; none is all.
    pub states: Vec<JobState>,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this line.
    pub queue: Option<String>,
    /// Made by this schedule.
    pub schedule: Option<Uuid>,
    /// Accepted after this time.
    pub created_after_ms: Option<Millis>,
    /// Accepted before this time.
    pub created_before_ms: Option<Millis>,
}

/// What became of the wish to cancel a job. With the job as it is then.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// It is cancelled. If it ran, its fence names the run that has lost it.
    Now(Box<Job>),
    /// It had ended before, and nothing has changed.
    TooLate(Box<Job>),
}

/// What became of the wish to redrive many jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// So many are ready again.
    pub count: u32,
    /// So many stay as they are, because another job has their unique key.
    pub skipped: u32,
    /// The last one that was looked at, if there may be more behind it.
    pub next: Option<Place>,
}

/// Which finished jobs to forget. A job that says itself how long it is kept is kept so long; the number bounds all.
#[derive(Debug, Clone)]
pub struct PruneJobs {
    /// Those that are done for longer than this.
    pub done_ms: u64,
    /// Those that are dead for longer than this.
    pub dead_ms: u64,
    /// Those that are cancelled for longer than this.
    pub cancelled_ms: u64,
    /// And the oldest of each tenant above this many.
    pub tenant_max: u64,
    /// Whose number is looked at: that of the first tenants behind this one.
    pub after: Option<TenantId>,
    /// How many at once at most, by each rule.
    pub limit: u32,
}

/// What was forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// So many jobs.
    pub count: u64,
    /// Behind which tenant the next call is to look; `None` is from the start.
    pub after: Option<TenantId>,
}

/// Which finished deliveries to forget. Both bounds apply.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Those that finished longer ago than this.
    pub older_than_ms: u64,
    /// And the oldest above this many; of deliveries, this many of each channel.
    pub keep_max: u64,
    /// How many at once at most.
    pub limit: u32,
}

/// How many jobs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JobCounts {
    /// Wait for their time, the first or the next one.
    pub waiting: u64,
    /// May be claimed now.
    pub ready: u64,
    /// Are claimed.
    pub running: u64,
    /// Ended well, and are not forgotten yet.
    pub done: u64,
    /// Ended badly, and are not forgotten yet.
    pub dead: u64,
    /// Ended by their tenants, and are not forgotten yet.
    pub cancelled: u64,
}
