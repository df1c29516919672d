//! The line to the other processes that share the store: what is enqueued here starts there without waiting for their
//! poll, and the other way round. It is re-made when it is lost; meanwhile the poll does alone.

use std::sync::Arc;
use std::time::Duration;

use supervision::{Backoff, ChildContext};
use tokio::time::Instant;

use super::Shared;
use crate::store::{FULL_RETRY_MS, Job, Outcome, Settled, Settlement, Wakeups};

telemetry::declare_metrics! {
    /// Times that the connection for wake-up calls was lost, or could not be made.
    pub static LOST: Counter = ("scheduler.line.lost", "{loss}");
}

/// The first wait before the line is made again.
const AGAIN_BASE: Duration = Duration::from_millis(100);

/// Keeps the line for as long as the incarnation of this child lives.
pub(super) fn keep(context: &ChildContext, shared: Arc<Shared>) {
    LOST.born(());
    let ended = context.tasks().token();
    context.tasks().spawn("line", async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = keep_up(&shared) => {}
        }
    });
}

/// Ends only if there is nobody else.
async fn keep_up(shared: &Shared) {
    let longest = Duration::from_millis(shared.settings.park_max_ms);
    let backoff = Backoff::doubling(AGAIN_BASE.min(longest), longest);
    let hear = |queue: &str| {
        if queue == Wakeups::ALL || shared.settings.queues.iter().any(|own| own == queue) {
            shared.claimer.poke();
        }
    };
    let mut losses = 0;
    loop {
        let began = Instant::now();
        let Err(error) = shared.store.exchange(&shared.wakeups, &hear).await else { return };
        if began.elapsed() >= backoff.reset_after {
            losses = 0;
        }
        losses += 1;
        LOST.add(1, ());
        match losses {
            1 => tracing::warn!(%error, "the line to other processes is lost, they are heard by the poll only"),
            _ => tracing::debug!(%error, losses, "there is still no line to other processes"),
        }
        tokio::time::sleep(backoff.delay(losses, fastrand::f64())).await;
    }
}

impl Shared {
    /// Tells the others of jobs that were enqueued. Those that come due after the next poll of everybody are seen by that.
    pub(super) fn tell_of(&self, jobs: &[Job]) {
        for job in jobs {
            if self.is_soon(job.run_at_ms.saturating_sub(job.created_at_ms).max(0).cast_unsigned()) {
                self.wakeups.tell(&job.queue);
            }
        }
    }

    /// Tells the others of jobs that have ended here only for a while.
    pub(super) fn tell_of_ends<'a>(&self, mut ends: impl Iterator<Item = (&'a Settlement, &'a Settled)>) {
        if ends.any(|(end, settled)| again_after_ms(end, settled).is_some_and(|after_ms| self.is_soon(after_ms))) {
            self.wakeups.tell(Wakeups::ALL);
        }
    }

    fn is_soon(&self, after_ms: u64) -> bool {
        after_ms < self.settings.poll_interval_ms
    }
}

/// When a job may be claimed again that was settled so.
fn again_after_ms(end: &Settlement, settled: &Settled) -> Option<u64> {
    match (settled, &end.outcome) {
        (Settled::Postponed { .. }, _) => Some(FULL_RETRY_MS),
        (Settled::Applied, Outcome::Retry { after_ms, .. } | Outcome::Snooze { after_ms, .. }) => Some(*after_ms),
        (Settled::Applied, Outcome::Release) => Some(0),
        _ => None,
    }
}
