//! Mailboxes: how many messages wait in ractor's own, and the one that outlives an incarnation.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
};

use ractor::{ActorRef, Message, MessagingErr};

/// Set in the number of messages sent when the incarnation has ended and its losses are counted.
const ENDED: usize = 1 << (usize::BITS - 1);

/// The largest capacity: an ended mailbox looks as if more were waiting.
pub(crate) const CAPACITY_MAX: usize = ENDED - 1;

/// The messages of one incarnation that were sent and not yet taken. Two counters, because only the actor writes the second:
/// it costs no locked operation.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    sent: AtomicUsize,
    taken: AtomicUsize,
}

impl Mailbox {
    /// The actor took a message. Never more than were sent, because messages around the address are not counted in.
    #[inline]
    pub(crate) fn taken(&self) {
        let taken = self.taken.load(Relaxed);
        if taken < self.sent.load(Relaxed) {
            self.taken.store(taken + 1, Relaxed);
        }
    }

    /// Counts one message in; false if `capacity` messages are waiting, or the incarnation has ended.
    #[inline]
    pub(crate) fn admit(&self, capacity: usize) -> bool {
        let counted = |sent: usize| (sent.saturating_sub(self.taken.load(Relaxed)) < capacity).then_some(sent + 1);
        self.sent.fetch_update(Relaxed, Relaxed, counted).is_ok()
    }

    /// Counts one out that was admitted and that ractor did not take. False if the end came first: then it is among the lost.
    #[cold]
    pub(crate) fn give_back(&self) -> bool {
        self.sent.fetch_update(Relaxed, Relaxed, |sent| (sent & ENDED == 0).then(|| sent.saturating_sub(1))).is_ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.sent.load(Relaxed) & ENDED != 0
    }

    /// The incarnation is gone: admits no more, and says how many were never taken. Once only; after that none.
    pub(crate) fn end(&self) -> usize {
        let sent = self.sent.fetch_or(ENDED, AcqRel);
        if sent & ENDED != 0 { 0 } else { sent.saturating_sub(self.taken.load(Relaxed)) }
    }

    pub(crate) fn waiting(&self) -> usize {
        (self.sent.load(Relaxed) & !ENDED).saturating_sub(self.taken.load(Relaxed))
    }
}

/// The mailbox that outlives an incarnation. It hands ractor one message at a time, so that the others are still here when
/// the incarnation ends.
pub(crate) struct KeptMailbox<M> {
    capacity: usize,
    /// The length of the queue as of the last change: senders that find it full do not contend with the actor.
    queued: AtomicUsize,
    state: Mutex<Kept<M>>,
}

struct Kept<M> {
    queue: VecDeque<M>,
    phase: Phase<M>,
}

enum Phase<M> {
    /// Nothing takes messages, and nothing will.
    Down,
    /// Nothing takes messages now.
    Closed,
    /// An incarnation takes messages.
    Open(Open<M>),
}

struct Open<M> {
    actor: ActorRef<M>,
    mailbox: Arc<Mailbox>,
    /// It has a message of ours, in ractor's mailbox or in hand.
    is_busy: bool,
}

/// Why a kept mailbox did not take a message.
pub(crate) enum Refused<M> {
    Down(M),
    Full(M),
}

