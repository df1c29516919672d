//! What a tenant's own weight and limits do to its jobs.

use std::collections::BTreeMap;

use super::schedules::{every, fire};
use super::*;
use crate::store::{Fault, KeyHash, Quotas, StoreError};

/// Makes a tenant with limits of its own.
async fn limited(fixture: &Fixture, name: &str, quotas: Quotas) -> TenantId {
    let id = tenant(name);
    fixture.store.create_tenant(&id, &KeyHash::of(name)).await.unwrap();
    fixture.store.set_tenant_quotas(&id, quotas).await.unwrap();
    id
}

async fn enqueue(fixture: &Fixture, of: &str, count: u32) -> Vec<Job> {
    fixture.enqueue((0..count).map(|_| new_job(of)).collect()).await
}

fn of_each(jobs: &[Job]) -> BTreeMap<&str, u32> {
    let mut of_each = BTreeMap::new();
    jobs.iter().for_each(|job| *of_each.entry(job.tenant.as_str()).or_default() += 1);
    of_each
}

/// Claims and finishes so many.
async fn served(fixture: &Fixture, limit: u32) -> Vec<Job> {
    let jobs = fixture.claim(limit).await;
    let ends = jobs.iter().map(|job| Settlement::new(job.fence(), DONE)).collect();
    fixture.store.settle(ends).await.unwrap();
    jobs
}

pub(crate) async fn jobs_are_claimed_by_the_weight_of_their_tenants(fixture: &Fixture) {
    limited(fixture, "heavy", Quotas { job_weight: Some(4), ..Quotas::default() }).await;
    for of in ["heavy", "light", "slight"] {
        enqueue(fixture, of, 100).await;
    }
    assert_eq!(of_each(&fixture.claim(30).await), BTreeMap::from([("heavy", 20), ("light", 5), ("slight", 5)]));
    let mut one_by_one = Vec::new();
    for _ in 0..30 {
        one_by_one.extend(fixture.claim(1).await);
    }
    assert_eq!(of_each(&one_by_one), BTreeMap::from([("heavy", 20), ("light", 5), ("slight", 5)]));
}

pub(crate) async fn whoever_comes_back_after_a_rest_has_saved_up_nothing(fixture: &Fixture) {
    enqueue(fixture, "early", 1).await;
    enqueue(fixture, "busy", 200).await;
    served(fixture, 100).await;
    enqueue(fixture, "early", 100).await;
    let jobs = served(fixture, 60).await;
    assert!(of_each(&jobs)["busy"] >= 29, "{:?}", of_each(&jobs));
}

pub(crate) async fn a_tenants_own_limit_of_running_jobs_lies_over_the_default(fixture: &Fixture) {
    limited(fixture, "more", Quotas { jobs_running: Some(6), ..Quotas::default() }).await;
    limited(fixture, "less", Quotas { jobs_running: Some(1), ..Quotas::default() }).await;
    for of in ["more", "less", "other"] {
        enqueue(fixture, of, 10).await;
    }
    let by_default = |limit| ClaimJobs { tenant_running_max: 3, ..fixture.request(limit) };
    let jobs = fixture.store.claim(by_default(30)).await.unwrap().jobs;
    assert_eq!(of_each(&jobs), BTreeMap::from([("less", 1), ("more", 6), ("other", 3)]));
    let full = fixture.store.claim(by_default(30)).await.unwrap();
    assert_eq!((full.jobs.len(), full.next_due_in_ms), (0, None), "no time is known");
    let less = jobs.iter().find(|job| job.tenant.as_str() == "less").unwrap();
    let after = Outcome::Retry { after_ms: 60_000, error: "no".to_owned(), fault: Fault::Failure };
    fixture.settle(less.fence(), after).await;
    assert_eq!(of_each(&fixture.store.claim(by_default(30)).await.unwrap().jobs), BTreeMap::from([("less", 1)]));
}

pub(crate) async fn a_limit_of_running_jobs_is_for_all_queues_together(fixture: &Fixture) {
    let slow = || NewJob { queue: "slow".to_owned(), ..new_job("demo") };
    enqueue(fixture, "demo", 5).await;
    fixture.enqueue(vec![slow(), slow(), slow()]).await;
    let claim = |queue| ClaimJobs { queue, tenant_running_max: 4, ..fixture.request(10) };
    assert_eq!(fixture.store.claim(claim("slow")).await.unwrap().jobs.len(), 3);
    let one = fixture.store.claim(claim("default")).await.unwrap().jobs;
    assert_eq!(one.len(), 1);
    assert!(fixture.store.claim(claim("default")).await.unwrap().jobs.is_empty());
    fixture.store.cancel_job(&one[0].tenant, one[0].id, "cancelled").await.unwrap();
    assert_eq!(fixture.store.claim(claim("default")).await.unwrap().jobs.len(), 1);
}

pub(crate) async fn a_rate_of_starts_is_kept_over_all_claims(fixture: &Fixture) {
    limited(fixture, "paced", Quotas { job_starts_per_s: Some(10), ..Quotas::default() }).await;
    enqueue(fixture, "paced", 50).await;
    enqueue(fixture, "other", 3).await;
    let mut first = fixture.claim(8).await;
    let another = ClaimJobs { owner: Uuid::now_v7(), ..fixture.request(20) };
    first.extend(fixture.store.claim(another).await.unwrap().jobs);
    assert_eq!(of_each(&first), BTreeMap::from([("other", 3), ("paced", 10)]), "a second's worth at once");
    let waits = fixture.store.claim(fixture.request(20)).await.unwrap();
    assert_eq!((waits.jobs.len(), waits.next_due_in_ms), (0, Some(100)));
    let mut started = 0;
    for _ in 0..30 {
        fixture.advance(100);
        started += served(fixture, 20).await.len();
    }
    assert_eq!(started, 30);
}

