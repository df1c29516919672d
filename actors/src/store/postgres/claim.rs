//! Claiming jobs, in two levels: first whose turn it is, then that tenant's most urgent jobs.
//!
//! Whose turn it is stands in `shares`, a row for each tenant and queue, in the order of their virtual times; who may
//! not start anything now is held out of that order until it may. So a claim reads about as many rows as it takes jobs,
//! however many jobs and tenants wait. Claims alone change those rows, and `loads` forgets those that say nothing any
//! more: whoever makes jobs ready or ends them leaves word for the next claim (`arrivals` and `departures`, kept by
//! triggers), and waits for nobody.
//!
//! Claims follow one another, whichever process makes them: each holds one advisory lock for its few statements. Only
//! so is a tenant's limit one of all processes and queues together, and nobody takes a turn twice. A process that is
//! held while it has the lock loses it with its connection (`idle_in_transaction_session_timeout`).
//!
//! The disk is not waited for under that lock. A claim commits without ([`BEGIN`]), so that the next one goes on, and
//! then waits until all that it did is written ([`LAST`]); only then are the jobs its own. What is lost with the
//! server's power before that is lost with all that came after it.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::session::Statement;
use super::{PostgresStore, Run, Write, columns, settle, span};
use crate::model::Millis;
use crate::seam::seam;
use crate::store::error::{Inner, Trouble};
use crate::store::fair::{Chance, HELD, Plan, Portion, Waiting, share_out};
use crate::store::rows::{self, Columns};
use crate::store::{ClaimJobs, ClaimedJobs, Fence, Job};

/// Waiting jobs whose time has come that one claim makes ready at most. One that is locked is cancelled at this moment.
/// (An index takes a time only from a `SELECT` of its own: `now_ms()` alone would be asked for each row.)
const PROMOTE: &str = "
    WITH due AS MATERIALIZED (
        SELECT id FROM jobs WHERE state = 'waiting' AND run_at_ms <= (SELECT now_ms())
        ORDER BY run_at_ms LIMIT 500 FOR UPDATE SKIP LOCKED
    ), promoted AS (
        UPDATE jobs SET state = 'ready' WHERE id = ANY (ARRAY(SELECT id FROM due))
    )
    SELECT set_config('perennial.more', 'yes', true) FROM (SELECT FROM due OFFSET 499 LIMIT 1) AS full_hands";

// Something of their tenants has changed, or their time is over. One claim takes no more word of anything than it can
// take within its deadline, however much has come while nobody claimed. `LOOK` is told if there is more.
const DEPART: &str = "
    WITH gone AS MATERIALIZED (
        DELETE FROM departures WHERE ctid = ANY (ARRAY(SELECT ctid FROM departures LIMIT 20000)) RETURNING tenant
    ), over AS (
        UPDATE shares SET held_until_ms = 0
        WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807 AND held_until_ms <= (SELECT now_ms())
    ), free AS (
        UPDATE shares SET held_until_ms = 0
        WHERE held_until_ms > 0 AND tenant = ANY (ARRAY(SELECT tenant FROM gone))
    )
    SELECT set_config('perennial.more', 'yes', true) FROM (SELECT FROM gone OFFSET 19999 LIMIT 1) AS full_hands";

const ARRIVE: &str = "
    WITH come AS MATERIALIZED (
        DELETE FROM arrivals WHERE ctid = ANY (ARRAY(SELECT ctid FROM arrivals LIMIT 20000)) RETURNING queue, tenant
    ), here AS (
        INSERT INTO shares (queue, tenant, vtime) SELECT DISTINCT queue, tenant, 0 FROM come
        ON CONFLICT (queue, tenant) DO UPDATE SET waits = true WHERE NOT shares.waits
    )
    SELECT set_config('perennial.more', 'yes', true) FROM (SELECT FROM come OFFSET 19999 LIMIT 1) AS full_hands";

