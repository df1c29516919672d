//! The receiving side: what comes from Redis is put in its place, or marked as missing, on its way into the ring.
//!
//! It runs within the connection's own task, so there is no queue between the socket and the ring: a replica that cannot
//! keep up with Redis stops reading, Redis ends the connection at its `client-output-buffer-limit`, and that is a gap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    GAPS, GapReason, Gapped, IGNORED, IgnoreReason, IgnoredFor,
    wire::{self, Body, Header, Kind},
};
use crate::bus::{BusItem, Ring};

/// Processes whose numbers are kept. More than ever share one Redis, and a bound against a stranger who invents them.
const PEERS_MAX: usize = 1_024;

/// What is ignored is told at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Shared by the bus and its connection; clones are the same inbox.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Mutex<State>>);

struct State {
    ring: Ring,
    event_bytes_max: usize,
    /// This process.
    me: Uuid,
    /// The connection that counts; what an older one still brings is late.
    epoch: u64,
    /// Events were missed for a time that nobody knows the number of; said before the next message.
    is_gap_due: bool,
    /// Something has come, so somebody may believe that all of it does.
    has_heard: bool,
    /// The last number of each process.
    peers: HashMap<Uuid, Peer>,
    /// When a message of our own last came back.
    heard: Instant,
    ignored: Ignored,
}

struct Peer {
    epoch: u64,
    n: u64,
    heard: Instant,
}

#[derive(Default)]
struct Ignored {
    untold: u64,
    told: Option<Instant>,
}

/// Where a message belongs.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Behind so many events that did not come.
    After { missed: u64 },
    /// Of a connection that its sender has given up: its caller was told that it failed, and tries again.
    Late,
}

impl Inbox {
    pub fn new(ring: Ring, me: Uuid, event_bytes_max: usize) -> Self {
        IgnoreReason::ALL.into_iter().for_each(|reason| IGNORED.born(IgnoredFor { reason }));
        GapReason::ALL.into_iter().for_each(|reason| GAPS.born(Gapped { reason }));
        Self(Arc::new(Mutex::new(State {
            ring,
            event_bytes_max,
            me,
            epoch: 0,
            is_gap_due: false,
            has_heard: false,
            peers: HashMap::new(),
            heard: Instant::now(),
            ignored: Ignored::default(),
        })))
    }

    /// From now on only a new connection counts, which is yet to be made; returns its epoch. `missing` says whether
    /// anybody can miss anything until it is subscribed; whoever has heard something can.
    pub fn begin(&self, missing: Missing) -> u64 {
        let mut state = self.state();
        state.epoch += 1;
        state.is_gap_due |= missing == Missing::Perhaps || state.has_heard;
        // All of it lies before the gap. Of ourselves we know the first number.
        let (me, epoch, heard) = (state.me, state.epoch, Instant::now());
        state.peers.clear();
        state.peers.insert(me, Peer { epoch, n: 0, heard });
        epoch
    }

    /// The connection is subscribed: silence counts from here.
    pub fn subscribed(&self) {
        self.state().heard = Instant::now();
    }

    /// When a message of our own last came back.
    pub fn heard(&self) -> Instant {
        self.state().heard
    }

