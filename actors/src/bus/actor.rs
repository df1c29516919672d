//! The child `bus`: drives the backend, and proves that the bus carries events.
//!
//! The bus itself is shared state that was made before the tree. What a backend has to do by itself, such as keeping a
//! connection, it does in a task of this actor. A backend that is away at the start is waited for, and then the process
//! goes on without it.
//!
//! What this actor adds is the proof. On every beat it sends a probe through the bus's own path, and its heartbeat moves
//! only when the probe is back. A bus that accepts everything and delivers nothing is stale within two beats.
//!
//! A backend that says it is away is no fault of the actor, which beats on and asks again: a dependency is down, nobody is
//! stuck.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, ChildContext, ChildSpec, GuardSite, Heartbeat, Policy, guard};
use tokio::time::sleep;

use super::{Bus, BusError, MISSED, PING_DURATION, PING_FAILED, START_WITHIN};
use crate::pulse::pulse;
use crate::seam::seam;

/// Before a backend that panicked is driven again.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// The backend's own work, as its panics are recorded.
const CARRY: GuardSite<'static> = GuardSite {
    component: "bus",
    actor: "bus",
    policy: Policy::KeepRunning,
    phase: "carry",
    tenant: None,
    detail: Vec::new(),
};

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
    PING_FAILED.born(());
    MISSED.born(());
    ChildSpec::actor("bus", &Address::new("bus"), move |context| {
        (Prober, ProberArguments { bus: Arc::clone(&bus), settings, context })
    })
    // Beyond what the bus takes to say that its backend is away.
    .start_within(START_WITHIN + Duration::from_secs(5))
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
        carry(&context, Arc::clone(&bus));
        let opened = bus.opened().await;
        if let Err(error) = &opened {
            tracing::warn!(%error, "the bus starts without its backend");
        }
        let heartbeat = context.heartbeat("probe", settings.interval);
        pulse(&context, "pulse", myself, settings.interval, BusMessage::Probe);
        Ok(ProberState { bus, ping_within: settings.ping_within, heartbeat, is_up: opened.is_ok() })
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
                PING_DURATION.record(took.as_secs_f64(), ());
                self.heartbeat.beat();
                if !was_up {
                    tracing::info!("the bus carries events again");
                }
            }
            Err(error) => {
                PING_FAILED.add(1, ());
                if matches!(error, BusError::Unavailable(_)) {
                    self.heartbeat.beat();
                }
                if was_up {
                    tracing::warn!(%error, "the bus does not carry events");
                }
            }
        }
    }
}

/// Lets the backend work beside the actor, and ends with it. A panic costs it what it had in hand, such as a connection.
fn carry(context: &ChildContext, bus: Arc<dyn Bus>) {
    let tasks = context.tasks();
    let token = tasks.token();
    tasks.spawn("carry", async move {
        let carried = async || {
            seam!("inside_carry");
            bus.carry().await
        };
        let carrying = async {
            while let Err(panicked) = guard(CARRY, carried()).await {
                panicked.outcome(format!("the bus is carried again in {} ms", PANIC_PAUSE.as_millis()));
                sleep(PANIC_PAUSE).await
            }
        };
        token.run_until_cancelled(carrying).await;
    });
}
