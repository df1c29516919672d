//! The subsystem that runs tenants' jobs.
//!
//! ```text
//! scheduler (one_for_one)      stops upwards
//!   sweeper   rescues jobs whose runner was lost, forgets old ones, counts; keeps the line to other processes
//!   firer     turns due schedules into jobs
//!   reporter  writes down and tells how far jobs are that run
//!   settler   writes down how jobs ended; keeps the leases of those that run
//!   runners   run jobs, each in a task of its own
//!   claimer   takes due jobs from the store
//! ```
//!
//! The order of stop follows the way of a job: nothing new is claimed, then what runs may end, is cancelled, is given
//! back without charge, and only then the one who writes it all down stops.
//!
//! The actors are thin and hold nothing: what a restart must not lose is in `flight`, which they share. A job
//! that panics costs one attempt of its own; it never reaches an actor. A store that is away parks the loops; it never
//! ends them. Nothing here is needed for correctness that is not also a row: kill the process at any point, and after
//! the lease the jobs run again.
//!
//! Deliberately absent: a leader, a lock, an in-memory queue of jobs beyond one batch.

mod census;
mod claimer;
mod explain;
mod firer;
mod flight;
mod line;
mod pulse;
mod reporter;
mod runners;
mod settings;
mod settler;
mod sweeper;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use supervision::{Address, Backoff, ChildSpec, Intensity, Shutdown, Strategy, SupervisorSpec};
use uuid::Uuid;

use self::explain::Here;
pub use self::explain::{Reason, ReasonCode};
use self::flight::Flight;
pub use self::settings::{Settings, SettingsFault};
use crate::bus::Bus;
use crate::jobs::{Handlers, RunOne};
use crate::model::{Millis, Poke, TenantId};
use crate::seam::seam;
use crate::store::{
    Backfilled, Cancelled, Job, JobFilter, NewJob, NewSchedule, Overlap, Place, Redriven, Result, Schedule,
    SharedStore, Standing, Triggered, Wakeups,
};

telemetry::declare_metrics! {
    /// Jobs ended by their tenants.
    pub static CANCELLED: Counter = ("job.cancelled", "{job}");
    /// Jobs sent round again by their tenants.
    pub static REDRIVEN: Counter = ("job.redriven", "{job}");
}

/// Where it stands in the tree.
pub const ID: &str = "scheduler";

/// The parts of the subsystem that outlive its actors, and the door for those who ask for jobs. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler(Arc<Shared>);

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("settings of the scheduler: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct BadSettings(pub Vec<SettingsFault>);

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What the store knows.
    pub standing: Standing,
    /// What follows from it here; never empty.
    pub reasons: Vec<Reason>,
}

/// What all actors of the subsystem share.
struct Shared {
    store: SharedStore,
    settings: Settings,
    /// Made at boot: names this process in its claims.
    owner: Uuid,
    run: RunOne,
    flight: Flight,
    claimer_seen: claimer::Seen,
    /// Jobs may be due.
    claimer: Poke,
    /// Jobs are waiting to run, or a place is free.
    runners: Poke,
    /// Jobs have ended.
    settler: Poke,
    /// A schedule is new.
    firer: Poke,
    /// Jobs have written deliveries.
    deliveries: Poke,
    /// What other processes are to look at.
    wakeups: Wakeups,
    /// Where it is told how far jobs are.
    bus: OnceLock<Arc<dyn Bus>>,
}

impl Scheduler {
    /// Jobs of `store` for `handlers`. `deliveries` is poked when a job has written one.
    ///
    /// # Errors
    /// [`BadSettings`] with every contradiction.
    pub fn new(
        settings: Settings,
        store: SharedStore,
        handlers: Handlers,
        deliveries: Poke,
    ) -> std::result::Result<Self, BadSettings> {
        let mut faults = settings.faults();
        faults.extend(
            handlers.twice().map(|kind| SettingsFault {
                key: "handlers",
                reason: format!("two of them are for the kind {kind:?}"),
            }),
        );
        if !faults.is_empty() {
            return Err(BadSettings(faults));
        }
        let run = RunOne {
            handlers,
            retry: settings.retry(),
            timeout_ms: settings.job_timeout_ms,
            cancel_grace_ms: settings.cancel_grace_ms,
        };
        Ok(Self(Arc::new(Shared {
            store,
            owner: Uuid::new_v4(),
            run,
            flight: Flight::new(settings.concurrency, settings.batch),
            claimer_seen: claimer::Seen::default(),
            claimer: Poke::new(),
            runners: Poke::new(),
            settler: Poke::new(),
            firer: Poke::new(),
            deliveries,
            wakeups: Wakeups::new(),
            bus: OnceLock::new(),
            settings,
        })))
    }

