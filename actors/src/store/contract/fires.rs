//! What fires do that were missed, that meet the jobs of earlier ones, or that a tenant asks for.

use super::schedules::{HOUR_MS, fire};
use super::*;
use crate::jobs::Cadence;
use crate::model::new_id;
use crate::store::{
    Cancelled, Fault, FireDue, JobState, Misfire, NewSchedule, Overlap, Policies, Schedule, Tally, Triggered,
};

const EVERY_MS: u64 = 10_000;

fn policies(overlap: Overlap) -> Policies {
    Policies { overlap, ..Policies::default() }
}

async fn schedule(fixture: &Fixture, policies: Policies) -> Schedule {
    let every = Cadence::every(EVERY_MS).unwrap();
    let new = NewSchedule { policies, ..NewSchedule::new(tenant("demo"), every, "publish", json!({})) };
    fixture.store.create_schedule(new).await.unwrap()
}

async fn read(fixture: &Fixture, schedule: &Schedule) -> Schedule {
    fixture.store.get_schedule(&schedule.tenant, schedule.id).await.unwrap().unwrap()
}

async fn job(fixture: &Fixture, id: Uuid) -> Job {
    fixture.store.get_job(&tenant("demo"), id).await.unwrap().unwrap()
}

/// The times of the fires that make a job now, counted from the start in units of the cadence.
async fn fired(fixture: &Fixture) -> Vec<i64> {
    let fired = fire(fixture).await.fired;
    fired.iter().map(|fired| (fired.fire_at_ms - START_MS) / EVERY_MS as i64).collect()
}

fn tally(fires: u64, missed: u64, overlapped: u64) -> Tally {
    Tally { fires, missed, overlapped }
}

pub(crate) async fn missed_fires_are_made_up_for_as_the_policy_says_and_counted(fixture: &Fixture) {
    let allow = || policies(Overlap::Allow);
    let cases = [
        (Policies { misfire: Misfire::Skip, ..allow() }, vec![9]),
        (allow(), vec![9]),
        (Policies { misfire: Misfire::All { max: 3 }, ..allow() }, vec![7, 8, 9]),
        (
            Policies { misfire: Misfire::All { max: 100 }, catch_up_window_ms: Some(45_000), ..allow() },
            vec![5, 6, 7, 8, 9],
        ),
        (Policies { catch_up_window_ms: Some(4_999), ..allow() }, vec![]),
    ];
    for (policies, expected) in cases {
        let told = format!("{policies:?}");
        let started = fixture.clock.now_ms();
        let kept = schedule(fixture, policies).await;
        assert_eq!(fire(fixture).await.fired.len(), 1);
        fixture.advance(9 * EVERY_MS + 5_000);
        let report = fire(fixture).await;
        let fired: Vec<i64> = report.fired.iter().map(|fired| (fired.fire_at_ms - started) / EVERY_MS as i64).collect();
        assert_eq!((fired, report.missed), (expected.clone(), 9 - expected.len() as u64), "{told}");
        let after = read(fixture, &kept).await;
        assert_eq!(after.tally, tally(1 + expected.len() as u64, 9 - expected.len() as u64, 0), "{told}");
        assert_eq!(after.next_fire_at_ms, Some(started + 10 * EVERY_MS as i64), "{told}");
        fixture.store.delete_schedule(&kept.tenant, kept.id).await.unwrap();
    }
    // Longer ago than what counts as on time.
    let late = Policies { misfire: Misfire::Skip, ..allow() };
    let daily = NewSchedule {
        policies: late,
        ..NewSchedule::new(tenant("demo"), Cadence::every(24 * HOUR_MS).unwrap(), "publish", json!({}))
    };
    fixture.store.create_schedule(daily).await.unwrap();
    fixture.advance(60_001);
    let report = fire(fixture).await;
    assert_eq!((report.fired.len(), report.missed), (0, 1));
}

