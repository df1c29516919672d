//! What one writes to teach the service a new kind of jobs, and what it is given for that.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Progress, ProgressSlot, RetrySchedule};
use crate::model::Poke;
use crate::outbound::{OutboundError, Repeat};
use crate::store::{Effect, Job, JobState, NewJob};

/// Runs jobs of one kind.
///
/// ```
/// use actors::jobs::{Handlers, JobContext, JobDone, JobError, JobHandler};
/// use serde_json::json;
///
/// /// Counts the words of a text.
/// struct CountWords;
///
/// #[derive(serde::Deserialize)]
/// struct Text {
///     text: String,
/// }
///
/// impl JobHandler for CountWords {
///     const KIND: &'static str = "count_words";
///     type Payload = Text;
///
///     async fn run(&self, payload: Text, _: JobContext) -> Result<JobDone, JobError> {
///         Ok(JobDone::with(&json!({ "words": payload.text.split_whitespace().count() })))
///     }
/// }
///
/// // In a test: one attempt, without a store.
/// # use actors::{model::TenantId, store::NewJob};
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let job = NewJob::new(TenantId::new("demo")?, "count_words", json!(null));
/// let done = CountWords.run(Text { text: "to be or not".to_owned() }, JobContext::of_first_attempt(&job)).await?;
/// assert_eq!(done.result, Some(json!({ "words": 4 })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
///
/// let handlers = Handlers::new().with(CountWords);
/// assert!(handlers.check("count_words", &json!({ "text": "to be or not" })).is_ok());
/// let refused = handlers.check("count_words", &json!({ "text": 7 })).unwrap_err();
/// assert_eq!(refused.to_string(), "payload.text: invalid type: integer `7`, expected a string");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait JobHandler: Send + Sync + 'static {
    /// The kind it runs.
    const KIND: &'static str;

    /// What a job of this kind is told. A payload that is none is refused at the door, with the place of the fault; one
    /// that is in the store all the same, written by another version of the program, is dead at once with that reason.
    type Payload: DeserializeOwned + Send + 'static;

    /// What the type of the payload cannot say. Asked at the door and again before each attempt.
    ///
    /// # Errors
    /// The place of the fault, see [`PayloadFault::at`].
    fn check(&self, payload: &Self::Payload) -> Result<(), PayloadFault> {
        let _ = payload;
        Ok(())
    }

    /// How often a job is tried that does not say so itself.
    fn max_attempts(&self) -> u32 {
        NewJob::MAX_ATTEMPTS_DEFAULT
    }

    /// How long an attempt may take of a job that does not say so itself; `None` is what the operator says.
    fn timeout_ms(&self) -> Option<u64> {
        None
    }

    /// How long to wait between attempts; `None` is what the operator says.
    fn retry(&self) -> Option<RetrySchedule> {
        None
    }

    /// Runs one attempt. It should end soon after `context.cancelled` fires; if it does not, it is dropped.
    ///
    /// # Errors
    /// [`JobError`] says whether another attempt makes sense.
    fn run(
        &self,
        payload: Self::Payload,
        context: JobContext,
    ) -> impl Future<Output = Result<JobDone, JobError>> + Send;
}

/// What a handler is given.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// The job.
    pub job: Arc<Job>,
    /// Which attempt this is, counting those that are charged, from 1.
    pub attempt: u32,
    /// Fires when the attempt should stop: the service stops, the lease is lost, the job is cancelled, or the time is over.
    pub cancelled: CancellationToken,
    /// See [`JobContext::progress`].
    pub slot: ProgressSlot,
}

impl JobContext {
    /// What the first attempt at a job is given: for the test of a handler.
    pub fn of_first_attempt(job: &NewJob) -> Self {
        let now = job.run_at_ms.unwrap_or(0);
        let claimed = Job { state: JobState::Running, attempt: 1, claimed_at_ms: Some(now), ..Job::of(job, now) };
        Self {
            job: Arc::new(claimed),
            attempt: 1,
            cancelled: CancellationToken::new(),
            slot: ProgressSlot::new(Poke::new()),
        }
    }

