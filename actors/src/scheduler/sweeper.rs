//! Looks after jobs that nobody else does: those whose runner was lost, and those that ended long ago. It also keeps the
//! line to other processes, and the census.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{ChildContext, ChildSpec, Heartbeat};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pulse::{Park, Pulse, jittered, until_stop};
use super::settler::extend_leases;
use super::{Shared, census, line, settings};
use crate::model::{Millis, TenantId};
use crate::store::{StoreError, SweepReport, Wakeups};

telemetry::declare_metrics! {
    /// Jobs that lost their runner and were made ready again.
    pub static RESCUED: Counter = ("job.rescued", "{job}");
    /// Jobs that lost their runner too often and were quarantined.
    pub static QUARANTINED: Counter = ("job.quarantined", "{job}");
    /// Finished jobs that were forgotten.
    pub static PRUNED: Counter = ("job.pruned", "{job}");
}

/// Rows that one sweep changes at most; with a full one the next follows at once.
const SWEEP_MAX: u32 = 500;

pub(super) const ID: &str = "sweeper";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    super::actor(ID, settings::SMALL_STOP, shared, || Sweeper)
}

/// The actor. Its work is in [`Working::sweep`].
pub(super) struct Sweeper;

/// The one message: look now.
#[derive(Debug)]
pub(super) struct Look;

/// What one incarnation works with.
pub(super) struct Working {
    shared: Arc<Shared>,
    stopped: CancellationToken,
    pulse: Pulse,
    park: Park,
    heartbeat: Heartbeat,
    /// Whose number of finished jobs was looked at last.
    counted: Option<TenantId>,
    clocks: Clocks,
}

/// The store's clock beside our own, which never jumps.
#[derive(Default)]
struct Clocks {
    seen: Option<(Millis, Instant)>,
    trusted_from: Option<Instant>,
}

impl Clocks {
    /// Whether it says which leases have run out. After it has jumped ahead, or may have before we came, whoever lives needs
    /// time to extend its leases: two of their heartbeats come in the time of one. A smaller jump does no harm.
    fn may_judge(&mut self, now_ms: Millis, lease: Duration) -> bool {
        let now = Instant::now();
        let ahead_ms = self
            .seen
            .replace((now_ms, now))
            .map(|(before_ms, at)| now_ms.saturating_sub(before_ms).saturating_sub((now - at).as_millis() as Millis));
        if ahead_ms.is_none_or(|ahead_ms| ahead_ms > lease.as_millis() as Millis / 4) {
            self.trusted_from = Some(now + lease / 2);
        }
        if let Some(ahead_ms @ 1_000..) = ahead_ms {
            tracing::warn!(ahead_ms, "the store's clock has jumped ahead");
        }
        self.trusted_from.is_some_and(|from| now >= from)
    }
}

impl Actor for Sweeper {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        for counter in [&RESCUED, &QUARANTINED, &PRUNED] {
            counter.born(());
        }
        // Here, because it stops last: what the others give back is still told.
        line::keep(&context, Arc::clone(&shared));
        census::keep(&context, Arc::clone(&shared));
        Ok(Working {
            stopped: context.cancelled(),
            // Nobody pokes it: what it looks for happens without a sound.
            pulse: Pulse::start(&context, myself, crate::model::Poke::new(), || Look),
            park: Park::new(ID, shared.settings.park_max_ms),
            heartbeat: context.heartbeat(ID, Duration::from_millis(shared.settings.sweep_interval_ms)),
            counted: None,
            clocks: Clocks::default(),
            shared,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let stopped = state.stopped.clone();
        if let Some(wait) = until_stop(&stopped, settings::SMALL_STOP / 2, state.look()).await {
            state.heartbeat.beat();
            state.pulse.next(wait);
        }
        Ok(())
    }
}

impl Working {
    async fn look(&mut self) -> Duration {
        match self.sweep().await {
            Ok(more) => {
                self.park.ok();
                if more { Duration::ZERO } else { jittered(self.shared.settings.sweep_interval_ms) }
            }
            Err(error) => self.park.failed(&error),
        }
    }

    /// Rescues and forgets. Answers whether there is more to do at once.
    async fn sweep(&mut self) -> Result<bool, StoreError> {
        let Shared { store, settings, claimer, wakeups, .. } = &*self.shared;
        // After a jump of the clock, or a pause of the whole process, our own leases look over too. Whoever can sweep
        // is alive, and so are the jobs that it holds.
        extend_leases(&self.shared).await?;
        let may_judge = self.clocks.may_judge(store.now_ms().await?, Duration::from_millis(settings.lease_ms));
        let swept = match may_judge {
            true => store.sweep(settings.crashes_max, SWEEP_MAX).await?,
            false => SweepReport::default(),
        };
        RESCUED.add(swept.rescued, ());
        QUARANTINED.add(swept.quarantined, ());
        if swept.rescued > 0 {
            tracing::warn!(rescued = swept.rescued, "jobs had lost their runner and are ready again");
            claimer.poke();
            wakeups.tell(Wakeups::ALL);
        }
        if swept.quarantined > 0 {
            tracing::error!(quarantined = swept.quarantined, "jobs lost their runner too often and are dead");
        }
        let pruned = store.prune(settings.prune(self.counted.take(), SWEEP_MAX)).await?;
        PRUNED.add(pruned.count, ());
        self.counted = pruned.after;
        let full = u64::from(SWEEP_MAX);
        Ok(swept.rescued >= full || swept.quarantined >= full || pruned.count >= full)
    }
}
