//! How a child ended.

use std::fmt;

use serde::Serialize;
use telemetry::panic::cut;

use crate::Path;

/// Why an incarnation is gone. The first three are orderly; all others are failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", content = "detail", rename_all = "snake_case")]
pub enum Exit {
    /// It came to its end by itself.
    Normal,
    /// It was asked to stop and did.
    Shutdown,
    /// It ended by itself, orderly, for a reason of its own.
    ShutdownWith(String),
    /// It returned an error. Here and below, what it said is kept up to
    /// [`TEXT_MAX`](telemetry::panic::TEXT_MAX) bytes.
    Error(String),
    /// It panicked.
    Panic(String),
    /// It was killed: from outside, or because it outlived its stop budget.
    Killed,
    /// It did not start within its budget.
    StartTimeout,
    /// It was alive but stuck, and its spec says that it is started again then.
    Stuck(StuckIn),
    /// It is a supervisor whose child failed once too often, or could not be started.
    GaveUp {
        /// The child that failed.
        path: Path,
        /// How that child ended.
        cause: Box<Exit>,
    },
}

impl Exit {
    /// True for an end that is not a failure. A supervisor that gave up did not end orderly (in OTP it did).
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown | Self::ShutdownWith(_))
    }

    /// One word for metrics: `normal`, `shutdown`, `error`, `panic`, `kill`, `start_timeout`, `stuck` or
    /// `gave_up`.
    pub fn cause(&self) -> &'static str {
        self.word().as_str()
    }

    pub(crate) fn word(&self) -> Cause {
        match self {
            Self::Normal => Cause::Normal,
            Self::Shutdown | Self::ShutdownWith(_) => Cause::Shutdown,
            Self::Error(_) => Cause::Error,
            Self::Panic(_) => Cause::Panic,
            Self::Killed => Cause::Kill,
            Self::StartTimeout => Cause::StartTimeout,
            Self::Stuck(_) => Cause::Stuck,
            Self::GaveUp { .. } => Cause::GaveUp,
        }
    }
}

telemetry::label_values! {
    /// How a child ended, in one word.
    pub enum Cause {
        Normal = "normal",
        Shutdown = "shutdown",
        Error = "error",
        Panic = "panic",
        Kill = "kill",
        StartTimeout = "start_timeout",
        Stuck = "stuck",
        GaveUp = "gave_up",
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("ended normally"),
            Self::Shutdown => f.write_str("stopped"),
            Self::ShutdownWith(reason) => write!(f, "stopped: {reason}"),
            Self::Error(error) => write!(f, "failed: {error}"),
            Self::Panic(message) => write!(f, "panicked: {message}"),
            Self::Killed => f.write_str("was killed"),
            Self::StartTimeout => f.write_str("did not start within its budget"),
            Self::Stuck(place) => write!(f, "was stuck in {place}"),
            Self::GaveUp { path, cause } => write!(f, "gave up on {path}, which {cause}"),
        }
    }
}

impl Exit {
    /// An error with this text, which is cut if it is long: it goes into log lines, events and the history.
    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self::Error(cut(text.into()))
    }

    /// What an error means that a callback or a task returned.
    pub(crate) fn of_error(error: &(dyn std::error::Error + 'static)) -> Self {
        match error.downcast_ref::<Orderly>() {
            Some(Orderly::Normal) => Self::Normal,
            Some(Orderly::Shutdown) => Self::Shutdown,
            Some(Orderly::ShutdownWith(reason)) => Self::ShutdownWith(cut(reason.clone())),
            None => Self::error(text_of(error)),
        }
    }

    /// As [`Exit::of_error`], and drops the error.
    pub(crate) fn of_failure(error: BoxError) -> Self {
        let exit = Self::of_error(error.as_ref());
        if let Err(captured) = telemetry::panic::catch_sync(|| drop(error)) {
            crate::guard::record_unowned("drop", captured);
        }
        exit
    }
}

/// Where a child was stuck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "in", rename_all = "snake_case")]
pub enum StuckIn {
    /// A loop that promised to beat has not, for [`STALE_AFTER_INTERVALS`](crate::STALE_AFTER_INTERVALS) intervals.
    Loop {
        /// Its name.
        name: &'static str,
        /// Since its last beat, in milliseconds.
        for_ms: u64,
    },
    /// One message has been in hand for longer than the child's spec allows.
    Message {
        /// The actor's message type.
        message_type: &'static str,
        /// Since it was taken in hand, in milliseconds.
        for_ms: u64,
    },
}

impl fmt::Display for StuckIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop { name, for_ms } => write!(f, "its loop {name}, which has not beaten for {for_ms} ms"),
            Self::Message { message_type, for_ms } => write!(f, "one message of type {message_type} for {for_ms} ms"),
        }
    }
}

/// Returned as an error by a callback or a task that ends by itself and orderly: not a failure, but the child's own wish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Orderly {
    /// It came to its end: a permanent child is started again, any other is not.
    #[error("ended normally")]
    Normal,
    /// As if it had been asked to stop.
    #[error("stopped")]
    Shutdown,
    /// As [`Orderly::Shutdown`], with a reason for the record.
    #[error("stopped: {0}")]
    ShutdownWith(String),
}

/// What a start function or a task may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Returned by `pre_start`, or by a task before it is ready: the child declines to run, which is not a failure. Its spec
/// stays, down, unless it is temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("declined to start")]
pub struct Ignore;

/// The error in one line. To write it is foreign code, which may panic.
fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    telemetry::panic::catch_sync(|| chain(error))
        .unwrap_or_else(|captured| format!("an error that could not be written, it panicked: {}", captured.message))
}

/// The error and all its sources in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_is_not_an_orderly_end() {
        let gave_up = Exit::GaveUp { path: Path::from("a.b"), cause: Box::new(Exit::Panic("boom".into())) };
        assert!(!gave_up.is_orderly());
        assert_eq!(gave_up.to_string(), "gave up on a.b, which panicked: boom");
        assert!(Exit::ShutdownWith("done".into()).is_orderly());
    }

    #[test]
    fn a_long_error_is_cut_and_marked() {
        let error: BoxError = "x".repeat(1 << 20).into();
        let Exit::Error(text) = Exit::of_error(error.as_ref()) else { panic!("it is an error") };
        assert!(text.len() < telemetry::panic::TEXT_MAX + 20 && text.ends_with("x... (cut)"));
        assert_eq!(Exit::error("short"), Exit::Error("short".to_owned()));
    }
}
