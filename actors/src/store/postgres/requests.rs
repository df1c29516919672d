//! Requests with keys of their own, and their answers.
//!
//! Whoever writes to a request and to the number of its tenant's requests writes to the request first, so that no two
//! wait for each other.

use std::collections::BTreeMap;

use super::{PostgresStore, Run, Write, clean, span};
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{BeginRequest, BegunRequest, KeptAnswer, RequestEnd, RequestTicket, Settled};

// Two that come at once wait for each other here: the second finds the row of the first.
const INSERT: &str = "
    INSERT INTO requests (tenant, key_hash, fingerprint, effect, lease_until_ms, expires_at_ms)
    SELECT $1, $2, $3, $4, now + $5, now + $6 FROM (SELECT now_ms() AS now) AS clock
    ON CONFLICT (tenant, key_hash) DO NOTHING";

const KNOWN: &str = "
    SELECT fingerprint, lease_until_ms, expires_at_ms, status, headers, body, (SELECT now_ms()) AS now_ms
    FROM requests WHERE tenant = $1 AND key_hash = $2 FOR UPDATE";

const AGAIN: &str = "
    UPDATE requests SET attempt = attempt + 1, lease_until_ms = $3, expires_at_ms = greatest(expires_at_ms, $3)
    WHERE tenant = $1 AND key_hash = $2 RETURNING attempt, effect";

// The fence: whoever was overtaken by a later try writes nothing.
const ANSWER: &str = "
    UPDATE requests SET status = $4, headers = $5, body = $6, lease_until_ms = 0
    WHERE tenant = $1 AND key_hash = $2 AND attempt = $3 AND status IS NULL";

const OPEN: &str = "
    UPDATE requests SET lease_until_ms = 0
    WHERE tenant = $1 AND key_hash = $2 AND attempt = $3 AND status IS NULL";

const FORGET: &str = "DELETE FROM requests WHERE tenant = $1 AND key_hash = $2 AND attempt = $3 AND status IS NULL";

const HOLD: &str = "
    INSERT INTO requests_held (tenant, held) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET held = requests_held.held + 1
    RETURNING held";

const LET_GO: &str = "UPDATE requests_held SET held = greatest(held - $2, 0) WHERE tenant = $1";

const FORGET_EXPIRED: &str = "
    WITH old AS MATERIALIZED (
        SELECT tenant, key_hash FROM requests WHERE expires_at_ms <= (SELECT now_ms())
        ORDER BY expires_at_ms LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM requests USING old WHERE requests.tenant = old.tenant AND requests.key_hash = old.key_hash
    RETURNING requests.tenant AS tenant";

pub(super) async fn begin(store: &PostgresStore, begin: BeginRequest) -> Inner<BegunRequest> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let begun = match insert(&mut write, &begin).await? {
        Inserted::New => counted(&mut write, begin).await?,
        Inserted::Known => known(&mut write, begin).await?,
    };
    match begun {
        BegunRequest::First(_) | BegunRequest::Again(_) => write.commit().await?,
        // The refusals have written nothing that is to stay.
        _ => write.rollback().await?,
    }
    Ok(begun)
}

enum Inserted {
    New,
    Known,
}

async fn insert(write: &mut Write<'_>, begin: &BeginRequest) -> Inner<Inserted> {
    let insert = sqlx::query(INSERT)
        .bind(begin.tenant.as_str())
        .bind(begin.key.as_str())
        .bind(begin.fingerprint.as_str())
        .bind(begin.effect)
        .bind(span(begin.lease_ms))
        .bind(span(begin.keep_ms.max(begin.lease_ms)));
    Ok(if write.execute(insert).await? > 0 { Inserted::New } else { Inserted::Known })
}

