//! The port for everything durable: jobs, schedules, channels, deliveries, tenants.
//!
//! One trait of coarse verbs, one folder for each backend, and one contract suite that every backend passes
//! (`contract/`). A verb is a whole step of somebody's work, done in one transaction, so that a crash falls before it
//! or after it.
//!
//! What holds for every backend:
//! - **Times** are the store's own: a caller says "in 500 ms", never "at". Two replicas whose clocks differ agree.
//! - **Fences.** Each claim of a row counts its `attempt` up, and every write after it names the attempt. Whoever lost
//!   the row (a lease ran out, the process was suspended) writes nothing: the answer is [`Settled::Late`].
//! - **Deadlines.** Every call ends within the store's deadline, or with [`StoreError::Timeout`]; and within what its
//!   caller has left ([`telemetry::context::budget`]), or with [`StoreError::OutOfTime`].
//! - **Errors** say whether it helps to try again ([`StoreError::is_retryable`]). An actor that meets one parks itself
//!   with a backoff; a store that is away is no reason to crash.
//!
//! Deliberately absent: a query builder, an ORM, a generic repository. A backend is a file of plain SQL for each verb.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::jobs::Progress;
use crate::model::{Millis, TenantId};

mod call;
mod claim;
#[cfg(test)]
pub(crate) mod contract;
mod delivery;
mod ending;
mod error;
mod fair;
mod firing;
mod job;
mod keeper;
mod listing;
mod overview;
mod place;
mod policy;
mod port;
pub mod postgres;
mod request;
mod rows;
mod schedule;
pub mod sqlite;
mod standing;
mod tenant;
mod unique;
mod wakeups;

pub use claim::{ClaimJobs, ClaimedJobs, Effect, Fault, Fence, Outcome, OutcomeName, Settled, Settlement, SweepReport};
pub use delivery::{
    Before, CHANNEL_PENDING_MAX, Channel, ChannelNews, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryOutcome,
    DeliverySettled, DeliverySettlement, DeliveryState, DisableRules, DueChannels, FULL_RETRY_MS, Failing,
    LoggedAttempt, NewAttempt, NewChannel, NewDelivery,
};
pub use error::StoreError;
pub use fair::JOB_WEIGHT_DEFAULT;
pub use job::{Cancelled, Job, JobCounts, JobFilter, JobState, NewJob, Prune, PruneJobs, Pruned, Redriven};
pub use keeper::store;
pub use overview::{Backlog, DEAD_COUNTED_MAX, Overview, TenantAtWork};
pub use place::Place;
pub use policy::{BACKFILL_MAX, MISFIRE_MAX, Misfire, ON_TIME_MS, Overlap, Policies};
pub use postgres::{PostgresOptions, PostgresStore};
pub use request::{BeginRequest, BegunRequest, Fingerprint, KeptAnswer, RequestEnd, RequestTicket};
pub use schedule::{Backfilled, FireDue, FireReport, Fired, NewSchedule, Schedule, Tally, Triggered};
pub use sqlite::{SqliteOptions, SqliteStore};
pub use standing::{AHEAD_MAX, Standing};
pub use tenant::{KeyHash, Quotas, Tenant, new_key};
pub use unique::{KEY_MAX_CHARS, PERIOD_MAX_MS, Unique, UniqueStates};
pub use wakeups::{Hear, Wakeups};

/// What a verb answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A store that can be shared by all.
pub type SharedStore = Arc<dyn Store>;

