//! When schedules fire, and how often.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::jobs::Cadence;
use crate::store::{FireDue, FireReport, Job, JobFilter, Misfire, NewSchedule, Overlap, Policies, Schedule};

pub(super) const HOUR_MS: u64 = 3_600_000;

pub(super) async fn every(fixture: &Fixture, every_ms: u64) -> Schedule {
    let cadence = Cadence::every(every_ms).unwrap();
    let policies = Policies { overlap: Overlap::Allow, ..Policies::default() };
    let schedule =
        NewSchedule { context: context(), policies, ..NewSchedule::new(tenant("demo"), cadence, "publish", json!({})) };
    fixture.store.create_schedule(schedule).await.unwrap()
}

pub(super) async fn fire(fixture: &Fixture) -> FireReport {
    fixture.store.fire_due(FireDue { limit: 100, catch_up_window_ms: HOUR_MS }).await.unwrap()
}

pub(crate) async fn a_schedule_fires_once_for_each_time_it_is_due(fixture: &Fixture) {
    let schedule = every(fixture, 10_000).await;
    let first = fire(fixture).await;
    assert_eq!((first.fired.len(), first.next_due_in_ms), (1, Some(10_000)));
    assert!(fire(fixture).await.fired.is_empty());
    fixture.advance(10_250);
    let second = fire(fixture).await.fired.remove(0);
    assert_eq!((second.fire_at_ms, second.late_ms), (START_MS + 10_000, 250));
    let job = fixture.store.get_job(&schedule.tenant, second.job).await.unwrap().unwrap();
    assert_eq!(job.fired, Some((schedule.id, START_MS + 10_000)));
    assert_eq!((&job.kind, &job.context), (&schedule.kind, &schedule.context));
    assert_eq!(fixture.claim(10).await.len(), 2);
}

pub(crate) async fn concurrent_firers_fire_once(fixture: &Fixture) {
    for _ in 0..20 {
        every(fixture, 10_000).await;
    }
    let firers = (0..8).map(|_| fire(fixture));
    let reports = futures_util::future::join_all(firers).await;
    assert_eq!(reports.iter().map(|report| report.fired.len()).sum::<usize>(), 20);
    assert_eq!(fixture.claim(100).await.len(), 20);
}

pub(crate) async fn of_missed_fires_only_the_latest_is_made_up_for(fixture: &Fixture) {
    every(fixture, 10_000).await;
    fixture.advance(95_000);
    let fired = fire(fixture).await.fired;
    assert_eq!((fired.len(), fired[0].fire_at_ms, fired[0].late_ms), (1, START_MS + 90_000, 5_000));
    assert_eq!(fire(fixture).await.next_due_in_ms, Some(5_000));
}

pub(crate) async fn a_fire_that_is_too_old_is_missed(fixture: &Fixture) {
    let schedule = every(fixture, 24 * HOUR_MS).await;
    fire(fixture).await;
    fixture.advance(25 * HOUR_MS + 1);
    let report = fire(fixture).await;
    assert_eq!((report.fired.len(), report.missed), (0, 1));
    let after = fixture.store.get_schedule(&schedule.tenant, schedule.id).await.unwrap().unwrap();
    assert_eq!(after.next_fire_at_ms, Some(START_MS + 48 * HOUR_MS as i64));
    assert_eq!(after.last_fire_at_ms, Some(START_MS));
}

pub(crate) async fn a_cron_schedule_fires_by_the_clock_of_its_place(fixture: &Fixture) {
    let cadence = Cadence::cron("30 2 * * *", "Europe/Berlin", START_MS).unwrap();
    let schedule = NewSchedule::new(tenant("demo"), cadence, "publish", json!({}));
    let kept = fixture.store.create_schedule(schedule).await.unwrap();
    // Half past two in winter is half past one in UTC.
    assert_eq!(kept.next_fire_at_ms, Some(START_MS + 90 * 60_000));
    fixture.advance(90 * 60_000);
    let report = fire(fixture).await;
    assert_eq!((report.fired.len(), report.next_due_in_ms), (1, Some(24 * HOUR_MS)));
}

pub(crate) async fn jitter_delays_the_job_and_not_the_fire(fixture: &Fixture) {
    let cadence = Cadence::every(10_000).unwrap();
    let policies = Policies { overlap: Overlap::Allow, ..Policies::default() };
    let jittered =
        NewSchedule { jitter_ms: 5_000, policies, ..NewSchedule::new(tenant("demo"), cadence, "publish", json!({})) };
    let schedule = fixture.store.create_schedule(jittered).await.unwrap();
    let mut delays = Vec::new();
    for _ in 0..2 {
        let fired = fire(fixture).await.fired.remove(0);
        let job = fixture.store.get_job(&schedule.tenant, fired.job).await.unwrap().unwrap();
        delays.push(job.run_at_ms - fired.fire_at_ms);
        fixture.advance(10_000);
    }
    assert!((0..5_000).contains(&delays[0]) && delays[0] == delays[1], "{delays:?}");
}

