//! Who has a unique key. Whoever looks at a key locks its row first, which is made if there is none, so that nobody else is
//! between the look and the taking. Several are looked at in their order.

use uuid::Uuid;

use super::{Run, Write, clean, jobs};
use crate::model::{Millis, TenantId};
use crate::store::error::{Inner, Trouble};
use crate::store::rows::Columns;
use crate::store::{Job, Unique};

// Whoever is there stays, but is locked.
const LOCK: &str = "
    INSERT INTO job_keys (tenant, key, job_id, states, until_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, key) DO UPDATE SET key = excluded.key
    RETURNING job_id, states, until_ms";

const TAKE: &str = "
    UPDATE job_keys SET job_id = $3, states = $4, until_ms = $5 WHERE tenant = $1 AND key = $2";

/// Gives a job its key, unless another job has it: then answers that one.
pub(super) async fn take(
    write: &mut Write<'_>,
    tenant: &TenantId,
    id: Uuid,
    unique: &Unique,
    now: Millis,
) -> Inner<Option<Job>> {
    let (key, states, until_ms) = (clean(unique.key.as_str()), unique.states.as_str(), unique.until_ms(now));
    let bound = |sql| sqlx::query(sql).bind(tenant.as_str()).bind(key.clone()).bind(id).bind(states).bind(until_ms);
    let row = write.one(bound(LOCK)).await?;
    let holder = row.id("job_id")?;
    if holder != id {
        let states = row.text("states")?.parse().map_err(Trouble::Corrupt)?;
        let until_ms = row.number_or_none("until_ms")?;
        let holder = jobs::read_in(write, tenant, holder).await?;
        if let Some(holder) = holder.filter(|job| Unique::is_held_by(job, states, until_ms, now)) {
            return Ok(Some(holder));
        }
    }
    write.execute(bound(TAKE)).await?;
    Ok(None)
}
