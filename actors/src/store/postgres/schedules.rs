//! Schedules: keeping and changing them. Firing them is in [`fires`](super::fires).

use telemetry::context::RequestId;
use uuid::Uuid;

use super::session::Statement;
use super::{PostgresStore, Run, Write, clean, columns};
use crate::model::{Millis, TenantId};
use crate::store::error::Inner;
use crate::store::rows::{self, Columns};
use crate::store::{NewSchedule, Schedule};

const INSERT: &str = concat!(
    "
    INSERT INTO schedules (id, tenant, every_ms, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
                           misfire, misfire_max, catch_up_window_ms, overlap, start_at_ms, end_at_ms, remaining_fires,
                           priority, timeout_ms, keep_ms, next_fire_at_ms, anchor_ms, created_at_ms, traceparent,
                           origin_trace_id, request_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
            $21, $22, $23, $24, $25, $26)
    RETURNING ",
    columns::schedule!()
);

const UPDATE: &str = concat!(
    "
    UPDATE schedules SET every_ms = $3, cron = $4, time_zone = $5, queue = $6, kind = $7, payload = $8, jitter_ms = $9,
                         max_attempts = $10, misfire = $11, misfire_max = $12, catch_up_window_ms = $13, overlap = $14,
                         start_at_ms = $15, end_at_ms = $16, remaining_fires = $17, priority = $18,
                         timeout_ms = $19, keep_ms = $20, next_fire_at_ms = $21, anchor_ms = $22, last_error = NULL
    WHERE id = $1 AND tenant = $2
    RETURNING ",
    columns::schedule!()
);

// Whoever fires it at this moment is waited for, and whoever comes later finds what is written here.
const LOCK: &str = concat!(
    "SELECT ",
    columns::schedule!(),
    ", now_ms() AS now_ms FROM schedules WHERE id = $1 AND tenant = $2 FOR UPDATE"
);

const PAUSE: &str = concat!(
    "
    UPDATE schedules SET next_fire_at_ms = NULL, paused_at_ms = coalesce(paused_at_ms, now_ms()),
                         overlapped = overlapped + CASE WHEN buffered_fire_at_ms IS NULL THEN 0 ELSE 1 END,
                         buffered_fire_at_ms = NULL
    WHERE id = $1 AND tenant = $2
    RETURNING ",
    columns::schedule!()
);

const RESUME: &str = concat!(
    "
    UPDATE schedules SET next_fire_at_ms = $2, anchor_ms = coalesce($2, anchor_ms), paused_at_ms = NULL
    WHERE id = $1 RETURNING ",
    columns::schedule!()
);

pub(super) async fn create(store: &PostgresStore, schedule: NewSchedule) -> Inner<Schedule> {
    let mut session = store.session().await?;
    let now: Millis = session.one(sqlx::query("SELECT now_ms() AS now_ms")).await?.number("now_ms")?;
    let first = schedule.first_fire(now);
    let insert = said(INSERT, &schedule)
        .bind(first)
        .bind(first.unwrap_or(now))
        .bind(now)
        .bind(schedule.context.traceparent())
        .bind(schedule.context.origin())
        .bind(schedule.context.request_id().map(|id| RequestId::as_str(id).to_owned()));
    rows::schedule(&session.one(insert).await?)
}

/// A statement with what a tenant says about a schedule, as its parameters 1 to 20.
fn said(sql: &'static str, schedule: &NewSchedule) -> Statement<'static> {
    let (pattern, time_zone) = schedule.cadence.cron_line().unzip();
    let policies = &schedule.policies;
    sqlx::query(sql)
        .bind(schedule.id)
        .bind(schedule.tenant.to_string())
        .bind(schedule.cadence.every_ms().map(rows::signed))
        .bind(pattern.map(str::to_owned))
        .bind(time_zone.map(str::to_owned))
        .bind(clean(schedule.queue.as_str()))
        .bind(clean(schedule.kind.as_str()))
        .bind(schedule.payload.to_string())
        .bind(rows::signed(schedule.jitter_ms))
        .bind(i64::from(schedule.max_attempts))
        .bind(policies.misfire.as_str())
        .bind(policies.misfire.max().map(i64::from))
        .bind(policies.catch_up_window_ms.map(rows::signed))
        .bind(policies.overlap.as_str())
        .bind(policies.start_at_ms)
        .bind(policies.end_at_ms)
        .bind(policies.remaining_fires.map(rows::signed))
        .bind(i64::from(schedule.priority))
        .bind(schedule.timeout_ms.map(rows::signed))
        .bind(schedule.keep_ms.map(rows::signed))
}

pub(super) async fn get(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let select = sqlx::query(concat!("SELECT ", columns::schedule!(), " FROM schedules WHERE id = $1 AND tenant = $2"))
        .bind(id)
        .bind(tenant.as_str());
    store.session().await?.optional(select).await?.map(|row| rows::schedule(&row)).transpose()
}

pub(super) async fn update(store: &PostgresStore, new: NewSchedule) -> Inner<Option<Schedule>> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let updated = update_within(&mut write, new).await;
    write.end(updated).await
}

async fn update_within(write: &mut Write<'_>, new: NewSchedule) -> Inner<Option<Schedule>> {
    let lock = sqlx::query(LOCK).bind(new.id).bind(new.tenant.to_string());
    let Some(row) = write.optional(lock).await? else { return Ok(None) };
    let (next, anchor) = rows::schedule(&row)?.changed_to(&new, row.number("now_ms")?);
    let row = write.one(said(UPDATE, &new).bind(next).bind(anchor)).await?;
    rows::schedule(&row).map(Some)
}

pub(super) async fn delete(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let delete = sqlx::query("DELETE FROM schedules WHERE id = $1 AND tenant = $2").bind(id).bind(tenant.as_str());
    Ok(store.session().await?.execute(delete).await? > 0)
}

pub(super) async fn pause(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let pause = sqlx::query(PAUSE).bind(id).bind(tenant.as_str());
    store.session().await?.optional(pause).await?.map(|row| rows::schedule(&row)).transpose()
}

pub(super) async fn resume(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let resumed = resume_within(&mut write, tenant, id).await;
    write.end(resumed).await
}

async fn resume_within(write: &mut Write<'_>, tenant: &TenantId, id: Uuid) -> Inner<Option<Schedule>> {
    let lock = sqlx::query(LOCK).bind(id).bind(tenant.as_str());
    let Some(row) = write.optional(lock).await? else { return Ok(None) };
    let schedule = rows::schedule(&row)?;
    if schedule.paused_at_ms.is_none() {
        return Ok(Some(schedule));
    }
    let resume = sqlx::query(RESUME).bind(id).bind(schedule.first_fire(row.number("now_ms")?));
    rows::schedule(&write.one(resume).await?).map(Some)
}
