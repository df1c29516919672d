//! Claiming jobs, in two levels: first whose turn it is, then that tenant's most urgent jobs.
//!
//! The cost follows the number of *tenants* that wait, never the number of jobs: the list of tenants is a walk over the
//! index that jumps from one tenant to the next, and of each only as many jobs are looked at as one claim may take. Nobody
//! keeps a row for each tenant that waits, as SQLite does: whoever enqueues or ends a job would wait for it.
//!
//! Claims follow one another, whichever process makes them: each holds one advisory lock for its few statements. Only so
//! is a tenant's limit one of all processes and queues together, and nobody takes a turn twice. A process that is held
//! while it has the lock loses it with its connection (`idle_in_transaction_session_timeout`).

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{PostgresStore, Run, Write, settle, span};
use crate::model::Millis;
use crate::store::error::{Inner, Trouble};
use crate::store::fair::{Chance, HELD, Plan, Waiting, share_out};
use crate::store::rows::{self, Columns};
use crate::store::{ClaimJobs, ClaimedJobs, Fence, Job};

/// Waiting jobs whose time has come that one claim makes ready at most. One that is locked is cancelled at this moment.
/// (An index takes a time only from a `SELECT` of its own: `now_ms()` alone would be asked for each row.)
const PROMOTE: &str = "
    UPDATE jobs SET state = 'ready'
    WHERE id = ANY (ARRAY(SELECT id FROM jobs WHERE state = 'waiting' AND run_at_ms <= (SELECT now_ms())
                          ORDER BY run_at_ms LIMIT 500 FOR UPDATE SKIP LOCKED))";

// A process has one suspect at a time, so that the next loss of a runner falls on the culprit and not on those beside it.
// It is charged to nobody: there are few, and each is alone in its process.
const LOOK: &str = "
    WITH suspect AS MATERIALIZED (
        SELECT id, tenant FROM jobs AS suspects
        WHERE suspect AND state = 'ready' AND queue = $1 AND $4 > 0
              AND (SELECT count(*) FROM jobs WHERE state = 'running' AND tenant = suspects.tenant)
                  < coalesce((SELECT jobs_running FROM tenants WHERE id = suspects.tenant), $3)
              AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = suspects.tenant AND disabled_at_ms IS NOT NULL)
              AND NOT EXISTS (SELECT 1 FROM jobs WHERE suspect AND state = 'running' AND owner = $2)
        ORDER BY claimed_at_ms, id LIMIT 1
    )
    SELECT now_ms() AS now_ms, (SELECT min(run_at_ms) FROM jobs WHERE state = 'waiting') AS next_ms,
           coalesce((SELECT vtime FROM queues WHERE queue = $1), 0) AS vtime,
           (SELECT id FROM suspect) AS suspect_id, (SELECT tenant FROM suspect) AS suspect_of";

// Those with a rate are all told, for only they may have to wait for a time; of the others no more than may be served.
const WAITING: &str = "
    WITH RECURSIVE running (tenant, number) AS MATERIALIZED (
        SELECT tenant, count(*) FROM jobs WHERE state = 'running' GROUP BY tenant
    ), waiting (tenant) AS (
        (SELECT tenant FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $1 ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT next.tenant FROM waiting CROSS JOIN LATERAL (
            SELECT tenant FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $1 AND tenant > waiting.tenant
            ORDER BY tenant LIMIT 1) AS next
    ), able AS MATERIALIZED (
        SELECT waiting.tenant, coalesce(shares.vtime, 0) AS vtime, coalesce(number, 0) AS running,
               coalesce(paid_until_us, 0) AS paid_until_us, job_weight, jobs_running, job_starts_per_s,
               row_number() OVER (PARTITION BY job_starts_per_s IS NULL ORDER BY coalesce(shares.vtime, 0), waiting.tenant)
                   AS place
        FROM waiting LEFT JOIN shares ON shares.queue = $1 AND shares.tenant = waiting.tenant
                     LEFT JOIN running ON running.tenant = waiting.tenant
                     LEFT JOIN paces ON paces.tenant = waiting.tenant
                     LEFT JOIN tenants ON tenants.id = waiting.tenant
        WHERE disabled_at_ms IS NULL AND coalesce(number, 0) < coalesce(jobs_running, $2)
    )
    SELECT able.*, (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $1
                                                                  AND tenant = able.tenant LIMIT $3) AS seen) AS ready
    FROM able WHERE place <= $3 OR job_starts_per_s IS NOT NULL
    ORDER BY vtime, tenant";

