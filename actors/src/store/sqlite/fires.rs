//! Firing schedules: what is due, and what a tenant asks for itself. What follows from a fire is decided in
//! [`policy`](crate::store::policy), and only read and written here.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, jobs, loads, rows, settle};
use crate::model::{Millis, TenantId};
use crate::seam::seam;
use crate::store::error::Trouble;
use crate::store::firing::{self, CANCEL_MAX, Change, OVERTAKEN, Tried};
use crate::store::policy::{Meeting, Plan, Standing, Terms};
use crate::store::rows::Columns;
use crate::store::{Backfilled, Fence, FireDue, FireReport, Fired, Overlap, Schedule, Triggered};

const DUE: &str = "
    SELECT schedules.*, EXISTS (SELECT 1 FROM tenants WHERE tenants.id = schedules.tenant
                                                            AND tenants.disabled_at_ms IS NOT NULL) AS rests
    FROM schedules WHERE next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= ?1
    ORDER BY next_fire_at_ms LIMIT ?2";

const RELEASED: &str = "SELECT *, 0 AS rests FROM schedules WHERE released = 1 ORDER BY id LIMIT ?1";

// A walk over the index that jumps from one tenant to the next.
const TENANTS_DUE: &str = "
    WITH RECURSIVE firing (tenant) AS (
        SELECT min(tenant) FROM schedules WHERE next_fire_at_ms IS NOT NULL
        UNION ALL
        SELECT (SELECT min(tenant) FROM schedules WHERE next_fire_at_ms IS NOT NULL AND tenant > firing.tenant)
        FROM firing WHERE firing.tenant IS NOT NULL
    )
    SELECT tenant FROM firing
    WHERE tenant IS NOT NULL AND EXISTS (SELECT 1 FROM schedules WHERE schedules.tenant = firing.tenant
                                                 AND next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= ?1)
    ORDER BY random() LIMIT ?2";

const DUE_OF_TENANT: &str = "
    SELECT schedules.*, EXISTS (SELECT 1 FROM tenants WHERE tenants.id = schedules.tenant
                                                            AND tenants.disabled_at_ms IS NOT NULL) AS rests
    FROM schedules WHERE tenant = ?1 AND next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= ?2
    ORDER BY next_fire_at_ms LIMIT ?3";

const STANDING: &str = "
    SELECT id, revision, next_fire_at_ms, buffered_fire_at_ms, remaining_fires,
           EXISTS (SELECT 1 FROM jobs WHERE jobs.schedule_id = schedules.id) AS is_live
    FROM schedules WHERE id IN (SELECT value FROM json_each(?1))";

// Of these fires, those that have made a job which is still kept.
const PRESENT: &str = "
    SELECT fire_schedule, fire_at
    FROM (SELECT value ->> 0 AS fire_schedule, value ->> 1 AS fire_at FROM json_each(?1))
    WHERE EXISTS (SELECT 1 FROM jobs WHERE schedule_id = fire_schedule AND fire_at_ms = fire_at)
          OR EXISTS (SELECT 1 FROM jobs_done WHERE schedule_id = fire_schedule AND fire_at_ms = fire_at)";

const WRITE_DOWN: &str = "
    UPDATE schedules SET next_fire_at_ms = ?2, last_fire_at_ms = coalesce(?3, last_fire_at_ms),
                         buffered_fire_at_ms = ?4, released = 0, remaining_fires = ?5,
                         fires = fires + ?6, missed = missed + ?7, overlapped = overlapped + ?8
    WHERE id = ?1";

const BREAK: &str = "UPDATE schedules SET next_fire_at_ms = NULL, released = 0, last_error = ?2 WHERE id = ?1";

const RELEASE: &str = "UPDATE schedules SET released = 1 WHERE id = ?1 AND buffered_fire_at_ms IS NOT NULL";

