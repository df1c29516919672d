//! The engine behind the broadcaster: who listens to what, and how an event reaches them all.
//!
//! ```text
//! bus --> Ingress --> encode once --> (tenant, topic) --> one outbox for each connection --> its socket's task
//!         `------------------ Hub::step, called by the relay ------------------'   `--- Subscriber::next_batch ---'
//! ```
//!
//! A connection is a WebSocket or a stream of Server-Sent Events; only its task knows which.
//!
//! The [`Hub`] is made before the tree starts and outlives every actor. All state is in it: connections, the index,
//! the subscription to the bus, even the fan-out that is in progress. The actors of [`crate::broadcaster`] only turn
//! its crank, so one of them may panic at any moment and nobody's socket notices: its successor goes on where it was.
//!
//! What holds, each with a test:
//!
//! - **A tenant never sees another tenant's event.** The tenant of a connection comes from its credential alone, and
//!   the index is a map of tenants first.
//! - **Nothing is dropped in silence.** An outbox is bounded in bytes, frames and time; a subscriber behind any of
//!   them is closed with a reason. Events that the bus lost appear as a frame `{"type":"gap"}`.
//! - **A poison event costs itself.** It is taken off the ingress before it is encoded, its panic is caught and
//!   recorded under its tenant, and the next event follows.
//! - **No socket holds up another.** Fan-out never waits for a subscriber, and yields every [`SENDS_PER_STEP`] sends.
//!
//! Deliberately absent: an actor for each connection (twenty times the cost of a slab entry, with an unbounded
//! mailbox), patterns of topics, and replay: a client that was away reads what it missed from the API.

mod drain;
mod frame;
mod hub;
mod index;
mod outbox;
mod pump;
mod registry;
mod subscriber;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod topic;
mod view;

pub use drain::{DrainPlan, DrainReport};
pub use frame::{Encoder, Frame, JsonEncoder};
pub use hub::{Hub, HubSettings, Stats};
pub use outbox::{Batch, CloseReason, OutboxLimits};
pub use pump::{SENDS_PER_STEP, Step};
pub use registry::Limits;
pub use subscriber::{Refused, Subscriber};
pub use topic::{InvalidTopic, TOPIC_MAX, Topic};
pub use view::{ClosedConnection, OpenConnection};

use std::sync::{Mutex, MutexGuard, PoisonError};

telemetry::labels! {
    /// Why a socket was closed.
    pub struct Closed { reason: CloseReason }
    /// Why a connection or a subscription was refused.
    pub struct Refusal<'a> { reason: &'a Refused }
}

telemetry::label_values! { CloseReason, |reason: &CloseReason| reason.name(), ["slow", "unresponsive", "revoked", "draining"] }

telemetry::label_values! {
    Refused,
    Refused::name,
    ["draining", "full", "tenant_sockets", "tenant_subscriptions", "socket_topics", "closed"],
}

telemetry::declare_metrics! {
    /// Sockets open now.
    pub static SOCKETS_OPEN: UpDownCounter = ("broadcaster.socket.open", "{socket}");
    /// Sockets closed by us, by reason.
    pub static SOCKETS_CLOSED: Counter<Closed> = ("broadcaster.socket.closed", "{socket}");
    /// Connections and subscriptions refused, by reason.
    pub static REFUSED: Counter<Refusal> = ("broadcaster.refused", "{request}");
    /// Subscriptions held now.
    pub static SUBSCRIPTIONS: UpDownCounter = ("broadcaster.subscription.open", "{subscription}");
    /// Events that came from the bus.
    pub static EVENTS: Counter = ("broadcaster.event.received", "{event}");
    /// Events given up because encoding them panicked or failed.
    pub static POISONED: Counter = ("broadcaster.event.poisoned", "{event}");
    /// Frames put into the outboxes of subscribers.
    pub static DELIVERED: Counter = ("broadcaster.frame.delivered", "{frame}");
    /// Frames thrown away with the outbox of a subscriber that was closed, by reason.
    pub static DROPPED: Counter<Closed> = ("broadcaster.frame.dropped", "{frame}");
    /// Times that events were missing on the bus, as told to every subscriber.
    pub static GAPS: Counter = ("broadcaster.gap", "{gap}");
    /// Time from publishing an event to its frame in the last outbox.
    pub static FANOUT_LATENCY: Histogram =
        ("broadcaster.fanout.latency", "s", [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]);
}

/// Makes the counters that alerts read exist from the start, at 0.
pub(crate) fn metrics_born() {
    use CloseReason::{Draining, Revoked, Slow, Unresponsive};
    for reason in [Slow, Unresponsive, Revoked, Draining { after_ms: 0 }] {
        SOCKETS_CLOSED.born(Closed { reason });
        DROPPED.born(Closed { reason });
    }
    [&EVENTS, &POISONED, &DELIVERED, &GAPS].iter().for_each(|counter| counter.born(()));
}

/// No critical section here can panic half-way through a change, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