    /// Tells how far the attempt is: kept with the job, and published to whoever of its tenant listens to the topic
    /// `jobs.{id}`. It never waits and may be called as often as one likes: of several reports in a second the last counts.
    pub fn progress(&self, progress: Progress) {
        self.slot.report(progress);
    }

    /// The same for every attempt of this job and for no other job.
    pub fn idempotency_key(&self) -> Uuid {
        self.job.id
    }
}

/// What a handler answers when all went well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobDone {
    /// Kept with the job, for the tenant to read.
    pub result: Option<Value>,
    /// Committed with the job's end, or not at all.
    pub effects: Vec<Effect>,
}

impl JobDone {
    /// With a result for the tenant to read. What cannot be JSON (a map whose keys are no texts) is `null`.
    pub fn with(result: &impl Serialize) -> Self {
        Self { result: Some(serde_json::to_value(result).unwrap_or_default()), effects: Vec::new() }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Another attempt may succeed.
    #[error("{error}")]
    Retry {
        /// What went wrong.
        error: String,
        /// How long to wait, if the handler knows better than the backoff.
        after_ms: Option<u64>,
    },
    /// Not now: what it needs is not there yet. The attempt is not charged, but a job is put off at most
    /// [`SNOOZES_MAX`](super::SNOOZES_MAX) times.
    #[error("{reason}")]
    Snooze {
        /// How long to wait, a day at most.
        after_ms: u64,
        /// What it waits for.
        reason: String,
    },
    /// No attempt will ever succeed.
    #[error("{reason}")]
    Dead {
        /// Why not.
        reason: String,
    },
}

impl JobError {
    /// Another attempt may succeed, after the usual backoff.
    pub fn retry(error: impl ToString) -> Self {
        Self::Retry { error: error.to_string(), after_ms: None }
    }

    /// Not now, but after this long; the attempt is not charged.
    pub fn snooze(after: Duration, reason: impl ToString) -> Self {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self::Snooze { after_ms, reason: reason.to_string() }
    }

    /// No attempt will ever succeed.
    pub fn dead(reason: impl ToString) -> Self {
        Self::Dead { reason: reason.to_string() }
    }
}

/// Where a payload is not what its kind expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct PayloadFault {
    /// The place, as `payload.topic` or `payload.items[3].id`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl PayloadFault {
    /// A fault at this place within the payload, as `topic`, `items[3].id` or `[3]`.
    pub fn at(place: &str, reason: impl ToString) -> Self {
        Self { path: below_payload(place), reason: reason.to_string() }
    }
}

fn below_payload(place: &str) -> String {
    if place.starts_with('[') { format!("payload{place}") } else { format!("payload.{place}") }
}

/// A call that failed is tried again unless that is useless: jobs run at least once, so whatever they call must bear
/// repetition anyway.
impl From<OutboundError> for JobError {
    fn from(error: OutboundError) -> Self {
        match error.repeat() {
            Repeat::Useless => Self::dead(error),
            Repeat::Helps | Repeat::IfHarmless => Self::retry(error),
        }
    }
}

impl From<PayloadFault> for JobError {
    fn from(fault: PayloadFault) -> Self {
        Self::dead(fault)
    }
}

/// Reads a payload, and names the place if it cannot.
pub(crate) fn parse<T: DeserializeOwned>(payload: &Value) -> Result<T, PayloadFault> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => "payload".to_owned(),
            place => below_payload(place),
        };
        PayloadFault { path, reason: error.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jobs::NotifyPayload;

    #[test]
    fn a_bad_payload_is_refused_with_the_place_of_the_fault() {
        #[derive(Debug, serde::Deserialize)]
        struct Nested {
            #[expect(dead_code, reason = "only its shape matters")]
            items: Vec<NotifyPayload>,
        }
        let fault = parse::<Nested>(&json!({ "items": [{ "channel": "x", "data": 1 }] })).unwrap_err();
        assert_eq!(fault.path, "payload.items[0].channel");
        assert_eq!(parse::<Nested>(&json!([1])).unwrap_err().path, "payload[0]");
        assert_eq!(parse::<Nested>(&json!("text")).unwrap_err().path, "payload");
    }
}
