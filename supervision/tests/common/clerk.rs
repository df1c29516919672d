//! An actor that keeps books of what it was sent, and senders that know what became of each message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, Backoff, CallError, ChildContext, ChildSpec, DeadLetter, LossReason, SendError, TaskGroup};
use tokio::sync::Semaphore;

use super::SECOND;

/// Each sender makes the clerk panic with one message of this many.
pub const PANIC_EVERY: u64 = 1000;

pub enum Order {
    /// To be written down; some make the clerk panic then.
    Entry {
        sender: usize,
        number: u64,
    },
    /// Keeps the clerk busy until there is a permit.
    Hold(Arc<Semaphore>),
    Panic,
    Finish,
    Incarnation(RpcReplyPort<u64>),
}

/// The numbers taken, by sender.
#[derive(Clone, Default)]
pub struct Books(Arc<Mutex<BTreeMap<usize, Vec<u64>>>>);

impl Books {
    pub fn entries(&self) -> BTreeMap<usize, Vec<u64>> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

struct Clerk {
    context: ChildContext,
    books: Books,
    /// Gives way with each message in hand, so that it can be killed there, and does not panic: a panic that waits for the
    /// process's first backtrace may outlive the grace after a kill.
    dawdles: bool,
}

impl Actor for Clerk {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Entry { sender, number } => {
                self.books.0.lock().unwrap().entry(sender).or_default().push(number);
                assert!(self.dawdles || (number + 1) % PANIC_EVERY > 0, "one of many");
            }
            Order::Hold(until) => until.acquire().await?.forget(),
            Order::Panic => panic!("asked to panic"),
            Order::Finish => myself.stop(None),
            Order::Incarnation(reply) => drop(reply.send(self.context.incarnation())),
        }
        if self.dawdles {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

pub fn clerk(address: &Address<Order>, books: &Books) -> ChildSpec {
    clerk_named("clerk", address, books, false)
}

pub fn clerk_named(id: &str, address: &Address<Order>, books: &Books, dawdles: bool) -> ChildSpec {
    let books = books.clone();
    ChildSpec::actor(id, address, move |context| (Clerk { context, books: books.clone(), dawdles }, ()))
        .backoff(Backoff::NONE)
}

/// What the hook was given.
#[derive(Clone, Default)]
pub struct Letters(Arc<Mutex<Vec<DeadLetter<Order>>>>);

impl Letters {
    pub fn hook(&self) -> impl Fn(DeadLetter<Order>) + Send + Sync + 'static {
        let letters = self.clone();
        move |letter| letters.0.lock().unwrap().push(letter)
    }

    /// The numbers of the entries that were handed over, in order.
    pub fn undelivered(&self) -> Vec<(u64, LossReason)> {
        let number = |letter: &DeadLetter<Order>| match letter {
            DeadLetter::Undelivered { message: Order::Entry { number, .. }, reason } => Some((*number, *reason)),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(number).collect()
    }

    /// How many were only counted.
    pub fn lost(&self) -> usize {
        let count = |letter: &DeadLetter<Order>| match letter {
            DeadLetter::Lost { count, .. } => *count,
            DeadLetter::Undelivered { .. } => 0,
        };
        self.0.lock().unwrap().iter().map(count).sum()
    }

    pub fn take(&self) -> Vec<DeadLetter<Order>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub fn entry(number: u64) -> Order {
    Order::Entry { sender: 0, number }
}

/// Senders at work. Each tries again when the mailbox is full.
pub struct Senders {
    group: TaskGroup,
    given_back: Arc<Mutex<usize>>,
    done: Arc<Semaphore>,
    senders: usize,
}

impl Senders {
    pub fn start(address: &Address<Order>, senders: usize, messages: u64) -> Self {
        let (group, given_back) = (TaskGroup::new("senders"), Arc::new(Mutex::new(0)));
        let done = Arc::new(Semaphore::new(0));
        for sender in 0..senders {
            let (address, given_back, done) = (address.clone(), Arc::clone(&given_back), Arc::clone(&done));
            group.spawn("sender", async move {
                let mut back = 0;
                for number in 0..messages {
                    back += usize::from(!send(&address, Order::Entry { sender, number }).await);
                }
                *given_back.lock().unwrap() += back;
                done.add_permits(1);
            });
        }
        Self { group, given_back, done, senders }
    }

    pub fn are_done(&self) -> bool {
        self.done.available_permits() == self.senders
    }

    /// Waits until all is sent, and says how many messages were given back because the actor was not there.
    pub async fn given_back(self) -> usize {
        let all = u32::try_from(self.senders).unwrap();
        let _done = self.done.acquire_many(all).await.unwrap();
        self.group.stop(SECOND).await;
        *self.given_back.lock().unwrap()
    }
}

/// False if it was given back.
async fn send(address: &Address<Order>, mut order: Order) -> bool {
    loop {
        match address.try_send(order) {
            Ok(()) => return true,
            Err(SendError::Full { message }) => order = message,
            Err(SendError::Restarting { .. } | SendError::Down { .. }) => {
                tokio::task::yield_now().await;
                return false;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until the clerk has answered behind all that was sent; says how many of the questions were lost on the way.
pub async fn last_word(address: &Address<Order>) -> usize {
    let mut lost = 0;
    loop {
        match address.call(Order::Incarnation, 60 * SECOND).await {
            Ok(_) => return lost,
            Err(CallError::Lost) => lost += 1,
            Err(CallError::Timeout) => panic!("the clerk does not answer"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