/// A new one, if the tenant has room for it.
async fn counted(write: &mut Write<'_>, begin: BeginRequest) -> Inner<BegunRequest> {
    let held: i64 = write.one(sqlx::query(HOLD).bind(begin.tenant.as_str())).await?.number("held")?;
    if held > i64::from(begin.held_max) {
        return Ok(BegunRequest::Full);
    }
    let BeginRequest { tenant, key, effect, .. } = begin;
    Ok(BegunRequest::First(RequestTicket { tenant, key, attempt: 1, effect }))
}

async fn known(write: &mut Write<'_>, begin: BeginRequest) -> Inner<BegunRequest> {
    let select = sqlx::query(KNOWN).bind(begin.tenant.as_str()).bind(begin.key.as_str());
    // It was forgotten since: whoever asks again begins anew.
    let Some(row) = write.optional(select).await? else { return Ok(BegunRequest::Pending) };
    let now: i64 = row.number("now_ms")?;
    if row.number::<i64>("expires_at_ms")? <= now {
        let delete = sqlx::query("DELETE FROM requests WHERE tenant = $1 AND key_hash = $2");
        write.execute(delete.bind(begin.tenant.as_str()).bind(begin.key.as_str())).await?;
        write.execute(sqlx::query(LET_GO).bind(begin.tenant.as_str()).bind(1_i64)).await?;
        return match insert(write, &begin).await? {
            Inserted::New => counted(write, begin).await,
            Inserted::Known => Ok(BegunRequest::Pending),
        };
    }
    if row.text("fingerprint")? != begin.fingerprint.as_str() {
        return Ok(BegunRequest::Differs);
    }
    if let Some(answer) = rows::kept_answer(&row)? {
        return Ok(BegunRequest::Answered(answer));
    }
    if row.number::<i64>("lease_until_ms")? > now {
        return Ok(BegunRequest::Pending);
    }
    let again = sqlx::query(AGAIN).bind(begin.tenant.as_str()).bind(begin.key.as_str());
    let again = write.one(again.bind(now.saturating_add(span(begin.lease_ms)))).await?;
    let BeginRequest { tenant, key, .. } = begin;
    let (attempt, effect) = (again.number("attempt")?, again.id("effect")?);
    Ok(BegunRequest::Again(RequestTicket { tenant, key, attempt, effect }))
}

pub(super) async fn end(store: &PostgresStore, ticket: &RequestTicket, end: RequestEnd) -> Inner<Settled> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let statement = match &end {
        RequestEnd::Answered(_) => ANSWER,
        RequestEnd::Open => OPEN,
        RequestEnd::Undone => FORGET,
    };
    let query = sqlx::query(statement).bind(ticket.tenant.as_str()).bind(ticket.key.as_str());
    let mut query = query.bind(i64::from(ticket.attempt));
    let is_forgotten = end == RequestEnd::Undone;
    if let RequestEnd::Answered(KeptAnswer { status, headers, body }) = end {
        let headers = serde_json::to_string(&headers).map_err(|error| Trouble::Corrupt(error.to_string()))?;
        query = query.bind(i64::from(status)).bind(clean(headers)).bind(body);
    }
    if write.execute(query).await? == 0 {
        write.rollback().await?;
        return Ok(Settled::Late);
    }
    if is_forgotten {
        write.execute(sqlx::query(LET_GO).bind(ticket.tenant.as_str()).bind(1_i64)).await?;
    }
    write.commit().await?;
    Ok(Settled::Applied)
}

pub(super) async fn forget(store: &PostgresStore, limit: u32) -> Inner<u64> {
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let forgotten = write.all(sqlx::query(FORGET_EXPIRED).bind(i64::from(limit))).await?;
    let mut by_tenant = BTreeMap::<&str, i64>::new();
    for row in &forgotten {
        *by_tenant.entry(row.text("tenant")?).or_default() += 1;
    }
    for (tenant, number) in by_tenant {
        write.execute(sqlx::query(LET_GO).bind(tenant).bind(number)).await?;
    }
    write.commit().await?;
    Ok(forgotten.len() as u64)
}
