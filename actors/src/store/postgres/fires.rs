//! Firing schedules: what is due, and what a tenant asks for itself. What follows from a fire is decided in
//! [`policy`](crate::store::policy), and only read and written here.
//!
//! A schedule is locked before it is looked at, so that each fire happens once. Those that another process has locked are
//! its own. A schedule is locked before its jobs; whoever ends a job locks no schedule.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{PostgresStore, Run, Write, clean, columns, jobs, loads, settle};
use crate::model::{Millis, TenantId};
use crate::seam::seam;
use crate::store::error::{Inner, Trouble};
use crate::store::firing::{self, CANCEL_MAX, Change, OVERTAKEN, Tried};
use crate::store::policy::{Meeting, Plan, Standing, Terms};
use crate::store::rows::{self, Columns};
use crate::store::{Backfilled, Fence, FireDue, FireReport, Fired, Overlap, Schedule, Triggered};

const DUE: &str = concat!(
    "
    SELECT ",
    columns::schedule!(),
    ",
           EXISTS (SELECT 1 FROM tenants WHERE id = schedules.tenant AND disabled_at_ms IS NOT NULL) AS rests
    FROM schedules WHERE next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= $1
    ORDER BY next_fire_at_ms LIMIT $2 FOR UPDATE OF schedules SKIP LOCKED"
);

// A fire that waited for a job, and need not wait any more. (With `OFFSET` the jobs are looked up, and never joined: a join
// that was planned while there were none would read all of them.)
const RELEASED: &str = concat!(
    "
    SELECT ",
    columns::schedule!(),
    ", false AS rests FROM schedules
    WHERE buffered_fire_at_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE schedule_id = schedules.id OFFSET 0)
    ORDER BY id LIMIT $1 FOR UPDATE OF schedules SKIP LOCKED"
);

// A walk over the index that jumps from one tenant to the next.
const TENANTS_DUE: &str = "
    WITH RECURSIVE firing (tenant) AS (
        (SELECT tenant FROM schedules WHERE next_fire_at_ms IS NOT NULL ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT next.tenant FROM firing CROSS JOIN LATERAL (
            SELECT tenant FROM schedules WHERE next_fire_at_ms IS NOT NULL AND tenant > firing.tenant
            ORDER BY tenant LIMIT 1) AS next
    )
    SELECT tenant FROM firing
    WHERE EXISTS (SELECT 1 FROM schedules WHERE schedules.tenant = firing.tenant
                                                AND next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= $1)
    ORDER BY random() LIMIT $2";

const DUE_OF_TENANT: &str = concat!(
    "
    SELECT ",
    columns::schedule!(),
    ",
           EXISTS (SELECT 1 FROM tenants WHERE id = schedules.tenant AND disabled_at_ms IS NOT NULL) AS rests
    FROM schedules WHERE tenant = $3 AND next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= $1
    ORDER BY next_fire_at_ms LIMIT $2 FOR UPDATE OF schedules SKIP LOCKED"
);

const LIVE: &str = "
    SELECT asked.id FROM unnest($1::uuid[]) AS asked (id)
    WHERE EXISTS (SELECT 1 FROM jobs WHERE schedule_id = asked.id)";

// Rows are locked in the order of their ids by all who lock several, so that no two wait for each other.
const LOCK_JOBS: &str = "
    SELECT id, schedule_id FROM jobs
    WHERE id = ANY (ARRAY(SELECT id FROM jobs WHERE schedule_id = ANY ($1) LIMIT $2)) ORDER BY id FOR UPDATE";

// Of these fires, those that have made a job which is still kept.
const PRESENT: &str = "
    SELECT fire_schedule, fire_at FROM unnest($1::uuid[], $2::bigint[]) AS asked (fire_schedule, fire_at)
    WHERE EXISTS (SELECT 1 FROM jobs WHERE schedule_id = fire_schedule AND fire_at_ms = fire_at)
          OR EXISTS (SELECT 1 FROM jobs_done WHERE schedule_id = fire_schedule AND fire_at_ms = fire_at)";

const WRITE_DOWN: &str = "
    UPDATE schedules SET next_fire_at_ms = $2, last_fire_at_ms = coalesce($3, last_fire_at_ms),
                         buffered_fire_at_ms = $4, remaining_fires = $5,
                         fires = fires + $6, missed = missed + $7, overlapped = overlapped + $8
    WHERE id = $1";

const BREAK: &str = "
    UPDATE schedules SET next_fire_at_ms = NULL, buffered_fire_at_ms = NULL, last_error = $2 WHERE id = $1";

// Those that are due and were not taken belong to another process at this moment.
const NEXT: &str = "
    SELECT now_ms() AS now_ms, (SELECT min(next_fire_at_ms) FROM schedules WHERE next_fire_at_ms > $1) AS next_ms";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] =
    &[DUE, RELEASED, TENANTS_DUE, DUE_OF_TENANT, LIVE, LOCK_JOBS, PRESENT, WRITE_DOWN, NEXT];

pub(super) async fn fire_due(store: &PostgresStore, fire: FireDue) -> Inner<FireReport> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let report = fire_within(&mut write, fire, store.tenant_queued_max).await;
    write.end(report).await
}