pub(super) async fn fire_due(store: &SqliteStore, fire: FireDue) -> Inner<FireReport> {
    let now = store.now();
    let (rows, mut is_more) = due(store, fire.limit, now).await?;
    let share = (fire.limit as usize).checked_div(rows.len()).unwrap_or(0);
    let terms = Terms { now, catch_up_window_ms: fire.catch_up_window_ms, most: share, rests: false };
    // Patterns are evaluated here, before the file is locked.
    let steps: Vec<Step> = rows.iter().map(|row| step(row, terms)).collect::<Inner<_>>()?;
    let mut report = FireReport::default();
    if !steps.is_empty() {
        let mut write = store.write_alone().await?;
        is_more |= apply(&mut write, steps, store.tenant_queued_max, now, &mut report).await?;
        write.commit().await?;
    }
    let next = "SELECT min(next_fire_at_ms) FROM schedules WHERE next_fire_at_ms IS NOT NULL";
    let next: Option<Millis> = sqlx::query_scalar(next).fetch_one(&store.readers()?).await?;
    report.next_due_in_ms = if is_more { Some(0) } else { rows::until(next, now) };
    Ok(report)
}

/// Schedules to look at, each once, and whether there may be more.
async fn due(store: &SqliteStore, limit: u32, now: Millis) -> Inner<(Vec<SqliteRow>, bool)> {
    let readers = store.readers()?;
    let mut rows = sqlx::query(DUE).bind(now).bind(limit).fetch_all(&readers).await?;
    let mut is_more = rows.len() >= limit as usize;
    if is_more {
        rows = shares(store, limit, now).await?;
    }
    let known: HashSet<String> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    let released = sqlx::query(RELEASED).bind(limit).fetch_all(&readers).await?;
    is_more |= released.len() >= limit as usize;
    for row in released {
        if !known.contains(row.try_get::<&str, _>("id")?) {
            rows.push(row);
        }
    }
    Ok((rows, is_more))
}

/// When there are more than one look can take: of every tenant the same number, and the rest of whoever has it.
async fn shares(store: &SqliteStore, limit: u32, now: Millis) -> Inner<Vec<SqliteRow>> {
    let readers = store.readers()?;
    let tenants: Vec<String> = sqlx::query_scalar(TENANTS_DUE).bind(now).bind(limit).fetch_all(&readers).await?;
    let most = firing::of_each(limit, tenants.len());
    let mut queues = VecDeque::with_capacity(tenants.len());
    for tenant in &tenants {
        let due = sqlx::query(DUE_OF_TENANT).bind(tenant).bind(now).bind(most);
        queues.push_back(VecDeque::from(due.fetch_all(&readers).await?));
    }
    Ok(firing::by_turns(queues, limit as usize))
}

/// What a schedule that was found due is to do.
enum Step {
    Fire { schedule: Box<Schedule>, revision: i64, plan: Plan },
    Break { id: String, error: String },
}

fn step(row: &SqliteRow, terms: Terms) -> Inner<Step> {
    let schedule = match rows::schedule(row) {
        Ok(schedule) => Box::new(schedule),
        // One schedule that cannot be read must not stop all others.
        Err(Trouble::Corrupt(error)) => {
            return Ok(Step::Break { id: row.try_get("id")?, error });
        }
        Err(other) => return Err(other),
    };
    // Fires of a disabled tenant are missed: they must not stand before all others, look after look.
    let plan = schedule.plan(Terms { rests: row.try_get("rests")?, ..terms });
    Ok(Step::Fire { schedule, revision: row.try_get("revision")?, plan })
}

