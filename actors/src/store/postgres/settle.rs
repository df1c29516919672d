//! The end of a claim: settled by its runner, or swept because the runner was lost.
//!
//! A batch is one statement. It locks its rows in the order of their ids, as all do who lock several jobs. With effects
//! there is a transaction around it, and the channels are locked before the jobs.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{PostgresStore, Run, Write, clean, columns, deliveries, jobs, span};
use crate::model::TenantId;
use crate::seam::seam;
use crate::store::delivery::CHANNEL_PENDING;
use crate::store::ending::{self, crashes};
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{Cancelled, Effect, FULL_RETRY_MS, Fault, Fence, Outcome, Settled, Settlement, SweepReport};

// What a job takes along when it ends, and when it is redriven.
macro_rules! kept {
    () => {
        "id, tenant, queue, kind, payload, priority, attempt, max_attempts, timeout_ms, created_at_ms, schedule_id,
         fire_at_ms, traceparent, origin_trace_id, request_id, unique_key, keep_ms"
    };
}
pub(super) use kept;

// What a row is given goes with it: a join of two lists that the server has no numbers of would compare each with each.
macro_rules! batch {
    () => {
        "unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                $9::text[]) AS batch (id, attempt, ending, after_ms, crashed, error, result, run, word)"
    };
}

// Behind `clock`, and `ended`, which has the rows and what they were given.
macro_rules! kept_as_ended {
    () => {
        concat!(
            ", kept AS (
            INSERT INTO jobs_done (",
            kept!(),
            ", state, refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, finished_at_ms,
             forget_at_ms, last_error, result, run_traceparent)
            SELECT ",
            kept!(),
            ", ending, refunds, redrives, crashes + crashed, snoozes, coalesce(word, progress), run_at_ms,
             claimed_at_ms, now, now + keep_ms, coalesce(error, last_error), result, coalesce(run, run_traceparent)
            FROM ended, clock
        )"
        )
    };
}

/// A batch in which all end. Rows are locked in the order in which they are given, which is that of their ids. A job
/// that runs has an owner, and no other has; asked for its state, the server would walk over all that run, for each of
/// the batch: it takes them for few.
const SETTLE_ENDS: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT now_ms() AS now), ended AS (
        DELETE FROM jobs USING ",
    batch!(),
    "   WHERE jobs.id = batch.id AND jobs.attempt = batch.attempt AND owner IS NOT NULL
        RETURNING jobs.*, ending, crashed, error, result, run, word
    )",
    kept_as_ended!(),
    " SELECT id FROM ended"
);

/// Any batch. Its rows are locked first, in the same order.
const SETTLE: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT now_ms() AS now), held AS MATERIALIZED (
        SELECT batch.* FROM ",
    batch!(),
    "   CROSS JOIN LATERAL (SELECT 1 FROM jobs WHERE id = batch.id AND attempt = batch.attempt AND owner IS NOT NULL
                            FOR UPDATE) AS mine
    ), ended AS (
        DELETE FROM jobs USING held WHERE jobs.id = held.id AND held.ending IN ('done', 'dead')
        RETURNING jobs.*, held.ending, held.crashed, held.error, held.result, held.run, held.word
    )",
    kept_as_ended!(),
    ", again AS (
        UPDATE jobs SET state = CASE ending WHEN 'release' THEN 'ready' ELSE 'waiting' END,
                        run_at_ms = CASE ending WHEN 'release' THEN run_at_ms ELSE now + after_ms END,
                        last_error = CASE ending WHEN 'release' THEN last_error ELSE error END,
                        crashes = crashes + crashed, refunds = refunds + CASE ending WHEN 'retry' THEN 0 ELSE 1 END,
                        snoozes = snoozes + CASE ending WHEN 'snooze' THEN 1 ELSE 0 END,
                        suspect = suspect AND ending = 'release', owner = NULL, lease_until_ms = NULL,
                        run_traceparent = coalesce(run, run_traceparent),
                        progress = CASE ending WHEN 'retry' THEN coalesce(word, progress) ELSE progress END
        FROM held, clock WHERE jobs.id = held.id AND held.ending NOT IN ('done', 'dead')
    )
    SELECT id FROM held"
);

