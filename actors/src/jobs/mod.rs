//! What a job is made of: a kind, a payload, and the handler that runs it.
//!
//! - [`JobHandler`] is what one writes to teach the service a new kind; [`Handlers`] is the list of them.
//! - [`RunOne`] runs one claimed job: its own span, its time limit, its panics, its cancellation.
//! - [`RetryPolicy`] decides what follows; [`Cadence`] when a schedule fires. Both are pure.
//!
//! The kinds of this house are [`Publish`], [`Notify`] and, in development, [`Panic`] and [`Sleep`]. Who claims jobs and when is the
//! business of [`scheduler`](crate::scheduler), where they live that of [`store`](crate::store).
//!
//! A handler runs **at least once**: its process may die after the work and before the answer is kept. What it does
//! outside the store must bear a second time, or carry [`JobContext::idempotency_key`]. What it does *in* the store it
//! returns as an [`Effect`]: that happens once, together with the job's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::outbound::{OutboundError, Repeat};
use crate::store::{Effect, Job};

mod cadence;
pub(crate) mod cron;
mod notify;
mod panic;
mod publish;
mod retry;
mod run;
mod sleep;
#[cfg(test)]
pub(crate) mod testing;

pub use cadence::{Cadence, CadenceError, EVERY_MAX_MS, EVERY_MIN_MS, PATTERN_MAX, time_zone};
pub use cron::{CronLine, HORIZON_YEARS};
pub use notify::{CHANNELS_MAX, Notify, NotifyPayload, TEXT_MAX_CHARS};
pub use panic::Panic;
pub use publish::{Publish, PublishPayload};
pub use retry::{ERROR_MAX, Ending, RetryPolicy};
pub use run::{RunOne, RunSite};
pub use sleep::Sleep;

/// Runs jobs of one kind.
#[async_trait]
pub trait JobHandler: Send + Sync + 'static {
    /// The kind it runs.
    fn kind(&self) -> &'static str;

    /// Whether a payload makes sense, so that a bad one can be refused at the door. [`JobHandler::run`] must check
    /// again: what is in the store may be older than this program.
    ///
    /// # Errors
    /// The place of the fault.
    fn check(&self, payload: &Value) -> Result<(), PayloadFault>;

    /// Runs one attempt. It should end soon after `context.cancelled` fires; if it does not, it is dropped.
    ///
    /// # Errors
    /// [`JobError`] says whether another attempt makes sense.
    async fn run(&self, context: JobContext) -> Result<JobDone, JobError>;
}

/// What a handler is given.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// The job, with its payload.
    pub job: Arc<Job>,
    /// Which attempt this is, counting those that are charged, from 1.
    pub attempt: u32,
    /// Fires when the attempt should stop: the service stops, the lease is lost, or the time is over.
    pub cancelled: CancellationToken,
}

impl JobContext {
    /// The payload, as the type that the handler expects.
    ///
    /// # Errors
    /// The place of the fault; as a [`JobError`] it is dead at once, for another attempt would read the same.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, PayloadFault> {
        parse(&self.job.payload)
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
            index if index.starts_with('[') => format!("payload{index}"),
            field => format!("payload.{field}"),
        };
        PayloadFault { path, reason: error.into_inner().to_string() }
    })
}

/// The kinds of jobs that this process can run.
#[derive(Clone, Default)]
pub struct Handlers(BTreeMap<&'static str, Arc<dyn JobHandler>>);

/// Why a job is not worth keeping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nobody here can run it.
    #[error("no handler for the kind {kind:?}, known are: {known}")]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What there is, with commas.
        known: String,
    },
    /// Its handler could not read it.
    #[error(transparent)]
    Payload(#[from] PayloadFault),
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler; the later one of a kind wins.
    #[must_use]
    pub fn with(mut self, handler: impl JobHandler) -> Self {
        self.0.insert(handler.kind(), Arc::new(handler));
        self
    }

    /// The handler of a kind.
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn JobHandler>> {
        self.0.get(kind)
    }

    /// All kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Whether a job of this kind and payload could run here.
    ///
    /// # Errors
    /// [`CheckError`] says why not.
    pub fn check(&self, kind: &str, payload: &Value) -> Result<(), CheckError> {
        let Some(handler) = self.get(kind) else {
            let known = self.kinds().collect::<Vec<_>>().join(", ");
            return Err(CheckError::UnknownKind { kind: kind.to_owned(), known });
        };
        Ok(handler.check(payload)?)
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_that_nobody_runs_is_refused_with_the_list_of_those_there_are() {
        let handlers = Handlers::new().with(Notify).with(Panic);
        let refused = handlers.check("nottify", &json!({})).unwrap_err();
        assert_eq!(refused.to_string(), "no handler for the kind \"nottify\", known are: notify, panic");
    }

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
