//! The actor of all who stand on ractor.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::measure::{Arrivals, BATCH, BATCHES, CALLS};

/// What it understands.
pub enum Message {
    /// Fire and forget.
    Add(u64),
    /// A call.
    Total(RpcReplyPort<u64>),
    /// A crash.
    Panic,
}

/// Adds up what it is sent.
pub struct Counter(pub Arrivals);

impl Actor for Counter {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        self.0.arrived();
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Message>, message: Message, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add(n) => *total += n,
            // Nobody waits for the answer any more if it cannot be sent.
            Message::Total(reply) => drop(reply.send(*total)),
            Message::Panic => panic!("of the benchmark"),
        }
        Ok(())
    }
}

/// Sends through `send`, which says whether it was taken; all are handled when it returns.
pub async fn flood(send: impl Fn(Message) -> bool) {
    for _ in 0..BATCHES {
        for n in 0..BATCH {
            assert!(send(Message::Add(n as u64)));
        }
        assert!(total(&send).await.is_some());
    }
}

/// One call after the other.
pub async fn calls(send: impl Fn(Message) -> bool) {
    for _ in 0..CALLS {
        assert!(total(&send).await.is_some());
    }
}

/// Calls until there is an answer. Whoever is told at once that there is none lets the others run.
pub async fn until_served(send: impl Fn(Message) -> bool) {
    while total(&send).await.is_none() {
        tokio::task::yield_now().await;
    }
}

/// A call without a deadline: a timer would be measured with it.
async fn total(send: &impl Fn(Message) -> bool) -> Option<u64> {
    let (reply, answer) = ractor::concurrency::oneshot();
    match send(Message::Total(reply.into())) {
        true => answer.await.ok(),
        false => None,
    }
}
