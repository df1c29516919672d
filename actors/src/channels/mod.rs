//! How a notification leaves the house.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`webhook`], [`slack`], [`telegram`] | the adapters |
//! | `exchange` | one request and its answer, for all adapters |
//! | [`pace`] | how many messages a second a provider takes |
//! | [`schedule`] | when a failed delivery is tried again |
//! | [`attempt`] | one claimed delivery from its claim to its settled row |
//! | [`board`] | how each channel in use is doing, and which receiver is given a rest |
//!
//! Requests go out by [`crate::outbound`], which connects to checked addresses only.
//!
//! An adapter is thin: one request, one [`Outcome`]. It neither retries nor sleeps nor writes to the store; all of that
//! is here once for all of them. SDKs of providers are not used, because they hide the outcome behind retries of their
//! own. A new kind of channel is one file with one `impl Channel`, and one line in [`Adapters::standard`].
//!
//! A delivery is a row, written in the transaction of its cause and claimed like a job. It is `sent` only by a fenced
//! update after the receiver's OK, so the worst that a crash can do is to send it again, with the same `webhook-id`.

pub mod attempt;
pub mod board;
mod exchange;
mod outcome;
pub mod pace;
pub mod schedule;
pub mod slack;
pub mod telegram;
pub mod webhook;

#[cfg(test)]
pub(crate) mod test_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use self::outcome::Word;
pub use self::outcome::{Outcome, Report};
pub use self::pace::Pace;
use self::slack::HookError;
use crate::model::Millis;
use crate::outbound::Outbound;
use crate::outbound::target::TargetError;

/// What an adapter is asked to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The delivery's id. It is constant over all attempts, so that a receiver can drop a repetition.
    pub id: Uuid,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// When the delivery was written. Constant over all attempts too, and so is the body made from it.
    pub created_at_ms: Millis,
    /// What the tenant wants to say, in words.
    pub text: Option<String>,
    /// What the tenant wants to say.
    pub data: Value,
}

impl Message {
    /// What a chat is told; see [`words`].
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        words(self.text.as_deref(), &self.data)
    }

    /// The end of a message that a chat cannot be told.
    fn without_words() -> Report {
        Outcome::Dead { status: None, reason: "a message to a chat needs a text".to_owned() }.into()
    }
}

/// What a chat is told: the text; without one, the data if they are a text, or their field `text` if it is one. An empty
/// text is none.
#[must_use]
pub fn words<'a>(text: Option<&'a str>, data: &'a Value) -> Option<&'a str> {
    let found = text.or_else(|| data.as_str()).or_else(|| data.get("text")?.as_str());
    found.filter(|found| !found.trim().is_empty())
}

/// Whether channels of this kind are told words, and not data.
#[must_use]
pub fn is_chat(kind: &str) -> bool {
    matches!(kind, slack::KIND | telegram::KIND)
}