pub(crate) async fn more_than_one_look_can_take_is_made_up_for_in_parts_and_nothing_is_lost(fixture: &Fixture) {
    let all = Policies { misfire: Misfire::All { max: 20 }, ..policies(Overlap::Allow) };
    let kept = schedule(fixture, all).await;
    fixture.advance(24 * EVERY_MS + 1);
    let mut fires = Vec::new();
    for expected_due in [Some(0), Some(0), Some(EVERY_MS - 1)] {
        let request = FireDue { limit: 8, catch_up_window_ms: HOUR_MS };
        let report = fixture.store.fire_due(request).await.unwrap();
        fires.extend(report.fired.iter().map(|fired| (fired.fire_at_ms - START_MS) / EVERY_MS as i64));
        assert_eq!(report.next_due_in_ms, expected_due);
    }
    assert_eq!(fires, (5..25).collect::<Vec<_>>());
    assert_eq!(read(fixture, &kept).await.tally, tally(20, 5, 0));
}

pub(crate) async fn a_fire_is_skipped_while_the_job_before_is_not_final(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::Skip)).await;
    assert_eq!(fired(fixture).await, [0]);
    // It waits to be claimed, then it runs, then it waits to be tried again.
    fixture.advance(EVERY_MS);
    assert!(fired(fixture).await.is_empty());
    let running = fixture.claim(1).await.remove(0);
    fixture.advance(EVERY_MS);
    assert!(fired(fixture).await.is_empty());
    let retry = Outcome::Retry { after_ms: HOUR_MS, error: "no".to_owned(), fault: Fault::Failure };
    fixture.settle(running.fence(), retry).await;
    fixture.advance(EVERY_MS);
    assert!(fired(fixture).await.is_empty());
    let now = read(fixture, &kept).await;
    assert_eq!((now.tally, now.next_fire_at_ms), (tally(1, 0, 3), Some(START_MS + 4 * EVERY_MS as i64)));
    fixture.store.cancel_job(&kept.tenant, running.id, "enough").await.unwrap();
    assert!(fired(fixture).await.is_empty(), "what was skipped is not made up for");
    fixture.advance(EVERY_MS);
    assert_eq!(fired(fixture).await, [4]);
}

pub(crate) async fn overlapping_jobs_are_made_if_they_are_allowed(fixture: &Fixture) {
    schedule(fixture, policies(Overlap::Allow)).await;
    for expected in 0..3 {
        assert_eq!(fired(fixture).await, [expected]);
        fixture.advance(EVERY_MS);
    }
    assert_eq!(fixture.claim(9).await.len(), 3);
}

pub(crate) async fn the_first_fire_that_had_to_wait_starts_when_the_job_before_ends_whatever_its_end(
    fixture: &Fixture,
) {
    let kept = schedule(fixture, policies(Overlap::BufferOne)).await;
    let mut at = 0;
    assert_eq!(fired(fixture).await, [at]);
    for end in ["done", "dead", "cancelled", "lost too often"] {
        let job = fixture.claim(1).await.remove(0);
        for is_first in [true, false] {
            fixture.advance(EVERY_MS);
            let report = fire(fixture).await;
            assert_eq!(
                (report.fired.len(), report.buffered, report.overlapped),
                (0, is_first.into(), (!is_first).into())
            );
        }
        assert_eq!(read(fixture, &kept).await.buffered_fire_at_ms, Some(START_MS + (at + 1) * EVERY_MS as i64));
        match end {
            "done" => drop(fixture.settle(job.fence(), DONE).await),
            "dead" => {
                let dead = Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure };
                fixture.settle(job.fence(), dead).await;
            }
            "cancelled" => drop(fixture.store.cancel_job(&kept.tenant, job.id, "enough").await.unwrap()),
            _ => {
                fixture.advance(LEASE_MS + 1);
                assert_eq!(fixture.store.sweep(1, 9).await.unwrap().quarantined, 1);
                // The clock went on over three more fires, of which the latest waits in its turn.
                let report = fire(fixture).await;
                assert_eq!((report.fired.len(), report.missed, report.buffered), (1, 2, 1));
                assert_eq!(report.fired[0].fire_at_ms, START_MS + (at + 1) * EVERY_MS as i64);
                assert_eq!(read(fixture, &kept).await.tally, tally(5, 2, 4));
                return;
            }
        }
        assert_eq!(fired(fixture).await, [at + 1], "after the job before was {end}");
        assert_eq!(read(fixture, &kept).await.buffered_fire_at_ms, None);
        at += 2;
        if at > 2 {
            // The one that waited was made from an older fire than those that were dropped.
            assert!(fired(fixture).await.is_empty());
        }
    }
}

