//! The end of a claim: settled by its runner, or swept because the runner was lost.

use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, batch, deliveries, fires, rows};
use crate::model::{Millis, TenantId};
use crate::seam::seam;
use crate::store::delivery::CHANNEL_PENDING;
use crate::store::ending::{self, End, crashes};
use crate::store::error::Trouble;
use crate::store::rows::Columns;
use crate::store::{
    Cancelled, Effect, FULL_RETRY_MS, Fault, Fence, Outcome, Schedule, Settled, Settlement, SweepReport,
};

// What a job takes along when it ends, and when it is redriven.
macro_rules! kept {
    () => {
        "id, tenant, queue, kind, payload, priority, attempt, max_attempts, timeout_ms, created_at_ms, schedule_id,
         fire_at_ms, traceparent, origin_trace_id, request_id, unique_key, keep_ms"
    };
}
pub(super) use kept;

const FINISH: &str = concat!(
    "INSERT INTO jobs_done (",
    kept!(),
    ", state, refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, finished_at_ms, forget_at_ms,
      last_error, result, run_traceparent)
     SELECT ",
    kept!(),
    ", ?3, refunds, redrives, crashes + ?4, snoozes, coalesce(?9, progress), run_at_ms, claimed_at_ms, ?5, ?5 + keep_ms,
      coalesce(?6, last_error), ?7, coalesce(?8, run_traceparent)
     FROM jobs WHERE id = ?1 AND attempt = ?2 AND state = 'running'"
);

const CANCEL: &str = concat!(
    "INSERT INTO jobs_done (",
    kept!(),
    ", state, refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, finished_at_ms, forget_at_ms,
      run_traceparent, last_error)
     SELECT ",
    kept!(),
    ", 'cancelled', refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, ?3, ?3 + keep_ms,
      run_traceparent, ?4
     FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND tenant = ?2
     RETURNING *"
);

const LIVE_OF: &str = "SELECT id, attempt FROM jobs WHERE schedule_id = ?1 ORDER BY fire_at_ms LIMIT ?2";

const RETRY: &str = "
    UPDATE jobs SET state = 'waiting', run_at_ms = ?3, last_error = ?4, crashes = crashes + ?5, suspect = 0,
                    owner = NULL, lease_until_ms = NULL, run_traceparent = coalesce(?6, run_traceparent),
                    progress = coalesce(?7, progress)
    WHERE id = ?1 AND attempt = ?2 AND state = 'running'";

// As a released one, but for later.
const POSTPONE: &str = "
    UPDATE jobs SET state = 'waiting', run_at_ms = ?3, last_error = ?4, refunds = refunds + 1, suspect = 0,
                    owner = NULL, lease_until_ms = NULL, run_traceparent = coalesce(?5, run_traceparent)
    WHERE id = ?1 AND attempt = ?2 AND state = 'running'";

const RELEASE: &str = "
    UPDATE jobs SET state = 'ready', refunds = refunds + 1, owner = NULL, lease_until_ms = NULL,
                    run_traceparent = coalesce(?3, run_traceparent)
    WHERE id = ?1 AND attempt = ?2 AND state = 'running'";

const SNOOZE: &str = "
    UPDATE jobs SET state = 'waiting', run_at_ms = ?3, last_error = ?4, refunds = refunds + 1, snoozes = snoozes + 1,
                    suspect = 0, owner = NULL, lease_until_ms = NULL, run_traceparent = coalesce(?5, run_traceparent)
    WHERE id = ?1 AND attempt = ?2 AND state = 'running'";

// What was lost is counted as a crash, and not charged as an attempt: the job may never have begun. One that could be
// lost only once more is a suspect from now on.
const RESCUE: &str = "
    UPDATE jobs SET state = 'ready', refunds = refunds + 1, crashes = crashes + 1, owner = NULL, lease_until_ms = NULL,
                    suspect = (crashes + 2 >= ?2), last_error = 'its runner was lost: the lease ran out'
    WHERE id IN (SELECT id FROM jobs WHERE state = 'running' AND lease_until_ms < ?1 AND crashes + 1 < ?2
                 ORDER BY lease_until_ms LIMIT ?3)";

const LOST_TOO_OFTEN: &str = "
    SELECT id, attempt, crashes FROM jobs WHERE state = 'running' AND lease_until_ms < ?1 AND crashes + 1 >= ?2
    ORDER BY lease_until_ms LIMIT ?3";

