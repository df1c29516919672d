//! The reaper: looks at the clock for every connection.
//!
//! The hub closes a subscriber by itself when too much waits for it. It cannot see one for which little waits, but
//! waits long, nor one that has gone without a word: that takes somebody with a clock. All connections share this one,
//! so an idle socket costs no timer. What the reaper decides is in the hub, and the socket's own task acts on it.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat};
use tokio::task::yield_now;

use crate::{broadcast::Hub, pulse::pulse};

telemetry::declare_metrics! {
    /// Tenants with an open socket.
    pub static TENANTS: Gauge = ("broadcaster.tenant.connected", "{tenant}");
}

/// What the reaper is told.
#[derive(Debug)]
pub enum ReaperMessage {
    /// Look at every connection, and answer when that is done.
    Sweep(RpcReplyPort<()>),
}

/// The child `reaper`.
pub fn reaper(hub: Arc<Hub>, interval: Duration) -> ChildSpec {
    ChildSpec::actor("reaper", &Address::new("broadcaster.reaper"), move |context| {
        (Reaper, ReaperArguments { hub: Arc::clone(&hub), interval, context })
    })
}

struct Reaper;

struct ReaperArguments {
    hub: Arc<Hub>,
    interval: Duration,
    context: ChildContext,
}

struct ReaperState {
    hub: Arc<Hub>,
    heartbeat: Heartbeat,
}

impl Actor for Reaper {
    type Msg = ReaperMessage;
    type State = ReaperState;
    type Arguments = ReaperArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ReaperMessage>,
        ReaperArguments { hub, interval, context }: ReaperArguments,
    ) -> Result<ReaperState, ActorProcessingErr> {
        let heartbeat = context.heartbeat("sweep", interval);
        pulse(&context, "pulse", myself, interval, ReaperMessage::Sweep);
        Ok(ReaperState { hub, heartbeat })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ReaperMessage>,
        ReaperMessage::Sweep(reply): ReaperMessage,
        ReaperState { hub, heartbeat }: &mut ReaperState,
    ) -> Result<(), ActorProcessingErr> {
        let mut next = hub.sweep(0);
        while let Some(from) = next {
            yield_now().await;
            next = hub.sweep(from);
        }
        TENANTS.set(hub.stats().tenants as f64, ());
        heartbeat.beat();
        // The asker may be gone, which is nothing to us.
        let _ = reply.send(());
        Ok(())
    }
}