// A row that is locked belongs to whoever settles, cancels or extends it at this moment: it is left to the next sweep.
// What was lost is counted as a crash, and not charged as an attempt: the job may never have begun. One that could be
// lost only once more is a suspect from now on.
const RESCUE: &str = "
    WITH lost AS MATERIALIZED (
        SELECT id FROM jobs WHERE state = 'running' AND lease_until_ms < (SELECT now_ms()) AND crashes + 1 < $1
        ORDER BY lease_until_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET state = 'ready', refunds = refunds + 1, crashes = crashes + 1, owner = NULL, lease_until_ms = NULL,
                    suspect = (crashes + 2 >= $1), last_error = 'its runner was lost: the lease ran out'
    FROM lost WHERE jobs.id = lost.id";

const LOST_TOO_OFTEN: &str = "
    SELECT id, attempt, crashes FROM jobs
    WHERE state = 'running' AND lease_until_ms < (SELECT now_ms()) AND crashes + 1 >= $1
    ORDER BY lease_until_ms LIMIT $2 FOR UPDATE SKIP LOCKED";

// Or nobody would look for its runner until the clock is where it was.
const SHORTEN: &str = "
    WITH long AS MATERIALIZED (
        SELECT id FROM jobs WHERE state = 'running' AND lease_until_ms > (SELECT now_ms() + $1)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET lease_until_ms = now_ms() + $2 FROM long WHERE jobs.id = long.id";

const CANCEL: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT now_ms() AS now),
     ended AS (DELETE FROM jobs WHERE id = ANY ($1) AND tenant = $2 RETURNING *)
     INSERT INTO jobs_done (",
    kept!(),
    ", state, refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, finished_at_ms, forget_at_ms,
      run_traceparent, last_error)
     SELECT ",
    kept!(),
    ", 'cancelled', refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, now, now + keep_ms,
      run_traceparent, $3
     FROM ended, clock
     RETURNING ",
    columns::finished_job!()
);

// A tenant with a rate waits for a second at most. Whoever seems to wait for longer waits since before the clock went
// back; the next claim is told.
const THAW: &str = "
    INSERT INTO departures (tenant)
    SELECT tenant FROM shares
    WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807 AND held_until_ms > (SELECT now_ms()) + 1000";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[SETTLE_ENDS, SETTLE, RESCUE, LOST_TOO_OFTEN, SHORTEN, THAW, CANCEL];

pub(super) async fn settle(store: &PostgresStore, batch: Vec<Settlement>) -> Inner<Vec<Settled>> {
    let mut session = store.session().await?;
    let mut answers = Vec::with_capacity(batch.len());
    for part in without_repeats(batch) {
        if part.iter().all(|settlement| settlement.effects.is_empty()) {
            let held = run(&mut session, &part).await?;
            answers.extend(part.iter().map(|settlement| applied(&held, settlement.fence)));
            continue;
        }
        let mut write = session.begin().await?;
        answers.extend(with_effects(&mut write, part, store.pending_max).await?);
        write.commit().await?;
    }
    Ok(answers)
}

/// One statement ends a job once. A batch that names one twice is cut before the second.
fn without_repeats(batch: Vec<Settlement>) -> Vec<Vec<Settlement>> {
    let (mut parts, mut seen) = (Vec::new(), HashSet::new());
    for settlement in batch {
        if parts.is_empty() || !seen.insert(settlement.fence.id) {
            seen = HashSet::from([settlement.fence.id]);
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(settlement);
        }
    }
    parts
}

fn applied(held: &HashSet<Uuid>, fence: Fence) -> Settled {
    if held.contains(&fence.id) { Settled::Applied } else { Settled::Late }
}

