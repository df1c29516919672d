//! Tenants and the hashes of their keys.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Inner, SqliteStore, rows};
use crate::model::TenantId;
use crate::store::error::Trouble;
use crate::store::{KeyHash, Tenant};

pub(super) async fn create(store: &SqliteStore, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let mut write = store.write().await?;
    let same = sqlx::query("SELECT * FROM tenants WHERE id = ?1 OR key_hash = ?2");
    let found = same.bind(id.as_str()).bind(key.as_str()).fetch_all(&mut *write).await?;
    if let Some(row) = found.first() {
        let known: (&str, &str) = (row.try_get("id")?, row.try_get("key_hash")?);
        if known == (id.as_str(), key.as_str()) {
            return tenant(row);
        }
        // Which of the two collides is told, but never whose key it is.
        let what = if known.0 == id.as_str() { "has another key" } else { "would have the key of another tenant" };
        return Err(Trouble::Conflict(format!("the tenant {id} {what}")));
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

pub(super) async fn list(store: &SqliteStore, limit: u32) -> Inner<Vec<Tenant>> {
    let select = sqlx::query("SELECT * FROM tenants ORDER BY id LIMIT ?1");
    select.bind(limit).fetch_all(&store.readers()?).await?.iter().map(tenant).collect()
}

fn tenant(row: &SqliteRow) -> Inner<Tenant> {
    Ok(Tenant { id: rows::tenant(row.try_get("id")?)?, created_at_ms: row.try_get("created_at_ms")? })
}