    /// From now on whoever listens is told how far jobs are that run here. Only the first bus counts.
    pub fn tell(&self, bus: Arc<dyn Bus>) {
        let _ = self.0.bus.set(bus);
    }

    /// Keeps jobs, and wakes the claimers, here and in other processes. On success they will run at least once.
    ///
    /// # Errors
    /// As [`Store::enqueue`](crate::store::Store::enqueue). Payloads are not checked here, see [`Handlers::check`].
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Job>> {
        let kept = self.0.store.enqueue(jobs).await?;
        seam!("after_enqueue");
        self.0.claimer.poke();
        self.0.tell_of(&kept);
        Ok(kept)
    }

    /// Keeps a schedule, and wakes the firer.
    ///
    /// # Errors
    /// As [`Store::create_schedule`](crate::store::Store::create_schedule).
    pub async fn create_schedule(&self, schedule: NewSchedule) -> Result<Schedule> {
        let kept = self.0.store.create_schedule(schedule).await?;
        self.0.firer.poke();
        Ok(kept)
    }

    /// Ends a job of a tenant for good, whatever it does. A handler that runs it here is told at once; one in another
    /// process with the next heartbeat, as is one here whose claim is on its way at this very moment.
    ///
    /// # Errors
    /// As [`Store::cancel_job`](crate::store::Store::cancel_job).
    pub async fn cancel(&self, tenant: &TenantId, id: Uuid, reason: &str) -> Result<Option<Cancelled>> {
        let cancelled = self.0.store.cancel_job(tenant, id, reason).await?;
        if let Some(Cancelled::Now(job)) = &cancelled {
            CANCELLED.add(1, ());
            if job.fired.is_some() {
                // Its schedule may have a fire that waits for its end.
                self.0.firer.poke();
            }
            if self.0.flight.lose(&job.fence()) {
                // There is room for another one.
                self.0.claimer.poke();
            }
        }
        Ok(cancelled)
    }

    /// Sends a job of a tenant round again that is dead or cancelled, and wakes the claimer.
    ///
    /// # Errors
    /// As [`Store::redrive_job`](crate::store::Store::redrive_job).
    pub async fn redrive(&self, tenant: &TenantId, id: Uuid) -> Result<Job> {
        let job = self.0.store.redrive_job(tenant, id).await?;
        REDRIVEN.add(1, ());
        self.0.claimer.poke();
        self.0.wakeups.tell(&job.queue);
        Ok(job)
    }

