//! Who listens to what: (tenant, topic) to connections.
//!
//! A map of tenants first, so that there is no key by which one tenant's event could find another tenant's connection.
//! Cut into shards by the hash of both, each under a lock of its own, so that a wave of new subscriptions does not hold
//! up the fan-out.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex},
};

use slab::Slab;

use super::{Topic, lock, registry::Connection};
use crate::model::TenantId;

/// A few for each core of a large machine; a power of two.
const SHARDS: usize = 64;

type Shard = HashMap<TenantId, HashMap<Topic, Slab<Arc<Connection>>>>;

pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Enters a connection under its own tenant. Returns its place, which is needed to take it out again.
    pub(super) fn insert(&self, connection: &Arc<Connection>, topic: &Topic) -> usize {
        let mut shard = lock(self.shard(&connection.tenant, topic.as_str()));
        let topics = shard.entry(connection.tenant.clone()).or_default();
        topics.entry(topic.clone()).or_default().insert(Arc::clone(connection))
    }

    /// Takes a connection out; what becomes empty is forgotten.
    pub(super) fn remove(&self, tenant: &TenantId, topic: &Topic, place: usize) {
        let mut shard = lock(self.shard(tenant, topic.as_str()));
        let Some(topics) = shard.get_mut(tenant) else { return };
        let Some(listeners) = topics.get_mut(topic) else { return };
        listeners.try_remove(place);
        if listeners.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            shard.remove(tenant);
        }
    }

    /// Everyone who listens now. A copy, so that nobody is held up while it is walked through; references only.
    pub(super) fn listeners(&self, tenant: &TenantId, topic: &str) -> Vec<Arc<Connection>> {
        let shard = lock(self.shard(tenant, topic));
        let found = shard.get(tenant).and_then(|topics| topics.get(topic));
        found
            .map(|listeners| listeners.iter().map(|(_, connection)| Arc::clone(connection)).collect())
            .unwrap_or_default()
    }

    fn shard(&self, tenant: &TenantId, topic: &str) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one((tenant.as_str(), topic));
        &self.shards[hash as usize % SHARDS]
    }
}

#[cfg(test)]
impl Index {
    /// Every entry, as tenant and topic with the number of connections, sorted.
    pub(super) fn entries(&self) -> Vec<(String, String, usize)> {
        let mut entries = Vec::new();
        for shard in &self.shards {
            for (tenant, topics) in lock(shard).iter() {
                entries
                    .extend(topics.iter().map(|(topic, found)| (tenant.to_string(), topic.to_string(), found.len())));
            }
        }
        entries.sort();
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{
        Limits, OutboxLimits,
        outbox::Outbox,
        testing::{tenant, topic},
    };

    fn connection(name: &str) -> Arc<Connection> {
        Arc::new(Connection {
            tenant: tenant(name),
            limits: Limits::default(),
            since: tokio::time::Instant::now(),
            outbox: Outbox::new(OutboxLimits::default()),
            topics: Mutex::new(Some(HashMap::new())),
        })
    }

    #[test]
    fn the_same_topic_of_two_tenants_is_two_topics() {
        let index = Index::new();
        let (a, b) = (connection("a"), connection("b"));
        index.insert(&a, &topic("orders"));
        index.insert(&b, &topic("orders"));
        let found = index.listeners(&tenant("a"), "orders");
        assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &a));
        assert!(index.listeners(&tenant("c"), "orders").is_empty());
    }

    #[test]
    fn an_index_that_was_emptied_holds_nothing() {
        let index = Index::new();
        let a = connection("a");
        let places = ["x", "y", "x"].map(|name| (topic(name), index.insert(&a, &topic(name))));
        assert_eq!(index.entries(), [("a".into(), "x".into(), 2), ("a".into(), "y".into(), 1)]);
        for (topic, place) in places {
            index.remove(&a.tenant, &topic, place);
        }
        assert_eq!(index.entries(), []);
        assert_eq!(Arc::strong_count(&a), 1);
    }
}
