//! The kind `panic`, for development: shows what a handler's bug costs, which is one attempt of one job.

use async_trait::async_trait;
use serde_json::Value;

use super::{JobContext, JobDone, JobError, JobHandler, PayloadFault};

/// Panics, each time.
pub struct Panic;

#[async_trait]
impl JobHandler for Panic {
    fn kind(&self) -> &'static str {
        "panic"
    }

    fn check(&self, _payload: &Value) -> Result<(), PayloadFault> {
        Ok(())
    }

    async fn run(&self, context: JobContext) -> Result<JobDone, JobError> {
        panic!("a job of the kind `panic` did as it was told, attempt {}", context.attempt)
    }
}
