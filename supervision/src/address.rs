//! A stable, typed address of an actor that survives its restarts.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use ractor::{ActorRef, Message, MessagingErr, RpcReplyPort, concurrency::oneshot};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    CallError, DeadLetter, Exit, LossReason, Path, SendError,
    dead_letter::{self, DeadLetters},
    hold::{Hold, Holder},
    mailbox::{CAPACITY_MAX, KeptMailbox, Mailbox, Refused},
};

telemetry::labels! {
    /// An actor, by its path.
    pub struct AtAddress<'a> { actor: &'a str }
}

telemetry::declare_metrics! {
    /// Messages refused because the actor's mailbox was at its limit.
    pub static REJECTED: Counter<AtAddress> = ("actor.mailbox.rejected", "{message}");
}

/// Messages that may wait for one actor unless [`Address::with_capacity`] says otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

/// The address of an actor, valid for as long as anyone holds it: each incarnation takes its place behind it.
///
/// It is that of one child at a time, from the child's first start until its supervisor forgets it: another that is
/// declared with the same address, in this tree or in a second one, does not start.
///
/// # What becomes of the messages that wait
///
/// | | the ordinary mailbox | a [kept](Address::keep_mailbox) one |
/// | --- | --- | --- |
/// | the actor fails and is started again | lost with the incarnation | they wait for the next one |
/// | it is stopped and started again, by hand or with its group | lost | they wait, but for one that was just handed over |
/// | it stops, finishes or gives up for good | lost | each is a dead letter, but for one that was just handed over |
/// | it is killed | lost | as above; the message in hand is lost |
/// | sent while the actor restarts | given back | waits |
/// | sent while it is down | given back | given back |
///
/// An actor whose supervisor ends has stopped for good, also if that supervisor is started again. The message in hand is lost
/// with its incarnation in any case: it may be what made it fail. What must not be lost at all belongs into the store.
///
/// Nothing is lost in silence: what is not accepted is given back at once; what was accepted and never handled is counted in
/// `actor.messages.lost`, and [`Address::on_dead_letter`] hears of it. Messages sent around the address, with ractor's own
/// `ActorRef`, neither count towards the limit nor as lost.
#[derive(Debug)]
pub struct Address<M> {
    cell: Arc<Cell<M>>,
    /// The incarnation this handle met first. While it lives, sending costs no locked read; most actors never fail.
    met: OnceLock<Arc<Up<M>>>,
}

#[derive(Debug)]
struct Cell<M> {
    name: String,
    /// Of the child that was first started with it: what is told of the address joins what is told of the child.
    label: OnceLock<Arc<str>>,
    capacity: usize,
    target: ArcSwap<Target<M>>,
    kept: Option<Arc<KeptMailbox<M>>>,
    dead_letters: DeadLetters<M>,
    holder: Holder,
}

impl<M> Cell<M> {
    fn label(&self) -> &str {
        self.label.get().map_or(&self.name, |label| label)
    }
}

#[derive(Debug)]
enum Target<M> {
    Up(Arc<Up<M>>),
    Restarting { due: Instant },
    Down,
}

#[derive(Debug)]
struct Up<M> {
    actor: ActorRef<M>,
    mailbox: Arc<Mailbox>,
    /// It is not the target any more.
    is_replaced: AtomicBool,
}

