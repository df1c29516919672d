//! What happened, told three ways: traces, metrics and logs, joined by one trace id.
//!
//! - [`metrics`]: instruments declared beside what they measure, collected into one catalogue.
//! - [`spans`] and [`events`]: the same for spans, and for log records with a name.
//! - [`context`]: how a trace, a request's id and its deadline cross a mailbox, a header, a row in a table.
//! - [`mod@panic`]: a panic is caught, recorded exactly once, and survives as an incident.
//! - [`incidents`]: the last of them, kept in the process.
//! - [`reporters`]: whoever else wants to hear of them, such as an error tracker.
//! - `export` (feature `export`, on by default): OTLP, `/metrics`, the log on stderr, and the flush at the end.
//! - `recorder` (feature `export`): the latest traces and log records, kept in the process for whoever looks.
//!
//! Nothing here knows actors or HTTP. Without the feature `export` the crate needs the OpenTelemetry API and the clock of
//! tokio only, and every call still works: it reports to whatever providers and subscriber the process has set itself.

pub mod context;
mod crash;
mod door;
pub mod events;
#[cfg(feature = "export")]
pub mod export;
pub mod incidents;
pub mod metrics;
pub mod panic;
mod pending;
#[cfg(feature = "export")]
pub mod recorder;
pub mod reporters;
pub mod spans;
#[cfg(all(test, feature = "export"))]
mod testing;

pub use crash::crash;

/// The examples of the page on telemetry compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/telemetry.md")]
struct Page;

/// What the macros of this crate need to reach from other crates. Not an interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::panic::{broken, count};
    pub use linkme;
    pub use opentelemetry::{KeyValue, StringValue};
    pub use tracing;
}

/// Name of the instrumentation scope of everything this crate reports for the house.
const SCOPE: &str = "perennial";

/// Locks and carries on if a holder panicked: nothing here leaves data half done under a lock.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