async fn fire_within(write: &mut Write<'_>, fire: FireDue, queued_max: u32) -> Inner<FireReport> {
    let now = now(write).await?;
    let (rows, mut is_more) = due(write, fire.limit, now).await?;
    let share = (fire.limit as usize).checked_div(rows.len()).unwrap_or(0);
    let terms = Terms { now, catch_up_window_ms: fire.catch_up_window_ms, most: share, rests: false };
    let mut report = FireReport::default();
    if !rows.is_empty() {
        is_more |= apply(write, &rows, terms, queued_max, &mut report).await?;
    }
    let next = write.one(sqlx::query(NEXT).bind(now)).await?;
    let next_due_in_ms = rows::until(next.integer_or_none("next_ms")?, next.number("now_ms")?);
    report.next_due_in_ms = if is_more { Some(0) } else { next_due_in_ms };
    Ok(report)
}

async fn now(write: &mut Write<'_>) -> Inner<Millis> {
    write.one(sqlx::query("SELECT now_ms() AS now_ms")).await?.number("now_ms")
}

/// Schedules to look at, each once, and whether there may be more.
async fn due(write: &mut Write<'_>, limit: u32, now: Millis) -> Inner<(Vec<PgRow>, bool)> {
    let most = limit as usize;
    let mut rows = write.all(sqlx::query(DUE).bind(now).bind(i64::from(limit))).await?;
    let mut is_more = rows.len() >= most;
    if is_more {
        rows = shares(write, limit, now).await?;
    }
    let known: HashSet<Uuid> = rows.iter().map(|row| row.id("id")).collect::<Inner<_>>()?;
    let released = write.all(sqlx::query(RELEASED).bind(i64::from(limit))).await?;
    is_more |= released.len() >= most;
    for row in released {
        if !known.contains(&row.id("id")?) {
            rows.push(row);
        }
    }
    Ok((rows, is_more))
}

/// When there are more than one look can take: of every tenant the same number, and the rest of whoever has it.
async fn shares(write: &mut Write<'_>, limit: u32, now: Millis) -> Inner<Vec<PgRow>> {
    let tenants = write.all(sqlx::query(TENANTS_DUE).bind(now).bind(i64::from(limit))).await?;
    let most = i64::from(firing::of_each(limit, tenants.len()));
    let mut queues = VecDeque::with_capacity(tenants.len());
    for tenant in &tenants {
        let due = sqlx::query(DUE_OF_TENANT).bind(now).bind(most).bind(tenant.string("tenant")?);
        queues.push_back(VecDeque::from(write.all(due).await?));
    }
    Ok(firing::by_turns(queues, limit as usize))
}