// A process has one suspect at a time, so that the next loss of a runner falls on the culprit and not on those beside
// it. It is charged to nobody: there are few, and each is alone in its process. Of those who wait no more jobs each are
// counted than one gets that is served three times as often as the others, but $6 at least. There is one row at least.
const LOOK: &str = "
    WITH suspect AS MATERIALIZED (
        SELECT id, tenant FROM jobs AS suspects
        WHERE suspect AND state = 'ready' AND queue = $1 AND $4 > 0
              AND (SELECT count(*) FROM jobs WHERE state = 'running' AND tenant = suspects.tenant)
                  < coalesce((SELECT jobs_running FROM tenants WHERE id = suspects.tenant), $3)
              AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = suspects.tenant AND disabled_at_ms IS NOT NULL)
              AND NOT EXISTS (SELECT 1 FROM jobs WHERE suspect AND state = 'running' AND owner = $2)
        ORDER BY claimed_at_ms, id LIMIT 1
    ), around AS MATERIALIZED (
        SELECT now_ms() AS now_ms,
               least((SELECT min(run_at_ms) FROM jobs WHERE state = 'waiting' AND run_at_ms > (SELECT now_ms())),
                     (SELECT min(held_until_ms) FROM shares
                      WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807)) AS next_ms,
               coalesce((SELECT vtime FROM queues WHERE queue = $1), 0) AS queue_vtime,
               coalesce(current_setting('perennial.more', true), '') = 'yes' AS more_is_told,
               (SELECT id FROM suspect) AS suspect_id, (SELECT tenant FROM suspect) AS suspect_of
    ), next AS MATERIALIZED (
        SELECT tenant, vtime FROM shares WHERE queue = $1 AND waits AND held_until_ms = 0
        ORDER BY vtime, tenant LIMIT $5
    ), most AS MATERIALIZED (SELECT least($4, greatest($6, 3 * $4::bigint / greatest(count(*), 1))) AS most FROM next)
    SELECT around.*, most, next.tenant, vtime, coalesce(paid_until_us, 0) AS paid_until_us, job_weight, jobs_running,
           disabled_at_ms IS NOT NULL AS rests, job_starts_per_s,
           (SELECT count(*) FROM jobs WHERE state = 'running' AND tenant = next.tenant) AS running,
           (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'ready' AND NOT suspect AND queue = $1
                                                           AND tenant = next.tenant LIMIT most) AS seen) AS ready
    FROM around CROSS JOIN most LEFT JOIN next ON true LEFT JOIN paces ON paces.tenant = next.tenant
         LEFT JOIN tenants ON tenants.id = next.tenant
    ORDER BY vtime, next.tenant";

const REST: &str = "
    UPDATE shares SET held_until_ms = until, waits = resting.waits
    FROM unnest($2::text[], $3::bigint[], $4::boolean[]) AS resting (of_tenant, until, waits)
    WHERE queue = $1 AND tenant = of_tenant";

// The places of the jobs, which are locked, are an array: a join that was planned for an empty table would read it all.
const TAKE: &str = concat!(
    "
    WITH served AS MATERIALIZED (
        SELECT * FROM unnest($4::text[], $5::bigint[], $6::bigint[], $7::boolean[], $8::bigint[])
            AS served (tenant, number, vtime, waits, paid_until)
    ), urgent AS MATERIALIZED (
        SELECT mine.place FROM served CROSS JOIN LATERAL (
            SELECT ctid AS place FROM jobs
            WHERE state = 'ready' AND NOT suspect AND queue = $1 AND tenant = served.tenant
            ORDER BY priority, run_at_ms, id LIMIT served.number FOR UPDATE SKIP LOCKED) AS mine
        UNION ALL
        SELECT alone.place FROM (SELECT ctid AS place FROM jobs WHERE id = $9::uuid FOR UPDATE SKIP LOCKED) AS alone
    ), charged AS (
        INSERT INTO shares (queue, tenant, vtime, waits) SELECT $1, tenant, vtime, waits FROM served
        ON CONFLICT (queue, tenant) DO UPDATE SET vtime = excluded.vtime, waits = excluded.waits
    ), paid AS (
        INSERT INTO paces (tenant, paid_until_us) SELECT tenant, paid_until FROM served WHERE paid_until IS NOT NULL
        ON CONFLICT (tenant) DO UPDATE SET paid_until_us = excluded.paid_until_us
    ), moved AS (
        INSERT INTO queues (queue, vtime) VALUES ($1, $10)
        ON CONFLICT (queue) DO UPDATE SET vtime = excluded.vtime WHERE queues.vtime < excluded.vtime
    ), clock AS MATERIALIZED (SELECT now_ms() AS now)
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = $2, claimed_at_ms = now, lease_until_ms = now + $3
    FROM clock WHERE jobs.ctid = ANY (ARRAY(SELECT place FROM urgent)) AND jobs.state = 'ready'
    RETURNING ",
    columns::job!()
);

