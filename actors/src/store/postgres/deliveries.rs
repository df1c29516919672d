//! Deliveries: keeping new ones, claiming those of one channel, sending dead ones again, forgetting old ones.

use std::collections::HashMap;

use telemetry::context::RequestId;
use uuid::Uuid;

use super::{PostgresStore, Run, Write, clean, columns, span};
use crate::model::TenantId;
use crate::store::delivery::CHANNEL_PENDING;
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{Before, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryState, NewDelivery, Prune, ending};

const INSERT: &str = concat!(
    "
    WITH clock AS MATERIALIZED (SELECT now_ms() AS now)
    INSERT INTO deliveries (id, tenant, channel_id, job_id, data, state, due_at_ms, created_at_ms, traceparent,
                            origin_trace_id, request_id, text, attempts_max)
    SELECT id, tenant, channel_id, job_id, data, 'pending', now, now, traceparent, origin_trace_id, request_id, text,
           attempts_max
    FROM clock, unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::text[], $10::bigint[])
        AS new (id, tenant, channel_id, job_id, data, traceparent, origin_trace_id, request_id, text, attempts_max)
    RETURNING ",
    columns::delivery!()
);

// One that is `sending` and due again lost its sender: its lease ran out. The answer has one row at least, without a
// delivery if there is none: it tells when the next one is due.
const CLAIM: &str = concat!(
    "
    WITH clock AS MATERIALIZED (SELECT now_ms() AS now), due AS MATERIALIZED (
        SELECT deliveries.id FROM deliveries JOIN channels ON channels.id = deliveries.channel_id
        WHERE channel_id = $3 AND state IN ('pending', 'sending') AND due_at_ms <= (SELECT now FROM clock)
              AND channels.disabled IS NULL AND coalesce(channels.not_before_ms, 0) <= (SELECT now FROM clock)
              AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = channels.tenant AND disabled_at_ms IS NOT NULL)
        ORDER BY due_at_ms, deliveries.id LIMIT $4 FOR UPDATE OF deliveries SKIP LOCKED
    ), taken AS (
        UPDATE deliveries SET state = 'sending', attempt = attempt + 1, owner = $1, due_at_ms = now + $2
        FROM clock, due WHERE deliveries.id = due.id
        RETURNING deliveries.*
    )
    SELECT clock.now AS now_ms, least(
               (SELECT due_at_ms FROM deliveries
                WHERE channel_id = $3 AND state IN ('pending', 'sending') AND due_at_ms > (SELECT now FROM clock)
                ORDER BY due_at_ms LIMIT 1),
               (SELECT min(due_at_ms) FROM taken)) AS next_ms, ",
    columns::delivery!(),
    "
    FROM clock LEFT JOIN taken ON true
    ORDER BY taken.id"
);

// Two statements, so that each has its index.
const LIST: &str = concat!(
    "SELECT ",
    columns::delivery!(),
    " FROM deliveries WHERE channel_id = $1 AND tenant = $2 AND id < $3 ORDER BY id DESC LIMIT $4"
);

const LIST_IN_STATE: &str = concat!(
    "
    SELECT ",
    columns::delivery!(),
    " FROM deliveries WHERE channel_id = $1 AND tenant = $2 AND id < $3 AND state = $5
    ORDER BY id DESC LIMIT $4"
);

// Nothing of its past attempts is charged, so that it gets all of them again.
const REDELIVER: &str = concat!(
    "
    UPDATE deliveries SET state = 'pending', due_at_ms = now_ms(), refunds = attempt, finished_at_ms = NULL
    WHERE id = $1 AND state = 'dead' RETURNING ",
    columns::delivery!()
);

const PRUNE_OLD: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM deliveries WHERE finished_at_ms IS NOT NULL AND finished_at_ms < (SELECT now_ms()) - $1
        ORDER BY finished_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM deliveries USING old WHERE deliveries.id = old.id";

// One walk over an index that has nothing else in it.
const ABOVE: &str = "
    SELECT channel_id, count(*) - $1 AS above FROM deliveries WHERE finished_at_ms IS NOT NULL
    GROUP BY channel_id HAVING count(*) > $1 LIMIT $2";

const PRUNE_ABOVE: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM deliveries WHERE channel_id = $1 AND finished_at_ms IS NOT NULL
        ORDER BY finished_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM deliveries USING old WHERE deliveries.id = old.id";

const BURY: &str = "
    UPDATE deliveries SET state = 'dead', finished_at_ms = now_ms(), last_error = $3, owner = NULL
    WHERE id = $1 AND attempt = $2";

