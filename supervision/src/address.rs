//! A stable, typed address of an actor that survives its restarts.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use ractor::{ActorRef, Message, MessagingErr, RpcReplyPort, concurrency::oneshot};
use tokio::time::Instant;

telemetry::declare_metrics! {
    /// Messages refused because the actor's mailbox was at its limit.
    pub static REJECTED: Counter = ("actor.mailbox.rejected", "{message}");
}

/// Messages that may wait for one actor unless [`Address::with_capacity`] says otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

/// The address of an actor, valid for as long as anyone holds it: each incarnation takes its place behind it.
///
/// Messages that an incarnation had not handled when it ended are lost with it; what must not be lost belongs into the
/// store or a channel that outlives the actor. Nothing is lost in silence: a sender is told at once that the actor is
/// restarting or down, and gets its message back. Messages sent around the address, with ractor's own `ActorRef`, do
/// not count towards the limit.
#[derive(Debug)]
pub struct Address<M> {
    cell: Arc<Cell<M>>,
    /// The incarnation this handle met first. While it lives, sending costs no locked read; most actors never fail.
    met: OnceLock<Arc<Up<M>>>,
}

#[derive(Debug)]
struct Cell<M> {
    name: String,
    capacity: usize,
    target: ArcSwap<Target<M>>,
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

    /// Counts one message in; false if `capacity` messages are waiting.
    #[inline]
    fn admit(&self, capacity: usize) -> bool {
        let counted = |sent: usize| (sent.saturating_sub(self.taken.load(Relaxed)) < capacity).then_some(sent + 1);
        self.sent.fetch_update(Relaxed, Relaxed, counted).is_ok()
    }

    fn waiting(&self) -> usize {
        self.sent.load(Relaxed).saturating_sub(self.taken.load(Relaxed))
    }
}

/// Why a message was not delivered. It gives the message back.
#[derive(thiserror::Error)]
pub enum SendError<M> {
    /// The actor failed and is started again; trying after `retry_after` may work.
    #[error("the actor is restarting, retry after {retry_after:?}")]
    Restarting {
        /// Until the next start is due.
        retry_after: Duration,
        /// What was not sent.
        message: M,
    },
    /// The actor is not running and no start is due.
    #[error("the actor is down")]
    Down {
        /// What was not sent.
        message: M,
    },
    /// The mailbox is at its limit.
    #[error("the mailbox is full")]
    Full {
        /// What was not sent.
        message: M,
    },
}

/// A message need not be printable for its error to be.
impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({self})")
    }
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The actor failed and is started again.
    #[error("the actor is restarting, retry after {retry_after:?}")]
    Restarting {
        /// Until the next start is due.
        retry_after: Duration,
    },
    /// The actor is not running and no start is due.
    #[error("the actor is down")]
    Down,
    /// The mailbox is at its limit.
    #[error("the mailbox is full")]
    Full,
    /// No answer within the deadline. The actor may still handle the message.
    #[error("no answer within the deadline")]
    Timeout,
    /// The actor ended, or chose not to answer, after it had taken the message.
    #[error("the actor ended before it answered")]
    Lost,
}

impl<M: Message> Address<M> {
    /// An address to be bound to an actor by [`ChildSpec::actor`](crate::ChildSpec::actor). `name` is for messages
    /// and metrics.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_capacity(name, DEFAULT_CAPACITY)
    }

    /// As [`Address::new`], with the most messages that may wait.
    pub fn with_capacity(name: impl Into<String>, capacity: usize) -> Self {
        let target = ArcSwap::from_pointee(Target::Down);
        Self { cell: Arc::new(Cell { name: name.into(), capacity, target }), met: OnceLock::new() }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// The message comes back if the actor is restarting, down or has too many messages waiting.
    #[inline]
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        match self.met.get() {
            Some(up) if !up.is_replaced.load(Acquire) => self.deliver(up, message),
            _ => self.send_to_target(message),
        }
    }

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

    /// Messages that wait for the running incarnation.
    pub fn waiting(&self) -> usize {
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
            REJECTED.add(1, &[("actor", &self.cell.name)]);
            return Err(SendError::Full { message });
        }
        up.actor.send_message(message).map_err(|error| match error {
            MessagingErr::SendErr(message) => SendError::Restarting { retry_after: Duration::ZERO, message },
            // Both mean that the cell is not the typed actor this address was bound to, which `bind` excludes.
            MessagingErr::ChannelClosed | MessagingErr::InvalidActorType => {
                unreachable!("the address is bound to an actor of its own message type")
            }
        })
    }

    pub(crate) fn bind(&self, actor: ActorRef<M>, mailbox: Arc<Mailbox>) {
        self.turn_to(Target::Up(Arc::new(Up { actor, mailbox, is_replaced: AtomicBool::new(false) })));
    }

    fn turn_to(&self, target: Target<M>) {
        if let Target::Up(before) = &*self.cell.target.swap(Arc::new(target)) {
            before.is_replaced.store(true, Release);
        }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), met: OnceLock::new() }
    }
}

impl<M> From<SendError<M>> for CallError {
    fn from(error: SendError<M>) -> Self {
        match error {
            SendError::Restarting { retry_after, .. } => Self::Restarting { retry_after },
            SendError::Down { .. } => Self::Down,
            SendError::Full { .. } => Self::Full,
        }
    }
}

/// What the supervisor tells an address, whatever its message type.
pub(crate) trait Availability: Send + Sync {
    fn restarting(&self, due: Instant);
    fn down(&self);
}

impl<M: Message> Availability for Address<M> {
    fn restarting(&self, due: Instant) {
        self.turn_to(Target::Restarting { due });
    }

    fn down(&self) {
        self.turn_to(Target::Down);
    }
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
}