// The list is an array, for a join that was planned while the table was empty would read all of it.
const TAKE: &str = "
    WITH urgent AS MATERIALIZED (
        SELECT mine.id FROM unnest($4::text[], $5::bigint[]) AS served (tenant, number) CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $1 AND tenant = served.tenant
            ORDER BY priority, run_at_ms, id LIMIT served.number FOR UPDATE SKIP LOCKED) AS mine
        UNION ALL SELECT unnest($6::uuid[])
    ), clock AS MATERIALIZED (SELECT now_ms() AS now)
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = $2, claimed_at_ms = now, lease_until_ms = now + $3
    FROM clock WHERE jobs.id = ANY (ARRAY(SELECT id FROM urgent)) AND jobs.state = 'ready'
    RETURNING jobs.*";

const CHARGE: &str = "
    WITH charged AS (
        INSERT INTO shares (queue, tenant, vtime)
        SELECT $1, tenant, vtime FROM unnest($3::text[], $4::bigint[]) AS served (tenant, vtime)
        ON CONFLICT (queue, tenant) DO UPDATE SET vtime = excluded.vtime
    ), paid AS (
        INSERT INTO paces (tenant, paid_until_us)
        SELECT tenant, until FROM unnest($3::text[], $5::bigint[]) AS served (tenant, until) WHERE until IS NOT NULL
        ON CONFLICT (tenant) DO UPDATE SET paid_until_us = excluded.paid_until_us
    )
    INSERT INTO queues (queue, vtime) VALUES ($1, $2)
    ON CONFLICT (queue) DO UPDATE SET vtime = greatest(queues.vtime, excluded.vtime)";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[PROMOTE, LOOK, WAITING, TAKE, CHARGE];

/// Sets the lock of claims apart from whatever else locks by a number in the same database.
const LOCK: i64 = 0x7065_7265_6e6e_6961;

/// What one look before the claim has found.
struct Look {
    now: Millis,
    next: Option<Millis>,
    vtime: i64,
    suspect: Option<(Uuid, String)>,
}

pub(super) async fn claim(store: &PostgresStore, claim: ClaimJobs<'_>) -> Inner<ClaimedJobs> {
    let mut session = store.session().await?;
    // One exchange with the server: the lock, and what has come due.
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK}); {PROMOTE}");
    let mut write = session.begin_with(AssertSqlSafe(begin)).await?;
    let claimed = claim_within(&mut write, &claim).await;
    write.end(claimed).await
}

async fn claim_within(write: &mut Write<'_>, claim: &ClaimJobs<'_>) -> Inner<ClaimedJobs> {
    let look = look(write, claim).await?;
    let limit = claim.limit - u32::from(look.suspect.is_some());
    let (able, held_until) = waiting(write, claim, &look, limit).await?;
    let plan = share_out(able, look.vtime, limit, look.now);
    let mut jobs = Vec::new();
    if look.suspect.is_some() || !plan.order.is_empty() {
        let taken = take(write, claim, &plan, look.suspect.as_ref().map(|(id, _)| *id)).await?;
        let is_suspect = |job: &Job| look.suspect.as_ref().is_some_and(|(id, _)| *id == job.id);
        let (suspects, others): (Vec<Job>, Vec<Job>) = taken.into_iter().partition(is_suspect);
        jobs = suspects;
        jobs.extend(plan.in_order(others));
    }
    if !plan.order.is_empty() {
        charge(write, claim.queue, plan).await?;
    }
    let next = look.next.into_iter().chain(held_until).min();
    Ok(ClaimedJobs { jobs, next_due_in_ms: rows::until(next, look.now) })
}

