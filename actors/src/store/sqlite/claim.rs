//! Claiming jobs, in two levels: first whose turn it is, then that tenant's most urgent jobs.
//!
//! Whose turn it is stands in `shares`, a row for each tenant and queue, in the order of their virtual times; who may not
//! start anything now is held out of that order until it may. So a claim reads about as many rows as it takes jobs, however
//! many jobs and tenants wait. The shares' sizes are decided by `fair.rs`.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::sqlite::SqliteRow;

use super::columns::{self, RowOf, Rows, rows_in_one};
use super::{Inner, SqliteStore, Write, rows, settle};
use crate::model::Millis;
use crate::seam::seam;
use crate::store::error::Trouble;
use crate::store::fair::{Chance, Plan, Portion, Waiting, share_out};
use crate::store::rows::Columns;
use crate::store::{ClaimJobs, ClaimedJobs, Job};

/// Waiting jobs whose time has come that one claim makes ready at most.
const PROMOTE_MAX: u32 = 500;
/// Tenants that are looked at together, at least and at most.
const LOOK_MIN: u32 = 10;
const LOOK_MAX: u32 = 500;
/// So often one claim goes on looking because tenants must be held. Then it comes again at once.
const LOOKS_MAX: u32 = 8;

// What most claims find is that nothing has come due and nobody is a suspect: one question for all of it.
const LOOK: &str = "
    SELECT (SELECT min(run_at_ms) FROM jobs WHERE state = 'waiting') AS waiting_ms,
           (SELECT min(held_until_ms) FROM shares
            WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807) AS held_ms,
           EXISTS (SELECT 1 FROM jobs WHERE suspect = 1 AND state = 'ready' AND queue = ?1) AS suspects,
           coalesce((SELECT vtime FROM queues WHERE queue = ?1), 0) AS vtime";

const PROMOTE: &str = "
    UPDATE jobs SET state = 'ready'
    WHERE id IN (SELECT id FROM jobs WHERE state = 'waiting' AND run_at_ms <= ?1 ORDER BY run_at_ms LIMIT ?2)";

const LET_GO: &str = "
    UPDATE shares SET held_until_ms = 0
    WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807 AND held_until_ms <= ?1";

rows_in_one! {
    WAITING, WAITING_COLUMNS:
    "tenant", "vtime", "ready", "running", "paid_until_us", "rests", "job_weight", "jobs_running", "job_starts_per_s";
    "SELECT shares.tenant, shares.vtime, shares.ready, loads.running, loads.paid_until_us,
            tenants.disabled_at_ms IS NOT NULL AS rests, tenants.job_weight, tenants.jobs_running,
            tenants.job_starts_per_s
     FROM shares CROSS JOIN loads ON loads.tenant = shares.tenant LEFT JOIN tenants ON tenants.id = shares.tenant
     WHERE shares.queue = ?1 AND shares.ready > 0 AND shares.held_until_ms = 0
     ORDER BY shares.vtime, shares.tenant LIMIT ?2"
}

const HOLD: &str = "
    UPDATE shares SET held_until_ms = held.until
    FROM (SELECT value ->> 0 AS of_tenant, value ->> 1 AS until FROM json_each(?2)) AS held
    WHERE tenant = of_tenant AND queue = ?1";

// For tenants that get the same number of jobs.
const PICK: &str = "
    SELECT json_group_array(urgent.id) FROM json_each(?2) AS served CROSS JOIN jobs AS urgent
    WHERE urgent.id IN (SELECT id FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?1
                                                  AND tenant = served.value
                        ORDER BY priority, run_at_ms, id LIMIT ?3)";

const TAKE: &str = "
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?1, claimed_at_ms = ?2, lease_until_ms = ?3
    WHERE id IN (SELECT value FROM json_each(?4))";

rows_in_one! {
    TAKEN, TAKEN_COLUMNS:
    "id", "tenant", "queue", "kind", "payload", "state", "priority", "attempt", "refunds", "crashes", "max_attempts",
    "timeout_ms", "run_at_ms", "created_at_ms", "claimed_at_ms", "last_error", "schedule_id", "fire_at_ms", "traceparent",
    "origin_trace_id", "request_id", "progress", "run_traceparent", "unique_key", "redrives", "snoozes", "keep_ms";
    "SELECT jobs.* FROM json_each(?1) AS taken CROSS JOIN jobs ON jobs.id = taken.value"
}

