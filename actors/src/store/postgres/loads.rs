//! How many jobs each tenant has queued: asked of a few rows that triggers keep (`0009_fairness.sql`), never counted.

use std::collections::BTreeMap;

use super::Run;
use crate::model::TenantId;
use crate::store::error::{Inner, Trouble};
use crate::store::fair::JOBS_QUEUED;
use crate::store::rows::Columns;
use crate::store::{NewJob, ending};

const QUEUED: &str = "
    SELECT asked.tenant, coalesce((SELECT sum(queued)::bigint FROM loads WHERE loads.tenant = asked.tenant), 0) AS queued,
           coalesce((SELECT jobs_queued FROM tenants WHERE id = asked.tenant), $2) AS most
    FROM unnest($1::text[]) AS asked (tenant) ORDER BY asked.tenant";

// A share below the queue's time says nothing any more. Claims write them too, and wait for nobody here.
const FORGET_IDLE: &str = "
    DELETE FROM shares WHERE (queue, tenant) IN (
        SELECT shares.queue, shares.tenant FROM shares JOIN queues ON queues.queue = shares.queue
        WHERE shares.vtime <= queues.vtime
              AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant = shares.tenant AND jobs.queue = shares.queue)
        LIMIT $1 FOR UPDATE OF shares SKIP LOCKED)";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[QUEUED, FORGET_IDLE];

/// Refuses jobs that would be more than their tenants may have queued.
pub(super) async fn check(on: &mut impl Run, jobs: &[&NewJob], queued_max: u32) -> Inner<()> {
    let mut of_each: BTreeMap<&str, i64> = BTreeMap::new();
    for job in jobs {
        *of_each.entry(job.tenant.as_str()).or_default() += 1;
    }
    let room = Room::ask(on, of_each.keys().map(|tenant| (*tenant).to_owned()).collect(), queued_max).await?;
    for (tenant, new) in of_each {
        if let Some((queued, most)) = room.0.get(tenant).filter(|(queued, most)| queued + new > *most) {
            return Err(Trouble::Limit(JOBS_QUEUED, ending::too_many_queued(*queued, *most)));
        }
    }
    Ok(())
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

    /// How many more jobs a tenant may have queued.
    pub(super) fn of(&self, tenant: &str) -> usize {
        self.0.get(tenant).map_or(0, |(queued, most)| usize::try_from(most - queued).unwrap_or(0))
    }
}

/// Refuses `new` jobs that would be more than their tenant may have queued.
pub(super) async fn check_more(on: &mut impl Run, tenant: &str, new: usize, queued_max: u32) -> Inner<()> {
    let room = Room::ask(on, vec![tenant.to_owned()], queued_max).await?;
    match room.0.get(tenant) {
        Some((queued, most)) if *queued + new as i64 > *most => {
            Err(Trouble::Limit(JOBS_QUEUED, ending::too_many_queued(*queued, *most)))
        }
        _ => Ok(()),
    }
}

/// Forgets shares that are of no use any more, so that their number follows that of live jobs.
pub(super) async fn forget_idle(on: &mut impl Run, limit: u32) -> Inner<()> {
    on.execute(sqlx::query(FORGET_IDLE).bind(i64::from(limit))).await.map(drop)
}

/// How many more jobs a tenant may have queued: one at least, or it is refused.
pub(super) async fn room_for_one(on: &mut impl Run, tenant: &TenantId, queued_max: u32) -> Inner<u32> {
    check_more(on, tenant.as_str(), 1, queued_max).await?;
    let room = Room::ask(on, vec![tenant.to_string()], queued_max).await?;
    Ok(u32::try_from(room.of(tenant.as_str())).unwrap_or(u32::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::contract::anything::Anything;
    use crate::store::postgres::PostgresStore;
    use crate::store::postgres::tests::open_with_clock;

    /// Where what the counters say differs from what there is.
    const MISCOUNTED: &str = "
        SELECT coalesce(kept.tenant, there.tenant) || ': ' || coalesce(kept.queued, 0) || ' and not '
               || coalesce(there.queued, 0) AS told
        FROM (SELECT tenant, sum(queued) AS queued FROM loads GROUP BY tenant) AS kept
             FULL JOIN (SELECT tenant, count(*) AS queued FROM jobs WHERE state <> 'running' GROUP BY tenant) AS there
             ON there.tenant = kept.tenant
        WHERE coalesce(kept.queued, 0) <> coalesce(there.queued, 0)";

    pub(in crate::store::postgres) async fn assert_counted(store: &PostgresStore, after: &str) {
        let wrong = store.session().await.unwrap().all(sqlx::query(MISCOUNTED)).await.unwrap();
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
