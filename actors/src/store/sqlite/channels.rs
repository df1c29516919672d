//! Channels: keeping them, finding those with something to send, disabling them.

use secrecy::ExposeSecret;
use sqlx::Row;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, rows};
use crate::model::{Millis, TenantId};
use crate::store::error::Trouble;
use crate::store::{Before, Channel, DueChannels, NewChannel, ending};

const INSERT: &str = "
    INSERT INTO channels (id, tenant, kind, url, secret, created_at_ms, chat) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    RETURNING *";

const LIST: &str = "SELECT * FROM channels WHERE tenant = ?1 AND id < ?3 ORDER BY id DESC LIMIT ?2";

// A walk that jumps over the index from one channel to the next: its cost follows the number of channels that have
// something to send at any time, never the number of deliveries.
const DUE: &str = "
    WITH RECURSIVE waiting (channel_id) AS (
        SELECT min(channel_id) FROM deliveries WHERE state IN ('pending', 'sending')
        UNION ALL
        SELECT (SELECT min(channel_id) FROM deliveries
                WHERE state IN ('pending', 'sending') AND channel_id > waiting.channel_id)
        FROM waiting WHERE waiting.channel_id IS NOT NULL
    ), due (channel_id, since) AS (
        SELECT channel_id, (SELECT min(due_at_ms) FROM deliveries
                            WHERE state IN ('pending', 'sending') AND channel_id = waiting.channel_id)
        FROM waiting WHERE channel_id IS NOT NULL
    ), ranked (channel_id, since, place) AS (
        SELECT channel_id, since, row_number() OVER (PARTITION BY channels.tenant ORDER BY since, channel_id)
        FROM due CROSS JOIN channels ON channels.id = due.channel_id
        WHERE since <= ?1 AND channels.disabled IS NULL AND coalesce(channels.not_before_ms, 0) <= ?1
              AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = channels.tenant
                                                          AND tenants.disabled_at_ms IS NOT NULL)
    )
    SELECT channels.* FROM ranked JOIN channels ON channels.id = ranked.channel_id
    WHERE place <= ?3
    ORDER BY place, since, channels.id LIMIT ?2";

// A channel that must wait may have nothing to send by then: one look too many, and no harm.
const NEXT: &str = "
    SELECT min(next) FROM (
        SELECT min(due_at_ms) AS next FROM deliveries WHERE state IN ('pending', 'sending') AND due_at_ms > ?1
        UNION ALL SELECT min(not_before_ms) FROM channels WHERE not_before_ms IS NOT NULL AND not_before_ms > ?1)";

const ENABLE: &str = "
    UPDATE channels SET disabled = NULL, not_before_ms = NULL, failing_since_ms = NULL, refusals = 0
    WHERE id = ?1";

const MARK_DELETED: &str =
    "UPDATE channels SET disabled = coalesce(disabled, 'it is being deleted') WHERE id = ?1 AND tenant = ?2";

const DELETE_SLICE: &str =
    "DELETE FROM deliveries WHERE rowid IN (SELECT rowid FROM deliveries WHERE channel_id = ?1 LIMIT ?2)";

/// Deliveries that are deleted, or buried, in one transaction.
const SLICE: u32 = 500;

const BURY_SLICE: &str = "
    UPDATE deliveries SET state = 'dead', finished_at_ms = ?2, owner = NULL,
                          last_error = 'the channel is disabled: ' || (SELECT disabled FROM channels WHERE id = ?1)
    WHERE rowid IN (SELECT rowid FROM deliveries
                    WHERE channel_id = (SELECT id FROM channels WHERE id = ?1 AND disabled IS NOT NULL)
                          AND state IN ('pending', 'sending') LIMIT ?3)";

// The same walk as for due channels.
const LEFT_BEHIND: &str = "
    WITH RECURSIVE waiting (channel_id) AS (
        SELECT min(channel_id) FROM deliveries WHERE state IN ('pending', 'sending')
        UNION ALL
        SELECT (SELECT min(channel_id) FROM deliveries
                WHERE state IN ('pending', 'sending') AND channel_id > waiting.channel_id)
        FROM waiting WHERE waiting.channel_id IS NOT NULL
    )
    SELECT channel_id FROM waiting CROSS JOIN channels ON channels.id = waiting.channel_id
    WHERE channels.disabled IS NOT NULL LIMIT 1";

