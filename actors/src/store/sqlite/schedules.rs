//! Schedules: keeping them, and firing what is due.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, jobs, loads, rows};
use crate::model::{Millis, TenantId, new_id};
use crate::store::error::Trouble;
use crate::store::{FireDue, FireReport, Fired, NewJob, NewSchedule, Schedule};

const INSERT: &str = "
    INSERT INTO schedules (id, tenant, every_ms, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                           next_fire_at_ms, created_at_ms, traceparent, origin_trace_id, request_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    RETURNING *";

// Those of a disabled tenant are moved on without a job: they must not stand before all others, look after look.
const DUE: &str = "
    SELECT schedules.*, EXISTS (SELECT 1 FROM tenants WHERE tenants.id = schedules.tenant
                                                            AND tenants.disabled_at_ms IS NOT NULL) AS rests
    FROM schedules WHERE next_fire_at_ms IS NOT NULL AND next_fire_at_ms <= ?1
    ORDER BY next_fire_at_ms LIMIT ?2";

// Only the one who finds the fire still due moves the schedule on.
const ADVANCE: &str = "
    UPDATE schedules SET next_fire_at_ms = ?3, last_fire_at_ms = coalesce(?4, last_fire_at_ms)
    WHERE id = ?1 AND next_fire_at_ms = ?2";

const BREAK: &str = "UPDATE schedules SET next_fire_at_ms = NULL, last_error = ?2 WHERE id = ?1";

// A fire that is being prepared at this moment finds the schedule not due any more, and does nothing.
const PAUSE: &str = "
    UPDATE schedules SET next_fire_at_ms = NULL, paused_at_ms = coalesce(paused_at_ms, ?3)
    WHERE id = ?1 AND tenant = ?2
    RETURNING *";

const RESUME: &str = "UPDATE schedules SET next_fire_at_ms = ?2, paused_at_ms = NULL WHERE id = ?1 RETURNING *";

pub(super) async fn create(store: &SqliteStore, schedule: NewSchedule) -> Inner<Schedule> {
    let now = store.now();
    let cron = schedule.cadence.cron_line();
    let mut write = store.write().await?;
    let row = sqlx::query(INSERT)
        .bind(schedule.id.to_string())
        .bind(schedule.tenant.as_str())
        .bind(schedule.cadence.every_ms().map(rows::signed))
        .bind(cron.map(|(pattern, _)| pattern))
        .bind(cron.map(|(_, time_zone)| time_zone))
        .bind(&schedule.queue)
        .bind(&schedule.kind)
        .bind(schedule.payload.to_string())
        .bind(rows::signed(schedule.jitter_ms))
        .bind(schedule.max_attempts)
        .bind(schedule.cadence.first(now))
        .bind(now)
        .bind(schedule.context.traceparent())
        .bind(schedule.context.origin())
        .bind(schedule.context.request_id().map(RequestId::as_str))
        .fetch_one(&mut *write)
        .await?;
    write.commit().await?;
    rows::schedule(&row)
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let select = sqlx::query("SELECT * FROM schedules WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::schedule(&row)).transpose()
}

pub(super) async fn delete(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let delete = sqlx::query("DELETE FROM schedules WHERE id = ?1 AND tenant = ?2");
    let deleted = delete.bind(id.to_string()).bind(tenant.as_str()).execute(&store.writer()?).await?;
    Ok(deleted.rows_affected() > 0)
}

pub(super) async fn pause(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let pause = sqlx::query(PAUSE).bind(id.to_string()).bind(tenant.as_str()).bind(store.now());
    let mut write = store.write().await?;
    let row = pause.fetch_optional(&mut *write).await?;
    write.commit().await?;
    row.map(|row| rows::schedule(&row)).transpose()
}

pub(super) async fn resume(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let mut write = store.write().await?;
    let select = sqlx::query("SELECT * FROM schedules WHERE id = ?1 AND tenant = ?2");
    let Some(row) = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&mut *write).await? else {
        return Ok(None);
    };
    let schedule = rows::schedule(&row)?;
    if schedule.paused_at_ms.is_none() {
        return Ok(Some(schedule));
    }
    let resume = sqlx::query(RESUME).bind(id.to_string()).bind(schedule.cadence.first(store.now()));
    let row = resume.fetch_one(&mut *write).await?;
    write.commit().await?;
    rows::schedule(&row).map(Some)
}

pub(super) async fn fire_due(store: &SqliteStore, fire: FireDue) -> Inner<FireReport> {
    let now = store.now();
    let due = sqlx::query(DUE).bind(now).bind(fire.limit).fetch_all(&store.readers()?).await?;
    // Patterns are evaluated here, before the file is locked.
    let steps: Vec<Step> = due.iter().map(|row| step(row, &fire, now)).collect::<Inner<_>>()?;
    let mut report = FireReport::default();
    if !steps.is_empty() {
        let mut write = store.write().await?;
        for step in steps {
            apply(&mut write, step, store.tenant_queued_max, now, &mut report).await?;
        }
        write.commit().await?;
    }
    let next = "SELECT min(next_fire_at_ms) FROM schedules WHERE next_fire_at_ms IS NOT NULL";
    let next: Option<Millis> = sqlx::query_scalar(next).fetch_one(&store.readers()?).await?;
    report.next_due_in_ms = rows::until(next, now);
    Ok(report)
}

/// What a due schedule is to do.
enum Step {
    Fire { schedule: Box<Schedule>, fire_at: Millis, next: Option<Millis> },
    Miss { schedule: Box<Schedule>, next: Option<Millis> },
    Break { id: String, error: String },
}

fn step(row: &SqliteRow, fire: &FireDue, now: Millis) -> Inner<Step> {
    let schedule = match rows::schedule(row) {
        Ok(schedule) => Box::new(schedule),
        // One schedule that cannot be read must not stop all others.
        Err(Trouble::Corrupt(error)) => {
            return Ok(Step::Break { id: row.try_get("id")?, error });
        }
        Err(other) => return Err(other),
    };
    let due = schedule.next_fire_at_ms.unwrap_or(now);
    let advance = schedule.cadence.advance(due, now);
    let next = advance.next_ms;
    let too_old = now.saturating_sub(advance.latest_ms) > rows::signed(fire.misfire_window_ms);
    let missed = too_old || row.try_get("rests")?;
    Ok(if missed { Step::Miss { schedule, next } } else { Step::Fire { schedule, fire_at: advance.latest_ms, next } })
}

async fn apply(write: &mut Write, step: Step, queued_max: u32, now: Millis, report: &mut FireReport) -> Inner<()> {
    match step {
        Step::Break { id, error } => {
            sqlx::query(BREAK).bind(id).bind(error).execute(&mut **write).await?;
        }
        Step::Miss { schedule, next } => {
            report.missed += u64::from(advance(write, &schedule, next, None).await?);
        }
        Step::Fire { schedule, next, .. } if !loads::has_room(write, &schedule.tenant, queued_max).await? => {
            if advance(write, &schedule, next, None).await? {
                report.missed += 1;
                let (tenant, schedule) = (&schedule.tenant, schedule.id);
                tracing::warn!(%tenant, %schedule, "a fire is missed: the tenant has as many jobs queued as it may");
            }
        }
        Step::Fire { schedule, fire_at, next } => {
            if advance(write, &schedule, next, Some(fire_at)).await? {
                report.fired.push(insert_job(write, &schedule, fire_at, now).await?);
            }
        }
    }
    Ok(())
}

async fn advance(write: &mut Write, schedule: &Schedule, next: Option<Millis>, fired: Option<Millis>) -> Inner<bool> {
    let advance = sqlx::query(ADVANCE).bind(schedule.id.to_string()).bind(schedule.next_fire_at_ms);
    Ok(advance.bind(next).bind(fired).execute(&mut **write).await?.rows_affected() > 0)
}

async fn insert_job(write: &mut Write, schedule: &Schedule, fire_at: Millis, now: Millis) -> Inner<Fired> {
    let job = NewJob {
        id: new_id(),
        tenant: schedule.tenant.clone(),
        queue: schedule.queue.clone(),
        kind: schedule.kind.clone(),
        payload: schedule.payload.clone(),
        priority: 0,
        run_at_ms: None,
        max_attempts: schedule.max_attempts,
        timeout_ms: None,
        context: schedule.context.clone(),
    };
    let run_at = fire_at.saturating_add(jitter(schedule));
    jobs::insert(write, &job, run_at, Some((schedule.id, fire_at)), now).await?;
    let late_ms = now.saturating_sub(fire_at).max(0) as u64;
    Ok(Fired { schedule: schedule.id, job: job.id, fire_at_ms: fire_at, late_ms })
}

/// The same part of the schedule's jitter each time: the end of its id is random.
fn jitter(schedule: &Schedule) -> i64 {
    let (_, random) = schedule.id.as_u64_pair();
    random.checked_rem(schedule.jitter_ms).map_or(0, rows::signed)
}
