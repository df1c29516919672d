//! Jobs: keeping new ones, extending leases, reading, forgetting.

use std::collections::HashSet;

use serde_json::json;
use sqlx::{Row, SqliteConnection};
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, batch, loads, rows, unique};
use crate::jobs::Progress;
use crate::model::{Millis, TenantId};
use crate::store::rows::Columns;
use crate::store::{Fence, Job, JobCounts, NewJob, Settled, Unique};

const INSERT: &str = "
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, timeout_ms, run_at_ms,
                      created_at_ms, schedule_id, fire_at_ms, traceparent, origin_trace_id, request_id, unique_key, keep_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
    RETURNING *";

const HEARTBEAT: &str = "
    UPDATE jobs SET lease_until_ms = ?1
    FROM (SELECT value ->> 0 AS held_id, value ->> 1 AS held_attempt FROM json_each(?2))
    WHERE id = held_id AND attempt = held_attempt AND state = 'running' AND owner = ?3
    RETURNING id, attempt";

const REPORT: &str = "
    UPDATE jobs SET progress = word
    FROM (SELECT value ->> 0 AS held_id, value ->> 1 AS held_attempt, value -> 2 AS word FROM json_each(?1))
    WHERE id = held_id AND attempt = held_attempt AND state = 'running'
    RETURNING id";

const LIVE: &str = "SELECT * FROM jobs WHERE id = ?1 AND tenant = ?2";

const FINISHED: &str = "SELECT * FROM jobs_done WHERE id = ?1 AND tenant = ?2";

pub(super) async fn enqueue(store: &SqliteStore, jobs: Vec<NewJob>) -> Inner<Vec<Job>> {
    let now = store.now();
    let mut write = store.write().await?;
    let (mut wanted, mut keys) = (Vec::with_capacity(jobs.len()), HashSet::new());
    for job in &jobs {
        let is_held = match &job.unique {
            // The first of several with one key is kept, at most.
            Some(unique) => {
                !keys.insert((&job.tenant, &unique.key))
                    || unique::holder(&mut write, &job.tenant, &unique.key, now).await?.is_some()
            }
            None => false,
        };
        wanted.extend((!is_held).then_some(job));
    }
    loads::check(&mut write, &wanted, store.tenant_queued_max).await?;
    let plain: Vec<&NewJob> = jobs.iter().filter(|job| job.unique.is_none()).collect();
    let mut plain = batch::insert(&mut write, &plain, now).await?.into_iter();
    let mut kept = Vec::with_capacity(jobs.len());
    for job in &jobs {
        kept.extend(match &job.unique {
            Some(unique) => Some(insert_unique(&mut write, job, unique, now).await?),
            None => plain.next(),
        });
    }
    write.commit().await?;
    Ok(kept)
}

/// The job that holds its key, or the new one, which holds it now.
async fn insert_unique(write: &mut Write, job: &NewJob, unique: &Unique, now: Millis) -> Inner<Job> {
    if let Some(holder) = unique::holder(write, &job.tenant, &unique.key, now).await? {
        return Ok(holder);
    }
    unique::take(write, &job.tenant, job.id, unique, now).await?;
    insert(write, job, job.run_at_ms.unwrap_or(now).max(now), None, now).await
}

/// Inserts one job, of a schedule's fire if `fired` says so.
pub(super) async fn insert(
    write: &mut Write,
    job: &NewJob,
    run_at: Millis,
    fired: Option<(Uuid, Millis)>,
    now: Millis,
) -> Inner<Job> {
    let row = sqlx::query(INSERT)
        .bind(job.id.to_string())
        .bind(job.tenant.as_str())
        .bind(&job.queue)
        .bind(&job.kind)
        .bind(job.payload.to_string())
        .bind(if run_at <= now { "ready" } else { "waiting" })
        .bind(job.priority)
        .bind(job.max_attempts)
        .bind(job.timeout_ms.map(rows::signed))
        .bind(run_at)
        .bind(now)
        .bind(fired.map(|(schedule, _)| schedule.to_string()))
        .bind(fired.map(|(_, fire_at)| fire_at))
        .bind(job.context.traceparent())
        .bind(job.context.origin())
        .bind(job.context.request_id().map(RequestId::as_str))
        .bind(job.unique.as_ref().map(|unique| &unique.key))
        .bind(job.keep_ms.map(rows::signed))
        .fetch_one(&mut **write)
        .await?;
    rows::live_job(&row, now)
}

