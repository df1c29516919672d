//! The end: everything that waits is sent, within one budget, and what was not is said.

use super::plan::Signal;
use super::providers::Providers;
use crate::{door, panic, reporters};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use std::fmt;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How the flush went. Empty if there was nothing to flush.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Each signal that goes somewhere.
    pub signals: Vec<SignalReport>,
    /// How many incidents a reporter was still to tell of when the time was up.
    pub reports_lost: usize,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

impl FlushReport {
    /// Everything was sent.
    pub fn is_clean(&self) -> bool {
        self.reports_lost == 0 && self.signals.iter().all(|signal| signal.outcome == Outcome::Sent)
    }
}

/// `telemetry flushed in 12 ms`, or what was lost.
impl fmt::Display for FlushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "telemetry flushed in {} ms", self.took_ms)?;
        let lost = self.signals.iter().filter(|signal| signal.outcome != Outcome::Sent);
        lost.into_iter().try_for_each(|signal| write!(f, "; {signal}"))?;
        match self.reports_lost {
            0 => Ok(()),
            count => write!(f, "; {count} incidents not reported: out of time"),
        }
    }
}

/// How the flush of one signal went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalReport {
    /// Which.
    pub signal: Signal,
    /// How.
    pub outcome: Outcome,
    /// Spans or log records that nobody has taken when the time was up.
    pub waiting: usize,
}

impl fmt::Display for SignalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Sent => write!(f, "{} sent", self.signal),
            Outcome::Failed(why) => write!(f, "{} lost: {why}", self.signal),
            Outcome::TimedOut => match self.waiting {
                0 => write!(f, "{} lost: out of time", self.signal),
                items => write!(f, "{} lost: out of time, with {items} items", self.signal),
            },
        }
    }
}

/// How a flush ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The collector took everything.
    Sent,
    /// It could not be sent; why.
    Failed(String),
    /// The budget ended first.
    TimedOut,
}

/// Flushes the signals side by side, and waits for the reporters, so that a slow one takes nothing from the others.
pub(super) async fn flush(providers: Providers, runtime: Handle, budget: Duration) -> FlushReport {
    let started = Instant::now();
    let deadline = started + budget;
    // What panicked a moment ago still waits for its backtrace; a quarter of the budget is its share.
    let settled = door::blocking(&runtime, move || panic::settle(budget / 4));
    let _ = timeout_at(deadline, settled).await;
    let left = deadline.saturating_duration_since(Instant::now());
    let Providers { metrics, traces, logs, .. } = providers.clone();
    let (exported_traces, exported_metrics) = (traces.clone(), metrics.clone());
    let reported = door::blocking(&runtime, move || reporters::settle(left));
    let (reported, traces, metrics, logs) = tokio::join!(
        timeout_at(deadline, reported),
        one(&runtime, deadline, move || in_order(
            || exported_traces.force_flush(),
            || traces.shutdown_with_timeout(left)
        )),
        one(&runtime, deadline, move || in_order(
            || exported_metrics.force_flush(),
            || metrics.shutdown_with_timeout(left)
        )),
        one(&runtime, deadline, move || match logs {
            Some(logs) => in_order(|| logs.force_flush(), || logs.shutdown_with_timeout(left)),
            None => Ok(()),
        }),
    );
    let outcomes = [(Signal::Traces, traces), (Signal::Metrics, metrics), (Signal::Logs, logs)];
    let report = |(signal, outcome)| SignalReport { signal, outcome, waiting: providers.waiting(signal) };
    let signals = outcomes.into_iter().map(report).collect();
    // Without an answer in time, it is as it was.
    let reports_lost = reported.ok().and_then(Result::ok).unwrap_or_else(|| reporters::settle(Duration::ZERO));
    FlushReport { signals, reports_lost, took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) }
}

/// As [`flush`], from any thread, also one that belongs to a runtime: before the process aborts.
pub(super) fn flush_blocking(providers: Providers, runtime: Handle, budget: Duration) {
    let (done, finished) = mpsc::sync_channel(1);
    let flushing = flush(providers, runtime.clone(), budget);
    door::spawn(&runtime, async move {
        let report = flushing.await;
        // Too late; the process is about to abort.
        let _ = done.send(report);
    });
    if let Ok(report) = finished.recv_timeout(budget)
        && !report.is_clean()
    {
        eprintln!("{report}");
    }
}

/// Only the flush tells what was lost: the shutdown says all is well with spans gone. Both are done; the first error counts.
fn in_order(flush: impl FnOnce() -> OTelSdkResult, shutdown: impl FnOnce() -> OTelSdkResult) -> OTelSdkResult {
    let flushed = flush();
    let stopped = shutdown();
    flushed.and(stopped)
}

async fn one(runtime: &Handle, deadline: Instant, work: impl FnOnce() -> OTelSdkResult + Send + 'static) -> Outcome {
    match timeout_at(deadline, door::blocking(runtime, work)).await {
        Ok(Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown))) => Outcome::Sent,
        Ok(Ok(Err(OTelSdkError::Timeout(_)))) | Err(_) => Outcome::TimedOut,
        Ok(Ok(Err(OTelSdkError::InternalFailure(why)))) => Outcome::Failed(why),
        Ok(Err(panicked)) => Outcome::Failed(panicked.to_string()),
    }
}
