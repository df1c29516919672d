//! Signed webhooks by the Standard Webhooks specification (version 1.0, symmetric signatures).
//!
//! Each request bears `webhook-id` (constant over retries), `webhook-timestamp` (of this attempt) and
//! `webhook-signature` over `{id}.{timestamp}.{body}`. Only 2xx is success; a redirect is a failure, not an instruction;
//! 410 means "never again".

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};
use tokio::time::Instant;

use super::schedule::parse_retry_after;
use super::{Channel, Destination, Message, OpenError, Outcome};
use crate::outbound::{Answer, Outbound};

/// The name of this kind of channel.
pub const KIND: &str = "webhook";

/// What every body says in its field `type`.
pub const MESSAGE_TYPE: &str = "notification";

/// How much of an answer is quoted in the reason of a failure, in characters.
const QUOTE_MAX_CHARS: usize = 200;

/// How long the body of an answer is waited for, within the deadline.
const BODY_WITHIN: Duration = Duration::from_secs(1);

/// A receiver of signed webhooks.
pub struct Webhook {
    url: url::Url,
    signer: standardwebhooks::Webhook,
    outbound: Outbound,
}

/// A fresh signing secret in the form that receivers' libraries take: `whsec_` and 32 bytes in base64. It comes from the
/// operating system's random source (two version 4 UUIDs: 244 random bits).
#[must_use]
pub fn new_secret() -> SecretString {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    let text = base64::engine::general_purpose::STANDARD.encode(key);
    SecretString::from(format!("whsec_{text}"))
}

impl Webhook {
    /// Checks the URL by today's rules and reads the secret.
    ///
    /// # Errors
    /// [`OpenError::Target`] or [`OpenError::Secret`].
    pub fn open(destination: &Destination, outbound: Outbound) -> Result<Self, OpenError> {
        Ok(Self {
            url: outbound.settings().rules.check(&destination.url)?,
            signer: standardwebhooks::Webhook::new(destination.secret.expose_secret())
                .map_err(|_| OpenError::Secret)?,
            outbound,
        })
    }

    /// The head of the receiver's answer, or what became of the attempt without one.
    async fn ask(&self, message: &Message, deadline: Instant) -> Result<Answer, Outcome> {
        let body = body(message);
        let headers = self.headers(message, &body, Timestamp::now()).map_err(|reason| Outcome::Dead { reason })?;
        let request = self.outbound.post(&self.url).headers(headers).body(body);
        // The board counts what is under way for each channel, and has the breakers.
        Ok(request.until(deadline).without_host_limits().send().await?)
    }

    fn headers(&self, message: &Message, body: &str, now: Timestamp) -> Result<HeaderMap, String> {
        let id = message.id.to_string();
        let seconds = now.as_second();
        let signature =
            self.signer.sign(&id, seconds, body.as_bytes()).map_err(|error| format!("sign the webhook: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            (HEADER_WEBHOOK_ID, id),
            (HEADER_WEBHOOK_TIMESTAMP, seconds.to_string()),
            (HEADER_WEBHOOK_SIGNATURE, signature),
        ] {
            let value = HeaderValue::try_from(value).map_err(|error| format!("write the header {name}: {error}"))?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// The head decides. Of the body as much is read as comes soon: the rest is only lost to a reason or a connection.
    async fn judge_answer(&self, answer: Answer) -> Outcome {
        let status = answer.status();
        if status.is_success() {
            // Read to its end (within the cap) so that the connection can be used again.
            read_soon(answer).await;
            return Outcome::Delivered { status: Some(status.as_u16()), provider_id: None };
        }
        let after = retry_after(answer.headers());
        let detail = quote(status, &read_soon(answer).await);
        match status {
            StatusCode::GONE => Outcome::Gone { status: Some(status.as_u16()), reason: detail },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                refused("throttled", status, after, detail)
            }
            _ if status.is_redirection() => refused("redirect", status, None, detail),
            _ => refused("status", status, None, detail),
        }
    }
}

#[async_trait]
impl Channel for Webhook {
    async fn send(&self, message: &Message, deadline: Instant) -> Outcome {
        match self.ask(message, deadline).await {
            Ok(answer) => self.judge_answer(answer).await,
            Err(outcome) => outcome,
        }
    }
}

/// The same bytes on every attempt.
fn body(message: &Message) -> String {
    let at = Timestamp::from_millisecond(message.created_at_ms).unwrap_or_default();
    serde_json::json!({ "type": MESSAGE_TYPE, "timestamp": at.to_string(), "data": message.data }).to_string()
}

/// What comes of the body soon.
async fn read_soon(answer: Answer) -> String {
    tokio::time::timeout(BODY_WITHIN, answer.start()).await.unwrap_or_default()
}

fn refused(class: &'static str, status: StatusCode, after: Option<Duration>, detail: String) -> Outcome {
    Outcome::Retry { class, status: Some(status.as_u16()), after, detail }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, Timestamp::now())
}

/// One line, without control characters: it is shown to the tenant and stands in logs.
fn quote(status: StatusCode, start: &str) -> String {
    let line: String = start.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_MAX_CHARS).collect();
    match line.trim() {
        "" => format!("the receiver answered {}", status.as_u16()),
        line => format!("the receiver answered {}: {line}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests;
