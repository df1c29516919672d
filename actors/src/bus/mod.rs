//! The bus: how an event gets from the one who publishes it to everyone who relays it.
//!
//! [`Bus`] is the port, a file or a folder stands for each backend ([`MemoryBus`] for one process, [`RedisBus`] between
//! several), and [`bus`] is the child of the tree that drives the backend and proves, beat after beat, that it still
//! carries events.
//!
//! What every backend promises, held by the one battery in `contract.rs`:
//!
//! - events of one publisher arrive in the order in which they were published;
//! - nothing disappears silently: a receiver that cannot keep up sees [`BusItem::Gap`] where events are missing;
//! - every queue is bounded, and publishing never waits for a slow receiver;
//! - publishing while nobody listens is fine: the bus carries news, it does not keep them.
//!
//! Deliberately absent: acknowledgement and replay. What must not be lost is a row in the store, not an event.

mod actor;
#[cfg(test)]
mod contract;
mod memory;
mod redis;
mod ring;

pub use actor::{BusMessage, BusSettings, bus};
pub use memory::{MemoryBus, MemoryBusLimits};
pub use redis::{BadRedisUrl, RedisBus, RedisBusSettings};
pub use ring::{BusReceiver, Ring, RingLimits};

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::model::Event;

/// How long a backend that is away at the start is waited for, at most.
const START_WITHIN: Duration = Duration::from_secs(15);

telemetry::labels! {
    /// Why an event was refused.
    pub struct Refusal<'a> { reason: &'a BusError }
}

telemetry::label_values! { BusError, BusError::kind, ["too_large", "encode", "unavailable", "timed_out"] }

telemetry::declare_metrics! {
    /// Events accepted by the bus for publishing.
    pub static PUBLISHED: Counter = ("bus.published", "{event}");
    /// Events that the bus refused to publish, by reason.
    pub static REFUSED: Counter<Refusal> = ("bus.refused", "{event}");
    /// Events that a receiver missed because it fell behind; each gap is also shown to that receiver.
    pub static MISSED: Counter = ("bus.missed", "{event}");
    /// Probes that did not come back through the bus in time.
    pub static PING_FAILED: Counter = ("bus.ping.failed", "{probe}");
    /// Time for a probe to come back through the bus.
    pub static PING_DURATION: Histogram = ("bus.ping.duration", "s", [0.0001, 0.001, 0.01, 0.1, 1.0, 5.0]);
}

/// Carries events between the parts of the service, and between its replicas if the backend reaches them.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands `event` to everyone who is subscribed now. Does not wait for receivers.
    ///
    /// # Errors
    /// [`BusError::TooLarge`] and [`BusError::Encode`] are the event's own fault and final;
    /// [`BusError::Unavailable`] and [`BusError::TimedOut`] may pass.
    async fn publish(&self, event: Event) -> Result<(), BusError>;

    /// A receiver that sees everything published from now on, or a gap where it was too slow.
    fn subscribe(&self) -> BusReceiver;

    /// Sends a probe that every receiver sees as [`BusItem::Probe`], by the path that events take.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    async fn probe(&self, id: Uuid) -> Result<(), BusError>;

    /// What the backend has to do by itself: somebody polls it, in one place at a time, for as long as the bus is to
    /// work. Returns at once if there is nothing to do.
    async fn carry(&self) {}

    /// Waits for the backend at the start, for 15 s at most. Somebody polls [`Bus::carry`] meanwhile.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when it is away; it is not given up for that.
    async fn opened(&self) -> Result<(), BusError> {
        Ok(())
    }

    /// Sends a probe through the bus's own path and waits until it is back. Returns how long that took.
    ///
    /// # Errors
    /// [`BusError::TimedOut`] when the probe is not back within `deadline`, else what the backend said.
    async fn ping(&self, deadline: Duration) -> Result<Duration, BusError> {
        let mut receiver = self.subscribe();
        let id = Uuid::new_v4();
        let started = Instant::now();
        let round_trip = async {
            self.probe(id).await?;
            while receiver.recv().await != BusItem::Probe(id) {}
            Ok(started.elapsed())
        };
        timeout(deadline, round_trip).await.unwrap_or(Err(BusError::TimedOut { deadline }))
    }
}

