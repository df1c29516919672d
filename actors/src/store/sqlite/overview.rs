//! What waits, of all tenants: read from the numbers that triggers keep and from indexes, but for the jobs that are dead.

use super::{Inner, SqliteStore};
use crate::store::overview::{DEAD_COUNTED_MAX, Overview, backlog, tenant_at_work};

const TENANTS: &str = "
    WITH ended AS (
        SELECT tenant, count(*) AS dead FROM (SELECT tenant FROM jobs_done WHERE state = 'dead' LIMIT ?2) GROUP BY tenant),
         known AS (SELECT tenant FROM loads WHERE live > 0 UNION SELECT tenant FROM ended)
    SELECT known.tenant AS tenant, coalesce(live - running, 0) AS queued, coalesce(running, 0) AS running,
           coalesce(dead, 0) AS dead
    FROM known LEFT JOIN loads ON loads.tenant = known.tenant LEFT JOIN ended ON ended.tenant = known.tenant
    ORDER BY coalesce(live, 0) + coalesce(dead, 0) DESC, 1 LIMIT ?1";

const CHANNELS: &str = "
    SELECT waiting.channel_id, channels.tenant, channels.kind, waiting.pending, waiting.due_at_ms
    FROM (SELECT channel_id, count(*) AS pending, min(due_at_ms) AS due_at_ms
          FROM deliveries INDEXED BY deliveries_due WHERE state IN ('pending', 'sending')
          GROUP BY channel_id ORDER BY 2 DESC, 1 LIMIT ?1) AS waiting JOIN channels ON channels.id = waiting.channel_id
    ORDER BY 4 DESC, 1";

pub(super) async fn overview(store: &SqliteStore, limit: u32) -> Inner<Overview> {
    let readers = store.readers()?;
    let tenants = sqlx::query(TENANTS).bind(limit).bind(DEAD_COUNTED_MAX).fetch_all(&readers).await?;
    let channels = sqlx::query(CHANNELS).bind(limit).fetch_all(&readers).await?;
    Ok(Overview {
        tenants: tenants.iter().map(tenant_at_work).collect::<Inner<_>>()?,
        channels: channels.iter().map(backlog).collect::<Inner<_>>()?,
    })
}