impl<M: Message> Address<M> {
    /// An address to be bound to an actor by [`ChildSpec::actor`](crate::ChildSpec::actor). `name` is for messages; its metrics
    /// bear the path of the child that is first started with it.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_capacity(name, DEFAULT_CAPACITY)
    }

    /// As [`Address::new`], with the most messages that may wait.
    pub fn with_capacity(name: impl Into<String>, capacity: usize) -> Self {
        Self::of(name.into(), capacity.min(CAPACITY_MAX), None, DeadLetters::none())
    }

    /// The same address with a mailbox that outlives each incarnation: messages that wait survive a restart in place, also by
    /// hand and with the actor's group, and while the actor restarts, sending lets them wait. They are handed to ractor one
    /// by one, when the one before is handled, so that a stop still comes between two messages.
    ///
    /// Such an actor is sent to through its address alone: each message around it, as those of ractor's timers, lets one that
    /// waits leave early, which is then lost if the actor fails.
    ///
    /// For an address that is new: clones made before lead to the one without.
    #[must_use]
    pub fn keep_mailbox(self) -> Self {
        let cell = &*self.cell;
        let kept = Some(Arc::new(KeptMailbox::new(cell.capacity)));
        Self::of(cell.name.clone(), cell.capacity, kept, cell.dead_letters.clone())
    }

    /// The same address with a hook for the messages that it had accepted and that are never handled. It is called by the
    /// supervisor of the actor, so it must be quick; a panic in it is recorded.
    ///
    /// For an address that is new: clones made before lead to the one without.
    #[must_use]
    pub fn on_dead_letter(self, hook: impl Fn(DeadLetter<M>) + Send + Sync + 'static) -> Self {
        let cell = &*self.cell;
        let kept = cell.kept.as_ref().map(|_| Arc::new(KeptMailbox::new(cell.capacity)));
        Self::of(cell.name.clone(), cell.capacity, kept, DeadLetters::to(hook))
    }

    fn of(name: String, capacity: usize, kept: Option<Arc<KeptMailbox<M>>>, dead_letters: DeadLetters<M>) -> Self {
        let target = ArcSwap::from_pointee(Target::Down);
        Self {
            cell: Arc::new(Cell {
                name,
                label: OnceLock::new(),
                capacity,
                target,
                kept,
                dead_letters,
                holder: Holder::default(),
            }),
            met: OnceLock::new(),
        }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// The message comes back if the actor is restarting, down or has too many messages waiting. A kept mailbox takes it
    /// also while the actor restarts.
    #[inline]
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        if let Some(kept) = &self.cell.kept {
            return self.send_to_kept(kept, message);
        }
        match self.met.get() {
            Some(up) if !up.is_replaced.load(Acquire) => self.deliver(up, message),
            _ => self.send_to_target(message),
        }
    }

    #[inline(never)]
    fn send_to_target(&self, message: M) -> Result<(), SendError<M>> {
        match &**self.cell.target.load() {
            Target::Up(up) => {
                let _first = self.met.get_or_init(|| Arc::clone(up));
                self.deliver(up, message)
            }
            Target::Restarting { due } => Err(SendError::Restarting { retry_after: until(*due), message }),
            Target::Down => Err(SendError::Down { message }),
        }
    }

    /// Not inlined, so that the ordinary path stays small.
    #[inline(never)]
    fn send_to_kept(&self, kept: &KeptMailbox<M>, message: M) -> Result<(), SendError<M>> {
        kept.send(message).map_err(|refused| match refused {
            Refused::Down(message) => SendError::Down { message },
            Refused::Full(message) => self.full(message),
        })
    }

    /// Sends what `message` makes of a reply port, and waits for the answer for `deadline` at most.
    ///
    /// # Errors
    /// As [`Address::try_send`]; [`CallError::Timeout`] after the deadline, [`CallError::Lost`] if the actor ended first.
    pub async fn call<R: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<R>) -> M,
        deadline: Duration,
    ) -> Result<R, CallError> {
        let (reply, answer) = oneshot();
        self.try_send(message(reply.into()))?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// Messages that wait for the running incarnation; in a kept mailbox also for the next one.
    pub fn waiting(&self) -> usize {
        if let Some(kept) = &self.cell.kept {
            return kept.waiting();
        }
        match &**self.cell.target.load() {
            Target::Up(up) => up.mailbox.waiting(),
            Target::Restarting { .. } | Target::Down => 0,
        }
    }

    /// True while an incarnation is running.
    pub fn is_up(&self) -> bool {
        matches!(&**self.cell.target.load(), Target::Up(_))
    }

    #[inline]
    fn deliver(&self, up: &Up<M>, message: M) -> Result<(), SendError<M>> {
        if !up.mailbox.admit(self.cell.capacity) {
            return Err(self.not_admitted(up, message));
        }
        match up.actor.send_message(message) {
            Ok(()) => Ok(()),
            Err(error) => not_taken(up, error),
        }
    }

    #[cold]
    fn not_admitted(&self, up: &Up<M>, message: M) -> SendError<M> {
        if up.mailbox.has_ended() { ended(message) } else { self.full(message) }
    }

    fn full(&self, message: M) -> SendError<M> {
        REJECTED.add(1, AtAddress { actor: self.cell.label() });
        SendError::Full { message }
    }

    pub(crate) fn bind(&self, actor: ActorRef<M>, mailbox: Arc<Mailbox>) {
        self.turn_to(Target::Up(Arc::new(Up { actor, mailbox, is_replaced: AtomicBool::new(false) })));
    }

    pub(crate) fn kept(&self) -> Option<Arc<KeptMailbox<M>>> {
        self.cell.kept.clone()
    }

    /// An incarnation is gone, and with it what was in its mailbox.
    pub(crate) fn incarnation_ended(&self, mailbox: &Mailbox, exit: &Exit) {
        if let Some(kept) = &self.cell.kept {
            kept.close();
        }
        self.cell.dead_letters.lost(self.cell.label(), mailbox.end(), exit.into());
    }

    /// It is that of the child with this label. Exports its counters as 0.
    pub(crate) fn belongs_to(&self, label: &Arc<str>) {
        let label = self.cell.label.get_or_init(|| Arc::clone(label));
        REJECTED.born(AtAddress { actor: label });
        dead_letter::bear_counters(label);
    }

    fn turn_to(&self, target: Target<M>) {
        if self.cell.target.load().says_no_less_than(&target) {
            return;
        }
        if let Target::Up(before) = &*self.cell.target.swap(Arc::new(target)) {
            before.is_replaced.store(true, Release);
        }
    }
}

