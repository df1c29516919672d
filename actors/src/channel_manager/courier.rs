//! The actor of one channel in use: it claims what is due, a few at a time, and has each delivery attempted in a task of
//! its own. So it answers at once while receivers take their time, and a receiver that never answers holds up only
//! itself.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::ChildContext;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Shared;
use crate::channels::attempt::Attempt;
use crate::channels::board::{Entry, InFlight};
use crate::channels::{Channel, Destination, Pace};
use crate::store::{self, ClaimDeliveries, Delivery};

/// What is kept of the stop budget for giving back what was cut.
const RELEASE_BUDGET: Duration = Duration::from_millis(500);

/// What a courier is told.
#[derive(Debug)]
pub enum Word {
    /// Something is due.
    Wake,
    /// One of its own deliveries has ended.
    Ended,
    /// The pace allows the next one.
    Paced,
}

/// The actor; all it knows is in its state.
pub(super) struct Courier;

/// What one incarnation works with.
pub struct Working {
    context: ChildContext,
    shared: Arc<Shared>,
    channel: Arc<store::Channel>,
    adapter: Result<Arc<dyn Channel>, String>,
    entry: Entry,
    pace: Pace,
    /// When the pace allows the next message.
    next_at: Instant,
    /// It has a place in its sender's rate, and has not used it yet.
    admitted: bool,
    /// A wake for when it may send is under way.
    waits: bool,
    cut: CancellationToken,
    /// Fires `cut` when the state is dropped by a panic: deliveries of a dead incarnation are given back.
    _cut_on_drop: DropGuard,
}

impl Actor for Courier {
    type Msg = Word;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>, Arc<store::Channel>);

    async fn pre_start(
        &self,
        myself: ActorRef<Word>,
        (context, shared, channel): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let destination =
            Destination { url: channel.url.clone(), secret: channel.secret.clone(), chat: channel.chat.clone() };
        // A channel that cannot be opened is the tenant's fault, told with each delivery, and none of the actor's.
        let adapter = shared.adapters.open(&channel.kind, &destination).map_err(|error| describe(&error));
        let pace = adapter.as_ref().map(|adapter| adapter.pace()).unwrap_or_default();
        let entry = shared.board.entry(&channel.tenant, channel.id);
        let cut = CancellationToken::new();
        let cut_on_drop = cut.clone().drop_guard();
        myself.cast(Word::Wake)?;
        Ok(Working {
            context,
            shared,
            channel,
            adapter,
            entry,
            pace,
            next_at: Instant::now(),
            admitted: false,
            waits: false,
            cut,
            _cut_on_drop: cut_on_drop,
        })
    }

    /// All words mean the same: see whether there is room, and something to send.
    async fn handle(&self, myself: ActorRef<Word>, word: Word, state: &mut Working) -> Result<(), ActorProcessingErr> {
        state.waits &= !matches!(word, Word::Paced);
        if state.context.cancelled().is_cancelled() || !state.may_send(&myself) {
            return Ok(());
        }
        let lease = Duration::from_millis(state.shared.settings.lease_ms);
        // By our own clock, and from before the claim: never later than the store's idea of it.
        let lease_until = Instant::now() + lease;
        let claimed = state.claim().await;
        if !claimed.is_empty() {
            state.keep_pace(&myself);
        }
        for delivery in claimed {
            // The stop may have come during the claim; then nothing new is begun.
            match state.context.cancelled().is_cancelled() {
                true => state.give_back(&delivery).await,
                false => state.begin(&myself, delivery, lease_until),
            }
        }
        Ok(())
    }

    /// Requests under way reach their own deadline if the budget allows; what is left then is given back uncharged.
    async fn post_stop(&self, _: ActorRef<Word>, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let tasks = state.context.tasks();
        tasks.wait(state.shared.send_budget()).await;
        state.cut.cancel();
        tasks.wait(RELEASE_BUDGET).await;
        Ok(())
    }
}

impl Working {
    /// Whether the pace allows a message now. If not, a wake follows when it does.
    fn may_send(&mut self, myself: &ActorRef<Word>) -> bool {
        let mut wait = self.next_at.saturating_duration_since(Instant::now());
        if wait.is_zero() && !self.admitted {
            wait = self.shared.senders.admit(&self.pace).err().unwrap_or_default();
            self.admitted = wait.is_zero();
        }
        if !wait.is_zero() {
            self.wake_after(wait, myself);
        }
        wait.is_zero()
    }

    /// A message was claimed: the next one has to wait.
    fn keep_pace(&mut self, myself: &ActorRef<Word>) {
        self.admitted = false;
        if !self.pace.every.is_zero() {
            self.next_at = Instant::now() + self.pace.every;
            self.wake_after(self.pace.every, myself);
        }
    }

    fn wake_after(&mut self, wait: Duration, myself: &ActorRef<Word>) {
        if std::mem::replace(&mut self.waits, true) {
            return;
        }
        let (myself, stopped, tasks) = (myself.clone(), self.context.cancelled(), self.context.tasks());
        let ended = tasks.token();
        tasks.spawn("pace", async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped.cancelled() => return,
                () = ended.cancelled() => return,
            }
            // Nobody to wake if the actor is gone.
            let _ = myself.cast(Word::Paced);
        });
    }

    /// Takes as many as there is room for. A store that is away is a pause: the next wake tries again.
    async fn claim(&self) -> Vec<Delivery> {
        let settings = &self.shared.settings;
        // With a pace, one at a time: that keeps them in order, too.
        let most = if self.pace.every.is_zero() { settings.in_flight_max } else { 1 };
        let room = self.entry.room(most);
        if room == 0 {
            return Vec::new();
        }
        let claim = ClaimDeliveries {
            channel: self.channel.id,
            owner: self.shared.owner,
            lease_ms: settings.lease_ms,
            limit: u32::try_from(room).unwrap_or(u32::MAX),
        };
        match self.shared.desk.store.claim_deliveries(claim).await {
            Ok(claimed) => claimed.deliveries,
            Err(error) => {
                tracing::warn!(channel.id = %self.channel.id, %error, "deliveries could not be claimed");
                Vec::new()
            }
        }
    }

    async fn give_back(&self, delivery: &Delivery) {
        if let Err(error) = self.shared.desk.store.release_delivery(delivery.fence()).await {
            // Its lease ends soon.
            tracing::warn!(delivery.id = %delivery.id, %error, "delivery could not be given back");
        }
    }

    fn begin(&self, myself: &ActorRef<Word>, delivery: Delivery, lease_until: Instant) {
        let attempt = Attempt {
            desk: Arc::clone(&self.shared.desk),
            channel: Arc::clone(&self.channel),
            adapter: self.adapter.clone(),
            entry: self.entry.clone(),
            delivery,
            lease_until,
            cut: self.cut.clone(),
        };
        let ending = Ending { in_flight: Some(self.entry.begin()), courier: myself.clone() };
        self.context.tasks().spawn_errand("deliver", attempt.errand(), async move {
            attempt.run().await;
            drop(ending);
        });
    }
}

/// Makes room and says so, however the delivery's task ends.
struct Ending {
    in_flight: Option<InFlight>,
    courier: ActorRef<Word>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.in_flight.take();
        // A courier that has ended needs no word.
        let _ = self.courier.cast(Word::Ended);
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
