//! What the API takes, keeps and shows again.

use actors::model::TenantId;
use actors::store::NewDelivery;
use serde_json::{Value, json};

use super::World;

#[tokio::test]
async fn a_job_is_kept_and_shown() {
    let world = World::new().await;
    let body = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "priority": -3, "max_attempts": 2});
    let answer = world.post("/v1/jobs", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let job = answer.json();
    let expected = json!({"kind": "publish", "queue": "default", "state": "ready", "tenant": "demo", "priority": -3});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&job[name], value, "{name}");
    }
    assert_eq!((&job["attempt"], &job["max_attempts"], &job["result"]), (&json!(0), &json!(2), &Value::Null));
    assert!(job["created_at"].as_str().unwrap().ends_with('Z'));
    let shown = world.get(answer.headers["location"].to_str().unwrap()).await.json();
    assert_eq!(shown, job);
}

#[tokio::test]
async fn a_job_for_later_is_scheduled_for_its_time() {
    let world = World::new().await;
    let at = "2999-01-01T00:00:00+01:00";
    let body = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "run_at": at});
    let job = world.post("/v1/jobs", &body).await.json();
    assert_eq!((&job["state"], &job["run_at"]), (&json!("scheduled"), &json!("2998-12-31T23:00:00Z")));
}

#[tokio::test]
async fn a_schedule_fires_every_so_often_or_by_cron_in_its_time_zone() {
    let world = World::new().await;
    let base = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}});
    let with = |more: Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let every = world.post("/v1/schedules", &with(json!({"every_ms": 60_000}))).await;
    assert_eq!(every.status, 201, "{}", every.body);
    assert_eq!(every.json()["every_ms"], 60_000);
    assert_eq!(world.get(every.headers["location"].to_str().unwrap()).await.json(), every.json());
    let cron =
        world.post("/v1/schedules", &with(json!({"cron": "0 3 * * *", "time_zone": "Europe/Berlin"}))).await.json();
    assert_eq!((&cron["cron"], &cron["time_zone"]), (&json!("0 3 * * *"), &json!("Europe/Berlin")));
    let next = cron["next_fire_at"].as_str().unwrap();
    assert!(next.ends_with("T01:00:00Z") || next.ends_with("T02:00:00Z"), "{next}");

    for (bad, field) in [
        (json!({}), "every_ms"),
        (json!({"every_ms": 60_000, "cron": "* * * * *"}), "every_ms"),
        (json!({"every_ms": 1}), "every_ms"),
        (json!({"every_ms": 60_000, "time_zone": "UTC"}), "time_zone"),
        (json!({"cron": "sometimes"}), "cron"),
        (json!({"cron": "0 0 30 2 *"}), "cron"),
        (json!({"cron": "* * * * *", "time_zone": "Mars/Olympus"}), "time_zone"),
    ] {
        let problem = world.post("/v1/schedules", &with(bad.clone())).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field, "{bad}");
    }
}

#[tokio::test]
async fn the_secret_of_a_channel_is_shown_once() {
    let world = World::new().await;
    let body = json!({"kind": "webhook", "url": "https://example.com/hook"});
    let made = world.post("/v1/channels", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.json()["secret"].as_str().unwrap().starts_with("whsec_"));
    let shown = world.get(made.headers["location"].to_str().unwrap()).await.json();
    assert_eq!((&shown["id"], shown.get("secret")), (&made.json()["id"], None));
}

#[tokio::test]
async fn a_channel_to_where_we_may_not_go_is_refused_with_its_reason() {
    let world = World::new().await;
    for url in ["ftp://example.com/", "http://169.254.169.254/", "not a url", "https://me:pw@example.com/"] {
        let problem = world.post("/v1/channels", &json!({"kind": "webhook", "url": url})).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], "url", "{url}");
    }
    let both = world.post("/v1/channels", &json!({"kind": "pigeon", "url": "x"})).await.problem(422);
    assert_eq!(both["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_deliveries_of_a_channel_are_its_tenants_to_see() {
    let world = World::new().await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/"})).await.json();
    let path = format!("/v1/channels/{}/deliveries", made["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await.json(), json!({"items": []}));
    let channel = made["id"].as_str().unwrap().parse().unwrap();
    let delivery = NewDelivery::new(TenantId::new("demo").unwrap(), channel, json!({"n": 1}));
    world.state.store.create_delivery(delivery).await.unwrap();
    let items = world.get(&path).await.json()["items"].clone();
    assert_eq!((&items[0]["state"], &items[0]["attempt"]), (&json!("pending"), &json!(0)));
    world.get("/v1/channels/018f0000-0000-7000-8000-000000000000/deliveries").await.problem(404);
}
