//! How many jobs each tenant has queued: asked of a few rows that triggers keep (`0009_fairness.sql`), never counted.
//! Whoever adds jobs is refused by the trigger (`0011_queued_exactly.sql`); here is asked what can be said before.

use std::collections::BTreeMap;

use super::{Run, Write};
use crate::model::TenantId;
use crate::store::ending;
use crate::store::error::{Inner, Trouble};
use crate::store::fair::JOBS_QUEUED;
use crate::store::rows::Columns;

const QUEUED: &str = "
    SELECT asked.tenant,
           coalesce((SELECT sum(queued)::bigint FROM loads WHERE loads.tenant = asked.tenant), 0) AS queued,
           coalesce((SELECT jobs_queued FROM tenants WHERE id = asked.tenant), $2) AS most
    FROM unnest($1::text[]) AS asked (tenant) ORDER BY asked.tenant";

// A share below the queue's time says nothing any more. Claims write them too, and wait for nobody here.
const FORGET_IDLE: &str = "
    DELETE FROM shares WHERE (queue, tenant) IN (
        SELECT shares.queue, shares.tenant FROM shares JOIN queues ON queues.queue = shares.queue
        WHERE shares.vtime <= queues.vtime AND NOT shares.waits
              AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant = shares.tenant AND jobs.queue = shares.queue
                                                       AND state <> 'running')
              AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant = shares.tenant AND jobs.queue = shares.queue
                                                       AND state = 'running')
        LIMIT $1 FOR UPDATE OF shares SKIP LOCKED)";

/// By which a connection tells the server how many jobs a tenant may have queued that has no number of its own.
pub(super) const QUEUED_MAX: &str = "perennial.jobs_queued";

// For who has changed numbers in the same transaction before it adds jobs: the lock comes first.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock(queued_lock(tenant)) FROM (SELECT unnest($1::text[]) AS tenant ORDER BY 1) AS asked";

// For who changes numbers of several tenants in more than one statement: the rows are locked in their order by all.
const TOUCH: &str = "
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, 0 FROM unnest($1::text[]) AS touched (tenant) ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[QUEUED, FORGET_IDLE];

/// The SQLSTATE by which a batch is refused that was to be added without the lock, when the limit has come near meanwhile.
const HAS_COME_NEAR: &str = "PN002";

/// Whether a batch that was refused is to be tried once more.
pub(super) fn has_come_near(trouble: &Trouble) -> bool {
    let Trouble::Sql(sqlx::Error::Database(said)) = trouble else { return false };
    said.code().as_deref() == Some(HAS_COME_NEAR)
}

/// How many jobs some tenants have queued, and may have.
pub(super) struct Room(BTreeMap<String, (i64, i64)>);

impl Room {
    pub(super) async fn ask(on: &mut impl Run, tenants: Vec<String>, queued_max: u32) -> Inner<Self> {
        let mut room = BTreeMap::new();
        for row in on.all(sqlx::query(QUEUED).bind(tenants).bind(i64::from(queued_max))).await? {
            room.insert(row.string("tenant")?, (row.number("queued")?, row.number("most")?));
        }
        Ok(Self(room))
    }

    /// How many more jobs a tenant may have queued, `new` at least; or it is refused.
    fn for_more(&self, tenant: &str, new: usize) -> Inner<usize> {
        match self.0.get(tenant) {
            Some((queued, most)) if *queued + new as i64 > *most => {
                Err(Trouble::Limit(JOBS_QUEUED, ending::too_many_queued(*queued, *most)))
            }
            _ => Ok(self.of(tenant)),
        }
    }

    /// How many more jobs a tenant may have queued.
    pub(super) fn of(&self, tenant: &str) -> usize {
        self.0.get(tenant).map_or(0, |(queued, most)| usize::try_from(most - queued).unwrap_or(0))
    }
}

/// Refuses `new` jobs that would be more than their tenant may have queued.
pub(super) async fn check_more(on: &mut impl Run, tenant: &str, new: usize, queued_max: u32) -> Inner<()> {
    let room = Room::ask(on, vec![tenant.to_owned()], queued_max).await?;
    room.for_more(tenant, new).map(drop)
}

/// Keeps all others from adding jobs of these tenants while this transaction lasts.
pub(super) async fn lock(write: &mut Write<'_>, tenants: Vec<String>) -> Inner<()> {
    write.execute(sqlx::query(LOCK).bind(tenants)).await.map(drop)
}

/// Locks the numbers of these tenants that this connection changes.
pub(super) async fn touch(write: &mut Write<'_>, tenants: Vec<String>) -> Inner<()> {
    write.execute(sqlx::query(TOUCH).bind(tenants)).await.map(drop)
}

/// Forgets shares that are of no use any more, so that their number follows that of live jobs.
pub(super) async fn forget_idle(on: &mut impl Run, limit: u32) -> Inner<()> {
    on.execute(sqlx::query(FORGET_IDLE).bind(i64::from(limit))).await.map(drop)
}

