//! Channels and deliveries as they are kept, and what is asked of the store about them.

use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::model::{Millis, TenantId, TraceContext, new_id};

/// A channel that does not exist yet.
#[derive(Debug, Clone)]
pub struct NewChannel {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// Whose channel it is.
    pub tenant: TenantId,
    /// Which adapter sends: `webhook`.
    pub kind: String,
    /// Where to.
    pub url: String,
    /// What the adapter signs with.
    pub secret: SecretString,
}

/// A way out of the house that a tenant has set up.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its id.
    pub id: Uuid,
    /// Whose channel it is.
    pub tenant: TenantId,
    /// Which adapter sends: `webhook`.
    pub kind: String,
    /// Where to.
    pub url: String,
    /// What the adapter signs with. It never shows in a log.
    pub secret: SecretString,
    /// When it was made.
    pub created_at_ms: Millis,
    /// Why it is disabled; `None` while it is in use.
    pub disabled: Option<String>,
}

/// A delivery that does not exist yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDelivery {
    /// Its id, made by the caller. It is the same for every attempt, so that a receiver can drop the second one.
    pub id: Uuid,
    /// Whose delivery it is.
    pub tenant: TenantId,
    /// Where to: one of the tenant's own channels.
    pub channel: Uuid,
    /// The job that caused it.
    pub job: Option<Uuid>,
    /// What is sent.
    pub data: Value,
    /// The span that caused it, and the trace in which it all began.
    pub context: TraceContext,
}

impl NewDelivery {
    /// A delivery for now, caused by the current span.
    pub fn new(tenant: TenantId, channel: Uuid, data: Value) -> Self {
        Self { id: new_id(), tenant, channel, job: None, data, context: TraceContext::current() }
    }
}

/// A delivery as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its id, the same for every attempt.
    pub id: Uuid,
    /// Whose delivery it is.
    pub tenant: TenantId,
    /// Where to.
    pub channel: Uuid,
    /// The job that caused it.
    pub job: Option<Uuid>,
    /// What is sent.
    pub data: Value,
    /// Where it is in its life.
    pub state: DeliveryState,
    /// How often it was claimed. With the id it is the fence of every write.
    pub attempt: u32,
    /// How many of these claims were given back without charge.
    pub refunds: u32,
    /// Not before this time.
    pub next_at_ms: Millis,
    /// When it was accepted.
    pub created_at_ms: Millis,
    /// When it was sent or dead.
    pub finished_at_ms: Option<Millis>,
    /// The receiver's last status.
    pub last_status: Option<u16>,
    /// Why the last attempt failed, or why it is dead.
    pub last_error: Option<String>,
    /// What the receiver calls it.
    pub provider_id: Option<String>,
    /// The span that caused it, and the trace in which it all began.
    pub context: TraceContext,
}

impl Delivery {
    /// How many attempts were really made, this one included.
    pub fn charged(&self) -> u32 {
        self.attempt.saturating_sub(self.refunds)
    }

    /// What every write about the present claim must name.
    pub fn fence(&self) -> super::Fence {
        super::Fence { id: self.id, attempt: self.attempt }
    }
}

/// Where a delivery is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its first or next attempt.
    Pending,
    /// Claimed by a process.
    Sending,
    /// The receiver said that it has it.
    Sent,
    /// Will not be tried again. `last_error` says why.
    Dead,
}

impl DeliveryState {
    /// Its name, as in the HTTP surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Dead => "dead",
        }
    }
}

/// Asks for due deliveries of one channel.
#[derive(Debug, Clone, Copy)]
pub struct ClaimDeliveries {
    /// The channel.
    pub channel: Uuid,
    /// Who takes: made at boot, never a host's name.
    pub owner: Uuid,
    /// How long the deliveries are theirs. Longer than one attempt may take.
    pub lease_ms: u64,
    /// How many at most.
    pub limit: u32,
}

/// Claimed deliveries, oldest first.
#[derive(Debug, Clone, Default)]
pub struct ClaimedDeliveries {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// In how many milliseconds the channel's next one comes due.
    pub next_due_in_ms: Option<u64>,
}

/// Channels with something to send.
#[derive(Debug, Clone, Default)]
pub struct DueChannels {
    /// The channels, the one that waits longest first.
    pub channels: Vec<Channel>,
    /// In how many milliseconds the next delivery of any other channel comes due.
    pub next_due_in_ms: Option<u64>,
}

/// How one attempt to deliver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver said that it has it.
    Sent {
        /// The receiver's status.
        status: Option<u16>,
        /// What the receiver calls it.
        provider_id: Option<String>,
    },
    /// Not this time.
    Retry {
        /// Not before this time has passed.
        after_ms: u64,
        /// The receiver's status, if there was one.
        status: Option<u16>,
        /// Why.
        error: String,
    },
    /// Never.
    Dead {
        /// The receiver's status, if there was one.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
    /// Not tried at all: it is given back, and the attempt is not charged.
    Release,
}