pub(crate) async fn another_limit_holds_with_the_next_claim(fixture: &Fixture) {
    let one = |jobs_running, job_starts_per_s| Quotas { jobs_running, job_starts_per_s, ..Quotas::default() };
    let id = limited(fixture, "demo", one(Some(1), None)).await;
    enqueue(fixture, "demo", 50).await;
    assert_eq!((fixture.claim(10).await.len(), fixture.claim(10).await.len()), (1, 0));
    fixture.store.set_tenant_quotas(&id, one(Some(3), None)).await.unwrap();
    assert_eq!((fixture.claim(10).await.len(), fixture.claim(10).await.len()), (2, 0));
    fixture.store.set_tenant_quotas(&id, one(None, Some(1))).await.unwrap();
    assert_eq!((fixture.claim(10).await.len(), fixture.claim(10).await.len()), (1, 0));
    fixture.store.set_tenant_quotas(&id, Quotas::default()).await.unwrap();
    assert_eq!(fixture.claim(10).await.len(), 10);
}

pub(crate) async fn tenants_that_must_wait_hide_no_other(fixture: &Fixture) {
    for n in 0..150 {
        let id = limited(fixture, &format!("full-{n}"), Quotas::default()).await;
        enqueue(fixture, id.as_str(), 2).await;
        fixture.store.disable_tenant(&id).await.unwrap();
    }
    enqueue(fixture, "quiet", 1).await;
    let (mut claims, mut jobs) = (0, Vec::new());
    while jobs.is_empty() && claims < 10 {
        let claimed = fixture.store.claim(fixture.request(1)).await.unwrap();
        assert!(!claimed.jobs.is_empty() || claimed.next_due_in_ms == Some(0), "it would not look again at once");
        (claims, jobs) = (claims + 1, claimed.jobs);
    }
    assert_eq!(of_each(&jobs), BTreeMap::from([("quiet", 1)]), "after {claims} claims");
    let rest = fixture.store.claim(fixture.request(1)).await.unwrap();
    assert_eq!((rest.jobs.len(), rest.next_due_in_ms), (0, None));
}

pub(crate) async fn more_queued_jobs_than_allowed_are_refused_all_together(fixture: &Fixture) {
    let id = limited(fixture, "demo", Quotas { jobs_queued: Some(3), ..Quotas::default() }).await;
    enqueue(fixture, "demo", 2).await;
    let two = || vec![new_job("other"), new_job("demo"), new_job("demo")];
    let refused = fixture.store.enqueue(two()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Limit { limit: "tenant_jobs_queued", .. }), "{refused}");
    assert!(refused.to_string().contains("may have 3 jobs queued, it has 2"), "{refused}");
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, 2, "some of the batch was kept");
    // What runs is not queued.
    assert_eq!(fixture.claim(1).await.len(), 1);
    fixture.enqueue(two()).await;
    assert_eq!(fixture.store.enqueue(vec![new_job("demo")]).await.unwrap_err().kind(), "limit");
    fixture.store.set_tenant_quotas(&id, Quotas::default()).await.unwrap();
    enqueue(fixture, "demo", 5).await;
}

pub(crate) async fn a_job_that_waits_again_is_never_refused(fixture: &Fixture) {
    limited(fixture, "demo", Quotas { jobs_queued: Some(1), ..Quotas::default() }).await;
    let mut running = Vec::new();
    for _ in 0..3 {
        enqueue(fixture, "demo", 1).await;
        running.extend(fixture.claim(1).await);
    }
    let retry = Outcome::Retry { after_ms: 0, error: "no".to_owned(), fault: Fault::Failure };
    assert_eq!(fixture.settle(running[0].fence(), retry).await, Settled::Applied);
    assert_eq!(fixture.settle(running[1].fence(), Outcome::Release).await, Settled::Applied);
    fixture.advance(LEASE_MS + 1);
    assert_eq!(fixture.store.sweep(3, 10).await.unwrap().rescued, 1);
    assert_eq!(fixture.store.enqueue(vec![new_job("demo")]).await.unwrap_err().kind(), "limit");
    assert_eq!(fixture.claim(10).await.len(), 3);
}

pub(crate) async fn a_fire_for_which_there_is_no_room_is_missed(fixture: &Fixture) {
    limited(fixture, "demo", Quotas { jobs_queued: Some(1), ..Quotas::default() }).await;
    every(fixture, 10_000).await;
    assert_eq!(fire(fixture).await.fired.len(), 1);
    fixture.advance(10_000);
    let full = fire(fixture).await;
    assert_eq!((full.fired.len(), full.missed, full.next_due_in_ms), (0, 1, Some(10_000)));
    served(fixture, 10).await;
    assert_eq!(fire(fixture).await.fired.len(), 0, "what was missed is not made up for");
    fixture.advance(10_000);
    assert_eq!(fire(fixture).await.fired.len(), 1);
}
