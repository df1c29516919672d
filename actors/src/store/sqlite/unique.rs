//! Who has a unique key. The one writer makes it safe: nobody else is between the look and the taking.

use sqlx::Row;
use uuid::Uuid;

use super::{Inner, Write, jobs};
use crate::model::{Millis, TenantId};
use crate::store::error::Trouble;
use crate::store::{Job, Unique};

// Whoever is there has been found not to have it any more.
const TAKE: &str = "
    INSERT INTO job_keys (tenant, key, job_id, states, until_ms) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant, key) DO UPDATE
    SET job_id = excluded.job_id, states = excluded.states, until_ms = excluded.until_ms";

const HOLDER: &str = "SELECT job_id, states, until_ms FROM job_keys WHERE tenant = ?1 AND key = ?2";

/// What the test of the plans looks at.
#[cfg(test)]
pub(super) const ASKED: [&str; 2] = [TAKE, HOLDER];

/// The job that has this key now.
pub(super) async fn holder(write: &mut Write, tenant: &TenantId, key: &str, now: Millis) -> Inner<Option<Job>> {
    let Some(row) = sqlx::query(HOLDER).bind(tenant.as_str()).bind(key).fetch_optional(&mut **write).await? else {
        return Ok(None);
    };
    let states = row.try_get::<&str, _>("states")?.parse().map_err(Trouble::Corrupt)?;
    let until_ms = row.try_get("until_ms")?;
    let job = jobs::read_in(write, tenant, row.try_get("job_id")?, now).await?;
    Ok(job.filter(|job| Unique::is_held_by(job, states, until_ms, now)))
}

/// Gives a job its key, which no other has.
pub(super) async fn take(write: &mut Write, tenant: &TenantId, job: Uuid, unique: &Unique, now: Millis) -> Inner<()> {
    let take = sqlx::query(TAKE).bind(tenant.as_str()).bind(&unique.key).bind(job.to_string());
    take.bind(unique.states.as_str()).bind(unique.until_ms(now)).execute(&mut **write).await?;
    Ok(())
}
