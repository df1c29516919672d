//! Lists, cancellation and schedules from outside.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::{Service, eventually};

const SOON: Duration = Duration::from_secs(30);

/// All jobs that `query` lists, page by page.
async fn listed(service: &Service, query: &str) -> Vec<Value> {
    listed_behind(service, query, String::new()).await
}

/// As [`listed`], from the page on to which `cursor` (`&cursor=...`) leads.
async fn listed_behind(service: &Service, query: &str, mut cursor: String) -> Vec<Value> {
    let mut items = Vec::new();
    loop {
        let page = service.api().get(&format!("/v1/jobs?{query}{cursor}")).await.expect(200).json();
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn a_list_is_walked_page_by_page_while_jobs_are_added_and_end() {
    let service = Service::start().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.insert(0, service.enqueue("publish", json!({"topic": "t", "data": n})).await);
    }
    let first = service.api().get("/v1/jobs?limit=10").await.expect(200).json();
    for n in 0..5 {
        service.enqueue("publish", json!({"topic": "t", "data": n})).await;
    }
    let rest = listed_behind(&service, "limit=10", format!("&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    let seen: Vec<Value> = first["items"].as_array().unwrap().iter().chain(&rest).map(|j| j["id"].clone()).collect();
    assert_eq!(seen, ids);
    service.job_in(&ids[0], "done").await;
    let done = eventually("all are done", SOON, || async {
        let done = listed(&service, "state=done&limit=7").await;
        (done.len() == 35).then_some(done)
    })
    .await;
    assert!(done.iter().all(|job| job["state"] == "done"));
    assert_eq!(service.tenant("other").await.get("/v1/jobs").await.expect(200).json(), json!({"items": []}));
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_tells_its_handler_and_stays_cancelled() {
    let service = Service::start().await;
    let id = service.enqueue("sleep", json!({"ms": 600_000})).await;
    service.job_in(&id, "running").await;
    let asked = Instant::now();
    let path = format!("/v1/jobs/{id}/cancel");
    let cancelled = service.api().post(&path, &json!({"reason": "no longer needed"})).await.expect(200).json();
    assert_eq!(
        (&cancelled["state"], &cancelled["last_error"]),
        (&json!("cancelled"), &json!("cancelled: no longer needed"))
    );
    eventually("its handler says that it was woken, and its late answer is refused", SOON, || async {
        let log = service.process().stderr().join("\n");
        (log.contains("a sleep was cut short") && log.contains("a late answer was refused")).then_some(())
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(5), "not at once: {:?}", asked.elapsed());
    assert_eq!(service.job(&id).await, cancelled);
    service.api().post(&path, &json!({})).await.expect(409);
    let next = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&next, "done").await;
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
}

#[tokio::test]
async fn a_job_cancelled_while_another_process_runs_it_is_stopped_there_by_the_next_heartbeat() {
    let first = Service::setup().start().await;
    let id = first.enqueue("sleep", json!({"ms": 600_000})).await;
    first.job_in(&id, "running").await;
    let second = Service::setup().home(first.home()).start().await;
    second.api().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await.expect(200);
    eventually("the process that runs it has stopped it", SOON, || async {
        first.process().stderr().iter().any(|line| line.contains("a sleep was cut short")).then_some(())
    })
    .await;
    assert_eq!(first.job(&id).await["state"], "cancelled");
}

#[tokio::test]
async fn a_schedule_that_is_paused_or_deleted_makes_no_more_jobs() {
    let service = Service::start().await;
    let of = async |kind: &str| listed(&service, &format!("kind={kind}")).await.len();
    let create = async |kind: &str, payload: Value| {
        let body = json!({"kind": kind, "payload": payload, "every_ms": 1000});
        let schedule = service.api().post("/v1/schedules", &body).await.expect(201).json();
        format!("/v1/schedules/{}", schedule["id"].as_str().unwrap())
    };
    let path = create("publish", json!({"topic": "t", "data": 1})).await;
    create("sleep", json!({"ms": 1})).await;
    // The other one says how time passes.
    let fires_twice = async |kind: &str| {
        let before = of(kind).await;
        eventually("it fires", SOON, || async { (of(kind).await >= before + 2).then_some(()) }).await;
    };
    fires_twice("publish").await;
    service.api().post(&format!("{path}/pause"), &json!({})).await.expect(200);
    let paused = of("publish").await;
    fires_twice("sleep").await;
    assert_eq!(of("publish").await, paused);
    service.api().post(&format!("{path}/resume"), &json!({})).await.expect(200);
    fires_twice("publish").await;
    assert_eq!(send(service.api().request(Method::DELETE, &path)).await.status, 204);
    let deleted = of("publish").await;
    fires_twice("sleep").await;
    assert_eq!(of("publish").await, deleted);
    service.api().get(&path).await.expect(404);
}
