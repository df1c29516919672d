//! Jobs that ended badly, sent round again.

use super::*;
use crate::store::{Fault, JobFilter, JobState, KeyHash, Quotas, Unique};

fn dead() -> Outcome {
    Outcome::Dead { reason: "attempt 10 of 10: no".to_owned(), fault: Fault::Failure }
}

fn demo() -> TenantId {
    tenant("demo")
}

/// So many jobs that are dead, the oldest first.
async fn buried(fixture: &Fixture, count: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        let job = fixture.claimed().await;
        fixture.settle(job.fence(), dead()).await;
        fixture.advance(10);
        jobs.push(job);
    }
    jobs
}

pub(crate) async fn a_dead_job_is_redriven_under_its_id_with_all_its_attempts(fixture: &Fixture) {
    let given = NewJob { max_attempts: 2, timeout_ms: Some(250), priority: -3, context: context(), ..new_job("demo") };
    fixture.enqueue(vec![given.clone()]).await;
    for _ in 0..2 {
        let job = fixture.claim(1).await.remove(0);
        let retry = Outcome::Retry { after_ms: 0, error: "no".to_owned(), fault: Fault::Failure };
        fixture.settle(job.fence(), if job.attempt < 2 { retry } else { dead() }).await;
    }
    fixture.advance(5_000);
    let ready = fixture.store.redrive_job(&demo(), given.id).await.unwrap();
    assert_eq!((ready.state, ready.redrives, ready.finished_at_ms), (JobState::Ready, 1, None));
    assert_eq!((ready.attempt, ready.charged(), ready.max_attempts), (2, 0, 2));
    assert_eq!((ready.run_at_ms, ready.created_at_ms), (START_MS + 5_000, START_MS));
    assert_eq!((ready.timeout_ms, ready.priority, &ready.context), (Some(250), -3, &given.context));
    assert_eq!(ready.last_error.as_deref(), Some("attempt 10 of 10: no"), "why it was redriven");
    assert_eq!(fixture.read(&ready).await, ready);
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.id, again.attempt, again.charged()), (given.id, 3, 1));
    assert_eq!(fixture.settle(again.fence(), Outcome::Done { result: None }).await, Settled::Applied);
    let done = fixture.read(&again).await;
    assert_eq!((done.state, done.redrives), (JobState::Done, 1));
}

pub(crate) async fn a_job_that_was_quarantined_is_redriven_alone(fixture: &Fixture) {
    let poison = fixture.claimed().await;
    for _ in 0..3 {
        fixture.advance(LEASE_MS + 1);
        fixture.store.sweep(3, 100).await.unwrap();
        fixture.claim(1).await;
    }
    assert_eq!(fixture.read(&poison).await.state, JobState::Dead);
    let ready = fixture.store.redrive_job(&demo(), poison.id).await.unwrap();
    assert_eq!((ready.crashes, ready.charged()), (0, 0));
    // It may have been the culprit: a process has one such job at a time.
    let other = fixture.claimed().await;
    assert_eq!(other.id, poison.id, "suspects come first");
    let cancelled = buried_by_crash(fixture).await;
    fixture.store.redrive_job(&demo(), cancelled).await.unwrap();
    assert!(fixture.claim(9).await.iter().all(|job| job.id != cancelled), "two suspects at once");
}

/// A job that lost its runner once and was then cancelled.
async fn buried_by_crash(fixture: &Fixture) -> Uuid {
    let job = fixture.claim(1).await.remove(0);
    let crash = Outcome::Retry { after_ms: 0, error: "panicked".to_owned(), fault: Fault::Crash };
    fixture.settle(job.fence(), crash).await;
    fixture.store.cancel_job(&job.tenant, job.id, "cancelled").await.unwrap();
    job.id
}

