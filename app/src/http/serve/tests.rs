//! The server over real connections, spoken to byte by byte.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;
use crate::http::listener::Listener;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than any test that is not about it.
const IDLE: Duration = Duration::from_secs(60);

/// A server in a task of its own, and what a test does to it.
struct Running {
    listener: Listener,
    lifecycle: Arc<Lifecycle>,
    stop: CancellationToken,
    /// Lets the handler of `/slow` answer.
    go: CancellationToken,
    tasks: TaskGroup,
    served: tokio::sync::oneshot::Receiver<()>,
}

impl Running {
    fn new(limits: ConnectionLimits, finish_within: Duration) -> Self {
        let (listener, tasks) = (Listener::new("127.0.0.1:0".parse().unwrap()), TaskGroup::new("api"));
        let (lifecycle, stop, go) =
            (Arc::new(Lifecycle::default()), CancellationToken::new(), CancellationToken::new());
        let wait = go.clone();
        let slow = move || async move {
            wait.cancelled().await;
            "slow"
        };
        let router = Router::new()
            .route("/", get(|| async { "quick" }))
            .route("/slow", get(slow))
            .route("/echo", post(|body: String| async { body }));
        let server = Server {
            name: "api",
            router,
            lifecycle: Arc::clone(&lifecycle),
            tasks: tasks.clone(),
            limits,
            finish_within,
        };
        let bound = listener.open().unwrap();
        let (ended, served) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        TaskGroup::new("test").spawn("server", async move {
            serve(bound, server, stopped).await.unwrap();
            ended.send(()).unwrap();
        });
        Self { listener, lifecycle, stop, go, tasks, served }
    }

    fn usual() -> Self {
        let limits = ConnectionLimits {
            connections: 100,
            header_read: 10 * SECOND,
            write_stall: SECOND,
            idle: IDLE,
            header_bytes: 8_192,
        };
        Self::new(limits, 10 * SECOND)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.address().unwrap()).await.unwrap()
    }

    async fn served(self) {
        timeout(5 * SECOND, self.served).await.expect("the server ends").unwrap();
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn request(stream: &mut TcpStream, path: &str) {
    send(stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
}

/// Reads until `end` was read.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).ends_with(end) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        }
    };
    timeout(5 * SECOND, reading).await.expect("an answer");
    String::from_utf8(read).unwrap()
}

/// The rest of what comes, up to the end of the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    // A connection that was reset is as closed as any.
    let _ = timeout(5 * SECOND, stream.read_to_end(&mut read)).await.expect("the connection ends");
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_connection_is_kept_alive_until_the_process_drains() {
    let running = Running::usual();
    let mut stream = running.connect().await;
    request(&mut stream, "/").await;
    assert!(!read_until(&mut stream, "quick").await.contains("connection: close"));
    running.lifecycle.drain();
    request(&mut stream, "/").await;
    assert!(read_until(&mut stream, "quick").await.contains("connection: close"));
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn what_was_accepted_is_finished_and_nobody_else_is_let_in() {
    let running = Running::usual();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = running.connect().await;
        request(&mut stream, "/slow").await;
        clients.push(stream);
    }
    while running.tasks.len() < 20 {
        tokio::task::yield_now().await;
    }
    running.lifecycle.drain();
    running.stop.cancel();
    let address = running.listener.address().unwrap();
    while running.listener.address().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(TcpStream::connect(address).await.is_err());
    running.go.cancel();
    for mut stream in clients {
        assert!(read_until(&mut stream, "slow").await.starts_with("HTTP/1.1 200 OK"));
    }
    running.served().await;
}

#[tokio::test]
async fn a_request_that_waits_in_the_queue_of_the_system_is_answered_too() {
    let limits = ConnectionLimits {
        connections: 100,
        header_read: 10 * SECOND,
        write_stall: SECOND,
        idle: IDLE,
        header_bytes: 8_192,
    };
    let running = Running::new(limits, 10 * SECOND);
    running.lifecycle.drain();
    // On this one-threaded runtime the server has not run yet, so both are still in the queue.
    let address = running.listener.address().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.set_nonblocking(true).unwrap();
    running.stop.cancel();
    let answer = rest(TcpStream::from_std(stream).unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("quick"), "{answer}");
    running.served().await;
}

#[tokio::test]
async fn idle_connections_are_closed_at_the_stop() {
    let running = Running::usual();
    let mut idle = running.connect().await;
    request(&mut idle, "/").await;
    read_until(&mut idle, "quick").await;
    let silent = running.connect().await;
    running.lifecycle.drain();
    running.stop.cancel();
    assert_eq!(rest(idle).await, "");
    assert_eq!(rest(silent).await, "");
    running.served().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_costs_no_more_than_the_budget() {
    let limits = ConnectionLimits {
        connections: 100,
        header_read: 10 * SECOND,
        write_stall: SECOND,
        idle: IDLE,
        header_bytes: 8_192,
    };
    let running = Running::new(limits, FINISH_RESERVE + Duration::from_millis(200));
    let mut stream = running.connect().await;
    request(&mut stream, "/slow").await;
    while running.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    running.stop.cancel();
    running.served().await;
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < 4 * SECOND);
}

