//! Where the process is in its life, as the listeners and the probes see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often the main runtime proves that it runs tasks.
pub const RUNTIME_BEAT: Duration = Duration::from_secs(1);

/// Shared by whoever boots and drains, and by both listeners.
#[derive(Debug)]
pub struct Lifecycle {
    epoch: Instant,
    started: AtomicBool,
    draining: AtomicBool,
    /// When the main runtime last ran a task of ours, in milliseconds since `epoch`.
    runtime_ran_at_ms: AtomicU64,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            runtime_ran_at_ms: AtomicU64::new(0),
        }
    }
}

impl Lifecycle {
    /// The first start is complete. There is no way back.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the first start is complete.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// The stop has begun: not ready any more, and connections are asked to go. There is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the stop has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// To be run as a task of the *main* runtime: proves every [`RUNTIME_BEAT`] that it still runs tasks.
    pub async fn watch_runtime(&self) {
        let mut beat = tokio::time::interval(RUNTIME_BEAT);
        loop {
            beat.tick().await;
            let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.runtime_ran_at_ms.store(now, Ordering::Relaxed);
        }
    }

    /// For how long the main runtime has not run a task. The admin listener has a runtime of its own, so it can tell.
    pub fn runtime_silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.runtime_ran_at_ms.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_tasks_is_never_silent_for_long() {
        let lifecycle = Lifecycle::default();
        let _ = tokio::time::timeout(Duration::from_millis(10_500), lifecycle.watch_runtime()).await;
        assert_eq!(lifecycle.runtime_silent_for(), Duration::from_millis(500));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(lifecycle.runtime_silent_for(), Duration::from_millis(20_500));
    }

    #[test]
    fn a_new_process_is_neither_started_nor_draining() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_started() && !lifecycle.is_draining());
        lifecycle.set_started();
        lifecycle.drain();
        assert!(lifecycle.is_started() && lifecycle.is_draining());
    }
}
