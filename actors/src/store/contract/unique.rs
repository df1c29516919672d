//! One job for a key, and not two.

use super::jobs::prune;
use super::*;
use crate::store::{Fault, JobState, KeyHash, PruneJobs, Quotas, Unique, UniqueStates};

fn dead() -> Outcome {
    Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure }
}

fn keyed(unique: Unique) -> NewJob {
    NewJob { unique: Some(unique), ..new_job("demo") }
}

/// The id of the job that has the key afterwards.
async fn ask(fixture: &Fixture, unique: &Unique) -> Uuid {
    fixture.enqueue(vec![keyed(unique.clone())]).await.remove(0).id
}

pub(crate) async fn a_second_job_with_a_key_is_answered_with_the_first_until_that_has_ended(fixture: &Fixture) {
    let unique = Unique::new("report-7", None);
    let first = fixture.enqueue(vec![keyed(unique.clone())]).await.remove(0);
    assert_eq!(first.unique_key.as_deref(), Some("report-7"));
    let again = fixture.enqueue(vec![keyed(unique.clone())]).await.remove(0);
    assert_eq!(again, first);
    let job = fixture.claim(9).await.remove(0);
    assert_eq!((job.id, ask(fixture, &unique).await), (first.id, first.id), "it runs");
    fixture.settle(job.fence(), Outcome::Retry { after_ms: 50, error: "x".to_owned(), fault: Fault::Failure }).await;
    assert_eq!(ask(fixture, &unique).await, first.id, "it will run again");
    fixture.advance(50);
    let job = fixture.claim(9).await.remove(0);
    fixture.settle(job.fence(), DONE).await;
    let second = ask(fixture, &unique).await;
    assert_ne!(second, first.id);
    assert_eq!(ask(fixture, &unique).await, second);
    assert_ne!(ask(fixture, &Unique::new("report-8", None)).await, second);
}

pub(crate) async fn within_its_period_a_job_that_is_done_still_has_its_key(fixture: &Fixture) {
    let unique = Unique::new("k", Some(10_000));
    let first = ask(fixture, &unique).await;
    let job = fixture.claim(1).await.remove(0);
    fixture.settle(job.fence(), DONE).await;
    fixture.advance(9_999);
    // What the first has said holds, whatever others say.
    assert_eq!(ask(fixture, &Unique::new("k", None)).await, first);
    fixture.advance(1);
    let second = ask(fixture, &unique).await;
    assert_ne!(second, first);
    // The period is over also for one that has not ended.
    fixture.advance(10_000);
    assert_ne!(ask(fixture, &unique).await, second);
}

pub(crate) async fn a_job_that_died_leaves_its_key_unless_it_said_all(fixture: &Fixture) {
    for (states, leaves) in [(UniqueStates::Successful, true), (UniqueStates::All, false)] {
        let unique = Unique { key: states.as_str().to_owned(), period_ms: None, states };
        let first = ask(fixture, &unique).await;
        let job = fixture.claim(1).await.remove(0);
        fixture.settle(job.fence(), dead()).await;
        let second = ask(fixture, &unique).await;
        assert_eq!(second != first, leaves, "{states:?}");
        fixture.store.cancel_job(&tenant("demo"), second, "cancelled").await.unwrap();
        assert_eq!(ask(fixture, &unique).await != second, leaves, "{states:?}");
        fixture.store.cancel_job(&tenant("demo"), ask(fixture, &unique).await, "cancelled").await.unwrap();
    }
}

pub(crate) async fn of_many_at_once_one_gets_the_key(fixture: &Fixture) {
    let unique = Unique::new("k", None);
    let asked = (0..20).map(|_| ask(fixture, &unique));
    let mut ids = futures_util::future::join_all(asked).await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, 1);
}

pub(crate) async fn a_batch_with_a_key_twice_keeps_one(fixture: &Fixture) {
    let unique = || keyed(Unique::new("k", None));
    let kept = fixture.enqueue(vec![unique(), new_job("demo"), unique()]).await;
    assert!(kept[0].id == kept[2].id && kept[1].id != kept[0].id);
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, 2);
    // All or none holds for keys, too: a batch that fails has taken none.
    let twice = new_job("demo");
    let other = keyed(Unique::new("other", None));
    fixture.store.enqueue(vec![other.clone(), twice.clone(), twice]).await.unwrap_err();
    assert_ne!(ask(fixture, &Unique::new("other", None)).await, other.id);
}

pub(crate) async fn a_forgotten_job_has_its_key_no_longer(fixture: &Fixture) {
    let unique = Unique { key: "k".to_owned(), period_ms: None, states: UniqueStates::All };
    let first = ask(fixture, &unique).await;
    let job = fixture.claim(1).await.remove(0);
    fixture.settle(job.fence(), DONE).await;
    fixture.advance(1_000);
    assert_eq!(ask(fixture, &unique).await, first);
    assert_eq!(fixture.store.prune(PruneJobs { done_ms: 10, ..prune() }).await.unwrap().count, 1);
    let second = ask(fixture, &unique).await;
    assert_ne!(second, first);
    // The key is the second's: forgetting others does not take it away.
    fixture.enqueue(vec![new_job("demo")]).await;
    for job in fixture.claim(9).await.into_iter().filter(|job| job.id != second) {
        fixture.settle(job.fence(), DONE).await;
    }
    fixture.advance(1_000);
    assert_eq!(fixture.store.prune(PruneJobs { done_ms: 10, ..prune() }).await.unwrap().count, 1);
    assert_eq!(ask(fixture, &unique).await, second);
}

pub(crate) async fn tenants_do_not_meet_in_their_unique_keys(fixture: &Fixture) {
    let first = ask(fixture, &Unique::new("k", None)).await;
    let theirs = NewJob { unique: Some(Unique::new("k", None)), ..new_job("other") };
    let theirs = fixture.enqueue(vec![theirs]).await.remove(0);
    assert!(theirs.id != first && theirs.tenant == tenant("other") && theirs.state == JobState::Ready);
}

pub(crate) async fn several_with_one_key_take_the_place_of_one(fixture: &Fixture) {
    let demo = tenant("demo");
    fixture.store.create_tenant(&demo, &KeyHash::of("demo")).await.unwrap();
    let one = Quotas { jobs_queued: Some(1), ..Quotas::default() };
    fixture.store.set_tenant_quotas(&demo, one).await.unwrap();
    let same = || NewJob { unique: Some(Unique::new("k", None)), ..new_job("demo") };
    let kept = fixture.enqueue(vec![same(), same(), same()]).await;
    assert!(kept.iter().all(|job| job.id == kept[0].id), "{kept:?}");
    let other = NewJob { unique: Some(Unique::new("other", None)), ..new_job("demo") };
    assert_eq!(fixture.store.enqueue(vec![same(), other]).await.unwrap_err().kind(), "limit");
}
