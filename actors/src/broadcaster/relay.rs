//! The relay: turns the crank of the hub whenever there is something on the bus.
//!
//! How an event-driven actor waits without blocking its mailbox: a task of its own waits for work and then asks the
//! actor to do it, one request at a time. So the mailbox holds two messages at most, the actor stays free to be asked
//! and stopped, and pressure builds up where it is bounded and visible, in the bus.
//!
//! How it proves itself: on every beat it publishes a probe on the bus, and its heartbeat moves when that probe has come
//! back through the crank, behind every event that was published before it. An idle relay beats, and so does one whose bus
//! says that it is away; a relay that is stuck, or was never subscribed, does not.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, rpc::CallResult};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat};
use tokio::{task::yield_now, time::timeout};
use uuid::Uuid;

use crate::{
    broadcast::{Hub, Step},
    bus::{Bus, BusError},
    pulse::pulse,
};

/// Steps before the actor looks at its mailbox again; about 25 ms of work.
const STEPS_PER_MESSAGE: usize = 1_024;

/// What the relay is told.
#[derive(Debug)]
pub enum RelayMessage {
    /// There is something to relay. Answered when it is relayed, or when it is time to look at the mailbox.
    Turn(RpcReplyPort<()>),
    /// Send a probe through the bus.
    Probe(RpcReplyPort<()>),
}

/// The child `relay`.
pub fn relay(hub: Arc<Hub>, bus: Arc<dyn Bus>, interval: Duration) -> ChildSpec {
    ChildSpec::actor("relay", &Address::new("broadcaster.relay"), move |context| {
        (Relay, RelayArguments { hub: Arc::clone(&hub), bus: Arc::clone(&bus), interval, context })
    })
}

struct Relay;

struct RelayArguments {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    interval: Duration,
    context: ChildContext,
}

/// Nothing in here is missed when it is lost.
struct RelayState {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    /// How long the bus may take to accept a probe.
    probe_within: Duration,
    heartbeat: Heartbeat,
    /// The probe that is on its way; older ones no longer count.
    probe: Option<Uuid>,
}

impl Actor for Relay {
    type Msg = RelayMessage;
    type State = RelayState;
    type Arguments = RelayArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RelayMessage>,
        RelayArguments { hub, bus, interval, context }: RelayArguments,
    ) -> Result<RelayState, ActorProcessingErr> {
        let heartbeat = context.heartbeat("relay", interval);
        listen(&context, Arc::clone(&hub), myself.clone());
        pulse(&context, "pulse", myself, interval, RelayMessage::Probe);
        Ok(RelayState { hub, bus, probe_within: interval, heartbeat, probe: None })
    }

    async fn handle(
        &self,
        _myself: ActorRef<RelayMessage>,
        message: RelayMessage,
        state: &mut RelayState,
    ) -> Result<(), ActorProcessingErr> {
        let reply = match message {
            RelayMessage::Turn(reply) => {
                state.turn().await;
                reply
            }
            RelayMessage::Probe(reply) => {
                state.send_probe().await;
                reply
            }
        };
        // The asker may be gone, which is nothing to us.
        let _ = reply.send(());
        Ok(())
    }
}

impl RelayState {
    async fn turn(&mut self) {
        for _ in 0..STEPS_PER_MESSAGE {
            match self.hub.step() {
                Step::Idle => return,
                // So that the tasks of the sockets get to write what they were just given.
                Step::Busy => yield_now().await,
                Step::Probe(id) if Some(id) == self.probe => {
                    self.heartbeat.beat();
                    self.probe = None;
                }
                // Somebody else's, or ours and late: a later one is on its way.
                Step::Probe(_) => {}
            }
        }
    }

    async fn send_probe(&mut self) {
        let id = Uuid::new_v4();
        self.probe = Some(id);
        match timeout(self.probe_within, self.bus.probe(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if matches!(error, BusError::Unavailable(_)) {
                    self.heartbeat.beat();
                }
                tracing::debug!(%error, "the relay could not send its probe");
            }
            Err(_) => tracing::debug!("the bus did not take the relay's probe in time"),
        }
    }
}

/// Waits for work beside the actor, and ends with it.
fn listen(context: &ChildContext, hub: Arc<Hub>, relay: ActorRef<RelayMessage>) {
    let tasks = context.tasks();
    let token = tasks.token();
    tasks.spawn("listen", async move {
        let turns = async {
            loop {
                hub.arrival().await;
                if !matches!(relay.call(RelayMessage::Turn, None).await, Ok(CallResult::Success(()))) {
                    return;
                }
            }
        };
        token.run_until_cancelled(turns).await;
    });
}