pub(crate) async fn the_jobs_of_a_schedule_are_as_it_says_and_are_listed_by_it(fixture: &Fixture) {
    let new = |kind: &str| NewSchedule::new(tenant("demo"), Cadence::every(10_000).unwrap(), kind, json!({}));
    let said = NewSchedule { priority: 7, timeout_ms: Some(9), keep_ms: Some(8), max_attempts: 2, ..new("publish") };
    let schedule = fixture.store.create_schedule(said.clone()).await.unwrap();
    let other = fixture.store.create_schedule(new("notify")).await.unwrap();
    assert_eq!(fire(fixture).await.fired.len(), 2);
    let changed = NewSchedule { id: schedule.id, priority: 1, timeout_ms: None, keep_ms: None, ..said };
    fixture.store.update_schedule(changed).await.unwrap();
    let listed = async |schedule: &Schedule| {
        let filter = JobFilter { schedule: Some(schedule.id), ..JobFilter::default() };
        let jobs = fixture.store.list_jobs(&tenant("demo"), &filter, None, 9).await.unwrap();
        let of = |job: &Job| (job.kind.clone(), job.priority, job.timeout_ms, job.keep_ms, job.max_attempts);
        jobs.iter().map(of).collect::<Vec<_>>()
    };
    let made = |priority, timeout_ms, keep_ms| ("publish".to_owned(), priority, timeout_ms, keep_ms, 2);
    assert_eq!(listed(&schedule).await, [made(7, Some(9), Some(8))]);
    for job in fixture.claim(9).await {
        fixture.settle(job.fence(), DONE).await;
    }
    fixture.advance(10_000);
    fire(fixture).await;
    assert_eq!(listed(&schedule).await, [made(1, None, None), made(7, Some(9), Some(8))]);
    assert_eq!(listed(&other).await.len(), 2);
}

pub(crate) async fn a_schedule_reads_back_as_it_was_given(fixture: &Fixture) {
    let kept = every(fixture, 10_000).await;
    let read = fixture.store.get_schedule(&kept.tenant, kept.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&kept));
    assert_eq!(
        (kept.cadence.every_ms(), kept.next_fire_at_ms, kept.context),
        (Some(10_000), Some(START_MS), context())
    );
    assert_eq!(fixture.store.get_schedule(&tenant("other"), kept.id).await.unwrap(), None);
    let policies = Policies {
        misfire: Misfire::All { max: 7 },
        catch_up_window_ms: Some(0),
        overlap: Overlap::BufferOne,
        start_at_ms: Some(START_MS + 1),
        end_at_ms: Some(START_MS + 2),
        remaining_fires: Some(3),
    };
    let full = NewSchedule {
        policies,
        jitter_ms: 9,
        max_attempts: 2,
        priority: -3,
        timeout_ms: Some(7_000),
        keep_ms: Some(0),
        queue: "other".to_owned(),
        ..NewSchedule::new(
            tenant("demo"),
            Cadence::cron("* * * * * *", "Asia/Tokyo", START_MS).unwrap(),
            "k",
            json!([1]),
        )
    };
    let kept = fixture.store.create_schedule(full.clone()).await.unwrap();
    assert_eq!((&kept.policies, &kept.cadence), (&full.policies, &full.cadence));
    assert_eq!((kept.jitter_ms, kept.max_attempts, &*kept.queue, &*kept.kind), (9, 2, "other", "k"));
    assert_eq!((kept.priority, kept.timeout_ms, kept.keep_ms), (-3, Some(7_000), Some(0)));
}