const MISSED: &str = "UPDATE shares SET waits = true, held_until_ms = 0 WHERE queue = $1 AND tenant = ANY ($2)";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[PROMOTE, DEPART, ARRIVE, LOOK, REST, TAKE, MISSED];

/// Sets the lock of claims apart from whatever else locks by a number in the same database.
const LOCK: i64 = 0x7065_7265_6e6e_6961;

/// What each connection is told once, so that it need not be planned for each claim.
pub(super) static PREPARE: LazyLock<String> =
    LazyLock::new(|| format!("PREPARE promote AS {PROMOTE}; PREPARE depart AS {DEPART}; PREPARE arrive AS {ARRIVE}"));

/// One exchange with the server: the lock, and behind it what has come due and come to pass.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    let begin = "BEGIN; SET LOCAL synchronous_commit TO off";
    format!("{begin}; SELECT pg_advisory_xact_lock({LOCK}); EXECUTE promote; EXECUTE depart; EXECUTE arrive")
});

/// Nothing, in a transaction of its own, which ends when it is written down, and with it all that was committed before.
const LAST: &str = "SELECT pg_logical_emit_message(true, 'perennial', '')";

/// Tenants that are looked at together, at least and at most.
const LOOK_MIN: u32 = 10;
const LOOK_MAX: u32 = 500;
/// Jobs of one tenant that are counted at least.
const COUNT_MIN: u32 = 8;
/// So often one claim goes on looking because tenants must be held. Then it comes again at once.
const LOOKS_MAX: u32 = 8;

/// What a claim finds.
struct Look {
    now: Millis,
    next: Option<Millis>,
    vtime: i64,
    suspect: Option<(Uuid, String)>,
    /// Jobs that it may take beside the suspect.
    limit: u32,
    /// Whose turn it is, each with how many of its jobs may start.
    able: Vec<(Waiting, u32)>,
    /// So many jobs of each were counted at most.
    counted: u32,
    /// Whether there may be others, of whom nothing is known yet.
    more: bool,
}

impl Look {
    /// Those of whom no job is left that may be claimed, once these are taken.
    fn is_drained(&self, ready: u32, taken: u32) -> bool {
        ready < self.counted && taken >= ready
    }

    /// Who gets how much; nothing if one would get more if more of its jobs had been counted.
    fn plan(&self) -> Option<Plan> {
        let plan = share_out(self.able.clone(), self.vtime, self.limit, self.now);
        let is_short = plan.portions.iter().any(|portion| portion.count >= self.counted);
        (self.counted >= self.limit || !is_short).then_some(plan)
    }
}

pub(super) async fn claim(store: &PostgresStore, claim: ClaimJobs<'_>) -> Inner<ClaimedJobs> {
    let mut session = store.session().await?;
    let mut write = session.begin_with(AssertSqlSafe(BEGIN.as_str())).await?;
    let taken = match claim_within(&mut write, &claim).await {
        Ok(taken) => taken,
        Err(trouble) => return write.end(Err(trouble)).await,
    };
    let wrote_jobs = !taken.rows.is_empty();
    if wrote_jobs {
        seam!("inside_claim");
    }
    write.commit().await?;
    // While the server writes it down, what it has given is read.
    let last = async { if wrote_jobs { session.execute(sqlx::query(LAST)).await.map(drop) } else { Ok(()) } };
    let (lasts, read) = tokio::join!(last, async { taken.read() });
    lasts?;
    let (claimed, unreadable) = read?;
    for (fence, what) in unreadable {
        // It must not stop all others, claim after claim. If this fails, its lease will end, and it comes here again.
        if let Err(trouble) = settle::bury(&mut session, fence, &what).await {
            tracing::warn!(id = %fence.id, ?trouble, "a job that cannot be read could not be ended");
        }
    }
    Ok(claimed)
}

