//! Sockets over real connections: what a client sees, and what a bad one costs.

use std::{future::IntoFuture, net::SocketAddr};

use actors::{broadcast::OutboxLimits, bus::MemoryBusLimits};
use axum::{Router, extract::State, response::Response, routing::any};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, client_async};
use tungstenite::{Message as Sent, protocol::frame::coding::CloseCode};

use super::*;
use crate::http::tests::house::{House, PATIENCE};

async fn open(State(house): State<House>, upgrade: WebSocketUpgrade) -> Response {
    let subscriber = house.subscriber();
    tune(upgrade).on_upgrade(|socket| async move {
        let cancel = house.tasks.token();
        house.tasks.spawn("socket", serve(socket, subscriber, cancel));
    })
}

/// A house behind a real listener.
struct Door {
    house: House,
    address: SocketAddr,
}

impl std::ops::Deref for Door {
    type Target = House;

    fn deref(&self) -> &House {
        &self.house
    }
}

impl Door {
    async fn new(outbox: OutboxLimits) -> Self {
        let house = House::with(MemoryBusLimits::default(), outbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", any(open)).with_state(house.clone());
        house.tasks.spawn("server", async move { axum::serve(listener, router).into_future().await.unwrap() });
        Self { house, address }
    }

    /// A client that has been welcomed.
    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = client_async("ws://localhost/", stream).await.unwrap();
        let mut client = Client(socket);
        assert_eq!(client.json().await, json!({"type": "welcome", "topics": ["x"]}));
        client
    }
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn next(&mut self) -> Sent {
        timeout(PATIENCE, self.0.next()).await.expect("an answer").expect("an open socket").unwrap()
    }

    async fn json(&mut self) -> Value {
        match self.next().await {
            Sent::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("text was expected, not {other:?}"),
        }
    }

    async fn send(&mut self, message: impl Into<Sent>) {
        self.0.send(message.into()).await.unwrap();
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.send(request.to_string()).await;
        self.json().await
    }

    /// The close frame that comes next, as its code and reason.
    async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Sent::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("a close was expected, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_subscribes_gets_its_events_and_unsubscribes() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    let subscribed = client.ask(json!({"type": "subscribe", "topics": ["y"]})).await;
    assert_eq!(subscribed, json!({"type": "subscribed", "topics": ["y"]}));
    house.publish("y", "1").await;
    house.publish("z", "2").await;
    house.publish("x", "3").await;
    for (topic, data) in [("y", "1"), ("x", "3")] {
        let event = client.json().await;
        assert_eq!((&event["type"], &event["topic"], &event["data"]), (&json!("event"), &json!(topic), &json!(data)));
    }
    let unsubscribed = client.ask(json!({"type": "unsubscribe", "topics": ["x"]})).await;
    assert_eq!(unsubscribed, json!({"type": "unsubscribed", "topics": ["x"]}));
    house.publish("x", "4").await;
    house.publish("y", "5").await;
    assert_eq!(client.json().await["data"], "5");
}

#[tokio::test]
async fn a_bad_request_is_answered_with_its_reason_and_the_connection_stays() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    let bad = [
        (json!({"type": "subscribe", "topics": ["no such"]}), "not a topic"),
        (json!({"type": "subscribe", "topics": ["a", "b"]}), "a connection may have 2 topics"),
        (json!({"type": "subscribe", "topic": "a"}), "unknown field `topic`"),
        (json!({"type": "shout"}), "unknown variant `shout`"),
        (json!([]), "missing field `type`"),
    ];
    for (request, reason) in bad {
        let answer = client.ask(request).await;
        assert!(answer["type"] == "error" && answer["reason"].as_str().unwrap().contains(reason), "{answer}");
    }
    house.publish("x", "still here").await;
    assert_eq!(client.json().await["data"], "still here");
}

