//! Forgets finished jobs: those whose time is over, and the oldest of a tenant that has too many.

use uuid::Uuid;

use super::{PostgresStore, Run, Session, loads};
use crate::model::TenantId;
use crate::store::error::Inner;
use crate::store::rows::{self, Columns};
use crate::store::{PruneJobs, Pruned};

/// Tenants whose number of jobs one call looks at.
const TENANTS_MAX: usize = 20;

// What another process forgets or redrives at this moment is left to it. A job that is forgotten has its key no longer; keys
// are locked in their order, as by all.
const OVER: &str = "
    WITH late AS MATERIALIZED (
        SELECT id FROM jobs_done WHERE state = $1 AND forget_at_ms IS NULL AND finished_at_ms < (SELECT now_ms()) - $2
        ORDER BY finished_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED
    ), over AS MATERIALIZED (
        SELECT id FROM jobs_done
        WHERE state = $1 AND forget_at_ms IS NOT NULL AND forget_at_ms <= (SELECT now_ms())
        ORDER BY forget_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM jobs_done WHERE id IN (SELECT id FROM late UNION ALL SELECT id FROM over)
        RETURNING tenant, unique_key, id
    ), theirs AS MATERIALIZED (
        SELECT job_keys.tenant, key FROM job_keys JOIN gone
            ON job_keys.tenant = gone.tenant AND key = gone.unique_key AND job_id = gone.id
        ORDER BY job_keys.tenant, key FOR UPDATE OF job_keys
    ), freed AS (
        DELETE FROM job_keys USING theirs WHERE job_keys.tenant = theirs.tenant AND job_keys.key = theirs.key
    )
    SELECT count(*) AS number FROM gone";

const NEXT_TENANT: &str = "SELECT min(tenant) AS tenant FROM jobs_done WHERE tenant > $1";

const ABOVE: &str = "
    SELECT id FROM jobs_done WHERE tenant = $1 ORDER BY finished_at_ms DESC LIMIT $2 OFFSET $3";

const FORGET: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM jobs_done WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM jobs_done USING old WHERE jobs_done.id = old.id
        RETURNING jobs_done.tenant, jobs_done.unique_key, jobs_done.id
    ), theirs AS MATERIALIZED (
        SELECT job_keys.tenant, key FROM job_keys JOIN gone
            ON job_keys.tenant = gone.tenant AND key = gone.unique_key AND job_id = gone.id
        ORDER BY job_keys.tenant, key FOR UPDATE OF job_keys
    ), freed AS (
        DELETE FROM job_keys USING theirs WHERE job_keys.tenant = theirs.tenant AND job_keys.key = theirs.key
    )
    SELECT count(*) AS number FROM gone";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[OVER, NEXT_TENANT, ABOVE, FORGET];

pub(super) async fn jobs(store: &PostgresStore, prune: PruneJobs) -> Inner<Pruned> {
    let mut session = store.session().await?;
    let (above, after) = above(&mut session, &prune).await?;
    let mut count = 0;
    for (state, keep_ms) in [("done", prune.done_ms), ("dead", prune.dead_ms), ("cancelled", prune.cancelled_ms)] {
        let over = sqlx::query(OVER).bind(state).bind(rows::signed(keep_ms)).bind(i64::from(prune.limit));
        count += session.one(over).await?.number::<u64>("number")?;
    }
    if !above.is_empty() {
        count += session.one(sqlx::query(FORGET).bind(above)).await?.number::<u64>("number")?;
    }
    loads::forget_idle(&mut session, prune.limit).await?;
    Ok(Pruned { count, after })
}

/// The oldest jobs of tenants that have too many, and the last tenant that was looked at if there are more behind it.
async fn above(session: &mut Session, prune: &PruneJobs) -> Inner<(Vec<Uuid>, Option<TenantId>)> {
    let mut tenant = prune.after.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut above: Vec<Uuid> = Vec::new();
    for _ in 0..TENANTS_MAX {
        let next = session.one(sqlx::query(NEXT_TENANT).bind(tenant.clone())).await?;
        let Some(next) = next.string_or_none("tenant")? else { return Ok((above, None)) };
        let room = i64::from(prune.limit.saturating_sub(above.len() as u32));
        let ids = sqlx::query(ABOVE).bind(next.clone()).bind(room).bind(rows::signed(prune.tenant_max));
        for row in session.all(ids).await? {
            above.push(row.id("id")?);
        }
        if above.len() >= prune.limit as usize {
            // This tenant may have more: the next look begins before it.
            break;
        }
        tenant = next;
    }
    Ok((above, if tenant.is_empty() { None } else { Some(rows::tenant(&tenant)?) }))
}
