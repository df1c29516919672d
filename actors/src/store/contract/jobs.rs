//! The life of a job after it was claimed.

use std::time::Duration;

use telemetry::context::with_deadline;
use tokio::time::Instant;

use super::*;
use crate::jobs::Progress;
use crate::store::contract::channels::{SENT, claim, fill, settle, webhook};
use crate::store::{Before, Effect, FULL_RETRY_MS, Fault, JobFilter, JobState, NewDelivery, PruneJobs};

pub(crate) async fn a_job_reads_back_as_it_was_given(fixture: &Fixture) {
    let given = NewJob {
        priority: -3,
        max_attempts: 4,
        timeout_ms: Some(250),
        run_at_ms: Some(START_MS + 1_000),
        context: context(),
        ..new_job("demo")
    };
    let kept = fixture.enqueue(vec![given.clone()]).await.remove(0);
    assert_eq!(fixture.read(&kept).await, kept);
    assert_eq!((kept.id, &kept.tenant, &kept.kind, &kept.queue), (given.id, &given.tenant, &given.kind, &given.queue));
    assert_eq!((&kept.payload, &kept.context), (&given.payload, &given.context));
    assert_eq!((kept.priority, kept.max_attempts, kept.timeout_ms), (-3, 4, Some(250)));
    assert_eq!((kept.state, kept.run_at_ms, kept.created_at_ms), (JobState::Scheduled, START_MS + 1_000, START_MS));
    fixture.advance(1_000);
    assert_eq!(fixture.read(&kept).await.state, JobState::Ready);
    let claimed = fixture.claim(1).await.remove(0);
    assert_eq!(fixture.read(&kept).await.state, JobState::Running);
    fixture.settle(claimed.fence(), DONE).await;
    assert_eq!(fixture.read(&kept).await.context, given.context, "the end of a job keeps what it belongs to");
}

pub(crate) async fn a_call_takes_no_longer_than_its_caller_has(fixture: &Fixture) {
    let job = new_job("demo");
    let late = with_deadline(Instant::now(), fixture.store.enqueue(vec![job.clone()])).await.unwrap_err();
    assert_eq!((late.kind(), late.is_retryable()), ("out_of_time", true));
    let soon = Instant::now() + Duration::from_secs(10);
    with_deadline(soon, fixture.store.enqueue(vec![job])).await.unwrap();
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, 1);
}

pub(crate) async fn a_batch_is_kept_whole_or_not_at_all(fixture: &Fixture) {
    let twice = new_job("demo");
    let refused = fixture.store.enqueue(vec![new_job("demo"), twice.clone(), twice]).await.unwrap_err();
    assert_eq!(refused.kind(), "conflict");
    assert_eq!(fixture.store.job_counts().await.unwrap().ready, 0);
}

pub(crate) async fn a_late_answer_of_a_lost_worker_is_refused(fixture: &Fixture) {
    let lost = fixture.claimed().await;
    fixture.advance(LEASE_MS + 1);
    assert_eq!(fixture.store.sweep(3, 100).await.unwrap().rescued, 1);
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.id, again.attempt), (lost.id, lost.attempt + 1));
    let endings = [
        DONE,
        Outcome::Retry { after_ms: 0, error: "late".to_owned(), fault: Fault::Failure },
        Outcome::Dead { reason: "late".to_owned(), fault: Fault::Crash },
        Outcome::Snooze { after_ms: 0, reason: "late".to_owned() },
        Outcome::Release,
    ];
    for late in endings {
        let before = fixture.read(&again).await;
        assert_eq!(fixture.settle(lost.fence(), late).await, Settled::Late);
        assert_eq!(fixture.read(&again).await, before);
    }
    assert_eq!(fixture.settle(again.fence(), DONE).await, Settled::Applied);
    assert_eq!(fixture.settle(again.fence(), DONE).await, Settled::Late, "settled twice");
}

pub(crate) async fn a_done_job_keeps_its_result(fixture: &Fixture) {
    let job = fixture.claimed().await;
    fixture.advance(40);
    let result = Some(json!({ "sent": [1, 2] }));
    fixture.settle(job.fence(), Outcome::Done { result: result.clone() }).await;
    let done = fixture.read(&job).await;
    assert_eq!((done.state, done.result, done.finished_at_ms), (JobState::Done, result, Some(START_MS + 40)));
    assert!(fixture.claim(1).await.is_empty());
}

