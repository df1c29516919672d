//! The kinds of jobs that a process can run: handlers of all payloads, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::handler::parse;
use super::{JobContext, JobDone, JobError, JobHandler, PayloadFault, RetrySchedule};

/// The kinds of jobs that this process can run.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<&'static str, Arc<dyn AnyHandler>>,
    twice: BTreeSet<&'static str>,
}

/// Why a job is not worth keeping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nobody here can run it.
    #[error("no handler for the kind {kind:?}, known are: {known}")]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What there is.
        known: String,
    },
    /// Its payload makes no sense to its handler.
    #[error(transparent)]
    Payload(#[from] PayloadFault),
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler. A scheduler refuses two of one kind: the second is most likely a copy whose name was forgotten.
    #[must_use]
    pub fn with<H: JobHandler>(mut self, handler: H) -> Self {
        if self.by_kind.insert(H::KIND, Arc::new(handler)).is_some() {
            self.twice.insert(H::KIND);
        }
        self
    }

    /// Kinds that were added more than once.
    pub(crate) fn twice(&self) -> impl Iterator<Item = &'static str> {
        self.twice.iter().copied()
    }

    /// The handler of a kind.
    pub(crate) fn get(&self, kind: &str) -> Option<&Arc<dyn AnyHandler>> {
        self.by_kind.get(kind)
    }

    /// All kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.by_kind.keys().copied()
    }

    /// The name of this kind, if there is a handler for it.
    pub fn known(&self, kind: &str) -> Option<&'static str> {
        self.by_kind.get_key_value(kind).map(|(known, _)| *known)
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

    /// How often a job of this kind is tried that does not say so itself; `None` if nobody here can run it.
    pub fn max_attempts(&self, kind: &str) -> Option<u32> {
        self.get(kind).map(|handler| handler.max_attempts().max(1))
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

/// A [`JobHandler`] without the type of its payload.
#[async_trait]
pub(crate) trait AnyHandler: Send + Sync + 'static {
    fn check(&self, payload: &Value) -> Result<(), PayloadFault>;
    fn max_attempts(&self) -> u32;
    fn timeout_ms(&self) -> Option<u64>;
    fn retry(&self) -> Option<RetrySchedule>;
    async fn run(&self, context: JobContext) -> Result<JobDone, JobError>;
}

#[async_trait]
impl<H: JobHandler> AnyHandler for H {
    fn check(&self, payload: &Value) -> Result<(), PayloadFault> {
        read(self, payload).map(drop)
    }

    fn max_attempts(&self) -> u32 {
        JobHandler::max_attempts(self)
    }

    fn timeout_ms(&self) -> Option<u64> {
        JobHandler::timeout_ms(self)
    }

    fn retry(&self) -> Option<RetrySchedule> {
        JobHandler::retry(self)
    }

    async fn run(&self, context: JobContext) -> Result<JobDone, JobError> {
        let payload = read(self, &context.job.payload)?;
        JobHandler::run(self, payload, context).await
    }
}

fn read<H: JobHandler>(handler: &H, payload: &Value) -> Result<H::Payload, PayloadFault> {
    let payload = parse(payload)?;
    JobHandler::check(handler, &payload).map(|()| payload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jobs::testing::{job, run};
    use crate::jobs::{Notify, Panic};

    #[test]
    fn a_kind_that_nobody_runs_is_refused_with_the_list_of_those_there_are() {
        let handlers = Handlers::new().with(Notify).with(Panic);
        let refused = handlers.check("nottify", &json!({})).unwrap_err();
        assert_eq!(refused.to_string(), "no handler for the kind \"nottify\", known are: notify, panic");
        assert_eq!((handlers.max_attempts("nottify"), handlers.max_attempts("notify")), (None, Some(10)));
    }

    /// Takes even numbers only.
    struct Even;

    impl JobHandler for Even {
        const KIND: &'static str = "even";
        type Payload = Vec<u32>;

        fn check(&self, payload: &Vec<u32>) -> Result<(), PayloadFault> {
            match payload.iter().position(|n| n % 2 == 1) {
                Some(n) => Err(PayloadFault::at(&format!("[{n}]"), "is odd")),
                None => Ok(()),
            }
        }

        async fn run(&self, payload: Vec<u32>, _: JobContext) -> Result<JobDone, JobError> {
            Ok(JobDone::with(&payload.len()))
        }
    }

    #[tokio::test]
    async fn what_is_refused_at_the_door_is_dead_before_it_runs_for_the_same_reason() {
        let handlers = Handlers::new().with(Even);
        for (payload, expected) in [
            (json!([2, "x"]), "payload[1]: invalid type: string \"x\", expected u32"),
            (json!([2, 3]), "payload[1]: is odd"),
        ] {
            assert_eq!(handlers.check("even", &payload).unwrap_err().to_string(), expected);
            let failed = run(&handlers, &job().kind("even").payload(payload)).await.unwrap_err();
            assert_eq!(failed, JobError::dead(expected));
        }
        let done = run(&handlers, &job().kind("even").payload(json!([2, 4]))).await.unwrap();
        assert_eq!(done.result, Some(json!(2)));
    }
}