pub(super) async fn heartbeat(store: &SqliteStore, owner: Uuid, lease_ms: u64, held: &[Fence]) -> Inner<Vec<Fence>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let list = json!(held.iter().map(|fence| (fence.id, fence.attempt)).collect::<Vec<_>>());
    let mut write = store.write().await?;
    let extended = sqlx::query(HEARTBEAT)
        .bind(store.now().saturating_add(rows::signed(lease_ms)))
        .bind(list.to_string())
        .bind(owner.to_string())
        .fetch_all(&mut *write)
        .await?;
    write.commit().await?;
    let mut still_owned = HashSet::with_capacity(extended.len());
    for row in extended {
        still_owned.insert(Fence { id: row.id("id")?, attempt: row.number("attempt")? });
    }
    Ok(held.iter().filter(|fence| !still_owned.contains(fence)).copied().collect())
}

pub(super) async fn report_progress(store: &SqliteStore, reports: &[(Fence, Progress)]) -> Inner<Vec<Settled>> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<_> = reports.iter().map(|(fence, progress)| json!([fence.id, fence.attempt, progress])).collect();
    let mut write = store.write().await?;
    let written = sqlx::query(REPORT).bind(json!(list).to_string()).fetch_all(&mut *write).await?;
    write.commit().await?;
    let written = written.iter().map(|row| row.id("id")).collect::<Inner<HashSet<Uuid>>>()?;
    let answer = |(fence, _): &(Fence, Progress)| match written.contains(&fence.id) {
        true => Settled::Applied,
        false => Settled::Late,
    };
    Ok(reports.iter().map(answer).collect())
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Job>> {
    // One snapshot: a job moves between the tables in both directions.
    let mut read = store.readers()?.begin().await?;
    read_in(&mut read, tenant, &id.to_string(), store.now()).await
}

/// A job in whichever table it is, as this transaction sees it.
pub(super) async fn read_in(
    read: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
    now: Millis,
) -> Inner<Option<Job>> {
    if let Some(row) = sqlx::query(LIVE).bind(id).bind(tenant.as_str()).fetch_optional(&mut *read).await? {
        return rows::live_job(&row, now).map(Some);
    }
    let row = sqlx::query(FINISHED).bind(id).bind(tenant.as_str()).fetch_optional(&mut *read).await?;
    row.map(|row| rows::finished_job(&row)).transpose()
}

pub(super) async fn counts(store: &SqliteStore) -> Inner<JobCounts> {
    // Each is a walk over a small index, never over the rows.
    let counts = sqlx::query(
        "SELECT (SELECT count(*) FROM jobs WHERE state = 'waiting') AS waiting,
                (SELECT count(*) FROM jobs WHERE state = 'ready' AND suspect = 0)
                    + (SELECT count(*) FROM jobs WHERE state = 'ready' AND suspect = 1) AS ready,
                (SELECT count(*) FROM jobs WHERE state = 'running') AS running,
                (SELECT count(*) FROM jobs_done WHERE state = 'done') AS done,
                (SELECT count(*) FROM jobs_done WHERE state = 'dead') AS dead,
                (SELECT count(*) FROM jobs_done WHERE state = 'cancelled') AS cancelled",
    );
    let row = counts.fetch_one(&store.readers()?).await?;
    let count = |name: &str| row.try_get::<i64, _>(name).map(|count| count.max(0) as u64);
    Ok(JobCounts {
        waiting: count("waiting")?,
        ready: count("ready")?,
        running: count("running")?,
        done: count("done")?,
        dead: count("dead")?,
        cancelled: count("cancelled")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn what_is_asked_of_single_jobs_and_keys_looks_them_up() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for (sql, looks_up) in [
            (HEARTBEAT, "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"),
            (REPORT, "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"),
            (LIVE, "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"),
            (FINISHED, "jobs_done USING INDEX sqlite_autoindex_jobs_done_1 (id=?)"),
        ] {
            let steps = plan(&store, sql).await;
            assert!(steps.contains(&format!("SEARCH {looks_up}")), "{sql}: {steps:#?}");
        }
        for sql in unique::ASKED {
            let steps = plan(&store, sql).await;
            assert!(steps.iter().all(|step| step.starts_with("SEARCH job_keys USING")), "{sql}: {steps:#?}");
        }
    }
}