impl<M: Message> KeptMailbox<M> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = Kept { queue: VecDeque::new(), phase: Phase::Down };
        Self { capacity, queued: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// Hands the message to an idle incarnation, or lets it wait.
    pub(crate) fn send(&self, message: M) -> Result<(), Refused<M>> {
        let queued = self.queued.load(Relaxed);
        if queued > 0 && queued >= self.capacity {
            return Err(Refused::Full(message));
        }
        let mut kept = self.lock();
        if matches!(kept.phase, Phase::Down) {
            return Err(Refused::Down(message));
        }
        if kept.queue.len() >= self.capacity {
            return Err(Refused::Full(message));
        }
        kept.queue.push_back(message);
        if !kept.is_busy() {
            kept.feed();
        }
        self.changed(&kept);
        Ok(())
    }

    /// An incarnation serves from now on, unless it was told to stop meanwhile.
    pub(crate) fn open(&self, actor: ActorRef<M>, mailbox: Arc<Mailbox>) {
        let mut kept = self.lock();
        if matches!(kept.phase, Phase::Closed) {
            kept.phase = Phase::Open(Open { actor, mailbox, is_busy: false });
            kept.feed();
            self.changed(&kept);
        }
    }

    /// The incarnation has handled a message: the next one is due. Not inlined, so that the ordinary path stays small.
    #[inline(never)]
    pub(crate) fn handled(&self) {
        let mut kept = self.lock();
        if kept.is_busy() {
            kept.feed();
            self.changed(&kept);
        }
    }

    /// The incarnation has ended, or is about to: what waits is for the next one.
    pub(crate) fn close(&self) {
        let mut kept = self.lock();
        if !matches!(kept.phase, Phase::Down) {
            kept.phase = Phase::Closed;
        }
    }

    /// An incarnation is due.
    pub(crate) fn expect_next(&self) {
        self.lock().phase = Phase::Closed;
    }

    /// There will be no further incarnation. Returns what waits, the oldest first.
    #[must_use = "these are dead letters"]
    pub(crate) fn go_down(&self) -> VecDeque<M> {
        let mut kept = self.lock();
        kept.phase = Phase::Down;
        let waiting = std::mem::take(&mut kept.queue);
        self.changed(&kept);
        waiting
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// The queue is another; called under its lock.
    fn changed(&self, kept: &Kept<M>) {
        self.queued.store(kept.queue.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Kept<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Message> Kept<M> {
    fn is_busy(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.is_busy)
    }

    fn waiting(&self) -> usize {
        let handed_over = match &self.phase {
            Phase::Open(open) => open.mailbox.waiting(),
            Phase::Down | Phase::Closed => 0,
        };
        self.queue.len() + handed_over
    }

    /// Hands the oldest message to the incarnation, which is idle.
    fn feed(&mut self) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(message) = self.queue.pop_front() else {
            open.is_busy = false;
            return;
        };
        open.is_busy = true;
        // At most one is in ractor's mailbox: always below this.
        open.mailbox.admit(CAPACITY_MAX);
        if let Err(MessagingErr::SendErr(message)) = open.actor.send_message(message) {
            open.mailbox.give_back();
            self.queue.push_front(message);
            self.phase = Phase::Closed;
        }
    }
}

impl<M> fmt::Debug for KeptMailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptMailbox").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_admits_no_more_than_fit_and_forgets_messages_around_it() {
        let mailbox = Mailbox::default();
        mailbox.taken();
        assert!(mailbox.admit(2) && mailbox.admit(2) && !mailbox.admit(2));
        assert_eq!(mailbox.waiting(), 2);
        for _ in 0..3 {
            mailbox.taken();
        }
        assert_eq!(mailbox.waiting(), 0);
        assert!(mailbox.admit(1) && !mailbox.admit(1));
    }

    #[test]
    fn an_ended_mailbox_admits_nothing_and_tells_its_losses_once() {
        let mailbox = Mailbox::default();
        assert!((0..4).all(|_| mailbox.admit(CAPACITY_MAX)));
        mailbox.taken();
        assert!(mailbox.give_back());
        assert!(!mailbox.has_ended());
        assert_eq!((mailbox.end(), mailbox.end()), (2, 0));
        assert!(mailbox.has_ended() && !mailbox.admit(CAPACITY_MAX));
    }

    #[test]
    fn what_comes_back_after_the_losses_are_counted_is_one_of_them() {
        let mailbox = Mailbox::default();
        assert!(mailbox.admit(1));
        assert_eq!(mailbox.end(), 1);
        assert!(!mailbox.give_back());
    }

    #[test]
    fn a_kept_mailbox_takes_messages_while_an_incarnation_is_due_and_hands_them_out_in_order() {
        let kept = KeptMailbox::new(2);
        assert!(matches!(kept.send(1), Err(Refused::Down(1))));
        kept.expect_next();
        assert!(kept.send(1).is_ok() && kept.send(2).is_ok());
        assert!(matches!(kept.send(3), Err(Refused::Full(3))));
        kept.close();
        assert_eq!(kept.waiting(), 2);
        assert_eq!(kept.go_down(), [1, 2]);
        kept.close();
        assert!(matches!(kept.send(3), Err(Refused::Down(3))));
    }
}
