//! Which channels have an actor, and since when it has had nothing to do. It outlives the dispatcher, whose restart must
//! not orphan the actors that are at work.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use supervision::Address;
use tokio::time::Instant;
use uuid::Uuid;

use super::courier::Word;
use crate::model::TenantId;

/// Messages that may wait for one courier: one wake is as good as ten.
const MAILBOX_MAX: usize = 16;

/// The seats of the channels in use.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<BTreeMap<Uuid, Seat>>);

#[derive(Debug)]
struct Seat {
    tenant: TenantId,
    address: Address<Word>,
    used: Instant,
}

/// Who may sit down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Seats in all.
    pub(super) all: usize,
    /// Seats for one tenant.
    pub(super) tenant: usize,
}

/// What became of a request for a seat.
#[derive(Debug)]
pub(super) enum Seated {
    /// It has one already.
    Before(Address<Word>),
    /// It has just got one: its actor must be started.
    Now(Address<Word>),
    /// There is none left.
    Full,
}

impl Roster {
    /// Gives `channel` a seat, or notes that its seat is in use.
    pub(super) fn seat(&self, channel: Uuid, tenant: &TenantId, places: Places) -> Seated {
        let mut seats = self.seats();
        if let Some(seat) = seats.get_mut(&channel) {
            seat.used = Instant::now();
            return Seated::Before(seat.address.clone());
        }
        let of_tenant = seats.values().filter(|seat| seat.tenant == *tenant).count();
        if seats.len() >= places.all || of_tenant >= places.tenant {
            return Seated::Full;
        }
        let address = Address::with_capacity("channel", MAILBOX_MAX);
        seats.insert(channel, Seat { tenant: tenant.clone(), address: address.clone(), used: Instant::now() });
        Seated::Now(address)
    }

    /// Channels whose seat was not used for `idle_after`, and since when.
    pub(super) fn idle(&self, idle_after: Duration) -> Vec<(Uuid, Duration)> {
        let seats = self.seats();
        let rested = seats.iter().map(|(channel, seat)| (*channel, seat.used.elapsed()));
        rested.filter(|(_, rested)| *rested >= idle_after).collect()
    }

    /// Takes a seat away.
    pub(super) fn remove(&self, channel: Uuid) {
        self.seats().remove(&channel);
    }

    /// Channels with a seat.
    pub(super) fn channels(&self) -> Vec<Uuid> {
        self.seats().keys().copied().collect()
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<Uuid, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places { all: 3, tenant: 2 };

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn channel(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[tokio::test(start_paused = true)]
    async fn one_tenant_cannot_take_all_seats() {
        let roster = Roster::default();
        for n in 0..2 {
            assert!(matches!(roster.seat(channel(n), &tenant("a"), PLACES), Seated::Now(_)));
        }
        assert!(matches!(roster.seat(channel(2), &tenant("a"), PLACES), Seated::Full));
        assert!(matches!(roster.seat(channel(3), &tenant("b"), PLACES), Seated::Now(_)));
        assert!(matches!(roster.seat(channel(4), &tenant("c"), PLACES), Seated::Full));
        roster.remove(channel(0));
        assert!(matches!(roster.seat(channel(4), &tenant("c"), PLACES), Seated::Now(_)));
        assert_eq!(roster.channels(), [channel(1), channel(3), channel(4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_in_use_does_not_become_idle() {
        let roster = Roster::default();
        let idle_after = Duration::from_secs(60);
        for n in 0..2 {
            roster.seat(channel(n), &tenant("a"), PLACES);
        }
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(matches!(roster.seat(channel(0), &tenant("a"), PLACES), Seated::Before(_)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(roster.idle(idle_after), [(channel(1), idle_after)]);
    }
}