const TAKEN_EACH: &str = "SELECT jobs.* FROM json_each(?1) AS taken CROSS JOIN jobs ON jobs.id = taken.value";

// A process has one suspect at a time, so that the next loss of a runner falls on the culprit and not on those beside it.
const TAKE_SUSPECT: &str = "
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?1, claimed_at_ms = ?2, lease_until_ms = ?3
    WHERE id = (SELECT id FROM jobs AS suspects WHERE suspect = 1 AND state = 'ready' AND queue = ?4
                      AND (SELECT running FROM loads WHERE loads.tenant = suspects.tenant)
                          < coalesce((SELECT jobs_running FROM tenants WHERE tenants.id = suspects.tenant), ?5)
                      AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = suspects.tenant
                                                                  AND tenants.disabled_at_ms IS NOT NULL)
                ORDER BY claimed_at_ms, id LIMIT 1)
          AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_suspect
                          WHERE suspect = 1 AND state = 'running' AND owner = ?1)
    RETURNING *";

const CHARGE: &str = "
    UPDATE shares SET vtime = charged.vtime
    FROM (SELECT value ->> 0 AS of_tenant, value ->> 1 AS vtime FROM json_each(?2)) AS charged
    WHERE tenant = of_tenant AND queue = ?1";

const PAY: &str = "
    UPDATE loads SET paid_until_us = paid.until
    FROM (SELECT value ->> 0 AS of_tenant, value ->> 1 AS until FROM json_each(?1)) AS paid
    WHERE tenant = of_tenant";

const QUEUE_MOVES_ON: &str = "
    INSERT INTO queues (queue, vtime) VALUES (?1, ?2)
    ON CONFLICT (queue) DO UPDATE SET vtime = max(vtime, excluded.vtime)";

const RECOUNT: &str = "
    UPDATE shares SET ready = (SELECT count(*) FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?1
                                                               AND tenant = ?2)
    WHERE queue = ?1 AND tenant = ?2";

const NEXT_DUE: &str = "
    SELECT min(at) FROM (
        SELECT min(run_at_ms) AS at FROM jobs WHERE state = 'waiting'
        UNION ALL
        SELECT min(held_until_ms) FROM shares WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807)";

pub(super) async fn claim(store: &SqliteStore, claim: ClaimJobs<'_>) -> Inner<ClaimedJobs> {
    let now = store.now();
    let mut write = store.write().await?;
    let claimed = claim_within(&mut write, &claim, now).await?;
    if !claimed.jobs.is_empty() {
        seam!("inside_claim");
    }
    write.commit().await?;
    Ok(claimed)
}

async fn claim_within(write: &mut Write, claim: &ClaimJobs<'_>, now: Millis) -> Inner<ClaimedJobs> {
    let look = sqlx::query(LOOK).bind(claim.queue).fetch_one(&mut **write).await?;
    let (waiting_ms, held_ms) = (look.integer_or_none("waiting_ms")?, look.integer_or_none("held_ms")?);
    let is_over = |at: Option<Millis>| at.is_some_and(|at| at <= now);
    if is_over(waiting_ms) {
        sqlx::query(PROMOTE).bind(now).bind(PROMOTE_MAX).execute(&mut **write).await?;
    }
    if is_over(held_ms) {
        sqlx::query(LET_GO).bind(now).execute(&mut **write).await?;
    }
    let has_suspect = claim.limit > 0 && look.flag("suspects")?;
    let mut jobs = if has_suspect { take_suspect(write, claim, now).await? } else { Vec::new() };
    let limit = claim.limit - jobs.len() as u32;
    let turns = turns(write, claim, limit, now).await?;
    if !turns.able.is_empty() {
        let plan = share_out(turns.able, look.number("vtime")?, limit, now);
        let taken = take(write, claim, &plan, now).await?;
        charge(write, claim.queue, &plan).await?;
        jobs.extend(plan.in_order(taken));
    }
    let next = match is_over(waiting_ms) || is_over(held_ms) || turns.has_held {
        true => sqlx::query_scalar(NEXT_DUE).fetch_one(&mut **write).await?,
        false => waiting_ms.into_iter().chain(held_ms).min(),
    };
    let next_due_in_ms = if turns.has_more { Some(0) } else { rows::until(next, now) };
    Ok(ClaimedJobs { jobs, next_due_in_ms })
}

/// Whose turn it is.
#[derive(Default)]
struct Turns {
    /// Each with how many of its jobs may start.
    able: Vec<(Waiting, u32)>,
    /// Whether some were held.
    has_held: bool,
    /// Whether there may be others, who were not looked at.
    has_more: bool,
}

