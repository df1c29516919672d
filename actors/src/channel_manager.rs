//! The subsystem that delivers tenants' notifications: one actor for each channel in use.
//!
//! ```text
//! channel_manager (rest_for_one)
//!   channels      dynamic: one courier for each channel in use, named by the channel's id
//!   dispatcher    finds channels with something to send, starts and stops couriers
//! ```
//!
//! One tenant's bad channel holds up nobody: its courier waits, its breaker opens, its panics cost its own attempts, and
//! its restarts count against no one else's budget. How a delivery is sent is in [`crate::channels`].
//!
//! The dispatcher stops first, then all couriers at once: nothing new is begun, what is under way may end, and what is
//! left when the budget is used up is given back without being charged.

mod courier;
mod couriers;
mod dispatcher;
mod roster;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use supervision::{Address, Backoff, ChildSpec, Intensity, Policy, Shutdown, Strategy, SupervisorSpec, Tree};
use telemetry::panic::{PANIC_RECOVERED, Recovery};
use uuid::Uuid;

use self::couriers::Couriers;
use self::dispatcher::{Dispatcher, NO_PLACE, PRUNED};
use self::roster::Roster;
pub use self::settings::{Settings, SettingsFault};
use crate::channels::attempt::{ATTEMPTS, Attempted, DISABLED, Desk, OfKind, UNSETTLED};
use crate::channels::board::Board;
use crate::channels::pace::Senders;
use crate::channels::{Adapters, Bases, Word};
use crate::model::Poke;
use crate::outbound::{BuildError, Outbound, TargetRules};
use crate::store::SharedStore;

/// Where it stands in the tree.
pub const ID: &str = "channel_manager";

/// The dynamic supervisor below it.
const COURIERS: &str = "channels";

/// The actor beside it.
const DISPATCHER: &str = "dispatcher";

/// What stands for a channel's id in metrics.
const COURIER_LABEL: &str = "channel";

/// Where panics of adapters are recorded.
const COURIER_ACTOR: &str = "channel_manager.channels.channel";

/// What is kept of the stop budget for the dispatcher, and for the supervisors' own steps.
const DISPATCHER_BUDGET: Duration = Duration::from_millis(300);

/// What is kept of a courier's budget for giving back what was cut.
const CUT_BUDGET: Duration = Duration::from_millis(700);

/// The parts of the subsystem that outlive its actors. Cheap to clone.
#[derive(Clone)]
pub struct ChannelManager(Arc<Shared>);

/// Why the subsystem cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ChannelManagerError {
    /// Settings that contradict each other.
    #[error("settings of the channel manager: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<SettingsFault>),
    /// No HTTP client.
    #[error(transparent)]
    Client(#[from] BuildError),
}

/// What all actors of the subsystem share.
struct Shared {
    settings: Settings,
    /// Made at boot: names this process in its claims.
    owner: Uuid,
    desk: Arc<Desk>,
    adapters: Adapters,
    board: Board,
    roster: Roster,
    couriers: Couriers,
    senders: Senders,
    poke: Poke,
}

impl ChannelManager {
    /// With the adapters of the product, which send by `outbound`. Whoever writes a delivery calls `poke`.
    ///
    /// # Errors
    /// [`ChannelManagerError`].
    pub fn new(
        settings: Settings,
        store: SharedStore,
        poke: Poke,
        outbound: &Outbound,
    ) -> Result<Self, ChannelManagerError> {
        checked(&settings)?;
        let outbound = outbound.with(|outbound| settings.limit(outbound))?;
        let adapters = Adapters::standard(&outbound, &settings.bases());
        Self::with_adapters(settings, store, poke, adapters)
    }

    /// With adapters of the caller's choice.
    ///
    /// # Errors
    /// [`ChannelManagerError::Settings`].
    pub fn with_adapters(
        settings: Settings,
        store: SharedStore,
        poke: Poke,
        adapters: Adapters,
    ) -> Result<Self, ChannelManagerError> {
        checked(&settings)?;
        let desk = Desk {
            store,
            schedule: settings.schedule(),
            disable: settings.disable(),
            request_timeout: Duration::from_millis(settings.request_timeout_ms),
            site: (ID, COURIER_ACTOR),
        };
        let board = Board::new(settings.breaker());
        Ok(Self(Arc::new(Shared {
            settings,
            owner: Uuid::new_v4(),
            desk: Arc::new(desk),
            adapters,
            board,
            roster: Roster::default(),
            couriers: Couriers::default(),
            senders: Senders::default(),
            poke,
        })))
    }

