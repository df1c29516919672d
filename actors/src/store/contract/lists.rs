//! Lists of a tenant's rows, and what a tenant may do to them: cancel a job, pause and delete a schedule.

use super::schedules::{every, fire};
use super::*;
use crate::store::{Cancelled, JobFilter, JobState, Place};

/// All pages of `size` rows, one after the other.
async fn pages(fixture: &Fixture, filter: &JobFilter, size: u32) -> Vec<Vec<Uuid>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.list_jobs(&tenant("demo"), filter, after, size).await.unwrap();
        let Some(last) = page.last() else { return pages };
        after = Some(place(last));
        pages.push(page.iter().map(|job| job.id).collect());
    }
}

async fn listed(fixture: &Fixture, filter: JobFilter) -> Vec<Uuid> {
    pages(fixture, &filter, 100).await.concat()
}

fn place(job: &Job) -> Place {
    Place { at_ms: job.created_at_ms, id: job.id }
}

fn in_state(state: JobState) -> JobFilter {
    JobFilter { states: vec![state], ..JobFilter::default() }
}

async fn cancel(fixture: &Fixture, job: &Job) -> Option<Cancelled> {
    fixture.store.cancel_job(&job.tenant, job.id, "cancelled: no more").await.unwrap()
}

/// One job in each state, newest first, as `(state, id)`.
async fn one_in_each_state(fixture: &Fixture) -> Vec<(JobState, Uuid)> {
    let mut made = Vec::new();
    for state in JobState::ALL {
        fixture.advance(1_000);
        let later = Some(START_MS + 3_600_000).filter(|_| state == JobState::Scheduled);
        let job = fixture.enqueue(vec![NewJob { run_at_ms: later, ..new_job("demo") }]).await.remove(0);
        if matches!(state, JobState::Running | JobState::Retrying | JobState::Done | JobState::Dead) {
            let fault = crate::store::Fault::Failure;
            // The one that stays ready is claimed too, and given back.
            for other in fixture.claim(9).await {
                let outcome = match state {
                    _ if other.id != job.id => Outcome::Release,
                    JobState::Retrying => Outcome::Retry { after_ms: 3_600_000, error: "no".to_owned(), fault },
                    JobState::Done => DONE,
                    JobState::Dead => Outcome::Dead { reason: "no".to_owned(), fault },
                    _ => continue,
                };
                fixture.settle(other.fence(), outcome).await;
            }
        }
        if state == JobState::Cancelled {
            assert!(matches!(cancel(fixture, &job).await, Some(Cancelled::Now(_))));
        }
        made.insert(0, (state, job.id));
    }
    made
}

pub(crate) async fn jobs_are_listed_newest_first_whatever_state_they_are_in(fixture: &Fixture) {
    let made = one_in_each_state(fixture).await;
    let ids: Vec<Uuid> = made.iter().map(|(_, id)| *id).collect();
    assert_eq!(listed(fixture, JobFilter::default()).await, ids);
    assert_eq!(pages(fixture, &JobFilter::default(), 3).await, [&ids[..3], &ids[3..6], &ids[6..]]);
    let states = fixture.store.list_jobs(&tenant("demo"), &JobFilter::default(), None, 9).await.unwrap();
    assert_eq!(states.iter().map(|job| (job.state, job.id)).collect::<Vec<_>>(), made);
    assert_eq!(fixture.store.list_jobs(&tenant("other"), &JobFilter::default(), None, 9).await.unwrap(), []);
}

pub(crate) async fn a_filter_leaves_out_what_it_does_not_name(fixture: &Fixture) {
    let made = one_in_each_state(fixture).await;
    for (state, id) in &made {
        assert_eq!(listed(fixture, in_state(*state)).await, [*id], "{state:?}");
    }
    let two = JobFilter { states: vec![JobState::Scheduled, JobState::Dead], ..JobFilter::default() };
    assert_eq!(listed(fixture, two).await.len(), 2);
    let other = NewJob { kind: "notify".to_owned(), queue: "slow".to_owned(), ..new_job("demo") };
    let other = fixture.enqueue(vec![other]).await.remove(0).id;
    let of_kind = |kind: &str| JobFilter { kind: Some(kind.to_owned()), ..JobFilter::default() };
    let of_queue = |queue: &str| JobFilter { queue: Some(queue.to_owned()), ..JobFilter::default() };
    assert_eq!(listed(fixture, of_kind("notify")).await, [other]);
    assert_eq!(listed(fixture, of_queue("slow")).await, [other]);
    assert_eq!(listed(fixture, of_kind("publish")).await.len(), made.len());
    assert!(listed(fixture, of_kind("nothing")).await.is_empty());
}

