//! The hub: what outlives every actor of the broadcaster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use super::{
    CloseReason, Closed, DROPPED, Encoder, JsonEncoder, Limits, OutboxLimits, REFUSED, Refusal, Refused,
    SOCKETS_CLOSED, Subscriber, Topic,
    index::Index,
    lock, metrics_born,
    outbox::Outbox,
    pump::Pump,
    registry::{Connection, Registry},
    view::ClosedLately,
};
use crate::{bus::Bus, model::TenantId};

/// Connections looked at in one step of a sweep; about 50 us of work.
const SWEEP_STEP: usize = 1_024;

/// The bounds of a hub.
#[derive(Debug, Clone, Copy)]
pub struct HubSettings {
    /// Connections of all tenants. 50,000 idle ones take about 300 MiB, most of it in the kernel's buffers.
    pub sockets_max: usize,
    /// What may wait for one subscriber, and for how long.
    pub outbox: OutboxLimits,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self { sockets_max: 50_000, outbox: OutboxLimits::default() }
    }
}

/// Connections, index, and the events on their way; shared by every socket's task and the broadcaster's actors.
pub struct Hub {
    settings: HubSettings,
    registry: Mutex<Registry>,
    index: Index,
    /// Whoever holds this lock turns the crank; the relay, one incarnation at a time.
    pump: Mutex<Pump>,
    encoder: Arc<dyn Encoder>,
    /// Fires when the last connection is gone.
    emptied: Notify,
    /// For operators; written when a connection begins to close.
    pub(super) closed_lately: Mutex<ClosedLately>,
}

/// What is open now, for stats and probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connections.
    pub sockets: usize,
    /// Tenants that have any.
    pub tenants: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Whether new connections are refused.
    pub draining: bool,
}

impl Hub {
    /// A hub that is subscribed to `bus` from this moment on, and speaks the format of the public API.
    pub fn new(settings: HubSettings, bus: &dyn Bus) -> Arc<Self> {
        Self::with_encoder(settings, bus, JsonEncoder)
    }

    /// A hub with another wire format.
    pub fn with_encoder(settings: HubSettings, bus: &dyn Bus, encoder: impl Encoder) -> Arc<Self> {
        metrics_born();
        Arc::new(Self {
            settings,
            registry: Mutex::default(),
            index: Index::new(),
            pump: Mutex::new(Pump::new(bus.subscribe())),
            encoder: Arc::new(encoder),
            emptied: Notify::new(),
            closed_lately: Mutex::default(),
        })
    }

    /// Takes a connection of `tenant` in and subscribes it to `topics`. The tenant must come from a verified
    /// credential, never from what the client says.
    ///
    /// # Errors
    /// [`Refused`] when we are going away or a limit would be passed; then nothing is left of it.
    pub fn connect(
        self: &Arc<Self>,
        tenant: TenantId,
        topics: &[Topic],
        limits: Limits,
    ) -> Result<Subscriber, Refused> {
        let connection = Arc::new(Connection {
            tenant,
            limits,
            since: Instant::now(),
            outbox: Outbox::new(self.settings.outbox),
            topics: Mutex::new(Some(HashMap::new())),
        });
        let slot = self
            .registry()
            .add(Arc::clone(&connection), self.settings.sockets_max)
            .inspect_err(|refused| REFUSED.add(1, Refusal { reason: refused }))?;
        let subscriber = Subscriber::new(Arc::clone(self), connection, slot);
        subscriber.subscribe(topics)?;
        Ok(subscriber)
    }

    /// Looks at up to 1024 connections from slot `from`: closes those that are too far behind or silent, makes pings
    /// due. Returns where to go on, or `None` at the end.
    pub fn sweep(&self, from: usize) -> Option<usize> {
        let (connections, more) = self.registry().slice(from, SWEEP_STEP);
        let now = Instant::now();
        for connection in &connections {
            if let Some(reason) = connection.outbox.overdue(now) {
                self.close(connection, reason);
            }
        }
        more.then_some(from + SWEEP_STEP)
    }

    /// Closes every connection of a tenant whose key opens nothing any more, and says how many. New ones are for whoever
    /// checks keys to refuse.
    pub fn revoke(&self, tenant: &TenantId) -> usize {
        let (mut from, mut closed) = (0, 0);
        loop {
            let (connections, more) = self.registry().slice(from, SWEEP_STEP);
            let own = connections.iter().filter(|connection| connection.tenant == *tenant);
            closed += own.filter(|connection| self.close(connection, CloseReason::Revoked)).count();
            if !more {
                return closed;
            }
            from += SWEEP_STEP;
        }
    }

    /// What is open now.
    pub fn stats(&self) -> Stats {
        let registry = self.registry();
        Stats {
            sockets: registry.len(),
            tenants: registry.tenants(),
            subscriptions: registry.subscriptions(),
            draining: registry.is_draining(),
        }
    }

    /// The tenants with the most connections, most first, at most `limit`, each with its connections and subscriptions.
    pub fn busiest(&self, limit: usize) -> Vec<(TenantId, usize, usize)> {
        let busiest = self.registry().busiest(limit).into_iter();
        busiest.map(|(tenant, usage)| (tenant, usage.sockets, usage.subscriptions)).collect()
    }

