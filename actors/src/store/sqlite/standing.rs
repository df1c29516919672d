//! Where a job stands, in one snapshot.

use sqlx::Row;
use uuid::Uuid;

use super::{Inner, SqliteStore, jobs};
use crate::model::TenantId;
use crate::store::rows::Columns;
use crate::store::{AHEAD_MAX, Standing};

const LIVE: &str = "
    SELECT suspect, owner, lease_until_ms FROM jobs WHERE id = ?1";

const AROUND: &str = "
    SELECT (SELECT disabled_at_ms FROM tenants WHERE id = ?1) AS tenant_disabled_at_ms,
           (SELECT jobs_running FROM tenants WHERE id = ?1) AS tenant_running_max,
           coalesce((SELECT running FROM loads WHERE tenant = ?1), 0) AS tenant_running,
           (SELECT held_until_ms FROM shares
            WHERE tenant = ?1 AND queue = ?2 AND held_until_ms > ?7 AND held_until_ms < 9223372036854775807)
               AS tenant_rate_until_ms,
           (SELECT count(*) FROM (
                SELECT 1 FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?2 AND tenant = ?1
                                         AND (priority, run_at_ms, id) < (?3, ?4, ?5)
                LIMIT ?6)) AS ahead";

pub(super) async fn standing(store: &SqliteStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Standing>> {
    let at_ms = store.now();
    let mut read = store.readers()?.begin().await?;
    let Some(job) = jobs::read_in(&mut read, tenant, &id.to_string(), at_ms).await? else { return Ok(None) };
    let around = sqlx::query(AROUND).bind(tenant.as_str()).bind(&job.queue).bind(job.priority).bind(job.run_at_ms);
    let around = around.bind(id.to_string()).bind(AHEAD_MAX).bind(at_ms).fetch_one(&mut *read).await?;
    let mut standing = Standing {
        job,
        at_ms,
        tenant_disabled_at_ms: around.try_get("tenant_disabled_at_ms")?,
        is_suspect: false,
        owner: None,
        lease_until_ms: None,
        tenant_running: around.try_get("tenant_running")?,
        tenant_running_max: around.try_get("tenant_running_max")?,
        tenant_rate_until_ms: around.try_get("tenant_rate_until_ms")?,
        ahead: around.try_get("ahead")?,
    };
    if let Some(live) = sqlx::query(LIVE).bind(id.to_string()).fetch_optional(&mut *read).await? {
        standing.is_suspect = live.try_get("suspect")?;
        standing.owner = live.id_or_none("owner")?;
        standing.lease_until_ms = live.try_get("lease_until_ms")?;
    }
    Ok(Some(standing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn what_is_around_a_job_is_counted_in_indexes() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let steps = plan(&store, AROUND).await;
        let ahead =
            "SEARCH jobs USING COVERING INDEX jobs_ready (queue=? AND tenant=? AND (priority,run_at_ms,id)<(?,?,?))";
        assert!(steps.iter().any(|step| step.starts_with(ahead)), "{steps:#?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN jobs")), "{steps:#?}");
    }
}