pub(crate) async fn a_waiting_fire_is_dropped_by_a_pause(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::BufferOne)).await;
    assert_eq!(fired(fixture).await, [0]);
    fixture.advance(EVERY_MS);
    assert_eq!(fire(fixture).await.buffered, 1);
    let paused = fixture.store.pause_schedule(&kept.tenant, kept.id).await.unwrap().unwrap();
    assert_eq!((paused.buffered_fire_at_ms, paused.tally), (None, tally(1, 0, 1)));
    let job = fixture.claim(1).await.remove(0);
    fixture.settle(job.fence(), DONE).await;
    assert!(fired(fixture).await.is_empty());
}

pub(crate) async fn a_fire_cancels_the_jobs_before_it_for_good(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::CancelPrevious)).await;
    assert_eq!(fired(fixture).await, [0]);
    let running = fixture.claim(1).await.remove(0);
    // Another one of the same schedule, which waits.
    let allowed = fixture.store.trigger_schedule(&kept.tenant, kept.id, Uuid::now_v7(), Some(Overlap::Allow)).await;
    let Some(Triggered::Started { fired: waiting, .. }) = allowed.unwrap() else { panic!("not started") };
    fixture.advance(EVERY_MS);
    let report = fire(fixture).await;
    assert_eq!(report.fired.len(), 1);
    let fences = [running.fence(), Fence { id: waiting.job, attempt: 0 }];
    assert_eq!(report.cancelled, fences);
    for id in [running.id, waiting.job] {
        let cancelled = job(fixture, id).await;
        assert_eq!(cancelled.state, JobState::Cancelled);
        let reason = cancelled.last_error.unwrap();
        assert!(reason.starts_with("cancelled: a later fire"), "{reason}");
    }
    assert_eq!(fixture.settle(running.fence(), DONE).await, Settled::Late);
    let lost = fixture.store.heartbeat(fixture.owner, LEASE_MS, &[running.fence()]).await.unwrap();
    assert_eq!(lost, [running.fence()], "its runner does not learn of it");
    assert_eq!(fixture.claim(9).await.len(), 1);
}

pub(crate) async fn a_schedule_fires_between_its_start_and_its_end_only(fixture: &Fixture) {
    let at = |units: i64| START_MS + units * EVERY_MS as i64;
    let within = Policies { start_at_ms: Some(at(2)), end_at_ms: Some(at(4)), ..policies(Overlap::Allow) };
    let kept = schedule(fixture, within.clone()).await;
    assert_eq!(kept.next_fire_at_ms, Some(at(2)));
    let mut fires = Vec::new();
    for _ in 0..7 {
        fires.extend(fired(fixture).await);
        fixture.advance(EVERY_MS);
    }
    assert_eq!(fires, [2, 3, 4]);
    assert_eq!(read(fixture, &kept).await.next_fire_at_ms, None);
    let over = schedule(fixture, within).await;
    assert_eq!(over.next_fire_at_ms, None, "it ended before it was made");
    // One that was due before its end is made up for after it.
    let now = fixture.clock.now_ms();
    let ending = Policies { end_at_ms: Some(now + 15_000), ..policies(Overlap::Allow) };
    let kept = schedule(fixture, ending).await;
    fixture.advance(60_000);
    let report = fire(fixture).await;
    assert_eq!((report.fired.len(), report.fired[0].fire_at_ms, report.missed), (1, now + 10_000, 1));
    assert_eq!(read(fixture, &kept).await.next_fire_at_ms, None);
}

