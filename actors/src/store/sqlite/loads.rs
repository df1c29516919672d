//! How many jobs each tenant has: asked of a row that triggers keep (`0009_fairness.sql`), never counted.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::Row;

use super::columns::{Rows, rows_in_one};
use super::{Inner, SqliteStore, Write};
use crate::model::TenantId;
use crate::store::error::Trouble;
use crate::store::fair::JOBS_QUEUED;
use crate::store::rows::Columns;
use crate::store::{NewJob, ending};

const QUEUED: &str = "
    SELECT coalesce((SELECT live - running FROM loads WHERE loads.tenant = ?1), 0) AS queued,
           coalesce((SELECT jobs_queued FROM tenants WHERE tenants.id = ?1), ?2) AS most";

rows_in_one! {
    QUEUED_OF, QUEUED_COLUMNS: "of_tenant", "queued", "most";
    "SELECT given.value AS of_tenant, coalesce(loads.live - loads.running, 0) AS queued,
            coalesce(tenants.jobs_queued, ?2) AS most
     FROM json_each(?1) AS given LEFT JOIN loads ON loads.tenant = given.value
          LEFT JOIN tenants ON tenants.id = given.value"
}

// Its virtual time says nothing any more when the queue's has passed it.
const FORGET_IDLE: &str = "
    DELETE FROM shares WHERE (tenant, queue) IN (
        SELECT tenant, queue FROM shares INDEXED BY shares_idle
        WHERE live = 0 AND vtime <= coalesce((SELECT vtime FROM queues WHERE queues.queue = shares.queue), 0)
        LIMIT ?1)";

/// Refuses jobs that would be more than their tenants may have queued.
pub(super) async fn check(write: &mut Write, jobs: &[&NewJob], queued_max: u32) -> Inner<()> {
    let mut of_each: BTreeMap<&str, i64> = BTreeMap::new();
    for job in jobs {
        *of_each.entry(job.tenant.as_str()).or_default() += 1;
    }
    let tenants = json!(of_each.keys().collect::<Vec<_>>()).to_string();
    let queued = sqlx::query_scalar::<_, String>(QUEUED_OF).bind(tenants).bind(queued_max);
    for row in Rows::parse(QUEUED_COLUMNS, &queued.fetch_one(&mut **write).await?)?.iter() {
        let new = of_each.get(row.text("of_tenant")?).copied().unwrap_or(0);
        refuse_more(new, row.number("queued")?, row.number("most")?)?;
    }
    Ok(())
}

/// Refuses `new` jobs that would be more than their tenant may have queued.
pub(super) async fn check_more(write: &mut Write, tenant: &str, new: i64, queued_max: u32) -> Inner<()> {
    let (queued, most) = queued(write, tenant, queued_max).await?;
    refuse_more(new, queued, most)
}

fn refuse_more(new: i64, queued: i64, most: i64) -> Inner<()> {
    match queued.saturating_add(new) {
        after if after > most => Err(Trouble::Limit(JOBS_QUEUED, ending::too_many_queued(queued, most))),
        _ => Ok(()),
    }
}

/// How many more jobs a tenant may have queued: one at least, or it is refused.
pub(super) async fn room_for_one(write: &mut Write, tenant: &TenantId, queued_max: u32) -> Inner<u32> {
    let (queued, most) = queued(write, tenant.as_str(), queued_max).await?;
    match u32::try_from(most - queued) {
        Ok(room @ 1..) => Ok(room),
        _ => Err(Trouble::Limit(JOBS_QUEUED, ending::too_many_queued(queued, most))),
    }
}

/// How many more jobs a tenant may have queued.
pub(super) async fn room(write: &mut Write, tenant: &TenantId, queued_max: u32) -> Inner<usize> {
    let (queued, most) = queued(write, tenant.as_str(), queued_max).await?;
    Ok(usize::try_from(most - queued).unwrap_or(0))
}

