//! Deliveries: keeping new ones, claiming those of one channel, writing down how each attempt ended.

use sqlx::Row;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, rows};
use crate::model::{Millis, TenantId};
use crate::store::error::Trouble;
use crate::store::{ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryOutcome, Fence, NewDelivery, Settled};

const INSERT: &str = "
    INSERT INTO deliveries (id, tenant, channel_id, job_id, data, state, due_at_ms, created_at_ms, traceparent,
                            origin_trace_id, request_id)
    VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?6, ?7, ?8, ?9)
    RETURNING *";

// One that is `sending` and due again lost its sender: its lease ran out.
const CLAIM: &str = "
    UPDATE deliveries SET state = 'sending', attempt = attempt + 1, owner = ?1, due_at_ms = ?2
    WHERE id IN (SELECT deliveries.id FROM deliveries JOIN channels ON channels.id = deliveries.channel_id
                 WHERE channel_id = ?3 AND state IN ('pending', 'sending') AND due_at_ms <= ?4
                       AND channels.disabled IS NULL
                       AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = channels.tenant
                                                                   AND tenants.disabled_at_ms IS NOT NULL)
                 ORDER BY due_at_ms, deliveries.id LIMIT ?5)
    RETURNING *";

const NEXT: &str = "
    SELECT min(due_at_ms) FROM deliveries
    WHERE channel_id = ?1 AND state IN ('pending', 'sending') AND due_at_ms > ?2";

const SETTLE: &str = "
    UPDATE deliveries SET state = ?3, due_at_ms = ?4, finished_at_ms = ?5, owner = NULL,
                          last_status = coalesce(?6, last_status), last_error = ?7, provider_id = ?8
    WHERE id = ?1 AND attempt = ?2 AND state = 'sending'";

const RELEASE: &str = "
    UPDATE deliveries SET state = 'pending', due_at_ms = ?3, refunds = refunds + 1, owner = NULL
    WHERE id = ?1 AND attempt = ?2 AND state = 'sending'";

const BURY: &str =
    "UPDATE deliveries SET state = 'dead', finished_at_ms = ?2, last_error = ?3, owner = NULL WHERE id = ?1";

pub(super) async fn create(store: &SqliteStore, delivery: NewDelivery) -> Inner<Delivery> {
    let mut write = store.write().await?;
    check(&mut write, &delivery).await?;
    let kept = insert(&mut write, &delivery, store.now()).await?;
    write.commit().await?;
    Ok(kept)
}

/// Whether the channel is there, is the tenant's own, and is enabled. Another tenant's is as absent as none.
pub(super) async fn check(write: &mut Write, delivery: &NewDelivery) -> Inner<()> {
    let select = sqlx::query("SELECT disabled FROM channels WHERE id = ?1 AND tenant = ?2");
    let bound = select.bind(delivery.channel.to_string()).bind(delivery.tenant.as_str());
    let Some(row) = bound.fetch_optional(&mut **write).await? else {
        return Err(Trouble::NotFound(format!("the tenant has no channel {}", delivery.channel)));
    };
    match row.try_get::<Option<String>, _>("disabled")? {
        None => Ok(()),
        Some(why) => Err(Trouble::Conflict(format!("the channel {} is disabled: {why}", delivery.channel))),
    }
}

/// Inserts a delivery that was checked in the same transaction.
pub(super) async fn insert(write: &mut Write, delivery: &NewDelivery, now: Millis) -> Inner<Delivery> {
    let row = sqlx::query(INSERT)
        .bind(delivery.id.to_string())
        .bind(delivery.tenant.as_str())
        .bind(delivery.channel.to_string())
        .bind(delivery.job.map(|job| job.to_string()))
        .bind(delivery.data.to_string())
        .bind(now)
        .bind(delivery.context.traceparent())
        .bind(delivery.context.origin())
        .bind(delivery.context.request_id().map(RequestId::as_str))
        .fetch_one(&mut **write)
        .await?;
    rows::delivery(&row)
}