/// How many more jobs a tenant may have queued: one at least, or it is refused.
pub(super) async fn room_for_one(on: &mut impl Run, tenant: &TenantId, queued_max: u32) -> Inner<u32> {
    let room = Room::ask(on, vec![tenant.to_string()], queued_max).await?.for_more(tenant.as_str(), 1)?;
    Ok(u32::try_from(room).unwrap_or(u32::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::contract::anything::Anything;
    use crate::store::contract::{new_job, tenant};
    use crate::store::postgres::PostgresStore;
    use crate::store::postgres::tests::{open_real, open_with_clock};
    use crate::store::{KeyHash, NewJob, Quotas, Store};

    /// Where what the counters say differs from what there is.
    const MISCOUNTED: &str = "
        SELECT coalesce(kept.tenant, there.tenant) || ': ' || coalesce(kept.queued, 0) || ' and not '
               || coalesce(there.queued, 0) AS told
        FROM (SELECT tenant, sum(queued) AS queued FROM loads GROUP BY tenant) AS kept
             FULL JOIN (SELECT tenant, count(*) AS queued FROM jobs WHERE state <> 'running' GROUP BY tenant) AS there
             ON there.tenant = kept.tenant
        WHERE coalesce(kept.queued, 0) <> coalesce(there.queued, 0)";

    /// Who has a job to claim, and waits nowhere: nobody would ever look.
    const FORGOTTEN: &str = "
        SELECT queue || ' of ' || tenant || ' is forgotten' AS told FROM (
            SELECT queue, tenant FROM jobs WHERE state = 'ready' AND NOT suspect
            EXCEPT (SELECT queue, tenant FROM shares WHERE waits UNION SELECT queue, tenant FROM arrivals)) AS lost";

    pub(in crate::store::postgres) async fn assert_counted(store: &PostgresStore, after: &str) {
        let mut session = store.session().await.unwrap();
        let mut wrong = session.all(sqlx::query(MISCOUNTED)).await.unwrap();
        wrong.extend(session.all(sqlx::query(FORGOTTEN)).await.unwrap());
        let told: Vec<String> = wrong.iter().map(|row| row.string("told").unwrap()).collect();
        assert!(told.is_empty(), "after {after}: {told:?}");
    }

    #[tokio::test]
    async fn the_counters_are_what_counting_says_after_anything_at_all() {
        for _ in 0..4 {
            let Some((store, fixture)) = open_with_clock().await else { return };
            let mut anything = Anything::begin(&fixture).await;
            for step in 0..500 {
                let verb = anything.step().await;
                assert_counted(&store, &format!("step {step}: {verb}")).await;
            }
            assert!(anything.enqueued() > 100, "hardly anything was enqueued: {}", anything.enqueued());
        }
    }

    /// A store of so many connections, whose one tenant may have `most` jobs queued.
    async fn wide(most: u32) -> Option<PostgresStore> {
        let store = open_real().await?;
        let store = PostgresStore { connections_max: 16, pool: Arc::default(), ..store };
        store.prepare().await.unwrap();
        let demo = tenant("demo");
        store.create_tenant(&demo, &KeyHash::of("demo")).await.unwrap();
        store.set_tenant_quotas(&demo, Quotas { jobs_queued: Some(most), ..Quotas::default() }).await.unwrap();
        Some(store)
    }

    /// Adds batches of up to `batch` jobs until one is refused. Answers how many were accepted.
    async fn add_until_refused(store: &PostgresStore, batch: usize) -> usize {
        let mut accepted = 0;
        loop {
            let jobs: Vec<NewJob> = (0..fastrand::usize(1..=batch)).map(|_| new_job("demo")).collect();
            match store.enqueue(jobs).await {
                Ok(kept) => accepted += kept.len(),
                Err(error) => {
                    assert_eq!(error.kind(), "limit", "{error}");
                    return accepted;
                }
            }
        }
    }

    #[tokio::test]
    async fn sixteen_callers_at_once_add_as_many_jobs_as_their_tenant_may_have_and_not_one_more() {
        let Some(store) = open_real().await else { return };
        let far = "SELECT 40 * current_setting('max_connections')::bigint AS far";
        let far = store.session().await.unwrap().one(sqlx::query(far)).await.unwrap().number::<u32>("far").unwrap();
        // Few, and so many that the callers are far from the limit at first.
        for (most, batch) in [(40, 1), (40, 7), (far, 5), (far, 120)] {
            let Some(store) = wide(most).await else { return };
            let callers = (0..16).map(|_| add_until_refused(&store, batch));
            let mut accepted: usize = futures_util::future::join_all(callers).await.iter().sum();
            accepted += add_until_refused(&store, 1).await;
            let ready = store.job_counts().await.unwrap().ready;
            assert_eq!((accepted, ready), (most as usize, most.into()), "batches of up to {batch}");
        }
    }

    #[tokio::test]
    async fn the_counters_are_what_counting_says_after_several_did_anything_at_once() {
        let Some((store, fixture)) = open_with_clock().await else { return };
        let mut first = Anything::begin(&fixture).await;
        let mut all: Vec<Anything> = (1..6).map(|_| first.beside()).collect();
        all.push(first);
        for round in 0..20 {
            futures_util::future::join_all(all.iter_mut().map(|one| async {
                for _ in 0..20 {
                    one.step().await;
                }
            }))
            .await;
            assert_counted(&store, &format!("round {round}")).await;
        }
    }
}
