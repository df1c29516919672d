//! Whose turn it is while others are still writing, and among many.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::query;
use uuid::Uuid;

use super::tests::open_real;
use super::{PostgresStore, Run, Session, Write};
use crate::model::{TenantId, new_id};
use crate::store::contract::new_job;
use crate::store::rows::Columns;
use crate::store::{ClaimJobs, Fault, Job, KeyHash, NewJob, Outcome, Quotas, Settlement, Store};

async fn claimed(store: &PostgresStore, limit: u32, tenant_running_max: u32) -> Vec<Uuid> {
    let claim = ClaimJobs { queue: "default", owner: new_id(), lease_ms: 60_000, limit, tenant_running_max };
    store.claim(claim).await.unwrap().jobs.iter().map(|job| job.id).collect()
}

/// Moves a job aside, in a transaction that is still open.
async fn under_way<'s>(session: &'s mut Session, sql: &'static str, id: Uuid) -> Write<'s> {
    let mut write = session.begin().await.unwrap();
    assert_eq!(write.execute(query(sql).bind(id)).await.unwrap(), 1);
    write
}

#[tokio::test]
async fn a_job_whose_tenant_is_drained_before_it_is_committed_is_claimed_afterwards() {
    let Some(store) = open_real().await else { return };
    let first = store.enqueue(vec![new_job("demo")]).await.unwrap().remove(0);
    let mut session = store.session().await.unwrap();
    let again = "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms,
                                   created_at_ms)
                 SELECT gen_random_uuid(), tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms,
                        created_at_ms FROM jobs WHERE id = $1";
    let write = under_way(&mut session, again, first.id).await;
    assert_eq!(claimed(&store, 10, 10).await, [first.id]);
    assert!(claimed(&store, 10, 10).await.is_empty());
    write.commit().await.unwrap();
    assert_eq!(claimed(&store, 10, 10).await.len(), 1);
}

#[tokio::test]
async fn a_tenant_that_is_held_while_one_of_its_jobs_ends_is_served_when_it_has() {
    let Some(store) = open_real().await else { return };
    store.enqueue(vec![new_job("demo"), new_job("demo")]).await.unwrap();
    let first = claimed(&store, 10, 1).await[0];
    let mut session = store.session().await.unwrap();
    let write = under_way(&mut session, "DELETE FROM jobs WHERE id = $1", first).await;
    assert!(claimed(&store, 10, 1).await.is_empty());
    write.commit().await.unwrap();
    assert_eq!(claimed(&store, 10, 1).await.len(), 1);
}

#[tokio::test]
async fn tenants_whose_jobs_were_cancelled_hide_no_other() {
    let Some(store) = open_real().await else { return };
    for n in 0..40 {
        let job = store.enqueue(vec![new_job(&format!("gone-{n}"))]).await.unwrap().remove(0);
        store.cancel_job(&job.tenant, job.id, "no longer wanted").await.unwrap().unwrap();
    }
    let there = store.enqueue(vec![new_job("there")]).await.unwrap().remove(0);
    assert_eq!(claimed(&store, 5, 10).await, [there.id]);
}

#[tokio::test]
async fn more_word_than_one_claim_takes_is_left_to_the_next() {
    let Some(store) = open_real().await else { return };
    let much = "INSERT INTO arrivals (queue, tenant) SELECT 'other', 'demo' FROM generate_series(1, 30000)";
    store.session().await.unwrap().execute(query(much)).await.unwrap();
    let job = store.enqueue(vec![new_job("demo")]).await.unwrap().remove(0);
    assert_eq!([claimed(&store, 5, 10).await, claimed(&store, 5, 10).await].concat(), [job.id]);
}

