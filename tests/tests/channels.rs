//! Channels from outside: what each provider's answers lead to, and what a tenant can see and do about it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::collector::Span;
use tests::providers::{self, SECRET};
use tests::receiver::Reply;
use tests::{Collector, Protocol, Receiver, Service, eventually};

const SOON: Duration = Duration::from_secs(30);

/// Makes a channel and returns its path.
async fn channel(service: &Service, body: &Value) -> String {
    let made = service.api().post("/v1/channels", body).await.expect(201);
    format!("/v1/channels/{}", made.json()["id"].as_str().unwrap())
}

/// Says something through the channel at `path` and returns the path of the delivery.
async fn say(service: &Service, path: &str, text: &str) -> String {
    let id = path.rsplit('/').next().unwrap();
    let told = service.api().post("/v1/notifications", &json!({"channel": id, "text": text})).await.expect(202);
    format!("{path}/deliveries/{}", told.json()["deliveries"][0]["id"].as_str().unwrap())
}

async fn show(service: &Service, path: &str) -> Value {
    service.api().get(path).await.expect(200).json()
}

/// Waits until the delivery at `path` is in `state`.
async fn delivery_in(service: &Service, path: &str, state: &str) -> Value {
    eventually(&format!("{path} is {state}"), SOON, || async {
        let delivery = show(service, path).await;
        (delivery["state"] == state).then_some(delivery)
    })
    .await
}

#[tokio::test]
async fn one_notification_reaches_a_webhook_slack_and_telegram() {
    let receiver = Receiver::start().await;
    let service = providers::setup(&receiver).start().await;
    let hook = json!({"kind": "webhook", "url": receiver.url("/hook")});
    let mut ids = Vec::new();
    for body in [hook, providers::slack(&receiver), providers::telegram()] {
        ids.push(channel(&service, &body).await.rsplit('/').next().unwrap().to_owned());
    }
    let body = json!({"channels": ids, "text": "the build is red", "data": {"build": 7}});
    let told = service.api().post("/v1/notifications", &body).await.expect(202).json();
    assert_eq!(told["deliveries"].as_array().unwrap().len(), 3);
    let calls = receiver.await_calls(3, SOON).await;
    let at = |start: &str| calls.iter().find(|call| call.path.starts_with(start)).unwrap().json();
    assert_eq!(at("/hook")["data"], json!({"build": 7}));
    assert_eq!(at("/services/"), json!({"text": "the build is red"}));
    assert_eq!(at("/bot123456:"), json!({"chat_id": "42", "text": "the build is red"}));
    for delivery in told["deliveries"].as_array().unwrap() {
        delivery_in(&service, &format!("/v1/notifications/{}", delivery["id"].as_str().unwrap()), "sent").await;
    }
    service.enqueue("notify", json!({"channel": ids[1], "text": "by a job"})).await;
    assert_eq!(receiver.await_calls(4, SOON).await[3].json(), json!({"text": "by a job"}));
}

#[tokio::test]
async fn a_rate_limit_of_either_provider_is_waited_out_and_then_it_arrives() {
    let receiver = Receiver::start().await;
    let service = providers::setup(&receiver).set("channel_manager.retry_delays_ms", "10,10").start().await;
    for (body, limited, ok) in [
        (providers::slack(&receiver), providers::SLACK_RATE_LIMITED, providers::SLACK_OK),
        (providers::telegram(), providers::TELEGRAM_FLOOD, providers::TELEGRAM_OK),
    ] {
        receiver.script([limited, ok]);
        let path = channel(&service, &body).await;
        let began = Instant::now();
        let first = say(&service, &path, "one").await;
        let held = eventually("the channel is held", SOON, || async {
            let channel = show(&service, &path).await;
            channel["not_before"].is_string().then_some(channel)
        });
        assert_eq!(held.await["disabled"], Value::Null);
        let sent = delivery_in(&service, &first, "sent").await;
        assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
        let statuses: Vec<_> = sent["attempts"].as_array().unwrap().iter().map(|a| a["status"].clone()).collect();
        assert_eq!(statuses, [429, 200]);
        assert_eq!(sent["attempts"][0]["class"], "throttled");
    }
}