    /// Begins to close a connection; its task does the rest. True if it was not closing already.
    pub(super) fn close(&self, connection: &Connection, reason: CloseReason) -> bool {
        let Some(dropped) = connection.outbox.close(reason) else {
            return false;
        };
        self.closed(connection, reason, dropped);
        true
    }

    /// Counts a connection that began to close, and spares the fan-out from it.
    pub(super) fn closed(&self, connection: &Connection, reason: CloseReason, dropped: usize) {
        SOCKETS_CLOSED.add(1, Closed { reason });
        DROPPED.add(dropped as u64, Closed { reason });
        lock(&self.closed_lately).push(connection, reason, dropped);
        tracing::debug!(tenant = %connection.tenant, reason = reason.name(), dropped, "closing a connection");
        if reason.is_at_once() {
            self.retire(connection);
        }
    }

    /// Lets a connection go for good, when its task did.
    pub(super) fn remove(&self, slot: usize) {
        if self.registry().remove(slot) {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when no connection is left.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.registry().len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn pump(&self) -> MutexGuard<'_, Pump> {
        lock(&self.pump)
    }

    pub(super) fn encoder(&self) -> &dyn Encoder {
        &*self.encoder
    }

    pub(super) fn outbox_limits(&self) -> &OutboxLimits {
        &self.settings.outbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{
        Batch,
        testing::{House, tenant, topic, topics},
    };
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_limits_of_a_tenant_hold_and_leave_other_tenants_alone() {
        let house = House::new();
        let limits = Limits { sockets_max: 2, subscriptions_max: 3, topics_per_socket_max: 2 };
        let connect = |name: &str, topics: &[Topic]| house.hub.connect(tenant(name), topics, limits);
        let first = connect("a", &topics(["x", "y"])).unwrap();
        assert_eq!(connect("a", &topics(["x", "y"])).err(), Some(Refused::TenantSubscriptions { limit: 3 }));
        assert_eq!(connect("a", &topics(["x", "y", "z"])).err(), Some(Refused::SocketTopics { limit: 2 }));
        let second = connect("a", &topics(["x"])).unwrap();
        assert_eq!(connect("a", &[]).err(), Some(Refused::TenantSockets { limit: 2 }));
        let other = connect("b", &topics(["x", "y"])).unwrap();
        drop((first, second, other));
        let nothing = Stats { sockets: 0, tenants: 0, subscriptions: 0, draining: false };
        assert_eq!(house.hub.stats(), nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_subscription_changes_nothing() {
        let house = House::new();
        let limits = Limits { topics_per_socket_max: 2, ..Limits::default() };
        let subscriber = house.hub.connect(tenant("a"), &topics(["x"]), limits).unwrap();
        assert!(subscriber.subscribe(&topics(["y", "z"])).is_err());
        assert_eq!(subscriber.topics(), topics(["x"]));
        subscriber.subscribe(&topics(["x", "y", "y"])).unwrap();
        assert_eq!((subscriber.topics(), house.hub.stats().subscriptions), (topics(["x", "y"]), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_closes_the_stalled_and_leaves_the_others() {
        let house = House::new();
        let (mut stalled, mut quick) = (house.connect("a", ["x"]), house.connect("a", ["x"]));
        house.publish("a", "x", "1").await;
        house.pump();
        assert!(matches!(stalled.next_batch().await, Batch::Frames(_)));
        for _ in 0..6 {
            tokio::time::advance(SECOND).await;
            let _ = tokio::time::timeout(Duration::ZERO, quick.next_batch()).await;
            house.sweep();
        }
        assert_eq!(stalled.cut().await, CloseReason::Slow);
        assert!(tokio::time::timeout(Duration::ZERO, quick.cut()).await.is_err());
        assert_eq!(house.hub.index().entries(), [("a".into(), "x".into(), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_tenants_connections_are_closed_and_no_others() {
        let house = House::new();
        let many: Vec<_> = (0..SWEEP_STEP + 1).map(|_| house.connect("a", ["x"])).collect();
        let other = house.connect("b", ["x"]);
        assert_eq!(house.hub.revoke(&tenant("a")), SWEEP_STEP + 1);
        assert_eq!(many[SWEEP_STEP].cut().await, CloseReason::Revoked);
        assert!(tokio::time::timeout(Duration::ZERO, other.cut()).await.is_err());
        assert_eq!(house.hub.index().entries(), [("b".into(), "x".into(), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_connection_counts_against_its_tenant_until_its_task_lets_go() {
        let house = House::new();
        let stalled = house.connect("a", ["x"]);
        let open = house.hub.registry().all();
        assert!(house.hub.close(&open[0], CloseReason::Slow));
        assert_eq!((house.hub.stats().sockets, house.hub.stats().subscriptions), (1, 0));
        assert_eq!(stalled.subscribe(&[topic("y")]), Err(Refused::Closed));
        drop(stalled);
        assert_eq!(house.hub.stats().sockets, 0);
    }
}
