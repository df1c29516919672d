//! The beat of an actor that works by itself: when it works next, and how it waits while the store is away.

use std::time::Duration;

use ractor::{ActorRef, Message};
use supervision::ChildContext;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::Poke;
use crate::store::StoreError;

telemetry::labels! {
    /// A loop of the scheduler.
    pub struct OfLoop<'a> {
        #[name = "loop"]
        name: &'a str,
    }
}

telemetry::declare_metrics! {
    /// Calls to the store that failed and made a loop of the scheduler wait.
    pub static PARKED: Counter<OfLoop> = ("scheduler.parked", "{call}");
}

/// Park for this long after the first failure.
const PARK_BASE: Duration = Duration::from_millis(100);

/// Sends an actor its next tick when the wait that it named is over, or when it is poked.
///
/// One tick at a time: the next wait begins when the actor has named it, so that slow work never piles up ticks.
pub(super) struct Pulse(mpsc::Sender<Duration>);

impl Pulse {
    /// The first tick is sent at once.
    pub(super) fn start<M: Message>(context: &ChildContext, actor: ActorRef<M>, poke: Poke, tick: fn() -> M) -> Self {
        let (sender, mut waits) = mpsc::channel(1);
        // Not the actor's own token: the tasks end with the incarnation, also when it failed and nobody asked it to stop.
        let ended = context.tasks().token();
        context.tasks().spawn("pulse", async move {
            while actor.cast(tick()).is_ok() {
                let Some(wait) = waits.recv().await else { return };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = poke.wait() => {}
                    () = ended.cancelled() => return,
                }
            }
        });
        Self(sender)
    }

    /// The tick is done; the next one after this wait, or at the next poke.
    pub(super) fn next(&self, wait: Duration) {
        // Full only if the actor answers a tick twice, closed only while it stops: then one wait is enough.
        let _ = self.0.try_send(wait);
    }
}

/// Up to a fifth less, so that replicas do not ask in step.
pub(super) fn jittered(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms).mul_f64(0.8 + 0.2 * fastrand::f64())
}

/// Runs `work` to its end; once the stop has begun only for `grace` more. Nothing if it was cut.
pub(super) async fn until_stop<T>(
    stopped: &CancellationToken,
    grace: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = async { stopped.cancelled().await; tokio::time::sleep(grace).await } => None,
    }
}

/// How a loop waits out a store that is away: it waits longer each time, and says so once.
#[derive(Debug)]
pub(super) struct Park {
    name: &'static str,
    longest: Duration,
    failures: u32,
}

impl Park {
    pub(super) fn new(name: &'static str, longest_ms: u64) -> Self {
        PARKED.born(OfLoop { name });
        Self { name, longest: Duration::from_millis(longest_ms), failures: 0 }
    }

    /// How long to wait after this error: between half and all of a ceiling that doubles.
    pub(super) fn failed(&mut self, error: &StoreError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        PARKED.add(1, OfLoop { name: self.name });
        match (error.is_retryable(), self.failures) {
            (false, _) => tracing::error!(name = self.name, %error, "the store cannot be used"),
            (true, 1) => tracing::warn!(name = self.name, %error, "the store is away, waiting for it"),
            (true, failures) => tracing::debug!(name = self.name, %error, failures, "the store is still away"),
        }
        let doubled = PARK_BASE.saturating_mul(1 << (self.failures - 1).min(16));
        doubled.min(self.longest).mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// The store answered.
    pub(super) fn ok(&mut self) {
        if self.failures > 0 {
            tracing::info!(name = self.name, failures = self.failures, "the store is back");
        }
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_loop_waits_longer_each_time_up_to_the_limit() {
        let mut park = Park::new("test", 1_000);
        let error = StoreError::Timeout { verb: "claim", deadline_ms: 5 };
        let waits: Vec<u128> = (0..40).map(|_| park.failed(&error).as_millis()).collect();
        for (wait, ceiling) in waits.iter().zip([100, 200, 400, 800].into_iter().chain(std::iter::repeat(1_000))) {
            assert!((ceiling / 2..=ceiling).contains(wait), "{waits:?}");
        }
        park.ok();
        assert!(park.failed(&error).as_millis() <= 100);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlives_the_stop_is_cut_after_the_grace() {
        let stopped = CancellationToken::new();
        let grace = Duration::from_millis(100);
        assert_eq!(until_stop(&stopped, grace, async { 7 }).await, Some(7));
        stopped.cancel();
        assert_eq!(until_stop(&stopped, grace, tokio::time::sleep(grace / 2)).await, Some(()));
        let before = tokio::time::Instant::now();
        assert_eq!(until_stop(&stopped, grace, std::future::pending::<()>()).await, None);
        assert_eq!(before.elapsed(), grace);
    }

    #[test]
    fn jitter_takes_a_fifth_at_most() {
        for _ in 0..100 {
            let wait = jittered(1_000).as_millis();
            assert!((800..=1_000).contains(&wait), "{wait}");
        }
    }
}