pub(super) async fn claim(store: &SqliteStore, claim: ClaimDeliveries) -> Inner<ClaimedDeliveries> {
    let now = store.now();
    let channel = claim.channel.to_string();
    let mut write = store.write().await?;
    let claimed = sqlx::query(CLAIM)
        .bind(claim.owner.to_string())
        .bind(now.saturating_add(rows::signed(claim.lease_ms)))
        .bind(&channel)
        .bind(now)
        .bind(claim.limit)
        .fetch_all(&mut *write)
        .await?;
    let mut deliveries = Vec::with_capacity(claimed.len());
    for row in &claimed {
        match rows::delivery(row) {
            Ok(delivery) => deliveries.push(delivery),
            // A row that cannot be read must not stop all others, claim after claim.
            Err(Trouble::Corrupt(what)) => bury(&mut write, row.try_get("id")?, &what, now).await?,
            Err(other) => return Err(other),
        }
    }
    deliveries.sort_by_key(|delivery| delivery.id);
    let next: Option<Millis> = sqlx::query_scalar(NEXT).bind(&channel).bind(now).fetch_one(&mut *write).await?;
    write.commit().await?;
    Ok(ClaimedDeliveries { deliveries, next_due_in_ms: rows::until(next, now) })
}

/// Ends a claimed delivery that cannot be read.
async fn bury(write: &mut Write, id: &str, what: &str, now: Millis) -> Inner<()> {
    tracing::error!(id, what, "a delivery cannot be read, it is dead");
    let bury = sqlx::query(BURY).bind(id).bind(now).bind(format!("it cannot be read: {what}"));
    bury.execute(&mut **write).await?;
    Ok(())
}

pub(super) async fn settle(store: &SqliteStore, fence: Fence, outcome: DeliveryOutcome) -> Inner<Settled> {
    let now = store.now();
    let id = fence.id.to_string();
    let written = match outcome {
        DeliveryOutcome::Release => {
            sqlx::query(RELEASE).bind(&id).bind(fence.attempt).bind(now).execute(&store.writer()?).await?
        }
        ended => {
            let end = End::of(ended, now);
            sqlx::query(SETTLE)
                .bind(&id)
                .bind(fence.attempt)
                .bind(end.state)
                .bind(end.due_at)
                .bind(end.finished_at)
                .bind(end.status)
                .bind(end.error)
                .bind(end.provider_id)
                .execute(&store.writer()?)
                .await?
        }
    };
    Ok(if written.rows_affected() > 0 { Settled::Applied } else { Settled::Late })
}

/// The columns that an attempt changes.
struct End {
    state: &'static str,
    due_at: Millis,
    finished_at: Option<Millis>,
    status: Option<u16>,
    error: Option<String>,
    provider_id: Option<String>,
}

impl End {
    fn of(outcome: DeliveryOutcome, now: Millis) -> Self {
        let (state, due_at, status, error, provider_id) = match outcome {
            DeliveryOutcome::Sent { status, provider_id } => ("sent", now, status, None, provider_id),
            DeliveryOutcome::Dead { status, reason } => ("dead", now, status, Some(reason), None),
            DeliveryOutcome::Retry { after_ms, status, error } => {
                ("pending", now.saturating_add(rows::signed(after_ms)), status, Some(error), None)
            }
            DeliveryOutcome::Release => ("pending", now, None, None, None),
        };
        let finished_at = (state != "pending").then_some(now);
        Self { state, due_at, finished_at, status, error, provider_id }
    }
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Delivery>> {
    let select = sqlx::query("SELECT * FROM deliveries WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::delivery(&row)).transpose()
}

pub(super) async fn list(store: &SqliteStore, tenant: &TenantId, channel: Uuid, limit: u32) -> Inner<Vec<Delivery>> {
    let select = "SELECT * FROM deliveries WHERE channel_id = ?1 AND tenant = ?2 ORDER BY id DESC LIMIT ?3";
    let bound = sqlx::query(select).bind(channel.to_string()).bind(tenant.as_str()).bind(limit);
    bound.fetch_all(&store.readers()?).await?.iter().map(rows::delivery).collect()
}
