//! What is told of a run: its span, and which runs it has to do with.

use sha2::{Digest, Sha256};
use telemetry::context::{Ids, TraceContext};
use telemetry::spans::{Shown, shown};
use tracing::Span;
use uuid::Uuid;

use crate::store::Job;

telemetry::declare_spans! {
    /// One attempt of a job, in its handler.
    pub(super) struct RunSpan<'a> = ("job.run", consumer, follower) {
        #[name = "job.id"]
        id: Shown<'a, Uuid>,
        #[name = "job.kind"]
        kind: &'a str,
        #[name = "job.queue"]
        queue: &'a str,
        #[name = "job.attempt"]
        attempt: i64,
        #[name = "job.waited_ms"]
        waited_ms: i64,
        tenant: &'a str,
    } later {
        #[name = "job.outcome"]
        outcome: &str,
        #[name = "otel.status_code"]
        end: &str,
        #[name = "otel.status_description"]
        reason: &str,
    }
}

/// A new root: the run belongs to the story that asked for it, and links to it, but is no part of that request.
pub(super) fn run_span(job: &Job) -> Span {
    let waited_ms = job.claimed_at_ms.map_or(0, |claimed| claimed.saturating_sub(job.run_at_ms));
    let span = RunSpan {
        id: shown(&job.id),
        kind: &job.kind,
        queue: &job.queue,
        attempt: job.charged().into(),
        waited_ms,
        tenant: job.tenant.as_str(),
    };
    span.open()
}

/// The ids of a run follow from the job and the attempt: one that ends with its process is still named by the next.
pub(super) fn run_ids(job: Uuid, attempt: u32) -> Ids {
    let hash: [u8; 32] = Sha256::new().chain_update(job).chain_update(attempt.to_be_bytes()).finalize().into();
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&hash[..16]);
    span.copy_from_slice(&hash[16..24]);
    Ids::of(trace, span)
}

/// The run before, if its runner was lost. It is not known to have begun: a claim may be lost sooner.
pub(super) fn lost_run(job: &Job) -> Option<TraceContext> {
    let before = job.attempt.checked_sub(1).filter(|before| *before > 0 && job.crashes > 0)?;
    let before = run_ids(job.id, before).beside(&job.context);
    Some(before).filter(|before| before.trace_id() != job.last_run.trace_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::job;

    #[test]
    fn the_run_before_is_named_if_it_was_lost_and_not_if_it_has_reported() {
        let id = Uuid::now_v7();
        let run = |attempt| run_ids(id, attempt).beside(&TraceContext::default());
        let lost =
            |attempt, crashes, last_run: TraceContext| lost_run(&Job { id, attempt, crashes, last_run, ..job() });
        assert_eq!(lost(3, 1, run(1)), Some(run(2)));
        assert_eq!(lost(2, 1, TraceContext::default()), Some(run(1)));
        assert_eq!(lost(3, 1, run(2)), None, "it panicked, and has said so");
        assert_eq!(lost(3, 0, run(1)), None, "no runner was lost: it was given back before it began");
        assert_eq!(lost(1, 1, TraceContext::default()), None);
        assert_ne!(run(1).trace_id(), run(2).trace_id());
    }
}
