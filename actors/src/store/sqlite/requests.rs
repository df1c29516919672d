//! Requests with keys of their own, and their answers.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Inner, SqliteStore, Write, rows};
use crate::model::Millis;
use crate::store::error::Trouble;
use crate::store::rows::Columns;
use crate::store::{BeginRequest, BegunRequest, KeptAnswer, RequestEnd, RequestTicket, Settled};

const INSERT: &str = "
    INSERT INTO requests (tenant, key_hash, fingerprint, effect, lease_until_ms, expires_at_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const AGAIN: &str = "
    UPDATE requests SET attempt = attempt + 1, lease_until_ms = ?3, expires_at_ms = max(expires_at_ms, ?3)
    WHERE tenant = ?1 AND key_hash = ?2 RETURNING attempt, effect";

// The fence: whoever was overtaken by a later try writes nothing.
const ANSWER: &str = "
    UPDATE requests SET status = ?4, headers = ?5, body = ?6, lease_until_ms = 0
    WHERE tenant = ?1 AND key_hash = ?2 AND attempt = ?3 AND status IS NULL";

const OPEN: &str = "
    UPDATE requests SET lease_until_ms = 0
    WHERE tenant = ?1 AND key_hash = ?2 AND attempt = ?3 AND status IS NULL";

const FORGET: &str = "DELETE FROM requests WHERE tenant = ?1 AND key_hash = ?2 AND attempt = ?3 AND status IS NULL";

const HOLD: &str = "
    INSERT INTO requests_held (tenant, held) SELECT ?1, 1 WHERE ?2 > 0
    ON CONFLICT (tenant) DO UPDATE SET held = held + 1 WHERE held < ?2
    RETURNING held";

const FORGET_EXPIRED: &str = "
    DELETE FROM requests WHERE rowid IN
        (SELECT rowid FROM requests WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2)
    RETURNING tenant";

pub(super) async fn begin(store: &SqliteStore, begin: BeginRequest) -> Inner<BegunRequest> {
    let now = store.now();
    let mut write = store.write().await?;
    let select = sqlx::query("SELECT * FROM requests WHERE tenant = ?1 AND key_hash = ?2");
    let known = select.bind(begin.tenant.as_str()).bind(begin.key.as_str()).fetch_optional(&mut *write).await?;
    let begun = match known {
        Some(row) if row.try_get::<Millis, _>("expires_at_ms")? > now => {
            known_request(&mut write, begin, &row, now).await?
        }
        Some(_) => {
            let delete = sqlx::query("DELETE FROM requests WHERE tenant = ?1 AND key_hash = ?2");
            delete.bind(begin.tenant.as_str()).bind(begin.key.as_str()).execute(&mut *write).await?;
            let_go(&mut write, begin.tenant.as_str(), 1).await?;
            new_request(&mut write, begin, now).await?
        }
        None => new_request(&mut write, begin, now).await?,
    };
    write.commit().await?;
    Ok(begun)
}

async fn new_request(write: &mut Write, begin: BeginRequest, now: Millis) -> Inner<BegunRequest> {
    let hold = sqlx::query(HOLD).bind(begin.tenant.as_str()).bind(begin.held_max);
    if hold.fetch_optional(&mut **write).await?.is_none() {
        return Ok(BegunRequest::Full);
    }
    sqlx::query(INSERT)
        .bind(begin.tenant.as_str())
        .bind(begin.key.as_str())
        .bind(begin.fingerprint.as_str())
        .bind(begin.effect.to_string())
        .bind(now.saturating_add(rows::signed(begin.lease_ms)))
        .bind(now.saturating_add(rows::signed(begin.keep_ms.max(begin.lease_ms))))
        .execute(&mut **write)
        .await?;
    let BeginRequest { tenant, key, effect, .. } = begin;
    Ok(BegunRequest::First(RequestTicket { tenant, key, attempt: 1, effect }))
}

async fn known_request(write: &mut Write, begin: BeginRequest, row: &SqliteRow, now: Millis) -> Inner<BegunRequest> {
    if row.try_get::<&str, _>("fingerprint")? != begin.fingerprint.as_str() {
        return Ok(BegunRequest::Differs);
    }
    if let Some(answer) = rows::kept_answer(row)? {
        return Ok(BegunRequest::Answered(answer));
    }
    if row.try_get::<Millis, _>("lease_until_ms")? > now {
        return Ok(BegunRequest::Pending);
    }
    let again = sqlx::query(AGAIN).bind(begin.tenant.as_str()).bind(begin.key.as_str());
    let again = again.bind(now.saturating_add(rows::signed(begin.lease_ms))).fetch_one(&mut **write).await?;
    let effect = again.id("effect")?;
    let BeginRequest { tenant, key, .. } = begin;
    Ok(BegunRequest::Again(RequestTicket { tenant, key, attempt: again.try_get("attempt")?, effect }))
}

pub(super) async fn end(store: &SqliteStore, ticket: &RequestTicket, end: RequestEnd) -> Inner<Settled> {
    let mut write = store.write().await?;
    let statement = match &end {
        RequestEnd::Answered(_) => ANSWER,
        RequestEnd::Open => OPEN,
        RequestEnd::Undone => FORGET,
    };
    let mut query = sqlx::query(statement).bind(ticket.tenant.as_str()).bind(ticket.key.as_str()).bind(ticket.attempt);
    let is_forgotten = end == RequestEnd::Undone;
    if let RequestEnd::Answered(KeptAnswer { status, headers, body }) = end {
        let headers = serde_json::to_string(&headers).map_err(|error| Trouble::Corrupt(error.to_string()))?;
        query = query.bind(status).bind(headers).bind(body);
    }
    let is_late = query.execute(&mut *write).await?.rows_affected() == 0;
    if is_forgotten && !is_late {
        let_go(&mut write, ticket.tenant.as_str(), 1).await?;
    }
    write.commit().await?;
    Ok(if is_late { Settled::Late } else { Settled::Applied })
}

pub(super) async fn forget(store: &SqliteStore, limit: u32) -> Inner<u64> {
    let mut write = store.write_alone().await?;
    let forget = sqlx::query_scalar(FORGET_EXPIRED).bind(store.now()).bind(limit);
    let of_tenants: Vec<String> = forget.fetch_all(&mut *write).await?;
    let mut by_tenant = std::collections::BTreeMap::<&str, i64>::new();
    for tenant in &of_tenants {
        *by_tenant.entry(tenant).or_default() += 1;
    }
    for (tenant, number) in by_tenant {
        let_go(&mut write, tenant, number).await?;
    }
    write.commit().await?;
    Ok(of_tenants.len() as u64)
}

async fn let_go(write: &mut Write, tenant: &str, number: i64) -> Inner<()> {
    let update = sqlx::query("UPDATE requests_held SET held = held - ?2 WHERE tenant = ?1");
    update.bind(tenant).bind(number).execute(&mut **write).await?;
    Ok(())
}
