//! Schedules: keeping and changing them. Firing them is in [`fires`](super::fires).

use sqlx::sqlite::{Sqlite, SqliteArguments};
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, rows};
use crate::model::{Millis, TenantId};
use crate::store::{NewSchedule, Schedule};

const INSERT: &str = "
    INSERT INTO schedules (id, tenant, every_ms, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                           misfire, misfire_max, catch_up_window_ms, overlap, start_at_ms, end_at_ms, remaining_fires,
                           priority, timeout_ms, keep_ms, next_fire_at_ms, anchor_ms, created_at_ms, traceparent,
                           origin_trace_id, request_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
            ?21, ?22, ?23, ?24, ?25, ?26)
    RETURNING *";

const UPDATE: &str = "
    UPDATE schedules SET every_ms = ?3, cron = ?4, time_zone = ?5, queue = ?6, kind = ?7, payload = ?8, jitter_ms = ?9,
                         max_attempts = ?10, misfire = ?11, misfire_max = ?12, catch_up_window_ms = ?13, overlap = ?14,
                         start_at_ms = ?15, end_at_ms = ?16, remaining_fires = ?17, priority = ?18,
                         timeout_ms = ?19, keep_ms = ?20, next_fire_at_ms = ?21, anchor_ms = ?22, last_error = NULL, revision = revision + 1
    WHERE id = ?1 AND tenant = ?2
    RETURNING *";

const SELECT: &str = "SELECT * FROM schedules WHERE id = ?1 AND tenant = ?2";

// A fire that is being prepared at this moment finds the schedule not due any more, and does nothing.
const PAUSE: &str = "
    UPDATE schedules SET next_fire_at_ms = NULL, paused_at_ms = coalesce(paused_at_ms, ?3), revision = revision + 1,
                         overlapped = overlapped + (buffered_fire_at_ms IS NOT NULL), buffered_fire_at_ms = NULL
    WHERE id = ?1 AND tenant = ?2
    RETURNING *";

const RESUME: &str = "
    UPDATE schedules SET next_fire_at_ms = ?2, anchor_ms = coalesce(?2, anchor_ms), paused_at_ms = NULL,
                         revision = revision + 1
    WHERE id = ?1 RETURNING *";

pub(super) async fn create(store: &SqliteStore, schedule: NewSchedule) -> Inner<Schedule> {
    let now = store.now();
    let first = schedule.first_fire(now);
    let mut write = store.write().await?;
    let row = said(INSERT, &schedule)
        .bind(first)
        .bind(first.unwrap_or(now))
        .bind(now)
        .bind(schedule.context.traceparent())
        .bind(schedule.context.origin())
        .bind(schedule.context.request_id().map(RequestId::as_str))
        .fetch_one(&mut *write)
        .await?;
    write.commit().await?;
    rows::schedule(&row)
}

/// A statement with what a tenant says about a schedule, as its parameters 1 to 20.
fn said(sql: &'static str, schedule: &NewSchedule) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    let (pattern, time_zone) = schedule.cadence.cron_line().unzip();
    let policies = &schedule.policies;
    sqlx::query(sql)
        .bind(schedule.id.to_string())
        .bind(schedule.tenant.to_string())
        .bind(schedule.cadence.every_ms().map(rows::signed))
        .bind(pattern.map(str::to_owned))
        .bind(time_zone.map(str::to_owned))
        .bind(schedule.queue.clone())
        .bind(schedule.kind.clone())
        .bind(schedule.payload.to_string())
        .bind(rows::signed(schedule.jitter_ms))
        .bind(schedule.max_attempts)
        .bind(policies.misfire.as_str())
        .bind(policies.misfire.max())
        .bind(policies.catch_up_window_ms.map(rows::signed))
        .bind(policies.overlap.as_str())
        .bind(policies.start_at_ms)
        .bind(policies.end_at_ms)
        .bind(policies.remaining_fires.map(rows::signed))
        .bind(schedule.priority)
        .bind(schedule.timeout_ms.map(rows::signed))
        .bind(schedule.keep_ms.map(rows::signed))
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let select = sqlx::query(SELECT);
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::schedule(&row)).transpose()
}

pub(super) async fn update(store: &SqliteStore, new: NewSchedule) -> Inner<Option<Schedule>> {
    let mut write = store.write().await?;
    let updated = update_within(&mut write, new, store.now()).await;
    write.end(updated).await
}

async fn update_within(write: &mut Write, new: NewSchedule, now: Millis) -> Inner<Option<Schedule>> {
    let select = sqlx::query(SELECT).bind(new.id.to_string()).bind(new.tenant.as_str());
    let Some(row) = select.fetch_optional(&mut **write).await? else { return Ok(None) };
    let (next, anchor) = rows::schedule(&row)?.changed_to(&new, now);
    let row = said(UPDATE, &new).bind(next).bind(anchor).fetch_one(&mut **write).await?;
    rows::schedule(&row).map(Some)
}

pub(super) async fn delete(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let delete = sqlx::query("DELETE FROM schedules WHERE id = ?1 AND tenant = ?2");
    let mut write = store.write().await?;
    let deleted = delete.bind(id.to_string()).bind(tenant.as_str()).execute(&mut *write).await?;
    write.commit().await?;
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
    let resumed = resume_within(&mut write, tenant, id, store.now()).await;
    write.end(resumed).await
}

async fn resume_within(write: &mut Write, tenant: &TenantId, id: Uuid, now: Millis) -> Inner<Option<Schedule>> {
    let select = sqlx::query(SELECT).bind(id.to_string()).bind(tenant.as_str());
    let Some(row) = select.fetch_optional(&mut **write).await? else { return Ok(None) };
    let schedule = rows::schedule(&row)?;
    if schedule.paused_at_ms.is_none() {
        return Ok(Some(schedule));
    }
    let resume = sqlx::query(RESUME).bind(id.to_string()).bind(schedule.first_fire(now));
    rows::schedule(&resume.fetch_one(&mut **write).await?).map(Some)
}