pub(crate) async fn a_changed_schedule_goes_on_as_before_unless_its_cadence_is_another(fixture: &Fixture) {
    let kept = every(fixture, 10_000).await;
    fire(fixture).await;
    fixture.advance(3_000);
    let change = |cadence, policies| NewSchedule {
        id: kept.id,
        policies,
        ..NewSchedule::new(kept.tenant.clone(), cadence, "notify", json!({ "new": true }))
    };
    let change = |cadence, policies| fixture.store.update_schedule(change(cadence, policies));
    let ten = || Cadence::every(10_000).unwrap();
    let changed = change(ten(), Policies::default()).await.unwrap().unwrap();
    assert_eq!(changed.next_fire_at_ms, Some(START_MS + 10_000));
    assert_eq!((&*changed.kind, &changed.payload), ("notify", &json!({ "new": true })));
    assert_eq!((changed.policies.overlap, changed.tally.fires, changed.created_at_ms), (Overlap::Skip, 1, START_MS));
    assert_eq!(fixture.store.get_schedule(&kept.tenant, kept.id).await.unwrap().as_ref(), Some(&changed));

    let seven = change(Cadence::every(7_000).unwrap(), Policies::default()).await.unwrap().unwrap();
    assert_eq!((seven.next_fire_at_ms, seven.anchor_ms), (Some(START_MS + 3_000), START_MS + 3_000));
    let over = Policies { end_at_ms: Some(START_MS), ..Policies::default() };
    assert_eq!(change(ten(), over).await.unwrap().unwrap().next_fire_at_ms, None);
    let again = change(ten(), Policies::default()).await.unwrap().unwrap();
    assert_eq!(again.next_fire_at_ms, Some(START_MS + 13_000), "it goes on where it stood when it ended");

    fixture.store.pause_schedule(&kept.tenant, kept.id).await.unwrap();
    let paused = change(Cadence::every(5_000).unwrap(), Policies::default()).await.unwrap().unwrap();
    assert!(paused.paused_at_ms.is_some() && paused.next_fire_at_ms.is_none());
    let foreign = NewSchedule { id: kept.id, ..NewSchedule::new(tenant("other"), ten(), "publish", json!({})) };
    assert_eq!(fixture.store.update_schedule(foreign).await.unwrap(), None);
}

pub(crate) async fn of_many_due_schedules_every_tenant_has_its_share(fixture: &Fixture) {
    for _ in 0..60 {
        every(fixture, 10_000).await;
    }
    let quiet = NewSchedule::new(tenant("quiet"), Cadence::every(10_000).unwrap(), "publish", json!({}));
    fixture.advance(5);
    let quiet = fixture.store.create_schedule(quiet).await.unwrap();
    let request = FireDue { limit: 10, catch_up_window_ms: HOUR_MS };
    let report = fixture.store.fire_due(request).await.unwrap();
    assert_eq!((report.fired.len(), report.next_due_in_ms), (10, Some(0)));
    assert!(report.fired.iter().any(|fired| fired.schedule == quiet.id), "the quiet tenant waits behind the noisy one");
    let mut fired = report.fired.len();
    while fired < 61 {
        let report = fixture.store.fire_due(request).await.unwrap();
        assert!(!report.fired.is_empty(), "nothing was fired, though something is due");
        fired += report.fired.len();
    }
    assert_eq!(fire(fixture).await.next_due_in_ms, Some(9_995));
}

/// How many schedules of the noisy tenant are due at once; more of them by `SCHEDULES`.
fn noise() -> i64 {
    std::env::var("SCHEDULES").ok().and_then(|value| value.parse().ok()).unwrap_or(3_000)
}

/// One tenant's schedules of the same minute delay no other, and all fire once. `copy` makes so many of one, this one included.
pub(crate) async fn storm(fixture: &Fixture, copy: impl AsyncFnOnce(Uuid, i64)) {
    let store = &fixture.store;
    let new = |of: &str| {
        let cadence = Cadence::cron("0 * * * *", "Europe/Berlin", fixture.clock.now_ms()).unwrap();
        NewSchedule::new(tenant(of), cadence, "publish", json!({}))
    };
    let noisy = store.create_schedule(new("noisy")).await.unwrap().id;
    copy(noisy, noise()).await;
    let quiet = store.create_schedule(new("quiet")).await.unwrap().id;
    fixture.advance(3_600_000);

    let began = Instant::now();
    let (mut fired, mut longest, mut looks) = (BTreeSet::new(), Duration::ZERO, 0);
    while (fired.len() as i64) < noise() + 1 {
        let asked = Instant::now();
        let report = store.fire_due(FireDue { limit: 100, catch_up_window_ms: 3_600_000 }).await.unwrap();
        longest = longest.max(asked.elapsed());
        assert!(!report.fired.is_empty(), "nothing fires, though {} have", fired.len());
        if looks == 0 {
            assert!(report.fired.iter().any(|fired| fired.schedule == quiet), "the quiet tenant waits");
        }
        for one in report.fired {
            assert!(fired.insert(one.schedule), "{} fires twice", one.schedule);
        }
        looks += 1;
    }
    let each = began.elapsed().as_secs_f64() * 1e6 / fired.len() as f64;
    eprintln!("{} fires in {looks} looks, {each:.0} us each, the longest look {longest:?}", fired.len());
    assert_eq!(store.job_counts().await.unwrap().ready, fired.len() as u64);
    assert!(store.fire_due(FireDue { limit: 100, catch_up_window_ms: 3_600_000 }).await.unwrap().fired.is_empty());
}
