//! Why a call has no answer, told by whether it helps to repeat it.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use telemetry::context::OutOfTime;

use super::client::{DeniedHost, denied_host};
use super::target::TargetError;

/// The longest text of a cause, in characters.
const DETAIL_MAX_CHARS: usize = 200;

/// Why a call failed. Hosts are named by their origin (`https://example.com`); paths and queries never are, for they
/// may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL breaks the rules.
    #[error("the URL is refused: {0}")]
    Refused(#[from] TargetError),
    /// The host has no address that may be connected to.
    #[error(transparent)]
    Denied(DeniedHost),
    /// The request cannot be written: a header's value, a body that is no JSON.
    #[error("the request cannot be written: {0}")]
    Invalid(String),
    /// Nothing was left of the caller's time, so nothing was sent.
    #[error("the call to {host} was not begun: {source}")]
    NotBegun {
        /// Whom it was for.
        host: String,
        /// What it says.
        source: OutOfTime,
    },
    /// The breaker is open: the host failed too often, and is given a rest. Nothing was sent.
    #[error("calls to {host} rest for {} ms: it failed too often", .rest.as_millis())]
    Open {
        /// Whom it was for.
        host: String,
        /// When its breaker lets a call through again; zero while one is trying it out.
        rest: Duration,
    },
    /// As many calls as may be are in flight, to this host or in all. Nothing was sent.
    #[error("no free place for a call to {host}")]
    Busy {
        /// Whom it was for.
        host: String,
    },
    /// No connection. Nothing was sent.
    #[error("connect to {host}: {detail}")]
    Connect {
        /// Whom it was for.
        host: String,
        /// What the network said.
        detail: String,
    },
    /// It was sent, and the answer did not come, or not whole, in the time of this call.
    #[error("no answer of {host} within {} ms", .after.as_millis())]
    Timeout {
        /// Whom it was for.
        host: String,
        /// How long the call took.
        after: Duration,
    },
    /// It was sent, and the time of the caller ended before the answer came.
    #[error("no answer of {host} before the caller's deadline")]
    OutOfTime {
        /// Whom it was for.
        host: String,
    },
    /// It was sent, and the connection broke before the answer was whole.
    #[error("the connection to {host} broke: {detail}")]
    Broken {
        /// Whom it was for.
        host: String,
        /// What the network said.
        detail: String,
    },
    /// The answer is longer than may be read.
    #[error("the answer of {host} is longer than {max_bytes} bytes")]
    TooLong {
        /// Whom it was for.
        host: String,
        /// The cap.
        max_bytes: usize,
    },
    /// The answer came, and is not what was expected.
    #[error("the answer of {host} cannot be read: {detail}")]
    Unreadable {
        /// Whom it was for.
        host: String,
        /// Where and why.
        detail: String,
    },
    /// The answer came, and says no; see [`super::Answer::error_for_status`].
    #[error("{host} answered {status}")]
    Status {
        /// Whom it was for.
        host: String,
        /// Its answer.
        status: StatusCode,
    },
}

/// Whether it helps to repeat a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Later it may succeed, and nothing was done yet.
    Helps,
    /// Later it may succeed, but the other side may have done it already: repeat only what is harmless twice.
    IfHarmless,
    /// It would fail again.
    Useless,
}

telemetry::label_values! {
    OutboundError,
    OutboundError::class,
    [
        "refused", "denied", "invalid", "not_begun", "open", "busy", "connect", "timeout", "out_of_time", "broken", "too_long",
        "unreadable", "status",
    ],
}

impl OutboundError {
    /// Whether it helps to repeat the call.
    #[must_use]
    pub fn repeat(&self) -> Repeat {
        match self {
            Self::Refused(_) | Self::Denied(_) | Self::Invalid(_) => Repeat::Useless,
            Self::TooLong { .. } | Self::Unreadable { .. } => Repeat::Useless,
            Self::NotBegun { .. } | Self::Open { .. } | Self::Busy { .. } | Self::Connect { .. } => Repeat::Helps,
            Self::Timeout { .. } | Self::OutOfTime { .. } | Self::Broken { .. } => Repeat::IfHarmless,
            Self::Status { status, .. } => match *status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Repeat::Helps,
                StatusCode::REQUEST_TIMEOUT => Repeat::IfHarmless,
                status if status.is_server_error() => Repeat::IfHarmless,
                _ => Repeat::Useless,
            },
        }
    }

    /// A short word for traces and metrics, by the conventions for `error.type`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid",
            Self::NotBegun { .. } => "not_begun",
            Self::Open { .. } => "open",
            Self::Busy { .. } => "busy",
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::OutOfTime { .. } => "out_of_time",
            Self::Broken { .. } => "broken",
            Self::TooLong { .. } => "too_long",
            Self::Unreadable { .. } => "unreadable",
            Self::Status { .. } => "status",
        }
    }

    /// What reqwest says about a call to `host`.
    pub(super) fn of(host: &str, error: reqwest::Error) -> Self {
        if let Some(denied) = denied_host(&error) {
            return Self::Denied(denied.clone());
        }
        let (host, error) = (host.to_owned(), error.without_url());
        let detail = with_causes(&error);
        if error.is_builder() {
            Self::Invalid(detail)
        } else if error.is_connect() {
            Self::Connect { host, detail }
        } else {
            Self::Broken { host, detail }
        }
    }

    /// Whether the network was asked at all.
    pub(super) fn was_sent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Denied(_) | Self::Invalid(_) => false,
            Self::NotBegun { .. } | Self::Open { .. } | Self::Busy { .. } => false,
            Self::Connect { .. } | Self::Timeout { .. } | Self::OutOfTime { .. } | Self::Broken { .. } => true,
            Self::TooLong { .. } | Self::Unreadable { .. } | Self::Status { .. } => true,
        }
    }

    /// Whether it says that the other side is not well.
    pub(super) fn is_the_hosts(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. })
    }
}

fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.chars().take(DETAIL_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobError;

    #[test]
    fn a_status_says_whether_to_repeat() {
        let repeat = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            OutboundError::Status { host: String::new(), status }.repeat()
        };
        // What a handler of jobs makes of it.
        let ends = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            JobError::from(OutboundError::Status { host: "https://example.com".to_owned(), status })
        };
        assert_eq!(ends(404), JobError::dead("https://example.com answered 404 Not Found"));
        assert_eq!(ends(503), JobError::retry("https://example.com answered 503 Service Unavailable"));
        for (status, expected) in [
            (400, Repeat::Useless),
            (404, Repeat::Useless),
            (408, Repeat::IfHarmless),
            (429, Repeat::Helps),
            (500, Repeat::IfHarmless),
            (503, Repeat::Helps),
            (504, Repeat::IfHarmless),
            (302, Repeat::Useless),
        ] {
            assert_eq!(repeat(status), expected, "{status}");
        }
    }
}