// No more of the index is read than the limit, whatever waits.
const LOCK: &str = "
    SELECT id, tenant, disabled, (SELECT count(*) FROM (
               SELECT 1 FROM deliveries WHERE channel_id = channels.id AND state IN ('pending', 'sending') LIMIT $2
           ) AS seen) AS pending
    FROM channels WHERE id = ANY ($1) ORDER BY id FOR SHARE OF channels";

/// What `plans` looks at: all but the walk of [`ABOVE`], which reads an index from end to end on purpose.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[INSERT, CLAIM, LIST, LIST_IN_STATE, REDELIVER, PRUNE_OLD, PRUNE_ABOVE, BURY, LOCK];

/// Channels that stay as they are until the transaction ends, but for what others add at the same time.
pub(super) struct Channels {
    found: HashMap<Uuid, Found>,
    pending_max: u32,
}

struct Found {
    tenant: String,
    disabled: Option<String>,
    /// Deliveries that wait or are under way, those included that were checked here.
    pending: u32,
}

impl Channels {
    /// Locks those that are there, in the order of their ids.
    pub(super) async fn lock(write: &mut Write<'_>, ids: impl Iterator<Item = Uuid>, pending_max: u32) -> Inner<Self> {
        let mut ids: Vec<Uuid> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let mut found = HashMap::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(Self { found, pending_max });
        }
        for row in write.all(sqlx::query(LOCK).bind(ids).bind(i64::from(pending_max))).await? {
            let (tenant, disabled) = (row.string("tenant")?, row.string_or_none("disabled")?);
            found.insert(row.id("id")?, Found { tenant, disabled, pending: row.number("pending")? });
        }
        Ok(Self { found, pending_max })
    }

    /// Whether all of these may be added; then they count from now on.
    pub(super) fn check_all<'d>(&mut self, deliveries: impl Iterator<Item = &'d NewDelivery> + Clone) -> Inner<()> {
        for delivery in deliveries.clone() {
            self.check(&delivery.tenant, delivery.channel)?;
        }
        for delivery in deliveries {
            if let Some(found) = self.found.get_mut(&delivery.channel) {
                found.pending += 1;
            }
        }
        Ok(())
    }

    /// Whether a channel is there, is the tenant's own, is enabled, and has room for one more. Another tenant's is as
    /// absent as none.
    fn check(&self, tenant: &TenantId, channel: Uuid) -> Inner<()> {
        let Some(found) = self.found.get(&channel).filter(|found| found.tenant == tenant.as_str()) else {
            return Err(Trouble::NotFound(ending::no_channel(channel)));
        };
        match &found.disabled {
            Some(why) => Err(Trouble::Conflict(ending::disabled_channel(channel, why))),
            None if found.pending >= self.pending_max => {
                Err(Trouble::Limit(CHANNEL_PENDING, ending::full_channel(channel, self.pending_max)))
            }
            None => Ok(()),
        }
    }
}

pub(super) async fn create(store: &PostgresStore, deliveries: Vec<NewDelivery>) -> Inner<Vec<Delivery>> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let answer = check_and_insert(&mut write, deliveries, store.pending_max).await;
    write.end(answer).await
}

async fn check_and_insert(
    write: &mut Write<'_>,
    deliveries: Vec<NewDelivery>,
    pending_max: u32,
) -> Inner<Vec<Delivery>> {
    let wanted = deliveries.iter().map(|delivery| delivery.channel);
    let mut channels = Channels::lock(write, wanted, pending_max).await?;
    for delivery in &deliveries {
        channels.check_all(std::iter::once(delivery))?;
    }
    insert(write, deliveries).await
}

/// Inserts deliveries that were checked in the same transaction. Answers in their order.
pub(super) async fn insert(write: &mut Write<'_>, new: Vec<NewDelivery>) -> Inner<Vec<Delivery>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let order: Vec<Uuid> = new.iter().map(|delivery| delivery.id).collect();
    let insert = sqlx::query(INSERT)
        .bind(order.clone())
        .bind(new.iter().map(|delivery| delivery.tenant.to_string()).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.channel).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.job).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.data.to_string()).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.context.traceparent()).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.context.origin()).collect::<Vec<_>>())
        .bind(
            new.iter()
                .map(|delivery| delivery.context.request_id().map(|id| RequestId::as_str(id).to_owned()))
                .collect::<Vec<_>>(),
        )
        .bind(new.iter().map(|delivery| delivery.text.clone().map(clean)).collect::<Vec<_>>())
        .bind(new.iter().map(|delivery| delivery.attempts_max.map(i64::from)).collect::<Vec<_>>());
    let mut kept = HashMap::with_capacity(order.len());
    for row in write.all(insert).await? {
        let delivery = rows::delivery(&row)?;
        kept.insert(delivery.id, delivery);
    }
    let absent = |id: &Uuid| Trouble::Corrupt(format!("the delivery {id} was not kept"));
    order.iter().map(|id| kept.remove(id).ok_or_else(|| absent(id))).collect()
}

