//! Writes down how jobs ended, many in one transaction, and keeps the leases of those that are held.
//!
//! It is the last of the way to stop: what the runners report on their way out is still written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{ChildContext, ChildSpec, Heartbeat};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::pulse::{Park, Pulse, until_stop};
use super::{Shared, settings};
use crate::seam::seam;
use crate::store::{Fault, Outcome, OutcomeName, Settled, Settlement, StoreError};

telemetry::labels! {
    /// How an attempt ended.
    pub struct Ended { outcome: OutcomeName }
}

telemetry::declare_metrics! {
    /// Ends of jobs that were written, by outcome.
    pub static SETTLED: Counter<Ended> = ("job.settled", "{job}");
    /// Ends of jobs that were refused, because the claim had been lost before.
    pub static LATE: Counter = ("job.settle.late", "{job}");
    /// Time that one transaction of ends took.
    pub static SETTLE_DURATION: Histogram = ("job.settle.duration", "s", [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0]);
    /// Jobs that were cancelled because their lease was lost, told by the store or by our own clock.
    pub static LEASE_LOST: Counter = ("job.lease.lost", "{job}");
}

pub(super) const ID: &str = "settler";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    super::actor(ID, settings::SETTLER_STOP, shared, || Settler)
}

/// The actor. Its work is in [`Working::settle`] and [`Working::keep_leases`].
pub(super) struct Settler;

/// The one message: jobs may have ended, or the leases be due.
#[derive(Debug)]
pub(super) struct Look;

/// What one incarnation works with.
pub(super) struct Working {
    shared: Arc<Shared>,
    stopped: CancellationToken,
    pulse: Pulse,
    park: Park,
    heartbeat: Heartbeat,
    /// When the leases are to be extended next.
    leases_due: Instant,
}

impl Actor for Settler {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let interval = Duration::from_millis(shared.settings.heartbeat_ms);
        OutcomeName::ALL.into_iter().for_each(|outcome| SETTLED.born(Ended { outcome }));
        LATE.born(());
        LEASE_LOST.born(());
        let (watch, ended) = (watch_leases(Arc::clone(&shared)), context.tasks().token());
        context.tasks().spawn("leases", async move {
            let _ = ended.run_until_cancelled(watch).await;
        });
        Ok(Working {
            stopped: context.cancelled(),
            pulse: Pulse::start(&context, myself, shared.settler.clone(), || Look),
            park: Park::new(ID, shared.settings.park_max_ms),
            heartbeat: context.heartbeat(ID, interval),
            leases_due: Instant::now(),
            shared,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        if state.stopped.is_cancelled() {
            return Ok(());
        }
        let stopped = state.stopped.clone();
        if let Some(wait) = until_stop(&stopped, settings::SETTLER_STOP / 4, state.work()).await {
            state.heartbeat.beat();
            state.pulse.next(wait);
        }
        Ok(())
    }

    /// Writes what is left, for as long as the budget lasts. What is not written waits for the end of its lease.
    async fn post_stop(&self, _: ActorRef<Look>, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let flush = async {
            while state.shared.flight.unwritten() > 0 {
                if let Err(error) = state.settle().await {
                    tokio::time::sleep(state.park.failed(&error)).await;
                }
            }
        };
        if timeout(settings::SETTLER_STOP / 2, flush).await.is_err() {
            let unwritten = state.shared.flight.unwritten();
            tracing::warn!(unwritten, "ends of jobs were not written; they will run again after their lease");
        }
        Ok(())
    }
}

impl Working {
    /// Settles and keeps leases, and answers how long to wait.
    async fn work(&mut self) -> Duration {
        let settled = self.settle_all().await;
        let leases = if Instant::now() >= self.leases_due { self.keep_leases().await } else { Ok(()) };
        match settled.and(leases) {
            Ok(()) => {
                self.park.ok();
                self.leases_due.saturating_duration_since(Instant::now())
            }
            Err(error) => self.park.failed(&error),
        }
    }

    async fn settle_all(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut waited = false;
        while shared.flight.unwritten() > 0 {
            // Others may be about to end: one transaction for all is much cheaper than one for each.
            let full = shared.flight.unwritten() >= shared.settings.batch as usize;
            if !full && !waited && shared.flight.running() > 0 {
                waited = true;
                tokio::time::sleep(Duration::from_millis(shared.settings.settle_wait_ms)).await;
            }
            self.settle().await?;
            if Instant::now() >= self.leases_due {
                break;
            }
        }
        Ok(())
    }

