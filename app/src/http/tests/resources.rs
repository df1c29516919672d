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

    for (bad, fields) in [
        (json!({}), "every_ms"),
        (json!({"every_ms": 60_000, "cron": "* * * * *"}), "every_ms"),
        (json!({"every_ms": 1}), "every_ms"),
        (json!({"every_ms": 60_000, "time_zone": "UTC"}), "time_zone"),
        (json!({"cron": "sometimes"}), "cron"),
        (json!({"cron": "sometimes", "time_zone": "Nowhere"}), "time_zone cron"),
        (json!({"cron": "0 0 30 2 *"}), "cron"),
        (json!({"cron": "* * * * *", "time_zone": "Mars/Olympus"}), "time_zone"),
    ] {
        let problem = world.post("/v1/schedules", &with(bad.clone())).await.problem(422);
        let named: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(json!(named), json!(fields.split(' ').collect::<Vec<_>>()), "{bad}");
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
}

/// The fields that a channel is refused for.
async fn refused(world: &World, body: &Value) -> Vec<String> {
    let problem = world.post("/v1/channels", body).await.problem(422);
    let errors = problem["errors"].as_array().unwrap().iter();
    errors.map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_field_that_does_not_fit_the_kind_is_named_and_no_secret_repeated() {
    let world = World::new().await;
    for (body, fields) in [
        (json!({"kind": "pigeon", "url": "x"}), vec!["kind"]),
        (json!({"kind": "webhook"}), vec!["url"]),
        (
            json!({"kind": "webhook", "url": "https://example.com/", "bot_token": "x", "chat_id": 1}),
            vec!["bot_token", "chat_id"],
        ),
        (json!({"kind": "slack", "url": "https://example.com/services/T/B/my-secret"}), vec!["url"]),
        (json!({"kind": "telegram"}), vec!["bot_token", "chat_id"]),
        (json!({"kind": "telegram", "bot_token": "my-secret"}), vec!["chat_id", "bot_token"]),
        (json!({"kind": "telegram", "bot_token": "my-secret", "chat_id": "me"}), vec!["bot_token", "chat_id"]),
    ] {
        assert_eq!(refused(&world, &body).await, fields, "{body}");
        let answer = world.post("/v1/channels", &body).await;
        assert!(!answer.body.contains("my-secret"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_chats_secret_is_never_shown_not_even_once() {
    let world = World::new().await;
    let token = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11";
    for (body, shown) in [
        (
            json!({"kind": "slack", "url": "https://hooks.slack.com/services/T0/B0/zyx57W2v1u123ew11"}),
            json!({"url": "https://hooks.slack.com/services/T0/B0/...", "kind": "slack"}),
        ),
        (
            json!({"kind": "telegram", "bot_token": token, "chat_id": -100}),
            json!({"chat_id": "-100", "kind": "telegram"}),
        ),
    ] {
        let made = world.post("/v1/channels", &body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let read = world.get(made.headers["location"].to_str().unwrap()).await;
        let list = world.get("/v1/channels").await;
        for answer in [&made, &read, &list] {
            assert!(!answer.body.contains("zyx57W2v1u123ew11"), "{}", answer.body);
        }
        assert_eq!(read.json(), made.json());
        for (field, value) in shown.as_object().unwrap() {
            assert_eq!(&read.json()[field], value);
        }
        assert!(read.json().get("secret").is_none());
    }
}

#[tokio::test]
async fn channels_are_listed_by_page_disabled_enabled_and_deleted() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let body = json!({"kind": "webhook", "url": format!("https://example.com/{n}")});
        ids.insert(0, world.post("/v1/channels", &body).await.json()["id"].as_str().unwrap().to_owned());
    }
    let first = world.get("/v1/channels?limit=2").await.json();
    let second =
        world.get(&format!("/v1/channels?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await.json();
    let listed = [&first, &second].map(|page| page["items"].as_array().unwrap().clone()).concat();
    assert_eq!(listed.iter().map(|channel| channel["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    world.get("/v1/channels?limit=0").await.problem(422);

    let path = format!("/v1/channels/{}", ids[0]);
    let at = async |end: &str| world.post(&format!("{path}/{end}"), &json!({})).await;
    assert_eq!(at("disable").await.json()["disabled"], "by its tenant");
    at("test").await.problem(409);
    let notify = json!({"channel": ids[0], "text": "hi"});
    world.post("/v1/notifications", &notify).await.problem(409);
    assert_eq!(at("enable").await.json()["disabled"], Value::Null);
    assert_eq!(world.post("/v1/notifications", &notify).await.status, 202);
    let delete = world.authorized("DELETE", &path).body(axum::body::Body::empty()).unwrap();
    assert_eq!(world.send(delete).await.status, 204);
    world.get(&path).await.problem(404);
    for end in ["enable", "disable", "test", "deliveries/018f0000-0000-7000-8000-000000000000/redeliver"] {
        at(end).await.problem(404);
    }
}

#[tokio::test]
async fn a_test_whose_turn_does_not_come_is_202_within_the_time_of_a_request() {
    let world = World::with(&[("APP__LIMITS__REQUEST_MS", "2000")]).await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/"})).await.json();
    let test = world.post(&format!("/v1/channels/{}/test", made["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!((test.status.as_u16(), &test.json()["state"]), (202, &json!("pending")), "{}", test.body);
    assert_eq!(test.json()["attempts"], json!([]));
}

#[tokio::test]
async fn a_test_waits_no_longer_than_its_caller() {
    let world = World::new().await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/"})).await.json();
    let path = format!("/v1/channels/{}/test", made["id"].as_str().unwrap());
    let request = world.authorized("POST", &path).header("x-request-timeout-ms", "1000");
    let test = world.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!((test.status.as_u16(), &test.json()["state"]), (202, &json!("pending")), "{}", test.body);
}

#[tokio::test]
async fn a_notification_is_kept_for_each_channel_or_for_none() {
    let world = World::new().await;
    let make = async |body: Value| world.post("/v1/channels", &body).await.json()["id"].as_str().unwrap().to_owned();
    let hook = make(json!({"kind": "webhook", "url": "https://example.com/"})).await;
    let chat = make(json!({"kind": "slack", "url": "https://hooks.slack.com/services/T0/B0/secret"})).await;
    for (body, field) in [
        (json!({"text": "hi"}), "channel"),
        (json!({"channel": hook}), "text"),
        (json!({"channels": [hook, chat], "data": {"n": 1}}), "text"),
        (json!({"channels": [hook, "018f0000-0000-7000-8000-000000000000"], "text": "hi"}), "channels[1]"),
        (json!({"channel": hook, "text": "hi", "blocks": []}), "blocks"),
    ] {
        let problem = world.post("/v1/notifications", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    let kept =
        async |channel: &str| world.get(&format!("/v1/channels/{channel}/deliveries")).await.json()["items"].clone();
    assert_eq!(kept(&hook).await, json!([]), "nothing of what was refused");
    let told = world.post("/v1/notifications", &json!({"channels": [hook, chat], "text": "hi"})).await;
    assert_eq!(told.status, 202, "{}", told.body);
    let deliveries = told.json()["deliveries"].clone();
    assert_eq!([&deliveries[0]["channel"], &deliveries[1]["channel"]], [&hook, &chat]);
    let shown = world.get(&format!("/v1/notifications/{}", deliveries[0]["id"].as_str().unwrap())).await.json();
    assert_eq!((&shown["text"], &shown["data"]), (&json!("hi"), &json!({"text": "hi"})));
    assert_eq!((&shown["state"], &shown["attempts"]), (&json!("pending"), &json!([])));
    assert_eq!(kept(&hook).await[0]["id"], deliveries[0]["id"]);
    world.get("/v1/notifications/018f0000-0000-7000-8000-000000000000").await.problem(404);
}

#[tokio::test]
async fn dead_deliveries_are_listed_apart_and_can_be_sent_again() {
    let world = World::new().await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/"})).await.json();
    let path = format!("/v1/channels/{}", made["id"].as_str().unwrap());
    let told = world.post("/v1/notifications", &json!({"channel": made["id"], "data": 1})).await.json();
    let id = told["deliveries"][0]["id"].as_str().unwrap();
    let again = format!("{path}/deliveries/{id}/redeliver");
    let early = world.post(&again, &json!({})).await.problem(409);
    assert!(early["detail"].as_str().unwrap().ends_with("is pending, only a dead one can be sent again"), "{early}");
    world.post(&format!("{path}/disable"), &json!({})).await;
    let dead = world.get(&format!("{path}/deliveries?state=dead")).await.json();
    assert_eq!(dead["items"][0]["last_error"], "the channel is disabled: by its tenant");
    assert_eq!(dead["items"][0]["next_at"], Value::Null, "nothing comes next");
    assert_eq!(world.get(&format!("{path}/deliveries?state=sent")).await.json(), json!({"items": []}));
    let wrong = world.get(&format!("{path}/deliveries?state=lost")).await.problem(422);
    assert_eq!(wrong["errors"][0]["field"], "state");
    world.post(&again, &json!({})).await.problem(409);
    world.post(&format!("{path}/enable"), &json!({})).await;
    let due = world.post(&again, &json!({})).await;
    assert_eq!((due.status.as_u16(), &due.json()["state"], &due.json()["id"]), (202, &json!("pending"), &json!(id)));
    assert_eq!(world.get(&format!("{path}/deliveries/{id}")).await.json()["state"], "pending");
    let other = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/"})).await.json();
    let other = format!("/v1/channels/{}/deliveries/{id}", other["id"].as_str().unwrap());
    world.get(&other).await.problem(404);
    world.get("/v1/channels/x/deliveries/y").await.problem(404);
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