pub(crate) async fn a_schedule_fires_as_often_as_it_may(fixture: &Fixture) {
    let twice = Policies { remaining_fires: Some(2), ..policies(Overlap::Skip) };
    let kept = schedule(fixture, twice).await;
    assert_eq!(fired(fixture).await, [0]);
    fixture.advance(EVERY_MS);
    assert!(fired(fixture).await.is_empty(), "the job before has not ended");
    let after = read(fixture, &kept).await;
    assert_eq!(
        (after.policies.remaining_fires, after.tally),
        (Some(1), tally(1, 0, 1)),
        "what is skipped is not counted"
    );
    let job = fixture.claim(1).await.remove(0);
    fixture.settle(job.fence(), DONE).await;
    fixture.advance(EVERY_MS);
    assert_eq!(fired(fixture).await, [2]);
    let after = read(fixture, &kept).await;
    assert_eq!((after.policies.remaining_fires, after.next_fire_at_ms), (Some(0), None));
    let job = Uuid::now_v7();
    let asked = fixture.store.trigger_schedule(&kept.tenant, kept.id, job, Some(Overlap::Allow)).await.unwrap();
    assert!(matches!(asked, Some(Triggered::Started { .. })), "what a tenant asks for is not counted: {asked:?}");
    assert_eq!(read(fixture, &kept).await.next_fire_at_ms, None);
}

pub(crate) async fn a_triggered_schedule_fires_now_under_the_policy_that_was_asked_for(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::Skip)).await;
    fired(fixture).await;
    fixture.advance(3_000);
    let trigger = |job, overlap| fixture.store.trigger_schedule(&kept.tenant, kept.id, job, overlap);
    assert_eq!(trigger(Uuid::now_v7(), None).await.unwrap(), Some(Triggered::Overlapped));
    assert_eq!(read(fixture, &kept).await.tally, tally(1, 0, 0), "a refused wish is not counted");
    let mut times = Vec::new();
    for id in [Uuid::now_v7(), Uuid::now_v7()] {
        let Some(Triggered::Started { fired, cancelled }) = trigger(id, Some(Overlap::Allow)).await.unwrap() else {
            panic!("not started");
        };
        assert_eq!((fired.job, cancelled.len()), (id, 0));
        assert_eq!(job(fixture, id).await.fired, Some((kept.id, fired.fire_at_ms)));
        times.push(fired.fire_at_ms);
    }
    assert_eq!(times, [START_MS + 3_000, START_MS + 3_001], "two in a millisecond are two");
    let after = read(fixture, &kept).await;
    assert_eq!((after.tally.fires, after.last_fire_at_ms), (3, Some(START_MS + 3_001)));
    assert_eq!(after.next_fire_at_ms, Some(START_MS + EVERY_MS as i64), "it goes on as it was");
    let waits = trigger(Uuid::now_v7(), Some(Overlap::BufferOne)).await.unwrap();
    assert_eq!(waits, Some(Triggered::Buffered { fire_at_ms: START_MS + 3_002 }));
    let only = Uuid::now_v7();
    let Some(Triggered::Started { cancelled, .. }) = trigger(only, Some(Overlap::CancelPrevious)).await.unwrap() else {
        panic!("not started");
    };
    assert_eq!(cancelled.len(), 3);
    assert_eq!(fixture.store.trigger_schedule(&tenant("other"), kept.id, only, None).await.unwrap(), None);
}

