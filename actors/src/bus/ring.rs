//! A bounded ring with a cursor for each receiver: the queue behind every bus.
//!
//! A channel of the runtime would bound the number of events but not their bytes, and events come in all sizes. So the
//! ring counts both, throws away the oldest when either is too much, and every receiver that had not read them learns
//! how many it missed. What all receivers have read is dropped at once; without receivers nothing is kept.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{BusItem, MISSED};

/// How much a ring may hold for the slowest of its receivers.
#[derive(Debug, Clone, Copy)]
pub struct RingLimits {
    /// Items.
    pub items_max: usize,
    /// Bytes, as counted by whoever pushes. One item may always be held, whatever its size.
    pub bytes_max: usize,
}

/// The sending side; clones share the ring. A driver of any backend pushes into one.
#[derive(Clone)]
pub struct Ring {
    shared: Arc<Mutex<State>>,
}

/// The receiving side, bounded by the ring's limits. Dropping it releases what only it had not read.
pub struct BusReceiver {
    shared: Arc<Mutex<State>>,
    /// Which cursor is ours.
    key: u64,
}

struct State {
    limits: RingLimits,
    /// Items with their bytes, oldest first.
    items: VecDeque<(BusItem, usize)>,
    bytes: usize,
    /// Events lost with what was dropped or evicted so far, since the beginning: an item counts as one, and a gap as
    /// what it stands for.
    passed: u64,
    /// Sequence number of `items[0]`; the next item to come has `first + items.len()`.
    first: u64,
    /// A handful at most (the relay, a ping), so a list is searched faster than any map.
    cursors: Vec<Cursor>,
    next_key: u64,
}

struct Cursor {
    key: u64,
    next: u64,
    /// `passed` of all before `next`.
    read: u64,
    waker: Option<Waker>,
}

