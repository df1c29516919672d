//! Channels: keeping them, finding those with something to send, disabling them.

use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{Inner, SqliteStore, rows};
use crate::model::{Millis, TenantId};
use crate::store::{Channel, DueChannels, NewChannel};

const INSERT: &str = "
    INSERT INTO channels (id, tenant, kind, url, secret, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING *";

const DUE: &str = "
    SELECT channels.* FROM channels
    JOIN (SELECT channel_id, min(due_at_ms) AS due FROM deliveries
          WHERE state IN ('pending', 'sending') AND due_at_ms <= ?1
          GROUP BY channel_id ORDER BY due LIMIT ?2) AS waiting ON waiting.channel_id = channels.id
    WHERE channels.disabled IS NULL
    ORDER BY waiting.due";

const NEXT: &str = "SELECT min(due_at_ms) FROM deliveries WHERE state IN ('pending', 'sending') AND due_at_ms > ?1";

const KILL: &str = "
    UPDATE deliveries SET state = 'dead', finished_at_ms = ?2, last_error = ?3, owner = NULL
    WHERE channel_id = ?1 AND state IN ('pending', 'sending')";

pub(super) async fn create(store: &SqliteStore, channel: NewChannel) -> Inner<Channel> {
    let row = sqlx::query(INSERT)
        .bind(channel.id.to_string())
        .bind(channel.tenant.as_str())
        .bind(channel.kind)
        .bind(channel.url)
        .bind(channel.secret.expose_secret())
        .bind(store.now())
        .fetch_one(&store.writer()?)
        .await?;
    rows::channel(&row)
}

pub(super) async fn get(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Channel>> {
    let select = sqlx::query("SELECT * FROM channels WHERE id = ?1 AND tenant = ?2");
    let row = select.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| rows::channel(&row)).transpose()
}

pub(super) async fn list(store: &SqliteStore, tenant: &TenantId, limit: u32) -> Inner<Vec<Channel>> {
    let select = sqlx::query("SELECT * FROM channels WHERE tenant = ?1 ORDER BY id DESC LIMIT ?2");
    let found = select.bind(tenant.as_str()).bind(limit).fetch_all(&store.readers()?).await?;
    found.iter().map(rows::channel).collect()
}

pub(super) async fn due(store: &SqliteStore, limit: u32) -> Inner<DueChannels> {
    let now = store.now();
    let found = sqlx::query(DUE).bind(now).bind(limit).fetch_all(&store.readers()?).await?;
    let channels = found.iter().map(rows::channel).collect::<Inner<Vec<Channel>>>()?;
    let next: Option<Millis> = sqlx::query_scalar(NEXT).bind(now).fetch_one(&store.readers()?).await?;
    Ok(DueChannels { channels, next_due_in_ms: rows::until(next, now) })
}

pub(super) async fn disable(store: &SqliteStore, id: Uuid, reason: &str) -> Inner<bool> {
    let id = id.to_string();
    let mut write = store.write().await?;
    let update = sqlx::query("UPDATE channels SET disabled = ?2 WHERE id = ?1 AND disabled IS NULL");
    let disabled = update.bind(&id).bind(reason).execute(&mut *write).await?.rows_affected() > 0;
    if disabled {
        let told = format!("the channel is disabled: {reason}");
        sqlx::query(KILL).bind(&id).bind(store.now()).bind(told).execute(&mut *write).await?;
    }
    write.commit().await?;
    Ok(disabled)
}