pub(crate) async fn a_retry_waits_and_tells_why(fixture: &Fixture) {
    let job = fixture.claimed().await;
    let error = "the bus is away".to_owned();
    let retry = Outcome::Retry { after_ms: 700, error: error.clone(), fault: Fault::Failure };
    assert_eq!(fixture.settle(job.fence(), retry).await, Settled::Applied);
    let waiting = fixture.read(&job).await;
    assert_eq!((waiting.state, waiting.last_error, waiting.crashes), (JobState::Retrying, Some(error), 0));
    assert!(fixture.claim(1).await.is_empty());
    fixture.advance(700);
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.attempt, again.charged()), (2, 2));
    let crash = Outcome::Retry { after_ms: 0, error: "panicked".to_owned(), fault: Fault::Crash };
    fixture.settle(again.fence(), crash).await;
    assert_eq!(fixture.read(&job).await.crashes, 1);
}

pub(crate) async fn progress_is_kept_with_its_job_and_fenced(fixture: &Fixture) {
    fixture.enqueue(vec![new_job("demo"), new_job("demo")]).await;
    let jobs = fixture.claim(2).await;
    let said = |done| Progress::of(done, 10).note("counting");
    let stale = Fence { attempt: jobs[1].attempt + 1, ..jobs[1].fence() };
    let answers = fixture.store.report_progress(&[(jobs[0].fence(), said(1)), (stale, said(2))]).await.unwrap();
    assert_eq!(answers, [Settled::Applied, Settled::Late]);
    assert_eq!(fixture.store.report_progress(&[]).await.unwrap(), []);
    assert_eq!((fixture.read(&jobs[0]).await.progress, fixture.read(&jobs[1]).await.progress), (Some(said(1)), None));
    let retry = Outcome::Retry { after_ms: 0, error: "no".to_owned(), fault: Fault::Failure };
    let settlement = Settlement { progress: Some(said(5)), ..Settlement::new(jobs[0].fence(), retry) };
    fixture.store.settle(vec![settlement]).await.unwrap();
    assert_eq!(fixture.read(&jobs[0]).await.progress, Some(said(5)), "how far it came is kept with its end");
    assert_eq!(fixture.store.report_progress(&[(jobs[0].fence(), said(6))]).await.unwrap(), [Settled::Late]);
    let again = fixture.claim(1).await.remove(0);
    fixture.settle(again.fence(), DONE).await;
    assert_eq!(fixture.read(&again).await.progress, Some(said(5)), "one that says nothing takes nothing back");
}

pub(crate) async fn a_snoozed_job_waits_uncharged_and_tells_why(fixture: &Fixture) {
    let job = fixture.claimed().await;
    let snooze = || Outcome::Snooze { after_ms: 700, reason: "the file is not there yet".to_owned() };
    assert_eq!(fixture.settle(job.fence(), snooze()).await, Settled::Applied);
    let waiting = fixture.read(&job).await;
    assert_eq!((waiting.state, waiting.snoozes, waiting.charged()), (JobState::Scheduled, 1, 0));
    assert_eq!(waiting.last_error.as_deref(), Some("the file is not there yet"));
    assert!(fixture.claim(1).await.is_empty());
    fixture.advance(700);
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.attempt, again.charged(), again.snoozes), (2, 1, 1));
    fixture.settle(again.fence(), Outcome::Done { result: None }).await;
    assert_eq!(fixture.read(&job).await.snoozes, 1);
}

pub(crate) async fn the_span_of_a_run_stays_with_its_job_for_the_next_one(fixture: &Fixture) {
    let run = |n: u32| {
        let traceparent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{n}-01");
        TraceContext::from_parts(Some(&traceparent), None)
    };
    fixture.enqueue(vec![NewJob { context: context(), ..new_job("demo") }]).await;
    let endings = [
        Outcome::Retry { after_ms: 0, error: "no".to_owned(), fault: Fault::Failure },
        Outcome::Snooze { after_ms: 0, reason: "no".to_owned() },
        Outcome::Release,
        Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure },
    ];
    let mut before = TraceContext::default();
    for (n, outcome) in (1..).zip(endings) {
        let job = fixture.claim(1).await.remove(0);
        assert_eq!((&job.last_run, &job.context), (&before, &context()), "attempt {n}");
        before = run(n);
        let settlement = Settlement { run: before.clone(), ..Settlement::new(job.fence(), outcome) };
        assert_eq!(fixture.store.settle(vec![settlement]).await.unwrap(), [Settled::Applied]);
        assert_eq!(fixture.read(&job).await.last_run, before);
    }
    let dead = fixture.store.list_jobs(&tenant("demo"), &JobFilter::default(), None, 1).await.unwrap().remove(0);
    let redriven = fixture.store.redrive_job(&dead.tenant, dead.id).await.unwrap();
    assert_eq!((redriven.last_run, redriven.snoozes), (run(4), 0));
    // Who never ran, because it was given back before, leaves what was there.
    let job = fixture.claim(1).await.remove(0);
    fixture.store.release(&[job.fence()]).await.unwrap();
    assert_eq!(fixture.read(&job).await.last_run, run(4));
}

