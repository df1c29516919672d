//! Why a job does not run: the facts.

use super::*;
use crate::store::{JobState, KeyHash, Quotas, Standing};

async fn standing(fixture: &Fixture, job: &Job) -> Standing {
    fixture.store.job_standing(&job.tenant, job.id).await.unwrap().unwrap()
}

pub(crate) async fn a_job_stands_behind_those_of_its_tenant_and_queue_that_come_first(fixture: &Fixture) {
    let urgent = NewJob { priority: -1, ..new_job("demo") };
    let slow = NewJob { queue: "slow".to_owned(), ..new_job("demo") };
    let later = NewJob { run_at_ms: Some(START_MS + 100), ..new_job("demo") };
    let made = fixture.enqueue(vec![new_job("demo"), new_job("demo"), urgent, slow, new_job("other"), later]).await;
    let mut ahead = Vec::new();
    for job in &made {
        ahead.push(standing(fixture, job).await.ahead);
    }
    assert_eq!(ahead, [1, 2, 0, 0, 0, 3]);
    let first = standing(fixture, &made[0]).await;
    assert_eq!((first.at_ms, &first.job, first.owner, first.tenant_running), (START_MS, &made[0], None, 0));
    assert_eq!(fixture.store.job_standing(&tenant("other"), made[0].id).await.unwrap(), None);
}

pub(crate) async fn a_running_job_says_who_has_it_and_until_when(fixture: &Fixture) {
    fixture.enqueue(vec![new_job("demo"), new_job("demo")]).await;
    let job = fixture.claim(1).await.remove(0);
    let running = standing(fixture, &job).await;
    assert_eq!((running.owner, running.lease_until_ms), (Some(fixture.owner), Some(START_MS + LEASE_MS as i64)));
    assert_eq!((running.job.state, running.tenant_running), (JobState::Running, 1));
    fixture.settle(job.fence(), Outcome::Done { result: None }).await;
    let done = standing(fixture, &job).await;
    assert_eq!((done.job.state, done.owner, done.lease_until_ms), (JobState::Done, None, None));
}

pub(crate) async fn a_job_stands_with_its_tenant_and_its_crashes(fixture: &Fixture) {
    fixture.store.create_tenant(&tenant("demo"), &KeyHash::of("pk_demo")).await.unwrap();
    let job = fixture.claimed().await;
    for suspect in [false, true] {
        fixture.advance(LEASE_MS + 1);
        fixture.store.sweep(3, 100).await.unwrap();
        assert_eq!(standing(fixture, &job).await.is_suspect, suspect, "once more is the end only of the second");
        fixture.claim(1).await;
    }
    assert_eq!(standing(fixture, &job).await.tenant_disabled_at_ms, None);
    fixture.store.disable_tenant(&tenant("demo")).await.unwrap();
    assert!(standing(fixture, &job).await.tenant_disabled_at_ms.is_some());
}

pub(crate) async fn a_job_stands_with_the_limits_of_its_tenant(fixture: &Fixture) {
    fixture.store.create_tenant(&tenant("demo"), &KeyHash::of("pk_demo")).await.unwrap();
    let jobs = fixture.enqueue((0..9).map(|_| new_job("demo")).collect()).await;
    let limits = async |jobs_running, job_starts_per_s| {
        let quotas = Quotas { jobs_running, job_starts_per_s, ..Quotas::default() };
        fixture.store.set_tenant_quotas(&tenant("demo"), quotas).await.unwrap();
        fixture.claim(9).await;
        // Whoever is found at a limit waits from the next look on.
        fixture.claim(9).await;
        standing(fixture, &jobs[8]).await
    };
    let few = limits(Some(2), None).await;
    assert_eq!((few.tenant_running, few.tenant_running_max, few.tenant_rate_until_ms), (2, Some(2), None));
    let slow = limits(None, Some(1)).await;
    assert!(slow.tenant_running_max.is_none() && slow.tenant_rate_until_ms > Some(START_MS), "{slow:?}");
}
