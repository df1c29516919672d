//! How a notification leaves the house.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`webhook`] | the adapter for signed webhooks |
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
mod outcome;
pub mod schedule;
pub mod webhook;

#[cfg(test)]
pub(crate) mod test_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::outcome::Outcome;
pub(crate) use self::outcome::WORDS;
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
    /// What the tenant wants to say.
    pub data: serde_json::Value,
}

/// One way out of the house, to one receiver.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Sends one message, once. It must come back by `deadline`; whoever calls it gives up a little later.
    async fn send(&self, message: &Message, deadline: Instant) -> Outcome;
}

/// Where a channel leads; what an adapter is made from.
#[derive(Clone)]
pub struct Destination {
    /// Where to send to.
    pub url: String,
    /// What to sign with. Never logged.
    pub secret: secrecy::SecretString,
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
    /// The secret is not `whsec_` and base64.
    #[error("the channel's secret cannot be read")]
    Secret,
}

/// Makes the adapter for one destination.
pub type Open = Arc<dyn Fn(&Destination) -> Result<Arc<dyn Channel>, OpenError> + Send + Sync>;

/// The adapters by the kind of channel they serve.
#[derive(Clone, Default)]
pub struct Adapters(BTreeMap<&'static str, Open>);

impl Adapters {
    /// All adapters of the product.
    #[must_use]
    pub fn standard(outbound: &Outbound) -> Self {
        let outbound = outbound.clone();
        Self::default().with(webhook::KIND, move |destination| {
            Ok(Arc::new(webhook::Webhook::open(destination, outbound.clone())?))
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
    use super::test_support::{destination, install_tls, outbound_settings};
    use super::*;

    #[test]
    fn a_kind_without_an_adapter_is_named() {
        install_tls();
        let adapters = Adapters::standard(&Outbound::new(outbound_settings()).unwrap());
        let refused = adapters.open("pigeon", &destination("http://127.0.0.1:1/"));
        assert_eq!(refused.err().unwrap().to_string(), "no adapter for channels of kind pigeon");
        assert_eq!(adapters.kinds().collect::<Vec<_>>(), ["webhook"]);
    }
}
