//! PostgreSQL: the store of any number of processes.
//!
//! - **Time** is the database's, asked for in the statement that needs it.
//! - **One statement** for a verb wherever that can be: it needs no transaction, and a process that is suspended between
//!   two statements holds nothing that others wait for.
//! - **Locks** are taken in one order by all (channels before deliveries, requests before their number, unique keys before
//!   the lock of a tenant's queued jobs and that before their number, several rows of one table by their ids), and work that
//!   any process may do is taken with `SKIP LOCKED`. So nobody waits in a circle.
//! - **Isolation** is `READ COMMITTED`: each statement sees what was committed when it began. What must be seen together is
//!   asked for in one statement, or locked first.
//! - Needs PostgreSQL 14 or newer, reached directly: a pooler that hands a connection on after each transaction breaks
//!   prepared statements and `LISTEN`.

mod attempts;
mod channels;
mod claim;
#[cfg(test)]
mod damage;
mod deliveries;
#[cfg(test)]
mod dropped;
mod fires;
mod jobs;
mod list;
mod loads;
#[cfg(test)]
mod locks;
mod open;
#[cfg(test)]
mod plans;
mod prune;
mod redrive;
mod requests;
mod schedules;
mod session;
mod settle;
mod standing;
mod tenants;
#[cfg(test)]
mod turns;
mod unique;
mod wakeups;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool};
use uuid::Uuid;

pub use open::PostgresOptions;
use session::{Run, Session, Write};

use super::call::within;
use super::error::Inner;
use super::rows::Columns;
use super::{
    Backfilled, Before, BeginRequest, BegunRequest, Cancelled, Channel, ClaimDeliveries, ClaimJobs, ClaimedDeliveries,
    ClaimedJobs, Delivery, DeliverySettled, DeliverySettlement, DeliveryState, DueChannels, Fence, FireDue, FireReport,
    Hear, Job, JobCounts, JobFilter, KeyHash, LoggedAttempt, NewChannel, NewDelivery, NewJob, NewSchedule, Overlap,
    Place, Prune, PruneJobs, Pruned, Quotas, Redriven, RequestEnd, RequestTicket, Result, Schedule, Settled,
    Settlement, Standing, Store, SweepReport, Tenant, Triggered, Wakeups,
};
use crate::jobs::Progress;
use crate::model::{Millis, TenantId};

/// A store in a database of PostgreSQL. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct PostgresStore {
    connect: PgConnectOptions,
    connections_max: u32,
    pool: Arc<ArcSwapOption<PgPool>>,
    deadline: Duration,
    /// Deliveries of one channel that wait or are under way at a time.
    pending_max: u32,
    tenant_queued_max: u32,
    /// What the database takes for the time, in tests: each connection is told when it is taken.
    #[cfg(test)]
    clock: Option<crate::model::Clock>,
}

impl fmt::Debug for PostgresStore {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.connect.get_host(), self.connect.get_port());
        f.debug_struct("PostgresStore").field("host", &host).field("port", &port).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// A connection for one call.
    async fn session(&self) -> Inner<Session> {
        let pool = self.pool.load_full().ok_or(sqlx::Error::PoolClosed)?;
        let session = Session::new(pool.acquire().await?);
        #[cfg(test)]
        let session = tests::set_clock(session, self.clock.as_ref()).await?;
        Ok(session)
    }

    async fn within<T>(&self, verb: &'static str, call: impl Future<Output = Inner<T>>) -> Result<T> {
        within(self.deadline, verb, call).await
    }

    async fn time(&self) -> Inner<Millis> {
        self.session().await?.one(sqlx::query("SELECT now_ms() AS now_ms")).await?.number("now_ms")
    }

    /// On the way of every other verb, so that it cannot be well when they are not.
    async fn touch(&self) -> Inner<()> {
        let write = "INSERT INTO pings (id, at_ms) VALUES (1, now_ms()) ON CONFLICT (id) DO UPDATE SET at_ms = now_ms()
                     RETURNING (SELECT oldest_program FROM compatibility) AS oldest_program";
        let row = self.session().await?.one(sqlx::query(write)).await?;
        open::compatible(row.number("oldest_program")?)
    }
}

