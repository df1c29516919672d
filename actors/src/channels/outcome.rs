//! What became of one attempt, as an adapter tells it.

use std::time::Duration;

use crate::outbound::{OutboundError, Repeat};

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver said OK.
    Delivered {
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// The receiver's own name for the message, where it gives one.
        provider_id: Option<String>,
    },
    /// It did not arrive, and may at another time.
    Retry {
        /// A short word for traces: `status`, `throttled`, `connect` ...
        class: &'static str,
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// How long the receiver asked us to wait.
        after: Option<Duration>,
        /// One line for the tenant.
        detail: String,
    },
    /// The receiver does not know us, or wants nothing of us: a wrong key, a blocked sender, an unknown address. It is
    /// tried again like `Retry`, for such answers are known to pass; a row of them disables the channel.
    Refused {
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// One line for the tenant.
        detail: String,
    },
    /// It will never arrive; no retry would help. Another message may.
    Dead {
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// One line for the tenant.
        reason: String,
    },
    /// It will never arrive, and the receiver wants nothing any more: the channel is disabled.
    Gone {
        /// The HTTP status, where there is one.
        status: Option<u16>,
        /// One line for the tenant.
        reason: String,
    },
    /// It may have arrived: sent, but the answer was lost. Where the receiver knows repetitions by their id, this is
    /// tried again like `Retry`.
    Ambiguous {
        /// One line for the tenant.
        detail: String,
    },
}

telemetry::label_values! {
    /// How a request ended, in one word.
    pub enum Word {
        Sent = "sent",
        Retry = "retry",
        Refused = "refused",
        Dead = "dead",
        Gone = "gone",
        Ambiguous = "ambiguous",
    }
}

/// What an adapter tells about its one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The start of the receiver's answer in one line, without secrets, for the log of attempts.
    pub answer: Option<String>,
}

impl From<Outcome> for Report {
    /// An end without an answer.
    fn from(outcome: Outcome) -> Self {
        Self { outcome, answer: None }
    }
}

/// A call without an answer. Its text names the receiver's origin only: a path is often a secret.
impl From<OutboundError> for Outcome {
    fn from(error: OutboundError) -> Self {
        let detail = error.to_string();
        match error.repeat() {
            Repeat::Useless => Self::Dead { status: None, reason: detail },
            Repeat::Helps => Self::Retry { class: error.class(), status: None, after: None, detail },
            // The receiver may have it.
            Repeat::IfHarmless => Self::Ambiguous { detail },
        }
    }
}

impl Outcome {
    /// One word for the label of a metric.
    #[must_use]
    pub fn word(&self) -> Word {
        match self {
            Self::Delivered { .. } => Word::Sent,
            Self::Retry { .. } => Word::Retry,
            Self::Refused { .. } => Word::Refused,
            Self::Dead { .. } => Word::Dead,
            Self::Gone { .. } => Word::Gone,
            Self::Ambiguous { .. } => Word::Ambiguous,
        }
    }

    /// The kind of failure, for the `error.type` of a span.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Retry { class, .. } => class,
            other => other.word().as_str(),
        }
    }

    /// Whether the receiver was not even asked, because of a limit of our own: this says nothing about it.
    #[must_use]
    pub fn is_our_own(&self) -> bool {
        matches!(self, Self::Retry { class: "busy" | "not_begun", .. })
    }

    /// The receiver's status, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status, .. }
            | Self::Retry { status, .. }
            | Self::Refused { status, .. }
            | Self::Dead { status, .. }
            | Self::Gone { status, .. } => *status,
            Self::Ambiguous { .. } => None,
        }
    }

    /// Why it failed; absent if it did not.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Delivered { .. } => None,
            Self::Retry { detail: text, .. }
            | Self::Refused { detail: text, .. }
            | Self::Ambiguous { detail: text }
            | Self::Dead { reason: text, .. }
            | Self::Gone { reason: text, .. } => Some(text),
        }
    }
}
