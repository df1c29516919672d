//! The kind `panic`, for development: shows what a handler's bug costs, which is one attempt of one job.

use serde::de::IgnoredAny;

use super::{JobContext, JobDone, JobError, JobHandler};

/// Panics, each time.
pub struct Panic;

impl JobHandler for Panic {
    const KIND: &'static str = "panic";
    type Payload = IgnoredAny;

    async fn run(&self, _: IgnoredAny, context: JobContext) -> Result<JobDone, JobError> {
        panic!("a job of the kind `panic` did as it was told, attempt {}", context.attempt)
    }
}
