//! Schedules from outside: jobs that meet each other, fires on demand, fires of the past.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Service, eventually};

const SOON: Duration = Duration::from_secs(30);

async fn schedule(service: &Service, overlap: &str, ms: u64) -> String {
    let body = json!({"kind": "sleep", "payload": {"ms": ms}, "every_ms": 1_000, "overlap": overlap});
    let made = service.api().post("/v1/schedules", &body).await.expect(201);
    made.header("location").to_owned()
}

/// The schedule, once `is_so`.
async fn once(service: &Service, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(path, SOON, || async {
        let shown = service.api().get(path).await.expect(200).json();
        is_so(&shown).then_some(shown)
    })
    .await
}

fn number(shown: &Value, name: &str) -> u64 {
    shown[name].as_u64().unwrap()
}

#[tokio::test]
async fn fires_are_skipped_while_a_job_runs_and_go_on_when_it_has_ended() {
    let service = Service::start().await;
    let path = schedule(&service, "skip", 2_500).await;
    let shown = once(&service, &path, |shown| number(shown, "fires") >= 2).await;
    assert!(number(&shown, "overlapped") >= 2, "{shown}");
    let jobs = service.api().get("/v1/jobs?state=running").await.expect(200).json();
    assert!(jobs["items"].as_array().unwrap().len() <= 1, "{jobs}");
    let metrics = service.metrics().await;
    assert!(metrics.value("schedule_overlapped_total", &[]).unwrap_or(0.0) >= 2.0, "{}", metrics.text());
}

#[tokio::test]
async fn a_waiting_fire_starts_when_the_job_before_has_ended() {
    let service = Service::start().await;
    let path = schedule(&service, "buffer_one", 1_500).await;
    once(&service, &path, |shown| shown["buffered_fire_at"].is_string()).await;
    let shown = once(&service, &path, |shown| number(shown, "fires") >= 3).await;
    assert!(shown["last_error"].is_null(), "{shown}");
}

#[tokio::test]
async fn every_fire_cancels_the_job_before_it() {
    let service = Service::start().await;
    let path = schedule(&service, "cancel_previous", 600_000).await;
    once(&service, &path, |shown| number(shown, "fires") >= 3).await;
    let cancelled = eventually("cancelled jobs", SOON, || async {
        let page = service.api().get("/v1/jobs?state=cancelled").await.expect(200).json();
        let items = page["items"].as_array().unwrap().clone();
        (items.len() >= 2).then_some(items)
    })
    .await;
    let reason = cancelled[0]["last_error"].as_str().unwrap();
    assert!(reason.starts_with("cancelled: a later fire"), "{reason}");
    service.api().post(&format!("{path}/pause"), &json!({})).await.expect(200);
    let live = service.api().get("/v1/jobs?state=running&state=ready").await.expect(200).json();
    assert_eq!(live["items"].as_array().unwrap().len(), 1, "{live}");
}

#[tokio::test]
async fn a_schedule_is_triggered_and_its_past_is_made_also_while_it_is_paused() {
    let service = Service::start().await;
    let body = json!({"kind": "sleep", "payload": {"ms": 1}, "cron": "* * * * *"});
    let made = service.api().post("/v1/schedules", &body).await.expect(201);
    let path = made.header("location").to_owned();
    service.api().post(&format!("{path}/pause"), &json!({})).await.expect(200);
    let started = service.api().post(&format!("{path}/trigger"), &json!({"overlap": "allow"})).await.expect(201).json();
    service.job_in(started["job"].as_str().unwrap(), "done").await;
    let range = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:39:00Z"});
    let filled = service.api().post(&format!("{path}/backfill"), &range).await.expect(200).json();
    let jobs = filled["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 100, "{filled}");
    for job in jobs {
        service.job_in(job.as_str().unwrap(), "done").await;
    }
    let again = service.api().post(&format!("{path}/backfill"), &range).await.expect(200).json();
    assert_eq!((&again["jobs"], &again["present"]), (&json!([]), &json!(100)));
    let shown = service.api().get(&path).await.expect(200).json();
    assert_eq!((&shown["fires"], &shown["next_fire_at"]), (&json!(101), &Value::Null));
}