#[tokio::test]
async fn a_dead_letter_bears_the_providers_reason_and_is_sent_again_by_hand_under_its_id() {
    let receiver = Receiver::start().await;
    let service = providers::setup(&receiver).start().await;
    for (body, refusal, ok, reason) in [
        (providers::slack(&receiver), providers::SLACK_INVALID, providers::SLACK_OK, "invalid_payload"),
        (providers::telegram(), providers::TELEGRAM_EMPTY, providers::TELEGRAM_OK, "message text is empty"),
    ] {
        receiver.script([refusal, ok]);
        let path = channel(&service, &body).await;
        let delivery = say(&service, &path, "hi").await;
        delivery_in(&service, &delivery, "dead").await;
        let dead = show(&service, &format!("{path}/deliveries?state=dead")).await;
        assert!(dead["items"][0]["last_error"].as_str().unwrap().contains(reason), "{dead}");
        service.api().post(&format!("{delivery}/redeliver"), &json!({})).await.expect(202);
        let sent = delivery_in(&service, &delivery, "sent").await;
        assert_eq!(sent["attempts"].as_array().unwrap().len(), 2, "{sent}");
        service.api().post(&format!("{delivery}/redeliver"), &json!({})).await.expect(409);
    }
    receiver.script([Reply::Status(410), Reply::Status(200)]);
    let path = channel(&service, &json!({"kind": "webhook", "url": receiver.url("/hook")})).await;
    let delivery = say(&service, &path, "hi").await;
    delivery_in(&service, &delivery, "dead").await;
    service.api().post(&format!("{path}/enable"), &json!({})).await.expect(200);
    service.api().post(&format!("{delivery}/redeliver"), &json!({})).await.expect(202);
    delivery_in(&service, &delivery, "sent").await;
    let ids: Vec<_> = receiver.calls().iter().filter(|call| call.path == "/hook").map(|c| c.id().to_owned()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1] && delivery.ends_with(&ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_receiver_that_wants_nothing_any_more_disables_its_channel_with_the_reason() {
    let receiver = Receiver::start().await;
    let setup = providers::setup(&receiver).set("channel_manager.retry_delays_ms", "10,10,10");
    let service = setup.set("channel_manager.refusals_max", 2).set("channel_manager.refused_for_ms", 0).start().await;
    for (body, replies, reason) in [
        (providers::slack(&receiver), [providers::SLACK_ARCHIVED; 1].as_slice(), "channel_is_archived"),
        (providers::slack(&receiver), &[providers::SLACK_NO_SERVICE; 2], "no_service"),
        (providers::telegram(), &[providers::TELEGRAM_BLOCKED; 2], "bot was blocked by the user"),
    ] {
        receiver.script(replies.iter().copied());
        let path = channel(&service, &body).await;
        let delivery = say(&service, &path, "hi").await;
        delivery_in(&service, &delivery, "dead").await;
        let why = show(&service, &path).await["disabled"].as_str().unwrap().to_owned();
        assert!(why.contains(reason), "{why}");
        let id = path.rsplit('/').next().unwrap();
        let refused = service.api().post("/v1/notifications", &json!({"channel": id, "text": "hi"})).await.expect(409);
        assert!(refused.body.contains(reason), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_test_message_is_answered_with_what_the_receiver_said_and_tried_once() {
    let receiver = Receiver::start().await;
    let service = providers::setup(&receiver).start().await;
    receiver.script([providers::TELEGRAM_OK, Reply::Said(500, "out of order")]);
    let path = channel(&service, &providers::telegram()).await;
    let good = service.api().post(&format!("{path}/test"), &json!({})).await.expect(200).json();
    assert_eq!((&good["state"], &good["provider_id"]), (&json!("sent"), &json!("77")));
    assert!(good["attempts"][0]["took_ms"].is_u64(), "{good}");
    let bad = service.api().post(&format!("{path}/test"), &json!({})).await.expect(200).json();
    assert_eq!(bad["state"], "dead");
    assert_eq!(bad["last_error"], "given up after 1 attempts: the receiver answered 500: out of order");
    let (attempt, status) = (&bad["attempts"][0], 500);
    assert_eq!((&attempt["status"], &attempt["answer"]), (&json!(status), &json!("out of order")));
    assert_eq!(show(&service, &format!("{path}/deliveries")).await["items"].as_array().unwrap().len(), 2);
    receiver.script([Reply::Late(SOON, 200)]);
    let slow = channel(&service, &json!({"kind": "webhook", "url": receiver.url("/slow")})).await;
    let late = service.api().post(&format!("{slow}/test"), &json!({})).await.expect(200).json();
    assert_eq!((&late["state"], &late["attempts"][0]["outcome"]), (&json!("dead"), &json!("ambiguous")));
}

#[tokio::test]
async fn channels_and_their_deliveries_are_their_tenants_alone() {
    let receiver = Receiver::start().await;
    let service = providers::setup(&receiver).start().await;
    let other = service.tenant("other").await;
    let path = channel(&service, &providers::slack(&receiver)).await;
    let delivery = say(&service, &path, "hi").await;
    let notification = format!("/v1/notifications/{}", delivery.rsplit('/').next().unwrap());
    for path in [&path, &format!("{path}/deliveries"), &delivery, &notification] {
        assert_eq!(other.get(path).await.status, 404, "{path}");
    }
    for end in ["test", "disable", "enable"] {
        assert_eq!(other.post(&format!("{path}/{end}"), &json!({})).await.status, 404, "{end}");
    }
    assert_eq!(other.post(&format!("{delivery}/redeliver"), &json!({})).await.status, 404);
    assert_eq!(send(other.request(Method::DELETE, &path)).await.status, 404);
    assert_eq!(other.get("/v1/channels").await.json(), json!({"items": []}));
    let id = path.rsplit('/').next().unwrap();
    let refused = other.post("/v1/notifications", &json!({"channel": id, "text": "hi"})).await.expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "channel");
    assert_eq!(send(service.api().request(Method::DELETE, &path)).await.status, 204);
    assert_eq!(service.api().get(&delivery).await.status, 404);
}

/// With every log line there is, while sending goes well, badly, and not at all.
#[tokio::test]
async fn a_delivery_that_failed_tells_in_its_trace_whose_it_was_where_it_went_and_why() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let service = providers::setup(&receiver).telemetry(&collector, Protocol::HttpProtobuf).start().await;
    receiver.script([providers::SLACK_INVALID]);
    let path = channel(&service, &providers::slack(&receiver)).await;
    let body = json!({"channel": path.rsplit('/').next(), "text": "hello"});
    let request = service.api().request(Method::POST, "/v1/notifications").header("x-request-id", "note-1").json(&body);
    let told = send(request).await.expect(202).json();

    let sent = |span: &Span| span.name == "channel.deliver" && span.attribute("request.id") == "note-1";
    let delivery = collector.span("of the delivery", SOON, sent).await;
    assert_eq!(delivery.attribute("delivery.id"), told["deliveries"][0]["id"]);
    assert!(delivery.failed && delivery.attribute("http.response.status_code") == "400", "{delivery:?}");
    let why = delivery.event("delivery failed").map(|event| event.attribute("fault").to_owned());
    assert_eq!(why.as_deref(), Some("the receiver answered 400: invalid_payload"));

    let below = |span: &Span| span.parent_id == delivery.span_id && span.kind == 3;
    let call = collector.span("of the call", SOON, below).await;
    let said = ["http.request.method", "server.address", "http.response.status_code", "error.type"]
        .map(|name| call.attribute(name).to_owned());
    assert_eq!(said, ["POST", "127.0.0.1", "400", "400"]);
}

#[tokio::test]
async fn a_channels_secret_appears_in_no_log_no_trace_no_page_and_no_answer() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let setup = providers::setup(&receiver).telemetry(&collector, Protocol::HttpProtobuf).set("log.filter", "trace");
    let service = setup.set("channel_manager.retry_delays_ms", "10").start().await;
    let mut answers = String::new();
    for body in [providers::slack(&receiver), providers::telegram()] {
        receiver.script([providers::TELEGRAM_OK, Reply::Status(500), Reply::Status(500), Reply::Status(403)]);
        let made = service.api().post("/v1/channels", &body).await.expect(201);
        let path = format!("/v1/channels/{}", made.json()["id"].as_str().unwrap());
        answers.push_str(&made.body);
        for (text, state) in [("one", "sent"), ("two", "dead")] {
            let delivery = say(&service, &path, text).await;
            answers.push_str(&delivery_in(&service, &delivery, state).await.to_string());
        }
        let sent = |span: &Span| span.name == "channel.deliver" && span.attribute("channel.id") == made.json()["id"];
        collector.span("of a delivery", SOON, sent).await;
        for page in [path.clone(), format!("{path}/deliveries"), "/v1/channels".to_owned()] {
            answers.push_str(&service.api().get(&page).await.body);
        }
    }
    // The providers are gone: connections are refused.
    drop(receiver);
    let channels = show(&service, "/v1/channels").await;
    for channel in channels["items"].as_array().unwrap() {
        let tested =
            service.api().post(&format!("/v1/channels/{}/test", channel["id"].as_str().unwrap()), &json!({})).await;
        answers.push_str(&tested.expect(200).body);
    }
    for page in ["/admin/tree", "/admin/liveness", "/admin/incidents", "/metrics"] {
        answers.push_str(&service.admin().get(page).await.expect(200).body);
    }
    let ended = service.stop().await;
    let (log, spans, logs) = (ended.log(), format!("{:?}", collector.spans()), format!("{:?}", collector.logs()));
    assert!(log.contains("delivery failed") && spans.contains("channel.deliver"), "there is something to search");
    for (place, text) in
        [("an answer or a page", &answers), ("the log", &log), ("a trace", &spans), ("the exported log", &logs)]
    {
        let line = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None, "the secret is in {place}");
    }
}