/// Effects are looked at before anything is written, so that one impossible effect costs its own job only.
async fn with_effects(write: &mut Write<'_>, mut part: Vec<Settlement>, pending_max: u32) -> Inner<Vec<Settled>> {
    let wanted = part.iter().filter(|settlement| is_done(settlement)).flat_map(deliveries_of);
    let wanted = wanted.map(|delivery| delivery.channel);
    let mut channels = deliveries::Channels::lock(write, wanted, pending_max).await?;
    let mut refused = HashMap::new();
    for settlement in part.iter_mut().filter(|settlement| is_done(settlement)) {
        let failed = channels.check_all(deliveries_of(settlement)).err();
        let Some(trouble) = failed else { continue };
        let answer = match trouble {
            Trouble::NotFound(reason) | Trouble::Conflict(reason) => {
                settlement.outcome = Outcome::Dead { reason: reason.clone(), fault: Fault::Failure };
                Settled::Refused { reason }
            }
            Trouble::Limit(CHANNEL_PENDING, reason) => Settled::Postponed { reason },
            other => return Err(other),
        };
        refused.insert(settlement.fence.id, answer);
    }
    let held = run_but(write, &part, &refused).await?;
    let mut answers = Vec::with_capacity(part.len());
    let mut to_keep = Vec::new();
    for settlement in part {
        let answer = applied(&held, settlement.fence);
        let refused = refused.remove(&settlement.fence.id);
        if answer == Settled::Applied && refused.is_none() && is_done(&settlement) {
            to_keep.extend(settlement.effects.into_iter().map(|Effect::Deliver(delivery)| delivery));
        }
        answers.push(refused.filter(|_| answer == Settled::Applied).unwrap_or(answer));
    }
    if !to_keep.is_empty() {
        seam!("inside_settle");
    }
    deliveries::insert(write, to_keep).await?;
    Ok(answers)
}

fn is_done(settlement: &Settlement) -> bool {
    matches!(settlement.outcome, Outcome::Done { .. })
}

fn deliveries_of(settlement: &Settlement) -> impl Iterator<Item = &crate::store::NewDelivery> + Clone {
    settlement.effects.iter().map(|Effect::Deliver(delivery)| delivery)
}

/// Writes the outcomes. Answers whose fences held.
async fn run(on: &mut impl Run, part: &[Settlement]) -> Inner<HashSet<Uuid>> {
    run_but(on, part, &HashMap::new()).await
}

/// As [`run`], but those that are postponed by `refused` are tried again later.
async fn run_but(on: &mut impl Run, part: &[Settlement], refused: &HashMap<Uuid, Settled>) -> Inner<HashSet<Uuid>> {
    let mut part: Vec<&Settlement> = part.iter().collect();
    part.sort_unstable_by_key(|settlement| settlement.fence.id);
    let (ids, attempts) = jobs::columns(part.iter().map(|settlement| &settlement.fence));
    let (mut endings, mut delays, mut crashed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut errors, mut results) = (Vec::new(), Vec::new());
    let (mut runs, mut words) = (Vec::new(), Vec::new());
    for settlement in part {
        let (after_ms, fault, error, result) = match &settlement.outcome {
            Outcome::Done { result } => (0, Fault::Failure, None, result.as_ref()),
            Outcome::Dead { reason, fault } => (0, *fault, Some(reason), None),
            Outcome::Retry { after_ms, error, fault } => (span(*after_ms), *fault, Some(error), None),
            Outcome::Snooze { after_ms, reason } => (span(*after_ms), Fault::Failure, Some(reason), None),
            Outcome::Release => (0, Fault::Failure, None, None),
        };
        let (ending, after_ms, error) = match refused.get(&settlement.fence.id) {
            Some(Settled::Postponed { reason }) => ("postpone", span(FULL_RETRY_MS), Some(reason)),
            _ => (settlement.outcome.as_str(), after_ms, error),
        };
        endings.push(ending);
        delays.push(after_ms);
        crashed.push(crashes(fault));
        errors.push(error.map(clean));
        results.push(result.map(|result| result.to_string()));
        runs.push(settlement.run.traceparent());
        words.push(settlement.progress.as_ref().map(|progress| serde_json::json!(progress).to_string()));
    }
    let all_end = endings.iter().all(|ending| matches!(*ending, "done" | "dead"));
    let statement = sqlx::query(if all_end { SETTLE_ENDS } else { SETTLE })
        .bind(ids)
        .bind(attempts)
        .bind(endings)
        .bind(delays)
        .bind(crashed)
        .bind(errors)
        .bind(results)
        .bind(runs)
        .bind(words);
    on.all(statement).await?.iter().map(|row| row.id("id")).collect()
}

