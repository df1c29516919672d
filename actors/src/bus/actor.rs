//! The child `bus`: proves that the bus carries events.
//!
//! The bus itself needs no actor: it is shared state that was made before the tree. What this actor adds is the proof.
//! On every beat it sends a probe through the bus's own path, and its heartbeat moves only when the probe is back. A bus
//! that accepts everything and delivers nothing is stale within two beats.
//!
//! A backend that is away is no fault of the actor: it says so, and asks again on the next beat.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat};

use super::{Bus, BusError, PING_DURATION, PING_FAILED};
use crate::pulse::pulse;

/// The beat of the child `bus`.
#[derive(Debug, Clone, Copy)]
pub struct BusSettings {
    /// How often a probe is sent.
    pub interval: Duration,
    /// How long it may take to come back.
    pub ping_within: Duration,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), ping_within: Duration::from_secs(1) }
    }
}

/// What the actor is told.
#[derive(Debug)]
pub enum BusMessage {
    /// Send a probe, and answer when it is back or late.
    Probe(RpcReplyPort<()>),
}

/// The child `bus`, to stand in the tree before everyone who publishes or relays.
pub fn bus(bus: Arc<dyn Bus>, settings: BusSettings) -> ChildSpec {
    PING_FAILED.born(&[]);
    ChildSpec::actor("bus", &Address::new("bus"), move |context| {
        (Prober, ProberArguments { bus: Arc::clone(&bus), settings, context })
    })
}

/// An actor is a name for its callbacks; everything it has is in its state, made anew for each incarnation.
struct Prober;

struct ProberArguments {
    bus: Arc<dyn Bus>,
    settings: BusSettings,
    context: ChildContext,
}

struct ProberState {
    bus: Arc<dyn Bus>,
    ping_within: Duration,
    heartbeat: Heartbeat,
    /// Whether the probe before came back, so that a change is logged once and not every second.
    is_up: bool,
}

impl Actor for Prober {
    type Msg = BusMessage;
    type State = ProberState;
    type Arguments = ProberArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<BusMessage>,
        ProberArguments { bus, settings, context }: ProberArguments,
    ) -> Result<ProberState, ActorProcessingErr> {
        let heartbeat = context.heartbeat("probe", settings.interval);
        pulse(&context, "pulse", myself, settings.interval, BusMessage::Probe);
        Ok(ProberState { bus, ping_within: settings.ping_within, heartbeat, is_up: true })
    }

    async fn handle(
        &self,
        _myself: ActorRef<BusMessage>,
        BusMessage::Probe(reply): BusMessage,
        state: &mut ProberState,
    ) -> Result<(), ActorProcessingErr> {
        let outcome = state.bus.ping(state.ping_within).await;
        state.record(outcome);
        // The asker may be gone, which is nothing to us.
        let _ = reply.send(());
        Ok(())
    }
}

impl ProberState {
    fn record(&mut self, outcome: Result<Duration, BusError>) {
        let was_up = std::mem::replace(&mut self.is_up, outcome.is_ok());
        match outcome {
            Ok(took) => {
                PING_DURATION.record(took.as_secs_f64(), &[]);
                self.heartbeat.beat();
                if !was_up {
                    tracing::info!("the bus carries events again");
                }
            }
            Err(error) => {
                PING_FAILED.add(1, &[]);
                if was_up {
                    tracing::warn!(%error, "the bus does not carry events");
                }
            }
        }
    }
}
