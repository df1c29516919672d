//! Channels: keeping them, finding those with something to send, disabling them.
//!
//! Whoever writes to a channel and to its deliveries locks the channel first, so that no two wait for each other; and who
//! adds deliveries holds it as it is (`FOR SHARE`), so that none is added to a channel that is being disabled.

use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{PostgresStore, Run, Session, Write, clean, columns};
use crate::model::TenantId;
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{Before, Channel, DueChannels, NewChannel, ending};

const INSERT: &str = concat!(
    "
    INSERT INTO channels (id, tenant, kind, url, secret, created_at_ms, chat)
    VALUES ($1, $2, $3, $4, $5, now_ms(), $6)
    RETURNING ",
    columns::channel!()
);

const LIST: &str =
    concat!("SELECT ", columns::channel!(), " FROM channels WHERE tenant = $1 AND id < $3 ORDER BY id DESC LIMIT $2");

// A walk that jumps over the index from one channel to the next: its cost follows the number of channels that have
// something to send at any time, never the number of deliveries.
const DUE: &str = concat!(
    "
    WITH RECURSIVE clock AS MATERIALIZED (SELECT now_ms() AS now), waiting (channel_id) AS (
        (SELECT channel_id FROM deliveries WHERE state IN ('pending', 'sending') ORDER BY channel_id LIMIT 1)
        UNION ALL
        SELECT next.channel_id FROM waiting CROSS JOIN LATERAL (
            SELECT channel_id FROM deliveries
            WHERE state IN ('pending', 'sending') AND channel_id > waiting.channel_id
            ORDER BY channel_id LIMIT 1) AS next
    ), due (channel_id, since) AS MATERIALIZED (
        SELECT channel_id, (SELECT due_at_ms FROM deliveries
                            WHERE state IN ('pending', 'sending') AND deliveries.channel_id = waiting.channel_id
                            ORDER BY due_at_ms LIMIT 1)
        FROM waiting
    ), ranked (channel_id, since, place) AS (
        SELECT channel_id, since, row_number() OVER (PARTITION BY channels.tenant ORDER BY since, channel_id)
        FROM clock, due JOIN channels ON channels.id = due.channel_id
        WHERE since <= now AND channels.disabled IS NULL AND coalesce(channels.not_before_ms, 0) <= now
              AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = channels.tenant AND disabled_at_ms IS NOT NULL)
    )
    SELECT ",
    columns::channel!(),
    " FROM ranked JOIN channels ON channels.id = ranked.channel_id
    WHERE place <= $2
    ORDER BY place, since, channels.id LIMIT $1"
);

// A channel that must wait may have nothing to send by then: one look too many, and no harm.
const NEXT: &str = "
    WITH clock AS MATERIALIZED (SELECT now_ms() AS now)
    SELECT (SELECT now FROM clock) AS now_ms, least(
        (SELECT due_at_ms FROM deliveries WHERE state IN ('pending', 'sending') AND due_at_ms > (SELECT now FROM clock)
         ORDER BY due_at_ms LIMIT 1),
        (SELECT not_before_ms FROM channels WHERE not_before_ms IS NOT NULL AND not_before_ms > (SELECT now FROM clock)
         ORDER BY not_before_ms LIMIT 1)) AS next_ms";

const ENABLE: &str = "
    UPDATE channels SET disabled = NULL, not_before_ms = NULL, failing_since_ms = NULL, refusals = 0
    WHERE id = $1 AND tenant = $2";

const MARK_DELETED: &str =
    "UPDATE channels SET disabled = coalesce(disabled, 'it is being deleted') WHERE id = $1 AND tenant = $2";

// Whoever adds a delivery waits for the mark, and then finds the channel disabled: the last slice is the last.
const DELETE_SLICE: &str = "
    DELETE FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM deliveries WHERE channel_id = $1 ORDER BY id LIMIT $2))";

/// Deliveries that are deleted, or buried, in one transaction.
const SLICE: i64 = 500;

const BURY_SLICE: &str = "
    UPDATE deliveries SET state = 'dead', finished_at_ms = now_ms(), owner = NULL,
                          last_error = 'the channel is disabled: ' || (SELECT disabled FROM channels WHERE id = $1)
    WHERE id = ANY (ARRAY(SELECT id FROM deliveries WHERE channel_id = $1 AND state IN ('pending', 'sending')
                          ORDER BY id LIMIT $2 FOR UPDATE))";

// The same walk as for due channels.
const LEFT_BEHIND: &str = "
    WITH RECURSIVE waiting (channel_id) AS (
        (SELECT channel_id FROM deliveries WHERE state IN ('pending', 'sending') ORDER BY channel_id LIMIT 1)
        UNION ALL
        SELECT next.channel_id FROM waiting CROSS JOIN LATERAL (
            SELECT channel_id FROM deliveries
            WHERE state IN ('pending', 'sending') AND channel_id > waiting.channel_id
            ORDER BY channel_id LIMIT 1) AS next
    )
    SELECT channel_id FROM waiting JOIN channels ON channels.id = waiting.channel_id
    WHERE channels.disabled IS NOT NULL LIMIT 1";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[DUE, NEXT, DELETE_SLICE, BURY_SLICE, LEFT_BEHIND];

pub(super) async fn create(store: &PostgresStore, channel: NewChannel) -> Inner<Channel> {
    let insert = sqlx::query(INSERT)
        .bind(channel.id)
        .bind(channel.tenant.as_str())
        .bind(clean(channel.kind))
        .bind(clean(channel.url))
        .bind(channel.secret.expose_secret())
        .bind(channel.chat.map(clean));
    rows::channel(&store.session().await?.one(insert).await?)
}