async fn queued(write: &mut Write, tenant: &str, queued_max: u32) -> Inner<(i64, i64)> {
    let row = sqlx::query(QUEUED).bind(tenant).bind(queued_max).fetch_one(&mut **write).await?;
    Ok((row.try_get("queued")?, row.try_get("most")?))
}

/// Forgets shares that are of no use any more, so that their number follows that of live jobs.
pub(super) async fn forget_idle(store: &SqliteStore, limit: u32) -> Inner<()> {
    let mut write = store.write_alone().await?;
    sqlx::query(FORGET_IDLE).bind(limit).execute(&mut *write).await?;
    write.commit().await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::contract::anything::Anything;
    use crate::store::contract::{LEASE_MS, new_job};
    use crate::store::sqlite::tests::{fixture_in, open_in, plan};
    use crate::store::{ClaimJobs, Outcome, PruneJobs, Settlement, Store};

    /// What the counters say, and what there is.
    const COUNTED: [(&str, &str); 2] = [
        (
            "SELECT tenant || '/' || queue || ' ' || ready || ' ' || live FROM shares WHERE live <> 0 OR ready <> 0
             ORDER BY 1",
            "SELECT tenant || '/' || queue || ' ' || sum(state = 'ready' AND suspect = 0) || ' ' || count(*) FROM jobs
             GROUP BY tenant, queue ORDER BY 1",
        ),
        (
            "SELECT tenant || ' ' || live || ' ' || running FROM loads WHERE live <> 0 OR running <> 0 ORDER BY 1",
            "SELECT tenant || ' ' || count(*) || ' ' || sum(state = 'running') FROM jobs GROUP BY tenant ORDER BY 1",
        ),
    ];

    /// Forgets what ended so long ago, whatever it is.
    fn all(ms: u64) -> PruneJobs {
        PruneJobs { done_ms: ms, dead_ms: ms, cancelled_ms: ms, tenant_max: 9, after: None, limit: 20 }
    }

    async fn assert_counted(store: &SqliteStore, after: &str) {
        for (counters, rows) in COUNTED {
            let read = async |sql| -> Vec<String> {
                sqlx::query_scalar(sql).fetch_all(&store.readers().ok().unwrap()).await.unwrap()
            };
            assert_eq!(read(counters).await, read(rows).await, "after {after}");
        }
    }

    #[tokio::test]
    async fn the_counters_are_what_counting_says_after_anything_at_all() {
        for _ in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            let (store, _) = open_in(&directory).await;
            let mut anything = Anything::begin(&fixture_in(&store)).await;
            for step in 0..500 {
                let verb = anything.step().await;
                assert_counted(&store, &format!("step {step}: {verb}")).await;
            }
            assert!(anything.enqueued() > 100, "hardly anything was enqueued: {}", anything.enqueued());
        }
    }

    #[tokio::test]
    async fn shares_without_jobs_are_forgotten_when_their_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let shares = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM shares").fetch_one(&store.readers().ok().unwrap()).await.unwrap()
        };
        for name in ["first", "second"] {
            store.enqueue(vec![new_job(name)]).await.unwrap();
            let request = ClaimJobs {
                queue: "default",
                owner: Uuid::now_v7(),
                lease_ms: LEASE_MS,
                limit: 9,
                tenant_running_max: 9,
            };
            let job = store.claim(request).await.unwrap().jobs.remove(0);
            store.prune(all(0)).await.unwrap();
            store.settle(vec![Settlement::new(job.fence(), Outcome::Done { result: None })]).await.unwrap();
            store.prune(all(0)).await.unwrap();
            assert_eq!(shares().await, 0, "after {name}");
        }
    }

    #[tokio::test]
    async fn how_many_are_queued_is_read_from_rows_by_their_keys() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in [QUEUED, QUEUED_OF, FORGET_IDLE] {
            let steps = plan(&store, sql).await;
            let looked_up = |step: &String| {
                !step.starts_with("SCAN")
                    || step.contains("shares_idle")
                    || step == "SCAN CONSTANT ROW"
                    || step.starts_with("SCAN given")
            };
            assert!(steps.iter().all(looked_up), "{sql}: {steps:#?}");
        }
    }
}
