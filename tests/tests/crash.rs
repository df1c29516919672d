//! `kill -9` amid work: what was accepted is done, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::json;
use tests::{Home, Receiver, Service, Setup, Store, eventually};

const JOBS: usize = 1000;
const ALL_DONE: Duration = Duration::from_secs(180);

fn with_short_leases(home: &Home) -> Setup {
    let setup = Service::setup().home(home).set("scheduler.lease_ms", 1000).set("scheduler.heartbeat_ms", 300);
    let setup = setup.set("scheduler.sweep_interval_ms", 500).set("outbound.connect_timeout_ms", 500);
    setup.set("channel_manager.request_timeout_ms", 1000).set("channel_manager.lease_ms", 6000)
}

/// Each job hands one notification to a channel, in the same transaction in which it is settled: two settlements would
/// be two notifications with ids of their own.
#[tokio::test]
async fn a_killed_process_leaves_nothing_undone_nothing_stuck_and_nothing_settled_twice() {
    let home = Home::empty();
    let receiver = Receiver::start().await;
    let first = with_short_leases(&home).start().await;
    let (channel, _) = first.webhook(&receiver.url("/hook")).await;
    let accepted = post_jobs(&first, &channel).await;
    let mut store = Store::open(&home).await;
    eventually("a part of the jobs is done", ALL_DONE, || async { (receiver.calls().len() > 20).then_some(()) }).await;
    first.process().kill9().await;
    let done_before = store.number("SELECT count(*) FROM jobs_done").await;
    assert!(done_before < JOBS as i64, "killed too late to prove anything");

    let second = with_short_leases(&home).start().await;
    eventually("every job is done", ALL_DONE, || async {
        let left = Store::open(&home).await.number("SELECT count(*) FROM jobs").await;
        (left == 0).then_some(())
    })
    .await;
    for id in &accepted {
        assert_eq!(second.job(id).await["state"], "done");
    }
    eventually("every notification is sent", ALL_DONE, || async {
        let left = Store::open(&home).await.number("SELECT count(*) FROM deliveries WHERE state <> 'sent'").await;
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(store.number("SELECT count(*) FROM deliveries").await, JOBS as i64, "one for each job");
    let ids = ids_by_number(&receiver);
    assert_eq!(ids.len(), JOBS, "every job's notification came");
    assert!(ids.values().all(|ids| ids.len() == 1), "and under one id only, however often it was sent");
}

#[tokio::test]
async fn a_process_killed_again_and_again_still_gets_its_work_done() {
    let home = Home::empty();
    let receiver = Receiver::start().await;
    let mut service = with_short_leases(&home).start().await;
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    let mut accepted = Vec::new();
    for n in 0..5 {
        for _ in 0..10 {
            accepted.push(service.enqueue("notify", json!({"channel": channel, "data": n})).await);
        }
        service.process().kill9().await;
        service = with_short_leases(&home).start().await;
    }
    for id in &accepted {
        service.job_in(id, "done").await;
    }
    assert_eq!(Store::open(&home).await.number("SELECT count(*) FROM deliveries").await, 50);
}

/// The lease of 30 s that it may have had just extended, a sweep within 5 s, and a claim.
#[tokio::test]
async fn by_default_a_job_whose_worker_was_killed_runs_again_within_forty_seconds() {
    let home = Home::empty();
    let first = Service::setup().home(&home).start().await;
    let id = first.enqueue("sleep", json!({"ms": 200_000})).await;
    first.job_in(&id, "running").await;
    first.process().kill9().await;
    let killed = Instant::now();
    let second = Service::setup().home(&home).start().await;
    eventually("it runs again", Duration::from_secs(40).saturating_sub(killed.elapsed()), || async {
        let job = second.job(&id).await;
        (job["state"] == "running" && job["last_error"] == "its runner was lost: the lease ran out").then_some(())
    })
    .await;
}

async fn post_jobs(service: &Service, channel: &str) -> Vec<String> {
    let posts = (0..JOBS).map(|n| service.enqueue("notify", json!({"channel": channel, "data": {"number": n}})));
    iter(posts).buffered(16).collect().await
}

/// The ids under which each job's notification came to the receiver.
fn ids_by_number(receiver: &Receiver) -> BTreeMap<i64, BTreeSet<String>> {
    let mut ids: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for call in receiver.calls() {
        let number = call.json()["data"]["number"].as_i64().unwrap_or_else(|| panic!("{}", call.json()));
        ids.entry(number).or_default().insert(call.id().to_owned());
    }
    ids
}
