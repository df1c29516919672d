//! Who gets which job, and in which order.

use super::*;
use std::collections::BTreeMap;

pub(crate) async fn a_claimed_job_is_nobody_elses(fixture: &Fixture) {
    fixture.enqueue((0..10).map(|_| new_job("demo")).collect()).await;
    let (one, two) = tokio::join!(fixture.claim(10), fixture.claim(10));
    let mut ids: Vec<Uuid> = one.iter().chain(&two).map(|job| job.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), one.len() + two.len()), (10, 10));
    assert!(one.iter().chain(&two).all(|job| job.attempt == 1 && job.claimed_at_ms == Some(START_MS)));
}

pub(crate) async fn urgent_jobs_come_first_then_old_ones(fixture: &Fixture) {
    let (old, new, urgent) =
        (new_job("demo"), new_job("demo"), NewJob { priority: -1, run_at_ms: Some(START_MS + 2), ..new_job("demo") });
    fixture.enqueue(vec![NewJob { run_at_ms: Some(START_MS + 1), ..new.clone() }, old.clone(), urgent.clone()]).await;
    fixture.advance(5);
    let order: Vec<Uuid> = fixture.claim(3).await.iter().map(|job| job.id).collect();
    assert_eq!(order, [urgent.id, old.id, new.id]);
}

pub(crate) async fn a_job_for_later_waits_for_its_time(fixture: &Fixture) {
    fixture.enqueue(vec![NewJob { run_at_ms: Some(START_MS + 5_000), ..new_job("demo") }]).await;
    let early = fixture.store.claim(fixture.request(1)).await.unwrap();
    assert_eq!((early.jobs.len(), early.next_due_in_ms), (0, Some(5_000)));
    fixture.advance(5_000);
    let due = fixture.store.claim(fixture.request(1)).await.unwrap();
    assert_eq!((due.jobs.len(), due.next_due_in_ms), (1, None));
}

pub(crate) async fn every_tenant_gets_its_turn_beside_a_noisy_one(fixture: &Fixture) {
    fixture.enqueue((0..2_000).map(|_| new_job("noisy")).collect()).await;
    fixture.enqueue((0..100).map(|n| new_job(&format!("quiet-{n}"))).collect()).await;
    let mut quiet = 0;
    let mut claimed = 0;
    while quiet < 100 {
        let jobs = fixture.claim(10).await;
        claimed += jobs.len();
        quiet += jobs.iter().filter(|job| job.tenant.as_str() != "noisy").count();
    }
    assert!(claimed <= 110, "the last quiet job was number {claimed}");
}

pub(crate) async fn tenants_take_turns_when_a_batch_is_smaller_than_their_number(fixture: &Fixture) {
    for n in 0..20 {
        fixture.enqueue((0..10).map(|_| new_job(&format!("t-{n:02}"))).collect()).await;
    }
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..8 {
        for job in fixture.claim(5).await {
            *served.entry(job.tenant.to_string()).or_default() += 1;
        }
    }
    assert_eq!(served.len(), 20);
    assert!(served.values().all(|count| *count == 2), "{served:?}");
}

pub(crate) async fn one_claim_alternates_between_tenants(fixture: &Fixture) {
    for of in ["a", "b", "c"] {
        fixture.enqueue((0..5).map(|_| new_job(of)).collect()).await;
    }
    let order: Vec<String> = fixture.claim(6).await.iter().map(|job| job.tenant.to_string()).collect();
    assert_eq!(order, ["a", "b", "c", "a", "b", "c"]);
}

pub(crate) async fn a_tenant_at_its_limit_leaves_room_for_others(fixture: &Fixture) {
    fixture.enqueue((0..50).map(|_| new_job("a-hog")).collect()).await;
    fixture.enqueue((0..3).map(|_| new_job("other")).collect()).await;
    let limited = |limit| ClaimJobs { tenant_running_max: 4, ..fixture.request(limit) };
    let mut running: BTreeMap<String, Vec<Job>> = BTreeMap::new();
    for job in fixture.store.claim(limited(20)).await.unwrap().jobs {
        running.entry(job.tenant.to_string()).or_default().push(job);
    }
    assert_eq!((running["a-hog"].len(), running["other"].len()), (4, 3));
    assert!(fixture.store.claim(limited(20)).await.unwrap().jobs.is_empty());
    fixture.settle(running["a-hog"][0].fence(), Outcome::Done { result: None }).await;
    assert_eq!(fixture.store.claim(limited(20)).await.unwrap().jobs.len(), 1);
}

pub(crate) async fn queues_do_not_mix(fixture: &Fixture) {
    fixture.enqueue(vec![NewJob { queue: "slow".to_owned(), ..new_job("demo") }]).await;
    assert!(fixture.claim(1).await.is_empty());
    let slow = fixture.store.claim(ClaimJobs { queue: "slow", ..fixture.request(1) }).await.unwrap();
    assert_eq!(slow.jobs.len(), 1);
}

pub(crate) async fn a_full_batch_goes_to_the_only_tenant_that_waits(fixture: &Fixture) {
    fixture.enqueue((0..3).map(|n| new_job(&format!("small-{n}"))).collect()).await;
    fixture.enqueue((0..100).map(|_| new_job("big")).collect()).await;
    assert_eq!(fixture.claim(50).await.len(), 50);
    assert_eq!(fixture.claim(50).await.len(), 50);
    assert_eq!(fixture.claim(50).await.len(), 3);
}