impl<M> Target<M> {
    /// True if nobody who asks would learn anything new from `next`: to ask is much cheaper than to tell.
    fn says_no_less_than(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Down, Self::Down) => true,
            (Self::Restarting { due }, Self::Restarting { due: next }) => {
                due == next || until(*due.max(next)).is_zero()
            }
            _ => false,
        }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), met: OnceLock::new() }
    }
}

/// How full the mailbox of an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MailboxSnapshot {
    /// As [`Address::waiting`]: what came around the address is not counted.
    pub waiting: usize,
    /// So many may wait.
    pub capacity: usize,
}

/// What the supervisor tells an address, whatever its message type, and asks of it.
pub(crate) trait Availability: Send + Sync {
    /// Its name, and what tells it from others of the same name.
    fn identity(&self) -> (&str, usize);
    /// Makes it that of the child at `path`, see [`Holder::hold`].
    fn hold(&self, path: &Path) -> Result<Hold, Path>;
    /// The next incarnation is due.
    fn restarting(&self, due: Instant);
    /// No incarnation is due.
    fn down(&self, reason: LossReason);
    /// How full its mailbox is.
    fn mailbox(&self) -> MailboxSnapshot;
}

impl fmt::Debug for dyn Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.identity().0)
    }
}

impl<M: Message> Availability for Address<M> {
    fn identity(&self) -> (&str, usize) {
        (&self.cell.name, self.cell.holder.identity())
    }

    fn hold(&self, path: &Path) -> Result<Hold, Path> {
        self.cell.holder.hold(path)
    }

    fn restarting(&self, due: Instant) {
        if let Some(kept) = &self.cell.kept {
            kept.expect_next();
        }
        self.turn_to(Target::Restarting { due });
    }

    fn down(&self, reason: LossReason) {
        self.turn_to(Target::Down);
        if let Some(kept) = &self.cell.kept {
            self.cell.dead_letters.undelivered(self.cell.label(), kept.go_down().into_iter(), reason);
        }
    }

    fn mailbox(&self) -> MailboxSnapshot {
        MailboxSnapshot { waiting: self.waiting(), capacity: self.cell.capacity }
    }
}

/// ractor did not take a message that was admitted.
#[cold]
fn not_taken<M>(up: &Up<M>, error: MessagingErr<M>) -> Result<(), SendError<M>> {
    match error {
        MessagingErr::SendErr(message) if up.mailbox.give_back() => Err(ended(message)),
        // It was admitted in time and comes too late: it is already counted as lost with its incarnation.
        MessagingErr::SendErr(_) => Ok(()),
        // Both mean that the cell is not the typed actor this address was bound to, which `bind` excludes.
        MessagingErr::ChannelClosed | MessagingErr::InvalidActorType => {
            unreachable!("the address is bound to an actor of its own message type")
        }
    }
}

/// The incarnation has ended, and what follows is not known yet.
fn ended<M>(message: M) -> SendError<M> {
    SendError::Restarting { retry_after: Duration::ZERO, message }
}

fn until(due: Instant) -> Duration {
    due.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_without_an_actor_gives_the_message_back() {
        let address = Address::<u32>::new("nobody");
        assert!(matches!(address.try_send(7), Err(SendError::Down { message: 7 })));
        address.restarting(Instant::now() + Duration::from_secs(3));
        let Err(SendError::Restarting { retry_after, message: 8 }) = address.try_send(8) else {
            panic!("expected to be told that it restarts");
        };
        assert_eq!(retry_after, Duration::from_secs(3));
        assert!(!address.is_up());
    }
}