/// Fires all of them. Answers whether one of them is to be looked at once more.
async fn apply(
    write: &mut Write<'_>,
    rows: &[PgRow],
    terms: Terms,
    queued_max: u32,
    report: &mut FireReport,
) -> Inner<bool> {
    let mut planned: Vec<(Box<Schedule>, Plan)> = Vec::with_capacity(rows.len());
    for row in rows {
        match rows::schedule(row) {
            // Fires of a disabled tenant are missed: they must not stand before all others, look after look.
            Ok(schedule) => {
                let plan = schedule.plan(Terms { rests: row.flag("rests")?, ..terms });
                planned.push((Box::new(schedule), plan));
            }
            // One schedule that cannot be read must not stop all others.
            Err(Trouble::Corrupt(error)) => {
                write.execute(sqlx::query(BREAK).bind(row.id("id")?).bind(clean(error))).await?;
            }
            Err(other) => return Err(other),
        }
    }
    let present = present(write, planned.iter().map(|(schedule, plan)| (&**schedule, plan.fires.as_slice()))).await?;
    let live = live(write, planned.iter().map(|(schedule, _)| schedule.id).collect()).await?;
    let cancels = |schedule: &Schedule| schedule.policies.overlap == Overlap::CancelPrevious;
    let may_cancel = planned.iter().filter(|(schedule, _)| cancels(schedule)).map(|(schedule, _)| schedule.id);
    let mut victims = Victims::lock(write, may_cancel.collect()).await?;
    let tenants: BTreeSet<String> = planned.iter().map(|(schedule, _)| schedule.tenant.to_string()).collect();
    let tenants: Vec<String> = tenants.into_iter().collect();
    // Or a tenant might fill its room meanwhile, and no schedule would fire.
    loads::lock(write, tenants.clone()).await?;
    if !victims.of.is_empty() {
        loads::touch(write, tenants.clone()).await?;
    }
    let limits = loads::Room::ask(write, tenants, queued_max).await?;
    let mut rooms = firing::Rooms::default();
    let mut inserts = jobs::Inserts::default();
    let mut is_more = false;
    for (schedule, plan) in planned {
        let standing = standing(&schedule, live.contains(&schedule.id));
        let room = rooms.left(&schedule.tenant).unwrap_or_else(|| limits.of(schedule.tenant.as_str()));
        let (meeting, change) = firing::meet(&schedule, &plan, standing, &present, room, &mut rooms);
        if meeting.cancels {
            report.cancelled.extend(victims.cancel(write, &schedule).await?);
            if victims.are_more {
                is_more = true;
                continue;
            }
        }
        is_more |= change.next.is_some_and(|next| next <= terms.now);
        write_down(write, schedule.id, &meeting, &change).await?;
        report.add(&meeting, &change, start(&mut inserts, &schedule, &meeting, None, terms.now));
    }
    seam!("inside_fire");
    keep(write, inserts).await?;
    Ok(is_more)
}

/// All jobs of all fires in one statement.
async fn keep(write: &mut Write<'_>, inserts: jobs::Inserts) -> Inner<()> {
    if !inserts.is_empty() {
        write.execute(inserts.statement()).await?;
    }
    Ok(())
}

/// How a locked schedule stands.
fn standing(schedule: &Schedule, is_live: bool) -> Standing {
    Standing { is_live, buffered: schedule.buffered_fire_at_ms, remaining: schedule.policies.remaining_fires }
}

/// Of these schedules, those with a job that has not ended.
async fn live(write: &mut Write<'_>, ids: Vec<Uuid>) -> Inner<HashSet<Uuid>> {
    write.all(sqlx::query(LIVE).bind(ids)).await?.iter().map(|row| row.id("id")).collect()
}

/// Jobs that may be cancelled to make room for fires. All others are kept from ending them, before any number is changed.
struct Victims {
    of: HashMap<Uuid, Vec<Uuid>>,
    /// So many are live that these are not all.
    are_more: bool,
}

impl Victims {
    async fn lock(write: &mut Write<'_>, schedules: Vec<Uuid>) -> Inner<Self> {
        let mut victims = Self { of: HashMap::new(), are_more: false };
        if !schedules.is_empty() {
            let rows = write.all(sqlx::query(LOCK_JOBS).bind(schedules).bind(CANCEL_MAX as i64)).await?;
            victims.are_more = rows.len() == CANCEL_MAX;
            for row in rows {
                victims.of.entry(row.id("schedule_id")?).or_default().push(row.id("id")?);
            }
        }
        Ok(victims)
    }

    async fn cancel(&mut self, write: &mut Write<'_>, schedule: &Schedule) -> Inner<Vec<Fence>> {
        match self.of.remove(&schedule.id) {
            Some(jobs) => settle::cancel_live(write, &schedule.tenant, jobs, OVERTAKEN).await,
            None => Ok(Vec::new()),
        }
    }
}

