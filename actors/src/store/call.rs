//! One call of a store, with its deadline and its measure.

use std::future::Future;
use std::time::Duration;

use telemetry::context::{OutOfTime, budget};

use super::StoreError;
use super::error::Inner;

telemetry::labels! {
    /// A call, by what was asked and by how it ended.
    pub struct Called<'a> { verb: &'a str, outcome: CallOutcome<'a> }
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub enum CallOutcome<'a> {
    /// With an answer.
    Ok,
    /// With this.
    Failed(&'a StoreError),
}

impl CallOutcome<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(error) => error.kind(),
        }
    }
}

telemetry::label_values! {
    CallOutcome<'_>,
    CallOutcome::name,
    [
        "ok", "unavailable", "timeout", "out_of_time", "conflict", "not_found", "limit", "corrupt", "schema", "address",
    ],
}

telemetry::declare_metrics! {
    /// Time that one call of the store took, by verb and outcome.
    pub static CALL_DURATION: Histogram<Called> = ("store.call.duration", "s", [0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0]);
}

/// Runs one verb within the deadline, or within what its caller has left if that is less. A call that is given up half-way
/// is dropped, and what it had written is rolled back.
pub(super) async fn within<T>(
    deadline: Duration,
    verb: &'static str,
    call: impl Future<Output = Inner<T>>,
) -> Result<T, StoreError> {
    let started = tokio::time::Instant::now();
    let answer = match budget(deadline) {
        Ok(limit) => match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|trouble| trouble.of(verb)),
            Err(_) if limit < deadline => Err(StoreError::OutOfTime { verb }),
            Err(_) => Err(StoreError::Timeout { verb, deadline_ms: in_ms(deadline) }),
        },
        Err(OutOfTime) => Err(StoreError::OutOfTime { verb }),
    };
    let outcome = answer.as_ref().map_or_else(CallOutcome::Failed, |_| CallOutcome::Ok);
    CALL_DURATION.record(started.elapsed().as_secs_f64(), Called { verb, outcome });
    answer
}

/// The deadline in milliseconds.
pub(super) fn in_ms(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)
}
