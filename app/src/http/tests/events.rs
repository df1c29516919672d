//! What may be published, and who may listen.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::World;
use actors::bus::{BusItem, BusReceiver};

/// What was published since `receiver` was made, as topic and data.
fn published(receiver: &mut BusReceiver) -> Vec<(String, Value)> {
    let items = std::iter::from_fn(|| receiver.try_recv());
    let event = |item| match item {
        BusItem::Event(event) => (event.topic.clone(), event.data.clone()),
        other => panic!("{other:?}"),
    };
    items.map(event).collect()
}

#[tokio::test]
async fn an_event_is_on_the_bus_when_it_is_accepted_with_the_id_that_it_was_given() {
    let world = World::new().await;
    let mut receiver = world.state.bus.subscribe();
    let id = "018f0000-0000-7000-8000-000000000000";
    let answer = world.post("/v1/events", &json!({"topic": "a", "data": null, "id": id})).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({"id": id})));
    let BusItem::Event(event) = receiver.try_recv().unwrap() else { panic!("no event") };
    assert_eq!((event.id.to_string().as_str(), event.tenant.as_str(), &event.data), (id, "demo", &Value::Null));
    let made = world.post("/v1/events", &json!({"topic": "a", "data": 1})).await.json();
    let BusItem::Event(event) = receiver.try_recv().unwrap() else { panic!("no event") };
    assert_eq!(made["id"], json!(event.id));
}

#[tokio::test]
async fn several_events_are_published_in_their_order_or_not_at_all() {
    let world = World::new().await;
    let mut receiver = world.state.bus.subscribe();
    let event = |topic: &str, data: Value| json!({"topic": topic, "data": data});
    let answer = world.post("/v1/events", &json!({"events": [event("a", json!(1)), event("b", json!(2))]})).await;
    assert_eq!((answer.status.as_u16(), answer.json()["ids"].as_array().unwrap().len()), (202, 2));
    assert_eq!(published(&mut receiver), [("a".into(), json!(1)), ("b".into(), json!(2))]);

    let large = json!("x".repeat(256 << 10));
    let problem = world
        .post("/v1/events", &json!({"events": [event("a", json!(1)), event("a", large.clone())]}))
        .await
        .problem(413);
    assert_eq!(problem["errors"][0]["field"], "events[1]");
    let problem = world.post("/v1/events", &event("a", large)).await.problem(413);
    assert_eq!(problem["errors"][0]["field"], "data");
    for (body, field) in [
        (json!({"events": [event("a", json!(1)), event("no topic", json!(1))]}), "events[1].topic"),
        (json!({"events": [event("a", json!(1)), json!({"topic": "a"})]}), "events[1]"),
        (json!({"events": []}), "events"),
        (json!({"events": vec![event("a", json!(1)); 101]}), "events"),
        (json!({"events": [event("a", json!(1))], "topic": "a"}), "events"),
        (json!({"topic": "a b", "data": 1}), "topic"),
        (json!({"topic": "a"}), "data"),
        (json!({"data": 1}), "topic"),
        (json!({"topic": "a", "data": 1, "id": "7"}), "id"),
        (json!({"topic": "a", "data": 1, "ttl": 7}), "ttl"),
    ] {
        let problem = world.post("/v1/events", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(published(&mut receiver), []);
}

#[tokio::test]
async fn a_stream_is_for_those_who_accept_one_and_name_their_topics() {
    let world = World::new().await;
    let listen = |query: &str, accept: &str| {
        let path = format!("/v1/events{query}");
        world.authorized("GET", &path).header("accept", accept).body(Body::empty()).unwrap()
    };
    let refused = world.send(listen("?topic=a", "application/json")).await.problem(406);
    assert_eq!(refused["detail"], "events are served as text/event-stream only");
    for (query, fields) in
        [("", &["topic"][..]), ("?topic=", &["topic"]), ("?topic=a%20b&topics=c", &["topic", "topics"])]
    {
        let problem = world.send(listen(query, "text/event-stream")).await.problem(422);
        let told: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
        assert_eq!(told, fields, "{query}");
    }
    let without_key = Request::get("/v1/events?topic=a").body(Body::empty()).unwrap();
    world.send(without_key).await.problem(401);
    assert_eq!(world.state.hub.stats().sockets, 0);
}

#[tokio::test]
async fn more_topics_than_one_stream_may_have_are_422_for_waiting_does_not_help() {
    let mut world = World::new().await;
    world.state.bounds.sockets.topics_per_socket_max = 1;
    let problem = world.get("/v1/events?topic=a&topic=b").await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "topic");
}

#[tokio::test]
async fn a_stream_counts_against_the_sockets_of_its_tenant_and_keeps_no_place_of_the_gate() {
    let mut world = World::with(&[("APP__LIMITS__CONCURRENCY", "1")]).await;
    world.state.bounds.sockets.sockets_max = 1;
    let listen = || world.authorized("GET", "/v1/events?topic=a").body(Body::empty()).unwrap();
    let open = world.router().oneshot(listen()).await.unwrap();
    assert_eq!((open.status().as_u16(), open.headers()["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    assert_eq!(open.headers()["cache-control"], "no-store");
    let mut body = open.into_body();
    let welcome = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(welcome.starts_with(b"retry: 2000\n\nevent: welcome\n"), "{welcome:?}");
    let refused = world.send(listen()).await;
    refused.problem(429);
    assert_eq!(refused.headers["retry-after"], "10");
    assert_eq!(world.get("/v1/jobs").await.status, 200);
    drop(body);
    let freed = async {
        while world.state.hub.stats().sockets > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
}
