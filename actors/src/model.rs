//! The words that every subsystem shares: tenant, event, time, and a wake-up call.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
pub use telemetry::context::TraceContext;
use tokio::sync::Notify;
use uuid::Uuid;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// Longest name of a tenant, in bytes.
pub const TENANT_ID_MAX: usize = 64;

/// The name of a tenant: 1 to 64 of `a-z`, `0-9`, `_` and `-`. It is safe in a label, a path and a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// Why a text is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tenant's name: expected 1 to 64 of a-z, 0-9, _ and -, got {given:?}")]
pub struct BadTenantId {
    /// The start of what was given, at most [`TENANT_ID_MAX`] characters.
    pub given: String,
}

impl TenantId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadTenantId`] when it is empty, longer than [`TENANT_ID_MAX`] or has a character outside `[a-z0-9_-]`.
    pub fn new(name: impl AsRef<str>) -> Result<Self, BadTenantId> {
        let name = name.as_ref();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if !name.is_empty() && name.len() <= TENANT_ID_MAX && name.bytes().all(allowed) {
            return Ok(Self(name.into()));
        }
        Err(BadTenantId { given: name.chars().take(TENANT_ID_MAX).collect() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantId {
    type Error = BadTenantId;

    fn try_from(name: String) -> Result<Self, BadTenantId> {
        Self::new(name)
    }
}

impl std::str::FromStr for TenantId {
    type Err = BadTenantId;

    fn from_str(name: &str) -> Result<Self, BadTenantId> {
        Self::new(name)
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> String {
        tenant.0.as_ref().to_owned()
    }
}

/// Something that happened for a tenant, on its way over the bus to whoever listens to the topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Constant over repeated publishing of the same fact, so that a receiver can drop the second one.
    pub id: Uuid,
    /// Whose event it is. No other tenant ever sees it.
    pub tenant: TenantId,
    /// What it is about; chosen by the tenant.
    pub topic: String,
    /// What happened, as the tenant gave it.
    pub data: serde_json::Value,
    /// The span that published it, and the trace in which it all began.
    pub context: TraceContext,
    /// When it was published.
    pub at_ms: Millis,
}

/// A new id: UUID version 7, so that ids sort by the time they were made.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// The time now, by the clock of this machine.
pub fn now_ms() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

/// Where the time of day comes from. It is given from outside, so that a test can move it.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start_ms: Millis) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start_ms))))
    }

    /// The time now.
    pub fn now_ms(&self) -> Millis {
        self.0.as_ref().map_or_else(now_ms, |manual| manual.load(Ordering::SeqCst))
    }

    /// Moves a manual clock, back if `by_ms` is negative. The clock of the machine is left alone.
    pub fn advance(&self, by_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

/// A wake-up call for one waiting loop. Any number of calls before it wakes are one call; none is lost.
#[derive(Debug, Clone, Default)]
pub struct Poke(Arc<Notify>);

impl Poke {
    /// A new one that nobody has called yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the loop, or lets its next wait return at once.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// Waits for a call. Safe to drop: a call that was not taken stays.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_name_is_short_and_plain() {
        for good in ["demo", "a", "tenant-7_x", &"x".repeat(TENANT_ID_MAX)] {
            assert_eq!(TenantId::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "Demo", "a b", "../etc", "ä", &"x".repeat(TENANT_ID_MAX + 1)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_bad_tenant_name_is_refused_by_serde_too() {
        let refused = serde_json::from_str::<TenantId>("\"No Such\"").unwrap_err().to_string();
        assert!(refused.starts_with("not a tenant's name"), "{refused}");
    }

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let ids: Vec<Uuid> = (0..1000).map(|_| new_id()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let other = clock.clone();
        other.advance(500);
        assert_eq!(clock.now_ms(), 1_500);
    }

    #[tokio::test]
    async fn pokes_before_the_wait_are_one_poke() {
        let poke = Poke::new();
        poke.poke();
        poke.poke();
        poke.wait().await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(10), poke.wait()).await;
        assert!(second.is_err());
    }
}