/// What a receiver sees.
#[derive(Debug, Clone)]
pub enum BusItem {
    /// One event, shared by all receivers.
    Event(Arc<Event>),
    /// Events are missing here.
    Gap {
        /// How many, lost probes included; a backend that cannot know says 1.
        missed: u64,
    },
    /// Somebody tests the path; of interest only to the one who sent this id.
    Probe(Uuid),
}

impl PartialEq for BusItem {
    /// Two items are equal when they are the same event (by id), the same gap or the same probe.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Event(a), Self::Event(b)) => a.id == b.id,
            (Self::Gap { missed: a }, Self::Gap { missed: b }) => a == b,
            (Self::Probe(a), Self::Probe(b)) => a == b,
            _ => false,
        }
    }
}

/// Why the bus did not take an event or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The event is larger than one event may be.
    #[error("publish to the bus: the event has {bytes} bytes or more, the limit is {bytes_max}")]
    TooLarge {
        /// Bytes counted until the limit was passed.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The event's data could not be written as JSON.
    #[error("publish to the bus: encode the event")]
    Encode(#[source] serde_json::Error),
    /// The backend is away.
    #[error("reach the bus: {0}")]
    Unavailable(String),
    /// No answer in time; an event may have been published all the same.
    #[error("reach the bus: no answer within {} ms", deadline.as_millis())]
    TimedOut {
        /// The time that was given.
        deadline: Duration,
    },
}

impl BusError {
    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut { .. })
    }

    /// A short name for the label of a metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Encode(_) => "encode",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut { .. } => "timed_out",
        }
    }
}

/// Bytes of one event, data and all, on every bus; 256 KiB.
pub const EVENT_BYTES_MAX: usize = 256 << 10;

/// Whether a bus would take `event`, as far as the event itself goes: for whoever wants to know before the first of many
/// is published.
///
/// # Errors
/// [`BusError::TooLarge`] and [`BusError::Encode`].
pub fn check(event: &Event) -> Result<(), BusError> {
    measure(event, EVENT_BYTES_MAX).map(drop)
}

/// The size of an event as queues count it: its data as JSON, its topic, and its fixed part.
///
/// # Errors
/// [`BusError::TooLarge`] as soon as `bytes_max` is passed; nothing is allocated for the count.
pub(crate) fn measure(event: &Event, bytes_max: usize) -> Result<usize, BusError> {
    /// Ids, tenant, context and the structures around them, in bytes; a generous constant.
    const FIXED: usize = 256;
    let mut counter = Counting { bytes: FIXED + event.topic.len(), bytes_max };
    match serde_json::to_writer(&mut counter, &event.data) {
        Ok(()) if counter.bytes <= bytes_max => Ok(counter.bytes),
        Err(error) if !error.is_io() => Err(BusError::Encode(error)),
        _ => Err(BusError::TooLarge { bytes: counter.bytes, bytes_max }),
    }
}

/// A writer that keeps only the length, and refuses once it is too much.
struct Counting {
    bytes: usize,
    bytes_max: usize,
}

impl io::Write for Counting {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes += part.len();
        if self.bytes > self.bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(part.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::testing::event;

    #[test]
    fn the_size_of_an_event_grows_with_its_data_and_its_topic() {
        let small = measure(&event("demo", "a", "x"), 1 << 20).unwrap();
        let longer_data = measure(&event("demo", "a", "xyz"), 1 << 20).unwrap();
        let longer_topic = measure(&event("demo", "abc", "x"), 1 << 20).unwrap();
        assert_eq!((longer_data - small, longer_topic - small), (2, 2));
    }

    #[test]
    fn an_event_above_the_limit_is_named_too_large_with_the_limit() {
        let refused = measure(&event("demo", "a", &"x".repeat(2_000)), 1_000).unwrap_err();
        assert!(matches!(refused, BusError::TooLarge { bytes_max: 1_000, .. }), "{refused}");
        assert!(!refused.is_retryable());
    }
}
