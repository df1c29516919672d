//! Claiming jobs, in two levels: first whose turn it is, then that tenant's most urgent jobs.
//!
//! The cost follows the number of *tenants* that wait, never the number of jobs: the list of tenants is a walk over the
//! index that jumps from one tenant to the next. So 200,000 jobs of one tenant delay another's by one turn.

use std::collections::{HashMap, VecDeque};

use sqlx::sqlite::SqliteRow;

use super::{Inner, SqliteStore, Write, rows, settle};
use crate::model::Millis;
use crate::store::error::Trouble;
use crate::store::{ClaimJobs, ClaimedJobs, Job};

/// Waiting jobs whose time has come that one claim makes ready at most.
const PROMOTE_MAX: u32 = 500;

const PROMOTE: &str = "
    UPDATE jobs SET state = 'ready'
    WHERE id IN (SELECT id FROM jobs WHERE state = 'waiting' AND run_at_ms <= ?1 ORDER BY run_at_ms LIMIT ?2)";

const RUNNING: &str = "SELECT tenant, count(*) FROM jobs WHERE state = 'running' AND queue = ?1 GROUP BY tenant";

const WAITING_TENANTS: &str = "
    WITH RECURSIVE waiting (tenant) AS (
        SELECT min(tenant) FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?1
        UNION ALL
        SELECT (SELECT min(tenant) FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?1 AND tenant > waiting.tenant)
        FROM waiting WHERE waiting.tenant IS NOT NULL
    )
    SELECT waiting.tenant FROM waiting
    LEFT JOIN turns ON turns.queue = ?1 AND turns.tenant = waiting.tenant
    WHERE waiting.tenant IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = waiting.tenant AND tenants.disabled_at_ms IS NOT NULL)
    ORDER BY coalesce(turns.turn, 0), waiting.tenant
    LIMIT ?2";

const TAKE: &str = "
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?1, claimed_at_ms = ?2, lease_until_ms = ?3
    WHERE id IN (SELECT id FROM jobs WHERE state = 'ready' AND suspect = 0 AND queue = ?4 AND tenant = ?5
                 ORDER BY priority, run_at_ms, id LIMIT ?6)
    RETURNING *";

// A process has one suspect at a time, so that the next loss of a runner falls on the culprit and not on those beside it.
const TAKE_SUSPECT: &str = "
    UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?1, claimed_at_ms = ?2, lease_until_ms = ?3
    WHERE id = (SELECT id FROM jobs AS suspects WHERE suspect = 1 AND state = 'ready' AND queue = ?4
                      AND (SELECT count(*) FROM jobs WHERE state = 'running' AND queue = ?4
                                                           AND tenant = suspects.tenant) < ?5
                      AND NOT EXISTS (SELECT 1 FROM tenants WHERE tenants.id = suspects.tenant
                                                                  AND tenants.disabled_at_ms IS NOT NULL)
                ORDER BY claimed_at_ms, id LIMIT 1)
          AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_suspect
                          WHERE suspect = 1 AND state = 'running' AND owner = ?1)
    RETURNING *";

const TURN: &str = "
    INSERT INTO turns (queue, tenant, turn)
    VALUES (?1, ?2, (SELECT coalesce(max(turn), 0) + ?3 FROM turns WHERE queue = ?1))
    ON CONFLICT (queue, tenant) DO UPDATE SET turn = excluded.turn";

pub(super) async fn claim(store: &SqliteStore, claim: ClaimJobs<'_>) -> Inner<ClaimedJobs> {
    let now = store.now();
    let mut write = store.write().await?;
    sqlx::query(PROMOTE).bind(now).bind(PROMOTE_MAX).execute(&mut *write).await?;
    let mut taken: Vec<(String, Vec<Job>)> = Vec::new();
    let suspect = if claim.limit > 0 { take_suspect(&mut write, &claim, now).await? } else { Vec::new() };
    let mut left = claim.limit - suspect.len() as u32;
    if let Some(tenant) = suspect.first().map(|job| job.tenant.to_string()) {
        keep(&mut taken, tenant, suspect);
    }
    let mut candidates = candidates(&mut write, &claim).await?;
    // Each pass gives every tenant an equal share; who had less than its share falls out, and the rest is shared again.
    while left > 0 && !candidates.is_empty() {
        let share = left.div_ceil(candidates.len() as u32);
        let mut hungry = Vec::new();
        for (tenant, room) in candidates {
            let wanted = share.min(room).min(left);
            let jobs = if wanted > 0 { take(&mut write, &claim, &tenant, wanted, now).await? } else { Vec::new() };
            let got = jobs.len() as u32;
            left -= got.min(left);
            if got == wanted && room > got && got > 0 {
                hungry.push((tenant.clone(), room - got));
            }
            keep(&mut taken, tenant, jobs);
        }
        candidates = hungry;
    }
    pass_the_turn(&mut write, claim.queue, &taken).await?;
    let next: Option<Millis> =
        sqlx::query_scalar("SELECT min(run_at_ms) FROM jobs WHERE state = 'waiting'").fetch_one(&mut *write).await?;
    write.commit().await?;
    let jobs = alternate(taken.into_iter().map(|(_, jobs)| jobs.into()).collect());
    Ok(ClaimedJobs { jobs, next_due_in_ms: rows::until(next, now) })
}