pub(crate) async fn times_of_a_filter_are_exclusive_at_both_ends(fixture: &Fixture) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(fixture.enqueue(vec![new_job("demo")]).await.remove(0).id);
        fixture.advance(1_000);
    }
    let between = |after: Option<i64>, before: Option<i64>| JobFilter {
        created_after_ms: after.map(|ms| START_MS + ms),
        created_before_ms: before.map(|ms| START_MS + ms),
        ..JobFilter::default()
    };
    assert_eq!(listed(fixture, between(Some(0), Some(3_000))).await, [ids[2], ids[1]]);
    assert_eq!(listed(fixture, between(Some(2_000), None)).await, [ids[3]]);
    assert_eq!(listed(fixture, between(None, Some(1_000))).await, [ids[0]]);
    assert_eq!(pages(fixture, &between(None, Some(3_000)), 2).await, [vec![ids[2], ids[1]], vec![ids[0]]]);
}

pub(crate) async fn pages_stay_as_they_are_while_rows_are_added_and_jobs_end(fixture: &Fixture) {
    // All in the same millisecond: only their ids tell them apart.
    let mut old: Vec<Uuid> =
        fixture.enqueue((0..5).map(|_| new_job("demo")).collect()).await.iter().map(|j| j.id).collect();
    old.sort_unstable_by(|a, b| b.cmp(a));
    let list = async |after| fixture.store.list_jobs(&tenant("demo"), &JobFilter::default(), after, 2).await.unwrap();
    let first = list(None).await;
    fixture.advance(1);
    fixture.enqueue(vec![new_job("demo"), new_job("demo")]).await;
    for job in fixture.claim(9).await {
        fixture.settle(job.fence(), DONE).await;
    }
    let second = list(first.last().map(place)).await;
    let third = list(second.last().map(place)).await;
    let seen: Vec<Uuid> = [first, second, third].concat().iter().map(|job| job.id).collect();
    assert_eq!(seen, old);
}

pub(crate) async fn a_cancelled_job_is_final_whatever_it_did(fixture: &Fixture) {
    let later = NewJob { run_at_ms: Some(START_MS + 60_000), context: context(), ..new_job("demo") };
    let waiting = fixture.enqueue(vec![later]).await.remove(0);
    let running = fixture.claimed().await;
    let ready = fixture.enqueue(vec![new_job("demo")]).await.remove(0);
    for job in [&waiting, &running, &ready] {
        let Some(Cancelled::Now(now)) = cancel(fixture, job).await else { panic!("not cancelled: {job:?}") };
        assert_eq!((now.state, now.last_error.as_deref()), (JobState::Cancelled, Some("cancelled: no more")));
        assert_eq!((now.finished_at_ms, now.fence()), (Some(START_MS), job.fence()));
        assert_eq!((&now.payload, &now.context, now.created_at_ms), (&job.payload, &job.context, job.created_at_ms));
        assert_eq!(fixture.read(job).await, *now);
        let Some(Cancelled::TooLate(again)) = cancel(fixture, job).await else { panic!("cancelled twice: {job:?}") };
        assert_eq!(again, now);
    }
    assert_eq!(fixture.claim(9).await, []);
    let counts = fixture.store.job_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.ready, counts.running, counts.cancelled), (0, 0, 0, 3));
}