/// Fires what is as it was planned. Answers whether a schedule is to be looked at once more.
async fn apply(
    write: &mut Write,
    steps: Vec<Step>,
    queued_max: u32,
    now: Millis,
    report: &mut FireReport,
) -> Inner<bool> {
    let mut planned = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            Step::Break { id, error } => {
                sqlx::query(BREAK).bind(id).bind(error).execute(&mut **write).await?;
            }
            Step::Fire { schedule, revision, plan } => planned.push((schedule, revision, plan)),
        }
    }
    let ids: Vec<Uuid> = planned.iter().map(|(schedule, ..)| schedule.id).collect();
    let present =
        present(write, planned.iter().map(|(schedule, _, plan)| (&**schedule, plan.fires.as_slice()))).await?;
    let mut standings = standings(write, &ids).await?;
    let mut rooms = firing::Rooms::default();
    let (mut may_cancel, mut is_more) = (CANCEL_MAX, false);
    for (schedule, revision, plan) in planned {
        // Only the one who finds it as it was planned moves it on.
        let as_planned = |row: &Found| row.revision == revision && row.next == schedule.next_fire_at_ms;
        let Some(row) = standings.remove(&schedule.id).filter(as_planned) else { continue };
        let room = match rooms.left(&schedule.tenant) {
            Some(room) => room,
            None => loads::room(write, &schedule.tenant, queued_max).await?,
        };
        let (meeting, change) = firing::meet(&schedule, &plan, row.standing, &present, room, &mut rooms);
        if meeting.cancels {
            let cancelled = settle::cancel_live(write, &schedule, may_cancel, OVERTAKEN, now).await?;
            may_cancel -= cancelled.len();
            report.cancelled.extend(cancelled);
            if may_cancel == 0 {
                is_more = true;
                continue;
            }
        }
        let fired = start(write, &schedule, &meeting, None, now).await?;
        seam!("inside_fire");
        write_down(write, schedule.id, &meeting, &change).await?;
        report.add(&meeting, &change, fired);
    }
    Ok(is_more)
}

/// What a row says inside the transaction.
struct Found {
    revision: i64,
    next: Option<Millis>,
    standing: Standing,
}

async fn standings(write: &mut Write, ids: &[Uuid]) -> Inner<HashMap<Uuid, Found>> {
    let select = sqlx::query(STANDING).bind(json!(ids).to_string());
    let mut standings = HashMap::with_capacity(ids.len());
    for row in select.fetch_all(&mut **write).await? {
        let remaining: Option<i64> = row.try_get("remaining_fires")?;
        let standing = Standing {
            is_live: row.try_get("is_live")?,
            buffered: row.try_get("buffered_fire_at_ms")?,
            remaining: remaining.map(|remaining| remaining.max(0) as u64),
        };
        let (revision, next) = (row.try_get("revision")?, row.try_get("next_fire_at_ms")?);
        standings.insert(row.id("id")?, Found { revision, next, standing });
    }
    Ok(standings)
}

/// Of these fires, and those that are buffered, the ones that have made a job before.
async fn present<'a>(
    write: &mut Write,
    fires: impl Iterator<Item = (&'a Schedule, &'a [Millis])>,
) -> Inner<HashSet<(Uuid, Millis)>> {
    let all = firing::all_of(fires);
    let found = sqlx::query(PRESENT).bind(json!(all).to_string()).fetch_all(&mut **write).await?;
    found.iter().map(|row| Ok((row.id("fire_schedule")?, row.try_get("fire_at")?))).collect()
}

/// Makes jobs as was decided. That of the last fire has the id `last`, if there is one.
async fn start(
    write: &mut Write,
    schedule: &Schedule,
    meeting: &Meeting,
    last: Option<Uuid>,
    now: Millis,
) -> Inner<Vec<Fired>> {
    let mut fired = Vec::with_capacity(meeting.starts.len());
    for (job, run_at, told) in firing::jobs_of(schedule, &meeting.starts, last, now) {
        jobs::insert(write, &job, run_at, Some((schedule.id, told.fire_at_ms)), now).await?;
        fired.push(told);
    }
    Ok(fired)
}

