//! The kind `sleep`, for development: something that runs long enough to be looked at, cancelled or drained.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{JobContext, JobDone, JobError, JobHandler, PayloadFault, parse};

/// Waits, and stops waiting when it is told to.
pub struct Sleep;

/// What a job of the kind `sleep` is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepPayload {
    /// For how long, in milliseconds. The time limit of the job holds all the same.
    ms: u64,
}

#[async_trait]
impl JobHandler for Sleep {
    fn kind(&self) -> &'static str {
        "sleep"
    }

    fn check(&self, payload: &Value) -> Result<(), PayloadFault> {
        parse::<SleepPayload>(payload).map(drop)
    }

    async fn run(&self, context: JobContext) -> Result<JobDone, JobError> {
        let SleepPayload { ms } = context.payload()?;
        let began = Instant::now();
        let sleep = context.cancelled.run_until_cancelled(tokio::time::sleep(Duration::from_millis(ms))).await;
        let slept_ms = began.elapsed().as_millis() as u64;
        match sleep {
            Some(()) => Ok(JobDone { result: Some(json!({ "slept_ms": slept_ms })), effects: Vec::new() }),
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
        let context = context_of(&job().payload(json!({ "ms": 1_500 })));
        let done = Sleep.run(context.clone()).await.unwrap();
        assert_eq!(done.result, Some(json!({ "slept_ms": 1_500 })));
        context.cancelled.cancel();
        assert!(matches!(Sleep.run(context).await, Err(JobError::Retry { .. })));
        assert_eq!(Sleep.check(&json!({ "ms": -1 })).unwrap_err().path, "payload.ms");
    }
}