// Or nobody would look for its runner until the clock is where it was.
const SHORTEN: &str = "UPDATE jobs SET lease_until_ms = ?1 + ?3 WHERE state = 'running' AND lease_until_ms > ?1 + ?2";

// A tenant with a rate waits for a second at most. Whoever seems to wait for longer waits since before the clock went back.
const LET_GO: &str = "
    UPDATE shares SET held_until_ms = 0
    WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807 AND held_until_ms > ?1 + 1000";

pub(super) async fn settle(store: &SqliteStore, settlements: Vec<Settlement>) -> Inner<Vec<Settled>> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let now = store.now();
    let mut write = store.write().await?;
    let mut finished = batch::finish(&mut write, &settlements, now).await?;
    let mut answers = Vec::with_capacity(settlements.len());
    for (place, settlement) in settlements.into_iter().enumerate() {
        answers.push(match finished.remove(&place) {
            Some(answer) => answer,
            None => settle_one(&mut write, settlement, store.pending_max, now).await?,
        });
    }
    write.commit().await?;
    Ok(answers)
}

async fn settle_one(write: &mut Write, settlement: Settlement, pending_max: u32, now: Millis) -> Inner<Settled> {
    let Settlement { fence, outcome, effects, run, progress } = settlement;
    let run = Ran { traceparent: run.traceparent(), progress: progress.map(|progress| json!(progress).to_string()) };
    let written = match outcome {
        Outcome::Done { result } => {
            for Effect::Deliver(delivery) in &effects {
                let channel = deliveries::check(write, &delivery.tenant, delivery.channel, pending_max).await;
                if let Err(trouble) = channel {
                    return refuse(write, fence, trouble, run, now).await;
                }
            }
            finish_with_effects(write, fence, result, effects, run, now).await?
        }
        Outcome::Dead { reason, fault } => finish(write, fence, End::Dead { reason: &reason, fault }, run, now).await?,
        Outcome::Retry { after_ms, error, fault } => {
            let retry = sqlx::query(RETRY).bind(fence.id.to_string()).bind(fence.attempt);
            let due = now.saturating_add(rows::signed(after_ms));
            let done = retry
                .bind(due)
                .bind(error)
                .bind(crashes(fault))
                .bind(run.traceparent)
                .bind(run.progress)
                .execute(&mut **write)
                .await?;
            done.rows_affected() > 0
        }
        Outcome::Snooze { after_ms, reason } => {
            let snooze = sqlx::query(SNOOZE).bind(fence.id.to_string()).bind(fence.attempt);
            let due = now.saturating_add(rows::signed(after_ms));
            snooze.bind(due).bind(reason).bind(run.traceparent).execute(&mut **write).await?.rows_affected() > 0
        }
        Outcome::Release => {
            let release = sqlx::query(RELEASE).bind(fence.id.to_string()).bind(fence.attempt);
            release.bind(run.traceparent).execute(&mut **write).await?.rows_affected() > 0
        }
    };
    Ok(if written { Settled::Applied } else { Settled::Late })
}

/// Ends a job whose effect cannot be: for now if its channel is full, for good if there is none. Effects are looked at
/// before anything is written, so that one impossible effect costs its own job only.
async fn refuse(write: &mut Write, fence: Fence, trouble: Trouble, run: Ran, now: Millis) -> Inner<Settled> {
    let (written, answer) = match trouble {
        Trouble::Limit(CHANNEL_PENDING, reason) => {
            let postpone = sqlx::query(POSTPONE).bind(fence.id.to_string()).bind(fence.attempt);
            let due = now.saturating_add(rows::signed(FULL_RETRY_MS));
            let done = postpone.bind(due).bind(&reason).bind(run.traceparent).execute(&mut **write).await?;
            (done.rows_affected() > 0, Settled::Postponed { reason })
        }
        Trouble::NotFound(reason) | Trouble::Conflict(reason) => {
            let end = End::Dead { reason: &reason, fault: Fault::Failure };
            (finish(write, fence, end, run, now).await?, Settled::Refused { reason })
        }
        other => return Err(other),
    };
    Ok(if written { answer } else { Settled::Late })
}

