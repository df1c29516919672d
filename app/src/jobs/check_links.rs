//! The kind `check_links`, for development: an example of a kind of one's own, to be imitated and then deleted.
//!
//! It has what most kinds need: a payload with a check of its own, calls to others, progress, a result, and its own waits.

use actors::jobs::{JobContext, JobDone, JobError, JobHandler, PayloadFault, Progress, RetrySchedule};
use actors::outbound::{Answer, Outbound, Repeat};
use serde::Deserialize;
use serde_json::{Value, json};

/// Links of one job at most: they are looked at one after the other, within one time limit.
const URLS_MAX: usize = 100;

/// Looks whether links still lead somewhere.
pub struct CheckLinks(Outbound);

/// What a job of the kind `check_links` is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// What to look at.
    urls: Vec<String>,
}

impl CheckLinks {
    /// Calls through this client.
    pub fn new(outbound: Outbound) -> Self {
        Self(outbound)
    }

    /// What is wrong with a link, if anything is.
    async fn fault(&self, url: &str) -> Result<Option<Value>, JobError> {
        match self.0.get(url).send().await.and_then(Answer::error_for_status) {
            Ok(_) => Ok(None),
            Err(error) if error.repeat() == Repeat::Useless => {
                Ok(Some(json!({ "url": url, "reason": error.to_string() })))
            }
            // Its host may be well later: then all links are looked at again.
            Err(error) => Err(error.into()),
        }
    }
}

impl JobHandler for CheckLinks {
    const KIND: &'static str = "check_links";
    type Payload = Links;

    fn check(&self, payload: &Links) -> Result<(), PayloadFault> {
        match payload.urls.len() {
            1..=URLS_MAX => Ok(()),
            _ => Err(PayloadFault::at("urls", format!("must have from 1 to {URLS_MAX} entries"))),
        }
    }

    fn max_attempts(&self) -> u32 {
        5
    }

    fn timeout_ms(&self) -> Option<u64> {
        Some(300_000)
    }

    fn retry(&self) -> Option<RetrySchedule> {
        Some(RetrySchedule { base_ms: 5_000, cap_ms: 300_000 })
    }

    async fn run(&self, payload: Links, context: JobContext) -> Result<JobDone, JobError> {
        let total = payload.urls.len() as u64;
        let mut broken = Vec::new();
        for (done, url) in (1..).zip(&payload.urls) {
            let looked = context.cancelled.run_until_cancelled(self.fault(url)).await;
            broken.extend(looked.ok_or_else(|| JobError::retry("it was stopped half-way"))??);
            context.progress(Progress::of(done, total).note(url));
        }
        Ok(JobDone::with(&json!({ "checked": total, "broken": broken })))
    }
}