    /// Takes what the connection of `epoch` received.
    pub fn receive(&self, epoch: u64, payload: &[u8]) {
        let event_bytes_max = self.state().event_bytes_max;
        // Not under the lock: it is the longest part.
        let message = wire::decode(payload, event_bytes_max);
        let mut state = self.state();
        if state.epoch != epoch {
            return;
        }
        match message {
            Ok((header, body)) => state.take(header, body, payload.len()),
            Err(garbage) => state.ignore(garbage.reason()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step under the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the next subscription says about the time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The process has only just started, and nobody can have heard anything.
    Nothing,
    /// There was a time without a subscription.
    Perhaps,
}

impl State {
    fn take(&mut self, header: Header, body: Body, bytes: usize) {
        let missed = match self.place(header) {
            Place::Late => return self.ignore(IgnoreReason::Late),
            Place::After { missed } => missed,
        };
        self.has_heard = true;
        if std::mem::take(&mut self.is_gap_due) {
            self.gap(1, GapReason::Reconnected);
        }
        if missed > 0 {
            self.gap(missed, GapReason::Missing);
        }
        match body {
            Body::Event(event) => self.ring.push(BusItem::Event(Arc::new(*event)), bytes),
            Body::Probe(id) if header.from == self.me => self.ring.push(BusItem::Probe(id), size_of::<BusItem>()),
            Body::Probe(_) | Body::Beat => {}
            Body::Unreadable => {
                self.ignore(IgnoreReason::Unreadable);
                if header.kind == Kind::Event {
                    self.gap(1, GapReason::Unreadable);
                }
            }
        }
    }

    /// Notes the number of a message. Somebody heard for the first time since we subscribed may begin with any.
    fn place(&mut self, Header { from, epoch, n, kind }: Header) -> Place {
        let now = Instant::now();
        if from == self.me {
            if epoch != self.epoch {
                return Place::Late;
            }
            self.heard = now;
        }
        self.make_room(from);
        // What was counted before this message.
        let before = if kind == Kind::Event { n.saturating_sub(1) } else { n };
        let peer = self.peers.entry(from).or_insert(Peer { epoch, n: before, heard: now });
        if epoch < peer.epoch || (epoch == peer.epoch && before < peer.n) {
            return Place::Late;
        }
        // A new connection of somebody we know counts from the beginning.
        let known = if epoch == peer.epoch { peer.n } else { 0 };
        *peer = Peer { epoch, n, heard: now };
        Place::After { missed: before - known }
    }

    /// Forgets whoever was silent the longest, if there are too many.
    fn make_room(&mut self, from: Uuid) {
        if self.peers.len() < PEERS_MAX || self.peers.contains_key(&from) {
            return;
        }
        let others = self.peers.iter().filter(|(id, _)| **id != self.me);
        if let Some(silent) = others.min_by_key(|(_, peer)| peer.heard).map(|(id, _)| *id) {
            self.peers.remove(&silent);
        }
    }

    fn gap(&mut self, missed: u64, reason: GapReason) {
        GAPS.add(1, Gapped { reason });
        self.ring.push(BusItem::Gap { missed }, size_of::<BusItem>());
    }

    fn ignore(&mut self, reason: IgnoreReason) {
        IGNORED.add(1, IgnoredFor { reason });
        self.ignored.untold += 1;
        if self.ignored.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.ignored.told = Some(Instant::now());
            let messages = std::mem::take(&mut self.ignored.untold);
            tracing::warn!(
                messages,
                reason = reason.as_str(),
                "messages on the bus were ignored, the last one for this reason"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broadcast::testing::event,
        bus::{BusReceiver, RingLimits},
    };
    use serde_json::value::{RawValue, to_raw_value};

    const ME: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    /// An inbox that is subscribed for the first time, and somebody who reads from it.
    fn inbox() -> (Inbox, BusReceiver) {
        let ring = Ring::new(RingLimits { items_max: 100, bytes_max: 1 << 20 });
        let receiver = ring.subscribe();
        let inbox = Inbox::new(ring, ME, 10_000);
        inbox.begin(Missing::Nothing);
        (inbox, receiver)
    }

    fn message(from: Uuid, epoch: u64, n: u64, kind: Kind) -> Vec<u8> {
        let body = match kind {
            Kind::Event => to_raw_value(&event("demo", "t", &n.to_string())).unwrap(),
            Kind::Probe => to_raw_value(&Uuid::from_u128(n.into())).unwrap(),
            _ => RawValue::NULL.to_owned(),
        };
        wire::encode(Header { from, epoch, n, kind }, &body).unwrap().into_bytes()
    }

    /// What the receiver sees: the data of events, `gap N`, `probe`.
    fn seen(receiver: &mut BusReceiver) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv())
            .map(|item| match item {
                BusItem::Event(event) => event.data.as_str().unwrap().to_owned(),
                BusItem::Gap { missed } => format!("gap {missed}"),
                BusItem::Probe(_) => "probe".to_owned(),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_connection_that_broke_early_leaves_a_gap_behind_what_it_brought() {
        let (inbox, mut receiver) = inbox();
        inbox.begin(Missing::Nothing);
        inbox.receive(2, &message(OTHER, 1, 1, Kind::Event));
        assert_eq!(seen(&mut receiver), ["1"], "the one before it brought nothing");
        inbox.begin(Missing::Nothing);
        inbox.receive(3, &message(OTHER, 1, 3, Kind::Event));
        assert_eq!(seen(&mut receiver), ["gap 1", "3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_that_are_missing_are_a_gap_of_that_many_in_their_place() {
        let (inbox, mut receiver) = inbox();
        for n in [5, 6, 9] {
            inbox.receive(1, &message(OTHER, 1, n, Kind::Event));
        }
        assert_eq!(seen(&mut receiver), ["5", "6", "gap 2", "9"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_loss_of_the_last_events_shows_with_the_next_beat() {
        let (inbox, mut receiver) = inbox();
        inbox.receive(1, &message(OTHER, 1, 1, Kind::Event));
        inbox.receive(1, &message(OTHER, 1, 1, Kind::Beat));
        assert_eq!(seen(&mut receiver), ["1"]);
        inbox.receive(1, &message(OTHER, 1, 4, Kind::Beat));
        inbox.receive(1, &message(OTHER, 1, 5, Kind::Event));
        assert_eq!(seen(&mut receiver), ["gap 3", "5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_connects_anew_counts_from_one_and_what_was_under_way_before_is_late() {
        let (inbox, mut receiver) = inbox();
        inbox.receive(1, &message(OTHER, 1, 7, Kind::Event));
        inbox.receive(1, &message(OTHER, 2, 0, Kind::Beat));
        inbox.receive(1, &message(OTHER, 1, 8, Kind::Event));
        inbox.receive(1, &message(OTHER, 2, 1, Kind::Event));
        inbox.receive(1, &message(OTHER, 2, 1, Kind::Event));
        inbox.receive(1, &message(OTHER, 3, 2, Kind::Event));
        assert_eq!(seen(&mut receiver), ["7", "1", "gap 1", "2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_subscription_marks_one_gap_before_the_first_message_and_starts_all_numbers_anew() {
        let (inbox, mut receiver) = inbox();
        inbox.receive(1, &message(OTHER, 1, 1, Kind::Event));
        assert_eq!(inbox.begin(Missing::Perhaps), 2);
        assert_eq!(inbox.begin(Missing::Perhaps), 3);
        inbox.receive(3, &message(OTHER, 1, 40, Kind::Event));
        inbox.receive(3, &message(ME, 3, 1, Kind::Event));
        assert_eq!(seen(&mut receiver), ["1", "gap 1", "40", "1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_older_connection_still_brings_is_dropped_whoever_sent_it() {
        let (inbox, mut receiver) = inbox();
        inbox.begin(Missing::Nothing);
        inbox.receive(1, &message(OTHER, 1, 1, Kind::Event));
        inbox.receive(2, &message(ME, 1, 1, Kind::Event));
        assert_eq!(seen(&mut receiver), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn only_messages_of_our_own_prove_the_path() {
        let (inbox, mut receiver) = inbox();
        let start = inbox.heard();
        tokio::time::advance(Duration::from_secs(1)).await;
        inbox.receive(1, &message(OTHER, 1, 0, Kind::Beat));
        inbox.receive(1, &message(OTHER, 1, 0, Kind::Probe));
        inbox.receive(1, b"garbage");
        assert_eq!((inbox.heard(), seen(&mut receiver)), (start, vec![]));
        inbox.receive(1, &message(ME, 1, 0, Kind::Probe));
        assert_eq!((inbox.heard(), seen(&mut receiver)), (Instant::now(), vec!["probe".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_cannot_be_read_is_a_gap_and_garbage_is_nothing() {
        let (inbox, mut receiver) = inbox();
        inbox.receive(1, &message(OTHER, 1, 1, Kind::Event));
        let newer = String::from_utf8(message(OTHER, 1, 2, Kind::Event)).unwrap().replacen("\"v\":1", "\"v\":2", 1);
        inbox.receive(1, newer.as_bytes());
        inbox.receive(1, b"{}");
        inbox.receive(1, &vec![b'x'; 100_000]);
        inbox.receive(1, &message(OTHER, 1, 3, Kind::Event));
        assert_eq!(seen(&mut receiver), ["1", "gap 1", "3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_invents_processes_takes_no_more_room_than_there_is() {
        let (inbox, mut receiver) = inbox();
        for stranger in 0..PEERS_MAX as u128 * 3 {
            inbox.receive(1, &message(Uuid::from_u128(1_000 + stranger), 1, 0, Kind::Beat));
        }
        assert_eq!(inbox.state().peers.len(), PEERS_MAX);
        inbox.receive(1, &message(ME, 1, 2, Kind::Event));
        assert_eq!(seen(&mut receiver), ["gap 1", "2"], "our own numbers are never forgotten");
    }
}