/// Answers whether the claim was not lost.
async fn finish_with_effects(
    write: &mut Write,
    fence: Fence,
    result: Option<serde_json::Value>,
    effects: Vec<Effect>,
    run: Ran,
    now: Millis,
) -> Inner<bool> {
    if !finish(write, fence, End::Done { result }, run, now).await? {
        return Ok(false);
    }
    if !effects.is_empty() {
        seam!("inside_settle");
    }
    for Effect::Deliver(delivery) in &effects {
        deliveries::insert(write, delivery, now).await?;
    }
    Ok(true)
}

/// What is left of the run; nothing of one that nobody has heard of.
#[derive(Default)]
struct Ran {
    traceparent: Option<String>,
    progress: Option<String>,
}

/// Ends a job in whatever state it is. No fence is asked for, and the one of a present claim is void from now on.
pub(super) async fn cancel(store: &SqliteStore, tenant: &TenantId, id: Uuid, reason: &str) -> Inner<Option<Cancelled>> {
    let mut write = store.write().await?;
    let cancelled = match cancel_within(&mut write, tenant, id, reason, store.now()).await? {
        Some(row) => Some(Cancelled::Now(Box::new(rows::finished_job(&row)?))),
        None => {
            let ended = sqlx::query("SELECT * FROM jobs_done WHERE id = ?1 AND tenant = ?2");
            let row = ended.bind(id.to_string()).bind(tenant.as_str()).fetch_optional(&mut *write).await?;
            row.map(|row| Ok::<_, Trouble>(Cancelled::TooLate(Box::new(rows::finished_job(&row)?)))).transpose()?
        }
    };
    write.commit().await?;
    Ok(cancelled)
}

/// Ends jobs of a schedule that have not ended, the oldest ones, within the transaction of someone else, who is not stopped
/// by one that cannot be read.
pub(super) async fn cancel_live(
    write: &mut Write,
    schedule: &Schedule,
    most: usize,
    reason: &str,
    now: Millis,
) -> Inner<Vec<Fence>> {
    let live = sqlx::query(LIVE_OF).bind(schedule.id.to_string()).bind(most as i64).fetch_all(&mut **write).await?;
    let ids = live.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<Vec<&str>>>()?;
    let ids = json!(ids).to_string();
    let cancel = sqlx::query(CANCEL).bind(&ids).bind(schedule.tenant.as_str()).bind(now).bind(reason);
    cancel.execute(&mut **write).await?;
    let leave = sqlx::query("DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?1))").bind(&ids);
    leave.execute(&mut **write).await?;
    live.iter().map(|row| Ok(Fence { id: row.id("id")?, attempt: row.number("attempt")? })).collect()
}

async fn cancel_within(
    write: &mut Write,
    tenant: &TenantId,
    id: Uuid,
    reason: &str,
    now: Millis,
) -> Inner<Option<SqliteRow>> {
    let one = json!([id]).to_string();
    let cancel = sqlx::query(CANCEL).bind(one).bind(tenant.as_str()).bind(now).bind(reason);
    let Some(row) = cancel.fetch_optional(&mut **write).await? else { return Ok(None) };
    seam!("inside_cancel");
    leave(write, &id.to_string()).await?;
    Ok(Some(row))
}

/// Ends a claimed job that cannot be read.
pub(super) async fn bury(write: &mut Write, row: &SqliteRow, what: &str, now: Millis) -> Inner<()> {
    let (id, attempt): (&str, i64) = (row.try_get("id")?, row.try_get("attempt")?);
    tracing::error!(id, what, "a job cannot be read, it is dead");
    let reason = ending::unreadable(what);
    finish_as(write, id, attempt, End::Dead { reason: &reason, fault: Fault::Failure }, Ran::default(), now)
        .await
        .map(drop)
}

/// Moves a job to the finished ones, if the fence still holds.
async fn finish(write: &mut Write, fence: Fence, end: End<'_>, run: Ran, now: Millis) -> Inner<bool> {
    finish_as(write, &fence.id.to_string(), fence.attempt.into(), end, run, now).await
}

