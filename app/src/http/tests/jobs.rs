//! What there is to do with jobs beside making one: many at once, the only one, redriving.

use actors::model::TenantId;
use serde_json::{Value, json};

use super::World;

fn job(n: u32) -> Value {
    json!({"kind": "publish", "payload": {"topic": "a", "data": n}})
}

fn keyed(unique: Value) -> Value {
    let mut job = job(1);
    job["unique"] = unique;
    job
}

fn demo() -> TenantId {
    TenantId::new("demo").unwrap()
}

impl World {
    /// A job that its tenant has cancelled, and its path.
    async fn cancelled(&self, body: &Value) -> String {
        let made = self.post("/v1/jobs", body).await.json();
        let path = format!("/v1/jobs/{}", made["id"].as_str().unwrap());
        assert_eq!(self.post(&format!("{path}/cancel"), &json!({})).await.status, 200);
        path
    }
}

#[tokio::test]
async fn a_thousand_jobs_are_kept_by_one_request_in_its_order() {
    let world = World::new().await;
    let jobs: Vec<Value> = (0..1_000).map(job).collect();
    let kept = world.post("/v1/jobs/batch", &json!({ "jobs": jobs })).await;
    assert_eq!((kept.status.as_u16(), world.jobs().await), (201, 1_000), "{}", kept.body);
    let (ids, duplicates) = (kept.json()["ids"].clone(), kept.json()["duplicates"].clone());
    assert_eq!((ids.as_array().unwrap().len(), duplicates), (1_000, json!([])));
    for n in [0, 999] {
        let id = ids[n].as_str().unwrap().parse().unwrap();
        let read = world.state.store.get_job(&demo(), id).await.unwrap().unwrap();
        assert_eq!(read.payload["data"], n);
    }
    let too_many: Vec<Value> = (0..1_001).map(job).collect();
    for (jobs, status) in [(json!(too_many), 422), (json!([]), 422)] {
        let problem = world.post("/v1/jobs/batch", &json!({ "jobs": jobs })).await.problem(status);
        assert_eq!(problem["errors"], json!([{"field": "jobs", "reason": "must have from 1 to 1000 entries"}]));
    }
    assert_eq!(world.jobs().await, 1_000);
}

#[tokio::test]
async fn each_fault_of_a_batch_is_named_with_its_place_and_nothing_is_kept() {
    let world = World::new().await;
    let bad = json!({"jobs": [
        job(1),
        {"kind": "publish", "payload": {"topic": 7, "data": 1}, "max_attempts": 0},
        {"kind": "dance", "payload": {}, "unique": {"key": "", "period_ms": 0}},
    ]});
    let problem = world.post("/v1/jobs/batch", &bad).await.problem(422);
    let fields: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    let expected = [
        "jobs[1].payload.topic",
        "jobs[1].max_attempts",
        "jobs[2].kind",
        "jobs[2].unique.key",
        "jobs[2].unique.period_ms",
    ];
    assert_eq!(fields, expected);
    let unreadable =
        json!({"jobs": [job(1), {"kind": "publish", "payload": 1, "unique": {"key": "k", "states": "x"}}]});
    let problem = world.post("/v1/jobs/batch", &unreadable).await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "jobs[1].unique.states");
    let hopeless: Vec<Value> = (0..1_000).map(|_| json!({"kind": "dance", "payload": {}})).collect();
    let problem = world.post("/v1/jobs/batch", &json!({ "jobs": hopeless })).await.problem(422);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 32, "enough to see what is wrong");
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn a_batch_under_the_same_idempotency_key_is_kept_once_also_after_a_crash() {
    let world = World::new().await;
    let body = json!({"jobs": [job(1), keyed(json!({"key": "k"})), keyed(json!({"key": "k"})), job(2)]});
    let first = world.post_with("a", "/v1/jobs/batch", &body).await;
    assert_eq!((first.status.as_u16(), &first.json()["duplicates"]), (201, &json!([2])));
    let again = world.post_with("a", "/v1/jobs/batch", &body).await;
    assert_eq!((&again.body, world.jobs().await), (&first.body, 3));

    // Kept by a process that died before it could answer, with the ids that follow that of the effect.
    let body = json!({"jobs": [job(3), keyed(json!({"key": "k"})), job(4)]});
    let effect = world.begun("b", "/v1/jobs/batch", &body, 0).await;
    let nth = |n: u128| uuid::Uuid::from_u128(effect.as_u128() + n);
    for n in [0, 2] {
        let mut kept = actors::store::NewJob::new(demo(), "publish", job(3)["payload"].clone());
        kept.id = nth(n);
        world.state.store.enqueue(vec![kept]).await.unwrap();
    }
    let found = world.post_with("b", "/v1/jobs/batch", &body).await;
    assert_eq!(found.json()["ids"], json!([nth(0), first.json()["ids"][1], nth(2)]), "{}", found.body);
    assert_eq!((&found.headers["idempotency-replayed"], world.jobs().await), (&"true".parse().unwrap(), 5));
}