    /// Does the same with jobs that pass the filter, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::redrive_jobs`](crate::store::Store::redrive_jobs).
    pub async fn redrive_many(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Redriven> {
        let redriven = self.0.store.redrive_jobs(tenant, filter, after, limit).await?;
        REDRIVEN.add(redriven.count.into(), ());
        if redriven.count > 0 {
            self.0.claimer.poke();
            self.0.wakeups.tell(filter.queue.as_deref().unwrap_or(Wakeups::ALL));
        }
        Ok(redriven)
    }

    /// Why a job of a tenant does not run now, as far as the store and this process know. `None` if the tenant has no such
    /// job.
    ///
    /// # Errors
    /// As [`Store::job_standing`](crate::store::Store::job_standing).
    pub async fn explain(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Explanation>> {
        let Some(standing) = self.0.store.job_standing(tenant, id).await? else { return Ok(None) };
        let here = Here {
            owner: self.0.owner,
            queues: &self.0.settings.queues,
            elsewhere: &self.0.settings.queues_elsewhere,
            knows_kind: self.handlers().known(&standing.job.kind).is_some(),
            tenant_running_max: self.0.settings.tenant_concurrency,
            room: self.0.flight.room(),
            claimer: self.claimer(),
        };
        let reasons = explain::reasons(&standing, &here);
        Ok(Some(Explanation { standing, reasons }))
    }

    fn claimer(&self) -> explain::Claimer {
        match self.0.claimer_seen.last_look() {
            None => explain::Claimer::Absent,
            Some(look) if look.began.elapsed() > self.0.settings.silence() => {
                explain::Claimer::Silent(look.began.elapsed())
            }
            Some(look) if look.is_parked => explain::Claimer::Parked,
            Some(_) => explain::Claimer::Looks,
        }
    }

    /// Lets a paused schedule fire again, and wakes the firer.
    ///
    /// # Errors
    /// As [`Store::resume_schedule`](crate::store::Store::resume_schedule).
    pub async fn resume_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
        let resumed = self.0.store.resume_schedule(tenant, id).await?;
        self.0.firer.poke();
        Ok(resumed)
    }

    /// Changes what a tenant says about its schedule, and wakes the firer.
    ///
    /// # Errors
    /// As [`Store::update_schedule`](crate::store::Store::update_schedule).
    pub async fn update_schedule(&self, schedule: NewSchedule) -> Result<Option<Schedule>> {
        let updated = self.0.store.update_schedule(schedule).await?;
        self.0.firer.poke();
        Ok(updated)
    }

    /// Fires a schedule now, under its own overlap policy or another. Its job has the id `job`.
    ///
    /// # Errors
    /// As [`Store::trigger_schedule`](crate::store::Store::trigger_schedule).
    pub async fn trigger_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        job: Uuid,
        overlap: Option<Overlap>,
    ) -> Result<Option<Triggered>> {
        let triggered = self.0.store.trigger_schedule(tenant, id, job, overlap).await?;
        if let Some(Triggered::Started { fired, cancelled }) = &triggered {
            firer::started(&self.0, std::slice::from_ref(fired), cancelled);
        }
        Ok(triggered)
    }

    /// Makes the jobs of past fires, see [`Schedule::fires_between`].
    ///
    /// # Errors
    /// As [`Store::backfill_schedule`](crate::store::Store::backfill_schedule).
    pub async fn backfill_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        fires: &[Millis],
        overlap: Overlap,
    ) -> Result<Option<Backfilled>> {
        let backfilled = self.0.store.backfill_schedule(tenant, id, fires, overlap).await?;
        if let Some(backfilled) = &backfilled {
            firer::started(&self.0, &backfilled.fired, &backfilled.cancelled);
        }
        Ok(backfilled)
    }

    /// Who can run what here.
    pub fn handlers(&self) -> &Handlers {
        &self.0.run.handlers
    }

    /// The queues that are worked on, here or elsewhere. A job in another one would wait for ever.
    pub fn queues(&self) -> impl Iterator<Item = &str> {
        let settings = &self.0.settings;
        settings.queues.iter().chain(&settings.queues_elsewhere).map(String::as_str)
    }

    /// Lets the claimer look now: someone else has written jobs.
    pub fn wake(&self) {
        self.0.claimer.poke();
    }
}

/// The child of the root. Each of its actors may restart within `restart`, after `backoff`; beyond that the subsystem as a
/// whole fails.
#[must_use]
pub fn scheduler(scheduler: &Scheduler, restart: Intensity, backoff: Backoff) -> ChildSpec {
    CANCELLED.born(());
    REDRIVEN.born(());
    let shared = || Arc::clone(&scheduler.0);
    let children = [
        sweeper::child(shared()),
        firer::child(shared()),
        reporter::child(shared()),
        settler::child(shared()),
        runners::child(shared()),
        claimer::child(shared()),
    ];
    let subtree = SupervisorSpec::new(ID, Strategy::OneForOne)
        .no_shared_intensity()
        .with_children(children.map(|child| child.intensity(restart).backoff(backoff)));
    ChildSpec::supervisor(subtree).stop_within(Shutdown::Within(scheduler.0.settings.stop_budget()))
}

/// One of the six: an actor whose only message is its tick.
fn actor<A>(id: &'static str, stop: Duration, shared: Arc<Shared>, make: fn() -> A) -> ChildSpec
where
    A: ractor::Actor<Arguments = (supervision::ChildContext, Arc<Shared>)>,
{
    let spec = ChildSpec::actor(id, &Address::new(id), move |context| {
        seam!("inside_make");
        (make(), (context, Arc::clone(&shared)))
    });
    spec.stop_within(Shutdown::Within(stop))
}
