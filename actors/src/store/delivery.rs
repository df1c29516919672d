//! Channels and deliveries as they are kept, and what is asked of the store about them.

use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Fence, Settled};
use crate::model::{Millis, TenantId, TraceContext, new_id};

/// Deliveries of one channel that wait or are under way at a time, if nobody says otherwise: four at a time that take a
/// second each are done within the hour, and all can be buried within the deadline of one call.
pub const CHANNEL_PENDING_MAX: u32 = 10_000;

/// The name of that limit.
pub(super) const CHANNEL_PENDING: &str = "channel_pending";

/// When to come again to a channel that is full, in milliseconds: it has sent some by then, or its receiver is away.
pub const FULL_RETRY_MS: u64 = 30_000;

/// A channel that does not exist yet.
#[derive(Debug, Clone)]
pub struct NewChannel {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// Whose channel it is.
    pub tenant: TenantId,
    /// Which adapter sends: `webhook`, `slack`, `telegram`.
    pub kind: String,
    /// Where to, as far as it may be shown.
    pub url: String,
    /// What the adapter signs with, or opens the receiver's door with.
    pub secret: SecretString,
    /// Which chat, where the receiver has several.
    pub chat: Option<String>,
}

/// A way out of the house that a tenant has set up.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its id.
    pub id: Uuid,
    /// Whose channel it is.
    pub tenant: TenantId,
    /// Which adapter sends: `webhook`, `slack`, `telegram`.
    pub kind: String,
    /// Where to, as far as it may be shown.
    pub url: String,
    /// What the adapter signs with, or opens the receiver's door with. It never shows in a log.
    pub secret: SecretString,
    /// Which chat, where the receiver has several.
    pub chat: Option<String>,
    /// When it was made.
    pub created_at_ms: Millis,
    /// Why it is disabled; `None` while it is in use.
    pub disabled: Option<String>,
    /// Nothing is sent before this time, because the receiver asked for it.
    pub not_before_ms: Option<Millis>,
    /// Since when nothing has arrived.
    pub failing_since_ms: Option<Millis>,
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
    /// What a chat is told.
    pub text: Option<String>,
    /// What is sent.
    pub data: Value,
    /// How often it is tried at most, if not as often as all others.
    pub attempts_max: Option<u32>,
    /// The span that caused it, and the trace in which it all began.
    pub context: TraceContext,
}

impl NewDelivery {
    /// A delivery for now, caused by the current span.
    pub fn new(tenant: TenantId, channel: Uuid, data: Value) -> Self {
        let context = TraceContext::current();
        Self { id: new_id(), tenant, channel, job: None, text: None, data, attempts_max: None, context }
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
    /// What a chat is told.
    pub text: Option<String>,
    /// What is sent.
    pub data: Value,
    /// How often it is tried at most, if not as often as all others.
    pub attempts_max: Option<u32>,
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
    pub fn fence(&self) -> Fence {
        Fence { id: self.id, attempt: self.attempt }
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

/// Asks for a page of a list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Only what is older than this; `None` begins with the newest.
    pub id: Option<Uuid>,
    /// How many at most.
    pub limit: u32,
}

impl Before {
    /// The newest `limit`.
    #[must_use]
    pub fn newest(limit: u32) -> Self {
        Self { id: None, limit }
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

/// The end of a claim of a delivery, and all that is written with it, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySettlement {
    /// Which claim.
    pub fence: Fence,
    /// What becomes of the delivery.
    pub outcome: DeliveryOutcome,
    /// What is kept about the attempt; `None` if none was made.
    pub log: Option<NewAttempt>,
    /// What it says about the channel as a whole.
    pub news: ChannelNews,
}

impl DeliverySettlement {
    /// An end without a log, that says nothing about the channel.
    #[must_use]
    pub fn new(fence: Fence, outcome: DeliveryOutcome) -> Self {
        Self { fence, outcome, log: None, news: ChannelNews::None }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySettled {
    /// Whether it was written.
    pub settled: Settled,
    /// Why the channel is disabled from now on, if this attempt was the last straw.
    pub disabled: Option<String>,
}

/// What one attempt says about its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelNews {
    /// Nothing.
    None,
    /// It works: failures are counted from the start.
    Works,
    /// The receiver asks for a rest. That counts as away: one that only ever asks for time is disabled in the end.
    Hold {
        /// Nothing is sent for so long.
        for_ms: u64,
        /// When enough is enough.
        rules: DisableRules,
        /// Why.
        reason: String,
    },
    /// It failed, and how long that goes on may disable it.
    Fails {
        /// Whether it counts as a refusal.
        how: Failing,
        /// When enough is enough.
        rules: DisableRules,
        /// Why.
        reason: String,
    },
    /// The receiver wants nothing any more.
    Gone {
        /// Why.
        reason: String,
    },
}

/// Two kinds of failure of a channel that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The receiver is away, or broken.
    Away,
    /// The receiver would have nothing of us.
    Refuses,
}

/// When a channel that only fails is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisableRules {
    /// After so many refusals in a row ...
    pub refusals_max: u32,
    /// ... and not before nothing has arrived for so long: a receiver may be set up anew in the meantime.
    pub refused_for_ms: u64,
    /// And after so long with nothing but failures of any kind.
    pub failing_for_ms: u64,
}

/// One attempt, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    /// How long it took.
    pub took_ms: u64,
    /// How it ended, in one word.
    pub outcome: String,
    /// The kind of failure.
    pub class: Option<String>,
    /// The receiver's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The start of the receiver's answer.
    pub answer: Option<String>,
}

/// One attempt in the log of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedAttempt {
    /// Which claim of the delivery made it; claims that were given back leave gaps.
    pub attempt: u32,
    /// When it ended.
    pub at_ms: Millis,
    /// What is kept about it.
    pub kept: NewAttempt,
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
    Release {
        /// Not before this time has passed.
        after_ms: u64,
    },
}