pub(super) async fn create(store: &SqliteStore, channel: NewChannel) -> Inner<Channel> {
    let mut write = store.write().await?;
    let row = sqlx::query(INSERT)
        .bind(channel.id.to_string())
        .bind(channel.tenant.as_str())
        .bind(channel.kind)
        .bind(channel.url)
        .bind(channel.secret.expose_secret())
        .bind(store.now())
        .bind(channel.chat)
        .fetch_one(&mut *write)
        .await?;
    write.commit().await?;
    rows::channel(&row)
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Channel>> {
    let select = sqlx::query("SELECT * FROM channels WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::channel(&row)).transpose()
}

pub(super) async fn list(store: &SqliteStore, tenant: &TenantId, page: Before) -> Inner<Vec<Channel>> {
    let bound = sqlx::query(LIST).bind(tenant.as_str()).bind(page.limit).bind(rows::before(page).to_string());
    let found = bound.fetch_all(&store.readers()?).await?;
    found.iter().map(rows::channel).collect()
}

pub(super) async fn due(store: &SqliteStore, limit: u32, per_tenant: u32) -> Inner<DueChannels> {
    let now = store.now();
    let found = sqlx::query(DUE).bind(now).bind(limit).bind(per_tenant).fetch_all(&store.readers()?).await?;
    let mut channels = Vec::with_capacity(found.len());
    for row in &found {
        match rows::channel(row) {
            Ok(channel) => channels.push(channel),
            // A row that cannot be read must not stop all others, look after look.
            Err(Trouble::Corrupt(what)) => {
                let id: &str = row.try_get("id")?;
                tracing::error!(id, what, "a channel cannot be read, it is disabled");
                stop(store, id, &ending::unreadable(&what)).await?;
            }
            Err(other) => return Err(other),
        }
    }
    let next: Option<Millis> = sqlx::query_scalar(NEXT).bind(now).fetch_one(&store.readers()?).await?;
    Ok(DueChannels { channels, next_due_in_ms: rows::until(next, now) })
}

/// The rest is buried in transactions of their own, so that a long line keeps nobody from writing.
pub(super) async fn disable(store: &SqliteStore, id: Uuid, reason: &str) -> Inner<bool> {
    let id = id.to_string();
    let disabled = stop(store, &id, reason).await?;
    let mut write = store.write_alone().await?;
    while !bury_slice(&mut write, &id, SLICE, store.now()).await?.is_last {
        write.commit().await?;
        write = store.write_alone().await?;
    }
    write.commit().await?;
    Ok(disabled)
}

/// What is left to bury is buried first, in slices, with the last of which the channel is enabled.
pub(super) async fn enable(store: &SqliteStore, tenant: &TenantId, channel: Uuid) -> Inner<bool> {
    let id = channel.to_string();
    loop {
        let mut write = store.write_alone().await?;
        let own = sqlx::query("SELECT 1 FROM channels WHERE id = ?1 AND tenant = ?2").bind(&id).bind(tenant.as_str());
        if own.fetch_optional(&mut *write).await?.is_none() {
            return Ok(false);
        }
        let slice = bury_slice(&mut write, &id, SLICE, store.now()).await?;
        if slice.is_last {
            sqlx::query(ENABLE).bind(&id).execute(&mut *write).await?;
        }
        write.commit().await?;
        if slice.is_last {
            return Ok(true);
        }
    }
}

pub(super) async fn bury(store: &SqliteStore, limit: u32) -> Inner<u64> {
    let found: Option<String> = sqlx::query_scalar(LEFT_BEHIND).fetch_optional(&store.readers()?).await?;
    let Some(id) = found else { return Ok(0) };
    let mut write = store.write_alone().await?;
    let slice = bury_slice(&mut write, &id, limit, store.now()).await?;
    write.commit().await?;
    Ok(slice.buried)
}

/// What one transaction buried of a channel.
struct Slice {
    buried: u64,
    /// Whether nothing is left.
    is_last: bool,
}

/// Nothing, if the channel has been enabled meanwhile.
async fn bury_slice(write: &mut Write, id: &str, limit: u32, now: Millis) -> Inner<Slice> {
    let bury = sqlx::query(BURY_SLICE).bind(id).bind(now).bind(limit);
    let buried = bury.execute(&mut **write).await?.rows_affected();
    Ok(Slice { buried, is_last: buried < u64::from(limit) })
}

/// In slices, so that a long history keeps nobody from writing and every try gets on. Meanwhile the channel is disabled.
pub(super) async fn delete(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<bool> {
    let id = id.to_string();
    loop {
        let mut write = store.write_alone().await?;
        let mark = sqlx::query(MARK_DELETED).bind(&id).bind(tenant.as_str());
        if mark.execute(&mut *write).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let slice = sqlx::query(DELETE_SLICE).bind(&id).bind(SLICE).execute(&mut *write).await?.rows_affected();
        let is_last = slice < u64::from(SLICE);
        if is_last {
            sqlx::query("DELETE FROM channels WHERE id = ?1").bind(&id).execute(&mut *write).await?;
        }
        write.commit().await?;
        if is_last {
            return Ok(true);
        }
    }
}

async fn stop(store: &SqliteStore, id: &str, reason: &str) -> Inner<bool> {
    let mut write = store.write_alone().await?;
    let disabled = stop_within(&mut write, id, reason, store.now()).await?;
    write.commit().await?;
    Ok(disabled)
}

/// Disables a channel and buries the first slice of what it had to send. Answers whether it was enabled before.
pub(super) async fn stop_within(write: &mut Write, id: &str, reason: &str, now: Millis) -> Inner<bool> {
    let update = sqlx::query("UPDATE channels SET disabled = ?2 WHERE id = ?1 AND disabled IS NULL");
    let disabled = update.bind(id).bind(reason).execute(&mut **write).await?.rows_affected() > 0;
    if disabled {
        bury_slice(write, id, SLICE, now).await?;
    }
    Ok(disabled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::store::contract::{Fixture, channels::webhook};
    use crate::store::sqlite::tests::{execute, fixture_in, open_in, plan};
    use crate::store::{Channel, ClaimDeliveries, DeliveryState, NewDelivery, SqliteOptions, SqliteStore, Store};

    #[tokio::test]
    async fn a_channel_that_cannot_be_read_is_disabled_and_stops_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let fixture: Fixture = fixture_in(&store);
        let (bad, good) = (webhook(&fixture, "demo").await, webhook(&fixture, "demo").await);
        for channel in [&bad, &good] {
            store.create_delivery(NewDelivery::new(channel.tenant.clone(), channel.id, json!(1))).await.unwrap();
        }
        let damage = sqlx::query("UPDATE channels SET tenant = 'NO TENANT' WHERE id = ?1").bind(bad.id.to_string());
        execute(&store, damage).await;
        let due = store.due_channels(9, 9).await.unwrap().channels;
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [good.id]);
        let why = sqlx::query_scalar("SELECT disabled FROM channels WHERE id = ?1").bind(bad.id.to_string());
        let why: String = why.fetch_one(&store.readers().ok().unwrap()).await.unwrap();
        assert!(why.starts_with("it cannot be read: "), "{why}");
    }

    #[tokio::test]
    async fn a_delivery_that_cannot_be_read_is_dead_and_stops_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let channel = webhook(&fixture_in(&store), "demo").await;
        let new = || NewDelivery::new(channel.tenant.clone(), channel.id, json!(1));
        let (bad, good) = (store.create_delivery(new()).await.unwrap(), store.create_delivery(new()).await.unwrap());
        let damage = sqlx::query("UPDATE deliveries SET job_id = 'no id' WHERE id = ?1").bind(bad.id.to_string());
        execute(&store, damage).await;
        let claim = ClaimDeliveries { channel: channel.id, owner: crate::model::new_id(), lease_ms: 45_000, limit: 10 };
        let claimed = store.claim_deliveries(claim).await.unwrap().deliveries;
        assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [good.id]);
        let row = sqlx::query_as("SELECT state, last_error FROM deliveries WHERE id = ?1").bind(bad.id.to_string());
        let (state, why): (String, String) = row.fetch_one(&store.readers().ok().unwrap()).await.unwrap();
        assert_eq!(state, DeliveryState::Dead.as_str());
        assert!(why.starts_with("it cannot be read: not an id"), "{why}");
    }

    #[tokio::test]
    async fn due_channels_are_found_by_a_walk_over_indexes_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let steps = plan(&store, super::DUE).await;
        let bad = |step: &&String| step.starts_with("SCAN deliveries") || step.starts_with("SCAN channels");
        assert_eq!(steps.iter().filter(bad).count(), 0, "{steps:#?}");
        let page = "SEARCH channels USING INDEX channels_tenant (tenant=? AND id<?)";
        assert_eq!(plan(&store, super::LIST).await, [page], "a page is found by its place");
    }

    #[tokio::test]
    async fn a_channel_is_disabled_at_once_however_long_its_line_is() {
        let directory = tempfile::tempdir().unwrap();
        let (store, channel) = hurried_with(&directory, "pending", 40_000).await;
        match store.disable_channel(channel.id, "410").await {
            Ok(disabled) => assert!(disabled),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        let kept = store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap();
        assert_eq!(kept.disabled.as_deref(), Some("410"));
        for _ in 0..1_000 {
            match store.bury_deliveries(super::SLICE).await {
                Ok(0) => break,
                Ok(_) => {}
                // A slow disk may need more than the 400 ms for a slice now and then.
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        let dead = "SELECT count(*) FROM deliveries WHERE state = 'dead'
                    AND last_error = 'the channel is disabled: 410' AND finished_at_ms IS NOT NULL";
        let dead: i64 = sqlx::query_scalar(dead).fetch_one(&store.readers().ok().unwrap()).await.unwrap();
        assert_eq!(dead, 40_000);
    }

    /// A store whose calls may take 400 ms, and a channel in it with so many deliveries.
    async fn hurried_with(directory: &tempfile::TempDir, state: &str, count: u32) -> (SqliteStore, Channel) {
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        let hurried = SqliteOptions { deadline_ms: 400, ..SqliteOptions::default() };
        let store = SqliteStore::open(&url, hurried).await.unwrap();
        let channel = webhook(&fixture_in(&store), "demo").await;
        let fill = "
            WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < ?4)
            INSERT INTO deliveries (id, tenant, channel_id, data, state, due_at_ms, created_at_ms, finished_at_ms)
            SELECT lower(hex(randomblob(16))), ?2, ?1, '1', ?3, n, n, iif(?3 = 'sent', n, NULL) FROM series";
        let fill = sqlx::query(fill).bind(channel.id.to_string()).bind(channel.tenant.as_str());
        execute(&store, fill.bind(state).bind(count)).await;
        (store, channel)
    }

    #[tokio::test]
    async fn the_deletion_of_a_channel_with_a_long_history_gets_on_with_every_try() {
        let directory = tempfile::tempdir().unwrap();
        let (store, channel) = hurried_with(&directory, "sent", 60_000).await;
        let mut tries = 0;
        while let Err(error) = store.delete_channel(&channel.tenant, channel.id).await {
            tries += 1;
            assert!(error.is_retryable() && tries < 100, "{error}");
            let half = store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap();
            assert_eq!(half.disabled.as_deref(), Some("it is being deleted"));
        }
        assert!(store.get_channel(&channel.tenant, channel.id).await.unwrap().is_none());
        let left = sqlx::query_scalar("SELECT count(*) FROM deliveries");
        let left: i64 = left.fetch_one(&store.readers().ok().unwrap()).await.unwrap();
        assert_eq!(left, 0);
    }
}
