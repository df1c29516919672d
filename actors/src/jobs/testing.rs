//! Jobs for the tests of this crate, as if they had been claimed.

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Handlers, JobContext, JobDone, JobError, ProgressSlot};
use crate::model::{Poke, TenantId, TraceContext};
use crate::store::{Job, NewJob};

/// A claimed job on its first attempt.
pub(crate) fn job() -> Job {
    let new =
        NewJob { context: TraceContext::default(), ..NewJob::new(TenantId::new("demo").unwrap(), "test", Value::Null) };
    JobContext::of_first_attempt(&new).job.as_ref().clone()
}

/// What its handler would be given.
pub(crate) fn context_of(job: &Job) -> JobContext {
    JobContext {
        job: Arc::new(job.clone()),
        attempt: job.charged(),
        cancelled: CancellationToken::new(),
        slot: ProgressSlot::new(Poke::new()),
    }
}

/// Runs it by the handler of its kind, from its payload as it is kept.
pub(crate) async fn run(handlers: &Handlers, job: &Job) -> Result<JobDone, JobError> {
    handlers.get(&job.kind).unwrap().run(context_of(job)).await
}

/// Changes one thing about a job.
impl Job {
    pub(crate) fn kind(self, kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..self }
    }

    pub(crate) fn payload(self, payload: Value) -> Self {
        Self { payload, ..self }
    }

    pub(crate) fn attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    pub(crate) fn refunds(self, refunds: u32) -> Self {
        Self { refunds, ..self }
    }

    pub(crate) fn crashes(self, crashes: u32) -> Self {
        Self { crashes, ..self }
    }

    pub(crate) fn max_attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts, ..self }
    }

    pub(crate) fn timeout_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms: Some(timeout_ms), ..self }
    }
}