#[tokio::test]
async fn a_second_job_with_a_unique_key_is_200_and_the_first_one() {
    let world = World::new().await;
    let first = world.post("/v1/jobs", &keyed(json!({"key": "report-7"}))).await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!((first.json()["unique_key"].as_str(), first.json().get("duplicate")), (Some("report-7"), None));
    let second = world.post("/v1/jobs", &keyed(json!({"key": "report-7", "period_ms": 1000, "states": "all"}))).await;
    assert_eq!((second.status.as_u16(), &second.headers["location"]), (200, &first.headers["location"]));
    assert_eq!((&second.json()["id"], &second.json()["duplicate"]), (&first.json()["id"], &json!(true)));
    assert_eq!(world.jobs().await, 1);
    let long = json!({"key": "x".repeat(256)});
    for (bad, field) in [
        (long, "unique.key"),
        (json!({"key": "k", "period_ms": 2_592_000_001u64}), "unique.period_ms"),
        (json!({"key": "k", "window": 1}), "unique.window"),
        (json!({"period_ms": 1}), "unique"),
    ] {
        let problem = world.post("/v1/jobs", &keyed(bad)).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn a_job_that_was_cancelled_is_redriven_under_its_id() {
    let world = World::new().await;
    let path =
        world.cancelled(&json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "keep_for_ms": 5})).await;
    let redriven = world.post(&format!("{path}/redrive"), &json!({})).await;
    assert_eq!((redriven.status.as_u16(), &redriven.json()["state"]), (200, &json!("ready")), "{}", redriven.body);
    assert_eq!((&redriven.json()["redrives"], &redriven.json()["keep_for_ms"]), (&json!(1), &json!(5)));
    assert_eq!(world.get(&path).await.json(), redriven.json());
    let refused = world.post(&format!("{path}/redrive"), &json!({})).await.problem(409);
    assert_eq!(refused["detail"], "the job is ready, only one that is dead or cancelled is redriven");
    world.post(&format!("/v1/jobs/{}/redrive", uuid::Uuid::now_v7()), &json!({})).await.problem(404);
}

#[tokio::test]
async fn a_redrive_whose_answer_was_lost_is_answered_again_and_not_refused() {
    let world = World::new().await;
    let path = format!("{}/redrive", world.cancelled(&job(1)).await);
    world.begun("k", &path, &json!({}), 0).await;
    assert_eq!(world.post(&path, &json!({})).await.status, 200, "what the first try has done");
    let again = world.post_with("k", &path, &json!({})).await;
    assert_eq!((again.status.as_u16(), &again.json()["state"]), (200, &json!("ready")), "{}", again.body);
}

#[tokio::test]
async fn many_jobs_are_redriven_by_the_filters_of_the_list_a_page_at_a_time() {
    let world = World::new().await;
    for n in 0..3 {
        world.cancelled(&job(n)).await;
    }
    let one = world.post("/v1/jobs/redrive?kind=publish&state=cancelled&limit=2", &json!({})).await;
    assert_eq!((one.status.as_u16(), &one.json()["redriven"]), (200, &json!(2)), "{}", one.body);
    let path = format!("/v1/jobs/redrive?limit=2&cursor={}", one.json()["next_cursor"].as_str().unwrap());
    assert_eq!(world.post(&path, &json!({})).await.json(), json!({"redriven": 1, "skipped": 0}));
    assert_eq!(world.get("/v1/jobs?state=ready").await.json()["items"].as_array().unwrap().len(), 3);
    let problem = world.post("/v1/jobs/redrive?state=done&all=1", &json!({})).await.problem(422);
    assert_eq!(problem["errors"][0], json!({"field": "state", "reason": "must be one of: dead, cancelled"}));
    assert_eq!(problem["errors"][1]["field"], "all");
}

#[tokio::test]
async fn a_job_that_does_not_run_says_why_in_codes_and_in_words() {
    let world = World::new().await;
    let explained = async |body: &Value| {
        let made = world.post("/v1/jobs", body).await.json();
        world.get(&format!("/v1/jobs/{}/explain", made["id"].as_str().unwrap())).await.json()
    };
    // No scheduler runs in this world.
    let detail = "`scheduler.claimer` of this process does not run: its supervision tree says why";
    let down = json!({"code": "claimer_down", "detail": detail, "over_at": null});
    let ready = explained(&job(1)).await;
    assert_eq!((&ready["state"], &ready["reasons"]), (&json!("ready"), &json!([down])));
    let behind = explained(&job(2)).await;
    let detail = "1 jobs of its tenant and queue come first; tenants take turns";
    assert_eq!(behind["reasons"], json!([{"code": "behind_others", "detail": detail, "over_at": null}, down]));
    let mut later = job(3);
    later["run_at"] = json!("2999-01-01T00:00:00Z");
    let later = explained(&later).await;
    assert_eq!(later["reasons"][0]["code"], "not_due");
    assert_eq!(later["reasons"][0]["over_at"], "2999-01-01T00:00:00Z");
    let path = world.cancelled(&job(4)).await;
    let cancelled = world.get(&format!("{path}/explain")).await.json();
    assert!(cancelled["reasons"][0]["detail"].as_str().unwrap().starts_with("it was cancelled at "), "{cancelled}");
    world.get(&format!("/v1/jobs/{}/explain", uuid::Uuid::now_v7())).await.problem(404);
}