/// Tenants whose turn it is. Those who may start no job are held, so that no other claim meets them in vain.
async fn turns(write: &mut Write, claim: &ClaimJobs<'_>, limit: u32, now: Millis) -> Inner<Turns> {
    let page = limit.clamp(LOOK_MIN, LOOK_MAX);
    let mut turns = Turns::default();
    for _ in 0..if limit > 0 { LOOKS_MAX } else { 0 } {
        let found = sqlx::query_scalar::<_, String>(WAITING).bind(claim.queue).bind(page);
        let found = Rows::parse(WAITING_COLUMNS, &found.fetch_one(&mut **write).await?)?;
        let (mut able, mut held) = (Vec::new(), Vec::new());
        for row in found.iter() {
            let one = share(row)?;
            match one.chance(claim.tenant_running_max, now) {
                Chance::Room(room) => able.push((one, room)),
                Chance::Held(until) => held.push((one.tenant, until)),
            }
        }
        let all = held.is_empty();
        if !all {
            let held = json!(held).to_string();
            sqlx::query(HOLD).bind(claim.queue).bind(held).execute(&mut **write).await?;
            turns.has_held = true;
        }
        // Behind a full page there may be others who wait for no longer than those on it.
        if all || (found.len() as u32) < page {
            return Ok(Turns { able, ..turns });
        }
    }
    Ok(Turns { has_more: limit > 0, ..turns })
}

fn share(row: RowOf<'_>) -> Inner<Waiting> {
    Ok(Waiting {
        tenant: row.string("tenant")?,
        vtime: row.number("vtime")?,
        ready: row.number("ready")?,
        running: row.number("running")?,
        paid_until_us: row.number("paid_until_us")?,
        rests: row.flag("rests")?,
        weight: row.number_or_none("job_weight")?,
        running_max: row.number_or_none("jobs_running")?,
        starts_per_s: row.number_or_none("job_starts_per_s")?,
    })
}

/// The most urgent jobs of each portion, found with one statement for all portions of the same size.
async fn take(write: &mut Write, claim: &ClaimJobs<'_>, plan: &Plan, now: Millis) -> Inner<Vec<Job>> {
    let mut sizes: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for portion in &plan.portions {
        sizes.entry(portion.count).or_default().push(&portion.tenant);
    }
    let mut picked: Vec<String> = Vec::with_capacity(plan.order.len());
    for (size, tenants) in sizes {
        let of_each =
            sqlx::query_scalar::<_, String>(PICK).bind(claim.queue).bind(json!(tenants).to_string()).bind(size);
        let ids: Vec<String> = columns::list(&of_each.fetch_one(&mut **write).await?)?;
        if ids.len() < size as usize * tenants.len() {
            recount(write, claim.queue, &tenants).await?;
        }
        picked.extend(ids);
    }
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let picked = json!(picked).to_string();
    let take = sqlx::query(TAKE).bind(claim.owner.to_string()).bind(now);
    let lease_until = now.saturating_add(rows::signed(claim.lease_ms));
    take.bind(lease_until).bind(&picked).execute(&mut **write).await?;
    let taken: Inner<Vec<Job>> =
        match sqlx::query_scalar::<_, String>(TAKEN).bind(&picked).fetch_one(&mut **write).await {
            Ok(taken) => Rows::parse(TAKEN_COLUMNS, &taken)?.iter().map(|row| rows::live_job(&row, now)).collect(),
            Err(error) => Err(error.into()),
        };
    match taken {
        // One of them cannot be read, and is to be found.
        Err(Trouble::Corrupt(_) | Trouble::Sql(sqlx::Error::ColumnDecode { .. })) => {
            let taken = sqlx::query(TAKEN_EACH).bind(&picked).fetch_all(&mut **write).await?;
            read_or_bury(write, &taken, now).await
        }
        taken => taken,
    }
}

/// A share that promises more than there is would stand before all others for ever. No path of this program leads here.
async fn recount(write: &mut Write, queue: &str, tenants: &[&str]) -> Inner<()> {
    tracing::error!(queue, ?tenants, "fewer jobs are ready than were counted, counting them again");
    for tenant in tenants {
        sqlx::query(RECOUNT).bind(queue).bind(*tenant).execute(&mut **write).await?;
    }
    Ok(())
}

