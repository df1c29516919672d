//! Deliveries: keeping new ones, claiming those of one channel, sending dead ones again, forgetting old ones.

use sqlx::Row;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, rows};
use crate::model::{Millis, TenantId};
use crate::store::delivery::CHANNEL_PENDING;
use crate::store::error::Trouble;
use crate::store::{Before, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryState, NewDelivery, Prune, ending};

const INSERT: &str = "
    INSERT INTO deliveries (id, tenant, channel_id, job_id, data, state, due_at_ms, created_at_ms, traceparent,
                            origin_trace_id, request_id, text, attempts_max)
    VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?6, ?7, ?8, ?9, ?10, ?11)
    RETURNING *";

// One that is `sending` and due again lost its sender: its lease ran out.
const CLAIM: &str = "
    UPDATE deliveries SET state = 'sending', attempt = attempt + 1, owner = ?1, due_at_ms = ?2
    WHERE id IN (SELECT deliveries.id FROM deliveries JOIN channels ON channels.id = deliveries.channel_id
                 WHERE channel_id = ?3 AND state IN ('pending', 'sending') AND due_at_ms <= ?4
                       AND channels.disabled IS NULL AND coalesce(channels.not_before_ms, 0) <= ?4
                       AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = channels.tenant
                                                                   AND tenants.disabled_at_ms IS NOT NULL)
                 ORDER BY due_at_ms, deliveries.id LIMIT ?5)
    RETURNING *";

// Two statements, so that each has its index.
const LIST: &str =
    "SELECT * FROM deliveries WHERE channel_id = ?1 AND tenant = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4";

const LIST_IN_STATE: &str = "
    SELECT * FROM deliveries WHERE channel_id = ?1 AND tenant = ?2 AND id < ?3 AND state = ?5
    ORDER BY id DESC LIMIT ?4";

const NEXT: &str = "
    SELECT min(due_at_ms) FROM deliveries
    WHERE channel_id = ?1 AND state IN ('pending', 'sending') AND due_at_ms > ?2";

// Nothing of its past attempts is charged, so that it gets all of them again.
const REDELIVER: &str = "
    UPDATE deliveries SET state = 'pending', due_at_ms = ?2, refunds = attempt, finished_at_ms = NULL
    WHERE id = ?1 AND state = 'dead' RETURNING *";

// No more of the index is read than the limit, whatever waits.
const PENDING: &str = "
    SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE channel_id = ?1 AND state IN ('pending', 'sending') LIMIT ?2)";

const PRUNE_OLD: &str = "
    DELETE FROM deliveries WHERE rowid IN (
        SELECT rowid FROM deliveries WHERE finished_at_ms IS NOT NULL AND finished_at_ms < ?1
        ORDER BY finished_at_ms LIMIT ?2)";

// One walk over an index that has nothing else in it.
const ABOVE: &str = "
    SELECT channel_id, count(*) - ?1 AS above FROM deliveries WHERE finished_at_ms IS NOT NULL
    GROUP BY channel_id HAVING count(*) > ?1 LIMIT ?2";

const PRUNE_ABOVE: &str = "
    DELETE FROM deliveries WHERE rowid IN (
        SELECT rowid FROM deliveries WHERE channel_id = ?1 AND finished_at_ms IS NOT NULL
        ORDER BY finished_at_ms LIMIT ?2)";

const BURY: &str =
    "UPDATE deliveries SET state = 'dead', finished_at_ms = ?2, last_error = ?3, owner = NULL WHERE id = ?1";

pub(super) async fn create(store: &SqliteStore, deliveries: Vec<NewDelivery>) -> Inner<Vec<Delivery>> {
    let now = store.now();
    let mut write = store.write().await?;
    let mut kept = Vec::with_capacity(deliveries.len());
    for delivery in &deliveries {
        check(&mut write, &delivery.tenant, delivery.channel, store.pending_max).await?;
        kept.push(insert(&mut write, delivery, now).await?);
    }
    write.commit().await?;
    Ok(kept)
}