impl Ring {
    /// An empty ring without receivers.
    pub fn new(limits: RingLimits) -> Self {
        let state =
            State { limits, items: VecDeque::new(), bytes: 0, passed: 0, first: 0, cursors: Vec::new(), next_key: 0 };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// Appends an item of `bytes` bytes for everyone who is subscribed now; evicts the oldest if that is too much.
    pub fn push(&self, item: BusItem, bytes: usize) {
        let wakers = lock(&self.shared).push(item, bytes);
        // Outside the lock: a woken receiver wants it at once.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A receiver of everything pushed from now on.
    pub fn subscribe(&self) -> BusReceiver {
        let mut state = lock(&self.shared);
        let key = state.next_key;
        state.next_key += 1;
        let next = state.first + state.items.len() as u64;
        let read = state.passed + state.items.iter().map(|(item, _)| weight(item)).sum::<u64>();
        state.cursors.push(Cursor { key, next, read, waker: None });
        BusReceiver { shared: Arc::clone(&self.shared), key }
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        lock(&self.shared).cursors.len()
    }

    /// Items and bytes held now for receivers that have not read them.
    pub fn held(&self) -> (usize, usize) {
        let state = lock(&self.shared);
        (state.items.len(), state.bytes)
    }
}

impl BusReceiver {
    /// The next item. Safe to cancel: an item is taken only when it is returned.
    pub async fn recv(&mut self) -> BusItem {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next item, or `None` if there is none at the moment.
    pub fn try_recv(&mut self) -> Option<BusItem> {
        lock(&self.shared).take(self.key)
    }

    /// As [`BusReceiver::recv`], for hand-written futures. Wakes the last caller only.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<BusItem> {
        let mut state = lock(&self.shared);
        match state.take(self.key) {
            Some(item) => Poll::Ready(item),
            None => {
                state.wait(self.key, cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for BusReceiver {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.cursors.retain(|cursor| cursor.key != self.key);
        state.drop_read();
    }
}

impl State {
    fn push(&mut self, item: BusItem, bytes: usize) -> Vec<Waker> {
        if self.cursors.is_empty() {
            return Vec::new();
        }
        self.items.push_back((item, bytes));
        self.bytes += bytes;
        while self.items.len() > 1 && (self.items.len() > self.limits.items_max || self.bytes > self.limits.bytes_max) {
            self.drop_oldest();
        }
        self.cursors.iter_mut().filter_map(|cursor| cursor.waker.take()).collect()
    }

    fn take(&mut self, key: u64) -> Option<BusItem> {
        let (first, passed) = (self.first, self.passed);
        let cursor = self.cursors.iter_mut().find(|cursor| cursor.key == key)?;
        if cursor.next < first {
            let missed = passed - cursor.read;
            (cursor.next, cursor.read) = (first, passed);
            MISSED.add(missed, ());
            return Some(BusItem::Gap { missed });
        }
        let (item, _) = self.items.get((cursor.next - first) as usize)?;
        let item = item.clone();
        cursor.next += 1;
        cursor.read += weight(&item);
        self.drop_read();
        Some(item)
    }

    fn wait(&mut self, key: u64, waker: &Waker) {
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.key == key) {
            match &mut cursor.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// Forgets what every receiver has read.
    fn drop_read(&mut self) {
        let end = self.first + self.items.len() as u64;
        let needed = self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(end);
        while self.first < needed && !self.items.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((item, bytes)) = self.items.pop_front() {
            self.bytes -= bytes;
            self.passed += weight(&item);
            self.first += 1;
        }
    }
}

/// How many events are missed with an item.
fn weight(item: &BusItem) -> u64 {
    match item {
        BusItem::Gap { missed } => *missed,
        BusItem::Event(_) | BusItem::Probe(_) => 1,
    }
}

/// A panic elsewhere never leaves the ring half changed (no step in it can panic), so a poisoned lock is as good as any.
fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn probe(n: u128) -> BusItem {
        BusItem::Probe(Uuid::from_u128(n))
    }

    fn ring(items_max: usize, bytes_max: usize) -> Ring {
        Ring::new(RingLimits { items_max, bytes_max })
    }

    #[test]
    fn every_receiver_sees_every_item_in_order() {
        let ring = ring(8, 1_000);
        let mut receivers = [ring.subscribe(), ring.subscribe()];
        (1..=3).for_each(|n| ring.push(probe(n), 10));
        for receiver in &mut receivers {
            assert_eq!([(); 4].map(|()| receiver.try_recv()), [Some(probe(1)), Some(probe(2)), Some(probe(3)), None]);
        }
        assert_eq!(ring.held(), (0, 0));
    }

    #[test]
    fn a_lagging_receiver_learns_how_many_items_it_missed_and_goes_on_with_the_oldest_kept() {
        let ring = ring(2, 1_000);
        let mut slow = ring.subscribe();
        (1..=5).for_each(|n| ring.push(probe(n), 1));
        assert_eq!(slow.try_recv(), Some(BusItem::Gap { missed: 3 }));
        assert_eq!([slow.try_recv(), slow.try_recv(), slow.try_recv()], [Some(probe(4)), Some(probe(5)), None]);
    }

    #[test]
    fn a_gap_that_is_missed_counts_as_what_it_stands_for() {
        let ring = ring(2, 1_000);
        let mut slow = ring.subscribe();
        ring.push(probe(1), 1);
        ring.push(BusItem::Gap { missed: 40 }, 1);
        let mut later = ring.subscribe();
        (2..=5).for_each(|n| ring.push(probe(n), 1));
        assert_eq!(slow.try_recv(), Some(BusItem::Gap { missed: 1 + 40 + 2 }));
        assert_eq!(later.try_recv(), Some(BusItem::Gap { missed: 2 }));
        assert_eq!([slow.try_recv(), slow.try_recv(), slow.try_recv()], [Some(probe(4)), Some(probe(5)), None]);
    }

    #[test]
    fn bytes_bound_the_ring_as_well_as_the_number_of_items() {
        let ring = ring(100, 100);
        let mut slow = ring.subscribe();
        (1..=4).for_each(|n| ring.push(probe(n), 40));
        assert_eq!(ring.held(), (2, 80));
        assert_eq!(slow.try_recv(), Some(BusItem::Gap { missed: 2 }));
    }

    #[test]
    fn without_receivers_nothing_is_kept() {
        let ring = ring(8, 1_000);
        ring.push(probe(1), 10);
        let only = ring.subscribe();
        ring.push(probe(2), 10);
        assert_eq!(ring.held(), (1, 10));
        drop(only);
        assert_eq!((ring.held(), ring.receivers()), ((0, 0), 0));
    }

    #[tokio::test]
    async fn a_waiting_receiver_is_woken_by_the_next_item() {
        let ring = ring(8, 1_000);
        let mut receiver = ring.subscribe();
        let (seen, ()) = tokio::join!(receiver.recv(), async { ring.push(probe(7), 1) });
        assert_eq!(seen, probe(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_receive_takes_nothing() {
        let ring = ring(8, 1_000);
        let mut receiver = ring.subscribe();
        let wait = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(wait, receiver.recv()).await.is_err());
        ring.push(probe(9), 1);
        assert_eq!(receiver.recv().await, probe(9));
    }
}