#[tokio::test]
async fn a_claim_that_has_not_taken_all_word_says_that_there_is_more() {
    let Some(store) = open_real().await else { return };
    let claim = ClaimJobs { queue: "default", owner: new_id(), lease_ms: 60_000, limit: 5, tenant_running_max: 5 };
    for much in [
        "INSERT INTO arrivals (queue, tenant) SELECT 'other', 'demo' FROM generate_series(1, 30000)",
        "INSERT INTO departures (tenant) SELECT 'demo' FROM generate_series(1, 30000)",
    ] {
        store.session().await.unwrap().execute(query(much)).await.unwrap();
        assert_eq!(store.claim(claim).await.unwrap().next_due_in_ms, Some(0), "{much}");
        assert_eq!(store.claim(claim).await.unwrap().next_due_in_ms, None, "{much}");
    }
}

#[tokio::test]
async fn what_is_claimed_is_written_down_when_the_claim_is_answered() {
    let Some(store) = open_real().await else { return };
    store.enqueue(vec![new_job("demo")]).await.unwrap();
    let position = async |of: &'static str| {
        let sql = sqlx::AssertSqlSafe(format!("SELECT ({of}() - '0/0'::pg_lsn)::bigint AS position"));
        store.session().await.unwrap().one(query(sql)).await.unwrap().number::<u64>("position").unwrap()
    };
    let before = position("pg_current_wal_insert_lsn").await;
    assert_eq!(claimed(&store, 5, 5).await.len(), 1);
    let written = position("pg_current_wal_flush_lsn").await;
    assert!(written > before, "written up to {written}, and the claim began at {before}");
}

#[tokio::test]
async fn a_tenant_that_weighs_much_gets_its_share_though_few_jobs_of_each_are_counted() {
    let Some(store) = open_real().await else { return };
    let heavy = TenantId::new("heavy").unwrap();
    store.create_tenant(&heavy, &KeyHash::of("heavy")).await.unwrap();
    store.set_tenant_quotas(&heavy, Quotas { job_weight: Some(1_000), ..Quotas::default() }).await.unwrap();
    let of = |tenant: TenantId| (0..60).map(move |_| NewJob::new(tenant.clone(), "demo", serde_json::json!({})));
    for n in 0..20 {
        store.enqueue(of(TenantId::new(format!("light-{n}")).unwrap()).collect()).await.unwrap();
    }
    let ours: Vec<Uuid> = store.enqueue(of(heavy).collect()).await.unwrap().iter().map(|job| job.id).collect();
    let taken = claimed(&store, 60, 100).await;
    assert_eq!(taken.iter().filter(|id| ours.contains(id)).count(), 40, "one of each light tenant, and the rest");
}

#[tokio::test]
async fn of_many_who_enqueue_claim_and_end_at_once_no_job_is_forgotten() {
    let Some(store) = open_real().await else { return };
    let claims = async |limit: u32, ends: &[Outcome]| {
        // Two of a tenant run at a time: they are held and let go all the while.
        let claim = ClaimJobs { queue: "default", owner: new_id(), lease_ms: 60_000, limit, tenant_running_max: 2 };
        let jobs = store.claim(claim).await.unwrap().jobs;
        let end = |job: &Job| Settlement::new(job.fence(), ends[fastrand::usize(..ends.len())].clone());
        store.settle(jobs.iter().map(end).collect()).await.unwrap();
    };
    let done = Outcome::Done { result: None };
    let again = Outcome::Retry { after_ms: 0, error: "again".to_owned(), fault: Fault::Failure };
    let ends = [done.clone(), done.clone(), again, Outcome::Release];
    let one = async || {
        for _ in 0..60 {
            match fastrand::bool() {
                true => drop(store.enqueue(vec![new_job(&format!("t{}", fastrand::u8(..5)))]).await.unwrap()),
                false => claims(fastrand::u32(1..10), &ends).await,
            }
        }
    };
    join_all((0..6).map(|_| one())).await;
    let all_end = async {
        loop {
            let counts = store.job_counts().await.unwrap();
            if counts.waiting + counts.ready + counts.running == 0 {
                return counts.done;
            }
            claims(100, std::slice::from_ref(&done)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), all_end).await;
    assert!(ended.expect("a job is forgotten") > 50);
}
