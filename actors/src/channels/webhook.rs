//! Signed webhooks by the Standard Webhooks specification (version 1.0, symmetric signatures).
//!
//! Each request bears `webhook-id` (constant over retries), `webhook-timestamp` (of this attempt) and
//! `webhook-signature` over `{id}.{timestamp}.{body}`. Only 2xx is success; a redirect is a failure, not an instruction;
//! 410 means "never again", and so does a row of 401, 403 or 404.
//!
//! The body is `{"type": "notification", "timestamp", "data"}`. A notification that has only a text sends it as
//! `{"text": …}` in `data`.

use async_trait::async_trait;
use base64::Engine;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};
use tokio::time::Instant;

use super::exchange::exchange;
use super::{Channel, Destination, Message, OpenError, Outcome, Report};
use crate::outbound::Outbound;

/// The name of this kind of channel.
pub const KIND: &str = "webhook";

/// What every body says in its field `type`.
pub const MESSAGE_TYPE: &str = "notification";

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
}

#[async_trait]
impl Channel for Webhook {
    async fn send(&self, message: &Message, deadline: Instant) -> Report {
        let body = body(message);
        let headers = match self.headers(message, &body, Timestamp::now()) {
            Ok(headers) => headers,
            Err(reason) => return Outcome::Dead { status: None, reason }.into(),
        };
        let request = self.outbound.post(&self.url).headers(headers).body(body);
        match exchange(request, deadline).await {
            Ok(answer) => answer.report(answer.judge()),
            Err(outcome) => outcome.into(),
        }
    }
}

/// The same bytes on every attempt.
fn body(message: &Message) -> String {
    let at = Timestamp::from_millisecond(message.created_at_ms).unwrap_or_default();
    serde_json::json!({ "type": MESSAGE_TYPE, "timestamp": at.to_string(), "data": message.data }).to_string()
}

#[cfg(test)]
mod tests;