/// The durable half of the service. See the page of this module for what every verb promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- jobs ----

    /// Keeps new jobs, all or none of them. On success they will run at least once. Answers in the order of `jobs`: for
    /// one whose unique key another job has ([`Unique::is_held_by`]), also one of the same batch, it keeps nothing and
    /// answers that other one, which has another id. Of any number at once, one job gets a key.
    /// [`StoreError::Limit`] if a tenant would have more of them queued than it may.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Job>>;

    /// Takes due jobs for a process: fair between tenants by their weights, then by priority, then by time. Each is leased,
    /// and its attempt counted up. No tenant has more running, in all queues together, than it may, nor starts more in a
    /// second. The cost follows neither the number of jobs nor that of tenants.
    async fn claim(&self, claim: ClaimJobs<'_>) -> Result<ClaimedJobs>;

    /// Writes down how claimed jobs ended, each with its effects or not at all. One whose effect finds its channel full
    /// is ready again after [`FULL_RETRY_MS`], and the attempt is not charged. Answers in the order of the batch.
    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>>;

    /// Gives claimed jobs back: they are ready again, and the attempt is not charged.
    async fn release(&self, fences: &[Fence]) -> Result<Vec<Settled>> {
        self.settle(fences.iter().map(|fence| Settlement::new(*fence, Outcome::Release)).collect()).await
    }

    /// Extends the leases of the jobs that `owner` runs, in one statement. Answers which of them it no longer owns.
    async fn heartbeat(&self, owner: Uuid, lease_ms: u64, held: &[Fence]) -> Result<Vec<Fence>>;

    /// Writes down how far claimed jobs are. Answers in the order of the reports.
    async fn report_progress(&self, reports: &[(Fence, Progress)]) -> Result<Vec<Settled>>;

    /// Makes jobs ready again whose lease ran out, at most `limit`. A job that lost its runner `crashes_max` times in
    /// all is quarantined: dead, with the reason. One that could be lost only once more is claimed as the only such job
    /// of its process: it may only have been beside the culprit. A lease that is longer than any may be, because the clock
    /// has gone back, is cut to what an owner that lives needs to extend it.
    async fn sweep(&self, crashes_max: u32, limit: u32) -> Result<SweepReport>;

    /// The time by which all of this is judged, in milliseconds since 1970: that of the server, if there is one.
    async fn now_ms(&self) -> Result<Millis>;

    /// Forgets finished jobs, and with each its unique key.
    async fn prune(&self, prune: PruneJobs) -> Result<Pruned>;

    /// One job of a tenant, also a finished one.
    async fn get_job(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Job>>;

    /// A tenant's jobs that pass the filter, live and finished, newest first, those behind `after` only, at most `limit`.
    /// All are read at one moment: a job that ends meanwhile appears once.
    async fn list_jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Job>>;

    /// Ends a job of a tenant at once and for good, whatever it does; `reason` is kept as its last error. One that runs
    /// is lost to its runner: what that answers is [`Settled::Late`], and its next heartbeat tells it. `None` if the
    /// tenant has no such job.
    async fn cancel_job(&self, tenant: &TenantId, id: Uuid, reason: &str) -> Result<Option<Cancelled>>;

    /// Makes a job of a tenant that is dead or cancelled ready again, under the same id: with all its attempts, its crashes
    /// forgotten. One that had crashed is claimed as the only such job of its process. [`StoreError::NotFound`] if the
    /// tenant has no such job, [`StoreError::Conflict`] if it is in another state, or another job has its unique key,
    /// [`StoreError::Limit`] if the tenant would have more queued than it may.
    async fn redrive_job(&self, tenant: &TenantId, id: Uuid) -> Result<Job>;

    /// Does the same with the tenant's jobs that pass the filter, dead and cancelled ones only, newest first, those behind
    /// `after` only, at most `limit`. Those whose unique key another job has stay as they are.
    async fn redrive_jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Redriven>;

    /// Where a job of a tenant stands, all read at one moment.
    async fn job_standing(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Standing>>;

    /// How many jobs are in each state. Its cost grows with the number of rows: for a beat of seconds, not for a request.
    async fn job_counts(&self) -> Result<JobCounts>;

    /// Who has the most to do, of all tenants: at most `limit` of each. Its cost grows with the tenants that have jobs, with the
    /// dead jobs and with the deliveries that have not ended: for an operator, not for a beat.
    async fn overview(&self, limit: u32) -> Result<Overview>;

    // ---- schedules ----

    /// Keeps a new schedule.
    async fn create_schedule(&self, schedule: NewSchedule) -> Result<Schedule>;

    /// One schedule of a tenant.
    async fn get_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>>;

    /// A tenant's schedules, newest first, those behind `after` only, at most `limit`.
    async fn list_schedules(&self, tenant: &TenantId, after: Option<Place>, limit: u32) -> Result<Vec<Schedule>>;

    /// Forgets a schedule of a tenant; its jobs stay. Answers whether there was one.
    async fn delete_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<bool>;

    /// Changes what the tenant says about a schedule of its own; what has become of its fires stays. It goes on as it was
    /// if its cadence and its start are the same, otherwise as one that is made now; a paused one stays paused.
    async fn update_schedule(&self, schedule: NewSchedule) -> Result<Option<Schedule>>;

    /// Stops a schedule of a tenant from firing until it is resumed; a fire that waits for the end of a job is dropped. One
    /// that is paused already stays as it is.
    async fn pause_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>>;

    /// Lets a paused schedule of a tenant fire again, as one that is made now: nothing is made up for. One that is not
    /// paused stays as it is.
    async fn resume_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>>;

    /// Fires schedules that are due, as their policies say: one transaction looks at the jobs of earlier fires, inserts the
    /// jobs and moves the schedules on. A fire for whose job its tenant has no room is missed. Any number of processes may
    /// call it at once; each fire happens once. If there are more than `limit`, every tenant has its share.
    async fn fire_due(&self, fire: FireDue) -> Result<FireReport>;

    /// Fires a schedule of a tenant now, also a paused one, under its own policy or another. The job, if it makes one at
    /// once, has the id `job`. Nothing has changed if it was [`Triggered::Overlapped`]. [`StoreError::Limit`] if the tenant has
    /// as many jobs queued as it may.
    async fn trigger_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        job: Uuid,
        overlap: Option<Overlap>,
    ) -> Result<Option<Triggered>>;

    /// Makes the jobs of past fires of a tenant's schedule, also of a paused one, in one transaction. One that has made a
    /// job before makes no other, for as long as that job is kept. [`StoreError::Limit`], and nothing is made, if those
    /// are more than the tenant may have queued.
    async fn backfill_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        fires: &[Millis],
        overlap: Overlap,
    ) -> Result<Option<Backfilled>>;

    // ---- channels and their deliveries ----

    /// Keeps a new channel.
    async fn create_channel(&self, channel: NewChannel) -> Result<Channel>;

    /// One channel of a tenant, also a disabled one.
    async fn get_channel(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Channel>>;

    /// A tenant's channels, newest first.
    async fn list_channels(&self, tenant: &TenantId, page: Before) -> Result<Vec<Channel>>;

    /// Stops a channel until it is enabled again: its deliveries that were not sent are dead with the reason, new ones
    /// are refused. Answers whether it was enabled before. With very many deliveries it may need several calls, or
    /// [`Store::bury_deliveries`]: from the first one on nothing is sent.
    async fn disable_channel(&self, id: Uuid, reason: &str) -> Result<bool>;

    /// Starts a channel anew: what was counted against it is forgotten, and it need not wait. What died stays dead until
    /// it is redelivered, and what should have died when it was disabled does so before. Answers whether the tenant has
    /// such a channel. It may need several calls, as [`Store::delete_channel`].
    async fn enable_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool>;

    /// Forgets a channel with all its deliveries and their logs. Answers whether the tenant had such a channel. One with a
    /// long history may need several calls: it is disabled from the first on, and each gets on.
    async fn delete_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool>;

    /// Enabled channels that have a delivery to send now, and need not wait: the one that waits longest of each tenant, then the second of
    /// each, and so on, at most `limit` in all and `per_tenant` of one tenant. One that cannot be read is disabled.
    async fn due_channels(&self, limit: u32, per_tenant: u32) -> Result<DueChannels>;

    /// Keeps new deliveries, all or none of them. [`StoreError::NotFound`] if a channel is not one of the tenant's,
    /// [`StoreError::Conflict`] if one is disabled, [`StoreError::Limit`] if one has so many that wait or are under way.
    async fn create_deliveries(&self, deliveries: Vec<NewDelivery>) -> Result<Vec<Delivery>>;

    /// Keeps one new delivery.
    async fn create_delivery(&self, delivery: NewDelivery) -> Result<Delivery> {
        let absent = || StoreError::Corrupt { verb: "create_deliveries", what: "no row was made".to_owned() };
        self.create_deliveries(vec![delivery]).await?.pop().ok_or_else(absent)
    }

    /// Takes due deliveries of one channel, oldest first. Those whose lease ran out are due too, and one that
    /// cannot be read is dead. A channel that is disabled, or must wait, has none.
    async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<ClaimedDeliveries>;

    /// Writes down how an attempt to deliver ended, with its place in the log (the newest 50 of a delivery are kept), and
    /// what follows for the channel: it must wait, or is disabled as by [`Store::disable_channel`]. A delivery that was
    /// buried while it was under way is sent if it has arrived.
    async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<DeliverySettled>;

    /// Gives a claimed delivery back: it is due again, and the attempt is not charged.
    async fn release_delivery(&self, fence: Fence) -> Result<Settled> {
        let released =
            self.settle_delivery(DeliverySettlement::new(fence, DeliveryOutcome::Release { after_ms: 0 })).await?;
        Ok(released.settled)
    }

    /// Makes a dead delivery due again, under the same id and with all its attempts. [`StoreError::NotFound`] if the
    /// channel has no such delivery, [`StoreError::Conflict`] if it is not dead or the channel is disabled,
    /// [`StoreError::Limit`] as with a new one.
    async fn redeliver(&self, tenant: &TenantId, channel: Uuid, id: Uuid) -> Result<Delivery>;

    /// Ends deliveries that their disabled channel left behind, at most `limit`, as [`Store::disable_channel`] does.
    /// Answers how many.
    async fn bury_deliveries(&self, limit: u32) -> Result<u64>;

    /// One delivery of a tenant.
    async fn get_delivery(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Delivery>>;

    /// The log of a delivery, oldest attempt first.
    async fn list_attempts(&self, delivery: Uuid) -> Result<Vec<LoggedAttempt>>;

    /// A channel's deliveries, newest first; only those in `state` if one is given.
    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        channel: Uuid,
        state: Option<DeliveryState>,
        page: Before,
    ) -> Result<Vec<Delivery>>;

    /// Forgets finished deliveries and their logs. Answers how many.
    async fn prune_deliveries(&self, prune: Prune) -> Result<u64>;

    // ---- tenants ----

    /// Makes a tenant with its key. Doing the same again changes nothing; another key for the same name, or the same
    /// key for another name, is a [`StoreError::Conflict`].
    async fn create_tenant(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant>;

    /// The tenant that a key belongs to.
    async fn tenant_by_key_hash(&self, key: &KeyHash) -> Result<Option<Tenant>>;

    /// The tenant of this name.
    async fn get_tenant(&self, id: &TenantId) -> Result<Option<Tenant>>;

    /// Tenants by name, those behind `after`, at most `limit`.
    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>>;

    /// Gives a tenant another key; the one before opens nothing from now on. [`StoreError::NotFound`] if there is no such
    /// tenant, [`StoreError::Conflict`] if the key is another tenant's.
    async fn rotate_tenant_key(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant>;

    /// Disables a tenant: from now on its jobs are not claimed, its deliveries wait, and fires of its schedules are
    /// missed. What is claimed already goes on. Doing it again changes nothing; [`StoreError::NotFound`] if there is none.
    async fn disable_tenant(&self, id: &TenantId) -> Result<Tenant>;

    /// Enables a disabled tenant again; what waited goes on. Otherwise as [`Store::disable_tenant`].
    async fn enable_tenant(&self, id: &TenantId) -> Result<Tenant>;

    /// Replaces all of a tenant's own limits. [`StoreError::NotFound`] if there is no such tenant.
    async fn set_tenant_quotas(&self, id: &TenantId, quotas: Quotas) -> Result<Tenant>;

    /// Tenants whose key, state or limits changed after the change `version`, in the order of their last changes, at most
    /// `limit`. 0 is before all changes; a new tenant has not changed.
    async fn changed_tenants(&self, version: i64, limit: u32) -> Result<Vec<Tenant>>;

    // ---- requests with keys of their own ----

    /// Takes a request for one try, unless it is answered already, another try is going on, or it must be refused. A
    /// request whose runner was lost may be tried again when the lease is over.
    async fn begin_request(&self, begin: BeginRequest) -> Result<BegunRequest>;

    /// Writes down how a try ended.
    async fn end_request(&self, ticket: &RequestTicket, end: RequestEnd) -> Result<Settled>;

    /// Forgets requests whose time is over, at most `limit`. Answers how many.
    async fn forget_requests(&self, limit: u32) -> Result<u64>;

    // ---- the store itself ----

    /// Tells the other processes that share this store which queues to look at, and calls `hear` with those that they tell,
    /// and with all ([`Wakeups::ALL`]) when it begins to listen. It goes on until the connection for it is lost. `Ok` says
    /// that there are no others and never will be, as with a store of one process.
    async fn exchange(&self, told: &Wakeups, hear: Hear<'_>) -> Result<()> {
        let _ = (told, hear);
        Ok(())
    }

    /// Connects, makes what is missing and brings the schema up to date. Doing it again is harmless.
    ///
    /// Fails with [`StoreError::Schema`] for a store that a newer program wrote, [`StoreError::Corrupt`] for one that is
    /// none, otherwise [`StoreError::Unavailable`].
    async fn prepare(&self) -> Result<()>;

    /// Proves that the store can be read *and* written now.
    async fn ping(&self) -> Result<()>;

    /// Closes all connections. Until it is prepared again, calls answer [`StoreError::Unavailable`].
    async fn close(&self);
}
