//! Sends jobs round again that have ended: dead and cancelled ones. A job is locked before its key, as by whoever forgets it.

use std::collections::HashSet;

use uuid::Uuid;

use super::settle::kept;
use super::{PostgresStore, Run, Write, columns, list, loads, unique};
use crate::model::{Millis, TenantId};
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{Job, JobFilter, Place, Redriven, Unique, ending};

const LOCK: &str = concat!(
    "
    SELECT ",
    columns::finished_job!(),
    ", now_ms() AS now_ms FROM jobs_done WHERE id = $1 AND tenant = $2 FOR UPDATE"
);

// Nothing of its past attempts is charged, so that it gets all of them again. What had crashed may be the culprit.
const REDRIVE: &str = concat!(
    "WITH gone AS (DELETE FROM jobs_done WHERE id = $1 RETURNING *)
     INSERT INTO jobs (",
    kept!(),
    ", state, refunds, redrives, suspect, run_at_ms, claimed_at_ms, last_error, run_traceparent)
     SELECT ",
    kept!(),
    ", 'ready', attempt, redrives + 1, crashes > 0, $2, claimed_at_ms, last_error, run_traceparent
     FROM gone
     RETURNING ",
    columns::job!()
);

pub(super) async fn one(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Job> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let job = one_within(&mut write, tenant, id, store.tenant_queued_max).await;
    write.end(job).await
}

async fn one_within(write: &mut Write<'_>, tenant: &TenantId, id: Uuid, queued_max: u32) -> Inner<Job> {
    let mut ended = locked(write, tenant, id).await?;
    if ended.is_none() {
        let live = sqlx::query(concat!(
            "SELECT ",
            columns::job!(),
            ", now_ms() AS now_ms FROM jobs WHERE id = $1 AND tenant = $2"
        ));
        if let Some(row) = write.optional(live.bind(id).bind(tenant.as_str())).await? {
            let job = rows::live_job(&row, row.number("now_ms")?)?;
            return Err(Trouble::Conflict(ending::not_redrivable(job.state)));
        }
        // It may have ended between the two looks.
        ended = locked(write, tenant, id).await?;
    }
    let Some((ended, now)) = ended else { return Err(Trouble::NotFound(ending::no_job(id))) };
    if !ended.state.can_be_redriven() {
        return Err(Trouble::Conflict(ending::not_redrivable(ended.state)));
    }
    if let Some(holder) = take_key(write, &ended, now).await? {
        return Err(Trouble::Conflict(ending::key_of(holder)));
    }
    loads::lock(write, vec![tenant.to_string()]).await?;
    loads::room_for_one(write, tenant, queued_max).await?;
    redrive(write, &ended, now).await
}

pub(super) async fn many(
    store: &PostgresStore,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
) -> Inner<Redriven> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let redriven = many_within(&mut write, tenant, filter, after, limit, store.tenant_queued_max).await;
    write.end(redriven).await
}

async fn many_within(
    write: &mut Write<'_>,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
    queued_max: u32,
) -> Inner<Redriven> {
    let limit = loads::room_for_one(write, tenant, queued_max).await?.min(limit);
    let ended = list::redrivable(write, tenant, filter, after, limit).await?;
    let last = ended.last().filter(|_| ended.len() == limit as usize);
    let next = last.map(|job| Place { at_ms: job.created_at_ms, id: job.id });
    let mut redriven = Redriven { count: 0, skipped: 0, next };
    let mut locked_jobs = Vec::with_capacity(ended.len());
    for job in &ended {
        // Redriven, or forgotten, by somebody else since: then it is theirs.
        locked_jobs.extend(locked(write, tenant, job.id).await?);
    }
    // Keys are taken in their order, by all who take several; the newest of several jobs with one key has it.
    let mut by_key: Vec<usize> = (0..locked_jobs.len()).collect();
    by_key.sort_by_key(|place| &locked_jobs[*place].0.unique_key);
    let (mut keys, mut taken) = (HashSet::new(), HashSet::new());
    for place in by_key {
        let (job, now) = &locked_jobs[place];
        let is_mine = job.unique_key.as_ref().is_none_or(|key| keys.insert(key));
        if !is_mine || take_key(write, job, *now).await?.is_some() {
            taken.insert(job.id);
        }
    }
    // Numbers of the tenant are changed when nobody is waited for any more.
    loads::lock(write, vec![tenant.to_string()]).await?;
    let room = loads::Room::ask(write, vec![tenant.to_string()], queued_max).await?.of(tenant.as_str());
    let mut looked_at = after;
    for (job, now) in &locked_jobs {
        if taken.contains(&job.id) {
            redriven.skipped += 1;
        } else if redriven.count as usize == room {
            redriven.next = looked_at;
            break;
        } else {
            redrive(write, job, *now).await?;
            redriven.count += 1;
        }
        looked_at = Some(Place { at_ms: job.created_at_ms, id: job.id });
    }
    Ok(redriven)
}

/// A job that has ended, and the time.
async fn locked(write: &mut Write<'_>, tenant: &TenantId, id: Uuid) -> Inner<Option<(Job, Millis)>> {
    let row = write.optional(sqlx::query(LOCK).bind(id).bind(tenant.as_str())).await?;
    row.map(|row| Ok((rows::finished_job(&row)?, row.number("now_ms")?))).transpose()
}

/// Gives a job its unique key again, if it had one. Answers which other job has it.
async fn take_key(write: &mut Write<'_>, ended: &Job, now: Millis) -> Inner<Option<Uuid>> {
    let Some(key) = &ended.unique_key else { return Ok(None) };
    // What it has said when it was accepted may be over: until it ends again it has its key in any case.
    let holder = unique::take(write, &ended.tenant, ended.id, &Unique::new(key, None), now).await?;
    Ok(holder.map(|holder| holder.id))
}

async fn redrive(write: &mut Write<'_>, ended: &Job, now: Millis) -> Inner<Job> {
    rows::live_job(&write.one(sqlx::query(REDRIVE).bind(ended.id).bind(now)).await?, now)
}
