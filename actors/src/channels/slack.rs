//! Slack by its incoming webhooks: `POST https://hooks.slack.com/services/T…/B…/…` with `{"text": …}`.
//!
//! The URL is the secret: whoever has it can post. A tenant sees its two ids and not its last part.
//!
//! Slack answers 200 with `ok`. Of the errors it documents, 400 (`invalid_payload`, `user_not_found`) is about the
//! message, which is dead; 403 (`action_prohibited`) and 404 (`channel_not_found`, `no_service`) are about the webhook, so
//! that a row of them disables the channel; 410 (`channel_is_archived`) disables it at once; 429 bears `Retry-After`; 5xx
//! (`rollup_error`) may pass. Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>.
//!
//! Deliberately absent: `chat.postMessage` with a bot's token. It would need a token that can do more than post.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::exchange::exchange;
use super::{Channel, Destination, Message, OpenError, Outcome, Pace, Report, cut};
use crate::outbound::target::TargetError;
use crate::outbound::{Outbound, TargetRules};

/// The name of this kind of channel.
pub const KIND: &str = "slack";

/// Where Slack's incoming webhooks are.
pub const BASE_URL: &str = "https://hooks.slack.com";

/// Slack cuts a longer text itself, in characters. Source: <https://docs.slack.dev/reference/methods/chat.postMessage>.
pub const TEXT_MAX_CHARS: usize = 40_000;

/// Slack takes one message a second for each webhook. Source: <https://docs.slack.dev/apis/web-api/rate-limits>.
const EVERY: Duration = Duration::from_secs(1);

/// Why a URL is none of Slack's incoming webhooks. The texts are shown to the tenant and never contain the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// No URL that may be called.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A URL of somebody else.
    #[error("must begin with {0}/services/")]
    Elsewhere(String),
    /// Without its three parts.
    #[error("must end with /services/T.../B.../...")]
    Parts,
}

/// An incoming webhook's URL, checked.
#[derive(Debug)]
pub struct Hook {
    /// What is called.
    pub url: SecretString,
    /// What may be shown: all but the last part.
    pub shown: String,
}

/// Checks a tenant's URL against the place where Slack's webhooks are.
///
/// # Errors
/// [`HookError`].
pub fn check(rules: &TargetRules, base: &str, text: &str) -> Result<Hook, HookError> {
    let (url, base_url) = (rules.check(text)?, rules.check(base)?);
    if url.origin() != base_url.origin() {
        return Err(HookError::Elsewhere(base.trim_end_matches('/').to_owned()));
    }
    let segments: Vec<_> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let ["services", team, hook, secret] = segments.as_slice() else { return Err(HookError::Parts) };
    if team.is_empty() || hook.is_empty() || secret.is_empty() || url.query().is_some() {
        return Err(HookError::Parts);
    }
    let shown = format!("{}/services/{team}/{hook}/...", base.trim_end_matches('/'));
    Ok(Hook { url: SecretString::from(url.as_str()), shown })
}

/// One incoming webhook.
pub struct Slack {
    url: Url,
    outbound: Outbound,
}

impl Slack {
    /// Checks the URL by today's rules and today's base.
    ///
    /// # Errors
    /// [`OpenError::Hook`].
    pub fn open(destination: &Destination, base: &str, outbound: Outbound) -> Result<Self, OpenError> {
        let rules = &outbound.settings().rules;
        let hook = check(rules, base, destination.secret.expose_secret())?;
        let url = rules.check(hook.url.expose_secret()).map_err(HookError::Target)?;
        Ok(Self { url, outbound })
    }

    fn secret(&self) -> &str {
        self.url.path_segments().and_then(Iterator::last).unwrap_or_default()
    }
}

#[async_trait]
impl Channel for Slack {
    async fn send(&self, message: &Message, deadline: Instant) -> Report {
        let Some(body) = body(message) else { return Message::without_words() };
        let request = self.outbound.post(&self.url).json(&body);
        let answer = match exchange(request, deadline).await {
            Ok(answer) => answer.hide(self.secret()),
            Err(outcome) => return outcome.into(),
        };
        answer.report(match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Outcome::Dead { status: Some(answer.status.as_u16()), reason: answer.quote() }
            }
            _ => answer.judge(),
        })
    }

    fn pace(&self) -> Pace {
        Pace { every: EVERY, sender: None }
    }
}

/// The text, and the field `blocks` of the data where there is one: then Slack shows the text in notifications only.
fn body(message: &Message) -> Option<Value> {
    let text = cut(message.words()?, TEXT_MAX_CHARS, |_| 1);
    Some(match message.data.get("blocks") {
        Some(blocks @ Value::Array(_)) => json!({ "text": text, "blocks": blocks }),
        _ => json!({ "text": text }),
    })
}

#[cfg(test)]
mod tests;
