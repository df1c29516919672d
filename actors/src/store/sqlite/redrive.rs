//! Sends jobs round again that have ended: dead and cancelled ones.

use uuid::Uuid;

use super::settle::kept;
use super::{Inner, SqliteStore, Write, jobs, list, loads, rows, unique};
use crate::model::{Millis, TenantId};
use crate::store::error::Trouble;
use crate::store::{Job, JobFilter, Place, Redriven, Unique, ending};

// Nothing of its past attempts is charged, so that it gets all of them again. What had crashed may be the culprit.
const REDRIVE: &str = concat!(
    "INSERT INTO jobs (",
    kept!(),
    ", state, refunds, redrives, suspect, run_at_ms, claimed_at_ms, last_error, run_traceparent)
     SELECT ",
    kept!(),
    ", 'ready', attempt, redrives + 1, crashes > 0, ?2, claimed_at_ms, last_error, run_traceparent
     FROM jobs_done WHERE id = ?1
     RETURNING *"
);

pub(super) async fn one(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Job> {
    let now = store.now();
    let mut write = store.write().await?;
    let found = jobs::read_in(&mut write, tenant, &id.to_string(), now).await?;
    let ended = found.ok_or_else(|| Trouble::NotFound(ending::no_job(id)))?;
    if !ended.state.can_be_redriven() {
        return Err(Trouble::Conflict(ending::not_redrivable(ended.state)));
    }
    if let Some(holder) = holder(&mut write, &ended, now).await? {
        return Err(Trouble::Conflict(ending::key_of(holder)));
    }
    loads::room_for_one(&mut write, tenant, store.tenant_queued_max).await?;
    let job = redrive(&mut write, &ended, now).await?;
    write.commit().await?;
    Ok(job)
}

pub(super) async fn many(
    store: &SqliteStore,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
) -> Inner<Redriven> {
    let now = store.now();
    let mut write = store.write_alone().await?;
    let limit = loads::room_for_one(&mut write, tenant, store.tenant_queued_max).await?.min(limit);
    let ended = list::redrivable(&mut write, tenant, filter, after, limit).await?;
    let last = ended.last().filter(|_| ended.len() == limit as usize);
    let next = last.map(|job| Place { at_ms: job.created_at_ms, id: job.id });
    let mut redriven = Redriven { count: 0, skipped: 0, next };
    for job in &ended {
        match holder(&mut write, job, now).await? {
            Some(_) => redriven.skipped += 1,
            None => {
                redrive(&mut write, job, now).await?;
                redriven.count += 1;
            }
        }
    }
    write.commit().await?;
    Ok(redriven)
}

/// Which other job has the unique key of this one.
async fn holder(write: &mut Write, ended: &Job, now: Millis) -> Inner<Option<Uuid>> {
    let Some(key) = &ended.unique_key else { return Ok(None) };
    let holder = unique::holder(write, &ended.tenant, key, now).await?;
    Ok(holder.map(|holder| holder.id).filter(|holder| *holder != ended.id))
}

async fn redrive(write: &mut Write, ended: &Job, now: Millis) -> Inner<Job> {
    if let Some(key) = &ended.unique_key {
        // What it has said when it was accepted may be over: until it ends again it has its key in any case.
        unique::take(write, &ended.tenant, ended.id, &Unique::new(key, None), now).await?;
    }
    let row = sqlx::query(REDRIVE).bind(ended.id.to_string()).bind(now).fetch_one(&mut **write).await?;
    sqlx::query("DELETE FROM jobs_done WHERE id = ?1").bind(ended.id.to_string()).execute(&mut **write).await?;
    rows::live_job(&row, now)
}