pub(crate) async fn a_released_job_is_not_charged(fixture: &Fixture) {
    let job = fixture.claimed().await;
    assert_eq!(fixture.store.release(&[job.fence()]).await.unwrap(), [Settled::Applied]);
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.attempt, again.charged(), again.crashes), (2, 1, 0));
}

pub(crate) async fn a_released_claim_cannot_write_any_more(fixture: &Fixture) {
    let job = fixture.claimed().await;
    fixture.store.release(&[job.fence()]).await.unwrap();
    assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Late);
    fixture.claim(1).await;
    assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Late);
}

pub(crate) async fn a_heartbeat_keeps_the_lease_and_tells_what_is_lost(fixture: &Fixture) {
    fixture.enqueue((0..3).map(|_| new_job("demo")).collect()).await;
    let jobs = fixture.claim(3).await;
    let held: Vec<Fence> = jobs.iter().map(Job::fence).collect();
    fixture.settle(held[0], DONE).await;
    fixture.advance(LEASE_MS - 1);
    let lost = fixture.store.heartbeat(fixture.owner, LEASE_MS, &held[..2]).await.unwrap();
    assert_eq!(lost, [held[0]]);
    fixture.advance(LEASE_MS - 1);
    // The second was kept alive, the third was not.
    assert_eq!(fixture.store.sweep(3, 100).await.unwrap().rescued, 1);
    assert_eq!(fixture.claim(3).await.remove(0).id, held[2].id);
    let lost = fixture.store.heartbeat(Uuid::now_v7(), LEASE_MS, &held[1..2]).await.unwrap();
    assert_eq!(lost, [held[1]], "another owner's heartbeat extended the lease");
    assert_eq!(fixture.store.heartbeat(fixture.owner, LEASE_MS, &held[2..]).await.unwrap(), [held[2]]);
}

pub(crate) async fn a_sweep_rescues_a_job_whose_lease_ran_out(fixture: &Fixture) {
    let job = fixture.claimed().await;
    assert_eq!(fixture.store.sweep(3, 100).await.unwrap().rescued, 0);
    fixture.advance(LEASE_MS + 1);
    assert_eq!(fixture.store.sweep(3, 100).await.unwrap().rescued, 1);
    let ready = fixture.read(&job).await;
    assert_eq!((ready.state, ready.crashes, ready.charged()), (JobState::Ready, 1, 0));
    assert_eq!(ready.last_error.as_deref(), Some("its runner was lost: the lease ran out"));
}

pub(crate) async fn the_third_crash_quarantines_a_job_with_the_reason(fixture: &Fixture) {
    let mut job = fixture.claimed().await;
    for _ in 0..2 {
        fixture.advance(LEASE_MS + 1);
        fixture.store.sweep(3, 100).await.unwrap();
        job = fixture.claim(1).await.remove(0);
    }
    fixture.advance(LEASE_MS + 1);
    let report = fixture.store.sweep(3, 100).await.unwrap();
    assert_eq!((report.rescued, report.quarantined), (0, 1));
    let dead = fixture.read(&job).await;
    assert_eq!((dead.state, dead.crashes), (JobState::Dead, 3));
    let reason = "quarantined after 3 crashes: its runner was lost, the lease ran out";
    assert_eq!(dead.last_error.as_deref(), Some(reason));
    assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Late);
}

