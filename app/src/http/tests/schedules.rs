//! What a tenant can do with a schedule beyond making, listing and pausing it.

use actors::model::now_ms;
use axum::body::Body;
use serde_json::{Value, json};

use super::{Answer, World};

fn body(more: Value) -> Value {
    let mut body = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn at(ms: i64) -> String {
    super::super::resource::time(ms)
}

impl World {
    async fn schedule(&self, more: Value) -> (String, Value) {
        let made = self.post("/v1/schedules", &body(more)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        (made.headers["location"].to_str().unwrap().to_owned(), made.json())
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.authorized("PUT", path).body(Body::from(body.to_string())).unwrap()).await
    }
}

#[tokio::test]
async fn a_schedule_shows_its_policies_and_what_has_become_of_its_fires() {
    let world = World::new().await;
    let policies = json!({"misfire": "all", "misfire_max": 5, "catch_up_window_ms": 1, "overlap": "buffer_one", "jitter_ms": 7,
        "start_at": "2999-01-01T00:00:00Z", "end_at": "2999-01-01T00:00:30Z", "remaining_fires": 9, "priority": -2,
        "timeout_ms": 3_000, "keep_for_ms": 0, "max_attempts": 4});
    let mut given = policies.as_object().unwrap().clone();
    given.insert("every_ms".to_owned(), json!(10_000));
    let (path, shown) = world.schedule(Value::Object(given)).await;
    for (name, value) in policies.as_object().unwrap() {
        assert_eq!(&shown[name], value, "{name}");
    }
    assert_eq!([&shown["fires"], &shown["missed"], &shown["overlapped"]], [0, 0, 0]);
    assert_eq!((&shown["buffered_fire_at"], &shown["next_fire_at"]), (&Value::Null, &json!("2999-01-01T00:00:00Z")));
    let next = ["2999-01-01T00:00:00Z", "2999-01-01T00:00:10Z", "2999-01-01T00:00:20Z"];
    assert_eq!(shown["next_fires"], json!(next));
    assert_eq!(world.get(&path).await.json(), shown);
    let (_, plain) = world.schedule(json!({"every_ms": 60_000})).await;
    assert_eq!((&plain["misfire"], &plain["overlap"]), (&json!("latest"), &json!("skip")));
    assert!(plain.get("remaining_fires").is_none() && plain.get("end_at").is_none(), "{plain}");
}

#[tokio::test]
async fn policies_that_make_no_sense_are_refused_by_name() {
    let world = World::new().await;
    for (bad, field) in [
        (json!({"overlap": "sometimes"}), "overlap"),
        (json!({"misfire": "none"}), "misfire"),
        (json!({"misfire_max": 3}), "misfire_max"),
        (json!({"misfire": "all", "misfire_max": 1_001}), "misfire_max"),
        (json!({"remaining_fires": 0}), "remaining_fires"),
        (json!({"timeout_ms": 0}), "timeout_ms"),
        (json!({"keep_for_ms": 7_776_000_001u64}), "keep_for_ms"),
        (json!({"priority": "high"}), "priority"),
        (json!({"jitter_ms": 3_600_001}), "jitter_ms"),
        (json!({"start_at": "2999-01-02T00:00:00Z", "end_at": "2999-01-01T00:00:00Z"}), "end_at"),
        (json!({"end_at": "2020-01-01T00:00:00Z"}), "end_at"),
        (json!({"start_at": "tomorrow"}), "start_at"),
    ] {
        let mut given = bad.as_object().unwrap().clone();
        given.insert("every_ms".to_owned(), json!(10_000));
        let problem = world.post("/v1/schedules", &body(Value::Object(given))).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[tokio::test]
async fn the_next_fires_are_shown_before_and_after_a_schedule_is_made() {
    let world = World::new().await;
    let cron = || json!({"cron": "30 2 29 2 *", "time_zone": "Europe/Berlin", "start_at": "2090-01-01T00:00:00Z"});
    let preview = world.post("/v1/schedules/preview?count=3", &body(cron())).await;
    assert_eq!(preview.status, 200, "{}", preview.body);
    // 2100 is no leap year.
    let fires = json!(["2092-02-29T01:30:00Z", "2096-02-29T01:30:00Z", "2104-02-29T01:30:00Z"]);
    assert_eq!(preview.json(), json!({"fires": fires}));
    assert_eq!(world.get("/v1/schedules").await.json(), json!({"items": []}), "a preview keeps nothing");
    let (path, _) = world.schedule(cron()).await;
    assert_eq!(world.get(&format!("{path}/preview?count=3")).await.json()["fires"], fires);
    assert_eq!(world.get(&format!("{path}/preview")).await.json()["fires"].as_array().unwrap().len(), 10);
    for bad in ["count=0", "count=101", "count=x", "cont=1"] {
        world.get(&format!("{path}/preview?{bad}")).await.problem(422);
        world.post(&format!("/v1/schedules/preview?{bad}"), &body(cron())).await.problem(422);
    }
    let refused = world.post("/v1/schedules/preview", &body(json!({"cron": "0 0 30 2 *"}))).await.problem(422);
    assert_eq!(refused["errors"][0]["field"], "cron");
    let ended =
        world.post("/v1/schedules/preview", &body(json!({"every_ms": 1_000, "end_at": "2020-01-01T00:00:00Z"}))).await;
    assert_eq!(ended.json(), json!({"fires": []}));
}

#[tokio::test]
async fn a_schedule_is_triggered_now_as_its_policy_or_the_wish_says() {
    let world = World::new().await;
    let (path, _) = world.schedule(json!({"every_ms": 60_000, "start_at": "2999-01-01T00:00:00Z"})).await;
    let trigger = format!("{path}/trigger");
    let first = world.send(world.authorized("POST", &trigger).body(Body::empty()).unwrap()).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let job = world.get(first.headers["location"].to_str().unwrap()).await.json();
    assert_eq!((&job["id"], &first.json()["outcome"]), (&first.json()["job"], &json!("started")));
    let detail = world.post(&trigger, &json!({})).await.problem(409)["detail"].clone();
    assert!(detail.as_str().unwrap().starts_with("the job of an earlier fire has not ended"), "{detail}");
    let waits = world.post(&trigger, &json!({"overlap": "buffer_one"})).await;
    assert_eq!((waits.status.as_u16(), &waits.json()["outcome"]), (202, &json!("buffered")));
    assert_eq!(world.get(&path).await.json()["buffered_fire_at"], waits.json()["fire_at"]);
    let beside = world.post(&trigger, &json!({"overlap": "allow"})).await.json();
    let over = world.post(&trigger, &json!({"overlap": "cancel_previous"})).await.json();
    assert_eq!(over["cancelled"], json!([job["id"], beside["job"]]));
    world.post(&trigger, &json!({"overlap": "perhaps"})).await.problem(422);
    world.post(&format!("/v1/schedules/{}/trigger", uuid::Uuid::nil()), &json!({})).await.problem(404);
}

#[tokio::test]
async fn a_trigger_that_comes_again_makes_no_second_job() {
    let world = World::new().await;
    let (path, _) = world.schedule(json!({"every_ms": 60_000, "start_at": "2999-01-01T00:00:00Z"})).await;
    let ask = || world.authorized("POST", &format!("{path}/trigger")).header("idempotency-key", "k-1");
    let first = world.send(ask().body(Body::from("{}")).unwrap()).await;
    let again = world.send(ask().body(Body::from("{}")).unwrap()).await;
    assert_eq!((first.status.as_u16(), &again.body), (201, &first.body));
    assert_eq!(world.jobs().await, 1);
}

#[tokio::test]
async fn past_fires_are_made_once_and_only_so_many() {
    let world = World::new().await;
    let (path, _) = world.schedule(json!({"cron": "* * * * *"})).await;
    let backfill = format!("{path}/backfill");
    let minute = |ago: i64| at((now_ms() / 60_000 - ago) * 60_000);
    let range = json!({"from": minute(10), "to": minute(1)});
    let done = world.post(&backfill, &range).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!((done.json()["jobs"].as_array().unwrap().len(), &done.json()["present"]), (10, &json!(0)));
    let again = world.post(&backfill, &range).await.json();
    assert_eq!((&again["jobs"], &again["present"]), (&json!([]), &json!(10)));
    assert_eq!(world.get(&path).await.json()["fires"], 10);
    let many = world.post(&backfill, &json!({"from": minute(1_001), "to": minute(1)})).await.problem(422);
    let reason = "there are 1001 fires in this range, 1000 are made at once at most";
    assert_eq!(many["errors"], json!([{"field": "to", "reason": reason}]));
    for bad in [json!({"from": minute(1), "to": minute(2)}), json!({"from": minute(1), "to": "2999-01-01T00:00:00Z"})] {
        assert_eq!(world.post(&backfill, &bad).await.problem(422)["errors"][0]["field"], "to");
    }
    assert_eq!(world.jobs().await, 10);
}

#[tokio::test]
async fn a_schedule_is_changed_in_place() {
    let world = World::new().await;
    let (path, made) = world.schedule(json!({"every_ms": 60_000, "start_at": "2999-01-01T00:00:00Z"})).await;
    let changed = json!({"every_ms": 60_000, "start_at": "2999-01-01T00:00:00Z", "overlap": "allow"});
    let shown = world.put(&path, &body(changed)).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    let shown = shown.json();
    assert_eq!(
        (&shown["overlap"], &shown["id"], &shown["created_at"]),
        (&json!("allow"), &made["id"], &made["created_at"])
    );
    assert_eq!(world.get(&path).await.json(), shown);
    world.put(&path, &body(json!({"every_ms": 1}))).await.problem(422);
    let nobody = format!("/v1/schedules/{}", uuid::Uuid::nil());
    assert_eq!(world.put(&nobody, &body(json!({"every_ms": 60_000}))).await.problem(404)["detail"], "no such schedule");
}
