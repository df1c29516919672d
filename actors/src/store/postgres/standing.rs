//! Where a job stands, in one snapshot.

use uuid::Uuid;

use super::{PostgresStore, Run, Write, jobs, list};
use crate::model::{Millis, TenantId};
use crate::store::error::Inner;
use crate::store::fair::{Chance, HELD, Waiting};
use crate::store::rows::Columns;
use crate::store::{AHEAD_MAX, Job, Standing};

const LIVE: &str = "SELECT suspect, owner, lease_until_ms FROM jobs WHERE id = $1";

const AROUND: &str = "
    SELECT now_ms() AS now_ms, (SELECT disabled_at_ms FROM tenants WHERE id = $1) AS tenant_disabled_at_ms,
           (SELECT jobs_running FROM tenants WHERE id = $1) AS tenant_running_max,
           (SELECT job_starts_per_s FROM tenants WHERE id = $1) AS job_starts_per_s,
           (SELECT count(*) FROM jobs WHERE state = 'running' AND tenant = $1) AS tenant_running,
           (SELECT paid_until_us FROM paces WHERE tenant = $1) AS paid_until_us,
           (SELECT count(*) FROM (
                SELECT 1 FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $2 AND tenant = $1
                                         AND (priority, run_at_ms, id) < ($3, $4, $5)
                LIMIT $6) AS seen) AS ahead";

pub(super) async fn standing(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Standing>> {
    let mut session = store.session().await?;
    let mut read = session.begin_with(list::READ).await?;
    let standing = read_standing(&mut read, tenant, id).await;
    read.end(standing).await
}

async fn read_standing(read: &mut Write<'_>, tenant: &TenantId, id: Uuid) -> Inner<Option<Standing>> {
    let Some(job) = jobs::read_in(read, tenant, id).await? else { return Ok(None) };
    let around = sqlx::query(AROUND).bind(tenant.as_str()).bind(job.queue.clone()).bind(i64::from(job.priority));
    let row = read.one(around.bind(job.run_at_ms).bind(id).bind(i64::from(AHEAD_MAX))).await?;
    let at_ms = row.number("now_ms")?;
    let mut standing = Standing {
        tenant_rate_until_ms: rate_until(&row, &job, at_ms)?,
        job,
        at_ms,
        tenant_disabled_at_ms: row.number_or_none("tenant_disabled_at_ms")?,
        is_suspect: false,
        owner: None,
        lease_until_ms: None,
        tenant_running: row.number("tenant_running")?,
        tenant_running_max: row.number_or_none("tenant_running_max")?,
        ahead: row.number("ahead")?,
    };
    if let Some(live) = read.optional(sqlx::query(LIVE).bind(id)).await? {
        standing.is_suspect = live.flag("suspect")?;
        standing.owner = live.id_or_none("owner")?;
        standing.lease_until_ms = live.number_or_none("lease_until_ms")?;
    }
    Ok(Some(standing))
}

/// Until when the tenant may start no more, because of its rate alone.
fn rate_until(row: &impl Columns, job: &Job, now: Millis) -> Inner<Option<Millis>> {
    let waiting = Waiting {
        tenant: job.tenant.to_string(),
        vtime: 0,
        ready: 1,
        running: 0,
        paid_until_us: row.number_or_none("paid_until_us")?.unwrap_or(0),
        rests: false,
        weight: None,
        running_max: None,
        starts_per_s: row.number_or_none("job_starts_per_s")?,
    };
    Ok(match waiting.chance(u32::MAX, now) {
        Chance::Held(until) if until != HELD => Some(until),
        _ => None,
    })
}
