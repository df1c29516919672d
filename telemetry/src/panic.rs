//! A panic is caught, recorded exactly once, and survives as an incident.
//!
//! Three hands, and each does its own part only:
//!
//! 1. The hook ([`install_hook`]) runs inside the panicking code. It only captures: place, thread, unresolved backtrace, and
//!    the current span, because unwinding closes the inner ones.
//! 2. The place that catches ([`catch`], [`catch_with`], [`catch_sync`]) hands the capture on as a [`CapturedPanic`].
//! 3. Whoever knows what it means calls [`record`] with it. A `CapturedPanic` cannot be cloned, so it is recorded once.
//!
//! Resolving the backtrace takes up to half a second the first time. A thread of telemetry's own does it, and the span is
//! held open for it, 5 s at most. A panic that no one catches is logged and kept as an incident by the hook itself.

mod catch;
mod ensure;
mod event;
mod frames;
mod hook;
mod limit;
mod record;
mod recorder;
mod report;

pub use catch::{Catch, catch, catch_sync, catch_with};
pub use ensure::{Assertion, FIELDS_MAX, TEXT_MAX, VALUE_MAX, cut};
#[doc(hidden)]
pub use ensure::{broken, count};
pub use frames::{Backtrace, Frame, frames};
pub use hook::install_hook;
#[cfg(feature = "export")]
pub(crate) use hook::log_is_live;
pub use record::{PANIC_RECOVERED, PANIC_UNCAUGHT, PanicSite, Policy, Recovery, record};
pub use recorder::settle;

use jiff::Timestamp;
use opentelemetry::Context;
use tracing::{Dispatch, Span};

/// What was captured of one panic. It can be recorded once: it is not `Clone`. It reads as a [`Capture`], and is one pointer,
/// for it is the error of many results.
#[derive(Debug)]
#[must_use = "a panic that is caught and not recorded is a panic nobody hears of"]
pub struct CapturedPanic(Box<Capture>);

/// What is known of one panic.
#[derive(Debug)]
pub struct Capture {
    /// What the panic said.
    pub message: String,
    /// `file:line:column`. Absent if the hook did not see it: not installed, or the panic was resumed from elsewhere.
    pub location: Option<String>,
    /// Name of the panicking thread.
    pub thread: String,
    /// When.
    pub at: Timestamp,
    /// What the assertion that panicked knew; empty if it was none of ours.
    pub assertion: Assertion,
    /// The stack, not resolved yet.
    pub backtrace: Backtrace,
    /// The span in which it happened, held open.
    pub span: Span,
    /// The same for OpenTelemetry: the span may have been made with its API.
    pub(crate) context: Context,
    /// The subscriber in force there.
    pub(crate) dispatch: Dispatch,
}

/// Captures here and now: for the end of a process that somebody decides on, without unwinding anything.
#[track_caller]
pub fn capture(message: impl Into<String>) -> CapturedPanic {
    let mut captured = CapturedPanic::here(cut(message.into()));
    captured.0.location = Some(std::panic::Location::caller().to_string());
    captured.0.backtrace = Backtrace::capture(None);
    captured
}

impl CapturedPanic {
    /// Captures where we stand, with nothing known of the panic itself but its message.
    pub(crate) fn here(message: String) -> Self {
        Self(Box::new(Capture {
            message,
            location: None,
            thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
            at: Timestamp::now(),
            assertion: Assertion::default(),
            backtrace: Backtrace::empty(),
            span: Span::current(),
            context: Context::current(),
            dispatch: tracing::dispatcher::get_default(Dispatch::clone),
        }))
    }
}

impl std::ops::Deref for CapturedPanic {
    type Target = Capture;

    fn deref(&self) -> &Capture {
        &self.0
    }
}

#[cfg(all(test, feature = "export"))]
mod tests;