/// Ends a claimed job that cannot be read.
pub(super) async fn bury(on: &mut impl Run, fence: Fence, what: &str) -> Inner<()> {
    tracing::error!(id = %fence.id, what, "a job cannot be read, it is dead");
    let outcome = Outcome::Dead { reason: ending::unreadable(what), fault: Fault::Failure };
    run(on, &[Settlement::new(fence, outcome)]).await.map(drop)
}

/// Ends a job in whatever state it is. No fence is asked for, and the one of a present claim is void from now on.
pub(super) async fn cancel(
    store: &PostgresStore,
    tenant: &TenantId,
    id: Uuid,
    reason: &str,
) -> Inner<Option<Cancelled>> {
    let mut session = store.session().await?;
    // A job that is redriven between the two looks is in neither place at the time of each: it is looked for again.
    for _ in 0..2 {
        let cancel = sqlx::query(CANCEL).bind(vec![id]).bind(tenant.as_str()).bind(clean(reason));
        if let Some(row) = session.optional(cancel).await? {
            seam!("inside_cancel");
            return Ok(Some(Cancelled::Now(Box::new(rows::finished_job(&row)?))));
        }
        let ended =
            sqlx::query(concat!("SELECT ", columns::finished_job!(), " FROM jobs_done WHERE id = $1 AND tenant = $2"));
        if let Some(row) = session.optional(ended.bind(id).bind(tenant.as_str())).await? {
            return Ok(Some(Cancelled::TooLate(Box::new(rows::finished_job(&row)?))));
        }
    }
    Ok(None)
}

/// Ends jobs of a tenant that have not ended, within the transaction of someone else, who is not stopped by one that cannot
/// be read.
pub(super) async fn cancel_live(
    write: &mut Write<'_>,
    tenant: &TenantId,
    ids: Vec<Uuid>,
    reason: &str,
) -> Inner<Vec<Fence>> {
    let cancel = sqlx::query(CANCEL).bind(ids).bind(tenant.as_str()).bind(clean(reason));
    let cancelled = write.all(cancel).await?;
    cancelled.iter().map(|row| Ok(Fence { id: row.id("id")?, attempt: row.number("attempt")? })).collect()
}

pub(super) async fn sweep(store: &PostgresStore, crashes_max: u32, limit: u32) -> Inner<SweepReport> {
    let mut session = store.session().await?;
    session.execute(sqlx::query(SHORTEN).bind(ending::LEASE_MAX_MS).bind(ending::LEASE_LEFT_MS)).await?;
    session.execute(sqlx::query(THAW)).await?;
    let mut write = session.begin().await?;
    let lost = sqlx::query(LOST_TOO_OFTEN).bind(i64::from(crashes_max)).bind(i64::from(limit));
    let mut dead = Vec::new();
    for row in write.all(lost).await? {
        let reason = ending::quarantined(row.number::<i64>("crashes")? + 1);
        let fence = Fence { id: row.id("id")?, attempt: row.number("attempt")? };
        dead.push(Settlement::new(fence, Outcome::Dead { reason, fault: Fault::Crash }));
    }
    let quarantined = if dead.is_empty() { 0 } else { run(&mut write, &dead).await?.len() as u64 };
    write.commit().await?;
    seam!("inside_sweep");
    // On its own: a transaction changes the numbers of tenants in one statement only, in one order.
    let rescue = sqlx::query(RESCUE).bind(i64::from(crashes_max)).bind(i64::from(limit));
    let rescued = session.execute(rescue).await?;
    Ok(SweepReport { rescued, quarantined })
}
