//! Forgets finished jobs: those whose time is over, and the oldest of a tenant that has too many.

use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Inner, SqliteStore, Write, loads, rows};
use crate::model::{Millis, TenantId};
use crate::store::{PruneJobs, Pruned};

/// Tenants whose number of jobs one call looks at.
const TENANTS_MAX: usize = 20;

const OVER: &str = "
    DELETE FROM jobs_done WHERE
        rowid IN (SELECT rowid FROM jobs_done WHERE state = ?1 AND forget_at_ms IS NULL AND finished_at_ms < ?2
                  ORDER BY finished_at_ms LIMIT ?4)
        OR rowid IN (SELECT rowid FROM jobs_done WHERE state = ?1 AND forget_at_ms <= ?3
                     ORDER BY forget_at_ms LIMIT ?4)
    RETURNING tenant, unique_key, id";

const NEXT_TENANT: &str = "SELECT min(tenant) FROM jobs_done WHERE tenant > ?1";

const ABOVE: &str = "
    SELECT id FROM jobs_done WHERE tenant = ?1 ORDER BY finished_at_ms DESC LIMIT ?2 OFFSET ?3";

const FORGET: &str = "
    DELETE FROM jobs_done WHERE id IN (SELECT value FROM json_each(?1)) RETURNING tenant, unique_key, id";

pub(super) async fn jobs(store: &SqliteStore, prune: PruneJobs) -> Inner<Pruned> {
    let now = store.now();
    let (above, after) = above(store, &prune).await?;
    let mut write = store.write_alone().await?;
    let mut count = 0;
    for (state, keep_ms) in [("done", prune.done_ms), ("dead", prune.dead_ms), ("cancelled", prune.cancelled_ms)] {
        let oldest: Millis = now.saturating_sub(rows::signed(keep_ms));
        let over = sqlx::query(OVER).bind(state).bind(oldest).bind(now).bind(prune.limit);
        let forgotten = over.fetch_all(&mut *write).await?;
        count += free_keys(&mut write, &forgotten).await?;
    }
    if !above.is_empty() {
        let forget = sqlx::query(FORGET).bind(json!(above).to_string());
        let forgotten = forget.fetch_all(&mut *write).await?;
        count += free_keys(&mut write, &forgotten).await?;
    }
    write.commit().await?;
    loads::forget_idle(store, prune.limit).await?;
    Ok(Pruned { count, after })
}

/// The oldest jobs of tenants that have too many, and the last tenant that was looked at if there are more behind it. Read
/// before the file is locked: to find them means to walk over all that may stay.
async fn above(store: &SqliteStore, prune: &PruneJobs) -> Inner<(Vec<String>, Option<TenantId>)> {
    let mut read = store.readers()?.begin().await?;
    let mut tenant = prune.after.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut above: Vec<String> = Vec::new();
    for _ in 0..TENANTS_MAX {
        let next: Option<String> = sqlx::query_scalar(NEXT_TENANT).bind(&tenant).fetch_one(&mut *read).await?;
        let Some(next) = next else { return Ok((above, None)) };
        let room = prune.limit.saturating_sub(above.len() as u32);
        let ids = sqlx::query_scalar(ABOVE).bind(&next).bind(room).bind(rows::signed(prune.tenant_max));
        above.extend(ids.fetch_all(&mut *read).await?);
        if above.len() >= prune.limit as usize {
            // This tenant may have more: the next look begins before it.
            break;
        }
        tenant = next;
    }
    Ok((above, if tenant.is_empty() { None } else { Some(rows::tenant(&tenant)?) }))
}

/// A job that is forgotten has its key no longer. Answers how many jobs there were.
async fn free_keys(write: &mut Write, forgotten: &[SqliteRow]) -> Inner<u64> {
    for row in forgotten {
        let Some(key) = row.try_get::<Option<&str>, _>("unique_key")? else { continue };
        let free = sqlx::query("DELETE FROM job_keys WHERE tenant = ?1 AND key = ?2 AND job_id = ?3");
        let free = free.bind(row.try_get::<&str, _>("tenant")?).bind(key).bind(row.try_get::<&str, _>("id")?);
        free.execute(&mut **write).await?;
    }
    Ok(forgotten.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn what_is_forgotten_is_found_by_an_index_and_never_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in [OVER, NEXT_TENANT, ABOVE, FORGET] {
            let steps = plan(&store, sql).await;
            let walks = |step: &String| step.starts_with("SCAN jobs_done") || step.contains("TEMP B-TREE");
            assert!(!steps.iter().any(walks), "{sql}: {steps:#?}");
        }
    }
}
