//! The bus between processes: one channel of a Redis (6 or later, or Valkey), which all replicas publish to and hear.
//!
//! ```text
//! publish --> queue --> Link (one connection) --> Redis --> every replica's Link --> Inbox --> Ring --> receivers
//! ```
//!
//! **One path.** An event reaches the receivers of its own process by way of Redis too. So all replicas see all events
//! in one order, a probe proves the whole path, and while Redis is away an event is refused ([`BusError::Unavailable`])
//! and not half published: whoever publishes tries again, and a job does so by itself. An event whose answer was lost
//! may come twice; its id tells.
//!
//! **Order.** One writer numbers the events and sends them in batches, the next when Redis has answered the one before.
//! A number counts within a connection (its *epoch*): what a connection that was given up still brings is dropped, for
//! its caller was told that it failed.
//!
//! **Gaps.** A number that is missing is a gap of that many. Beats bear the last number, so that the loss of the last
//! event shows within a second; for that all replicas hear them, which is n² small messages a second for n replicas. After
//! a time without a subscription nobody knows how many were missed: a gap of 1, which means at least one.
//!
//! **Coming back.** Redis does not tell a subscriber that it lost its subscription, and a connection into a partition is
//! silent. So a beat is sent through Redis to ourselves every third of `silent_after`; when none came back for that
//! long, or the connection ends, it is built anew: for ever, with pauses of 1 s at most. Nothing else depends on the bus
//! (jobs and deliveries are found in the store), so there is nothing else to wake.
//!
//! Deliberately absent: Redis Cluster and Sentinel, and keeping events (see [`crate::bus`]). Whoever may write to the
//! channel is trusted: give Redis a password, and TLS (`rediss://`) outside a private network.
//!
//! The tasks that drive a connection are started by the `redis` crate itself and end with the connection. Its own means
//! of coming back (`ConnectionManager`) are not used: they lose a subscription without a word when their retries are up.

mod inbox;
mod link;
#[cfg(test)]
mod tests;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::timeout,
};
use uuid::Uuid;

use super::{
    Bus, BusError, BusReceiver, MemoryBusLimits, PUBLISHED, REFUSED, Refusal, Ring, RingLimits, START_WITHIN, measure,
};
use crate::model::Event;
use inbox::Inbox;
use wire::Kind;

telemetry::labels! {
    /// Why a connection was lost.
    pub struct Lost { reason: LossReason }
    /// Why there is a gap.
    pub struct Gapped { reason: GapReason }
    /// Why a message was ignored.
    pub struct IgnoredFor { reason: IgnoreReason }
}

telemetry::label_values! {
    /// Why a connection was lost.
    pub enum LossReason { Silent = "silent", Closed = "closed", Refused = "refused" }
}

telemetry::label_values! {
    /// Why there is a gap: there was a time without a subscription, a number is missing, or an event could not be read.
    pub enum GapReason { Reconnected = "reconnected", Missing = "missing", Unreadable = "unreadable" }
}

telemetry::label_values! {
    /// Why a message was ignored.
    pub enum IgnoreReason { Garbage = "garbage", TooLarge = "too_large", Unreadable = "unreadable", Late = "late" }
}

telemetry::declare_metrics! {
    /// 1 while this process is connected to Redis and subscribed.
    pub static CONNECTED: UpDownCounter = ("bus.redis.connected", "{connection}");
    /// Connections to Redis that were lost, by reason.
    pub static LOST: Counter<Lost> = ("bus.redis.lost", "{connection}");
    /// Gaps shown to all receivers of this process, by reason.
    pub static GAPS: Counter<Gapped> = ("bus.redis.gap", "{gap}");
    /// Messages on the channel that were ignored, by reason.
    pub static IGNORED: Counter<IgnoredFor> = ("bus.redis.ignored", "{message}");
}

/// What waits for Redis; more wait with their callers, each within its deadline.
const QUEUE_MAX: usize = 256;

/// At the start Redis gets so many tries within [`START_WITHIN`]. Then the process goes on without it.
const START_TRIES: u32 = 3;

/// How a [`RedisBus`] reaches its Redis, and what it may hold.
#[derive(Debug, Clone)]
pub struct RedisBusSettings {
    /// `redis://[user][:password@]host[:port]`, or `rediss://` for TLS. Never shown.
    pub url: SecretString,
    /// The channel is `PREFIX:events`. Processes with the same Redis and prefix hear each other.
    pub prefix: String,
    /// What one try to connect and subscribe may take; 3 s.
    pub connect_within: Duration,
    /// What publishing may take; 2 s.
    pub publish_within: Duration,
    /// A connection that brought none of our own beats back for this long is given up; 3 s.
    pub silent_after: Duration,
    /// What is held for the slowest receiver, and the largest event.
    pub limits: MemoryBusLimits,
}

impl RedisBusSettings {
    /// The defaults, at this address.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            prefix: "perennial".to_owned(),
            connect_within: Duration::from_secs(3),
            publish_within: Duration::from_secs(2),
            silent_after: Duration::from_secs(3),
            limits: MemoryBusLimits::default(),
        }
    }
}