/// Tenants that wait, the one with the oldest turn first, each with how many more of its jobs may run.
async fn candidates(write: &mut Write, claim: &ClaimJobs<'_>) -> Inner<Vec<(String, u32)>> {
    let running: HashMap<String, u32> =
        sqlx::query_as(RUNNING).bind(claim.queue).fetch_all(&mut **write).await?.into_iter().collect();
    // One more for each tenant that may turn out to be at its limit.
    let most = claim.limit.saturating_add(running.len() as u32);
    let waiting: Vec<String> =
        sqlx::query_scalar(WAITING_TENANTS).bind(claim.queue).bind(most).fetch_all(&mut **write).await?;
    let with_room = waiting.into_iter().filter_map(|tenant| {
        let room = claim.tenant_running_max.saturating_sub(running.get(&tenant).copied().unwrap_or(0));
        (room > 0).then_some((tenant, room))
    });
    Ok(with_room.take(claim.limit as usize).collect())
}

async fn take(write: &mut Write, claim: &ClaimJobs<'_>, tenant: &str, count: u32, now: Millis) -> Inner<Vec<Job>> {
    let taken = sqlx::query(TAKE)
        .bind(claim.owner.to_string())
        .bind(now)
        .bind(now.saturating_add(rows::signed(claim.lease_ms)))
        .bind(claim.queue)
        .bind(tenant)
        .bind(count)
        .fetch_all(&mut **write)
        .await?;
    read_or_bury(write, &taken, now).await
}

/// At most one.
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
    // An update answers in no order.
    jobs.sort_by_key(|job| (job.priority, job.run_at_ms, job.id));
    Ok(jobs)
}

fn keep(taken: &mut Vec<(String, Vec<Job>)>, tenant: String, jobs: Vec<Job>) {
    match taken.iter_mut().find(|(known, _)| *known == tenant) {
        Some((_, earlier)) => earlier.extend(jobs),
        None if jobs.is_empty() => {}
        None => taken.push((tenant, jobs)),
    }
}

/// All who were served now have had the same, newest turn.
async fn pass_the_turn(write: &mut Write, queue: &str, served: &[(String, Vec<Job>)]) -> Inner<()> {
    for (position, (tenant, _)) in served.iter().enumerate() {
        let step = i64::from(position == 0);
        sqlx::query(TURN).bind(queue).bind(tenant).bind(step).execute(&mut **write).await?;
    }
    Ok(())
}

/// One job of each tenant, then the second of each, and so on.
fn alternate(mut of_each: VecDeque<VecDeque<Job>>) -> Vec<Job> {
    let mut order = Vec::with_capacity(of_each.iter().map(VecDeque::len).sum());
    while let Some(mut jobs) = of_each.pop_front() {
        if let Some(job) = jobs.pop_front() {
            order.push(job);
            of_each.push_back(jobs);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{LEASE_MS, new_job};
    use crate::store::sqlite::tests::{open_in, plan};
    use crate::store::{JobState, Store};

    #[tokio::test]
    async fn a_job_that_cannot_be_read_is_dead_and_stops_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        let jobs = store.enqueue(vec![new_job("demo"), new_job("demo"), new_job("demo")]).await.unwrap();
        let damage = "UPDATE jobs SET schedule_id = 'no id' WHERE id = ?1";
        let damaged = sqlx::query(damage).bind(jobs[1].id.to_string());
        damaged.execute(&store.writer().unwrap()).await.unwrap();
        let owner = uuid::Uuid::now_v7();
        let request = ClaimJobs { queue: "default", owner, lease_ms: LEASE_MS, limit: 9, tenant_running_max: 9 };
        let claimed = store.claim(request).await.unwrap().jobs;
        assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id, jobs[2].id]);
        assert_eq!(store.job_counts().await.unwrap().dead, 1);
        let undamaged = store.get_job(&jobs[0].tenant, jobs[0].id).await.unwrap().unwrap();
        assert_eq!(undamaged.state, JobState::Running);
        assert_eq!(store.get_job(&jobs[1].tenant, jobs[1].id).await.unwrap_err().kind(), "corrupt");
    }

    #[tokio::test]
    async fn a_claim_walks_over_indexes_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in [PROMOTE, RUNNING, WAITING_TENANTS, TAKE, TAKE_SUSPECT] {
            let steps = plan(&store, sql).await;
            let scans = steps.iter().any(|step| step.starts_with("SCAN jobs"));
            assert!(!scans && steps.iter().any(|step| step.contains("INDEX")), "{sql}: {steps:#?}");
        }
    }
}
