//! Telegram by its Bot API: `POST {base}/bot{token}/sendMessage` with `{"chat_id", "text"}`.
//!
//! The token stands in the path, so the URL is a secret as a whole: it is in no error, no log and no span.
//!
//! Telegram answers `{"ok": true, "result": {"message_id"}}` or `{"ok": false, "error_code", "description", "parameters"}`,
//! where the code repeats the HTTP status. 400 is about the message, which is dead, but for a chat that is not there;
//! that, 401 (wrong token), 403 (blocked, kicked) and 404 (no token at all) are about the channel, and a row of them
//! disables it: a single 403 is known to pass by itself. 429 bears `parameters.retry_after` in seconds.
//! Source: <https://core.telegram.org/bots/api#making-requests>.
//!
//! Telegram knows no repetitions: a message whose answer was lost is sent again and may be read twice.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use super::exchange::{Answer, exchange};
use super::{Channel, Destination, Message, OpenError, Outcome, Pace, Report, cut};
use crate::outbound::Outbound;

/// The name of this kind of channel.
pub const KIND: &str = "telegram";

/// Where the Bot API is.
pub const BASE_URL: &str = "https://api.telegram.org";

/// The longest text, in UTF-16 code units; a longer one is cut. Source: <https://core.telegram.org/bots/api#sendmessage>.
pub const TEXT_MAX_UNITS: usize = 4_096;

/// What is read of an answer at least, in bytes: it repeats the message, with up to twelve bytes (two `\uXXXX`) for a
/// character of it, and is read as JSON.
const ANSWER_MIN_BYTES: usize = 64 << 10;

/// One message a second for a chat, and 20 a minute for a group or a channel, whose ids are negative or names. Source:
/// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>.
const EVERY_CHAT: Duration = Duration::from_secs(1);
const EVERY_GROUP: Duration = Duration::from_secs(3);

/// One chat of one bot.
pub struct Telegram {
    url: Url,
    token: SecretString,
    chat: String,
    outbound: Outbound,
}

/// What Telegram answers; all that does not fit is left out.
#[derive(Debug, Default, Deserialize)]
struct Said {
    ok: Option<bool>,
    result: Option<Sent>,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    message_id: i64,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

/// Whether this has the shape of a bot's token: its id, a colon, and a secret.
#[must_use]
pub fn is_token(text: &str) -> bool {
    let Some((id, secret)) = text.split_once(':') else { return false };
    let is_secret = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=20).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_digit())
        && (20..=100).contains(&secret.len())
        && secret.bytes().all(is_secret)
}

/// Whether this can name a chat: a number other than 0, or the `@name` of a public channel or group.
#[must_use]
pub fn is_chat(text: &str) -> bool {
    match text.strip_prefix('@') {
        Some(name) => (4..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        None => text.parse::<i64>().is_ok_and(|id| id != 0),
    }
}

impl Telegram {
    /// Checks the base by today's rules, and puts the URL together.
    ///
    /// # Errors
    /// [`OpenError::Target`], [`OpenError::Secret`] or [`OpenError::Chat`].
    pub fn open(destination: &Destination, base: &str, outbound: Outbound) -> Result<Self, OpenError> {
        let token = destination.secret.clone();
        if !is_token(token.expose_secret()) {
            return Err(OpenError::Secret);
        }
        let chat = destination.chat.clone().filter(|chat| is_chat(chat)).ok_or(OpenError::Chat)?;
        let text = format!("{}/bot{}/sendMessage", base.trim_end_matches('/'), token.expose_secret());
        Ok(Self { url: outbound.settings().rules.check(&text)?, token, chat, outbound })
    }
}

#[async_trait]
impl Channel for Telegram {
    async fn send(&self, message: &Message, deadline: Instant) -> Report {
        let Some(text) = message.words() else { return Message::without_words() };
        let body = json!({ "chat_id": self.chat, "text": cut(text, TEXT_MAX_UNITS, char::len_utf16) });
        let answer_max_bytes = self.outbound.settings().answer_max_bytes.max(ANSWER_MIN_BYTES);
        let request = self.outbound.post(&self.url).json(&body).answer_max_bytes(answer_max_bytes);
        match exchange(request, deadline).await {
            Ok(answer) => judge(answer.hide(self.token.expose_secret())),
            Err(outcome) => outcome.into(),
        }
    }

    fn pace(&self) -> Pace {
        let every = if self.chat.starts_with(['-', '@']) { EVERY_GROUP } else { EVERY_CHAT };
        // All chats of a bot share its rate; the number before the colon names it, and is no secret.
        let bot = self.token.expose_secret().split(':').next().unwrap_or_default();
        Pace { every, sender: Some(format!("{KIND}:{bot}")) }
    }
}

fn judge(mut answer: Answer) -> Report {
    let said: Said = serde_json::from_str(&answer.start).unwrap_or_default();
    if said.ok == Some(false) {
        let code = said.error_code.and_then(|code| StatusCode::from_u16(code).ok());
        answer.status = code.filter(|code| !code.is_success()).unwrap_or(StatusCode::BAD_GATEWAY);
    }
    let asked = said.parameters.as_ref().and_then(|parameters| parameters.retry_after);
    answer.after = asked.map(Duration::from_secs).or(answer.after);
    let status = Some(answer.status.as_u16());
    answer.report(match answer.judge() {
        Outcome::Delivered { status, .. } => {
            Outcome::Delivered { status, provider_id: said.result.map(|sent| sent.message_id.to_string()) }
        }
        _ if answer.status == StatusCode::BAD_REQUEST => match about_the_chat(&said) {
            Some(detail) => Outcome::Refused { status, detail },
            None => Outcome::Dead { status, reason: answer.quote() },
        },
        // No chat is ever gone for good: 410 is not in Telegram's language.
        other => other,
    })
}

/// A 400 that another message to this chat would be answered with too.
fn about_the_chat(said: &Said) -> Option<String> {
    let description = said.description.as_deref().unwrap_or_default();
    if let Some(chat) = said.parameters.as_ref().and_then(|parameters| parameters.migrate_to_chat_id) {
        return Some(format!("the group has become a supergroup, its chat_id is now {chat}"));
    }
    description.contains("chat not found").then(|| format!("the receiver answered 400: {description}"))
}

#[cfg(test)]
mod tests;
