//! Which tenant a key belongs to, as this process knows it.
//!
//! A key that was found is believed for [`CACHE_FOR`] without asking the store again. Long before that, every
//! [`REFRESH_EVERY`], the store is asked which tenants have changed: whatever was believed of those is forgotten, and their
//! sockets are closed if they are disabled or their key was rotated. Whoever changes a tenant through this process asks at
//! once, so here it takes effect with the answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::broadcast::Hub;
use actors::store::{KeyHash, SharedStore, StoreError, Tenant};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::auth::{DEMO_KEY, DemoKey};

/// How long a key that was found is believed without asking the store again: what revoking it takes at most.
const CACHE_FOR: Duration = Duration::from_secs(10);

/// How many keys are remembered; when full, all are forgotten at once, which costs one lookup each.
const CACHE_MAX: usize = 4_096;

/// How often the store is asked which tenants have changed.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Changes that are read at once.
const PAGE: u32 = 256;

/// Lookups at once; more wait. The store has few connections that read, and others need them too.
const LOOKUPS_MAX: usize = 16;

/// Finds tenants by their keys. Cheap to clone.
#[derive(Clone)]
pub struct Tenants(Arc<Inner>);

struct Inner {
    store: SharedStore,
    hub: Arc<Hub>,
    demo_key: DemoKey,
    cache: Mutex<Cache>,
    lookups: Semaphore,
    /// The last change that was taken note of; held while changes are read.
    seen: tokio::sync::Mutex<i64>,
}

#[derive(Default)]
struct Cache {
    known: HashMap<KeyHash, Known>,
    /// Counts what was forgotten, so that a lookup that began before is not remembered after.
    forgotten: u64,
}

struct Known {
    tenant: Arc<Tenant>,
    until: Instant,
}

impl Tenants {
    /// Over the tenants of `store`, whose sockets are those of `hub`.
    pub fn new(store: SharedStore, hub: Arc<Hub>, demo_key: DemoKey) -> Self {
        Self(Arc::new(Inner {
            store,
            hub,
            demo_key,
            cache: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
            seen: tokio::sync::Mutex::new(0),
        }))
    }

    /// The tenant that `key` belongs to, also a disabled one. Only what was found is remembered, so a new key works at
    /// once.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, key: &KeyHash) -> Result<Option<Arc<Tenant>>, StoreError> {
        if self.0.demo_key == DemoKey::Refused && *key == KeyHash::of(DEMO_KEY) {
            return Ok(None);
        }
        if let Some(tenant) = self.remembered(key) {
            return Ok(Some(tenant));
        }
        // It is never closed. Who waited may find what another has looked up meanwhile.
        let _turn = self.0.lookups.acquire().await;
        if let Some(tenant) = self.remembered(key) {
            return Ok(Some(tenant));
        }
        let forgotten = self.cache().forgotten;
        let found = self.0.store.tenant_by_key_hash(key).await?.map(Arc::new);
        if let Some(tenant) = &found {
            self.remember(key.clone(), Arc::clone(tenant), forgotten);
        }
        Ok(found)
    }

    /// Whether the key was right before, however long ago, and nothing is known against it.
    pub fn has_met(&self, key: &KeyHash) -> bool {
        self.cache().known.contains_key(key)
    }

    /// Takes note of what has changed, at its beat, until `cancelled`.
    pub async fn watch(&self, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(REFRESH_EVERY) => self.catch_up().await,
            }
        }
    }

    /// Takes note of every change of a tenant since the last time. While the store is away it is left for the next time,
    /// and nothing is believed for longer than [`CACHE_FOR`].
    pub async fn catch_up(&self) {
        if let Err(error) = self.refresh().await {
            // Those whose work it stops say so, too.
            tracing::debug!(%error, "changes of tenants could not be read");
        }
    }

    /// After a failure it is all read again the next time.
    async fn refresh(&self) -> Result<(), StoreError> {
        let mut seen = self.0.seen.lock().await;
        let mut upto = *seen;
        loop {
            let changed = self.0.store.changed_tenants(upto, PAGE).await?;
            for tenant in &changed {
                self.forget(tenant, *seen);
                upto = tenant.version;
            }
            if changed.len() < PAGE as usize {
                *seen = upto;
                return Ok(());
            }
        }
    }

    /// First what is believed of it, then its sockets: who connects meanwhile asks again and is not believed.
    fn forget(&self, tenant: &Tenant, seen: i64) {
        let mut cache = self.cache();
        cache.known.retain(|_, known| known.tenant.id != tenant.id);
        cache.forgotten += 1;
        drop(cache);
        if tenant.disabled_at_ms.is_some() || tenant.key_version > seen {
            let sockets = self.0.hub.revoke(&tenant.id);
            tracing::info!(tenant = %tenant.id, sockets, "a key opens nothing any more, its sockets are closed");
        }
    }

    fn remembered(&self, key: &KeyHash) -> Option<Arc<Tenant>> {
        let cache = self.cache();
        cache.known.get(key).filter(|known| Instant::now() < known.until).map(|known| Arc::clone(&known.tenant))
    }

    fn remember(&self, key: KeyHash, tenant: Arc<Tenant>, forgotten: u64) {
        let mut cache = self.cache();
        if cache.forgotten != forgotten {
            return;
        }
        if cache.known.len() >= CACHE_MAX {
            cache.known.clear();
        }
        cache.known.insert(key, Known { tenant, until: Instant::now() + CACHE_FOR });
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
