//! A clock that jumps by hours, either way: nothing is run twice while its owner lives, nothing is lost, and nobody waits
//! until the clock is where it was.

use std::collections::BTreeSet;

use super::schedules::{HOUR_MS, every, fire};
use super::*;
use crate::jobs::Cadence;
use crate::store::{KeyHash, Misfire, NewSchedule, Overlap, Policies, Quotas};

const JUMP_MS: i64 = 2 * HOUR_MS as i64;

/// More beats of the sweeper than any lease lasts.
const SWEEPS: u32 = 20;

async fn sweep(fixture: &Fixture) -> (u64, u64) {
    let swept = fixture.store.sweep(3, 100).await.unwrap();
    (swept.rescued, swept.quarantined)
}

async fn beat(fixture: &Fixture, job: &Job) -> Vec<Fence> {
    fixture.store.heartbeat(fixture.owner, LEASE_MS, &[job.fence()]).await.unwrap()
}

pub(crate) async fn a_job_whose_owner_lives_stays_its_own_however_the_clock_jumps(fixture: &Fixture) {
    let job = fixture.claimed().await;
    for jump in [JUMP_MS, -JUMP_MS, -JUMP_MS, JUMP_MS] {
        fixture.clock.advance(jump);
        // Whoever has gone back is swept by others before it beats again; forwards it comes first.
        if jump < 0 {
            assert_eq!(sweep(fixture).await, (0, 0), "{jump}");
        }
        assert_eq!(beat(fixture, &job).await, [], "{jump}");
        assert_eq!(sweep(fixture).await, (0, 0), "{jump}");
        assert!(fixture.claim(9).await.is_empty(), "{jump}");
        fixture.advance(LEASE_MS - 1);
        assert_eq!(sweep(fixture).await, (0, 0), "{jump}");
    }
    assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Applied);
    let done = fixture.read(&job).await;
    assert_eq!((done.attempt, done.crashes), (1, 0));
}

pub(crate) async fn a_job_whose_owner_is_gone_is_rescued_soon_however_the_clock_jumps(fixture: &Fixture) {
    for jump in [JUMP_MS, -JUMP_MS] {
        let lost = fixture.claimed().await;
        fixture.clock.advance(jump);
        let mut rescued = 0;
        for _ in 0..SWEEPS {
            rescued += sweep(fixture).await.0;
            fixture.advance(5_000);
        }
        assert_eq!(rescued, 1, "{jump}");
        let again = fixture.claim(9).await.remove(0);
        assert_eq!((again.id, again.attempt, again.crashes), (lost.id, 2, 1), "{jump}");
        assert_eq!(fixture.settle(lost.fence(), DONE).await, Settled::Late, "{jump}");
        assert_eq!(fixture.settle(again.fence(), DONE).await, Settled::Applied, "{jump}");
    }
}

pub(crate) async fn due_jobs_run_and_later_ones_wait_however_the_clock_jumps(fixture: &Fixture) {
    let hour = HOUR_MS as i64;
    let at = |run_at_ms| NewJob { run_at_ms: Some(run_at_ms), ..new_job("demo") };
    let (due, later, last) = (new_job("demo"), at(START_MS + hour), at(START_MS + 3 * hour));
    fixture.enqueue(vec![due.clone(), later.clone(), last.clone()]).await;
    fixture.clock.advance(-JUMP_MS);
    let ids = |jobs: Vec<Job>| jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(fixture.claim(9).await), [due.id]);
    let waits = fixture.store.claim(fixture.request(9)).await.unwrap();
    assert_eq!((waits.jobs.len(), waits.next_due_in_ms), (0, Some(3 * HOUR_MS)));
    fixture.clock.advance(2 * JUMP_MS);
    assert_eq!(ids(fixture.claim(9).await), [later.id]);
    fixture.clock.advance(-JUMP_MS);
    assert!(fixture.claim(9).await.is_empty());
    fixture.clock.advance(2 * JUMP_MS);
    assert_eq!(ids(fixture.claim(9).await), [last.id]);
}

pub(crate) async fn a_schedule_fires_no_time_twice_however_the_clock_jumps(fixture: &Fixture) {
    every(fixture, 10_000).await;
    let all = Policies { misfire: Misfire::All { max: 1_000 }, overlap: Overlap::Allow, ..Policies::default() };
    let minutely = Cadence::cron("* * * * *", "Europe/Berlin", START_MS).unwrap();
    let cron = NewSchedule { policies: all, ..NewSchedule::new(tenant("demo"), minutely, "publish", json!({})) };
    let cron = fixture.store.create_schedule(cron).await.unwrap();
    let (mut fired, mut latest) = (BTreeSet::new(), START_MS);
    for jump in [10_000, JUMP_MS, -JUMP_MS, 10_000, -JUMP_MS, 2 * JUMP_MS, 60_000, -JUMP_MS, JUMP_MS, 60_000] {
        fixture.clock.advance(jump);
        latest = latest.max(fixture.clock.now_ms());
        // More than one look can take is made up for in the next ones.
        for _ in 0..5 {
            for fire in fire(fixture).await.fired {
                let place = (fire.schedule, fire.fire_at_ms);
                assert!(fired.insert(place), "{place:?} again after {jump}");
                assert!(fire.fire_at_ms <= fixture.clock.now_ms(), "too early after {jump}");
            }
        }
    }
    let minutes: Vec<i64> = fired.iter().filter(|(id, _)| *id == cron.id).map(|(_, at)| *at).collect();
    assert_eq!(minutes.last(), Some(&(latest / 60_000 * 60_000)), "it does not fire any more");
    assert!(minutes.is_sorted_by(|one, next| one < next));
}

pub(crate) async fn a_tenant_with_a_rate_waits_no_longer_when_the_clock_has_gone_back(fixture: &Fixture) {
    let id = tenant("paced");
    fixture.store.create_tenant(&id, &KeyHash::of("paced")).await.unwrap();
    let paced = Quotas { job_starts_per_s: Some(10), ..Quotas::default() };
    fixture.store.set_tenant_quotas(&id, paced).await.unwrap();
    fixture.enqueue((0..40).map(|_| new_job("paced")).collect()).await;
    assert_eq!(fixture.claim(40).await.len(), 10, "a second's worth at once");
    // Now it waits for its time, which is far away after this.
    assert!(fixture.claim(40).await.is_empty());
    fixture.clock.advance(-JUMP_MS);
    assert_eq!(sweep(fixture).await, (0, 0));
    let mut started = 0;
    for _ in 0..10 {
        started += fixture.claim(40).await.len();
        fixture.advance(100);
    }
    assert!((9..=20).contains(&started), "{started} started within a second after the jump");
}
