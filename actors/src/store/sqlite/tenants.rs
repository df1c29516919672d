//! Tenants: the hashes of their keys, their limits, and what changed.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Inner, SqliteStore, Write};
use crate::model::TenantId;
use crate::store::error::Trouble;
use crate::store::rows::tenant_row as tenant;
use crate::store::{KeyHash, Quotas, Tenant, ending};

const NEXT_VERSION: &str = "SELECT coalesce(max(version), 0) + 1 FROM tenants";

const ROTATE: &str = "UPDATE tenants SET key_hash = ?3, version = ?2, key_version = ?2 WHERE id = ?1 RETURNING *";

const DISABLE: &str = "
    UPDATE tenants SET disabled_at_ms = ?3, version = ?2 WHERE id = ?1 AND disabled_at_ms IS NULL RETURNING *";

const ENABLE: &str = "
    UPDATE tenants SET disabled_at_ms = NULL, version = ?2 WHERE id = ?1 AND disabled_at_ms IS NOT NULL RETURNING *";

const SET_QUOTAS: &str = "
    UPDATE tenants SET requests_per_s = ?3, requests_burst = ?4, requests_at_once = ?5, sockets = ?6,
                       subscriptions = ?7, job_weight = ?8, jobs_running = ?9, jobs_queued = ?10,
                       job_starts_per_s = ?11, version = ?2
    WHERE id = ?1 RETURNING *";

pub(super) async fn create(store: &SqliteStore, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let mut write = store.write().await?;
    let same = sqlx::query("SELECT * FROM tenants WHERE id = ?1 OR key_hash = ?2");
    let found = same.bind(id.as_str()).bind(key.as_str()).fetch_all(&mut *write).await?;
    if let Some(row) = found.first() {
        let known: (&str, &str) = (row.try_get("id")?, row.try_get("key_hash")?);
        if known == (id.as_str(), key.as_str()) {
            return write.end(tenant(row)).await;
        }
        // Which of the two collides is told, but never whose key it is.
        return Err(Trouble::Conflict(match known.0 == id.as_str() {
            true => ending::same_name(id),
            false => ending::same_key(id),
        }));
    }
    let insert = sqlx::query("INSERT INTO tenants (id, key_hash, created_at_ms) VALUES (?1, ?2, ?3) RETURNING *");
    let row = insert.bind(id.as_str()).bind(key.as_str()).bind(store.now()).fetch_one(&mut *write).await?;
    write.commit().await?;
    tenant(&row)
}

pub(super) async fn by_key_hash(store: &SqliteStore, key: &KeyHash) -> Inner<Option<Tenant>> {
    let select = sqlx::query("SELECT * FROM tenants WHERE key_hash = ?1");
    let row = select.bind(key.as_str()).fetch_optional(&store.readers()?).await?;
    row.map(|row| tenant(&row)).transpose()
}

pub(super) async fn get(store: &SqliteStore, id: &TenantId) -> Inner<Option<Tenant>> {
    let select = sqlx::query("SELECT * FROM tenants WHERE id = ?1").bind(id.as_str());
    select.fetch_optional(&store.readers()?).await?.map(|row| tenant(&row)).transpose()
}

pub(super) async fn list(store: &SqliteStore, after: Option<&TenantId>, limit: u32) -> Inner<Vec<Tenant>> {
    // Every name is longer than the empty one.
    let after = after.map_or("", TenantId::as_str);
    let select = sqlx::query("SELECT * FROM tenants WHERE id > ?1 ORDER BY id LIMIT ?2");
    select.bind(after).bind(limit).fetch_all(&store.readers()?).await?.iter().map(tenant).collect()
}

pub(super) async fn changed(store: &SqliteStore, version: i64, limit: u32) -> Inner<Vec<Tenant>> {
    let select = sqlx::query("SELECT * FROM tenants WHERE version > ?1 ORDER BY version LIMIT ?2");
    select.bind(version).bind(limit).fetch_all(&store.readers()?).await?.iter().map(tenant).collect()
}

pub(super) async fn rotate_key(store: &SqliteStore, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let (mut write, version) = begin(store).await?;
    let taken = sqlx::query("SELECT 1 FROM tenants WHERE key_hash = ?1 AND id <> ?2");
    if taken.bind(key.as_str()).bind(id.as_str()).fetch_optional(&mut *write).await?.is_some() {
        return Err(Trouble::Conflict(ending::same_key(id)));
    }
    let update = sqlx::query(ROTATE).bind(id.as_str()).bind(version).bind(key.as_str());
    let row = update.fetch_optional(&mut *write).await?;
    finish(write, id, row).await
}

pub(super) async fn disable(store: &SqliteStore, id: &TenantId) -> Inner<Tenant> {
    let (mut write, version) = begin(store).await?;
    let update = sqlx::query(DISABLE).bind(id.as_str()).bind(version).bind(store.now());
    let row = update.fetch_optional(&mut *write).await?;
    finish(write, id, row).await
}

pub(super) async fn enable(store: &SqliteStore, id: &TenantId) -> Inner<Tenant> {
    let (mut write, version) = begin(store).await?;
    let row = sqlx::query(ENABLE).bind(id.as_str()).bind(version).fetch_optional(&mut *write).await?;
    finish(write, id, row).await
}

pub(super) async fn set_quotas(store: &SqliteStore, id: &TenantId, quotas: Quotas) -> Inner<Tenant> {
    let (mut write, version) = begin(store).await?;
    let update = sqlx::query(SET_QUOTAS)
        .bind(id.as_str())
        .bind(version)
        .bind(quotas.requests_per_s)
        .bind(quotas.requests_burst)
        .bind(quotas.requests_at_once)
        .bind(quotas.sockets)
        .bind(quotas.subscriptions)
        .bind(quotas.job_weight)
        .bind(quotas.jobs_running)
        .bind(quotas.jobs_queued)
        .bind(quotas.job_starts_per_s);
    let row = update.fetch_optional(&mut *write).await?;
    finish(write, id, row).await
}

/// The file is locked, so no other change can take the same number.
async fn begin(store: &SqliteStore) -> Inner<(Write, i64)> {
    let mut write = store.write().await?;
    let version = sqlx::query_scalar(NEXT_VERSION).fetch_one(&mut *write).await?;
    Ok((write, version))
}

/// Answers with the row that was changed, or with the one that was so already.
async fn finish(mut write: Write, id: &TenantId, changed: Option<SqliteRow>) -> Inner<Tenant> {
    let row = match changed {
        Some(row) => Some(row),
        None => {
            sqlx::query("SELECT * FROM tenants WHERE id = ?1").bind(id.as_str()).fetch_optional(&mut *write).await?
        }
    };
    write.commit().await?;
    tenant(&row.ok_or_else(|| Trouble::NotFound(ending::no_tenant(id)))?)
}