async fn claim_within(write: &mut Write<'_>, claim: &ClaimJobs<'_>) -> Inner<Taken> {
    let mut look = look(write, claim, COUNT_MIN).await?;
    let plan = match look.plan() {
        Some(plan) => plan,
        None => {
            look = self::look(write, claim, claim.limit).await?;
            look.plan().unwrap_or_default()
        }
    };
    take(write, claim, look, plan).await
}

/// Looks until nobody is found who may start nothing now, or has nothing to start: no other claim is to meet those.
async fn look(write: &mut Write<'_>, claim: &ClaimJobs<'_>, count_min: u32) -> Inner<Look> {
    let page = claim.limit.clamp(LOOK_MIN, LOOK_MAX);
    let (mut looks, mut held_until) = (0, None);
    loop {
        looks += 1;
        let asked = sqlx::query(LOOK).bind(claim.queue).bind(claim.owner).bind(i64::from(claim.tenant_running_max));
        let asked = asked.bind(i64::from(claim.limit)).bind(i64::from(page)).bind(i64::from(count_min));
        let found = write.all(asked).await?;
        let first = found.first().ok_or(sqlx::Error::RowNotFound)?;
        let mut look = seen(first, claim)?;
        let waiting = found.iter().filter(|_| look.limit > 0).map(share).collect::<Inner<Vec<_>>>()?;
        let waiting: Vec<Waiting> = waiting.into_iter().flatten().collect();
        let is_full = waiting.len() as u32 >= page;
        let mut resting = Resting::default();
        for mut one in waiting {
            // The suspect of this claim runs too.
            one.running += u32::from(look.suspect.as_ref().is_some_and(|(_, tenant)| *tenant == one.tenant));
            match one.chance(claim.tenant_running_max, look.now) {
                Chance::Room(room) if one.ready > 0 => look.able.push((one, room)),
                // Its jobs were cancelled.
                Chance::Room(_) => resting.add(one.tenant, 0, false),
                Chance::Held(until) => {
                    resting.add(one.tenant, until, true);
                    held_until = held_until.into_iter().chain(Some(until).filter(|until| *until != HELD)).min();
                }
            }
        }
        look.next = look.next.into_iter().chain(held_until).min();
        let nobody_rests = resting.tenants.is_empty();
        if !nobody_rests {
            write.execute(resting.statement(claim.queue)).await?;
        }
        // Behind a full page there may be others who wait for no longer than those on it.
        if nobody_rests || !is_full {
            return Ok(look);
        }
        if looks >= LOOKS_MAX {
            look.able.clear();
            look.more = true;
            return Ok(look);
        }
    }
}

/// What [`REST`] is given for each tenant.
#[derive(Default)]
struct Resting {
    tenants: Vec<String>,
    until: Vec<Millis>,
    waits: Vec<bool>,
}

impl Resting {
    fn add(&mut self, tenant: String, until: Millis, waits: bool) {
        self.tenants.push(tenant);
        self.until.push(until);
        self.waits.push(waits);
    }

    fn statement(self, queue: &str) -> Statement<'_> {
        sqlx::query(REST).bind(queue).bind(self.tenants).bind(self.until).bind(self.waits)
    }
}

/// What is the same whoever waits.
fn seen(row: &PgRow, claim: &ClaimJobs<'_>) -> Inner<Look> {
    let suspect = row.id_or_none("suspect_id")?.zip(row.string_or_none("suspect_of")?);
    Ok(Look {
        now: row.number("now_ms")?,
        next: row.integer_or_none("next_ms")?,
        vtime: row.number("queue_vtime")?,
        limit: claim.limit - u32::from(suspect.is_some()),
        suspect,
        able: Vec::new(),
        counted: row.number("most")?,
        more: row.flag("more_is_told")?,
    })
}

