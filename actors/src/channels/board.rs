//! How each channel in use is doing. It outlives the actors that write it, so the restart of one of them forgets no
//! failure, and it is read by the health sweep without asking anybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::model::TenantId;
use crate::outbound::breaker::{Breaker, BreakerSettings, Permit};

telemetry::declare_metrics! {
    /// Deliveries under way now.
    pub static IN_FLIGHT: UpDownCounter = ("channel.delivery.in_flight", "{delivery}");
}

/// The channels in use. Cheap to clone; all clones see the same. Bounded by the channel manager, which forgets a channel
/// when it stops its actor.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: BreakerSettings,
    entries: Mutex<HashMap<Uuid, Entry>>,
}

/// How many there are, and how many of them are failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Channels in use.
    pub in_use: usize,
    /// Channels whose breaker is open.
    pub open: usize,
}

/// A channel whose breaker is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBreaker {
    /// Whose channel it is.
    pub tenant: TenantId,
    /// The channel.
    pub channel: Uuid,
    /// For how long it has been open.
    pub open_for: Duration,
}

impl Board {
    /// An empty board whose channels get breakers of these settings.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self(Arc::new(Inner { settings, entries: Mutex::default() }))
    }

    /// The entry of a tenant's channel, made if there is none.
    #[must_use]
    pub fn entry(&self, tenant: &TenantId, channel: Uuid) -> Entry {
        let new = || Entry::new(tenant.clone(), self.0.settings);
        lock(&self.0.entries).entry(channel).or_insert_with(new).clone()
    }

    /// The entry of a channel, if it is in use.
    #[must_use]
    pub fn find(&self, channel: Uuid) -> Option<Entry> {
        lock(&self.0.entries).get(&channel).cloned()
    }

    /// Closes the breaker of a channel, if it is in use.
    pub fn forgive(&self, channel: Uuid) {
        if let Some(entry) = self.find(channel) {
            entry.succeeded();
        }
    }

    /// Forgets a channel that is no longer in use.
    pub fn forget(&self, channel: Uuid) {
        lock(&self.0.entries).remove(&channel);
    }

    /// Counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let entries = lock(&self.0.entries);
        Tally { in_use: entries.len(), open: entries.values().filter(|entry| entry.is_open()).count() }
    }

    /// Those whose breaker has been open for the longest, the longest first, at most `limit`.
    #[must_use]
    pub fn longest_open(&self, limit: usize) -> Vec<OpenBreaker> {
        let open = |(channel, entry): (&Uuid, &Entry)| {
            let open_for = lock(&entry.0.breaker).open_for()?;
            Some(OpenBreaker { tenant: entry.0.tenant.clone(), channel: *channel, open_for })
        };
        let mut all: Vec<_> = lock(&self.0.entries).iter().filter_map(open).collect();
        all.sort_by(|a, b| b.open_for.cmp(&a.open_for).then(a.channel.cmp(&b.channel)));
        all.truncate(limit);
        all
    }
}

/// One channel in use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entry(Arc<EntryInner>);

#[derive(Debug)]
struct EntryInner {
    tenant: TenantId,
    breaker: Mutex<Breaker>,
    in_flight: AtomicUsize,
}

impl Entry {
    fn new(tenant: TenantId, settings: BreakerSettings) -> Self {
        Self(Arc::new(EntryInner {
            tenant,
            breaker: Mutex::new(Breaker::new(settings)),
            in_flight: AtomicUsize::new(0),
        }))
    }

    /// How many more deliveries may be sent now, if `in_flight_max` may be under way at a time.
    #[must_use]
    pub fn room(&self, in_flight_max: usize) -> usize {
        let allowed = match lock(&self.0.breaker).permit() {
            Permit::All => in_flight_max,
            Permit::One => 1,
            Permit::NoneFor(_) => 0,
        };
        allowed.saturating_sub(self.in_flight())
    }

    /// Deliveries under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// One more is under way, until the guard is dropped, whatever becomes of it.
    #[must_use = "the delivery counts as under way until this is dropped"]
    pub fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        IN_FLIGHT.add(1, ());
        InFlight(self.clone())
    }

    /// The receiver said OK.
    pub fn succeeded(&self) {
        lock(&self.0.breaker).succeeded();
    }

    /// The receiver failed.
    pub fn failed(&self) {
        lock(&self.0.breaker).failed();
    }

    /// True while the breaker is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        lock(&self.0.breaker).is_open()
    }
}

/// Guard of [`Entry::begin`].
#[derive(Debug)]
pub struct InFlight(Entry);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        IN_FLIGHT.add(-1, ());
    }
}

/// Nothing is left half done under these locks, so a panic of a holder spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("demo").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn room_shrinks_with_what_is_under_way_and_with_the_breaker() {
        let board = Board::new(BreakerSettings { failures_max: 2, open_for: Duration::from_secs(10) });
        let entry = board.entry(&tenant(), Uuid::nil());
        assert_eq!(entry.room(4), 4);
        let first = entry.begin();
        assert_eq!(entry.room(4), 3);

        entry.failed();
        entry.failed();
        assert_eq!(entry.room(4), 0);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(entry.room(4), 0, "the probe waits for what is still under way");
        drop(first);
        assert_eq!(entry.room(4), 1);
        entry.succeeded();
        assert_eq!(entry.room(4), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_counted_until_it_is_forgotten() {
        let board = Board::new(BreakerSettings { failures_max: 1, ..BreakerSettings::default() });
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        board.entry(&tenant(), a).failed();
        board.entry(&tenant(), b).succeeded();
        assert_eq!(board.tally(), Tally { in_use: 2, open: 1 });
        board.forgive(a);
        board.forgive(Uuid::from_u128(3));
        assert_eq!(board.tally(), Tally { in_use: 2, open: 0 });
        board.entry(&tenant(), a).failed();
        board.forget(a);
        assert_eq!(board.tally(), Tally { in_use: 1, open: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_been_open_for_the_longest_come_first_and_no_more_than_wanted() {
        let board = Board::new(BreakerSettings { failures_max: 1, ..BreakerSettings::default() });
        let ids = [3, 1, 2].map(Uuid::from_u128);
        for id in ids {
            board.entry(&tenant(), id).failed();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        board.entry(&tenant(), Uuid::from_u128(4)).succeeded();
        let open = |channel, s| OpenBreaker { tenant: tenant(), channel, open_for: Duration::from_secs(s) };
        assert_eq!(board.longest_open(2), [open(ids[0], 3), open(ids[1], 2)]);
        assert_eq!(board.longest_open(9).len(), 3);
    }
}
