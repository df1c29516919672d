//! The workers: an actor and a task that behave as their conduct says, and do as they are told.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, BoxError, ChildContext, ChildSpec};
use tokio::sync::{Mutex, mpsc};

use super::{
    case::{Conduct, Order},
    world::{Guard, Wire, World},
};

/// A task beats this often, and an actor has no message in hand for longer.
pub const BEAT: Duration = Duration::from_secs(2);

const FAILS_TO_START: u64 = 1;
const FAILS_TO_STOP: u64 = 2;
const PANICS_IN_DROP: u64 = 3;

pub enum Message {
    Do(Order),
    Ping(RpcReplyPort<()>),
}

struct Worker {
    context: ChildContext,
    world: Arc<World>,
    conduct: Conduct,
}

/// What a worker holds while it lives.
struct Held {
    guard: Guard,
    panics: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard.called();
        // A second panic while the first one unwinds would end the process.
        assert!(!self.panics || std::thread::panicking(), "panic in drop");
    }
}

impl Worker {
    async fn begin(&self) -> Result<Held, BoxError> {
        let guard = self.world.begin(self.context.path().to_string(), &self.context);
        let held = Held { guard, panics: self.happens(self.conduct.panics_in_drop, PANICS_IN_DROP) };
        if self.conduct.has_helper {
            let helper = self.world.begin(format!("{}!helper", self.context.path()), &self.context);
            self.context.tasks().spawn("helper", async move {
                let _helper = helper;
                std::future::pending().await
            });
        }
        if !self.world.is_calm() {
            tokio::time::sleep(self.conduct.start_takes).await;
        }
        let may_fail = self.conduct.fails_first || self.context.incarnation() > 1;
        if may_fail && self.happens(self.conduct.fails_to_start, FAILS_TO_START) {
            assert!(self.context.incarnation().is_multiple_of(2), "panics instead of starting");
            return Err("fails instead of starting".into());
        }
        Ok(held)
    }

    async fn end(&self) -> Result<(), BoxError> {
        tokio::time::sleep(self.conduct.stop_takes).await;
        if self.happens(self.conduct.fails_to_stop, FAILS_TO_STOP) {
            assert!(self.context.incarnation().is_multiple_of(2), "panics instead of stopping");
            return Err("fails instead of stopping".into());
        }
        Ok(())
    }

    fn happens(&self, chance: u64, purpose: u64) -> bool {
        self.world.happens(chance, &self.context, purpose)
    }

    /// Carries out an order; true if it is to end.
    async fn obey(&self, order: Order) -> Result<bool, BoxError> {
        match order {
            Order::Panic => panic!("told to panic"),
            Order::Fail => Err("told to fail".into()),
            Order::Finish => Ok(true),
            Order::Freeze(time) => {
                self.world.freeze(time).await;
                Ok(false)
            }
        }
    }
}

impl Actor for Worker {
    type Msg = Message;
    type State = Held;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Held, ActorProcessingErr> {
        self.begin().await
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        _: &mut Held,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Do(order) => {
                if self.obey(order).await? {
                    myself.stop(None);
                }
            }
            // The caller may have gone.
            Message::Ping(reply) => drop(reply.send(())),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, held: &mut Held) -> Result<(), ActorProcessingErr> {
        held.guard.called();
        self.end().await
    }
}

pub fn actor(number: usize, id: &str, world: &Arc<World>, conduct: &Conduct) -> ChildSpec {
    let address = Address::new(id);
    world.connect(number, Wire::Actor(address.clone()));
    let (world, conduct) = (Arc::clone(world), conduct.clone());
    ChildSpec::actor(id, &address, move |context| {
        (Worker { context, world: Arc::clone(&world), conduct: conduct.clone() }, ())
    })
    .message_within(BEAT)
}

pub fn task(number: usize, id: &str, world: &Arc<World>, conduct: &Conduct) -> ChildSpec {
    let (wire, orders) = mpsc::unbounded_channel();
    world.connect(number, Wire::Task(wire));
    let (world, conduct, orders) = (Arc::clone(world), conduct.clone(), Arc::new(Mutex::new(orders)));
    ChildSpec::task(id, move |context| {
        let worker = Worker { context, world: Arc::clone(&world), conduct: conduct.clone() };
        live(worker, Arc::clone(&orders))
    })
    .start_when_ready()
}

async fn live(worker: Worker, orders: Arc<Mutex<mpsc::UnboundedReceiver<Order>>>) -> Result<(), BoxError> {
    let held = worker.begin().await?;
    let heartbeat = worker.context.heartbeat("rounds", BEAT);
    let cancelled = worker.context.cancelled();
    worker.context.ready();
    let mut orders = orders.lock().await;
    loop {
        heartbeat.beat();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            Some(order) = orders.recv() => if worker.obey(order).await? { break },
            () = tokio::time::sleep(BEAT / 2) => {}
        }
    }
    held.guard.called();
    worker.end().await
}