async fn write_down(write: &mut Write, id: Uuid, meeting: &Meeting, change: &Change) -> Inner<()> {
    let update = sqlx::query(WRITE_DOWN)
        .bind(id.to_string())
        .bind(change.next)
        .bind(change.last)
        .bind(meeting.buffered)
        .bind(change.remaining.map(rows::signed))
        .bind(meeting.starts.len() as i64)
        .bind(rows::signed(change.missed))
        .bind(rows::signed(meeting.overlapped));
    update.execute(&mut **write).await?;
    Ok(())
}

/// A job of this schedule has ended: a fire that waited for it is due at once.
pub(super) async fn release(write: &mut Write, schedule: &str) -> Inner<()> {
    sqlx::query(RELEASE).bind(schedule).execute(&mut **write).await?;
    Ok(())
}

pub(super) async fn trigger(
    store: &SqliteStore,
    tenant: &TenantId,
    id: Uuid,
    job: Uuid,
    overlap: Option<Overlap>,
) -> Inner<Option<Triggered>> {
    let mut cancelled = Vec::new();
    loop {
        let mut write = store.write().await?;
        let tried = trigger_within(&mut write, tenant, id, job, overlap, store.tenant_queued_max, store.now()).await;
        match write.end(tried).await? {
            Tried::Cancelled(some) => cancelled.extend(some),
            Tried::Fired(answer) => return Ok(answer.map(|triggered| triggered.after(cancelled))),
        }
    }
}

async fn trigger_within(
    write: &mut Write,
    tenant: &TenantId,
    id: Uuid,
    job: Uuid,
    overlap: Option<Overlap>,
    queued_max: u32,
    now: Millis,
) -> Inner<Tried<Option<Triggered>>> {
    let Some((schedule, row)) = locked(write, tenant, id).await? else { return Ok(Tried::Fired(None)) };
    // Two in the same millisecond are two fires all the same.
    let mut fire_at = now;
    while present(write, [(&schedule, [fire_at].as_slice())].into_iter()).await?.contains(&(id, fire_at)) {
        fire_at += 1;
    }
    // It is not one of those that the schedule may still fire.
    let standing = Standing { remaining: None, ..row.standing };
    let meeting = standing.meet(&[fire_at], overlap.unwrap_or(schedule.policies.overlap));
    let is_started = meeting.starts.last() == Some(&fire_at);
    if !is_started && !meeting.is_newly_buffered {
        return Ok(Tried::Fired(Some(Triggered::Overlapped)));
    }
    let cancelled = match cancel(write, &schedule, &meeting, now).await? {
        Tried::Fired(cancelled) => cancelled,
        Tried::Cancelled(some) => return Ok(Tried::Cancelled(some)),
    };
    loads::check_more(write, tenant.as_str(), meeting.starts.len() as i64, queued_max).await?;
    let unjittered = Schedule { jitter_ms: 0, ..schedule };
    let fired = start(write, &unjittered, &meeting, Some(job).filter(|_| is_started), now).await?;
    let last = meeting.starts.last().copied();
    let change = Change { next: row.next, last, missed: 0, remaining: row.standing.remaining };
    write_down(write, id, &meeting, &change).await?;
    Ok(Tried::Fired(Some(firing::triggered(fire_at, is_started, fired, cancelled))))
}

/// Cancels for one schedule as was decided; too many are not all of them.
async fn cancel(write: &mut Write, schedule: &Schedule, meeting: &Meeting, now: Millis) -> Inner<Tried<Vec<Fence>>> {
    if !meeting.cancels {
        return Ok(Tried::Fired(Vec::new()));
    }
    let cancelled = settle::cancel_live(write, schedule, CANCEL_MAX, OVERTAKEN, now).await?;
    Ok(if cancelled.len() < CANCEL_MAX { Tried::Fired(cancelled) } else { Tried::Cancelled(cancelled) })
}

