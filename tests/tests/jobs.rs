//! Jobs from outside: posted, seen, run, and what they lead to.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tests::receiver::Reply;
use tests::{Client, Receiver, Service, Socket, eventually};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_posted_job_becomes_an_event_on_a_socket() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let body = json!({"kind": "publish", "payload": {"topic": "hello", "data": {"n": 1}}});
    let created = service.api().post("/v1/jobs", &body).await.expect(201);
    let job = created.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("/v1/jobs/{id}"));
    let event = socket.event().await;
    assert_eq!((&event["topic"], &event["data"]), (&json!("hello"), &json!({"n": 1})));
    let done = service.job_in(id, "done").await;
    assert_eq!((&done["attempt"], &done["tenant"], &done["last_error"]), (&json!(1), &json!("demo"), &Value::Null));
}

#[tokio::test]
async fn events_reach_the_sockets_of_their_topic_only() {
    let service = Service::start().await;
    let mut hello = Socket::open(service.api(), &["hello"]).await;
    let mut other = Socket::open(service.api(), &["other"]).await;
    for (topic, n) in [("hello", 1), ("other", 2)] {
        service.enqueue("publish", json!({"topic": topic, "data": n})).await;
    }
    assert_eq!(hello.event().await["data"], 1);
    assert_eq!(other.event().await["data"], 2, "and not the other topic's event before it");
}

#[tokio::test]
async fn a_socket_may_change_its_topics_and_is_told_what_it_did_wrong() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["a"]).await;
    socket.send(&json!({"type": "subscribe", "topics": ["b"]})).await;
    let answer = socket.frame().await.unwrap();
    assert_eq!((&answer["type"], &answer["topics"]), (&json!("subscribed"), &json!(["b"])));
    socket.send(&json!({"type": "unsubscribe", "topics": ["a"]})).await;
    assert_eq!(socket.frame().await.unwrap()["type"], "unsubscribed");
    for (topic, n) in [("a", 1), ("b", 2)] {
        let id = service.enqueue("publish", json!({"topic": topic, "data": n})).await;
        service.job_in(&id, "done").await;
    }
    assert_eq!(socket.event().await["data"], 2, "only of the topic that is left");
    socket.send_text("{not json").await;
    assert_eq!(socket.frame().await.unwrap()["type"], "error");
    socket.send(&json!({"type": "dance"})).await;
    assert_eq!(socket.frame().await.unwrap()["type"], "error");
}

#[tokio::test]
async fn a_job_becomes_a_signed_webhook_and_is_sent_only_when_the_receiver_agrees() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(Duration::from_secs(1), 200)]);
    let (channel, secret) = service.webhook(&receiver.url("/hook")).await;
    let id = service.enqueue("notify", json!({"channel": channel, "data": {"order": 7}})).await;
    let call = receiver.await_calls(1, SOON).await.remove(0);
    assert!(call.is_signed_with(&secret), "{call:?}");
    assert_eq!(call.path, "/hook");
    assert!(call.json().to_string().contains(r#""order":7"#), "{}", call.json());
    let before = service.deliveries(&channel).await;
    assert_eq!((before.len(), &before[0]["state"]), (1, &json!("sending")), "the receiver has not answered yet");
    service.job_in(&id, "done").await;
    let sent = delivery_in(&service, &channel, "sent").await;
    assert_eq!((&sent["last_status"], &sent["attempt"]), (&json!(200), &json!(1)));
}

#[tokio::test]
async fn a_receiver_that_fails_first_is_asked_again_with_the_same_id() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(503)]);
    let (channel, secret) = service.webhook(&receiver.url("/hook")).await;
    service.enqueue("notify", json!({"channel": channel, "data": 1})).await;
    let calls = receiver.await_calls(2, SOON).await;
    assert_eq!(calls[0].id(), calls[1].id());
    assert!(calls.iter().all(|call| call.is_signed_with(&secret)));
    let sent = delivery_in(&service, &channel, "sent").await;
    assert_eq!(sent["attempt"], 2);
}

