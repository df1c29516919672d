//! The actor that finds channels with something to send, gives each an actor of its own, and takes it back when it is
//! idle. It sends nothing itself.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat, Intensity, OnGiveUp, Shutdown};
use tokio::time::Instant;
use uuid::Uuid;

use super::courier::{Courier, Word};
use super::roster::{Places, Seated};
use super::{COURIER_LABEL, Shared};
use crate::channels::board::Entry;
use crate::store::{self, DueChannels};

telemetry::declare_metrics! {
    /// Channels that have an actor now.
    pub static IN_USE: Gauge = ("channel.in_use", "{channel}");
    /// Channels whose receiver gets a rest now.
    pub static BREAKERS_OPEN: Gauge = ("channel.breaker.open", "{channel}");
    /// Channels that had something to send and got no place, by a look.
    pub static NO_PLACE: Counter = ("channel.no_place", "{channel}");
    /// Finished deliveries that were forgotten.
    pub static PRUNED: Counter = ("channel.delivery.pruned", "{delivery}");
}

/// A courier's own restart budget; when it is used up, that channel is tried slowly, and no other one is touched.
const COURIER_INTENSITY: Intensity = Intensity::new(5, Duration::from_secs(60));

/// The slow beat of a channel whose courier keeps failing.
const COURIER_RETRY: Duration = Duration::from_secs(300);

/// Never look more often than this, whatever is due.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Time between two looks for finished deliveries that may be forgotten; after a full one the next follows at once.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// So many intervals without use make a seat free for another who waits: at the usual interval of a second more than the
/// longest pace of a chat.
const RESTED_LOOKS: u64 = 5;

/// Deliveries forgotten at once.
const PRUNE_MAX: u32 = 500;

/// Deliveries of disabled channels ended with one look.
const BURY_MAX: u32 = 500;

/// The one message: look now.
#[derive(Debug)]
pub struct Beat;

/// Whether all due channels have seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seats {
    Enough,
    Wanted,
}

/// The actor; all it knows is in its state.
pub(super) struct Dispatcher;

/// What one incarnation works with.
pub struct Working {
    context: ChildContext,
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
    store_is_away: bool,
    prune_at: Instant,
}

impl Actor for Dispatcher {
    type Msg = Beat;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Beat>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let interval = Duration::from_millis(shared.settings.interval_ms);
        let heartbeat = context.heartbeat("dispatch", interval);
        let state = Working { context, shared, heartbeat, store_is_away: false, prune_at: Instant::now() };
        state.forget_the_gone();
        myself.cast(Beat)?;
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Beat>, _: Beat, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let stopped = state.context.cancelled();
        let pause = tokio::select! {
            biased;
            () = stopped.cancelled() => return Ok(()),
            pause = state.look() => pause,
        };
        state.heartbeat.beat();
        state.wake_after(pause, myself);
        Ok(())
    }
}

impl Working {
    /// One look; answers how long to wait for the next one.
    async fn look(&mut self) -> Duration {
        let most = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let limit = most(self.shared.settings.channels_max);
        let per_tenant = most(self.shared.settings.tenant_channels_max);
        let interval = Duration::from_millis(self.shared.settings.interval_ms);
        let interval = interval.mul_f64(0.9 + 0.1 * fastrand::f64());
        if !self.shared.couriers.is_attached() {
            return interval;
        }
        let due = match self.shared.desk.store.due_channels(limit, per_tenant).await {
            Ok(due) => due,
            Err(error) => {
                self.note_store(Some(&error));
                return interval;
            }
        };
        self.note_store(None);
        let next = due.next_due_in_ms.map(Duration::from_millis);
        let seats = self.serve(due).await;
        self.stop_idle(seats).await;
        self.bury().await;
        self.prune().await;
        self.measure();
        next.unwrap_or(interval).clamp(PAUSE_MIN, interval.max(PAUSE_MIN))
    }

    /// Wakes the courier of every due channel; a new one wakes by itself. Answers whether there were enough seats.
    async fn serve(&self, due: DueChannels) -> Seats {
        let settings = &self.shared.settings;
        let places = Places { all: settings.channels_max, tenant: settings.tenant_channels_max };
        let mut seats = Seats::Enough;
        for channel in due.channels {
            match self.shared.roster.seat(channel.id, &channel.tenant, places) {
                // A courier that restarts, or has enough words waiting, needs none now.
                Seated::Before(address) => drop(address.try_send(Word::Wake)),
                Seated::Now(address) => self.start(channel, &address).await,
                Seated::Full => {
                    NO_PLACE.add(1, ());
                    seats = Seats::Wanted;
                }
            }
        }
        seats
    }

