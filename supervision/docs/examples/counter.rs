use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, ChildSpec, ensure};

struct Counter;

enum Message {
    /// The total must stay below 100.
    Add(u64),
    Total(RpcReplyPort<u64>),
    /// Takes this long to handle.
    Pause(Duration),
    /// Comes to its end.
    Finish,
}

impl Actor for Counter {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        total: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add(n) => {
                *total = total.saturating_add(n);
                ensure!(*total < 100, "the counter ran over"; total, n);
            }
            // The caller may have gone.
            Message::Total(reply) => drop(reply.send(*total)),
            Message::Pause(time) => tokio::time::sleep(time).await,
            Message::Finish => myself.stop(None),
        }
        Ok(())
    }
}

/// The child of which most examples are made.
fn counter(id: &str, address: &Address<Message>) -> ChildSpec {
    ChildSpec::actor(id, address, |_context| (Counter, ()))
}
