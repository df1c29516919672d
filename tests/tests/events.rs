//! Events from outside: published over HTTP, read from sockets and streams.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::{Value, json};
use tests::stream::{Ended, EventStream};
use tests::{Client, Service, Socket, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

async fn publish(api: &Client, topic: &str, data: &Value) -> String {
    let answer = api.post("/v1/events", &json!({"topic": topic, "data": data})).await.expect(202).json();
    answer["id"].as_str().expect("an event has an id").to_owned()
}

async fn sockets_open(service: &Service) -> Option<f64> {
    service.metrics().await.value("broadcaster_socket_open", &[])
}

#[tokio::test]
async fn a_published_event_reaches_sockets_and_streams_of_its_topic_and_tenant_alike() {
    let service = Service::start().await;
    let other = service.tenant("other").await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let mut stream = EventStream::open(service.api(), &["hello", "world"]).await;
    let mut theirs = EventStream::open(&other, &["hello"]).await;
    assert_eq!(stream.welcome, json!({"type": "welcome", "topics": ["hello", "world"]}));
    publish(&other, "hello", &json!("theirs")).await;
    publish(service.api(), "nobody", &json!(0)).await;
    let id = publish(service.api(), "hello", &json!({"n": 1})).await;
    let message = stream.message().await;
    assert_eq!(message.id.as_deref(), Some(id.as_str()));
    assert_eq!((&message.data["topic"], &message.data["data"]), (&json!("hello"), &json!({"n": 1})));
    assert_eq!(socket.event().await, message.data, "the same text");
    assert_eq!(theirs.message().await.data["data"], "theirs", "and not ours before it");
    let batch = json!({"events": [{"topic": "hello", "data": 2}, {"topic": "world", "data": 3}]});
    let ids = service.api().post("/v1/events", &batch).await.expect(202).json()["ids"].clone();
    for (n, id) in [(2, &ids[0]), (3, &ids[1])] {
        let message = stream.message().await;
        assert_eq!((&message.data["data"], &message.data["id"]), (&json!(n), id));
    }
}

#[tokio::test]
async fn who_comes_back_with_a_last_event_id_is_told_that_nothing_is_recovered() {
    let service = Service::start().await;
    let request =
        EventStream::request(service.api(), &["t"]).header("last-event-id", "018f0000-0000-7000-8000-000000000000");
    let mut stream = EventStream::from(request).await;
    assert_eq!((&stream.welcome["recovered"], stream.retry_ms), (&json!(false), Some(2_000)));
    publish(service.api(), "t", &json!(2)).await;
    assert_eq!(stream.message().await.data["data"], 2);
}

#[tokio::test]
async fn a_stream_outlives_the_time_limit_of_a_request_and_takes_no_place_of_it() {
    let service = Service::setup().set("limits.request_ms", 1_000).set("limits.concurrency", 1).start().await;
    let mut stream = EventStream::open(service.api(), &["t"]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    publish(service.api(), "t", &json!("late")).await;
    assert_eq!(stream.message().await.data["data"], "late");
}

#[tokio::test]
async fn the_drain_ends_a_stream_cleanly_with_the_time_to_come_back() {
    let service = Service::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(EventStream::open(service.api(), &["t"]).await);
    }
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(ended.took < Duration::from_secs(3), "the streams held up the stop: {:?}", ended.took);
    for stream in &mut streams {
        let (blocks, end) = stream.until_ended().await;
        assert_eq!((end, blocks.last().unwrap().event.as_str()), (Ended::Cleanly, "reconnect"));
        let after_ms = stream.retry_ms.unwrap();
        assert!((1_000..=2_000).contains(&after_ms), "{after_ms}");
    }
    assert!(streams.iter().any(|stream| stream.retry_ms != streams[0].retry_ms), "all at the same time");
}

#[tokio::test]
async fn a_restart_of_the_listener_ends_its_streams_and_serves_new_ones() {
    let service = Service::setup().start().await;
    let mut stream = EventStream::open(service.api(), &["t"]).await;
    service.make_panic("api").await;
    stream.until_ended().await;
    eventually("the listener is back", SOON, || async {
        let node = service.node("api").await;
        (node["incarnation"] == 2 && node["status"] == "up").then_some(())
    })
    .await;
    let mut again = EventStream::open(service.api(), &["t"]).await;
    publish(service.api(), "t", &json!(1)).await;
    assert_eq!(again.message().await.data["data"], 1);
    assert_eq!(sockets_open(&service).await, Some(1.0), "the one before is gone");
    assert_eq!(service.stop().await.code, 0);
}

/// A client that asks for a stream and then reads nothing.
async fn deaf(service: &Service, topic: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.api().authority()).await.unwrap();
    let head = format!(
        "GET /v1/events?topic={topic} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        service.api().key().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_cut_and_the_others_miss_nothing() {
    let service = Service::start().await;
    let mut slow = deaf(&service, "t").await;
    let mut quick = EventStream::open(service.api(), &["t"]).await;
    eventually("both are there", SOON, || async { (sockets_open(&service).await == Some(2.0)).then_some(()) }).await;
    let large = "x".repeat(200 << 10);
    for n in 0..100 {
        publish(service.api(), "t", &json!(format!("{n} {large}"))).await;
        let data = quick.message().await.data["data"].as_str().unwrap().to_owned();
        assert!(data.starts_with(&format!("{n} ")));
    }
    eventually("the slow one is gone", SOON, || async { (sockets_open(&service).await == Some(1.0)).then_some(()) })
        .await;
    let closed = service.metrics().await.value("broadcaster_socket_closed_total", &[("reason", "slow")]);
    assert_eq!(closed, Some(1.0));
    let mut read = Vec::new();
    let _ = slow.read_to_end(&mut read).await;
    assert!(!read.ends_with(b"0\r\n\r\n"), "it believes that this is all");
}

#[tokio::test]
async fn a_stream_that_is_not_read_does_not_hold_up_the_stop() {
    let service = Service::start().await;
    let _slow = deaf(&service, "t").await;
    eventually("it is there", SOON, || async { (sockets_open(&service).await == Some(1.0)).then_some(()) }).await;
    let large = json!("x".repeat(200 << 10));
    for _ in 0..40 {
        publish(service.api(), "t", &large).await;
    }
    let began = Instant::now();
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn events_that_were_lost_on_the_way_are_shown_as_a_gap_on_sockets_and_streams() {
    let service = Service::setup().set("broadcaster.backoff.base_ms", 8_000).start().await;
    let mut socket = Socket::open(service.api(), &["t"]).await;
    let mut stream = EventStream::open(service.api(), &["t"]).await;
    // Nobody takes events off the bus until it is back, and the bus holds 16,384.
    service.make_panic("broadcaster.relay").await;
    eventually("the relay is away", SOON, || async {
        (service.node("broadcaster.relay").await["status"] != "up").then_some(())
    })
    .await;
    let batch = json!({"events": vec![json!({"topic": "u", "data": 1}); 100]});
    let many = (0..170).map(|_| service.api().post("/v1/events", &batch));
    assert!(iter(many).buffer_unordered(8).all(async |answer| answer.status == 202).await);
    publish(service.api(), "t", &json!("after")).await;
    assert_ne!(service.node("broadcaster.relay").await["status"], "up", "it was back too soon for this test");
    let mut names = Vec::new();
    loop {
        let block = stream.block().await.unwrap();
        names.push(block.event.clone());
        if block.event == "message" {
            assert_eq!(block.data["data"], "after");
            break;
        }
    }
    assert_eq!(names, ["gap", "message"]);
    assert_eq!(socket.frame().await.unwrap(), json!({"type": "gap"}));
    assert_eq!(socket.event().await["data"], "after");
}