#[tokio::test]
async fn a_client_that_only_talks_nonsense_is_closed() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    for _ in 0..BAD_REQUESTS_MAX {
        assert_eq!(client.ask(json!("nonsense")).await["type"], "error");
    }
    client.send("nonsense").await;
    assert_eq!(client.closed().await, (1008, "too many requests that could not be read".into()));
    house.until_sockets(0).await;
}

#[tokio::test]
async fn what_is_no_request_is_closed_with_the_code_that_says_why() {
    let house = Door::new(OutboxLimits::default()).await;
    let too_long = Sent::text("x".repeat(REQUEST_BYTES_MAX + 1));
    for (message, code) in [(too_long, CloseCode::Size), (Sent::binary(vec![1]), CloseCode::Unsupported)] {
        let mut client = house.connect().await;
        client.send(message).await;
        assert_eq!(client.closed().await.0, u16::from(code));
    }
    // A text frame whose mask bit is missing; a masked text frame of one byte that is no UTF-8.
    let raw: [(&[u8], _); 2] =
        [(&[0x81, 0x01, b'x'], CloseCode::Protocol), (&[0x81, 0x81, 0, 0, 0, 0, 0xff], CloseCode::Invalid)];
    for (bytes, code) in raw {
        let mut client = house.connect().await;
        client.0.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(client.closed().await.0, u16::from(code));
    }
    house.until_sockets(0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_the_others_miss_nothing() {
    let house = Door::new(OutboxLimits::default()).await;
    let (_stalled, mut quick) = (house.connect().await, house.connect().await);
    // 20 MB, more than the kernel buffers for the one that does not read.
    let large = "x".repeat(100 << 10);
    for n in 0..200 {
        house.publish("x", &format!("{n} {large}")).await;
        let data = quick.json().await["data"].as_str().unwrap().to_owned();
        assert!(data.starts_with(&format!("{n} ")));
    }
    house.until_sockets(1).await;
    assert_eq!(house.hub.stats().subscriptions, 1);
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_stays_if_it_answers() {
    let outbox = OutboxLimits { ping_after: Duration::from_millis(50), ..OutboxLimits::default() };
    let house = Door::new(outbox).await;
    let mut client = house.connect().await;
    // The client's library answers a ping with the next read, so the second one proves that the first was answered.
    for _ in 0..3 {
        assert!(matches!(client.next().await, Sent::Ping(_)));
    }
    assert_eq!(house.hub.stats().sockets, 1);
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_ping_is_closed() {
    let short = Duration::from_millis(50);
    let house = Door::new(OutboxLimits { ping_after: short, pong_within: short, ..OutboxLimits::default() }).await;
    let mut client = house.connect().await;
    house.until_sockets(0).await;
    assert!(matches!(client.next().await, Sent::Ping(_)));
    assert_eq!(client.closed().await, (1008, "no answer to a ping".into()));
}

#[tokio::test]
async fn a_drain_tells_each_client_when_to_come_back_and_closes_it_as_a_restart() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    let leave = async {
        let told = client.json().await;
        assert_eq!(told["type"], "reconnect");
        assert!((1_000..=2_000).contains(&told["after_ms"].as_u64().unwrap()), "{told}");
        assert_eq!(client.closed().await.0, 1012);
    };
    let (report, ()) = tokio::join!(house.hub.drain(DrainPlan::default()), leave);
    assert_eq!((report.asked, report.left), (1, 0));
}

#[tokio::test]
async fn a_cancelled_connection_says_the_same_goodbye() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    house.tasks.cancel();
    assert_eq!(client.json().await["type"], "reconnect");
    assert_eq!(client.closed().await.0, 1012);
    house.until_sockets(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_answered_and_forgotten() {
    let house = Door::new(OutboxLimits::default()).await;
    let mut client = house.connect().await;
    client.send(Sent::Close(None)).await;
    assert!(matches!(client.next().await, Sent::Close(_)));
    house.until_sockets(0).await;
    drop(house.connect().await);
    house.until_sockets(0).await;
}