    async fn start(&self, channel: store::Channel, address: &Address<Word>) {
        let id = channel.id;
        if let Err(error) = self.shared.couriers.add(self.courier(channel, address)).await {
            self.shared.roster.remove(id);
            tracing::warn!(channel.id = %id, %error, "channel could not be started");
        }
    }

    fn courier(&self, channel: store::Channel, address: &Address<Word>) -> ChildSpec {
        let (shared, id) = (Arc::clone(&self.shared), channel.id);
        let channel = Arc::new(channel);
        ChildSpec::actor(id.to_string(), address, move |context| {
            (Courier, (context, Arc::clone(&shared), Arc::clone(&channel)))
        })
        .label(COURIER_LABEL)
        .stop_within(Shutdown::Within(self.shared.courier_budget()))
        .intensity(COURIER_INTENSITY)
        .on_give_up(OnGiveUp::Degrade { retry: COURIER_RETRY })
    }

    /// While others wait for a seat, whoever does not need its own gives it up soon; but for a failing one, whose
    /// breaker would be forgotten with it.
    async fn stop_idle(&self, seats: Seats) {
        let settings = &self.shared.settings;
        let idle_after = Duration::from_millis(settings.idle_after_ms);
        let soon = match seats {
            Seats::Enough => idle_after,
            Seats::Wanted => Duration::from_millis(settings.interval_ms.saturating_mul(RESTED_LOOKS)).min(idle_after),
        };
        for (id, rested) in self.shared.roster.idle(soon) {
            let is_needed = |entry: Entry| entry.in_flight() > 0 || (rested < idle_after && entry.is_open());
            if !self.shared.board.find(id).is_some_and(is_needed) {
                self.dismiss(id).await;
            }
        }
    }

    /// Ends what disabled channels left behind: one with a long line is disabled before all of it is buried.
    async fn bury(&self) {
        if let Err(error) = self.shared.desk.store.bury_deliveries(BURY_MAX).await {
            tracing::warn!(%error, "deliveries of a disabled channel could not be ended");
        }
    }

    /// Forgets old deliveries, and senders that are at rest.
    async fn prune(&mut self) {
        if Instant::now() < self.prune_at {
            return;
        }
        self.shared.senders.forget_idle();
        let pruned = self.shared.desk.store.prune_deliveries(self.shared.settings.prune(PRUNE_MAX)).await;
        match &pruned {
            Ok(pruned) => PRUNED.add(*pruned, ()),
            Err(error) => tracing::warn!(%error, "old deliveries could not be forgotten"),
        }
        let full = pruned.is_ok_and(|pruned| pruned >= u64::from(PRUNE_MAX));
        self.prune_at = Instant::now() + if full { Duration::ZERO } else { PRUNE_EVERY };
    }

    async fn dismiss(&self, id: Uuid) {
        if let Err(error) = self.shared.couriers.remove(id).await {
            // It keeps its seat, and the next look tries again.
            return tracing::warn!(channel.id = %id, %error, "idle channel could not be stopped");
        }
        self.shared.roster.remove(id);
        self.shared.board.forget(id);
    }

    /// After a restart: seats whose actors did not survive are free.
    fn forget_the_gone(&self) {
        let alive = self.shared.couriers.ids();
        for id in self.shared.roster.channels() {
            if !alive.contains(&id.to_string()) {
                self.shared.roster.remove(id);
                self.shared.board.forget(id);
            }
        }
    }

    /// Says it once when the store goes away, and once when it is back.
    fn note_store(&mut self, error: Option<&store::StoreError>) {
        match (error, self.store_is_away) {
            (Some(error), false) => tracing::warn!(%error, "due deliveries cannot be looked up"),
            (None, true) => tracing::info!("due deliveries can be looked up again"),
            _ => {}
        }
        self.store_is_away = error.is_some();
    }

    fn measure(&self) {
        let tally = self.shared.board.tally();
        IN_USE.set(tally.in_use as f64, ());
        BREAKERS_OPEN.set(tally.open as f64, ());
    }

    /// The next look: after `pause`, or when somebody has written a delivery. There is one such task at a time, so there
    /// is one message at a time.
    fn wake_after(&self, pause: Duration, myself: ActorRef<Beat>) {
        let (poke, stopped, tasks) = (self.shared.poke.clone(), self.context.cancelled(), self.context.tasks());
        let ended = tasks.token();
        tasks.spawn("wake", async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = poke.wait() => {}
                () = stopped.cancelled() => return,
                // Failed or killed: nobody asked it to stop, and the next incarnation waits for this task.
                () = ended.cancelled() => return,
            }
            // Nobody to wake if the actor is gone.
            let _ = myself.cast(Beat);
        });
    }
}
