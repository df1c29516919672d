//! Who waits for a lock that another has goes on when it is let go, with what is then true; and no two wait for each other.

use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::tests::{open_real, open_with_clock};
use super::*;
use crate::jobs::Cadence;
use crate::store::contract::{LEASE_MS, new_job, tenant};
use crate::store::{ClaimJobs, FireDue, JobState, KeyHash, NewJob, NewSchedule, Overlap, Policies, Quotas, Store};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until another connection waits for a lock that this one has.
async fn until_somebody_waits(write: &mut Write<'_>) {
    // Not of `pg_stat_activity`, which stays as the transaction has seen it first.
    let waiting = "SELECT count(*) AS waiting FROM pg_locks
                   WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    let look = async { while write.one(sqlx::query(waiting)).await.unwrap().number::<i64>("waiting").unwrap() == 0 {} };
    timeout(PATIENCE, look).await.expect("nobody waits");
}

/// Everything that a redrive has to wait for, so that the job can end behind its first look and before its second.
#[tokio::test]
async fn a_job_that_ends_while_it_is_redriven_is_found() {
    let Some(store) = open_real().await else { return };
    let demo = tenant("demo");
    let id = store.enqueue(vec![new_job("demo")]).await.unwrap().remove(0).id;
    let mut other = store.session().await.unwrap();
    let mut write = other.begin().await.unwrap();
    write.execute(sqlx::query("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    let end_it = async {
        until_somebody_waits(&mut write).await;
        settle::cancel_live(&mut write, &demo, vec![id], "too late").await.unwrap();
        write.commit().await.unwrap();
    };
    let (redriven, ()) = tokio::join!(store.redrive_job(&demo, id), end_it);
    assert_eq!(redriven.unwrap().state, JobState::Ready);
}

#[tokio::test]
async fn a_claim_waits_for_no_job_that_another_has_locked_and_does_not_come_again_at_once() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let (owner, lease_ms) = (fixture.owner, LEASE_MS);
    let claim = ClaimJobs { queue: "default", owner, lease_ms, limit: 9, tenant_running_max: 9 };
    // One that has lost its runner is a suspect, and one comes due.
    store.enqueue(vec![new_job("demo")]).await.unwrap();
    assert_eq!(store.claim(claim).await.unwrap().jobs.len(), 1);
    fixture.clock.advance(LEASE_MS as i64 + 1);
    assert_eq!(store.sweep(3, 9).await.unwrap().rescued, 1);
    assert_eq!(store.claim(claim).await.unwrap().jobs.len(), 1);
    fixture.clock.advance(LEASE_MS as i64 + 1);
    assert_eq!(store.sweep(3, 9).await.unwrap().rescued, 1);
    let later = NewJob { run_at_ms: Some(fixture.clock.now_ms() + 10), ..new_job("demo") };
    store.enqueue(vec![later]).await.unwrap();
    fixture.clock.advance(10);
    let mut other = store.session().await.unwrap();
    let mut write = other.begin().await.unwrap();
    assert_eq!(write.all(sqlx::query("SELECT 1 FROM jobs FOR UPDATE")).await.unwrap().len(), 2);
    let claimed = store.claim(claim).await.unwrap();
    assert_eq!((claimed.jobs.len(), claimed.next_due_in_ms), (0, None));
    write.rollback().await.unwrap();
    assert_eq!(store.claim(claim).await.unwrap().jobs.len(), 2);
}