#[tokio::test]
async fn a_job_for_later_waits_for_its_time() {
    let service = Service::start().await;
    let body = |at: &str| json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "run_at": at});
    let later = service.api().post("/v1/jobs", &body("2999-01-01T00:00:00Z")).await.expect(201).json();
    assert_eq!((&later["state"], &later["run_at"]), (&json!("scheduled"), &json!("2999-01-01T00:00:00Z")));
    let past = service.api().post("/v1/jobs", &body("2000-01-01T00:00:00Z")).await.expect(201).json();
    service.job_in(past["id"].as_str().unwrap(), "done").await;
    assert_eq!(service.job(later["id"].as_str().unwrap()).await["state"], "scheduled");
}

#[tokio::test]
async fn a_schedule_fires_again_and_again() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["tick"]).await;
    let body = json!({"kind": "publish", "payload": {"topic": "tick", "data": 1}, "every_ms": 1000});
    let schedule = service.api().post("/v1/schedules", &body).await.expect(201).json();
    for _ in 0..3 {
        assert_eq!(socket.event().await["topic"], "tick");
    }
    let path = format!("/v1/schedules/{}", schedule["id"].as_str().unwrap());
    let now = service.api().get(&path).await.expect(200).json();
    assert_ne!(now["next_fire_at"], schedule["next_fire_at"]);
}

#[tokio::test]
async fn a_cron_schedule_knows_its_time_zone() {
    let service = Service::start().await;
    let zone = |zone: &str| json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "cron": "30 9 * * *", "time_zone": zone});
    let utc = service.api().post("/v1/schedules", &zone("UTC")).await.expect(201).json();
    assert!(utc["next_fire_at"].as_str().unwrap().ends_with("T09:30:00Z"), "{utc}");
    let india = service.api().post("/v1/schedules", &zone("Asia/Kolkata")).await.expect(201).json();
    assert!(india["next_fire_at"].as_str().unwrap().ends_with("T04:00:00Z"), "half past nine is four in UTC: {india}");
    assert_eq!(service.api().post("/v1/schedules", &zone("Europe/Atlantis")).await.status, 422);
}

#[tokio::test]
async fn a_job_that_panics_is_tried_again_and_then_dead_with_its_reason() {
    let service = Service::start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let job = service.api().post("/v1/jobs", &body).await.expect(201).json();
    let dead = service.job_in(job["id"].as_str().unwrap(), "dead").await;
    assert!(dead["last_error"].as_str().unwrap().contains("panic"), "{dead}");
    assert_eq!(service.node("scheduler").await["incarnation"], 1);

    let again = service.enqueue("panic", json!({})).await;
    let waits = service.job_in(&again, "retrying").await;
    assert!(waits["last_error"].as_str().unwrap().contains("panic"), "{waits}");
}

#[tokio::test]
async fn nobody_sees_another_tenants_job_or_event() {
    let service = Service::start().await;
    let other: Client = service.tenant("other").await;
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    assert_eq!(other.get(&format!("/v1/jobs/{id}")).await.status, 404);
    service.job_in(&id, "done").await;
    let mut theirs = Socket::open(&other, &["t"]).await;
    let mut ours = Socket::open(service.api(), &["t"]).await;
    service.enqueue("publish", json!({"topic": "t", "data": "ours"})).await;
    assert_eq!(ours.event().await["data"], "ours");
    other.post("/v1/jobs", &json!({"kind": "publish", "payload": {"topic": "t", "data": "theirs"}})).await.expect(201);
    assert_eq!(theirs.event().await["data"], "theirs", "and not ours before it");
}

#[tokio::test]
async fn a_job_for_now_is_done_at_once_and_not_at_the_next_poll() {
    let service = Service::setup().set("scheduler.interval_ms", 20_000).start().await;
    let posted = SystemTime::now();
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
    assert!(posted.elapsed().unwrap() < Duration::from_secs(5));
}

async fn delivery_in(service: &Service, channel: &str, state: &str) -> Value {
    eventually(&format!("a delivery is {state}"), SOON, || async {
        service.deliveries(channel).await.into_iter().find(|delivery| delivery["state"] == state)
    })
    .await
}
