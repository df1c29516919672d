//! Takes due jobs from the store, as many as there is room for.
//!
//! It looks when it is poked (a job was enqueued here, a job has ended here, another process tells of jobs), when the next
//! waiting job comes due, and at the latest after the poll interval, if a call was lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{ChildContext, ChildSpec, Heartbeat};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pulse::{Park, Pulse, jittered, until_stop};
use super::{Shared, settings};
use crate::seam::seam;
use crate::store::{ClaimJobs, Job, StoreError};

telemetry::labels! {
    /// Jobs of one queue.
    pub struct OfQueue<'a> { queue: &'a str }
}

telemetry::declare_metrics! {
    /// Jobs claimed by this process.
    pub static CLAIMED: Counter<OfQueue> = ("job.claimed", "{job}");
    /// Time that one claim took, whether it found jobs or not.
    pub static CLAIM_DURATION: Histogram<OfQueue> = ("job.claim.duration", "s", [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0]);
    /// Time from when a job was due to when it was claimed.
    pub static START_LATENCY: Histogram<OfQueue> = ("job.start.latency", "s", [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]);
}

pub(super) const ID: &str = "claimer";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    super::actor(ID, settings::CLAIMER_STOP, shared, || Claimer)
}

/// The actor. Its work is in [`Working::claim`].
pub(super) struct Claimer;

/// The one message: look now.
#[derive(Debug)]
pub(super) struct Look;

/// What others see of the claimer without asking it.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<LastLook>>);

/// Its latest look, if it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    pub(super) began: Instant,
    /// It could not reach the store.
    pub(super) is_parked: bool,
}

/// An incarnation is seen from its start to its end, however that comes.
struct Present(Arc<Shared>);

/// What one incarnation works with.
pub(super) struct Working {
    present: Present,
    shared: Arc<Shared>,
    stopped: CancellationToken,
    pulse: Pulse,
    park: Park,
    heartbeat: Heartbeat,
}

impl Seen {
    /// Its latest look; `None` if it does not run.
    pub(super) fn last_look(&self) -> Option<LastLook> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, look: Option<LastLook>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }
}

impl Present {
    fn begin(shared: &Arc<Shared>) -> Self {
        let present = Self(Arc::clone(shared));
        present.looks(false);
        present
    }

    fn looks(&self, is_parked: bool) {
        self.0.claimer_seen.set(Some(LastLook { began: Instant::now(), is_parked }));
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.claimer_seen.set(None);
    }
}

impl Actor for Claimer {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let interval_ms = shared.settings.poll_interval_ms;
        Ok(Working {
            present: Present::begin(&shared),
            stopped: context.cancelled(),
            pulse: Pulse::start(&context, myself, shared.claimer.clone(), || Look),
            park: Park::new(ID, shared.settings.park_max_ms),
            heartbeat: context.heartbeat(ID, Duration::from_millis(interval_ms)),
            shared,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        if state.stopped.is_cancelled() {
            return Ok(());
        }
        // A claim that is cut after its commit leaves jobs to their lease: let it end if that takes a moment only.
        let grace = settings::CLAIMER_STOP / 2;
        let stopped = state.stopped.clone();
        if let Some(wait) = until_stop(&stopped, grace, state.claim()).await {
            state.heartbeat.beat();
            state.pulse.next(wait);
        }
        Ok(())
    }
}

impl Working {
    /// Claims from every queue and answers how long to wait.
    async fn claim(&mut self) -> Duration {
        let mut wait = jittered(self.shared.settings.poll_interval_ms);
        self.present.looks(false);
        for queue in self.queues_in_turn() {
            match self.claim_from(&queue).await {
                Ok(next) => wait = wait.min(next),
                Err(error) => {
                    self.present.looks(true);
                    return self.park.failed(&error);
                }
            }
            self.park.ok();
        }
        wait
    }

    /// Each claim begins with another queue, so that the first one listed cannot take all the room for ever.
    fn queues_in_turn(&self) -> Vec<String> {
        let mut queues = self.shared.settings.queues.clone();
        let first = fastrand::usize(..queues.len());
        queues.rotate_left(first);
        queues
    }

    async fn claim_from(&self, queue: &str) -> Result<Duration, StoreError> {
        let shared = &self.shared;
        let limit = shared.settings.batch.min(u32::try_from(shared.flight.room()).unwrap_or(u32::MAX));
        if limit == 0 {
            // The settler pokes when there is room again.
            return Ok(Duration::MAX);
        }
        let asked = Instant::now();
        let request = ClaimJobs {
            queue,
            owner: shared.owner,
            lease_ms: shared.settings.lease_ms,
            limit,
            tenant_running_max: shared.settings.tenant_concurrency,
        };
        let claimed = shared.store.claim(request).await?;
        CLAIM_DURATION.record(asked.elapsed().as_secs_f64(), OfQueue { queue });
        let full = claimed.jobs.len() as u32 == limit;
        if !claimed.jobs.is_empty() {
            seam!("after_claim");
            measure(queue, &claimed.jobs);
            // Counted from before the question, so that our own clock gives up before the store does.
            shared.flight.take_in(claimed.jobs, asked + Duration::from_millis(shared.settings.lease_ms));
            shared.runners.poke();
        }
        let next_due = claimed.next_due_in_ms.map_or(Duration::MAX, Duration::from_millis);
        Ok(if full { Duration::ZERO } else { next_due })
    }
}

fn measure(queue: &str, jobs: &[Job]) {
    CLAIMED.add(jobs.len() as u64, OfQueue { queue });
    for job in jobs {
        let waited_ms = job.claimed_at_ms.map_or(0, |claimed| claimed.saturating_sub(job.run_at_ms)).max(0);
        START_LATENCY.record(waited_ms as f64 / 1_000.0, OfQueue { queue });
    }
}