#[tokio::test]
async fn jobs_that_a_fire_cancels_may_end_at_the_same_moment() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let demo = tenant("demo");
    let policies = Policies { overlap: Overlap::CancelPrevious, ..Policies::default() };
    let cadence = Cadence::every(10_000).unwrap();
    let schedule = NewSchedule { policies, ..NewSchedule::new(demo.clone(), cadence, "publish", json!({})) };
    let schedule = store.create_schedule(schedule).await.unwrap().id;
    let fire = FireDue { limit: 9, catch_up_window_ms: 3_600_000 };
    store.fire_due(fire).await.unwrap();
    fixture.clock.advance(10_500);
    for n in 0..2 {
        // The earlier one has the larger id.
        let jobs = [u128::MAX - n, n].map(Uuid::from_u128);
        for job in jobs {
            store.trigger_schedule(&demo, schedule, job, Some(Overlap::Allow)).await.unwrap();
        }
        let mut other = store.session().await.unwrap();
        let mut write = other.begin().await.unwrap();
        let lock = |id: Uuid| sqlx::query("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE").bind(id);
        write.execute(lock(jobs[1])).await.unwrap();
        let fire = async {
            match n {
                0 => drop(store.trigger_schedule(&demo, schedule, Uuid::now_v7(), None).await.unwrap().unwrap()),
                _ => assert_eq!(store.fire_due(fire).await.unwrap().fired.len(), 1),
            }
        };
        let end_them = async {
            until_somebody_waits(&mut write).await;
            write.execute(lock(jobs[0])).await.unwrap();
            write.rollback().await.unwrap();
        };
        tokio::join!(fire, end_them);
        for job in jobs {
            let job = store.get_job(&demo, job).await.unwrap().unwrap();
            assert_eq!(job.state, JobState::Cancelled, "{n}");
        }
    }
}

/// A tenant that may have `most` jobs queued, and one who keeps all others from adding any.
async fn full_soon<'s>(store: &PostgresStore, other: &'s mut Session, most: u32) -> Write<'s> {
    let demo = tenant("demo");
    store.create_tenant(&demo, &KeyHash::of("demo")).await.unwrap();
    store.set_tenant_quotas(&demo, Quotas { jobs_queued: Some(most), ..Quotas::default() }).await.unwrap();
    let mut write = other.begin().await.unwrap();
    loads::lock(&mut write, vec![demo.to_string()]).await.unwrap();
    write
}

/// Fills the tenant's room, but for `left`, while somebody waits to add a job.
async fn fill(mut write: Write<'_>, number: u32) {
    until_somebody_waits(&mut write).await;
    let jobs: Vec<NewJob> = (0..number).map(|_| new_job("demo")).collect();
    jobs::keep(&mut write, &jobs).await.unwrap();
    write.commit().await.unwrap();
}

#[tokio::test]
async fn a_job_that_was_to_be_added_far_from_the_limit_and_finds_it_near_is_the_last_one() {
    let Some(store) = open_real().await else { return };
    let far = "SELECT 8 * current_setting('max_connections')::bigint AS far";
    let most = store.session().await.unwrap().one(sqlx::query(far)).await.unwrap().number::<u32>("far").unwrap();
    let mut other = store.session().await.unwrap();
    let write = full_soon(&store, &mut other, most).await;
    let (added, ()) = tokio::join!(store.enqueue(vec![new_job("demo")]), fill(write, most - 1));
    assert_eq!(added.unwrap().len(), 1);
    assert_eq!(store.enqueue(vec![new_job("demo")]).await.unwrap_err().kind(), "limit");
}

#[tokio::test]
async fn a_tenant_that_fills_its_room_during_a_look_keeps_no_other_schedule_from_firing() {
    let Some((store, _)) = open_with_clock().await else { return };
    for of in ["demo", "other"] {
        let cadence = Cadence::every(10_000).unwrap();
        store.create_schedule(NewSchedule::new(tenant(of), cadence, "publish", json!({}))).await.unwrap();
    }
    let mut other = store.session().await.unwrap();
    let write = full_soon(&store, &mut other, 1).await;
    let fire = FireDue { limit: 9, catch_up_window_ms: 3_600_000 };
    let (report, ()) = tokio::join!(store.fire_due(fire), fill(write, 1));
    let report = report.unwrap();
    assert_eq!((report.fired.len(), report.missed), (1, 1));
}