async fn look(write: &mut Write<'_>, claim: &ClaimJobs<'_>) -> Inner<Look> {
    let look = sqlx::query(LOOK).bind(claim.queue).bind(claim.owner).bind(i64::from(claim.tenant_running_max));
    let row = write.one(look.bind(i64::from(claim.limit))).await?;
    Ok(Look {
        now: row.number("now_ms")?,
        next: row.integer_or_none("next_ms")?,
        vtime: row.number("vtime")?,
        suspect: row.id_or_none("suspect_id")?.zip(row.string_or_none("suspect_of")?),
    })
}

/// Tenants whose turn it is, each with how many of its jobs may start, and when the first of those may that must wait.
async fn waiting(
    write: &mut Write<'_>,
    claim: &ClaimJobs<'_>,
    look: &Look,
    limit: u32,
) -> Inner<(Vec<(Waiting, u32)>, Option<Millis>)> {
    let (mut able, mut held) = (Vec::new(), None);
    if limit == 0 {
        return Ok((able, held));
    }
    let running_max = claim.tenant_running_max;
    let waiting = sqlx::query(WAITING).bind(claim.queue).bind(i64::from(running_max)).bind(i64::from(limit));
    for row in write.all(waiting).await? {
        let mut one = share(&row)?;
        // The suspect of this claim runs too.
        one.running += u32::from(look.suspect.as_ref().is_some_and(|(_, tenant)| *tenant == one.tenant));
        match one.chance(running_max, look.now) {
            Chance::Room(room) => able.push((one, room)),
            Chance::Held(HELD) => {}
            Chance::Held(until) => held = Some(held.map_or(until, |other: Millis| other.min(until))),
        }
    }
    Ok((able, held))
}

fn share(row: &PgRow) -> Inner<Waiting> {
    Ok(Waiting {
        tenant: row.string("tenant")?,
        vtime: row.number("vtime")?,
        ready: row.number("ready")?,
        running: row.number("running")?,
        paid_until_us: row.number("paid_until_us")?,
        rests: false,
        weight: row.number_or_none("job_weight")?,
        running_max: row.number_or_none("jobs_running")?,
        starts_per_s: row.number_or_none("job_starts_per_s")?,
    })
}

/// The most urgent jobs of each portion, and the suspect, in one statement.
async fn take(write: &mut Write<'_>, claim: &ClaimJobs<'_>, plan: &Plan, suspect: Option<Uuid>) -> Inner<Vec<Job>> {
    let served = plan.portions.iter().map(|portion| (portion.tenant.clone(), i64::from(portion.count)));
    let (tenants, counts): (Vec<String>, Vec<i64>) = served.unzip();
    let take = sqlx::query(TAKE).bind(claim.queue).bind(claim.owner).bind(span(claim.lease_ms));
    let suspects: Vec<Uuid> = suspect.into_iter().collect();
    let taken = write.all(take.bind(tenants).bind(counts).bind(suspects)).await?;
    let mut jobs = Vec::with_capacity(taken.len());
    for row in &taken {
        match rows::live_job(row, row.number("claimed_at_ms")?) {
            Ok(job) => jobs.push(job),
            // A row that cannot be read must not stop all others, claim after claim.
            Err(Trouble::Corrupt(what)) => {
                let fence = Fence { id: row.id("id")?, attempt: row.number("attempt")? };
                settle::bury(write, fence, &what).await?;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(jobs)
}

/// Moves on the virtual times of those who were served, and of the queue.
async fn charge(write: &mut Write<'_>, queue: &str, plan: Plan) -> Inner<()> {
    let (mut tenants, mut vtimes, mut paid) = (Vec::new(), Vec::new(), Vec::new());
    for portion in plan.portions {
        tenants.push(portion.tenant);
        vtimes.push(portion.vtime);
        paid.push(portion.paid_until_us);
    }
    let charge = sqlx::query(CHARGE).bind(queue).bind(plan.vtime).bind(tenants).bind(vtimes).bind(paid);
    write.execute(charge).await.map(drop)
}
