//! The whole subsystem under a real supervisor, on a real store in a directory of its own.

mod battery;
mod cancel;
mod faults;
mod fires;
mod house;
mod kinds;

use serde_json::{Value, json};
use supervision::{Heartbeats, NodeSnapshot, Tree};
use tokio::time::timeout;

use self::house::*;
use super::*;
use crate::jobs::{Cadence, JobContext, JobDone, JobError, JobHandler, Notify, Panic};
use crate::model::{Clock, TenantId, TraceContext, new_id};
use crate::store::contract::START_MS;
use crate::store::{Before, ClaimJobs, Effect, JobState, NewChannel, NewDelivery, SqliteOptions, SqliteStore, Store};

#[tokio::test]
async fn an_enqueued_job_runs_without_waiting_for_the_poll() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick))).await;
    let jobs = house.enqueue("demo", "work", json!({}), 1).await;
    let asked = tokio::time::Instant::now();
    house.until_all_done(&jobs).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_job_for_later_runs_at_its_time_and_not_at_the_next_poll() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick))).await;
    let later =
        NewJob { run_at_ms: Some(crate::model::now_ms() + 300), ..NewJob::new(tenant("demo"), "work", json!({})) };
    let job = house.scheduler.enqueue(vec![later]).await.unwrap().remove(0);
    assert_eq!(job.state, JobState::Scheduled);
    let done = house.until(&job, JobState::Done).await;
    let late_ms = done.claimed_at_ms.unwrap() - done.run_at_ms;
    assert!((0..10_000).contains(&late_ms), "{late_ms} ms late");
}

#[tokio::test]
async fn one_tenants_thousand_panicking_jobs_cost_another_tenant_nothing() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick)).with(Panic)).await;
    let bad = house.enqueue("bad", "panic", json!({}), 1_000).await;
    let good = house.enqueue("good", "work", json!({}), 100).await;
    house.until_all_done(&good).await;
    let dead = house.store.job_counts().await.unwrap().dead;
    assert!(dead < 1_000, "the good jobs waited for all bad ones");
    for job in &bad {
        let dead = house.until(job, JobState::Dead).await;
        let reason = dead.last_error.unwrap();
        assert!(reason.starts_with("quarantined after 3 crashes: panicked: a job of the kind"), "{reason}");
        assert_eq!(dead.crashes, 3);
    }
    assert!(house.incarnations().iter().all(|(_, incarnation)| *incarnation == 1), "{:?}", house.incarnations());
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_job_that_runs_may_end_during_the_drain() {
    let work = Work::new(Manner::Gated);
    let house = House::new(quick(), Handlers::new().with(work.clone())).await;
    let jobs = house.enqueue("demo", "work", json!({}), 3).await;
    work.until_runs(3).await;
    let (report, ()) = tokio::join!(house.tree.stop(), async {
        eventually("the stop", async || {
            house
                .tree
                .snapshot()
                .find("scheduler.claimer")
                .filter(|node| node.status != supervision::Status::Up)
                .map(drop)
        })
        .await;
        work.open(3);
    });
    assert!(report.is_clean(), "{report:?}");
    for job in &jobs {
        assert_eq!(house.read(job).await.state, JobState::Done);
    }
}

#[tokio::test]
async fn what_cannot_end_in_time_is_given_back_without_charge() {
    for manner in [Manner::UntilCancelled, Manner::Deaf] {
        let work = Work::new(manner);
        let settings = Settings { concurrency: 2, stop_within_ms: 3_450, ..quick() };
        let house = House::new(settings, Handlers::new().with(work.clone())).await;
        let jobs = house.enqueue("demo", "work", json!({}), 10).await;
        work.until_runs(2).await;
        let report = house.tree.stop().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(work.runs(), 2, "a job began after the stop");
        for job in &jobs {
            let back = house.read(job).await;
            assert_eq!((back.state, back.charged(), back.crashes), (JobState::Ready, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_notification_is_a_delivery_of_the_same_story() {
    let house = House::new(quick(), Handlers::new().with(Notify)).await;
    let channel = new_channel(&*house.store, "demo").await;
    let origin = "0af7651916cd43dd8448eb211c80319c";
    let notify = NewJob {
        context: TraceContext::from_parts(Some(&format!("00-{origin}-b7ad6b7169203331-01")), None),
        ..NewJob::new(tenant("demo"), "notify", json!({ "channel": channel, "data": { "n": 1 } }))
    };
    let job = house.scheduler.enqueue(vec![notify]).await.unwrap().remove(0);
    timeout(PATIENCE, house.deliveries.wait()).await.unwrap();
    let delivery =
        house.store.list_deliveries(&tenant("demo"), channel, None, Before::newest(10)).await.unwrap().remove(0);
    assert_eq!((delivery.job, &delivery.data), (Some(job.id), &json!({ "n": 1 })));
    assert_eq!(delivery.context.origin().as_deref(), Some(origin));
    assert_eq!(house.read(&job).await.result, Some(json!({ "delivery": delivery.id })));
}

#[tokio::test]
async fn a_notification_for_another_tenants_channel_is_dead_with_the_reason() {
    let house = House::new(quick(), Handlers::new().with(Notify)).await;
    let foreign = new_channel(&*house.store, "other").await;
    let job = house.enqueue("demo", "notify", json!({ "channel": foreign, "data": 1 }), 1).await.remove(0);
    let dead = house.until(&job, JobState::Dead).await;
    assert_eq!(dead.last_error, Some(format!("the tenant has no channel {foreign}")));
}

#[tokio::test]
async fn a_schedule_fires_and_its_jobs_run() {
    let clock = Clock::manual(START_MS);
    let house = House::with_clock(quick(), Handlers::new().with(Work::new(Manner::Quick)), clock).await;
    let every = Cadence::every(60_000).unwrap();
    house.scheduler.create_schedule(NewSchedule::new(tenant("demo"), every, "work", json!({}))).await.unwrap();
    let done = async |count| {
        let counts = house.store.job_counts().await.unwrap();
        (counts.done == count).then_some(())
    };
    eventually("the first fire", || done(1)).await;
    house.clock.advance(60_000);
    house.scheduler.0.firer.poke();
    eventually("the second fire", || done(2)).await;
}