    /// Hands in the running tree, in which this subsystem adds a child for each channel in use. Until then nothing is
    /// sent.
    pub fn attach(&self, tree: &Tree) {
        self.0.couriers.attach(tree.clone());
        self.0.poke.poke();
    }

    /// How the channels in use are doing; for the health sweep.
    #[must_use]
    pub fn board(&self) -> Board {
        self.0.board.clone()
    }

    /// Which URLs a tenant may give to a new channel.
    #[must_use]
    pub fn target_rules(&self) -> TargetRules {
        self.0.settings.target_rules()
    }

    /// Where the providers are; a tenant's Slack webhook must be there.
    #[must_use]
    pub fn bases(&self) -> Bases {
        self.0.settings.bases()
    }

    /// Says that a delivery was written, so that it does not wait for the next look.
    pub fn poke(&self) {
        self.0.poke.poke();
    }

    /// Closes the breaker of a channel that was enabled again, so that it does not wait for the end of a rest.
    pub fn forget_failures(&self, channel: Uuid) {
        self.0.board.forgive(channel);
    }

    /// The kinds of channels there are.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.0.adapters.kinds().collect()
    }
}

fn checked(settings: &Settings) -> Result<(), ChannelManagerError> {
    let faults = settings.faults();
    if faults.is_empty() { Ok(()) } else { Err(ChannelManagerError::Settings(faults)) }
}

/// The child of the root. [`ChannelManager::attach`] must follow when the tree is up. The dispatcher, and the supervisor of
/// couriers, may each restart within `restart`, after `backoff`; beyond that the subsystem as a whole fails.
#[must_use]
pub fn channel_manager(manager: &ChannelManager, restart: Intensity, backoff: Backoff) -> ChildSpec {
    bear_counters(manager);
    let shared = Arc::clone(&manager.0);
    let budget = shared.stop_budget();
    let couriers = SupervisorSpec::new(COURIERS, Strategy::Dynamic { max_children: shared.settings.channels_max })
        // Each courier has its own budget: what one tenant's channel does is not counted against another's.
        .no_shared_intensity();
    let subtree = SupervisorSpec::new(ID, Strategy::RestForOne)
        .no_shared_intensity()
        .child(ChildSpec::supervisor(couriers).intensity(restart).backoff(backoff))
        .child(dispatcher(shared).intensity(restart).backoff(backoff));
    ChildSpec::supervisor(subtree).stop_within(Shutdown::Within(budget))
}

fn dispatcher(shared: Arc<Shared>) -> ChildSpec {
    let make = move |context| (Dispatcher, (context, Arc::clone(&shared)));
    ChildSpec::actor(DISPATCHER, &Address::new(DISPATCHER), make).stop_within(Shutdown::Within(DISPATCHER_BUDGET))
}

/// Exports the counters as 0: one that is born at its first increment hides the first failure from `increase()`.
fn bear_counters(manager: &ChannelManager) {
    PANIC_RECOVERED.born(Recovery { component: ID, actor: COURIER_ACTOR, policy: Policy::KeepRunning });
    for kind in manager.kinds() {
        DISABLED.born(OfKind { kind });
        for outcome in Word::ALL {
            ATTEMPTS.born(Attempted { kind, outcome });
        }
    }
    UNSETTLED.born(());
    NO_PLACE.born(());
    PRUNED.born(());
}

impl Shared {
    fn stop_budget(&self) -> Duration {
        Duration::from_millis(self.settings.stop_within_ms)
    }

    /// What one courier may take to stop.
    fn courier_budget(&self) -> Duration {
        self.stop_budget().saturating_sub(DISPATCHER_BUDGET)
    }

    /// How long a courier that stops waits for requests under way.
    fn send_budget(&self) -> Duration {
        self.courier_budget().saturating_sub(CUT_BUDGET)
    }
}

#[cfg(test)]
mod tests;