pub(super) async fn backfill(
    store: &SqliteStore,
    tenant: &TenantId,
    id: Uuid,
    fires: &[Millis],
    overlap: Overlap,
) -> Inner<Option<Backfilled>> {
    let mut cancelled = Vec::new();
    loop {
        let mut write = store.write_alone().await?;
        let tried = backfill_within(&mut write, tenant, id, fires, overlap, store.tenant_queued_max, store.now()).await;
        match write.end(tried).await? {
            Tried::Cancelled(some) => cancelled.extend(some),
            Tried::Fired(answer) => return Ok(answer.map(|backfilled| backfilled.after(cancelled))),
        }
    }
}

async fn backfill_within(
    write: &mut Write,
    tenant: &TenantId,
    id: Uuid,
    fires: &[Millis],
    overlap: Overlap,
    queued_max: u32,
    now: Millis,
) -> Inner<Tried<Option<Backfilled>>> {
    let Some((schedule, row)) = locked(write, tenant, id).await? else { return Ok(Tried::Fired(None)) };
    let present = present(write, [(&schedule, fires)].into_iter()).await?;
    let is_new = |fire: &Millis| !present.contains(&(id, *fire)) && row.standing.buffered != Some(*fire);
    let new: Vec<Millis> = fires.iter().copied().filter(is_new).collect();
    let meeting = Standing { remaining: None, ..row.standing }.meet(&new, overlap);
    let cancelled = match cancel(write, &schedule, &meeting, now).await? {
        Tried::Fired(cancelled) => cancelled,
        Tried::Cancelled(some) => return Ok(Tried::Cancelled(some)),
    };
    loads::check_more(write, tenant.as_str(), meeting.starts.len() as i64, queued_max).await?;
    let fired = start(write, &schedule, &meeting, None, now).await?;
    let change = Change { next: row.next, last: None, missed: 0, remaining: row.standing.remaining };
    write_down(write, id, &meeting, &change).await?;
    Ok(Tried::Fired(Some(firing::backfilled(&meeting, fires.len() - new.len(), fired, cancelled))))
}

/// A tenant's schedule, and how it stands, within a transaction that is about to fire it.
async fn locked(write: &mut Write, tenant: &TenantId, id: Uuid) -> Inner<Option<(Schedule, Found)>> {
    let select = sqlx::query("SELECT * FROM schedules WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&mut **write).await?;
    let Some(row) = row else { return Ok(None) };
    let schedule = rows::schedule(&row)?;
    let standing = standings(write, &[id]).await?.remove(&id);
    Ok(standing.map(|standing| (schedule, standing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::schedules::storm;
    use crate::store::sqlite::tests::{execute, fixture_in, open_in, plan};

    #[tokio::test]
    async fn a_look_walks_over_indexes_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in [DUE, RELEASED, TENANTS_DUE, DUE_OF_TENANT, STANDING, PRESENT, WRITE_DOWN, RELEASE] {
            let steps = plan(&store, sql).await;
            let is_scan = |step: &&String| step.starts_with("SCAN schedules") || step.starts_with("SCAN jobs");
            // The index of released ones has these rows only.
            let scans = steps.iter().filter(is_scan).filter(|step| !step.contains("USING INDEX schedules_released"));
            assert_eq!(scans.count(), 0, "{sql}: {steps:#?}");
        }
    }

    #[tokio::test]
    async fn one_tenants_schedules_of_the_same_minute_delay_no_other_and_all_fire() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let copy = "
            WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
            INSERT INTO schedules (id, tenant, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                                   next_fire_at_ms, created_at_ms, overlap)
            SELECT printf('00000000-0000-7000-8000-%012x', n), tenant, cron, time_zone, queue, kind, payload, jitter_ms,
                   max_attempts, next_fire_at_ms, created_at_ms, overlap
            FROM schedules, numbers WHERE id = ?1";
        storm(&fixture_in(&store), async |noisy, number| {
            execute(&store, sqlx::query(copy).bind(noisy.to_string()).bind(number)).await;
        })
        .await;
    }
}