/// At most one. It is charged to nobody: there are few, and each is alone in its process.
async fn take_suspect(write: &mut Write, claim: &ClaimJobs<'_>, now: Millis) -> Inner<Vec<Job>> {
    let taken = sqlx::query(TAKE_SUSPECT)
        .bind(claim.owner.to_string())
        .bind(now)
        .bind(now.saturating_add(rows::signed(claim.lease_ms)))
        .bind(claim.queue)
        .bind(claim.tenant_running_max)
        .fetch_all(&mut **write)
        .await?;
    read_or_bury(write, &taken, now).await
}

async fn read_or_bury(write: &mut Write, taken: &[SqliteRow], now: Millis) -> Inner<Vec<Job>> {
    let mut jobs = Vec::with_capacity(taken.len());
    for row in taken {
        match rows::live_job(row, now) {
            Ok(job) => jobs.push(job),
            // A row that cannot be read must not stop all others, claim after claim.
            Err(Trouble::Corrupt(what)) => settle::bury(write, row, &what, now).await?,
            Err(other) => return Err(other),
        }
    }
    Ok(jobs)
}

/// Moves on the virtual times of those who were served, and of the queue.
async fn charge(write: &mut Write, queue: &str, plan: &Plan) -> Inner<()> {
    let charged: Vec<_> = plan.portions.iter().map(|portion| (&portion.tenant, portion.vtime)).collect();
    sqlx::query(CHARGE).bind(queue).bind(json!(charged).to_string()).execute(&mut **write).await?;
    let paid = |portion: &Portion| Some((portion.tenant.clone(), portion.paid_until_us?));
    let paid: Vec<_> = plan.portions.iter().filter_map(paid).collect();
    if !paid.is_empty() {
        sqlx::query(PAY).bind(json!(paid).to_string()).execute(&mut **write).await?;
    }
    sqlx::query(QUEUE_MOVES_ON).bind(queue).bind(plan.vtime).execute(&mut **write).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{LEASE_MS, new_job};
    use crate::store::sqlite::tests::{execute, open_in, plan};
    use crate::store::{JobState, Store};

    #[tokio::test]
    async fn a_job_that_cannot_be_read_is_dead_and_stops_no_other() {
        for damage in ["schedule_id = 'no id'", "attempt = 5000000000"] {
            let directory = tempfile::tempdir().unwrap();
            let (store, _) = open_in(&directory).await;
            let jobs = store.enqueue(vec![new_job("demo"), new_job("demo"), new_job("demo")]).await.unwrap();
            let damage = sqlx::AssertSqlSafe(format!("UPDATE jobs SET {damage} WHERE id = ?1"));
            execute(&store, sqlx::query(damage).bind(jobs[1].id.to_string())).await;
            let owner = uuid::Uuid::now_v7();
            let request = ClaimJobs { queue: "default", owner, lease_ms: LEASE_MS, limit: 9, tenant_running_max: 9 };
            let claimed = store.claim(request).await.unwrap().jobs;
            assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id, jobs[2].id]);
            assert_eq!(store.job_counts().await.unwrap().dead, 1);
            let undamaged = store.get_job(&jobs[0].tenant, jobs[0].id).await.unwrap().unwrap();
            assert_eq!(undamaged.state, JobState::Running);
            assert_eq!(store.get_job(&jobs[1].tenant, jobs[1].id).await.unwrap_err().kind(), "corrupt");
        }
    }

    #[tokio::test]
    async fn a_claim_walks_over_indexes_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in
            [LOOK, PROMOTE, LET_GO, WAITING, HOLD, PICK, TAKE, TAKEN, TAKE_SUSPECT, CHARGE, PAY, RECOUNT, NEXT_DUE]
        {
            let steps = plan(&store, sql).await;
            // What is not looked up is the list that was given, or a row that an aggregate has made.
            let given = ["SCAN json_each", "SCAN served", "SCAN taken", "SCAN CONSTANT ROW", "SCAN (subquery"];
            let scans = |step: &&String| step.starts_with("SCAN") && !given.iter().any(|given| step.starts_with(given));
            assert_eq!(steps.iter().find(scans), None, "{sql}: {steps:#?}");
            let sorts = |step: &&String| step.contains("TEMP B-TREE");
            assert_eq!(steps.iter().find(sorts), None, "{sql}: {steps:#?}");
            assert!(
                steps.iter().any(|step| step.contains("INDEX") || step.contains("PRIMARY KEY")),
                "{sql}: {steps:#?}"
            );
        }
    }
}