pub(super) async fn claim(store: &PostgresStore, claim: ClaimDeliveries) -> Inner<ClaimedDeliveries> {
    let mut session = store.session().await?;
    let statement = sqlx::query(CLAIM)
        .bind(claim.owner)
        .bind(span(claim.lease_ms))
        .bind(claim.channel)
        .bind(i64::from(claim.limit));
    let mut claimed = ClaimedDeliveries::default();
    for row in session.all(statement).await? {
        claimed.next_due_in_ms = rows::until(row.integer_or_none("next_ms")?, row.number("now_ms")?);
        let Some(id) = row.id_or_none("id")? else { break };
        match rows::delivery(&row) {
            Ok(delivery) => claimed.deliveries.push(delivery),
            // A row that cannot be read must not stop all others, claim after claim.
            Err(Trouble::Corrupt(what)) => {
                tracing::error!(%id, what, "a delivery cannot be read, it is dead");
                let bury = sqlx::query(BURY).bind(id).bind(row.number::<i64>("attempt")?);
                session.execute(bury.bind(clean(ending::unreadable(&what)))).await?;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(claimed)
}

pub(super) async fn get(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Delivery>> {
    let select =
        sqlx::query(concat!("SELECT ", columns::delivery!(), " FROM deliveries WHERE id = $1 AND tenant = $2"))
            .bind(id)
            .bind(tenant.as_str());
    store.session().await?.optional(select).await?.map(|row| rows::delivery(&row)).transpose()
}

pub(super) async fn list(
    store: &PostgresStore,
    tenant: &TenantId,
    channel: Uuid,
    state: Option<DeliveryState>,
    page: Before,
) -> Inner<Vec<Delivery>> {
    let select = sqlx::query(if state.is_some() { LIST_IN_STATE } else { LIST });
    let bound = select.bind(channel).bind(tenant.as_str()).bind(rows::before(page)).bind(i64::from(page.limit));
    let bound = if let Some(state) = state { bound.bind(state.as_str()) } else { bound };
    store.session().await?.all(bound).await?.iter().map(rows::delivery).collect()
}

pub(super) async fn redeliver(store: &PostgresStore, tenant: &TenantId, channel: Uuid, id: Uuid) -> Inner<Delivery> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let answer = revive(&mut write, tenant, channel, id, store.pending_max).await;
    write.end(answer).await
}

async fn revive(
    write: &mut Write<'_>,
    tenant: &TenantId,
    channel: Uuid,
    id: Uuid,
    pending_max: u32,
) -> Inner<Delivery> {
    let channels = Channels::lock(write, std::iter::once(channel), pending_max).await?;
    let select =
        sqlx::query("SELECT state FROM deliveries WHERE id = $1 AND tenant = $2 AND channel_id = $3 FOR UPDATE");
    let Some(row) = write.optional(select.bind(id).bind(tenant.as_str()).bind(channel)).await? else {
        return Err(Trouble::NotFound(format!("the channel has no delivery {id}")));
    };
    channels.check(tenant, channel)?;
    let Some(redelivered) = write.optional(sqlx::query(REDELIVER).bind(id)).await? else {
        return Err(Trouble::Conflict(ending::not_dead(id, row.text("state")?)));
    };
    rows::delivery(&redelivered)
}

pub(super) async fn prune(store: &PostgresStore, prune: Prune) -> Inner<u64> {
    let mut session = store.session().await?;
    let limit = i64::from(prune.limit);
    let old = sqlx::query(PRUNE_OLD).bind(rows::signed(prune.older_than_ms)).bind(limit);
    let mut deleted = rows::signed(session.execute(old).await?);
    let above = sqlx::query(ABOVE).bind(rows::signed(prune.keep_max)).bind(limit);
    for row in session.all(above).await? {
        let most = row.number::<i64>("above")?.min(limit - deleted);
        if most <= 0 {
            break;
        }
        let gone = session.execute(sqlx::query(PRUNE_ABOVE).bind(row.id("channel_id")?).bind(most)).await?;
        deleted = deleted.saturating_add(rows::signed(gone));
    }
    Ok(deleted.unsigned_abs())
}
