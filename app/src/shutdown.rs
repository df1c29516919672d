//! The wish that the process ends: from a signal, or from code. All the same, and idempotent.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(pub String);

/// Triggers the stop, and waits for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    reason: Arc<watch::Sender<Option<Reason>>>,
    triggered: CancellationToken,
}

impl Shutdown {
    /// Not triggered yet.
    pub fn new() -> Self {
        Self { reason: Arc::new(watch::Sender::new(None)), triggered: CancellationToken::new() }
    }

    /// Begins the stop. Only the first reason counts.
    pub fn trigger(&self, reason: impl Into<String>) {
        self.reason.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| Reason(reason.into()));
            first
        });
        self.triggered.cancel();
    }

    /// Fires with the first trigger.
    pub fn token(&self) -> CancellationToken {
        self.triggered.clone()
    }

    /// Waits for the first trigger, and says why.
    pub async fn requested(&self) -> Reason {
        self.triggered.cancelled().await;
        self.reason.borrow().clone().unwrap_or_else(|| Reason("unknown".to_owned()))
    }
}

/// SIGTERM and SIGINT, from the moment it is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on neither signal ends the process by itself.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal: its name and its number.
    pub async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15),
            _ = self.interrupt.recv() => ("SIGINT", 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_everyone_hears_it() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        other.trigger("deploy");
        shutdown.trigger("impatience");
        assert_eq!(shutdown.requested().await, Reason("deploy".to_owned()));
        assert!(other.token().is_cancelled());
    }
}
