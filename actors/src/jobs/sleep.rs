//! The kind `sleep`, for development: something that runs long enough to be looked at, cancelled or drained.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{JobContext, JobDone, JobError, JobHandler};

/// Waits, and stops waiting when it is told to.
pub struct Sleep;

/// What a job of the kind `sleep` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SleepPayload {
    /// For how long, in milliseconds. The time limit of the job holds all the same.
    ms: u64,
}

impl JobHandler for Sleep {
    const KIND: &'static str = "sleep";
    type Payload = SleepPayload;

    async fn run(&self, SleepPayload { ms }: SleepPayload, context: JobContext) -> Result<JobDone, JobError> {
        let began = Instant::now();
        let sleep = context.cancelled.run_until_cancelled(tokio::time::sleep(Duration::from_millis(ms))).await;
        let slept_ms = began.elapsed().as_millis() as u64;
        match sleep {
            Some(()) => Ok(JobDone::with(&json!({ "slept_ms": slept_ms }))),
            None => {
                tracing::info!(job = %context.job.id, slept_ms, "a sleep was cut short");
                Err(JobError::retry("it was woken before its time"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::{context_of, job};

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_for_its_time_and_no_longer_than_it_may() {
        let (payload, context) = (SleepPayload { ms: 1_500 }, context_of(&job()));
        let done = Sleep.run(payload, context.clone()).await.unwrap();
        assert_eq!(done.result, Some(json!({ "slept_ms": 1_500 })));
        context.cancelled.cancel();
        assert!(matches!(Sleep.run(payload, context).await, Err(JobError::Retry { .. })));
    }
}