#[tokio::test]
async fn a_server_that_ends_alone_leaves_its_clients_waiting_for_the_next() {
    let running = Running::usual();
    let listener = running.listener.clone();
    running.stop.cancel();
    running.served().await;
    assert!(TcpStream::connect(listener.address().unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_or_not_at_all_is_cut_off() {
    let limits = ConnectionLimits {
        connections: 100,
        header_read: Duration::from_millis(300),
        write_stall: SECOND,
        idle: IDLE,
        header_bytes: 8_192,
    };
    let running = Running::new(limits, SECOND);
    let mut slow = running.connect().await;
    send(&mut slow, "GET / HTTP/1.1\r\nhost: x\r\n").await;
    let mut half_a_version = running.connect().await;
    send(&mut half_a_version, "PRI * HT").await;
    let silent = running.connect().await;
    for stream in [slow, half_a_version, silent] {
        let answer = rest(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    while !running.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let running = Running::usual();
    let mut stream = running.connect().await;
    send(&mut stream, &format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(20_000))).await;
    assert!(rest(stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let limits = ConnectionLimits {
        connections: 1,
        header_read: 10 * SECOND,
        write_stall: SECOND,
        idle: IDLE,
        header_bytes: 8_192,
    };
    let running = Running::new(limits, SECOND);
    let mut first = running.connect().await;
    request(&mut first, "/").await;
    read_until(&mut first, "quick").await;
    let mut second = running.connect().await;
    request(&mut second, "/").await;
    let early = timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "the second connection was served while the first was open");
    drop(first);
    assert!(read_until(&mut second, "quick").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_body_in_chunks_is_read_to_its_end() {
    let running = Running::usual();
    let mut stream = running.connect().await;
    send(&mut stream, "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    send(&mut stream, "3\r\nabc\r\n").await;
    send(&mut stream, "2\r\nde\r\n0\r\n\r\n").await;
    assert!(read_until(&mut stream, "abcde").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answers_is_cut_off() {
    let limits = ConnectionLimits {
        connections: 1,
        header_read: 10 * SECOND,
        write_stall: Duration::from_millis(300),
        idle: IDLE,
        header_bytes: 8_192,
    };
    let running = Running::new(limits, SECOND);
    let mut greedy = running.connect().await;
    // As much as the system's buffers take; then the server is not read from any more, and reads no more itself.
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    while timeout(Duration::from_millis(100), greedy.write_all(requests.as_bytes()))
        .await
        .is_ok_and(|sent| sent.is_ok())
    {}
    let mut other = running.connect().await;
    request(&mut other, "/").await;
    assert!(read_until(&mut other, "quick").await.starts_with("HTTP/1.1 200 OK"), "its place is free");
}

#[tokio::test]
async fn an_ambiguous_head_is_refused_and_nothing_behind_it_is_heard() {
    let running = Running::usual();
    let mut stream = running.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("the header host must come once"), "{answer}");
    assert!(answer.contains("connection: close") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
}

#[tokio::test]
async fn who_is_answered_in_the_middle_of_a_body_may_end_its_sentence() {
    let running = Running::usual();
    let mut stream = running.connect().await;
    send(&mut stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    // A connection that was reset would refuse the second of them.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        send(&mut stream, &"x".repeat(1_000)).await;
    }
}

/// A client of HTTP/2 that gives each answer so much room, and answers pings.
async fn share(
    running: &Running,
    window: u32,
) -> (hyper::client::conn::http2::SendRequest<Body>, tokio::sync::oneshot::Receiver<()>) {
    let mut builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(running.connect().await)).await.unwrap();
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    TaskGroup::new("test").spawn("client", async move {
        drop(connection.await);
        let _ = ended.send(());
    });
    (sender, has_ended)
}

fn ask(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap()
}

fn hurried() -> Running {
    let short = Duration::from_millis(300);
    let limits = ConnectionLimits {
        connections: 100,
        header_read: SECOND / 4,
        write_stall: short,
        idle: short,
        header_bytes: 8_192,
    };
    Running::new(limits, 10 * SECOND)
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_asked_to_go_and_one_with_a_request_is_not() {
    let running = hurried();
    let (mut idle, is_idle) = share(&running, 65_535).await;
    let (mut busy, mut is_busy) = share(&running, 65_535).await;
    let slow = busy.send_request(ask("/slow"));
    assert_eq!(idle.send_request(ask("/")).await.unwrap().status(), 200);
    let began = Instant::now();
    timeout(5 * SECOND, is_idle).await.expect("it is asked to go").unwrap();
    assert!(began.elapsed() >= SECOND / 4, "{:?}", began.elapsed());
    assert!(timeout(SECOND, &mut is_busy).await.is_err());
    running.go.cancel();
    assert_eq!(slow.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_of_http2_that_gives_its_answers_no_room_is_cut_off() {
    let running = hurried();
    for window in [0, 1] {
        let (mut sender, ended) = share(&running, window).await;
        let answer = sender.send_request(ask("/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        timeout(5 * SECOND, ended).await.expect("it is cut off").unwrap();
        while !running.tasks.is_empty() {
            tokio::time::sleep(SECOND / 100).await;
        }
    }
}