pub(crate) async fn only_what_ended_badly_is_redriven(fixture: &Fixture) {
    let job = fixture.claimed().await;
    let refused = |error: crate::store::StoreError| (error.kind(), error.to_string());
    let (kind, text) = refused(fixture.store.redrive_job(&demo(), job.id).await.unwrap_err());
    assert_eq!(kind, "conflict");
    assert_eq!(text, "redrive_job: the job is running, only one that is dead or cancelled is redriven");
    fixture.settle(job.fence(), Outcome::Done { result: None }).await;
    assert_eq!(refused(fixture.store.redrive_job(&demo(), job.id).await.unwrap_err()).0, "conflict");
    assert_eq!(fixture.read(&job).await.state, JobState::Done);
    let cancelled = fixture.enqueue(vec![new_job("demo")]).await.remove(0);
    fixture.store.cancel_job(&demo(), cancelled.id, "cancelled").await.unwrap();
    assert_eq!(refused(fixture.store.redrive_job(&tenant("other"), cancelled.id).await.unwrap_err()).0, "not_found");
    assert_eq!(fixture.store.redrive_job(&demo(), cancelled.id).await.unwrap().state, JobState::Ready);
    assert_eq!(refused(fixture.store.redrive_job(&demo(), cancelled.id).await.unwrap_err()).0, "conflict");
}

pub(crate) async fn many_jobs_are_redriven_page_by_page(fixture: &Fixture) {
    let jobs = buried(fixture, 5).await;
    let done = fixture.claimed().await;
    fixture.settle(done.fence(), Outcome::Done { result: None }).await;
    let slow = fixture.enqueue(vec![NewJob { queue: "slow".to_owned(), ..new_job("demo") }]).await.remove(0);
    fixture.store.cancel_job(&demo(), slow.id, "cancelled").await.unwrap();
    let filter = JobFilter { queue: Some("default".to_owned()), ..JobFilter::default() };
    let one = fixture.store.redrive_jobs(&demo(), &filter, None, 3).await.unwrap();
    assert_eq!((one.count, one.skipped, one.next.map(|place| place.id)), (3, 0, Some(jobs[2].id)));
    let two = fixture.store.redrive_jobs(&demo(), &filter, one.next, 3).await.unwrap();
    assert_eq!((two.count, two.next), (2, None));
    for job in &jobs {
        assert_eq!(fixture.read(job).await.state, JobState::Ready);
    }
    assert_eq!(
        (fixture.read(&done).await.state, fixture.read(&slow).await.state),
        (JobState::Done, JobState::Cancelled)
    );
    let none = fixture.store.redrive_jobs(&tenant("other"), &JobFilter::default(), None, 3).await.unwrap();
    assert_eq!((none.count, none.next), (0, None));
}

pub(crate) async fn a_job_whose_unique_key_another_has_is_not_redriven(fixture: &Fixture) {
    let keyed = || NewJob { unique: Some(Unique::new("k", None)), ..new_job("demo") };
    let mut ids = Vec::new();
    for _ in 0..2 {
        let job = fixture.enqueue(vec![keyed()]).await.remove(0);
        fixture.store.cancel_job(&demo(), job.id, "cancelled").await.unwrap();
        ids.push(job.id);
        fixture.advance(1);
    }
    // Of the two only one may be there again: the newer one, which comes first.
    let many = fixture.store.redrive_jobs(&demo(), &JobFilter::default(), None, 10).await.unwrap();
    assert_eq!((many.count, many.skipped), (1, 1));
    let refused = fixture.store.redrive_job(&demo(), ids[0]).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("redrive_job: another job has its unique key: {}", ids[1]));
    let held = fixture.enqueue(vec![keyed()]).await.remove(0);
    assert_eq!(held.id, ids[1], "it has its key again");
}

pub(crate) async fn no_more_are_redriven_than_their_tenant_may_have_queued(fixture: &Fixture) {
    fixture.store.create_tenant(&demo(), &KeyHash::of("pk_demo")).await.unwrap();
    let jobs = buried(fixture, 3).await;
    let quotas = Quotas { jobs_queued: Some(2), ..Quotas::default() };
    fixture.store.set_tenant_quotas(&demo(), quotas).await.unwrap();
    let all = async |after| fixture.store.redrive_jobs(&demo(), &JobFilter::default(), after, 9).await;
    let some = all(None).await.unwrap();
    assert_eq!((some.count, some.next.map(|place| place.id)), (2, Some(jobs[1].id)));
    assert_eq!(all(some.next).await.unwrap_err().kind(), "limit");
    assert_eq!(fixture.store.redrive_job(&demo(), jobs[0].id).await.unwrap_err().kind(), "limit");
    fixture.claim(1).await;
    assert_eq!(all(some.next).await.unwrap().count, 1);
}
