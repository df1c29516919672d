//! Streams, frame by frame, and over real connections where the connection is what matters.

use std::sync::Arc;

use actors::broadcast::OutboxLimits;
use actors::bus::MemoryBusLimits;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use supervision::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::http::lifecycle::Lifecycle;
use crate::http::listener::Listener;
use crate::http::serve::{ConnectionLimits, Server, serve};
use crate::http::tests::house::{House, PATIENCE};

fn with_bus(limits: MemoryBusLimits) -> House {
    let outbox = OutboxLimits { behind_max: Duration::from_millis(500), ..OutboxLimits::default() };
    House::with(limits, outbox)
}

/// Which does not wait long for a client that does not read.
fn house() -> House {
    with_bus(MemoryBusLimits::default())
}

impl House {
    /// The body of a stream.
    fn listen(&self, returning: Returning, hangup: Hangup) -> Body {
        let (stream, body) = open(self.subscriber(), self.tasks.token(), hangup);
        self.tasks.spawn("sse", stream.run(returning));
        body
    }

    /// The streams behind a real listener.
    fn serve(&self) -> Running {
        let listener = Listener::new("127.0.0.1:0".parse().unwrap());
        let slow = get(|| async {
            sleep(2 * FAREWELL).await;
            "slow"
        });
        let router = Router::new().route("/", get(answer)).route("/slow", slow).with_state(self.clone());
        let server = Server {
            name: "api",
            router,
            lifecycle: Arc::new(Lifecycle::default()),
            tasks: self.tasks.clone(),
            limits: ConnectionLimits {
                connections: 100,
                header_read: PATIENCE,
                write_stall: PATIENCE,
                idle: PATIENCE.max(Duration::from_secs(60)),
                header_bytes: 8_192,
            },
            finish_within: PATIENCE,
        };
        let (bound, stop) = (listener.open().unwrap(), CancellationToken::new());
        let (ended, served) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        self.tasks.spawn("server", async move {
            serve(bound, server, stopped).await.unwrap();
            ended.send(()).unwrap();
        });
        Running { listener, stop, served }
    }
}

async fn answer(State(house): State<House>, Extension(hangup): Extension<Hangup>) -> Response {
    house.listen(Returning::No, hangup).into_response()
}

/// A server of streams.
struct Running {
    listener: Listener,
    stop: CancellationToken,
    served: tokio::sync::oneshot::Receiver<()>,
}

impl Running {
    /// A client that has asked, and has read the welcome.
    async fn connect(&self) -> Client {
        let mut client = self.connect_silently().await;
        client.until("\"topics\":[\"x\"]}\n\n").await;
        client
    }

    /// A client that has asked, and reads nothing.
    async fn connect_silently(&self) -> Client {
        let mut stream = TcpStream::connect(self.listener.address().unwrap()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        Client(stream)
    }

    /// A connection of HTTP/2, as a proxy keeps it for many clients. What one of them does not read is held back to it alone.
    async fn share(&self) -> Shared {
        let stream = TcpStream::connect(self.listener.address().unwrap()).await.unwrap();
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(64 << 10).initial_connection_window_size(64 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        TaskGroup::new("test").spawn("client", async move { drop(connection.await) });
        Shared(sender)
    }
}

struct Shared(hyper::client::conn::http2::SendRequest<Body>);

impl Shared {
    async fn get(&self, path: &str) -> Result<Body, hyper::Error> {
        let request = http::Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap();
        self.0.clone().send_request(request).await.map(|answer| Body::new(answer.into_body()))
    }

    /// A stream that was welcomed.
    async fn listen(&self) -> Body {
        let mut body = self.get("/").await.unwrap();
        assert!(next(&mut body).await.unwrap().contains("welcome"));
        body
    }
}

struct Client(TcpStream);

impl Client {
    /// Reads until `end` was read.
    async fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(end) {
                assert!(self.0.read_buf(&mut read).await.unwrap() > 0, "closed after {read:?}");
            }
        };
        timeout(PATIENCE, reading).await.expect("an answer");
        String::from_utf8(read).unwrap()
    }

    /// All that comes up to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        // A connection that was reset is as closed as any.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut read)).await.expect("the connection ends");
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// What the body gives next, as text; nothing at its end.
async fn next(body: &mut Body) -> Option<String> {
    let frame = timeout(PATIENCE, body.frame()).await.expect("a frame in time")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

/// The lines of one block with this name.
fn field<'a>(block: &'a str, name: &str) -> &'a str {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| panic!("{block}"))
}

