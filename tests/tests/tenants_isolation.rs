//! What one tenant's bad data costs the others: nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::{Value, json};
use tests::{Client, Service, Socket, Store, eventually};

/// For all jobs of the noisy tenant, each with its panic, backtrace and record, in a build without optimisation.
const ALL_DONE: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_thousand_jobs_that_panic_cost_their_tenant_alone() {
    let service = Service::start().await;
    let (noisy, quiet) = (service.tenant("noisy").await, service.tenant("quiet").await);
    let poison = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let bad = post_all(&noisy, vec![poison; 1000]).await;
    let mut socket = Socket::open(&quiet, &["good"]).await;
    let good = (0..100).map(|n| json!({"kind": "publish", "payload": {"topic": "good", "data": n}})).collect();
    let good = post_all(&quiet, good).await;

    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        seen.insert(socket.event().await["data"].as_i64().unwrap());
    }
    for id in &good {
        await_state(&quiet, id, "done").await;
    }
    for id in &bad {
        let job = await_state(&noisy, id, "dead").await;
        assert_eq!((&job["attempt"], &job["tenant"]), (&json!(1), &json!("noisy")));
    }
    the_scheduler_was_never_restarted(&service).await;
    let panics = service.metrics().await;
    let labels = [("component", "scheduler"), ("policy", "keep_running")];
    assert_eq!(panics.value("panic_recovered_total", &labels), Some(1000.0));
    assert_eq!(panics.value("panic_recovered_total", &[("policy", "restart")]), Some(0.0));
    assert_eq!(Store::open(service.home()).await.number("SELECT count(*) FROM jobs").await, 0, "nothing is left over");
}

#[tokio::test]
async fn a_quiet_tenants_job_overtakes_the_backlog_of_a_noisy_one() {
    let service = Service::setup().set("scheduler.concurrency", 2).start().await;
    let (noisy, quiet) = (service.tenant("noisy").await, service.tenant("quiet").await);
    let flood = (0..600).map(|n| json!({"kind": "publish", "payload": {"topic": "flood", "data": n}})).collect();
    let flood = post_all(&noisy, flood).await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let id = post_all(&quiet, vec![body]).await.remove(0);
    let done = await_state(&quiet, &id, "done").await;
    let last = await_state(&noisy, flood.last().unwrap(), "done").await;
    assert!(done["finished_at"].as_str() < last["finished_at"].as_str(), "{done} after {last}");
}

async fn the_scheduler_was_never_restarted(service: &Service) {
    let scheduler = service.node("scheduler").await;
    for node in scheduler["children"].as_array().unwrap().iter().chain([&scheduler]) {
        assert_eq!((&node["incarnation"], &node["restarts"]), (&json!(1), &json!(0)), "{node:#}");
    }
}

/// Posts them, a few at a time, and returns their ids in order.
async fn post_all(client: &Client, bodies: Vec<Value>) -> Vec<String> {
    let posts = bodies.into_iter().map(|body| async move {
        let job = client.post("/v1/jobs", &body).await.expect(201).json();
        job["id"].as_str().unwrap().to_owned()
    });
    iter(posts).buffered(16).collect().await
}

async fn await_state(client: &Client, id: &str, state: &str) -> Value {
    eventually(&format!("job {id} is {state}"), ALL_DONE, || async {
        let job = client.get(&format!("/v1/jobs/{id}")).await.expect(200).json();
        (job["state"] == state).then_some(job)
    })
    .await
}
