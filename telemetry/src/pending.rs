//! Work that was handed to one of telemetry's threads and is not done yet, and waiting for the end of it.

use crate::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts what is not done yet.
#[derive(Debug)]
pub(crate) struct Pending {
    count: Mutex<usize>,
    emptied: Condvar,
}

/// One piece of it, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Ticket(&'static Pending);

impl Pending {
    pub(crate) const fn new() -> Self {
        Self { count: Mutex::new(0), emptied: Condvar::new() }
    }

    pub(crate) fn ticket(&'static self) -> Ticket {
        *lock(&self.count) += 1;
        Ticket(self)
    }

    /// Blocks until nothing is left, at most `within`; answers how much is.
    pub(crate) fn wait(&self, within: Duration) -> usize {
        let waited = self.emptied.wait_timeout_while(lock(&self.count), within, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut count = lock(&self.0.count);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.0.emptied.notify_all();
        }
    }
}
