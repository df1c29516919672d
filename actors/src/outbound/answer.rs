//! The answer to a call: its head at once, its body when it is asked for, and never more of it than the cap.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::error::OutboundError;
use super::lines::Ticket;

/// An answer whose head is here. Until it is read or dropped, its call counts as in flight.
pub struct Answer {
    pub(super) response: reqwest::Response,
    pub(super) host: String,
    pub(super) began: Instant,
    pub(super) end: End,
    pub(super) max_bytes: usize,
    pub(super) _ticket: Ticket,
}

/// When a call ends, and who says so.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Its own limit.
    Own(Instant),
    /// Its caller's deadline, which is earlier.
    Callers(Instant),
}

impl End {
    pub(super) fn at(self) -> Instant {
        match self {
            Self::Own(at) | Self::Callers(at) => at,
        }
    }

    /// Why a call that began at `began` has no answer when its time is up.
    pub(super) fn error(self, host: &str, began: Instant) -> OutboundError {
        let host = host.to_owned();
        match self {
            Self::Own(_) => OutboundError::Timeout { host, after: began.elapsed() },
            Self::Callers(_) => OutboundError::OutOfTime { host },
        }
    }
}

/// Without URL and headers, which may hold secrets.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("host", &self.host).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The same if its status is 2xx.
    ///
    /// # Errors
    /// [`OutboundError::Status`] for any other: a redirect, too, is no success.
    pub fn error_for_status(self) -> Result<Self, OutboundError> {
        let status = self.status();
        if status.is_success() { Ok(self) } else { Err(OutboundError::Status { host: self.host, status }) }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`OutboundError::TooLong`] for one beyond the cap, of which no more is read; else what became of the connection.
    pub async fn bytes(mut self) -> Result<Bytes, OutboundError> {
        let too_long =
            |answer: &Self| OutboundError::TooLong { host: answer.host.clone(), max_bytes: answer.max_bytes };
        if self.response.content_length().is_some_and(|length| length > self.max_bytes as u64) {
            return Err(too_long(&self));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > self.max_bytes - body.len() {
                return Err(too_long(&self));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The whole body, read as JSON.
    ///
    /// # Errors
    /// As [`Answer::bytes`], and [`OutboundError::Unreadable`] with the place.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, OutboundError> {
        let host = self.host.clone();
        let body = self.bytes().await?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|error| OutboundError::Unreadable { host, detail: error.to_string() })
    }

    /// The start of the body as text, at most the cap, and what of it comes `within` a time; what cannot be read is left
    /// out. For answers whose status has said all that counts.
    pub async fn start(mut self, within: Duration) -> String {
        let mut start = Vec::new();
        let reading = async {
            while start.len() < self.max_bytes {
                let Ok(Some(chunk)) = self.chunk().await else { break };
                start.extend_from_slice(&chunk[..chunk.len().min(self.max_bytes - start.len())]);
            }
        };
        // Late or whole: what has come is the start.
        let _ = tokio::time::timeout(within, reading).await;
        String::from_utf8_lossy(&start).into_owned()
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, OutboundError> {
        match tokio::time::timeout_at(self.end.at(), self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| OutboundError::of(&self.host, error)),
            Err(_) => Err(self.end.error(&self.host, self.began)),
        }
    }
}