pub(crate) async fn good_jobs_beside_one_that_kills_its_runner_survive(fixture: &Fixture) {
    let kept = fixture.enqueue((0..100).map(|_| new_job("demo")).collect()).await;
    let poison = kept[37].id;
    for _ in 0..1_000 {
        // A process claims all it can, and is lost with it if the poison is among that.
        let process = Uuid::now_v7();
        let claim = || ClaimJobs { owner: process, ..fixture.request(100) };
        let mut held = fixture.store.claim(claim()).await.unwrap().jobs;
        held.extend(fixture.store.claim(claim()).await.unwrap().jobs);
        if held.is_empty() {
            break;
        }
        if held.iter().any(|job| job.id == poison) {
            fixture.advance(LEASE_MS + 1);
            fixture.store.sweep(3, 1_000).await.unwrap();
            continue;
        }
        for job in held {
            assert_eq!(fixture.settle(job.fence(), DONE).await, Settled::Applied);
        }
    }
    for job in kept {
        let end = fixture.read(&job).await.state;
        assert_eq!(end, if job.id == poison { JobState::Dead } else { JobState::Done });
    }
}

pub(crate) async fn an_effect_is_committed_with_the_end_of_its_job_only(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let job = fixture.claimed().await;
    let deliver = || Effect::Deliver(NewDelivery::new(job.tenant.clone(), channel.id, json!("hi")));
    let with_effect = |fence| Settlement { effects: vec![deliver()], ..Settlement::new(fence, DONE) };
    let stale = Fence { attempt: job.attempt + 1, ..job.fence() };
    let batch = vec![with_effect(stale), with_effect(job.fence()), with_effect(job.fence())];
    let answers = fixture.store.settle(batch).await.unwrap();
    assert_eq!(answers, [Settled::Late, Settled::Applied, Settled::Late]);
    let kept = fixture.store.list_deliveries(&job.tenant, channel.id, None, Before::newest(10)).await.unwrap();
    assert_eq!(kept.len(), 1, "an effect without its end, or twice");
}

pub(crate) async fn an_impossible_effect_costs_its_own_job_only(fixture: &Fixture) {
    let foreign = webhook(fixture, "other").await;
    fixture.enqueue(vec![new_job("demo"), new_job("demo")]).await;
    let jobs = fixture.claim(2).await;
    let deliver = |to| vec![Effect::Deliver(NewDelivery::new(tenant("demo"), to, json!(1)))];
    let answers = fixture
        .store
        .settle(vec![
            Settlement { effects: deliver(foreign.id), ..Settlement::new(jobs[0].fence(), DONE) },
            Settlement::new(jobs[1].fence(), DONE),
        ])
        .await
        .unwrap();
    let reason = format!("the tenant has no channel {}", foreign.id);
    assert_eq!(answers, [Settled::Refused { reason: reason.clone() }, Settled::Applied]);
    let dead = fixture.read(&jobs[0]).await;
    assert_eq!((dead.state, dead.last_error), (JobState::Dead, Some(reason)));
    assert!(
        fixture.store.list_deliveries(&foreign.tenant, foreign.id, None, Before::newest(10)).await.unwrap().is_empty()
    );
}

pub(crate) async fn a_job_whose_channel_is_full_is_tried_again_uncharged(fixture: &Fixture) {
    let (channel, job) = (webhook(fixture, "demo").await, fixture.claimed().await);
    fill(fixture, &channel, PENDING_MAX).await;
    let notify = |job: &Job| Settlement {
        fence: job.fence(),
        outcome: DONE,
        effects: vec![Effect::Deliver(NewDelivery::new(tenant("demo"), channel.id, json!(1)))],
        ..Settlement::new(job.fence(), DONE)
    };
    let answers = fixture.store.settle(vec![notify(&job), notify(&job)]).await.unwrap();
    let [Settled::Postponed { reason }, Settled::Late] = &answers[..] else { panic!("{answers:?}") };
    let waits = fixture.read(&job).await;
    assert_eq!((waits.finished_at_ms, waits.last_error.as_ref()), (None, Some(reason)));
    fixture.advance(FULL_RETRY_MS - 1);
    assert!(fixture.claim(1).await.is_empty());
    fixture.advance(1);
    let sent = claim(fixture, &channel).await.deliveries.remove(0);
    settle(fixture, &sent, SENT).await;
    let again = fixture.claim(1).await.remove(0);
    assert_eq!((again.attempt, again.charged()), (2, 1));
    assert_eq!(fixture.store.settle(vec![notify(&again)]).await.unwrap(), [Settled::Applied]);
}

