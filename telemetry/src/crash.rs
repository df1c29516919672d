//! The end of a process that must not go on: what is recorded is sent, and then it aborts.

#[cfg(feature = "export")]
use std::sync::OnceLock;
use std::time::Duration;

use crate::{panic, reporters};

/// Sends what is left within a budget. Set when the exporters start.
#[cfg(feature = "export")]
type Flush = Box<dyn Fn(Duration) + Send + Sync>;

#[cfg(feature = "export")]
static FLUSH: OnceLock<Flush> = OnceLock::new();

/// Says how to send what is left. Only the first call counts.
#[cfg(feature = "export")]
pub(crate) fn flush_with(flush: impl Fn(Duration) + Send + Sync + 'static) {
    // Telemetry starts once.
    let _ = FLUSH.set(Box::new(flush));
}

/// Waits for panics whose backtraces are still being resolved, tells the reporters and sends what is left, all within
/// `budget`, and aborts the process: signal SIGABRT, exit code 134 to a shell. For a panic whose policy is
/// [`CrashProcess`](crate::panic::Policy::CrashProcess). It blocks its thread; there is nothing left to run.
pub fn crash(budget: Duration) -> ! {
    panic::settle(budget / 4);
    let left = budget - budget / 4;
    #[cfg(feature = "export")]
    if let Some(flush) = FLUSH.get() {
        // It waits for the reporters, too.
        flush(left);
        std::process::abort()
    }
    reporters::settle(left);
    std::process::abort()
}