/// Of these fires, and those that are buffered, the ones that have made a job before.
async fn present<'a>(
    write: &mut Write<'_>,
    fires: impl Iterator<Item = (&'a Schedule, &'a [Millis])>,
) -> Inner<HashSet<(Uuid, Millis)>> {
    let (ids, times): (Vec<Uuid>, Vec<Millis>) = firing::all_of(fires).into_iter().unzip();
    let found = write.all(sqlx::query(PRESENT).bind(ids).bind(times)).await?;
    found.iter().map(|row| Ok((row.id("fire_schedule")?, row.number("fire_at")?))).collect()
}

/// Notes jobs that are to be made as was decided. That of the last fire has the id `last`, if there is one.
fn start(
    inserts: &mut jobs::Inserts,
    schedule: &Schedule,
    meeting: &Meeting,
    last: Option<Uuid>,
    now: Millis,
) -> Vec<Fired> {
    let mut fired = Vec::with_capacity(meeting.starts.len());
    for (job, run_at, told) in firing::jobs_of(schedule, &meeting.starts, last, now) {
        inserts.add(&job, Some(run_at), Some((schedule.id, told.fire_at_ms)));
        fired.push(told);
    }
    fired
}

async fn write_down(write: &mut Write<'_>, id: Uuid, meeting: &Meeting, change: &Change) -> Inner<()> {
    let update = sqlx::query(WRITE_DOWN)
        .bind(id)
        .bind(change.next)
        .bind(change.last)
        .bind(meeting.buffered)
        .bind(change.remaining.map(rows::signed))
        .bind(meeting.starts.len() as i64)
        .bind(rows::signed(change.missed))
        .bind(rows::signed(meeting.overlapped));
    write.execute(update).await.map(drop)
}

pub(super) async fn trigger(
    store: &PostgresStore,
    tenant: &TenantId,
    id: Uuid,
    job: Uuid,
    overlap: Option<Overlap>,
) -> Inner<Option<Triggered>> {
    let mut session = store.session().await?;
    let mut cancelled = Vec::new();
    loop {
        let mut write = session.begin().await?;
        let tried = trigger_within(&mut write, tenant, id, job, overlap, store.tenant_queued_max).await;
        match write.end(tried).await? {
            Tried::Cancelled(some) => cancelled.extend(some),
            Tried::Fired(answer) => return Ok(answer.map(|triggered| triggered.after(cancelled))),
        }
    }
}

async fn trigger_within(
    write: &mut Write<'_>,
    tenant: &TenantId,
    id: Uuid,
    job: Uuid,
    overlap: Option<Overlap>,
    queued_max: u32,
) -> Inner<Tried<Option<Triggered>>> {
    let Some((schedule, now)) = locked(write, tenant, id).await? else { return Ok(Tried::Fired(None)) };
    // Two in the same millisecond are two fires all the same.
    let mut fire_at = now;
    while present(write, [(&schedule, [fire_at].as_slice())].into_iter()).await?.contains(&(id, fire_at)) {
        fire_at += 1;
    }
    // It is not one of those that the schedule may still fire.
    let is_live = !live(write, vec![id]).await?.is_empty();
    let standing = Standing { remaining: None, ..standing(&schedule, is_live) };
    let meeting = standing.meet(&[fire_at], overlap.unwrap_or(schedule.policies.overlap));
    let is_started = meeting.starts.last() == Some(&fire_at);
    if !is_started && !meeting.is_newly_buffered {
        return Ok(Tried::Fired(Some(Triggered::Overlapped)));
    }
    let cancelled = match cancel(write, &schedule, &meeting).await? {
        Tried::Fired(cancelled) => cancelled,
        Tried::Cancelled(some) => return Ok(Tried::Cancelled(some)),
    };
    loads::check_more(write, tenant.as_str(), meeting.starts.len(), queued_max).await?;
    let (next, remaining) = (schedule.next_fire_at_ms, schedule.policies.remaining_fires);
    let unjittered = Schedule { jitter_ms: 0, ..schedule };
    let mut inserts = jobs::Inserts::default();
    let fired = start(&mut inserts, &unjittered, &meeting, Some(job).filter(|_| is_started), now);
    let change = Change { next, last: meeting.starts.last().copied(), missed: 0, remaining };
    write_down(write, id, &meeting, &change).await?;
    keep(write, inserts).await?;
    Ok(Tried::Fired(Some(firing::triggered(fire_at, is_started, fired, cancelled))))
}