/// Whether the channel is there, is the tenant's own, is enabled, and has room for one more. Another tenant's is as absent
/// as none.
pub(super) async fn check(write: &mut Write, tenant: &TenantId, channel: Uuid, pending_max: u32) -> Inner<()> {
    let select = sqlx::query("SELECT disabled FROM channels WHERE id = ?1 AND tenant = ?2");
    let bound = select.bind(channel.to_string()).bind(tenant.as_str());
    let Some(row) = bound.fetch_optional(&mut **write).await? else {
        return Err(Trouble::NotFound(ending::no_channel(channel)));
    };
    if let Some(why) = row.try_get::<Option<String>, _>("disabled")? {
        return Err(Trouble::Conflict(ending::disabled_channel(channel, &why)));
    }
    let count = sqlx::query_scalar(PENDING).bind(channel.to_string()).bind(pending_max);
    let pending: u32 = count.fetch_one(&mut **write).await?;
    if pending >= pending_max {
        return Err(Trouble::Limit(CHANNEL_PENDING, ending::full_channel(channel, pending_max)));
    }
    Ok(())
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
        .bind(&delivery.text)
        .bind(delivery.attempts_max)
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
    let bury = sqlx::query(BURY).bind(id).bind(now).bind(ending::unreadable(what));
    bury.execute(&mut **write).await?;
    Ok(())
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Delivery>> {
    let select = sqlx::query("SELECT * FROM deliveries WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::delivery(&row)).transpose()
}

pub(super) async fn list(
    store: &SqliteStore,
    tenant: &TenantId,
    channel: Uuid,
    state: Option<DeliveryState>,
    page: Before,
) -> Inner<Vec<Delivery>> {
    let select = if state.is_some() { LIST_IN_STATE } else { LIST };
    let bound = sqlx::query(select).bind(channel.to_string()).bind(tenant.as_str());
    let bound = bound.bind(rows::before(page).to_string()).bind(page.limit);
    let bound = if let Some(state) = state { bound.bind(state.as_str()) } else { bound };
    bound.fetch_all(&store.readers()?).await?.iter().map(rows::delivery).collect()
}

pub(super) async fn redeliver(store: &SqliteStore, tenant: &TenantId, channel: Uuid, id: Uuid) -> Inner<Delivery> {
    let mut write = store.write().await?;
    let select = sqlx::query("SELECT state FROM deliveries WHERE id = ?1 AND tenant = ?2 AND channel_id = ?3");
    let bound = select.bind(id.to_string()).bind(tenant.as_str()).bind(channel.to_string());
    let Some(row) = bound.fetch_optional(&mut *write).await? else {
        return Err(Trouble::NotFound(format!("the channel has no delivery {id}")));
    };
    let state: &str = row.try_get("state")?;
    check(&mut write, tenant, channel, store.pending_max).await?;
    let update = sqlx::query(REDELIVER).bind(id.to_string()).bind(store.now()).fetch_optional(&mut *write).await?;
    let Some(row) = update else {
        return Err(Trouble::Conflict(ending::not_dead(id, state)));
    };
    write.commit().await?;
    rows::delivery(&row)
}

pub(super) async fn prune(store: &SqliteStore, prune: Prune) -> Inner<u64> {
    let oldest_ms = store.now().saturating_sub(rows::signed(prune.older_than_ms));
    let limit = i64::from(prune.limit);
    let mut write = store.write_alone().await?;
    let old = sqlx::query(PRUNE_OLD).bind(oldest_ms).bind(limit).execute(&mut *write).await?;
    write.commit().await?;
    let mut deleted = rows::signed(old.rows_affected());
    let above = sqlx::query_as(ABOVE).bind(rows::signed(prune.keep_max)).bind(limit);
    let above: Vec<(String, i64)> = above.fetch_all(&store.readers()?).await?;
    for (channel, above) in above {
        let most = above.min(limit - deleted);
        if most <= 0 {
            break;
        }
        let mut write = store.write_alone().await?;
        let gone = sqlx::query(PRUNE_ABOVE).bind(channel).bind(most).execute(&mut *write).await?;
        write.commit().await?;
        deleted = deleted.saturating_add(rows::signed(gone.rows_affected()));
    }
    Ok(deleted.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn a_page_of_the_log_walks_its_index_from_its_place_on_and_sorts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for (sql, step) in [
            (LIST, "SEARCH deliveries USING INDEX deliveries_log (channel_id=? AND id<?)"),
            (LIST_IN_STATE, "SEARCH deliveries USING INDEX deliveries_by_state (channel_id=? AND state=? AND id<?)"),
        ] {
            assert_eq!(plan(&store, sql).await, [step]);
        }
    }

    #[tokio::test]
    async fn what_is_counted_is_counted_in_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for (sql, index) in
            [(PENDING, "COVERING INDEX deliveries_by_state"), (ABOVE, "COVERING INDEX deliveries_finished_of")]
        {
            let steps = plan(&store, sql).await;
            assert!(steps.iter().any(|step| step.contains(index)), "{steps:#?}");
            assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
        }
    }
}