/// A text as PostgreSQL can keep it: NUL it cannot, and keeps U+FFFD in its place.
fn clean(text: impl Into<String>) -> String {
    let text = text.into();
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

/// A span of time that can be added to the time: 100,000 years at most.
fn span(ms: u64) -> i64 {
    super::rows::signed(ms).min(3_155_760_000_000_000)
}

#[async_trait]
impl Store for PostgresStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Job>> {
        self.within("enqueue", jobs::enqueue(self, jobs)).await
    }

    async fn claim(&self, claim: ClaimJobs<'_>) -> Result<ClaimedJobs> {
        self.within("claim", claim::claim(self, claim)).await
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>> {
        self.within("settle", settle::settle(self, batch)).await
    }

    async fn heartbeat(&self, owner: Uuid, lease_ms: u64, held: &[Fence]) -> Result<Vec<Fence>> {
        self.within("heartbeat", jobs::heartbeat(self, owner, lease_ms, held)).await
    }

    async fn sweep(&self, crashes_max: u32, limit: u32) -> Result<SweepReport> {
        self.within("sweep", settle::sweep(self, crashes_max, limit)).await
    }

    async fn report_progress(&self, reports: &[(Fence, Progress)]) -> Result<Vec<Settled>> {
        self.within("report_progress", jobs::report_progress(self, reports)).await
    }

    async fn redrive_job(&self, tenant: &TenantId, id: Uuid) -> Result<Job> {
        self.within("redrive_job", redrive::one(self, tenant, id)).await
    }

    async fn redrive_jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Redriven> {
        self.within("redrive_jobs", redrive::many(self, tenant, filter, after, limit)).await
    }

    async fn job_standing(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Standing>> {
        self.within("job_standing", standing::standing(self, tenant, id)).await
    }

    async fn now_ms(&self) -> Result<Millis> {
        self.within("now_ms", self.time()).await
    }

    async fn prune(&self, prune: PruneJobs) -> Result<Pruned> {
        self.within("prune", prune::jobs(self, prune)).await
    }

    async fn get_job(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Job>> {
        self.within("get_job", jobs::get(self, tenant, id)).await
    }

    async fn list_jobs(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Job>> {
        self.within("list_jobs", list::jobs(self, tenant, filter, after, limit)).await
    }

    async fn cancel_job(&self, tenant: &TenantId, id: Uuid, reason: &str) -> Result<Option<Cancelled>> {
        self.within("cancel_job", settle::cancel(self, tenant, id, reason)).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.within("job_counts", jobs::counts(self)).await
    }

    async fn create_schedule(&self, schedule: NewSchedule) -> Result<Schedule> {
        self.within("create_schedule", schedules::create(self, schedule)).await
    }

    async fn get_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
        self.within("get_schedule", schedules::get(self, tenant, id)).await
    }

    async fn list_schedules(&self, tenant: &TenantId, after: Option<Place>, limit: u32) -> Result<Vec<Schedule>> {
        self.within("list_schedules", list::schedules(self, tenant, after, limit)).await
    }

    async fn delete_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
        self.within("delete_schedule", schedules::delete(self, tenant, id)).await
    }

    async fn pause_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
        self.within("pause_schedule", schedules::pause(self, tenant, id)).await
    }

    async fn resume_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
        self.within("resume_schedule", schedules::resume(self, tenant, id)).await
    }

    async fn fire_due(&self, fire: FireDue) -> Result<FireReport> {
        self.within("fire_due", fires::fire_due(self, fire)).await
    }

    async fn update_schedule(&self, schedule: NewSchedule) -> Result<Option<Schedule>> {
        self.within("update_schedule", schedules::update(self, schedule)).await
    }

    async fn trigger_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        job: Uuid,
        overlap: Option<Overlap>,
    ) -> Result<Option<Triggered>> {
        self.within("trigger_schedule", fires::trigger(self, tenant, id, job, overlap)).await
    }

    async fn backfill_schedule(
        &self,
        tenant: &TenantId,
        id: Uuid,
        fires: &[Millis],
        overlap: Overlap,
    ) -> Result<Option<Backfilled>> {
        self.within("backfill_schedule", fires::backfill(self, tenant, id, fires, overlap)).await
    }

    async fn create_channel(&self, channel: NewChannel) -> Result<Channel> {
        self.within("create_channel", channels::create(self, channel)).await
    }

    async fn get_channel(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Channel>> {
        self.within("get_channel", channels::get(self, tenant, id)).await
    }

    async fn list_channels(&self, tenant: &TenantId, page: Before) -> Result<Vec<Channel>> {
        self.within("list_channels", channels::list(self, tenant, page)).await
    }

    async fn disable_channel(&self, id: Uuid, reason: &str) -> Result<bool> {
        self.within("disable_channel", channels::disable(self, id, reason)).await
    }

    async fn enable_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
        self.within("enable_channel", channels::enable(self, tenant, id)).await
    }

    async fn delete_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
        self.within("delete_channel", channels::delete(self, tenant, id)).await
    }

    async fn due_channels(&self, limit: u32, per_tenant: u32) -> Result<DueChannels> {
        self.within("due_channels", channels::due(self, limit, per_tenant)).await
    }

    async fn create_deliveries(&self, deliveries: Vec<NewDelivery>) -> Result<Vec<Delivery>> {
        self.within("create_deliveries", deliveries::create(self, deliveries)).await
    }

    async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<ClaimedDeliveries> {
        self.within("claim_deliveries", deliveries::claim(self, claim)).await
    }

    async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<DeliverySettled> {
        self.within("settle_delivery", attempts::settle(self, settlement)).await
    }

    async fn redeliver(&self, tenant: &TenantId, channel: Uuid, id: Uuid) -> Result<Delivery> {
        self.within("redeliver", deliveries::redeliver(self, tenant, channel, id)).await
    }

    async fn get_delivery(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Delivery>> {
        self.within("get_delivery", deliveries::get(self, tenant, id)).await
    }

    async fn list_attempts(&self, delivery: Uuid) -> Result<Vec<LoggedAttempt>> {
        self.within("list_attempts", attempts::list(self, delivery)).await
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        channel: Uuid,
        state: Option<DeliveryState>,
        page: Before,
    ) -> Result<Vec<Delivery>> {
        self.within("list_deliveries", deliveries::list(self, tenant, channel, state, page)).await
    }

    async fn bury_deliveries(&self, limit: u32) -> Result<u64> {
        self.within("bury_deliveries", channels::bury(self, limit)).await
    }

    async fn prune_deliveries(&self, prune: Prune) -> Result<u64> {
        self.within("prune_deliveries", deliveries::prune(self, prune)).await
    }

    async fn create_tenant(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant> {
        self.within("create_tenant", tenants::create(self, id, key)).await
    }

    async fn tenant_by_key_hash(&self, key: &KeyHash) -> Result<Option<Tenant>> {
        self.within("tenant_by_key_hash", tenants::by_key_hash(self, key)).await
    }

    async fn get_tenant(&self, id: &TenantId) -> Result<Option<Tenant>> {
        self.within("get_tenant", tenants::get(self, id)).await
    }

    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>> {
        self.within("list_tenants", tenants::list(self, after, limit)).await
    }

    async fn rotate_tenant_key(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant> {
        self.within("rotate_tenant_key", tenants::rotate_key(self, id, key)).await
    }

    async fn disable_tenant(&self, id: &TenantId) -> Result<Tenant> {
        self.within("disable_tenant", tenants::disable(self, id)).await
    }

    async fn enable_tenant(&self, id: &TenantId) -> Result<Tenant> {
        self.within("enable_tenant", tenants::enable(self, id)).await
    }

    async fn set_tenant_quotas(&self, id: &TenantId, quotas: Quotas) -> Result<Tenant> {
        self.within("set_tenant_quotas", tenants::set_quotas(self, id, quotas)).await
    }

    async fn changed_tenants(&self, version: i64, limit: u32) -> Result<Vec<Tenant>> {
        self.within("changed_tenants", tenants::changed(self, version, limit)).await
    }

    async fn begin_request(&self, begin: BeginRequest) -> Result<BegunRequest> {
        self.within("begin_request", requests::begin(self, begin)).await
    }

    async fn end_request(&self, ticket: &RequestTicket, end: RequestEnd) -> Result<Settled> {
        self.within("end_request", requests::end(self, ticket, end)).await
    }

    async fn forget_requests(&self, limit: u32) -> Result<u64> {
        self.within("forget_requests", requests::forget(self, limit)).await
    }

    async fn exchange(&self, told: &Wakeups, hear: Hear<'_>) -> Result<()> {
        wakeups::exchange(self, told, hear).await
    }

    async fn prepare(&self) -> Result<()> {
        open::prepare(self).await
    }

    async fn ping(&self) -> Result<()> {
        self.within("ping", self.touch()).await
    }

    async fn close(&self) {
        if let Some(pool) = self.pool.swap(None) {
            pool.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clock;
    use crate::store::contract::{Fixture, PENDING_MAX, START_MS, contract_tests};

    /// Where the full test command has started a server: the address of a database that may be filled.
    const SERVER: &str = "TEST_POSTGRES";

    /// The time by the setting of the session, which [`set_clock`] makes.
    const TOLD_TIME: &str = "CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
                             AS $$ SELECT current_setting('tests.now_ms')::bigint $$";

    pub(super) async fn set_clock(mut session: Session, clock: Option<&Clock>) -> Inner<Session> {
        if let Some(clock) = clock {
            let now = sqlx::query("SELECT set_config('tests.now_ms', $1, false)").bind(clock.now_ms().to_string());
            session.execute(now).await?;
        }
        Ok(session)
    }

    /// An empty store in a schema of its own, by the clock of its server; none, said aloud, if there is no server.
    pub(super) async fn open_real() -> Option<PostgresStore> {
        open_real_within(20_000).await
    }

    /// The same, with this deadline of every call.
    pub(super) async fn open_real_within(deadline_ms: u64) -> Option<PostgresStore> {
        let Ok(server) = std::env::var(SERVER) else {
            println!("skipped: no PostgreSQL in {SERVER} (`cargo xtask test` starts one)");
            return None;
        };
        let schema = format!("t_{}", Uuid::new_v4().simple());
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        let joint = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joint}options=-c%20search_path%3D{schema}");
        let options = PostgresOptions { deadline_ms, channel_pending_max: PENDING_MAX, ..PostgresOptions::default() };
        Some(PostgresStore::open(&url, options).await.unwrap())
    }

    /// An empty store, with a clock that stands still.
    pub(super) async fn open() -> Option<Fixture> {
        Some(open_with_clock().await?.1)
    }

    /// The same, and what the contract's helpers need of it.
    pub(super) async fn open_with_clock() -> Option<(PostgresStore, Fixture)> {
        let mut store = open_real().await?;
        let clock = Clock::manual(START_MS);
        store.session().await.unwrap().execute(sqlx::query(TOLD_TIME)).await.unwrap();
        store.clock = Some(clock.clone());
        let shared = Arc::new(store.clone());
        Some((store, Fixture { store: shared, clock, owner: Uuid::now_v7(), _keep: Box::new(()) }))
    }

    contract_tests!(super::open);
}
