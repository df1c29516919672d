//! Tenants: their keys, their limits, and the feed of their changes.

use sqlx::postgres::PgRow;

use super::session::{Session, Statement};
use super::{PostgresStore, Run, Write, columns};
use crate::model::TenantId;
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{Columns, tenant_row as tenant};
use crate::store::{KeyHash, Quotas, Tenant, ending};

// Changes follow one another: the number of each is seen by nobody before all smaller ones are. Whoever reads does not wait.
const CHANGE: &str = "BEGIN; LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE";

const INSERT: &str = concat!(
    "INSERT INTO tenants (id, key_hash, created_at_ms) VALUES ($1, $2, now_ms()) RETURNING ",
    columns::tenant!()
);

const ROTATE: &str = concat!(
    "
    UPDATE tenants SET key_hash = $3, version = $2, key_version = $2 WHERE id = $1 RETURNING ",
    columns::tenant!()
);

const DISABLE: &str = concat!(
    "
    UPDATE tenants SET disabled_at_ms = now_ms(), version = $2 WHERE id = $1 AND disabled_at_ms IS NULL RETURNING ",
    columns::tenant!()
);

const ENABLE: &str = concat!(
    "
    UPDATE tenants SET disabled_at_ms = NULL, version = $2 WHERE id = $1 AND disabled_at_ms IS NOT NULL RETURNING ",
    columns::tenant!()
);

// What a rate that it had before has it wait for is over.
const SET_QUOTAS: &str = concat!(
    "
    WITH before AS MATERIALIZED (SELECT job_starts_per_s FROM tenants WHERE id = $1), unpaid AS (
        DELETE FROM paces USING before WHERE tenant = $1 AND before.job_starts_per_s IS DISTINCT FROM $11
    )
    UPDATE tenants SET requests_per_s = $3, requests_burst = $4, requests_at_once = $5, sockets = $6,
                       subscriptions = $7, job_weight = $8, jobs_running = $9, jobs_queued = $10,
                       job_starts_per_s = $11, version = $2
    WHERE id = $1 RETURNING ",
    columns::tenant!()
);

pub(super) async fn create(store: &PostgresStore, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let mut session = store.session().await?;
    let mut write = session.begin_with(CHANGE).await?;
    let answer = insert(&mut write, id, key).await;
    write.end(answer).await
}

async fn insert(write: &mut Write<'_>, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let same = sqlx::query(concat!("SELECT ", columns::tenant!(), " FROM tenants WHERE id = $1 OR key_hash = $2"));
    let found = write.all(same.bind(id.as_str()).bind(key.as_str())).await?;
    if let Some(row) = found.first() {
        let known = (row.text("id")?, row.text("key_hash")?);
        if known == (id.as_str(), key.as_str()) {
            return tenant(row);
        }
        // Which of the two collides is told, but never whose key it is.
        return Err(Trouble::Conflict(match known.0 == id.as_str() {
            true => ending::same_name(id),
            false => ending::same_key(id),
        }));
    }
    tenant(&write.one(sqlx::query(INSERT).bind(id.as_str()).bind(key.as_str())).await?)
}

pub(super) async fn by_key_hash(store: &PostgresStore, key: &KeyHash) -> Inner<Option<Tenant>> {
    one(
        store,
        sqlx::query(concat!("SELECT ", columns::tenant!(), " FROM tenants WHERE key_hash = $1")).bind(key.as_str()),
    )
    .await
}

pub(super) async fn get(store: &PostgresStore, id: &TenantId) -> Inner<Option<Tenant>> {
    one(store, sqlx::query(concat!("SELECT ", columns::tenant!(), " FROM tenants WHERE id = $1")).bind(id.as_str()))
        .await
}

async fn one(store: &PostgresStore, select: Statement<'_>) -> Inner<Option<Tenant>> {
    store.session().await?.optional(select).await?.map(|row| tenant(&row)).transpose()
}