/// Carries events between all processes that share a Redis. Somebody has to poll [`Bus::carry`].
pub struct RedisBus {
    client: Client,
    channel: String,
    settings: RedisBusSettings,
    ring: Ring,
    inbox: Inbox,
    /// This process, as it signs its messages.
    me: Uuid,
    state: watch::Sender<State>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Held by the one who carries.
    queue: Mutex<mpsc::Receiver<Outgoing>>,
}

/// A message on its way to Redis.
struct Outgoing {
    kind: Kind,
    body: Box<RawValue>,
    /// Told when Redis has it; dropped when that is not known.
    taken: oneshot::Sender<()>,
}

/// How it stands with Redis.
#[derive(Debug, Clone)]
enum State {
    /// Not yet connected, and not yet given up waiting for it.
    Starting {
        tries: u32,
        why: String,
    },
    Up,
    Away {
        why: String,
    },
}

/// Why an address cannot be one of Redis. Does not repeat it: it may carry a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be redis[s]://[user][:password@]host[:port], special characters as %XX{0}")]
pub struct BadRedisUrl(String);

impl RedisBus {
    /// A bus that is not connected yet.
    ///
    /// # Errors
    /// [`BadRedisUrl`] when the address cannot be used.
    pub fn new(settings: RedisBusSettings) -> Result<Arc<Self>, BadRedisUrl> {
        let client = Client::open(connection_info(settings.url.expose_secret())?).map_err(|error| bad(&error))?;
        let MemoryBusLimits { events_max, bytes_max, event_bytes_max } = settings.limits;
        let (me, ring) = (Uuid::new_v4(), Ring::new(RingLimits { items_max: events_max, bytes_max }));
        let (outgoing, queue) = mpsc::channel(QUEUE_MAX);
        CONNECTED.born(());
        link::metrics_born();
        Ok(Arc::new(Self {
            client,
            channel: format!("{}:events", settings.prefix),
            inbox: Inbox::new(ring.clone(), me, event_bytes_max),
            ring,
            me,
            state: watch::Sender::new(State::Starting { tries: 0, why: "not connected yet".to_owned() }),
            outgoing,
            queue: Mutex::new(queue),
            settings,
        }))
    }

    /// Whether an address can be used, without using it.
    ///
    /// # Errors
    /// [`BadRedisUrl`] says why not.
    pub fn check(url: &str) -> Result<(), BadRedisUrl> {
        connection_info(url).map(drop)
    }

    async fn send(&self, kind: Kind, body: impl Serialize) -> Result<(), BusError> {
        let body = to_raw_value(&body).map_err(BusError::Encode)?;
        if let State::Starting { why, .. } | State::Away { why } = &*self.state.borrow() {
            return Err(BusError::Unavailable(why.clone()));
        }
        let (taken, answer) = oneshot::channel();
        let sent = async {
            // Neither end is ever closed while we are here; a message that is dropped was not answered.
            let _ = self.outgoing.send(Outgoing { kind, body, taken }).await;
            answer.await.map_err(|_| BusError::Unavailable("the connection was lost before Redis answered".to_owned()))
        };
        let deadline = self.settings.publish_within;
        timeout(deadline, sent).await.unwrap_or(Err(BusError::TimedOut { deadline }))
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let publishing = async {
            measure(&event, self.settings.limits.event_bytes_max)?;
            self.send(Kind::Event, &event).await
        };
        publishing.await.inspect_err(|refused| REFUSED.add(1, Refusal { reason: refused }))?;
        PUBLISHED.add(1, ());
        Ok(())
    }

    fn subscribe(&self) -> BusReceiver {
        self.ring.subscribe()
    }

    async fn probe(&self, id: Uuid) -> Result<(), BusError> {
        self.send(Kind::Probe, id).await
    }

    async fn carry(&self) {
        link::carry(self).await;
    }

    async fn opened(&self) -> Result<(), BusError> {
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::Starting { tries, .. } if *tries < START_TRIES));
        // Late, or decided: either way it is looked at below.
        let _ = timeout(START_WITHIN, decided).await.map(drop);
        let mut outcome = Ok(());
        self.state.send_if_modified(|state| match state {
            State::Up => false,
            State::Starting { why, .. } | State::Away { why } => {
                outcome = Err(BusError::Unavailable(why.clone()));
                *state = State::Away { why: std::mem::take(why) };
                true
            }
        });
        outcome
    }
}

fn connection_info(url: &str) -> Result<ConnectionInfo, BadRedisUrl> {
    let is_ours = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
    if !is_ours || url.contains(['?', '#']) {
        return Err(BadRedisUrl(String::new()));
    }
    let info = url.into_connection_info().map_err(|error| bad(&error))?;
    // RESP3, so that one connection publishes and hears; without delay, or small messages wait for each other's
    // acknowledgement.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_redis_settings(redis).set_tcp_settings(tcp))
}

fn bad(error: &redis::RedisError) -> BadRedisUrl {
    BadRedisUrl(format!(": {error}"))
}
