//! One connection's handle: what its task writes, and what it listens to.

use std::{collections::HashSet, future::poll_fn, sync::Arc, time::Duration};

use super::{
    Batch, CloseReason, Hub, REFUSED, Refusal, SOCKETS_OPEN, SUBSCRIPTIONS, Topic, lock,
    registry::{Connection, Usage},
};
use crate::model::TenantId;
use crate::seam::seam;

/// Why a connection or a subscription was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This process is going away.
    #[error("this instance is shutting down")]
    Draining {
        /// When to try again; jittered.
        retry_after: Duration,
    },
    /// All connections that this process takes are open.
    #[error("too many connections are open here")]
    Full {
        /// When to try again; jittered.
        retry_after: Duration,
    },
    /// The tenant has all its connections open.
    #[error("the tenant has {limit} connections open, which is its limit")]
    TenantSockets {
        /// Its limit.
        limit: usize,
    },
    /// The tenant would have too many subscriptions; nothing was subscribed.
    #[error("the tenant may have {limit} subscriptions")]
    TenantSubscriptions {
        /// Its limit.
        limit: usize,
    },
    /// The connection would have too many topics; nothing was subscribed.
    #[error("a connection may have {limit} topics")]
    SocketTopics {
        /// Its limit.
        limit: usize,
    },
    /// The connection is being closed.
    #[error("the connection is being closed")]
    Closed,
}

impl Refused {
    pub(super) fn draining() -> Self {
        Self::Draining { retry_after: retry_after() }
    }

    pub(super) fn full() -> Self {
        Self::Full { retry_after: retry_after() }
    }

    /// A short name for metrics and problem types.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draining { .. } => "draining",
            Self::Full { .. } => "full",
            Self::TenantSockets { .. } => "tenant_sockets",
            Self::TenantSubscriptions { .. } => "tenant_subscriptions",
            Self::SocketTopics { .. } => "socket_topics",
            Self::Closed => "closed",
        }
    }

    /// When it makes sense to try again, if waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Draining { retry_after } | Self::Full { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// 1 to 5 s, in ms: long enough for another instance to be asked, spread so that not all come at once.
fn retry_after() -> Duration {
    Duration::from_millis(fastrand::u64(1_000..=5_000))
}

/// A connection's place in the hub. One task owns it; dropping it ends every subscription and frees its quota.
pub struct Subscriber {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    slot: usize,
}

impl Subscriber {
    pub(super) fn new(hub: Arc<Hub>, connection: Arc<Connection>, slot: usize) -> Self {
        SOCKETS_OPEN.add(1, ());
        Self { hub, connection, slot }
    }

    /// Whose connection it is.
    pub fn tenant(&self) -> &TenantId {
        &self.connection.tenant
    }

    /// What it listens to now, sorted.
    pub fn topics(&self) -> Vec<Topic> {
        let held = lock(&self.connection.topics);
        let mut topics: Vec<_> = held.iter().flat_map(|held| held.keys().cloned()).collect();
        topics.sort_unstable();
        topics
    }

    /// What to do next. Asking again says that the batch before was written.
    ///
    /// Safe to cancel: a batch is taken only when it is returned. Not to be awaited beside [`Subscriber::cut`]: there
    /// is one place for a waiting task.
    pub async fn next_batch(&mut self) -> Batch {
        seam!("inside_socket");
        poll_fn(|cx| self.connection.outbox.poll_next(cx)).await
    }

    /// Resolves when a write in progress is to be given up. Race every write against it, or a client that does not
    /// read keeps the task, and its memory, for as long as it likes.
    pub async fn cut(&self) -> CloseReason {
        poll_fn(|cx| self.connection.outbox.poll_cut(cx)).await
    }

    /// Something came from the client, a pong for instance: it is there.
    pub fn heard(&self) {
        self.connection.outbox.heard();
    }

    /// Listens to `topics` as well; those it listens to already are fine.
    ///
    /// # Errors
    /// When a limit would be passed or the connection is being closed; then nothing has changed.
    pub fn subscribe(&self, topics: &[Topic]) -> Result<(), Refused> {
        self.try_subscribe(topics).inspect_err(|refused| REFUSED.add(1, Refusal { reason: refused }))
    }

    fn try_subscribe(&self, topics: &[Topic]) -> Result<(), Refused> {
        let Connection { tenant, limits, .. } = &*self.connection;
        let mut held = lock(&self.connection.topics);
        let held = held.as_mut().ok_or(Refused::Closed)?;
        let new: HashSet<&Topic> = topics.iter().filter(|topic| !held.contains_key(*topic)).collect();
        let limit = limits.topics_per_socket_max;
        if new.len() > limit.saturating_sub(held.len()) {
            return Err(Refused::SocketTopics { limit });
        }
        self.hub.registry().reserve(tenant, new.len(), limits.subscriptions_max)?;
        SUBSCRIPTIONS.add(new.len() as i64, ());
        for topic in new {
            held.insert(topic.clone(), self.hub.index().insert(&self.connection, topic));
        }
        Ok(())
    }

    /// Listens to `topics` no longer; those it does not listen to are fine. An event that is being fanned out at this
    /// moment may still come.
    pub fn unsubscribe(&self, topics: &[Topic]) {
        let mut held = lock(&self.connection.topics);
        let Some(held) = held.as_mut() else { return };
        let gone: Vec<_> = topics.iter().filter_map(|topic| held.remove_entry(topic)).collect();
        self.hub.forget(&self.connection.tenant, gone);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.hub.retire(&self.connection);
        self.hub.remove(self.slot);
        SOCKETS_OPEN.add(-1, ());
    }
}

impl Hub {
    /// Takes a connection out of the index for good; it stays registered until its task lets go of it.
    pub(super) fn retire(&self, connection: &Connection) {
        let held = lock(&connection.topics).take();
        self.forget(&connection.tenant, held.into_iter().flatten());
    }

    fn forget(&self, tenant: &TenantId, gone: impl IntoIterator<Item = (Topic, usize)>) {
        let mut subscriptions = 0;
        for (topic, place) in gone {
            self.index().remove(tenant, &topic, place);
            subscriptions += 1;
        }
        if subscriptions > 0 {
            self.registry().release(tenant, Usage { sockets: 0, subscriptions });
            SUBSCRIPTIONS.add(-(subscriptions as i64), ());
        }
    }
}
