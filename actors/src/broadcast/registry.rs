//! Every open connection, and how much of its quota each tenant uses.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use slab::Slab;
use tokio::time::Instant;

use super::{Refused, Topic, outbox::Outbox};
use crate::model::TenantId;

/// What one tenant may have open in this process, and one connection of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the tenant.
    pub sockets_max: usize,
    /// Subscriptions of the tenant, over all its connections.
    pub subscriptions_max: usize,
    /// Topics of one connection.
    pub topics_per_socket_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sockets_max: 10_000, subscriptions_max: 50_000, topics_per_socket_max: 64 }
    }
}

/// One connection, as the engine sees it. It is reached from the registry, from the index once for each topic, and
/// from its [`Subscriber`](super::Subscriber), which alone decides how long it lives.
pub(super) struct Connection {
    /// From the credential, and never changed.
    pub(super) tenant: TenantId,
    pub(super) limits: Limits,
    /// When it came.
    pub(super) since: Instant,
    pub(super) outbox: Outbox,
    /// Each topic with its place in the index. `None` once it has left the index for good.
    pub(super) topics: Mutex<Option<HashMap<Topic, usize>>>,
}

/// The connections by slot, and the usage by tenant, under one lock.
#[derive(Default)]
pub(super) struct Registry {
    connections: Slab<Arc<Connection>>,
    usage: HashMap<TenantId, Usage>,
    draining: bool,
}

/// What a tenant uses now; gone when it is all zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) sockets: usize,
    pub(super) subscriptions: usize,
}

impl Registry {
    /// Takes a connection in. Returns its slot.
    pub(super) fn add(&mut self, connection: Arc<Connection>, sockets_max: usize) -> Result<usize, Refused> {
        if self.draining {
            return Err(Refused::draining());
        }
        if self.connections.len() >= sockets_max {
            return Err(Refused::full());
        }
        let limit = connection.limits.sockets_max;
        let used = self.usage(&connection.tenant).sockets;
        if used >= limit {
            return Err(Refused::TenantSockets { limit });
        }
        self.usage.entry(connection.tenant.clone()).or_default().sockets += 1;
        Ok(self.connections.insert(connection))
    }

    /// Lets a connection go. True if it was the last of all.
    pub(super) fn remove(&mut self, slot: usize) -> bool {
        if let Some(connection) = self.connections.try_remove(slot) {
            self.release(&connection.tenant, Usage { sockets: 1, subscriptions: 0 });
        }
        self.connections.is_empty()
    }

    /// Counts `more` subscriptions of a tenant, all or none.
    pub(super) fn reserve(&mut self, tenant: &TenantId, more: usize, limit: usize) -> Result<(), Refused> {
        let used = self.usage(tenant).subscriptions;
        if more > limit.saturating_sub(used) {
            return Err(Refused::TenantSubscriptions { limit });
        }
        if more > 0 {
            self.usage.entry(tenant.clone()).or_default().subscriptions += more;
        }
        Ok(())
    }

    /// Gives back what a tenant no longer uses.
    pub(super) fn release(&mut self, tenant: &TenantId, less: Usage) {
        if let Some(usage) = self.usage.get_mut(tenant) {
            usage.sockets = usage.sockets.saturating_sub(less.sockets);
            usage.subscriptions = usage.subscriptions.saturating_sub(less.subscriptions);
            if *usage == Usage::default() {
                self.usage.remove(tenant);
            }
        }
    }

    /// Refuses every new connection from now on; returns those that are open.
    pub(super) fn begin_drain(&mut self) -> Vec<Arc<Connection>> {
        self.draining = true;
        self.all()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// All connections.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|(_, connection)| Arc::clone(connection)).collect()
    }

    /// The connections in `count` slots from `from`, and whether there are more slots behind them.
    pub(super) fn slice(&self, from: usize, count: usize) -> (Vec<Arc<Connection>>, bool) {
        let end = from.saturating_add(count);
        let found = (from..end.min(self.connections.capacity())).filter_map(|slot| self.connections.get(slot).cloned());
        (found.collect(), end < self.connections.capacity())
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn tenants(&self) -> usize {
        self.usage.len()
    }

    /// What a tenant uses now.
    pub(super) fn usage(&self, tenant: &TenantId) -> Usage {
        self.usage.get(tenant).copied().unwrap_or_default()
    }

    /// The tenants with the most connections, most first, at most `limit`.
    pub(super) fn busiest(&self, limit: usize) -> Vec<(TenantId, Usage)> {
        let mut all: Vec<_> = self.usage.iter().collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.sockets.cmp(&x.sockets).then_with(|| a.cmp(b)));
        all.into_iter().take(limit).map(|(tenant, usage)| (tenant.clone(), *usage)).collect()
    }

    /// Subscriptions of all tenants.
    pub(super) fn subscriptions(&self) -> usize {
        self.usage.values().map(|usage| usage.subscriptions).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{OutboxLimits, testing::tenant};

    fn connection(name: &str, sockets_max: usize) -> Arc<Connection> {
        Arc::new(Connection {
            tenant: tenant(name),
            limits: Limits { sockets_max, ..Limits::default() },
            since: Instant::now(),
            outbox: Outbox::new(OutboxLimits::default()),
            topics: Mutex::new(Some(HashMap::new())),
        })
    }

    #[test]
    fn one_tenant_at_its_limit_leaves_room_for_another() {
        let mut registry = Registry::default();
        registry.add(connection("a", 1), 10).unwrap();
        assert!(matches!(registry.add(connection("a", 1), 10), Err(Refused::TenantSockets { limit: 1 })));
        registry.add(connection("b", 1), 10).unwrap();
        assert!(matches!(registry.add(connection("c", 1), 2), Err(Refused::Full { .. })));
    }

    #[test]
    fn a_tenant_that_is_gone_leaves_nothing_behind() {
        let mut registry = Registry::default();
        let slot = registry.add(connection("a", 1), 10).unwrap();
        registry.reserve(&tenant("a"), 3, 3).unwrap();
        assert!(registry.reserve(&tenant("a"), 1, 3).is_err());
        registry.release(&tenant("a"), Usage { sockets: 0, subscriptions: 3 });
        assert!(registry.remove(slot));
        assert_eq!((registry.tenants(), registry.len(), registry.subscriptions()), (0, 0, 0));
    }

    #[test]
    fn a_walk_in_slices_meets_every_connection_once() {
        let mut registry = Registry::default();
        let slots: Vec<_> = (0..10).map(|_| registry.add(connection("a", 99), 99).unwrap()).collect();
        registry.remove(slots[4]);
        let (mut met, mut from, mut more) = (0, 0, true);
        while more {
            let (found, rest) = registry.slice(from, 3);
            (met, from, more) = (met + found.len(), from + 3, rest);
        }
        assert_eq!(met, 9);
    }

    #[test]
    fn a_draining_registry_takes_nobody_in() {
        let mut registry = Registry::default();
        registry.add(connection("a", 9), 9).unwrap();
        assert_eq!(registry.begin_drain().len(), 1);
        assert!(matches!(registry.add(connection("a", 9), 9), Err(Refused::Draining { .. })));
    }
}
