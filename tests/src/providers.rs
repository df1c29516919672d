//! What Slack and Telegram answer, word for word as they document it, and a service that takes a receiver of ours for both
//! of them.
//!
//! Sources: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>,
//! <https://core.telegram.org/bots/api#making-requests>.

use serde_json::{Value, json};

use crate::receiver::Reply;
use crate::{Receiver, Service, Setup};

/// Slack took it.
pub const SLACK_OK: Reply = Reply::Said(200, "ok");
/// The body was nothing Slack can read.
pub const SLACK_INVALID: Reply = Reply::Said(400, "invalid_payload");
/// The webhook was removed.
pub const SLACK_NO_SERVICE: Reply = Reply::Said(404, "no_service");
/// The channel was archived.
pub const SLACK_ARCHIVED: Reply = Reply::Said(410, "channel_is_archived");
/// Too fast, come again in 3 s.
pub const SLACK_RATE_LIMITED: Reply = Reply::Wait(429, 3, "rate_limited");

/// Telegram took it.
pub const TELEGRAM_OK: Reply = Reply::Said(200, r#"{"ok":true,"result":{"message_id":77,"text":"hi"}}"#);
/// The user wants nothing of the bot.
pub const TELEGRAM_BLOCKED: Reply =
    Reply::Said(403, r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}"#);
/// The message is none.
pub const TELEGRAM_EMPTY: Reply =
    Reply::Said(400, r#"{"ok":false,"error_code":400,"description":"Bad Request: message text is empty"}"#);
/// Too fast, come again in 3 s.
pub const TELEGRAM_FLOOD: Reply = Reply::Said(
    429,
    r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 3","parameters":{"retry_after":3}}"#,
);

/// The secret part of both secrets: it must be found nowhere.
pub const SECRET: &str = "zyx57W2v1u123ew11ABCDEF";

/// A bot's token as BotFather would give it.
pub fn token() -> String {
    format!("123456:AAE-{SECRET}")
}

/// A service whose Slack and Telegram are `receiver`.
pub fn setup(receiver: &Receiver) -> Setup {
    let setup = Service::setup().set("channel_manager.slack_base_url", receiver.url(""));
    setup.set("channel_manager.telegram_base_url", receiver.url(""))
}

/// What makes a Slack channel.
pub fn slack(receiver: &Receiver) -> Value {
    json!({"kind": "slack", "url": receiver.url(&format!("/services/T0/B0/{SECRET}"))})
}

/// What makes a Telegram channel.
pub fn telegram() -> Value {
    json!({"kind": "telegram", "bot_token": token(), "chat_id": 42})
}