/// Nobody in a row that is there because there is one at least.
fn share(row: &PgRow) -> Inner<Option<Waiting>> {
    let Some(tenant) = row.string_or_none("tenant")? else { return Ok(None) };
    Ok(Some(Waiting {
        tenant,
        vtime: row.number("vtime")?,
        ready: row.number("ready")?,
        running: row.number("running")?,
        paid_until_us: row.number("paid_until_us")?,
        rests: row.flag("rests")?,
        weight: row.number_or_none("job_weight")?,
        running_max: row.number_or_none("jobs_running")?,
        starts_per_s: row.number_or_none("job_starts_per_s")?,
    }))
}

/// The most urgent jobs of each portion, and the suspect, in one statement, which also moves on the virtual times of
/// those who are served, and of the queue.
async fn take(write: &mut Write<'_>, claim: &ClaimJobs<'_>, look: Look, plan: Plan) -> Inner<Taken> {
    let ready: HashMap<&str, u32> = look.able.iter().map(|(one, _)| (one.tenant.as_str(), one.ready)).collect();
    let mut served = Served::default();
    for portion in &plan.portions {
        let ready = ready.get(portion.tenant.as_str()).copied().unwrap_or(u32::MAX);
        served.add(portion, !look.is_drained(ready, portion.count));
    }
    let suspect = look.suspect.as_ref().map(|(id, _)| *id);
    let mut rows = Vec::new();
    if !served.tenants.is_empty() || suspect.is_some() {
        rows = write.all(served.statement(claim, suspect, plan.vtime)).await?;
    }
    if rows.len() < plan.order.len() + usize::from(suspect.is_some()) {
        // Some are locked, or gone: whether they were the last of their tenants is for the next claim to see. A tenant
        // that is held because its suspect was to run need not wait for it.
        let mut missed = served.tenants;
        missed.extend(look.suspect.iter().map(|(_, tenant)| tenant.clone()));
        write.execute(sqlx::query(MISSED).bind(claim.queue).bind(missed)).await?;
    }
    Ok(Taken { rows, look, plan })
}

/// What a claim has taken, not read yet.
struct Taken {
    rows: Vec<PgRow>,
    look: Look,
    plan: Plan,
}

impl Taken {
    /// The jobs in their order, and those that cannot be read, each with the reason.
    fn read(self) -> Inner<(ClaimedJobs, Vec<(Fence, String)>)> {
        let (mut jobs, mut others, mut unreadable) = (Vec::new(), Vec::with_capacity(self.rows.len()), Vec::new());
        let is_suspect = |job: &Job| self.look.suspect.as_ref().is_some_and(|(id, _)| *id == job.id);
        for row in &self.rows {
            match row.number("claimed_at_ms").and_then(|at| rows::live_job(row, at)) {
                Ok(job) if is_suspect(&job) => jobs.push(job),
                Ok(job) => others.push(job),
                Err(Trouble::Corrupt(what)) => {
                    unreadable.push((Fence { id: row.id("id")?, attempt: row.number("attempt")? }, what));
                }
                Err(other) => return Err(other),
            }
        }
        jobs.extend(self.plan.in_order(others));
        let next_due_in_ms = if self.look.more { Some(0) } else { rows::until(self.look.next, self.look.now) };
        Ok((ClaimedJobs { jobs, next_due_in_ms }, unreadable))
    }
}

/// What [`TAKE`] is given for each tenant.
#[derive(Default)]
struct Served {
    tenants: Vec<String>,
    counts: Vec<i64>,
    vtimes: Vec<i64>,
    waits: Vec<bool>,
    paid: Vec<Option<i64>>,
}

impl Served {
    fn add(&mut self, portion: &Portion, waits: bool) {
        self.tenants.push(portion.tenant.clone());
        self.counts.push(portion.count.into());
        self.vtimes.push(portion.vtime);
        self.waits.push(waits);
        self.paid.push(portion.paid_until_us);
    }

    fn statement<'q>(&'q self, claim: &'q ClaimJobs<'_>, suspect: Option<Uuid>, vtime: i64) -> Statement<'q> {
        sqlx::query(TAKE)
            .bind(claim.queue)
            .bind(claim.owner)
            .bind(span(claim.lease_ms))
            .bind(&self.tenants)
            .bind(&self.counts)
            .bind(&self.vtimes)
            .bind(&self.waits)
            .bind(&self.paid)
            .bind(suspect)
            .bind(vtime)
    }
}