pub(crate) async fn the_runner_of_a_cancelled_job_has_lost_it(fixture: &Fixture) {
    let job = fixture.claimed().await;
    cancel(fixture, &job).await.unwrap();
    let cancelled = fixture.read(&job).await;
    let lost = fixture.store.heartbeat(fixture.owner, LEASE_MS, &[job.fence()]).await.unwrap();
    assert_eq!(lost, [job.fence()]);
    for late in [
        DONE,
        Outcome::Release,
        Outcome::Retry { after_ms: 0, error: "late".to_owned(), fault: crate::store::Fault::Failure },
    ] {
        assert_eq!(fixture.settle(job.fence(), late).await, Settled::Late);
    }
    fixture.advance(LEASE_MS + 1);
    assert_eq!(fixture.store.sweep(3, 100).await.unwrap().rescued, 0);
    assert_eq!(fixture.read(&job).await, cancelled);
}

pub(crate) async fn nobody_cancels_another_tenants_job_or_one_that_has_ended(fixture: &Fixture) {
    let job = fixture.claimed().await;
    assert_eq!(fixture.store.cancel_job(&tenant("other"), job.id, "mine now").await.unwrap(), None);
    assert_eq!(fixture.store.cancel_job(&job.tenant, Uuid::now_v7(), "whose").await.unwrap(), None);
    assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Applied);
    let Some(Cancelled::TooLate(done)) = cancel(fixture, &job).await else { panic!("cancelled though done") };
    assert_eq!(done.state, JobState::Done);
    assert_eq!(fixture.store.cancel_job(&tenant("other"), job.id, "mine now").await.unwrap(), None);
}

pub(crate) async fn schedules_are_listed_newest_first(fixture: &Fixture) {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.insert(0, every(fixture, 60_000).await);
        fixture.advance(1);
    }
    let list = async |of: &str, after, limit| fixture.store.list_schedules(&tenant(of), after, limit).await.unwrap();
    assert_eq!(list("demo", None, 9).await, made);
    let first = list("demo", None, 2).await;
    let last = first.last().map(|schedule| Place { at_ms: schedule.created_at_ms, id: schedule.id });
    assert_eq!((&first[..], &list("demo", last, 2).await[..]), (&made[..2], &made[2..]));
    assert_eq!(list("other", None, 9).await, []);
}

pub(crate) async fn a_deleted_schedule_fires_no_more_and_its_jobs_stay(fixture: &Fixture) {
    let schedule = every(fixture, 60_000).await;
    fixture.advance(60_000);
    let job = fire(fixture).await.fired[0].job;
    assert!(!fixture.store.delete_schedule(&tenant("other"), schedule.id).await.unwrap());
    assert!(fixture.store.delete_schedule(&schedule.tenant, schedule.id).await.unwrap());
    assert!(!fixture.store.delete_schedule(&schedule.tenant, schedule.id).await.unwrap(), "deleted twice");
    fixture.advance(60_000);
    assert_eq!(fire(fixture).await.fired, []);
    assert_eq!(fixture.claim(9).await.iter().map(|job| job.id).collect::<Vec<_>>(), [job]);
}

pub(crate) async fn a_paused_schedule_does_not_fire_until_it_is_resumed(fixture: &Fixture) {
    let schedule = every(fixture, 60_000).await;
    let (of, id) = (schedule.tenant.clone(), schedule.id);
    assert_eq!(fixture.store.resume_schedule(&of, id).await.unwrap(), Some(schedule), "it was not paused");
    let paused = fixture.store.pause_schedule(&of, id).await.unwrap().unwrap();
    assert_eq!((paused.paused_at_ms, paused.next_fire_at_ms), (Some(START_MS), None));
    fixture.advance(600_000);
    assert_eq!(fixture.store.pause_schedule(&of, id).await.unwrap(), Some(paused), "paused twice");
    assert_eq!(fire(fixture).await.fired, []);
    let resumed = fixture.store.resume_schedule(&of, id).await.unwrap().unwrap();
    assert_eq!((resumed.paused_at_ms, resumed.next_fire_at_ms), (None, Some(START_MS + 600_000)), "as a new one");
    assert_eq!(fire(fixture).await.fired.len(), 1, "and nothing is made up for");
    for other in
        [fixture.store.pause_schedule(&tenant("other"), id), fixture.store.resume_schedule(&tenant("other"), id)]
    {
        assert_eq!(other.await.unwrap(), None);
    }
}
