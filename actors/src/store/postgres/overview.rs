//! What waits, of all tenants: read from the numbers that triggers keep and from indexes, but for the jobs that are dead.

use super::{PostgresStore, Run};
use crate::store::error::Inner;
use crate::store::overview::{DEAD_COUNTED_MAX, Overview, backlog, tenant_at_work};

const TENANTS: &str = "
    WITH waiting AS (SELECT tenant, sum(queued)::bigint AS queued FROM loads GROUP BY tenant HAVING sum(queued) > 0),
         at_work AS (SELECT tenant, count(*) AS running FROM jobs WHERE state = 'running' GROUP BY tenant),
         ended AS (SELECT tenant, count(*) AS dead
                   FROM (SELECT tenant FROM jobs_done WHERE state = 'dead' LIMIT $2) AS counted GROUP BY tenant)
    SELECT tenant, coalesce(queued, 0) AS queued, coalesce(running, 0) AS running, coalesce(dead, 0) AS dead
    FROM waiting FULL JOIN at_work USING (tenant) FULL JOIN ended USING (tenant)
    ORDER BY coalesce(queued, 0) + coalesce(running, 0) + coalesce(dead, 0) DESC, tenant LIMIT $1";

const CHANNELS: &str = "
    SELECT waiting.channel_id, channels.tenant, channels.kind, waiting.pending, waiting.due_at_ms
    FROM (SELECT channel_id, count(*) AS pending, min(due_at_ms) AS due_at_ms
          FROM deliveries WHERE state IN ('pending', 'sending')
          GROUP BY channel_id ORDER BY 2 DESC, 1 LIMIT $1) AS waiting JOIN channels ON channels.id = waiting.channel_id
    ORDER BY 4 DESC, 1";

pub(super) async fn overview(store: &PostgresStore, limit: u32) -> Inner<Overview> {
    let mut session = store.session().await?;
    let limit = i64::from(limit);
    let tenants = session.all(sqlx::query(TENANTS).bind(limit).bind(i64::from(DEAD_COUNTED_MAX))).await?;
    let channels = session.all(sqlx::query(CHANNELS).bind(limit)).await?;
    Ok(Overview {
        tenants: tenants.iter().map(tenant_at_work).collect::<Inner<_>>()?,
        channels: channels.iter().map(backlog).collect::<Inner<_>>()?,
    })
}