async fn finish_as(write: &mut Write, id: &str, attempt: i64, end: End<'_>, run: Ran, now: Millis) -> Inner<bool> {
    let (state, reason, fault, result) = match end {
        End::Done { result } => ("done", None, Fault::Failure, result.map(|result| result.to_string())),
        End::Dead { reason, fault } => ("dead", Some(reason), fault, None),
    };
    let moved = sqlx::query(FINISH)
        .bind(id)
        .bind(attempt)
        .bind(state)
        .bind(crashes(fault))
        .bind(now)
        .bind(reason)
        .bind(result)
        .bind(run.traceparent)
        .bind(run.progress)
        .execute(&mut **write)
        .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    leave(write, id).await?;
    Ok(true)
}

/// Takes a job that has ended out of the live ones. A fire that waited for it need not wait any more.
async fn leave(write: &mut Write, id: &str) -> Inner<()> {
    let delete = sqlx::query_scalar("DELETE FROM jobs WHERE id = ?1 RETURNING schedule_id").bind(id);
    let schedule: Option<Option<String>> = delete.fetch_optional(&mut **write).await?;
    match schedule.flatten() {
        Some(schedule) => fires::release(write, &schedule).await,
        None => Ok(()),
    }
}

pub(super) async fn sweep(store: &SqliteStore, crashes_max: u32, limit: u32) -> Inner<SweepReport> {
    let now = store.now();
    let mut write = store.write_alone().await?;
    let shorten = sqlx::query(SHORTEN).bind(now).bind(ending::LEASE_MAX_MS).bind(ending::LEASE_LEFT_MS);
    shorten.execute(&mut *write).await?;
    sqlx::query(LET_GO).bind(now).execute(&mut *write).await?;
    let lost = sqlx::query(LOST_TOO_OFTEN).bind(now).bind(crashes_max).bind(limit).fetch_all(&mut *write).await?;
    for row in &lost {
        let crashes = row.try_get::<i64, _>("crashes")? + 1;
        quarantine(&mut write, row.try_get("id")?, row.try_get("attempt")?, crashes, now).await?;
    }
    seam!("inside_sweep");
    let rescue = sqlx::query(RESCUE).bind(now).bind(crashes_max).bind(limit);
    let rescued = rescue.execute(&mut *write).await?.rows_affected();
    write.commit().await?;
    Ok(SweepReport { rescued, quarantined: lost.len() as u64 })
}

async fn quarantine(write: &mut Write, id: &str, attempt: i64, crashes: i64, now: Millis) -> Inner<bool> {
    let reason = ending::quarantined(crashes);
    finish_as(write, id, attempt, End::Dead { reason: &reason, fault: Fault::Crash }, Ran::default(), now).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Cadence;
    use crate::store::contract::tenant;
    use crate::store::sqlite::tests::{execute, open_in, plan};
    use crate::store::{FireDue, JobState, NewSchedule, Overlap, Policies, Store};

    #[tokio::test]
    async fn a_fire_cancels_a_job_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let (store, clock) = open_in(&directory).await;
        let fire = FireDue { limit: 9, catch_up_window_ms: 3_600_000 };
        let policies = Policies { overlap: Overlap::CancelPrevious, ..Policies::default() };
        let every = Cadence::every(10_000).unwrap();
        let new = NewSchedule { policies, ..NewSchedule::new(tenant("demo"), every, "publish", json!({})) };
        store.create_schedule(new).await.unwrap();
        let first = store.fire_due(fire).await.unwrap().fired.remove(0);
        let damage = sqlx::query("UPDATE jobs SET priority = 5000000000 WHERE id = ?1").bind(first.job.to_string());
        execute(&store, damage).await;
        clock.advance(10_000);
        let report = store.fire_due(fire).await.unwrap();
        assert_eq!(report.cancelled.iter().map(|fence| fence.id).collect::<Vec<_>>(), [first.job]);
        let second = store.get_job(&tenant("demo"), report.fired[0].job).await.unwrap().unwrap();
        assert_eq!(second.state, JobState::Ready);
    }

    #[tokio::test]
    async fn a_sweep_reads_what_it_looks_for_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for (sql, index) in
            [(SHORTEN, "jobs_lease"), (LET_GO, "shares_held"), (LOST_TOO_OFTEN, "jobs_lease"), (RESCUE, "jobs_lease")]
        {
            let steps = plan(&store, sql).await;
            assert!(steps.iter().any(|step| step.contains(index)), "{sql}: {steps:#?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN jobs")), "{sql}: {steps:#?}");
        }
    }
}