/// Keeps all that is not named.
pub(super) fn prune() -> PruneJobs {
    let (done_ms, dead_ms, cancelled_ms) = (60_000_000, 60_000_000, 60_000_000);
    PruneJobs { done_ms, dead_ms, cancelled_ms, tenant_max: 1_000, after: None, limit: 100 }
}

async fn forgotten(fixture: &Fixture, prune: PruneJobs) -> u64 {
    fixture.store.prune(prune).await.unwrap().count
}

pub(crate) async fn finished_jobs_are_forgotten_by_age_and_those_of_a_tenant_by_number(fixture: &Fixture) {
    fixture.enqueue((0..6).map(|_| new_job("demo")).collect()).await;
    fixture.enqueue((0..2).map(|_| new_job("other")).collect()).await;
    let dead = || Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure };
    let mut kept = Vec::new();
    for (n, job) in fixture.claim(8).await.into_iter().enumerate() {
        fixture.settle(job.fence(), if n == 0 { dead() } else { DONE }).await;
        kept.push(job);
        fixture.advance(1_000);
    }
    // The oldest is dead, and those have a time of their own.
    assert_eq!(forgotten(fixture, PruneJobs { done_ms: 6_500, ..prune() }).await, 1);
    assert_eq!(forgotten(fixture, PruneJobs { dead_ms: 6_500, ..prune() }).await, 1);
    assert_eq!(fixture.store.get_job(&kept[0].tenant, kept[0].id).await.unwrap(), None);
    let left = |of| kept[2..].iter().filter(|job| job.tenant == tenant(of)).count() as u64;
    let above = left("demo").saturating_sub(1) + left("other").saturating_sub(1);
    assert_eq!(forgotten(fixture, PruneJobs { tenant_max: 1, ..prune() }).await, above);
    let newest = kept.iter().rfind(|job| job.tenant == tenant("demo")).unwrap();
    assert_eq!(fixture.read(newest).await.state, JobState::Done, "the newest of a tenant is kept");
    assert_eq!(forgotten(fixture, PruneJobs { tenant_max: 1, ..prune() }).await, 0);
}

pub(crate) async fn a_job_that_says_how_long_it_is_kept_is_kept_so_long(fixture: &Fixture) {
    let keep = |keep_ms| NewJob { keep_ms, ..new_job("demo") };
    let made = fixture.enqueue(vec![keep(Some(1_000)), keep(Some(9_000)), keep(None)]).await;
    assert_eq!(made.iter().map(|job| job.keep_ms).collect::<Vec<_>>(), [Some(1_000), Some(9_000), None]);
    for job in fixture.claim(3).await {
        fixture.settle(job.fence(), DONE).await;
    }
    let all = || PruneJobs { done_ms: 5_000, ..prune() };
    let left = async || {
        let mut left = Vec::new();
        for (n, job) in made.iter().enumerate() {
            if fixture.store.get_job(&job.tenant, job.id).await.unwrap().is_some() {
                left.push(n);
            }
        }
        left
    };
    assert_eq!((forgotten(fixture, all()).await, left().await), (0, vec![0, 1, 2]));
    fixture.advance(1_000);
    assert_eq!((forgotten(fixture, all()).await, left().await), (1, vec![1, 2]));
    fixture.advance(5_000);
    assert_eq!((forgotten(fixture, all()).await, left().await), (1, vec![1]));
    fixture.advance(3_000);
    assert_eq!((forgotten(fixture, all()).await, left().await), (1, vec![]));
}

pub(crate) async fn counts_follow_a_job_through_its_life(fixture: &Fixture) {
    let later = NewJob { run_at_ms: Some(START_MS + 60_000), ..new_job("demo") };
    fixture.enqueue(vec![new_job("demo"), new_job("demo"), new_job("demo"), new_job("demo"), later]).await;
    let jobs = fixture.claim(3).await;
    fixture.settle(jobs[0].fence(), DONE).await;
    fixture.settle(jobs[1].fence(), Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure }).await;
    let counts = fixture.store.job_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.ready, counts.running, counts.done, counts.dead), (1, 1, 1, 1, 1));
}

pub(crate) async fn another_tenants_job_is_absent(fixture: &Fixture) {
    let job = fixture.claimed().await;
    assert_eq!(fixture.store.get_job(&tenant("other"), job.id).await.unwrap(), None);
    fixture.settle(job.fence(), DONE).await;
    assert_eq!(fixture.store.get_job(&tenant("other"), job.id).await.unwrap(), None);
}