fn data(block: &str) -> Value {
    serde_json::from_str(field(block, "data")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_welcomed_and_gets_its_events_with_their_ids() {
    let house = house();
    let mut body = house.listen(Returning::No, Hangup::default());
    let welcome = next(&mut body).await.unwrap();
    assert_eq!(welcome, "retry: 2000\n\nevent: welcome\ndata: {\"type\":\"welcome\",\"topics\":[\"x\"]}\n\n");
    let id = house.publish("x", "one").await;
    let event = next(&mut body).await.unwrap();
    assert_eq!((field(&event, "id"), field(&event, "event")), (id.to_string().as_str(), "message"));
    assert_eq!((&data(&event)["type"], &data(&event)["data"]), (&json!("event"), &json!("one")));
    assert!(event.ends_with("\n\n"));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_told_that_nothing_was_recovered() {
    let house = house();
    let mut body = house.listen(Returning::Yes, Hangup::default());
    assert_eq!(data(&next(&mut body).await.unwrap())["recovered"], json!(false));
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_goes_out_in_one_chunk_and_in_order() {
    let house = house();
    let mut body = house.listen(Returning::No, Hangup::default());
    next(&mut body).await.unwrap();
    for n in 0..20 {
        house.publish("x", &n.to_string()).await;
    }
    let chunk = next(&mut body).await.unwrap();
    let sent: Vec<String> =
        chunk.split_terminator("\n\n").map(|block| data(block)["data"].as_str().unwrap().into()).collect();
    assert_eq!(sent, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn chunks_are_full_but_not_larger_and_a_single_block_is_shared_as_it_is() {
    let frame = |bytes: usize| Frame::notice("test", &"x".repeat(bytes));
    let large = frame(CHUNK_BYTES);
    let sizes: Vec<usize> = chunks((0..100).map(|_| frame(1_000)).chain([large.clone(), frame(1)]).collect())
        .iter()
        .map(Bytes::len)
        .collect();
    let block = frame(1_000).into_block().len();
    let full = CHUNK_BYTES / block;
    assert_eq!(sizes[..100 / full], vec![full * block; 100 / full]);
    assert_eq!(sizes.len(), 100_usize.div_ceil(full) + 2);
    let only = chunks(vec![large.clone()]);
    assert_eq!(only[0].as_ptr(), large.into_block().as_ptr());
}

#[tokio::test(start_paused = true)]
async fn missing_events_are_shown_as_a_gap() {
    let house = with_bus(MemoryBusLimits { events_max: 2, ..MemoryBusLimits::default() });
    let mut body = house.listen(Returning::No, Hangup::default());
    next(&mut body).await.unwrap();
    for n in 0..5 {
        house.publish("x", &n.to_string()).await;
    }
    let mut sent = String::new();
    while !sent.contains("\"data\":\"4\"") {
        sent += &next(&mut body).await.unwrap();
    }
    let blocks: Vec<&str> = sent.split_terminator("\n\n").collect();
    assert_eq!(blocks[0], "event: gap\ndata: {\"type\":\"gap\"}");
    assert_eq!(blocks[1..].iter().map(|block| data(block)["data"].clone()).collect::<Vec<_>>(), ["3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_a_comment_every_15_seconds_keeps_it_open() {
    let house = house();
    let mut body = house.listen(Returning::No, Hangup::default());
    next(&mut body).await.unwrap();
    let began = tokio::time::Instant::now();
    // Beyond the time after which a socket is pinged and given up, which a stream cannot answer.
    for beat in 1..=10 {
        let comment = timeout(Duration::from_secs(16), body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(comment.into_data().unwrap(), ": still here\n\n");
        assert_eq!(began.elapsed().as_secs(), 15 * beat);
    }
    assert_eq!(house.hub.stats().sockets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_body_cleanly_and_says_when_to_come_back() {
    let house = house();
    let mut body = house.listen(Returning::No, Hangup::default());
    next(&mut body).await.unwrap();
    house.publish("x", "last").await;
    let leave = async {
        assert_eq!(data(&next(&mut body).await.unwrap())["data"], "last");
        let goodbye = next(&mut body).await.unwrap();
        let after_ms = data(&goodbye)["after_ms"].as_u64().unwrap();
        assert!((1_000..=2_000).contains(&after_ms), "{goodbye}");
        assert_eq!((field(&goodbye, "retry"), field(&goodbye, "event")), (after_ms.to_string().as_str(), "reconnect"));
        assert_eq!(next(&mut body).await, None);
    };
    // The event has left the hub by then.
    sleep(Duration::from_millis(1)).await;
    let (report, ()) = tokio::join!(house.hub.drain(DrainPlan::default()), leave);
    assert_eq!((report.asked, report.left), (1, 0));
}

#[tokio::test]
async fn the_end_of_its_listener_ends_a_stream_and_the_stream_does_not_hold_up_the_listener() {
    let house = house();
    let running = house.serve();
    let mut client = running.connect().await;
    running.stop.cancel();
    house.tasks.cancel();
    let rest = client.rest().await;
    assert!(rest.contains("event: reconnect") && rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    timeout(PATIENCE, running.served).await.expect("the server ends").unwrap();
    assert_eq!(house.hub.stats().sockets, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_the_others_miss_nothing() {
    let house = house();
    let running = house.serve();
    let (mut stalled, mut quick) = (running.connect_silently().await, running.connect().await);
    house.until_sockets(2).await;
    // 20 MB, more than the kernel buffers for the one that does not read.
    let large = "x".repeat(100 << 10);
    for n in 0..200 {
        house.publish("x", &format!("{n} {large}")).await;
        let block = quick.until("\"}\n\n").await;
        assert!(block.contains(&format!("\"data\":\"{n} ")), "{n}");
    }
    house.until_sockets(1).await;
    let cut = stalled.rest().await;
    assert!(!cut.ends_with("0\r\n\r\n") && !cut.contains("event: reconnect"), "it was not told that this is all");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_leave_does_not_hold_up_the_stop() {
    let house = house();
    let running = house.serve();
    let _stalled = running.connect_silently().await;
    house.until_sockets(1).await;
    let large = "x".repeat(200 << 10);
    for _ in 0..50 {
        house.publish("x", &large).await;
        sleep(Duration::from_millis(2)).await;
    }
    running.stop.cancel();
    house.tasks.cancel();
    timeout(Duration::from_secs(5), running.served).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn on_a_shared_connection_only_the_stream_that_nobody_reads_is_cut() {
    let house = house();
    let running = house.serve();
    let shared = running.share().await;
    let (mut stalled, mut quick) = (shared.listen().await, shared.listen().await);
    let large = "x".repeat(100 << 10);
    for n in 0..40 {
        house.publish("x", &format!("{n} {large}")).await;
        let mut block = String::new();
        while !block.ends_with("\n\n") {
            block += &next(&mut quick).await.expect("the other stream goes on");
        }
        assert!(block.contains(&format!("\"data\":\"{n} ")), "{n}");
    }
    house.until_sockets(1).await;
    let cut = async { while stalled.frame().await.expect("it was not told that this is all").is_ok() {} };
    timeout(PATIENCE, cut).await.unwrap();
    house.publish("x", "last").await;
    assert_eq!(data(&next(&mut quick).await.unwrap())["data"], "last");
}

#[tokio::test]
async fn a_drain_lets_the_other_requests_of_a_shared_connection_finish() {
    let house = house();
    let running = house.serve();
    let shared = running.share().await;
    let mut stream = shared.listen().await;
    let leave = async {
        assert!(next(&mut stream).await.unwrap().contains("reconnect"));
        while let Some(rest) = next(&mut stream).await {
            assert_eq!(rest, "");
        }
    };
    let slow = async { next(&mut shared.get("/slow").await.expect("an answer")).await };
    let (slow, (), report) = tokio::join!(slow, leave, house.hub.drain(DrainPlan::default()));
    assert_eq!((slow.as_deref(), report.left), (Some("slow"), 0));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_stop_on_a_shared_connection_either() {
    let house = house();
    let running = house.serve();
    let shared = running.share().await;
    let _stalled = shared.listen().await;
    let large = "x".repeat(200 << 10);
    for _ in 0..50 {
        house.publish("x", &large).await;
        sleep(Duration::from_millis(2)).await;
    }
    house.until_sockets(0).await;
    running.stop.cancel();
    house.tasks.cancel();
    timeout(Duration::from_secs(5), running.served).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten_at_once() {
    let house = house();
    let running = house.serve();
    let client = running.connect().await;
    house.until_sockets(1).await;
    drop(client);
    timeout(Duration::from_secs(2), house.until_sockets(0)).await.unwrap();
}