pub(super) async fn get(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Channel>> {
    let select = sqlx::query(concat!("SELECT ", columns::channel!(), " FROM channels WHERE id = $1 AND tenant = $2"))
        .bind(id)
        .bind(tenant.as_str());
    store.session().await?.optional(select).await?.map(|row| rows::channel(&row)).transpose()
}

pub(super) async fn list(store: &PostgresStore, tenant: &TenantId, page: Before) -> Inner<Vec<Channel>> {
    let select = sqlx::query(LIST).bind(tenant.as_str()).bind(i64::from(page.limit)).bind(rows::before(page));
    store.session().await?.all(select).await?.iter().map(rows::channel).collect()
}

pub(super) async fn due(store: &PostgresStore, limit: u32, per_tenant: u32) -> Inner<DueChannels> {
    let mut session = store.session().await?;
    let found = session.all(sqlx::query(DUE).bind(i64::from(limit)).bind(i64::from(per_tenant))).await?;
    let mut channels = Vec::with_capacity(found.len());
    for row in &found {
        match rows::channel(row) {
            Ok(channel) => channels.push(channel),
            // A row that cannot be read must not stop all others, look after look.
            Err(Trouble::Corrupt(what)) => {
                let id = row.id("id")?;
                tracing::error!(%id, what, "a channel cannot be read, it is disabled");
                let mut write = session.begin().await?;
                stop(&mut write, id, &ending::unreadable(&what)).await?;
                write.commit().await?;
            }
            Err(other) => return Err(other),
        }
    }
    let next = session.one(sqlx::query(NEXT)).await?;
    let next_due_in_ms = rows::until(next.integer_or_none("next_ms")?, next.number("now_ms")?);
    Ok(DueChannels { channels, next_due_in_ms })
}

/// The rest is buried in transactions of their own, so that none is long.
pub(super) async fn disable(store: &PostgresStore, id: Uuid, reason: &str) -> Inner<bool> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let disabled = stop(&mut write, id, reason).await?;
    write.commit().await?;
    while !bury_slice_of(&mut session, id, SLICE).await?.is_last {}
    Ok(disabled)
}

/// What is left to bury is buried first, in slices, with the last of which the channel is enabled.
pub(super) async fn enable(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let mut session = store.session().await?;
    loop {
        let mut write = session.begin().await?;
        let own = sqlx::query("SELECT 1 FROM channels WHERE id = $1 AND tenant = $2 FOR NO KEY UPDATE");
        if write.optional(own.bind(id).bind(tenant.as_str())).await?.is_none() {
            return write.end(Ok(false)).await;
        }
        let slice = bury_slice(&mut write, id, SLICE).await?;
        if slice.is_last {
            write.execute(sqlx::query(ENABLE).bind(id).bind(tenant.as_str())).await?;
        }
        write.commit().await?;
        if slice.is_last {
            return Ok(true);
        }
    }
}

pub(super) async fn bury(store: &PostgresStore, limit: u32) -> Inner<u64> {
    let mut session = store.session().await?;
    let Some(row) = session.optional(sqlx::query(LEFT_BEHIND)).await? else { return Ok(0) };
    Ok(bury_slice_of(&mut session, row.id("channel_id")?, i64::from(limit)).await?.buried)
}

/// What one transaction buried of a channel.
struct Slice {
    buried: u64,
    /// Whether nothing is left.
    is_last: bool,
}

async fn bury_slice_of(session: &mut Session, id: Uuid, limit: i64) -> Inner<Slice> {
    let mut write = session.begin().await?;
    let slice = bury_slice(&mut write, id, limit).await;
    write.end(slice).await
}

/// Nothing, if the channel has been enabled meanwhile.
async fn bury_slice(write: &mut Write<'_>, id: Uuid, limit: i64) -> Inner<Slice> {
    let lock = sqlx::query("SELECT 1 FROM channels WHERE id = $1 AND disabled IS NOT NULL FOR NO KEY UPDATE");
    if write.optional(lock.bind(id)).await?.is_none() {
        return Ok(Slice { buried: 0, is_last: true });
    }
    let buried = write.execute(sqlx::query(BURY_SLICE).bind(id).bind(limit)).await?;
    Ok(Slice { buried, is_last: buried < limit.unsigned_abs() })
}

/// In slices, so that no transaction is long and every try gets on. Meanwhile the channel is disabled.
pub(super) async fn delete(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let mut session = store.session().await?;
    loop {
        let mut write = session.begin().await?;
        if write.execute(sqlx::query(MARK_DELETED).bind(id).bind(tenant.as_str())).await? == 0 {
            return write.end(Ok(false)).await;
        }
        let slice = write.execute(sqlx::query(DELETE_SLICE).bind(id).bind(SLICE)).await?;
        let is_last = slice < SLICE.unsigned_abs();
        if is_last {
            write.execute(sqlx::query("DELETE FROM channels WHERE id = $1").bind(id)).await?;
        }
        write.commit().await?;
        if is_last {
            return Ok(true);
        }
    }
}

/// Disables a channel and buries the first slice of what it had to send. Answers whether it was enabled before. Two
/// statements: the second must see what was added until the first had its lock.
pub(super) async fn stop(write: &mut Write<'_>, id: Uuid, reason: &str) -> Inner<bool> {
    let update = sqlx::query("UPDATE channels SET disabled = $2 WHERE id = $1 AND disabled IS NULL");
    let disabled = write.execute(update.bind(id).bind(clean(reason))).await? > 0;
    if disabled {
        bury_slice(write, id, SLICE).await?;
    }
    Ok(disabled)
}
