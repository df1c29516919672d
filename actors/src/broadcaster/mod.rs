//! The broadcaster: from the bus to everyone who listens.
//!
//! Two actors, and neither has anything to lose:
//!
//! - [`relay`] turns the crank of the [`Hub`], and proves with a probe that the whole way from the bus still works;
//! - [`reaper`] looks at the clock: who is too far behind, who has been silent.
//!
//! Connections, subscriptions and events on their way live in the hub, which is made before the tree starts. That is the
//! pattern to copy for a part that must not lose anything in a restart: *the actor owns the loop, not the data*. A
//! mailbox would not do, because ractor drops it with the actor.

pub mod reaper;
pub mod relay;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use supervision::{Backoff, ChildSpec, Intensity, OnGiveUp, Strategy, SupervisorSpec};

use crate::{broadcast::Hub, bus::Bus};

/// The beats of the broadcaster, and how its actors come back.
#[derive(Debug, Clone, Copy)]
pub struct BroadcasterSettings {
    /// How often the relay sends a probe through its own path.
    pub interval: Duration,
    /// How often the reaper looks at every connection. A slow one lives this much longer at most.
    pub sweep_interval: Duration,
    /// The restart budget of each of the two actors; beyond it the broadcaster as a whole fails.
    pub restart: Intensity,
    /// How each of them waits before it is started again.
    pub backoff: Backoff,
}

impl Default for BroadcasterSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            sweep_interval: Duration::from_millis(500),
            restart: Intensity::new(5, Duration::from_secs(60)),
            backoff: Backoff::default(),
        }
    }
}

/// The supervisor `broadcaster`. `hub` must be subscribed to the same `bus`, or the relay's probe never comes back.
pub fn broadcaster(hub: Arc<Hub>, bus: Arc<dyn Bus>, settings: BroadcasterSettings) -> SupervisorSpec {
    // Each actor fails for itself: they share nothing but the hub, which cannot be harmed by a panic.
    SupervisorSpec::new("broadcaster", Strategy::OneForOne)
        .no_shared_intensity()
        .child(restarting(relay::relay(Arc::clone(&hub), bus, settings.interval), settings))
        .child(restarting(reaper::reaper(hub, settings.sweep_interval), settings))
}

fn restarting(child: ChildSpec, settings: BroadcasterSettings) -> ChildSpec {
    child.backoff(settings.backoff).intensity(settings.restart).on_give_up(OnGiveUp::Escalate)
}
