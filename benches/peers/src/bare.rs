//! ractor alone, with a supervisor written by hand: starts again what failed, and nothing else.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::counter::{Counter, Message, calls, flood, until_served};
use crate::measure::{
    Arrivals, BATCH, BATCHES, CALLS, CRASHES, Measure, System, WARM_CRASHES, cost, percentiles, resident_bytes, runtime,
};

/// The floor of everything that stands on ractor.
pub struct Bare;

impl System for Bare {
    fn measure(&self, measure: Measure) -> Option<Vec<f64>> {
        std::panic::set_hook(Box::new(|_| {}));
        runtime().block_on(async {
            match measure {
                Measure::Message => {
                    let child = counter().await;
                    let cost = cost(flood(|message| child.send_message(message).is_ok())).await;
                    cost.ns_each(BATCHES * BATCH)
                }
                Measure::Call => {
                    let child = counter().await;
                    cost(calls(|message| child.send_message(message).is_ok())).await.ns_each(CALLS)
                }
                // It has no window.
                Measure::Crash => crashes().await,
                Measure::Start(children) => {
                    let supervisor = by_hand(Slot::default()).await;
                    cost(start(&supervisor, children)).await.us_each(children)
                }
                Measure::Memory(children) => memory(children).await,
                Measure::MessageMetered | Measure::CrashLoaded | Measure::Stop(_) | Measure::OneForAll(_) => None,
            }
        })
    }
}

/// Where the running incarnation is found.
type Slot = Arc<Mutex<Option<ActorRef<Message>>>>;

struct ByHand;

impl Actor for ByHand {
    type Msg = ();
    type State = Slot;
    type Arguments = Slot;

    async fn pre_start(&self, _: ActorRef<()>, slot: Slot) -> Result<Slot, ActorProcessingErr> {
        Ok(slot)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        slot: &mut Slot,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            let (child, _) = Actor::spawn_linked(None, Counter(Arrivals::default()), (), myself.get_cell()).await?;
            *slot.lock().unwrap() = Some(child);
        }
        Ok(())
    }
}

async fn by_hand(slot: Slot) -> ActorRef<()> {
    Actor::spawn(None, ByHand, slot).await.unwrap().0
}

async fn counter() -> ActorRef<Message> {
    Actor::spawn(None, Counter(Arrivals::default()), ()).await.unwrap().0
}

/// Starts children; all their tasks run when the last one answers.
async fn start(supervisor: &ActorRef<()>, children: usize) {
    let mut last = None;
    for _ in 0..children {
        let counter = Counter(Arrivals::default());
        last = Some(Actor::spawn_linked(None, counter, (), supervisor.get_cell()).await.unwrap().0);
    }
    until_served(|message| last.as_ref().is_some_and(|last| last.send_message(message).is_ok())).await;
}

async fn crashes() -> Option<Vec<f64>> {
    let slot = Slot::default();
    let supervisor = by_hand(slot.clone()).await;
    let (child, _) = Actor::spawn_linked(None, Counter(Arrivals::default()), (), supervisor.get_cell()).await.unwrap();
    *slot.lock().unwrap() = Some(child);
    let send =
        |message| slot.lock().unwrap().as_ref().is_some_and(|child: &ActorRef<_>| child.send_message(message).is_ok());
    let mut times = Vec::new();
    for _ in 0..WARM_CRASHES + CRASHES {
        let began = Instant::now();
        assert!(send(Message::Panic));
        until_served(send).await;
        times.push(began.elapsed());
    }
    percentiles(times.split_off(WARM_CRASHES))
}

async fn memory(children: usize) -> Option<Vec<f64>> {
    let supervisor = by_hand(Slot::default()).await;
    start(&supervisor, 10).await;
    let before = resident_bytes();
    start(&supervisor, children).await;
    Some(vec![(resident_bytes() - before) / children as f64])
}