/// At most `max` of a text, by the provider's own measure of a character; what is cut leaves a mark.
fn cut(text: &str, max: usize, measure: impl Fn(char) -> usize) -> String {
    const MARK: char = '…';
    if text.chars().map(&measure).sum::<usize>() <= max {
        return text.to_owned();
    }
    let mut left = max.saturating_sub(measure(MARK));
    let fits = |c: &char| {
        let size = measure(*c);
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    kept.push(MARK);
    kept
}

/// One way out of the house, to one receiver.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Sends one message, once. It must come back by `deadline`; whoever calls it gives up a little later.
    async fn send(&self, message: &Message, deadline: Instant) -> Report;

    /// How fast the receiver wants to be spoken to.
    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// Where a channel leads; what an adapter is made from.
#[derive(Clone)]
pub struct Destination {
    /// Where to send to, as far as it may be shown.
    pub url: String,
    /// What to sign with (webhook), the whole URL (Slack) or the bot's token (Telegram). Never logged.
    pub secret: secrecy::SecretString,
    /// Which chat is meant (Telegram).
    pub chat: Option<String>,
}

/// A channel cannot be opened as it is stored.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No adapter of this name.
    #[error("no adapter for channels of kind {0}")]
    UnknownKind(String),
    /// The URL breaks today's rules, which may be stricter than those it was stored under.
    #[error("the channel's URL is refused")]
    Target(#[from] TargetError),
    /// The URL is none of Slack's webhooks, by today's rules and today's base.
    #[error("the channel's URL is refused")]
    Hook(#[from] HookError),
    /// The secret is not `whsec_` and base64, or no bot's token.
    #[error("the channel's secret cannot be read")]
    Secret,
    /// No chat, or a name that cannot be one.
    #[error("the channel's chat_id cannot be read")]
    Chat,
}

/// Makes the adapter for one destination.
pub type Open = Arc<dyn Fn(&Destination) -> Result<Arc<dyn Channel>, OpenError> + Send + Sync>;

/// The adapters by the kind of channel they serve.
#[derive(Clone, Default)]
pub struct Adapters(BTreeMap<&'static str, Open>);

/// Where the providers are. An operator can point them elsewhere: a proxy of their own, a stand-in for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bases {
    /// Slack's incoming webhooks.
    pub slack: String,
    /// Telegram's Bot API.
    pub telegram: String,
}

impl Default for Bases {
    fn default() -> Self {
        Self { slack: slack::BASE_URL.to_owned(), telegram: telegram::BASE_URL.to_owned() }
    }
}

impl Adapters {
    /// All adapters of the product.
    #[must_use]
    pub fn standard(outbound: &Outbound, bases: &Bases) -> Self {
        let to = || (outbound.clone(), bases.clone());
        let (for_webhook, (for_slack, of_slack), (for_telegram, of_telegram)) = (outbound.clone(), to(), to());
        Self::default()
            .with(webhook::KIND, move |destination| {
                Ok(Arc::new(webhook::Webhook::open(destination, for_webhook.clone())?))
            })
            .with(slack::KIND, move |destination| {
                Ok(Arc::new(slack::Slack::open(destination, &of_slack.slack, for_slack.clone())?))
            })
            .with(telegram::KIND, move |destination| {
                Ok(Arc::new(telegram::Telegram::open(destination, &of_telegram.telegram, for_telegram.clone())?))
            })
    }

    /// Adds one, or replaces the one of this kind.
    #[must_use]
    pub fn with(
        mut self,
        kind: &'static str,
        open: impl Fn(&Destination) -> Result<Arc<dyn Channel>, OpenError> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(kind, Arc::new(open));
        self
    }

    /// Opens a destination.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the channel as it is stored.
    pub fn open(&self, kind: &str, destination: &Destination) -> Result<Arc<dyn Channel>, OpenError> {
        let open = self.0.get(kind).ok_or_else(|| OpenError::UnknownKind(kind.to_owned()))?;
        open(destination)
    }

    /// The kinds there are, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::test_support::{destination, install_tls, outbound_settings};
    use super::*;

    #[test]
    fn a_kind_without_an_adapter_is_named() {
        install_tls();
        let adapters = Adapters::standard(&Outbound::new(outbound_settings()).unwrap(), &Bases::default());
        let refused = adapters.open("pigeon", &destination("http://127.0.0.1:1/"));
        assert_eq!(refused.err().unwrap().to_string(), "no adapter for channels of kind pigeon");
        assert_eq!(adapters.kinds().collect::<Vec<_>>(), ["slack", "telegram", "webhook"]);
    }

    #[test]
    fn a_chat_is_told_the_text_or_what_stands_for_it_in_the_data() {
        let data = json!({ "text": "from the data" });
        assert_eq!(words(Some("text"), &data), Some("text"));
        assert_eq!(words(None, &data), Some("from the data"));
        assert_eq!(words(None, &json!("plain")), Some("plain"));
        for nothing in [json!({ "n": 1 }), json!(null), json!({ "text": 7 }), json!(" ")] {
            assert_eq!(words(None, &nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_long_text_is_cut_by_the_providers_own_measure() {
        assert_eq!(cut("four", 4, |_| 1), "four");
        assert_eq!(cut("seven..", 4, |_| 1), "sev…");
        assert_eq!(cut("😀😀😀", 5, char::len_utf16), "😀😀…");
        assert_eq!(cut("😀😀😀", 4, char::len_utf16), "😀…");
    }
}