pub(crate) async fn a_paused_schedule_can_be_triggered_and_stays_paused(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::Skip)).await;
    fixture.store.pause_schedule(&kept.tenant, kept.id).await.unwrap();
    let job = Uuid::now_v7();
    let asked = fixture.store.trigger_schedule(&kept.tenant, kept.id, job, None).await.unwrap();
    assert!(matches!(asked, Some(Triggered::Started { .. })), "{asked:?}");
    let after = read(fixture, &kept).await;
    assert!(after.paused_at_ms.is_some() && after.next_fire_at_ms.is_none());
}

pub(crate) async fn past_fires_are_made_once_each(fixture: &Fixture) {
    let kept = schedule(fixture, policies(Overlap::Skip)).await;
    assert_eq!(fired(fixture).await, [0]);
    let first = fixture.claim(1).await.remove(0);
    fixture.settle(first.fence(), DONE).await;
    fixture.advance(5 * EVERY_MS);
    assert_eq!(fired(fixture).await, [5]);
    let at = |units: i64| START_MS + units * EVERY_MS as i64;
    let fires = kept.fires_between(at(-2), at(5)).unwrap();
    assert_eq!(fires, (-2..=5).map(at).collect::<Vec<_>>());
    let backfill = |overlap| fixture.store.backfill_schedule(&kept.tenant, kept.id, &fires, overlap);
    let done = backfill(Overlap::Allow).await.unwrap().unwrap();
    let made: Vec<_> = done.fired.iter().map(|fired| fired.fire_at_ms).collect();
    // One that is done and one that waits have been already.
    assert_eq!(made, [-2, -1, 1, 2, 3, 4].map(at));
    assert_eq!((done.present, done.overlapped, done.buffered_fire_at_ms), (2, 0, None));
    let again = backfill(Overlap::Allow).await.unwrap().unwrap();
    assert_eq!((again.fired.len(), again.present), (0, 8));
    let after = read(fixture, &kept).await;
    assert_eq!((after.tally.fires, after.last_fire_at_ms), (8, Some(at(5))));
    assert_eq!(after.next_fire_at_ms, Some(at(6)), "it goes on as it was");
    let other = fixture.store.backfill_schedule(&tenant("other"), kept.id, &fires, Overlap::Allow).await.unwrap();
    assert_eq!(other, None);

    let fresh = schedule(fixture, policies(Overlap::Skip)).await;
    let now = fixture.clock.now_ms();
    let fires = fresh.fires_between(now - 3 * EVERY_MS as i64, now - 1).unwrap();
    let one_by_one =
        fixture.store.backfill_schedule(&fresh.tenant, fresh.id, &fires, Overlap::BufferOne).await.unwrap();
    let one_by_one = one_by_one.unwrap();
    assert_eq!((one_by_one.fired.len(), one_by_one.overlapped, one_by_one.buffered_fire_at_ms), (1, 1, Some(fires[1])));
}

pub(crate) async fn concurrent_fires_triggers_and_backfills_make_each_job_once(fixture: &Fixture) {
    let mut kept = Vec::new();
    for overlap in [Overlap::Allow, Overlap::Skip, Overlap::BufferOne, Overlap::CancelPrevious] {
        kept.push(schedule(fixture, policies(overlap)).await);
    }
    fixture.advance(3 * EVERY_MS);
    let now = fixture.clock.now_ms();
    let firers = (0..4).map(|_| async { fire(fixture).await.fired });
    let backfills = kept.iter().map(|kept| async {
        let fires = kept.fires_between(START_MS, now).unwrap();
        let filled = fixture.store.backfill_schedule(&kept.tenant, kept.id, &fires, Overlap::Allow).await;
        filled.unwrap().unwrap().fired
    });
    let (fired, filled) =
        tokio::join!(futures_util::future::join_all(firers), futures_util::future::join_all(backfills));
    let mut fires: Vec<_> =
        fired.into_iter().chain(filled).flatten().map(|fired| (fired.schedule, fired.fire_at_ms)).collect();
    let all = fires.len();
    fires.sort();
    fires.dedup();
    assert_eq!(fires.len(), all, "a fire made two jobs");
    assert_eq!(fires.len(), 4 * 4, "a fire made none");
    let jobs = fixture.store.list_jobs(&tenant("demo"), &crate::store::JobFilter::default(), None, 100).await.unwrap();
    assert_eq!(jobs.len(), all);
    // Whoever is cancelled, what it had to make room for runs.
    for kept in &kept {
        let live = jobs.iter().filter(|job| job.fired.is_some_and(|(schedule, _)| schedule == kept.id));
        assert!(live.filter(|job| job.state == JobState::Ready).count() >= 1);
    }
    assert!(matches!(
        fixture.store.cancel_job(&tenant("demo"), jobs[0].id, "").await.unwrap(),
        Some(Cancelled::Now(_) | Cancelled::TooLate(_))
    ));
}