pub(super) async fn list(store: &PostgresStore, after: Option<&TenantId>, limit: u32) -> Inner<Vec<Tenant>> {
    // Every name is longer than the empty one.
    let after = after.map_or("", TenantId::as_str);
    let select =
        sqlx::query(concat!("SELECT ", columns::tenant!(), " FROM tenants WHERE id > $1 ORDER BY id LIMIT $2"));
    store.session().await?.all(select.bind(after).bind(i64::from(limit))).await?.iter().map(tenant).collect()
}

pub(super) async fn changed(store: &PostgresStore, version: i64, limit: u32) -> Inner<Vec<Tenant>> {
    let select = sqlx::query(concat!(
        "SELECT ",
        columns::tenant!(),
        " FROM tenants WHERE version > $1 ORDER BY version LIMIT $2"
    ));
    store.session().await?.all(select.bind(version).bind(i64::from(limit))).await?.iter().map(tenant).collect()
}

pub(super) async fn rotate_key(store: &PostgresStore, id: &TenantId, key: &KeyHash) -> Inner<Tenant> {
    let mut session = store.session().await?;
    let (mut write, version) = begin(&mut session).await?;
    let taken = sqlx::query("SELECT 1 FROM tenants WHERE key_hash = $1 AND id <> $2");
    if write.optional(taken.bind(key.as_str()).bind(id.as_str())).await?.is_some() {
        return write.end(Err(Trouble::Conflict(ending::same_key(id)))).await;
    }
    let row = write.optional(sqlx::query(ROTATE).bind(id.as_str()).bind(version).bind(key.as_str())).await?;
    finish(write, id, row).await
}

pub(super) async fn disable(store: &PostgresStore, id: &TenantId) -> Inner<Tenant> {
    let mut session = store.session().await?;
    let (mut write, version) = begin(&mut session).await?;
    let row = write.optional(sqlx::query(DISABLE).bind(id.as_str()).bind(version)).await?;
    finish(write, id, row).await
}

pub(super) async fn enable(store: &PostgresStore, id: &TenantId) -> Inner<Tenant> {
    let mut session = store.session().await?;
    let (mut write, version) = begin(&mut session).await?;
    let row = write.optional(sqlx::query(ENABLE).bind(id.as_str()).bind(version)).await?;
    finish(write, id, row).await
}

pub(super) async fn set_quotas(store: &PostgresStore, id: &TenantId, quotas: Quotas) -> Inner<Tenant> {
    let mut session = store.session().await?;
    let (mut write, version) = begin(&mut session).await?;
    let update = sqlx::query(SET_QUOTAS)
        .bind(id.as_str())
        .bind(version)
        .bind(quotas.requests_per_s.map(i64::from))
        .bind(quotas.requests_burst.map(i64::from))
        .bind(quotas.requests_at_once.map(i64::from))
        .bind(quotas.sockets.map(i64::from))
        .bind(quotas.subscriptions.map(i64::from))
        .bind(quotas.job_weight.map(i64::from))
        .bind(quotas.jobs_running.map(i64::from))
        .bind(quotas.jobs_queued.map(i64::from))
        .bind(quotas.job_starts_per_s.map(i64::from));
    let row = write.optional(update).await?;
    finish(write, id, row).await
}

/// A change, with its number.
async fn begin(session: &mut Session) -> Inner<(Write<'_>, i64)> {
    let mut write = session.begin_with(CHANGE).await?;
    let next = sqlx::query("SELECT coalesce(max(version), 0) + 1 AS version FROM tenants");
    let version = write.one(next).await?.number("version")?;
    Ok((write, version))
}

/// Answers with the row that was changed, or with the one that was so already.
async fn finish(mut write: Write<'_>, id: &TenantId, changed: Option<PgRow>) -> Inner<Tenant> {
    let row = match changed {
        Some(row) => Some(row),
        None => {
            write
                .optional(
                    sqlx::query(concat!("SELECT ", columns::tenant!(), " FROM tenants WHERE id = $1"))
                        .bind(id.as_str()),
                )
                .await?
        }
    };
    let answer = row.ok_or_else(|| Trouble::NotFound(ending::no_tenant(id)));
    tenant(&write.end(answer).await?)
}