    /// Writes one batch. It is forgotten here only when the store has answered; written twice it is refused there.
    async fn settle(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut batch = shared.flight.oldest_ends(shared.settings.ends_max());
        seam!("before_settle");
        let began = Instant::now();
        let answers = match shared.store.settle(batch.clone()).await {
            Err(error) if !error.is_retryable() => {
                batch.truncate(1);
                vec![self.settle_alone(batch[0].clone(), &error).await?]
            }
            answer => answer?,
        };
        seam!("after_settle");
        SETTLE_DURATION.record(began.elapsed().as_secs_f64(), ());
        if shared.flight.written(batch.len()) {
            shared.firer.poke();
        }
        shared.claimer.poke();
        shared.tell_of_ends(batch.iter().zip(&answers));
        let mut delivers = false;
        for (settlement, answer) in batch.iter().zip(&answers) {
            // It ran in a trace of its own, and whoever looks there must find how it ended.
            settlement.run.scope(|| report(settlement, answer));
            delivers |= *answer == Settled::Applied && !settlement.effects.is_empty();
        }
        if delivers {
            shared.deliveries.poke();
        }
        Ok(())
    }

    /// One of a batch cannot be written, ever, and must not hold up the others: each is tried by itself, and one that is
    /// refused is dead with that reason.
    async fn settle_alone(&self, settlement: Settlement, of_batch: &StoreError) -> Result<Settled, StoreError> {
        tracing::error!(error = %of_batch, "a batch of ends could not be written, trying them one by one");
        let fence = settlement.fence;
        let error = match self.shared.store.settle(vec![settlement]).await {
            Err(error) if !error.is_retryable() => error,
            answer => return Ok(answer?.pop().unwrap_or(Settled::Late)),
        };
        let reason = format!("its end could not be written: {error}");
        let dead = Outcome::Dead { reason: reason.clone(), fault: Fault::Failure };
        match self.shared.store.settle(vec![Settlement::new(fence, dead)]).await {
            Err(error) if error.is_retryable() => Err(error),
            // If not even that can be written, its lease runs out, and the sweeper has it.
            _ => Ok(Settled::Refused { reason }),
        }
    }

    /// The heartbeat that is due, and when the next one is.
    async fn keep_leases(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let interval = Duration::from_millis(shared.settings.heartbeat_ms);
        let asked = Instant::now();
        let answer = extend_leases(&shared).await;
        answer.map(|()| self.leases_due = asked + interval)
    }
}

/// One heartbeat for all that is held.
pub(super) async fn extend_leases(shared: &Shared) -> Result<(), StoreError> {
    let lease = Duration::from_millis(shared.settings.lease_ms);
    let (held, asked) = (shared.flight.held(), Instant::now());
    let lost = shared.store.heartbeat(shared.owner, shared.settings.lease_ms, &held).await?;
    tell_of_lost(shared.flight.extend(&held, &lost, asked + lease));
    Ok(())
}

/// By our own clock, cancels what can no longer be ours, however long a heartbeat is under way. Only if the whole process was
/// held it asks first: nobody else need have been there to take its jobs.
async fn watch_leases(shared: Arc<Shared>) -> Infallible {
    // Whatever is claimed meanwhile ends later. An end that is not written yet may be there long after its lease.
    let (lease, at_least) = (Duration::from_millis(shared.settings.lease_ms), Duration::from_millis(100));
    loop {
        let now = Instant::now();
        tell_of_lost(shared.flight.expire(now));
        let first = shared.flight.earliest_lease().unwrap_or(now + lease);
        let next = first.clamp(now + at_least, now + lease.max(at_least));
        sleep_until(next).await;
        if next.elapsed() > lease / 10 {
            let _ = timeout(lease / 4, extend_leases(&shared)).await;
        }
    }
}

fn tell_of_lost(lost: usize) {
    if lost > 0 {
        LEASE_LOST.add(lost as u64, ());
        tracing::warn!(lost, "leases were lost, the jobs are cancelled");
    }
}

fn report(settlement: &Settlement, answer: &Settled) {
    let job = settlement.fence.id;
    match (answer, &settlement.outcome) {
        (Settled::Late, outcome) => {
            LATE.add(1, ());
            tracing::info!(%job, outcome = outcome.as_str(), "a late answer was refused");
        }
        (Settled::Postponed { reason }, _) => {
            SETTLED.add(1, Ended { outcome: OutcomeName::Release });
            tracing::info!(%job, reason, "a job is tried again: there is no room for its effect");
        }
        (Settled::Refused { reason }, _) => {
            SETTLED.add(1, Ended { outcome: OutcomeName::Dead });
            tracing::warn!(%job, reason, "a job is dead: its effect was refused");
        }
        (Settled::Applied, outcome) => {
            SETTLED.add(1, Ended { outcome: outcome.name() });
            if let Outcome::Dead { reason, .. } = outcome {
                tracing::warn!(%job, reason, "a job is dead");
            }
        }
    }
}