/// More than one look cancels.
const PILE: i64 = 2_500;

/// A schedule whose jobs pile up, and another tenant's that is due.
async fn pile(fixture: &Fixture) -> Schedule {
    let piled = schedule(fixture, policies(Overlap::Allow)).await;
    fire(fixture).await;
    let past: Vec<Millis> = (1..PILE).map(|n| START_MS - n * EVERY_MS as i64).collect();
    for slice in past.chunks(500) {
        fixture.store.backfill_schedule(&piled.tenant, piled.id, slice, Overlap::Allow).await.unwrap();
    }
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, PILE as u64);
    piled
}

pub(crate) async fn jobs_that_pile_up_before_they_are_cancelled_hold_up_no_other_schedule(fixture: &Fixture) {
    let piled = pile(fixture).await;
    let cadence = piled.cadence.clone();
    let kind = (piled.kind.clone(), piled.payload.clone());
    let again = NewSchedule { id: piled.id, ..NewSchedule::new(tenant("demo"), cadence.clone(), kind.0, kind.1) };
    fixture.store.update_schedule(NewSchedule { policies: policies(Overlap::CancelPrevious), ..again }).await.unwrap();
    let other = NewSchedule::new(tenant("zoe"), cadence, "publish", json!({}));
    let other = fixture.store.create_schedule(other).await.unwrap();
    fixture.advance(EVERY_MS);
    let first = fire(fixture).await;
    let fired: Vec<Uuid> = first.fired.iter().map(|fired| fired.schedule).collect();
    assert_eq!((fired, first.next_due_in_ms), (vec![other.id], Some(0)));
    let (mut cancelled, mut fired) = (first.cancelled.len(), Vec::new());
    while fired.is_empty() {
        let report = fire(fixture).await;
        assert!(!report.cancelled.is_empty() || !report.fired.is_empty(), "it does not get on");
        cancelled += report.cancelled.len();
        fired.extend(report.fired);
    }
    assert_eq!((cancelled, fired.len(), fired[0].schedule), (PILE as usize, 1, piled.id));
    let counts = fixture.store.job_counts().await.unwrap();
    assert_eq!((counts.ready, counts.cancelled), (2, PILE as u64));
}

pub(crate) async fn a_trigger_may_cancel_however_many_jobs(fixture: &Fixture) {
    let piled = pile(fixture).await;
    fixture.advance(1);
    let job = new_id();
    let overlap = Some(Overlap::CancelPrevious);
    let triggered = fixture.store.trigger_schedule(&piled.tenant, piled.id, job, overlap).await.unwrap().unwrap();
    let Triggered::Started { fired, cancelled } = triggered else { panic!("{triggered:?}") };
    assert_eq!((fired.job, cancelled.len()), (job, PILE as usize));
    let counts = fixture.store.job_counts().await.unwrap();
    assert_eq!((counts.ready, counts.cancelled), (1, PILE as u64));
}
