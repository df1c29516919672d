//! Lists of jobs and schedules, and what a tenant may do to one of them.

use axum::body::Body;
use serde_json::{Value, json};

use super::{OTHER_KEY, World};

async fn job(world: &World, body: Value) -> Value {
    let mut all = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}});
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let answer = world.post("/v1/jobs", &all).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

fn ids(list: &Value) -> Vec<Value> {
    list["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect()
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages_that_follow_each_other() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/jobs").await.json(), json!({"items": []}));
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, job(&world, json!({})).await["id"].clone());
    }
    let first = world.get("/v1/jobs?limit=2").await.json();
    job(&world, json!({})).await;
    let cursor = |page: &Value| format!("/v1/jobs?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    let second = world.get(&cursor(&first)).await.json();
    let third = world.get(&cursor(&second)).await.json();
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat(), made);
    assert_eq!(third.get("next_cursor"), None);
    let mut alone = world.get(&format!("/v1/jobs/{}", made[0].as_str().unwrap())).await.json();
    let payload = alone.as_object_mut().unwrap().remove("payload");
    assert_eq!((&first["items"][0], payload), (&alone, Some(json!({"topic": "a", "data": 1}))));
    let theirs = world.authorized("GET", "/v1/jobs").header("x", "y").body(Body::empty()).unwrap();
    let mut theirs = theirs;
    theirs.headers_mut().insert("authorization", format!("Bearer {OTHER_KEY}").parse().unwrap());
    assert_eq!(world.send(theirs).await.json(), json!({"items": []}));
}

#[tokio::test]
async fn jobs_are_filtered_by_state_kind_queue_and_time() {
    let world = World::new().await;
    let ready = job(&world, json!({})).await;
    let later = job(&world, json!({"run_at": "2999-01-01T00:00:00Z"})).await;
    for (query, expected) in [
        ("state=ready", vec![&ready]),
        ("state=scheduled", vec![&later]),
        ("state=scheduled&state=ready", vec![&later, &ready]),
        ("state=done", vec![]),
        ("kind=publish&queue=default", vec![&later, &ready]),
        ("kind=notify", vec![]),
        ("queue=other", vec![]),
        ("created_after=2026-01-01T00:00:00Z", vec![&later, &ready]),
        ("created_before=2026-01-01T00:00:00Z", vec![]),
        ("created_after=2999-01-01T00:00:00Z", vec![]),
    ] {
        let list = world.get(&format!("/v1/jobs?{query}")).await.json();
        assert_eq!(ids(&list), expected.iter().map(|job| job["id"].clone()).collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_422_with_every_fault() {
    let world = World::new().await;
    let query = "state=asleep&kind=a&kind=b&schedule_id=7&created_after=yesterday&limit=201&cursor=x&offset=3";
    let problem = world.get(&format!("/v1/jobs?{query}")).await.problem(422);
    let known = "state, kind, queue, schedule_id, created_after, created_before, limit, cursor";
    let states = "scheduled, ready, running, retrying, done, dead, cancelled";
    let expected = json!([
        {"field": "state", "reason": format!("is no state, must be one of: {states}")},
        {"field": "kind", "reason": "may be given once"},
        {"field": "schedule_id", "reason": "is no UUID"},
        {"field": "created_after", "reason": "is no time, expected one such as 2026-01-31T12:00:00Z"},
        {"field": "limit", "reason": "must be from 1 to 200"},
        {"field": "cursor", "reason": "is no cursor of this list"},
        {"field": "offset", "reason": format!("is unknown, known are: {known}")},
    ]);
    assert_eq!(problem["errors"], expected);
    job(&world, json!({})).await;
    job(&world, json!({})).await;
    let page = world.get("/v1/jobs?limit=1").await.json();
    let foreign = format!("/v1/schedules?cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(world.get(&foreign).await.problem(422)["errors"][0]["field"], "cursor");
}

#[tokio::test]
async fn a_cancelled_job_says_so_and_why_and_cannot_be_cancelled_again() {
    let world = World::new().await;
    let id = job(&world, json!({})).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{id}/cancel");
    let cancelled = world.post(&path, &json!({"reason": "ordered twice"})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let shown = cancelled.json();
    assert_eq!((&shown["state"], &shown["last_error"]), (&json!("cancelled"), &json!("cancelled: ordered twice")));
    assert!(shown["finished_at"].is_string());
    assert_eq!(world.get(&format!("/v1/jobs/{id}")).await.json(), shown);
    let again = world.post(&path, &json!({})).await.problem(409);
    assert_eq!(again["detail"], "the job has ended before, it is cancelled");
    assert_eq!(ids(&world.get("/v1/jobs?state=cancelled").await.json()), [json!(id)]);
}

#[tokio::test]
async fn a_job_is_cancelled_without_a_body_too_but_not_with_a_bad_one_or_by_another_tenant() {
    let world = World::new().await;
    let id = job(&world, json!({})).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{id}/cancel");
    let too_long = world.post(&path, &json!({"reason": "x".repeat(501)})).await.problem(422);
    assert_eq!(too_long["errors"], json!([{"field": "reason", "reason": "may have 500 characters at most"}]));
    world.post(&path, &json!({"why": "x"})).await.problem(422);
    let mut foreign = world.authorized("POST", &path).body(Body::empty()).unwrap();
    foreign.headers_mut().insert("authorization", format!("Bearer {OTHER_KEY}").parse().unwrap());
    world.send(foreign).await.problem(404);
    world.post("/v1/jobs/018f0000-0000-7000-8000-000000000000/cancel", &json!({})).await.problem(404);
    let mut bare = world.authorized("POST", &path).body(Body::empty()).unwrap();
    bare.headers_mut().remove("content-type");
    let cancelled = world.send(bare).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["last_error"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn schedules_are_listed_paused_resumed_and_deleted() {
    let world = World::new().await;
    let mut made = Vec::new();
    for minutes in 1..=3 {
        let body = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "every_ms": minutes * 60_000});
        made.insert(0, world.post("/v1/schedules", &body).await.json());
    }
    let first = world.get("/v1/schedules?limit=2").await.json();
    let next = format!("/v1/schedules?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(first["items"], json!(made[..2]));
    assert_eq!(world.get(&next).await.json(), json!({"items": made[2..]}));
    world.get("/v1/schedules?state=x").await.problem(422);

    let path = format!("/v1/schedules/{}", made[0]["id"].as_str().unwrap());
    let paused = world.post(&format!("{path}/pause"), &json!({})).await.json();
    assert!(paused["paused_at"].is_string() && paused["next_fire_at"].is_null(), "{paused}");
    let resumed = world.post(&format!("{path}/resume"), &json!({})).await.json();
    assert!(resumed["paused_at"].is_null() && resumed["next_fire_at"].is_string(), "{resumed}");
    let delete = || world.send(world.authorized("DELETE", &path).body(Body::empty()).unwrap());
    let gone = delete().await;
    assert_eq!((gone.status.as_u16(), gone.body.as_str()), (204, ""));
    for answer in [delete().await, world.get(&path).await, world.post(&format!("{path}/pause"), &json!({})).await] {
        assert_eq!(answer.problem(404)["detail"], "no such schedule");
    }
}