/// Cancels for one schedule as was decided, and keeps its tenant's room as it is; too many are not all of them.
async fn cancel(write: &mut Write<'_>, schedule: &Schedule, meeting: &Meeting) -> Inner<Tried<Vec<Fence>>> {
    let of: Vec<Uuid> = meeting.cancels.then_some(schedule.id).into_iter().collect();
    let mut victims = Victims::lock(write, of).await?;
    loads::lock(write, vec![schedule.tenant.to_string()]).await?;
    let cancelled = victims.cancel(write, schedule).await?;
    Ok(if victims.are_more { Tried::Cancelled(cancelled) } else { Tried::Fired(cancelled) })
}

pub(super) async fn backfill(
    store: &PostgresStore,
    tenant: &TenantId,
    id: Uuid,
    fires: &[Millis],
    overlap: Overlap,
) -> Inner<Option<Backfilled>> {
    let mut session = store.session().await?;
    let mut cancelled = Vec::new();
    loop {
        let mut write = session.begin().await?;
        let tried = backfill_within(&mut write, tenant, id, fires, overlap, store.tenant_queued_max).await;
        match write.end(tried).await? {
            Tried::Cancelled(some) => cancelled.extend(some),
            Tried::Fired(answer) => return Ok(answer.map(|backfilled| backfilled.after(cancelled))),
        }
    }
}

async fn backfill_within(
    write: &mut Write<'_>,
    tenant: &TenantId,
    id: Uuid,
    fires: &[Millis],
    overlap: Overlap,
    queued_max: u32,
) -> Inner<Tried<Option<Backfilled>>> {
    let Some((schedule, now)) = locked(write, tenant, id).await? else { return Ok(Tried::Fired(None)) };
    let present = present(write, [(&schedule, fires)].into_iter()).await?;
    let is_new = |fire: &Millis| !present.contains(&(id, *fire)) && schedule.buffered_fire_at_ms != Some(*fire);
    let new: Vec<Millis> = fires.iter().copied().filter(is_new).collect();
    let is_live = !live(write, vec![id]).await?.is_empty();
    let meeting = Standing { remaining: None, ..standing(&schedule, is_live) }.meet(&new, overlap);
    let cancelled = match cancel(write, &schedule, &meeting).await? {
        Tried::Fired(cancelled) => cancelled,
        Tried::Cancelled(some) => return Ok(Tried::Cancelled(some)),
    };
    loads::check_more(write, tenant.as_str(), meeting.starts.len(), queued_max).await?;
    let mut inserts = jobs::Inserts::default();
    let fired = start(&mut inserts, &schedule, &meeting, None, now);
    let (next, remaining) = (schedule.next_fire_at_ms, schedule.policies.remaining_fires);
    write_down(write, id, &meeting, &Change { next, last: None, missed: 0, remaining }).await?;
    keep(write, inserts).await?;
    Ok(Tried::Fired(Some(firing::backfilled(&meeting, fires.len() - new.len(), fired, cancelled))))
}

/// A tenant's schedule, and the time, within a transaction that is about to fire it.
async fn locked(write: &mut Write<'_>, tenant: &TenantId, id: Uuid) -> Inner<Option<(Schedule, Millis)>> {
    let lock = sqlx::query(concat!(
        "SELECT ",
        columns::schedule!(),
        " FROM schedules WHERE id = $1 AND tenant = $2 FOR UPDATE"
    ));
    let Some(row) = write.optional(lock.bind(id).bind(tenant.as_str())).await? else { return Ok(None) };
    Ok(Some((rows::schedule(&row)?, now(write).await?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::schedules::storm;
    use crate::store::postgres::tests::open_with_clock;

    #[tokio::test]
    async fn one_tenants_schedules_of_the_same_minute_delay_no_other_and_all_fire() {
        let Some((store, fixture)) = open_with_clock().await else { return };
        let copy = "
            INSERT INTO schedules (id, tenant, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                                   next_fire_at_ms, created_at_ms, overlap)
            SELECT gen_random_uuid(), tenant, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                   next_fire_at_ms, created_at_ms, overlap
            FROM schedules, generate_series(2, $2) WHERE id = $1";
        storm(&fixture, async |noisy, number| {
            store.session().await.unwrap().execute(sqlx::query(copy).bind(noisy).bind(number)).await.unwrap();
        })
        .await;
    }
}
