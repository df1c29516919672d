//! The claim of a job, and how it ends.

use serde_json::Value;
use uuid::Uuid;

use super::{Job, NewDelivery};
use crate::jobs::Progress;
use crate::model::TraceContext;

/// One claim of one row. Whoever cannot name the present one has lost the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The row's id: of a job, or of a delivery.
    pub id: Uuid,
    /// Which claim of it.
    pub attempt: u32,
}

/// Asks for due jobs.
#[derive(Debug, Clone, Copy)]
pub struct ClaimJobs<'a> {
    /// Which line to take from.
    pub queue: &'a str,
    /// Who takes: made at boot, never a host's name.
    pub owner: Uuid,
    /// How long the jobs are theirs without a heartbeat.
    pub lease_ms: u64,
    /// How many at most.
    pub limit: u32,
    /// How many of one tenant's jobs may run at once, in all processes and queues together, if its row does not say.
    pub tenant_running_max: u32,
}

/// Claimed jobs, tenants alternating.
#[derive(Debug, Clone, Default)]
pub struct ClaimedJobs {
    /// The jobs, in the order in which they should start.
    pub jobs: Vec<Job>,
    /// In how many milliseconds the next waiting job comes due, of any queue.
    pub next_due_in_ms: Option<u64>,
}

/// How one claimed job ended, and what else happens with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Which claim.
    pub fence: Fence,
    /// How it ended.
    pub outcome: Outcome,
    /// Committed with the outcome, or not at all. Only a job that is done has any.
    pub effects: Vec<Effect>,
    /// The span of the run, for the next one to name.
    pub run: TraceContext,
    /// How far it was, if it has said so.
    pub progress: Option<Progress>,
}

impl Settlement {
    /// An ending without effects.
    pub fn new(fence: Fence, outcome: Outcome) -> Self {
        Self { fence, outcome, effects: Vec::new(), run: TraceContext::default(), progress: None }
    }
}

/// How a claim of a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Well.
    Done {
        /// What the handler answered.
        result: Option<Value>,
    },
    /// Badly; it is tried again.
    Retry {
        /// Not before this time has passed.
        after_ms: u64,
        /// Why.
        error: String,
        /// Whether it counts as a crash.
        fault: Fault,
    },
    /// Not yet: its handler puts it off, and the attempt is not charged.
    Snooze {
        /// Not before this time has passed.
        after_ms: u64,
        /// Why.
        reason: String,
    },
    /// Badly, for good.
    Dead {
        /// Why.
        reason: String,
        /// Whether it counts as a crash.
        fault: Fault,
    },
    /// Not at all: it is given back, and the attempt is not charged.
    Release,
}

impl Outcome {
    /// In one word.
    pub fn name(&self) -> OutcomeName {
        match self {
            Self::Done { .. } => OutcomeName::Done,
            Self::Retry { .. } => OutcomeName::Retry,
            Self::Snooze { .. } => OutcomeName::Snooze,
            Self::Dead { .. } => OutcomeName::Dead,
            Self::Release => OutcomeName::Release,
        }
    }

    /// A short word for logs.
    pub fn as_str(&self) -> &'static str {
        self.name().as_str()
    }
}

telemetry::label_values! {
    /// What an outcome is called in metrics.
    pub enum OutcomeName { Done = "done", Retry = "retry", Snooze = "snooze", Dead = "dead", Release = "release" }
}

/// Two kinds of failure that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The handler said so, or took too long.
    Failure,
    /// The handler panicked.
    Crash,
}

/// What a job does to the store by ending well.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Hands a notification to a channel.
    Deliver(NewDelivery),
}

/// What became of a fenced write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is written.
    Applied,
    /// The claim was lost before; nothing was written.
    Late,
    /// There is no room for an effect now: none was written, and the job is tried again, uncharged.
    Postponed {
        /// Why.
        reason: String,
    },
    /// An effect could not be: none was written, and the job is dead with this reason.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Jobs that lost their runner and are ready again.
    pub rescued: u64,
    /// Jobs that lost it too often and are dead.
    pub quarantined: u64,
}
